"""Whose a line is: the package's own folder, those of Python's library and of NumPy, and the user's files."""

import os

import numpy as np

PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep
_NUMPY = os.path.dirname(os.path.abspath(np.__file__)) + os.sep
_PYTHON = os.path.dirname(os.path.abspath(os.__file__)) + os.sep


def is_users(file: str) -> bool:
    """Whether a file is the user's: in its lines a number is read, or decided on, and not on the way to it."""
    if file.startswith((PACKAGE, _NUMPY, "<frozen ")):
        return False
    return not file.startswith(_PYTHON) or "-packages" in file
