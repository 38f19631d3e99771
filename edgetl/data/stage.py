"""The data stage: look at every image once and write the index."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgetl.data import depth
from edgetl.data.audit import warn_of_copies
from edgetl.data.build import index_of
from edgetl.data.index import DataSettings
from edgetl.data.sources import SPLITS
from edgetl.inputs.spec import SoundSpec
from edgetl.progress import SILENT, Progress
from edgetl.records.train import DataRecord
from edgetl.tasks.labelling import ONE_LABEL, Labelling


@dataclass(frozen=True, kw_only=True)
class DataInputs:
    """What the stage needs besides its config. `seed` chooses the images of `max_train_images`, `window` is that of
    their preprocessing, `labelling` what is asked of each image; fewer than `least_classes` are refused. `sound` says
    how recordings become pictures, where the source holds these.
    """

    seed: int
    window: tuple[float, float] | None = None
    labelling: Labelling = ONE_LABEL
    least_classes: int = 2
    sound: SoundSpec | None = None


def run(config: DataSettings, inputs: DataInputs, *, out: Path, progress: Progress = SILENT) -> DataRecord:
    """Index the source and write `index.json` into `out`. Scored images with near-copies in other splits are counted.

    Raises:
        DataError: the source cannot be used, or holds floats and there is no window.
        StorageError: the index cannot be written.
    """
    index = index_of(
        config,
        labelling=inputs.labelling,
        seed=inputs.seed,
        least_classes=inputs.least_classes,
        sound=inputs.sound,
        progress=progress,
    )
    near = 0
    if inputs.sound is None:  # pictures of short sounds are alike without being copies
        depth.check(index, inputs.window, progress=progress)
        parts = [SPLITS.index(sample.split) for sample in index.samples]
        near = warn_of_copies(index.samples, parts, "another split", window=inputs.window, progress=progress)
    index.save(out / "index.json")
    return DataRecord(
        index=f"{out.name}/index.json",
        labels=index.labels,
        counts=index.counts(),
        sizes=index.sizes(),
        skipped=index.skipped,
        sha256=index.sha256,
        near_copies=near,
        others=dict(index.others),
    )
