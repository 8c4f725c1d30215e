"""HateXplain: is a post hate speech, offensive, or neither? The texts are hateful: they are never printed."""

from __future__ import annotations

from collections import Counter
from typing import Any

from bench.tasks import JsonLines, Task


def majority(tokens: Any, annotators: Any) -> tuple[object, object]:
    """Return the post and what most annotators call it, from the hub's columns; others are returned as they are.

    The hub holds `annotators` as a structure of lists or as a list of structures. Posts without a majority are in no
    published split (Mathew et al., 2021); one here is refused, for that is no class.
    """
    labels = _votes(annotators)
    if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens) or not labels:
        return tokens, annotators
    label, most = Counter(labels).most_common(1)[0]
    return " ".join(tokens), label if 2 * most > len(labels) else "no majority"


def _votes(annotators: Any) -> list[Any]:
    """Return each annotator's class, none where the columns hold something else."""
    if isinstance(annotators, dict):
        labels = annotators.get("label")
    elif isinstance(annotators, list):
        labels = [each.get("label") for each in annotators if isinstance(each, dict)]
    else:
        labels = None
    return labels if isinstance(labels, list) and all(isinstance(label, int | str) for label in labels) else []


HATEXPLAIN = Task(
    name="hatexplain",
    summary="hate speech in posts, three classes: 15,383 training texts, 1,924 to report on",
    source="Mathew et al., 2021",
    labels=("hatespeech", "normal", "offensive"),
    metrics=("accuracy", "macro_f1"),
    max_length=72,
    evaluation="test",
    text="post_tokens",
    label="annotators",
    decode=majority,
    hub=("Hate-speech-CNERG/hatexplain@refs/convert/parquet", "plain_text"),
    folder="hatexplain",
    rationales="eraser/hatexplain",
    sensitive=True,
    json_lines=JsonLines(
        files={"train": "train.jsonl", "validation": "val.jsonl", "test": "test.jsonl"},
        text="text",
        label="label",
        example_id="post_id",
    ),
)
