"""The synthetic corpus: reproducible, balanced, free of overlap, hard for word counts, with rationales that decide."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression

from bench.demo_corpus import SEEN, SPLITS, UNSEEN, generate
from bench.errors import InputError
from bench.rationales.synthetic_gold import write_gold
from bench.registry import TASKS
from eraser_eval import read_dataset

Rows = list[dict[str, Any]]


@pytest.fixture(scope="module")
def corpus() -> dict[str, Rows]:
    """The corpus of seed 0."""
    return generate(0)


def words(row: dict[str, Any]) -> list[str]:
    """The tokens of the rationale, in order."""
    tokens = row["text"].split()
    return [token for start, end in row["rationale"] for token in tokens[start:end]]


def accuracy(train: Rows, test: Rows, *, ngrams: int) -> float:
    """Accuracy of a logistic regression on word counts."""
    count = CountVectorizer(tokenizer=str.split, token_pattern=None, ngram_range=(1, ngrams))
    features = count.fit_transform([row["text"] for row in train])
    model = LogisticRegression(max_iter=2000).fit(features, [row["label"] for row in train])
    return float(model.score(count.transform([row["text"] for row in test]), [row["label"] for row in test]))


def test_a_seed_gives_one_corpus_everywhere(corpus: dict[str, Rows]) -> None:
    """Seed 0 has one known digest, and another seed another text."""
    digest = hashlib.sha256(json.dumps(corpus).encode()).hexdigest()
    assert digest[:16] == "c3fb9319454329f0"
    assert generate(1)["train"][0]["text"] != corpus["train"][0]["text"]


def test_splits_are_balanced_and_share_no_text(corpus: dict[str, Rows]) -> None:
    """Splits have their sizes, half of each label, and no text occurs twice anywhere."""
    assert {split: len(rows) for split, rows in corpus.items()} == dict(SPLITS)
    for rows in corpus.values():
        assert sum(row["label"] for row in rows) * 2 == len(rows)
    texts = [row["text"] for rows in corpus.values() for row in rows]
    assert len(set(texts)) == len(texts) == 5000


def test_texts_are_short_and_long_and_free_of_markup(corpus: dict[str, Rows]) -> None:
    """Texts have one to eight sentences of blank-separated tokens, and no sign of the grammar is left."""
    sentences = [row["text"].split().count(".") for rows in corpus.values() for row in rows]
    assert (min(sentences), max(sentences)) == (1, 8)
    for row in corpus["train"]:
        assert row["text"] == " ".join(row["text"].split())
        assert not set("[]${}") & set(row["text"])
        assert row["text"].endswith(" .")


def test_rationales_are_ordered_spans_with_an_opinion(corpus: dict[str, Rows]) -> None:
    """Spans lie inside the text in order, do not touch, are a small part, and hold an opinion word or an event."""
    opinions = {word for lexicon in (SEEN, UNSEEN) for side in lexicon.opinions for word in side.split()}
    events = {event for lexicon in (SEEN, UNSEEN) for side in lexicon.events for event in side}
    for row in corpus["test"]:
        flat = [offset for span in row["rationale"] for offset in span]
        assert flat == sorted(set(flat))
        assert flat[0] >= 0
        assert flat[-1] <= len(row["text"].split())
        decisive = " ".join(words(row))
        assert opinions & set(decisive.split()) or any(event in decisive for event in events)
    share = sum(len(words(row)) for row in corpus["test"]) / sum(len(row["text"].split()) for row in corpus["test"])
    assert 0.05 < share < 0.4


def test_a_rationale_alone_decides_its_label(corpus: dict[str, Rows]) -> None:
    """A rule by hand, polarity turned by every negation, reads the label of every example off its rationale."""
    polarity = {word: side for lexicon in (SEEN, UNSEEN) for side in (0, 1) for word in lexicon.opinions[side].split()}
    events = {event: side for lexicon in (SEEN, UNSEEN) for side in (0, 1) for event in lexicon.events[side]}
    turning = {"not", "hardly", "never", "far", "anything", "scarcely", "means", "nobody", "wrong", "neither"}
    for row in (row for rows in corpus.values() for row in rows):
        found = words(row)
        happened = {side for event, side in events.items() if f" {event} " in f" {' '.join(found)} "}
        if happened:
            assert happened == {row["label"]}
            continue
        sides = {polarity[word] for word in found if word in polarity}
        assert sides == {1 - row["label"] if turning & set(found) else row["label"]}


def test_evaluation_uses_words_that_training_lacks(corpus: dict[str, Rows]) -> None:
    """Opinion words reserved for evaluation occur in the test split and never in training."""
    reserved = {word for side in UNSEEN.opinions for word in side.split()}
    assert not any(reserved & set(row["text"].split()) for row in corpus["train"])
    assert sum(bool(reserved & set(row["text"].split())) for row in corpus["test"]) > 50


@pytest.mark.parametrize("ngrams", [1, 2])
def test_counting_words_is_not_enough(corpus: dict[str, Rows], ngrams: int) -> None:
    """A bag of words or of pairs of words is well above chance and well below a reader."""
    assert 0.65 < accuracy(corpus["train"], corpus["test"], ngrams=ngrams) < 0.92


def test_short_examples_are_easier(corpus: dict[str, Rows]) -> None:
    """The shorter half of the test split is easier for word counts than the longer half."""
    ordered = sorted(corpus["test"], key=lambda row: len(row["text"].split()))
    half = len(ordered) // 2
    short, long = (accuracy(corpus["train"], part, ngrams=1) for part in (ordered[:half], ordered[half:]))
    assert short > long + 0.03


def test_export_writes_what_was_generated(corpus: dict[str, Rows], tmp_path: Path) -> None:
    """The exported folder reads back as ERASER with every text, label and span; validation is called val."""
    write_gold(TASKS["demo"], seed=0, folder=tmp_path / "demo")
    exported = read_dataset(tmp_path / "demo")
    assert {split: len(rows) for split, rows in exported.splits.items()} == {"train": 4000, "val": 500, "test": 500}
    for row, annotation in zip(corpus["validation"], exported.splits["val"], strict=True):
        document = exported.documents[annotation.docids[0]]
        assert document.split() == row["text"].split()
        assert annotation.classification == ("negative", "positive")[row["label"]]
        (group,) = annotation.evidences
        assert [[span.start_token, span.end_token] for span in group] == row["rationale"]
        for span in group:
            lines = document.split("\n")
            inside = " ".join(lines[span.start_sentence : span.end_sentence])
            assert span.text in inside
            assert span.end_sentence == span.start_sentence + 1


def test_export_needs_rationales(tmp_path: Path) -> None:
    """A task without rationales is refused, and no folder is made."""
    with pytest.raises(InputError, match="'sst2' are not made by this project"):
        write_gold(TASKS["sst2"], seed=0, folder=tmp_path / "out")
    assert not (tmp_path / "out").exists()
