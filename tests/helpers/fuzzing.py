"""Mutated files: `python tests/helpers/fuzzing.py FOLDER [N] [SEED]` reads N of each kind, with limits of time and
memory.

Whatever a file holds, reading it gives a value or one clear exception (ValueError, OSError), in a time and with a
memory that its size bounds; the command line gives an exit status of 0 or 2 and at most one line.  Mutations flip, cut,
repeat, insert and overwrite bytes, put numbers that are much too large where the formats keep theirs, and change the
values in a header as JSON.  The last line printed says how many files of each kind were read, and how many of them were
accepted.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import random
import struct
import sys
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import fastscalar as fs
from fastscalar import cli
from fastscalar.cli.images import read_images
from fastscalar.datasets import load_idx, save_idx

PIXELS = 12
SECONDS = 2.0  # of the processor for one file
SECONDS_EPOCH = 0.01  # and for each epoch that it asks for, after which all before it are written
ROOM, RATIO = 3_000_000, 60  # bytes of memory, and multiples of the file's size
HUGE = (0, 1, 127, 255, 256, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1)


# --- mutations ---


def mutate(content: bytes, draw: random.Random) -> bytes:
    """One to four changes."""
    data = bytearray(content)
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        at = draw.randrange(len(data) + 1) if draw.random() < 0.5 else min(draw.randrange(128), len(data))
        to = min(len(data), at + draw.choice((1, 2, 4, 8, 30)))
        change = draw.randrange(8)
        if change == 0 and data:
            at = min(at, len(data) - 1)
            data[at] ^= 1 << draw.randrange(8)
        elif change == 1:
            del data[at:]
        elif change == 2:
            del data[at:to]
        elif change == 3:
            data[at:at] = data[at:to] * draw.choice((1, 3, 50))
        elif change == 4:
            data[at:to] = draw.randbytes(to - at)
        elif change == 5:
            width = draw.choice("BHIQ")
            form = draw.choice("<>") + width
            size = struct.calcsize(form)
            data[at : at + size] = struct.pack(form, draw.choice(HUGE) % (1 << 8 * size))
        elif change == 6:
            data[at:at] = draw.choice((b" " * 5000, b"9" * 40, b"#" * 3000, b"\n", b"-", b"\0" * 64, b"PK\x05\x06"))
        else:
            data += draw.randbytes(draw.choice((1, 20, 500)))
    return bytes(data)


STRANGE: tuple[Any, ...] = (
    None, True, 0, -1, 1.5, 1e308, float("nan"), float("inf"), 10**30, "", "x", "\x1b[2J", "../..", [], [0], [[]], {},
    {"epoch": 1}, 3000, [3000, 3000], "float16", "\ud800", "a" * 3000, "a" * 5000,
)  # fmt: skip


def mutate_json(value: Any, draw: random.Random) -> Any:
    """One value, somewhere inside, is another, or is missing."""
    if isinstance(value, dict) and value and draw.random() < 0.85:
        key = draw.choice(list(value))
        if draw.random() < 0.15:
            return {k: v for k, v in value.items() if k != key}
        return value | {key: mutate_json(value[key], draw)}
    if isinstance(value, list) and value and draw.random() < 0.7:
        k = draw.randrange(len(value))
        change = draw.randrange(4)
        if change == 0:
            return value[:k] + value[k + 1 :]
        if change == 1:
            return value[: k + 1] + value[k:]
        return [*value[:k], mutate_json(value[k], draw), *value[k + 1 :]]
    return draw.choice(STRANGE)


def with_header(path: Path, header: Any) -> bytes:
    """The net in the file with another header; whoever mutates a run knows the format."""
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files}
    buffer = io.BytesIO()
    np.savez(buffer, **{**arrays, "header": np.array(json.dumps(header))})
    return buffer.getvalue()


# --- kinds of files ---


class Kinds:
    """For each kind a few sound files, and what reads them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        draw = np.random.default_rng(0)
        fs.MLP(PIXELS, [3, 2], seed=0).save(folder / "mlp.npz", title="t", note=[1, None])
        fs.Linear(PIXELS, 2, seed=0).save(folder / "linear.npz")
        images = draw.integers(0, 256, (5, 3, 4), np.uint8)
        save_idx(folder / "idx", images)
        save_idx(folder / "idx.gz", images)
        save_idx(folder / "idx-f8", draw.random((3, 4)))
        np.save(folder / "u1.npy", images)
        np.save(folder / "f8.npy", draw.random((4, 3)).T)
        (folder / "p5.pgm").write_bytes(b"P5\n# a comment\n4 3 255\n" + images[0].tobytes())
        (folder / "p5-deep.pgm").write_bytes(b"P5 4 3 65535\n" + images[0].astype(">u2").tobytes())
        (folder / "p2.pgm").write_text("P2 # c\n4 3\n255\n" + " ".join(map(str, images[0].ravel().tolist())))
        with zipfile.ZipFile(folder / "packed.npz", "w", zipfile.ZIP_DEFLATED) as archive:
            with np.load(folder / "mlp.npz") as net:
                for name in net.files:
                    with archive.open(f"{name}.npy", "w") as member:
                        np.lib.format.write_array(member, net[name])
            archive.writestr("other.npy", bytes(200_000))
        for name, packing in (("stored.zip", zipfile.ZIP_STORED), ("deflated.zip", zipfile.ZIP_DEFLATED)):
            with zipfile.ZipFile(folder / name, "w", packing) as archive:
                archive.write(folder / "idx", "images")
                archive.writestr("readme.txt", "hello\n" * 100)
        self.run = folder / "run"
        self.seeds = {
            "models": self.contents("mlp.npz", "linear.npz", "packed.npz"),
            "IDX files": self.contents("idx", "idx.gz", "idx-f8"),
            "zip files": self.contents("stored.zip", "deflated.zip"),
            "images": self.contents("idx", "idx.gz", "u1.npy", "f8.npy", "p5.pgm", "p5-deep.pgm", "p2.pgm"),
            "PGM files": self.contents("p5.pgm", "p5-deep.pgm", "p2.pgm"),
        }
        self.readers: dict[str, Callable[[Path], Any]] = {
            "models": fs.load,
            "IDX files": load_idx,
            "zip files": lambda path: load_idx(path / "images"),
            "images": lambda path: read_images(path, PIXELS),
            "PGM files": lambda path: read_images(path, PIXELS),
        }

    def contents(self, *names: str) -> list[bytes]:
        return [(self.folder / name).read_bytes() for name in names]


def read(kind: str, path: Path, reader: Callable[[Path], Any]) -> bool:
    """Whether it was accepted.  AssertionError if it was neither that nor refused as it should be."""
    size = path.stat().st_size
    tracemalloc.reset_peak()
    before, start = tracemalloc.get_traced_memory()[0], time.process_time()
    accepted = True
    try:
        reader(path)
    except (ValueError, OSError) as error:
        accepted = False
        text = str(error)
        assert str(path) in text, text[:2000]
        assert "\n" not in text, text[:2000]
        assert len(text) < 1000 + len(str(path)), text[:2000]
    seconds, peak = time.process_time() - start, tracemalloc.get_traced_memory()[1] - before
    assert seconds < SECONDS, f"{seconds:.1f} s"
    assert peak < ROOM + RATIO * size, f"{peak:,} bytes for a file of {size:,}"
    return accepted


def fuzz(kinds: Kinds, kind: str, n: int, seed: int) -> int:
    """Read n mutated files; how many of them were accepted."""
    draw = random.Random(f"{kind} {seed}")
    path = kinds.folder / "mutated"
    accepted = 0
    tracemalloc.start()
    try:
        for k in range(n):
            content = mutate(draw.choice(kinds.seeds[kind]), draw)
            if kind == "IDX files" and draw.random() < 0.3:  # a sound gzip file of an unsound IDX file
                content = gzip.compress(mutate(kinds.seeds[kind][0], draw), 1)
            if kind == "models" and draw.random() < 0.4:
                name = draw.choice(("mlp.npz", "linear.npz"))
                with np.load(kinds.folder / name) as archive:
                    header = json.loads(str(archive["header"]))
                content = with_header(kinds.folder / name, mutate_json(header, draw))
            path.write_bytes(content)
            try:
                accepted += read(kind, path, kinds.readers[kind])
            except BaseException:
                print(f"{kind}: number {k} of seed {seed} is kept in {path}", file=sys.stderr)
                raise
    finally:
        tracemalloc.stop()
    return accepted


# --- runs ---


def epochs_of(header: Any) -> int:
    """How many epochs a changed header asks for: a run of 3,000 of them is one."""
    try:
        asked = header["metadata"]["run"]["epochs"]
    except (KeyError, TypeError, IndexError):
        return 0
    return asked if isinstance(asked, int) and 0 < asked < 10_000 else 0


def fuzz_runs(kinds: Kinds, n: int, seed: int) -> int:
    """Folders of runs with a mutated checkpoint, model or report: --resume and evaluate."""
    import killing

    draw = random.Random(f"runs {seed}")
    data = killing.write_data(kinds.folder / "data", 12, 6)
    base = ["train", "--out", str(kinds.run)]

    def command(*words: str) -> tuple[int, str]:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as errors:
            status = cli.main([*words])
        return status, errors.getvalue()

    assert command(*base, "--data", str(data), "--epochs", "2", "--hidden", "2")[0] == 0
    model = (kinds.run / "model.npz").read_bytes()
    with np.load(kinds.run / "model.npz") as archive:
        header = json.loads(str(archive["header"]))
    header["metadata"]["epochs"] = header["metadata"]["epochs"][:1]  # as if one were still to be done
    checkpoint = with_header(kinds.run / "model.npz", header)
    (kinds.folder / "sound.npz").write_bytes(checkpoint)
    accepted = 0
    for k in range(n):
        for path in kinds.run.iterdir():
            path.unlink()
        (kinds.run / "model.npz").write_bytes(model)
        epochs = 0
        if draw.random() < 0.75:
            said_otherwise = mutate_json(header, draw)
            changed = with_header(kinds.folder / "sound.npz", said_otherwise)
            epochs = epochs_of(said_otherwise)
        else:
            changed = mutate(checkpoint, draw)
        name = draw.choice(("checkpoint.npz", "checkpoint.npz", "model.npz"))
        (kinds.run / name).write_bytes(changed)
        (kinds.run / "training.json").write_bytes(mutate(b'{"epochs": []}', draw))
        words = (*base, "--resume", "--quiet") if draw.random() < 0.7 else ("evaluate", str(kinds.run))
        start = time.process_time()
        status, said = command(*words)
        try:
            assert status in (0, 2), (status, said)
            assert said.count("\n") == (status == 2), said
            assert "Errno" not in said, said
            assert len(said) < 8000, said  # a path may have 4096 characters
            assert time.process_time() - start < SECONDS + epochs * (1 + epochs / 1000) * SECONDS_EPOCH
        except AssertionError:
            (kinds.folder / name).write_bytes(changed)
            print(f"runs: number {k} of seed {seed}, {words[0]}: kept in {kinds.folder / name}", file=sys.stderr)
            raise
        accepted += status == 0
    return accepted


def main(folder: Path, n: int = 20_000, seed: int = 0) -> None:
    kinds = Kinds(folder)
    said = []
    for kind in kinds.seeds:
        start = time.perf_counter()
        said.append(f"{n:,} {kind} ({fuzz(kinds, kind, n, seed):,} accepted)")
        print(said[-1], f"{time.perf_counter() - start:.0f} s", flush=True)
    said.append(f"{n:,} runs ({fuzz_runs(kinds, n, seed):,} accepted)")
    print(", ".join(said))


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), *map(int, sys.argv[2:]))
