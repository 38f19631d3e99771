"""Choosing among adapted networks without a label of the target domain, and how sure the choice is.

Two scores that need none: the accuracy on labelled source images, as the target's camera takes them or weighted by how
much like the target they are (Sugiyama, Krauledat, Mueller, "Covariate Shift Adaptation by Importance Weighted Cross
Validation", JMLR 2007), and how densely the target's answers lie around one another (Saito et al., "Tune it the Right
Way: Unsupervised Validation of Domain Adaptation via Soft Neighborhood Density", ICCV 2021).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgetl.statistics import binomial_tail, discordant
from edgetl.tasks.classification.answers import softmax
from edgetl.train.seeds import derive, numpy_generator

_TEMPERATURE = 0.05
"""Of the neighbours' similarities, as in Saito et al."""
_MOST = 2000
"""Target images that are compared with one another at most."""
_FOLDS = 3
_RIDGE = 0.1
"""Against the mean loss of the images: with more features than images, domains are always told apart without."""
_LIMIT = 20.0
"""Largest weight of a source image, and one over the smallest: a few images must not decide alone."""
_CONFIDENCE, _WIDEST, _HALVINGS = 0.9, 5.0, 40
_RESAMPLES = 200
_CLEARLY = 0.95
"""Share of the resamples from which on a network is clearly worse."""
_CROWDED = 0.9
LEVEL = 0.05
"""A method helped where chance explains its gain less often than this."""


def density_ratios(
    source: NDArray[np.float32], target: NDArray[np.float32], seed: int
) -> NDArray[np.float64]:
    """How much more often the target domain shows an image like each source image: (n,), with a mean of 1.

    The odds of a logistic regression that tells the domains apart, each image judged by a model that has not seen it
    (three folds), limited to 1/20 and 20. Bickel, Brueckner, Scheffer, "Discriminative Learning Under Covariate Shift"
    (JMLR 2009), section 4.

    Args:
        source: (n, D) features.
        target: (m, D) features.
        seed: of the folds.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    features = np.concatenate([source, target]).astype(np.float64)
    domain = np.repeat([0, 1], [len(source), len(target)])
    folds = min(_FOLDS, len(source), len(target))
    if folds < 2:
        return np.ones(len(source))
    ridge = 1 / (_RIDGE * len(domain))  # sklearn's C, against the sum of the losses
    model = make_pipeline(
        StandardScaler(), LogisticRegression(C=ridge, class_weight="balanced", max_iter=200)
    )
    split = StratifiedKFold(folds, shuffle=True, random_state=derive(seed, "domains") % 2**32)
    chance = cross_val_predict(model, features, domain, cv=split, method="predict_proba")[: len(source), 1]
    odds = np.clip(chance / np.maximum(1 - chance, 1e-12), 1 / _LIMIT, _LIMIT)
    return np.asarray(odds / odds.mean())


@dataclass(frozen=True, kw_only=True, eq=False)
class Scored:
    """What one network says: its logits for source validation images (n, C), as they are or as the target's camera
    takes them, which of these it gets right, (n,) bool, and its logits for target images (M, C)."""

    source: NDArray[np.float32]
    right: NDArray[np.bool_]
    target: NDArray[np.float32]

    @property
    def answers(self) -> NDArray[np.float32]:
        """(M, C) probabilities for the target's images, as sharp as every other network's.

        Soft answers resemble one another and look dense; how soft they are says only how long a network was trained.
        So logits are scaled until the mean confidence on the source's images is 0.9.
        """
        low, high = -_WIDEST, _WIDEST
        for _ in range(_HALVINGS if len(self.source) else 0):
            middle = (low + high) / 2
            sharp = softmax(self.source * math.exp(middle)).max(1).mean() >= _CONFIDENCE
            low, high = (low, middle) if sharp else (middle, high)
        return softmax(self.target * math.exp((low + high) / 2)).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The chosen network, how sure the choice is (share of the resamples that make it too, in 0..1), each network's
    accuracy where labels are (0..1, weighted; none without source images) and neighbourhood density (nats) by name, and
    what rules some out."""

    name: str
    sure: float
    accuracy: dict[str, float]
    density: dict[str, float]
    ruled_out: dict[str, str]


def choose(
    networks: Mapping[str, Scored], weights: NDArray[np.float64] | None, first: str, seed: int
) -> Choice:
    """The best network of those that are not clearly worse where labels are.

    A network is ruled out where its weighted source accuracy is below that of `first` in 95% of the resamples; where
    its answers on the target crowd into fewer classes, which makes them dense whether or not they are right (the
    entropy of their mean is below nine tenths of that of `first`); and where the target's images, each compared with
    itself under `first`, are not denser in 95% of the resamples. Of the others that with the densest neighbourhoods is
    chosen.

    Source images that the target's camera takes say more: nothing but worse answers for them rules out a network that
    gets significantly more of them right (McNemar, one-sided, at 5% over all networks), and the most accurate is
    chosen.

    Args:
        networks: by name.
        weights: (n,) of the source validation images, with a mean of 1; where there are none, no accuracy rules out.
            None where those images are as the target's camera takes them.
        first: the network before adaptation; it is never ruled out, and wins where scores are equal.
        seed: of the resamples.
    """
    rng = numpy_generator(seed, "adapt", "choice")
    size, retaken = len(networks[first].target), weights is None
    rows = np.sort(rng.permutation(size)[:_MOST])
    answers = {name: scored.answers[rows] for name, scored in networks.items()}
    entropies = {name: neighbour_entropies(own) for name, own in answers.items()}
    spread = {name: _spread(own) for name, own in answers.items()}
    shares, accuracy = dict[str, NDArray[np.float64]](), dict[str, float]()
    own = np.ones(len(networks[first].right)) if weights is None else weights
    if len(own):
        draws = rng.integers(0, len(own), (_RESAMPLES, len(own)))
        every = np.arange(len(own))[None]
        shares = {name: _weighted(scored.right, own, draws) for name, scored in networks.items()}
        accuracy = {n: float(_weighted(s.right, own, every)[0]) for n, s in networks.items()}
    drawn = rng.integers(0, len(rows), (_RESAMPLES, len(rows)))
    ruled_out = {}
    for name in networks:
        if shares and np.mean(shares[name] < shares[first]) >= _CLEARLY:
            ruled_out[name] = "less accurate where labels are"
        elif retaken and _helped(networks[first].right, networks[name].right, len(networks) - 1):
            continue
        elif spread[name] < _CROWDED * spread[first]:
            ruled_out[name] = "its answers on the target crowd into fewer classes"
        elif name != first and np.mean(_means(entropies[name] - entropies[first], drawn) > 0) < _CLEARLY:
            ruled_out[name] = "its answers on the target are not clearly denser"
    open_ = [name for name in networks if name not in ruled_out]
    density = {name: float(values.mean()) for name, values in entropies.items()}
    worth = accuracy if retaken else density
    best = max(open_, key=lambda name: (worth[name], name == first))
    resampled = np.stack([shares[name] if retaken else _means(entropies[name], drawn) for name in open_])
    return Choice(
        name=best,
        sure=float((resampled[open_.index(best)] >= resampled.max(0)).mean()),
        accuracy=accuracy,
        density=density,
        ruled_out=ruled_out,
    )


def _helped(before: NDArray[np.bool_], after: NDArray[np.bool_], others: int) -> bool:
    """Whether significantly more images are right, of so many networks that were tried (Bonferroni)."""
    lost, won = discordant(before, after)
    return others * binomial_tail(won, lost + won) < LEVEL


def _means(values: NDArray[np.float64], draws: NDArray[np.int64]) -> NDArray[np.float64]:
    """(resamples,) the mean of each."""
    return np.asarray(values[draws].mean(1))


def _spread(probabilities: NDArray[np.float32]) -> float:
    """The entropy of the mean answer, in nats: how evenly the classes are answered."""
    mean = probabilities.mean(0).astype(np.float64)
    return float(-(mean * np.log(np.maximum(mean, 1e-300))).sum())


def _weighted(
    right: NDArray[np.bool_], weights: NDArray[np.float64], draws: NDArray[np.int64]
) -> NDArray[np.float64]:
    return np.asarray((right * weights)[draws].sum(1) / weights[draws].sum(1))


def neighbour_entropies(probabilities: NDArray[np.float32]) -> NDArray[np.float64]:
    """The entropy, in nats, of each target image's similarities to the others, (M,); larger is better.

    Similarities are softmax(cosine / 0.05) over the other images' probability vectors. Where answers form dense groups,
    many neighbours are equally near and the entropy is large. Saito et al. 2021, equations 3 to 5.

    Args:
        probabilities: (M, C) of the target images, M at least 2, rows summing to 1.
    """
    rows = probabilities.astype(np.float64)
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    likeness = rows @ rows.T / _TEMPERATURE
    np.fill_diagonal(likeness, -np.inf)
    likeness -= likeness.max(1, keepdims=True)
    powers = np.exp(likeness)
    shares = powers / powers.sum(1, keepdims=True)
    return np.asarray(-(shares * np.log(np.maximum(shares, 1e-300))).sum(1))
