"""Completion for bash, zsh and fish, written from the parser: commands, options, their choices, and files."""

from __future__ import annotations

import argparse
import shlex

from fastscalar.cli.sources import NAMES

FILES, VALUE = "FILES", ""  # what may follow an option: a path; something that cannot be guessed
PATHS = ("DATA", "DIR", "FILE", "MODEL", "IMAGE")  # names of values in the help


def words_of(top: argparse.ArgumentParser) -> dict[str, dict[str, list[str]]]:
    """For each command its options, each with what may follow: words, then FILES, or nothing."""
    (commands,) = (a for a in top._actions if isinstance(a, argparse._SubParsersAction))
    found: dict[str, dict[str, list[str]]] = {}
    for name, command in commands.choices.items():
        found[name] = {}
        for action in command._actions:
            takes = action.nargs != 0
            after = [FILES if action.metavar in PATHS else VALUE] if takes else []
            after = list(map(str, action.choices)) if action.choices else after
            if action.metavar == "DATA":
                after = [*NAMES, FILES]
            for option in action.option_strings or [""]:     # "": an argument without a name
                found[name].setdefault(option, []).extend(after)
    return found


def _chosen(after: list[str]) -> str:
    """The words among what may follow."""
    return " ".join(word for word in after if word not in (FILES, VALUE))


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
                made = "compgen" + " -f" * (FILES in after)
                if chosen := _chosen(after):
                    made += f" -W {shlex.quote(chosen)}"
                cases.append(f'    "{command} {option}") COMPREPLY=($({made} -- "$word")); return;;')
    for command, options in words.items():
        named = " ".join(option for option in options if option)
        free = _chosen(options.get("", []))
        files = ' $(compgen -f -- "$word")' if FILES in options.get("", []) else ""
        all_words = shlex.quote(f"{free} {named}".strip())
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
            chosen = _chosen(after)
            choices = f"({chosen or ' '})"
            if FILES in after:
                choices = f"{{compadd {chosen}; _files}}" if chosen else "_files"
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
                lines += [f"{here} -f -a {shlex.quote(free)}"] if (free := _chosen(after)) else []
                continue
            flag = f"-l {option[2:]}" if option.startswith("--") else f"-s {option[1:]}"
            value = "" if not after else " -r -F" if FILES in after else " -x"
            if chosen := _chosen(after):
                value += f" -a {shlex.quote(chosen)}"
            lines.append(f"{here} {flag}{value}")
    return "\n".join(lines)
