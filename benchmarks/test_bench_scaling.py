"""`scaling.py`, which is run by itself, at its smallest size: its checks, its tables, its picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import scaling
from contestants.base import absent


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    file = tmp_path_factory.mktemp("scaling") / "figures.json"
    assert scaling.main(["--quick", "--json", str(file)]) == 0
    return json.loads(file.read_text(encoding="utf-8"))


def test_all_is_checked(figures: dict[str, Any]) -> None:
    quick = scaling.QUICK
    assert [row["nodes"] for row in figures["nodes"]] == quick["nodes"]
    assert {(row["net"], row["width"]) for row in figures["widths"]} == {
        (kind, width) for kind in ("784-W-10", "W-W-10") for width in quick["widths"]
    }
    assert [row["batch"] for row in figures["batches"] if row["threads"] == 1] == quick["batches"]
    for part in ("nodes", "widths", "batches"):
        assert all(row.get("correct", "skipped" in row) for row in figures[part])


def test_tables(figures: dict[str, Any]) -> None:
    for name, table in scaling.TABLES.items():
        lines = table(figures).splitlines()
        rows = [row for row in figures[name] if row.get("threads", 1) == 1]
        assert len(lines) == 2 + len(rows)
        assert len({len(line) for line in lines}) == 1


def test_picture(figures: dict[str, Any], tmp_path: Path) -> None:
    if why := absent("matplotlib"):
        pytest.skip(why)
    scaling.picture(figures, tmp_path / "scaling.svg")
    text = (tmp_path / "scaling.svg").read_text(encoding="utf-8")
    assert "<svg" in text


def test_what_does_not_fit_is_skipped_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling, "available_memory", lambda: 2**20)
    (row,) = scaling.node_rows([10**8])
    assert "GB" in row["skipped"]
    assert "skipped" in scaling.nodes_table({"nodes": [row]})


def test_products() -> None:
    """One sample of 784-256-10 with 150 inputs that are not zero."""
    assert scaling.products((784, 256, 10), 150) == 2 * 150 * 256 + 3 * 2_560


def test_a_wrong_figure_is_noticed(figures: dict[str, Any]) -> None:
    assert scaling.correct(figures)
    wrong = figures | {"batches": [{**figures["batches"][0], "correct": False}]}
    assert not scaling.correct(wrong)
