"""Where maps point on real defects: the share of them whose peak lies on the defect, beside the picture's middle.

`EDGETL_MAPS_BUNDLE` names a bundle that is looked at in place of one that is trained here, `EDGETL_MAPS_IMAGES` how
many pictures at most.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import edgetl
from edgetl import pipeline
from edgetl.runtime.explain import ActivationMap
from edgetl.statistics import wilson_interval
from edgetl.tasks.classification.answers import Prediction
from tests.slow.test_real_sets import RealSet, recipe_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(5400)]
FREE = "free"
Mask = NDArray[np.bool_]


def defects(pictures: Path, masks: Path, most: int | None) -> list[tuple[Path, Mask]]:
    """The test split's pictures of defects, and where these are; without the few whose masks are empty."""
    found = []
    for path in sorted(pictures.glob("test/*/*.jpg")):
        if path.parent.name == FREE:
            continue
        with Image.open((masks / path.relative_to(pictures)).with_suffix(".png")) as image:
            mask = np.asarray(image) > 0
        if mask.any():
            found.append((path, mask))
    return found[:: max(1, len(found) // most)] if most else found


def on(mask: Mask, x: float, y: float) -> bool:
    """Whether a point (x, y) in pixels lies on a defect."""
    height, width = mask.shape
    return bool(mask[min(int(y), height - 1), min(int(x), width - 1)])


def touched(mask: Mask, one: ActivationMap, x: float, y: float) -> bool:
    """Whether the map's place around a point has a part of a defect in it: that is as fine as a map can tell."""
    half = [
        one.side / count / scale / 2
        for count, scale in zip(one.values.shape[::-1], one.frame.scale, strict=True)
    ]
    left, top = (max(0, int(at - reach)) for at, reach in zip((x, y), half, strict=True))
    return bool(mask[top : int(y + half[1]) + 1, left : int(x + half[0]) + 1].any())


def line(name: str, hits: Sequence[bool]) -> str:
    low, high = wilson_interval(sum(hits), len(hits))
    return f"{name} {np.mean(hits):.1%} ({low:.1%} to {high:.1%})"


def bundle_for(folder: Path, real_set: Callable[[str], Path]) -> Path:
    """The bundle that is named, else one that is trained as `edgetl init` would have it."""
    if named := os.environ.get("EDGETL_MAPS_BUNDLE", ""):
        return Path(named)
    made = pipeline.run(recipe_for(real_set("magnetic_tile")), folder).bundle
    assert made is not None
    return made


def test_maps_peak_on_the_defect(real_set: RealSet, tmp_path: Path) -> None:
    limit = os.environ.get("EDGETL_MAPS_IMAGES", "")
    pictures, masks = (real_set(name).absolute() for name in ("magnetic_tile", "magnetic_tile_masks"))
    found = defects(pictures, masks, int(limit) if limit else None)
    path = bundle_for(tmp_path / "magnetic_tile", real_set)
    every: dict[str, list[ActivationMap]] = {}
    for variant in edgetl.load(path, threads=1).manifest.variants:
        if variant.target not in ("any", "cpu", "cpu-x86", "cpu-x86-vnni", "cpu-arm"):
            continue
        inside: dict[str, list[bool]] = {"peak": [], "middle": []}
        near: dict[str, list[bool]] = {"peak": [], "middle": []}
        every[variant.name] = []
        with edgetl.load(path, variant=variant.name, threads=1, explain=True) as session:
            for picture, mask in found:
                answer = session.predict(picture, explain=True)
                (one,) = answer.maps
                every[variant.name].append(one)
                assert isinstance(answer.prediction, Prediction)
                if answer.prediction.label == FREE:
                    continue  # Nothing was found, so nothing speaks for it.
                height, width = mask.shape
                for name, (x, y) in (("peak", one.peak), ("middle", (width / 2, height / 2))):
                    inside[name].append(on(mask, x, y))
                    near[name].append(touched(mask, one, x, y))
        answered = len(inside["peak"])
        assert answered, f"{variant.name} found no defect in {len(found)} pictures"
        print(
            f"\n{variant.name}: {answered} of {len(found)} defects answered as one, maps of"
            f" {'x'.join(map(str, one.values.shape))}; {line('peaks on the defect', inside['peak'])},"
            f" {line('the middle', inside['middle'])}; within the place, {line('peaks', near['peak'])},"
            f" {line('the middle', near['middle'])}"
        )
        if not limit:
            assert np.mean(near["peak"]) > np.mean(near["middle"])
    first, *others = every
    for name in others:
        alike = [
            np.corrcoef(a.values.reshape(-1), b.values.reshape(-1))[0, 1]
            for a, b in zip(every[first], every[name], strict=True)
            if a.index == b.index
        ]
        print(f"{name}: median correlation with the maps of {first} {np.median(alike):.4f}, of {len(alike)}")
