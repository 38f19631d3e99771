import dataclasses
import io

import pytest
from rich.console import Console

from edgetl.records.codec import to_json
from edgetl.records.prune import TwoFourRecord
from edgetl.report.terminal import run, stages
from edgetl.report.terminal.tables import TableLine, numbers, pairs, printable, table, text
from edgetl.tasks.all import detail_of
from tests.report.conftest import evaluation, in_detail, latency


def shown(function, *values, width=100, **options) -> str:
    stream = io.StringIO()
    function(Console(file=stream, width=width, color_system=None), *values, **options)
    return stream.getvalue()


def rule(width: int) -> str:
    return "─" * width


def test_run(report):
    assert (
        shown(run.run, report, width=80)
        == f"""\
flowers: teacher in eager torch -> shipped
ships           int8-cpu-x86, int8 for cpu-x86
top-1 on test   97.9% -> 95.0% (-2.9 points), 95% intervals 96.2 to 98.9% and
                92.7 to 96.6%
median latency  29.3 ms -> 1.17 ms (25x lower), batch 1, 2 threads
size            13.7 MB -> 1.3 MB (10x smaller)
network         205 M -> 51.3 M MACs, 3.39 M -> 1.15 M parameters
floor           top-1 95.5% met: int8-cpu-x86 is the fastest variant that keeps
                top1 95.5% on the validation split: 1.17 ms at 96.9%; fp32 is
                slower (2.20 ms); int8-tensorrt falls below the floor (92.5%)
time            9 min 46 s

                            val   test  macro   p50   p90   p99  images
model               size  top-1  top-1     F1    ms    ms    ms      /s
{rule(71)}
teacher (torch)  13.7 MB  97.3%  97.9%  97.9%  29.3  30.7  32.1    33.8
fp32              4.6 MB  96.9%  96.5%  96.4%  2.20  2.32  3.04     447
int8-cpu-x86      1.3 MB  96.9%  95.0%  95.0%  1.17  1.22  1.62     841
int8-tensorrt     1.4 MB  92.5%  92.7%  92.7%  3.93  4.13  5.43     251

int8-cpu-x86   default
int8-tensorrt  1.78x slower than float, below the floor

Warning: 1 image was skipped because it cannot be read
"""
    )


def with_both_numbers_of_threads(report):
    """Each variant was timed with one thread and with two, of which one is faster; of the teacher two are."""
    variants = tuple(
        dataclasses.replace(
            v, latency=dataclasses.replace(v.latency, threads=1), other_latency=latency(2 * v.latency.p50_ms)
        )
        for v in report.measure.variants
    )
    other = dataclasses.replace(latency(40.0), threads=1)
    measure = dataclasses.replace(report.measure, variants=variants, teacher_other_latency=other)
    return dataclasses.replace(report, measure=measure)


def test_run_shows_both_numbers_of_threads(report):
    stated = shown(run.run, with_both_numbers_of_threads(report), width=80)
    assert "batch 1, 1 thread, the teacher's\n                best being 2\n" in stated
    assert (
        f"""\
                            val   test  macro   p50   p90   p99           other
model               size  top-1  top-1     F1    ms    ms    ms  threads     ms
{rule(79)}
teacher (torch)  13.7 MB  97.3%  97.9%  97.9%  29.3  30.7  32.1        2   39.9
fp32              4.6 MB  96.9%  96.5%  96.4%  2.20  2.32  3.04        1   4.39
int8-cpu-x86      1.3 MB  96.9%  95.0%  95.0%  1.17  1.22  1.62        1   2.34
int8-tensorrt     1.4 MB  92.5%  92.7%  92.7%  3.93  4.13  5.43        1   7.83
"""
        in stated
    )


def test_run_whose_floor_is_not_met(report):
    measure = dataclasses.replace(report.measure, floor_met=False, reason="no variant keeps top1 99.0%")
    stated = shown(run.run, dataclasses.replace(report, measure=measure, warnings=()))
    assert "floor           top-1 95.5% NOT met: no variant keeps top1 99.0%\n" in stated
    assert "Warning" not in stated


def test_evaluation():
    scores = evaluation(("lily", "rose", "tulip"), 0.9, per_class=20, seed=3)
    assert (
        shown(run.evaluation, scores)
        == f"""\
images             60
top-1              93.3%, 95% interval 84.1 to 97.4%
macro-F1           93.3%
balanced accuracy  93.3%

class, lowest recall first  images  precision  recall     F1
{rule(60)}
rose                            20      94.4%   85.0%  89.5%
tulip                           20     100.0%   95.0%  97.4%
lily                            20      87.0%  100.0%  93.0%

true   taken for  images  of the class
{rule(38)}
rose   lily            3         15.0%
tulip  rose            1          5.0%

"""
    )


def test_evaluation_of_many_classes_is_cut():
    stated = shown(run.evaluation, evaluation([f"class {i}" for i in range(100)], 0.9, per_class=10))
    assert "70 more classes are left out; --json gives all." in stated
    assert len(stated.splitlines()) < 55


def test_a_class_without_images_has_no_recall():
    scores = evaluation(("lily", "rose"), 1.0)
    lily, rose = detail_of(scores).classes
    classes = (lily, dataclasses.replace(rose, support=0, recall=0.0, f1=0.0))
    detail = to_json(dataclasses.replace(detail_of(scores), classes=classes))
    stated = shown(run.evaluation, dataclasses.replace(scores, detail=detail))
    assert "rose                             0     100.0%       -       -\n" in stated


def test_stage_train(report):
    record = dataclasses.replace(report.teacher, epochs=report.teacher.epochs[:3])
    assert (
        shown(stages.stage, record)
        == f"""\
backbone              efficientnet_lite0
multiply-accumulates  205 M
parameters            3.39 M
validation            top-1 97.3% (95.4 to 98.4%), macro-F1 97.3% (96.3 to 98.3%), 480 images
test                  top-1 97.9% (96.2 to 98.9%), macro-F1 97.9% (96.9 to 98.9%), 480 images
time                  2 min 23 s
checkpoint            train/teacher.safetensors

phase  epoch   loss  val loss  val top-1  val macro-F1  images/s
{rule(64)}
head       1  1.715     1.605      67.6%         66.8%       130
head       2  1.294     1.184      79.7%         78.9%       130
full       1  1.050     1.010      93.6%         92.8%       130

"""
    )


def test_stage_distill_tells_of_unlabelled_images(report):
    stated = shown(stages.stage, dataclasses.replace(report.student, unlabelled=5400))
    assert "taught by             5,400 unlabelled images in addition to the labelled ones\n" in stated
    assert "taught by" not in shown(stages.stage, report.student)


def test_stage_prune_in_detail(report):
    stated = shown(stages.stage, in_detail(report.prune), width=90)
    assert (
        stated.partition("93.6%\n")[2]
        == f"""\
one cut  51.2 M           25.0%      1.19 M                10.4%          –

sparse training  31.6% of the channels near zero (2.0% before), top-1 97.5%

group cut by itself  channels  top-1 without 25%  top-1 without 50%  top-1 without 75%
{rule(86)}
conv_stem                  32       96.2% (-1.7)      41.2% (-56.7)                n/a
blocks.0.0.conv_pw          8                n/a                n/a                n/a

top-1 uncut  97.9%

time        3 min 01 s
checkpoint  prune/pruned.safetensors

"""
    )


def test_stage_prune(report):
    assert (
        shown(stages.stage, report.prune, width=80)
        == f"""\
step    MACs  of the teacher  parameters  top-1 after the cut  recovered
{rule(72)}
   1   162 M           79.0%      3.01 M                95.1%      97.2%
   2   127 M           62.0%      2.44 M                90.3%      96.9%
   3  98.3 M           48.0%      1.96 M                81.1%      96.2%
   4  71.7 M           35.0%      1.52 M                64.2%      95.1%
   5  51.2 M           25.0%      1.19 M                38.8%      93.6%

time        3 min 01 s
checkpoint  prune/pruned.safetensors

"""
    )


def test_stage_prune_tells_of_two_four_sparsity(report):
    sparse = TwoFourRecord(
        layers=("a", "b"), left_out={"stem": "3 input channels"}, zeros=0.41, cut=0.902, score=0.931
    )
    text = shown(stages.stage, dataclasses.replace(report.prune, two_four=sparse), width=200)
    assert (
        "2:4 sparsity  2 layers, 41.0% of the parameters are zero; top-1 90.2% after it, 93.1% recovered; only sparse"
        " tensor cores (TensorRT) get faster by it"
    ) in text


def test_stage_prune_names_the_blocks_that_went(report):
    first, *others = report.prune.steps
    steps = (dataclasses.replace(first, blocks=("blocks.1.1",)), *others)
    text = shown(stages.stage, dataclasses.replace(report.prune, steps=steps), width=110)
    assert "taken out whole  1 block: blocks.1.1" in text


def test_stage_export_and_quantize(report):
    assert (
        shown(stages.stage, report.export)
        == """\
file           export/model-fp32.onnx
size           4.6 MB
opset          18
against torch  largest difference 3.1e-05, same answer on 100.0% of 32 images

"""
    )
    assert (
        shown(stages.stage, report.quantize)
        == """\
     variant    size  recovery  val top-1  in INT8  in float
────────────────────────────────────────────────────────────
int8-cpu-x86  1.3 MB      bias      96.6%      103         2
    fp16-gpu  2.3 MB      none      96.7%        0         0

range estimator  percentile 99.99 on 256 images
in float         96.7%, floor 96.2%
time             21 s

int8-cpu-x86: left in float
  /classifier/Gemm (Gemm): last layer
  /Softmax (Softmax): no INT8 kernel

Notes
  Dynamic INT8 was not made: 2% of the multiply-accumulates are products with weight matrices.

"""
    )


def test_stage_data_and_measure(report):
    stated = shown(stages.stage, report.data)
    assert stated.splitlines()[2] == "bougainvillea      96   24    40    160"
    assert stated.splitlines()[14] == "all             1,269  405   597  2,271"
    assert "train/rose/IMG_0031.jpg: truncated after 20,480 of 81,204 bytes" in stated
    stated = shown(stages.stage, report.measure, width=200)
    assert "floor    top-1 95.5% met: int8-cpu-x86 is the fastest variant" in stated


def test_audit():
    from edgetl.data.audit import AuditReport, NearDuplicate, OddSize
    from edgetl.data.depth import Depth

    report = AuditReport(
        images=60,
        counts={"train": {"lily": 40, "rose": 4}, "val": {"lily": 8, "rose": 8}, "test": {}},
        sizes={"train": 44, "val": 16, "test": 0},
        skipped=(("train/rose/a.jpg", "truncated"),),
        duplicates=(("train/lily/1.jpg", "val/lily/1.jpg"),),
        leaks=(("train/lily/1.jpg", "val/lily/1.jpg"),),
        conflicts=(),
        near_duplicates=(NearDuplicate(first="val/lily/2.jpg", second="train/lily/9.jpg", correlation=0.99),),
        imbalance=10.0,
        tiny_classes=(("rose", 4),),
        median_size=(640, 480),
        odd_sizes=tuple(OddSize(path=f"train/lily/{i}.jpg", width=20, height=15) for i in range(12)),
        depth=Depth(images=3),
    )
    stated = shown(stages.audit, report, width=200)
    assert stated.startswith(f"""\
class  train  val  total
{rule(24)}
lily      40    8     48
rose       4    8     12
all       44   16     60

Unreadable images
  train/rose/a.jpg: truncated

The same file in more than one split
  train/lily/1.jpg = val/lily/1.jpg

Near-copies across splits
  val/lily/2.jpg ~ train/lily/9.jpg

Images of an odd size
  train/lily/0.jpg: 20x15
""")
    assert "  and 2 more; --json lists all\n" in stated
    assert [line[2:] for line in stated.splitlines() if line.startswith("- ")] == list(report.problems())


def test_audit_without_problems():
    from edgetl.data.audit import AuditReport
    from edgetl.data.depth import Depth

    fine = AuditReport(
        images=80,
        counts={"train": {"a": 40, "b": 40}},
        sizes={"train": 80},
        skipped=(),
        duplicates=(),
        leaks=(),
        conflicts=(),
        near_duplicates=(),
        imbalance=1.0,
        tiny_classes=(),
        median_size=(64, 64),
        odd_sizes=(),
        depth=Depth(images=3),
    )
    assert shown(stages.audit, fine).endswith("80 images: nothing wrong was found.\n")


def test_markup_and_control_codes_are_plain_text():
    stated = shown(table, text("[bold]name[/]"), [TableLine(cells=("[red]x[/red] \x1b[31m",))])
    assert "[red]x[/red] ?[31m" in stated
    assert "\x1b" not in stated
    assert "[link=x]" in shown(pairs, [("a", "[link=x]")])


@pytest.mark.parametrize(
    ("raw", "clean"),
    [("plain", "plain"), ("a\nb", "a b"), ("naïve 花", "naïve 花"), ("a\x07b", "a?b"), ("", "")],
)
def test_printable(raw, clean):
    assert printable(raw) == clean


def test_figures_keep_their_digits_on_a_narrow_terminal():
    stated = shown(
        table,
        (*text("name"), *numbers("value")),
        [TableLine(cells=("a long name indeed", "1234567.89"))],
        width=16,
    )
    assert "1234567.89" in stated


def test_ascii_streams_get_ascii_rules(report):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    run.run(Console(file=stream, width=80, color_system=None), report)
    stream.flush()
    assert b"-------" in stream.buffer.getvalue()
