"""A language model of characters in the style of a one-file GPT: every number is a Tensor, every vector a list.

Token and position embeddings, RMS normalisation, causal attention with several heads, a two-layer MLP, cross-entropy;
Adam is a Python loop over the parameters that keeps its moments as their attributes.  One document a step.

`main(module)` takes `fastscalar` or `fastscalar.reference`: the code is the same and so are the losses, bit for bit.
Run it with `python examples/porting/small_gpt.py`.
"""

import math
import random

WORDS = ["banana", "cabana", "manna", "cabman", "bacon", "canon", "macaco", "mambo", "bamboo", "cacao"]


class Characters:
    """Letters to numbers; 0 stands at both ends of a document."""

    def __init__(self, documents):
        self.letters = sorted(set("".join(documents)))
        self.size = len(self.letters) + 1

    def encode(self, document):
        return [0, *(self.letters.index(c) + 1 for c in document), 0]


def linear(x, w):
    return [sum(wi * xi for wi, xi in zip(row, x, strict=True)) for row in w]


def softmax(xs):
    top = max(x.data for x in xs)
    powers = [(x - top).exp() for x in xs]
    whole = sum(powers)
    return [p / whole for p in powers]


def rms_norm(x):
    scale = (sum(a * a for a in x) / len(x) + 1e-5) ** -0.5
    return [a * scale for a in x]


class Model:
    """One block: attention and an MLP, each of the normalised input and added to it."""

    def __init__(self, tensor, vocabulary, context, width, heads, seed):
        rng = random.Random(seed)

        def matrix(rows, columns):
            return [[tensor(rng.gauss(0, 0.1)) for _ in range(columns)] for _ in range(rows)]

        self.context, self.width, self.heads = context, width, heads
        self.token, self.position = matrix(vocabulary, width), matrix(context, width)
        self.query, self.key, self.value, self.mix = (matrix(width, width) for _ in range(4))
        self.up, self.down = matrix(4 * width, width), matrix(width, 4 * width)
        self.head = matrix(vocabulary, width)
        matrices = [v for v in vars(self).values() if isinstance(v, list)]
        self.parameters = [p for matrix in matrices for row in matrix for p in row]

    def forward(self, token, place, keys, values):
        """The logits of what follows `token`; keys and values of the earlier places are in the two lists."""
        x = [t + p for t, p in zip(self.token[token], self.position[place], strict=True)]
        normed = rms_norm(x)
        query = linear(normed, self.query)
        keys.append(linear(normed, self.key))
        values.append(linear(normed, self.value))
        attended = []
        size = self.width // self.heads
        for start in range(0, self.width, size):
            part = slice(start, start + size)
            scores = [sum(q * k for q, k in zip(query[part], key[part], strict=True)) / size**0.5 for key in keys]
            shares = softmax(scores)
            attended += [sum(s * v[j] for s, v in zip(shares, values, strict=True)) for j in range(start, start + size)]
        x = [a + b for a, b in zip(x, linear(attended, self.mix), strict=True)]
        hidden = [h.relu() for h in linear(rms_norm(x), self.up)]
        x = [a + b for a, b in zip(x, linear(hidden, self.down), strict=True)]
        return linear(rms_norm(x), self.head)

    def loss(self, tokens):
        """Mean of -log(probability) of each token after those before it."""
        tokens = tokens[: self.context + 1]
        keys, values, losses = [], [], []
        for place, (token, following) in enumerate(zip(tokens, tokens[1:], strict=False)):
            probabilities = softmax(self.forward(token, place, keys, values))
            losses.append(-probabilities[following].log())
        return sum(losses) / len(losses)


def adam(parameters, step, rate, decay=0.9, square_decay=0.99):
    for p in parameters:
        if step == 1:
            p.m = p.v = 0.0
        p.m = decay * p.m + (1 - decay) * p.grad
        p.v = square_decay * p.v + (1 - square_decay) * p.grad**2
        mean = p.m / (1 - decay**step)
        square = p.v / (1 - square_decay**step)
        p.data -= rate * mean / (math.sqrt(square) + 1e-8)


def train(model, documents, steps, rate=0.02, done=0):
    """Steps done+1, done+2, ...: the losses, each before its step."""
    losses = []
    for step in range(done + 1, done + steps + 1):
        loss = model.loss(documents[step % len(documents)])
        loss.backward()
        adam(model.parameters, step, rate)
        losses.append(loss.data)
    return losses


def main(module, steps=50):
    characters = Characters(WORDS)
    model = Model(module.Tensor, characters.size, context=8, width=8, heads=2, seed=3)
    return train(model, [characters.encode(word) for word in WORDS], steps)


if __name__ == "__main__":
    import fastscalar

    losses = main(fastscalar)
    print(f"loss {sum(losses[:10]) / 10:.4f} in the first ten steps, {sum(losses[-10:]) / 10:.4f} in the last ten")
