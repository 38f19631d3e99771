"""pytest plugin: hold a bundle to its baseline in a test. pytest imports this at every start: nothing heavy here.

    @pytest.mark.edge(bundle="model.edgetl", baseline="baseline.json", data="photos")
    def test_model(assert_accuracy, assert_latency, assert_footprint):
        assert_accuracy()
        assert_latency()
        assert_footprint()

What the marker leaves out comes from the options `--edge-bundle`, `--edge-baseline` and so on; see `pytest --help`. A
bundle is measured once for all tests that ask the same of it, and never two at a time, pytest-xdist or not.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

if TYPE_CHECKING:
    from edgetl.gate.baseline import Baseline
    from edgetl.gate.compare import Limits
    from edgetl.records.gate import GateCheck, GateReport
    from edgetl.records.scores import SetUse
    from edgetl.runtime.session import Session

_LATENCY = ("latency",)
_FOOTPRINT = ("size", "memory", "load time", "precision", "off accelerator")
"""Names of checks; all others are of scores, which are the task's and may name a head."""
_PATHS = ("bundle", "baseline", "against", "data", "history")
_OPTIONS = {
    "bundle": "The bundle to judge.",
    "baseline": "The baseline to hold it to, a file of `edgetl baseline`.",
    "against": "Or another bundle, which is measured side by side with it.",
    "history": "With a baseline: a file of `edgetl bench --history`, to know how this machine differs between runs.",
    "data": "Labelled images to score both on; else the bundles' own figures are compared.",
    "variant": "A model variant instead of the default one.",
    "target": "The engine instead of the one that suits this machine.",
}
_BAD_IMAGES = ("refuse", "skip")
"""Values of `edgetl.records.scores.BadImages`, which is not imported here."""
_HEADERS = ("bundle", "check", "baseline", "now", "change", "allowed", "result")

_NAMED = 5
"""Skipped images that are named."""

_Row = list[str]
_ROWS = pytest.StashKey[list[_Row]]()
_NOTES = pytest.StashKey[list[str]]()
# Results whose sentences the job's summary repeats.
_REPEATED = ("FAILED", "cannot tell")


@dataclass(frozen=True, kw_only=True)
class EdgeSettings:
    """What the marker `edge` and the options ask for. `limits` are fields of `edgetl.gate.compare.Limits`."""

    bundle: Path
    baseline: Path | None = None
    against: Path | None = None
    data: Path | None = None
    history: Path | None = None
    variant: str | None = None
    target: str = "auto"
    threads: int | None = None
    bad_images: str = "refuse"
    allow_other_machine: bool = False
    limits: Mapping[str, float] = field(default_factory=dict)


# --- options and the marker --------------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options, all beginning with `--edge-`."""
    group = parser.getgroup("edge", "edge models (edgetl)")
    for name, text in _OPTIONS.items():
        group.addoption(f"--edge-{name}", dest=f"edge_{name}", metavar=name.upper(), help=text)
    group.addoption("--edge-threads", dest="edge_threads", type=int, help="Threads of the inference engine.")
    group.addoption(
        "--edge-bad-images",
        dest="edge_bad_images",
        choices=_BAD_IMAGES,
        help="Images that cannot be read: refuse the set (default), or skip them, named and counted.",
    )
    group.addoption(
        "--edge-allow-other-machine",
        dest="edge_allow_other_machine",
        action="store_true",
        help="On another machine than the baseline's, do not judge latency, memory and load time.",
    )
    group.addoption(
        "--edge-unsure",
        dest="edge_unsure",
        choices=("fail", "skip"),
        default="fail",
        help="What becomes of a test whose gate cannot tell (default: fail).",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line(
        "markers",
        "edge(bundle, baseline, against, data, history, variant, target, threads, bad_images, allow_other_machine, "
        "max_accuracy_drop, ...): what to measure and hold to what, for the fixtures edge_session, edge_baseline, "
        "edge_report, assert_accuracy, assert_latency and assert_footprint. All by keyword; "
        "limits as in edgetl.gate.compare.Limits.",
    )
    if not hasattr(config, "workerinput"):  # A worker of pytest-xdist shows nothing.
        config.pluginmanager.register(_Summary(), "edgetl-summary")


def _settings(request: pytest.FixtureRequest) -> EdgeSettings:
    """The settings of a test: its markers, the nearest first, then the options."""
    import dataclasses

    from edgetl.gate.compare import Limits

    config, given = request.config, dict[str, Any]()
    limits = {item.name for item in dataclasses.fields(Limits)}
    names = {item.name for item in dataclasses.fields(EdgeSettings)} - {"limits"}
    for mark in reversed(list(request.node.iter_markers("edge"))):
        if mark.args:
            _give_up("The marker edge takes keywords only, e.g. edge(bundle='model.edgetl').")
        if unknown := sorted(mark.kwargs.keys() - names - limits):
            known = ", ".join(sorted(names | limits))
            _give_up(f"The marker edge does not know {', '.join(unknown)}; it knows {known}.")
        given |= mark.kwargs
    given |= {name: config.rootpath / given[name] for name in _PATHS if given.get(name) is not None}
    for name in names - given.keys():
        value = config.getoption(f"edge_{name}")
        if value is not None:
            given[name] = config.invocation_params.dir / value if name in _PATHS else value
    if "bundle" not in given:
        _give_up("No bundle is named: give @pytest.mark.edge(bundle=...) or --edge-bundle.")
    if (threads := given.get("threads")) is not None and threads < 1:
        _give_up(f"threads is {threads}, expected at least 1.")
    if (bad := given.get("bad_images", "refuse")) not in _BAD_IMAGES:
        _give_up(f"bad_images is {bad!r}, expected {' or '.join(map(repr, _BAD_IMAGES))}.")
    chosen = {name: given[name] for name in names & given.keys()}
    return EdgeSettings(**chosen, limits={name: given[name] for name in limits & given.keys()})


# --- fixtures ----------------------------------------------------------------------------------------


@pytest.fixture
def edge_session(request: pytest.FixtureRequest) -> Iterator[Session]:
    """The bundle's model, loaded: `edge_session.predict(image)`."""
    from edgetl.errors import EdgetlError
    from edgetl.runtime.session import load

    settings = _settings(request)
    try:
        session = load(
            settings.bundle,
            target=settings.target,
            variant=settings.variant,
            threads=settings.threads,
        )
    except EdgetlError as error:
        _give_up(str(error))
    with session:
        yield session


@pytest.fixture
def edge_baseline(request: pytest.FixtureRequest) -> Baseline:
    """The baseline's figures, as they stand in the file."""
    from edgetl.errors import EdgetlError
    from edgetl.gate.baseline import load

    settings = _settings(request)
    if settings.baseline is None:
        _give_up("No baseline is named: give @pytest.mark.edge(baseline=...) or --edge-baseline.")
    try:
        return load(settings.baseline)
    except EdgetlError as error:
        _give_up(str(error))


@pytest.fixture
def edge_report(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    record_property: Callable[[str, object], None],
) -> GateReport:
    """What the gate found: the bundle measured and held to its baseline, or to the bundle `against`."""
    from edgetl.errors import EdgetlError

    settings, folder = _settings(request), tmp_path_factory.getbasetemp()
    # Workers of pytest-xdist have folders below the one that they share.
    shared = folder.parent if hasattr(request.config, "workerinput") else folder
    try:
        report = _measured(settings, shared)
    except EdgetlError as error:
        # The remedy by the name that it has in pytest.
        _give_up(str(error).replace("--bad-images skip", "--edge-bad-images=skip"))
    for check in report.checks:
        name = f"edge.{check.name.replace(' ', '_')}"
        for key in ("verdict", "baseline", "current", "change", "limit"):
            record_property(f"{name}.{key}", str(getattr(check, key)))
    request.node.stash[_ROWS] = [_row(report, check) for check in report.checks]
    if report.image_set is not None and (skipped := report.image_set.skipped):
        record_property("edge.skipped_images", str(len(skipped)))
        request.node.stash[_NOTES] = _skipped(settings, report.image_set)
    return report


@pytest.fixture
def assert_accuracy(edge_report: GateReport, request: pytest.FixtureRequest) -> Callable[[], None]:
    """Call it: fails where a score of the task, of any head, went down by more than is allowed."""
    return _assertion(edge_report, None, request.config)


@pytest.fixture
def assert_latency(edge_report: GateReport, request: pytest.FixtureRequest) -> Callable[[], None]:
    """Call it: fails where the median latency grew by more than is allowed."""
    return _assertion(edge_report, _LATENCY, request.config)


@pytest.fixture
def assert_footprint(edge_report: GateReport, request: pytest.FixtureRequest) -> Callable[[], None]:
    """Call it: fails where size, peak memory, load time or the bits of the arithmetic grew by more than is allowed."""
    return _assertion(edge_report, _FOOTPRINT, request.config)


def _measured(settings: EdgeSettings, shared: Path) -> GateReport:
    """The report for these settings: measured alone, once; other tests and workers read it from `shared`."""
    from edgetl import files
    from edgetl.errors import BaselineError
    from edgetl.gate.alone import alone
    from edgetl.gate.compare import Limits
    from edgetl.records.gate import GateReport

    if (settings.baseline is None) == (settings.against is None):
        raise BaselineError("Name one thing to compare with: a baseline or another bundle (against).")
    limits = Limits(**settings.limits)
    # What was measured of a file holds as long as the file is the same.
    contents = [
        files.sha256_file(p)
        for p in (settings.bundle, settings.baseline, settings.against)
        if p and p.is_file()
    ]
    kept = shared / f"edge-{files.sha256_json([repr(settings), contents])[:16]}.json"
    with alone():
        if not kept.exists():
            files.write_json(kept, _measure(settings, limits))
        return files.read_json(kept, GateReport)


def _measure(settings: EdgeSettings, limits: Limits) -> GateReport:
    from edgetl.gate.stage import gate_against, gate_baseline
    from edgetl.records.scores import BadImages

    if settings.against is not None:
        return gate_against(
            settings.bundle,
            settings.against,
            limits=limits,
            data=settings.data,
            variant=settings.variant,
            target=settings.target,
            threads=settings.threads,
            bad_images=BadImages(settings.bad_images),
        )
    assert settings.baseline is not None
    return gate_baseline(
        settings.bundle,
        settings.baseline,
        limits=limits,
        data=settings.data,
        variant=settings.variant,
        target=settings.target,
        threads=settings.threads,
        history=settings.history,
        bad_images=BadImages(settings.bad_images),
        allow_other_machine=settings.allow_other_machine,
    )


def _skipped(settings: EdgeSettings, used: SetUse) -> list[str]:
    """Lines on the images that were left out."""
    head = f"{settings.data}: {len(used.skipped)} images cannot be used and are skipped, {used.images} are scored"
    named = [f"  {path}: {reason}" for path, reason in used.skipped[:_NAMED]]
    more = len(used.skipped) - len(named)
    return [head, *named, *([f"  and {more} more"] if more else [])]


def _assertion(
    report: GateReport, names: tuple[str, ...] | None, config: pytest.Config
) -> Callable[[], None]:
    """A function that fails the test where a check of these names, or of the scores, did not pass."""
    from edgetl.records.gate import Verdict

    def call() -> None:
        __tracebackhide__ = True
        found = [c for c in report.checks if (_of_scores(c) if names is None else c.name in names)]
        judged = [check for check in found if check.judged]
        if not judged:
            pytest.skip(" ".join(check.sentence for check in found))
        verdicts = {check.verdict for check in judged}
        if verdicts == {Verdict.PASS}:
            return
        text = failure_text(report, found)
        if Verdict.FAIL not in verdicts and config.getoption("edge_unsure") == "skip":
            pytest.skip(text)
        raise AssertionError(text)

    return call


def _give_up(message: str) -> NoReturn:
    """End the test with one sentence: what is missing is an error, never a pass."""
    __tracebackhide__ = True
    pytest.fail(message, pytrace=False)


# --- the table ---------------------------------------------------------------------------------------


def failure_text(report: GateReport, checks: list[GateCheck]) -> str:
    """What did not pass, as text: a table of the checks, then a sentence for each."""
    from edgetl.records.gate import Verdict

    worse = any(check.judged and check.verdict is Verdict.FAIL for check in checks)
    says = "is worse than {} allows:" if worse else "cannot be shown to be as good as {}:"
    head = f"{report.current} ({report.variant}) {says.format(report.baseline)}"
    rows = [_row(report, check)[1:-1] for check in checks]
    return "\n".join(
        [head, *_aligned([_HEADERS[1:], *rows]), "", *(f"- {check.sentence}" for check in checks)]
    )


def _of_scores(check: GateCheck) -> bool:
    return check.name not in (*_LATENCY, *_FOOTPRINT)


def _row(report: GateReport, check: GateCheck) -> _Row:
    """Cells as in `_HEADERS`, and the check's sentence."""
    change = f"{100 * check.change:+.1f}" + (" points" if check.is_share else "%")
    limit = f"{100 * check.limit:.4g}" + (" points" if check.is_share else "%")
    return [
        f"{report.current} ({report.variant})",
        check.name,
        _figure(check.unit, check.baseline),
        _figure(check.unit, check.current),
        change,
        f"{'-' if _of_scores(check) else '+'}{limit}" if check.judged else "-",
        check.verdict.text if check.judged else "not judged",
        check.sentence,
    ]


def _figure(unit: str, value: float) -> str:
    match unit:
        case "ms" | "bits":
            return f"{value:.3g} {unit}"
        case "bytes":
            return f"{value / 1e6:.3g} MB"
        case _:
            return f"{value:.1%}"


def _aligned(rows: list[Any]) -> list[str]:
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    """Give the checks to the test's report, which travels from a worker of pytest-xdist to the main process."""
    report = yield
    if rows := item.stash.get(_ROWS, []):
        report.edge_checks = rows
        report.edge_notes = item.stash.get(_NOTES, [])
    return report


class _Summary:
    """In the main process: gathers the checks of all tests and shows them at the end."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, ...], _Row] = {}
        self._notes: dict[str, None] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        for row in getattr(report, "edge_checks", ()):
            self._rows[tuple(row)] = row
        self._notes |= dict.fromkeys(getattr(report, "edge_notes", ()))

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self._rows:
            terminalreporter.section("edge models")
            for line in _aligned([_HEADERS, *(row[:-1] for row in self._rows.values())]):
                terminalreporter.line(line)
            for line in self._notes:
                terminalreporter.line(line)

    def pytest_sessionfinish(self) -> None:
        """Append a table to the job's summary where GitHub Actions runs this."""
        place = os.environ.get("GITHUB_STEP_SUMMARY")
        if not place or not self._rows:
            return
        lines = ["### Edge models", "", _markdown(_HEADERS), _markdown(["---"] * len(_HEADERS))]
        lines += [_markdown(row[:-1]) for row in self._rows.values()]
        if self._notes:
            lines += ["", "```", *self._notes, "```"]
        lines += ["", *(f"- {row[-1]}" for row in self._rows.values() if row[-2] in _REPEATED)]
        with Path(place).open("a", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n\n")


def _markdown(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
