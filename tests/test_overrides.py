"""`--set`: a value means what the setting's type says."""

from __future__ import annotations

import pytest

from edgetl import config
from edgetl.config import Recipe, Target, parse
from edgetl.errors import ConfigError
from edgetl.overrides import value_of

TEXTS = [
    "2024-05-01",
    "07:32:00",
    "1e-3",
    "null",
    "true",
    "[x]",
    "{a=1}",
    "it's",
    'a "b"',
    "a=b",
    "1_000",
    "x\ny = 3",
]


def _get(recipe: Recipe, name: str) -> object:
    for part in name.split("."):
        recipe = getattr(recipe, part)
    return recipe


def _names() -> list[str]:
    """All settings of the default recipe; another kind of task or target has its own besides."""
    defaults, found = Recipe(), []
    for name in config.dotted_names():
        try:
            _get(defaults, name)
        except AttributeError:
            assert name.startswith(("task.", "prune.target."))
        else:
            found.append(name)
    assert len(found) > 80
    return found


def _text_settings() -> list[str]:
    defaults = Recipe()
    names = [n for n in _names() if type(_get(defaults, n)) is str and n not in ("name", "task.kind")]
    assert len(names) >= 5
    return [*names, "distill.unlabelled"]


@pytest.mark.parametrize("name", _text_settings())
def test_text_is_taken_as_it_is_by_every_setting_of_text(name: str) -> None:
    for text in TEXTS:
        if not (name == "distill.unlabelled" and text == "null"):
            assert _get(parse({}, [f"{name}={text}"]), name) == text
    assert _get(parse({}, [f'{name}="2 words"']), name) == "2 words"


def test_null_unsets_every_setting_that_may_be_unset_and_no_other() -> None:
    defaults, unset = Recipe(), 0
    for name in _names():
        default = _get(defaults, name)
        if default is None:
            assert _get(parse({}, [f"{name}=null"]), name) is None
            unset += 1
        elif not isinstance(default, str | tuple):
            with pytest.raises(ConfigError, match=f"{name}: .*null"):
                parse({}, [f"{name}=null"])
    assert unset >= 5


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("train.lr", ".5", 0.5),
        ("train.epochs", "1e1", 10),
        ("seed", "0x10", 16),
        ("name", "2024", "2024"),
        ("prune.enabled", "False", False),
        ("train.select", "top1", "top1"),
        ("quantize.target", "cpu-x86,tensorrt", (Target.CPU_X86, Target.TENSORRT)),
        ("prune.keep", "a.b, c", ("a.b", "c")),
        ("prune.keep", "", ()),
        ("distill.teachers", "[2024-05-01, 'b']", ("2024-05-01", "b")),
        ("preprocess.mean", "0.5,0.25,1", (0.5, 0.25, 1.0)),
    ],
)
def test_numbers_choices_and_lists(name: str, text: str, value: object) -> None:
    assert _get(parse({}, [f"{name}={text}"]), name) == value


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train=4", "--set train=4: train is a section; name one of its settings, as in train.backbone."),
        ("train.lr=2024-05-01", "train.lr: input should be a valid number, .* got '2024-05-01'."),
        ("train.epochs=2.5", "train.epochs: input should be a valid integer, .* got 2.5."),
        ("train.epochs=true", "train.epochs: input should be a valid integer, .* got 'true'."),
        ("prune.enabled=maybe", "prune.enabled: input should be a valid boolean, .* got 'maybe'."),
        ("nme=3", "nme: no such key. Did you mean name?"),
    ],
)
def test_what_does_not_fit_is_named(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse({}, [override])
    assert caught.match(message.replace("?", r"\?").replace("+", r"\+"))


def test_a_type_without_text_takes_toml_s_numbers() -> None:
    assert value_of("1_000", int) == 1000
    assert value_of("01", int) == "01"  # no number of TOML's: the setting's own check reads it
