"""The rule for choosing an operating point: the same wherever one is chosen, its limit and its ties defined."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from analysis.tables.selection import choices, choose_arms
from bench.choosing import fastest, holds_up, is_faster
from bench.errors import InputError
from bench.runs.search import Point, best_point
from efficient_bert.training import Context, Trained
from efficient_bert.training.adapler import stage
from efficient_bert.training.adapler.saliency import FILE
from efficient_bert.training.adapler.stage import ADAPLER, Verdict
from efficient_bert.training.recipe import Recipe
from tests.efficient_bert.training.test_training_loop import context
from tests.support.stored_runs import StoredRun, read_runs

EDGES = (0.91, 0.905, 0.75, 0.3, 1.0)
"""Scores of a full model; one hundredth less is no number that a float holds exactly."""


def by_report(folder: Path, full: float, score: float, speedup: float = 2.0) -> bool:
    """Whether the report chooses a point with this held-out score beside that full model."""
    held = {"accuracy": score, "flops_speedup": speedup}
    runs = [StoredRun("full", heldout={"accuracy": full, "flops_speedup": 1.0}), StoredRun("p", "m", heldout=held)]
    return "m" in choose_arms(read_runs(folder, *runs))


def by_search(full: float, score: float, speedup: float = 2.0) -> bool:
    """Whether the search chooses it."""
    try:
        return best_point(Point({}, full, 1.0), [Point({"k": 1}, score, speedup)], allowed_drop=0.01).knobs == {"k": 1}
    except InputError:
        return False


def by_training(folder: Path, monkeypatch: pytest.MonkeyPatch, full: float, score: float) -> bool:
    """Whether a training stage ranks an epoch by its speed-up, as one that may be kept for it."""
    (folder / "before").mkdir(parents=True)
    (folder / "before" / FILE).touch()
    scores, ranks = iter([full, score]), []
    monkeypatch.setattr(stage, "measure_heldout", lambda *_: Verdict(next(scores, 0.0), 2.0, (1.0,)))
    monkeypatch.setattr(stage, "with_saliency", lambda rows, _: rows)

    def note(given: Context, recipe: Recipe) -> Trained:
        ranks.append(recipe.rank(given.model, 0.0))
        return Trained(given.model)

    monkeypatch.setattr(stage, "train", note)
    ADAPLER.train(context(folder, stage=ADAPLER, before=folder / "before"))
    return ranks == [2.0]


@pytest.mark.parametrize("full", EDGES)
@pytest.mark.parametrize(("lost", "kept"), [(0.0, True), (0.009, True), (0.01, True), (0.0101, False), (0.5, False)])
def test_the_limit_is_the_same_everywhere(
    full: float, lost: float, kept: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Report, search and training agree: a loss of just a point is allowed, to the last digit, and more is not."""
    score = round(full - lost, 6)
    assert by_report(tmp_path / "runs", full, score) == kept
    assert by_search(full, score) == kept
    assert by_training(tmp_path / "training", monkeypatch, full, score) == kept


@pytest.mark.parametrize(("score", "speedup"), [(math.nan, 2.0), (0.9, math.nan), (math.nan, math.nan), (0.9, 1.0)])
def test_what_is_no_number_is_never_chosen(score: float, speedup: float) -> None:
    """An undefined score or speed-up, or one that saves nothing, is no choice; the refusal is one sentence."""
    assert not (holds_up(score, 0.9, 0.01) and is_faster(speedup))
    with pytest.raises(InputError, match=r"of its score, 0\.900: of the 1 tried, none is faster and has a score; "):
        best_point(Point({}, 0.9, 1.0), [Point({}, score, speedup)], allowed_drop=0.01)


def test_beside_an_undefined_reference_nothing_holds_up() -> None:
    """Where the full model has no score, no point is near it, and of no points none is chosen."""
    assert not holds_up(0.9, math.nan, 1.0)
    with pytest.raises(InputError, match="try other knob values"):
        best_point(Point({}, math.nan, 1.0), [Point({}, 0.9, 2.0)], allowed_drop=0.01)
    assert fastest([], lambda point: (0.0, 0.0)) is None


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_of_equally_fast_points_the_better_is_chosen(order: tuple[int, ...], tmp_path: Path) -> None:
    """Of three points of one speed-up, report and search take that of the highest score, however they are named."""
    scores = (0.895, 0.92, 0.90)
    points = [Point({"k": name}, scores[number], 2.0) for name, number in enumerate(order)]
    assert best_point(Point({}, 0.9, 1.0), points, allowed_drop=0.01).score == 0.92
    runs = [
        StoredRun(
            f"r{point.knobs['k']}", "m", knobs=point.knobs, heldout={"accuracy": point.score, "flops_speedup": 2.0}
        )
        for point in points
    ]
    found = read_runs(tmp_path, StoredRun("full"), *runs)
    assert choose_arms(found)["m"].heldout_mean("accuracy") == 0.92
    assert "held-out accuracy 0.920" in choices(found)[0]
