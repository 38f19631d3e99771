"""Prune a network in steps: rank, cut, measure batch norms anew, recover by distillation from the teacher."""

from __future__ import annotations

import copy
import dataclasses
import functools
import json
import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from edgetl.config import Augment, Importance, MacsTarget, PruneConfig
from edgetl.data.index import DataIndex
from edgetl.distill.objective import Distillation, Guide
from edgetl.distill.teacher import guide, load_for
from edgetl.distill.views import at_size
from edgetl.errors import ConfigError, ModelError, UncuttableError, WeightsError
from edgetl.files import sha256_json
from edgetl.inputs.image import PreprocessSpec
from edgetl.keys import UNKEYED, key_of
from edgetl.models import backbones, checkpoint
from edgetl.models.architecture import Architecture, describe
from edgetl.models.norms import recalibrate
from edgetl.models.removed import removed
from edgetl.models.size import OTHER_SIZE, OWN_SIZE, check_takes, network_size
from edgetl.models.two_four import apply_, held
from edgetl.progress import SILENT, Progress
from edgetl.prune import depth
from edgetl.prune.apply import cut
from edgetl.prune.graph import ChannelGraph, trace
from edgetl.prune.groups import ChannelGroup
from edgetl.prune.importance import Scorer, scorer, without_batch_norm
from edgetl.prune.latency import Stopwatch
from edgetl.prune.plan import Cost, CutLimits, check_reachable, cost_of
from edgetl.prune.schedule import shares
from edgetl.prune.sensitivity import sensitivity
from edgetl.prune.sparsity import GroupLasso, coupled, near_zero
from edgetl.prune.timed import TimedTarget
from edgetl.records.codec import from_json, to_json
from edgetl.records.prune import PruneRecord, PruneSensitivity, PruneStep, SparseTraining, TwoFourRecord
from edgetl.records.scores import value
from edgetl.records.train import EpochRecord, NetworkSize
from edgetl.tasks.all import task_of
from edgetl.tasks.metrics import metric
from edgetl.train.augment import normalise_, training_view
from edgetl.train.evaluate import score
from edgetl.train.loop import NO_START, Fitting, fit, reached
from edgetl.train.seeds import derive, numpy_generator
from edgetl.train.sets import BESIDE, PixelSet, Sets, Unlabelled, open_sets, open_unlabelled
from edgetl.train.tasks.base import TrainingTask

CHECKPOINT = "pruned.safetensors"
TEACHER = "teacher"
"""The value of `prune.network` that means the teacher itself."""
_SENSITIVITY = "sensitivity.json"
_KEY, _STEP, _EPOCHS = "edgetl.prune.key", "edgetl.prune.step", "edgetl.prune.epochs"
_BATCH, _BATCH_SIDE = 32, 224

Kept = tuple[nn.Module, PruneStep, tuple[EpochRecord, ...]]
"""A network on the way, what is recorded of its step, and the epochs of its recovery."""


@dataclass(frozen=True, kw_only=True)
class PruneInputs:
    """What the stage reads.

    Attributes:
        guide: the teacher, and how recovery follows it; it is pruned unless `prune.network` names another backbone.
            Where it sees at another size than the student, the network first learns to see at the student's, as step 0,
            before anything is cut; so does another backbone than the teacher's.
        index: the images and their splits.
        spec: the student's preprocessing in evaluation.
        pixels_dir: folder of decoded pixels, shared by the stages.
        seed: of everything random.
        stopwatch: times a network and the teacher in the runtime; only for a target of the clock.
        alignment: channel counts are multiples of this, where `prune.round_to` is unset.
        unlabelled: images of another domain, which recovery and statistics see too.
    """

    guide: Guide
    index: DataIndex
    spec: PreprocessSpec
    pixels_dir: Path = field(metadata=UNKEYED)
    seed: int
    stopwatch: Stopwatch | None = None
    alignment: int = 8
    unlabelled: DataIndex | None = None


def batch_at(side: int) -> int:
    """Images per batch whose gradients rank channels: fewer of large ones, so that their activations fit in memory."""
    return max(1, min(_BATCH, int(_BATCH * (_BATCH_SIDE / side) ** 2)))


def run(config: PruneConfig, inputs: PruneInputs, *, out: Path, progress: Progress = SILENT) -> PruneRecord:
    """Prune the teacher, or the backbone that `config` names, and write `out/pruned.safetensors`.

    A teacher that pruning does not understand passes on whole; the record's note says why.

    Every finished cut and step is saved in `out`, so that a run that was stopped goes on there, and ends with the
    same weights (on the CPU, bit by bit).

    Raises:
        ConfigError: the target is one of the clock, and the inputs have no stopwatch.
        WeightsError: the teacher is missing, broken, or of other classes than the data; pretrained weights cannot be
            had.
        ModelError: the network cannot be traced or cut, the target is out of reach (says what is reachable), or
            `keep` names a layer that it does not have.
        ImageError: an image cannot be decoded.
        TrainingError: training cannot go on.
        Interrupted: Ctrl-C.
        StorageError: a file cannot be written.
    """
    start = time.perf_counter()
    try:
        return _Run(config, inputs, out, progress).to_the_end()
    except UncuttableError as error:
        if config.network != TEACHER:
            raise
        return _whole(inputs, out, time.perf_counter() - start, f"Nothing was pruned: {error}", progress)


def check(
    config: PruneConfig,
    *,
    task: TrainingTask,
    backbone: str,
    size: int,
    teacher_size: int,
    alignment: int,
    seed: int,
    progress: Progress = SILENT,
) -> None:
    """Find out before the teacher is trained whether it, or the backbone that `config` names, can be cut so far.

    A network's channels and their cost do not depend on its weights. Whether a target of the clock can be reached is
    known only when it is timed.

    Args:
        config: the stage's settings.
        task: what the network answers.
        backbone: the teacher's.
        size: side of the student's images in pixels.
        teacher_size: side of the teacher's.
        alignment: as in `PruneInputs`.
        seed: of everything random.
        progress: hears of a teacher that will pass on whole.

    Raises:
        WeightsError: pretrained weights cannot be had.
        ModelError: the network does not take images of that size, cannot be traced, or the target is out of reach.
    """
    own = config.network == TEACHER
    if own:
        model, name = task.network(backbone, backbones.NO_WEIGHTS, seed=seed, size=teacher_size), backbone
        check_takes(model, teacher_size, name, OWN_SIZE)
    else:
        name, weights = config.network, derive(seed, "weights", config.network)
        model = task.network(name, backbones.PRETRAINED, seed=weights, size=size)
    if size != teacher_size or not own:
        check_takes(model, size, name, OTHER_SIZE)
    try:
        _room(model, size, config, alignment)
    except UncuttableError as error:
        if not own:
            raise
        progress.message(f"prune: nothing can be pruned, and the network will be shipped whole: {error}")


@dataclass(frozen=True, kw_only=True)
class _Room:
    """What may be cut of a network: its channel groups, its size, the multiply-accumulates that no cut changes
    (attention's own products), and the limits."""

    graph: ChannelGraph
    before: NetworkSize
    fixed_macs: float
    limits: CutLimits

    def budgets(self, config: PruneConfig, milliseconds: Sequence[float] = ()) -> tuple[Cost, ...]:
        """What may remain after each step; the milliseconds where the target is one of the clock."""
        macs = parameters = [math.inf] * config.steps
        if isinstance(config.target, MacsTarget):
            kept = shares(config.target.share, config.steps)
            macs = [share * self.before.macs - self.fixed_macs for share in kept]
        if config.target_parameters is not None:
            kept = shares(config.target_parameters, config.steps)
            parameters = [share * self.before.parameters for share in kept]
        return tuple(
            Cost(macs=m, parameters=p, milliseconds=ms)
            for m, p, ms in zip(macs, parameters, milliseconds or [math.inf] * config.steps, strict=True)
        )

    def limits_at(self, step: int, config: PruneConfig) -> CutLimits:
        """What the cut of a step must respect: without a clock, blocks go in even parts over the steps."""
        if config.timed or not config.depth:
            return self.limits
        part = config.depth * step / config.steps
        return dataclasses.replace(self.limits, most_blocks=depth.fewest(self.graph.blocks, part))


def _room(model: nn.Module, size: int, config: PruneConfig, alignment: int) -> _Room:
    """What may be cut of it, which is enough for the target.

    Raises:
        ModelError: it is not, or the network cannot be traced; says what is reachable.
    """
    before = network_size(model, size)
    graph = trace(model, size, keep=config.keep, depth=config.depth > 0)
    _check_groups(graph, config)
    if config.depth:
        depth.check(model, graph.blocks, config.depth)
    limits = CutLimits(
        round_to=config.round_to or alignment,
        max_cut=config.max_cut,
        widths={layer: group.channels for group in graph.groups for layer in _names(group, config)},
        scope=config.scope,
        fewest_blocks=depth.fewest(graph.blocks, config.depth) if config.depth else None,
    )
    room = _Room(graph=graph, before=before, fixed_macs=before.macs - cost_of(graph).macs, limits=limits)
    check_reachable(graph, room.budgets(config)[-1], limits)
    return room


def _names(group: ChannelGroup, config: PruneConfig) -> Iterable[str]:
    """What a group may be called by: the layer that names it may go with a block, and another one then does."""
    return group.outputs if config.depth else (group.name,)


def _whole(inputs: PruneInputs, out: Path, seconds: float, note: str, progress: Progress) -> PruneRecord:
    """The teacher as it is, for what comes after, and why."""
    progress.warning(note)
    teacher, architecture = load_for(inputs.index.labels, inputs.guide.teacher, "teacher")
    size = network_size(teacher, inputs.spec.size)
    checkpoint.save(teacher, architecture, out / CHECKPOINT)
    return PruneRecord(
        checkpoint=f"{out.name}/{CHECKPOINT}",
        before=size,
        after=size,
        steps=(),
        epochs=(),
        seconds=seconds,
        metric=task_of(inputs.index.task).metrics[0].name,
        note=note,
    )


class _Run:
    """One call of `run`."""

    def __init__(self, config: PruneConfig, inputs: PruneInputs, out: Path, progress: Progress) -> None:
        self.config, self.inputs, self.out, self.progress = config, inputs, out, progress
        self.task, self.how = inputs.guide.task_for(inputs.index.task), inputs.guide
        self.metric = self.task.metrics[0].name
        teacher, architecture = load_for(inputs.index.labels, self.how.teacher, "teacher")
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.teacher = teacher.to(self.device)
        # its statistics are those of batches of all classes, so what is measured anew must be too
        self.mixed = checkpoint.REBASED in checkpoint.read_metadata(self.how.teacher)
        self.size = inputs.spec.size
        self.teacher_size = self.how.teacher_size
        self.unlabelled = self._open_unlabelled()
        self.guide = guide(self.teacher, self.teacher_size)
        self.uncut, self.backbone, self.built = self.teacher, architecture.backbone, architecture.size
        if config.network != TEACHER:
            self.backbone, seed = config.network, derive(inputs.seed, "weights", config.network)
            self.built = self.size
            uncut = self.task.network(config.network, backbones.PRETRAINED, seed=seed, size=self.size)
            self.uncut = uncut.to(self.device)
        if self.needs_training:
            check_takes(self.uncut, self.size, self.backbone, OTHER_SIZE)
        self.room = _room(self.uncut, self.size, config, inputs.alignment)
        self.before, self.limits, graph = self.room.before, self.room.limits, self.room.graph
        self.timed: TimedTarget | None = None
        if config.importance is Importance.BN_SCALE and (lacking := without_batch_norm(graph)):
            progress.message(
                f"prune: {len(lacking)} of {len(graph.groups)} groups have no batch norm and are ranked by magnitude,"
                f" e.g. {lacking[0]}"
            )
        # what the times depend on is in the stage's own key
        self.key = sha256_json(key_of([config, dataclasses.replace(inputs, stopwatch=None)]))

    def to_the_end(self) -> PruneRecord:
        start = time.perf_counter()
        self.timed = self._timed() if self.config.timed else None
        sets = self._open(self.inputs.spec)
        floor = self._teacher_score() - self.config.max_drop
        seeing, steps, epochs = self._learn(sets)
        first, sparse, trained = self._sparse(seeing, sets)
        epochs = (*epochs, *trained)
        found = self._sensitivity(first, sets) if self.config.sensitivity else None
        one_shot = self._one_shot(first, sets) if self.config.steps > 1 else None
        model = first
        for number, budget in enumerate(self._budgets(), start=1):
            smaller, step, recovered = self._step(number, budget, model, sets)
            steps.append(dataclasses.replace(step, kept=step.score >= floor))
            epochs = (*epochs, *recovered)
            if step.score < floor:
                self.progress.warning(
                    f"Pruning stops at {self._left(model)}: the next cut recovers to"
                    f" {metric(self.metric).title} {step.score:.1%} on the validation split, below"
                    f" {floor:.1%} (prune.max_drop)."
                )
                model = seeing if number == 1 else model
                break
            model = smaller
            if self.timed and step.measured_ms:
                self.timed.now_ms = step.measured_ms
        two_four: TwoFourRecord | None = None
        if self.config.sparsity_2_4:
            model, two_four, recovered = self._two_four(model, sets)
            epochs = (*epochs, *recovered)
        after = network_size(model, self.size)
        checkpoint.save(model, self._describe(model), self.out / CHECKPOINT)
        record = PruneRecord(
            checkpoint=f"{self.out.name}/{CHECKPOINT}",
            metric=self.metric,
            before=self.before,
            after=after,
            steps=tuple(steps),
            epochs=epochs,
            seconds=max(time.perf_counter() - start, sum(e.seconds for e in epochs)),
            latency=self.timed.explain(model) if self.timed else None,
            one_shot=one_shot,
            sparse=sparse,
            sensitivity=found,
            two_four=two_four,
            network="" if self.config.network == TEACHER else self.backbone,
        )
        for path in [
            *self.out.glob("step-*.safetensors"),
            *self.out.glob("step-*.state"),
            self.out / _SENSITIVITY,
            self._calibration,
        ]:
            path.unlink(missing_ok=True)
        return record

    @property
    def shrunk(self) -> bool:
        """Whether the student sees images at another size than the teacher."""
        return self.teacher_size != self.size

    @property
    def needs_training(self) -> bool:
        """Whether the network must learn from the teacher before it is cut."""
        return self.shrunk or self.config.network != TEACHER

    def _open(self, spec: PreprocessSpec) -> Sets:
        """The splits; training's views are as large as the larger of teacher and student needs."""
        view = max(self.size, self.teacher_size)
        return open_sets(self.inputs.index, spec, self.inputs.pixels_dir, self.progress, view_size=view)

    def _open_unlabelled(self) -> Unlabelled | None:
        if self.inputs.unlabelled is None:
            return None
        return open_unlabelled(
            self.inputs.unlabelled,
            self.inputs.spec,
            self.inputs.pixels_dir,
            self.progress,
            share=BESIDE,
            view_size=max(self.size, self.teacher_size),
        )

    def _teacher_score(self) -> float:
        """The teacher's accuracy on the validation split, at its own size."""
        sets = self._open(dataclasses.replace(self.inputs.spec, size=self.teacher_size))
        return value(score(self.task, self.teacher, sets.val), self.metric)

    def _budgets(self) -> tuple[Cost, ...]:
        """What may remain after each step."""
        return self.room.budgets(self.config, self.timed.goals() if self.timed else ())

    @property
    def _calibration(self) -> Path:
        return self.out / "latency.json"

    def _timed(self) -> TimedTarget:
        if self.inputs.stopwatch is None:
            raise ConfigError("A target of the clock needs a stopwatch: set PruneInputs.stopwatch.")
        return TimedTarget(
            self.uncut,
            self.size,
            config=self.config,
            limits=self.limits,
            stopwatch=self.inputs.stopwatch,
            kept=self._calibration,
            key=self.key,
            seed=self.inputs.seed,
            progress=self.progress,
        )

    def _left(self, model: nn.Module) -> str:
        """What is left of the network, in the target's own terms."""
        if self.timed:
            return f"{self.timed.now_ms:.2f} ms"
        share = network_size(model, self.size).macs / self.before.macs
        return f"{share:.1%} of the multiply-accumulates"

    def _step(self, number: int, budget: Cost | None, model: nn.Module, sets: Sets) -> Kept:
        """One cut (none without a budget) and its recovery, or what is saved of them."""
        path = self.out / f"step-{number}.safetensors"
        if (kept := self._load(path)) is not None:
            return kept
        model, step, _ = self._cut(number, budget, model, sets, self.out / f"step-{number}-cut.safetensors")
        epochs_wanted = self.config.recovery_epochs if budget else self.config.start_epochs
        epochs = fit(
            model,
            self._fitting(f"recover-{number}" if budget else "start", epochs_wanted),
            task=self.task,
            train=sets.train,
            val=sets.val,
            objective=self._objective(),
            state=self.out / f"step-{number}.state",
            progress=self.progress,
            unlabelled=self.unlabelled,
            start=step.cut,
        )
        if epochs:
            step = dataclasses.replace(step, score=reached(epochs, self.metric, best=False))
        kept = self._save(model, path, step, epochs)
        self.progress.message(
            f"prune {number}/{self.config.steps}: {step.macs / self.before.macs:.1%} of the multiply-accumulates,"
            f" {step.parameters / self.before.parameters:.1%} of the parameters"
            f"{f', {step.measured_ms:.2f} ms' if step.measured_ms else ''}"
            f"{f', without {_listed(step.blocks)}' if step.blocks else ''}; validation"
            f" {metric(self.metric).title} {step.cut:.1%} after the cut, {step.score:.1%} after recovery"
        )
        return kept

    def _fitting(self, phase: str, epochs: int) -> Fitting:
        return Fitting(
            phase=phase,
            epochs=epochs,
            batch_size=self.how.batch_size,
            lr=self.config.lr,
            weight_decay=self.how.weight_decay,
            augment=self.how.augment,
            seed=self.inputs.seed,
            class_balance=self.how.class_balance,
            precision=self.how.precision,
        )

    def _objective(self) -> Distillation:
        """The teacher's soft targets, at its own size, and the labels."""
        return self.how.objective(self.guide, self.task, student_size=self.size)

    def _learn(self, sets: Sets) -> tuple[nn.Module, list[PruneStep], tuple[EpochRecord, ...]]:
        """What the first cut finds: the teacher; or, as step 0, a copy of it that has learned to see at the student's
        size, or the other backbone, taught by it."""
        if not self.needs_training:
            return self.teacher, [], ()
        model, step, epochs = self._step(0, None, self.uncut, sets)
        return model, [step], epochs

    def _sparse(
        self, seeing: nn.Module, sets: Sets
    ) -> tuple[nn.Module, SparseTraining | None, tuple[EpochRecord, ...]]:
        """The network that the first cut finds: the uncut one, or a copy trained towards sparse channels."""
        if self.config.sparse_epochs == 0:
            return seeing, None, ()
        groups = coupled(trace(copy.deepcopy(seeing), self.size, keep=self.config.keep))
        path = self.out / "step-sparse.safetensors"
        kept = self._load(path)
        if kept is None:
            model = copy.deepcopy(seeing).requires_grad_(True)
            epochs = fit(
                model,
                self._fitting("sparse", self.config.sparse_epochs),
                task=self.task,
                train=sets.train,
                val=sets.val,
                objective=GroupLasso(
                    objective=self._objective(), groups=groups, strength=self.config.sparse_strength
                ),
                state=self.out / "step-sparse.state",
                progress=self.progress,
                unlabelled=self.unlabelled,
                start=NO_START,  # sparse channels may cost accuracy
            )
            found_score, size = value(epochs[-1].val, self.metric), self.before
            step = PruneStep(
                step=0, macs=size.macs, parameters=size.parameters, cut=found_score, score=found_score
            )
            kept = self._save(model, path, step, epochs)
        model, step, epochs = kept
        record = SparseTraining(
            score=step.score,
            near_zero_before=near_zero(seeing, groups),
            near_zero=near_zero(model, groups),
        )
        self.progress.message(
            f"prune sparse: {record.near_zero_before:.1%} of the channels near zero before,"
            f" {record.near_zero:.1%} after; validation {metric(self.metric).title} {record.score:.1%}"
        )
        return model, record, epochs

    def _sensitivity(self, model: nn.Module, sets: Sets) -> PruneSensitivity:
        """What cutting each group by itself costs the network that the first cut finds."""
        graph = trace(copy.deepcopy(model), self.size, keep=self.config.keep)
        views = list(self._views(0, sets.train))

        def scored(network: nn.Module) -> float:
            recalibrate(network, views)
            return value(score(self.task, network, sets.val), self.metric)

        return sensitivity(
            graph,
            self._scorer(0, sets.train)(graph),
            self.limits,
            scored,
            key=self.key,
            kept=self.out / _SENSITIVITY,
            progress=self.progress,
        )

    def _one_shot(self, model: nn.Module, sets: Sets) -> PruneStep:
        """What one cut to the last step's budget leaves, without recovery."""
        path = self.out / "step-one-shot.safetensors"
        return self._cut(0, self._budgets()[-1], model, sets, path)[1]

    def _two_four(
        self, model: nn.Module, sets: Sets
    ) -> tuple[nn.Module, TwoFourRecord, tuple[EpochRecord, ...]]:
        """The pruned network with 2:4 sparsity, recovered with its zeros held."""
        path = self.out / "step-two-four.safetensors"
        sparse = copy.deepcopy(model).requires_grad_(True)
        found = apply_(sparse, self.task.output_layers(sparse))
        kept = self._load(path)
        if kept is None:
            recalibrate(sparse, list(self._views(0, sets.train)))
            found_score = value(score(self.task, sparse, sets.val), self.metric)
            with held(sparse):
                epochs = fit(
                    sparse,
                    self._fitting("recover-2-4", self.config.recovery_epochs),
                    task=self.task,
                    train=sets.train,
                    val=sets.val,
                    objective=self._objective(),
                    state=self.out / "step-two-four.state",
                    progress=self.progress,
                    unlabelled=self.unlabelled,
                    start=found_score,
                )
            size, recovered = (
                network_size(sparse, self.size),
                reached(epochs, self.metric, best=False) if epochs else found_score,
            )
            step = PruneStep(
                step=0, macs=size.macs, parameters=size.parameters, cut=found_score, score=recovered
            )
            kept = self._save(sparse, path, step, epochs)
        model, step, epochs = kept
        weights = [model.get_submodule(name).weight for name in found.layers]
        zeros = sum(int((w == 0).sum()) for w in weights if isinstance(w, Tensor))
        record = TwoFourRecord(
            layers=found.layers,
            left_out=found.left_out,
            zeros=zeros / step.parameters,
            cut=step.cut,
            score=step.score,
        )
        self.progress.message(
            f"prune 2:4: {len(record.layers)} layers, {record.zeros:.1%} of the parameters are zero; validation"
            f" {metric(self.metric).title} {record.cut:.1%} after it, {record.score:.1%} after recovery"
        )
        return model, record, epochs

    def _cut(self, number: int, budget: Cost | None, model: nn.Module, sets: Sets, path: Path) -> Kept:
        """The cut network (uncut without a budget), its batch norms measured anew, before recovery; saved in `path`.

        Where the budget holds already, nothing is cut and nothing is measured anew: the network stays what it is.
        `number` is the step's: each sees other images. 0 cuts as far as the last step.
        """
        if (kept := self._load(path)) is not None:
            return kept
        ranking, took = self._scorer(number, sets.train), None
        if budget is None:
            result = copy.deepcopy(model)
        elif self.timed:
            took = self.timed.cut(model, ranking, budget)
            result = took.model
        else:
            limits = self.room.limits_at(number or self.config.steps, self.config)
            result = cut(model, self.size, ranking, budget, limits, keep=self.config.keep).model
        size = network_size(result, self.size)
        if budget is None or size != network_size(model, self.size):
            recalibrate(result, list(self._views(number, sets.train)))
        found_score = value(score(self.task, result, sets.val), self.metric)
        step = PruneStep(
            step=number,
            macs=size.macs,
            parameters=size.parameters,
            cut=found_score,
            score=found_score,
            predicted_ms=took.predicted_ms if took else None,
            measured_ms=took.measured_ms if took else None,
            blocks=tuple(name for name in removed(result) if name not in removed(model)),
        )
        return self._save(result, path, step, ())

    def _scorer(self, number: int, train: PixelSet) -> Scorer:
        return scorer(
            self.config.importance,
            images=functools.partial(self._views, number, train),
            teacher=self.guide,
            task=self.task,
            temperature=self.how.temperature,
            seed=derive(self.inputs.seed, "importance", number),
        )

    def _views(self, number: int, train: PixelSet) -> Iterator[Tensor]:
        """Batches (n, 3, S, S) of training images as the student's evaluation sees them; others at each step.

        Of images of another domain, where there are some, each batch holds the share `BESIDE`.
        """
        generator = numpy_generator(self.inputs.seed, "importance images", number)
        count, further = self.config.importance_images, np.zeros((0, *train.pixels.shape[1:]), np.uint8)
        if self.unlabelled is not None:
            beside = round(count * BESIDE)
            drawn = generator.permutation(len(self.unlabelled.pixels))[:beside]
            count, further = count - len(drawn), self.unlabelled.pixels[np.sort(drawn)]
        rows = generator.permutation(len(train))[:count]
        if not self.mixed:
            rows = np.sort(rows)
        batches = max(1, math.ceil((len(rows) + len(further)) / batch_at(train.spec.size)))
        for at, batch in enumerate(np.array_split(rows, batches)):
            pixels = np.concatenate([train.pixels[batch], further[at::batches]])
            images = training_view(
                torch.from_numpy(pixels),
                Augment.NONE,
                train.spec.size,
                generator=torch.Generator(),
                view_fraction=train.view_fraction,
            )
            yield at_size(normalise_(images, train.spec.mean, train.spec.std), self.size)

    def _describe(self, model: nn.Module) -> Architecture:
        return describe(model, self.backbone, self.task.width, self.built)

    def _save(self, model: nn.Module, path: Path, step: PruneStep, epochs: tuple[EpochRecord, ...]) -> Kept:
        """Keep a network, and return it as read back: a resumed run starts from the same memory layout."""
        extra = {_KEY: self.key, _STEP: json.dumps(to_json(step)), _EPOCHS: json.dumps(to_json(epochs))}
        checkpoint.save(model, self._describe(model), path, extra)
        kept = self._load(path)
        if kept is None:
            raise WeightsError(f"{path} was altered while pruning ran. Start it again.")
        return kept

    def _load(self, path: Path) -> Kept | None:
        """What `_save` wrote, where it is there and was made for the same run."""
        try:
            metadata = checkpoint.read_metadata(path)
            if metadata.get(_KEY) != self.key:
                return None
            model, _ = checkpoint.load(path)
        except WeightsError:
            return None
        step = from_json(PruneStep, json.loads(metadata[_STEP]))
        epochs = tuple(from_json(EpochRecord, value) for value in json.loads(metadata[_EPOCHS]))
        return model.to(self.device), step, epochs


def _listed(blocks: Sequence[str]) -> str:
    return f"block{'s' if len(blocks) > 1 else ''} {', '.join(blocks)}"


def _check_groups(graph: ChannelGraph, config: PruneConfig) -> None:
    """Make sure that `keep` leaves something to cut.

    Raises:
        ModelError: nothing is left.
    """
    if graph.groups:
        return
    raise ModelError(
        f"prune.keep leaves nothing to cut: every group of channels of {type(graph.model).__name__} has a layer under"
        f" {', '.join(config.keep)}. Name fewer layers, or set prune.enabled = false."
    )
