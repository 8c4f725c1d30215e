"""Scores beside scikit-learn, scipy and hand counts; intervals beside a plain bootstrap; memory while streaming."""

from __future__ import annotations

import gzip
import json
import math
import os
import tracemalloc
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import bootstrap, entropy
from sklearn.metrics import (
    auc,
    average_precision_score,
    classification_report,
    precision_recall_curve,
    roc_auc_score,
)

from eraser_eval import (
    Erased,
    Prediction,
    Rationale,
    Settings,
    read_dataset,
    read_predictions,
    score,
    validate,
    write_predictions,
)
from eraser_eval.metrics import faithfulness as faithful
from eraser_eval.metrics import table
from eraser_eval.metrics.agreement import above_uniform_level
from eraser_eval.metrics.classification import Classes, classification_scores
from eraser_eval.metrics.intervals import percentile_interval
from eraser_eval.metrics.plausibility import hard_counts, hard_scores, hard_terms
from eraser_eval.metrics.ranking import ranking
from eraser_eval.metrics.table import Table, resample, total
from eraser_eval.report import nest, point
from tests.support.eraser_files import GOLD, call, lines, predictions, refused, scored, write

SCORES = st.one_of(st.sampled_from([0.0, 0.5, 1.0]), st.floats(-1e300, 1e300))
MARKED = st.lists(st.tuples(st.booleans(), SCORES), min_size=1, max_size=30)


@settings(deadline=None)
@given(MARKED)
def test_rankings_equal_scikit_learn(tokens: list[tuple[bool, float]]) -> None:
    """AUPRC, average precision and ROC AUC are scikit-learn's, ties and all, wherever they are defined."""
    marked, scores = np.array([mark for mark, _ in tokens]), np.array([value for _, value in tokens])
    found = ranking(marked, scores)
    assert math.isnan(found.auprc) == math.isnan(found.average_precision) == (not marked.any())
    assert math.isnan(found.roc_auc) == (marked.all() or not marked.any())
    if marked.any():
        precision, recall, _ = precision_recall_curve(marked, scores)
        assert found.auprc == pytest.approx(auc(recall, precision), rel=1e-12)
        assert found.average_precision == pytest.approx(average_precision_score(marked, scores), rel=1e-12)
    if marked.any() and not marked.all():
        assert found.roc_auc == pytest.approx(roc_auc_score(marked, scores), rel=1e-12, abs=1e-15)


@settings(deadline=None)
@given(st.lists(st.one_of(st.integers(0, 20).map(lambda number: number / 10), st.floats(0, 1e308)), min_size=1))
def test_the_uniform_level_is_exact(scores: list[float]) -> None:
    """A token is predicted where its decimal number is at least the mean of all, in rational arithmetic."""
    exact = [Fraction(repr(value)) for value in scores]
    mean = sum(exact) / len(exact)
    assert above_uniform_level(np.array(scores)).tolist() == [value >= mean for value in exact]


SPANS = st.sets(st.tuples(st.integers(0, 12), st.integers(0, 12)).map(lambda pair: (min(pair), max(pair))), max_size=5)


def array(spans: set[tuple[int, int]]) -> np.ndarray[Any, np.dtype[np.int32]]:
    """Spans as an array [k, 2]."""
    return np.array(sorted(spans), np.int32).reshape(-1, 2)


def met(span: tuple[int, int], others: set[tuple[int, int]], threshold: float) -> bool:
    """Whether a span reaches an intersection over union with any other, by sets of tokens."""
    tokens = set(range(*span))
    overlaps = [(tokens & set(range(*other)), tokens | set(range(*other))) for other in others]
    return any(len(shared) / len(both) >= threshold for shared, both in overlaps if both)


@settings(deadline=None)
@given(st.lists(st.tuples(SPANS, SPANS), min_size=1, max_size=4))
def test_hard_scores_equal_sets_of_tokens(pairs: list[tuple[set[tuple[int, int]], set[tuple[int, int]]]]) -> None:
    """Counts of spans and tokens are those of Python sets, and recall over marked spans never exceeds 1."""
    filled = Table()
    for gold, predicted in pairs:
        counts = hard_counts(array(gold), array(predicted), (0.5, 1.0))
        filled.append(counts)
        tokens = [{token for span in spans for token in range(*span)} for spans in (gold, predicted)]
        assert counts["token_both"] == len(tokens[0] & tokens[1])
        assert (counts["token_gold"], counts["token_predicted"]) == (len(tokens[0]), len(tokens[1]))
        assert counts["span_both"] == len(gold & predicted)
        for index, threshold in enumerate((0.5, 1.0)):
            assert counts[f"reached_{index}"] == sum(met(span, gold, threshold) for span in predicted)
            assert counts[f"met_{index}"] == sum(met(span, predicted, threshold) for span in gold)
    found = nest(hard_scores(total(filled, hard_terms), (0.5, 1.0)), point)
    for block in found["corrected"]["iou_scores"]:
        assert all(
            value is None or 0 <= value <= 1 for average in ("micro", "macro") for value in block[average].values()
        )


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abcd")), min_size=1, max_size=20))
def test_the_report_equals_scikit_learn(rows: list[tuple[str, str]]) -> None:
    """Every number of the classification report is scikit-learn's, over the classes of gold and predictions."""
    classes = Classes()
    for gold, predicted in rows:
        classes.append(gold, predicted)
    for sums in (classes.sums(), total(classes.table, classes.terms)):
        ours = nest(classification_scores(sums, classes), point)["classification_scores"]
        theirs = classification_report(*zip(*rows, strict=True), output_dict=True, zero_division=0)
        assert ours["accuracy"] == ours["prf"]["accuracy"] == pytest.approx(theirs.pop("accuracy"))
        assert set(ours["prf"]) == {*theirs, "accuracy"}
        for label, numbers in theirs.items():
            assert ours["prf"][label] == pytest.approx(numbers)


def test_many_classes_have_no_intervals_but_scores() -> None:
    """With more classes than fit in memory as columns, accuracy has an interval and the report is still whole."""
    classes = Classes()
    for number in range(300):
        classes.append(str(number), str(number - number % 2))
    assert set(classes.terms(classes.table.block(0, 300))) == {"rows", "right"}
    assert len(nest(classification_scores(classes.sums(), classes), point)["classification_scores"]["prf"]) == 303


SHARES = st.lists(st.integers(0, 9), min_size=3, max_size=3).filter(any)


@settings(deadline=None)
@given(SHARES, SHARES)
def test_entropy_and_divergence_equal_scipy(one: list[int], other: list[int]) -> None:
    """Entropy and KL are scipy's, of distributions normalised first; KL(after || before) is infinite where it is."""
    before = {label: value / 7 for label, value in zip("abc", one, strict=True)}
    after = {label: value / 5 for label, value in zip("cba", other, strict=True)}
    assert faithful.entropy(before) == pytest.approx(entropy(one), abs=1e-12)
    assert faithful.divergence(after, before) == pytest.approx(entropy(other[::-1], one), abs=1e-12)


@pytest.mark.parametrize(
    ("there", "asked", "chosen"),
    [
        ((0.01, 0.05, 0.1, 0.2, 0.3, 0.5), None, (0, 1, 2, 3, 5)),
        ((0.1, 0.2), None, (0, 1)),
        ((0.1, 0.1 + 0.2), (0.3,), (1,)),
        ((0.1, 0.2), (0.2, 0.1), (0, 1)),
        ((0.1, 0.2), (0.2, 0.7), None),
    ],
)
def test_thresholds_are_chosen(
    there: tuple[float, ...], asked: tuple[float, ...] | None, chosen: tuple[int, ...] | None
) -> None:
    """The official thresholds if the file has them, else the file's; asked ones with a tolerance, or none at all."""
    assert faithful.choose_thresholds(there, asked) == chosen


# Intervals


def filled(values: np.ndarray[Any, np.dtype[np.float64]]) -> Table:
    """A table of one column."""
    found = Table()
    for value in values:
        found.append({"value": value})
    return found


def test_intervals_are_those_of_a_plain_bootstrap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawn block by block, the percentile interval of a mean is scipy's, up to the noise of resampling."""
    monkeypatch.setattr(table, "BLOCK", 7)
    # Sorted, blocks differ: an interval of resamples within blocks alone would be far too narrow.
    values = np.sort(np.random.default_rng(0).gamma(2.0, size=60))
    (sums,) = resample([(filled(values), lambda terms: terms)], resamples=4000, seed=1)
    theirs = bootstrap((values,), np.mean, n_resamples=4000, method="percentile", rng=2).confidence_interval
    low, high = percentile_interval(sums["value"] / len(values), level=0.95)
    assert (low, high) == pytest.approx((theirs.low, theirs.high), rel=0.03)


def test_every_resample_has_as_many_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights of a resample are whole numbers that sum to the number of rows, in every block size."""
    for block in (1, 4, 100):
        monkeypatch.setattr(table, "BLOCK", block)
        rows = filled(np.arange(10.0))
        (sums,) = resample([(rows, lambda terms: {"one": np.ones_like(terms["value"])})], resamples=50, seed=0)
        assert sums["one"].tolist() == [10.0] * 50


def test_intervals_follow_the_seed(tmp_path: Path) -> None:
    """The same seed gives the same report, another one other intervals around the same numbers."""
    write(tmp_path)
    first, again, other = (scored(tmp_path, "--resamples", 200, "--seed", seed).report for seed in (1, 1, 2))
    assert first == again
    assert first["intervals"] != other["intervals"]
    assert {**first, "intervals": 0, "bootstrap": 0} == {**other, "intervals": 0, "bootstrap": 0}
    low, high = first["intervals"]["agreement"]["fpr_pooled"]
    assert low <= first["agreement"]["fpr_pooled"] <= high


# Files


def test_predictions_are_written_and_read_back(tmp_path: Path) -> None:
    """What is written, gzipped or not, is accepted, reads back equal, and scores as the file it was read from."""
    write(tmp_path)
    before = scored(tmp_path).report
    read = [prediction for _, prediction in read_predictions(tmp_path / "predictions.jsonl")]
    for name in ("again.jsonl", "again.jsonl.gz"):
        write_predictions(tmp_path / name, read)
        assert not refused(
            call("validate", "--data", tmp_path, "--split", "val", "--predictions", tmp_path / name, "--json")
        )
        again = score(tmp_path, split="val", predictions=tmp_path / name, settings=Settings(resamples=3))
        assert json.loads(json.dumps(again)) == before
    packed = (tmp_path / "again.jsonl.gz").read_bytes()
    assert gzip.decompress(packed) == (tmp_path / "again.jsonl").read_bytes()
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".gz", *[".jsonl"] * 4]
    assert [
        json.loads(line) for line in (tmp_path / "again.jsonl").read_text(encoding="utf8").splitlines()
    ] == predictions()


def test_fields_that_are_not_given_are_not_written(tmp_path: Path) -> None:
    """A prediction of spans alone has no other field."""
    soft = np.array([0.5, 1.0])
    write_predictions(
        tmp_path / "one.jsonl",
        [
            Prediction("a", (Rationale("d", hard=((0, 2),)),)),
            Prediction("b", (Rationale("d", soft=soft),), "x", {"x": 1.0}, Erased()),
        ],
    )
    first, second = map(json.loads, (tmp_path / "one.jsonl").read_text(encoding="utf8").splitlines())
    hard = [{"start_token": 0, "end_token": 2}]
    assert first == {"annotation_id": "a", "rationales": [{"docid": "d", "hard_rationale_predictions": hard}]}
    assert second["rationales"] == [{"docid": "d", "soft_rationale_predictions": [0.5, 1.0]}]
    assert set(second) == {"annotation_id", "rationales", "classification", "classification_scores"}


def test_long_documents_are_not_kept(tmp_path: Path) -> None:
    """Memory while scoring stays far below the scores of the file: each document leaves a few numbers."""
    count, length = 60, 20_000
    rows = [{"docid": f"d{number}", "document": "w " * length} for number in range(count)]
    gold = [{**GOLD[1], "annotation_id": row["docid"], "docids": None, "evidences": []} for row in rows]
    scores = np.round(np.random.default_rng(0).random(length), 3).tolist()
    given_rows = [
        {
            "annotation_id": row["docid"],
            "rationales": [{"docid": row["docid"], "soft_rationale_predictions": scores}],
        }
        for row in rows
    ]
    write(tmp_path, documents=lines(rows), gold=lines(gold), given=lines(given_rows))
    del rows, gold, given_rows
    tracemalloc.start()
    try:
        score(tmp_path, split="val", predictions=tmp_path / "predictions.jsonl", settings=Settings(resamples=0))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < count * length * 8 / 2


@pytest.mark.skipif("EFFICIENT_BERT_DATA" not in os.environ, reason="EFFICIENT_BERT_DATA is not set")
@pytest.mark.parametrize(("split", "documents"), [("val", 200), ("test", 199)])
def test_published_reviews_are_validated_and_scored(split: str, documents: int, tmp_path: Path) -> None:
    """The gold of the movie reviews, written as a prediction, is valid and perfect but for its empty spans."""
    folder = Path(os.environ["EFFICIENT_BERT_DATA"]) / "eraser" / "movies"
    data = read_dataset(folder)
    path = tmp_path / "gold.jsonl.gz"

    def perfect(docid: str, spans: set[tuple[int, int]]) -> Rationale:
        soft = np.zeros(len(data.documents[docid].split()))
        for start, end in spans:
            soft[start:end] = 1.0
        edges = np.flatnonzero(np.diff(soft, prepend=0, append=0))
        return Rationale(docid, hard=tuple((int(start), int(end)) for start, end in edges.reshape(-1, 2)), soft=soft)

    rows = data.splits[split]
    given_rows = (
        Prediction(
            row.annotation_id, (perfect(row.docids[0], {(each.start_token, each.end_token) for each in row.spans}),)
        )
        for row in rows
    )
    write_predictions(path, given_rows)
    assert validate(folder, splits=[split], predictions=path) == {
        "documents": 2000,
        split: documents,
        "predictions": documents,
    }
    found = score(folder, split=split, predictions=path, settings=Settings(resamples=10))
    assert found["token_prf"]["instance_micro"] == {"p": 1.0, "r": 1.0, "f1": 1.0}
    assert found["agreement"]["mean_average_precision"] == found["token_soft_metrics"]["roc_auc_score"] == 1.0
    assert found["agreement"]["fpr_mean_over_documents"] == 0.0
    assert any("empty" in note for note in found["notes"]) == (split == "test")
