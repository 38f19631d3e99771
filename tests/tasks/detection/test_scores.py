from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest

from edgetl.tasks.detection.scores import (
    SIZES,
    Found,
    Truth,
    averages,
    best_threshold,
    match,
    resampled,
)

CLASSES = 3


def world(images: int, seed: int, *, crowds: bool = True) -> tuple[list[Truth], list[Found]]:
    """Objects of all sizes, and what a middling detector finds: near boxes, duplicates, wrong classes, background."""
    generator = np.random.default_rng(seed)
    truths, found = [], []
    for _ in range(images):
        count = int(generator.integers(0, 9))
        low = generator.uniform(0, 400, (count, 2))
        boxes = np.concatenate([low, low + generator.uniform(4, 160, (count, 2))], axis=1).round(1)
        labels = generator.integers(0, CLASSES, count)
        crowd = generator.random(count) < (0.15 if crowds else 0)
        truths.append(Truth(boxes=boxes, labels=labels, crowd=crowd))
        repeats = generator.integers(0, 3, count)
        near = np.repeat(boxes, repeats, axis=0)
        near = near + generator.normal(0, 6, near.shape)
        near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 1)
        own = np.repeat(labels, repeats)
        wrong = generator.random(len(own)) < 0.2
        own = np.where(wrong, generator.integers(0, CLASSES, len(own)), own)
        extra = generator.uniform(0, 400, (4, 2))
        every = np.concatenate([near, np.concatenate([extra, extra + 30], axis=1)]).round(2)
        found.append(
            Found(
                boxes=every,
                labels=np.concatenate([own, generator.integers(0, CLASSES, 4)]),
                scores=generator.random(len(every)).round(2),
            )
        )
    return truths, found


def reference(truths: list[Truth], found: list[Found]) -> np.ndarray:
    """The twelve figures of faster-coco-eval, which gives pycocotools' to the last digit."""
    pytest.importorskip("faster_coco_eval", reason="the oracle is in the dev extra: pip install -e '.[dev]'")
    from faster_coco_eval import COCO, COCOeval_faster

    annotations, results = [], []
    for image, truth in enumerate(truths):
        for box, label, crowd in zip(truth.boxes, truth.labels, truth.crowds(), strict=True):
            side = (box[2:] - box[:2]).tolist()
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": int(label) + 1,
                    "bbox": [*box[:2].tolist(), *side],
                    "area": side[0] * side[1],
                    "iscrowd": int(crowd),
                }
            )
    for image, boxes in enumerate(found):
        for box, label, score in zip(boxes.boxes, boxes.labels, boxes.scores, strict=True):
            results.append(
                {
                    "image_id": image,
                    "category_id": int(label) + 1,
                    "bbox": [*box[:2].tolist(), *(box[2:] - box[:2]).tolist()],
                    "score": float(score),
                }
            )
    with contextlib.redirect_stdout(io.StringIO()):
        truth_set = COCO(
            {
                "images": [{"id": i, "width": 640, "height": 640} for i in range(len(truths))],
                "annotations": annotations,
                "categories": [{"id": c + 1, "name": str(c)} for c in range(CLASSES)],
            }
        )
        run = COCOeval_faster(truth_set, truth_set.loadRes(results), "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    return np.asarray(run.stats)


def all_classes(truths: list[Truth], found: list[Found], **options: object) -> list:
    return [match(truths, found, label, **options) for label in range(CLASSES)]


@pytest.mark.parametrize("seed", range(4))
def test_figures_are_those_of_coco_s_own_evaluation(seed: int) -> None:
    truths, found = world(40, seed)
    expected = reference(truths, found)
    mean, _ = averages(all_classes(truths, found))
    assert (mean.ap, mean.ap50, mean.recall) == pytest.approx(
        (expected[0], expected[1], expected[8]), abs=1e-6
    )
    for place, size in enumerate(SIZES.values()):
        part, _ = averages(all_classes(truths, found, size=size))
        assert (part.ap, part.recall) == pytest.approx((expected[3 + place], expected[9 + place]), abs=1e-6)


def test_perfect_boxes_score_one_and_none_scores_zero() -> None:
    truths, _ = world(20, 7, crowds=False)
    perfect = [Found(boxes=t.boxes, labels=t.labels, scores=np.ones(len(t.labels))) for t in truths]
    nothing = [
        Found(boxes=np.zeros((0, 4)), labels=np.zeros(0, np.int64), scores=np.zeros(0)) for _ in truths
    ]
    assert averages(all_classes(truths, perfect))[0].ap == pytest.approx(1.0)
    assert averages(all_classes(truths, nothing))[0].ap == 0.0


def test_a_resampled_image_counts_as_if_it_were_there_twice() -> None:
    truths, found = world(12, 3)
    weights = np.ones(12, dtype=np.int64)
    weights[4], weights[5] = 2, 0
    chosen = [0, 1, 2, 3, 4, 4, *range(6, 12)]
    expected, _ = averages(all_classes([truths[i] for i in chosen], [found[i] for i in chosen]))
    # Equal scores of different images may come in another order, which moves a step of the curve.
    assert averages(all_classes(truths, found), weights)[0].ap == pytest.approx(expected.ap, abs=0.01)


def test_equal_models_do_not_differ_in_any_draw() -> None:
    truths, found = world(15, 5)
    classes = all_classes(truths, found)
    values = resampled([classes, classes], 15, draws=30)
    assert (values[:, 0] == values[:, 1]).all()
    assert values[:, 0, 0].std() > 0


def test_the_threshold_is_where_f1_is_best() -> None:
    truths, found = world(30, 9, crowds=False)
    classes = all_classes(truths, found)
    threshold, best = best_threshold(classes)

    def f1(at: float) -> float:
        right = sum(int((m.hit[0] & (m.scores >= at)).sum()) for m in classes)
        taken = sum(int((m.scores >= at).sum()) for m in classes)
        return 2 * right / (taken + sum(int(m.objects.sum()) for m in classes))

    assert f1(threshold) == pytest.approx(best)
    assert best == pytest.approx(max(f1(s) for m in classes for s in m.scores))
