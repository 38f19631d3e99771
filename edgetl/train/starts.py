"""The teacher where a backbone learned elsewhere first: begun with that only where it helped."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import torch

from edgetl.config import Episodes, TrainConfig
from edgetl.files import read_json, write_bytes, write_json
from edgetl.models import checkpoint
from edgetl.progress import SILENT, Progress
from edgetl.records.train import PROBE, TRAINING, PairedComparison, StartRecord, TrainRecord
from edgetl.tasks.metrics import metric
from edgetl.train import few_shot, stage
from edgetl.train.compare import compare
from edgetl.train.evaluate import predict_outputs
from edgetl.train.processes import from_main, launched
from edgetl.train.sets import open_sets
from edgetl.train.stage import TrainInputs
from edgetl.train.tasks.all import training_task

ORIGINAL, PRETRAINED = "original", "pretrained"
"""Folders in the stage's, of the two trainings: their state, and the curves that trackers keep in files."""
_TRAINED = "trained.json"


@dataclass(frozen=True, kw_only=True)
class Pretrained:
    """A backbone that learned elsewhere first, and how it comes to be used.

    Attributes:
        checkpoint: the backbone.
        learned: what it learned, in words.
        probe: linear probes on its features, after those on the original weights'.
        always: it is used whether it helps or not.
    """

    checkpoint: Path
    learned: str
    probe: PairedComparison
    always: bool


def run(
    config: TrainConfig,
    inputs: TrainInputs,
    first: Pretrained | None,
    *,
    out: Path,
    progress: Progress = SILENT,
) -> TrainRecord:
    """Train the teacher and write `out/teacher.safetensors`, as `edgetl.train.stage.run` does.

    Where it need not be used, the teacher is trained from both starts, which differ in nothing else: the settings, the
    seed, the number of epochs and the choice of the best one on the validation split are the same. The two answer
    the validation split, and the one from the pretrained backbone is kept only where it is better by `train.select` or
    the task's usual metric, with an error of 5% at most; see `edgetl.train.compare`. A run that was stopped goes on in
    the training in which it was.

    Where several processes were launched, each must call this; the first one writes.

    Args:
        config: how to train.
        inputs: what to train on; without a start.
        first: what may be begun with; None to train from `train.weights` alone.
        out: the stage's folder.
        progress: where to report.

    Raises:
        As `edgetl.train.stage.run`.
    """
    episodes = few_shot.run(config, inputs, out=out, progress=progress)
    if episodes is not None:
        taken = config.episodes if episodes.used else Episodes.NONE
        inputs = dataclasses.replace(inputs, episodes=taken)
    if first is None:
        record = stage.run(config, inputs, out=out, progress=progress)
        return dataclasses.replace(record, episodes=episodes)
    trained = _once if first.always else _twice
    record = trained(config, inputs, first, out=out, progress=progress)
    assert record.start is not None
    (progress.message if record.start.used else progress.warning)(record.start.note)
    return dataclasses.replace(record, episodes=episodes)


def _once(
    config: TrainConfig, inputs: TrainInputs, first: Pretrained, *, out: Path, progress: Progress
) -> TrainRecord:
    begun = dataclasses.replace(inputs, start=first.checkpoint)
    record = stage.run(config, begun, out=out, progress=progress)
    note = (
        f"Training begins with what was learned first ({first.learned}) in any case (pretrain.always);"
        f" {_went(first.probe, 'a linear probe')}."
    )
    start = StartRecord(judge=PROBE, comparison=first.probe, used=True, note=note)
    return dataclasses.replace(record, start=start)


def _twice(
    config: TrainConfig, inputs: TrainInputs, first: Pretrained, *, out: Path, progress: Progress
) -> TrainRecord:
    begun = dataclasses.replace(inputs, start=first.checkpoint)
    plain = _trained(config, inputs, out / ORIGINAL, progress, "from the original weights, to compare with")
    other = _trained(config, begun, out / PRETRAINED, progress, f"the same, after {first.learned}")
    # Only the first process knows that the files are written.
    found = from_main(_compared(config, inputs, out, progress) if launched().main else None)
    assert found is not None
    record, rest = (other, plain) if found.helped else (plain, other)
    note = (
        f"Pretraining ({first.learned}) {'helped' if found.helped else 'did not help'}:"
        f" {_went(found, 'the trained teacher')};"
        f" the one {'after it' if found.helped else 'from the original weights'} is kept."
    )
    start = StartRecord(
        judge=TRAINING,
        comparison=found,
        used=found.helped,
        note=note,
        other_seconds=rest.seconds,
    )
    if launched().main:
        kept = out / (PRETRAINED if found.helped else ORIGINAL) / stage.CHECKPOINT
        write_bytes(out / stage.CHECKPOINT, kept.read_bytes())
        for name in (ORIGINAL, PRETRAINED):
            for path in (out / name / stage.CHECKPOINT, out / name / _TRAINED):
                path.unlink()
            if not any((out / name).iterdir()):
                (out / name).rmdir()
    return dataclasses.replace(record, checkpoint=f"{out.name}/{stage.CHECKPOINT}", start=start)


def _trained(
    config: TrainConfig, inputs: TrainInputs, out: Path, progress: Progress, said: str
) -> TrainRecord:
    """One of the two trainings, which a run that was stopped after it does not do again."""
    done = out / _TRAINED
    if from_main(done.is_file() and (out / stage.CHECKPOINT).is_file()):
        return read_json(done, TrainRecord)
    progress.message(f"train: {said}")
    if launched().main:
        out.mkdir(exist_ok=True)
    record = stage.run(config, inputs, out=out, progress=progress)
    if launched().main:
        write_json(done, record)
    return record


def _compared(config: TrainConfig, inputs: TrainInputs, out: Path, progress: Progress) -> PairedComparison:
    """The two teachers on the validation split."""
    task = training_task(inputs.index.task, inputs.task, inputs.labels)
    sets = open_sets(inputs.index, inputs.spec, inputs.pixels_dir, progress)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    before, after = (
        predict_outputs(checkpoint.load(out / name / stage.CHECKPOINT)[0].to(device), sets.val)
        for name in (ORIGINAL, PRETRAINED)
    )
    chosen = stage.selecting(config, task, sets.train.targets)
    return compare(task, chosen, sets.val.targets, before, after, seed=inputs.seed)


def _went(found: PairedComparison, what: str) -> str:
    """What was compared, with its figures."""
    low, high = found.interval
    return (
        f"{what} went from {metric(found.metric).title} {found.before:.1%} to {found.after:.1%} on {found.images:,}"
        f" validation images ({100 * (found.after - found.before):+.1f} points, 90% interval {100 * low:+.1f} to"
        f" {100 * high:+.1f}, p = {found.p_value:.2g})"
    )
