"""The stages in order, cached and resumable: the one place besides the command line that knows them all."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetl import config as recipes
from edgetl.config import DetectionConfig, DistillLoss, Episodes, Imbalance, Recipe, Target
from edgetl.errors import ConfigError, Interrupted
from edgetl.files import StageCache, sha256_bytes, storage_errors, write_bytes, write_text
from edgetl.locks import only_one
from edgetl.measure.candidates import CandidateModel
from edgetl.measure.stage import MeasureInputs
from edgetl.pipeline import reporting
from edgetl.pipeline.images import Images
from edgetl.pipeline.recipe import check_folds, other_source, resolve, teacher_spec
from edgetl.pipeline.reporting import Warnings
from edgetl.pipeline.stages import Job, Outcome, Stage
from edgetl.process import tune
from edgetl.progress import SILENT, Progress
from edgetl.records.adapt import NO_METHOD, AdaptRecord
from edgetl.records.lineage import LineageStep
from edgetl.records.prune import PruneRecord
from edgetl.records.train import DataRecord, FoldsRecord, PretrainRecord, TrainRecord
from edgetl.records.variants import BundleRecord, ExportRecord, MeasureRecord, QuantizeRecord
from edgetl.report.live import LivePage, LiveRun, came_to
from edgetl.tasks.all import task_of
from edgetl.tasks.metrics import chosen

if TYPE_CHECKING:
    from edgetl.data.index import DataIndex
    from edgetl.distill.objective import Guide
    from edgetl.inputs.image import PreprocessSpec
    from edgetl.prune.latency import Stopwatch
    from edgetl.records.origin import WeightsOrigin
    from edgetl.train.extend.before import Before
    from edgetl.train.pretrain.stage import PretrainInputs
    from edgetl.train.stage import TrainInputs
    from edgetl.train.starts import Pretrained
    from edgetl.train.trackers import Listener


def run(
    recipe: Recipe,
    run_dir: Path,
    *,
    until: Stage = Stage.BUNDLE,
    progress: Progress = SILENT,
    resume_hint: str = "",
    begins: Callable[[Stage], None] = lambda _: None,
    listen: Listener | None = None,
    student_tested: bool = True,
) -> Outcome:
    """Run the stages up to and including `until`; finished stages whose key still holds are not redone.

    Args:
        recipe: what to do.
        run_dir: where everything is written.
        until: the last stage.
        progress: where to report.
        resume_hint: the command that goes on after an interruption, for the message.
        begins: is called with each stage before it is done.
        listen: is called with each epoch of distillation as it ends; an exception of its own ends the run there.
        student_tested: whether the distilled student is scored on the test images too. What is exported always is.

    Raises:
        BusyError: another process works in `run_dir`.
        EdgetlError: bad input; what earlier stages finished is saved.
        Interrupted: Ctrl-C; the same command goes on where it stopped.
    """
    hint = resume_hint or "the same call"
    tune()
    recipe = resolve(recipe)  # before the folder is made, which what cannot run shall not leave behind
    try:
        with _alone_in(run_dir, hint, progress):
            return Run(recipe, run_dir, progress, listen, student_tested).shown(until, begins)
    except Interrupted as stop:
        raise Interrupted(f"{stop} Finished work is saved in {run_dir}; go on with: {hint}") from None
    except KeyboardInterrupt:
        raise Interrupted(f"Stopped. Finished work is saved in {run_dir}; go on with: {hint}") from None


def cross_validate(
    recipe: Recipe, run_dir: Path, folds: int, *, progress: Progress = SILENT, resume_hint: str = ""
) -> FoldsRecord:
    """Train the teacher once a fold on the training and validation images; the test split is not touched.

    Args:
        recipe: what to do; pruning and what comes after it is left out.
        run_dir: finished folds' scores are saved in its folder `folds`.
        folds: parts, 2 or more.
        progress: where to report.
        resume_hint: the command that goes on after an interruption, for the message.

    Raises:
        BusyError: another process works in `run_dir`.
        DataError: fewer than two folds, or a class has fewer images than folds.
        EdgetlError: bad input.
        Interrupted: Ctrl-C; the same command goes on where it stopped.
    """
    from edgetl.train import folds as cross_validation

    hint = resume_hint or "the same call"
    tune()
    try:
        with _alone_in(run_dir, hint, progress):
            run = Run(recipe, run_dir, progress)
            check_folds(run.recipe)
            run.until(Stage.DATA)
            return cross_validation.run(
                run.recipe.train, run.train_inputs(), folds=folds, out=run_dir / "folds", progress=progress
            )
    except Interrupted as stop:
        raise Interrupted(f"{stop} Finished work is saved in {run_dir}; go on with: {hint}") from None
    except KeyboardInterrupt:
        raise Interrupted(f"Stopped. Finished work is saved in {run_dir}; go on with: {hint}") from None


def _alone_in(run_dir: Path, command: str, progress: Progress) -> AbstractContextManager[None]:
    """Two runs in one folder would mix their stages: the second is refused."""
    return only_one(run_dir / ".lock", place=run_dir, command=command, warn=progress.warning)


def follow(recipe: Recipe, run_dir: Path) -> None:
    """In every launched process but the first: take part in the training of the first one's `run`.

    Nothing is written and nothing reported.

    Raises:
        EdgetlError: training cannot go on.
    """
    tune()
    Run(recipe, run_dir, SILENT).follow()


class Run:
    """A recipe in a folder: its stages' inputs and records."""

    def __init__(
        self,
        recipe: Recipe,
        run_dir: Path,
        progress: Progress,
        listen: Listener | None = None,
        student_tested: bool = True,
    ) -> None:
        self.recipe = resolve(recipe)
        self.listen = listen
        self.student_tested = student_tested
        self.dir = run_dir
        self.warnings = Warnings(progress)
        self.progress: Progress = self.warnings
        self.page: LivePage | None = None
        self.cache = StageCache(run_dir, self._works)
        self.images = Images(self.recipe, run_dir, self.cache, self.progress)
        self.pixels_dir = self.images.pixels_dir
        self.records: dict[Stage, Any] = {}
        self.cached: list[Stage] = []
        self.last = Stage.TRAIN
        self.foreseen = False
        with storage_errors(run_dir):
            run_dir.mkdir(parents=True, exist_ok=True)

    def shown(self, last: Stage, begins: Callable[[Stage], None]) -> Outcome:
        """As `until`, with a page that says how far it is; the report takes its place."""
        from edgetl.report.page.live import render
        from edgetl.report.page.run import HTML_NAME

        now = datetime.now(UTC)
        left = tuple(stage.value for stage in Stage)[: list(Stage).index(last) + 1]
        known = LiveRun(name=self.recipe.name, begun=now, written=now, left=left)
        self.page = LivePage(inner=self.warnings, path=self.dir / HTML_NAME, render=render, known=known)
        self.progress = self.images.progress = self.page
        try:
            outcome = self.until(last, begins)
        except KeyboardInterrupt:
            self.page.ends("The run was stopped; the same command goes on")
            raise
        except Interrupted as stop:
            self.page.ends(f"The run was stopped: {stop}")
            raise
        except Exception as error:
            self.page.ends(f"The run ended with an error: {error}")
            raise
        if outcome.report is None:
            self.page.ends(f"Done up to {last}, as asked for")
        return outcome

    def _works(self, stage: str) -> None:
        """A stage, or what goes before it, has work to do."""
        if self.page is not None:
            self.page.works(stage)

    def until(self, last: Stage, begins: Callable[[Stage], None] = lambda _: None) -> Outcome:
        """Do the stages up to and including `last`; see `run`."""
        if (other := other_source(self.dir, self.recipe.data.source)) is not None:
            raise ConfigError(
                f"{self.dir} holds a finished run of another data set, {other}; give this one its own folder with"
                f" --out, or a name of its own in the recipe, or delete {self.dir}."
            )
        self.last = last
        write_text(self.dir / "recipe.lock.toml", recipes.dump(self.recipe))
        steps = {
            Stage.DATA: self._data,
            Stage.PRETRAIN: self._pretrain,
            Stage.TRAIN: self._train,
            Stage.ADAPT: self._adapt,
            Stage.PRUNE: self._prune,
            Stage.DISTILL: self._distill,
            Stage.EXPORT: self._export,
            Stage.QUANTIZE: self._quantize,
            Stage.MEASURE: self._measure,
            Stage.BUNDLE: self._bundle,
        }
        for stage, step in steps.items():
            begins(stage)
            if self.page is not None:
                self.page.begins(stage.value)
            record, cached = step()
            self.records[stage] = record
            if self.page is not None:
                self.page.done(
                    self.cache.seconds(stage.value) if record is not None else 0.0, came_to(record)
                )
            if cached:
                self.cached.append(stage)
                self.progress.message(f"{stage}: up to date")
            if stage is last:
                break
        report = reporting.report(self) if last is Stage.BUNDLE else None
        return Outcome(run_dir=self.dir, records=self.records, cached=tuple(self.cached), report=report)

    # --- the stages -----------------------------------------------------------------------------------

    def _data(self) -> tuple[DataRecord, bool]:
        record, cached = self.images.read()
        # Here, so that a metric that the task does not have is said before training.
        metrics = task_of(self.index.task).metrics
        chosen(self.recipe.train.select, metrics, setting="train.select")
        self._metric = chosen(self.recipe.bundle.metric, metrics, setting="bundle.metric")
        if self.recipe.train.episodes is not Episodes.NONE:
            from edgetl.train import few_shot

            few_shot.check(self.recipe.train, self.index)
        self.images.read_others()
        return record, cached

    def _pretrain(self) -> tuple[PretrainRecord | None, bool]:
        if self.images.further is None:
            return None, False
        return self.cache.run(
            "pretrain",
            # Whether it is used anyway changes nothing of what is learned.
            config=self.recipe.pretrain.model_copy(update={"always": False}),
            inputs=self._pretrain_inputs(),
            kind=PretrainRecord,
            outputs=lambda r: [r.checkpoint],
            work=self._learn_first,
        )

    def _pretrain_inputs(self) -> PretrainInputs:
        from edgetl.train.pretrain import stage

        assert self.images.further is not None
        further, held_out = self.images.further
        return stage.PretrainInputs(
            index=self.index,
            further=further,
            train=stage.shared(self.recipe.pretrain, self.recipe.train),
            spec=self.spec,
            pixels_dir=self.pixels_dir,
            seed=self.recipe.seed,
            task=self.recipe.task,
            held_out=held_out,
        )

    def _learn_first(self, out: Path) -> PretrainRecord:
        """The backbone; with every process that was launched, where it learns from labels."""
        from edgetl.train.pretrain import stage
        from edgetl.train.processes import from_main

        self._foresee()
        config, inputs = self.recipe.pretrain, self._pretrain_inputs()
        if config.source is not None and not stage.source_is_done(out):
            other = self.dir / "pretrain-source" / "index.json"
            from_main(replace(self._job(Stage.PRETRAIN, out), other=str(other)))
        return stage.run(config, inputs, out=out, progress=self.progress)

    def _train(self) -> tuple[TrainRecord, bool]:
        from edgetl.train.processes import from_main

        record, cached = self.cache.run(
            "train",
            config=self.recipe.train,
            inputs=[self.train_inputs(), self._first],
            kind=TrainRecord,
            outputs=lambda r: [r.checkpoint],
            work=self._fit,
        )
        from_main(None)  # the processes that follow are done
        return record, cached

    def _fit(self, out: Path) -> TrainRecord:
        """The teacher, with every process that was launched."""
        from edgetl.train import starts
        from edgetl.train.processes import from_main

        self._foresee()
        first = self._first
        from_main(replace(self._job(Stage.TRAIN, out), first=first))
        return starts.run(self.recipe.train, self.train_inputs(), first, out=out, progress=self.progress)

    def _job(self, stage: Stage, out: Path) -> Job:
        return Job(stage=stage, index=str(self.dir / self.records[Stage.DATA].index), out=str(out))

    def _foresee(self) -> None:
        """What would stop a later stage, as far as it can be known before the teacher is trained."""
        if self.foreseen or self.last in (Stage.DATA, Stage.PRETRAIN, Stage.TRAIN, Stage.ADAPT):
            return
        self.foreseen = True
        from edgetl.distill import stage as distilling
        from edgetl.prune import stage as pruning
        from edgetl.prune.plan import alignment_for
        from edgetl.train.tasks.all import training_task

        recipe = self.recipe
        task = training_task(self.index.task, recipe.task, recipe.labels)
        if self._prunes:
            pruning.check(
                recipe.prune,
                task=task,
                backbone=recipe.train.backbone,
                size=self.student_spec.size,
                teacher_size=self.spec.size,
                alignment=alignment_for(recipe.quantize.target),
                seed=recipe.seed,
                progress=self.progress,
            )
        if self.last is not Stage.PRUNE:
            guide = self._guide_by(self.dir / Stage.TRAIN)
            distilling.check(
                recipe.distill,
                guide,
                task=task,
                backbone=recipe.train.backbone,
                labels=self.index.labels,
                spec=self.student_spec,
                seed=recipe.seed,
            )

    def train_inputs(self) -> TrainInputs:
        """What training reads, once the data is known."""
        from edgetl.train.stage import TrainInputs

        return TrainInputs(
            index=self.index,
            spec=self.spec,
            pixels_dir=self.pixels_dir,
            seed=self.recipe.seed,
            task=self.recipe.task,
            labels=self.recipe.labels,
            before=self._before,
        )

    @property
    def _before(self) -> Before | None:
        """The network of the run that goes on, where one does."""
        from edgetl.data import index as indexes
        from edgetl.train.extend import before

        config = self.recipe.extend
        if config.run is None:
            return None
        network, known = before.find(config)
        return before.Before(
            checkpoint=network,
            index=indexes.load(known),
            share=config.distill,
            temperature=config.temperature,
        )

    @property
    def _first(self) -> Pretrained | None:
        """The backbone that learned elsewhere first, where there is one."""
        from edgetl.train.starts import Pretrained

        record: PretrainRecord | None = self.records[Stage.PRETRAIN]
        if record is None:
            return None
        return Pretrained(
            checkpoint=self.dir / record.checkpoint,
            learned=record.lineage[-1].words,
            probe=record.probe,
            always=self.recipe.pretrain.always,
        )

    def follow(self) -> None:
        """See `follow`."""
        from edgetl.data import index as indexes
        from edgetl.train import starts
        from edgetl.train.pretrain.stage import teach_source
        from edgetl.train.processes import from_main, leave

        job: Job | None = None
        while (job := from_main(job)) is not None:
            self.images.index = self.images.indexed(Path(job.index))
            if job.stage is Stage.PRETRAIN:
                self.images.further = indexes.load(Path(job.other)), 0
                teach_source(self._pretrain_inputs(), out=Path(job.out))
                continue
            starts.run(self.recipe.train, self.train_inputs(), job.first, out=Path(job.out))
        leave()

    def _adapt(self) -> tuple[AdaptRecord | None, bool]:
        if self.images.target is None:
            return None, False
        from edgetl.train.adapt import stage
        from edgetl.train.adapt.domains import AdaptInputs

        config, (target, held_out) = self.recipe.adapt, self.images.target
        trained: TrainRecord = self.records[Stage.TRAIN]
        inputs = AdaptInputs(
            train=stage.as_learned(config, self.recipe.train, trained),
            teacher=self.dir / trained.checkpoint,
            index=self.index,
            target=target,
            held_out=held_out,
            spec=self.spec,
            pixels_dir=self.pixels_dir,
            seed=self.recipe.seed,
            task=self.recipe.task,
            labels=self.recipe.labels,
        )
        return self.cache.run(
            "adapt",
            config=config,
            inputs=inputs,
            kind=AdaptRecord,
            outputs=lambda r: [r.checkpoint],
            work=lambda out: stage.run(config, inputs, out=out, progress=self.progress),
        )

    @property
    def _episodes(self) -> Episodes:
        """The method of episodes that helped the teacher, where one did."""
        trained: TrainRecord = self.records[Stage.TRAIN]
        found = trained.episodes
        return Episodes(found.method) if found is not None and found.used else Episodes.NONE

    def _prune(self) -> tuple[PruneRecord | None, bool]:
        from edgetl.prune import stage
        from edgetl.prune.plan import alignment_for

        config = self.recipe.prune
        if not self._prunes:
            return None, False
        inputs = stage.PruneInputs(
            guide=replace(self._guide, loss=self._plain_loss),
            index=self._students_index,
            spec=self.student_spec,
            pixels_dir=self.pixels_dir,
            seed=self.recipe.seed,
            stopwatch=self._stopwatch() if config.timed else None,
            alignment=alignment_for(self.recipe.quantize.target),
            unlabelled=self._beside,
        )
        return self.cache.run(
            "prune",
            config=config,
            inputs=inputs,
            kind=PruneRecord,
            outputs=lambda r: [r.checkpoint],
            work=lambda out: stage.run(config, inputs, out=out, progress=self.progress),
        )

    def _distill(self) -> tuple[TrainRecord, bool]:
        from edgetl.distill import stage

        config, train = self.recipe.distill, self.recipe.train
        pruned: PruneRecord | None = self.records[Stage.PRUNE]
        start = self.dir / pruned.checkpoint if pruned else self.teacher
        inputs = stage.DistillInputs(
            guide=self._guide,
            pruned=start if config.student == "pruned" else None,
            index=self._students_index,
            spec=self.student_spec,
            pixels_dir=self.pixels_dir,
            seed=self.recipe.seed,
            select=train.select,
            unlabelled=self._without_labels_for_the_student,
            episodes=self._episodes,
        )
        return self.cache.run(
            "distill",
            config=config,
            inputs=inputs,
            kind=TrainRecord,
            outputs=lambda r: [r.checkpoint],
            work=lambda out: stage.run(config, inputs, out=out, progress=self.progress, listen=self.listen),
        )

    def _export(self) -> tuple[ExportRecord, bool]:
        from edgetl.export import stage

        config = self.recipe.export
        student = self.dir / self.records[Stage.DISTILL].checkpoint
        targets = self.recipe.quantize.target
        spec = self.student_spec
        inputs = stage.ExportInputs(checkpoint=student, index=self.index, spec=spec, targets=targets)
        return self.cache.run(
            "export",
            config=config,
            inputs=inputs,
            kind=ExportRecord,
            outputs=lambda r: [
                file for file in (r.onnx, r.half_weights, r.litert, r.litert_half_weights) if file
            ],
            work=lambda out: stage.run(config, inputs, out=out, progress=self.progress),
        )

    def _quantize(self) -> tuple[QuantizeRecord | None, bool]:
        from edgetl.quantize import stage

        config = self.recipe.quantize
        if not config.enabled:
            return None, False
        exported: ExportRecord = self.records[Stage.EXPORT]
        inputs = stage.QuantizeInputs(
            onnx=self.dir / exported.onnx,
            index=self.index,
            spec=self.student_spec,
            seed=self.recipe.seed,
            pixels_dir=self.pixels_dir,
            cache_dir=self.dir / "calibration",
            metric=self._metric,
            guide=self._guide_of_graphs,
            unlabelled=self._beside,
        )
        return self.cache.run(
            "quantize",
            config=config,
            inputs=inputs,
            kind=QuantizeRecord,
            outputs=lambda r: [
                *(v.onnx for v in r.variants),
                *(v.tflite for v in r.variants if v.tflite),
                r.calibration,
            ],
            work=lambda out: stage.run(config, inputs, out=out, progress=self.progress),
        )

    def _measure(self) -> tuple[MeasureRecord, bool]:
        from edgetl.bench.machine import describe
        from edgetl.measure import stage

        exported: ExportRecord = self.records[Stage.EXPORT]
        quantized: QuantizeRecord | None = self.records[Stage.QUANTIZE]
        teacher = self._teacher_record
        candidates = [
            CandidateModel(name="fp32", precision="fp32", target="any", onnx=self.dir / exported.onnx),
            CandidateModel(
                name="fp32-half-weights",
                precision="fp32",
                target="any",
                onnx=self.dir / exported.half_weights,
            ),
        ]
        floats = {"": exported.litert, "-half-weights": exported.litert_half_weights}
        candidates += [
            replace(plain, name=f"fp32-litert{kind}", target=str(Target.LITERT), tflite=self.dir / file)
            for plain, (kind, file) in zip(tuple(candidates), floats.items(), strict=True)
            if file
        ]
        for v in quantized.variants if quantized else ():
            # To a device a model with some layers in float is an INT8 model.
            precision = "int8" if v.precision == "mixed" else v.precision
            candidates.append(
                CandidateModel(
                    name=v.name,
                    precision=precision,
                    target=v.target,
                    onnx=self.dir / v.onnx,
                    tflite=self.dir / v.tflite if v.tflite else None,
                )
            )
        inputs = MeasureInputs(
            candidates=tuple(candidates),
            teacher=self.teacher,
            teacher_spec=self.spec,
            teacher_val=teacher.val,
            teacher_test=teacher.test,
            index=self.index,
            spec=self.student_spec,
            machine=describe().fingerprint,
            seed=self.recipe.seed,
            pixels_dir=self.pixels_dir,
            run_dir=self.dir,
        )
        bench, bundle = self.recipe.bench, self.recipe.bundle
        return self.cache.run(
            "measure",
            config=[bench, bundle],
            inputs=[inputs, self.recipe.export.uint8_input],
            kind=MeasureRecord,
            outputs=lambda r: [file for v in r.variants for file in (v.file, v.reference) if file],
            work=lambda out: stage.run(
                bench, bundle, self._with_baked(inputs, out), out=out, progress=self.progress
            ),
        )

    def _with_baked(self, inputs: MeasureInputs, out: Path) -> MeasureInputs:
        """Where the recipe asks for it, each candidate also with the preprocessing inside its graph."""
        import onnx

        from edgetl.export.bake import bake_preprocess
        from edgetl.export.litert.convert import to_tflite
        from edgetl.export.onnx import to_bytes

        if not self.recipe.export.uint8_input:
            return inputs
        baked = []
        for plain in inputs.candidates:
            model = bake_preprocess(onnx.load(plain.onnx), inputs.spec)
            path = out / f"{plain.onnx.stem}-uint8.onnx"
            write_bytes(path, to_bytes(model))
            tflite = path.with_suffix(".tflite") if plain.tflite else None
            if tflite is not None:
                write_bytes(tflite, to_tflite(model))
            baked.append(
                replace(plain, name=f"{plain.name}-uint8", onnx=path, tflite=tflite, input="uint8-nhwc")
            )
        return replace(inputs, candidates=(*inputs.candidates, *baked))

    def _bundle(self) -> tuple[BundleRecord, bool]:
        from edgetl.measure import pack

        config = self.recipe.bundle
        quantized: QuantizeRecord | None = self.records[Stage.QUANTIZE]
        inputs = pack.ShipInputs(
            name=self.recipe.name,
            measured=self.records[Stage.MEASURE],
            index=self.index,
            spec=self.student_spec,
            run_dir=self.dir,
            recipe_sha256=sha256_bytes(recipes.dump(self.recipe).encode()),
            seed=self.recipe.seed,
            calibration_sha256=quantized.calibration_key if quantized else "",
            lineage=self._lineage(),
            weights=self._origins(),
        )
        return self.cache.run(
            "bundle",
            config=config,
            inputs=inputs,
            kind=BundleRecord,
            outputs=lambda r: [r.path],
            work=lambda out: pack.run(config, inputs, out=out, progress=self.progress),
        )

    # --- what they share ------------------------------------------------------------------------------

    @property
    def index(self) -> DataIndex:
        """The data, once it is read."""
        return self.images.index

    @property
    def _students_index(self) -> DataIndex:
        """The images that the student learns from and is scored on before it is exported."""
        if self.student_tested:
            return self.index
        return replace(self.index, samples=tuple(s for s in self.index.samples if s.split != "test"))

    @property
    def spec(self) -> PreprocessSpec:
        """The teacher's preprocessing."""
        return teacher_spec(self.recipe)

    @property
    def student_spec(self) -> PreprocessSpec:
        """The preprocessing from pruning on and of the device: the teacher's, at the student's size."""
        return replace(self.spec, size=self.recipe.distill.size or self.spec.size)

    @property
    def _teacher_record(self) -> TrainRecord | AdaptRecord:
        """The record of the teacher that the student follows: the adapted one, where there is one."""
        adapted: AdaptRecord | None = self.records.get(Stage.ADAPT)
        trained: TrainRecord = self.records[Stage.TRAIN]
        return trained if adapted is None else adapted

    @property
    def teacher(self) -> Path:
        """The checkpoint of the teacher that the student follows."""
        return self.dir / self._teacher_record.checkpoint

    def _lineage(self) -> tuple[LineageStep, ...]:
        """What the teacher learned, from its first weights on."""
        trained: TrainRecord = self.records[Stage.TRAIN]
        adapted: AdaptRecord | None = self.records[Stage.ADAPT]
        if adapted is None or adapted.method == NO_METHOD:
            return trained.lineage
        folder = Path(str(self.recipe.adapt.images)).name
        return (*trained.lineage, LineageStep(kind=adapted.method, name=folder, images=adapted.images))

    def _origins(self) -> tuple[WeightsOrigin, ...]:
        """Where the first weights of the networks come from that the shipped one learned of."""
        from edgetl.models.backbones import PRETRAINED
        from edgetl.models.origin import weights_origin

        recipe, first = self.recipe, self._lineage()[0]
        begun = PRETRAINED if first.name == PRETRAINED else recipe.train.weights
        networks: dict[str, str] = {recipe.train.backbone: str(begun)}
        if self._prunes and recipe.prune.network != "teacher":
            networks.setdefault(recipe.prune.network, PRETRAINED)
        if recipe.distill.student != "pruned":
            networks.setdefault(recipe.distill.student, recipe.distill.weights)
        found = (weights_origin(network, weights) for network, weights in networks.items())
        return tuple(one for one in found if one is not None)

    @property
    def _beside(self) -> DataIndex | None:
        """The target's images, on which all that comes after adaptation follows the teacher."""
        return None if self.images.target is None else self.images.target[0]

    @property
    def _without_labels_for_the_student(self) -> DataIndex | None:
        """The target's images, and those of `distill.unlabelled`."""
        from edgetl.data.unlabelled import together

        if self.images.unlabelled is None or self._beside is None:
            return self.images.unlabelled or self._beside
        return together(self.images.unlabelled, self._beside)

    def _stopwatch(self) -> Stopwatch:
        """Times what pruning makes, in the runtime that will run it."""
        from edgetl.bench.machine import describe
        from edgetl.export.opsets import opset_for
        from edgetl.measure.stopwatch import RuntimeStopwatch, shipped_target

        return RuntimeStopwatch(
            teacher=self.teacher,
            teacher_spec=self.spec,
            spec=self.student_spec,
            task=self.index.task,
            opset=self.recipe.export.opset or opset_for(self.recipe.quantize.target),
            target=shipped_target(self.recipe.quantize),
            threads=self.recipe.bench.threads,
            machine=describe().fingerprint,
        )

    @property
    def _prunes(self) -> bool:
        return self.recipe.prune.enabled and self.recipe.distill.student == "pruned"

    @property
    def _guide(self) -> Guide:
        return self._guide_by(self.teacher)

    def _guide_by(self, teacher: Path) -> Guide:
        """A teacher's checkpoint, and how students follow it."""
        from edgetl.distill.objective import Guide

        train, distill = self.recipe.train, self.recipe.distill
        return Guide(
            teacher=teacher,
            teacher_size=self.spec.size,
            batch_size=train.batch_size,
            weight_decay=train.weight_decay,
            precision=train.precision,
            temperature=distill.temperature,
            soft_weight=distill.soft_weight,
            loss=distill.loss,
            augment=distill.augment,
            class_balance=self._balanced,
            settings=self.recipe.task,
            labels=self.recipe.labels,
        )

    @property
    def _guide_of_graphs(self) -> Guide:
        """As `_guide`, of exported graphs, which have no heads to exchange."""
        crossed = self.recipe.distill.loss is DistillLoss.CROSSKD
        return replace(self._guide, loss=self._plain_loss) if crossed else self._guide

    @property
    def _plain_loss(self) -> DistillLoss:
        """The soft loss that asks for nothing but the two networks' outputs."""
        return DistillLoss.BCKD if isinstance(self.recipe.task, DetectionConfig) else DistillLoss.HINTON

    @property
    def _balanced(self) -> bool:
        """Whether the student, too, draws every class equally often."""
        return self.recipe.train.imbalance is not Imbalance.NONE
