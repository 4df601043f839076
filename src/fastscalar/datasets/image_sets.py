"""Labelled images of any kind: which files of a folder are which, and what their labels are called.

Read are, under all the names that are usual: IDX files (MNIST, Fashion-MNIST, KMNIST, EMNIST), CSV files (Kaggle's),
.npz files (Keras', Kuzushiji's), and folders that have a folder of pictures for each class.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fastscalar.files import StrPath

from .archive import content_of, members_of, pictures_in, whole_zip
from .catalog import FILES
from .idx import load_idx
from .mnist import Split, find, load_folder
from .photos import is_picture, pixels_of
from .scans import SIDE, whole
from .tables import CLASSES, bytes_of, read_csv, read_npz, squares

Array = np.ndarray[Any, Any]

KEPT = 7  # of so many images one is kept for testing, where nothing says which
UPPER = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
EMNIST = {  # the classes of its parts, by their number (Cohen et al. 2017, arXiv:1702.05373)
    26: [*UPPER],
    47: [*"0123456789", *UPPER, *"abdefghnqrt"],
    62: [*"0123456789", *UPPER, *UPPER.lower()],
}
_PART = re.compile(r"(?P<set>.*?)[-_. ]?(?P<part>train(?:ing)?|t10k|test(?:ing)?|valid(?:ation)?)(?P<rest>[-_. ].*|)$")
_IMAGES, _LABELS = re.compile(r"im(?:age|g)s?"), re.compile(r"labels?|classes")


@dataclass
class ImageSet:
    """Images and labels for training and testing."""

    train: Split  # uint8 (n, height, width), 0 paper to 255 ink; labels (n,), whole numbers from 0
    test: Split
    classes: list[str]  # what the labels are called
    notes: list[str] = field(default_factory=list)  # what was done to them


def load_images(path: StrPath) -> ImageSet:
    """Labelled images from a file or a folder: IDX, CSV, .npz, or a folder of pictures for each class, also in a zip.

    path: a folder, a file, or a folder and the beginning of the names that are meant (`emnist/emnist-letters`).
    Where nothing says which images are for testing, every seventh is kept aside.  EMNIST's images, which are published
    transposed, are turned; labels from 1 on begin at 0; pixels may be floats, of 0..1 or 0..255.
    Raises OSError, ImportError for pictures without Pillow, and ValueError; the message names the file.

    >>> load_images("/nonexistent")
    Traceback (most recent call last):
    ...
    FileNotFoundError: [Errno 2] expected a folder or a file of images: '/nonexistent'
    """
    path = Path(path)
    if path.is_dir():
        return _of_folder(path, "")
    if not path.exists():
        if path.parent.is_dir() and any(path.parent.glob(f"{_literal(path.name)}*")):
            return _of_folder(path.parent, path.name)
        if path.parent.is_file() and (found := _of_files(path.parent, _members(path.parent, path.name))):
            return found
        raise FileNotFoundError(2, "expected a folder or a file of images", str(path))
    if not path.is_file():                                   # a device, which may have no end
        raise ValueError(f"{path}: expected a folder or a file of images; found something else")
    if _kind(path) == "csv":
        return _split(path, [(path, *_with_labels(path))])
    if _kind(path) == "npz":
        return _of_npz(path)
    known = any(find(path, file) for file in FILES)
    if not known and (found := _of_files(path, _members(path))) is not None:     # as Kaggle and NIST hand them out
        return found
    if not known and pictures_in(path):
        with whole_zip(path) as inside:
            return _of_classes(path, inside)
    return _finished(path, *load_folder(path))


def _members(archive: Path, beginning: str = "") -> list[Path]:
    """The CSV and IDX files in a zip whose names begin so."""
    some = (archive / name for name in members_of(archive))
    return [p for p in some if p.name.startswith(beginning) and p.name[:1] not in (".", "_") and _kind(p) != "npz"]


def _literal(name: str) -> str:
    return re.sub(r"([*?\[])", r"[\1]", name)


def _kind(path: Path) -> str:
    name = path.name.lower().removesuffix(".gz")
    return next((kind for kind in ("csv", "npz") if name.endswith(f".{kind}")), "")


def _of_folder(folder: Path, beginning: str) -> ImageSet:
    known = [not beginning and find(folder, file) is not None for file in FILES]
    if all(known):
        return _finished(folder, *load_folder(folder))
    files = sorted(p for p in folder.iterdir() if p.is_file() and p.name.startswith(beginning))
    if (found := _of_files(folder, files)) is not None:
        return found
    inside = _folders(folder) if not beginning and not any(known) else []
    if len(inside) == 1 and any(p.is_dir() or _parts(p.name) for p in inside[0].iterdir()):
        return _of_folder(inside[0], "")                     # all is in one, such as torchvision's MNIST/raw
    return _of_classes(folder, folder) if inside else _finished(folder, *load_folder(folder))    # says what is missing


def _of_files(folder: Path, files: list[Path]) -> ImageSet | None:
    """Of those whose names say what they are, or the only table; None if there is nothing of the kind."""
    sets: dict[str, dict[tuple[str, str], Path]] = {}
    for file in files:
        if (found := _parts(file.name)) is not None:
            name, part, what = found
            sets.setdefault(name, {}).setdefault((part, what), file)
    whole_sets = {name: parts for name, parts in sets.items() if _is_whole(parts)}
    if len(whole_sets) > 1:
        names = ", ".join(sorted(whole_sets))
        raise ValueError(f"{folder}: has several data sets: {names}; say which: {folder / sorted(whole_sets)[0]}")
    if whole_sets:
        ((name, parts),) = whole_sets.items()
        return _of_parts(folder, name, parts)
    for kind in ("npz", "csv"):
        some = [file for file in files if _kind(file) == kind]
        if len(some) == 1:
            return _of_npz(some[0]) if kind == "npz" else _split(some[0], [(some[0], *_with_labels(some[0]))])
    return None


# --- files by name --------------------------------------------------------------------------------


def _parts(name: str) -> tuple[str, str, str] | None:
    """Of a file's name the data set, "train" or "test", and "images", "labels" or "both"; None for other files.

    >>> _parts("emnist-letters-train-images-idx3-ubyte.gz"), _parts("k49-test-labels.npz"), _parts("mnist_train.csv")
    (('emnist-letters', 'train', 'images'), ('k49', 'test', 'labels'), ('mnist', 'train', 'both'))
    """
    low = name.lower().removesuffix(".gz")
    stem = low.removesuffix(".csv").removesuffix(".npz")
    match = _PART.match(stem)
    if match is None or not (stem != low or "idx" in match["rest"] or "ubyte" in match["rest"]):
        return None
    part = "train" if match["part"].startswith("train") else "test"
    images, labels = _IMAGES.search(match["rest"]), _LABELS.search(match["rest"])
    if match["part"].startswith("valid"):
        return None
    return match["set"].strip("-_. "), part, "images" if images else "labels" if labels else "both"


def _is_whole(parts: Iterable[tuple[str, str]]) -> bool:
    there = set(parts)
    return ("train", "both") in there or {("train", "images"), ("train", "labels")} <= there


def _of_parts(folder: Path, name: str, parts: dict[tuple[str, str], Path]) -> ImageSet:
    found = []
    for part in ("train", "test"):
        if (part, "both") in parts:
            path = parts[part, "both"]
            if _kind(path) == "npz":
                return _of_npz(path)
            images, labels = read_csv(path)
            if labels is None and part == "test":            # as Kaggle publishes it, for its competition
                continue
            found.append((path, *_with_labels(path)) if labels is None else (path, images, labels))
        elif (part, "images") in parts and (part, "labels") in parts:
            first, second = parts[part, "images"], parts[part, "labels"]
            images, labels = squares(first, bytes_of(first, _array(first))), _whole(second, _array(second))
            if len(images) != len(labels):
                expected = f"{len(images):,} labels, one for each image"
                raise ValueError(f"{second}: expected {expected}; found {len(labels):,}")
            found.append((first, images, labels))
    return _split(folder / name if name else folder, found)


def _array(path: Path) -> Array:
    if _kind(path) == "npz":
        arrays = read_npz(path)
        if len(arrays) != 1:
            raise ValueError(f"{path}: expected one array; found {', '.join(arrays) or 'none'}")
        return next(iter(arrays.values()))
    return load_idx(path)


def _whole(path: object, labels: Array) -> Array:
    if not labels.ndim or not labels.size:
        raise ValueError(f"{path}: expected labels, whole numbers from 0 on of shape (n,); found shape {labels.shape}")
    labels = labels.reshape(-1) if labels.size == len(labels) else labels
    if labels.ndim == 2 and ((labels == 0) | (labels == 1)).all() and (labels.sum(axis=1) == 1).all():
        labels = labels.argmax(axis=1)                       # one-hot
    if labels.ndim != 1 or not np.isfinite(labels).all() or not (labels == np.trunc(labels)).all() or labels.min() < 0:
        wrong = labels[(labels != np.trunc(labels)) | (labels < 0)] if labels.ndim == 1 else labels[:0]
        found = f"{wrong[0]}" if len(wrong) else f"{labels.dtype} of shape {labels.shape}"
        raise ValueError(f"{path}: expected labels, whole numbers from 0 on of shape (n,); found {found}")
    if labels.max() >= CLASSES:
        raise ValueError(f"{path}: expected labels below {CLASSES:,}, numbers of classes; found {labels.max():.10g}")
    return labels.astype(np.int32)


def _with_labels(path: Path) -> tuple[Array, Array]:
    images, labels = read_csv(path)
    if labels is None:
        raise ValueError(f"{path}: expected a column of labels, to learn from, beside the pixels; found none")
    return images, labels


def _of_npz(path: Path) -> ImageSet:
    arrays = {name.lower(): array for name, array in read_npz(path).items()}

    def pick(*names: str) -> Array | None:
        return next((arrays[name] for name in names if name in arrays), None)

    found = []
    for part, end in (("train", ""), ("test", "_test")):
        X = pick(f"x_{part}", f"{part}_images", f"{part}_x", f"images{end}", f"x{end}", f"data{end}")
        y = pick(f"y_{part}", f"{part}_labels", f"{part}_y", f"labels{end}", f"y{end}", f"target{end}")
        if X is not None and y is not None:
            images, labels = squares(path, bytes_of(path, X)), _whole(path, y)
            if len(images) != len(labels):
                raise ValueError(f"{path}: expected {len(images):,} labels, one for each image; found {len(labels):,}")
            found.append((path, images, labels))
    if not found:
        held = ", ".join(arrays) or "none of numbers"
        raise ValueError(f"{path}: expected arrays x_train, y_train, x_test, y_test, or X and y; found {held}")
    return _split(path, found)


# --- a folder for each class ----------------------------------------------------------------------


def _of_classes(path: Path, folder: Any) -> ImageSet:
    """folder: `path`, or the inside of a zip there."""
    while len(only := _folders(folder)) == 1 and not only[0].name.isdecimal():
        folder = only[0]                                     # all is in one
    inside = {p.name.lower(): p for p in _folders(folder)}
    train = next((inside[n] for n in ("train", "training") if n in inside), None)
    test = next((inside[n] for n in ("test", "testing", "valid", "validation", "val") if n in inside), None)
    places = [folder] if train is None else [train] if test is None else [train, test]
    names = sorted((p.name for p in _folders(places[0])), key=_in_order)
    if len(names) < 2:
        raise ValueError(f"{folder}: expected a folder of pictures for each class; found {len(names)} folders")
    found, turned = [], False
    for place in places:
        images, labels, dark = _pictures(place, names)
        turned = turned or dark
        found.append((place, images, labels))
    if len(found) == 2 and found[0][1].shape[1:] != found[1][1].shape[1:]:
        raise ValueError(f"{places[1]}: expected pictures of {found[0][1].shape[1:]} as for training")
    result = _split(path, found, names)
    result.notes += ["dark pictures on light were turned round"] * turned
    return result


def _folders(folder: Any) -> list[Any]:
    some = (p for p in folder.iterdir() if p.is_dir() and not p.name.startswith((".", "__")))    # __MACOSX
    return sorted(some, key=lambda p: p.name)


def _in_order(name: str) -> tuple[int, int, str]:
    return (0, int(name), "") if name.isdecimal() else (1, 0, name)


def _pictures(place: Any, names: list[str]) -> tuple[Array, Array, bool]:
    greys: list[Array] = []
    labels: list[int] = []
    for label, name in enumerate(names):
        here = place / name
        for file in sorted(here.iterdir(), key=lambda file: file.name) if here.is_dir() else []:
            if file.name.startswith(".") or file.is_dir():
                continue
            with file.open("rb") as start:
                if not is_picture(start.read(8)):
                    continue
            colours, opacity = pixels_of(file) if isinstance(file, Path) else pixels_of(content_of(file), str(file))
            grey = colours if opacity is None else colours * opacity[:, :, None]
            greys.append(np.rint(grey.mean(axis=2) * 255).astype(np.uint8))
            if max(greys[-1].shape) > 64:                    # not kept as it is: memory for what is used
                greys[-1] = np.rint(whole(grey, opacity).image * 255).astype(np.uint8)
            labels.append(label)
    if not greys:
        raise ValueError(f"{place}: expected PNG, JPEG, WebP, BMP or GIF pictures in {names[0]}, ...; found none")
    if len({grey.shape for grey in greys}) > 1:
        greys = [np.rint(whole(g / 255).image * 255).astype(np.uint8) if g.shape != (SIDE, SIDE) else g for g in greys]
    images = np.stack(greys)
    border = np.concatenate([images[:, 0], images[:, -1], images[:, :, 0], images[:, :, -1]], axis=1)
    dark = bool(np.mean(np.median(border, axis=1) > 127) > 0.5)
    return 255 - images if dark else images, np.array(labels, np.int32), dark


# --- labels, and what is for testing --------------------------------------------------------------


def _split(path: Path, found: list[tuple[Path, Array, Array]], names: list[str] | None = None) -> ImageSet:
    """Of one or two (place, images, labels)."""
    if not found:
        raise ValueError(f"{path}: no labelled images")
    notes = []
    if len(found) == 1:
        place, images, labels = found[0]
        if len(images) < KEPT:
            raise ValueError(f"{place}: expected at least {KEPT} images; found {len(images)}")
        aside = np.zeros(len(images), bool)
        aside[np.argsort(labels, kind="stable")[KEPT - 1 :: KEPT]] = True    # the same part of each class
        train, test = (images[~aside], labels[~aside]), (images[aside], labels[aside])
        notes.append(f"every {KEPT}th image was kept aside for testing")
    else:
        (_, *train), (_, *test) = found                      # type: ignore[assignment]
        if train[0].shape[1:] != test[0].shape[1:]:
            expected = f"images of {train[0].shape[1:]} as for training"
            raise ValueError(f"{found[1][0]}: expected {expected}; found {test[0].shape[1:]}")
    result = _finished(path, tuple(train), tuple(test), names)               # type: ignore[arg-type]
    result.notes += notes
    return result


def _finished(path: Path, train: Split, test: Split, names: list[str] | None = None) -> ImageSet:
    notes = []
    (X, y), (X_test, y_test) = train, test
    y, y_test = y.astype(np.int32), y_test.astype(np.int32)
    first = 0
    if names is None and y.min() >= 1 and y_test.min() >= 1:
        first = int(y.min())
        notes.append(f"labels from {first} on begin at 0")
    y, y_test = y - first, y_test - first
    if y_test.min() < 0:
        raise ValueError(f"{path}: the test labels begin at {y_test.min() + first}, those for training at {first}")
    classes = int(max(y.max(), y_test.max())) + 1
    emnist = "emnist" in str(path).lower() or any("emnist" in p.name.lower() for p in _beside(path))
    if names is None:
        names = EMNIST.get(classes) if emnist else None
        names = [str(k + first) for k in range(classes)] if names is None else names
    if emnist and _lie_on_their_side(X):
        X, X_test = X.transpose(0, 2, 1).copy(), X_test.transpose(0, 2, 1).copy()
        notes.append("EMNIST's images, which are published transposed, were turned")
    return ImageSet((X, _small(y)), (X_test, _small(y_test)), names, notes)


def _small(labels: Array) -> Array:
    return labels.astype(np.uint8) if labels.max(initial=0) < 256 else labels


def _beside(path: Path) -> list[Path]:
    return list(path.glob("*ubyte*")) if path.is_dir() else []


def _lie_on_their_side(images: Array) -> bool:
    """Digits and letters are taller than wide, on the average of some hundreds."""
    some = images[:: max(1, len(images) // 1000)] > 100
    high, wide = some.any(axis=2).sum(axis=1), some.any(axis=1).sum(axis=1)
    return bool(wide.mean() > high.mean())
