"""Documents as a model reads them: windows, answers, token scores, and what is left when tokens are erased."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench.backends.runners import EagerRunner
from bench.errors import InputError, input_errors
from bench.progress import Bars
from bench.rationales.documents import Document, Reader, answers, explanations
from bench.rationales.explained_model import ExplainedModel, token_scores
from bench.rationales.explanation_store import ExplanationStore
from bench.rationales.faithfulness import BUDGETS, Eraser, budget, highest, runs_of
from bench.rationales.gold import read_gold
from bench.rationales.synthetic_gold import write_gold
from bench.registry import EXPLAINERS, TASKS
from efficient_bert import Batch, run
from efficient_bert.engine.decisions import Policy
from efficient_bert.explainers import Explainer, Question
from tests.support.tiny import tiny_model

CLS, SEP = 1, 2
READER = Reader(CLS, SEP, max_length=8, windows=True)
ROOMS = 6


def document(units: list[int], name: str = "d") -> Document:
    """A document whose word pieces lie in these tokens; every third token is marked."""
    size = max(units) + 1
    return Document(
        name,
        name,
        "a",
        tuple(f"w{place}" for place in range(size)),
        np.arange(10, 10 + len(units)),
        np.array(units),
        np.arange(size) % 3 == 0,
    )


LONG = document([0, 0, 1, 2, 3, 4, 4, 4, 5, 6, 7, 8, 8], "long")
SHORT = document([0, 1, 1], "short")


@pytest.fixture(scope="module")
def runner() -> EagerRunner:
    """A random model that runs every layer."""
    model = tiny_model("four_heads")
    return EagerRunner(model, Policy(), model.config, "cpu")


def test_windows_hold_whole_tokens() -> None:
    """A window ends before a token that does not fit, and every piece is in one window."""
    assert [own.tolist() for own in READER.split(LONG)] == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9, 10], [11, 12]]
    assert READER.inputs(SHORT) == [[CLS, 10, 11, 12, SEP]]


def test_without_windows_the_end_is_not_read() -> None:
    """A task without windows reads the first pieces, as its training did."""
    reader = replace(READER, windows=False)
    assert [own.tolist() for own in reader.split(LONG)] == [list(range(ROOMS))]
    assert [own.tolist() for own in reader.split(LONG, np.arange(9) > 1)] == [[3, 4, 5]]


def test_erased_tokens_close_up() -> None:
    """What is kept is read as one text; where nothing is kept there is [CLS] and [SEP]."""
    keep = np.zeros(9, np.bool_)
    keep[[0, 4, 8]] = True
    assert READER.inputs(LONG, keep) == [[CLS, 10, 11, 15, 16, 17, SEP], [CLS, 21, 22, SEP]]
    assert READER.inputs(LONG, np.zeros(9, np.bool_)) == [[CLS, SEP]]


def test_an_answer_is_the_mean_over_windows(runner: EagerRunner) -> None:
    """Probabilities of a document are the mean of its windows', whatever is read beside it."""
    found = answers(runner, READER, [(LONG, None), (SHORT, None)])
    for each, own in zip((LONG, SHORT), found, strict=True):
        alone = []
        for window in READER.inputs(each):
            ids = torch.tensor([window])
            logits = run(runner.model, Batch(ids, torch.ones_like(ids, dtype=torch.bool), torch.zeros_like(ids))).logits
            alone.append(logits.double().softmax(-1)[0].detach().numpy())
        np.testing.assert_allclose(own.probabilities, np.mean(alone, axis=0), atol=1e-6)


def test_token_scores_are_those_of_their_pieces(runner: EagerRunner) -> None:
    """Scores that are the pieces' ids pool to their mean, sum or maximum over each token, special tokens left out."""
    ids = Explainer("ids", "", "", lambda question: question.batch.input_ids[:, None].double())
    expected = {"mean": [10.5, 12, 13, 14, 16, 18, 19, 20, 21.5], "max": [11, 12, 13, 14, 17, 18, 19, 20, 22]}
    expected["sum"] = [21, 12, 13, 14, 48, 18, 19, 20, 43]
    for pooling in ("mean", "max", "sum"):
        (found,) = explanations(ids, runner, READER, documents=[LONG], classes=[0], pooling=pooling)
        assert found.tolist() == [expected[pooling]]


def test_explanations_are_kept_as_they_were_pooled(
    runner: EagerRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was explained once is not explained again, after a restart neither, unless pieces are pooled otherwise."""
    documents = [LONG, SHORT]
    said = answers(runner, READER, [(document, None) for document in documents])
    reads = [
        ExplainedModel(runner, READER, documents, said, ("a", "b", "c"), ExplanationStore(tmp_path / "shelf"))
        for _ in range(2)
    ]
    most, mean = (token_scores("attention", reads[0], pooling, watcher=Bars()) for pooling in ("max", "mean"))
    assert [own.shape for own in most] == [
        (runner.model.config.num_hidden_layers, 9),
        (runner.model.config.num_hidden_layers, 2),
    ]
    assert most[0][0, 0] > mean[0][0, 0]
    monkeypatch.setattr("bench.rationales.explained_model.explanations", None)
    again = token_scores("attention", reads[1], "max", watcher=Bars())
    assert [own.tolist() for own in again] == [own.tolist() for own in most]
    reads[1].store.clear()
    with pytest.raises(TypeError):
        token_scores("attention", reads[1], "max", watcher=Bars())


def test_answers_to_erased_texts_are_kept(runner: EagerRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A text that was read again with tokens left out is not read a third time, after a restart neither."""
    labels, store = ("a", "b", "c"), ExplanationStore(tmp_path / "shelf")
    scores, chosen = np.arange(9.0), highest(np.arange(9.0), 4)
    eraser = Eraser(runner, READER, labels, known=store.erased_answers(labels))
    first = eraser.erased_answers([LONG], [scores], [chosen])
    store.add_erased_answers(eraser.known)
    monkeypatch.setattr("bench.rationales.faithfulness.answers", None)
    later = Eraser(runner, READER, labels, known=store.erased_answers(labels))
    assert later.erased_answers([LONG], [scores], [chosen]) == first
    with pytest.raises(TypeError):
        later.erased_answers([LONG], [scores], [highest(scores, 3)])


def test_a_shelf_loses_nothing_to_another_process(tmp_path: Path) -> None:
    """Two that read different texts at once keep the answers of both; one that is stopped leaves nothing behind."""
    one, other = ExplanationStore(tmp_path / "shelf"), ExplanationStore(tmp_path / "shelf")
    one.add_erased_answers({("d", b"1"): {"a": 0.25, "b": 0.75}})
    other.add_erased_answers({("d", b"2"): {"a": 0.5, "b": 0.5}})
    assert one.erased_answers(["a", "b"]) == {("d", b"1"): {"a": 0.25, "b": 0.75}, ("d", b"2"): {"a": 0.5, "b": 0.5}}
    before = sorted(tmp_path.rglob("*"))

    def stopped() -> list[Any]:
        other.clear()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        one.scores("attention", [2], stopped)
    assert before
    assert list(tmp_path.iterdir()) == []
    found = one.scores("attention", [2], lambda: [np.ones((1, 2))])
    assert [own.tolist() for own in found] == [[[1.0, 1.0]]]


def test_positions_are_those_in_the_document(runner: EagerRunner) -> None:
    """The position control falls evenly over all windows, from the first piece to the last; unread ones have 0."""
    found = explanations(EXPLAINERS["position"], runner, READER, documents=[LONG, SHORT], classes=[0, 0], pooling="max")
    first_pieces = [0, 2, 3, 4, 5, 8, 9, 10, 11]
    np.testing.assert_allclose(found[0][0], [1 - (piece + 1) / 15 for piece in first_pieces], rtol=1e-6)
    np.testing.assert_allclose(found[1][0], [0.8, 0.6], rtol=1e-6)
    reader = replace(READER, windows=False)
    (found_first,) = explanations(EXPLAINERS["position"], runner, reader, documents=[LONG], classes=[0], pooling="max")
    expected = [1 - (piece + 1) / (ROOMS + 2) if piece < ROOMS else 0.0 for piece in first_pieces]
    np.testing.assert_allclose(found_first[0], expected, rtol=1e-6)


def test_shares_of_windows_are_held_against_an_equal_share(runner: EagerRunner) -> None:
    """An equal share is 1 in a long window and in a short one; what was not read has 0."""

    def even(question: Question) -> torch.Tensor:
        mask = question.batch.mask.double()
        return (mask / mask.sum(1, keepdim=True))[:, None]

    explainer = Explainer("even", "", "", even, shares=True)
    both = explanations(explainer, runner, READER, documents=[LONG, SHORT], classes=[0, 0], pooling="mean")
    for found in both:
        np.testing.assert_allclose(found, 1.0)
    first = replace(READER, windows=False)
    (found,) = explanations(explainer, runner, first, documents=[LONG], classes=[0], pooling="mean")
    np.testing.assert_allclose(found[0], [1, 1, 1, 1, 1, 0, 0, 0, 0])


def test_each_document_is_explained_for_its_own_answer(runner: EagerRunner) -> None:
    """Every window of a document is asked about that document's class."""
    explainer = Explainer(
        "classes", "", "", lambda question: question.classes[:, None, None] + 0 * question.batch.mask[:, None]
    )
    found = explanations(explainer, runner, READER, documents=[LONG, SHORT], classes=[2, 1], pooling="mean")
    assert [set(own.ravel()) for own in found] == [{2.0}, {1.0}]


def test_the_highest_and_their_spans() -> None:
    """Of equal scores the earlier is taken; neighbours make one span; a share is rounded up."""
    chosen = highest(np.array([1.0, 3.0, 2.0, 2.0, 0.0, 2.0]), 3)
    assert chosen.tolist() == [False, True, True, True, False, False]
    assert runs_of(chosen) == ((1, 4),)
    assert runs_of(np.array([True, False, True])) == ((0, 1), (2, 3))
    assert runs_of(np.zeros(3, np.bool_)) == ()
    assert [budget(9, share) for share in BUDGETS] == [1, 1, 1, 2, 5]
    assert budget(100, 0.05) == 5


def test_erasing_reads_what_is_left(runner: EagerRunner) -> None:
    """Comprehensiveness is the answer without the rationale, sufficiency that to nothing else, at every share too."""
    scores = np.array([5.0, 0, 0, 0, 9.0, 0, 0, 0, 7.0])
    chosen = highest(scores, 2)
    eraser = Eraser(runner, READER, ("a", "b", "c"))
    ((own, shares),) = eraser.erased_answers([LONG], [scores], [chosen])
    half = highest(scores, 5)
    masks = [~chosen, chosen, ~half, half]
    expected = answers(runner, READER, [(LONG, mask) for mask in masks])
    found = [own.comprehensiveness, own.sufficiency, shares[0.5].comprehensiveness, shares[0.5].sufficiency]
    for one, other in zip(found, expected, strict=True):
        assert one is not None
        np.testing.assert_allclose(list(one.values()), other.probabilities, atol=1e-6)
    assert tuple(shares) == BUDGETS
    known = len(eraser.known)
    eraser.erased_answers([LONG], [scores], [chosen])
    assert len(eraser.known) == known


def test_half_precision_is_for_gradients_and_erased_texts(runner: EagerRunner) -> None:
    """Under bfloat16 gradients and answers move a little, and attention and controls not at all."""
    for name, explainer in EXPLAINERS.items():
        if explainer.adaptive:
            continue
        asked: dict[str, Any] = {"documents": [LONG, SHORT], "classes": [0, 1], "pooling": "mean"}
        exact, half = (explanations(explainer, runner, READER, precision=way, **asked) for way in ("no", "bf16"))
        for one, other in zip(exact, half, strict=True):
            assert np.array_equal(one, other) is not explainer.gradients, name
            np.testing.assert_allclose(other, one, atol=0.05 * one.max(), err_msg=name)
    mask = highest(np.arange(9.0), 4)
    said = [answers(runner, READER, [(LONG, mask)], precision=way)[0].probabilities for way in ("no", "bf16")]
    assert not np.array_equal(said[0], said[1])
    np.testing.assert_allclose(said[1], said[0], atol=0.01)
    ((own, _),) = Eraser(runner, READER, ("a", "b", "c"), "bf16").erased_answers([LONG], [np.arange(9.0)], [mask])
    assert own.sufficiency is not None
    assert list(own.sufficiency.values()) == said[1].tolist()


def test_the_kept_explainer_is_one_of_the_registry() -> None:
    """The explainers that commands name are there, each with a source."""
    assert {"adapler", "attention", "rollout", "saliency", "integrated_gradients", "random", "position"} <= set(
        EXPLAINERS
    )
    assert all(explainer.summary and explainer.source for explainer in EXPLAINERS.values())


def test_demo_rationales_are_those_of_its_generator() -> None:
    """The marked tokens of the synthetic task are its own spans, and a limit spreads over the split."""
    task = TASKS["demo"]
    assert task.generate is not None
    rows = {row["example_id"]: row for row in task.generate(0)["test"]}
    gold = read_gold(task, "test", data_dir=None)
    assert len(gold.annotations) == len(rows)
    for annotation in gold.annotations[:50]:
        spans = [(span.start_token, span.end_token) for span in annotation.spans]
        assert spans == [tuple(span) for span in rows[annotation.annotation_id]["rationale"]]
    few = read_gold(task, "test", data_dir=None, limit=5)
    assert [each.annotation_id for each in few.annotations] == [
        gold.annotations[place * len(gold.annotations) // 5].annotation_id for place in range(5)
    ]
    assert len(few.documents) == 5


def write_posts(folder: Path, spans: object) -> Path:
    """HateXplain's own file with one harmless post."""
    (folder / "hatexplain").mkdir()
    row = {"post_id": "7", "text": "one two three four", "label": "normal", "rationale_spans": spans}
    unmarked = [{**row, "post_id": "8", "rationale_spans": None}, {**row, "post_id": "9", "rationale_spans": []}]
    lines = "".join(f"{json.dumps(each)}\n" for each in (row, *unmarked))
    (folder / "hatexplain" / "val.jsonl").write_text(lines, encoding="utf8")
    return folder


def test_spans_beside_the_text_are_rationales(tmp_path: Path) -> None:
    """Without a folder in ERASER's layout the spans in the task's own file are read; posts without any are left out."""
    folder = write_posts(tmp_path, [[1, 2], [3, 4]])
    for data_dir in (folder, folder / "hatexplain"):
        (annotation,) = read_gold(TASKS["hatexplain"], "val", data_dir=data_dir).annotations
        assert [(span.start_token, span.end_token) for span in annotation.spans] == [(1, 2), (3, 4)]


def test_rationales_lie_where_the_task_does(tmp_path: Path) -> None:
    """A folder in ERASER's layout is found from above it, and when it is the data folder itself."""
    write_gold(TASKS["demo"], seed=0, folder=tmp_path / "eraser" / "movies")
    for data_dir in (tmp_path, tmp_path / "eraser", tmp_path / "eraser" / "movies"):
        assert len(read_gold(TASKS["movies"], "test", data_dir=data_dir, limit=4).annotations) == 4


@pytest.mark.parametrize(
    ("task", "split", "message"),
    [
        ("demo", "validation", "has no rationales in its split"),
        ("sst2", "test", "carries no rationales"),
        ("movies", "test", "pass --data-dir"),
    ],
)
def test_missing_rationales_are_refused(task: str, split: str, message: str) -> None:
    """An unknown split, a task without rationales, and one without data are refused with a remedy."""
    with pytest.raises(InputError, match=message):
        read_gold(TASKS[task], split, data_dir=None)


def test_malformed_spans_are_refused(tmp_path: Path) -> None:
    """A span past the end is refused by its line, and no text is quoted."""
    with pytest.raises(InputError, match=r"val.jsonl, line 1: rationale span \[3, 9\) is none of 4 tokens") as refusal:
        read_gold(TASKS["hatexplain"], "val", data_dir=write_posts(tmp_path, [[3, 9]]))
    assert "three" not in str(refusal.value)
    with pytest.raises(InputError, match="holds no eraser/movies"):
        read_gold(TASKS["movies"], "val", data_dir=tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b'"}', b"", "is no JSON text"),
        (b"two three", b"two \xff three", "is not UTF-8"),
        (b'"text"', b'"texts"', "has no column 'text'"),
        (b'"post_id"', b'"id"', "has no column 'post_id'"),
        (b'"one two three four"', b'["one", "two", "three"]', "'text' is a list, but must be a string"),
        (b"[[1, 2]]", b"[3]", "rationale_spans holds no list of"),
        (b"[[1, 2]]", b"[[1, 2, 3]]", "rationale_spans holds no list of"),
        (b"[[1, 2]]", b"[[1, 2.0]]", "rationale_spans holds no list of"),
        (b"[[1, 2]]", b'["three"]', "rationale_spans holds no list of"),
        (b"[[1, 2]]", b'"three"', "rationale_spans holds no list of"),
        *((b"[[1, 2]]", value, "rationale_spans holds no list of") for value in (b"false", b"0", b'""', b"{}")),
    ],
)
def test_malformed_posts_are_refused(old: bytes, new: bytes, message: str, tmp_path: Path) -> None:
    """A broken line is refused in one line with its file and number, and no text is quoted."""
    path = write_posts(tmp_path, [[1, 2]]) / "hatexplain" / "val.jsonl"
    row = {"rationale_spans": [[1, 2]], "label": "normal", "post_id": "6", "text": "one two three four"}
    path.write_bytes(path.read_bytes() + json.dumps(row).encode().replace(old, new))
    with pytest.raises(ValueError, match=f"val.jsonl, line 4:? {message}") as refusal:
        read_gold(TASKS["hatexplain"], "val", data_dir=tmp_path)
    assert isinstance(refusal.value, input_errors())
    assert "three" not in str(refusal.value)
    assert "\n" not in str(refusal.value)
