"""The images that a run reads, and the records of their stages."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgetl.config import Recipe
from edgetl.files import StageCache, sha256_json
from edgetl.inputs.spec import InputKind
from edgetl.pipeline.recipe import teacher_spec
from edgetl.progress import Progress
from edgetl.records.codec import to_json
from edgetl.records.extend import ExtendRecord
from edgetl.records.train import DataRecord, UnlabelledRecord

if TYPE_CHECKING:
    from edgetl.data.index import DataIndex
    from edgetl.tasks.labelling import Labelling


class Images:
    """The images of a run: those of its data, and those without labels or of other classes that settings name.

    All are read before the teacher is trained, so that what is wrong with them is said then.

    Args:
        recipe: what `resolve` gave.
        run_dir: the run's folder.
        cache: of its stages.
        progress: where to report; may be replaced.

    Attributes:
        index: the data, once `read` is done; what follows is known after `read_others`.
        unlabelled: of `distill.unlabelled`.
        further: what is learned before the data, and how many images were left out of it.
        target: of `adapt.images`, and how many were left out.
    """

    index: DataIndex

    def __init__(self, recipe: Recipe, run_dir: Path, cache: StageCache, progress: Progress) -> None:
        self.recipe, self.dir, self.cache, self.progress = recipe, run_dir, cache, progress
        self.pixels_dir = run_dir / "data" / "pixels"
        self.unlabelled: DataIndex | None = None
        self.further: tuple[DataIndex, int] | None = None
        self.target: tuple[DataIndex, int] | None = None

    def read(self) -> tuple[DataRecord, bool]:
        """Read the data; returns its record, and whether it was read before."""
        from edgetl.data import stage

        config, window = self.recipe.data, self.recipe.preprocess.window
        labelling = self.recipe.task.labelling
        extends = self.recipe.extend.run is not None  # one class may be added to others
        inputs = stage.DataInputs(
            seed=self.recipe.seed,
            window=window,
            labelling=labelling,
            least_classes=1 if extends else 2,
            sound=self.recipe.heard,
        )
        record, cached = self.cache.run(
            "data",
            config=config,
            inputs=[_source_key(config.source, labelling, self.progress, config.input), inputs],
            kind=DataRecord,
            outputs=lambda r: [r.index],
            work=lambda out: stage.run(config, inputs, out=out, progress=self.progress),
        )
        if extends:
            record = self._joined(record)
        self.index = self.indexed(self.dir / record.index)
        return record, cached

    def read_others(self) -> None:
        """Read what settings name besides the data."""
        self.unlabelled = self._unlabelled()
        self.further = self._further()
        self.target = self._target()

    def _joined(self, added: DataRecord) -> DataRecord:
        """The record of the added images and of those of the run in `extend.run`, as one set."""
        from edgetl.data import index as indexes
        from edgetl.train.extend import before, stage

        config = self.recipe.extend
        network, known = before.find(config)
        inputs = stage.ExtendInputs(
            checkpoint=network,
            known=indexes.load(known),
            added=indexes.load(self.dir / added.index),
            source=self.recipe.data.source,
            backbone=self.recipe.train.backbone,
            spec=teacher_spec(self.recipe),
            pixels_dir=self.pixels_dir,
        )
        record, _ = self.cache.run(
            before.FOLDER,
            config=config,
            inputs=inputs,
            kind=ExtendRecord,
            outputs=lambda r: [r.index],
            work=lambda out: stage.run(config, inputs, out=out, progress=self.progress),
        )
        joined = indexes.load(self.dir / record.index)
        return replace(
            added,
            index=record.index,
            labels=joined.labels,
            counts=joined.counts(),
            sizes=joined.sizes(),
            sha256=joined.sha256,
        )

    def indexed(self, path: Path) -> DataIndex:
        """The images, and how their classes are related: this is no part of the data stage, whose images are read
        alike whatever the relation is; every stage after it depends on both."""
        from edgetl.data import index as indexes
        from edgetl.data.relations import related

        return related(indexes.load(path), self.recipe.labels)

    def _unlabelled(self) -> DataIndex | None:
        """The images of `distill.unlabelled`."""
        folder = self.recipe.distill.unlabelled
        return None if folder is None else self._without_labels("unlabelled", folder, "distill.unlabelled")[0]

    def _target(self) -> tuple[DataIndex, int] | None:
        """The images of `adapt.images`, and how many were left out."""
        config = self.recipe.adapt
        if config.images is None:
            return None
        from edgetl.train.adapt import stage

        stage.check(config, self.recipe.train, self.index)
        target, held_out = self._without_labels(
            "adapt-images", config.images, "adapt.images", transductive=config.transductive
        )
        stage.check_images(config, target, self.index)
        return target, held_out

    def _without_labels(
        self, name: str, folder: str, setting: str, *, transductive: bool = False
    ) -> tuple[DataIndex, int]:
        """The images of a folder, indexed in the run's folder `name`, and how many were left out."""
        from edgetl.data import index as indexes
        from edgetl.data import unlabelled

        inputs = unlabelled.UnlabelledInputs(
            index=self.index,
            bad_images=self.recipe.data.bad_images,
            setting=setting,
            transductive=transductive,
        )
        record, _ = self.cache.run(
            name,
            config=None,
            inputs=[[[str(p), *_file_state(p)] for p in unlabelled.find(folder, setting=setting)], inputs],
            kind=UnlabelledRecord,
            outputs=lambda r: [r.index],
            work=lambda out: unlabelled.run(folder, inputs, out=out, progress=self.progress),
        )
        return indexes.load(self.dir / record.index), record.held_out

    def _further(self) -> tuple[DataIndex, int] | None:
        """What is learned before the data, and how many images were left out of it."""
        from edgetl.data import index as indexes
        from edgetl.data import other_classes
        from edgetl.data.sources import labelling_in

        config = self.recipe.pretrain
        if config.images is not None:
            return self._without_labels("pretrain-images", config.images, "pretrain.images")
        if config.source is not None:
            data = self.recipe.data.model_copy(update={"source": config.source, "max_train_images": None})
            with other_classes.named_errors():
                key = _source_key(config.source, labelling_in(config.source), self.progress, data.input)
            other = other_classes.OtherInputs(
                index=self.index, seed=self.recipe.seed, window=self.recipe.preprocess.window
            )
            record, _ = self.cache.run(
                "pretrain-source",
                config=data,
                inputs=[key, other],
                kind=UnlabelledRecord,
                outputs=lambda r: [r.index],
                work=lambda out: other_classes.run(data, other, out=out, progress=self.progress),
            )
        else:
            return None
        return indexes.load(self.dir / record.index), record.held_out


def _source_key(
    source: str, labelling: Labelling, progress: Progress, kind: InputKind = InputKind.IMAGE
) -> str:
    """A hash over the files' names, sizes and times: cheap, and it changes when the data may have."""
    from edgetl.data.build import boxes_at
    from edgetl.data.sources import find

    if kind is InputKind.IMAGE and (boxes := boxes_at(source)) is not None:
        marked = [
            [str(e.path), *_file_state(e.path), e.split, e.group, to_json(e.objects)] for e in boxes.entries
        ]
        return sha256_json([boxes.labels, marked])
    found = find(source, labelling, kind=kind, progress=progress)
    entries = [
        [str(e.path), e.label, e.none_of, e.split, e.group, e.domain, *_file_state(e.path)]
        for e in found.entries
    ]
    return sha256_json([entries, found.others, found.named])


def _file_state(path: Path) -> list[int]:
    try:
        stat = path.stat()
    except OSError:
        return []  # the index names what is missing
    return [stat.st_size, stat.st_mtime_ns]
