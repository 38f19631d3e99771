from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgetl.config import Augment
from edgetl.train.loader import Loader, endless_order, epoch_order, split_batches, step_sizes
from edgetl.train.objective import Batch
from edgetl.train.seeds import derive, numpy_generator
from edgetl.train.sets import Unlabelled

from .tiny import TASK, pixel_set, unlabelled


def loader(
    images: int = 20,
    *,
    seed: int = 0,
    phase: str = "full",
    class_balance: bool = False,
    beside: Unlabelled | None = None,
    device: str = "cpu",
) -> Loader:
    return Loader(
        TASK,
        pixel_set(images),
        batch_size=8,
        augment=Augment.BASIC,
        class_balance=class_balance,
        seed=seed,
        phase=phase,
        device=torch.device(device),
        unlabelled=beside,
    )


def _known(batch: Batch) -> torch.Tensor:
    assert batch.labelled is not None
    return batch.labelled


def equal(first: list[Batch], second: list[Batch]) -> bool:
    pairs = zip(first, second, strict=True)
    return all(torch.equal(a.images, b.images) and torch.equal(a.targets, b.targets) for a, b in pairs)


def test_an_epoch_depends_on_seed_phase_and_number_alone() -> None:
    first = list(loader().epoch(3))
    other = loader()
    list(other.epoch(0))
    assert equal(first, list(other.epoch(3)))
    for changed in (loader(seed=1).epoch(3), loader(phase="head").epoch(3), loader().epoch(4)):
        assert not equal(first, list(changed))


def test_batches_are_normalised_and_channels_last() -> None:
    batch = next(iter(loader().epoch(0)))
    images, labels = batch.images, batch.targets
    assert batch.labelled is None
    assert (images.shape, images.dtype, labels.dtype) == ((8, 3, 16, 16), torch.float32, torch.int64)
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert -3 < images.min() < 0 < images.max() < 3


def test_each_image_comes_once() -> None:
    labels = np.arange(20)
    assert sorted(epoch_order(labels, class_balance=False, generator=numpy_generator(0))) == list(range(20))


def test_balance_draws_each_class_equally_often_and_covers_rare_ones() -> None:
    labels = np.array([0] * 90 + [1] * 8 + [2] * 2)
    order = epoch_order(labels, class_balance=True, generator=numpy_generator(0))
    counts = np.bincount(labels[order])
    assert len(order) == 100
    assert set(counts) <= {33, 34}
    assert set(order[labels[order] == 2]) == {98, 99}
    repeats = np.bincount(order[labels[order] == 1] - 90)
    assert repeats.max() - repeats.min() <= 1


@settings(deadline=None)
@given(images=st.integers(1, 50), batch_size=st.integers(1, 20))
def test_batches_cover_the_epoch_and_never_hold_one_image(images: int, batch_size: int) -> None:
    batches = split_batches(np.arange(images), batch_size)
    assert np.array_equal(np.concatenate(batches), np.arange(images))
    if images > 1 and batch_size > 1:
        assert all(2 <= len(b) <= batch_size + 1 for b in batches)


@settings(deadline=None)
@given(images=st.integers(1, 60), batch_size=st.integers(2, 20), share=st.floats(0.01, 0.99))
def test_unlabelled_images_take_their_share_of_each_step(images: int, batch_size: int, share: float) -> None:
    steps = step_sizes(images, batch_size, share)
    assert sum(labelled for labelled, _ in steps) == images
    assert all(
        labelled >= 1 and further >= 1 and labelled + further <= batch_size for labelled, further in steps
    )
    for labelled, further in steps[:-1]:
        assert labelled + further == batch_size
        assert abs(further - share * batch_size) <= 1


@settings(deadline=None)
@given(images=st.integers(1, 9), start=st.integers(0, 40), count=st.integers(1, 40))
def test_an_endless_order_is_the_same_wherever_it_is_entered(images: int, start: int, count: int) -> None:
    whole = endless_order(images, 0, 80, seed=3)
    assert np.array_equal(endless_order(images, start, count, seed=3), whole[start : start + count])
    assert sorted(whole[:images]) == sorted(whole[images : 2 * images]) == list(range(images))


def test_unlabelled_images_come_last_without_a_label_and_leave_the_labelled_ones_order_alone() -> None:
    with_them, without = loader(beside=unlabelled(7, 0.5)), loader()
    batches = list(with_them.epoch(1))
    assert [len(batch) for batch in batches] == with_them.sizes() == [8] * 5
    assert all(b.labelled is not None and b.labelled.tolist() == [True] * 4 + [False] * 4 for b in batches)
    named = torch.cat([batch.targets[:4] for batch in batches])
    assert torch.equal(named, torch.cat([batch.targets for batch in without.epoch(1)]))
    assert equal(batches, list(loader(beside=unlabelled(7, 0.5)).epoch(1)))
    assert not equal(batches, list(loader(beside=unlabelled(7, 0.5), seed=1).epoch(1)))


def test_every_unlabelled_image_comes_before_one_repeats_over_epochs() -> None:
    own = Loader(
        TASK,
        pixel_set(20),
        batch_size=8,
        augment=Augment.NONE,
        class_balance=False,
        seed=0,
        phase="full",
        device=torch.device("cpu"),
        unlabelled=unlabelled(40, 0.5),
    )
    pictures = [
        image.numpy().tobytes()
        for n in range(4)
        for batch in own.epoch(n)
        for image in batch.images[~_known(batch)]
    ]
    assert len(pictures) == 80
    assert len(set(pictures[:40])) == len(set(pictures[40:])) == 40
    assert pictures[:40] != pictures[40:]


def test_only_a_device_beside_the_cpu_has_its_batches_made_in_a_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    makers, made = list[str](), Loader._prepare

    def stated(*args: Any) -> Batch:
        makers.append(threading.current_thread().name.split("_")[0])
        return made(*args)

    monkeypatch.setattr(Loader, "_prepare", stated)
    on_cpu, on_meta = list(loader().epoch(0)), list(loader(device="meta").epoch(0))
    assert makers == ["MainThread"] * 3 + ["edgetl-loader"] * 3
    assert [b.images.shape for b in on_cpu] == [b.images.shape for b in on_meta]


def test_leaving_an_epoch_early_stops_the_thread() -> None:
    batches = loader(80, device="meta").epoch(0)
    next(batches)
    batches.close()  # type: ignore[attr-defined]
    for thread in [t for t in threading.enumerate() if t.name.startswith("edgetl-loader")]:
        thread.join(timeout=10)
        assert not thread.is_alive()


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_an_error_in_a_batch_reaches_the_caller(monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    def broken(*args: object, **kwargs: object) -> None:
        raise OSError("the disk went away")

    monkeypatch.setattr("edgetl.train.tasks.base.training_view", broken)
    with pytest.raises(OSError, match="the disk went away"):
        list(loader(device=device).epoch(0))


def test_seeds_differ_by_purpose_and_are_pinned() -> None:
    assert derive(0, "full", 1) != derive(0, "full", 11) != derive(0, "full1", 1)
    assert derive(0, "full", 1) == 3671706074006564409
