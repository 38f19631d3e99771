"""Licences of packages in SPDX's writing, from the three places where packages say them."""

from __future__ import annotations

from email.message import Message

import pytest

from edgetl.runtime.doctor import _needed_here
from edgetl.runtime.licences import device_packages, licence_of


def said(expression: str = "", text: str = "", *classifiers: str) -> Message:
    message = Message()
    if expression:
        message["License-Expression"] = expression
    if text:
        message["License"] = text
    for name in classifiers:
        message["Classifier"] = f"License :: {name}"
    return message


@pytest.mark.parametrize(
    ("metadata", "licence"),
    [
        (said("MIT AND 0BSD", "x"), ("MIT AND 0BSD", True)),
        (said("", "3-Clause BSD License"), ("BSD-3-Clause", True)),
        (said("", "", "OSI Approved :: ISC License (ISCL)"), ("ISC", True)),
        (
            said("", "", "OSI Approved :: MIT License", "OSI Approved :: Apache Software License"),
            ("MIT OR Apache-2.0", True),
        ),
        (said("", "Proprietary", "Other/Proprietary License"), ("Proprietary", False)),
        (said("", "UNKNOWN"), ("", False)),
        (said("", "Permission is hereby granted\nto anyone"), ("", False)),
        (said("", "", "OSI Approved :: A Rare License"), ("A Rare License", False)),
    ],
)
def test_a_licence_is_found_where_it_is_said(metadata: Message, licence: tuple[str, bool]) -> None:
    assert licence_of(metadata) == licence


def test_the_device_s_packages_all_state_one() -> None:
    found = {one.name: one for one in device_packages(("onnxruntime",))}
    assert {"edgetl", "numpy", "pillow", "typer", "rich", "onnxruntime"} <= found.keys()
    assert "torch" not in found
    assert [name for name, one in found.items() if not one.licence] == []
    assert "numpy" in found["onnxruntime"].needs


def test_what_another_system_needs_is_left_out() -> None:
    assert _needed_here("numpy>=1.2")
    assert _needed_here("a; python_version > '3'")
    assert not _needed_here("a; extra == 'x'")
    assert not _needed_here('a; platform_system == "Plan 9"')
    assert not _needed_here("a; sys_platform == 'plan9' and python_version > '3'")
