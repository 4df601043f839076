"""Programs that outlive their process: what is written of the recordings of a program, and how it is read.

A file is an archive of NumPy's (.npz) of three members: `header`, a text of JSON; `ints`, int32; `numbers`, float64.
What the header calls an array is (first, shape) in one of the two.  Operations are named, not numbered, so that files
outlive changes of the table.  Nothing in a file is executed, nothing is pickled, and all that the executor would trust
is checked when it is read: `checked` says what that is.

The boundary: knows recordings as `specializations` keeps them; `api` has what a user calls.
"""

from __future__ import annotations

import json
import math
import zipfile
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fastscalar._core import Tensor
from fastscalar.engine._array_ops import to_tensor
from fastscalar.engine._functions import operations
from fastscalar.engine._step import storage_of
from fastscalar.files import StrPath, brief, open_zip, read_array, write_npz
from fastscalar.program._graph import GUARD, NODE_CONSTANT, READ_RAISES, empty_graph, line_of
from fastscalar.program.checks import checked, require, shape_of
from fastscalar.program.kept_loops import loop_as_json, loop_of_json
from fastscalar.program.nests import Array, Container, Static
from fastscalar.program.recorded import Gone
from fastscalar.program.rolled import is_loop
from fastscalar.program.rows import WHOLE, Rows
from fastscalar.program.specializations import SignatureCache, Specialization
from fastscalar.program.streams import Streams
from fastscalar.version import __version__

FORMAT = "fastscalar program"
VERSION = 1
IEEE = 0x100  # added to an operation that does not raise
ITEMS = ("affine", "cross_entropy", "logsumexp", "softmax", "gather", "where", "max", "min", "argmax", "argmin")
_CODES = {name: code for code, name, _, _ in operations()}
_NAMES = {code: name for name, code in _CODES.items()}


class SavedPlace:
    """What stands for the code of a function that is not here: the line where it decided."""

    def __init__(self, file: str, line: int) -> None:
        self.co_filename, self.line = file, line

    def co_lines(self) -> Iterator[tuple[int, int, int]]:
        yield 0, 1, self.line


# --- nests ----------------------------------------------------------------------------------------------


def nest_as_json(nest: Any, what: str) -> Any:
    if nest is None:
        return None
    if isinstance(nest, Static):
        if isinstance(nest.value, bytes):
            raise TypeError(f"{what}: an argument of bytes cannot be saved")
        return {"static": nest.value}
    if isinstance(nest, Array):
        return {"array": list(nest.shape)}
    items = [nest_as_json(item, what) for item in nest.items]
    if nest.keys is not None:
        if not all(isinstance(k, (str, int, float, bool)) or k is None for k in nest.keys):
            raise TypeError(f"{what}: a dictionary with keys other than strings and numbers cannot be saved")
        return {"dict": [[k, item] for k, item in zip(nest.keys, items, strict=True)]}
    if nest.kind is list or nest.kind is tuple:
        return {nest.kind.__name__: items}
    return {"named": nest.kind.__name__, "fields": list(nest.kind._fields), "items": items}


def nest_of_json(x: Any) -> Any:
    if x is None:
        return None
    if "static" in x:
        require(isinstance(x["static"], (str, bool, type(None))), "a static value")
        return Static(x["static"])
    if "array" in x:
        return Array(shape_of(x["array"]))
    if "dict" in x:
        keys, items = tuple(k for k, _ in x["dict"]), tuple(nest_of_json(v) for _, v in x["dict"])
        require(len(set(keys)) == len(keys), "the keys of a dictionary")
        return Container(dict, keys, items)
    if "named" in x:
        named = namedtuple(x["named"], x["fields"])  # type: ignore[misc]
        require(len(x["items"]) == len(x["fields"]), "a named tuple")
        return Container(named, None, tuple(map(nest_of_json, x["items"])))
    if "list" in x:
        return Container(list, None, tuple(map(nest_of_json, x["list"])))
    return Container(tuple, None, tuple(map(nest_of_json, x["tuple"])))


# --- writing --------------------------------------------------------------------------------------------


class Writer:
    """The header and the two arrays of a program, as they are put together."""

    def __init__(self) -> None:
        self.parts: dict[str, list[np.ndarray]] = {"i": [], "f": []}
        self.room = {"i": 0, "f": 0}
        self.known: dict[int, Any] = {}          # arrays by id, and
        self.kept: list[Any] = []                # what keeps their ids from others
        self.leaves: dict[Any, int] = {}
        self.values: list[Any] = []

    def array(self, values: Any) -> list[Any]:
        """[member, first, *shape]."""
        if id(values) in self.known:
            return self.known[id(values)]
        self.kept.append(values)
        member = "f" if np.asarray(values).dtype.kind == "f" else "i"
        flat = np.ascontiguousarray(values, np.float64 if member == "f" else np.int32).ravel()
        self.known[id(values)] = [member, self.room[member], *np.shape(values)]
        self.parts[member].append(flat)
        self.room[member] += len(flat)
        return self.known[id(values)]

    def leaf(self, capture: Any, stand_in: bool) -> int:
        key = storage_of(capture)
        if key not in self.leaves:
            self.leaves[key] = len(self.values)
            single = isinstance(capture, Tensor)
            numbers = np.array([capture.item()]) if single else capture.numpy().ravel()
            self.values.append([single, len(numbers), None if stand_in else self.array(numbers)])
        return self.leaves[key]

    def graph(self, graph: Any) -> dict[str, Any]:
        strange = [item[0] for item in graph.items if item[0] not in ITEMS and not is_loop(item)]
        if strange:
            raise TypeError(f"the operation {strange[0]!r} cannot be saved, as callbacks to Python cannot")
        used = sorted({int(o) & 0xFF for o in np.unique(graph.op[graph.op > NODE_CONSTANT])})
        guards = graph.guards
        places: list[Any] = []
        for code, instruction in zip(guards["code"].tolist(), guards["instruction"].tolist(), strict=True):
            places.append(None if code < 0 else list(line_of((graph.codes[code], instruction))))
        distinct = list({tuple(p): p for p in places if p is not None}.values())
        raising = guards["op"] == READ_RAISES
        raised = sorted(set((guards["value"][raising].astype(np.int64) & 0xFF).tolist()))
        shared = set(graph.shared.values())
        return {
            "columns": [self.array(getattr(graph, name)) for name in ("op", "a", "b", "value", "stopped", "results")],
            "names": {str(code): _NAMES[code] for code in {*used, *raised}},
            "items": [
                [*item[:3], *map(self.part, item[3:])]
                for item in graph.items
            ],
            "guards": [self.array(np.ascontiguousarray(guards[name])) for name in ("op", "left", "right", "value")],
            "places": distinct,
            "place": self.array(np.array([-1 if p is None else distinct.index(p) for p in places], np.int32)),
            "captures": [self.leaf(c, at in shared) for at, c in enumerate(graph.captures)],
            "shared": [[k, at] for k, at in graph.shared.items()],
            "inputs": list(graph.inputs),
            "draws": [[float(v) if isinstance(v, float) else int(v) for v in draw] for draw in graph.draws],
            "operations": int(graph.operations),
            "uncertain": bool(graph.uncertain),
        }

    def part(self, x: Any) -> Any:
        """What an item has."""
        if hasattr(x, "bodies"):
            return loop_as_json(x, self.graph, self.array)
        return self.array(x) if isinstance(x, np.ndarray) else int(x)

    def specialization(self, one: Specialization) -> dict[str, Any]:
        known = None if one.known is None else [int(one.known[0]), [int(v) for v in one.known[1]]]
        return {"graph": self.graph(one.graph), "sizes": list(map(int, one.sizes)), "known": known}

    def cache(self, cache: SignatureCache, what: str) -> dict[str, Any]:
        return {
            "kinds": [[kind[0], *([list(kind[1])] if len(kind) > 1 else [])] for kind in cache.kinds],
            "nests": None if cache.nests is None else [nest_as_json(nest, what) for nest in cache.nests],
            "names": list(cache.names),
            "result": nest_as_json(cache.nest, what),
            "recordings": [self.specialization(one) for one in cache.all()],
        }

    def program(self, program: Any, with_function: bool = False) -> dict[str, Any]:
        """What there is to know of a program, and of those of its derivatives; to go with its function: what that
        needs to take its recordings up again, and no derivatives."""
        name = program.__name__
        caches = [cache for cache in program._caches.values() if cache.all()]
        if not caches and not any(cache.all() for d in program._derivatives.values() for cache in d._caches.values()):
            callbacks = any(cache.eager for cache in program._caches.values())
            why = (
                "its function runs in Python for every row, which cannot be saved" if callbacks
                else "nothing was recorded yet: call it with rows of each kind that is to be saved"
            )
            raise ValueError(f"{name}.save: {why}")
        derived = []
        for key, other in () if with_function else list(program._derivatives.items()):
            if any(cache.all() for cache in other._caches.values()):
                entry = {"key": list(key), "program": self.program(other)}
                pattern = getattr(other.function, "pattern", None)
                if pattern is not None:
                    entry |= {"pattern": [list(at) for at in pattern], "shape": list(other.function.shape)}
                derived.append(entry)
        try:
            written = [self.cache(cache, name) for cache in caches]
            for cache, entry in zip(caches, written, strict=True):
                if with_function and cache.example is not None:
                    entry["example"] = [[list(k), self.place(d)] for k, d in zip(
                        cache.example.kinds, cache.example.data, strict=True)]
        except TypeError as error:
            raise TypeError(f"{name}.save: {error}") from None
        return {
            "name": name,
            "places": program._places(),
            "shared": list(program._shared),
            "exact": program._exact_where_not_finite,
            "caches": written,
            "derivatives": derived,
        }

    def place(self, data: np.ndarray) -> list[Any]:
        """Numbers of rows; whole ones as they are, since int32 is too short for them."""
        return ["whole", data.tolist()] if data.dtype.kind == "i" else self.array(data)

    def members(self, program: Any, with_function: bool = False) -> dict[str, np.ndarray]:
        body = self.program(program, with_function)
        header = {"format": FORMAT, "version": VERSION, "fastscalar": __version__, "program": body,
                  "leaves": self.values}  # fmt: skip
        both = {m: np.concatenate(parts) if parts else np.empty(0) for m, parts in self.parts.items()}
        return {
            "header": np.array(json.dumps(header)),
            "ints": both["i"].astype(np.int32),
            "numbers": both["f"].astype(np.float64),
        }


def write_program(program: Any, path: StrPath) -> None:
    """All of the file or nothing."""
    write_npz(path, Writer().members(program))


# --- reading --------------------------------------------------------------------------------------------


def read_members(path: StrPath) -> dict[str, np.ndarray]:
    """The three arrays of a file.  OSError, or ValueError for everything that is wrong in it."""
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file; expected a program written by save()")
    if not path.is_file():
        raise ValueError(f"{path}: expected the file of a program written by save()")
    size = path.stat().st_size
    try:
        with open_zip(path) as archive:
            found = {}
            for name in ("header", "ints", "numbers"):
                info = archive.NameToInfo.get(f"{name}.npy")
                if info is None:
                    raise ValueError(f"expected the member {name}.npy; found none")
                if info.compress_type != zipfile.ZIP_STORED or info.file_size > size:
                    raise ValueError("packed in a way that save() does not use")
                array = read_array(archive, info, "Uif")
                if array is None:
                    raise ValueError(f"damaged: the member {name}.npy")
                found[name] = array
            return found
    except (ValueError, EOFError, zipfile.BadZipFile, RuntimeError, OverflowError) as error:
        raise ValueError(f"{path}: not a program written by save(): {brief(error)}") from None


class Reader:
    """A program of the members of a file; ValueError for what the executor must not be given."""

    def __init__(self, members: dict[str, np.ndarray]) -> None:
        text = members["header"]
        require(text.dtype.kind == "U" and not text.shape, "the header")
        header: dict[str, Any] = json.loads(str(text))
        require(isinstance(header, dict) and header.get("format") == FORMAT, "the format")
        version = header.get("version")
        if type(version) is not int or not 1 <= version <= VERSION:
            raise ValueError(
                f"version {version!r} of fastscalar {header.get('fastscalar')!r}; this one reads those up to {VERSION}"
            )
        self.header = header
        self.members: dict[str, np.ndarray] = {
            "i": members["ints"].astype(np.int32).ravel(), "f": members["numbers"].astype(np.float64).ravel()
        }
        self.made: dict[Any, np.ndarray] = {}
        self.leaves: list[Any] = []
        for single, count, values in header["leaves"]:
            require(type(count) is int and 0 < count <= len(self.members["f"]) + (1 << 24), "a leaf")
            numbers = np.zeros(count) if values is None else self.array(values, "f")
            require(len(numbers) == count and (not single or count == 1), "a leaf")
            self.leaves.append(Tensor(float(numbers[0])) if single else to_tensor(numbers))

    def array(self, place: Any, member: str | None = None) -> np.ndarray:
        """The same object for the same place, as graphs have it."""
        require(isinstance(place, list) and len(place) > 1 and place[0] in ("i", "f"), "a place")
        require(member is None or member == place[0], "a place")
        key = tuple(place)
        if key not in self.made:
            first, shape = place[1], shape_of(place[2:])
            count = math.prod(shape)
            whole = self.members[place[0]]
            require(type(first) is int and 0 <= first and first + count <= len(whole), "a place")
            self.made[key] = whole[first : first + count].reshape(shape).copy()
        return self.made[key]

    def graph(self, x: dict[str, Any]) -> Any:
        columns = [self.array(place) for place in x["columns"]]
        names = {int(code): name for code, name in x["names"].items()}
        unknown = [name for name in names.values() if name not in _CODES]
        if unknown:
            raise ValueError(f"the operation {unknown[0]!r} is not known to this version")
        op = columns[0].copy()
        computed = op > NODE_CONSTANT
        translated = np.full(256, -1, np.int32)
        for code, name in names.items():
            require(0 <= code < 256, "an operation")
            translated[code] = _CODES[name]
        said = op.compress(computed)
        known = translated.take(said & 0xFF)     # and not by NumPy's indexing, which may crash without memory
        require(((said & ~0x1FF) == 0).all() and (known >= 0).all(), "an operation")
        np.place(op, computed, known | (said & IEEE))
        guards = np.zeros(len(self.array(x["guards"][0])), GUARD)
        for name, place in zip(("op", "left", "right", "value"), x["guards"], strict=True):
            guards[name] = self.array(place)
        raising = guards["op"] == READ_RAISES
        value = guards["value"][raising].astype(np.int64)
        require((translated[value & 0xFF] >= 0).all(), "a guard")
        guards["value"][raising] = translated[value & 0xFF] + (value & ~0xFF)
        guards["code"], guards["instruction"] = self.array(x["place"]), 0
        items = []
        for kind, first, outputs, *parts in x["items"]:
            require(kind in (*ITEMS, "call") and type(first) is int and type(outputs) is int, "an item")
            items.append((kind, first, outputs, *map(self.part, parts)))
        captures = [self.leaves[self._index(k, self.leaves)] for k in x["captures"]]
        graph: Any = empty_graph()
        graph.op, graph.a, graph.b = op, columns[1].copy(), columns[2].copy()
        graph.value, graph.stopped, graph.results = columns[3].copy(), columns[4].astype(np.uint8), columns[5].copy()
        graph.set_items(items)
        graph.captures, graph.inputs, graph.guards = captures, list(x["inputs"]), guards
        graph.codes = [SavedPlace(str(file), int(line)) for file, line in x["places"]]
        graph.shared = {int(k): self._index(at, captures) for k, at in x["shared"]}
        graph.operations = int(x["operations"])
        graph.draws = [tuple(draw) for draw in x["draws"]]
        graph.uncertain = bool(x.get("uncertain", False))
        return graph

    def part(self, x: Any) -> Any:
        if isinstance(x, dict):
            return loop_of_json(x, self.graph, self.array)
        return self.array(x, "i") if isinstance(x, list) else x

    @staticmethod
    def _index(k: Any, of: list[Any]) -> int:
        require(type(k) is int and 0 <= k < len(of), "a number of a leaf")
        return k

    def cache(self, x: dict[str, Any]) -> tuple[Any, SignatureCache]:
        kinds = []
        for name, *shape in x["kinds"]:
            require(name in ("number", "array", "leaf", *WHOLE), "a kind of arguments")
            kinds.append((name, *map(shape_of, shape)))
        cache = SignatureCache(kinds)
        cache.nests = None if x["nests"] is None else tuple(map(nest_of_json, x["nests"]))
        cache.names = tuple(map(str, x["names"]))
        cache.nest = nest_of_json(x["result"])
        for one in x["recordings"]:
            graph = self.graph(one["graph"])
            cache.width = cache.width or len(graph.results)
            sizes = [int(n) for n in one["sizes"]]
            checked(graph, sizes, kinds)
            require(len(graph.results) == cache.width == result_count(cache.nest), "the results")
            made = Specialization(graph, sizes)
            if one["known"] is not None:
                at, values = one["known"]
                require(type(at) is int and 0 <= at < len(graph.inputs) and graph.inputs[at] == "whole", "a gather")
                made.known = at, np.array(values, np.int64)
            cache.bucket(made.key).append(made)
            cache.recorded += 1
        if "example" in x:
            cache.example = self.example(x["example"], cache)
            cache.loose = True
        key = tuple(kinds)
        return (key if cache.nests is None else (key, cache.nests, cache.names)), cache

    def example(self, x: list[Any], cache: SignatureCache) -> Rows:
        rows = Rows.__new__(Rows)
        rows.kinds = [frozen(kind) for kind, _ in x]
        rows.data = [np.array(p[1], np.int64) if p[0] == "whole" else self.array(p) for _, p in x]
        rows.columns, rows._finite, rows.n, rows.cache = {}, {}, 1, cache
        rows.nests, rows.names, rows.streams = cache.nests, cache.names, Streams()
        return rows

    def program(self, x: dict[str, Any], make: Any) -> Any:
        program = make(Gone(str(x["name"])))
        program._shared = tuple(x["shared"])
        program._known_places = {str(name): int(k) for name, k in x["places"].items()}
        program._exact_where_not_finite = bool(x["exact"])
        for one in x["caches"]:
            key, cache = self.cache(one)
            program._caches[key] = cache
            for recording in cache.all():
                for k, at in recording.graph.shared.items():
                    program._stand_ins[k, cache.kinds[k][1]] = recording.graph.captures[at]
        for one in x["derivatives"]:
            other = self.program(one["program"], make)
            if "pattern" in one:
                other.function.pattern = [(int(i), int(j)) for i, j in one["pattern"]]
                other.function.shape = shape_of(one["shape"])
            program._derivatives[frozen(one["key"])] = other
        return program


def frozen(x: Any) -> Any:
    return tuple(map(frozen, x)) if isinstance(x, list) else x


def result_count(nest: Any) -> int:
    if isinstance(nest, Container):
        return sum(map(result_count, nest.items))
    return 1 if nest is None else nest.size if isinstance(nest, Array) else 0


def read_program(path: StrPath, make: Any) -> Any:
    members = read_members(path)
    try:
        reader = Reader(members)
        return reader.program(reader.header["program"], make)
    except (KeyError, TypeError, IndexError, AttributeError, RecursionError, ValueError, OverflowError) as error:
        raise ValueError(f"{path}: not a program written by save(): {brief(error)}") from None


# --- pickling -------------------------------------------------------------------------------------------


def recordings_of(program: Any) -> dict[str, np.ndarray] | None:
    """What a pickle has beside the function; None if there is nothing that can be kept."""
    try:
        return Writer().members(program, with_function=not isinstance(program.function, Gone))
    except (TypeError, ValueError):
        return None


def take_up(program: Any, members: dict[str, np.ndarray]) -> None:
    """The recordings of a pickle."""
    reader = Reader(members)
    other = reader.program(reader.header["program"], type(program))
    program._caches, program._stand_ins, program._derivatives = other._caches, other._stand_ins, other._derivatives
    program._exact_where_not_finite = other._exact_where_not_finite
    if isinstance(program.function, Gone):
        program._known_places = other._known_places
