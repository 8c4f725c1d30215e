"""Which model to deploy, on records made by hand: every millisecond and loss is known beforehand.

An answer of n layers takes n ms and the overhead of its run, and 0.01 ms more in each of three rounds: its median is
n + 0.01 ms more than the overhead.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import binom

from analysis.pages.page import section
from analysis.pages.report import write_report
from analysis.tables.advice import Advice, Candidate, Outcome, advise
from analysis.tables.frames import Runs
from analysis.tables.statistics import Interval
from analysis.tables.summary import AGAINST_ENGINES, ENGINES_NOTE, THROUGHPUT, summary
from analysis.tables.verdict import lines, notes, paragraph, verdict
from bench.errors import InputError
from tests.support.command_line import call
from tests.support.stored_runs import DEVICE, StoredRun, read_runs, write_runs

INT8 = "onnxruntime-int8"
FULL = StoredRun("full", wrong=range(4))  # 6.01 ms
FULL_INT8 = replace(FULL, run_id="full8", backend=INT8, overhead=-0.003)  # 3.01 ms
HUGGING_FACE = replace(FULL, run_id="fullhf", backend="hf-sdpa", overhead=0.002)  # 8.01 ms
STATIC = replace(FULL, run_id="cut", method="static_depth", backend=INT8, depths=(3,), overhead=-0.001)  # 2.01 ms
ADAPTIVE = replace(FULL, run_id="adapt", method="adapler", backend=INT8, depths=(1, 2), overhead=-0.0005)
"""Half of the timed samples take 0.50 to 0.52 ms, half 1.50 to 1.52: the median lies between, at 1.01."""


def advice_on(root: Path, *runs: StoredRun, **options: Any) -> Advice:
    """The advice on some stored runs."""
    return advise(read_runs(root, *runs), **options)


def label(advice: Advice, role: str) -> str | None:
    """The arm in one of the roles; None where nobody has it."""
    candidate: Candidate | None = getattr(advice, role)
    return candidate.label if candidate else None


def test_an_admissible_adaptive_arm_wins(tmp_path: Path) -> None:
    """The adaptive arm takes 1.01 ms: 2.01 of the truncated model, 3.01 and 8.01 of the full one, 6.01 in PyTorch."""
    advice = advice_on(tmp_path, FULL, FULL_INT8, HUGGING_FACE, STATIC, ADAPTIVE)
    assert advice.outcome is Outcome.ADAPTIVE
    assert [each.label.split()[0] for each in advice.candidates] == ["adapler", "static_depth", "full", "full", "full"]
    times = {each.label: (each.latency.value, each.ratio.value) for each in advice.candidates}
    for name, milliseconds in (
        (f"adapler on {INT8}", 1.01),
        (f"static_depth on {INT8}", 2.01),
        (f"full on {INT8}", 3.01),
        ("full", 6.01),
        ("full on hf-sdpa", 8.01),
    ):
        assert times[name] == pytest.approx((milliseconds, milliseconds / 1.01))
    assert label(advice, "fastest") == label(advice, "adaptive") == f"adapler on {INT8}"
    assert label(advice, "runner_up") == label(advice, "static") == f"static_depth on {INT8}"
    assert (label(advice, "full"), label(advice, "reference")) == (f"full on {INT8}", "full")
    assert label(advice, "hugging_face") == "full on hf-sdpa"
    assert [each.static for each in advice.candidates] == [False, True, True, True, True]
    assert all(each.difference == Interval(0, 0, 0) for each in advice.candidates)
    assert (str(advice.setting), advice.timed) == (f"{DEVICE}, 2 CPU threads", 20)
    assert advice.left_out == {}


def test_the_ratio_of_two_constant_times_has_no_width(tmp_path: Path) -> None:
    """Every example takes as long as the others, so whichever are drawn, 3.01 ms are 3.01 / 2.01 times 2.01 ms."""
    fastest, full, _ = advice_on(tmp_path, FULL, FULL_INT8, STATIC).candidates
    assert astuple(full.ratio) == pytest.approx((3.01 / 2.01,) * 3)
    assert astuple(fastest.ratio) == pytest.approx((1,) * 3)


def test_a_static_arm_wins_where_the_adaptive_one_loses_too_much(tmp_path: Path) -> None:
    """Sixteen more wrong answers of forty are a loss of 0.4: it is told, but neither advised nor a comparison."""
    advice = advice_on(tmp_path, FULL, FULL_INT8, STATIC, replace(ADAPTIVE, wrong=range(20)))
    assert advice.outcome is Outcome.STATIC
    assert label(advice, "fastest") == f"static_depth on {INT8}"
    assert label(advice, "runner_up") == f"full on {INT8}"
    assert advice.adaptive is not None
    assert not advice.adaptive.admissible
    assert advice.adaptive.difference.value == pytest.approx(-0.4)
    assert paragraph(advice).startswith("No: no adaptive model loses at most 0.01 of accuracy with 95% confidence. ")


def test_the_adaptive_arm_nearest_to_the_limit_is_told_of_a_no(tmp_path: Path) -> None:
    """Of two adaptive arms that lose too much it is the one that loses less, not the faster one."""
    near = replace(ADAPTIVE, run_id="near", knobs={"phi": 1}, depths=(2, 3), wrong=range(10))
    advice = advice_on(tmp_path, FULL, replace(ADAPTIVE, wrong=range(20)), near)
    assert label(advice, "adaptive") == f"adapler phi=1 on {INT8}"


def test_nobody_is_admissible_but_the_full_model_itself(tmp_path: Path) -> None:
    """Where every other arm loses 0.4 the answer is a plain no, also of a full model whose int8 answers are wrong."""
    bad = [replace(run, wrong=range(20)) for run in (FULL_INT8, STATIC, ADAPTIVE)]
    advice = advice_on(tmp_path, FULL, *bad)
    assert advice.outcome is Outcome.FULL_ALONE
    assert label(advice, "fastest") == label(advice, "full") == label(advice, "static") == "full"
    assert advice.runner_up is None
    assert paragraph(advice).startswith("No: no arm but the full model in PyTorch loses at most 0.01 of accuracy")


def test_equal_quality_but_slower_is_a_no(tmp_path: Path) -> None:
    """An adaptive arm that answers as the full model does, in 2.51 ms, loses to a static one of 2.01 ms."""
    advice = advice_on(tmp_path, FULL, FULL_INT8, STATIC, replace(ADAPTIVE, overhead=0.001))
    assert advice.outcome is Outcome.STATIC
    assert label(advice, "fastest") == f"static_depth on {INT8}"
    assert label(advice, "runner_up") == label(advice, "adaptive") == f"adapler on {INT8}"
    assert advice.adaptive is not None
    assert advice.adaptive.latency.value == pytest.approx(2.51)
    assert "is faster than the best static one" in paragraph(advice)


def test_of_equal_times_the_better_score_goes_first(tmp_path: Path) -> None:
    """Two truncated models take 2.01 ms each; the one with two right answers more is advised."""
    better = replace(STATIC, run_id="better", knobs={"depth_mult": 0.5}, wrong=range(2))
    for number, runs in enumerate(((STATIC, better), (better, STATIC))):
        advice = advice_on(tmp_path / str(number), FULL, *runs)
        assert label(advice, "fastest") == f"static_depth depth_mult=0.5 on {INT8}"


def test_a_mean_within_the_limit_is_not_enough(tmp_path: Path) -> None:
    """Seven more wrong of forty: of a resample's forty draws, in one of twenty more than 11 are of these seven.

    The count is binomial (40, 7 / 40), so the one-sided limit is a loss of 11 / 40, that of a two-sided 95 % interval
    12 / 40; the mean is 7 / 40.
    """
    assert (binom.ppf(0.95, 40, 7 / 40), binom.ppf(0.975, 40, 7 / 40)) == (11, 12)
    worse = replace(ADAPTIVE, wrong=range(11))
    for max_drop, admissible in ((0.18, False), (0.27, False), (0.275, True), (0.29, True)):
        advice = advice_on(tmp_path / str(max_drop), FULL, FULL_INT8, worse, max_drop=max_drop)
        assert advice.adaptive is not None
        assert advice.adaptive.difference.value == pytest.approx(-7 / 40)
        assert advice.adaptive.difference.low == pytest.approx(-11 / 40)
        assert advice.adaptive.admissible is admissible
        assert label(advice, "fastest") == (f"adapler on {INT8}" if admissible else f"full on {INT8}")


def test_the_loss_is_paired(tmp_path: Path) -> None:
    """As many wrong answers on other examples: the difference is 0, but its interval is not."""
    swapped = replace(ADAPTIVE, wrong=range(4, 8))
    advice = advice_on(tmp_path, FULL, swapped, max_drop=0.05)
    assert advice.adaptive is not None
    assert advice.adaptive.difference.value == 0
    assert advice.adaptive.difference.low < -0.05 < 0.05 < advice.adaptive.difference.high
    assert not advice.adaptive.admissible


@pytest.mark.parametrize(
    ("percentile", "fastest", "milliseconds"),
    [("p50", "adapler", 1.01), ("p90", "static_depth", 2.02), ("p99", "static_depth", 2.02)],
)
def test_percentiles_differ_in_who_wins(tmp_path: Path, percentile: str, fastest: str, milliseconds: float) -> None:
    """Four of five examples leave after two layers, 1 ms, the fifth after six, 5 ms: fast but for its slow tail."""
    uneven = replace(ADAPTIVE, depths=(2, 2, 2, 2, 6), overhead=-0.001)
    advice = advice_on(tmp_path, FULL, STATIC, uneven, percentile=percentile)
    assert advice.fastest is not None
    assert advice.fastest.label == f"{fastest} on {INT8}"
    assert advice.fastest.latency.value == pytest.approx(milliseconds)
    assert f"ms ({percentile} of one text at a time)" in paragraph(advice)


def test_a_lead_within_noise_is_not_clear(tmp_path: Path) -> None:
    """Half of the examples take 1 ms, half 4: the median, 2.51, moves too far to say that it is below 3.01."""
    advice = advice_on(tmp_path, FULL, FULL_INT8, replace(ADAPTIVE, depths=(1, 4), overhead=0))
    assert label(advice, "fastest") == f"adapler on {INT8}"
    assert advice.static is not None
    assert advice.static.ratio.low < 1 < advice.static.ratio.value
    assert advice.outcome is Outcome.UNCLEAR
    assert paragraph(advice).startswith("Not clearly: ")


ELSEWHERE: Sequence[tuple[Mapping[str, Any], str]] = (
    ({"timed": 0}, "was not timed"),
    ({"device": "Other CPU"}, f"was timed on Other CPU, 2 CPU threads, not on {DEVICE}, 2 CPU threads"),
    ({"timing": {"threads": 1}}, f"was timed on {DEVICE}, 1 CPU thread, not on {DEVICE}, 2 CPU threads"),
    ({"timed": 19}, "was timed on other examples than full"),
    ({"control_of": "adapler"}, "is a control, which is never chosen"),
    ({"seed": 2}, "is of another full model than full, or of seeds that it lacks"),
    ({"backbone": "other-bert"}, "is of another full model than full, or of seeds that it lacks"),
    ({"timing": {"disturbed_by": ["noise"]}}, "was timed on a busy or unsteady machine (bench run --time-again)"),
)


@pytest.mark.parametrize(("change", "reason"), ELSEWHERE, ids=lambda value: "-".join(value) if value else "")
def test_an_arm_that_cannot_be_compared_is_left_out(tmp_path: Path, change: Mapping[str, Any], reason: str) -> None:
    """The fastest arm is named with the reason and wins nothing, whatever makes its milliseconds another thing."""
    advice = advice_on(tmp_path, FULL, FULL_INT8, STATIC, replace(ADAPTIVE, **change))
    assert advice.left_out == {f"adapler on {INT8}": reason}
    assert label(advice, "fastest") == f"static_depth on {INT8}"
    assert any(note.startswith(f"left out ({reason}): ") for note in verdict(advice).notes)


def test_the_setting_with_most_arms_is_reported(tmp_path: Path) -> None:
    """Of two machines with a full model each the one with two arms more is compared, the other's arms are named."""
    there = [replace(run, run_id=f"{run.run_id}-b", device="Other CPU") for run in (FULL, FULL_INT8)]
    advice = advice_on(tmp_path, *there, FULL, FULL_INT8, STATIC, ADAPTIVE)
    assert advice.setting.device == DEVICE
    assert len(advice.candidates) == 4
    assert set(advice.left_out.values()) == {f"was timed on Other CPU, 2 CPU threads, not on {DEVICE}, 2 CPU threads"}


BUSY: Mapping[str, Any] = {"timing": {"disturbed_by": ["others ran"]}}


def test_no_verdict_on_a_busy_machine(tmp_path: Path) -> None:
    """Where latencies are marked nobody is the fastest, but every arm is shown, and which of them hold up."""
    spoilt = replace(STATIC, wrong=range(20))
    advice = advice_on(tmp_path, *(replace(run, **BUSY) for run in (FULL, FULL_INT8, spoilt, ADAPTIVE)))
    assert (advice.outcome, advice.fastest, advice.left_out) == (Outcome.UNKNOWN, None, {})
    text = paragraph(advice)
    assert text.startswith("No verdict: ")
    within = f"adapler on {INT8}; full on {INT8} (and the full model itself). When nothing else runs"
    assert f"What loses at most 0.01 of accuracy with 95% confidence: {within}" in text
    assert "the same bench run command with --time-again" in text
    assert "It takes" not in text
    table = verdict(advice)
    assert [(row[1], row[2].split()[0], row[3], row[-1]) for row in table.rows] == [
        (f"adapler on {INT8}", "1.01*", "-", "yes"),
        (f"static_depth on {INT8}", "2.01*", "-", "no"),
        (f"full on {INT8}", "3.01*", "-", "yes"),
        ("full on torch", "6.01*", "-", "yes"),
    ]
    assert [note for note in table.notes if note.startswith("* marks") and note.endswith(": others ran")]
    assert not any(line.advised for line in lines(advice))


def test_no_verdict_where_only_the_full_model_was_timed_in_quiet(tmp_path: Path) -> None:
    """One quiet arm is nothing to compare: the busy ones are shown beside it, and the star is theirs alone."""
    advice = advice_on(tmp_path, FULL, replace(FULL_INT8, wrong=range(20), **BUSY))
    assert advice.outcome is Outcome.UNKNOWN
    assert "no arm (and the full model itself)" in paragraph(advice)
    assert [row[2].split()[0] for row in verdict(advice).rows] == ["3.01*", "6.01"]


def test_of_a_model_that_was_run_twice_the_newest_run_counts(tmp_path: Path) -> None:
    """A later version's runs of the full and the adaptive model take their place, beside what was not run again."""
    later: Mapping[str, Any] = {"environment": {"versions": {"efficient-bert": "9"}}, "overhead": 0.002}
    old, new = (FULL, STATIC, ADAPTIVE), [replace(run, run_id=f"{run.run_id}-b", **later) for run in (FULL, ADAPTIVE)]
    store, ids = write_runs(tmp_path, *old)
    for run in new:
        store.put(replace(run.record(), created="2026-03-04T05:06:07+00:00"), run.table())
    advice = advise(Runs.read(store, [*(run.run_id for run in new), *ids]))
    assert [each.run_ids for each in advice.candidates] == [("cut",), ("adapt-b",), ("full-b",)]
    assert (advice.left_out, advice.earlier) == ({}, 2)
    assert any(note.endswith(": 2 earlier runs") for note in verdict(advice).notes)
    assert advice_on(tmp_path / "once", *old).earlier == 0


def test_the_full_model_is_held_against_its_fastest_engine_within_the_limit(tmp_path: Path) -> None:
    """Where int8 spoils the full model's answers, the engine that keeps them is what speed is measured against."""
    fp32 = replace(FULL, run_id="full32", backend="onnxruntime", overhead=-0.002)
    advice = advice_on(tmp_path, FULL, fp32, replace(FULL_INT8, wrong=range(20)), ADAPTIVE)
    assert label(advice, "full") == "full on onnxruntime"
    assert f"{4.01 / 1.01:.2f} [" in paragraph(advice)


def test_seeds_are_pooled_by_arm(tmp_path: Path) -> None:
    """Two seeds of 2.01 and 3.01 ms are one arm of 2.51; it loses 2 and 4 of 40 against the model of its own seed."""
    fulls = [
        replace(FULL, run_id=f"full{seed}", seed=seed, wrong=range(2 * seed), overhead=0.002 * (seed - 1))
        for seed in (1, 2)
    ]
    cuts = [
        replace(STATIC, run_id=f"cut{seed}", seed=seed, wrong=range(4 * seed), overhead=0.001 * (seed - 2))
        for seed in (1, 2)
    ]
    advice = advice_on(tmp_path, *fulls, *cuts, max_drop=0.5)
    assert advice.static is not None
    assert astuple(advice.static.latency) == pytest.approx((2.51,) * 3)
    assert advice.static.difference.value == pytest.approx(-(2 + 4) / 2 / 40)
    assert advice.full is not None
    assert advice.full.ratio.value == pytest.approx(math.sqrt(6.01 / 2.01 * 8.01 / 3.01))


def test_sessions_and_engines_are_told(tmp_path: Path) -> None:
    """Arms of one seed from two sessions are named as such, and so is a comparison on one engine alone."""
    alone = advice_on(tmp_path / "one", FULL, replace(ADAPTIVE, backend="torch"))
    assert "Only torch was timed" in paragraph(alone)
    two = [replace(FULL, timing={"session": "a"}), replace(ADAPTIVE, timing={"session": "b"})]
    several = advice_on(tmp_path / "two", *two)
    assert "Only" not in paragraph(several)
    assert (alone.sessions, several.sessions) == (1, 2)
    told = [any("several timing sessions" in note for note in notes(advice)) for advice in (alone, several)]
    assert told == [False, True]


def test_an_adaptive_method_that_never_adapts_is_static(tmp_path: Path) -> None:
    """Exits that all examples take after two layers are a truncated model; dropped tokens or other widths are not."""
    same = replace(ADAPTIVE, depths=(2,))
    assert advice_on(tmp_path / "same", FULL, same).adaptive is None
    changes: Mapping[str, Mapping[str, Any]] = {
        "tokens": {"kept": (1, 0.5, 0.5, 0.5, 0.5, 0.5)},
        "heads": {"heads": ((2,) * 6, (1,) * 6)},
        "depths": {"depths": (2, 3)},
    }
    for name, change in changes.items():
        advice = advice_on(tmp_path / name, FULL, replace(same, **change))
        assert label(advice, "adaptive") == f"adapler on {INT8}", name


def test_one_example_proves_nothing(tmp_path: Path) -> None:
    """Without an interval no arm is admissible but the full model itself."""
    advice = advice_on(tmp_path, *(replace(run, examples=1, timed=1, wrong=()) for run in (FULL, FULL_INT8)))
    assert [each.admissible for each in advice.candidates] == [False, True]
    assert advice.outcome is Outcome.FULL_ALONE
    assert "It takes 6.01 ms (p50" in paragraph(advice)


def test_the_words_hold_every_number(tmp_path: Path) -> None:
    """Paragraph and table: arm, engine, milliseconds, both ratios, the loss, the machine; one row for each arm."""
    advice = advice_on(tmp_path, FULL, FULL_INT8, HUGGING_FACE, STATIC, replace(ADAPTIVE, wrong=range(3)))
    text = paragraph(advice)
    assert text.startswith(
        f"Yes, deploy an adaptive model: adapler on {INT8} is the fastest arm that loses at most 0.01"
    )
    assert "It takes 1.01 [" in text
    assert f"{3.01 / 1.01:.2f} [" in text
    assert f"times as fast as the full model on its fastest engine ({INT8}, 3.01 [3.01, 3.01] ms)" in text
    assert f"{8.01 / 1.01:.2f} [" in text
    assert "in Hugging Face's implementation (hf-sdpa, 8.01 [8.01, 8.01] ms)" in text
    assert "Its accuracy less the full model's in PyTorch is +0.025 [0.000, +0.075]" in text
    assert f"The best static model, static_depth on {INT8}, takes 2.01 [2.01, 2.01] ms, 1.99 [" in text
    assert f"Timed on {DEVICE}, 2 CPU threads, batch 1, 20 examples." in text
    table = verdict(advice)
    assert [row[0] for row in table.rows] == [line.role for line in lines(advice)]
    assert [row[1] for row in table.rows] == [
        *(f"adapler on {INT8}", f"static_depth on {INT8}"),
        *(f"full on {INT8}", "full on torch", "full on hf-sdpa"),
    ]
    assert table.rows[0][0] == "fastest within the limit; fastest adaptive model"
    assert all(len(row) == len(table.columns) for row in table.rows)


# Bad input, and the command


def test_bad_input_is_one_line(tmp_path: Path) -> None:
    """Several tasks, no full model, an untimed one and a limit that is none are refused."""
    other = replace(ADAPTIVE, run_id="other", task="imdb")
    with pytest.raises(InputError, match="of tasks demo, imdb"):
        advice_on(tmp_path / "tasks", FULL, other)
    for number, runs in enumerate(((ADAPTIVE,), (replace(FULL, timed=0), ADAPTIVE), (FULL_INT8, ADAPTIVE))):
        with pytest.raises(InputError, match="full model in PyTorch with latencies; bench run times it"):
            advice_on(tmp_path / str(number), *runs)
    for max_drop in (-0.01, 1.5, math.nan):
        with pytest.raises(InputError, match=r"lies in \[0, 1\]"):
            advice_on(tmp_path / f"drop{max_drop}", FULL, max_drop=max_drop)


def test_the_command_answers_with_exit_code_0(tmp_path: Path) -> None:
    """`bench advise` prints paragraph and table; a plain no is an answer too."""
    write_runs(tmp_path / "yes", FULL, FULL_INT8, ADAPTIVE)
    answer = call("advise", tmp_path / "yes", "--max-drop", "0.02", "--latency", "p90")
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.startswith("Yes, deploy an adaptive model: ")
    assert "at most 0.02 of accuracy" in answer.out
    assert "latency p90 (ms)" in answer.out
    write_runs(tmp_path / "no", FULL, replace(ADAPTIVE, wrong=range(20)))
    answer = call("advise", tmp_path / "no")
    assert (answer.code, answer.out[:4]) == (0, "No: ")


def test_the_command_refuses_with_exit_code_2(tmp_path: Path) -> None:
    """A folder without runs, two tasks, an untimed full model and wrong values are one line each."""
    write_runs(tmp_path / "two", FULL, replace(FULL, run_id="imdb", task="imdb"))
    write_runs(tmp_path / "untimed", replace(FULL, timed=0))
    for arguments, message in (
        ((tmp_path / "nowhere",), "does not exist"),
        ((tmp_path / "two",), "these runs are of tasks demo, imdb; choose one with --task"),
        ((tmp_path / "two", "--task", "sst2"), "holds no finished run of task 'sst2'"),
        ((tmp_path / "untimed",), "with latencies; bench run times it"),
        ((tmp_path / "two", "--max-drop", "2"), "2.0 is not in the range"),
        ((tmp_path / "two", "--latency", "p95"), "'p95' is not one of"),
    ):
        answer = call("advise", *arguments)
        assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1)
        assert message in answer.err
    assert call("advise", tmp_path / "two", "--task", "imdb").code == 0


# The report, and the table of all arms


def test_the_page_begins_with_the_verdict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paragraph and arms stand above the facts, escaped; without a timed full model there is no verdict."""
    monkeypatch.setattr("analysis.pages.report.PLOTS", {})
    hostile = replace(ADAPTIVE, knobs={"phi": "<b>&"})
    store, ids = write_runs(tmp_path / "runs", FULL, FULL_INT8, hostile)
    runs = Runs.read(store, ids)
    text = write_report(runs, tmp_path / "out", source=store.root).read_text(encoding="utf8")
    answer = text.index("Yes, deploy an adaptive model: adapler phi=&lt;b&gt;&amp; on")
    assert text.index("<h2 id=") < answer < text.index('<dl class="facts">')
    assert "<b>" not in text
    view = section("demo", runs, ()).verdict
    assert view is not None
    assert [line.arm for line in view.lines] == [f"adapler phi=<b>& on {INT8}", f"full on {INT8}", "full on torch"]
    untimed = read_runs(tmp_path / "untimed", *(replace(run, timed=0) for run in (FULL, ADAPTIVE)))
    assert section("demo", untimed, ()).verdict is None
    page = write_report(untimed, tmp_path / "untimed-out", source=tmp_path / "untimed").read_text(encoding="utf8")
    assert "Which model to deploy" not in page


def test_a_trial_says_that_its_numbers_mean_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of the smoke preset say so below the table and above the page's verdict; other runs do not."""
    monkeypatch.setattr("analysis.pages.report.PLOTS", {})
    for preset, times in (("smoke", 1), ("quick", 0)):
        store, ids = write_runs(tmp_path / preset, *(replace(run, preset=preset) for run in (FULL, ADAPTIVE)))
        runs = Runs.read(store, ids)
        told = [note for note in summary(runs).notes if note.startswith("trial: preset smoke trains on a few dozen")]
        assert len(told) == times
        page = write_report(runs, tmp_path / f"{preset}-out", source=store.root).read_text(encoding="utf8")
        assert page.count("to try the commands: its numbers mean nothing.") == times
        assert page.find("its numbers mean nothing") < page.index("Which model to deploy")


def test_the_table_compares_engines_where_several_were_timed(tmp_path: Path) -> None:
    """Medians against 3.01 ms and 8.01 ms, the full model's of any engine; one engine alone has no such column."""
    text = summary(read_runs(tmp_path / "all", FULL, FULL_INT8, HUGGING_FACE, STATIC, ADAPTIVE))
    cells = {row[0]: [row[text.columns.index(name)] for name in AGAINST_ENGINES] for row in text.rows}
    for name, milliseconds in ((f"static_depth on {INT8}", 2.01), ("full", 6.01), (f"full on {INT8}", 3.01)):
        ratios = (f"{full / milliseconds:.2f}" for full in (3.01, 8.01))
        assert cells[name] == [f"{ratio} [{ratio}, {ratio}]" for ratio in ratios]
    assert [cell.split()[0] for cell in cells[f"adapler on {INT8}"]] == [f"{3.01 / 1.01:.2f}", f"{8.01 / 1.01:.2f}"]
    assert ENGINES_NOTE in text.notes
    one = summary(read_runs(tmp_path / "one", FULL, replace(ADAPTIVE, backend="torch")))
    assert not {*AGAINST_ENGINES} & {*one.columns}
    assert ENGINES_NOTE not in one.notes
    without = summary(read_runs(tmp_path / "without", FULL, FULL_INT8))
    assert (AGAINST_ENGINES[0] in without.columns, AGAINST_ENGINES[1] in without.columns) == (True, False)


def test_the_table_compares_engines_within_a_setting_alone(tmp_path: Path) -> None:
    """An arm of another machine, and one that was not timed, have a dash; one of a busy machine has the mark."""
    elsewhere = replace(STATIC, device="Other CPU")
    untimed = replace(STATIC, run_id="untimed", knobs={"depth_mult": 0.5}, timed=0)
    busy = replace(ADAPTIVE, timing={"disturbed_by": ["noise"]})
    text = summary(read_runs(tmp_path, FULL, FULL_INT8, elsewhere, untimed, busy))
    cells = {row[0].split()[0]: row[text.columns.index(AGAINST_ENGINES[0])] for row in text.rows}
    assert cells["static_depth"] == "-"
    assert cells["adapler"].startswith(f"{3.01 / 1.01:.2f}* [")


def test_the_table_has_throughput_where_it_was_measured(tmp_path: Path) -> None:
    """The mean over the seeds, and how the examples were answered; of a busy machine it has the mark."""

    def reached(rate: float) -> dict[str, Any]:
        return {"throughput": {"examples_per_second": rate, "manner": "batches of 4", "seconds": [1.0]}}

    seeds = [StoredRun(f"full-{seed}", seed=seed, timing=reached(rate)) for seed, rate in ((1, 10.0), (2, 31.0))]
    busy = StoredRun("busy", "static_depth", seed=1, timing={**reached(7.0), "disturbed_by": ["noise"]})
    text = summary(read_runs(tmp_path, *seeds, busy, StoredRun("other", "adapler", seed=1)))
    cells = {row[0].split()[0]: row[text.columns.index(THROUGHPUT)] for row in text.rows}
    assert cells == {"full": "20, batches of 4", "static_depth": "7*, batches of 4", "adapler": "-"}
    assert THROUGHPUT not in summary(read_runs(tmp_path / "none", StoredRun("only"))).columns
