"""Progress where there is no terminal: lines that say how far the work is."""

from __future__ import annotations

import time

import pytest
from rich.progress import Progress

from bench.progress import Bars, progress_line
from efficient_bert.training import Status


def test_long_work_says_how_far_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    """Lines come while the work goes on, also where it says nothing, and one comes at its end."""
    bars = Bars(every=0.02)
    with bars.counting_bar("evaluate full", 400) as advance:
        advance(100)
        while "100 of 400 (25 %)" not in (said := capsys.readouterr().err):
            time.sleep(0.01)
    assert said.startswith("evaluate full: 100 of 400")
    assert "evaluate full: done in" in capsys.readouterr().err


def test_no_line_comes_after_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    """The thread that prints has ended with the work, whatever ended it."""
    with pytest.raises(KeyError), Bars(every=0.001).counting_bar("work", 3):
        raise KeyError
    capsys.readouterr()
    time.sleep(0.02)
    assert capsys.readouterr().err == ""


def test_a_line_has_progress_time_left_and_loss() -> None:
    """Steps, share, seconds so far, seconds left once they are known, and what the stage says of itself."""
    now = 100.0
    progress = Progress(get_time=lambda: now, disable=True)
    task = progress.add_task("train finetune", total=800, note="loss 0.250, 64 examples/s")
    assert progress_line(progress.tasks[0]).startswith("train finetune: 0 of 800 (0 %), 0 s so far, loss 0.250")
    for completed in (40, 80, 120):
        now += 10.0
        progress.update(task, completed=completed)
    line = progress_line(progress.tasks[0])
    assert line == "train finetune: 120 of 800 (15 %), 30 s so far, about 170 s left, loss 0.250, 64 examples/s"


def test_a_stage_of_unknown_length_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    """Before a stage has said how many steps it has, a line names it and the time so far."""
    progress = Progress(disable=True)
    progress.add_task("train saliency", total=None, note="")
    assert progress_line(progress.tasks[0]) == "train saliency: 0 s so far"
    with Bars().training_bar("saliency") as watch:
        watch(Status(1, 2, 10.0, 0.5))
    assert "train saliency: done in" in capsys.readouterr().err
