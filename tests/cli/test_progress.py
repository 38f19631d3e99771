import io
import subprocess
import sys

import pytest

from edgetl.cli.progress import BarProgress, LineProgress, duration, open_progress


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def _stop_after_a_minute(clock):
    clock.now += 60
    raise KeyboardInterrupt


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_lines_are_rate_limited_and_estimate_the_rest():
    stream, clock = io.StringIO(), Clock()
    progress = LineProgress(stream, clock)
    with progress.task("Training", total=40) as task:
        for step in range(40):
            clock.now += 1.0
            task.advance(note=f"loss {1 - step / 100:.2f}")
    assert stream.getvalue() == (
        "Training: 10/40, 10 s, about 30 s left, loss 0.91\n"
        "Training: 20/40, 20 s, about 20 s left, loss 0.81\n"
        "Training: 30/40, 30 s, about 10 s left, loss 0.71\n"
        "Training: 40/40 in 40 s, loss 0.61\n"
    )


def test_a_short_task_says_nothing():
    stream, clock = io.StringIO(), Clock()
    with LineProgress(stream, clock).task("Hashing", total=2) as task:
        clock.now += 0.5
        task.advance(2)
    assert stream.getvalue() == ""


def test_a_task_that_fails_does_not_claim_its_end():
    stream, clock = io.StringIO(), Clock()
    task = LineProgress(stream, clock).task("Training", total=2)
    with pytest.raises(KeyboardInterrupt), task:
        _stop_after_a_minute(clock)
    assert stream.getvalue() == ""


def test_messages_and_warnings_are_lines():
    stream = io.StringIO()
    with open_progress(stream) as progress:
        progress.message("epoch 1: 93.1%")
        progress.warning("3 images were skipped")
    assert stream.getvalue() == "epoch 1: 93.1%\nWarning: 3 images were skipped\n"


def test_lines_go_to_standard_error(capsys):
    with open_progress() as progress:
        progress.message("hello")
    assert capsys.readouterr() == ("", "hello\n")


def test_a_terminal_gets_bars_that_vanish(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "120")
    stream = Terminal()
    with open_progress(stream) as progress:
        assert isinstance(progress, BarProgress)
        with progress.task("Training [1]", total=4) as task, progress.task("inner", total=1):
            task.advance(2, note="loss 0.31")
            progress._bars.refresh()
            progress.message("epoch 1: 93.1% [bold]")
        before = len(stream.getvalue())
        progress.warning("3 images were skipped")
    stated = stream.getvalue()
    assert "Training [1]" in stated
    assert "2/4" in stated
    assert "loss 0.31" in stated
    assert "epoch 1: 93.1% [bold]" in stated
    assert "3 images were skipped" in stated
    # After the last task only the warning is written: no bar is drawn any more.
    assert "Training" not in stated[before:]


def test_bars_stop_when_a_task_fails(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    stream = Terminal()
    with (
        pytest.raises(ZeroDivisionError),
        open_progress(stream) as progress,
        progress.task("Training", total=4),
    ):
        raise ZeroDivisionError
    assert stream.getvalue().endswith("\x1b[?25h") or "\x1b[?25h" in stream.getvalue()
    assert progress._bars is None


def test_bars_start_again(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    stream = Terminal()
    with open_progress(stream) as progress:
        for name in ("first", "second"):
            with progress.task(name, total=1) as task:
                task.advance()
    assert "first" in stream.getvalue()
    assert "second" in stream.getvalue()


def test_a_dumb_terminal_gets_lines(monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    with open_progress(Terminal()) as progress:
        assert isinstance(progress, LineProgress)


@pytest.mark.parametrize(
    ("seconds", "expected"), [(0.4, "0 s"), (59.4, "59 s"), (185, "3:05"), (7650, "2:07:30")]
)
def test_duration(seconds, expected):
    assert duration(seconds) == expected


def test_lines_need_no_rich():
    code = (
        "import sys; from edgetl.cli.progress import open_progress\n"
        "with open_progress() as p:\n    p.message('x')\n"
        "print('rich' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("False\n", "x\n")
