"""The article's program, cell by cell (`# %%`), on fastscalar.

Repaired only where the article is wrong, each repair with its comment; its classes are replaced by imports,
and `train_data` is 60,000 where the article had to stop at 1,000.  It is our own writing, after the
article's course: a hand-made gradient, backward(), two toy regressions, MNIST.
test_article.py runs the cells in order in one namespace.
"""

# %% classes
# The article defines Tensor, Linear, MLP, squared_loss, sgd and to_tensor here.
from fastscalar import MLP, Linear, Tensor, sgd, squared_loss, to_tensor
from fastscalar.datasets import mnist

# %% gradient by hand
a = Tensor(2)
b = Tensor(3)
x = a * b
z = x + x
z.grad = 1.0
z._backward()
x._backward()
by_hand = [node.grad for node in (a, b, x, z)]

# %% gradient by backward()
z.backward()
by_backward = [node.grad for node in (a, b, x, z)]

# %% toy data
toy_x = to_tensor([[1.0, 2.0, 3.0], [2.0, 1.0, 0.5], [0.5, 3.0, 1.0], [3.0, 0.5, 2.0], [1.5, 1.5, 2.5]])
toy_y = [row[0] + 2 * row[1] + 4 * row[2] for row in toy_x]

# %% toy regression, one layer
net = Linear(3, 1, init="article", seed=0)
linear_losses = []
for _ in range(100):
    total = 0.0
    for x, y in zip(toy_x, toy_y, strict=True):
        loss = squared_loss(net(x), [y])
        loss.backward()
        sgd(net.parameters(), lr=0.01)
        total += loss.data
    linear_losses.append(total / len(toy_y))

# %% toy regression, two layers
net = MLP(3, [2, 1], init="article", seed=0)
mlp_losses = []
for _ in range(100):
    total = 0.0
    for x, y in zip(toy_x, toy_y, strict=True):
        loss = squared_loss(net(x), [y])
        loss.backward()
        sgd(net.parameters(), lr=0.001)
        total += loss.data
    mlp_losses.append(total / len(toy_y))

# %% MNIST
(images, labels), _ = mnist()
train_data = 60000
train_x = to_tensor(images.reshape(-1, 784)[:train_data])
train_y = to_tensor(labels[:train_data])

# %% training
epochs = 2  # ours
net = Linear(784, 10, init="article", seed=0)
# net = MLP(784, [256, 10])  # stays out, as in the article: from [0, 1) nothing deep can train
mnist_losses = []
for epoch in range(epochs):
    epoch_loss = 0.0
    for i in range(train_data):
        y_hat = net(train_x[i])
        # The article gives ten outputs and one label to a loss that runs over the labels: output 0 learns,
        # the others never do.  A length mismatch is an error now, and [:1] writes down what happened.
        loss = squared_loss(y_hat[:1], [train_y[i]])
        loss.backward()
        sgd(net.parameters(), lr=1e-8)
        epoch_loss += loss.data
    # The article calls its first epoch "epoch2" and divides the sum over 1,000 images by 10,000.
    mnist_losses.append(epoch_loss / train_data)
    print(f"epoch {epoch + 1}: {mnist_losses[-1]:.2f}")
