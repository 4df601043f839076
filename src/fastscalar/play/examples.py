"""The programs of the guided tour, as text: the pages show them beside their graphs."""

from __future__ import annotations

import linecache
from typing import Any

from fastscalar._core import Tensor

EXAMPLES = {
    "hand": """\
from fastscalar import Tensor

a = Tensor(2)
b = Tensor(3)
x = a * b
z = x + x
""",
    "diamond": """\
from fastscalar import Tensor

a = Tensor(2)
x = a * a
y = x * x
z = x + y
""",
    "neuron": """\
from fastscalar import Tensor

x = Tensor(0.5)
w = Tensor(-1.2)
b = Tensor(0.3)
y = (w * x + b).tanh()
""",
    "regression": """\
from fastscalar import Tensor

X = [[1, 2, 3], [2, 3, 7], [5, 3, 1]]
Y = [17, 36, 15]                      # x0 + 2 x1 + 4 x2
w = [Tensor(0.5), Tensor(0.4), Tensor(0.9)]
b = Tensor(0.1)
loss = Tensor(0.0)
for x, y in zip(X, Y):
    y_hat = b
    for x_j, w_j in zip(x, w):
        y_hat = y_hat + w_j * x_j
    difference = y_hat - y
    loss = loss + difference * difference * 0.5
""",
}


def run(key: str, names: dict[str, Any]) -> Tensor:
    """Run an example in the namespace `names`; its last name is the result."""
    text, file = EXAMPLES[key], f"{key}.py"
    linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
    before = set(names)
    exec(compile(text, file, "exec"), names)
    new = [name for name in names if name not in before and isinstance(names[name], Tensor)]
    result: Tensor = names["loss" if "loss" in new else new[-1]]
    for name in ("x", "y", "y_hat", "difference", "x_j", "w_j", "__builtins__") if key == "regression" else ():
        names.pop(name, None)                    # of the last round of the loop; w[0], b and loss say enough
    return result
