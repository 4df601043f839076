"""Labelled images under all the names under which people have them, and what is said of those that do not fit."""

from __future__ import annotations

import gzip
import io
import shutil
import tracemalloc
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastscalar.datasets import load_images, save_idx, synthetic_digits
from fastscalar.datasets.catalog import FILES
from fastscalar.datasets.tables import read_csv, read_npz

Array = np.ndarray[Any, Any]
(X, Y), (X_TEST, Y_TEST) = synthetic_digits(140, 42)
ALL = {"train": (X, Y), "test": (X_TEST, Y_TEST)}


def csv(images: Array, labels: Array | None, head: bool = True, last: bool = False) -> str:
    lines = []
    names = [f"pixel{k}" for k in range(images[0].size)]
    if head:
        lines.append(",".join(names if labels is None else [*names, "class"] if last else ["label", *names]))
    for k, row in enumerate(images.reshape(len(images), -1).tolist()):
        label = [] if labels is None else [int(labels[k])]
        lines.append(",".join(map(str, [*row, *label] if last else [*label, *row])))
    return "\n".join(lines) + "\n"


def idx(folder: Path, names: str, transpose: bool = False, first: int = 0, end: str = "") -> None:
    for part, (images, labels) in ALL.items():
        images = np.ascontiguousarray(images.transpose(0, 2, 1)) if transpose else images
        for what, number, array in (("images", 3, images), ("labels", 1, labels + np.uint8(first))):
            said = "t10k" if part == "test" and "t10k" in names else part
            name = names.replace("t10k", "").format(part=said, what=what, number=number)
            save_idx(folder / f"{name}{end}", array)


def tables(folder: Path, names: str, **options: Any) -> None:
    for part, split in ALL.items():
        (folder / names.format(part)).write_text(csv(*split, **options))


def npz_four(folder: Path, name: str) -> None:
    for part, (images, labels) in ALL.items():
        np.savez_compressed(folder / f"{name}-{part}-imgs.npz", images)
        np.savez_compressed(folder / f"{name}-{part}-labels.npz", labels)


def keras(folder: Path, images: Any = lambda a: a, labels: Any = lambda a: a) -> None:
    np.savez(folder / "mnist.npz", x_train=images(X), y_train=labels(Y), x_test=images(X_TEST), y_test=labels(Y_TEST))


def zipped(folder: Path) -> None:
    with zipfile.ZipFile(folder / "mnist.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("train.csv", csv(X, Y))
        file.writestr("test.csv", csv(X_TEST, Y_TEST))
        file.writestr("sample_submission.csv", "ImageId,Label\n1,0\n")


def zipped_idx(folder: Path, *names: str) -> None:
    """As EMNIST is published, with what a Mac adds."""
    (folder / "gzip").mkdir()
    for name in names:
        idx(folder / "gzip", f"emnist-{name}-{{part}}-{{what}}-idx{{number}}-ubyte", transpose=True, end=".gz")
    with zipfile.ZipFile(folder / "all.zip", "w") as file:
        for path in (folder / "gzip").iterdir():
            file.write(path, f"gzip/{path.name}")
            file.writestr(f"__MACOSX/gzip/._{path.name}", b"junk")
    shutil.rmtree(folder / "gzip")


def inside(folder: Path) -> None:
    (folder / "MNIST" / "raw").mkdir(parents=True)
    idx(folder / "MNIST" / "raw", "t10k{part}-{what}-idx{number}-ubyte")


WAYS: dict[str, Any] = {
    "MNIST, KMNIST, Fashion": lambda f: idx(f, "t10k{part}-{what}-idx{number}-ubyte", end=".gz"),
    "with dots": lambda f: idx(f, "t10k{part}-{what}.idx{number}-ubyte"),
    "with test for t10k": lambda f: idx(f, "{part}-{what}-idx{number}-ubyte"),
    "underlined": lambda f: idx(f, "{part}_{what}.idx{number}-ubyte"),
    "EMNIST": lambda f: idx(f, "emnist-digits-{part}-{what}-idx{number}-ubyte", transpose=True, end=".gz"),
    "EMNIST, not transposed": lambda f: idx(f, "emnist-mnist-{part}-{what}-idx{number}-ubyte"),
    "EMNIST letters, from 1": lambda f: idx(f, "emnist-letters-{part}-{what}-idx{number}-ubyte", True, 1),
    "Kuzushiji": lambda f: npz_four(f, "kmnist"),
    "Keras": keras,
    "floats of 0..1": lambda f: keras(f, lambda a: a / 255.0),
    "floats of 0..255": lambda f: keras(f, lambda a: a.astype(np.float32)),
    "rows, and labels one-hot": lambda f: keras(f, lambda a: a.reshape(len(a), -1), lambda y: np.eye(10)[y]),
    "channels": lambda f: keras(f, lambda a: a[..., None], lambda y: y[:, None]),
    "Kaggle's Fashion": lambda f: tables(f, "fashion-mnist_{}.csv"),
    "CSV without names": lambda f: tables(f, "mnist_{}.csv", head=False),
    "CSV, labels last": lambda f: tables(f, "{}.csv", last=True),
    "a zip of CSV files": zipped,
    "a zip of EMNIST": lambda f: zipped_idx(f, "digits"),
    "in folders of a folder": inside,
}


@pytest.mark.parametrize("way", WAYS)
def test_the_same_images_in_every_way(tmp_path: Path, way: str) -> None:
    WAYS[way](tmp_path)
    files = list(tmp_path.iterdir())
    for place in [tmp_path, *(files if len(files) == 1 else [])]:
        if place.suffix != ".zip" and way.startswith("a zip"):
            continue
        found = load_images(place)
        for (images, labels), (right, right_labels) in ((found.train, (X, Y)), (found.test, (X_TEST, Y_TEST))):
            assert images.dtype == np.uint8
            assert np.array_equal(images, right)
            assert np.array_equal(labels, right_labels)
        assert len(found.classes) == 10
        assert found.classes[0] == ("1" if "from 1" in way else "0")
        turned = way in ("EMNIST", "EMNIST letters, from 1", "a zip of EMNIST")
        assert any("turned" in note for note in found.notes) == turned


def test_classes_of_emnist(tmp_path: Path) -> None:
    for part, labels in (("train", np.arange(140) % 26 + 1), ("test", np.arange(42) % 26 + 1)):
        save_idx(tmp_path / f"emnist-letters-{part}-images-idx3-ubyte", ALL[part][0])
        save_idx(tmp_path / f"emnist-letters-{part}-labels-idx1-ubyte", labels.astype(np.uint8))
    assert load_images(tmp_path).classes == list("ABCDEFGHIJKLMNOPQRSTUVWXYZ")


@pytest.mark.parametrize("place", ["", "all.zip"])
def test_several_sets_in_a_place(tmp_path: Path, place: str) -> None:
    if place:
        zipped_idx(tmp_path, "balanced", "digits")
    else:
        for name in ("balanced", "digits"):
            idx(tmp_path, f"emnist-{name}-{{part}}-{{what}}-idx{{number}}-ubyte", transpose=True)
    with pytest.raises(ValueError, match="several data sets: emnist-balanced, emnist-digits; say which"):
        load_images(tmp_path / place)
    assert np.array_equal(load_images(tmp_path / place / "emnist-digits").train[0], X)
    with pytest.raises(FileNotFoundError, match="expected a folder or a file"):
        load_images(tmp_path / place / "emnist-letters")


@pytest.mark.parametrize("kind", ["csv", "npz", "kaggle"])
def test_one_table_is_split(tmp_path: Path, kind: str) -> None:
    if kind == "npz":
        np.savez(tmp_path / "a.npz", X=X, y=Y)
    else:
        (tmp_path / "train.csv").write_text(csv(X, Y))
    if kind == "kaggle":
        (tmp_path / "test.csv").write_text(csv(X_TEST, None))
    found = load_images(tmp_path)
    assert any("kept aside" in note for note in found.notes)
    assert (len(found.train[1]), len(found.test[1])) == (120, 20)
    both = np.concatenate([found.train[0], found.test[0]]).reshape(140, -1)
    assert sorted(map(bytes, both)) == sorted(map(bytes, X.reshape(140, -1)))
    again = load_images(tmp_path)
    assert np.array_equal(again.test[0], found.test[0])


# --- folders of pictures ---


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("parts", [True, False])
@pytest.mark.parametrize("way", ["folder", "zip", "in one folder", "zip in one folder"])
def test_folders_of_pictures(tmp_path: Path, dark: bool, parts: bool, way: str) -> None:
    image = pytest.importorskip("PIL.Image")
    for part, (images, labels) in ALL.items() if parts else [("", ALL["train"])]:
        for k, (picture, label) in enumerate(zip(images, labels, strict=True)):
            folder = tmp_path / "all" / ("digits" if "one" in way else "") / part / f"{int(label) * 3}"
            folder.mkdir(parents=True, exist_ok=True)
            image.fromarray(255 - picture if dark else picture).save(folder / f"{k:03}.png")
            (folder / "notes.txt").write_text("no picture")
    if way.startswith("zip"):
        (tmp_path / "all" / "__MACOSX").mkdir()
        shutil.make_archive(str(tmp_path / "all"), "zip", tmp_path / "all")
    found = load_images(tmp_path / ("all.zip" if way.startswith("zip") else "all"))
    assert found.classes == [str(3 * k) for k in range(10)]  # by number: 3, 6, 9, 12
    images, labels = found.train
    assert images.shape[1:] == (28, 28)
    assert len(images) == (140 if parts else 120)
    known = {bytes(x): int(y) for x, y in zip(X.reshape(140, -1), Y, strict=True)}
    assert all(known[bytes(x)] == y for x, y in zip(images.reshape(len(images), -1), labels, strict=True))
    assert any("turned round" in note for note in found.notes) == dark


def test_a_zip_of_pictures_that_is_damaged_or_claims_too_much(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    path = tmp_path / "all.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for k, picture in enumerate(X[:20]):
            content = io.BytesIO()
            image.fromarray(picture).save(content, "PNG")
            archive.writestr(f"{k % 2}/{k:03}.png", content.getvalue())
    whole = path.read_bytes()
    assert len(load_images(path).train[1]) + len(load_images(path).test[1]) == 20
    at = whole.index(b"IDAT") + 6
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1 :])
    with pytest.raises(ValueError, match=r"all\.zip"):
        load_images(path)
    path.write_bytes(whole)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("1/zeros.png", b"\x89PNG\r\n\x1a\n" + bytes(1 << 27))
    with pytest.raises(ValueError, match="a claim of"):
        load_images(path)


def test_pictures_of_several_sizes(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    for k in range(14):
        folder = tmp_path / "ab"[k % 2]
        folder.mkdir(exist_ok=True)
        image.fromarray(X[k]).resize((20 + 10 * k, 30 + k)).save(folder / f"{k}.png")
    assert load_images(tmp_path).train[0].shape == (12, 28, 28)


# --- what does not fit ---


def line(*cells: object) -> str:
    return ",".join(map(str, cells)) + "\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "found 1 columns"),
        ("a,b\n", "found 2 columns"),
        (line("label", *("p" * 5)), "5 columns of them"),
        (line("label", *("abcd")), "no images"),
        (line("label", *("abcd")) + line(1, 0, 0, 0), "line 2: expected 5 columns; found 4"),
        (line("label", *("abcd")) + line(1, 0, 0, 0, 0) + line(1, 0, "x", 0, 0), "line 3: expected numbers; found 'x'"),
        (line("label", *("abcd")) + line(1, 0, "nan", 0, 0), "line 2: expected numbers; found 'nan'"),
        (line("label", *("abcd")) + line(1, 0, 256, 0, 0), "pixels of 0..255"),
        (line("label", *("abcd")) + line(1, 0, -1, 0, 0), "pixels of 0..255"),
        (line("label", *("abcd")) + line(1, 0, "1e300", 0, 0), "pixels of 0..255"),
        (line("label", *("abcd")) + line("1e18", 0, 1, 0, 0), "found 1e+18"),
        (line("label", *("abcd")) + line(1.5, 0, 1, 0, 0), "whole numbers as labels, from 0 on; found 1.5"),
        (line("label", *("abcd")) + line(-1, 0, 1, 0, 0), "whole numbers as labels, from 0 on; found -1"),
        (line("label", *("abcd")) + line("seven", 0, 1, 0, 0), "expected numbers; found 'seven'"),
        (line(1, 0, 0, 0, 0) + "\0\0", "expected 5 columns"),
    ],
)
@pytest.mark.filterwarnings("error")             # they would stand beside the message
def test_tables_that_do_not_fit(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(ValueError) as caught:
        load_images(tmp_path / "a.csv")
    assert said in str(caught.value)
    assert str(tmp_path / "a.csv") in str(caught.value)


def test_tables_of_other_shapes(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(csv(X[:5], Y[:5]).replace(",", ";").replace("\n", "\r\n"))
    images, labels = read_csv(tmp_path / "a.csv")
    assert np.array_equal(images, X[:5])
    assert labels is not None
    assert labels.tolist() == Y[:5].tolist()
    (tmp_path / "b.csv.gz").write_bytes(gzip.compress(b"\xef\xbb\xbf" + csv(X[:5], Y[:5]).encode()))
    assert np.array_equal(read_csv(tmp_path / "b.csv.gz")[0], X[:5])
    (tmp_path / "c.csv").write_text("\n".join(csv(X[:5] / 255, Y[:5]).splitlines()) + "\n\n")
    assert np.array_equal(read_csv(tmp_path / "c.csv")[0], X[:5])
    (tmp_path / "d.csv").write_text(csv(X, None))
    with pytest.raises(ValueError, match="a column of labels"):
        load_images(tmp_path / "d.csv")
    (tmp_path / "e.csv").write_bytes(bytes(range(256)) * 9)
    with pytest.raises(ValueError, match="CSV"):
        load_images(tmp_path / "e.csv")


def npz(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "damaged"),
        (b"PK\x03\x04 no", "damaged"),
        (npz(a=X), "expected arrays x_train, y_train"),
        (npz(X=X, y=Y[:9]), "expected 140 labels"),
        (npz(X=X / 1.0 - 9.0, y=Y), "pixels of 0..255"),
        (npz(X=X * np.nan, y=Y), "found NaN"),
        (npz(X=X, y=Y + 0.5), "whole numbers from 0"),
        (npz(X=X, y=Y.astype(int) - 1), "whole numbers from 0"),
        (npz(X=X, y=Y.astype(np.int64) + 2**32), "expected labels below 32,768"),
        (npz(X=X, y=Y * 1e300), "expected labels below 32,768"),
        (npz(X=X, y=np.full(len(Y), 2**64 - 1, dtype=np.uint64)), "expected labels below 32,768"),
        (npz(X=X.reshape(-1, 7), y=Y), "images of shape"),
        (npz(X=X[:3], y=Y[:3]), "at least 7"),
        (npz(X=np.array([{}], dtype=object), y=Y), "expected arrays"),
    ],
)
def test_arrays_that_do_not_fit(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(ValueError) as caught:
        load_images(tmp_path / "a.npz")
    assert said in str(caught.value)
    assert str(tmp_path / "a.npz") in str(caught.value)


SHAPES = [(), (0,), (1,), (140,), (140, 1), (140, 3), (140, 7, 7), (140, 7, 7, 1), (140, 0, 7), (0, 7, 7), (2, 70)]
KINDS = ["?", "i1", "u1", ">i4", "u8", "f2", ">f8", "g", "c16", "U1", "S1", "O", "M8[s]", "m8[s]", "V8", [("a", "f8")]]


@pytest.mark.parametrize("what", ["X", "y", "x_test", "y_test"])
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_arrays_of_every_kind_and_shape_are_taken_or_refused_by_name(tmp_path: Path, what: str, kind: Any) -> None:
    whole = {"X": X, "y": Y} if len(what) == 1 else {"x_train": X, "y_train": Y, "x_test": X, "y_test": Y}
    taken, said = 0, []
    for shape in SHAPES:
        with warnings.catch_warnings(action="ignore"):
            (tmp_path / "a.npz").write_bytes(npz(**whole | {what: np.ones(shape, "u1").astype(kind)}))
        try:
            found = load_images(tmp_path / "a.npz")
            taken += len(found.train[0]) + len(found.test[0]) >= 140
        except ValueError as error:
            said.append(str(error))
    assert all(str(tmp_path / "a.npz") in text for text in said)
    if np.dtype(kind).kind in "iuf" and what != "x_test":  # whose size is not that of those for training
        assert taken > 0


def test_files_take_memory_in_proportion(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("X.npy", npz_member(200_000_000))
    assert (tmp_path / "bomb.npz").stat().st_size < 1 << 20
    (tmp_path / "one.csv").write_text("1," * 2_000_000)
    save_idx(tmp_path / FILES[1], Y)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="claim of more"):
            read_npz(tmp_path / "bomb.npz")
        with pytest.raises(ValueError):
            read_csv(tmp_path / "one.csv")
        assert tracemalloc.get_traced_memory()[1] < 60_000_000
    finally:
        tracemalloc.stop()


def npz_member(size: int) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": (size,)})
    return file.getvalue() + bytes(size)


def test_folders_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="train-images-idx3-ubyte"):
        load_images(tmp_path)
    with pytest.raises(FileNotFoundError, match="expected a folder or a file"):
        load_images(tmp_path / "none")
    with pytest.raises(ValueError, match=r"zero: expected a folder or a file of images; found something else"):
        load_images("/dev/zero")                 # which has no end
    (tmp_path / "a").mkdir()
    with pytest.raises(ValueError, match="a folder of pictures for each class"):
        load_images(tmp_path)
    (tmp_path / "b").mkdir()
    with pytest.raises(ValueError, match="found none"):
        load_images(tmp_path)
