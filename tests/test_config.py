from __future__ import annotations

import math
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgetl import config
from edgetl.config import Recipe, dump, parse
from edgetl.data.builtin import NAMES
from edgetl.errors import ConfigError
from edgetl.records.scores import BadImages


def problems(values: dict[str, Any], overrides: list[str] | None = None) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        parse(values, overrides or [])
    return caught.value.problems


# --- defaults and documentation -------------------------------------------------------------------------------


def test_an_empty_recipe_is_the_defaults() -> None:
    assert parse({}) == Recipe()


def test_every_setting_is_documented() -> None:
    names = config.dotted_names()
    assert len(names) >= 50
    assert len(set(names)) == len(names)
    for section in config.SECTIONS:
        for key, field in config.settings_of(section).items():
            assert field.description, f"{section}.{key}"
            assert f"{section}.{key}" in names


def test_a_recipe_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Recipe().train.lr = 1.0  # type: ignore[misc]


# --- wrong keys and values ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"train": {"epoch": 3}}, "train.epoch: no such key. Did you mean train.epochs?"),
        ({"trian": {"epochs": 3}}, "trian: no such key. Did you mean train?"),
        ({"sed": 3}, "sed: no such key. Did you mean seed?"),
        ({"trian.epochs": 3}, "trian.epochs: no such key. Did you mean train?"),
        (
            {"export": {"soft_weight": 0.5}},
            "export.soft_weight: no such key. Did you mean distill.soft_weight?",
        ),
        ({"trian": 3}, "trian: no such key. Did you mean train?"),
        (
            {"bench": {"learning_rate": 3}},
            "bench.learning_rate: no such key. bench has threads, warmup, runs.",
        ),
    ],
)
def test_unknown_keys_are_refused_with_the_nearest_right_one(values: dict, message: str) -> None:
    assert problems(values) == (message,)


def test_a_hopeless_section_gets_the_list() -> None:
    [problem] = problems({"qqq": {}})
    assert problem.startswith(
        "qqq: no such key. Known are name, seed, data, task, labels, preprocess, sound, pretrain, extend, train,"
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"train": {"lr": -1.0}}, "train.lr: input should be greater than 0, got -1.0."),
        ({"train": {"lr": math.inf}}, "train.lr: input should be a finite number, got inf."),
        ({"train": {"lr": math.nan}}, "train.lr: input should be a finite number, got nan."),
        ({"train": {"epochs": "many"}}, "train.epochs: input should be a valid integer"),
        ({"train": {"epochs": 1.5}}, "train.epochs: input should be a valid integer"),
        (
            {"quantize": {"target": "gpu"}},
            "quantize.target.0: input should be 'cpu-x86', 'cpu-x86-vnni', 'cpu-arm'",
        ),
        ({"prune": {"target_speedup": 1.0}}, "prune.target.speedup.times: input should be greater than 1"),
        (
            {"prune": {"target_macs": 0.4, "target_speedup": 2.0}},
            "prune: target_macs and target_speedup are set, but only one target can hold; remove the others.",
        ),
        (
            {"prune": {"depth": 0.5, "importance": "lamp"}},
            'prune: depth = 0.5 asks for importance = "taylor", got "lamp": only an estimate of the loss',
        ),
        (
            {"prune": {"target": {"kind": "macs", "share": 1.0}}},
            "prune.target.macs.share: input should be above 0",
        ),
        (
            {"prune": {"target": {"kind": "size"}}},
            "prune.target: input tag 'size' found using 'kind' does not match",
        ),
        (
            {"prune": {"target_macs": 0.3, "target_speedup": 2.0}},  # the default, named, is named
            "prune: target_macs and target_speedup are set, but only one target can hold; remove the others.",
        ),
        (
            {"prune": {"target": {"kind": "macs"}, "target_latency_ms": 2.0}},
            "prune: target and target_latency_ms are set, but only one target can hold; remove the others.",
        ),
        (
            {"prune": {"target_latency_ms": 3.0, "target_speedup": 2.0}},
            "prune: target_latency_ms and target_speedup are set, but only one target can hold; remove the",
        ),
        *(
            (
                {"prune": {key: share}},
                f"prune.{key}: input should be above 0 and below 1, got {share}.",
            )
            for key in ("target_parameters", "max_cut")
            for share in (0.0, 1.0)
        ),
        ({"prune": {"max_drop": 1.0}}, "prune.max_drop: input should be at least 0 and below 1, got 1.0."),
        (
            {"prune": {"sparse_strength": 0.0}},
            "prune.sparse_strength: input should be greater than 0, got 0.0.",
        ),
        ({"distill": {"unlabelled": ""}}, "distill.unlabelled: string should have at least 1 character"),
        *(
            (
                {"distill": {"unlabelled_share": share}},
                f"distill.unlabelled_share: input should be above 0 and below 1, got {share}.",
            )
            for share in (0.0, 1.0)
        ),
        (
            {"distill": {"unlabelled": "photos", "loss": "dkd"}},
            "distill: loss = dkd needs the label of each image, which unlabelled images lack; use hinton or dist, or"
            " leave unlabelled unset.",
        ),
        (
            {"distill": {"unlabelled": "photos", "mix": "cutmix"}},
            "distill: mix = cutmix blends labels, which unlabelled images lack; set mix = none, or leave unlabelled"
            " unset.",
        ),
        (
            {"distill": {"unlabelled": "photos", "soft_weight": 0.0}},
            "distill: unlabelled images teach through the teacher only, which soft_weight = 0 turns off; raise it, set"
            " features, or leave unlabelled unset.",
        ),
        ({"prune": {"scope": "block"}}, "prune.scope: input should be 'global' or 'layer', got 'block'."),
        ({"preprocess": {"mean": [0.5, 0.5]}}, "preprocess.mean.2: field required"),
        ({"name": "../up"}, "name: string should match pattern"),
        ({"name": ""}, "name: string should match pattern"),
        ({"seed": -1}, "seed: input should be greater than or equal to 0, got -1."),
        ({"train": 3}, "train: input should be a valid dictionary"),
    ],
)
def test_wrong_values_are_named(values: dict, message: str) -> None:
    [problem] = problems(values)
    assert problem.startswith(message)


def test_all_errors_come_at_once() -> None:
    found = problems(
        {"train": {"lr": 0.0, "epoch": 1}, "prune": {"steps": 0}, "sed": 1},
        ["train.ema", "distill.epochs=-2"],
    )
    assert len(found) == 6
    assert found[0] == "--set train.ema: expected the form section.key=value."
    for name in ("train.lr:", "train.epoch:", "prune.steps:", "sed:", "distill.epochs:"):
        assert any(problem.startswith(name) for problem in found), name


# --- overrides ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "section", "key", "value"),
    [
        ("train.epochs=4", "train", "epochs", 4),
        ("train.lr=1e-4", "train", "lr", 1e-4),
        ("train.lr = 0.5", "train", "lr", 0.5),
        ("prune.enabled=false", "prune", "enabled", False),
        ("prune.keep=['a', 'b']", "prune", "keep", ("a", "b")),
        ("data.source=photos/my set", "data", "source", "photos/my set"),
        ("data.source='photos'", "data", "source", "photos"),
        ("data.source=a=b", "data", "source", "a=b"),
        ("quantize.target=tensorrt", "quantize", "target", (config.Target.TENSORRT,)),
        (
            "quantize.target=['cpu-x86', 'tensorrt', 'cpu-x86']",
            "quantize",
            "target",
            (config.Target.CPU_X86, config.Target.TENSORRT),
        ),
        ("preprocess.mean=[0.1, 0.2, 0.3]", "preprocess", "mean", (0.1, 0.2, 0.3)),
    ],
)
def test_overrides(override: str, section: str, key: str, value: object) -> None:
    recipe = parse({section: {}}, [override])
    assert getattr(getattr(recipe, section), key) == value
    assert getattr(getattr(parse({}, [override]), section), key) == value


def test_top_level_overrides_and_the_last_one_wins() -> None:
    recipe = parse({"name": "a", "seed": 1}, ["name=b", "seed=2", "seed=3"])
    assert (recipe.name, recipe.seed) == ("b", 3)


def test_overrides_do_not_change_the_callers_values() -> None:
    values = {"train": {"epochs": 1}}
    parse(values, ["train.epochs=2"])
    assert values == {"train": {"epochs": 1}}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.epochs", "--set train.epochs: expected the form section.key=value."),
        ("train.epoch=3", "train.epoch: no such key. Did you mean train.epochs?"),
        ("name.x=3", "--set name.x=3: name is not a section."),
        ("train.lr=fast", "train.lr: input should be a valid number"),
        ("data.source=", "data.source: it names nothing, expected a folder"),
    ],
)
def test_wrong_overrides_are_named(override: str, message: str) -> None:
    assert any(problem.startswith(message) for problem in problems({"name": "a"}, [override]))


# --- files ----------------------------------------------------------------------------------------------------


def test_a_missing_recipe_names_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"No recipe at .*r\.toml\. Write one with: edgetl init DATA_DIR"):
        config.load(tmp_path / "r.toml")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[train\nepochs = 1", "is not valid TOML: .*line 1"),
        (b"seed = 1\nseed = 2", "is not valid TOML"),
        (b"name = '\xff'", "Cannot read the recipe"),
    ],
)
def test_a_broken_recipe_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "r.toml").write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        config.load(tmp_path / "r.toml")


def test_a_folder_is_not_a_recipe(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Cannot read the recipe"):
        config.load(tmp_path)


def test_paths_are_relative_to_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "w.safetensors").touch()
    (tmp_path / "r.toml").write_text(
        '[data]\nsource = "photos"\n[train]\nweights = "w.safetensors"\n[distill]\nunlabelled = "photos"\n'
    )
    recipe = config.load(tmp_path / "r.toml")
    assert recipe.data.source == str(tmp_path / "photos")
    assert recipe.train.weights == str(tmp_path / "w.safetensors")
    assert recipe.distill.weights == "pretrained"
    assert recipe.distill.unlabelled == str(tmp_path / "photos")
    assert config.load(tmp_path / "r.toml", ["distill.unlabelled=there"]).distill.unlabelled == "there"
    (tmp_path / "r.toml").write_text('[data]\nsource = "nowhere"\n')
    assert config.load(tmp_path / "r.toml", ["data.source=digits"]).data.source == "digits"
    assert config.load(tmp_path / "r.toml").data.source == "nowhere"


# --- the lock file --------------------------------------------------------------------------------------------


TEXT = st.text(max_size=30) | st.sampled_from(
    [
        'say "hi"',
        "it's",
        "a\nb",
        "a\r\nb",
        "tab\t",
        "back\\slash",
        '"""',
        "'''",
        "# no",
        "x = 1",
        "[train]",
        " ",
    ]
)
NUMBER = st.floats(1e-300, 1e300)
SHARE = st.floats(0, 1, exclude_max=True)


@st.composite
def recipes(draw: st.DrawFn) -> Recipe:
    return Recipe(
        name=draw(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]*", fullmatch=True)),
        seed=draw(st.integers(0, 2**31 - 1)),
        data=config.DataConfig(
            source=draw(TEXT.filter(bool)),
            max_train_images=draw(st.none() | st.integers(1, 10**9)),
            bad_images=draw(st.sampled_from(BadImages)),
        ),
        preprocess=config.PreprocessConfig(
            size=draw(st.integers(16, 1024)),
            mean=draw(st.none() | st.tuples(NUMBER, NUMBER, NUMBER)),
        ),
        train=config.TrainConfig(
            backbone=draw(TEXT),
            weights=draw(TEXT),
            lr=draw(NUMBER),
            ema=draw(SHARE),
            imbalance=draw(st.sampled_from(config.Imbalance)),
        ),
        prune=config.PruneConfig(keep=tuple(draw(st.lists(TEXT, max_size=4)))),
        quantize=config.QuantizeConfig(target=draw(st.sampled_from(config.Target))),
    )


@settings(max_examples=100, deadline=None)
@given(recipes())
def test_a_dumped_recipe_parses_to_the_same(recipe: Recipe) -> None:
    text = dump(recipe)
    assert parse(tomllib.loads(text)) == recipe
    assert dump(parse(tomllib.loads(text))) == text


def test_the_lock_file_names_every_setting() -> None:
    lines = dump(Recipe()).splitlines()
    settings_named = {line.lstrip("# ").split(" ")[0] for line in lines if line and not line.startswith("[")}
    others = {"loss", "heads", "weighting", "sharing", "tie", "mosaic"}  # of other kinds of task
    assert settings_named | others == {name.rpartition(".")[2] for name in config.dotted_names()}
    assert "# max_train_images is unset" in lines


MARKS = {"kind": "multilabel", "column": "marks"}
HEADS = {"kind": {"column": "kind"}, "marks": MARKS}


@pytest.mark.parametrize(
    "task",
    [
        {},
        {"kind": "multilabel", "loss": "asymmetric"},
        {"kind": "multihead", "heads": HEADS},
        {"kind": "detection", "mosaic": 0.5},
    ],
)
def test_every_task_is_written_and_read_again(task: dict[str, Any]) -> None:
    recipe = parse({"task": task})
    assert recipe.task.kind == task.get("kind", "classification")
    for text in (dump(recipe), config.commented(recipe, {})):
        assert parse(tomllib.loads(text)) == recipe
    assert parse({}, ["task.kind=multilabel", "task.loss=asymmetric"]).task == config.MultiLabelConfig(
        loss=config.LabelLoss.ASYMMETRIC
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"task": {"kind": "several"}},
            "task.kind: expected classification, multilabel, multihead or detection, got",
        ),
        ({"task": {"loss": "bce"}}, 'task.loss: no such key. It belongs to task.kind = "multilabel".'),
        ({"task": {"kind": "multilabel", "loss": "mse"}}, "task.loss: input should be 'bce' or 'asymmetric'"),
        ({"task": {"kind": "multihead"}}, "task.heads: field required"),
        (
            {"task": {"kind": "multihead", "heads": {"a/b": {"column": "x"}}}},
            "task.heads: a head's name is 'a/b', expected letters",
        ),
        (
            {"task": {"kind": "multihead", "heads": {"images": {"column": "x"}}}},
            "task.heads: a head's name is 'images', expected letters",
        ),
        (
            {"task": {"kind": "multihead", "heads": {"a": {"column": " "}}}},
            "task.heads.a.column: it is empty; name the column",
        ),
        (
            {"task": {"kind": "multihead", "heads": {"a": {"column": "Split"}}}},
            "task.heads.a.column: the column Split holds no labels",
        ),
        (
            {"task": {"kind": "multilabel"}, "distill": {"loss": "dkd"}},
            "distill.loss = dkd compares classes of which one is right; for task.kind = multilabel take hinton.",
        ),
        (
            {"task": {"kind": "multilabel"}, "train": {"imbalance": "class_weights"}},
            "train.imbalance = class_weights weighs classes of which one is right",
        ),
        (
            {"task": {"kind": "multihead", "heads": HEADS}, "distill": {"loss": "dist"}},
            "distill.loss = dist compares classes of which one is right; for the head marks take hinton.",
        ),
        (
            {
                "task": {"kind": "multihead", "heads": {"kind": {"column": "kind"}}},
                "distill": {"loss": "dkd"},
            },
            "distill.loss = dkd asks for the class of every image",
        ),
        (
            {"task": {"kind": "multilabel"}, "labels": {"tree": "tree.toml"}},
            "labels.tree relates classes of which an image has one; for task.kind = multilabel leave it out.",
        ),
        (
            {"task": {"kind": "detection"}, "labels": {"graph": "edges.csv"}},
            "labels.graph relates classes of which an image has one; for task.kind = detection leave it out.",
        ),
    ],
)
def test_what_does_not_fit_the_task_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(values)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (
            {"tree": "a.toml", "graph": "b.csv"},
            "tree and graph are set, but only one can hold; remove the other.",
        ),
        ({"loss": "soft"}, "loss = soft asks how the classes are related; name a tree or graph."),
        (
            {"graph": "b.csv", "loss": "hierarchical"},
            "loss = hierarchical is for a tree, since a graph has no groups; take soft.",
        ),
        ({"tree": "a.toml", "softness": 0.2}, "softness is for loss = soft, and loss is plain."),
        (
            {"tree": "a.toml", "loss": "soft", "discount": 0.1},
            "discount is for loss = hierarchical, and loss is soft.",
        ),
    ],
)
def test_settings_of_a_relation_that_contradict_one_another(labels: dict[str, Any], message: str) -> None:
    assert problems({"labels": labels}) == (f"labels: {message}",)


def test_a_relation_lies_beside_the_recipe(tmp_path: Path) -> None:
    recipe, tree = tmp_path / "recipe.toml", tmp_path / "tree.toml"
    recipe.write_text('[labels]\ntree = "tree.toml"\n')
    tree.write_text('a = ["b", "c"]\n')
    assert config.load(recipe).labels.tree == str(tree)
    edges = tmp_path / "edges.csv"
    edges.write_text("a,b,weight\n")
    recipe.write_text('[labels]\ngraph = "edges.csv"\n')
    loaded = config.load(recipe, ["labels.loss=soft", "labels.softness=0.2"])
    assert loaded.labels == config.LabelsConfig(graph=str(edges), loss=config.RelationLoss.SOFT, softness=0.2)


@pytest.mark.parametrize("full", [True, False])
@settings(max_examples=40, deadline=None)
@given(recipes())
def test_a_commented_recipe_parses_to_the_same(full: bool, recipe: Recipe) -> None:
    text = config.commented(
        recipe, {"train.lr": "the photos are few\nand small", "data.max_train_images": "x"}, full=full
    )
    assert parse(tomllib.loads(text)) == recipe
    assert "# Chosen: the photos are few" in text


def test_a_short_recipe_has_what_was_chosen_and_the_ten_that_people_change() -> None:
    assert len(config.COMMON) == 10
    assert set(config.COMMON) <= set(config.dotted_names())
    recipe = parse({"name": "photos", "data": {"source": "photos"}, "train": {"imbalance": "sampling"}})
    text = config.commented(recipe, {"train.imbalance": "classes have 4 to 90 images"}, full=False)
    settings = re.findall(r"^(?:# )?([a-z_]+) =", text, re.MULTILINE)
    rest = sorted(name.partition(".")[2] for name in config.COMMON)
    assert sorted(settings) == sorted(["name", "seed", "source", "imbalance", *rest])
    assert '# Chosen: classes have 4 to 90 images\nimbalance = "sampling"\n' in text
    assert text.startswith("# A recipe for edgetl.")
    assert "edgetl guide settings" in text
    assert len(text.splitlines()) < 80
    whole = config.commented(recipe, {})
    assert len(re.findall(r"^# [a-z_]+ =", whole, re.MULTILINE)) > 90
    assert "edgetl guide" not in whole


def test_a_built_in_set_is_no_folder_beside_the_recipe(tmp_path: Path) -> None:
    assert set(config.BUILT_IN) == set(NAMES)
    (tmp_path / "digits").mkdir()
    (tmp_path / "photos").mkdir()
    recipe = tmp_path / "recipe.toml"
    for source, expected in (("digits", "digits"), ("photos", str(tmp_path / "photos"))):
        recipe.write_text(f'[data]\nsource = "{source}"\n')
        assert config.load(recipe).data.source == expected


@pytest.mark.parametrize(
    ("older", "target"),
    [
        ({"target_macs": 0.4}, config.MacsTarget(share=0.4)),
        ({"target_latency_ms": 3.0}, config.LatencyTarget(ms=3.0)),
        ({"target_speedup": 2.0}, config.SpeedupTarget(times=2.0)),
    ],
)
def test_targets_of_older_recipes_are_read_and_written_as_one(
    older: dict[str, float], target: config.MacsTarget | config.LatencyTarget | config.SpeedupTarget
) -> None:
    recipe = config.parse({"prune": older})
    assert recipe.prune.target == target
    assert config.parse(tomllib.loads(config.dump(recipe))) == recipe
    (key, value), *_ = ((k, v) for k, v in target if k != "kind")
    again = config.parse({}, [f'prune.target={{kind = "{target.kind}", {key} = {value}}}'])
    assert again.prune.target == target


def test_a_source_may_have_a_name_that_is_not_utf_8() -> None:
    assert config.DataConfig(source="caf\udce9.csv").source == "caf\udce9.csv"
