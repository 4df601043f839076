"""MNIST and Fashion-MNIST: find them on this machine, download them once, verify what came.

Look-ups touch nothing but the file system. Whatever lies under a final name in the cache was verified by the
SHA-256 of its uncompressed content (gzip headers differ between mirrors) before it got that name;
`download.py` says how. Of the files to be downloaded the smallest goes first, and if no mirror has it no
other is tried.
"""

from __future__ import annotations

import hashlib
import logging
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fastscalar.files import home

from .archive import find_member, is_zip
from .catalog import DATASETS, FILES, Dataset, known, problem, spellings
from .download import Failed, remove_stale
from .download import download as download_file
from .idx import StrPath, header, load_idx

UInt8 = np.ndarray[Any, np.dtype[np.uint8]]
Split = tuple[UInt8, UInt8]
Report = Callable[[str], object]

DEADLINE = 600.0  # seconds for the download of all files from all mirrors together

# Where the system keeps data sets, unless $XDG_DATA_DIRS says otherwise. Debian's package `dataset-fashion-mnist` uses
# the first.
SYSTEM_FOLDERS = (Path("/usr/share/datasets"), Path("/usr/local/share/datasets"))
_SHADES = " .:-=+*#%@"


class DatasetUnavailable(OSError):
    """A data set is neither here nor to be had.

    The message is one line: what was tried, why it failed, where to put the files by hand. `tried` has a pair
    (place, reason) for each folder and each URL.
    """

    tried: tuple[tuple[str, str], ...] = ()


# --- loading ---


def mnist(
    path: StrPath | None = None, *, download: bool = True, report: Report | None = None
) -> tuple[Split, Split]:
    """The MNIST handwritten digits.

    Parameters
    ----------
    path : folder with the four IDX files, gzipped or not, as published or with a dot in their names
        (`train-images.idx3-ubyte`); or a zip file with them, or a folder with that. Left out: the first that
        has them of `$FASTSCALAR_DATA/mnist`, the cache (`cache_dir()`), `datasets/mnist` in the folders of
        `$XDG_DATA_DIRS` (`/usr/share` and `/usr/local/share` if that is not set); then they are
        downloaded into the cache (11.6 MB), each mirror of `$FASTSCALAR_MIRRORS` or of the built-in list in
        turn.
    download : whether the network may be used.
    report : called with a line of text for each file that is downloaded or loaded, for instance `print`.

    Returns
    -------
    (X, y), (X_test, y_test): uint8 arrays of shape (60000, 28, 28), (60000,), (10000, 28, 28), (10000,);
    pixels from 0 (paper) to 255 (ink), labels from 0 to 9.

    Raises
    ------
    FileNotFoundError
        `path` was given and a file is missing there.
    ValueError
        A file that was found is damaged or is not MNIST; the message names it, what was expected and what was
        found.
    DatasetUnavailable
        An OSError: not here, and no mirror gave it.

    >>> mnist("/nonexistent")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    FileNotFoundError: ...nonexistent: expected train-images-idx3-ubyte or ...
    """
    return _load("mnist", path, download, report)


def fashion_mnist(
    path: StrPath | None = None, *, download: bool = True, report: Report | None = None
) -> tuple[Split, Split]:
    """Zalando's Fashion-MNIST: articles of clothing in the format of MNIST, and harder.

    Parameters, results and errors as in `mnist`; the folders are called `fashion-mnist`, as in Debian's
    package `dataset-fashion-mnist`.

    >>> fashion_mnist("/nonexistent")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    FileNotFoundError: ...nonexistent: expected train-images-idx3-ubyte or ...
    """
    return _load("fashion", path, download, report)


def load_folder(path: StrPath, *, report: Report | None = None) -> tuple[Split, Split]:
    """Any data set that comes as four IDX files with MNIST's names, gzipped or not, from the folder or zip `path`.

    Parameters
    ----------
    path : the folder, or a zip file with the four.
    report : called with a line of text for each file that is loaded, for instance `print`.

    Returns
    -------
    (X, y), (X_test, y_test): uint8 images of shape (n, height, width) and uint8 labels of shape (n,).

    Raises
    ------
    FileNotFoundError
        A file is missing.
    ValueError
        A file is damaged, is not of that kind, or does not fit to its partner. The message names it.

    >>> load_folder("/nonexistent")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    FileNotFoundError: ...nonexistent: expected train-images-idx3-ubyte or ...
    """
    paths = [_require(Path(path), file) for file in FILES]

    def load(p: Path, ndim: int) -> UInt8:
        def check(dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
            if dtype != np.uint8 or len(shape) != ndim or 0 in shape:
                kind = "images: uint8 of 3" if ndim == 3 else "labels: uint8 of 1"
                raise ValueError(f"{p}: expected {kind} dimensions, not empty; found {dtype} of shape {shape}")

        return load_idx(p, check=check)

    X, y, X_test, y_test = arrays = [load(p, ndim) for p, ndim in zip(paths, (3, 1, 3, 1), strict=True)]
    for i in (0, 2):
        if len(arrays[i]) != len(arrays[i + 1]):
            expected = f"{len(arrays[i]):,} labels, one for each image of {paths[i].name}"
            raise ValueError(f"{paths[i + 1]}: expected {expected}; found {len(arrays[i + 1]):,}")
    if X.shape[1:] != X_test.shape[1:]:
        raise ValueError(
            f"{paths[2]}: expected images of {X.shape[1:]} as for training; found {X_test.shape[1:]}"
        )
    if report is not None:
        report(f"loading the data in {path}")
        for file, a in zip(FILES, arrays, strict=True):
            report(_progress(file, a))
    return (X, y), (X_test, y_test)


def _progress(file: str, a: UInt8) -> str:
    """What the article's loader says about a file."""
    part = "training" if file.startswith("train") else "test"
    if a.ndim == 1:
        return f"{part} labels: {len(a)}, done"
    return f"{part} images: {a.shape[1]}*{a.shape[2]}, loaded {len(a)}/{len(a)}"


def _load(name: str, path: StrPath | None, download: bool, report: Report | None) -> tuple[Split, Split]:
    if path is not None:
        return _load_checked(Path(path), DATASETS[name], report)
    cache = cache_dir() / DATASETS[name].folder
    found = locate(name)
    if found is not None:
        try:
            return _load_checked(found, DATASETS[name], report)
        except ValueError:
            # Only the cache is ours to repair; elsewhere the owner has to hear of it.
            if found != cache or not download:
                raise
    if not download:
        raise _unavailable(name, "downloading was not allowed")
    return _load_checked(fetch(name, report=report), DATASETS[name], report)


def _load_checked(folder: Path, data: Dataset, report: Report | None) -> tuple[Split, Split]:
    """Load and verify what is cheap: types, shapes and the labels, which no other data set shares."""
    arrays = []
    if report is not None:
        report(f"loading {data.title} from {folder}")
    for file in FILES:
        path = _require(folder, file)

        def check(dtype: np.dtype[Any], shape: tuple[int, ...], path: Path = path, file: str = file) -> None:
            if dtype != np.uint8 or shape != data.shape(file):
                expected = f"{data.title}, uint8 of shape {data.shape(file)}"
                raise ValueError(f"{path}: expected {expected}; found {dtype} of shape {shape}")

        a = load_idx(path, check=check)
        if a.ndim == 1:
            found = hashlib.sha256(header(0x08, a.shape) + a.tobytes()).hexdigest()
            if found != data.digest(file):
                raise ValueError(
                    f"{path}: expected the labels of {data.title}, sha256 {data.digest(file)}; found {found}"
                )
        arrays.append(a)
        if report is not None:
            report(_progress(file, a))
    X, y, X_test, y_test = arrays
    return (X, y), (X_test, y_test)


def picture(image: UInt8) -> str:
    """An image of shape (height, width) in characters, two for a pixel, darker where there is more ink.

    >>> print(picture(np.array([[0, 128], [255, 64]], np.uint8)))
      ++
    @@--
    """
    ink = np.asarray(image, dtype=int).clip(0, 255) * (len(_SHADES) - 1)
    return "\n".join("".join(2 * _SHADES[-(-int(v) // 255)] for v in row).rstrip() for row in ink)


# --- downloading ---


def fetch(name: str = "mnist", *, report: Report | None = None) -> Path:
    """Download what the cache does not have yet, or has with the wrong content.

    Parameters
    ----------
    name : "mnist" or "fashion".
    report : called with a line of text for each file that is downloaded, for instance `print`.

    Returns
    -------
    The folder in the cache that has the four files, all verified.

    Raises
    ------
    DatasetUnavailable
        An OSError: no mirror gave them.

    The mirrors are the URL prefixes in `$FASTSCALAR_MIRRORS` (separated by blanks or commas, `{name}` in them
    stands for `mnist` or `fashion-mnist`), or else the built-in ones.
    """
    data = known(name)
    folder = cache_dir() / data.folder
    mirrors = _mirrors(data)
    deadline = time.monotonic() + DEADLINE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        remove_stale(folder)
        for file in sorted(FILES, key=data.raw_size):
            found = find(folder, file)
            if found is not None and problem(found, file, data) is None:
                continue
            if report is not None:
                report(f"downloading {data.title}: {file}.gz")
            logging.getLogger("fastscalar").info("downloading %s: %s.gz", data.title, file)
            # A file that does not compress is a little larger than its content.
            limit = data.raw_size(file) + (1 << 16)
            judge = partial(problem, file=file, data=data)
            used = download_file(file, mirrors, folder, judge, limit=limit, deadline=deadline)
            mirrors.sort(key=used.__ne__)  # what has worked goes first from now on
    except Failed as error:
        raise _unavailable(name, "could not be downloaded", error.tried) from None
    except OSError as error:
        reason = ((str(folder), f"the cache cannot be written: {error.strerror or error}"),)
        raise _unavailable(name, "could not be downloaded", reason) from error
    return folder


def _mirrors(data: Dataset) -> list[str]:
    own = os.environ.get("FASTSCALAR_MIRRORS", "").replace(",", " ").split()
    return [m.replace("{name}", data.folder).rstrip("/") + "/" for m in own or data.mirrors]


def _unavailable(name: str, why: str, tried: tuple[tuple[str, str], ...] = ()) -> DatasetUnavailable:
    data = known(name)
    looked = tuple((str(folder), _absence(folder, data)) for folder in search_folders(name))
    here, there = ("; ".join(f"{place}: {reason}" for place, reason in pairs) for pairs in (looked, tried))
    error = DatasetUnavailable(
        f"{data.title} is not on this machine ({here}) and {why}{there and f' ({there})'}. "
        f"By hand: put {', '.join(FILES)} (or {spellings(FILES[0])[1]} and so on), each as it is or with .gz, or a zip "
        f"file of them, into {cache_dir() / data.folder}"
    )
    error.tried = looked + tried
    return error


def _absence(folder: Path, data: Dataset) -> str:
    missing = [file for file in FILES if find(folder, file) is None]
    if missing:
        return "no such files" if len(missing) == len(FILES) else f"no {missing[0]}"
    return "; ".join(f"{file}: {wrong}" for file, wrong in _verify(folder, data).items() if wrong)


# --- looking ---


def cache_dir() -> Path:
    """The folder for downloads, which need not exist: `$FASTSCALAR_CACHE`, or the platform's cache folder.

    That is `$XDG_CACHE_HOME/fastscalar` or `~/.cache/fastscalar`, `~/Library/Caches/fastscalar` on macOS,
    `%LOCALAPPDATA%/fastscalar/Cache` on Windows. Each data set has a folder in it.

    >>> cache_dir().is_absolute()
    True
    """
    if own := os.environ.get("FASTSCALAR_CACHE"):
        return Path(own).absolute()
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA")
        return (Path(local) if local else home() / "AppData" / "Local") / "fastscalar" / "Cache"
    if sys.platform == "darwin":
        return home() / "Library" / "Caches" / "fastscalar"
    # The XDG Base Directory Specification: a relative path is invalid and has to be ignored.
    xdg = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (xdg if xdg.is_absolute() else home() / ".cache") / "fastscalar"


def search_folders(name: str = "mnist") -> list[Path]:
    """The folders in which `mnist()` (or, for "fashion", `fashion_mnist()`) looks, in order.

    >>> [folder.name for folder in search_folders("fashion")][-2:]
    ['fashion-mnist', 'fashion-mnist']
    """
    own = os.environ.get("FASTSCALAR_DATA")
    # The XDG Base Directory Specification: a relative path is invalid and has to be ignored.
    xdg = [Path(root) for root in os.environ.get("XDG_DATA_DIRS", "").split(":") if root.startswith("/")]
    system = [root / "datasets" for root in xdg] if xdg else SYSTEM_FOLDERS
    roots = ([Path(own)] if own else []) + [cache_dir(), *system]
    return [root / known(name).folder for root in roots]


def locate(name: str = "mnist") -> Path | None:
    """The first folder of `search_folders(name)` that has the four files, whatever is in them, or None.

    Raises
    ------
    ValueError
        There is no data set of this name.

    >>> locate("imagenet")
    Traceback (most recent call last):
    ...
    ValueError: expected the name of a data set (mnist, fashion); found 'imagenet'
    """
    for folder in search_folders(name):
        if all(find(folder, file) for file in FILES):
            return folder
    return None


def verify(path: StrPath, name: str = "mnist") -> dict[str, str | None]:
    """Compare the four files in the folder `path` with the published content, by SHA-256.

    Parameters
    ----------
    path : the folder, or a zip file with the four.
    name : "mnist" or "fashion".

    Returns
    -------
    For each file name (without `.gz`) None if it is right, or else a line that says what is wrong.

    >>> verify("/nonexistent")["t10k-labels-idx1-ubyte"]
    'missing'
    """
    return _verify(Path(path), known(name))


def _verify(folder: Path, data: Dataset) -> dict[str, str | None]:
    result: dict[str, str | None] = {}
    for file in FILES:
        found = find(folder, file)
        result[file] = "missing" if found is None else problem(found, file, data)
    return result


def find(folder: Path, file: str) -> Path | None:
    """In a folder, or in a zip file that is given or lies in the folder."""
    if folder.is_file():
        return find_member(folder, spellings(file))
    found = next((p for name in spellings(file) if (p := folder / name).is_file()), None)
    if found is None and folder.is_dir():
        zips = (find_member(archive, spellings(file)) for archive in sorted(folder.glob("*.zip")))
        found = next((p for p in zips if p is not None), None)
    return found


def _require(folder: Path, file: str) -> Path:
    found = find(folder, file)
    if found is None:
        if folder.is_file() and not is_zip(folder):
            raise ValueError(f"{folder}: expected a folder or a whole zip file; found something else")
        names = " or ".join(spellings(file)[:2])
        raise FileNotFoundError(f"{folder}: expected {names}, as it is or with .gz or in a zip file; found neither")
    return found
