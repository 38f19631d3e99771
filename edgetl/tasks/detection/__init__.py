"""Boxes around the objects in an image."""
