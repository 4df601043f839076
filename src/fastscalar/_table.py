"""The functions of the operation table, as type checkers see them; written by `make stubs`."""

from fastscalar._typing import Binary, Unary
from fastscalar.engine.functions import public_function

__all__ = [
    "gelu",
    "maximum",
    "minimum",
    "sigmoid",
    "sign",
    "silu",
    "softplus",
]

gelu: Unary = public_function("gelu", 0.345731230637)
maximum: Binary = public_function("maximum", 0.5)
minimum: Binary = public_function("minimum", -2.0)
sigmoid: Unary = public_function("sigmoid", 0.622459331202)
sign: Unary = public_function("sign", 1.0)
silu: Unary = public_function("silu", 0.311229665601)
softplus: Unary = public_function("softplus", 0.97407698418)
