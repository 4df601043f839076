"""Finding MNIST on this machine, and what is said when it is not there or is something else."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import os
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastscalar import datasets
from fastscalar.datasets import DatasetUnavailable, catalog, load_folder, save_idx

finder = importlib.import_module("fastscalar.datasets.mnist")  # the module; the package has the function

FILES = catalog.FILES
Load = Callable[..., Any]


def fill(folder: Path, mark: int, suffix: str = "", sizes: tuple[int, int] = (6, 4)) -> Path:
    """A small data set in which everything is `mark`."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, file in enumerate(FILES):
        n = sizes[i // 2]
        save_idx(folder / (file + suffix), np.full((n,) if i % 2 else (n, 28, 28), mark, np.uint8))
    return folder


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`mnist` and `fashion` become data sets of six images with labels 3 and 8. An empty machine."""
    for name, mark in (("mnist", 3), ("fashion", 8)):
        folder = fill(tmp_path / "original" / name, mark)
        sha256 = tuple(digest(folder / file) for file in FILES)
        changed = dataclasses.replace(catalog.DATASETS[name], sizes=(6, 4), sha256=sha256)
        monkeypatch.setitem(catalog.DATASETS, name, changed)
    monkeypatch.setenv("FASTSCALAR_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("FASTSCALAR_DATA", raising=False)
    monkeypatch.setattr(finder, "SYSTEM_FOLDERS", (tmp_path / "system",))
    monkeypatch.delenv("XDG_DATA_DIRS", raising=False)
    return tmp_path


# --- where ---


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize(("name", "load", "mark"), [("mnist", "mnist", 3), ("fashion", "fashion_mnist", 8)])
def test_search_order(
    small: Path, monkeypatch: pytest.MonkeyPatch, name: str, load: str, mark: int, suffix: str
) -> None:
    monkeypatch.setenv("FASTSCALAR_DATA", str(small / "data"))
    folder = catalog.DATASETS[name].folder
    assert datasets.locate(name) is None
    for place in ("system", "cache", "data"):
        here = fill(small / place / folder, mark, suffix)
        assert datasets.locate(name) == here
        (X, y), (X_test, y_test) = getattr(datasets, load)(download=False)
        assert X.shape == (6, 28, 28)
        assert y.tolist() == [mark] * 6
        assert X_test.shape == (4, 28, 28)
        assert y_test.dtype == X.dtype == np.uint8
        other = "fashion" if name == "mnist" else "mnist"
        assert datasets.locate(other) is None
    assert datasets.search_folders(name) == [small / p / folder for p in ("data", "cache", "system")]


def test_an_incomplete_folder_is_passed_over(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTSCALAR_DATA", str(small / "data"))
    (fill(small / "data" / "mnist", 3) / FILES[2]).unlink()
    with pytest.raises(DatasetUnavailable, match="no t10k-images-idx3-ubyte") as caught:
        datasets.mnist(download=False)
    assert str(caught.value).count("no such files") == 2
    assert "\n" not in str(caught.value)
    fill(small / "system" / "mnist", 3)
    assert datasets.mnist(download=False)[0][1].tolist() == [3] * 6


def test_an_explicit_folder_is_the_only_one(small: Path) -> None:
    fill(small / "cache" / "mnist", 3)
    with pytest.raises(FileNotFoundError, match="elsewhere: expected train-images-idx3-ubyte or"):
        datasets.mnist(small / "elsewhere")
    fill(small / "elsewhere", 3, ".gz")
    assert datasets.mnist(str(small / "elsewhere"))[1][1].tolist() == [3] * 4


# --- names with a dot, zip files, progress ---


def dotted(file: str) -> str:
    return file.replace("-idx", ".idx")


def zipped(folder: Path, archive: Path, inside: str = "", spell: Callable[[str], str] = dotted) -> Path:
    archive.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as out:
        for path in folder.iterdir():
            out.write(path, inside + spell(path.name))
    return archive


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("load", [datasets.mnist, load_folder])
def test_names_with_a_dot(small: Path, monkeypatch: pytest.MonkeyPatch, load: Load, suffix: str) -> None:
    monkeypatch.setenv("FASTSCALAR_DATA", str(small / "data"))
    folder = fill(small / "data" / "mnist", 3, suffix)
    for path in list(folder.iterdir()):
        path.rename(folder / dotted(path.name))
    assert load(folder)[0][1].tolist() == [3] * 6
    assert datasets.locate() == folder
    assert set(datasets.verify(folder).values()) == {None}
    (folder / dotted(FILES[1] + suffix)).rename(folder / FILES[1])  # mixed
    assert load(folder)[0][1].tolist() == [3] * 6


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("inside", ["", "mnist/", "a/b/"])
@pytest.mark.parametrize("spell", [dotted, str], ids=["dots", "hyphens"])
@pytest.mark.parametrize("load", [datasets.mnist, load_folder])
def test_a_zip_file(small: Path, load: Load, spell: Callable[[str], str], inside: str, suffix: str) -> None:
    """As somebody got it from a course: given itself, or its folder, or where MNIST is looked for."""
    archive = zipped(fill(small / "files", 3, suffix), small / "cache" / "mnist" / "mnist.zip", inside, spell)
    for place in (archive, archive.parent, str(archive)):
        (X, y), (X_test, y_test) = load(place)
        assert (X.shape, X_test.shape, y.tolist(), y_test.tolist()) == ((6, 28, 28), (4, 28, 28), [3] * 6, [3] * 4)
        assert set(datasets.verify(place).values()) == {None}
    assert datasets.locate() == archive.parent
    assert datasets.mnist(download=False)[0][1].tolist() == [3] * 6


def test_a_damaged_zip_file_is_named(small: Path) -> None:
    archive = zipped(fill(small / "files", 3), small / "mnist.zip")
    whole = archive.read_bytes()
    for size in (0, 10, len(whole) // 2, len(whole) - 5):
        archive.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"mnist\.zip: expected a folder or a whole zip file"):
            datasets.mnist(archive)
    spoilt = bytearray(whole)
    spoilt[60:80] = bytes(20)
    archive.write_bytes(spoilt)
    with pytest.raises(ValueError, match=r"mnist\.zip/.*damaged|mnist\.zip/.*expected") as caught:
        datasets.mnist(archive)
    assert "\n" not in str(caught.value)
    wrong = datasets.verify(archive)
    assert [file for file, what in wrong.items() if what and "damaged" in what] != []


def test_a_zip_file_of_other_things(small: Path) -> None:
    archive = small / "mnist.zip"
    with zipfile.ZipFile(archive, "w") as out:
        out.writestr("readme.txt", "hello")
    with pytest.raises(FileNotFoundError, match=r"mnist\.zip: expected train-images-idx3-ubyte or"):
        datasets.mnist(archive)
    with pytest.raises(FileNotFoundError, match="no such file"):
        datasets.load_idx(archive / "train-images-idx3-ubyte")


def test_a_zip_file_that_claims_too_much(small: Path) -> None:
    """Half a gigabyte of zeros in half a megabyte."""
    archive = small / "mnist.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as out:
        with out.open(dotted(FILES[0]), "w") as member:
            for _ in range(512):
                member.write(bytes(1 << 20))
        for file in FILES[1:]:
            out.writestr(dotted(file), b"")
    with pytest.raises(ValueError, match=r"mnist\.zip/train-images\.idx3-ubyte: expected at most .* bytes"):
        datasets.mnist(archive)


def test_a_missing_file_names_both_spellings(small: Path) -> None:
    for load in (datasets.mnist, load_folder):
        with pytest.raises(FileNotFoundError, match=r"train-images-idx3-ubyte or train-images\.idx3-ubyte.*neither"):
            load(small)
    with pytest.raises(DatasetUnavailable, match=r"train-images\.idx3-ubyte"):
        datasets.mnist(download=False)


@pytest.mark.parametrize("load", [datasets.mnist, load_folder])
def test_progress_is_reported_of_files_that_are_here_already(small: Path, load: Load) -> None:
    folder = fill(small / "data", 3)
    lines: list[str] = []
    load(folder, report=lines.append)
    assert lines[0].startswith("loading ")
    assert lines[0].endswith(str(folder))
    assert lines[1:] == [
        "training images: 28*28, loaded 6/6",
        "training labels: 6, done",
        "test images: 28*28, loaded 4/4",
        "test labels: 4, done",
    ]


@pytest.mark.mnist
def test_the_articles_first_look_at_mnist(mnist: object, capsys: pytest.CaptureFixture[str]) -> None:
    """Progress, shapes, and training sample 1, a zero: its picture, and its matrix as the article prints it."""
    (X, y), (X_test, y_test) = datasets.mnist(report=print)
    assert "28*28, loaded 60000/60000" in capsys.readouterr().out
    assert (X.shape, y.shape, X_test.shape, y_test.shape) == ((60000, 28, 28), (60000,), (10000, 28, 28), (10000,))
    assert y[1] == 0
    assert X[1, 4, 15:20].tolist() == [51, 159, 253, 159, 50]
    assert X[1, 23, 6:15].tolist() == [0, 25, 128, 252, 253, 252, 141, 37, 0]
    assert str(X[1].astype(float)).splitlines()[0] == "[[  0." + "   0." * 13
    lines = datasets.picture(X[1]).split("\n")
    assert len(lines) == 28
    assert [k for k, line in enumerate(lines) if line.strip()] == list(range(4, 24))
    assert len(lines[14].split()) == 2  # a ring: two strokes


def test_a_picture_has_a_character_for_every_shade() -> None:
    image = np.arange(256, dtype=np.uint8).reshape(1, 256)
    row = datasets.picture(image)
    assert row.strip()[:2] == ".."
    assert row[-2:] == "@@"
    assert [row.index(shade) for shade in ".:-=+*#%@"] == sorted(row.index(shade) for shade in ".:-=+*#%@")
    assert datasets.picture(image.astype(float)) == row


@pytest.mark.parametrize(
    ("platform", "variables", "expected"),
    [
        ("linux", {"FASTSCALAR_CACHE": "/own"}, "/own"),
        ("linux", {"XDG_CACHE_HOME": "/xdg"}, "/xdg/fastscalar"),
        ("linux", {"XDG_CACHE_HOME": "relative"}, "/home/me/.cache/fastscalar"),
        ("linux", {}, "/home/me/.cache/fastscalar"),
        ("darwin", {}, "/home/me/Library/Caches/fastscalar"),
        ("win32", {"LOCALAPPDATA": "/local"}, "/local/fastscalar/Cache"),
        ("win32", {}, "/home/me/AppData/Local/fastscalar/Cache"),
    ],
)
def test_cache_folder(
    monkeypatch: pytest.MonkeyPatch, platform: str, variables: dict[str, str], expected: str
) -> None:
    for key in ("FASTSCALAR_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setenv("HOME", "/home/me")
    for key, value in variables.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setattr(sys, "platform", platform)
    assert datasets.cache_dir().as_posix() == expected


def test_unknown_name() -> None:
    for ask in (datasets.locate, datasets.fetch, datasets.search_folders):
        with pytest.raises(ValueError, match=r"mnist, fashion.*found 'cifar'"):
            ask("cifar")


# --- what ---


def test_another_data_set_is_not_taken_for_mnist(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = fill(small / "data" / "mnist", 8)
    for path in (folder, None):
        monkeypatch.setenv("FASTSCALAR_DATA", str(small / "data"))
        with pytest.raises(ValueError) as caught:
            datasets.mnist(path)
        for word in (
            str(folder / FILES[1]),
            "expected the labels of MNIST",
            "found",
            digest(folder / FILES[1]),
        ):
            assert word in str(caught.value)
    assert len(load_folder(folder)[0][0]) == 6


def test_wrong_shape(small: Path) -> None:
    folder = fill(small / "here", 3, sizes=(5, 4))
    with pytest.raises(
        ValueError, match=r"train-images.*expected MNIST.*\(6, 28, 28\).*found uint8.*\(5, 28, 28\)"
    ):
        datasets.mnist(folder)


def test_verify(small: Path) -> None:
    folder = fill(small / "here", 3, ".gz")
    assert datasets.verify(folder) == dict.fromkeys(FILES)
    save_idx(folder / FILES[0], np.full((6, 28, 28), 4, np.uint8))
    (folder / f"{FILES[1]}.gz").write_bytes(b"\x1f\x8b rubbish")
    (folder / f"{FILES[2]}.gz").unlink()
    save_idx(folder / f"{FILES[3]}.gz", np.full(5, 3, np.uint8))
    found = datasets.verify(folder)
    assert str(found[FILES[0]]).startswith("wrong content: expected sha256")
    assert str(found[FILES[1]]).startswith("unreadable or truncated")
    assert found[FILES[2]] == "missing"
    assert found[FILES[3]] == "wrong content: expected 12 bytes uncompressed, found 13 or more"
    assert set(datasets.verify(folder, "fashion").values()) != {None}


# --- any folder ---


def test_load_folder(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    rng = np.random.default_rng(0)
    X, X_test = rng.integers(0, 256, (5, 16, 12), np.uint8), rng.integers(0, 256, (3, 16, 12), np.uint8)
    save_idx(folder / FILES[0], X)
    save_idx(folder / f"{FILES[1]}.gz", np.arange(5, dtype=np.uint8))
    save_idx(folder / f"{FILES[2]}.gz", X_test)
    save_idx(folder / FILES[3], np.arange(3, dtype=np.uint8))
    (a, b), (c, d) = load_folder(folder)
    assert np.array_equal(a, X)
    assert b.tolist() == [0, 1, 2, 3, 4]
    assert np.array_equal(c, X_test)
    assert d.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("file", "array", "words"),
    [
        (0, np.zeros((6, 784), np.uint8), "images: uint8 of 3 dimensions.*found uint8 of shape"),
        (0, np.zeros((6, 28, 28), np.float32), "images: uint8.*found float32"),
        (2, np.zeros((0, 28, 28), np.uint8), "not empty"),
        (1, np.zeros((6, 1), np.uint8), "labels: uint8 of 1 dimensions"),
        (
            1,
            np.zeros(7, np.uint8),
            "expected 6 labels, one for each image of train-images-idx3-ubyte; found 7",
        ),
        (3, np.zeros(3, np.uint8), "expected 4 labels.*found 3"),
        (
            2,
            np.zeros((4, 14, 14), np.uint8),
            r"expected images of \(28, 28\) as for training; found \(14, 14\)",
        ),
    ],
)
def test_load_folder_refuses(tmp_path: Path, file: int, array: np.ndarray, words: str) -> None:
    folder = fill(tmp_path, 1)
    save_idx(folder / FILES[file], array)
    with pytest.raises(ValueError, match=words) as caught:
        load_folder(folder)
    assert str(folder / FILES[file]) in str(caught.value)


# --- the real files ---

DATA = os.environ.get("FASTSCALAR_DATA")
REAL = Path(DATA or "", "mnist")
real = pytest.mark.skipif(
    not (DATA and (REAL / f"{FILES[0]}.gz").exists()), reason="FASTSCALAR_DATA does not have MNIST"
)


@pytest.mark.mnist
@real
def test_real_mnist() -> None:
    (X, y), (X_test, y_test) = datasets.mnist(download=False)
    assert X.shape == (60000, 28, 28)
    assert y.shape == (60000,)
    assert X_test.shape == (10000, 28, 28)
    assert y_test.shape == (10000,)
    assert {a.dtype for a in (X, y, X_test, y_test)} == {np.dtype(np.uint8)}
    assert np.bincount(y).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert y[:5].tolist() == [5, 0, 4, 1, 9]
    assert 0.19 < (X > 0).mean() < 0.192
    assert X.max() == 255
    assert datasets.verify(REAL) == dict.fromkeys(FILES)
    assert len(load_folder(REAL)[0][0]) == 60000


@pytest.mark.mnist
@real
def test_real_mnist_damaged_in_one_byte(tmp_path: Path) -> None:
    for file in FILES:
        shutil.copy(REAL / f"{file}.gz", tmp_path)
    path = tmp_path / f"{FILES[2]}.gz"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"t10k-images-idx3-ubyte\.gz"):
        datasets.mnist(tmp_path)
    wrong = datasets.verify(tmp_path)
    assert [file for file in FILES if wrong[file]] == [FILES[2]]
