"""Before the first trial: the space, the clock, and whether the budget and the floor can be reached at all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from edgetl.bench.machine import describe
from edgetl.config import Recipe
from edgetl.errors import ConfigError
from edgetl.files import read_json, sha256_json, write_json
from edgetl.inputs.image import PreprocessSpec
from edgetl.keys import key_of, sources
from edgetl.models.backbones import NO_WEIGHTS
from edgetl.progress import Progress
from edgetl.records.scores import Score, score
from edgetl.records.search import Choice, TimedVariant
from edgetl.search.clock import Clock
from edgetl.search.networks import Candidate, Networks
from edgetl.search.quiet import Quiet
from edgetl.search.settings import Prepared, SearchConfig
from edgetl.search.space import TEACHER, Space, space_of
from edgetl.search.teachers import Teachers
from edgetl.search.trials import best_variant
from edgetl.search.widths import Timing
from edgetl.tasks.all import task_of
from edgetl.tasks.metrics import chosen, metric

FILE = "prepared.json"
_MOST_EPOCHS = 8


def prepare(
    config: SearchConfig, recipe: Recipe, teachers: Teachers, out: Path, progress: Progress
) -> Prepared:
    """Find out what all trials share, and train the teacher; saved in `out`, from where a later call takes it.

    Raises:
        ConfigError: depths are named that no network can have, or the budget is below what the fastest network takes,
            which is said before the teacher is trained; or the floor is above what the teacher may reach.
        EdgetlError: as of an ordinary run.
    """
    index = teachers.index
    name = chosen(recipe.bundle.metric, task_of(index.task).metrics, setting="bundle.metric")
    space = space_of(
        recipe,
        teachers.task,
        networks=config.networks,
        sizes=config.sizes,
        depths=config.depths,
        interpolations=config.interpolations,
    )
    epochs = config.epochs or min(recipe.distill.epochs, _MOST_EPOCHS)
    key = _key(recipe, teachers, space)
    known = _measured_before(out, key)
    if known is None:
        known = _measured(config, recipe, teachers, space, progress)
    known = replace(known, key=key, metric=name, epochs=epochs)
    if known.smallest.ms > config.latency_ms:
        raise ConfigError(
            f"--latency-ms {config.latency_ms:g} is out of reach: the least possible, measured on this machine, is"
            f" {known.smallest.ms:.3g} ms, of {known.least}. Allow more, or name smaller --sizes or other --backbones."
        )
    write_json(out / FILE, known)
    teacher = score(teachers.taught(recipe.preprocess.interpolation).val, name)
    _check_floor(config.floor, teacher, name)
    known = replace(known, teacher=teacher)
    write_json(out / FILE, known)
    return known


def clock_of(recipe: Recipe, teachers: Teachers, quiet: Quiet, reference_ms: float | None) -> Clock:
    """The clock, whose reference is the uncut teacher's network without its weights."""
    p = recipe.preprocess
    assert p.mean is not None
    assert p.std is not None
    spec = PreprocessSpec(size=p.size, mean=p.mean, std=p.std)  # what a network's shape depends on
    task = teachers.task
    reference = task.network(recipe.train.backbone, NO_WEIGHTS, seed=0, size=p.size)
    return Clock(recipe, task.spec, spec, reference, quiet, reference_ms)


def _measured(
    config: SearchConfig,
    recipe: Recipe,
    teachers: Teachers,
    space: Space,
    progress: Progress,
) -> Prepared:
    """Time the whole network and the smallest ones."""
    task, size = teachers.task, recipe.preprocess.size
    networks, clock = Networks(recipe, task), clock_of(recipe, teachers, Quiet(None), None)
    first = Choice(network=TEACHER, size=size, share=1.0, interpolation=space.interpolations[0])
    if config.depths is not None:
        _check_depths(first, space, networks)
    any_size = replace(config.budget, size_mb=None)
    fastest = list[tuple[TimedVariant, Candidate]]()
    with progress.task("Timing the whole network and the smallest ones", 1 + len(space.networks)) as bar:
        backbone = task.network(recipe.train.backbone, NO_WEIGHTS, seed=0, size=size)
        clock(backbone, size)  # which says how long the reference takes
        whole = best_variant(clock(backbone, size), any_size)
        bar.advance(note=f"{whole.ms:.3g} ms")
        for network in space.networks:
            tiny = replace(first, network=network, size=min(space.sizes), depth=max(space.depths))
            smallest = networks.smallest(tiny)
            found = best_variant(clock(smallest.model, smallest.choice.size), any_size)
            fastest.append((found, smallest))
            bar.advance(note=f"{found.ms:.3g} ms")
    found, smallest = min(fastest, key=lambda one: one[0].ms)
    return Prepared(
        key="",
        metric="",
        teacher=Score(value=0.0),
        space=replace(space, least=min(one.choice.share for _, one in fastest)),
        reference_ms=clock.reference_ms,
        whole=Timing(macs=networks.macs(first), ms=whole.ms),
        smallest=Timing(macs=smallest.macs, ms=found.ms),
        least=smallest.choice.name,
        epochs=0,
    )


def _check_depths(first: Choice, space: Space, networks: Networks) -> None:
    """Raises ConfigError where no network has a block that could go."""
    deepest, size = max(space.depths), min(space.sizes)
    if deepest and not any(
        networks.depth(replace(first, network=network, size=size, depth=deepest))
        for network in space.networks
    ):
        raise ConfigError(
            f"--depths {deepest:g}: no residual block of {' or '.join(space.networks)} can be taken out whole; leave"
            " --depths out, or name other --backbones."
        )


def _key(recipe: Recipe, teachers: Teachers, space: Space) -> str:
    """Of all that the times depend on: the networks, how they are cut, exported and run, and the machine."""
    p = recipe.prune
    cuts = [p.round_to, p.max_cut, p.scope, p.keep]
    runs = [recipe.export.opset, recipe.quantize.enabled, recipe.quantize.target, recipe.bench.threads]
    return sha256_json(
        key_of(
            [
                recipe.train.backbone,
                recipe.preprocess.size,
                teachers.task.width,
                space,
                cuts,
                runs,
                describe().fingerprint,
                sources(),
            ]
        )
    )


def _measured_before(out: Path, key: str) -> Prepared | None:
    """What an earlier call measured of the same."""
    try:
        before = read_json(out / FILE, Prepared)
    except (OSError, ValueError):
        return None
    return before if before.key == key else None


def _check_floor(floor: float | None, teacher: Score, name: str) -> None:
    most = teacher.value if teacher.high is None else teacher.high
    if floor is None or floor <= most:
        return
    interval = "" if teacher.interval is None else f" (95% interval {teacher.low:.1%} to {teacher.high:.1%})"
    raise ConfigError(
        f"--floor {floor:g} is above what the teacher may reach: its {metric(name).title} on the validation split is"
        f" {teacher.value:.1%}{interval}. Lower the floor, or train a better teacher first: edgetl finetune."
    )
