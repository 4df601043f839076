"""What a user's type checker sees; checked by `make types`, never run."""

from typing import assert_type

import numpy as np

import fastscalar as fs
from fastscalar.nn.evaluation import Evaluation

a = fs.Tensor(2)
assert_type(a * 3 + 1.5, fs.Tensor)
assert_type(2 / a, fs.Tensor)
assert_type(np.float64(2) * a, fs.Tensor)
assert_type(a**2, fs.Tensor)
assert_type(-a, fs.Tensor)
assert_type(a.exp(), fs.Tensor)
assert_type(a.data, float)
assert_type(a > 1, bool)
assert_type(a == 1, bool)
assert_type(float(a), float)
assert_type(a._parents, tuple[fs.Tensor, ...])
a.backward(accumulate=True)
a.anything = 3

net = fs.MLP(784, [256, 10], seed=0)
y = net.forward(np.zeros(784))
assert_type(y, fs.TensorArray)
assert_type(y.shape, tuple[int, ...])
assert_type(y.relu() + 1.0, fs.TensorArray)
assert_type(y.sum(), fs.Tensor)
assert_type(fs.cross_entropy(y, 3), fs.Tensor)
assert_type(fs.squared_loss(y, [0.0] * 10), fs.Tensor)
assert_type(fs.mse_loss(y, [0.0] * 10), fs.Tensor)
assert_type(fs.MLP(3, [2, 1]).num_linears, int)
assert_type(fs.to_tensor(2.0), fs.Tensor)
assert_type(fs.evaluate(net, np.zeros((1, 784)), [1]), Evaluation)
assert_type(fs.fit(net, np.zeros((1, 784)), [1]), fs.History)

program = fs.compile(lambda x, label: fs.cross_entropy(net(x), label))
assert_type(program, fs.Program)
assert_type(program(np.zeros(784), 3), float)
assert_type(program.map(np.zeros((1, 784)), [3], threads=2), "np.ndarray")
assert_type(program.backward(np.zeros((1, 784)), [3], accumulate=True), "np.ndarray")
pair: tuple[np.ndarray, np.ndarray] = program.value_and_grad(np.zeros((1, 784)), [3], argnums=0)
assert_type(program.report(), str)
program.reset()


@fs.compile()
def square(x: fs.Tensor) -> fs.Tensor:
    return x * x


assert_type(square, fs.Program)
warning: type[UserWarning] = fs.CompileWarning
assert_type(
    fs.fit(program, np.zeros((1, 784)), [1], compile=True, threads=1, dtype="float32"), fs.History
)
