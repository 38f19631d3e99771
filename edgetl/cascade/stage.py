"""Make a cascade of two bundles: choose its threshold, judge it on other images, time it, pack it.

The threshold is chosen on one half of the images, the lowest with which the cascade is right as often there as was
asked. The other half is what is reported: a paired test against the larger model, the share that was handed on, and
latencies, timed in turn in one process on images of that half.

Legend: N images, C classes.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgetl._version import __version__
from edgetl.bench.machine import describe
from edgetl.bench.stage import MOST_TIMED
from edgetl.bench.statistics import summarise
from edgetl.bench.timer import PAUSE_S, block_of, time_interleaved
from edgetl.bundle import pack
from edgetl.bundle.archive import Bundle, open_bundle
from edgetl.bundle.confidence import ConfidenceSource
from edgetl.bundle.drift import DriftAnswers, DriftSource, places
from edgetl.bundle.golden import GoldenSet, encode_image
from edgetl.bundle.manifest import InputForm, Precision, Provenance, Variant
from edgetl.bundle.provenance import git_commit, packages
from edgetl.bundle.splits import SPLITS
from edgetl.cascade.graph import Member, cascade, small_alone
from edgetl.cascade.images import Halves, halves
from edgetl.cascade.threshold import choose, is_worse
from edgetl.data.splits import spread
from edgetl.errors import BundleError, ConfigError
from edgetl.files import sha256_file
from edgetl.inputs.image import load_pixels
from edgetl.inputs.looks import looks
from edgetl.inputs.spec import PreprocessSpec, normalise
from edgetl.measure.drift import answers_of
from edgetl.process import usable_cores
from edgetl.progress import SILENT, Progress
from edgetl.records.cascade import Cascade, CascadeMember, CascadeRecord
from edgetl.records.measured import Latency
from edgetl.records.scores import Score
from edgetl.runtime.choice import choose as choose_variant
from edgetl.runtime.engines.onnxruntime import OnnxBackend
from edgetl.runtime.evaluate import LabelledImage
from edgetl.runtime.targets import EngineName
from edgetl.statistics import compare_paired, wilson_interval
from edgetl.tasks.base import LOGITS, Classification, joined
from edgetl.tasks.classification.answers import softmax
from edgetl.tasks.classification.task import ClassificationTask
from edgetl.tasks.conformal import conformities_one, conformity

NAME = "cascade"
"""What the variant is called."""
GOLDEN_IMAGES = 16
"""Golden images, of which the share handed on is as close to the measured one as it can be."""
_TIMED_BYTES = 64 * 1024 * 1024
_WARM_ROUNDS = 2


@dataclass(frozen=True, kw_only=True)
class CascadeConfig:
    """What to make.

    Attributes:
        small: the bundle of the model that is asked first.
        large: the bundle of the one that answers the rest.
        data: labelled images.
        out: where to write.
        floor: the least top-1, in 0..1; the larger model's where unset.
        small_variant, large_variant: the variants; those that run here where unset.
        threads: of the engine; every usable core where unset.
        runs: timed calls of each model.
        seed: of the halves.

    Raises:
        ConfigError: a number is out of range.
    """

    small: Path
    large: Path
    data: Path
    out: Path
    floor: float | None = None
    small_variant: str | None = None
    large_variant: str | None = None
    threads: int | None = None
    runs: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.floor is not None and not 0.0 < self.floor <= 1.0:
            raise ConfigError(f"floor is {self.floor:g}, expected a top-1 above 0 and at most 1, as 0.97.")


def run(config: CascadeConfig, *, progress: Progress = SILENT) -> CascadeRecord:
    """Make the cascade and write its bundle.

    Raises:
        BundleError: the two bundles make no cascade, or none that is worth having; the message says why.
        ConfigError: there is something at `out`.
        DataError: the images cannot be used, or are too few.
        StorageError: the bundle cannot be written.
    """
    if config.out.exists():
        raise ConfigError(f"{config.out} is there already; choose another name with -o.")
    bundles = open_bundle(config.small), open_bundle(config.large)
    variants = (
        _variant(bundles[0], config.small_variant),
        _variant(bundles[1], config.large_variant),
    )
    task = _task(bundles)
    target = _target(variants)
    small, large = (_member(bundle, variant) for bundle, variant in zip(bundles, variants, strict=True))
    images = halves(config.data, bundles, task, seed=config.seed, progress=progress)
    threads = config.threads or usable_cores()
    with (
        OnnxBackend(small_alone(small, large), threads=threads) as first,
        OnnxBackend(large.model, threads=threads) as second,
    ):
        chosen = _threshold(config, bundles, task, _answers(images.choosing, large, first, second, progress))
        judging = _answers(images.judging, large, first, second, progress)
    model = cascade(small, large, chosen)
    with (
        OnnxBackend(model, threads=threads) as both,
        OnnxBackend(large.model, threads=threads) as alone,
    ):
        latency, large_latency = _timed(config, large, judging, chosen, both, alone, progress)
    found = _judged(config, bundles, variants, images, judging, chosen, task, large_latency)
    source = pack.VariantSource(
        name=NAME,
        precision=max((v.precision for v in variants), key=list(Precision).index),
        target=target,
        model=model,
        input=large.form,
        val=ClassificationTask(spec=task).score(judging.truths, judging.outputs(chosen)),
        latency=latency,
        machine=describe(),
        confidence=_confidence(judging, chosen),
        cascade=found,
    )
    pack.pack(_contents(config, bundles, task, source, images, judging, chosen, large), config.out)
    return _record(config, found, latency, images)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Answers:
    """What both models say of labelled images: `small` and `large` (N, C) logits divided by the temperatures, `truths`
    (N,); `looks` (m, 7) of some of the images."""

    samples: tuple[LabelledImage, ...]
    truths: NDArray[np.int64]
    small: NDArray[np.float32]
    large: NDArray[np.float32]
    looks: NDArray[np.float32]

    @property
    def margins(self) -> NDArray[np.float32]:
        """(N,) what lies between the small model's two best logits."""
        best = np.sort(self.small, axis=1)
        return np.asarray(best[:, -1] - best[:, -2])

    def right(self, logits: NDArray[np.float32]) -> NDArray[np.bool_]:
        """(N,) which images are answered right."""
        return np.asarray(logits.argmax(axis=1) == self.truths)

    def outputs(self, threshold: float) -> dict[str, NDArray[np.float32]]:
        """The cascade's."""
        unsure = (self.margins < np.float32(threshold))[:, None]
        return {LOGITS: np.where(unsure, self.large, self.small)}


def _task(bundles: Sequence[Bundle]) -> Classification:
    """What both models answer, where they can be one.

    Raises:
        BundleError: they cannot.
    """
    small, large = (bundle.manifest for bundle in bundles)
    for bundle in bundles:
        if not isinstance(bundle.manifest.task, Classification):
            raise BundleError(
                f"{bundle.path} is of the task {bundle.manifest.task.kind}; a cascade is for one class per image."
            )
    if small.labels != large.labels:
        odd = sorted(set(small.labels) ^ set(large.labels))
        which = f"{odd[0]!r} is in one alone" if odd else "they stand in another order"
        raise BundleError(
            f"{bundles[0].path} and {bundles[1].path} have different labels ({which}); a cascade takes two models of"
            " the same classes, made from the same data."
        )
    # What may differ: the picture is the larger model's, and is made smaller and normalised anew inside.
    free = {
        name: getattr(large.preprocess, name) for name in ("size", "interpolation", "decoding", "mean", "std")
    }
    plain = [replace(m.preprocess, **free) for m in (small, large)]
    if plain[0] != plain[1]:
        raise BundleError(
            f"{bundles[0].path} and {bundles[1].path} prepare pictures differently ({_differing(*plain)}); a cascade"
            " prepares each once, for the larger one; make one of them again with the other's [preprocess]."
        )
    assert isinstance(large.task, Classification)
    return large.task


def _differing(first: PreprocessSpec, second: PreprocessSpec) -> str:
    names = [name for name, value in vars(first).items() if getattr(second, name) != value]
    return ", ".join(names)


def _variant(bundle: Bundle, asked: str | None) -> Variant:
    """The variant that takes part.

    Raises:
        BundleError: it cannot.
    """
    found = bundle.variant(choose_variant(bundle.manifest, target=EngineName.CPU, variant=asked).variant)
    if found.cascade is not None:
        raise BundleError(f"{bundle.path} is a cascade itself; make one of the models that it was made of.")
    if isinstance(bundle.manifest.task, Classification) and found.confidence is None:
        raise BundleError(
            f"{bundle.path} does not know how sure its variant {found.name} is, since an older version made it"
            " or the variant was added to it; make it again with: edgetl run RECIPE"
        )
    return found


def _member(bundle: Bundle, variant: Variant) -> Member:
    return Member(
        model=bundle.read(variant.member),
        spec=bundle.manifest.preprocess,
        form=variant.input,
        temperature=variant.temperatures.get(LOGITS, 1.0),
    )


def _target(variants: Sequence[Variant]) -> str:
    """What the cascade is made for: the CPU, and the kind of it that a member asks for.

    Raises:
        BundleError: the members ask for different ones.
    """
    asked = {v.target for v in variants} - {"any", "cpu"}
    narrowest = max(asked, key=len, default="cpu")
    # A processor with VNNI is one of the x86 kind, and its name begins with that one's.
    if not all(narrowest.startswith(target) for target in asked):
        names = " and ".join(f"{v.name} for {v.target}" for v in variants)
        raise BundleError(
            f"The variants are made for different machines ({names}); choose two for the same one."
        )
    return narrowest


def _answers(
    samples: Sequence[LabelledImage],
    large: Member,
    first: OnnxBackend,
    second: OnnxBackend,
    progress: Progress,
) -> _Answers:
    rows, kept = list[tuple[NDArray[Any], NDArray[Any]]](), list[NDArray[np.float32]]()
    looked_at = set(places(len(samples)).tolist())
    with progress.task("Asking both models", total=len(samples)) as bar:
        for at, sample in enumerate(samples):
            pixels = load_pixels(sample.path, large.spec)
            images = _input(pixels, large)
            rows.append(
                (first.run(images)[LOGITS], second.run(images)[LOGITS] / np.float32(large.temperature))
            )
            if at in looked_at:
                kept.append(looks(pixels))
            bar.advance()
    small_logits, large_logits = (np.concatenate(own) for own in zip(*rows, strict=True))
    return _Answers(
        samples=tuple(samples),
        truths=np.array([sample.label for sample in samples], dtype=np.int64),
        small=small_logits,
        large=large_logits,
        looks=np.stack(kept),
    )


def _input(pixels: NDArray[np.uint8], large: Member) -> NDArray[Any]:
    """A picture (S, S, 3) as the cascade takes it."""
    return pixels[None] if large.form is InputForm.UINT8 else normalise(pixels[None], large.spec)


def _threshold(
    config: CascadeConfig, bundles: Sequence[Bundle], task: Classification, answers: _Answers
) -> float:
    """The threshold.

    Raises:
        BundleError: no cascade reaches the floor, or one of the models does as well alone.
    """
    small, large = (answers.right(logits) for logits in (answers.small, answers.large))
    found = choose(answers.margins, small, large, config.floor)
    alone = (
        f"on the {len(small)} images that the threshold is chosen by, {config.small} is right on {small.mean():.1%} and"
        f" {config.large} on {large.mean():.1%}"
    )
    if found.value is None:
        raise BundleError(
            f"No threshold reaches the floor of {config.floor or 0:.1%}: {alone}, and the best cascade of them on"
            f" {found.best / len(small):.1%}; ask for less."
        )
    if found.handed_on == 0:
        raise BundleError(f"A cascade adds nothing: {alone}; ship {config.small} as it is.")
    if found.handed_on == 1:
        raise BundleError(
            f"A cascade would hand on every image: {alone}, and the small one is never sure enough; ship"
            f" {config.large} as it is, or ask for less with --floor."
        )
    return found.value


def _timed(
    config: CascadeConfig,
    large: Member,
    answers: _Answers,
    threshold: float,
    both: OnnxBackend,
    alone: OnnxBackend,
    progress: Progress,
) -> tuple[Latency, Latency]:
    """The cascade's latency and the larger model's, their calls timed in turn on the same images."""
    by_margin = [answers.samples[at] for at in np.argsort(answers.margins, kind="stable")]
    one = _input(load_pixels(by_margin[0].path, large.spec), large)
    chosen = spread(by_margin, min(MOST_TIMED, max(1, _TIMED_BYTES // one.nbytes)))
    tensors = [_input(load_pixels(sample.path, large.spec), large) for sample in chosen]

    def asked(backend: OnnxBackend) -> Callable[[], object]:
        supply = _shuffled(tensors, config.seed)
        return lambda: backend.run(next(supply))

    calls = {"cascade": asked(both), "large": asked(alone)}
    settle, block = block_of(calls)
    calls = {"cascade": asked(both), "large": asked(alone)}
    timed = time_interleaved(
        calls,
        warmup=_WARM_ROUNDS * block,
        runs=config.runs,
        seed=config.seed,
        pause_s=PAUSE_S,
        settle=settle,
        block=block,
        progress=progress,
        title="Timing the cascade and the larger model",
    )
    first, second = (
        summarise(
            timed[name], scenario="single-stream", batch=1, threads=both.threads, warmup=_WARM_ROUNDS * block
        )
        for name in calls
    )
    return first, second


def _shuffled(tensors: Sequence[NDArray[Any]], seed: int) -> Any:
    """The tensors without end, in an order drawn anew for every pass."""
    generator = np.random.default_rng(seed)
    return itertools.chain.from_iterable(
        [tensors[at] for at in generator.permutation(len(tensors))] for _ in itertools.count()
    )


def _judged(
    config: CascadeConfig,
    bundles: Sequence[Bundle],
    variants: Sequence[Variant],
    images: Halves,
    answers: _Answers,
    threshold: float,
    task: Classification,
    large_latency: Latency,
) -> Cascade:
    small, large, now = (
        answers.right(logits) for logits in (answers.small, answers.large, answers.outputs(threshold)[LOGITS])
    )
    paired = compare_paired(large, now)
    members = [
        CascadeMember(
            bundle=bundle.manifest.name,
            sha256=bundle.sha256(),
            variant=variant.name,
            size=bundle.manifest.preprocess.size,
            top1=_score(right),
        )
        for bundle, variant, right in zip(bundles, variants, (small, large), strict=True)
    ]
    return Cascade(
        small=members[0],
        large=members[1],
        threshold=threshold,
        floor=config.floor,
        chosen_on=len(images.choosing),
        judged_on=len(images.judging),
        handed_on=float((answers.margins < np.float32(threshold)).mean()),
        top1=_score(now),
        lost=paired.only_first,
        won=paired.only_second,
        p_value=paired.p_value,
        large_latency=replace(large_latency, samples_ms=()),
    )


def _score(right: NDArray[np.bool_]) -> Score:
    low, high = wilson_interval(int(right.sum()), len(right))
    return Score(value=float(right.mean()), low=low, high=high)


def _confidence(answers: _Answers, threshold: float) -> ConfidenceSource:
    """Sets of labels as the judging images ask; scores are those of the members, each with its own temperature."""
    chances = softmax(answers.outputs(threshold)[LOGITS])
    return ConfidenceSource(
        temperatures={LOGITS: 1.0},
        conformities={LOGITS: conformity(conformities_one(chances, answers.truths))},
    )


def _contents(
    config: CascadeConfig,
    bundles: Sequence[Bundle],
    task: Classification,
    source: pack.VariantSource,
    images: Halves,
    answers: _Answers,
    threshold: float,
    large: Member,
) -> pack.Contents:
    made = [bundle.manifest.provenance for bundle in bundles]
    sureness, named = answers_of(ClassificationTask(spec=task), answers.outputs(threshold))
    drift = DriftAnswers(sureness=np.array(sureness, dtype=np.float32), named=np.array(named, dtype=np.int64))
    known = [splits for bundle in bundles if (splits := bundle.splits()) is not None]
    hashes = {split: [text for one in known for text in one.shortened(split)] for split in SPLITS}
    assert isinstance(source.model, bytes)
    return pack.Contents(
        name=config.out.stem,
        task=task,
        preprocess=large.spec,
        variants=[source],
        default=NAME,
        golden=_golden(answers, threshold, large, source.model),
        provenance=Provenance(
            recipe_sha256=made[1].recipe_sha256,
            data_sha256=made[1].data_sha256,
            calibration_sha256=made[1].calibration_sha256,
            git_commit=git_commit(),
            seed=config.seed,
            packages=packages(),
            created_by=f"edgetl {__version__}",
            lineage=made[1].lineage,
            weights=tuple(dict.fromkeys((*made[1].weights, *made[0].weights))),
        ),
        splits={**hashes, "val": [*hashes["val"], *images.sha256]},
        drift=DriftSource(looks=answers.looks, answers={NAME: drift}),
    )


def _golden(answers: _Answers, threshold: float, large: Member, model: bytes) -> GoldenSet:
    """Golden images of both kinds, from the half of each that is farthest from the threshold: other machines round
    otherwise, and must hand on the same ones."""
    order = np.argsort(answers.margins, kind="stable")
    unsure = int((answers.margins < np.float32(threshold)).sum())
    share = unsure / len(order)
    count = (
        min(GOLDEN_IMAGES - 1, max(1, round(share * GOLDEN_IMAGES)))
        if 0 < unsure < len(order)
        else GOLDEN_IMAGES
    )
    handed, kept = order[: (unsure + 1) // 2], order[unsure + (len(order) - unsure) // 2 :]
    chosen = [*spread(handed.tolist(), count if unsure else 0)]
    chosen += spread(kept.tolist(), GOLDEN_IMAGES - len(chosen))
    encoded = tuple(encode_image(answers.samples[at].path, large.spec) for at in chosen)
    pixels = np.stack([load_pixels(content, large.spec) for content in encoded])
    with OnnxBackend(model, threads=1) as backend:
        rows = [{LOGITS: backend.run(_input(one, large))[LOGITS]} for one in pixels]
    return GoldenSet(images=encoded, pixels=pixels, outputs={NAME: joined(rows)})


def _record(config: CascadeConfig, found: Cascade, latency: Latency, images: Halves) -> CascadeRecord:
    worse = is_worse(found)
    ratio = latency.mean_ms / found.large_latency.mean_ms
    asked = f"the {found.floor:.1%} asked for" if found.floor is not None else "the larger model"
    reason = (
        f"{'worse than' if worse else 'no worse than'} {asked} on {found.judged_on} images, and"
        f" {'faster' if ratio < 1 else 'NOT FASTER'}: {ratio:.2f} of its mean latency"
    )
    return CascadeRecord(
        path=str(config.out),
        sha256=sha256_file(config.out),
        size_bytes=config.out.stat().st_size,
        variant=NAME,
        cascade=found,
        latency=latency,
        machine=describe(),
        left_out=images.left_out,
        holds=not worse and ratio < 1,
        reason=reason,
    )
