"""What a finished run says of itself: the report, its card and its bill of materials."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from edgetl import config as recipes
from edgetl.pipeline.stages import Stage
from edgetl.progress import Progress, ProgressTask
from edgetl.records.adapt import AdaptRecord
from edgetl.records.doubts import DoubtsRecord
from edgetl.records.gate import Verdict
from edgetl.records.mistakes import MistakesRecord
from edgetl.records.train import notes_of
from edgetl.tasks.all import spec_of

if TYPE_CHECKING:
    from edgetl.pipeline.flow import Run
    from edgetl.report.run import RunReport


def report(run: Run) -> RunReport:
    """Write the report, the model card and the bill of materials of a run that went to its end."""
    from edgetl.bundle.archive import open_bundle
    from edgetl.bundle.provenance import git_commit, packages
    from edgetl.report.card import CARD_NAME, write_card
    from edgetl.report.page.run import write_report
    from edgetl.report.run import RunReport
    from edgetl.report.sbom import SUFFIX, write_bill

    r = run.records
    found = RunReport(
        name=run.recipe.name,
        recipe=recipes.dump(run.recipe),
        task=spec_of(r[Stage.MEASURE].task, run.index.task),
        data=r[Stage.DATA],
        pretrain=r[Stage.PRETRAIN],
        adapt=r[Stage.ADAPT],
        teacher=r[Stage.TRAIN],
        prune=r[Stage.PRUNE],
        student=r[Stage.DISTILL],
        export=r[Stage.EXPORT],
        quantize=r[Stage.QUANTIZE],
        measure=r[Stage.MEASURE],
        bundle=r[Stage.BUNDLE],
        stage_seconds={
            stage.value: run.cache.seconds(stage.value)
            for stage in Stage
            if stage not in (Stage.PRETRAIN, Stage.ADAPT) or r[stage] is not None
        },
        warnings=_warnings(run),
        provenance={
            **packages(),
            "git commit": git_commit() or "none",
            "data sha256": run.index.sha256,
            "seed": str(run.recipe.seed),
        },
        created=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )
    found = replace(found, mistakes=_mistakes(run, found), doubts=_doubts(run))
    write_report(found, run.dir)
    bundle = open_bundle(run.dir / found.bundle.path)
    write_card(bundle, found, run.dir / CARD_NAME)
    write_bill(bundle, bundle.path.with_suffix(SUFFIX))
    return found


def _doubts(run: Run) -> DoubtsRecord:
    """Labels that may be wrong, by networks that have not learned from them."""
    from edgetl.measure import doubts

    inputs = doubts.DoubtsInputs(
        index=run.index,
        teacher=run.teacher,
        spec=run.spec,
        backbone=run.recipe.train.backbone,
        weights=run.recipe.train.weights,
        seed=run.recipe.seed,
        pixels_dir=run.pixels_dir,
    )
    record, _ = run.cache.run(
        "doubts",
        config=None,
        inputs=inputs,
        kind=DoubtsRecord,
        outputs=lambda _: [],
        work=lambda out: doubts.run(inputs, out=out, progress=run.progress),
    )
    return record


def _mistakes(run: Run, report: RunReport) -> MistakesRecord | None:
    """The mistakes that the shipped variant is most sure of, where it gives one class to an image."""
    from edgetl.measure import mistakes
    from edgetl.report.run import headline
    from edgetl.tasks.all import detail_of

    head = headline(report)
    detail = detail_of(head.student)
    if detail.kind != "classification" or not detail.worst:
        return None
    inputs = mistakes.MistakesInputs(
        shipped=head.shipped,
        worst=detail.worst,
        split=head.split,
        index=run.index,
        spec=run.student_spec,
        teacher=run.teacher,
        teacher_spec=run.spec,
        run_dir=run.dir,
    )
    return mistakes.run(inputs, progress=run.progress)


def _warnings(run: Run) -> tuple[str, ...]:
    """What was warned of in this call, and what the records say: all there is of stages that were done before."""
    r = run.records
    teacher, pruned, student = r[Stage.TRAIN], r[Stage.PRUNE], r[Stage.DISTILL]
    whole = [pruned.note] if pruned and pruned.note else []
    if teacher.start is not None and not teacher.start.comparison.helped:
        whole.append(teacher.start.note)
    if teacher.kept is not None and teacher.kept.verdict is not Verdict.PASS:
        whole.append(teacher.kept.sentence)
    adapted: AdaptRecord | None = r[Stage.ADAPT]
    between = (*(adapted.epochs if adapted else ()), *(pruned.epochs if pruned else ()))
    epochs = (*teacher.epochs, *between, *student.epochs)
    whole += r[Stage.MEASURE].doubts
    return tuple(dict.fromkeys([*run.warnings.seen, *notes_of(epochs), *whole]))


class Warnings:
    """Passes everything on and keeps the warnings for the report."""

    def __init__(self, inner: Progress) -> None:
        self.inner = inner
        self.seen: list[str] = []

    @contextmanager
    def task(self, description: str, total: int) -> Iterator[ProgressTask]:
        """As `Progress` has it."""
        with self.inner.task(description, total) as task:
            yield task

    def message(self, text: str) -> None:
        """As `Progress` has it."""
        self.inner.message(text)

    def warning(self, text: str) -> None:
        """As `Progress` has it, each text once."""
        # The source is looked through twice, and each phase of training may say the same.
        if text not in self.seen:
            self.seen.append(text)
            self.inner.warning(text)
