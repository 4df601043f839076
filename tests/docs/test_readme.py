"""What README and docs show is run: every Python block, with the output that the page promises; every command."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import tokenize
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from fastscalar.cli.commands import parser

ROOT = Path(__file__).resolve().parents[2]
PAGES = ["README.md", "docs/from-the-article.md", "docs/from-the-article.zh-CN.md"]
INDEX = ["docs/README.md", "docs/architecture.md"]  # no code in these
PAGES_OF_CODE = [*PAGES, "docs/compile.md", "docs/porting.md", "docs/training.md",
                 "docs/play.md", "docs/estimators.md", "docs/data.md", "docs/runs.md", "docs/scale-out.md"]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)


def blocks(page: str) -> list[tuple[str, str]]:
    """(language, text) of each fenced block."""
    return FENCE.findall((ROOT / page).read_text(encoding="utf-8"))


def programs(page: str) -> list[tuple[str, str]]:
    """Each Python block with the output that follows it, "" if none does."""
    found = blocks(page)
    return [
        (text, following[1] if following[0] == "text" else "")
        for (language, text), following in zip(found, [*found[1:], ("", "")], strict=True)
        if language == "python"
    ]


@pytest.mark.parametrize("page", PAGES_OF_CODE)
def test_python_blocks(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # they may save files
    found = programs(page)
    assert found
    assert sum(language == "text" for language, _ in blocks(page)) == sum(bool(output) for _, output in found)
    namespace: dict[str, object] = {"__name__": "page"}
    for number, (code, output) in enumerate(found, start=1):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, f"{page}, Python block {number}", "exec"), namespace)
        assert printed.getvalue() == output, f"{page}, Python block {number}"


def test_the_first_screen() -> None:
    """The example with its four gradients, and what `fastscalar train` prints, in the form in which it prints it."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert programs("README.md")[0][1] == "6.0 4.0 2.0 1.0\n"
    assert text.index("6.0 4.0 2.0 1.0") < text.index("$ fastscalar train") < text.index("## Quick start")
    shown = next(block for language, block in blocks("README.md") if language == "console").splitlines()
    assert shown[0] == "$ " + next(block for language, block in blocks("README.md") if language == "sh").splitlines()[1]
    done = subprocess.run(
        [sys.executable, "-m", "fastscalar", "train", "--data", "synthetic", "--epochs", "3", "--limit", "300"],
        capture_output=True, text=True, timeout=300, check=True,
    )  # fmt: skip

    def form(line: str) -> list[str]:
        """Its words; a number is a number."""
        return re.sub(r"\d[\d,.]*", "0", line).split()

    printed = [line for line in done.stdout.splitlines() if "synthetic digits" not in line]  # the first and the last
    assert list(map(form, shown[2:-1])) == list(map(form, printed))


def test_the_library_in_fifteen_lines() -> None:
    code = programs("README.md")[1][0]
    assert len(code.splitlines()) <= 15
    assert max(map(len, code.splitlines())) <= 100


def test_quick_start_has_two_blocks() -> None:
    """Others rely on it: the first installs and trains, the second installs the tests and runs them."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = re.search(r"^## Quick start\n(.*?)^## ", text, re.M | re.S)
    assert section
    found = FENCE.findall(section.group(1))
    assert [language for language, _ in found] == ["sh", "sh"]
    first, second = (block.splitlines() for _, block in found)
    assert first[0] == "pip install ."
    assert first[1].startswith("fastscalar train --data auto")
    assert "[test]" in second[0]
    assert "python -m pytest" in second[1]


@pytest.mark.parametrize("page", PAGES)
def test_commands_exist(page: str) -> None:
    commands = [
        line.split("#")[0]
        for language, text in blocks(page)
        if language == "sh"
        for line in text.splitlines()
        if line.startswith("fastscalar ")
    ]
    assert commands
    for command in commands:
        args = parser().parse_args(shlex.split(command)[1:])
        assert callable(args.run), command


def test_the_readme_commands_run(tmp_path: Path) -> None:
    """Those of "The command line" in order, on little data and for one epoch."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text.partition("\n## The command line\n")[2]
    lines = FENCE.findall(section)[0][1].splitlines()
    assert len(lines) == 8
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    ours = ("FASTSCALAR_", "XDG_")
    env = {key: value for key, value in os.environ.items() if not key.startswith(ours)}
    env |= {"HOME": str(tmp_path / "home"), "FASTSCALAR_MIRRORS": "http://127.0.0.1:9/", "XDG_DATA_DIRS": str(tmp_path)}
    for line in lines:
        words = shlex.split(line.replace("--data mnist", "--data synthetic"))
        if words[1] == "train" and "--resume" not in words:
            words += ["--limit", "200", "--epochs", "1", "--data", "synthetic"]  # the last of each counts
        command = [sys.executable, "-m", *words]
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300, check=False)
        assert (done.returncode, done.stderr) == (0, ""), line
        assert done.stdout


def code_only(code: str) -> list[str]:
    """The tokens of a program without its comments and its layout."""
    skipped = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE)
    tokens = tokenize.generate_tokens(io.StringIO(code).readline)
    return [token.string for token in tokens if token.type not in skipped]


def test_both_languages_show_the_same_code() -> None:
    english, chinese = programs(PAGES[1]), programs(PAGES[2])
    assert [code_only(code) for code, _ in english] == [code_only(code) for code, _ in chinese]
    assert [output for _, output in english] == [output for _, output in chinese]


@pytest.mark.parametrize("page", [*PAGES_OF_CODE, *INDEX, "CONTRIBUTING.md", "CHANGELOG.md", "docs/performance.md"])
def test_links_lead_somewhere(page: str) -> None:
    text = FENCE.sub("", (ROOT / page).read_text(encoding="utf-8"))
    targets = re.findall(r"\]\(([^)\s]+)\)", text)
    local = [target.partition("#")[0] for target in targets if "://" not in target]
    for target in local:
        assert ((ROOT / page).parent / target).exists(), target
    for name in re.findall(r"`((?:src|tests|examples|docs|benchmarks)/[\w./-]*)`", text):
        assert (ROOT / name).exists(), name


@pytest.mark.parametrize(("picture", "page"), [("tape", "README.md"), ("architecture", "docs/architecture.md")])
def test_the_pictures_are_sound(picture: str, page: str) -> None:
    root = ElementTree.parse(ROOT / "docs" / f"{picture}.svg").getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert root.get("aria-label")
    assert f"{picture}.svg)" in (ROOT / page).read_text(encoding="utf-8")


def test_the_index_leads_to_every_page() -> None:
    text = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    pages = {path.name for path in (ROOT / "docs").glob("*.md")} - {"README.md"}
    assert {name for name in pages if f"({name}" not in text} == set()


def test_the_architecture_names_what_is_there() -> None:
    """The rooms of the picture are the packages; every file that the page names exists."""
    rooms = {path.parent.name for path in (ROOT / "src" / "fastscalar").glob("*/__init__.py")}
    picture = (ROOT / "docs" / "architecture.svg").read_text(encoding="utf-8")
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert {room for room in rooms if f">{room}<" not in picture or f"`{room}/`" not in text} == set()
    for name in re.findall(r"`([\w/]+\.(?:py|pyx|pxd|c))`", text):
        assert (ROOT / "src" / "fastscalar" / name).exists(), name


def test_the_picture_tells_the_truth() -> None:
    """The numbers in its table are those of the program beside it."""
    import fastscalar as fs

    a, b = fs.Tensor(2), fs.Tensor(3)
    x = a * b
    z = x + x
    z.backward()
    root = ElementTree.parse(ROOT / "docs" / "tape.svg").getroot()
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    shown = [texts.index(f"{k}  {name}") for k, name in enumerate("abxz", start=1)]
    for node, i, end in zip((a, b, x, z), shown, [*shown[1:], None], strict=True):
        assert texts[i:end][1:2] == [node._op or "leaf"]
        numbers = [text for text in texts[i : i + 5] if text and re.fullmatch(r"\d+\.\d", text)]
        assert numbers[:2] == [f"{node.data:.1f}", f"{node.grad:.1f}"]


def test_what_the_page_on_porting_says_of_pytorchs_names() -> None:
    """What is there, and what is not."""
    import fastscalar as fs

    text = " ".join((ROOT / "docs" / "porting.md").read_text(encoding="utf-8").split())
    there, _, missing = text.partition("have PyTorch's names, but not all of its options: ")
    named = re.findall(r"`(\w+)[=(`]", there[there.rindex("**Replace**") :])
    found = {"momentum", "weight_decay"} | {n for o in (fs, fs.Tensor, fs.SGD, fs.Module, fs.math) for n in dir(o)}
    assert set(named) - {"x", "torch", "fastscalar"} <= found
    fs.SGD([], lr=0.1, momentum=0.9, weight_decay=0.1)
    assert missing.startswith("there is no `dim=` (`axis=`, as in NumPy), `no_grad` is no decorator, and a `Module`")
    assert not callable(fs.no_grad())
    assert not hasattr(fs.Module, "zero_grad")
    with pytest.raises(TypeError, match="dim"):
        fs.to_tensor([1.0, 2.0]).sum(dim=0)  # type: ignore[call-arg]
