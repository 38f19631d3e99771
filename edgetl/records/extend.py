"""What extending a finished run returns: what was joined, and whether what was known is still known."""

from __future__ import annotations

from dataclasses import dataclass

from edgetl.records.gate import GateCheck, Verdict


@dataclass(frozen=True, kw_only=True)
class ExtendRecord:
    """The images of a finished run and the added ones as one set, in the file `index`.

    `known` are the classes of the run, in its order, and `new` those that the added images bring, which come after
    them. So many `exemplars` of the run's training images were chosen of each known class. `added` images joined,
    besides `repeated` ones that the run has already, or whose near-copies are in its validation or test split.
    """

    index: str
    run: str
    known: tuple[str, ...]
    new: tuple[str, ...]
    exemplars: dict[str, int]
    added: int
    repeated: int


@dataclass(frozen=True, kw_only=True)
class KeptGroup:
    """The answers for a group of validation images: right ones as a share in 0..1, before and after.

    `before` is None for classes that the network did not know.
    """

    title: str
    images: int
    before: float | None
    after: float


@dataclass(frozen=True, kw_only=True)
class KeptRecord:
    """Whether an extended network still knows what it knew, on the same validation images of the run before.

    `checks` are the gate's; an image that is now answered with a new class is wrong. `new` are the classes that came.
    """

    new: tuple[str, ...]
    groups: tuple[KeptGroup, ...]
    checks: tuple[GateCheck, ...]

    @property
    def verdict(self) -> Verdict:
        """The worst of the checks' verdicts: fail, then unsure, then pass."""
        found = {check.verdict for check in self.checks}
        return next((v for v in (Verdict.FAIL, Verdict.UNSURE) if v in found), Verdict.PASS)

    @property
    def sentence(self) -> str:
        """What became of the old classes, in one sentence for each check that does not pass, or the first check's."""
        failed = [check.sentence for check in self.checks if check.verdict is not Verdict.PASS]
        return "Old classes after extending: " + " ".join(failed or [self.checks[0].sentence])
