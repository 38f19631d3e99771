"""The index of any source: of labelled images, or of pictures with boxes."""

from __future__ import annotations

from edgetl.data.boxes.entries import FoundBoxes
from edgetl.data.boxes.index import index_boxes
from edgetl.data.boxes.sources import find_boxes
from edgetl.data.index import DataIndex, DataSettings, build_index
from edgetl.data.walk import place
from edgetl.inputs.spec import SoundSpec
from edgetl.progress import SILENT, Progress
from edgetl.tasks.labelling import ONE_LABEL, Labelling


def boxes_at(source: str) -> FoundBoxes | None:
    """The boxes of a source; None where it is another kind of set, or nothing is there.

    Raises:
        DataError: annotations of boxes are there, but not right.
    """
    return find_boxes(place(source))


def index_of(
    config: DataSettings,
    *,
    labelling: Labelling = ONE_LABEL,
    seed: int = 0,
    least_classes: int = 2,
    sound: SoundSpec | None = None,
    progress: Progress = SILENT,
) -> DataIndex:
    """See `edgetl.data.index.build_index` and `edgetl.data.boxes.index.index_boxes`.

    Raises:
        DataError: see there.
    """
    found = boxes_at(config.source) if sound is None else None
    if found is None:
        return build_index(
            config,
            labelling=labelling,
            seed=seed,
            least_classes=least_classes,
            sound=sound,
            progress=progress,
        )
    return index_boxes(config, found, seed=seed, progress=progress)
