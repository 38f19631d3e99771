"""Where a bundle comes from: package versions and the commit."""

from __future__ import annotations

_PACKAGES = (
    "edgetl",
    "torch",
    "torchvision",
    "timm",
    "torch-pruning",
    "onnx",
    "onnxruntime",
    "onnxruntime-gpu",
)


def packages() -> dict[str, str]:
    """Versions of the packages that decide the result, where they are installed."""
    from importlib import metadata

    found = {}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def git_commit() -> str:
    """The commit of the user's working folder; empty where it is no git checkout."""
    import subprocess

    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
