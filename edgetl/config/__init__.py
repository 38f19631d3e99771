"""The recipe: one frozen model per stage, read from TOML. This package is the one place where defaults live.

Its modules stand in the order of the flow; other packages import their names from here.
"""

from __future__ import annotations

from edgetl.config.choices import (
    LOSSES_OF_BOXES,
    AdaptMethod,
    Augment,
    Calibrator,
    DistillFeatures,
    DistillLoss,
    Episodes,
    Imbalance,
    Importance,
    LabelLoss,
    Mix,
    Optimizer,
    PretrainMethod,
    PruneScope,
    Recovery,
    RelationLoss,
    Sharing,
    SourceWeights,
    Strategy,
    Target,
    Tracker,
    TrainPrecision,
    Weighting,
)
from edgetl.config.data import BUILT_IN, DataConfig, LabelsConfig, PreprocessConfig
from edgetl.config.reading import extended, for_boxes, load, parse
from edgetl.config.recipe import SECTIONS, Recipe, dotted_names, settings_of
from edgetl.config.shipping import BenchConfig, BundleConfig, ExportConfig, QuantizeConfig
from edgetl.config.student import DistillConfig, LatencyTarget, MacsTarget, PruneConfig, SpeedupTarget
from edgetl.config.task import (
    ClassificationConfig,
    DetectionConfig,
    HeadConfig,
    MultiHeadConfig,
    MultiLabelConfig,
    TaskConfig,
)
from edgetl.config.teacher import AdaptConfig, ExtendConfig, PretrainConfig, TrainConfig
from edgetl.config.values import FEW_STEPS
from edgetl.config.writing import COMMON, commented, dump

__all__ = [
    "BUILT_IN",
    "COMMON",
    "FEW_STEPS",
    "LOSSES_OF_BOXES",
    "SECTIONS",
    "AdaptConfig",
    "AdaptMethod",
    "Augment",
    "BenchConfig",
    "BundleConfig",
    "Calibrator",
    "ClassificationConfig",
    "DataConfig",
    "DetectionConfig",
    "DistillConfig",
    "DistillFeatures",
    "DistillLoss",
    "Episodes",
    "ExportConfig",
    "ExtendConfig",
    "HeadConfig",
    "Imbalance",
    "Importance",
    "LabelLoss",
    "LabelsConfig",
    "LatencyTarget",
    "MacsTarget",
    "Mix",
    "MultiHeadConfig",
    "MultiLabelConfig",
    "Optimizer",
    "PreprocessConfig",
    "PretrainConfig",
    "PretrainMethod",
    "PruneConfig",
    "PruneScope",
    "QuantizeConfig",
    "Recipe",
    "Recovery",
    "RelationLoss",
    "Sharing",
    "SourceWeights",
    "SpeedupTarget",
    "Strategy",
    "Target",
    "TaskConfig",
    "Tracker",
    "TrainConfig",
    "TrainPrecision",
    "Weighting",
    "commented",
    "dotted_names",
    "dump",
    "extended",
    "for_boxes",
    "load",
    "parse",
    "settings_of",
]
