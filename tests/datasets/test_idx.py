"""The IDX format: what is read is what was written, and every kind of broken file is named and refused."""

from __future__ import annotations

import gzip
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from fastscalar.datasets import load_idx, save_idx

DTYPES = ["uint8", "int8", "int16", "int32", "float32", "float64"]
LABELS = bytes([0, 0, 8, 1, 0, 0, 0, 3, 5, 0, 4])  # three labels: 5, 0, 4


def write(folder: Path, content: bytes, name: str = "file-idx") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def refused(path: Path, *words: str) -> None:
    with pytest.raises(ValueError) as caught:
        load_idx(path)
    message = str(caught.value)
    assert "\n" not in message
    for word in (str(path), "expected", "found", *words):
        assert word in message


@pytest.mark.parametrize("name", ["x", "x.gz"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (7,), (3, 5), (2, 3, 4), (2, 1, 3, 1, 2), (4, 0, 2)])
def test_round_trip(tmp_path: Path, dtype: str, shape: tuple[int, ...], name: str) -> None:
    count = int(np.prod(shape))
    array = (np.arange(count) * 37 - 50).astype(dtype).reshape(shape)
    save_idx(tmp_path / name, array)
    back = load_idx(str(tmp_path / name))
    assert back.dtype == array.dtype
    assert back.dtype.isnative
    assert back.shape == shape
    assert np.array_equal(back, array)
    assert back.flags.writeable
    assert (tmp_path / name).read_bytes().startswith(b"\x1f\x8b" if name.endswith("gz") else b"\0\0")


@pytest.mark.parametrize(
    ("code", "content", "expected"),
    [
        (0x08, "ff", 255),
        (0x09, "ff", -1),
        (0x0B, "0102", 258),
        (0x0C, "ff000001", -16777215),
        (0x0D, "3fc00000", 1.5),
        (0x0E, "c004000000000000", -2.5),
    ],
)
def test_bytes_of_each_type(tmp_path: Path, code: int, content: str, expected: float) -> None:
    """By hand, so that reader and writer cannot be wrong in the same way."""
    path = write(tmp_path, bytes([0, 0, code, 1, 0, 0, 0, 1]) + bytes.fromhex(content))
    assert load_idx(path).tolist() == [expected]


def test_the_content_says_whether_it_is_compressed(tmp_path: Path) -> None:
    assert load_idx(write(tmp_path, LABELS, "raw.gz")).tolist() == [5, 0, 4]
    assert load_idx(write(tmp_path, gzip.compress(LABELS), "packed")).tolist() == [5, 0, 4]


def test_foreign_byte_order_is_saved_right(tmp_path: Path) -> None:
    save_idx(tmp_path / "x", np.array([1, 258], ">i4"))
    save_idx(tmp_path / "y", np.array([1, 258], "<i4"))
    assert (tmp_path / "x").read_bytes() == (tmp_path / "y").read_bytes()
    assert load_idx(tmp_path / "x").tolist() == [1, 258]


def test_a_type_without_a_code_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="IDX cannot hold int64"):
        save_idx(tmp_path / "x", np.array([1], np.int64))
    assert not (tmp_path / "x").exists()


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no-such-file"):
        load_idx(tmp_path / "no-such-file")


BROKEN = {
    "empty": (b"", ["0 bytes"]),
    "three bytes": (LABELS[:3], ["3 bytes"]),
    "magic": (b"\x01" + LABELS[1:], ["00 00", "01 00 08 01"]),
    "html": (b"<!DOCTYPE html>", ["3c 21 44 4f"]),
    "type": (bytes([0, 0, 0x0A, 1]) + LABELS[4:], ["0x08 (uint8)", "0x0a"]),
    "dimensions cut": (LABELS[:6], ["1 dimensions", "2 bytes"]),
    "no data": (LABELS[:8], ["3 bytes", "found only 0", "truncated"]),
    "one short": (LABELS[:-1], ["3 bytes", "uint8 of shape (3,)", "found only 2", "truncated"]),
    "one too many": (LABELS + b"\0", ["3 bytes", "1 bytes too many"]),
    "65 dimensions": (bytes([0, 0, 8, 65]) + bytes([0, 0, 0, 1]) * 65 + b"x", ["NumPy can hold"]),
    "impossible shape": (bytes([0, 0, 8, 4]) + b"\xff" * 12 + bytes(4), ["NumPy can hold"]),
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", BROKEN)
def test_broken_content(tmp_path: Path, kind: str, packed: bool) -> None:
    content, words = BROKEN[kind]
    refused(write(tmp_path, gzip.compress(content) if packed else content), *words)


PACKED = gzip.compress(LABELS)


@pytest.mark.parametrize(
    "content",
    [
        *(PACKED[:n] for n in range(2, len(PACKED))),
        PACKED[:-8] + b"\0\0\0\0" + PACKED[-4:],  # the checksum
        PACKED[:-4] + b"\0\0\0\0",  # the length
        PACKED[:2] + b"\x07" + PACKED[3:],  # the method
        PACKED[:10] + b"\xff" * 8 + PACKED[18:],  # the compressed data
        PACKED + b"rubbish",
    ],
    ids=lambda content: str(len(content)),
)
def test_broken_gzip(tmp_path: Path, content: bytes) -> None:
    refused(write(tmp_path, content), "gzip")


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("shape", [(0xFFFFFFFF,), (60000, 28, 28), (50000, 50000)])
def test_a_lying_header_takes_no_memory(tmp_path: Path, shape: tuple[int, ...], packed: bool) -> None:
    header = bytes([0, 0, 0x0E, len(shape)]) + b"".join(n.to_bytes(4, "big") for n in shape)
    content = header + np.random.default_rng(0).bytes(100_000)
    path = write(tmp_path, gzip.compress(content) if packed else content)
    tracemalloc.start()
    try:
        refused(path, "float64")
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()


def test_trailing_data_is_not_read_to_its_end(tmp_path: Path) -> None:
    path = write(tmp_path, gzip.compress(LABELS + bytes(50_000_000), compresslevel=1))
    tracemalloc.start()
    try:
        refused(path, "or more bytes too many")
        assert tracemalloc.get_traced_memory()[1] < 8_000_000
    finally:
        tracemalloc.stop()
