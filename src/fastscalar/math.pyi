"""What type checkers see of `fastscalar.math`: Python's functions, of Tensors and arrays too.

A file of its own, because most of the functions are made from the operation table, and the rest come from Python.
"""

from collections.abc import Iterable
from math import comb as comb
from math import e as e
from math import factorial as factorial
from math import gcd as gcd
from math import inf as inf
from math import isqrt as isqrt
from math import lcm as lcm
from math import nan as nan
from math import perm as perm
from math import pi as pi
from math import prod as prod
from math import tau as tau
from typing import Any, SupportsIndex, overload

from fastscalar._core import Tensor
from fastscalar._typing import Array, Binary, Number, Scalar, Unary
from fastscalar.engine._array import TensorArray

fabs: Unary
# the operation table: written by `make stubs`
acos: Unary
acosh: Unary
asin: Unary
asinh: Unary
atan: Unary
atanh: Unary
cbrt: Unary
ceil: Unary
cos: Unary
cosh: Unary
degrees: Unary
digamma: Unary
erf: Unary
erfc: Unary
exp: Unary
exp2: Unary
expm1: Unary
floor: Unary
gamma: Unary
lgamma: Unary
log10: Unary
log1p: Unary
log2: Unary
ndtr: Unary
radians: Unary
sin: Unary
sinh: Unary
sqrt: Unary
tan: Unary
tanh: Unary
trunc: Unary
atan2: Binary
copysign: Binary
fmod: Binary
remainder: Binary
# end of it

@overload
def pow(x: Tensor, y: Scalar, /) -> Tensor: ...
@overload
def pow(x: Number, y: Tensor, /) -> Tensor: ...
@overload
def pow(x: Array, y: Array | Scalar, /) -> TensorArray: ...
@overload
def pow(x: Scalar, y: Array, /) -> TensorArray: ...
@overload
def pow(x: Number, y: Number, /) -> float: ...
@overload
def log(x: Tensor, *base: Scalar) -> Tensor: ...
@overload
def log(x: Array, *base: Array | Scalar) -> TensorArray: ...
@overload
def log(x: Number, base: Tensor, /) -> Tensor: ...
@overload
def log(x: Number, *base: Number) -> float: ...
@overload
def hypot(x: Tensor, /, *others: Scalar) -> Tensor: ...
@overload
def hypot(x: Number, y: Tensor, /, *others: Scalar) -> Tensor: ...
@overload
def hypot(x: Array, /, *others: Array | Scalar) -> TensorArray: ...
@overload
def hypot(x: Scalar, y: Array, /, *others: Array | Scalar) -> TensorArray: ...
@overload
def hypot(*coordinates: Number) -> float: ...
@overload
def hypot(*coordinates: Any) -> Any: ...
@overload
def fma(x: Tensor, y: Scalar, z: Scalar, /) -> Tensor: ...
@overload
def fma(x: Number, y: Tensor, z: Scalar, /) -> Tensor: ...
@overload
def fma(x: Number, y: Number, z: Tensor, /) -> Tensor: ...
@overload
def fma(x: Number, y: Number, z: Number, /) -> float: ...
@overload
def fma(x: Any, y: Any, z: Any, /) -> Any: ...
@overload
def dist(p: Iterable[Number], q: Iterable[Number], /) -> float: ...
@overload
def dist(p: Iterable[Any], q: Iterable[Any], /) -> Tensor: ...
@overload
def fsum(xs: Iterable[Number], /) -> float: ...
@overload
def fsum(xs: Iterable[Any], /) -> Tensor: ...
@overload
def sumprod(p: Iterable[Number], q: Iterable[Number], /) -> float: ...
@overload
def sumprod(p: Iterable[Any], q: Iterable[Any], /) -> Tensor: ...
def isnan(x: Scalar, /) -> bool: ...
def isinf(x: Scalar, /) -> bool: ...
def isfinite(x: Scalar, /) -> bool: ...
def isclose(a: Scalar, b: Scalar, *, rel_tol: Scalar = 1e-09, abs_tol: Scalar = 0.0) -> bool: ...
@overload
def modf(x: Tensor, /) -> tuple[Tensor, Tensor]: ...
@overload
def modf(x: Array, /) -> tuple[TensorArray, TensorArray]: ...
@overload
def modf(x: Number, /) -> tuple[float, float]: ...
@overload
def frexp(x: Tensor, /) -> tuple[Tensor, int]: ...
@overload
def frexp(x: Number, /) -> tuple[float, int]: ...
@overload
def ldexp(x: Tensor, i: SupportsIndex, /) -> Tensor: ...
@overload
def ldexp(x: Array, i: SupportsIndex, /) -> TensorArray: ...
@overload
def ldexp(x: Number, i: SupportsIndex, /) -> float: ...
@overload
def ulp(x: Tensor, /) -> Tensor: ...
@overload
def ulp(x: Number, /) -> float: ...
@overload
def nextafter(x: Tensor, y: Scalar, /, **steps: int) -> Tensor: ...
@overload
def nextafter(x: Number, y: Tensor, /, **steps: int) -> Tensor: ...
@overload
def nextafter(x: Number, y: Number, /, **steps: int) -> float: ...
