"""`tables.py` and `ceiling.py`: from small figures to pages, and what happens where figures are missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import ceiling
import figures as kept_figures
import tables


def bar(value: float, unit: str = "x", at_most: float | None = None, at_least: float | None = None) -> dict[str, Any]:
    return {"value": value, "unit": unit, "at_most": at_most, "at_least": at_least, "met": True}


RACE = {
    "fastscalar": {"correct": True, "version": "1", "samples_per_s": 1_000.0},
    "fastscalar compiled": {"correct": True, "version": "1", "samples_per_s": 4_000.0},
    "twin": {"correct": True, "version": "1", "samples_per_s": 500.0},
}
RUN = {
    "machine_info": {"cpu": {"count": 2}},
    "datetime": "2026-01-01T00:00:00",
    "benchmarks": [
        {
            "group": "mlp",
            "name": "test_a_step[mlp-sparse]",
            "param": "mlp-sparse",
            "extra_info": {
                "kernels": "avx2",
                "cpu": "a CPU",
                "python": "3",
                "fastscalar": "1",
                "numpy": "2",
                "contestants": RACE,
                "mlp: sparse, twin, scaled from 8 hidden units": bar(40_000.0, "us/step"),
                "mlp: sparse, fastscalar": bar(1_000.0, "us/step"),
            },
        },
        {"group": None, "name": "test_a", "param": None, "extra_info": {"a: fast": bar(2.0, at_least=1.0)}},
        {"group": None, "name": "test_b", "param": None, "extra_info": {"b: slow": bar(3.0, "ns", at_most=2.0)}},
        {"group": None, "name": "test_c", "param": None, "extra_info": {"b: slow": bar(5.0, "ns", at_most=2.0)}},
    ],
}


@pytest.fixture
def figures() -> tables.Figures:
    return tables.Figures([RUN])


def cells(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]


def test_a_race(figures: tables.Figures) -> None:
    head, _, *body = cells(tables.TEXTS["mlp"](figures))
    assert head == ["contestant", "sparse, samples/s", "ours is faster", "checked"]
    assert body == [
        ["fastscalar", "1,000", "4.00 x", "yes"],
        ["fastscalar compiled", "4,000", "1.00 x", "yes"],
        ["twin", "25", "160 x", "yes"],  # scaled
    ]


def test_bars_met_and_not(figures: tables.Figures) -> None:
    _, _, *body = cells(tables.TEXTS["bars"](figures))
    assert body == [["a: fast", "2.00 x", "at least 1", "met"], ["b: slow", "4.00 ns", "at most 2", "**no**"]]
    assert tables.TEXTS["short"](figures) == (
        "1 of 2 bars are met.\n\n* b: slow: 4.00 ns where 2 was meant, short by 100 %"
    )


def test_pages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What has figures is written, twice the same; what has none stays, and is named."""
    (tmp_path / "docs").mkdir()
    page, readme = tmp_path / "docs" / "performance.md", tmp_path / "README.md"
    text = "before\n<!-- tables: begin {0} -->\n\nold\n\n<!-- tables: end {0} -->\nafter\n"
    page.write_text(text.format("short"))
    readme.write_text(text.format("readme"))
    (tmp_path / "run.json").write_text(json.dumps(RUN))
    arguments = [str(tmp_path / "run.json"), "--into", str(tmp_path)]
    assert tables.main(arguments) == 0
    once = page.read_text()
    assert "1 of 2 bars" in once
    assert "old" not in once
    assert once.startswith("before\n")
    assert once.endswith("-->\nafter\n")
    assert readme.read_text() == text.format("readme")
    assert "readme left as it is: missing linear10: linear10-sparse" in capsys.readouterr().out
    tables.main(arguments)
    assert page.read_text() == once


def test_what_is_kept_makes_the_same_tables(figures: tables.Figures) -> None:
    """A line for each figure; what the sides of a race say is not said twice."""
    text = kept_figures.kept(figures.parts)
    again = tables.Figures([json.loads(text)])
    for name in ("mlp", "bars", "short", "about"):
        assert tables.TEXTS[name](again) == tables.TEXTS[name](figures)
    assert list(again.bars) == ["a: fast", "b: slow"]
    assert all(line.count("{") <= 2 for line in text.splitlines())


def test_one_pair_has_one_figure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Shown twice, a ratio agrees with itself within 1.3; else both are named, and the command fails."""
    found = {"g: a": bar(60.0, "ns"), "g: b": bar(20.0, "ns"), "g: a / b": bar(3.5)}
    found |= {"g: c": bar(60.0, "ns"), "g: c, ours beside it": bar(1.0, "ns"), "g: c / ours": bar(48.0)}
    assert tables.contradictions(tables.Figures([{"bars": found}])) == []
    found["g: c / ours"] = bar(45.0)
    assert tables.contradictions(tables.Figures([{"bars": found}])) == [
        "g: c / ours: 45.0 by the ratio, 60.0 by the two figures"
    ]
    for page in tables.PAGES:
        (tmp_path / page).parent.mkdir(exist_ok=True)
        (tmp_path / page).write_text("")
    (tmp_path / "kept.json").write_text(json.dumps({"bars": found}))
    assert tables.main([str(tmp_path / "kept.json"), "--into", str(tmp_path)]) == 1
    assert "two figures for one pair: g: c / ours" in capsys.readouterr().err


def test_where_others_are_faster() -> None:
    sides = {"fastscalar compiled": 1_000.0, "Numba by hand": 1_500.0, "twin": 1.0}
    slower = sides | {"Numba by hand": 500.0}

    def said(first: dict[str, float]) -> str:
        names = [*tables.COLUMNS.values(), "linear1: linear1-sparse"]
        names += ["minibatch: mlp-sparse-256-1", "minibatch: mlp-dense-256-1"]
        races = {name: {side: {"samples_per_s": rate} for side, rate in slower.items()} for name in names}
        races["linear10: linear10-dense"] = {side: {"samples_per_s": rate} for side, rate in first.items()}
        return tables.TEXTS["faster"](tables.Figures([{"races": races}]))

    assert said(sides) == "**Others are faster** at `Linear(784, 10)` without zeros, 1.50 times (Numba by hand)."
    assert said(slower) == "None of the others was faster in these."


def test_every_mark_has_a_text() -> None:
    for page in tables.PAGES:
        names = [found.group(2) for found in tables.MARK.finditer((tables.TOP / page).read_text(encoding="utf-8"))]
        assert names
        assert set(names) <= set(tables.TEXTS)


def test_what_the_cpu_can_do(tmp_path: Path) -> None:
    file = tmp_path / "ceiling.json"
    assert ceiling.main(["--quick", "--json", str(file)]) == 0
    found = json.loads(file.read_text(encoding="utf-8"))
    assert all(rate > 1e8 for rate in found["products_per_s"].values())
    assert all(rates["copied"] > 1e8 for rates in found["bytes_per_s"].values())
    names = list(found["demands"])
    assert len(cells(ceiling.limits_table(found, dict.fromkeys(names, 1.0)))) == 2 + len(names)


def test_demands() -> None:
    eager, one, single, batch = ceiling.demands(150).values()
    assert eager["products"] == 2 * 150 * 256 + 3 * 2_560
    assert eager["bytes"] == 5 / 3 * one["bytes"] == 10 / 3 * single["bytes"]
    assert batch["bytes"] < single["bytes"]
