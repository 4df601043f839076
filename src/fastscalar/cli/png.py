"""Grey pictures as PNG, without another package (source: PNG specification, third edition, W3C 2023)."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np


def png(grey: np.ndarray[Any, Any]) -> bytes:
    """A PNG file of bytes of shape (height, width), or of colours (height, width, 3).

    >>> png(np.zeros((2, 3), np.uint8))[:8]
    b'\\x89PNG\\r\\n\\x1a\\n'
    """
    height, width = grey.shape[:2]
    rows = np.zeros((height, 1 + grey[0].size), np.uint8)    # each begins with its filter: none
    rows[:, 1:] = grey.reshape(height, -1)
    about = struct.pack(">IIBBBBB", width, height, 8, 2 if grey.ndim == 3 else 0, 0, 0, 0)
    parts = (b"IHDR", about), (b"IDAT", zlib.compress(rows.tobytes(), 9)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )


def inked(image: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Numbers from 0 to 1 as bytes, larger ones as the largest."""
    return np.rint(np.clip(image, 0.0, 1.0) * 255).astype(np.uint8)
