"""The network that is extended: found in its run, handed on to the new one, and compared with it afterwards."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from edgetl.config import ExtendConfig
from edgetl.data.index import DataIndex
from edgetl.errors import ConfigError
from edgetl.models import checkpoint
from edgetl.records.extend import KeptGroup, KeptRecord
from edgetl.shell import command
from edgetl.tasks.all import task_of
from edgetl.tasks.base import Classification, ScoreLimits
from edgetl.train.evaluate import predict_outputs
from edgetl.train.extend.objective import Remembering
from edgetl.train.objective import Hard
from edgetl.train.sets import PixelSet
from edgetl.train.tasks.base import TrainingTask

FOLDER = "extend"
"""Of a run that goes on from another: the joined index."""


@dataclass(frozen=True, kw_only=True)
class Before:
    """The network that is extended, and what it knows.

    Attributes:
        checkpoint: its file.
        index: its images; their classes are its outputs, in order.
        share: of the soft loss, see `Remembering`.
        temperature: of the soft loss.
    """

    checkpoint: Path
    index: DataIndex
    share: float
    temperature: float


def find(config: ExtendConfig) -> tuple[Path, Path]:
    """The checkpoint and the index of the run that goes on: of its teacher, as it was adapted where it was.

    Raises:
        ConfigError: there is no such run, or it has no trained network.
    """
    run = Path(str(config.run))
    try:
        lock = tomllib.loads((run / "recipe.lock.toml").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise ConfigError(
            f"extend.run: {run} is not the folder of a run; expected one that edgetl run wrote, as in runs/NAME."
        ) from None
    adapted = "images" in lock.get("adapt", {})
    network = run / ("adapt/adapted.safetensors" if adapted else "train/teacher.safetensors")
    index = run / (FOLDER if "run" in lock.get(FOLDER, {}) else "data") / "index.json"
    for path in (index, network):
        if not path.is_file():
            raise ConfigError(
                f"extend.run: {run} has no trained network yet ({path.relative_to(run)} is missing). Finish it with "
                + command("run", run / "recipe.lock.toml", "--out", run)
            )
    return network, index


def inherit(model: nn.Module, task: TrainingTask, before: Before) -> None:
    """Give the outputs of known classes the weights that they had, in place; the rest of the network has them already.

    Args:
        model: the new network, whose first outputs are the known classes.
        task: says which layers make the outputs.
        before: the old network.
    """
    old, _ = checkpoint.load(before.checkpoint)
    known = len(before.index.labels)
    with torch.no_grad():
        for name in task.output_layers(model):
            had = dict(old.get_submodule(name).named_parameters())
            for part, parameter in model.get_submodule(name).named_parameters():
                parameter[:known] = had[part][:known]


def remembering(hard: Hard, task: TrainingTask, before: Before) -> Remembering:
    """The objective that holds a network to what `before` answers."""
    old, _ = checkpoint.load(before.checkpoint)
    return Remembering(
        hard=hard,
        before=old,
        known=len(before.index.labels),
        task=task,
        share=before.share,
        temperature=before.temperature,
    )


def judge(model: nn.Module, index: DataIndex, val: PixelSet, before: Before) -> KeptRecord:
    """Hold the extended network to what the old one answered, by the gate's paired tests on the run's own images.

    Args:
        model: the extended network.
        index: of the joined images.
        val: its validation split.
        before: the old network.
    """
    old, _ = checkpoint.load(before.checkpoint)
    known, labels = len(before.index.labels), index.labels
    was, now = (predict_outputs(network, val).argmax(axis=1) for network in (old, model))
    truth = np.asarray(val.targets)
    contents = {sample.sha256 for sample in before.index.split("val")}
    own = np.array([sample.sha256 in contents for sample in index.split("val")])
    groups = []
    for title, rows in (
        ("the run's own images", own),
        ("added images of known classes", ~own & (truth < known)),
        ("images of new classes", ~own & (truth >= known)),
    ):
        if rows.any():
            then = None if (truth[rows] >= known).all() else _share(was[rows] == truth[rows])
            groups.append(
                KeptGroup(
                    title=title,
                    images=int(rows.sum()),
                    before=then,
                    after=_share(now[rows] == truth[rows]),
                )
            )
    task = task_of(Classification(labels=labels))
    checks = task.judge(truth[own], was[own], now[own], ScoreLimits())
    return KeptRecord(new=labels[known:], groups=tuple(groups), checks=checks)


def _share(right: NDArray[np.bool_]) -> float:
    return float(right.mean())
