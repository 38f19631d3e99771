"""placeholder until the data helper writes it"""
from __future__ import annotations
from enum import StrEnum
class Resize(StrEnum):
    CROP = "crop"
    SQUASH = "squash"
    PAD = "pad"
class Interpolation(StrEnum):
    NEAREST = "nearest"
    BILINEAR = "bilinear"
    BICUBIC = "bicubic"
    LANCZOS = "lanczos"
