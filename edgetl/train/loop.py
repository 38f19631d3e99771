"""The training loop that train, prune and distill share.

Every random number is a function of (seed, phase, epoch, batch), so a fit that is stopped at any point and
started again ends, on the CPU in float32, with the very weights of one that ran through.
"""

from __future__ import annotations

import dataclasses
import math
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, assert_never

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from edgetl.config import FEW_STEPS, Augment, Optimizer, TrainPrecision
from edgetl.errors import Interrupted, TrainingError
from edgetl.files import sha256_bytes
from edgetl.models.memory import channels_last
from edgetl.models.weights import versioned
from edgetl.process import release
from edgetl.progress import SILENT, Progress, ProgressTask, TakesEpochs
from edgetl.records.scores import Evaluation, value
from edgetl.records.train import EpochRecord
from edgetl.tasks.metrics import metric
from edgetl.train import devices
from edgetl.train import state as states
from edgetl.train.blocks import layer_scales
from edgetl.train.cores import own_cores
from edgetl.train.episodes import Episodic, Outer
from edgetl.train.evaluate import predict_outputs
from edgetl.train.freezing import Trainable, freeze, train_mode
from edgetl.train.loader import Loader
from edgetl.train.objective import Batch, Need, Objective
from edgetl.train.optimise import MovingAverage, copy_state, optimiser_of, schedule, set_rate
from edgetl.train.processes import SINGLE, launched
from edgetl.train.seeds import derive
from edgetl.train.sets import FeatureSet, PixelSet, Unlabelled, part_of
from edgetl.train.tasks.base import FitTask
from edgetl.train.tasks.mixing import Mixing
from edgetl.train.trackers import Listener

_BATCH_NORM = nn.modules.batchnorm._BatchNorm

NO_START = -math.inf
"""A `start` that says that a fit shall not go back to the network that it began with."""

_RELEASE_EVERY = 200
"""Steps between which the heap may grow: giving it back takes a few tenths of a second."""

_METRICS_SHOWN = 2
"""Metrics in an epoch's line."""

TrainingSet = PixelSet | FeatureSet
"""Images, or the features that a frozen backbone made of them; then the model is the head that takes those."""


@dataclass(frozen=True, kw_only=True)
class Fitting:
    """One phase of training.

    Attributes:
        phase: its name in records and in seeds, e.g. `head`, `full`, `recover-1`.
        epochs: passes; 0 does nothing.
        batch_size: images per step, over all processes together.
        lr: peak learning rate.
        weight_decay: of matrices and filters; norms and biases are left out.
        augment: the training view.
        seed: of everything random.
        ema: decay of the weights' moving average; 0 turns it off. Where on, it is what is scored and saved.
        class_balance: draw every class equally often.
        precision: arithmetic.
        optimizer: how weights follow their gradients.
        trainable: which parameters learn; all where None. A part with none of them is frozen: it stays in
            evaluation mode, so that its batch norms keep their statistics.
        layer_decay: a block learns at so much of the rate of the block after it; 1 turns it off.
        warmup_share: share of the steps in which the rate rises.
        clip_norm: largest L2 norm of the gradient.
        mixing: blends images and labels, where set. Cached features are not mixed.
        accumulate: a step's images are run in so many parts, for less memory. The gradient is the same; batch norm
            sees the parts.
        compiled: run the network through `torch.compile`.
        spread: share each batch among the launched processes; every one of them must call `fit`. Off, the calling
            process trains by itself.
        patience: the fit ends after so many epochs without a better validation score (by `select`, else the task's
            first metric); 0 lets it run through.
        select: keep the epoch that is best on the validation split by this metric of the task, a later one among
            equals; the last epoch where None.
        episodic: steps are problems of a few classes, where set.
    """

    phase: str
    epochs: int
    batch_size: int
    lr: float
    weight_decay: float
    augment: Augment
    seed: int
    ema: float = 0.0
    class_balance: bool = False
    precision: TrainPrecision = TrainPrecision.AUTO
    optimizer: Optimizer = Optimizer.ADAMW
    trainable: Trainable | None = None
    layer_decay: float = 1.0
    warmup_share: float = 0.1
    clip_norm: float = 5.0
    mixing: Mixing | None = None
    accumulate: int = 1
    compiled: bool = False
    spread: bool = False
    patience: int = 0
    select: str | None = None
    episodic: Episodic | None = None


def fit(
    model: nn.Module,
    fitting: Fitting,
    *,
    task: FitTask,
    train: TrainingSet,
    val: TrainingSet,
    objective: Objective,
    state: Path | None,
    progress: Progress = SILENT,
    listen: Listener | None = None,
    unlabelled: Unlabelled | None = None,
    start: float | None = None,
) -> tuple[EpochRecord, ...]:
    """Train `model` in place. It ends in evaluation mode, on the device that it came from.

    It never ends below the network that it began with: where the epoch that would be chosen scores less than that on
    the validation split, by `select` (the task's first metric where None), the weights are put back, and the last
    epoch's record says so.

    Args:
        model: images (N, 3, S, S) float32 -> the task's outputs (N, D).
        fitting: how.
        task: what is learned.
        train: learned from; may have a margin.
        val: scored after each epoch; without margin.
        objective: asked for the loss of each batch, on the training device (a GPU where there is one). Its modules
            learn with the model, at the same rates, and are not part of it.
        state: file in which the state is saved after an epoch, the first and the last always, others where training
            would wait for it for at most a twentieth of its time. Where it exists and was made by the same fit,
            training goes on after the last saved epoch; a finished fit returns at once. The caller deletes it.
        progress: gets a bar of all steps and a line an epoch.
        listen: called with each epoch's record.
        unlabelled: images that join each step's labelled ones, for an objective that does not need labels. Not with
            `mixing`, `accumulate` and `spread`.
        start: the given network's validation score, where it is known; else it is scored first. `NO_START` where it
            is not to be gone back to.

    Returns:
        One record per epoch, resumed ones included.

    Raises:
        TrainingError: too few images, batches that do not give what the objective needs, or a loss that is not finite.
        Interrupted: Ctrl-C; the state of the last finished epoch is saved.
        StorageError: the state cannot be written; that of the epoch before stays.
    """
    if fitting.epochs == 0:
        return ()
    accelerator, home = devices.accelerator(fitting.precision), devices.device_of(model)
    _check(model, fitting, train, val, launched().count if fitting.spread else 1)
    _check_needs(objective, fitting, train, unlabelled)
    required = [p.requires_grad for p in model.parameters()]
    cuda = [torch.cuda.current_device()] if accelerator.device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda), own_cores(accelerator.device):
        try:
            run = _Run(
                model,
                fitting,
                task,
                train,
                val,
                objective,
                state,
                progress,
                accelerator,
                listen,
                unlabelled,
                start,
            )
            with devices.fast_on_cpu(model):
                return run.to_the_end()
        finally:
            for parameter, flag in zip(model.parameters(), required, strict=True):
                parameter.requires_grad_(flag)
                parameter.grad = None
            model.to(home).eval()


class _Run:
    """One call of `fit`."""

    def __init__(
        self,
        model: nn.Module,
        fitting: Fitting,
        task: FitTask,
        train: TrainingSet,
        val: TrainingSet,
        objective: Objective,
        state: Path | None,
        progress: Progress,
        accelerator: Any,
        listen: Listener | None,
        unlabelled: Unlabelled | None,
        start: float | None,
    ) -> None:
        assert unlabelled is None or fitting.accumulate == 1
        self.model, self.fitting, self.task, self.val, self.objective = model, fitting, task, val, objective
        self.path, self.progress, self.accelerator = state, progress, accelerator
        self.listen, self.metric = listen, fitting.select or task.metrics[0].name
        auxiliary = objective.modules
        self.auxiliary = nn.Module() if auxiliary is None else auxiliary
        self.learning = freeze(model, fitting.trainable)
        self.key = _key(model, fitting, train)
        if auxiliary is not None:
            self.key["auxiliary"] = states.fingerprint(auxiliary)
        if unlabelled is not None:
            guessed = unlabelled.guessed
            self.key["unlabelled images"] = f"{unlabelled.share} {unlabelled.sha256}"
            if guessed is not None:
                self.key["guessed labels"] = sha256_bytes(np.ascontiguousarray(guessed).tobytes())
        self.auxiliary.to(accelerator.device).train()
        aside = list(self.auxiliary.parameters())
        self.learning += aside
        channels_last(model.to(accelerator.device))
        self.group = launched() if fitting.spread else SINGLE
        self.stepped = self._stepped()
        scales = None
        if fitting.layer_decay != 1.0:
            scales = {**layer_scales(model, task, fitting.layer_decay), **{id(p): 1.0 for p in aside}}
        made = optimiser_of(
            fitting.optimizer,
            self.learning,
            lr=fitting.lr,
            weight_decay=fitting.weight_decay,
            scales=scales,
        )
        self.optimiser = accelerator.prepare_optimizer(made)
        self.average = MovingAverage(model, fitting.ema) if fitting.ema else None
        self.loader = Loader(
            task,
            train,
            batch_size=fitting.batch_size,
            augment=fitting.augment,
            class_balance=fitting.class_balance,
            seed=fitting.seed,
            phase=fitting.phase,
            device=accelerator.device,
            mixing=fitting.mixing,
            group=self.group,
            unlabelled=unlabelled,
            episodic=fitting.episodic,
        )
        self.steps = fitting.epochs * len(self.loader)
        self.history: tuple[EpochRecord, ...] = ()
        self.best: dict[str, torch.Tensor] = {}
        self.images, self.notes = len(train), tuple[str, ...]()
        self.kept, self.kept_at, self.kept_for = 0, -math.inf, 0.0
        self.start = start
        self.first = {} if start == NO_START else copy_state(model)

    def to_the_end(self) -> tuple[EpochRecord, ...]:
        self._resume()
        if self._done():
            return self.history
        left = self.fitting.epochs - len(self.history)
        try:
            if self.start is None:
                self.start = self._start_score()
            self.notes = self._few_steps()
            with self.progress.task(f"{self.fitting.phase}", left * len(self.loader)) as task:
                while not self._done():
                    self._epoch(len(self.history), task)
        except KeyboardInterrupt:
            raise Interrupted(self._interrupted()) from None
        return self.history

    def _stepped(self) -> nn.Module:
        """The network as a step runs it: gradients averaged over the processes, compiled where asked for."""
        stepped = self.model
        if self.group.count > 1:
            device = self.accelerator.device
            stepped = DistributedDataParallel(stepped, device_ids=[device] if device.type == "cuda" else None)
        return torch.compile(stepped) if self.fitting.compiled else stepped  # type: ignore[return-value]

    def _done(self) -> bool:
        done, patience = len(self.history), self.fitting.patience
        return done == self.fitting.epochs or bool(patience and idle(self.history, self.metric) >= patience)

    def _epoch(self, epoch: int, task: ProgressTask) -> None:
        start = time.perf_counter()
        train_loss, rate, images = self._learn(epoch, task)
        learned = time.perf_counter() - start
        scored = self.average.model if self.average else self.model
        for one in {self.model, scored}:
            self.group.same_buffers(one)
        outputs = self._outputs(scored)
        scores = self._evaluated(outputs)
        record = EpochRecord(
            phase=self.fitting.phase,
            epoch=epoch + 1,
            loss=train_loss,
            val_loss=self.task.val_loss(self.val.targets, outputs),
            val=scores.summary(),
            learning_rate=rate,
            seconds=time.perf_counter() - start,
            images_per_second=images / learned,
            loader_wait=self.loader.waited / learned,
        )
        self.history = (*self.history, record)
        if self.fitting.select is not None and best_epoch(self.history, self.fitting.select) == epoch:
            self.best = copy_state(scored)
        done = self._done()
        if done:
            record = self._ended(record)
            self.history = (*self.history[:-1], record)
            if record.kept_start:
                self.model.load_state_dict(versioned(self.model, self.first))
            elif self.best:
                self.model.load_state_dict(versioned(self.model, self.best))
            elif self.average:
                self.model.load_state_dict(self.average.model.state_dict())
        self._keep()
        if self.listen is not None:
            self.listen(record)
        if isinstance(self.progress, TakesEpochs):
            self.progress.epoch(record)
        said = ", ".join(
            f"{m.title} {value(record.val, m.name):.1%}" for m in self.task.metrics[:_METRICS_SHOWN]
        )
        self.progress.message(
            f"{record.phase} {record.epoch}/{self.fitting.epochs}: loss {record.loss:.3f}, validation {said},"
            f" {record.seconds:.1f} s"
        )
        if done and epoch + 1 < self.fitting.epochs:
            self.progress.message(
                f"{record.phase}: no better for {self.fitting.patience} epochs, so it ends here"
            )

    def _outputs(self, network: nn.Module) -> NDArray[np.float32]:
        """Of the validation split, each process its share of the images."""
        own = part_of(self.val, self.group.share(len(self.val)))
        gathered = self.group.gather(predict_outputs(network, own))
        return np.concatenate([part for part in gathered if len(part)])

    def _start_score(self) -> float:
        """The validation score of the network that the fit began with, whatever epoch it goes on from."""
        now = copy_state(self.model)
        self.model.load_state_dict(versioned(self.model, self.first))
        scores = self._evaluated(self._outputs(self.model))
        self.model.load_state_dict(versioned(self.model, now))
        return value(scores, self.metric)

    def _evaluated(self, outputs: NDArray[np.float32]) -> Evaluation:
        """Scores on the validation split, with the thresholds that are best there, as the network would ship."""
        targets = self.val.targets
        return self.task.settled(targets, outputs).evaluate(targets, outputs, resamples=0)

    def _few_steps(self) -> tuple[str, ...]:
        """What is to be said where batch norm's statistics cannot follow."""
        train_mode(self.model, self.fitting.trainable is not None)
        learning = any(isinstance(m, _BATCH_NORM) and m.training for m in self.model.modules())
        if not learning or len(self.loader) >= FEW_STEPS:
            return ()
        steps = "1 step" if len(self.loader) == 1 else f"{len(self.loader)} steps"
        note = (
            f"{self.images} training images in batches of {self.fitting.batch_size} are"
            f" {steps} per epoch: batch norm's statistics lag behind the weights, which may spoil"
            " the scores. Take a smaller batch, or more epochs."
        )
        self.progress.warning(note)
        return (note,)

    def _ended(self, last: EpochRecord) -> EpochRecord:
        """The last epoch's record with what is to be said of the phase."""
        last = dataclasses.replace(last, notes=self.notes)
        fitting, start = self.fitting, self.start
        if start is None or start == NO_START:
            return last
        if (score := _kept_score(self.history, self.metric, fitting.select is not None)) >= start:
            return dataclasses.replace(last, start=start)
        title = metric(self.metric).title
        note = (
            f"{fitting.phase}: training ended below the network that it began with (validation {title} {score:.1%}"
            f" against {start:.1%}), so that network is kept."
        )
        self.progress.warning(note)
        return dataclasses.replace(last, start=start, kept_start=True, notes=(*last.notes, note))

    def _learn(self, epoch: int, task: ProgressTask) -> tuple[float, float, int]:
        """One pass over the images; returns the mean loss, the last rate, the number of images."""
        total, images_seen, rate = 0.0, 0, 0.0
        train_mode(self.model, self.fitting.trainable is not None)
        sizes, group = self.loader.sizes(), self.group
        outer = Outer(self.learning, self.fitting.episodic) if self.fitting.episodic else None
        for number, batch in enumerate(self.loader.epoch(epoch)):
            step = epoch * len(self.loader) + number
            rate = self.fitting.lr * schedule(step, self.steps, self.fitting.warmup_share)
            set_rate(self.optimiser.param_groups, rate)
            # Dropout and the like draw from torch's global generator; each process needs draws of its own.
            own = () if group.main else (group.rank,)
            torch.manual_seed(derive(self.fitting.seed, self.fitting.phase, epoch, "step", number, *own))
            loss = self._gradients(batch, sizes[number], step, rate)
            self.accelerator.clip_grad_norm_(self.learning, self.fitting.clip_norm)
            self.optimiser.step()
            self.optimiser.zero_grad()
            if outer:
                outer.stepped(number, last=number == len(sizes) - 1)
            if self.average:
                self.average.update(self.model, step)
            total += loss * len(batch)
            images_seen += len(batch)
            task.advance(1, f"loss {loss:.3f}")
            if step % _RELEASE_EVERY == _RELEASE_EVERY - 1:
                release()
        release()
        sums = group.add(
            torch.tensor([total, images_seen], dtype=torch.float64, device=self.accelerator.device)
        )
        total, everyones = sums.tolist()
        return total / everyones, rate, int(everyones)

    def _gradients(self, batch: Batch, everyones: int, step: int, rate: float) -> float:
        """Add up the gradient of the mean loss over all processes' images; returns the mean over this one's."""
        parts, total = max(1, min(self.fitting.accumulate, len(batch) // 2)), 0.0
        for number, some in enumerate(batch.parts(parts), start=1):
            waits = self.group.count > 1 and number < parts
            with self.stepped.no_sync() if waits else nullcontext():  # type: ignore[operator]
                with self.accelerator.autocast():
                    value = self.objective.loss(self.stepped, some)
                loss = value.item()
                if not math.isfinite(loss):
                    raise TrainingError(self._diverged(loss, step, rate))
                # the processes' gradients are averaged, whatever their numbers of images
                self.accelerator.backward(value * (len(some) * self.group.count / everyones))
            total += loss * len(some)
        return total / len(batch)

    def _keep(self) -> None:
        if self.path is None or not self.group.main:
            return
        done, began = self._done(), time.perf_counter()
        if not done and began - self.kept_at < states.RARELY * self.kept_for:
            return
        scaler = self.accelerator.scaler
        states.save(
            states.FitState(
                key=self.key,
                history=self.history,
                model=copy_state(self.model),
                optimiser={} if done else self.optimiser.state_dict(),
                scaler=scaler.state_dict() if scaler is not None and not done else {},
                average=copy_state(self.average.model) if self.average and not done else {},
                best={} if done else self.best,
                auxiliary={} if done else copy_state(self.auxiliary),
            ),
            self.path,
        )
        self.kept, self.kept_at = len(self.history), time.perf_counter()
        self.kept_for = self.kept_at - began

    def _resume(self) -> None:
        saved = states.load(self.path) if self.path is not None else None
        if saved is None:
            return
        if changed := [k for k in {**self.key, **saved.key} if saved.key.get(k) != self.key.get(k)]:
            self.progress.warning(
                f"{self.path} was made by another fit ({', '.join(changed)} differ); training starts afresh."
            )
            return
        self.history, self.best, self.kept = saved.history, saved.best, len(saved.history)
        self.model.load_state_dict(versioned(self.model, saved.model))
        if saved.optimiser:
            self.optimiser.load_state_dict(saved.optimiser)
        if saved.auxiliary:
            self.auxiliary.load_state_dict(saved.auxiliary)
        if saved.scaler:
            self.accelerator.scaler.load_state_dict(saved.scaler)
        if self.average and saved.average:
            self.average.model.load_state_dict(versioned(self.average.model, saved.average))
        if isinstance(self.progress, TakesEpochs):
            for record in self.history:
                self.progress.epoch(record)
        if not self._done():
            self.progress.message(f"{self.fitting.phase}: goes on after epoch {len(self.history)}")

    def _interrupted(self) -> str:
        stopped = f"Stopped in epoch {len(self.history) + 1} of {self.fitting.phase}"
        if not self.kept:
            return f"{stopped}; nothing of it was saved. The same command starts it again."
        return f"{stopped}. Epoch {self.kept} is saved; the same command goes on from there."

    def _diverged(self, loss: float, step: int, rate: float) -> str:
        kept = f" Epoch {self.kept} is saved." if self.kept else ""
        return (
            f"The loss became {loss} at step {step + 1} of {self.steps} ({self.fitting.phase}), learning rate"
            f" {rate:.2e}.{kept} Try a lower learning rate."
        )


def best_epoch(history: tuple[EpochRecord, ...], metric: str) -> int:
    """Index of the best epoch on the validation split; of equals, the last."""
    return max(range(len(history)), key=lambda i: (value(history[i].val, metric), i))


def idle(history: tuple[EpochRecord, ...], metric: str) -> int:
    """Epochs since the validation score last rose; 0 for no epochs."""
    scores = [value(record.val, metric) for record in history]
    return len(scores) - 1 - scores.index(max(scores)) if scores else 0


def reached(history: tuple[EpochRecord, ...], metric: str, *, best: bool = True) -> float:
    """The validation score of the network that a fit of one epoch or more ended with.

    Args:
        history: of the fit.
        metric: the score's name.
        best: the epoch that is best by it was chosen, not the last one.
    """
    last = history[-1]
    kept = last.start if last.kept_start else None
    return _kept_score(history, metric, best) if kept is None else kept


def _kept_score(history: tuple[EpochRecord, ...], metric: str, best: bool) -> float:
    """The score of the epoch that a fit keeps if it does not go back to its start."""
    return value(history[best_epoch(history, metric) if best else -1].val, metric)


def _check(model: nn.Module, fitting: Fitting, train: TrainingSet, val: TrainingSet, processes: int) -> None:
    if len(train) == 0 or len(val) == 0:
        raise TrainingError(
            f"Phase {fitting.phase} has {len(train)} training and {len(val)} validation images; both need some."
        )
    if processes > 1 and min(len(train), fitting.batch_size) < 2 * processes:
        raise TrainingError(
            f"{processes} processes need at least {2 * processes} images per step; there are {len(train)} training"
            f" images and the batch size is {fitting.batch_size}."
        )
    batch_norm = any(isinstance(m, _BATCH_NORM) for m in model.modules())
    if batch_norm and fitting.trainable is None and min(len(train), fitting.batch_size) < 2:
        raise TrainingError(
            f"Batch norm needs at least 2 images per step; there are {len(train)} training images and the batch"
            f" size is {fitting.batch_size}."
        )


def _check_needs(
    objective: Objective, fitting: Fitting, train: TrainingSet, unlabelled: Unlabelled | None
) -> None:
    """Raises TrainingError where the batches would not give what the objective needs."""
    for need in sorted(objective.needs):
        match need:
            case Need.IMAGES:
                lacking = "the cached features have none" if isinstance(train, FeatureSet) else ""
            case Need.LABELS:
                lacking = "mixing blends them" if fitting.mixing is not None else ""
                lacking = lacking or ("unlabelled images lack them" if unlabelled is not None else "")
            case _:
                assert_never(need)
        if lacking:
            raise TrainingError(
                f"The loss of phase {fitting.phase} needs the {need} of each step, but {lacking}."
            )


def _key(model: nn.Module, fitting: Fitting, train: TrainingSet) -> dict[str, str]:
    """What makes two fits the same, as text."""
    settings = {
        f.name: str(getattr(fitting, f.name)) for f in dataclasses.fields(fitting) if f.name != "trainable"
    }
    learning = [n for n, p in model.named_parameters() if p.requires_grad]
    return {
        **settings,
        "learning parameters": sha256_bytes(" ".join(learning).encode()),
        "training images": train.identity,
        "initial weights": states.fingerprint(model),
    }
