"""What a user's type checker sees; checked by `make types`, never run."""

from typing import Any, assert_type

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

assert_type(fs.math.exp(a), fs.Tensor)
assert_type(fs.math.exp(1.0), float)
assert_type(fs.math.sin(np.float64(1.0)), float)
assert_type(fs.math.log(a, 2), fs.Tensor)
assert_type(fs.math.log(2.0), float)
assert_type(fs.math.hypot(3.0, a), fs.Tensor)
assert_type(fs.math.hypot(3.0, 4.0), float)
assert_type(fs.math.atan2(1, a), fs.Tensor)
assert_type(fs.math.pow(a, 2), fs.Tensor)
assert_type(fs.math.fabs(a), fs.Tensor)
assert_type(fs.math.floor(a), fs.Tensor)
assert_type(fs.math.isnan(a), bool)
assert_type(fs.math.modf(a), tuple[fs.Tensor, fs.Tensor])
assert_type(fs.math.frexp(a), tuple[fs.Tensor, int])
assert_type(fs.math.pi, float)
assert_type(fs.math.comb(5, 2), int)
assert_type(fs.sigmoid(a), fs.Tensor)
assert_type(fs.sigmoid(0.5), float)
assert_type(fs.maximum(0, a), fs.Tensor)
assert_type(fs.minimum(1.0, 2), float)
assert_type(fs.leaky_relu(a), fs.Tensor)
assert_type(fs.elu(0.5), float)
assert_type(fs.clip(a, 0.0, 1.0), fs.Tensor)
assert_type(fs.where(a > 1, a, 0.0), fs.Tensor)
assert_type(fs.sum([a, a, 1.0]), fs.Tensor)
assert_type(fs.max([a, 2.0]), fs.Tensor)
assert_type(fs.argmax([a, 2.0]), int)
assert_type(fs.mean(x * x for x in [a, a]), fs.Tensor)
assert_type(fs.norm([a, a]), fs.Tensor)
assert_type(fs.dot([a], [a]), fs.Tensor)
assert_type(fs.softmax([a, a]), fs.TensorArray)
assert_type(fs.log_softmax([a, a]), fs.TensorArray)
assert_type(fs.logsumexp([a, a]), fs.Tensor)
total = 0.0 + a
for element in [a, a]:
    total = total + fs.math.exp(element)
assert_type(total, fs.Tensor)

net = fs.MLP(784, [256, 10], seed=0)
assert_type(net(np.zeros(784)), fs.TensorArray)
assert_type(fs.Linear(3, 1)([1.0, 2.0, 3.0]), fs.TensorArray)
assert_type(net.linears[0].w, fs.TensorArray)
assert_type(fs.relu(a), fs.Tensor)
assert_type(fs.relu(net(np.zeros(784))), fs.TensorArray)
assert_type(fs.relu([a, a]), list[fs.Tensor])
assert_type(fs.math.exp(net(np.zeros(784))), fs.TensorArray)
assert_type(fs.sigmoid(net(np.zeros(784))), fs.TensorArray)
assert_type(fs.maximum(net(np.zeros(784)), 0.0), fs.TensorArray)
assert_type(fs.load("net.npz"), Any)      # of whatever class was saved
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
assert_type(program(np.zeros(784), 3), Any)    # what the function returns: numbers, or a nest of them
assert_type(program.map(np.zeros((1, 784)), [3], threads=2), Any)
assert_type(program.backward(np.zeros((1, 784)), [3], accumulate=True), Any)
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
