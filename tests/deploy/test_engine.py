"""What is made of a bundle's model for an engine."""

from __future__ import annotations

from pathlib import Path

from edgetl.bundle.archive import open_bundle
from edgetl.deploy.engine import _in_half_precision, _with_variant
from tests.bundle.test_confidence import SURE, packed


def test_a_variant_in_half_precision_is_as_sure_as_its_source(tmp_path: Path) -> None:
    bundle = packed(tmp_path)
    made = _in_half_precision(bundle, bundle.variant("fp32"))
    out = _with_variant(bundle, made, tmp_path / "more.edgetl")
    out.verify()
    assert out.variant("fp16").temperatures == SURE.temperatures
    assert open_bundle(tmp_path / "more.edgetl").variant("int8-cpu-x86").confidence is None
