"""The figures of a run, of `scaling.py` and of `ceiling.py`: what pages may show, and what is kept of a release."""

from __future__ import annotations

import json
import statistics
from typing import Any

RACES = {"linear1", "linear10", "mlp", "minibatch"}  # their figures are those of their sides


class Missing(KeyError):
    """No figure of this name in the files."""


Side = dict[str, Any]  # correct, version, and samples_per_s or ns_per_operation


class Figures:
    """What the files say.  `bars` are all figures that a benchmark has recorded, `races` who ran against whom."""

    def __init__(self, files: list[dict[str, Any]]) -> None:
        parts: dict[str, Any] = {}
        for file in files:
            if "benchmarks" in file:
                parts |= condensed(file)
            elif "widths" in file:
                parts["scaling"] = file
            elif "demands" in file:
                parts["ceiling"] = file
            else:
                parts |= file
        self.parts = parts
        self.scaling, self.ceiling, self.run = (parts.get(name) for name in ("scaling", "ceiling", "about"))
        self.bars: dict[str, dict[str, Any]] = parts.get("bars", {})
        self.races: dict[str, dict[str, Side]] = parts.get("races", {})  # "group: label"

    def value(self, name: str) -> float:
        if name not in self.bars:
            raise Missing(name)
        return self.bars[name]["value"]

    def race(self, name: str) -> dict[str, float]:
        """Samples a second of everybody."""
        if name not in self.races:
            raise Missing(name)
        return {side: about["samples_per_s"] for side, about in self.races[name].items()}


def condensed(run: dict[str, Any]) -> dict[str, Any]:
    """Of a file of pytest-benchmark, what a page may show.  What several benchmarks have recorded is its median."""
    infos = [benchmark["extra_info"] for benchmark in run["benchmarks"]]
    found: dict[str, list[dict[str, Any]]] = {}
    races: dict[str, dict[str, Side]] = {}
    for benchmark, info in zip(run["benchmarks"], infos, strict=True):
        group, label = benchmark["group"] or "", benchmark.get("param") or benchmark["name"].removeprefix("test_")
        sides = {name: dict(side) for name, side in info.get("contestants", {}).items()}
        for name, figure in info.items():
            if isinstance(figure, dict) and "met" in figure:
                side, _, note = name.partition(": ")[2].partition(", ")[2].partition(", scaled from ")
                if note:
                    sides[side] |= {"samples_per_s": 1e6 / figure["value"], "scaled": f"from {note}"}
                if not sides or has_limit(figure) or group not in RACES:
                    found.setdefault(name, []).append(figure)
        if sides:
            kept = ("correct", "version", "samples_per_s", "ns_per_operation", "scaled")
            races[f"{group}: {label}"] = {
                name: {key: short_number(side[key]) for key in kept if key in side} for name, side in sides.items()
            }
    bars = {}
    for name, each in found.items():
        limits = {key: each[0][key] for key in ("at_most", "at_least") if each[0][key] is not None}
        value = statistics.median(one["value"] for one in each)
        bars[name] = {"value": short_number(value), "unit": each[0]["unit"], **limits}
    info = next((info for info in infos if "kernels" in info), {})
    about = {key: info.get(key) for key in ("cpu", "kernels", "fastscalar", "python", "numpy")}
    about |= {"cores": run["machine_info"]["cpu"].get("count"), "date": run["datetime"][:10]}
    return {"about": about, "bars": bars, "races": races}


def short_number(value: Any) -> Any:
    """Four digits that count: more would say more than was measured."""
    return float(f"{value:.4g}") if isinstance(value, float) else value


def kept(parts: dict[str, Any]) -> str:
    """JSON with a line for each figure, so that two of them can be compared by eye."""

    def rounded(part: Any) -> Any:
        if isinstance(part, dict):
            return {key: rounded(value) for key, value in part.items()}
        return [rounded(value) for value in part] if isinstance(part, list) else short_number(part)

    def lines(part: Any) -> str:
        if isinstance(part, dict) and any(isinstance(value, (dict, list)) for value in part.values()):
            return "{\n" + ",\n".join(f"{json.dumps(k)}: {lines(v)}" for k, v in part.items()) + "\n}"
        if isinstance(part, list):
            return "[\n" + ",\n".join(map(json.dumps, part)) + "\n]"
        return json.dumps(part)

    return lines(rounded(parts)) + "\n"


def needed(part: dict[str, Any] | None, what: str) -> dict[str, Any]:
    if part is None:
        raise Missing(f"the file of {what}")
    return part


def has_limit(bar: dict[str, Any]) -> bool:
    return bar.get("at_most") is not None or bar.get("at_least") is not None


def limit_of(bar: dict[str, Any]) -> float:
    return bar["at_least"] if "at_least" in bar else bar["at_most"]


def met(bar: dict[str, Any]) -> bool:
    return bar["value"] >= bar["at_least"] if "at_least" in bar else bar["value"] <= bar["at_most"]
