"""Facts about published data sets: names, shapes, contents, and where to get them."""

from __future__ import annotations

import hashlib
import math
import zlib
from dataclasses import dataclass
from pathlib import Path

from .idx import open_raw

FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def spellings(file: str) -> tuple[str, ...]:
    """The names under which a file goes: as published, and with a dot, as in the zips of teaching sites; with .gz.

    >>> spellings("t10k-labels-idx1-ubyte")[:2]
    ('t10k-labels-idx1-ubyte', 't10k-labels.idx1-ubyte')
    """
    names = (file, file.replace("-idx", ".idx"))
    return (*names, *(f"{name}.gz" for name in names))


@dataclass(frozen=True)
class Dataset:
    """What is known about a published data set: four IDX files, in the order of `FILES`."""

    title: str
    folder: str  # its name below $FASTSCALAR_DATA, the cache and the system's folders
    sha256: tuple[str, ...]  # of the uncompressed files
    mirrors: tuple[str, ...]  # each + file name + ".gz" is a URL
    sizes: tuple[int, int] = (60000, 10000)  # images for training and for testing
    side: int = 28  # pixels

    def shape(self, file: str) -> tuple[int, ...]:
        n = self.sizes[FILES.index(file) // 2]
        return (n, self.side, self.side) if "images" in file else (n,)

    def raw_size(self, file: str) -> int:
        shape = self.shape(file)
        return math.prod(shape) + 4 + 4 * len(shape)

    def digest(self, file: str) -> str:
        return self.sha256[FILES.index(file)]


# MNIST's mirrors are those of torchvision, TensorFlow Datasets and Paddle, in this order.
DATASETS = {
    "mnist": Dataset(
        title="MNIST",
        folder="mnist",
        sha256=(
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
        mirrors=(
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
            "https://dataset.bj.bcebos.com/mnist/",
        ),
    ),
    "fashion": Dataset(
        title="Fashion-MNIST",
        folder="fashion-mnist",
        sha256=(
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        ),
        mirrors=("https://dataset.bj.bcebos.com/fashion_mnist/",),
    ),
}


def known(name: str) -> Dataset:
    """Entry `name` of `DATASETS`. Raises ValueError."""
    if name not in DATASETS:
        raise ValueError(f"expected the name of a data set ({', '.join(DATASETS)}); found {name!r}")
    return DATASETS[name]


def problem(path: Path, file: str, data: Dataset) -> str | None:
    """What is wrong with the content of `path`, which should be `file`; None if nothing is."""
    digest, size = hashlib.sha256(), 0
    try:
        with open_raw(path) as stream:
            # A few kilobytes can decompress to gigabytes: stop at the first byte too many.
            while size <= data.raw_size(file) and (chunk := stream.read(1 << 18)):
                digest.update(chunk)
                size += len(chunk)
    except (OSError, EOFError, ValueError, zlib.error) as error:  # a damaged gzip file has many ways to say so
        return f"unreadable or truncated ({error})"
    if size != data.raw_size(file):
        more = " or more" if size > data.raw_size(file) else ""
        return f"wrong content: expected {data.raw_size(file):,} bytes uncompressed, found {size:,}{more}"
    if digest.hexdigest() != data.digest(file):
        return f"wrong content: expected sha256 {data.digest(file)}, found {digest.hexdigest()}"
    return None
