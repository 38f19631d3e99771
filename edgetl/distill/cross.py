"""What a detector's teacher makes of its student's features: the student's head begins, the teacher's ends."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from edgetl.models.detector import Detector


class CrossHeads(nn.Module):
    """The maps that a frozen teacher's heads give from what the first layer of a student's heads put out.

    Held to the teacher's own maps in place of the student's, so that labels and teacher do not pull at one output.
    Wang et al., "CrossKD: Cross-Head Knowledge Distillation for Object Detection" (CVPR 2024), section 3.2. Where
    widths differ, a projector learns with the student and is thrown away.

    Attributes:
        student_names: the student's modules to watch.
    """

    def __init__(self, student: Detector, teacher: Detector, *, seed: int) -> None:
        """Take both; the teacher learns nothing here.

        Args:
            student, teacher: for the same classes; the teacher may be folded.
            seed: of the projectors' first weights.
        """
        super().__init__()
        self.student_names = tuple(
            f"{kind}.{level}.0"
            for level in range(len(student.box_heads))
            for kind in ("box_heads", "class_heads")
        )
        self._teacher = (teacher,)  # in a tuple it is no part of this module
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.projectors = nn.ModuleList(
                nn.Conv2d(_width(student, name), _width(teacher, name), 1) for name in self.student_names
            )

    def forward(self, own: Mapping[str, Tensor]) -> Tensor:
        """(N, A, 4 + C) raw maps at the student's places, from what `watching` gathered of it."""
        [teacher] = self._teacher
        ends = []
        for name, projector in zip(self.student_names, self.projectors, strict=True):
            kind, level, _ = name.split(".")
            tower = teacher.get_submodule(f"{kind}.{level}")
            assert isinstance(tower, nn.Sequential)
            out = teacher.get_submodule(f"{kind.replace('heads', 'out')}.{level}")
            ends.append(out(tower[1:](projector(own[name]))))
        return Detector.joined(list(zip(ends[::2], ends[1::2], strict=True)))


def _width(network: nn.Module, name: str) -> int:
    """Channels of what a separable convolution puts out."""
    return [m for m in network.get_submodule(name).modules() if isinstance(m, nn.Conv2d)][-1].out_channels
