"""What is asked of an image: the section `[task]`, of four kinds."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self, get_args

from pydantic import AfterValidator, Field, model_validator

from edgetl.config.choices import LabelLoss, Sharing, Weighting
from edgetl.config.values import Section
from edgetl.tasks.base import head_fault
from edgetl.tasks.labelling import OWN_COLUMNS, AnyLabels, HeadLabels, Labelling, OneLabel


class ClassificationConfig(Section):
    """What is asked of an image: one class."""

    kind: Literal["classification"] = "classification"
    """`classification`, one class per image; `multilabel`, any number; `multihead`, several questions; `detection`."""

    @property
    def labelling(self) -> Labelling:
        """How the data says it."""
        return OneLabel()


class MultiLabelConfig(Section):
    """What is asked of an image: any number of classes, none included. From a CSV: a column `labels` with names parted
    by | (`none`, or nothing, where there are none), or one column of 0 and 1 per class."""

    kind: Literal["multilabel"] = "multilabel"
    """`classification`, one class per image; `multilabel`, any number; `multihead`, several questions; `detection`."""
    loss: LabelLoss = LabelLoss.BCE
    """`bce`, binary cross-entropy; or `asymmetric`, for many classes of which an image has few."""

    @property
    def labelling(self) -> Labelling:
        """How the data says it."""
        return AnyLabels()


def _label_column(value: str) -> str:
    name = value.strip()
    if not name:
        raise ValueError("it is empty; name the column of the CSV that holds the head's classes")
    if name.casefold() in OWN_COLUMNS:
        raise ValueError(
            f"the column {name} holds no labels; name the column of the CSV that holds the head's classes"
        )
    return name


def _head_names(heads: dict[str, Any]) -> dict[str, Any]:
    if faults := [fault for name in heads if (fault := head_fault(name))]:
        raise ValueError("; ".join(faults))
    return heads


_TIE = 0.01


class HeadConfig(Section):
    """One of several questions."""

    kind: Literal["classification", "multilabel"] = "classification"
    """One class per image, or any number."""
    column: Annotated[str, AfterValidator(_label_column)]
    """The CSV's column with the classes' names; where it is empty, the image is not labelled for this head. For any
    number of classes, `none` says that it is labelled and shows none of them. Where a bundle is scored, the column has
    the head's name."""


class MultiHeadConfig(Section):
    """What is asked of an image: several questions on one backbone, each from a column of the CSV."""

    kind: Literal["multihead"] = "multihead"
    """`classification`, one class per image; `multilabel`, any number; `multihead`, several questions; `detection`."""
    heads: Annotated[dict[str, HeadConfig], Field(min_length=1), AfterValidator(_head_names)]
    """The questions by name, as `{species = {kind = "classification", column = "species"}}`. An empty cell of the
    column is a missing label; with kind = "multilabel", `none` is a label: the image shows none of the classes."""
    weighting: Weighting = Weighting.LEARNT
    """How the heads' losses are added: `learnt` or `equal`."""
    sharing: Sharing = Sharing.HARD
    """What the heads share: `hard`, the whole backbone; or `soft`, each adapts its last features by itself, for heads
    that ask for different things."""
    tie: Annotated[float, Field(ge=0.0)] = _TIE
    """For `soft`: weight of the penalty that ties the heads' adapters to their mean; 0 leaves them free."""

    @model_validator(mode="after")
    def _several_to_tie(self) -> Self:
        if self.sharing is Sharing.SOFT and len(self.heads) < 2:
            raise ValueError('sharing = "soft" is for two heads or more, and there is one; use "hard"')
        if self.sharing is Sharing.HARD and self.tie != _TIE:
            raise ValueError('tie is for sharing = "soft"; heads that share all have nothing to tie')
        return self

    @property
    def labelling(self) -> Labelling:
        """How the data says it."""
        return HeadLabels(
            heads=tuple(
                (
                    name,
                    OneLabel(column=head.column)
                    if head.kind == "classification"
                    else AnyLabels(column=head.column),
                )
                for name, head in self.heads.items()
            )
        )


class DetectionConfig(Section):
    """What is asked of an image: boxes around objects, from COCO's JSON, YOLO's or VOC's files, or a CSV of boxes."""

    kind: Literal["detection"] = "detection"
    """`classification`, one class per image; `multilabel`, any number; `multihead`, several questions; `detection`."""
    mosaic: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """Share of the training views that are four pictures side by side, each at half its size: for few pictures, and
    objects that come in many sizes."""

    @property
    def labelling(self) -> Labelling:
        """How the data says it."""
        return OneLabel()


TaskConfig = ClassificationConfig | MultiLabelConfig | MultiHeadConfig | DetectionConfig
KINDS = tuple(kind.model_fields["kind"].default for kind in get_args(TaskConfig))
"""Values of `task.kind`."""
