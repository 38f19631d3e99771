"""The bill of materials against the format's published schema, and what stands in it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgetl.bundle.archive import Bundle, open_bundle
from edgetl.bundle.pack import pack
from edgetl.records.lineage import LineageStep
from edgetl.records.origin import WeightsOrigin
from edgetl.report.sbom import bill_of_materials, encoded, engine_packages, write_bill
from edgetl.runtime.licences import LicensedPackage
from tests.bench_stage.bundles import evaluation
from tests.bundles import contents
from tests.cli.typed import edgetl

ORIGIN = WeightsOrigin(
    network="resnet18", source="https://example.com/r.pth", licence="Apache-2.0", stated_by="timm of resnet18"
)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("sbom")
    parts = contents(folder)
    made = replace(
        parts.provenance,
        lineage=(
            LineageStep(kind="weights", name="pretrained"),
            LineageStep(kind="train", name="photos", images=40, classes=("rose", "daisy"), data="c" * 64),
        ),
        weights=(ORIGIN, WeightsOrigin(network="resnet34", source="mine.pth")),
    )
    variants = [replace(parts.variants[0], val=evaluation(80)), *parts.variants[1:]]
    pack(replace(parts, provenance=made, variants=variants), folder / "photos.edgetl")
    return open_bundle(folder / "photos.edgetl")


def faults(bill: Any) -> list[str]:
    """What the schema of CycloneDX 1.6, with those that it refers to, says against a bill."""
    cyclonedx = pytest.importorskip("cyclonedx", reason="cyclonedx-python-lib holds the published schemas")
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema holds a bill to its schema")
    from referencing import Registry, Resource

    folder = Path(cyclonedx.__file__).parent / "schema" / "_res"
    names = ("bom-1.6", "spdx", "jsf-0.82")
    schemas = [json.loads((folder / f"{name}.SNAPSHOT.schema.json").read_text()) for name in names]
    registry = Registry().with_resources([(one["$id"], Resource.from_contents(one)) for one in schemas])
    checker = jsonschema.Draft7Validator(schemas[0], registry=registry)
    return [error.message for error in checker.iter_errors(bill)]


def test_the_bill_keeps_to_the_published_schema_which_can_be_broken(bundle: Bundle) -> None:
    bill = json.loads(encoded(bill_of_materials(bundle)))
    assert faults(bill) == []
    assert faults({**bill, "specVersion": 16}) != []
    bill["components"][0]["hashes"][0]["content"] = "short"
    assert faults(bill) != []


def test_a_library_reads_it_as_it_was_meant(bundle: Bundle) -> None:
    models = pytest.importorskip("cyclonedx.model.bom", reason="cyclonedx-python-lib is not installed")
    read = models.Bom.from_json(bill_of_materials(bundle))
    assert read.metadata.component.name == "flowers"
    assert {"numpy", "pillow", "onnxruntime"} <= {one.name for one in read.components}


def test_it_names_models_weights_data_and_packages(bundle: Bundle) -> None:
    bill = bill_of_materials(bundle)
    main = bill["metadata"]["component"]
    assert main["hashes"] == [{"alg": "SHA-256", "content": bundle.sha256()}]
    first, second = main["pedigree"]["ancestors"]
    assert first["licenses"] == [{"expression": "Apache-2.0"}]
    assert first["externalReferences"] == [{"type": "distribution", "url": "https://example.com/r.pth"}]
    assert "licenses" not in second
    assert second["properties"] == [{"name": "edgetl:licence-stated-by", "value": "nobody"}]
    components = {one["bom-ref"]: one for one in bill["components"]}
    model = components["model:fp32"]
    assert model["hashes"][0]["content"] == bundle.variant("fp32").sha256
    metrics = model["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
    top1 = next(one for one in metrics if one["type"] == "top1")
    assert float(top1["confidenceInterval"]["lowerBound"]) < float(top1["value"]) == 80 / 90
    assert components["data:1"]["name"] == "photos"
    numpy = next(one for one in bill["components"] if one["name"] == "numpy")
    assert numpy["purl"] == f"pkg:pypi/numpy@{numpy['version']}"
    assert "BSD-3-Clause" in numpy["licenses"][0]["expression"]
    # No index has our wheel: what one calls by this name would be another's.
    own = next(one for one in bill["components"] if one["name"] == "edgetl")
    assert "purl" not in own
    known = {"bundle", *components}
    assert all({one["ref"], *one["dependsOn"]} <= known for one in bill["dependencies"])


def test_equal_bundles_have_equal_bills_and_a_strange_licence_is_a_name(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_bill(bundle, tmp_path / "a.cdx.json")
    assert (tmp_path / "a.cdx.json").read_text() == encoded(bill_of_materials(bundle))
    odd = LicensedPackage(name="odd", version="1+2", licence="Our own", spdx=False, needs=())
    monkeypatch.setattr("edgetl.report.sbom.device_packages", lambda _: (odd,))
    bill = bill_of_materials(bundle)
    assert faults(bill) == []
    assert bill["components"][-1]["licenses"] == [{"license": {"name": "Our own"}}]
    assert bill["components"][-1]["purl"] == "pkg:pypi/odd@1%2B2"


def test_the_engines_packages_follow_the_files(bundle: Bundle) -> None:
    assert engine_packages(bundle.manifest) == ("onnxruntime", "onnxruntime-gpu")


def test_the_command_prints_or_writes_it(bundle: Bundle, tmp_path: Path) -> None:
    done = edgetl("sbom", bundle.path)
    assert json.loads(done.stdout)["bomFormat"] == "CycloneDX"
    done = edgetl("sbom", bundle.path, "-o", tmp_path / "b.cdx.json")
    assert (done.returncode, done.stdout) == (0, "")
    assert json.loads((tmp_path / "b.cdx.json").read_text())["specVersion"] == "1.6"
