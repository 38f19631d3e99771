from __future__ import annotations

import dataclasses
import functools
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgetl.config import Augment, Mix, TrainPrecision
from edgetl.errors import Interrupted, StorageError, TrainingError
from edgetl.progress import SilentProgress
from edgetl.records.scores import value
from edgetl.records.train import EpochRecord, notes_of
from edgetl.train import state as states
from edgetl.train.evaluate import score
from edgetl.train.loop import NO_START, best_epoch, fit, idle, reached
from edgetl.train.objective import Batch, Objective
from edgetl.train.optimise import copy_state
from edgetl.train.sets import Unlabelled
from edgetl.train.tasks.mixing import Mixing

from .tiny import TASK, Plain, entropy, epoch_record, fitting, head, network, pixel_set, same, unlabelled

TRAIN, VAL = pixel_set(33), pixel_set(12, 16, seed=1)
MISLABELLED = dataclasses.replace(TRAIN, targets=(TRAIN.targets + 1) % 3)
"""Whoever learns from these is wrong on every image of `VAL`."""
learn = functools.partial(fit, train=TRAIN, val=VAL, task=TASK, state=None)


@pytest.fixture(autouse=True)
def saved_after_each_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(states, "RARELY", 0)


class Notices(SilentProgress):
    def __init__(self) -> None:
        self.messages: list[str] = []
        self.warnings: list[str] = []

    def message(self, text: str) -> None:
        self.messages.append(text)

    def warning(self, text: str) -> None:
        self.warnings.append(text)


def failing_at(call: int, error: BaseException) -> Objective:
    """Cross-entropy that raises at its n-th call (counted from 1)."""
    calls = 0
    plain = entropy(0.1)

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == call:
            raise error
        return plain.loss(model, batch)

    return Plain(loss)


def timeless(records: tuple[EpochRecord, ...]) -> list[tuple[object, ...]]:
    return [
        (r.epoch, r.loss, r.val_loss, value(r.val, "top1"), value(r.val, "macro_f1"), r.learning_rate)
        for r in records
    ]


def test_a_fit_learns_and_reports_each_epoch() -> None:
    model, notices = network(), Notices()
    history = learn(model, fitting(epochs=8), objective=entropy(), progress=notices)
    assert [r.epoch for r in history] == list(range(1, 9))
    assert history[-1].loss < 0.7 * history[0].loss
    assert value(history[-1].val, "top1") == 1.0
    assert value(history[-1].val, "macro_f1") == 1.0
    assert all(r.seconds > 0 and r.images_per_second > 0 and 0 <= r.loader_wait <= 1 for r in history)
    assert notices.messages[-1].startswith("full 8/8: loss 0.")
    assert not model.training


@pytest.fixture(scope="module")
def taught() -> dict[str, Tensor]:
    """Weights of a network that is right on every validation image."""
    model = network()
    history = learn(model, fitting(epochs=8), objective=entropy())
    assert value(history[-1].val, "top1") == 1.0
    return copy_state(model)


@pytest.mark.parametrize("select", [None, "top1", "macro_f1", "balanced_accuracy"])
@pytest.mark.parametrize("ema", [0.0, 0.5])
def test_a_fit_that_ends_below_its_start_gives_the_start_back(
    taught: dict[str, Tensor], tmp_path: Path, select: str | None, ema: float
) -> None:
    how = fitting(phase="distill", epochs=2, lr=0.1, ema=ema, select=select)
    model, notices = network(1), Notices()
    model.load_state_dict(taught)
    history = learn(
        model, how, train=MISLABELLED, objective=entropy(), state=tmp_path / "s", progress=notices
    )
    assert [(r.start, r.kept_start) for r in history] == [(None, False), (1.0, True)]
    assert all(torch.equal(value, taught[name]) for name, value in model.state_dict().items())
    *_, note = history[-1].notes
    title = {None: "top-1", "top1": "top-1", "macro_f1": "macro-F1"}.get(select, "balanced accuracy")
    assert note.startswith(
        f"distill: training ended below the network that it began with (validation {title} "
    )
    assert note in notices.warnings
    assert reached(history, select or "top1", best=select is not None) == 1.0
    finished = network(1)
    finished.load_state_dict(taught)
    assert learn(finished, how, train=MISLABELLED, objective=entropy(), state=tmp_path / "s") == history
    assert same(finished, model)


def test_a_resumed_fit_goes_back_to_the_network_that_the_first_began_with(
    taught: dict[str, Tensor], tmp_path: Path
) -> None:
    how = fitting(phase="distill", epochs=2, lr=0.1, ema=0.0)
    for attempt in (failing_at(6, RuntimeError("power cut")), entropy()):
        model = network(1)
        model.load_state_dict(taught)
        try:
            history = learn(model, how, train=MISLABELLED, objective=attempt, state=tmp_path / "s")
        except RuntimeError:
            assert not all(torch.equal(value, taught[name]) for name, value in model.state_dict().items())
    assert len(history) == 2
    assert history[-1].kept_start
    assert all(torch.equal(value, taught[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("select", [None, "top1"])
def test_scoring_the_start_changes_no_bit_of_a_fit_that_improves_on_it(select: str | None) -> None:
    models = [network(), network(), network()]
    histories = [
        learn(model, fitting(select=select), objective=entropy(), start=start)
        for model, start in zip(models, (NO_START, None, 0.0), strict=True)
    ]
    assert same(models[0], models[1])
    assert same(models[0], models[2])
    assert len({tuple(timeless(history)) for history in histories}) == 1
    assert not any(record.kept_start for history in histories for record in history)


@pytest.mark.parametrize(
    ("images", "frozen", "warned"), [(40, False, False), (17, False, True), (17, True, False)]
)
def test_few_steps_an_epoch_are_warned_of_where_batch_norm_learns(
    images: int, frozen: bool, warned: bool
) -> None:
    notices = Notices()
    how = fitting(epochs=2, trainable=head if frozen else None)
    history = learn(network(), how, train=pixel_set(images), objective=entropy(), progress=notices)
    few = [text for text in notices.warnings if "steps per epoch" in text]
    assert bool(few) is warned
    assert tuple(few) == notes_of(history) if warned else not few
    if warned:
        assert few[0].startswith("17 training images in batches of 8 are 2 steps per epoch: batch norm's ")


def test_the_same_fit_gives_the_same_bits_whatever_the_global_state() -> None:
    first, second, third = network(), network(), network()
    for model, noise in ((first, 1), (second, 2)):
        torch.manual_seed(noise)
        before = torch.get_rng_state()
        learn(model, fitting(), objective=entropy())
        assert torch.equal(torch.get_rng_state(), before)
    learn(third, fitting(seed=6), objective=entropy())
    assert same(first, second)
    assert not same(first, third)


@pytest.mark.parametrize("augment", list(Augment))
@pytest.mark.parametrize(
    ("select", "precision"),
    [(None, TrainPrecision.FP32), ("top1", TrainPrecision.FP32), (None, TrainPrecision.BF16)],
)
def test_a_resumed_fit_ends_bit_identical(
    tmp_path: Path, augment: Augment, select: str | None, precision: TrainPrecision
) -> None:
    how = fitting(augment=augment, select=select, precision=precision)
    whole, broken = network(), network()
    expected = learn(whole, how, objective=entropy(0.1))
    state = tmp_path / "s"
    with pytest.raises(RuntimeError, match="power cut"):  # in the middle of the third of four epochs
        learn(broken, how, objective=failing_at(11, RuntimeError("power cut")), state=state)
    resumed, notices = network(), Notices()
    history = learn(resumed, how, objective=entropy(0.1), state=state, progress=notices)
    assert notices.messages[0] == "full: goes on after epoch 2"
    assert same(whole, resumed)
    assert timeless(history) == timeless(expected)


def test_a_resumed_head_phase_ends_bit_identical(tmp_path: Path) -> None:
    how = fitting(phase="head", trainable=head, ema=0.0, class_balance=True)
    whole, broken, resumed = network(), network(), network()
    learn(whole, how, objective=entropy(0.1))
    with pytest.raises(RuntimeError):
        learn(broken, how, objective=failing_at(6, RuntimeError()), state=tmp_path / "s")
    learn(resumed, how, objective=entropy(0.1), state=tmp_path / "s")
    assert same(whole, resumed)


KILLED = """
import sys
import time
from pathlib import Path
from edgetl.progress import SilentProgress
from edgetl.train.loop import fit
from edgetl.train import state
from tests.train.tiny import TASK, entropy, fitting, network, pixel_set

state.RARELY = 0

class Aloud(SilentProgress):
    def message(self, text):
        print(text, flush=True)
        if text.startswith("full 3/"):
            time.sleep(600)

fit(network(), fitting(epochs=6), train=pixel_set(33), val=pixel_set(12, 16, seed=1),
    task=TASK, objective=entropy(0.1), state=Path(sys.argv[1]), progress=Aloud())
"""


def test_kill_nine_loses_nothing_but_the_epoch(tmp_path: Path) -> None:
    state, root = tmp_path / "s", Path(__file__).parents[2]
    child = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(state)],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    with child.stdout:
        notices = [child.stdout.readline() for _ in range(3)]
        child.send_signal(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
    assert notices[2].startswith("full 3/6"), notices
    how, calls = fitting(epochs=6), 0
    saved = states.load(state)
    assert saved is not None
    done = len(saved.history)
    assert 2 <= done <= 3

    def counted(model: nn.Module, batch: Batch) -> Tensor:
        nonlocal calls
        calls += 1
        return entropy(0.1).loss(model, batch)

    whole, resumed = network(), network()
    learn(resumed, how, objective=Plain(counted), state=state)
    assert calls == (6 - done) * 4
    learn(whole, how, objective=entropy(0.1))
    assert same(whole, resumed)


def test_a_finished_fit_returns_at_once(tmp_path: Path) -> None:
    first, second = network(), network()
    expected = learn(first, fitting(), objective=entropy(), state=tmp_path / "s")
    never = failing_at(1, AssertionError("trained again"))
    assert learn(second, fitting(), objective=never, state=tmp_path / "s") == expected
    assert same(first, second)


@pytest.mark.parametrize(
    ("changes", "named"), [({"lr": 3e-3}, "lr"), ({"seed": 9}, "seed"), ({"epochs": 5}, "epochs")]
)
def test_another_fits_state_is_not_used(tmp_path: Path, changes: dict[str, float], named: str) -> None:
    learn(network(), fitting(), objective=entropy(), state=tmp_path / "s")
    notices, model, plain = Notices(), network(), network()
    other = fitting(**changes)
    learn(model, other, objective=entropy(), state=tmp_path / "s", progress=notices)
    stated = f"{tmp_path / 's'} was made by another fit ({named} differ); training starts afresh."
    assert notices.warnings[0] == stated
    learn(plain, other, objective=entropy())
    assert same(model, plain)


def test_a_state_of_other_unlabelled_images_is_not_used(tmp_path: Path) -> None:
    def run(further: Unlabelled | None, progress: Notices) -> None:
        learn(
            network(),
            fitting(epochs=1),
            objective=entropy(),
            state=tmp_path / "s",
            progress=progress,
            unlabelled=further,
        )

    run(unlabelled(9, 0.5), Notices())
    for other in (unlabelled(9, 0.4), unlabelled(8, 0.4), None):
        notices = Notices()
        run(other, notices)
        assert "made by another fit (unlabelled images differ)" in notices.warnings[0]


def test_other_initial_weights_are_noticed(tmp_path: Path) -> None:
    learn(network(), fitting(epochs=1), objective=entropy(), state=tmp_path / "s")
    notices = Notices()
    learn(network(1), fitting(epochs=1), objective=entropy(), state=tmp_path / "s", progress=notices)
    assert "(initial weights differ)" in notices.warnings[0]


@pytest.mark.parametrize("content", [b"", b"garbage", None])
def test_a_broken_state_starts_afresh(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "s"
    if content is None:
        learn(network(), fitting(), objective=entropy(), state=path)
        content = path.read_bytes()[:-100]
    path.write_bytes(content)
    model, plain = network(), network()
    learn(model, fitting(), objective=entropy(), state=path)
    learn(plain, fitting(), objective=entropy())
    assert same(model, plain)


def test_ctrl_c_says_what_is_kept(tmp_path: Path) -> None:
    stop = failing_at(11, KeyboardInterrupt())
    with pytest.raises(Interrupted) as caught:
        learn(network(), fitting(), objective=stop, state=tmp_path / "s")
    assert str(caught.value) == (
        "Stopped in epoch 3 of full. Epoch 2 is saved; the same command goes on from there."
    )
    with pytest.raises(Interrupted, match="Stopped in epoch 1 of full; nothing of it was saved"):
        learn(network(), fitting(), objective=failing_at(2, KeyboardInterrupt()))


def test_training_does_not_wait_for_its_state_to_be_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(states, "RARELY", 1e9)
    state, whole, resumed = tmp_path / "s", network(), network()
    with pytest.raises(Interrupted) as caught:
        learn(network(), fitting(), objective=failing_at(11, KeyboardInterrupt()), state=state)
    assert "Stopped in epoch 3 of full. Epoch 1 is saved; the same" in str(caught.value)
    notices = Notices()
    learn(resumed, fitting(), objective=entropy(0.1), state=state, progress=notices)
    assert notices.messages[0] == "full: goes on after epoch 1"
    saved = states.load(state)
    assert saved is not None
    assert len(saved.history) == fitting().epochs
    learn(whole, fitting(), objective=entropy(0.1))
    assert same(whole, resumed)


def test_a_loss_that_is_not_finite_names_step_and_rate(tmp_path: Path) -> None:
    calls = 0

    def diverging(model: nn.Module, batch: Batch) -> Tensor:
        nonlocal calls
        calls += 1
        return entropy().loss(model, batch) * (float("nan") if calls == 6 else 1.0)

    with pytest.raises(TrainingError) as caught:
        learn(network(), fitting(), objective=Plain(diverging), state=tmp_path / "s")
    assert str(caught.value) == (
        "The loss became nan at step 6 of 16 (full), learning rate 8.91e-03. Epoch 1 is saved."
        " Try a lower learning rate."
    )
    saved = states.load(tmp_path / "s")
    assert saved is not None
    assert all(torch.isfinite(v).all() for v in saved.model.values())


def test_a_full_disk_keeps_the_epoch_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, write = tmp_path / "s", Path.write_bytes
    writes = 0

    def filling(self: Path, content: bytes) -> int:
        nonlocal writes
        writes += 1
        if writes == 3:
            raise OSError(28, "No space left on device")
        return write(self, content)

    monkeypatch.setattr(Path, "write_bytes", filling)
    with pytest.raises(StorageError, match=f"Cannot write {path}: no space left on the device"):
        learn(network(), fitting(), objective=entropy(), state=path)
    monkeypatch.undo()
    saved = states.load(path)
    assert saved is not None
    assert len(saved.history) == 2
    assert [p.name for p in tmp_path.iterdir()] == ["s"]


def test_the_frozen_part_does_not_move_at_all() -> None:
    model, fresh = network(), network()
    flags = [p.requires_grad for p in model.parameters()]
    learn(model, fitting(phase="head", trainable=head, ema=0.0), objective=entropy())
    for name, tensor in fresh.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name]) is not name.startswith("9."), name
    assert [p.requires_grad for p in model.parameters()] == flags


@pytest.mark.parametrize("images", [2, 3, 9, 17])
def test_odd_numbers_of_images_are_fine(images: int) -> None:
    history = learn(network(), fitting(epochs=1), train=pixel_set(images), objective=entropy())
    assert np.isfinite(history[0].loss)


def test_too_few_images_are_refused() -> None:
    def start(train: int, batch_size: int) -> Callable[[], object]:
        how = fitting(batch_size=batch_size)
        return lambda: learn(network(), how, train=pixel_set(train), objective=entropy())

    with pytest.raises(
        TrainingError, match="Batch norm needs at least 2 images per step; there are 1 training"
    ):
        start(1, 8)()
    with pytest.raises(TrainingError, match="the batch size is 1"):
        start(9, 1)()
    with pytest.raises(TrainingError, match="Phase full has 0 training and 12 validation images"):
        start(0, 8)()


def test_no_epochs_do_nothing() -> None:
    model = network()
    assert learn(model, fitting(epochs=0), objective=entropy()) == ()
    assert same(model, network())


def test_the_best_epoch_is_kept_and_ties_go_to_the_later() -> None:
    history = (
        epoch_record(1, 0.5, 0.9),
        epoch_record(2, 0.8, 0.1),
        epoch_record(3, 0.8, 0.2),
        epoch_record(4, 0.7, 0.3),
    )
    assert best_epoch(history, "top1") == 2
    assert best_epoch(history, "macro_f1") == 0


def test_selection_restores_the_best_weights() -> None:
    labels = np.random.default_rng(0).permutation(VAL.targets)  # nothing to learn, so that scores wander
    val = dataclasses.replace(VAL, targets=labels)
    model = network()
    how = fitting(epochs=8, ema=0.0, select="top1")
    history = learn(model, how, val=val, objective=entropy())
    reached = max(value(r.val, "top1") for r in history)
    assert value(score(TASK, model, val), "top1") == reached
    assert value(history[-1].val, "top1") < reached


def test_bf16_runs_on_the_cpu_and_fp16_asks_for_a_gpu() -> None:
    model = network()
    history = learn(model, fitting(precision=TrainPrecision.BF16), objective=entropy())
    assert np.isfinite(history[-1].loss)
    assert all(p.dtype == torch.float32 for p in model.parameters())
    if not torch.cuda.is_available():
        with pytest.raises(TrainingError, match=r"fp16, which needs a GPU\. Take fp32 or auto"):
            learn(model, fitting(precision=TrainPrecision.FP16), objective=entropy())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU")
@pytest.mark.parametrize("precision", list(TrainPrecision))
def test_every_precision_learns_on_a_gpu(precision: TrainPrecision) -> None:
    model = network()
    history = learn(model, fitting(epochs=8, precision=precision), objective=entropy())
    assert value(history[-1].val, "top1") > 0.9
    assert {p.device.type for p in model.parameters()} == {"cpu"}


@pytest.mark.parametrize("kind", [Mix.MIXUP, Mix.BOTH])
def test_a_resumed_fit_with_mixed_images_ends_bit_identical(tmp_path: Path, kind: Mix) -> None:
    how = fitting(mixing=Mixing(kind, 0.4), layer_decay=1.0)
    whole, broken, resumed = network(), network(), network()
    learn(whole, how, objective=entropy(0.1))
    with pytest.raises(RuntimeError):
        learn(broken, how, objective=failing_at(11, RuntimeError()), state=tmp_path / "s")
    learn(resumed, how, objective=entropy(0.1), state=tmp_path / "s")
    assert same(whole, resumed)
    plain = network()
    learn(plain, fitting(), objective=entropy(0.1))
    assert not same(whole, plain)


def test_patience_ends_a_fit_and_a_resumed_one_alike(tmp_path: Path) -> None:
    labels = np.random.default_rng(0).permutation(VAL.targets)
    val, notices = dataclasses.replace(VAL, targets=labels), Notices()
    how = fitting(epochs=40, patience=3, select="top1", ema=0.0)
    whole, resumed = network(), network()
    history = learn(whole, how, val=val, objective=entropy(0.1), progress=notices)
    assert 4 <= len(history) < 40
    assert idle(history, "top1") == 3
    assert notices.messages[-1] == "full: no better for 3 epochs, so it ends here"
    with pytest.raises(RuntimeError):
        learn(network(), how, val=val, objective=failing_at(10, RuntimeError()), state=tmp_path / "s")
    again = learn(resumed, how, val=val, objective=entropy(0.1), state=tmp_path / "s")
    assert timeless(again) == timeless(history)
    assert same(whole, resumed)
    never = failing_at(1, AssertionError("trained again"))
    assert learn(network(), how, val=val, objective=never, state=tmp_path / "s") == again


def test_idle_counts_epochs_since_the_score_rose() -> None:
    history = tuple(epoch_record(i, top1, 0.0) for i, top1 in enumerate((0.1, 0.5, 0.5, 0.4)))
    assert [idle(history[:n], "top1") for n in range(5)] == [0, 0, 0, 1, 2]


def test_accumulated_parts_give_the_gradient_of_the_whole() -> None:
    def losses(parts: int) -> list[float]:
        model = network().eval()
        frozen = fitting(accumulate=parts, augment=Augment.NONE, trainable=head, ema=0.0)
        history = learn(model, frozen, objective=no_dropout())
        return [v for r in history for v in (r.loss, r.val_loss)]

    def no_dropout() -> Objective:
        def loss(model: nn.Module, batch: Batch) -> Tensor:
            return entropy(0.1).loss(model.eval(), batch)

        return Plain(loss)

    assert losses(3) == pytest.approx(losses(1), rel=1e-5)
    assert losses(99) == pytest.approx(losses(1), rel=1e-5)


def test_compiling_runs_the_compiled_network(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[nn.Module] = []

    def compile_(model: nn.Module) -> nn.Module:
        compiled.append(model)
        return model

    monkeypatch.setattr(torch, "compile", compile_)
    model, plain = network(), network()
    learn(model, fitting(compiled=True), objective=entropy())
    learn(plain, fitting(), objective=entropy())
    assert compiled == [model]
    assert same(model, plain)
