"""The gradient of z = x + x with x = a * b: by hand, node by node, and by `backward()`.

Run it with `python examples/hand_gradient.py`.
"""

import fastscalar as fs


def by_hand() -> tuple[float, ...]:
    """Each node's `_backward()` hands its gradient on to its parents; the order is ours to get right."""
    a, b = fs.Tensor(2), fs.Tensor(3)
    x = a * b
    z = x + x
    z.grad = 1.0
    z._backward()  # dz/dx = 2: one for each of the two places where x stands
    x._backward()  # dz/da = 2 b, dz/db = 2 a
    return a.grad, b.grad, x.grad, z.grad


def by_backward() -> tuple[float, ...]:
    a, b = fs.Tensor(2), fs.Tensor(3)
    x = a * b
    z = x + x
    z.backward()
    return a.grad, b.grad, x.grad, z.grad


def main() -> tuple[tuple[float, ...], tuple[float, ...]]:
    hand, automatic = by_hand(), by_backward()
    print("dz/da, dz/db, dz/dx, dz/dz")
    print("by hand:    ", *hand)
    print("backward(): ", *automatic)
    return hand, automatic


if __name__ == "__main__":
    main()
