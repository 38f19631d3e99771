"""`python -m tests.train.spread OUT`: the fits of `test_processes`, in each launched process."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from edgetl.config import Augment, Mix
from edgetl.models import backbones
from edgetl.records.scores import value
from edgetl.train.loop import fit
from edgetl.train.processes import launched
from edgetl.train.tasks.mixing import Mixing

from .test_features import images
from .tiny import TASK, entropy, fitting


def curves(accumulate: int) -> dict[str, list[float]]:
    """Losses, scores and the norms of the final weights, by augmentation; batch norm is in none of these networks."""
    found = {}
    for augment in (Augment.BASIC, Augment.PHOTOMETRIC, Augment.RANDAUGMENT):
        model = backbones.create("test_vit", 3, "none", seed=1)
        how = fitting(
            augment=augment,
            epochs=2,
            lr=1e-3,
            spread=True,
            select="top1",
            mixing=Mixing(Mix.BOTH, 0.4) if augment is Augment.BASIC else None,
            accumulate=accumulate,
        )
        history = fit(
            model,
            how,
            train=images(28, 36),
            val=images(7, seed=1),
            task=TASK,
            objective=entropy(0.1),
            state=None,
        )
        figures = [v for e in history for v in (e.loss, e.val_loss, value(e.val, "top1"))]
        found[augment.value] = figures + [float(p.detach().double().norm()) for p in model.parameters()]
    return found


if __name__ == "__main__":
    Path(f"{sys.argv[1]}-{launched().rank}").write_text(json.dumps(curves(accumulate=2)))
