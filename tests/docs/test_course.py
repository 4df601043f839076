"""The notebooks of the course: each runs from top to bottom and prints what is stored with it."""

import contextlib
import io
import json
from pathlib import Path

import pytest

COURSE = Path(__file__).resolve().parents[2] / "docs" / "course"
LESSONS = sorted(path.name for path in COURSE.glob("*.ipynb"))


def cells(lesson):
    return json.loads((COURSE / lesson).read_text(encoding="utf-8"))["cells"]


def tagged(lesson, tag):
    return [k for k, cell in enumerate(cells(lesson)) if tag in cell["metadata"].get("tags", ())]


def test_there_are_ten_lessons_and_the_index_leads_to_each():
    index = (COURSE / "README.md").read_text(encoding="utf-8")
    assert len(LESSONS) == 10
    assert [name for name in LESSONS if f"({name})" not in index] == []


@pytest.mark.parametrize("lesson", LESSONS)
def test_a_lesson_prints_what_is_stored_with_it(lesson, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": lesson}
    for k, cell in enumerate(cells(lesson)):
        if cell["cell_type"] != "code":
            continue
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile("".join(cell["source"]), f"{lesson}, cell {k}", "exec"), namespace)
        assert printed.getvalue() == "".join(line for out in cell["outputs"] for line in out["text"]), k
    assert list(tmp_path.iterdir()) == []        # a lesson leaves nothing behind


@pytest.mark.parametrize("lesson", LESSONS)
def test_an_exercise_is_followed_by_its_solution(lesson):
    exercises, solutions = tagged(lesson, "exercise"), tagged(lesson, "solution")
    assert exercises
    assert solutions == [k + 1 for k in exercises]


@pytest.mark.parametrize("lesson", LESSONS)
def test_a_lesson_is_a_notebook(lesson):
    book = json.loads((COURSE / lesson).read_text(encoding="utf-8"))
    assert (book["nbformat"], book["nbformat_minor"]) == (4, 5)
    assert book["cells"][0]["source"][0].startswith("# ")
    assert len({cell["id"] for cell in book["cells"]}) == len(book["cells"])
