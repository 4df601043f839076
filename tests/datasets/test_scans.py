"""Pictures from people: fifty drawings and photographs are read as their clean form, whatever was done to them."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastscalar as fs
from fastscalar import datasets
from fastscalar.datasets import cut_out, read_scan, synthetic
from fastscalar.datasets.scans import whole

Image = pytest.importorskip("PIL.Image")
from PIL import ImageDraw, ImageFilter  # noqa: E402 - after the skip

Array = np.ndarray[Any, Any]
BLACK, WHITE, BLUE, CHALK, BOARD = (0.05,) * 3, (0.97,) * 3, (0.1, 0.15, 0.5), (0.9, 0.9, 0.85), (0.15, 0.3, 0.2)


def drawn(
    digit: int,
    size: tuple[int, int],
    height: float,
    middle: tuple[float, float],
    pen: float,
    ink: tuple[float, ...],
    paper: tuple[float, ...],
    *,
    way: int = 0,
    shade: Callable[[Array, Array], Array] | None = None,
    grain: float = 0.0,
    blur: float = 0.0,
) -> Array:
    """A handwritten digit on a sheet: (height, width, 3), numbers from 0 to 1.  shade: light by x and y from 0 to 1."""
    sheet = Image.new("L", size, 0)
    draw = ImageDraw.Draw(sheet)
    for stroke in synthetic._GLYPHS[digit][way][1]:
        path = synthetic._pen([stroke])
        x, y = (path.path(path.keys[:, k : k + 1])[:, 0] * height for k in (0, 1))
        points = list(zip(x - 0.1 * y + middle[0], y + middle[1], strict=True))
        draw.line(points, fill=255, width=max(1, round(pen)), joint="curve")
        for px, py in points:
            draw.ellipse((px - pen / 2, py - pen / 2, px + pen / 2, py + pen / 2), fill=255)
    amount = np.asarray(sheet.filter(ImageFilter.GaussianBlur(blur)) if blur else sheet)[:, :, None] / 255
    picture = np.array(paper) * (1.0 - amount) + np.array(ink) * amount
    if shade is not None:
        y, x = np.mgrid[0 : 1 : size[1] * 1j, 0 : 1 : size[0] * 1j]
        picture = picture * shade(x, y)[:, :, None]
    noise = np.random.default_rng(digit).normal(size=picture.shape) * grain
    return np.asarray(np.clip(picture + noise, 0.0, 1.0))


KINDS: dict[str, Callable[[int, int], Array]] = {
    "dark on light": lambda d, w: drawn(d, (200, 200), 140, (100, 100), 14, BLACK, WHITE, way=w),
    "light on dark": lambda d, w: drawn(d, (200, 240), 150, (90, 120), 16, WHITE, BLACK, way=w),
    "off-centre": lambda d, w: drawn(d, (400, 300), 80, (340 - 25 * d, 60 + 18 * d), 9, BLUE, (1, 1, 0.9), way=w),
    "thick": lambda d, w: drawn(d, (200, 200), 130, (100, 100), 34, BLACK, WHITE, way=w),
    "thin": lambda d, w: drawn(d, (500, 500), 400, (250, 250), 3, (0.2,) * 3, WHITE, way=w),
    "photograph with a shade": lambda d, w: drawn(
        d, (1200, 900), 200 + 40 * d, (500 + 20 * d, 450), 14 + 2 * d, (0.15, 0.15, 0.35), (0.85, 0.82, 0.75), way=w,
        shade=lambda x, y: (0.45 + 0.55 * x) * (1 - 0.25 * y), grain=0.02, blur=2.0,
    ),
    "photograph, dark at its corners": lambda d, w: drawn(
        d, (1600, 1200), 260 + 10 * d, (400 + 90 * d, 800 - 40 * d), 12 + d, BLACK, (0.9,) * 3, way=w,
        shade=lambda x, y: 1.0 - 0.6 * ((x - 0.5) ** 2 + (y - 0.5) ** 2), grain=0.03, blur=1.0,
    ),
    "chalk": lambda d, w: drawn(
        d, (640, 480), 200, (300, 240), 16, CHALK, BOARD, way=w, shade=lambda x, y: 0.6 + 0.4 * y, grain=0.03
    ),
    "red on green": lambda d, w: drawn(d, (200, 200), 140, (100, 100), 14, (0.8, 0.2, 0.2), (0.2, 0.5, 0.2), way=w),
    "faint": lambda d, w: drawn(d, (300, 300), 180, (150, 150), 18, (0.7,) * 3, (0.8,) * 3, way=w, grain=0.01),
    "small": lambda d, w: drawn(d, (32, 32), 20, (16, 16), 3, BLACK, WHITE, way=w),
    "tight": lambda d, w: drawn(d, (100, 140), 120, (50, 70), 14, BLACK, WHITE, way=w),
    "small in a large one": lambda d, w: drawn(
        d, (1800, 1200), 80, (1500 - 120 * d, 200 + 80 * d), 7, BLACK, WHITE, way=w, grain=0.01
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def net() -> fs.MLP:
    """It has learned the digits that the package draws, or MNIST's if they are there: who asks does not matter."""
    try:
        (X, y), _ = datasets.mnist(download=False)
    except datasets.DatasetUnavailable:
        (X, y), _ = datasets.synthetic_digits(12_000, 1)
    learned = fs.MLP(784, [128, 10], seed=0)
    fs.fit(learned, X[:12_000].reshape(-1, 784) / 255, y[:12_000], epochs=4, progress=False)
    return learned


def read(net: fs.MLP, image: Array) -> int:
    return int(fs.predict(net, image.reshape(1, 784))[0])


@pytest.mark.parametrize("kind", KINDS)
def test_drawings_are_read_as_their_clean_form(net: fs.MLP, kind: str) -> None:
    """Ten of each kind: 130 drawings."""
    wrong = []
    for digit in range(10):
        way = digit % len(synthetic._GLYPHS[digit])
        clean = read(net, cut_out(drawn(digit, (280, 280), 190, (140, 140), 26, (1, 1, 1), (0, 0, 0), way=way)).image)
        found = read(net, cut_out(KINDS[kind](digit, way)).image)
        if found != clean:
            wrong.append((digit, clean, found))
    assert not wrong


def spoiled(digit: int) -> Iterator[tuple[str, Array]]:
    """Sheets with something else on them."""
    shape = {"size": (640, 480), "height": 220, "middle": (330, 240), "pen": 16, "grain": 0.02}
    sheet = drawn(digit, ink=BLACK, paper=(0.9, 0.9, 0.85), **shape)  # type: ignore[arg-type]
    specks = sheet.copy()
    for row, column in np.random.default_rng(digit).integers(0, (470, 630), size=(30, 2)):
        specks[row : row + 4, column : column + 4] = 0.2
    yield "specks", specks
    table = sheet.copy()
    table[:, :50], table[:30] = 0.2, 0.25
    yield "the table at two sides", table
    frame = sheet.copy()
    frame[:8], frame[-8:], frame[:, :8], frame[:, -8:] = 0.1, 0.1, 0.1, 0.1
    yield "a frame", frame
    ruled = sheet.copy()
    ruled[::40] *= 0.75
    yield "faint rules", ruled
    squared = sheet.copy()
    squared[10::24], squared[:, 10::24] = (0.62, 0.7, 0.75), (0.62, 0.7, 0.75)
    yield "squared paper", np.minimum(squared, sheet)
    field = sheet.copy()
    for k in (0, 1, 2):
        field[[30 + k, 450 + k], 110:553] = field[30:453, [110 + k, 550 + k]] = 0.1
    yield "a frame around it", field
    yield "a sheet on a table", on_a_table(sheet, digit)


def on_a_table(sheet: Array, digit: int) -> Array:
    """The sheet, small and not quite straight, in a picture of wood."""
    small = Image.fromarray((sheet * 255).astype(np.uint8)).resize((360, 270))
    turn = small.convert("RGBA").rotate(2.0 * digit - 9.0, expand=True, resample=Image.Resampling.BICUBIC)
    wood = np.array((90, 56, 30)) + 12.0 * np.sin(np.arange(900) / 7.0)[None, :, None]
    picture = Image.fromarray(np.broadcast_to(wood, (700, 900, 3)).astype(np.uint8))
    picture.paste(turn, (40 + 40 * digit, 280 - 25 * digit), turn)
    return np.asarray(picture) / 255


def test_what_else_is_on_a_sheet(net: fs.MLP) -> None:
    wrong = [
        (name, digit)
        for digit in range(10)
        for name, picture in spoiled(digit)
        if read(net, cut_out(picture).image) != read(net, cut_out(KINDS["dark on light"](digit, 0)).image)
    ]
    assert not wrong


@pytest.mark.parametrize("apart", [150, 320])
@pytest.mark.parametrize("digits", [(2, 3), (5, 8), (6, 0)])
@pytest.mark.parametrize("place", ["a sheet", "a table"])
def test_two_digits_are_not_one(digits: tuple[int, int], apart: int, place: str) -> None:
    sheets = [drawn(d, (640, 480), 150, (160 + k * apart, 240), 14, BLACK, WHITE) for k, d in enumerate(digits)]
    both = np.minimum(*sheets)
    with pytest.raises(ValueError, match="expected one digit; found 2 beside each other"):
        cut_out(both if place == "a sheet" else on_a_table(both, 4))


# --- what comes out ---


@pytest.mark.parametrize("kind", KINDS)
def test_the_image_is_as_those_of_mnist(kind: str) -> None:
    scan = cut_out(KINDS[kind](2, 0))
    image = scan.image
    assert image.shape == (28, 28)
    assert image.min() == 0.0
    assert 0.8 < image.max() <= 1.0
    rows, columns = np.flatnonzero(image.max(axis=1)), np.flatnonzero(image.max(axis=0))
    assert max(rows[-1] - rows[0], columns[-1] - columns[0]) + 1 in (19, 20)
    middle = [(image.sum(axis=1 - k) * np.arange(28)).sum() / image.sum() for k in (0, 1)]
    assert np.allclose(middle, 13.5, atol=0.75)
    assert scan.dark == (kind not in ("light on dark", "chalk", "red on green")) or kind == "red on green"


def test_images_of_mnist_stay_as_they_are() -> None:
    (X, _), _ = datasets.synthetic_digits(40, 1)
    kept = [(cut_out(x / 255).image == x / 255).all() for x in X]
    assert any(kept)  # the rest has no margin, or is not in the middle
    centred = [x for x, same in zip(X, kept, strict=True) if same]
    assert (cut_out(centred[0] / 255, flip=True).image == 1.0 - centred[0] / 255).all()


def test_the_box_is_where_the_digit_is() -> None:
    for kind in ("off-centre", "small in a large one", "photograph, dark at its corners"):
        picture = KINDS[kind](3, 0)
        left, top, right, bottom = cut_out(picture).box
        ink = picture.mean(axis=2) < 0.4
        rows, columns = np.flatnonzero(ink.sum(axis=1) > 1), np.flatnonzero(ink.sum(axis=0) > 1)
        assert np.allclose((left, top, right, bottom), (columns[0], rows[0], columns[-1], rows[-1]), atol=12), kind


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (2, 3), (40, 40), (700, 500)])
@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_empty_sheets(size: tuple[int, int], value: float) -> None:
    with pytest.raises(ValueError, match="nothing but paper"):
        cut_out(np.full(size, value))
    grain = np.random.default_rng(0).normal(size=(200, 200)) * 0.02
    with pytest.raises(ValueError, match="nothing but paper"):
        cut_out(np.full((200, 200), 0.5) + 0.0 * grain)


def test_no_picture_at_all() -> None:
    with pytest.raises(ValueError, match="empty picture"):
        cut_out(np.zeros((0, 5)))
    with pytest.raises(ValueError, match="transparent everywhere"):
        cut_out(np.ones((9, 9)), np.zeros((9, 9)))


def test_shapes_of_all_kinds_end_in_an_image_or_a_message() -> None:
    draw = np.random.default_rng(0)
    for _ in range(60):
        shape = tuple(draw.integers(1, 60, size=2))
        picture = draw.uniform(size=shape) ** draw.integers(1, 9)
        if draw.uniform() < 0.3:
            picture = np.round(picture)
        with contextlib.suppress(ValueError):  # nothing but paper
            image = cut_out(picture).image
            assert image.shape == (28, 28)
            assert np.isfinite(image).all()
            assert 0.0 <= image.min() <= image.max() <= 1.0


# --- files ---


def saved(picture: Any, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def rgb(picture: Array) -> Any:
    return Image.fromarray(np.rint(picture * 255).astype(np.uint8))


@pytest.fixture(scope="module")
def five() -> Array:
    return KINDS["dark on light"](5, 0)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "GIF"])
@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1"])
def test_formats_and_modes(five: Array, tmp_path: Path, kind: str, mode: str) -> None:
    right = cut_out(five).image
    picture = rgb(five).convert(mode) if mode != "1" else rgb(five).convert("1", dither=Image.Dither.NONE)
    if kind in ("JPEG", "WEBP") and mode in ("P", "1"):
        picture = picture.convert("L")
    content = saved(picture, kind)
    assert abs(read_scan(content).image - right).mean() < 0.03
    (tmp_path / "x").write_bytes(content)
    assert (read_scan(tmp_path / "x").image == read_scan(content).image).all()


def test_many_bits_turned_and_animated(five: Array) -> None:
    right = cut_out(five).image
    deep = Image.fromarray(np.rint(five.mean(axis=2) * 65535).astype(np.uint16))
    assert abs(read_scan(saved(deep, "PNG")).image - right).mean() < 0.03
    turned = rgb(five).transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees, clockwise
    assert abs(read_scan(saved(turned, "JPEG", exif=exif, quality=95)).image - right).mean() < 0.03
    other = rgb(KINDS["dark on light"](8, 0))
    film = saved(rgb(five), "GIF", save_all=True, append_images=[other])
    assert abs(read_scan(film).image - right).mean() < 0.03


@pytest.mark.parametrize("ink", [(0, 0, 0), (255, 255, 255), (200, 30, 30)])
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "GIF"])
def test_transparency(five: Array, ink: tuple[int, int, int], kind: str) -> None:
    """Ink on nothing, and a sheet of paper with a hole at its corner."""
    right = cut_out(five).image
    opacity = np.rint(255 * (1.0 - (five.mean(axis=2) - five.min()) / np.ptp(five))).astype(np.uint8)
    layer = np.concatenate([np.broadcast_to(np.array(ink, np.uint8), (*opacity.shape, 3)), opacity[:, :, None]], axis=2)
    found = read_scan(saved(Image.fromarray(layer), kind, **({"lossless": True} if kind == "WEBP" else {}))).image
    assert abs(found - right).mean() < 0.04
    sheet = np.concatenate([np.rint(five * 255), np.full((*five.shape[:2], 1), 255.0)], axis=2).astype(np.uint8)
    sheet[:20, :20] = 0
    assert abs(read_scan(saved(Image.fromarray(sheet), "PNG")).image - right).mean() < 0.03


def test_plain_pictures_keep_their_shades() -> None:
    coat = np.ones((120, 90))
    coat[10:110, 20:70] = np.linspace(0.2, 0.8, 50)
    scan = whole(coat)
    assert scan.dark
    assert len(np.unique(np.round(scan.image, 2))) > 10
    assert scan.image[14, 3] == 0.0
    assert read_scan(saved(rgb(np.repeat(coat[:, :, None], 3, axis=2)), "PNG"), plain=True).image.shape == (28, 28)


def test_damaged_files(five: Array) -> None:
    """Cut off or changed anywhere, a file is an image or a ValueError."""
    draw = np.random.default_rng(0)
    for kind in ("PNG", "JPEG", "WEBP", "BMP", "GIF"):
        whole_file = saved(rgb(five), kind)
        for _ in range(25):
            content = bytearray(whole_file)
            if draw.uniform() < 0.5:
                content = content[: int(draw.integers(4, len(content)))]
            else:
                content[int(draw.integers(4, len(content)))] = int(draw.integers(256))
            with contextlib.suppress(ValueError):
                assert read_scan(bytes(content)).image.shape == (28, 28)


def test_what_a_file_claims_is_bounded() -> None:
    bomb = saved(Image.new("1", (30_000, 30_000)), "PNG")
    assert len(bomb) < 200_000
    with pytest.raises(ValueError, match="expected at most"):
        read_scan(bomb)
    with pytest.raises(ValueError, match="found something else"):
        read_scan(b"%PDF-1.7")


def test_without_pillow(monkeypatch: pytest.MonkeyPatch, five: Array) -> None:
    content = saved(rgb(five), "PNG")
    monkeypatch.setitem(__import__("sys").modules, "PIL", None)
    with pytest.raises(ImportError, match=r"pip install 'fastscalar\[images\]'"):
        read_scan(content)
