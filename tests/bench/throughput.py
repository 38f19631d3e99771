"""Images a second from a folder of JPEGs: against peers, part by part in turn, and from one thread to two.

`EDGETL_BENCH_IMAGES` sets the number of images (default 1000). The pipelines of torchvision and timm decode in a
DataLoader with two workers and run in batches of 32; OpenCV and Ultralytics take one image after the other, as
their users write it.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import edgetl
from edgetl.runtime.inputs import Item, Source, predict_all
from tests.bench.claims import Claim, at_least
from tests.bench.peers import PEERS, onnx_session, open_all
from tests.bench.subjects import SMALL, Subject, origin, photographs, subject

PARTS = 8
_THREADS = 2

Work = Callable[[Sequence[Path]], int]


def run() -> Iterator[Claim]:
    """Yield the claims."""
    count = int(os.environ.get("EDGETL_BENCH_IMAGES", "1000"))
    with tempfile.TemporaryDirectory() as folder:
        what = subject(Path(folder))
        files = _write(Path(folder), count)
        with (
            edgetl.load(what.bundle, threads=1) as one,
            edgetl.load(what.bundle, threads=_THREADS) as two,
        ):
            works: dict[str, Work] = {
                "edgetl": lambda part: _own(two, part),
                "edgetl, one thread": lambda part: _own(one, part),
            }
            peers, absent = open_all(PEERS, what, _THREADS, files[0].read_bytes())
            for name, label in peers.items():
                works[name] = lambda part, label=label: sum(label(p.read_bytes()) >= 0 for p in part)  # type: ignore[misc]
            works |= {name: work for name, work in _loaders(what).items() if name in peers}
            yield Claim(name="model; images", measured=f"{what.name}; {count} of 640x480 from {origin()}")
            for name, why in absent.items():
                yield Claim(name=name, measured=f"absent ({why})")
            rates = _rates(works, files)
    median = {name: statistics.median(values) for name, values in rates.items()}
    others = [name for name in median if not name.startswith("edgetl")]
    if others:
        best = max(others, key=lambda name: median[name])
        # Part by part: neighbours in time see the same machine.
        ratio = statistics.median(a / b for a, b in zip(rates["edgetl"], rates[best], strict=True))
        yield at_least(
            f"images per second over the fastest peer's ({best}), median of parts", ratio, 1.0, "x"
        )
    scaling = statistics.median(
        b / a for a, b in zip(rates["edgetl, one thread"], rates["edgetl"], strict=True)
    )
    yield at_least("images per second, two threads over one, median of parts", scaling, 1.5, "x")
    for name, value in median.items():
        yield Claim(name=f"{name}, images per second", measured=f"{value:.1f}")


def _write(folder: Path, count: int) -> list[Path]:
    contents, files = photographs(min(50, count), SMALL), []
    (folder / "photos").mkdir()
    for number in range(count):
        path = folder / "photos" / f"{number:04}.jpg"
        path.write_bytes(contents[number % len(contents)])
        files.append(path)
    return files


def _own(session: edgetl.Session, files: Sequence[Path]) -> int:
    source = Source(items=(Item(str(path), path) for path in files), count=len(files))
    return sum(result.prediction is not None for result in predict_all(session, source))


def _rates(works: dict[str, Work], files: Sequence[Path]) -> dict[str, list[float]]:
    """Images a second of each, a part of the files after the other, all in turn; the first ten files warm up."""
    rates: dict[str, list[float]] = {name: [] for name in works}
    for work in works.values():
        work(files[:10])
    for start in range(PARTS):
        part = files[start::PARTS]
        for name, work in works.items():
            began = time.perf_counter()
            assert work(part) == len(part)
            rates[name].append(len(part) / (time.perf_counter() - began))
    return rates


def _loaders(what: Subject) -> dict[str, Work]:
    """The pipelines of torchvision and timm over a DataLoader."""
    try:
        import timm.data
        import torch
        from PIL import Image
        from torch.utils.data import DataLoader, Dataset
        from torchvision import transforms
    except ImportError:
        return {}

    class Files(Dataset):  # type: ignore[type-arg]
        def __init__(self, files: Sequence[Path], prepare: Callable[[Image.Image], torch.Tensor]) -> None:
            self.files, self.prepare = files, prepare

        def __len__(self) -> int:
            return len(self.files)

        def __getitem__(self, index: int) -> torch.Tensor:
            return self.prepare(Image.open(self.files[index]).convert("RGB"))

    spec, session = what.spec, onnx_session(what.model, _THREADS)
    by_torchvision = transforms.Compose(
        [
            transforms.Resize(spec.resized_side, transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(spec.size),
            transforms.ToTensor(),
            transforms.Normalize(spec.mean, spec.std),
        ]
    )
    by_timm = timm.data.create_transform(
        input_size=(3, spec.size, spec.size),
        interpolation="bicubic",
        mean=spec.mean,
        std=spec.std,
        crop_pct=spec.crop_fraction,
        is_training=False,
    )

    def work(prepare: Callable[[Image.Image], torch.Tensor]) -> Work:
        def label(files: Sequence[Path]) -> int:
            loader = DataLoader(Files(files, prepare), batch_size=32, num_workers=2)
            return sum(len(session.run(None, {"images": batch.numpy()})[0]) for batch in loader)

        return label

    return {"torchvision (Pillow)": work(by_torchvision), "timm": work(by_timm)}
