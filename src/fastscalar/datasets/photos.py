"""Pictures from cameras, scanners and drawing programs: PNG, JPEG, WebP, BMP and GIF, by Pillow (extra `images`)."""

from __future__ import annotations

import io
import os
import warnings
from pathlib import Path
from typing import IO, Any

import numpy as np

from fastscalar._imports import importing
from fastscalar.files import StrPath, brief, naming

from .scans import SIDE, Scan, cut_out, whole

Array = np.ndarray[Any, Any]

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
STARTS = (b"\x89PNG", b"\xff\xd8\xff", b"RIFF", b"BM", b"GIF8")
SIDE_READ = 1600  # pixels of the longer side, about, that are kept of a larger picture
_ROOM, _RATIO, _MOST = 1 << 24, 400, 1 << 27  # pixels of any file; for each of its bytes; of the largest


def is_picture(start: bytes) -> bool:
    """By the first bytes of a file.

    >>> is_picture(b"GIF89a"), is_picture(b"\\x93NUMPY")
    (True, False)
    """
    return start.startswith(STARTS)


def read_scan(source: StrPath | bytes, *, side: int = SIDE, flip: bool = False, plain: bool = False) -> Scan:
    """A digit as a net reads it, from a picture of any size and colour.

    Parameters
    ----------
    source : a PNG, JPEG, WebP, BMP or GIF file (the first picture of several), or its bytes.
    side : pixels of a side of the result.
    flip : take for ink what would be paper.
    plain : the picture as it is, in grey and small; nothing is cut out.

    Returns
    -------
    A Scan: `image` (side, side) from 0.0, paper, to 1.0, ink; `box`, where it was, in pixels; `dark`, whether it was
    darker than the paper.

    Raises
    ------
    OSError
        The file cannot be read.
    ValueError
        It is no such picture, or has nothing on it.
    ImportError
        Pillow is not installed.

    >>> read_scan(b"no picture")
    Traceback (most recent call last):
    ...
    ValueError: expected a PNG, JPEG, WebP, BMP or GIF file; found something else
    """
    colours, opacity = pixels_of(source)
    try:
        return (whole if plain else cut_out)(colours, opacity, side=side, flip=flip)
    except ValueError as error:
        raise ValueError(f"{_name(source)}{error}") from None


def pixels_of(source: StrPath | bytes, name: str | None = None) -> tuple[Array, Array | None]:
    """Colours (height, width, 3) and maybe opacity, from 0 to 1, of at most about SIDE_READ pixels a side.

    name: what to call it in errors.  Raises what `read_scan` does."""
    try:
        if isinstance(source, bytes):
            return _read(io.BytesIO(source), len(source))
        with naming(source), open(source, "rb") as file:
            return _read(file, Path(source).stat().st_size)
    except ValueError as error:
        raise ValueError(f"{_name(source) if name is None else f'{name}: '}{error}") from None


def _name(source: StrPath | bytes) -> str:
    return "" if isinstance(source, bytes) else f"{os.fspath(source)}: "


def _read(file: IO[bytes], size: int) -> tuple[Array, Array | None]:
    start = file.read(8)
    file.seek(0)
    if not is_picture(start):
        raise ValueError("expected a PNG, JPEG, WebP, BMP or GIF file; found something else")
    try:
        with importing():
            from PIL import Image, ImageOps, UnidentifiedImageError
    except ImportError:
        raise ImportError("pictures are read by Pillow: pip install 'fastscalar[images]'") from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")                      # of odd metadata; of size we judge
        try:
            with Image.open(file, formats=FORMATS) as picture:
                limit = min(max(_ROOM, _RATIO * size), _MOST)
                if picture.width * picture.height > limit:
                    claim = f"{picture.width:,} x {picture.height:,}"
                    raise ValueError(f"expected at most {limit:,} pixels in {size:,} bytes; found {claim}")
                picture.draft(None, (SIDE_READ, SIDE_READ))  # a JPEG need not be unpacked in full
                upright = ImageOps.exif_transpose(picture)
                return _numbers(upright)
        except Image.DecompressionBombError:                 # Pillow's own limit is larger
            raise ValueError(f"expected at most {_MOST:,} pixels; found more") from None
        except UnidentifiedImageError:
            raise ValueError("a damaged picture, or one of another kind") from None
        except (ValueError, MemoryError):
            raise
        except Exception as error:  # Pillow's readers raise whatever their parsers meet
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise ValueError(f"a damaged picture ({brief(error)})") from None


def _numbers(picture: Any) -> tuple[Array, Array | None]:
    factor = max(1, max(picture.size) // SIDE_READ)
    if picture.mode.startswith("I") or picture.mode == "F":  # 16 bits and more; Pillow cuts them off at 255
        grey = np.asarray(picture, dtype=np.float64)
        low, high = float(grey.min()), float(grey.max())
        most = 255.0 if high <= 255 else max(65535.0, high)
        return (grey - min(low, 0.0))[:, :, None] / most, None
    clear = picture.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in picture.info
    picture = picture.convert("RGBA" if clear else "RGB")
    if factor > 1:
        picture = picture.reduce(factor)
    array = np.asarray(picture, dtype=np.float32) / np.float32(255)
    return array[:, :, :3], array[:, :, 3] if clear else None
