from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import edgetl
from edgetl.bundle.archive import open_bundle
from edgetl.bundle.layout import ARTIFACT, LAYER, bundle_file
from edgetl.bundle.pack import pack
from edgetl.deploy.oci import write_oci
from edgetl.errors import BundleError, BundleIntegrityError, ConfigError
from tests.bench_stage.bundles import evaluation, write_bundle
from tests.bundles import contents, picture
from tests.cli.typed import edgetl as typed

EMPTY = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
"""SHA-256 of `{}`, as the specification has it."""


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    pack(contents(tmp_path), tmp_path / "b.edgetl")
    return tmp_path / "b.edgetl"


@pytest.fixture
def layout(bundle: Path) -> Path:
    write_oci(bundle, bundle.with_name("layout"))
    return bundle.with_name("layout")


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def blob(folder: Path, digest: str) -> Path:
    return folder / "blobs" / "sha256" / digest.removeprefix("sha256:")


def manifest_of(folder: Path) -> dict:
    index = json.loads((folder / "index.json").read_text())
    return json.loads(blob(folder, index["manifests"][0]["digest"]).read_text())


def test_the_layout_is_what_the_specification_says(bundle: Path, layout: Path) -> None:
    files = tree(layout)
    assert json.loads(files.pop("oci-layout")) == {"imageLayoutVersion": "1.0.0"}
    index = json.loads(files.pop("index.json"))
    assert (index["schemaVersion"], index["mediaType"]) == (2, "application/vnd.oci.image.index.v1+json")
    (entry,) = index["manifests"]
    assert entry["mediaType"] == "application/vnd.oci.image.manifest.v1+json"
    assert entry["artifactType"] == ARTIFACT
    assert entry["annotations"] == {"org.opencontainers.image.ref.name": "latest"}
    manifest = manifest_of(layout)
    assert (manifest["schemaVersion"], manifest["mediaType"]) == (2, entry["mediaType"])
    assert manifest["artifactType"] == ARTIFACT
    assert manifest["config"] == {
        "mediaType": "application/vnd.oci.empty.v1+json",
        "digest": f"sha256:{EMPTY}",
        "size": 2,
        "data": "e30=",
    }
    (layer,) = manifest["layers"]
    assert layer["mediaType"] == LAYER
    assert layer["annotations"] == {"org.opencontainers.image.title": "flowers.edgetl"}
    assert blob(layout, layer["digest"]).read_bytes() == bundle.read_bytes()
    # Every blob is named by its content and is asked for by a descriptor of its size; there are no others.
    asked = {one["digest"]: one["size"] for one in (entry, manifest["config"], layer)}
    assert {f"sha256:{Path(name).name}": len(content) for name, content in files.items()} == asked
    assert all(hashlib.sha256(content).hexdigest() == Path(name).name for name, content in files.items())
    assert all(isinstance(value, str) for value in manifest["annotations"].values())


def test_annotations_have_accuracy_latency_and_signature(tmp_path: Path) -> None:
    pytest.importorskip("cryptography", reason="signatures need: pip install cryptography")
    path = write_bundle(tmp_path / "colours.edgetl", test=evaluation(81))
    assert typed("keygen", tmp_path / "k.pem").returncode == 0
    assert typed("sign", path, "--key", tmp_path / "k.pem").returncode == 0
    done = typed("oci", path, "-o", tmp_path / "layout", "--tag", "v1", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    found = manifest_of(tmp_path / "layout")["annotations"]
    assert found == told["annotations"]
    assert found["edgetl.task"] == "classification"
    assert (found["edgetl.default"], found["edgetl.classes"]) == ("fp32", "3")
    assert (found["edgetl.test.top1"], found["edgetl.test.images"]) == ("0.9", "90")
    low, high = map(float, found["edgetl.test.top1.interval"].split())
    assert low < 0.9 < high
    variant = open_bundle(path).variant()
    if variant.latency is not None:
        assert float(found["edgetl.latency.p50-ms"]) == pytest.approx(variant.latency.p50_ms, rel=1e-5)
    assert len(found["edgetl.signature.public-key"]) == 64
    assert len(found["edgetl.signature"]) == 128
    assert told["digest"].startswith("sha256:")
    public = tmp_path / "k.pem.pub"
    assert typed("verify", tmp_path / "layout", "--require-signature", public).returncode == 0


def test_equal_bundles_give_equal_layouts(bundle: Path, layout: Path, tmp_path: Path) -> None:
    write_oci(bundle, tmp_path / "again")
    assert tree(tmp_path / "again") == tree(layout)
    write_oci(layout, tmp_path / "of a layout")
    assert tree(tmp_path / "of a layout") == tree(layout)


def test_another_bundle_takes_the_old_one_s_place(layout: Path, tmp_path: Path) -> None:
    other = write_bundle(tmp_path / "colours.edgetl")
    write_oci(other, layout)
    write_oci(other, tmp_path / "fresh")
    assert tree(layout) == tree(tmp_path / "fresh")
    assert open_bundle(layout).manifest.name == open_bundle(other).manifest.name


def test_every_command_takes_the_layout(bundle: Path, layout: Path, tmp_path: Path) -> None:
    (tmp_path / "p.png").write_bytes(picture())
    with edgetl.load(bundle) as of_file, edgetl.load(layout) as of_layout:
        assert of_layout.predict(picture()) == of_file.predict(picture())
        assert of_layout.verify().passed
    for words in (("info", layout), ("verify", layout), ("predict", layout, tmp_path / "p.png")):
        done = typed(*words)
        assert done.returncode == 0, done.stderr
    done = typed("onnx", layout, "-o", tmp_path / "m.onnx")
    assert done.returncode == 0, done.stderr


def test_nothing_is_changed_inside_a_layout(layout: Path, tmp_path: Path) -> None:
    pytest.importorskip("cryptography", reason="signatures need: pip install cryptography")
    typed("keygen", tmp_path / "k.pem")
    before = tree(layout)
    done = typed("sign", layout, "--key", tmp_path / "k.pem")
    assert done.returncode == 2
    assert "is an OCI image layout, whose files are named by their content and never changed" in done.stderr
    assert tree(layout) == before
    assert typed("sign", layout, "--key", tmp_path / "k.pem", "-o", tmp_path / "s.edgetl").returncode == 0
    assert open_bundle(tmp_path / "s.edgetl").signature is not None


def test_a_folder_of_other_files_is_left_alone(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("x")
    with pytest.raises(ConfigError, match="mine holds other files; name a new folder"):
        write_oci(bundle, tmp_path / "mine")
    assert list(tree(tmp_path / "mine")) == ["notes.txt"]


def _layer(folder: Path) -> Path:
    return bundle_file(folder)


def _alter_layer(folder: Path) -> None:
    content = bytearray(_layer(folder).read_bytes())
    content[len(content) // 2] ^= 1
    _layer(folder).write_bytes(content)


def _cut_layer(folder: Path) -> None:
    _layer(folder).write_bytes(_layer(folder).read_bytes()[:-1])


def _alter_manifest(folder: Path) -> None:
    path = blob(folder, json.loads((folder / "index.json").read_text())["manifests"][0]["digest"])
    path.write_text(path.read_text().replace('"edgetl.classes":"3"', '"edgetl.classes":"4"'))


def _index(change: Callable[[dict], object]) -> Callable[[Path], None]:
    def alter(folder: Path) -> None:
        index = json.loads((folder / "index.json").read_text())
        change(index)
        (folder / "index.json").write_text(json.dumps(index))

    return alter


def _digest(value: object) -> Callable[[Path], None]:
    return _index(lambda index: index["manifests"][0].update(digest=value))


BROKEN: dict[str, tuple[Callable[[Path], object], type[Exception], str]] = {
    "an altered bundle": (_alter_layer, BundleIntegrityError, "its SHA-256 is not its name. Get a fresh"),
    "a bundle cut short": (_cut_layer, BundleIntegrityError, "its descriptor says"),
    "a bundle that is missing": (lambda f: _layer(f).unlink(), BundleIntegrityError, "is missing, and"),
    "an altered manifest": (_alter_manifest, BundleIntegrityError, "its SHA-256 is not its name"),
    "an index that is no JSON": (
        lambda f: (f / "index.json").write_text("{"),
        BundleIntegrityError,
        "index.json is no file of an OCI image layout",
    ),
    "an index that is deep": (
        lambda f: (f / "index.json").write_text("[" * 200_000),
        BundleIntegrityError,
        "index.json is no file of an OCI image layout",
    ),
    "no index": (lambda f: (f / "index.json").unlink(), BundleError, "Cannot read .*index.json"),
    "another version": (
        lambda f: (f / "oci-layout").write_text('{"imageLayoutVersion":"2.0.0"}'),
        BundleError,
        "version '2.0.0', expected 1.0.0",
    ),
    "a digest that leads away": (
        _digest("sha256:../../../b.edgetl"),
        BundleIntegrityError,
        "has the digest 'sha256:../../../b.edgetl'",
    ),
    "a digest of another kind": (_digest("sha512:" + "0" * 128), BundleIntegrityError, "has the digest"),
    "a digest that is a number": (_digest(7), BundleIntegrityError, "has the digest 7"),
    "no manifests": (_index(dict.clear), BundleIntegrityError, "has no list of manifests"),
    "manifests of nothing": (
        _index(lambda index: index.update(manifests=[])),
        BundleError,
        "holds no edgetl bundle; its artifact type would be",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_layout_that_is_not_whole_is_refused(case: str, layout: Path) -> None:
    alter, kind, message = BROKEN[case]
    alter(layout)
    with pytest.raises(kind, match=message):
        open_bundle(layout)


def test_several_bundles_are_not_chosen_from(layout: Path, tmp_path: Path) -> None:
    write_oci(write_bundle(tmp_path / "colours.edgetl"), tmp_path / "other", tag="colours")
    for path in (tmp_path / "other" / "blobs" / "sha256").iterdir():
        shutil.copy(path, layout / "blobs" / "sha256")
    entry = json.loads((tmp_path / "other" / "index.json").read_text())["manifests"][0]
    _index(lambda index: index["manifests"].append(entry))(layout)
    with pytest.raises(BundleError, match=r"holds 2 bundles \(colours, latest\); copy one of them"):
        open_bundle(layout)


def test_an_index_inside_the_index_is_followed(layout: Path, bundle: Path) -> None:
    inner = (layout / "index.json").read_bytes()
    digest = hashlib.sha256(inner).hexdigest()
    blob(layout, digest).write_bytes(inner)
    entry = {
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "digest": f"sha256:{digest}",
        "size": len(inner),
    }
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    assert bundle_file(layout).read_bytes() == bundle.read_bytes()


@pytest.mark.skipif(shutil.which("skopeo") is None, reason="skopeo is not installed")
def test_skopeo_reads_it_back(layout: Path, bundle: Path, tmp_path: Path) -> None:
    copied = tmp_path / "copied"
    words = ["skopeo", "copy", "--insecure-policy", f"oci:{layout}:latest", f"oci:{copied}:latest"]
    subprocess.run(words, check=True, capture_output=True, timeout=120)
    inspected = subprocess.run(
        ["skopeo", "inspect", "--raw", f"oci:{copied}:latest"], check=True, capture_output=True, timeout=120
    )
    assert json.loads(inspected.stdout) == manifest_of(layout)
    assert bundle_file(copied).read_bytes() == bundle.read_bytes()
