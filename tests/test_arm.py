"""The built wheel on an emulated 64-bit Arm processor: it computes the same there. Of speed this says nothing.

`make test-arm` runs it, and `make test` at its end; it is skipped, with the reason, where QEMU, Debian's packages or
the wheels cannot be had, or where it takes longer than `EDGETL_ARM_SECONDS` (300).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgetl
from edgetl import pipeline
from edgetl.bundle.archive import open_bundle
from edgetl.bundle.golden import tolerance
from edgetl.bundle.manifest import Variant
from edgetl.export.litert.convert import to_tflite
from edgetl.runtime.engines.litert import LiteRtBackend
from edgetl.tasks.all import task_of
from tests.emulated import (
    ARM64,
    CORTEX_A72,
    NEOVERSE_N1,
    Clock,
    Machine,
    Processor,
    UnavailableError,
    machine,
)
from tests.images import write_set
from tests.test_pipeline import tiny_recipe

ROOT = Path(__file__).parent.parent
CACHE = ROOT / ".cache" / "arm"
SECONDS = float(os.environ.get("EDGETL_ARM_SECONDS", "300"))
IMAGES = 102
TARGETS = ["cpu-x86", "cpu-arm", "litert"]
pytestmark = [pytest.mark.arm, pytest.mark.timeout(2 * SECONDS + 600)]
SCRIPT = """
import json, platform, sys
from pathlib import Path
import numpy as np
import edgetl
bundle, folder, out = sys.argv[1:]
pictures = sorted(Path(folder).rglob("*.png"))
outputs, verified = {}, {}
with edgetl.load(bundle, threads=1) as session:
    chosen, variants = session.choice.reason, [variant.name for variant in session.manifest.variants]
for name in variants:
    with edgetl.load(bundle, variant=name, threads=1) as session:
        verified[name] = session.verify().passed
        outputs[name] = np.concatenate([given["logits"] for _, given in session.outputs_of(pictures)])
np.savez(out, **outputs)
print(json.dumps({"machine": platform.machine(), "chosen": chosen, "verified": verified}))
"""


@pytest.fixture(scope="module")
def emulated() -> Machine:
    pytest.importorskip("ai_edge_litert", reason="LiteRT is not installed: pip install ai-edge-litert")
    try:
        return machine(ARM64, CACHE, Clock(SECONDS))
    except UnavailableError as error:
        pytest.skip(f"no emulated Arm processor here: {error}")


@pytest.fixture(scope="module")
def wheel(emulated: Machine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return installed(tmp_path_factory.mktemp("wheel"))


def installed(folder: Path) -> Path:
    """The folder of the built and installed wheel."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--isolated"]
    build = ["wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run([*pip, *build], check=True)
    [built] = folder.glob("edgetl-*.whl")
    install = [
        "install",
        "--quiet",
        "--no-deps",
        "--no-compile",
        "--target",
        str(folder / "site"),
        str(built),
    ]
    subprocess.run([*pip, *install], check=True)
    return folder / "site"


@pytest.fixture(scope="module")
def bundle(emulated: Machine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("arm"), TARGETS)


def made(folder: Path, targets: Sequence[str]) -> Path:
    """A bundle with a variant for each of these, beside the folder `images` with a hundred of them."""
    write_set(folder / "images", {"train": 12, "val": 8, "test": IMAGES // 3})
    recipe = tiny_recipe(folder / "images", quantize={"target": list(targets)})
    bundle = pipeline.run(recipe, folder / "tiny").bundle
    assert bundle is not None
    return bundle


@pytest.fixture(scope="module")
def here(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    return answers_here(bundle, tmp_path_factory.mktemp("here"))


def answers_here(bundle: Path, folder: Path) -> dict[str, np.ndarray]:
    """What every variant gives on this machine."""
    out = folder / "here.npz"
    subprocess.run([sys.executable, "-c", SCRIPT, bundle, _test_images(bundle), out], check=True, cwd=ROOT)
    return dict(np.load(out))


def answers_there(
    emulated: Machine, processor: Processor, site: Path, bundle: Path, folder: Path
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What the script says on the emulated machine, and what every variant gives; skips where the time is over."""
    out = folder / "there.npz"
    try:
        said = emulated.python(
            processor, site, "-c", SCRIPT, str(bundle), str(_test_images(bundle)), str(out)
        )
    except UnavailableError as error:
        pytest.skip(f"on {processor.name}: {error}")
    return json.loads(said), dict(np.load(out))


def _test_images(bundle: Path) -> Path:
    return bundle.parent.parent / "images" / "test"


def _allowed(bundle: Path, variant: Variant, expected: np.ndarray) -> float:
    """By the rule of golden images, with what each variant gave here as what was recorded."""
    task = task_of(open_bundle(bundle).manifest.task)
    limit = tolerance(variant.precision, task, {"logits": expected})
    return limit * max(1.0, float(np.abs(expected).max()))


def assert_the_same(
    bundle: Path,
    verified: dict[str, bool],
    here: dict[str, np.ndarray],
    there: dict[str, np.ndarray],
    *,
    leaving: str = "",
) -> None:
    """Every variant but `leaving` passed its golden images there, and answers all others as here."""
    variants = [v for v in open_bundle(bundle).manifest.variants if v.name != leaving]
    assert {name: passed for name, passed in verified.items() if name != leaving} == {
        v.name: True for v in variants
    }
    for variant in variants:
        expected, found = here[variant.name], there[variant.name]
        assert len(found) == IMAGES
        allowed = _allowed(bundle, variant, expected)
        outside = np.abs(found - expected).max(axis=1) > allowed
        # What is made for one family of processors is not promised to another (`edgetl.processor.computes`). ONNX
        # Runtime computes `int8-cpu-arm` in integers on Arm alone; on x86 it stays in float between the roundings (the
        # same as with all of its optimisations off), and a few images of a tiny network are off by more than the bound.
        foreign = variant.target in ("cpu-x86", "cpu-arm")
        assert outside.sum() <= (IMAGES // 10 if foreign else 0), variant.name
        best = np.sort(expected, axis=1)
        clear = (best[:, -1] - best[:, -2] > 2 * allowed) & ~outside
        assert np.array_equal(found.argmax(axis=1)[clear], expected.argmax(axis=1)[clear]), variant.name


@pytest.mark.parametrize("processor", [CORTEX_A72, NEOVERSE_N1], ids=lambda each: each.name)
def test_every_variant_computes_the_same(
    processor: Processor,
    emulated: Machine,
    wheel: Path,
    bundle: Path,
    here: dict[str, np.ndarray],
    tmp_path: Path,
) -> None:
    report, there = answers_there(emulated, processor, wheel, bundle, tmp_path)
    assert report["machine"] == "aarch64"
    assert {v.target for v in open_bundle(bundle).manifest.variants} == {"any", "cpu", *TARGETS}
    assert_the_same(bundle, report["verified"], here, there)
    # Its integers are the same to the bit; only the last product is in float, and adds up in another order.
    expected = here["int8-litert"]
    np.testing.assert_allclose(there["int8-litert"], expected, rtol=0, atol=1e-6 * np.abs(expected).max())


INTEGERS = """
import sys
from pathlib import Path
import numpy as np
from edgetl.runtime.engines.litert import LiteRtBackend
model, images, out = map(Path, sys.argv[1:])
with LiteRtBackend(model.read_bytes(), threads=1) as backend:
    [found] = backend.run(np.load(images)).values()
np.save(out, found)
"""


@pytest.mark.parametrize("processor", [CORTEX_A72, NEOVERSE_N1], ids=lambda each: each.name)
def test_a_litert_file_of_integers_gives_the_same_bits(
    processor: Processor, emulated: Machine, wheel: Path, tmp_path: Path
) -> None:
    from tests.export.litert.test_integers import network_of_integers

    content = to_tflite(network_of_integers())
    model, images, out = (str(tmp_path / name) for name in ("m.tflite", "images.npy", "out.npy"))
    Path(model).write_bytes(content)
    pictures = np.random.default_rng(0).normal(size=(100, 6, 8, 10)).astype(np.float32)
    np.save(images, pictures)
    with LiteRtBackend(content, threads=1) as backend:
        [expected] = backend.run(pictures).values()
    try:
        emulated.python(processor, wheel, "-c", INTEGERS, model, images, out)
    except UnavailableError as error:
        pytest.skip(f"on {processor.name}: {error}")
    assert len(np.unique(expected)) > 20
    np.testing.assert_array_equal(np.load(out), expected)


def test_its_commands_work(emulated: Machine, wheel: Path, bundle: Path) -> None:
    images = _test_images(bundle)

    def run_json(command: str, *arguments: str) -> Any:
        try:
            said = emulated.python(
                NEOVERSE_N1, wheel, "-m", "edgetl", command, str(bundle), *arguments, "--json"
            )
        except UnavailableError as error:
            pytest.skip(f"{command}: {error}")
        return json.loads(said)

    verified = run_json("verify")
    assert verified["passed"] is True
    picture = images / "red" / "000.png"
    [found] = run_json("predict", str(picture))
    with edgetl.load(bundle, variant=verified["variant"], threads=1) as session:
        assert found["prediction"]["label"] == session.predict(picture).label
    assert run_json("eval", str(images.parent))["images"] == IMAGES
