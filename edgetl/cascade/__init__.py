"""Cascades: a small model answers where it is sure, and hands the other images to a larger one in the same bundle."""
