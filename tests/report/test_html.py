import dataclasses
import re
from html.parser import HTMLParser

import pytest

from edgetl.records.scores import Score
from edgetl.report.page import run
from edgetl.report.page.curves import score_lines, training_curves
from edgetl.report.page.sections import SECTIONS
from edgetl.report.tasks.confusion import class_order, heat_map, shown_classes
from edgetl.tasks.all import detail_of
from edgetl.tasks.metrics import MACRO_F1, TOP1
from tests.report.conftest import epochs, evaluation, in_detail, make_report
from tests.report.test_terminal import with_both_numbers_of_threads

_VOID = {"meta", "link", "br", "input"}
_EVIL = ("<script>alert(1)</script>", '"><img src=x onerror=alert(2)>', "a & b", "it's", "naïve ☃ 花")


class _Page(HTMLParser):
    """Keeps elements, ids, links, text; fails on a tag that is not closed in order."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.elements, self.text = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    def all(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]

    @property
    def words(self):
        return re.sub(r"\s+", " ", " ".join(self.text))


@pytest.fixture(scope="module")
def page(report):
    return _Page(run.render(report))


def test_page_is_self_contained(report, page):
    text = run.render(report)
    assert page.all("script") == [{}]  # inline: it sorts tables
    assert "http" not in text
    assert "@import" not in text
    assert "url(" not in text
    assert [a["href"] for a in page.all("link")] == ["data:,"]
    assert all(a["href"].startswith("#") for a in page.all("a"))
    assert not any(name.startswith("on") for _, attrs in page.elements for name in attrs)


def test_every_part_is_there_and_linked(page):
    ids = [a["id"] for a in page.all("section")]
    assert ids == [
        anchor
        for anchor, _, _ in SECTIONS
        if anchor
        not in (
            "curves",
            "confidence",
            "unknown",
            "layers",
            "extension",
            "pretraining",
            "adaptation",
            "labels",
        )
    ]
    assert [a["href"] for a in page.all("a")] == [f"#{i}" for i in ids]


def test_ids_are_unique_and_labels_resolve(page):
    ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert {a["aria-labelledby"] for a in page.all("section")} <= set(ids)


def test_headline_figures(page):
    assert "accuracy floor met" in page.words
    assert (
        "efficientnet_lite0 was taught 12 classes on 2,271 images; int8-cpu-x86 ships, with 25x lower"
        in page.words
    )
    assert "95.0% -2.9 points" in page.words
    assert "95% intervals 96.2 to 98.9% and 92.7 to 96.6%" in page.words
    assert "10x smaller" in page.words
    assert "Top-1 floor 95.5% on validation is met: int8-cpu-x86 is the fastest variant" in page.words


def test_both_numbers_of_threads_are_shown(page):
    shown = _Page(run.render(with_both_numbers_of_threads(make_report()))).words
    for words in ("Other ms", "with the number of threads that each is faster with", "1, the teacher 2"):
        assert words in shown
        assert words not in page.words


def test_slower_than_float_is_said(page):
    assert "1.78x slower than float" in page.words
    assert "below the floor" in page.words


def test_pictures_are_told_to_screen_readers(page):
    pictures = page.all("svg")
    assert len(pictures) == 18
    assert all(a["role"] == "img" and a["aria-label"] for a in pictures)
    scatter = pictures[0]["aria-label"]
    assert scatter.startswith(
        "Top-1 on validation against median latency. Teacher (eager torch) 97.3% at 29.3 ms; fp32"
    )
    assert scatter.endswith("floor 95.5%")
    assert all(
        "caption" in [n for n, _ in page.elements] and a["aria-label"]
        for a in page.all("div")
        if "tabindex" in a
    )


def test_floor_that_is_not_met(report):
    measure = dataclasses.replace(
        report.measure,
        floor_met=False,
        floor=0.99,
        reason="no variant keeps top1 99.0% on the validation split",
    )
    page = _Page(run.render(dataclasses.replace(report, measure=measure)))
    assert "accuracy floor not met" in page.words
    assert "is not met: no variant keeps top1 99.0% on the validation split." in page.words
    assert "the default is the one that comes nearest" in page.words
    assert "What ships is the fastest" not in page.words


def test_a_cut_that_was_taken_back_is_said(report):
    *kept, last = report.prune.steps
    prune = dataclasses.replace(report.prune, steps=(*kept, dataclasses.replace(last, kept=False)))
    page = run.render(dataclasses.replace(report, prune=prune))
    assert f"Channels were removed in {len(kept)} steps" in page
    assert "The last cut cost too much and was taken back." in page
    assert f"{last.step}, taken back" in page
    assert "taken back" not in run.render(report)


def test_blocks_that_were_taken_out_are_named(report):
    first, *others = report.prune.steps
    taken = dataclasses.replace(first, blocks=("blocks.1.1", "blocks.3.2"))
    last = dataclasses.replace(others[-1], blocks=("blocks.5.1",), kept=False)
    prune = dataclasses.replace(report.prune, steps=(taken, *others[:-1], last))
    page = run.render(dataclasses.replace(report, prune=prune))
    assert "Taken out whole: 2 blocks: blocks.1.1, blocks.3.2." in page
    assert "Taken out whole" not in run.render(report)


def test_near_copies_are_told_where_they_were_looked_for(report):
    def words(near):
        data = dataclasses.replace(report.data, near_copies=near)
        return _Page(run.render(dataclasses.replace(report, data=data))).words

    assert "near-cop" not in words(None)
    assert "No image of val or test has a near-copy in another split." in words(0)
    assert "12 of " in words(12)
    assert "have a near-copy in another split; edgetl data check names them." in words(12)


def test_unlabelled_images_are_told(report):
    taught = dataclasses.replace(report.student, unlabelled=5400)
    stated = "16 of distillation, with 5,400 unlabelled images in addition to the labelled ones. "
    assert stated in run.render(dataclasses.replace(report, student=taught))
    assert "16 of distillation. " in run.render(report)


def test_what_one_cut_would_leave_and_what_groups_cost_alone_are_shown(report):
    plain = _Page(run.render(report))
    page = _Page(run.render(dataclasses.replace(report, prune=in_detail(report.prune))))
    assert "One cut to 25% leaves top-1 10.4%; the steps end at 93.6%." in page.words
    assert "31.6% of the channels near zero (2.0% before)" in page.words
    assert "one cut to the target" in page.words
    assert "Sensitivity of the groups" in page.words
    assert (
        "conv_stem without 16 of 32 channels: top-1 41.2%, saves 8.0% of the multiply-accumulates"
        in page.words
    )
    assert "blocks.0.0.conv_pw: too small" in page.words
    for text in ("-56.7", "n/a", "without 75%"):
        assert text in page.words
        assert text not in plain.words
    assert "Sensitivity of the groups" not in plain.words


def test_labels_are_escaped():
    page = _Page(
        run.render(dataclasses.replace(make_report(_EVIL), name="<i>x</i>", warnings=("<u>careful</u>",)))
    )
    assert page.all("script") == [{}]
    assert page.all("img") == page.all("u") == []
    assert not [a for a in page.all("i") if not a]
    for label in _EVIL:
        assert label in page.words
    assert "<i>x</i>: edgetl report" in page.words
    assert "<u>careful</u>." in page.words


def test_parts_that_did_not_run_are_left_out(report):
    bare = tuple(
        dataclasses.replace(v, test=None, latency=dataclasses.replace(v.latency, samples_ms=()))
        for v in report.measure.variants
    )
    measure = dataclasses.replace(
        report.measure,
        variants=bare,
        teacher_test=None,
        teacher_latency=dataclasses.replace(report.measure.teacher_latency, samples_ms=()),
    )
    less = dataclasses.replace(
        report,
        prune=None,
        quantize=None,
        measure=measure,
        warnings=(),
        stage_seconds={},
        recipe="",
        data=dataclasses.replace(report.data, skipped=()),
        teacher=dataclasses.replace(report.teacher, epochs=(), test=None),
        student=dataclasses.replace(report.student, epochs=(), test=None),
    )
    page = _Page(run.render(less))
    assert [a["id"] for a in page.all("section")] == [
        "variants",
        "waterfall",
        "classes",
        "deployment",
        "data",
        "provenance",
    ]
    assert "Top-1 on validation, 480 images" in page.words
    assert "No image was skipped." in page.words
    assert "Warnings" not in page.words


def test_a_score_without_intervals_has_no_error_bars(report):
    val = report.measure.teacher_val
    bare = dataclasses.replace(val, scores={**val.scores, "macro_f1": Score(value=0.9)})
    measure = dataclasses.replace(report.measure, metric="macro_f1")
    page = _Page(run.render(dataclasses.replace(report, measure=measure)))
    assert [a for a in page.all("line") if "bar" in a["class"].split()]
    assert "Bars are 95% intervals." in page.words
    page = _Page(
        run.render(dataclasses.replace(report, measure=dataclasses.replace(measure, teacher_val=bare)))
    )
    assert not [a for a in page.all("line") if "bar" in a["class"].split()]
    assert "Macro-F1 floor 95.5%" in page.words
    assert "Bars are" not in page.words


def test_one_variant_that_is_slower_than_the_teacher(report):
    variant = report.measure.variants[0]
    slow = dataclasses.replace(variant.latency, p50_ms=58.0, samples_ms=())
    measure = dataclasses.replace(
        report.measure,
        variants=(dataclasses.replace(variant, latency=slow, size_bytes=27_400_000),),
        default="fp32",
    )
    page = _Page(run.render(dataclasses.replace(report, measure=measure)))
    assert "2.0x higher" in page.words
    assert "2.0x larger" in page.words
    assert "lower median latency" not in page.words


@pytest.mark.parametrize("classes", [2, 12, 30, 100, 130])
@pytest.mark.parametrize("width", [360, 760])
def test_heat_map_holds_every_class_up_to_a_hundred(classes, width):
    scores = evaluation([f"label {i}" for i in range(classes)], 0.9, per_class=10)
    scores = detail_of(scores)
    drawn = _Page(heat_map(scores, width))
    shown = shown_classes(scores)
    cells = [a for a in drawn.all("rect") if a["class"] in ("hit", "miss")]
    expected = sum(1 for i, j, _ in scores.cells if i in shown and j in shown)
    assert len(shown) == min(classes, 100)
    assert len(cells) == expected
    labels = [a for a in drawn.all("text") if "tick" in a["class"]]
    assert len(labels) <= 2 * 40
    size = [float(v) for v in drawn.all("svg")[0]["viewbox"].split()]
    assert all(float(a["x"]) + float(a["width"]) <= size[2] + 0.1 for a in cells)
    assert all(float(a["y"]) + float(a["height"]) <= size[3] + 0.1 for a in cells)


def test_heat_map_shows_the_worst_classes_of_many():
    scores = detail_of(evaluation([f"label {i}" for i in range(130)], 0.9, per_class=10))
    assert set(shown_classes(scores)) == set(class_order(scores)[:100])


def test_hundred_classes_stay_small():
    text = run.render(make_report([f"class {i}" for i in range(100)], per_class=12))
    assert len(text) < 400_000
    assert "The other 75 classes" in text


SCORES = score_lines((TOP1, MACRO_F1))


def test_curves_break_between_phases():
    run = epochs("head", 2, 0.4, 0.9) + epochs("recover-1", 3, 0.5, 0.9) + epochs("recover-2", 3, 0.5, 0.9)
    drawn = _Page(training_curves(run, SCORES, "Validation score", True, 510))
    assert len(drawn.all("path")) == 3 * len(SCORES)
    assert len(drawn.all("rect")) == 2
    assert "prune recovery: 6 epochs" in drawn.words
    assert len(drawn.all("circle")) == 8 * len(SCORES)


def test_one_epoch_is_drawn():
    drawn = _Page(training_curves(epochs("full", 1, 0.9, 0.9), SCORES, "Validation score", True, 510))
    assert drawn.all("path") == []
    assert len(drawn.all("circle")) == len(SCORES)


def test_pages_are_equal_for_equal_reports(report):
    assert run.render(report) == run.render(make_report())
