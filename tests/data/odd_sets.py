"""Image sets as people have them, at random: folders, CSVs, odd names, few images, broken files, links, permissions."""

from __future__ import annotations

import contextlib
import io
import os
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = (
    *(
        "cat",
        "Cat",
        "dog",
        "cat ",
        "cat\u200b",
        "0",
        "1",
        "10",
        "猫",
        "café",
        "cafe\u0301",
        "a b",
        "train",
        "val",
        "test",
    ),
    *(
        "two\nlines",
        "tab\there",
        "\x1b[31mred",
        "x" * 120,
        "caf\udce9",
        "-rf",
        "%s",
        "{}",
        "'; drop",
        "<b>",
        "[bold]",
        "#1",
    ),
    *("__MACOSX", ".hidden", "CON", "a" * 80 + "é" * 60, "🙂", "\u202eevil", "NaN", "true", "_", "...", "~"),
)
NAMES = (
    *(
        "a.png",
        "b.jpg",
        "C.PNG",
        "d.jpeg",
        "caf\udce9.png",
        "new\nline.png",
        "\x1b[2J.png",
        "é.png",
        "-x.png",
        "%d.png",
    ),
    *(
        "x" * 240 + ".png",
        "a b.png",
        "._x.png",
        "Thumbs.db",
        ".DS_Store",
        "p.heic",
        "q.txt",
        "r",
        "s.HEIC",
        "~.png",
    ),
    *(
        "\\w.png",
        "[b].png",
        '"q".png',
        "a,b.png",
        "a;b.png",
        "t.tif",
        "u.bmp",
        "v.webp",
        "w.gif",
        "x.ppm",
        "y.jpg.png",
    ),
    *("\udcff\udcfe.jpg", ".png", "z.", "\u202e.png", " lead.png", "trail.png ", "q\udce9.heic", "k.\udce9"),
)
MODES = ("RGB", "RGB", "RGB", "L", "RGBA", "P", "1", "CMYK", "I;16", "F", "LA")
FORMATS = {
    "RGB": "PNG",
    "L": "PNG",
    "RGBA": "PNG",
    "P": "GIF",
    "1": "PNG",
    "CMYK": "JPEG",
    "I;16": "PNG",
    "F": "TIFF",
}


@dataclass
class OddSet:
    """What was made: what to name as the source, and settings of `[data]`."""

    source: str
    settings: dict[str, object]


def make(root: Path, seed: int) -> OddSet:
    """Write a set that is decided by `seed` below `root`."""
    rng = random.Random(seed)
    maker = _Maker(root / "set", rng)
    kinds: tuple[Callable[[], str], ...] = (
        *(maker.flat,) * 4,
        *(maker.splits,) * 3,
        *(maker.table,) * 5,
        maker.nothing,
        maker.garbage,
    )
    source = rng.choice(kinds)()
    settings: dict[str, object] = {}
    if rng.random() < 0.5:
        settings["bad_images"] = "skip"
    if rng.random() < 0.2:
        settings["val_fraction"] = rng.choice([0.001, 0.5, 0.95])
        settings["test_fraction"] = rng.choice([0.001, 0.3, 0.95])
    if rng.random() < 0.15:
        settings["max_train_images"] = rng.choice([1, 2, 5, 1000])
    return OddSet(source, settings)


def picture(rng: random.Random, tidy: bool) -> bytes:
    """An image file, mostly a sound one."""
    width, height = (rng.choice([8, 8, 8, 12, 40]) for _ in "wh")
    if rng.random() < (0.003 if tidy else 0.03):
        width = rng.choice([1, 2, 3, 700])
    mode = rng.choice(MODES)
    pixels = np.random.default_rng(rng.randrange(1 << 30)).integers(
        0, 256, (height, width, 4), dtype=np.uint8
    )
    if rng.random() < 0.1:
        pixels[:] = rng.randrange(256)
    image = Image.fromarray(pixels)
    match mode:
        case "I;16":
            image = Image.fromarray(pixels[..., 0].astype(np.uint16) * rng.choice([1, 4, 200]))
        case "F":
            image = Image.fromarray(pixels[..., 0].astype(np.float32) * rng.choice([1 / 255, 1.0, 100.0]))
        case "LA":
            image = image.convert("LA")
        case _:
            image = image.convert("RGB").convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, FORMATS.get(mode, "PNG"))
    content = buffer.getvalue()
    match rng.randrange(400 if tidy else 40):
        case 0:
            return b""
        case 1:
            return content[: len(content) // 2]
        case 2:
            return b"version https://git-lfs.github.com/spec/v1\n"
        case 3:
            return rng.randbytes(200)
    return content


class _Maker:
    def __init__(self, root: Path, rng: random.Random) -> None:
        self.root, self.rng = root, rng
        self.tidy = rng.random() < 0.6  # else hardly a set would come through
        self.kept: list[bytes] = []
        root.mkdir(parents=True)

    def flat(self) -> str:
        self._classes(self.root)
        return str(self.root)

    def splits(self) -> str:
        if self.tidy:
            for split in ("train", *self.rng.sample(["val", "test"], self.rng.randint(0, 2))):
                self._classes(self.root / split)
            return str(self.root)
        for split in self.rng.sample(
            ["train", "val", "test", "valid", "Train", "extra"], self.rng.randint(1, 4)
        ):
            self._classes(self.root / split)
        return str(self.root)

    def table(self) -> str:
        rng = self.rng
        self._classes(self.root)
        named = self.rng.random() < 0.1  # else names that a UTF-8 file cannot hold are left out
        files = [p.relative_to(self.root) for p in sorted(self.root.rglob("*")) if not p.is_dir()]
        files = [p for p in files if named or str(p).isprintable() or "\n" in str(p)][:60]
        columns = ["path", "label", *(c for c in ("split", "group", "note") if rng.random() < 0.4)]
        if rng.random() < 0.3:
            rng.shuffle(columns)
        if rng.random() < 0.05:
            columns.remove("path")
        labels = rng.sample(CLASSES, rng.randint(1, 5))
        comma = rng.choice([",", ",", ";", "\t"])
        lines = [comma.join(columns)]
        slip = rng.random() < (0.1 if self.tidy else 0.5)
        for path in files:
            name = str(path)
            if slip and rng.random() < 0.5:
                swapped = name.replace("/", "\\")
                name = rng.choice(
                    [swapped, f"/gone/{name}", f"../{name}", "C:\\x\\y.png", "", "https://a/b.png", "~x/b"]
                )
            cells = {
                "path": name,
                "label": rng.choice(labels) if slip else path.parts[0],
                "split": rng.choice(["train", "train", "train", "val", "test", "" if slip else "train"]),
                "group": rng.choice(["", "g1", "g2", "g3", "g4\n", "é"]),
                "note": "x" * (200_000 if rng.random() < 0.002 else 3),
            }
            texts = [cells[column] for column in columns]
            quote = rng.random() < 0.9
            lines.append(
                comma.join(
                    '"' + t.replace('"', '""') + '"' if quote and set(t) & set('",;\t\n') else t
                    for t in texts
                )
            )
            if rng.random() < 0.02:
                lines.append("")
            if slip and rng.random() < 0.05:
                lines.append(lines[-1].replace("train", "val"))
        encoding = rng.choice(["utf-8"] * (60 if self.tidy else 6) + ["utf-8-sig", "utf-16", "latin-1"])
        content = "\n".join(lines).encode(
            encoding, "surrogateescape" if encoding.startswith("utf-8") else "replace"
        )
        if rng.random() < 0.03:
            content = content.replace(b"a", b"\0", 1)
        target = self.root / rng.choice(
            ["labels.csv"] * (30 if self.tidy else 2) + ["l.tsv", "caf\udce9.csv", "x.txt"]
        )
        target.write_bytes(content)
        return str(target)

    def nothing(self) -> str:
        return self.rng.choice(
            [str(self.root), str(self.root / "gone"), "~nobody-here/x", "x" * 300, "", ".", "a\udce9"]
        )

    def garbage(self) -> str:
        path = self.root / self.rng.choice(["g.csv", "g.png", "g"])
        path.write_bytes(self.rng.randbytes(self.rng.choice([0, 1, 50, 2000])))
        return str(path)

    def _classes(self, parent: Path) -> None:
        rng = self.rng
        names = (
            rng.sample(CLASSES[:12], rng.randint(2, 5))
            if self.tidy
            else rng.sample(CLASSES, rng.randint(1, 4))
        )
        for name in names:
            folder = parent / name
            with contextlib.suppress(OSError):
                if rng.random() < 0.08:
                    self._linked(folder)
                    continue
                folder.mkdir(parents=True, exist_ok=True)
                for number in range(rng.choice([0, 1, 1, 2, 2, 3, 5, 9, 30])):
                    self._file(folder, rng.choice([f"{number}.png"] * 30 * (1 + self.tidy) + [*NAMES]))
                if rng.random() < 0.1:
                    self._linked(folder / rng.choice(["deeper", "l.png"]))
                if rng.random() < 0.02:
                    folder.chmod(0)

    def _file(self, folder: Path, name: str) -> None:
        rng, path = self.rng, folder / name
        if os.path.lexists(path):
            return
        with contextlib.suppress(OSError):
            match rng.randrange(500 if self.tidy else 50):
                case 0:
                    path.symlink_to(self.root / "not fetched")
                case 1:
                    path.symlink_to(path)
                case 2:
                    path.mkdir()
                case 3:
                    os.mkfifo(path)
                case 4 if self.kept:
                    path.write_bytes(rng.choice(self.kept))
                case _:
                    self.kept.append(picture(rng, self.tidy))
                    path.write_bytes(self.kept[-1])
                    if rng.random() < 0.01:
                        path.chmod(0)

    def _linked(self, path: Path) -> None:
        others = [p for p in self.root.iterdir() if p.is_dir()]
        target = self.rng.choice([self.root, self.root.parent, self.root / "gone", path, *others])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(target)


@contextmanager
def strict_streams(seed: int) -> Iterator[None]:
    """Standard output and error as a terminal of another encoding may be, as the command line sets them up."""
    from edgetl.cli import streams as standard

    encoding = ("utf-8", "ascii", "latin-1")[seed % 3]
    streams = [io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict") for _ in "oe"]
    with redirect_stdout(streams[0]), redirect_stderr(streams[1]), standard.safe():
        yield


def ways(odd: OddSet, work: Path, seed: int) -> Iterator[tuple[str, Callable[[], object]]]:
    """What is done with a set: the name of each way, and a call that gives an answer or raises."""
    from edgetl import config, pipeline
    from edgetl.cli.data import data_check
    from edgetl.cli.init import init
    from edgetl.data import unlabelled
    from edgetl.data.index import build_index
    from edgetl.runtime.evaluate import find_samples
    from edgetl.runtime.inputs import find_images
    from edgetl.tasks.base import Classification

    recipe = work / "recipe.toml"

    def stage() -> None:
        loaded = config.load(recipe) if recipe.exists() else config.parse({"data": {"source": odd.source}})
        data = config.parse({"data": {**loaded.data.model_dump(mode="json"), **odd.settings}}).data
        loaded = loaded.model_copy(update={"data": data})
        for _ in range(1 + seed % 2):  # the second time from the cache
            pipeline.run(loaded, work / "out", until=pipeline.Stage.DATA)

    def beside() -> None:
        index = build_index(config.parse({"data": {"source": odd.source, "bad_images": "skip"}}).data)
        (work / "beside").mkdir()
        inputs = unlabelled.UnlabelledInputs(index=index, bad_images="skip")
        unlabelled.run(odd.source, inputs, out=work / "beside")

    yield "init", lambda: init(odd.source, recipe, force=False)
    yield "data check", lambda: data_check(odd.source, json=bool(seed % 2))
    yield "data stage", stage
    yield "unlabelled", beside
    yield "device images", lambda: find_images([odd.source])
    yield "device labels", lambda: find_samples(Path(odd.source), Classification(labels=tuple(CLASSES)))


def try_sets(work: Path, seeds: range) -> tuple[dict[str, int], list[str]]:
    """Put sets through every way; outcomes by name and kind, and the faults: neither an answer nor an error of ours."""
    from edgetl.errors import EdgetlError

    outcomes: dict[str, int] = {}
    faults: list[str] = []
    for seed in seeds:
        folder = work / str(seed)
        odd = make(folder, seed)
        for name, go in ways(odd, folder, seed):
            try:
                with strict_streams(seed):
                    go()
                outcome = "answer"
            except EdgetlError as error:
                str(error).encode("ascii", "backslashreplace")
                outcome = "error of ours"
            except Exception as error:
                outcome = "fault"
                faults.append(f"seed {seed}, {name}: {type(error).__name__}: {error}"[:400])
            outcomes[f"{name}: {outcome}"] = outcomes.get(f"{name}: {outcome}", 0) + 1
        for path in folder.rglob("*"):
            if path.is_dir() and not path.is_symlink():
                path.chmod(0o755)
        shutil.rmtree(folder)
    return outcomes, faults
