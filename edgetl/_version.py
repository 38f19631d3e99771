"""The version, below everything that writes it down."""

__version__ = "0.1.0"

BUNDLE_SCHEMA = 2
"""Schema of the bundles that this version writes; it reads all up to this one. `edgetl guide changelog` has each."""
