from __future__ import annotations

import numpy as np
import pytest

from edgetl.tasks.classification.answers import softmax
from edgetl.train.adapt.choice import Scored, choose, density_ratios, neighbour_entropies


def answers(sharpness: float, count: int = 240) -> np.ndarray:
    logits = np.random.default_rng(0).normal(0, 1, (count, 3))
    logits[np.arange(count), np.arange(count) % 3] += 2
    powers = np.exp(sharpness * logits)
    return (powers / powers.sum(1, keepdims=True)).astype(np.float32)


def scored(right: np.ndarray, target: np.ndarray) -> Scored:
    """A network of these probabilities, whose confidence on source images is what it should be."""
    sure = np.log(np.array([[0.9, 0.05, 0.05]], np.float32))
    return Scored(source=np.repeat(sure, len(right), axis=0), right=right, target=np.log(target))


def right(share: float) -> np.ndarray:
    return np.arange(100) < 100 * share


def test_dense_groups_have_the_larger_entropy() -> None:
    even = np.repeat(np.eye(3, dtype=np.float32), 20, axis=0)
    assert neighbour_entropies(even).mean() == pytest.approx(np.log(19), rel=1e-3)
    assert neighbour_entropies(answers(1.0)).mean() < neighbour_entropies(answers(6.0)).mean()


def test_the_densest_network_wins_unless_it_loses_accuracy_where_labels_are() -> None:
    plain = scored(right=right(0.9), target=answers(1.0))
    better = scored(right=right(0.88), target=answers(6.0))
    broken = scored(right=right(0.5), target=answers(9.0))
    found = choose({"none": plain, "better": better, "broken": broken}, np.ones(100), "none", 0)
    assert found.name == "better"
    assert 0.6 < found.sure <= 1
    assert found.accuracy == pytest.approx({"none": 0.9, "better": 0.88, "broken": 0.5})
    assert choose({"none": plain, "broken": broken}, np.ones(100), "none", 0).name == "none"
    assert choose({"none": plain, "same": plain}, np.ones(100), "none", 0).name == "none"
    assert found.ruled_out == {"broken": "less accurate where labels are"}


def test_answers_that_crowd_into_one_class_are_dense_and_ruled_out() -> None:
    plain = scored(right=right(0.9), target=answers(1.0))
    one_class = np.tile(np.array([[0.98, 0.01, 0.01]], np.float32), (240, 1))
    found = choose(
        {"none": plain, "crowd": scored(right=right(0.9), target=one_class)}, np.ones(100), "none", 0
    )
    assert found.density["crowd"] > found.density["none"]
    assert found.name == "none"
    assert "crowd into fewer classes" in found.ruled_out["crowd"]


def test_a_gain_that_chance_explains_is_none() -> None:
    plain = answers(1.0)
    networks = {
        "none": scored(right=right(0.9), target=plain),
        "shaken": scored(right=right(0.9), target=np.roll(plain, 3, axis=0)),
    }
    found = choose(networks, np.ones(100), "none", 0)
    assert found.name == "none"
    assert found.ruled_out == {"shaken": "its answers on the target are not clearly denser"}


def test_without_source_images_only_the_answers_decide() -> None:
    none = np.zeros(0, bool)
    networks = {
        "none": scored(right=none, target=answers(1.0)),
        "other": scored(right=none, target=answers(6.0)),
    }
    found = choose(networks, np.ones(0), "none", 0)
    assert (found.name, found.accuracy, found.ruled_out) == ("other", {}, {})


def test_weights_decide_which_source_images_count() -> None:
    plain = scored(right=right(0.9), target=answers(1.0))
    other = scored(right=~right(0.2), target=answers(6.0))  # wrong on the first fifth
    unlike = np.where(right(0.2), 0.05, 1.24)
    alike = np.where(right(0.2), 4.0, 0.25)
    assert choose({"none": plain, "other": other}, unlike, "none", 0).name == "other"
    assert choose({"none": plain, "other": other}, alike, "none", 0).name == "none"


def test_source_images_that_look_like_the_target_weigh_more() -> None:
    rng = np.random.default_rng(0)
    target = rng.normal(2, 1, (80, 4)).astype(np.float32)
    source = rng.normal(0, 1, (80, 4)).astype(np.float32)
    source[:20] += 2
    weights = density_ratios(source, target, 0)
    assert weights.shape == (80,)
    assert weights.mean() == pytest.approx(1.0)
    assert weights[:20].mean() > 2 * weights[20:].mean()
    assert np.array_equal(weights, density_ratios(source, target, 0))
    assert density_ratios(source[:1], target, 0).tolist() == [1.0]


def test_networks_are_compared_at_one_sharpness() -> None:
    target = np.log(answers(2.0))
    source = np.log(answers(2.0, 100))
    one = Scored(source=source, right=right(0.9), target=target)
    soft = Scored(source=source / 5, right=right(0.9), target=target / 5)
    assert np.allclose(one.answers, soft.answers, atol=1e-4)
    assert softmax(source).max(1).mean() != pytest.approx(0.9, abs=0.01)
    low = Scored(source=source, right=right(0.9), target=source)
    assert low.answers.max(1).mean() == pytest.approx(0.9, abs=1e-3)
    found = choose({"none": soft, "same": one}, np.ones(100), "none", 0)
    assert found.density["none"] == pytest.approx(found.density["same"], abs=1e-3)


@pytest.mark.filterwarnings("ignore")
def test_density_ratios_rank_images_as_skada_s_do() -> None:
    reweight = pytest.importorskip("skada._reweight", reason="skada is not installed (extra `bench`)")
    from scipy.stats import spearmanr

    rng = np.random.default_rng(0)
    source = rng.normal(0, 1, (300, 4)).astype(np.float32)
    target = rng.normal([0.8, 0, 0, 0], 1, (300, 4)).astype(np.float32)
    domain = np.repeat([1, -2], [300, 300])
    # of two normal densities; skada's classifier of domains (0.6) gives the inverse of the ratio
    theirs = reweight.GaussianReweightAdapter()
    both = np.concatenate([source, target])
    theirs.fit(both, sample_domain=domain)
    expected = theirs.compute_weights(both, sample_domain=domain)[:300]
    assert spearmanr(density_ratios(source, target, seed=0), expected).statistic > 0.95


def test_images_as_the_target_s_camera_takes_them_choose_the_most_accurate() -> None:
    plain = scored(right=right(0.6), target=answers(1.0))
    one_class = np.tile(np.array([[0.98, 0.01, 0.01]], np.float32), (240, 1))
    better = scored(right=right(0.9), target=one_class)
    denser = scored(right=right(0.62), target=answers(6.0))
    networks = {"none": plain, "better": better, "denser": denser}
    found = choose(networks, None, "none", 0)
    assert (found.name, found.ruled_out) == ("better", {})
    assert found.accuracy == pytest.approx({"none": 0.6, "better": 0.9, "denser": 0.62})
    # Chance does not explain 30 more of 100. It does explain 2 more, so that density must speak for those too.
    assert choose({"none": plain, "denser": denser}, None, "none", 0).name == "denser"
    vague = scored(right=right(0.62), target=answers(1.0))
    assert choose({"none": plain, "vague": vague}, None, "none", 0).name == "none"
    worse = scored(right=right(0.4), target=answers(6.0))
    assert choose({"none": plain, "worse": worse}, None, "none", 0).ruled_out == {
        "worse": "less accurate where labels are"
    }
