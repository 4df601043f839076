"""Reading costs what a file holds; whatever else is in it is one clear line."""

from __future__ import annotations

import gzip
import io
import json
import os
import struct
import subprocess
import sys
import time
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastscalar as fs
import fuzzing
from fastscalar import _core, cli
from fastscalar.cli.images import read_images
from fastscalar.datasets import load_idx
from fastscalar.datasets.archive import content_of, whole_zip
from fastscalar.datasets.tables import read_npz
from fastscalar.nn import models

MEGABYTE = 1 << 20


def cost(action: Callable[[], Any]) -> tuple[float, int]:
    """Seconds of the processor and bytes that an action takes which a ValueError ends."""
    tracemalloc.start()
    try:
        start = time.process_time()
        with pytest.raises(ValueError) as caught:
            action()
        assert "\n" not in str(caught.value)
        return time.process_time() - start, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def archive(path: Path, header: Any, arrays: dict[str, Any] | None = None, packed: bool = False) -> Path:
    """A file like those of save, with what a test wants in it."""
    text = header if isinstance(header, str) else json.dumps(header)
    save = np.savez_compressed if packed else np.savez
    with open(path, "wb") as file:
        save(file, header=np.array(text), **(arrays or {}))
    return path


def about(*widths: int, **more: Any) -> dict[str, Any]:
    return {"format": 1, "class": "MLP", "widths": list(widths), "metadata": {}} | more


def sound(*widths: int) -> dict[str, np.ndarray]:
    arrays = {}
    for k, pair in enumerate(pairwise(widths)):
        arrays |= {f"w{k}": np.ones(pair), f"b{k}": np.ones(pair[1])}
    return arrays


# --- nets ---


@pytest.mark.parametrize("widths", [(3000, 3000), (200_000, 200_000), (2, *[1000] * 2000), (2**31 - 1, 2**31 - 1)])
@pytest.mark.parametrize("arrays", [{}, {"w0": np.zeros((1, 1)), "b0": np.zeros(1)}])
def test_a_header_that_promises_a_large_net(tmp_path: Path, widths: tuple[int, ...], arrays: dict[str, Any]) -> None:
    path = archive(tmp_path / "net.npz", about(*widths), arrays)
    nodes = _core.tape_info()["capacity"]
    seconds, memory = cost(lambda: fs.load(path))
    assert seconds < 1
    assert memory < MEGABYTE
    assert _core.tape_info()["capacity"] == nodes


def test_members_that_are_not_needed_are_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "net.npz"
    archive(path, about(2, 3), sound(2, 3))
    packer = zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED, compresslevel=1)
    with packer, packer.open("x.npy", "w") as member:
        for _ in range(500):
            member.write(bytes(MEGABYTE))
    tracemalloc.start()
    start = time.process_time()
    try:
        assert fs.load(path).linears[0].w.tolist() == np.ones((2, 3)).tolist()
        assert tracemalloc.get_traced_memory()[1] < MEGABYTE
    finally:
        tracemalloc.stop()
    assert time.process_time() - start < 1


def test_members_that_are_needed_are_not_unpacked_to_much_more_than_the_file(tmp_path: Path) -> None:
    """A net of zeros in a file of 70 kB: as large as one whose header lies, and as little worth."""
    zeros = {"w0": np.zeros((3000, 3000)), "b0": np.zeros(3000)}
    path = archive(tmp_path / "net.npz", about(3000, 3000), zeros, packed=True)
    assert path.stat().st_size < 200_000
    seconds, memory = cost(lambda: fs.load(path))
    assert seconds < 1
    assert memory < MEGABYTE
    archive(path, '{"format": 1}' + " " * 30_000_000, packed=True)
    seconds, memory = cost(lambda: fs.load(path))
    assert seconds < 1
    assert memory < MEGABYTE


def test_a_net_that_somebody_has_packed_is_read(tmp_path: Path) -> None:
    path = archive(tmp_path / "net.npz", about(20, 30), sound(20, 30), packed=True)
    assert fs.load(path).linears[0].b.shape == (30,)


def test_many_members_are_not_listed(tmp_path: Path) -> None:
    path = tmp_path / "net.npz"
    with zipfile.ZipFile(path, "w") as zipped:
        for k in range(40_000):
            zipped.writestr(f"{k}", b"")
    seconds, memory = cost(lambda: fs.load(path))
    assert seconds < 1
    assert memory < 4 * MEGABYTE


def test_members_that_share_their_bytes(tmp_path: Path) -> None:
    """A thousand layers in the place of one: each member is sound, and together they are larger than the file."""
    path = archive(tmp_path / "net.npz", about(*[100] * 1001), sound(100, 100))
    content = path.read_bytes()
    with zipfile.ZipFile(path) as zipped:
        start = zipped.start_dir
        offset = {info.filename: info.header_offset for info in zipped.infolist()}
        entries = []
        for name in ["header", *(f"{kind}{k}" for k in range(1000) for kind in "wb")]:
            of = zipped.getinfo(f"{name[0]}0.npy" if name != "header" else "header.npy")
            file = f"{name}.npy".encode()
            sizes = (of.CRC, of.file_size, of.file_size, len(file), 0, 0, 0, 0, 0, offset[of.filename])
            entries.append(struct.pack("<4s6H3L5H2L", b"PK\x01\x02", 20, 20, 0, 0, 0, 0, *sizes) + file)
    directory = b"".join(entries)
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, len(entries), len(entries), len(directory), start, 0)
    path.write_bytes(content[:start] + directory + end)
    seconds, memory = cost(lambda: fs.load(path))
    assert seconds < 1
    assert memory < 8 * MEGABYTE


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ({"format": 1, "class": "MLP", "widths": [2, 3]}, "metadata null, expected a dictionary"),
        (about(2, 3, metadata=None), "metadata null"),
        (about(2, 3, metadata=[1]), r"metadata \[1\]"),
        (about(2, 3, metadata="x"), 'metadata "x"'),
        (about(2, 3, format=3), "format 3 of fastscalar .a newer version of it., this version reads formats up to 2"),
        (about(2, 3, format=7, fastscalar="3.1"), 'format 7 of fastscalar "3.1", this version'),
        (about(2, 3, format="1"), 'format "1"'),
        (about(2, 3, format=True), "format true"),
        (about(2, 3, format=0), "format 0"),
        (about(2, 3, format=None), "format null"),
        (about(2), r"widths \[2\]"),
        (about(2, 3, widths=None), "widths null"),
        (about(2, 3, widths={"2": 3}), "widths"),
        (about(2, 0), "widths"),
        (about(2, -3), "widths"),
        (about(2, 3, widths=[2, 3.0]), "widths"),
        (about(2, 3, widths=[True, 3]), "widths"),
        (about(2, 10**30), "widths"),
        (about(2, 3, widths=list(range(10_000))), r"widths .*\.\.\.,"),
        (about(2, 3, 4, **{"class": "Linear"}), "widths"),
        (about(2, 3, **{"class": "Conv"}), 'class "Conv", expected Linear or MLP'),
        (about(2, 3, **{"class": ["MLP"]}), "class"),
        ([], "names no format"),
        ("null", "names no format"),
        ("{", "Expecting"),
        ("", "Expecting"),
        ("[" * 100_000, "recursion"),
        ('{"format": ' + "9" * 10_000 + "}", "digit"),
    ],
)
def test_headers_that_are_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str], header: Any, said: str) -> None:
    path = archive(tmp_path / "net.npz", header, sound(2, 3))
    with pytest.raises(ValueError, match=said) as caught:
        fs.load(path)
    assert str(caught.value).startswith(f"{path}: not a net written by fastscalar's save(): ")
    assert len(str(caught.value)) < len(str(path)) + 300
    for command in ("evaluate", "predict"):
        assert cli.main([command, str(path), *["x.pgm"] * (command == "predict")]) == 2
        assert capsys.readouterr().err == f"fastscalar: {caught.value}\n"


@pytest.mark.parametrize(
    "change",
    [
        {"w0": np.ones((3, 2))},
        {"w0": np.ones((2, 4))},
        {"w0": np.asfortranarray(np.ones((2, 3)))},
        {"w0": np.ones(6)},
        {"b0": np.ones((1, 3))},
        {"w0": np.ones((2, 3), int)},
        {"w0": np.ones((2, 3), complex)},
        {"w0": np.array([["a"] * 3] * 2)},
        {"w0": np.ones((2, 3), [("a", "f8")])},
        {"w0": np.ones((2, 3), "f2")},
        {"w0": None},
        {"b0": None},
        {"header": np.zeros(3)},
        {"header": np.array(["{}"])},
        {"header": np.array(b"{}")},
    ],
)
def test_arrays_that_do_not_fit(tmp_path: Path, change: dict[str, Any]) -> None:
    arrays = {"header": np.array(json.dumps(about(2, 3))), **sound(2, 3)} | change
    np.savez(tmp_path / "net.npz", **{name: array for name, array in arrays.items() if array is not None})
    with pytest.raises(ValueError, match=r"net\.npz: not a net written by"):
        fs.load(tmp_path / "net.npz")


def test_nothing_in_a_file_is_executed(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "executed",)

    np.savez(tmp_path / "w.npz", header=np.array(json.dumps(about(2, 3))), w0=np.array([[Trap()]]), b0=np.ones(3))
    np.savez(tmp_path / "header.npz", header=np.array(Trap()), **sound(2, 3))
    np.save(tmp_path / "a.npy", np.array([[Trap()]]))
    for path in (tmp_path / "w.npz", tmp_path / "header.npz"):
        with pytest.raises(ValueError, match="not a net"):
            fs.load(path)
    with pytest.raises(ValueError, match="Python objects"):
        read_images(tmp_path / "a.npy", 1)
    assert not (tmp_path / "executed").exists()


def test_a_net_says_what_wrote_it(tmp_path: Path) -> None:
    for net, seed in ((fs.MLP(2, [3], seed=7), 7), (fs.Linear(2, 3, seed=8), 8), (fs.Linear(2, 3), None)):
        net.save(tmp_path / "net.npz")
        again = fs.load(tmp_path / "net.npz")
        assert again.seed == seed
        assert again.origin == {"format": 1, "fastscalar": fs.__version__, "kernels": fs.tape_info()["kernels"]}
    header = about(2, 3, seed="seven")  # of a version that did not say, or a file that was changed
    old = fs.load(archive(tmp_path / "old.npz", header, sound(2, 3)))
    assert (old.seed, old.origin) == (None, {"format": 1})


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("where", ["w", "b"])
def test_weights_that_are_not_finite(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], value: float, where: str
) -> None:
    net, path = fs.MLP(4, [3, 2], seed=0), tmp_path / "net.npz"
    array = getattr(net.linears[1], where)
    array.data = np.where(np.arange(array.numpy().size).reshape(array.shape) == 1, value, 0.5)
    net.save(path)
    with pytest.raises(ValueError, match=f"{where}1 holds infinite or NaN numbers; .*allow_nonfinite=True"):
        fs.load(path)
    assert cli.main(["evaluate", str(path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    again = fs.load(path, allow_nonfinite=True)
    assert getattr(again.linears[1], where).numpy().tobytes() == array.numpy().tobytes()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x93NUMPY" + bytes(100),
        b"PK\x03\x04" + bytes(100),
        b"PK\x05\x06" + b"\xff" * 18,
        b"PK\x05\x06" + bytes(18),
        b"\x80\x04\x95" + bytes(50),  # a pickle
        gzip.compress(b"x" * 100, mtime=0),
        b"\x89HDF\r\n\x1a\n" + bytes(100),
    ],
)
def test_foreign_files(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "net.npz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"net\.npz: not a net written by fastscalar's save\(\)"):
        fs.load(path)


def test_files_that_are_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(IsADirectoryError):
        fs.load(tmp_path)
    with pytest.raises(ValueError, match="device"):
        fs.load("/dev/null")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(ValueError, match="pipe"):
            fs.load(tmp_path / "pipe")
    (tmp_path / "images").mkdir()
    fs.Linear(4, 2, seed=0).save(tmp_path / "net.npz")
    assert cli.main(["predict", str(tmp_path / "net.npz"), str(tmp_path / "images")]) == 2
    assert capsys.readouterr().err == f"fastscalar: {tmp_path / 'images'}: is a directory\n"


def test_refused_memory_stays_a_memory_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "net.npz"
    fs.Linear(4, 2, seed=0).save(path)

    def refuse(*_: Any) -> None:
        raise MemoryError("no room for 8 bytes")

    for name in ("read_into", "npy_header"):
        with monkeypatch.context() as context:
            context.setattr(models, name, refuse)
            with pytest.raises(MemoryError):
                fs.load(path)
            assert cli.main(["evaluate", str(path)]) == 2
            assert capsys.readouterr().err == "fastscalar: not enough memory (no room for 8 bytes)\n"


@pytest.mark.parametrize("name", ["model", "images", "idx"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """An error of the disk while it is read names no file of its own."""
    path = tmp_path / name
    if name == "model":
        fs.Linear(4, 2, seed=0).save(path)
    else:
        fs.datasets.save_idx(path, np.zeros((2, 2), np.uint8))

    class Broken(io.BytesIO):
        def fileno(self) -> int:
            return descriptor

        def read(self, *_: Any) -> bytes:
            raise OSError(5, "Input/output error")

    reader: dict[str, Callable[[], Any]] = {
        "model": lambda: fs.load(path),
        "images": lambda: read_images(path, 4),
        "idx": lambda: load_idx(path),
    }
    with open(path, "rb") as real:
        descriptor = real.fileno()
        monkeypatch.setattr("builtins.open", lambda *_, **__: Broken(b"x"))
        with pytest.raises(OSError, match="Input/output error") as caught:
            reader[name]()
        monkeypatch.undo()
    assert caught.value.filename == str(path)


# --- images ---


@pytest.mark.parametrize("filler", [b" ", b"\n", b"# x\n", b"#", b"1", b"9 ", b"#\n"])
@pytest.mark.parametrize("kind", [b"P5", b"P2"])
def test_a_pgm_header_of_megabytes(tmp_path: Path, filler: bytes, kind: bytes) -> None:
    path = tmp_path / "a.pgm"
    for place in (0, 1, 2, 3):
        parts = [kind + b" ", b"2 ", b"2 ", b"255\n", b"\1\2\3\4"]
        parts[place] += filler * (6 * MEGABYTE // len(filler))
        path.write_bytes(b"".join(parts))
        seconds, memory = cost(lambda: read_images(path, 4))
        assert seconds < 1
        assert memory < 4 * MEGABYTE


def test_a_long_comment_in_a_pgm_header_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "a.pgm"
    path.write_bytes(b"P5 # " + b"x" * 20_000 + b"\n2 # y\n 2\n#z\n255\n" + bytes([0, 51, 102, 255]))
    assert read_images(path, 4).tolist() == [[0.0, 0.2, 0.4, 1.0]]


@pytest.mark.parametrize("shape", ["(100000, 100000)", "(4611686018427387904, 4)", "(2, 2, 250000000)"])
@pytest.mark.parametrize("descr", ["|u1", "<f8"])
def test_an_npy_header_that_lies(tmp_path: Path, shape: str, descr: str) -> None:
    path = tmp_path / "a.npy"
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".encode() + b"\n"
    path.write_bytes(b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header + b"abc")
    seconds, memory = cost(lambda: read_images(path, 4))
    assert seconds < 1
    assert memory < MEGABYTE


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["|u1", "?", "<f8", ">f8", "<f4", ">f4", "<f2"])
def test_arrays_come_as_numpy_has_them(tmp_path: Path, order: str, dtype: str) -> None:
    array = np.array(np.random.default_rng(0).integers(0, 2, (5, 2, 3)), dtype=dtype, order=order)  # type: ignore[call-overload]
    np.save(tmp_path / "a.npy", array)
    scale = 255 if dtype == "|u1" else 1
    assert read_images(tmp_path / "a.npy", 6).tolist() == (array.reshape(5, 6) / scale).tolist()


# --- IDX ---


def bomb(path: Path, shape: tuple[int, ...], code: int = 8) -> Path:
    """A gzip file of about a thousandth of what it holds: all of it is there."""
    header = bytes([0, 0, code, len(shape)]) + b"".join(n.to_bytes(4, "big") for n in shape)
    size = int(np.prod(shape, dtype=object)) * (8 if code == 14 else 1)
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    with open(path, "wb") as file:
        file.write(packer.compress(header))
        block = bytes(16 * MEGABYTE)
        for at in range(0, size, len(block)):
            file.write(packer.compress(block[: min(len(block), size - at)]))
        file.write(packer.flush())
    return path


def test_a_gzip_file_of_gigabytes_of_zeros(tmp_path: Path) -> None:
    path = bomb(tmp_path / "train-images-idx3-ubyte.gz", (300_000, 28, 28))  # 235 MB in 230 kB
    assert path.stat().st_size < 400_000
    for action in (lambda: load_idx(path), lambda: read_images(path, 784)):
        seconds, memory = cost(action)
        assert seconds < 1
        assert memory < 2 * MEGABYTE
    assert load_idx(path, max_bytes=10**9).shape == (300_000, 28, 28)
    with pytest.raises(ValueError, match="at most 1,000 bytes, max_bytes"):
        load_idx(path, max_bytes=1000)


def test_what_is_not_wanted_is_not_unpacked(tmp_path: Path) -> None:
    """The claim is compared with what is needed before the content is read: 60 MB are within the general limit."""
    path = bomb(tmp_path / "train-images-idx3-ubyte.gz", (60_000_000,))
    for name in fs.datasets.mnist.__globals__["FILES"][1:]:
        (tmp_path / name).write_bytes(b"")
    actions: list[Callable[[], Any]] = [
        lambda: fs.datasets.load_folder(tmp_path),
        lambda: fs.datasets.mnist(tmp_path),
        lambda: read_images(path, 784),
    ]
    for action in actions:
        seconds, memory = cost(action)
        assert seconds < 1
        assert memory < 2 * MEGABYTE


def test_small_sets_may_shrink_as_much_as_they_like(tmp_path: Path) -> None:
    path = bomb(tmp_path / "labels.gz", (60_000,))
    assert path.stat().st_size < 200
    assert not load_idx(path).any()


def test_an_uncompressed_file_is_measured_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "images"
    with open(path, "wb") as file:
        file.write(bytes([0, 0, 8, 1, 0xFF, 0xFF, 0xFF, 0xFF]))
        file.truncate(3 << 30)  # a hole: no block of the disk
    seconds, memory = cost(lambda: load_idx(path))
    assert seconds < 1
    assert memory < MEGABYTE


def test_a_zip_file_whose_directory_lies(tmp_path: Path) -> None:
    """A gigabyte of zeros in a megabyte that calls itself a gigabyte of packed bytes; and forty thousand members."""
    content = bytes([0, 0, 8, 1]) + (200_000_000).to_bytes(4, "big")
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr("images", content + bytes(200_000_000))
    data = bytearray((tmp_path / "a.zip").read_bytes())
    at = data.index(b"PK\1\2")
    data[at + 20 : at + 24] = (200_000_000).to_bytes(4, "little")  # its packed size
    (tmp_path / "a.zip").write_bytes(data)
    seconds, memory = cost(lambda: load_idx(tmp_path / "a.zip" / "images"))
    assert seconds < 1
    assert memory < MEGABYTE
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as out:
        for k in range(40_000):
            out.writestr(f"{k}", b"")
    seconds, memory = cost(lambda: load_idx(tmp_path / "b.zip" / "images"))
    assert seconds < 1
    assert memory < 4 * MEGABYTE


# --- mutations ---


def load_pictures(path: Path) -> None:
    """As folders of pictures in a zip are read."""
    with whole_zip(path) as inside:
        for member in inside.iterdir():
            if member.is_file():
                content_of(member)


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> fuzzing.Kinds:
    return fuzzing.Kinds(tmp_path_factory.mktemp("fuzz") / "files")


@pytest.mark.parametrize("kind", ["models", "IDX files", "zip files", "images", "PGM files"])
def test_mutated_files(kinds: fuzzing.Kinds, kind: str) -> None:
    accepted = fuzzing.fuzz(kinds, kind, 400, 11)
    assert 10 < accepted < 300, "the mutations are neither all harmless nor all fatal"


def refusal(reader: Callable[[], Any]) -> str | None:
    try:
        reader()
    except (ValueError, OSError) as error:
        return str(error)
    return None


@pytest.mark.parametrize("packing", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_what_is_damaged_is_named_however_it_is_packed(kinds: fuzzing.Kinds, tmp_path: Path, packing: int) -> None:
    """Each packing has exceptions of its own for that; bz2 an OSError without a number."""
    path = tmp_path / "data.zip"
    with zipfile.ZipFile(path, "w", packing) as archive:
        archive.writestr("images", (kinds.folder / "idx").read_bytes() * 20)
        archive.writestr("a/one.png", bytes(range(256)) * 4)
        archive.write(kinds.folder / "u1.npy", "X.npy")
    whole = path.read_bytes()
    readers: list[Callable[[], Any]] = [lambda: load_idx(path / "images"), lambda: read_npz(path),
                                        lambda: load_pictures(path), lambda: fs.load(path)]  # fmt: skip
    refused = 0
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        for reader in readers:
            said = refusal(reader)
            assert said is None or (str(path) in said and "\n" not in said), (at, said)
            refused += said is not None
    assert refused > 2 * len(whole)


def test_mutated_runs(kinds: fuzzing.Kinds) -> None:
    assert 10 < fuzzing.fuzz_runs(kinds, 100, 11) < 90


def test_the_sound_files_are_accepted(kinds: fuzzing.Kinds) -> None:
    for kind, contents in kinds.seeds.items():
        for content in contents:
            path = kinds.folder / "sound"
            path.write_bytes(content)
            if kind != "images" or not content.startswith(b"\0\0\x0e"):
                kinds.readers[kind](path)


# --- limits that the system sets ---


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits the address space")
def test_a_hostile_net_under_a_limit_of_memory(tmp_path: Path) -> None:
    """From the outside: whatever counts or does not count its memory, the process stays below 300 MB more."""
    archive(tmp_path / "net.npz", about(6000, 6000))
    code = (
        "import resource, sys, fastscalar as fs\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + (300 << 20),) * 2)\n"
        "try: fs.load(sys.argv[1])\n"
        "except ValueError as error: print(error)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "net.npz")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "expected the member w0.npy" in done.stdout
