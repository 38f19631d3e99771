"""Distillation: a student learns from a teacher's soft targets and the labels. See `losses` and `stage`."""
