"""Completion for bash, zsh and fish, written from the parser: commands, options, their choices, and files."""

from __future__ import annotations

import argparse
import shlex

FILES, VALUE = "FILES", ""  # what may follow an option: a path; something that cannot be guessed
PATHS = ("DATA", "DIR", "FILE", "MODEL", "IMAGE")  # names of values in the help


def words_of(top: argparse.ArgumentParser) -> dict[str, dict[str, list[str]]]:
    """For each command its options, each with what may follow: choices, FILES, or nothing."""
    (commands,) = (a for a in top._actions if isinstance(a, argparse._SubParsersAction))
    found: dict[str, dict[str, list[str]]] = {}
    for name, command in commands.choices.items():
        found[name] = {}
        for action in command._actions:
            takes = action.nargs != 0
            after = [FILES if action.metavar in PATHS else VALUE] if takes else []
            after = list(map(str, action.choices)) if action.choices else after
            for option in action.option_strings or [""]:     # "": an argument without a name
                found[name].setdefault(option, []).extend(after)
    return found


def script(shell: str, top: argparse.ArgumentParser) -> str:
    words = words_of(top)
    return {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell](words, top)


def _bash(words: dict[str, dict[str, list[str]]], top: argparse.ArgumentParser) -> str:
    cases = []
    for command, options in words.items():
        for option, after in options.items():
            if option and after:
                if after == [VALUE]:
                    cases.append(f'    "{command} {option}") COMPREPLY=(); return;;')
                    continue
                made = "compgen -f" if after == [FILES] else f"compgen -W {shlex.quote(' '.join(after))}"
                cases.append(f'    "{command} {option}") COMPREPLY=($({made} -- "$word")); return;;')
    for command, options in words.items():
        named = " ".join(option for option in options if option)
        free = [word for word in options.get("", []) if word not in (FILES, VALUE)]
        files = ' $(compgen -f -- "$word")' if FILES in options.get("", []) else ""
        all_words = shlex.quote(" ".join([*free, named]))
        cases.append(f'    "{command} "*) COMPREPLY=($(compgen -W {all_words} -- "$word"){files}); return;;')
    commands = shlex.quote(" ".join([*words, "--help", "--version"]))
    return f"""_fastscalar() {{
  local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}}
  if [ "$COMP_CWORD" -eq 1 ]; then COMPREPLY=($(compgen -W {commands} -- "$word")); return; fi
  case "${{COMP_WORDS[1]}} $before" in
{chr(10).join(cases)}
  esac
}}
complete -o filenames -F _fastscalar fastscalar"""


def _zsh(words: dict[str, dict[str, list[str]]], top: argparse.ArgumentParser) -> str:
    cases = []
    for command, options in words.items():
        lines = []
        for option, after in options.items():
            choices = "_files" if after == [FILES] else "( )" if after == [VALUE] else f"({' '.join(after)})"
            action = f":value:{choices}" if after else ""
            lines.append(f"      {shlex.quote((option or '*:') + (action[1:] if not option else action))}")
        cases.append(f"    {command}) _arguments \\\n" + " \\\n".join(lines) + ";;")
    return f"""#compdef fastscalar
_fastscalar() {{
  if (( CURRENT == 2 )); then compadd {' '.join(words)} --help --version; return; fi
  local command=$words[2]
  shift words; (( CURRENT-- ))
  case $command in
{chr(10).join(cases)}
  esac
}}
compdef _fastscalar fastscalar"""


def _fish(words: dict[str, dict[str, list[str]]], top: argparse.ArgumentParser) -> str:
    lines = ["complete -c fastscalar -n __fish_use_subcommand -f -a " + shlex.quote(" ".join(words))]
    for command, options in words.items():
        here = f"complete -c fastscalar -n '__fish_seen_subcommand_from {command}'"
        for option, after in options.items():
            if not option:
                free = [word for word in after if word not in (FILES, VALUE)]
                lines += [f"{here} -f -a {shlex.quote(' '.join(free))}"] if free else []
                continue
            flag = f"-l {option[2:]}" if option.startswith("--") else f"-s {option[1:]}"
            one = " -x" if after == [VALUE] else f" -x -a {shlex.quote(' '.join(after))}"
            value = "" if not after else " -r -F" if FILES in after else one
            lines.append(f"{here} {flag}{value}")
    return "\n".join(lines)
