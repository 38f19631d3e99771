"""Classes added from one and from five pictures, on real image sets: 5-way accuracy over episodes, what the trained
classes lose, seconds. Ten minutes a set on two cores.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import edgetl
from edgetl.data import index as indexes
from edgetl.runtime import calibrating
from edgetl.runtime.enrol import enrol, forget
from edgetl.runtime.features import MAP, embeddings
from edgetl.runtime.session import Session
from tests.slow.left_out import SETS, Runs

pytestmark = [pytest.mark.slow, pytest.mark.timeout(5400)]


_NEW = 200
"""At most so many pictures of a class that is left out."""
EPISODES, QUERIES = 100, 15
MOST_LOST = 0.01
"""What trained classes may lose of their accuracy to five added ones, on the mean; one test image where it is more."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """Pictures as a model sees them: embeddings (N, F), logits (N, C), classes (N,)."""

    embeddings: NDArray[np.float32]
    logits: NDArray[np.float32]
    classes: NDArray[np.int64]


def seen(session: Session, pictures: list[Path], labels: tuple[str, ...]) -> Seen:
    showing, rows = session.with_features(), []
    for _, outputs in showing.outputs_of(pictures):
        assert isinstance(outputs, dict)
        rows.append((embeddings({MAP: outputs[MAP]})[0], outputs["logits"][0]))
    classes = np.array([labels.index(path.parent.name) for path in pictures])
    return Seen(
        embeddings=np.stack([row[0] for row in rows]),
        logits=np.stack([row[1] for row in rows]),
        classes=classes,
    )


def line(name: str, values: list[float]) -> str:
    """A mean over episodes with its 95% interval."""
    half = 1.96 * np.std(values, ddof=1) / np.sqrt(len(values))
    return f"{name} {100 * np.mean(values):.1f}% +- {100 * half:.1f}"


@pytest.mark.parametrize("name", SETS)
def test_five_classes_from_few_pictures(name: str, left_out: Runs, tmp_path: Path) -> None:
    run = left_out(name)
    bundle, unknown = run.bundle, run.classes
    own = [sample.path for sample in indexes.load(run.folder / "data" / "index.json").split("test")]
    pictures = [path for label in unknown for path in sorted(run.unknown.glob(f"**/{label}/*.jpg"))[:_NEW]]
    for variant in (None, "fp32"):
        with edgetl.load(bundle, variant=variant) as session:
            test = seen(session, own, session.labels)
            new = seen(session, pictures, unknown)
            reference, chosen = session.known_images("enrol"), session.variant
        count = test.logits.shape[1]
        right = test.logits.argmax(axis=1) == test.classes
        print(f"\n{name}, {chosen.name}: trained classes {right.mean():.1%} of {len(right)} test images")
        for shots in (1, 5):
            generator = np.random.default_rng(shots)
            within, all_ways, lost = list[float](), list[float](), list[float]()
            for _ in range(EPISODES):
                drawn = [generator.permutation(np.flatnonzero(new.classes == at)) for at in range(5)]
                support = np.concatenate([rows[:shots] for rows in drawn])
                queries = np.concatenate([rows[shots : shots + QUERIES] for rows in drawn])
                means = new.embeddings[support].reshape(5, shots, -1).mean(axis=1)
                together = replace(
                    reference,
                    means=np.concatenate([reference.means, means]),
                    embeddings=np.concatenate([reference.embeddings, new.embeddings[support]]),
                    classes=np.append(reference.classes, np.repeat(np.arange(5), shots) + count).astype(
                        np.int32
                    ),
                )
                classes = calibrating.known_classes(together, count, count + 5, name)
                added = calibrating.calibrated(classes, 1.0, calibrating.FALSE_ALARMS)
                answers = added.logits(new.logits[queries], new.embeddings[queries])
                truth = new.classes[queries]
                within.append(float((answers[:, count:].argmax(axis=1) == truth).mean()))
                all_ways.append(float((answers.argmax(axis=1) == truth + count).mean()))
                now = added.logits(test.logits, test.embeddings).argmax(axis=1) == test.classes
                lost.append(float(right.mean() - now.mean()))
            print(
                f"  {shots} picture{'s' if shots > 1 else ''} a class, {EPISODES} episodes:"
                f" {line('5-way', within)}; {line(f'of {count + 5} classes', all_ways)};"
                f" {line('trained classes lose', lost)}"
            )
            assert np.mean(lost) < max(MOST_LOST, 1 / len(right))
    _whole_way(bundle, own, pictures, unknown, tmp_path)


def _whole_way(
    bundle: Path, own: list[Path], pictures: list[Path], left_out: tuple[str, ...], folder: Path
) -> None:
    """Five classes of five pictures each through the files, timed; then all are forgotten."""
    now, seconds, rest = bundle, list[float](), list(own)
    for at, label in enumerate(left_out):
        of_label = [path for path in pictures if path.parent.name == label]
        begun = time.perf_counter()
        enrol(now, label, of_label[:5], folder / f"{at}.edgetl")
        seconds.append(time.perf_counter() - begun)
        now, rest = folder / f"{at}.edgetl", rest + of_label[5:]
    with edgetl.load(now) as session:
        assert session.verify().passed
        right = [one.label == path.parent.name for one, path in zip(session.predict(rest), rest, strict=True)]
        print(
            f"  through the files: {np.mean(right):.1%} of {len(rest)} images of all classes; {max(seconds):.1f} s at"
            " most"
        )
    for at, label in enumerate(left_out):
        forget(now, label, folder / f"without-{at}.edgetl")
        now = folder / f"without-{at}.edgetl"
    assert max(seconds) < 60
