"""Backbones by name, (pruned) architectures as data, checkpoints, sizes."""
