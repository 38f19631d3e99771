"""Training of our detector beside Ultralytics' trainer, on the blood cells at 320 px: seconds per image, and accuracy.

Both learn on every core. Speed: epochs in turn in one process, each library with the batch size (eight, sixteen) and
the augmentation that it proposes for a thousand images, from an epoch's first step to its last, without validation.
Accuracy: both train for `EDGETL_BENCH_MINUTES` (not at all where unset), ours from the backbone's ImageNet weights, the
peers from random ones, since their trained weights may not be shipped in a closed product. The test split, by COCO's
measure, one seed.

The set is looked for in `EDGETL_DATA`.
"""

from __future__ import annotations

import contextlib
import io
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgetl.config import Augment, DataConfig, TrainPrecision
from edgetl.data.build import index_of
from edgetl.data.index import DataIndex, Sample
from edgetl.errors import DataError
from edgetl.inputs.spec import PreprocessSpec, Resize
from edgetl.process import usable_cores
from edgetl.records.scores import value
from edgetl.tasks.detection.found import Found, Truth
from edgetl.tasks.detection.scores import evaluate
from edgetl.train.evaluate import score
from edgetl.train.loop import Fitting, fit
from edgetl.train.objective import Hard
from edgetl.train.sets import Sets, open_sets, part_of
from edgetl.train.tasks.all import training_task
from edgetl.train.tasks.base import TrainingTask
from tests.bench.claims import Claim
from tests.bench.steps import say
from tests.real_sets import unpacked

_SIZE, _BATCH, _PEER_BATCH, _TURNS = 320, 8, 16, 3
_PEERS = ("yolo26n", "yolo11n")


@dataclass(frozen=True, kw_only=True)
class Cells:
    """The set, as both read it."""

    index: DataIndex
    sets: Sets
    task: TrainingTask
    yaml: Path
    folder: Path


def run() -> Iterator[Claim]:
    """Yield the claims."""
    source = unpacked("bccd")
    if source is None:
        raise DataError("The image set bccd is not here: set EDGETL_DATA to the folder with bccd.zip.")
    minutes = float(os.environ.get("EDGETL_BENCH_MINUTES", "0"))
    with tempfile.TemporaryDirectory() as name:
        cells = _open(source, Path(name))
        images = len(cells.index.split("train"))
        own, other = [], []
        for turn in range(1 + _TURNS):
            say(f"an epoch each, {turn} of {_TURNS}")
            own.append(_own_epochs(cells, 1)[1])
            other.append(min(_peer(_PEERS[0], cells, epochs=1)[1]))
        # the first turn fills caches
        ours, theirs = statistics.median(own[1:]), statistics.median(other[1:])
        yield Claim(name="seconds per training image, ours", measured=f"{ours / images:.3f}")
        yield Claim(name=f"seconds per training image, {_PEERS[0]}", measured=f"{theirs / images:.3f}")
        whole = 20 * 1000 * ours / images / 60
        yield Claim(
            name="1,000 images, 20 epochs", measured=f"{whole:.0f} min", aim="<= 45 min", holds=whole <= 45
        )
        if minutes:
            epochs = max(1, int(60 * minutes / ours))
            say(f"ours for {minutes:g} minutes: {epochs} epochs")
            found = _own_epochs(cells, epochs)[0]
            test = score(cells.task, found, cells.sets.test)
            yield Claim(
                name=f"test mAP and mAP50 after {minutes:g} minutes, ours",
                measured=f"{value(test, 'map'):.3f}, {value(test, 'map50'):.3f}",
            )
            for peer in _PEERS:
                say(f"{peer} for {minutes:g} minutes")
                network, _ = _peer(peer, cells, minutes=minutes)
                test = evaluate(*_answers(network, cells), cells.index.labels)
                yield Claim(
                    name=f"test mAP and mAP50 after {minutes:g} minutes, {peer} from scratch",
                    measured=f"{value(test, 'map'):.3f}, {value(test, 'map50'):.3f}",
                )


def _open(source: Path, folder: Path) -> Cells:
    index = index_of(DataConfig(source=str(source)))
    spec = PreprocessSpec(size=_SIZE, resize=Resize.PAD)
    for split in ("train", "val", "test"):
        (folder / "images" / split).mkdir(parents=True)
        (folder / "labels" / split).mkdir(parents=True)
        for sample in index.split(split):  # type: ignore[arg-type]
            (folder / "images" / split / sample.path.name).symlink_to(sample.path)
            (folder / "labels" / split / f"{sample.path.stem}.txt").write_text(_yolo(sample, index.labels))
    names = "".join(f"  {at}: {label}\n" for at, label in enumerate(index.labels))
    yaml = folder / "bccd.yaml"
    yaml.write_text(f"path: {folder}\ntrain: images/train\nval: images/val\nnames:\n{names}")
    task = training_task(index.task)
    return Cells(
        index=index, sets=open_sets(index, spec, folder / "pixels"), task=task, yaml=yaml, folder=folder
    )


def _yolo(sample: Sample, labels: Sequence[str]) -> str:
    assert sample.marked is not None
    (width, height), lines = sample.marked.size, []
    for o in sample.marked.objects:
        x1, y1, x2, y2 = o.box
        place = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height)
        lines.append(f"{labels.index(o.label)} {' '.join(f'{v:.6f}' for v in place)}\n")
    return "".join(lines)


def _own_epochs(cells: Cells, epochs: int) -> tuple[Any, float]:
    """A trained detector, and the seconds of its last epoch's steps."""
    model = cells.task.network("efficientnet_lite0", "pretrained", seed=0, size=_SIZE)
    how = Fitting(
        phase="full",
        epochs=epochs,
        batch_size=_BATCH,
        lr=2e-3,
        weight_decay=0.02,
        augment=Augment.BASIC,
        seed=0,
        ema=0.99,
        precision=TrainPrecision.AUTO,
    )
    train = cells.sets.train
    history = fit(
        model,
        how,
        task=cells.task,
        train=train,
        val=part_of(cells.sets.val, slice(0, 4)),
        objective=Hard(hard_loss=cells.task.hard_loss()),
        state=None,
    )
    return model, len(train) / history[-1].images_per_second


def _peer(name: str, cells: Cells, *, epochs: int = 1000, minutes: float = 0.0) -> tuple[Any, list[float]]:
    """Ultralytics' network trained from random weights, and the seconds of each epoch's steps."""
    os.environ.update(YOLO_AUTOINSTALL="false", YOLO_OFFLINE="true", YOLO_VERBOSE="false")
    os.environ["YOLO_CONFIG_DIR"] = str(cells.folder)
    import torch
    from ultralytics import YOLO

    torch.set_num_threads(usable_cores())
    started, seconds = [0.0], list[float]()
    with contextlib.redirect_stdout(io.StringIO()):
        network = YOLO(f"{name}.yaml")
        network.add_callback("on_train_epoch_start", lambda _: started.append(time.perf_counter()))
        network.add_callback(
            "on_train_epoch_end", lambda _: seconds.append(time.perf_counter() - started[-1])
        )
        network.train(
            data=str(cells.yaml),
            epochs=epochs,
            time=minutes / 60 or None,
            imgsz=_SIZE,
            batch=_PEER_BATCH,
            device="cpu",
            workers=0,
            pretrained=False,
            plots=False,
            val=False,
            verbose=False,
            seed=0,
            project=str(cells.folder),
            name=name,
            exist_ok=True,
        )
    return network, seconds


def _answers(network: Any, cells: Cells) -> tuple[list[Truth], list[Found]]:
    truths, found = [], []
    for sample in cells.index.split("test"):
        assert sample.marked is not None
        boxes = np.array([o.box for o in sample.marked.objects], np.float64).reshape(-1, 4)
        labels = np.array([cells.index.labels.index(o.label) for o in sample.marked.objects], np.int64)
        truths.append(Truth(boxes=boxes, labels=labels))
        [result] = network.predict(str(sample.path), imgsz=_SIZE, conf=0.001, device="cpu", verbose=False)
        own = result.boxes
        found.append(
            Found(
                boxes=own.xyxy.cpu().numpy().astype(np.float64),
                labels=own.cls.cpu().numpy().astype(np.int64),
                scores=own.conf.cpu().numpy().astype(np.float64),
            )
        )
    return truths, found
