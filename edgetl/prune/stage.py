"""Prune the teacher in steps: rank, cut, measure batch norms anew, recover by distillation from the teacher."""

from __future__ import annotations

import copy
import dataclasses
import functools
import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from edgetl.config import Augment, Precision, PruneConfig
from edgetl.data.index import DataIndex
from edgetl.distill.losses import soft_targets
from edgetl.distill.teacher import load_for
from edgetl.errors import WeightsError
from edgetl.files import sha256_file, sha256_json
from edgetl.models import checkpoint
from edgetl.models.architecture import Architecture, describe
from edgetl.models.size import network_size
from edgetl.preprocess import PreprocessSpec
from edgetl.progress import SILENT, Progress
from edgetl.prune.apply import cut, recalibrate
from edgetl.prune.graph import trace
from edgetl.prune.importance import Scorer, scorer
from edgetl.prune.plan import Cost, Limits, check_reachable, cost_of
from edgetl.prune.schedule import shares
from edgetl.prune.two_four import apply_, held
from edgetl.records import EpochRecord, PruneRecord, PruneStep, TwoFourRecord, from_json, to_json
from edgetl.train.augment import normalise_, training_view
from edgetl.train.evaluate import score
from edgetl.train.loop import Fitting, fit
from edgetl.train.seeds import derive, numpy_generator
from edgetl.train.sets import PixelSet, Sets, open_sets

CHECKPOINT = "pruned.safetensors"
_KEY, _STEP, _EPOCHS = "edgetl.prune.key", "edgetl.prune.step", "edgetl.prune.epochs"
_BATCH = 32

Kept = tuple[nn.Module, PruneStep, tuple[EpochRecord, ...]]
"""A network on the way, what is recorded of its step, and the epochs of its recovery."""


@dataclass(frozen=True, kw_only=True)
class PruneInputs:
    """What the stage reads.

    Attributes:
        teacher: its checkpoint; it is pruned, and it teaches.
        index: the images and their splits.
        spec: evaluation's preprocessing.
        pixels_dir: folder of decoded pixels, shared by the stages.
        seed: of everything random.
        batch_size: images a step of recovery.
        weight_decay: as in training.
        precision: arithmetic.
        temperature: of the soft targets.
        soft_weight: share of the soft targets in the loss.
        augment: the training view.
        class_balance: draw every class equally often.
    """

    teacher: Path
    index: DataIndex
    spec: PreprocessSpec
    pixels_dir: Path
    seed: int
    batch_size: int
    weight_decay: float
    precision: Precision
    temperature: float
    soft_weight: float
    augment: Augment
    class_balance: bool = False


def run(config: PruneConfig, inputs: PruneInputs, *, out: Path, progress: Progress = SILENT) -> PruneRecord:
    """Prune the teacher and write `out/pruned.safetensors`.

    Every finished cut and step is kept in `out`, so that a run that was stopped goes on there, and ends with the
    same weights (on the CPU, bit by bit).

    Raises:
        WeightsError: the teacher is missing, broken, or of other classes than the data.
        ModelError: the network cannot be traced or cut, the target is out of reach (says what is reachable), or
            `keep` names a layer that it does not have.
        ImageError: an image cannot be decoded.
        TrainingError: training cannot go on.
        Interrupted: Ctrl-C.
        StorageError: a file cannot be written.
    """
    return _Run(config, inputs, out, progress).to_the_end()


class _Run:
    """One call of `run`."""

    def __init__(self, config: PruneConfig, inputs: PruneInputs, out: Path, progress: Progress) -> None:
        self.config, self.inputs, self.out, self.progress = config, inputs, out, progress
        teacher, self.architecture = load_for(inputs.index.labels, inputs.teacher, "teacher")
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.teacher = teacher.to(self.device)
        self.size = inputs.spec.size
        self.before = network_size(teacher, self.size)
        graph = trace(teacher, self.size, keep=config.keep)
        # attention's own products are in the network's count, but no cut changes them
        self.fixed_macs = self.before.macs - cost_of(graph).macs
        self.limits = Limits(
            round_to=config.round_to,
            max_cut=config.max_cut,
            widths={group.name: group.channels for group in graph.groups},
        )
        check_reachable(graph, self._budgets()[-1], self.limits)
        self.key = sha256_json(
            [
                config.model_dump(mode="json"),
                sha256_file(inputs.teacher),
                inputs.index.sha256,
                inputs.spec,
                [inputs.seed, inputs.batch_size, inputs.weight_decay, inputs.precision],
                [inputs.temperature, inputs.soft_weight, inputs.augment, inputs.class_balance],
            ]
        )

    def to_the_end(self) -> PruneRecord:
        start = time.perf_counter()
        sets = open_sets(self.inputs.index, self.inputs.spec, self.inputs.pixels_dir, self.progress)
        model, steps, epochs = self.teacher, list[PruneStep](), tuple[EpochRecord, ...]()
        floor = score(self.teacher, sets.val, self.inputs.index.labels).top1 - self.config.max_drop
        for number, budget in enumerate(self._budgets(), start=1):
            smaller, step, recovered = self._step(number, budget, model, sets)
            steps.append(dataclasses.replace(step, kept=step.top1 >= floor))
            epochs = (*epochs, *recovered)
            if step.top1 < floor:
                self.progress.warning(
                    f"Pruning stops at {network_size(model, self.size).macs / self.before.macs:.1%} of the"
                    f" multiply-accumulates: the next cut recovers to top-1 {step.top1:.1%} on the validation split,"
                    f" below {floor:.1%} (prune.max_drop)."
                )
                break
            model = smaller
        two_four: TwoFourRecord | None = None
        if self.config.sparsity_2_4:
            model, two_four, recovered = self._two_four(model, sets)
            epochs = (*epochs, *recovered)
        after = network_size(model, self.size)
        checkpoint.save(model, self._describe(model), self.out / CHECKPOINT)
        record = PruneRecord(
            checkpoint=f"{self.out.name}/{CHECKPOINT}",
            before=self.before,
            after=after,
            steps=tuple(steps),
            epochs=epochs,
            seconds=max(time.perf_counter() - start, sum(e.seconds for e in epochs)),
            two_four=two_four,
        )
        for path in [*self.out.glob("step-*.safetensors"), *self.out.glob("step-*.state")]:
            path.unlink(missing_ok=True)
        return record

    def _budgets(self) -> tuple[Cost, ...]:
        """What may remain after each step."""
        config, before = self.config, self.before
        macs = [share * before.macs - self.fixed_macs for share in shares(config.target_macs, config.steps)]
        if config.target_parameters is None:
            parameters = [math.inf] * config.steps
        else:
            parameters = [
                share * before.parameters for share in shares(config.target_parameters, config.steps)
            ]
        return tuple(Cost(macs=m, parameters=p) for m, p in zip(macs, parameters, strict=True))

    def _step(self, number: int, budget: Cost, model: nn.Module, sets: Sets) -> Kept:
        """One cut and its recovery, or what is kept of them."""
        path = self.out / f"step-{number}.safetensors"
        if (kept := self._load(path)) is not None:
            return kept
        model, step, _ = self._cut(number, budget, model, sets)
        epochs = fit(
            model,
            self._fitting(f"recover-{number}", self.config.recovery_epochs),
            train=sets.train,
            val=sets.val,
            loss=soft_targets(self.teacher, self.inputs.temperature, self.inputs.soft_weight),
            state=self.out / f"step-{number}.state",
            progress=self.progress,
        )
        if epochs:
            step = dataclasses.replace(step, top1=epochs[-1].val_top1)
        kept = self._save(model, path, step, epochs)
        self.progress.message(
            f"prune {number}/{self.config.steps}: {step.macs / self.before.macs:.1%} of the multiply-accumulates,"
            f" {step.parameters / self.before.parameters:.1%} of the parameters; validation top-1"
            f" {step.top1_cut:.1%} after the cut, {step.top1:.1%} after recovery"
        )
        return kept

    def _fitting(self, phase: str, epochs: int) -> Fitting:
        return Fitting(
            phase=phase,
            epochs=epochs,
            batch_size=self.inputs.batch_size,
            lr=self.config.lr,
            weight_decay=self.inputs.weight_decay,
            augment=self.inputs.augment,
            seed=self.inputs.seed,
            class_balance=self.inputs.class_balance,
            precision=self.inputs.precision,
        )

    def _two_four(
        self, model: nn.Module, sets: Sets
    ) -> tuple[nn.Module, TwoFourRecord, tuple[EpochRecord, ...]]:
        """The pruned network with 2:4 sparsity, recovered with its zeros held."""
        path = self.out / "step-two-four.safetensors"
        sparse = copy.deepcopy(model).requires_grad_(True)
        found = apply_(sparse)
        kept = self._load(path)
        if kept is None:
            recalibrate(sparse, list(self._views(0, sets.train)))
            top1 = score(sparse, sets.val, self.inputs.index.labels).top1
            with held(sparse):
                epochs = fit(
                    sparse,
                    self._fitting("recover-2-4", self.config.recovery_epochs),
                    train=sets.train,
                    val=sets.val,
                    loss=soft_targets(self.teacher, self.inputs.temperature, self.inputs.soft_weight),
                    state=self.out / "step-two-four.state",
                    progress=self.progress,
                )
            size, recovered = network_size(sparse, self.size), epochs[-1].val_top1 if epochs else top1
            step = PruneStep(
                step=0, macs=size.macs, parameters=size.parameters, top1_cut=top1, top1=recovered
            )
            kept = self._save(sparse, path, step, epochs)
        model, step, epochs = kept
        weights = [model.get_submodule(name).weight for name in found.layers]
        zeros = sum(int((w == 0).sum()) for w in weights if isinstance(w, Tensor))
        record = TwoFourRecord(
            layers=found.layers,
            left_out=found.left_out,
            zeros=zeros / step.parameters,
            top1_cut=step.top1_cut,
            top1=step.top1,
        )
        self.progress.message(
            f"prune 2:4: {len(record.layers)} layers, {record.zeros:.1%} of the parameters are zero; validation top-1"
            f" {record.top1_cut:.1%} after it, {record.top1:.1%} after recovery"
        )
        return model, record, epochs

    def _cut(self, number: int, budget: Cost, model: nn.Module, sets: Sets) -> Kept:
        """The cut network of step `number` with its batch norms measured anew, before recovery."""
        path = self.out / f"step-{number}-cut.safetensors"
        if (kept := self._load(path)) is not None:
            return kept
        result = cut(
            model, self.size, self._scorer(number, sets.train), budget, self.limits, keep=self.config.keep
        ).model
        recalibrate(result, list(self._views(number, sets.train)))
        size = network_size(result, self.size)
        top1 = score(result, sets.val, self.inputs.index.labels).top1
        step = PruneStep(step=number, macs=size.macs, parameters=size.parameters, top1_cut=top1, top1=top1)
        return self._save(result, path, step, ())

    def _scorer(self, number: int, train: PixelSet) -> Scorer:
        return scorer(
            self.config.importance,
            images=functools.partial(self._views, number, train),
            teacher=self.teacher,
            temperature=self.inputs.temperature,
            seed=derive(self.inputs.seed, "importance", number),
        )

    def _views(self, number: int, train: PixelSet) -> Iterator[Tensor]:
        """Batches (n, 3, S, S) of training images as evaluation sees them; other images at each step."""
        generator = numpy_generator(self.inputs.seed, "importance images", number)
        rows = np.sort(generator.permutation(len(train))[: self.config.importance_images])
        for batch in np.array_split(rows, max(1, math.ceil(len(rows) / _BATCH))):
            pixels = torch.from_numpy(np.ascontiguousarray(train.pixels[batch]))
            images = training_view(
                pixels,
                Augment.NONE,
                train.spec.size,
                generator=torch.Generator(),
                view_fraction=train.view_fraction,
            )
            yield normalise_(images, train.spec.mean, train.spec.std)

    def _describe(self, model: nn.Module) -> Architecture:
        return describe(model, self.architecture.backbone, self.architecture.num_classes)

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
