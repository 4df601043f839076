"""The program of 《动手写深度学习框架(一)》, cell by cell (`# %%`), with its data, rates, epochs and printed lines.

Its classes are replaced by imports, and one line is repaired: ten predictions go with one label there, silently, and
`[:1]` writes down which one counts.  Weights come from [0, 1), as there, with a seed.  It is our own writing, after the
article's course.  The tests run the cells in order in one namespace, on `fastscalar`, on the twin and on
`fastscalar.article`; typed.py is the same without these two changes.
"""

# %% classes
from fastscalar import MLP, Linear, Tensor, sgd, squared_loss, to_tensor
from fastscalar.datasets import mnist

# %% gradient by hand
a = Tensor(2)
b = Tensor(3)
x = a * b
z = x + x
z.grad = 1
z._backward()
x._backward()
by_hand = (a.grad, b.grad, x.grad, z.grad)

# %% gradient by backward()
a = Tensor(2)
b = Tensor(3)
x = a * b
z = x + x
z.backward()
by_backward = (a.grad, b.grad, x.grad, z.grad)

# %% one layer
net = Linear(2, 1, init="article", seed=0)
one_output = net([Tensor(1.0)] * 2)
print(one_output)

# %% data
X = [[1, 2, 3], [2, 3, 7], [5, 3, 1]]
Y = [[x0 + 2 * x1 + 4 * x2] for x0, x1, x2 in X]
X, Y = to_tensor(X), to_tensor(Y)
for x, y in zip(X, Y, strict=True):
    print(x, y)


def train(net, lr, epochs):
    """Sample by sample; after each epoch the mean loss over the samples."""
    losses = []
    for epoch in range(epochs):
        for x, y in zip(X, Y, strict=True):
            loss = squared_loss(net(x), y)
            loss.backward()
            sgd(net.parameters(), lr)
        losses.append(sum(squared_loss(net(x), y).data for x, y in zip(X, Y, strict=True)) / len(X))
        print(f"epoch{epoch + 1}, loss {losses[-1]:f}")
    print((net(X[0]), Y[0]))
    return losses


# %% toy regression, one layer
linear = Linear(3, 1, init="article", seed=0)
linear_losses = train(linear, lr=0.03, epochs=3)

# %% toy regression, two layers
mlp = MLP(3, [2, 1], init="article", seed=0)
mlp_losses = train(mlp, lr=0.001, epochs=10)

# %% MNIST
(X_train, y_train), (X_test, y_test) = mnist(report=print)
print(X_train.shape, y_train.shape, X_test.shape, y_test.shape)
train_data, test_data = 1000, 10
X_train = to_tensor(X_train.reshape(60000, 28 * 28)[:train_data])
y_train = to_tensor(y_train.reshape(60000, 1)[:train_data])
X_test = to_tensor(X_test.reshape(10000, 28 * 28)[:test_data])
y_test = to_tensor(y_test.reshape(10000, 1)[:test_data])

# %% training
net = Linear(784, 10, init="article", seed=0)
lr, num_epochs = 0.00000001, 2
train_losses, test_losses = [], []
for epoch in range(num_epochs):
    for i in range(train_data):
        loss = squared_loss(net(X_train[i])[:1], y_train[i])
        loss.backward()
        sgd(net.parameters(), lr)
        if i % 100 == 0:
            train_losses.append(loss.data)
            print(f"epoch{epoch + 1}, train loss {loss.data:f}")
    test_l = 0.0
    for i in range(test_data):
        test_l += squared_loss(net(X_test[i])[:1], y_test[i]).data
    test_losses.append(test_l / len(X_test))
    print(f"epoch{epoch + 1}, test loss {test_losses[-1]:f}")
