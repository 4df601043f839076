"""The same program as somebody types it from the article: nothing is seeded, repaired or renamed but the imports."""

# %% classes
import numpy as np

from fastscalar import datasets
from fastscalar.article import MLP, Linear, Tensor, sgd, squared_loss, to_tensor

# %% gradients
a, b = Tensor(2), Tensor(3)
x = a * b
z = x + x
z.grad = 1
z._backward()
x._backward()
by_hand = a.grad, b.grad, x.grad, z.grad
z.backward()
by_backward = a.grad, b.grad, x.grad, z.grad

# %% one layer
net = Linear(2, 1)
one_output = net([Tensor(1.0)] * 2)
print(one_output)

# %% toys
X = [[1, 2, 3], [2, 3, 7], [5, 3, 1]]
Y = [[row[0] + 2 * row[1] + 4 * row[2]] for row in X]
X = to_tensor(X)
Y = to_tensor(Y)
for i in range(len(X)):
    print(X[i], Y[i])

toy_losses = {}
for name, net, lr, num_epochs in (("linear", Linear(3, 1), 0.03, 3), ("mlp", MLP(3, [2, 1]), 0.001, 10)):
    loss = squared_loss
    toy_losses[name] = []
    for epoch in range(num_epochs):
        for i in range(len(X)):
            l = loss(net(X[i]), Y[i])
            l.backward()
            params = net.parameters()
            sgd(params, lr)
        train_l = 0.0
        for i in range(len(X)):
            train_l += loss(net(X[i]), Y[i]).data
        toy_losses[name].append(train_l / len(X))
        print(f"epoch{epoch + 1}, loss {float(train_l / len(X)):f}")
    print((net(X[0]), Y[0]))

# %% MNIST
(X_train_, y_train_), (X_test_, y_test_) = datasets.mnist()
X_train, y_train = X_train_.reshape(60000, 28 * 28).astype(float), y_train_.reshape(60000, 1)
X_test, y_test = X_test_.reshape(10000, 28 * 28).astype(float), y_test_.reshape(10000, 1)
assert isinstance(X_train, np.ndarray)
train_data = 1000
test_data = 10
X_train = to_tensor(X_train[0:train_data])
y_train = to_tensor(y_train[0:train_data])
X_test = to_tensor(X_test[0:test_data])
y_test = to_tensor(y_test[0:test_data])

# %% training
lr = 0.00000001
num_epochs = 2
net = Linear(784, 10)
loss = squared_loss
train_losses, test_losses = [], []
for epoch in range(num_epochs):
    for i in range(train_data):
        l = loss(net(X_train[i]), y_train[i])
        l.backward()
        params = net.parameters()
        sgd(params, lr)
        if i % 100 == 0:
            train_losses.append(l.data)
            print(f"epoch{epoch + 1}, train loss {float(l.data):f}")
    test_l = 0.0
    for i in range(test_data):
        test_l += loss(net(X_test[i]), y_test[i]).data
    test_losses.append(test_l / len(X_test))
    print(f"epoch{epoch + 1}, test loss {float(test_l / len(X_test)):f}")
