"""The candidates that a search begins with: each network, size and depth, at the width that should just hold the
budget."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from optuna.study import Study
from optuna.trial import TrialState as State

from edgetl.errors import ModelError
from edgetl.inputs.image import Interpolation
from edgetl.records.search import Choice
from edgetl.search.networks import Networks
from edgetl.search.settings import Prepared
from edgetl.search.space import MOST, TEACHER
from edgetl.search.widths import AIM, macs_within


class Guesses:
    """Queues them one at a time, so that the corrections of one are tried before the next.

    Sizes come in the space's order, the teacher's own first unless others were named, and of each network the one with
    the fewest blocks first: in INT8 a layer takes microseconds however narrow it is, so fewer and wider ones mostly
    win.

    Args:
        known: what was prepared: the space, and the timings that the widths follow.
        networks: makes the candidates of the filter.
        interpolation: the resize filter.
        latency_ms: the budget.
    """

    def __init__(
        self, *, known: Prepared, networks: Networks, interpolation: Interpolation, latency_ms: float
    ) -> None:
        self.known, self.networks, self.interpolation = known, networks, interpolation
        self.macs = macs_within(AIM * latency_ms, [known.whole, known.smallest], known.power)

    def queue(self, study: Study) -> None:
        """Queue the next one that was not tried, unless something waits."""
        if study.get_trials(deepcopy=False, states=(State.WAITING,)):
            return
        space = self.known.space
        tried = [_kind(trial.params) for trial in study.get_trials(deepcopy=False)]
        for kind in self._kinds():
            if _kind(space.parameters(kind)) in tried or (guess := self._guess(kind)) is None:
                continue
            study.enqueue_trial(dict(space.parameters(guess)), skip_if_exists=True)
            return

    def _guess(self, kind: Choice) -> Choice | None:
        """At the width that should just hold the budget; None where it is the same as another depth."""
        try:
            if self.networks.depth(kind) != kind.depth:
                return None
            return replace(kind, share=self.networks.within(kind, self.macs / self.networks.macs(kind)))
        except ModelError:
            return kind  # its trial says why there is no such network

    def _kinds(self) -> Iterator[Choice]:
        space = self.known.space
        depths = sorted(space.depths, reverse=True)
        first = Choice(network=TEACHER, size=space.sizes[0], share=MOST, interpolation=self.interpolation)
        for size, network, depth in itertools.product(space.sizes, space.networks, depths):
            yield replace(first, network=network, size=size, depth=depth)


def _kind(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """All of a candidate but its width."""
    return {name: value for name, value in parameters.items() if name != "share"}
