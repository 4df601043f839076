"""Programs as a file of C: which recordings are in it, how a row is laid out, and where its derivatives come from.

The boundary: knows programs; `c_code` has the text.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastscalar.engine._step import storage_of
from fastscalar.files import StrPath, replacing
from fastscalar.program.c_code import Leaves, Way, c_file, identifier
from fastscalar.program.c_loops import REPEATS
from fastscalar.program.derivatives import DifferentiatedFunction
from fastscalar.program.differentiated import Pullback
from fastscalar.program.found import with_found_loops
from fastscalar.program.nests import Container, Static
from fastscalar.program.recorded import Gone, UnrecordedPath
from fastscalar.program.rolled import FOUND, draws_in, is_loop
from fastscalar.program.rows import WHOLE, Rows, first_inputs
from fastscalar.program.specializations import SignatureCache, Specialization
from fastscalar.transforms.inputs import Run, leaves_of
from fastscalar.transforms.sparsity import rows_by_columns, rows_by_shape


def write_c(program: DifferentiatedFunction, path: StrPath, name: str | None = None) -> None:
    """The file of a program; see `Program.export_c`."""
    what = f"{program.__name__}.export_c"
    caches = [cache for cache in program._caches.values() if cache.all()]
    if not caches:
        raise ValueError(f"{what}: nothing was recorded yet, or the function runs in Python for every row")
    if len(caches) > 1:
        raise ValueError(f"{what}: it was called with {len(caches)} kinds of arguments; reset(), and call it with one")
    cache = caches[0]
    if any(map(_is_better_backwards, (one.graph for one in cache.all()))) and not isinstance(program.function, Gone):
        key = "step by step", tuple(cache.kinds), cache.nests, cache.names
        cache = _recorded_again(program, cache, program._derived(key, lambda f: _by_position(f, cache)))
    sizes = [math.prod(kind[1]) if len(kind) > 1 else 1 for kind in cache.kinds]
    first = np.cumsum([0, *sizes]).tolist()
    name = identifier(name or Path(path).stem)
    draws = any(draws_in(one.graph) for one in cache.all())
    leaves = Leaves()
    ways: dict[str, tuple[int, list[str]]] = {}
    for suffix, some in (("", cache), ("_derivatives", _with_derivatives(program, cache, first))):
        texts = []
        for k, one in enumerate(some.all()):
            graph = with_found_loops(one.graph, REPEATS, 1)
            strange = [item[0] for item in graph.items if item[0] not in KNOWN_ITEMS and not is_loop(item)]
            if strange:
                raise TypeError(f"{what}: {strange[0]!r} cannot be exported")
            shared = {at: first[k] for k, at in graph.shared.items()}
            places = {
                at: leaves.place(capture, storage_of(capture))
                for at, capture in enumerate(graph.captures) if at not in shared
            }
            way = Way(graph, _offsets(cache.kinds, first), shared, places, f"{name}{suffix}_{k}", f"{name}_parameters",
                      ", stream" if draws else "", known=one.known)  # fmt: skip
            texts.append(way.text())
        ways[suffix] = some.width, texts
    text = c_file(
        name,
        _layout(program, cache, first),
        first[-1],
        ways,
        leaves,
        f"{program.__name__}, written by fastscalar: {len(cache.all())} recordings",
        draws,
    )
    with replacing(path) as file:
        file.write(text.encode())


FORWARDS = 64  # numbers that the derivative of a found loop is computed forwards by
KNOWN_ITEMS = (
    "affine", "cross_entropy", "logsumexp", "softmax", "gather", "where", "max", "min", "argmax", "argmin",
)  # fmt: skip


def _offsets(kinds: Sequence[Any], first: list[int]) -> list[int]:
    """By input of a recording, where its numbers begin in a row."""
    out: list[int] = []
    for kind, at in zip(kinds, first, strict=False):
        if kind[0] in ("wholes", "truths"):
            out += range(at, at + math.prod(kind[1]))
        elif kind[0] != "leaf":
            out.append(at)
    return out


def _layout(program: DifferentiatedFunction, cache: SignatureCache, first: list[int]) -> list[str]:
    """What a row is made of, a line for each leaf."""
    names = {place: name for name, place in program._places().items() if place >= 0}
    out: list[str] = []

    def add(nest: Any, where: str) -> None:
        if isinstance(nest, Static):
            out.append(f"(always)  {where} = {nest.value!r}".replace("*/", "* /"))
        elif isinstance(nest, Container):
            for k, item in zip(nest.keys or range(len(nest.items)), nest.items, strict=True):
                add(item, f"{where}[{k!r}]")
        else:
            k = sum(not line.startswith("(") for line in out)
            kind = cache.kinds[k]
            shape = f" of shape {kind[1]}" if len(kind) > 1 else ""
            whole = ", whole numbers" if kind[0].startswith("whole") else ", 0 or 1" if kind[0] in WHOLE else ""
            last = f" to x[{first[k + 1] - 1}]" if first[k + 1] - first[k] > 1 else ""
            out.append(f"x[{first[k]}]{last}  {where}{shape}{whole}".replace("*/", "* /"))

    nests = cache.nests if cache.nests is not None else (None,) * len(cache.kinds)
    count = len(nests) - len(cache.names)
    for k, nest in enumerate(nests):
        add(nest, cache.names[k - count] if k >= count else names.get(k, f"argument {k}"))
    return out


def _with_derivatives(program: DifferentiatedFunction, cache: SignatureCache, first: list[int]) -> SignatureCache:
    """The recordings of the function that gives the results, and then for each of them the derivatives by all numbers
    of a row: made of the rows that the program was recorded of."""
    nests = cache.nests if cache.nests is not None else (None,) * len(cache.kinds)
    kinds = iter(range(len(cache.kinds)))
    leaves = [_leaves_of_nest(nest, kinds) for nest in nests]
    by = [k for k, some in enumerate(leaves) if some and all(cache.kinds[at][0] not in WHOLE for at in some)
          and not _has_static(nests[k])]  # fmt: skip
    columns = [x for k in by for at in leaves[k] for x in range(first[at], first[at + 1])]
    # Forwards a loop needs no memory for its states, however many steps a row takes.
    said = any(is_loop(item) and item[4].kind != FOUND for one in cache.all() for item in one.graph.items)
    rows_of = rows_by_columns if said else rows_by_shape

    def make(f: Callable[..., Any]) -> Callable[..., Any]:
        of_positions = _by_position(f, cache)

        def both(*arguments: Any) -> list[Any]:
            run = Run(of_positions, arguments, {}, tuple(by), "export_c")
            elements = [e for leaf in leaves_of(run.result, "the result", "export_c") for e in leaf.elements]
            out = list(elements)
            for row in rows_of(run, elements) if by else [[] for _ in elements]:
                whole: list[Any] = [0.0] * first[-1]
                for x, derivative in zip(columns, run.give(row), strict=True):
                    whole[x] = derivative
                out += whole
            return out

        both.__name__ = f"derivatives({program.__name__})"
        return both

    derived = program._derived(("value and derivatives", tuple(cache.kinds), cache.nests, cache.names), make)
    return _recorded_again(program, cache, derived, said)


def _by_position(f: Callable[..., Any], cache: SignatureCache) -> Callable[..., Any]:
    """The function without names of arguments: these come last."""
    names = cache.names

    def of_positions(*arguments: Any) -> Any:
        count = len(arguments) - len(names)
        return f(*arguments[:count], **dict(zip(names, arguments[count:], strict=True)))

    return of_positions


def _is_better_backwards(graph: Any) -> bool:
    """Whether it has the derivative of a found loop by many numbers.  The way forwards is one for each of these; where
    it was recorded step by step it goes back, over states in arrays."""
    loops = [item[4] for item in graph.items if is_loop(item)]
    return any(isinstance(x, Pullback) and x.loop.kind == FOUND and x.outputs > FORWARDS for x in loops)


def _recorded_again(
    program: DifferentiatedFunction, cache: SignatureCache, other: DifferentiatedFunction, shortens: bool = False
) -> SignatureCache:
    """The recordings of another program, of the rows that these are of.  shortens: found loops are differentiated as
    such."""
    found, other._shortens = SignatureCache(), shortens
    for one in cache.all():
        if not one.examples:
            raise UnrecordedPath(f"{program.__name__}.export_c: a program without its function has no derivatives")
        for row in _rows_of(one):
            row.names, row.cache = (), None
            other._values(row, 1)
            assert row.cache is not None
            found = row.cache
    return found


def _rows_of(one: Specialization) -> Iterator[Rows]:
    """The rows that a recording was made of; one for each whole number that it holds for, if it holds for no others."""
    if one.known is None:
        yield from (row.one(0) for row in one.examples)
        return
    at, values = one.known
    first = first_inputs(one.examples[-1].kinds)
    k = int(np.searchsorted(first, at, side="right")) - 1
    for value in values.tolist():
        row = one.examples[-1].one(0)
        row.data[k] = row.data[k].copy()
        row.data[k].reshape(-1)[at - first[k]] = value
        yield row


def _leaves_of_nest(nest: Any, kinds: Any) -> list[int]:
    if isinstance(nest, Container):
        return [at for item in nest.items for at in _leaves_of_nest(item, kinds)]
    return [] if isinstance(nest, Static) else [next(kinds)]


def _has_static(nest: Any) -> bool:
    return isinstance(nest, Static) or (isinstance(nest, Container) and any(map(_has_static, nest.items)))
