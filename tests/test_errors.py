from __future__ import annotations

import inspect
import json
import re

import pytest

from edgetl import errors


def _classes() -> dict[str, type[BaseException]]:
    return {
        name: kind
        for name, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, BaseException) and kind.__module__ == errors.__name__
    }


def test_the_tree_in_the_docstring_is_the_tree_in_the_code() -> None:
    drawn: dict[str, str] = {}
    parents = [""]
    for line in (errors.__doc__ or "").splitlines():
        if found := re.match(r"^([│ ]*)(?:├── |└── )?([A-Z]\w+)(?: {2,}|$)", line):
            depth = 0 if line[0].isalpha() else len(found[1]) // 4 + 1
            parents[depth + 1 :] = [found[2]]
            drawn[found[2]] = parents[depth]
    assert len(drawn) >= 14
    assert {name: kind.__base__.__name__ for name, kind in _classes().items()} == {
        **drawn,
        "EdgetlError": "Exception",
    }


def test_every_error_is_one_that_users_can_catch_and_has_a_docstring() -> None:
    for name, kind in _classes().items():
        assert issubclass(kind, errors.EdgetlError), name
        assert kind.__doc__, name


@pytest.mark.parametrize(
    ("problems", "kept", "text"),
    [
        ("train.lr: wrong.", ("train.lr: wrong.",), "train.lr: wrong."),
        (["a: wrong.", "b: wrong."], ("a: wrong.", "b: wrong."), "a: wrong.\nb: wrong."),
    ],
)
def test_config_error_carries_all_problems(
    problems: str | list[str], kept: tuple[str, ...], text: str
) -> None:
    error = errors.ConfigError(problems)
    assert error.problems == kept
    assert str(error) == text


def test_a_missing_dependency_names_the_remedy() -> None:
    error = errors.MissingDependencyError("onnxruntime", "Install it with: pip install onnxruntime")
    assert str(error) == "onnxruntime is not available. Install it with: pip install onnxruntime"
    assert (error.what, error.remedy) == ("onnxruntime", "Install it with: pip install onnxruntime")


def test_every_error_is_the_same_in_another_process() -> None:
    own: dict[type[BaseException], errors.EdgetlError] = {
        errors.ConfigError: errors.ConfigError(["a: wrong.", "b: wrong."]),
        errors.MissingDependencyError: errors.MissingDependencyError("TensorRT", "Install it."),
    }
    for kind in _classes().values():
        error = own.get(kind) or kind("Why.")
        assert isinstance(error, errors.EdgetlError)
        there = errors.from_plain(json.loads(json.dumps(errors.to_plain(error))))
        assert (type(there), str(there), vars(there)) == (kind, str(error), vars(error))


def test_an_image_error_is_a_data_error_and_bundle_errors_are_bundle_errors() -> None:
    assert issubclass(errors.ImageError, errors.DataError)
    assert issubclass(errors.BundleIntegrityError, errors.BundleError)
    assert issubclass(errors.BundleSchemaError, errors.BundleError)
