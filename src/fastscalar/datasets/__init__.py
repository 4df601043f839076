"""Data sets: MNIST and its relatives in the IDX format, and digits that the package draws itself.

>>> (X, y), (X_test, y_test) = synthetic_digits(n_train=100, n_test=10)
>>> X.shape, X.dtype, y.shape, X_test.shape
((100, 28, 28), dtype('uint8'), (100,), (10, 28, 28))

`mnist()` and `fashion_mnist()` return the same structure; they look on this machine first and download
otherwise. Their pixels are integers from 0 to 255: train on `X.reshape(-1, 784) / 255`.

    mnist, catalog, download    found, or fetched from mirrors, and verified; facts about published sets
    idx, archive, tables, photos, image_sets    formats: IDX, zips, CSV and .npz, pictures, folders of any of these
    synthetic               digits that are drawn here
    scans, pieces           digits from people, made like MNIST's; connected pieces of a picture
    augment, _moved         images moved and turned a little

This subpackage uses the standard library and NumPy, pooch while it downloads and Pillow while it reads pictures; it
knows nothing of the engine.
"""

from .augment import augment
from .idx import load_idx, save_idx
from .image_sets import ImageSet, load_images
from .mnist import (
    DatasetUnavailable,
    cache_dir,
    fashion_mnist,
    fetch,
    load_folder,
    locate,
    mnist,
    picture,
    search_folders,
    verify,
)
from .photos import read_scan
from .scans import Scan, cut_out
from .synthetic import synthetic_digits

__all__ = [
    "DatasetUnavailable",
    "ImageSet",
    "Scan",
    "augment",
    "cache_dir",
    "cut_out",
    "fashion_mnist",
    "fetch",
    "load_folder",
    "load_idx",
    "load_images",
    "locate",
    "mnist",
    "picture",
    "read_scan",
    "save_idx",
    "search_folders",
    "synthetic_digits",
    "verify",
]
