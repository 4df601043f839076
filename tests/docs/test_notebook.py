"""A notebook as users have it, run by a kernel: its outputs hold the bar, the table of the history, the pictures."""

from __future__ import annotations

import base64
import io
import re
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")
pytest.importorskip("matplotlib")

CELLS = [
    "import numpy as np\nimport fastscalar as fs",
    "(X, y), (X_test, y_test) = fs.datasets.synthetic_digits(400, 100)\n"
    "X, X_test = X.reshape(-1, 784) / 255, X_test.reshape(-1, 784) / 255\n"
    "net = fs.MLP(784, [16, 10], seed=0)",
    "history = fs.fit(net, X, y, epochs=3, validation_data=(X_test, y_test))",
    "history",
    "history.plot()",
    "fs.plot.images(X_test[:6], y_test[:6])",
    "fs.plot.confusion(y_test, fs.predict(net, X_test))",
]


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> list[list[Any]]:
    """Of each cell."""
    folder = tmp_path_factory.mktemp("notebook")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
    client = nbclient.NotebookClient(
        notebook, timeout=240, startup_timeout=240, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    )
    try:
        client.execute()
    except (RuntimeError, KeyError) as error:  # no kernel of that name, or none that starts
        pytest.skip(f"no kernel: {error}")
    return [cell.outputs for cell in notebook.cells]


def text_of(some: list[Any]) -> str:
    return "".join(o.get("text", "") + o.get("data", {}).get("text/plain", "") for o in some)


def test_a_bar_is_shown(outputs: list[list[Any]]) -> None:
    """As a widget if there are such, else as characters; one for each epoch."""
    text = text_of(outputs[2])
    widgets = [o for o in outputs[2] if "application/vnd.jupyter.widget-view+json" in o.get("data", {})]
    assert widgets or re.search(r"epoch [1-3]/3: +\d+ %", text), outputs[2]


def test_a_history_is_a_table(outputs: list[list[Any]]) -> None:
    lines = text_of(outputs[3]).splitlines()
    assert lines[0].split() == ["epoch", "loss", "validation", "accuracy", "seconds", "samples/s"]
    assert [line.split()[0] for line in lines[1:]] == ["1", "2", "3"]


@pytest.mark.parametrize("cell", [4, 5, 6])
def test_figures_are_pictures_that_are_not_blank(outputs: list[list[Any]], cell: int) -> None:
    pictures = [o["data"]["image/png"] for o in outputs[cell] if "image/png" in o.get("data", {})]
    assert len(pictures) == 1
    content = base64.b64decode(pictures[0])
    assert content.startswith(b"\x89PNG")
    image = pytest.importorskip("matplotlib.image")
    pixels = image.imread(io.BytesIO(content))
    assert min(pixels.shape[:2]) > 50
    assert pixels[..., :3].std() > 0.02
