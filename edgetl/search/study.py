"""The study on Optuna: where its trials are kept, that all who share it search the same, and that none is lost."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, assert_never

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.storages.journal import JournalFileBackend, JournalRedisBackend
from optuna.study import Study
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as State

from edgetl.errors import ConfigError, EdgetlError, StorageError
from edgetl.records.codec import from_json, to_json
from edgetl.records.search import Choice
from edgetl.search.presence import is_dead

DATABASE = "search.db"
_SPACE = "space"
_EPOCHS, _SLOW = "epochs", "too slow"
WORKER = "worker"
"""Attribute of a trial: the name of the worker that it is with."""
_HEARTBEAT_S, _GRACE_S = 20, 120
_BUSY_S = 120
"""A worker waits so long for another one's write to SQLite."""
_RETRIES = 3
_STARTUP = 6
_FIRST_EPOCHS, _KEPT = 4, 2
"""Asynchronous successive halving (Li et al. 2020): the first epochs after which a candidate may be stopped, and of
how many that came so far one goes on to so many times the epochs. Not fewer: at the height of the learning rate losses
rank badly, and to cut, export and time a candidate takes as long as four epochs."""


class Sampler(StrEnum):
    """How candidates are drawn: `tpe`, by what earlier ones gave (Bergstra et al. 2011), or `random`."""

    TPE = "tpe"
    RANDOM = "random"


def place_of(storage: str | None, folder: Path) -> str:
    """Where trials are kept, as it may be shown: a URL without its password, or a file."""
    if storage is None:
        return str(folder / DATABASE)
    scheme, separator, rest = storage.partition("://")
    secret, at, host = rest.rpartition("@")
    return f"{scheme}://{secret.partition(':')[0]}@{host}" if separator and at else storage


def open_study(
    storage: str | None,
    folder: Path,
    name: str,
    space: Mapping[str, Any],
    *,
    sampler: Sampler,
    seed: int,
) -> Study:
    """Open the study, or make it.

    Args:
        storage: a URL of a database (`postgresql://...`, `sqlite:///FILE`) or of Redis, or a journal's file; a database
            in `folder` where None.
        folder: of the search.
        name: of the study.
        space: what is searched, as plain JSON values; all who share the study must agree on it.
        sampler: how candidates are drawn.
        seed: of what this worker draws, below 2^32.

    Raises:
        StorageError: the storage cannot be reached.
        ConfigError: the study searches something else.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    where = place_of(storage, folder)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # heartbeats are called experimental
            study = optuna.create_study(
                storage=_opened(storage, folder),
                study_name=name,
                pruner=optuna.pruners.SuccessiveHalvingPruner(_FIRST_EPOCHS, _KEPT),
                direction="maximize",
                load_if_exists=True,
            )
            _agree(study, json.loads(json.dumps(space)), where)
            # Else a call that goes on would draw again what the first one drew.
            study.sampler = _sampler(sampler, (seed + len(study.get_trials(deepcopy=False))) % 2**32)
    except EdgetlError:
        raise
    except Exception as error:  # of whichever driver the URL names
        raise StorageError(
            f"Cannot reach the storage {where}: {_cause(error)}. Name another one with --storage, or leave it out to"
            " keep the trials in the search's folder."
        ) from error
    return study


def _opened(storage: str | None, folder: Path) -> BaseStorage:
    if storage is not None and "://" not in storage:
        return JournalStorage(JournalFileBackend(str(Path(storage))))
    if storage is not None and storage.startswith(("redis://", "rediss://")):
        return JournalStorage(JournalRedisBackend(storage))
    url = storage or f"sqlite:///{(folder / DATABASE).absolute()}"
    waits = {"connect_args": {"timeout": _BUSY_S}} if url.startswith("sqlite") else {}
    return RDBStorage(
        url,
        engine_kwargs=waits,
        heartbeat_interval=_HEARTBEAT_S,
        grace_period=_GRACE_S,
        heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(max_retry=_RETRIES),
    )


def _sampler(kind: Sampler, seed: int) -> optuna.samplers.BaseSampler:
    match kind:
        case Sampler.TPE:
            return optuna.samplers.TPESampler(seed=seed, n_startup_trials=_STARTUP)
        case Sampler.RANDOM:
            return optuna.samplers.RandomSampler(seed=seed)
        case _:
            assert_never(kind)


def _agree(study: Study, space: Mapping[str, Any], where: str) -> None:
    """Raises ConfigError where the study was begun with another space."""
    if _SPACE not in study.user_attrs:
        study.set_user_attr(_SPACE, dict(space))
        return
    before = study.user_attrs[_SPACE]
    changed = [key for key in {**before, **space} if before.get(key) != space.get(key)]
    if not changed:
        return
    stated = "; ".join(f"{key}: {before.get(key)} there, {space.get(key)} here" for key in changed)
    raise ConfigError(
        f"The study {study.study_name} in {where} searches something else ({stated}). Take the change back to go on"
        " with it, or give this search a study of its own: another --out, or another --study in a shared storage."
    )


def _cause(error: Exception) -> str:
    """The first line of what a driver says, without its own address."""
    text = str(getattr(error, "orig", None) or error).strip()
    return (text.splitlines() or [type(error).__name__])[0].rstrip(".")


def epochs_of(study: Study, minutes: float | None) -> int | None:
    """Epochs of the ordinary run that a search of so many minutes chose; None where none has come so far."""
    kept = study.user_attrs.get(_EPOCHS)
    return int(kept["epochs"]) if kept is not None and kept["minutes"] == minutes else None


def keep_epochs(study: Study, minutes: float | None, epochs: int) -> None:
    """Remember what `epochs_of` gives."""
    study.set_user_attr(_EPOCHS, {"minutes": minutes, "epochs": epochs})


class TooSlow:
    """Candidates that were over the budget in their ordinary run, as the study remembers them.

    Args:
        study: where they are kept.
    """

    def __init__(self, study: Study) -> None:
        self._study = study
        self._ms = {from_json(Choice, choice): float(ms) for choice, ms in study.user_attrs.get(_SLOW, [])}

    def __contains__(self, choice: Choice) -> bool:
        return choice in self._ms

    def ms(self, choice: Choice) -> float:
        """What a candidate took; KeyError where it was not too slow."""
        return self._ms[choice]

    def add(self, choice: Choice, ms: float) -> None:
        """Remember what a candidate took."""
        self._ms[choice] = ms
        self._study.set_user_attr(_SLOW, [[to_json(one), took] for one, took in self._ms.items()])


def revive(study: Study) -> int:
    """Put the trials of workers that have died back in the queue; says how many.

    Those of this machine are known by their locks; those of others end when their heartbeat has stopped for a while,
    where the storage has one.
    """
    revived = 0
    for trial in study.get_trials(deepcopy=False, states=(State.RUNNING,)):
        name = trial.user_attrs.get(WORKER)
        if name is not None and is_dead(name) and requeue(study, trial):
            revived += 1
    return revived


def requeue(study: Study, trial: FrozenTrial) -> bool:
    """Give a trial up, and have its candidate tried again; False where another worker did so."""
    try:
        study.tell(trial.number, state=State.FAIL)
    except ValueError:  # ended meanwhile
        return False
    study.enqueue_trial(dict(trial.params))
    return True
