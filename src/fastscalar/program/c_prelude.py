"""The operations of the table in C, for files that `Program.export_c` writes: the engine's own formulas."""

import re

PRELUDE = r"""
#include <math.h>
#include <float.h>

#define FS_OK 0
#define FS_UNRECORDED 1   /* no recording fits this row: it decides as none of those did */
#define FS_ERROR 2        /* the Python function raises for this row: a logarithm of -1, an index out of range */

#define FS_PI 3.14159265358979323846
static inline int fs_finite(double a) { return a - a == 0.0; }
static inline double fs_relu(double a) { return a <= 0.0 ? 0.0 : a; }
static inline double fs_sign(double a) { return a > 0.0 ? 1.0 : a < 0.0 ? -1.0 : a; }
static inline double fs_ndtr(double a) { return 0.5 * erfc(-a * 0.70710678118654752440); }
static inline double fs_degrees(double a) { return a * (180.0 / FS_PI); }
static inline double fs_radians(double a) { return a * (FS_PI / 180.0); }
static inline double fs_sigmoid(double a) {
    double e = exp(-fabs(a));
    return a >= 0.0 ? 1.0 / (1.0 + e) : e / (1.0 + e);
}
static inline double fs_softplus(double a) { return (a <= 0.0 ? 0.0 : a) + log1p(exp(-fabs(a))); }
static inline double fs_silu(double a) { return a < -1e3 ? -0.0 : a * fs_sigmoid(a); }
static inline double fs_gelu(double a) { return a < -1e3 ? -0.0 : a * fs_ndtr(a); }
static inline double fs_minimum(double a, double b) { return a <= b || a != a ? a : b; }
static inline double fs_maximum(double a, double b) { return a >= b || a != a ? a : b; }
static inline double fs_send(double a, double b) { return a == 0.0 || b == 0.0 ? 0.0 : a * b; }
static inline double fs_leaky_relu(double a, double b) { return a > 0.0 || a != a ? a : b * a; }
static inline double fs_elu(double a, double b) { return a > 0.0 || a != a ? a : b * expm1(a); }
static inline double fs_gamma(double a) {
    double product = 1.0, k = 2.0;
    if (!(a >= 1.0 && a <= 23.0) || a != floor(a)) return tgamma(a);
    for (; k < a; k = k + 1.0) product = product * k;
    return product;
}
static inline double fs_mod(double a, double b) {
    double r = fmod(a, b);
    if (r != 0.0) return (b < 0.0) != (r < 0.0) ? r + b : r;
    return copysign(0.0, b);
}
static inline double fs_floordiv(double a, double b) {
    double r = fmod(a, b), q = (a - r) / b, w;
    if (b == 0.0) return a / b;
    if (r != 0.0 && (b < 0.0) != (r < 0.0)) q = q - 1.0;
    if (q == 0.0) return copysign(0.0, a / b);
    w = floor(q);
    return q - w > 0.5 ? w + 1.0 : w;
}
static inline double fs_hypot(double a, double b) {
    double x, y, h, p, q, r, off;
    int e = 0;
    if (isinf(a) || isinf(b)) return INFINITY;
    x = fabs(a), y = fabs(b);
    if (x < y) { double t = x; x = y; y = t; }
    if (!(y > 0.0)) return x + y;
    x = frexp(x, &e), y = ldexp(y, -e);
    h = sqrt(x * x + y * y);
    p = x * x, q = y * y, r = h * h;
    off = ((p - r) + q) + (fma(x, x, -p) + (fma(y, y, -q) - fma(h, h, -r)));
    return ldexp(h + off / (2.0 * h), e);
}
static inline double fs_digamma(double a) {
    double r = 0.0, x = a, y;
    if (x <= 0.0 && x == floor(x)) return isinf(x) ? NAN : INFINITY;
    if (x < 0.0) return fs_digamma(1.0 - x) - FS_PI / tan(FS_PI * (x - floor(x + 0.5)));
    for (; x < 10.0; x = x + 1.0) r = r - 1.0 / x;
    y = 1.0 / (x * x);
    return r + log(x) - 0.5 / x - y * (1.0 / 12 - y * (1.0 / 120 - y * (1.0 / 252 - y * (1.0 / 240 - y * (1.0 / 132 - (
        y * (691.0 / 32760 - y / 12)))))));
}
static inline double fs_zeta(double x, double n) {
    double s = n + 1.0, total = 0.0, t, y;
    int k;
    for (; x < 10.0 + 2.0 * n; x = x + 1.0) total = total + pow(x, -s);
    y = 1.0 / (x * x);
    t = s * (1.0 / 12 - y * (s + 1.0) * (s + 2.0) * (1.0 / 720 - y * (s + 3.0) * (s + 4.0) * (1.0 / 30240 - y * (
        s + 5.0) * (s + 6.0) * (1.0 / 1209600 - y * (s + 7.0) * (s + 8.0) * (1.0 / 47900160 - y * (s + 9.0) * (
            s + 10.0) * (691.0 / 1307674368000.0 - y * (s + 11.0) * (s + 12.0) / 74724249600.0))))));
    total = total + pow(x, -n) * (1.0 / n + (0.5 + t / x) / x);
    for (k = 2; k <= (int)n; k++) total = total * k;
    return total;
}
static inline double fs_polygamma(double a, double b) {
    double r, sign;
    if (a != a || b != b) return a + b;
    if (b == 0.0) return fs_digamma(a);
    if (!(0.0 < b && b <= 100.0) || b != floor(b)) return NAN;
    sign = fmod(b, 2.0) == 0.0 ? -1.0 : 1.0;
    if (a > 0.0) return sign * fs_zeta(a, b);
    if (a == floor(a)) return isinf(a) ? NAN : INFINITY;
    r = a - floor(a + 0.5);
    return fs_zeta(r > 0.0 ? 1.0 - r : -r, b) + sign * fs_zeta(r > 0.0 ? r : 1.0 + r, b) - fs_zeta(1.0 - a, b);
}

static inline int fs_raises(double a, double b, double v) {   /* the Python function, where v is the result */
    if (fs_finite(v)) return 0;
    return v != v ? a == a && b == b : fs_finite(a) && fs_finite(b);
}
static inline int fs_by_zero(double b, double v) { (void)v; return b == 0.0; }
static inline int fs_no_int(double a, double v) { (void)v; return !fs_finite(a); }
static inline int fs_kind(double x, double v) { return v != v ? 1 : x == 0.0 ? 3 : x <= 1.0 && x == floor(x) ? 2 : 0; }
static inline int fs_same(double x, double value) {
    return (x == value && signbit(x) == signbit(value)) || (x != x && value != value);
}
static inline int fs_truncates(double x, double v) {
    return x - v < 1.0 && v - x < 1.0 && (v > 0 ? x >= v : v < 0 ? x <= v : 1);
}
static inline double fs_shares(const double *z, int n, double *p) {   /* p: their shares, if not NULL; the logarithm */
    double top = z[0], total = 0.0, lse;
    int k, tops = 0;
    for (k = 1; k < n; k++) if (z[k] > top || z[k] != z[k]) top = z[k];
    if (isinf(top)) {
        for (k = 0; k < n; k++) tops += z[k] == top;
        if (p) for (k = 0; k < n; k++) p[k] = top > 0.0 && z[k] == top ? 1.0 / tops : 0.0;
        return top;
    }
    for (k = 0; k < n; k++) total = total + exp(z[k] - top);
    lse = top + log(total);
    if (p) for (k = 0; k < n; k++) p[k] = exp(z[k] - top) / total;
    return lse;
}
static inline int fs_best(const double *z, int n, int least) {
    int k, at = 0;
    for (k = 1; k < n && z[at] == z[at]; k++) if (!(least ? z[at] <= z[k] : z[at] >= z[k])) at = k;
    return at;
}
"""

UNARY = {
    "exp": "exp", "log": "log", "exp2": "exp2", "expm1": "expm1", "log2": "log2", "log10": "log10", "log1p": "log1p",
    "sqrt": "sqrt", "cbrt": "cbrt", "sin": "sin", "cos": "cos", "tan": "tan", "asin": "asin", "acos": "acos",
    "atan": "atan", "sinh": "sinh", "cosh": "cosh", "tanh": "tanh", "asinh": "asinh", "acosh": "acosh",
    "atanh": "atanh", "erf": "erf", "erfc": "erfc", "lgamma": "lgamma", "floor": "floor", "ceil": "ceil",
    "trunc": "trunc", "rint": "rint", "abs": "fabs", "relu": "fs_relu", "sign": "fs_sign", "ndtr": "fs_ndtr",
    "degrees": "fs_degrees", "radians": "fs_radians", "sigmoid": "fs_sigmoid", "softplus": "fs_softplus",
    "silu": "fs_silu", "gelu": "fs_gelu", "gamma": "fs_gamma", "digamma": "fs_digamma",
}  # fmt: skip
BINARY = {
    "**": "pow", "%": "fs_mod", "//": "fs_floordiv", "minimum": "fs_minimum", "maximum": "fs_maximum",
    "atan2": "atan2", "hypot": "fs_hypot", "copysign": "copysign", "fmod": "fmod", "remainder": "remainder",
    "leaky_relu": "fs_leaky_relu", "elu": "fs_elu", "polygamma": "fs_polygamma", "send": "fs_send",
}  # fmt: skip
INFIX = ("+", "-", "*", "/")
# never raise, whatever comes out
QUIET = (
    "+", "-", "*", "neg", "relu", "abs", "minimum", "maximum", "sign", "copysign", "leaky_relu", "tanh", "sigmoid",
    "atan", "asinh", "erf", "erfc", "ndtr", "cbrt", "degrees", "radians", "softplus", "silu", "gelu", "atan2", "hypot",
    "send",
)  # fmt: skip


def prelude(used_in: str) -> str:
    """Those of the functions that a text uses, and what these use."""
    head, *functions = re.split(r"^(?=static inline )", PRELUDE, flags=re.MULTILINE)
    names = set(re.findall(r"fs_\w+", used_in))
    kept: list[str] = []
    for text in reversed(functions):
        own, *others = re.findall(r"fs_\w+", text)
        if own in names:
            names.update(others)
            kept.insert(0, text)
    return head + "".join(kept)


def number(v: float) -> str:
    """A literal that has exactly this value."""
    if v != v:
        return "NAN"
    if v in (float("inf"), float("-inf")):
        return "INFINITY" if v > 0 else "(-INFINITY)"
    text = repr(float(v))
    return f"({text})" if text.startswith("-") else text


def wrapped(text: str, width: int = 110) -> list[str]:
    lines, line = [], ""
    for word in text.split(" "):
        if len(line) + len(word) >= width:
            lines.append("    " + line.rstrip())
            line = ""
        line += word + " "
    return [*lines, "    " + line.rstrip()]
