"""Graphs as boxes: what is drawn is what the engine has, and the graph is afterwards what it was."""

import random
import re

import numpy as np
import pytest

import fastscalar as fs
from fastscalar.play import graphs
from fastscalar.play.graphs import Drawing, Graphs


def named(page):
    return {box["label"]: box for box in page["boxes"] if box["label"]}


def test_the_articles_graph():
    page = Graphs().show({"graph": "hand"})
    boxes = named(page)
    assert [boxes[n]["grad"][0] for n in "abxz"] == [6.0, 4.0, 2.0, 1.0]
    assert boxes["z"]["partials"] == [2.0]
    assert boxes["x"]["partials"] == [3.0, 2.0]
    assert boxes["x"]["code"] == "x = a * b"
    assert page["source"][boxes["x"]["line"] - 1] == "x = a * b"


@pytest.mark.parametrize("key", graphs.EXAMPLES)
def test_the_examples_know_their_lines_and_names(key):
    page = Graphs().show({"graph": key})
    operations = [box for box in page["boxes"] if box["parents"]]
    assert operations
    assert all(page["source"][box["line"] - 1].strip() == box["code"] for box in operations)
    assert page["boxes"][-1]["grad"] == [1.0, 1.0]
    assert page["frames"]
    assert page["boxes"][-1]["label"]


def replayed(page):
    """Gradients as the page computes them, with the slopes."""
    g = [0.0] * len(page["boxes"])
    g[-1] = 1.0
    for box in reversed(page["boxes"]):
        for parent, slope in zip(box["parents"], box.get("partials", ()), strict=bool(box.get("partials"))):
            g[parent] += slope * g[box["id"]]
    return g


OPERATIONS = [
    lambda a, b: a + b, lambda a, b: a * b, lambda a, b: a - b, lambda a, b: a.tanh(), lambda a, b: a.relu(),
    lambda a, b: a * 0.5, lambda a, b: 1 - a, lambda a, b: a.sigmoid() * b, fs.maximum, lambda a, b: -a,
]  # fmt: skip


def program(seed):
    rng = random.Random(seed)
    nodes = [fs.Tensor(rng.uniform(-2, 2)) for _ in range(4)]
    for _ in range(25):
        nodes.append(rng.choice(OPERATIONS)(rng.choice(nodes), rng.choice(nodes)))
        if abs(nodes[-1].data) > 1e3:
            nodes[-1] = nodes[-1] * 1e-3
    return nodes


@pytest.mark.parametrize("seed", range(25))
def test_what_is_drawn_is_what_the_engine_computes(seed):
    """Of any program: values, final gradients, each backward step, and the gradients that the slopes give."""
    nodes = program(seed)
    root = nodes[-1]
    rng = random.Random(-seed)
    for node in nodes:
        node.grad = rng.uniform(-1, 1)           # what the user has there
    before = [node.grad for node in nodes]
    drawing = Drawing(root)
    assert [node.grad for node in nodes] == before
    page = drawing.page
    root.backward()
    firsts = [one.first for one in drawing.instructions]
    assert [box["data"][0] for box in page["boxes"]] == [first.data for first in firsts]
    assert [box["grad"][0] for box in page["boxes"]] == [first.grad for first in firsts]
    np.testing.assert_allclose(replayed(page), [first.grad for first in firsts], rtol=1e-12, atol=1e-300)
    last = {}
    for frame in page["frames"]:
        last |= frame["grads"]
    assert all(value[0] == firsts[k].grad for k, value in last.items())


def test_a_net_is_a_box_for_each_array_and_its_steps_are_the_engines():
    net = fs.MLP(6, [5, 3], seed=0)
    drawing = Drawing(lambda: fs.cross_entropy(net(np.arange(6.0)), 1), {"net": net})
    page = drawing.page
    assert [box["op"] for box in page["boxes"] if box["op"]] == ["linear", "relu", "linear", "cross_entropy"]
    drawing.root.backward()
    w = np.asarray(net.linears[0].w.grad)
    assert named(page)["net.linears[0].w"]["grad"] == [w.min(), w.max()]
    last = {}
    for frame in page["frames"]:
        last |= frame["grads"]
    for k, value in last.items():
        np.testing.assert_allclose(value, page["boxes"][k]["grad"], rtol=1e-12)


def test_lines_of_a_users_function_are_known():
    def f():
        x = fs.Tensor(2.0, label="x")
        return x * x + 1                         # the line

    page = Drawing(f).page
    assert page["boxes"][-1]["code"] == "return x * x + 1                         # the line"
    assert page["boxes"][-1]["file"] == "test_play_graphs.py"
    assert Drawing(f()).page["boxes"][-1]["line"] is None


def chain(n):
    x = fs.Tensor(1.0)
    for _ in range(n):
        x = x * 1.0001
        x = x + 0.01
    return x


@pytest.mark.parametrize("lines", [False, True])
def test_a_large_graph_is_folded_and_every_operation_is_inside_somewhere(lines):
    drawing = Drawing((lambda: chain(700)) if lines else chain(700))
    page = drawing.page
    assert page["folded"]
    assert len(page["boxes"]) <= graphs.MOST
    assert page["operations"] == 1400
    assert sum(box["count"] for box in page["boxes"]) == len(drawing.instructions)
    if lines:
        by_code = {box["code"]: box["count"] for box in page["boxes"] if box["op"] in "*+" and box["op"]}
        assert by_code == {"x = x * 1.0001": 700, "x = x + 0.01": 700}
    found = 0
    for box in page["boxes"]:
        at = 0
        while at < box["count"]:
            inside = drawing.inside(box["id"], at)
            shown = [b for b in inside["boxes"] if not b["outside"]]
            assert [b["id"] for b in inside["boxes"]] == list(range(len(inside["boxes"])))
            assert shown
            assert all(p < b["id"] for b in inside["boxes"] for p in b["parents"])
            at += len(shown)
            found += len(shown)
    assert found == len(drawing.instructions)


def test_a_graph_whose_values_were_changed_is_drawn_without_its_steps():
    x = fs.Tensor(2.0)
    y = x * x
    x.data = 5.0
    page = Drawing(y).page
    assert page["frames"] is None
    assert "written after" in page["why"]
    assert page["boxes"][0]["data"] == [5.0, 5.0]


def test_infinite_and_missing_numbers_are_json():
    x = fs.Tensor(1e200)
    page = Drawing(x * x - x * x).page
    assert [box["data"][0] for box in page["boxes"]][-1] is None
    assert page["boxes"][1]["data"][0] == "inf"


@pytest.mark.parametrize("made", [1.0, "x", None, lambda: 3.0, lambda: None, [1], fs.MLP])
def test_what_is_no_graph_is_a_type_error(made):
    with pytest.raises((TypeError,)):
        Drawing(made)


def test_a_leaf_alone():
    page = Drawing(fs.Tensor(3.0)).page
    assert len(page["boxes"]) == 1
    assert page["frames"] == []
    assert page["boxes"][0]["grad"] == [1.0, 1.0]


def test_words_are_there_in_both_languages():
    text = (graphs.__file__.rpartition("/")[0] + "/static/words.js")
    with open(text, encoding="utf-8") as file:
        english, chinese = file.read().split("\n  zh: {")
    keys = [set(re.findall(r"[{, ]([a-z_0-9]+): \"", part)) for part in (english, chinese)]
    assert keys[0] == keys[1]
    assert len(keys[0]) > 80
    used = {f"g_{key}" for key in [*graphs.EXAMPLES, "yours", "net"]}
    assert used <= keys[0]
