"""A small data set in ERASER's layout with a prediction file that has every field, for tests to damage."""

from __future__ import annotations

import contextlib
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eraser_eval.__main__ import main

DOCUMENTS = {"un": "a «good» film .\nit was long .", "deux": "a dull film .\nno , a very dull film ."}
GOLD: list[dict[str, Any]] = [
    {
        "annotation_id": "première",
        "classification": "POS",
        "docids": ["un", "deux"],
        "evidences": [
            [
                {
                    "docid": "un",
                    "start_token": 1,
                    "end_token": 2,
                    "start_sentence": 0,
                    "end_sentence": 1,
                    "text": "«good»",
                }
            ],
            [{"docid": "deux", "start_token": 5, "end_token": 9, "start_sentence": 1, "end_sentence": 2, "text": ""}],
        ],
        "query": "",
        "query_type": None,
    },
    {
        "annotation_id": "seconde",
        "classification": "NEG",
        "docids": ["deux"],
        "evidences": [
            [{"docid": "deux", "start_token": 0, "end_token": 3, "start_sentence": 0, "end_sentence": 1, "text": ""}]
        ],
        "query": "",
        "query_type": None,
    },
]


def erased(share: float) -> dict[str, Any]:
    """Probabilities after erasing."""
    return {
        "comprehensiveness_classification_scores": {"POS": share, "NEG": 1 - share},
        "sufficiency_classification_scores": {"NEG": 0.25, "POS": 0.75},
    }


def entry(docid: str, *spans: tuple[int, int]) -> dict[str, Any]:
    """A rationale with tokens and sentences scored."""
    length = len(DOCUMENTS[docid].split())
    return {
        "docid": docid,
        "hard_rationale_predictions": [{"start_token": start, "end_token": end} for start, end in spans],
        "soft_rationale_predictions": [round(0.1 + 0.37 * index % 1, 2) for index in range(length)],
        "soft_sentence_predictions": [0.5, 2],
    }


def line(annotation_id: str, *rationales: dict[str, Any]) -> dict[str, Any]:
    """A prediction with every field."""
    return {
        "annotation_id": annotation_id,
        "rationales": list(rationales),
        "classification": "POS",
        "classification_scores": {"POS": 0.625, "NEG": 0.375},
        **erased(0.5),
        "tokens_to_flip": 3,
        "thresholded_scores": [{"threshold": share, **erased(share)} for share in (0.25, 0.5)],
    }


def predictions() -> list[dict[str, Any]]:
    """A line for each annotation."""
    return [
        line("première", entry("un", (1, 3)), entry("deux", (0, 2), (6, 9))),
        line("seconde", entry("deux", (0, 3))),
    ]


@dataclass(frozen=True)
class Answer:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def report(self) -> dict[str, Any]:
        """The JSON that was printed."""
        found: dict[str, Any] = json.loads(self.out)
        return found


def lines(rows: list[dict[str, Any]]) -> bytes:
    """Rows as JSON lines in UTF-8."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def write(
    folder: Path, *, given: bytes | None = None, gold: bytes | None = None, documents: bytes | None = None
) -> Path:
    """The data set and its predictions; the folder comes back."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{"docid": docid, "document": text} for docid, text in DOCUMENTS.items()]
    (folder / "docs.jsonl").write_bytes(lines(rows) if documents is None else documents)
    (folder / "val.jsonl").write_bytes(lines(GOLD) if gold is None else gold)
    (folder / "predictions.jsonl").write_bytes(lines(predictions()) if given is None else given)
    return folder


def call(*arguments: object) -> Answer:
    """Run the scorer's command line in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(argument) for argument in arguments])
    return Answer(code, out.getvalue(), err.getvalue())


def scored(folder: Path, *arguments: object) -> Answer:
    """Score the predictions of a folder that `write` made."""
    files = ("--data", folder, "--split", "val", "--predictions", folder / "predictions.jsonl")
    return call("score", *files, "--json", "--resamples", 3, *arguments)


def refused(answer: Answer) -> bool:
    """Whether a command refused its input, with one line and nothing else; anything but that or a report fails."""
    if answer.code == 0:
        assert answer.err == ""
        assert json.loads(answer.out)
        return False
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith("error: ")
    assert answer.err.count("\n") == 1
    assert answer.err[:-1].isprintable()
    return True
