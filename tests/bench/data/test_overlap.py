"""Reported rows among the training rows: counted by hand, said in the plan, kept in the record."""

from __future__ import annotations

from pathlib import Path

import datasets
import pytest

from bench.data.overlap import Overlap, normalise, overlap
from bench.store.runs import RunStore
from tests.support.command_line import call
from tests.support.tiny_files import write_backbone, write_sst2


def table(*rows: tuple[str, int], pairs: bool = False) -> datasets.Dataset:
    """A loaded split; of `pairs` the texts are split at the stroke."""
    texts = [text.split("|") for text, _ in rows]
    columns = {"text": [own[0] for own in texts], "label": [label for _, label in rows]}
    return datasets.Dataset.from_dict({**columns, **({"pair": [own[1] for own in texts]} if pairs else {})})


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("A fine film.", "a  FINE film"),
        ("Straße", "STRASSE"),
        ("ﬁne ①", "fine 1"),
        ("it's good", "it \u2019s good !"),
        ("soft\u00adhyphen\u200b", "softhyphen"),
        ("caf\u00e9", "cafe\u0301"),
        ("full-width \uff21\uff22\uff23", "full width abc"),
        ("good\tfilm\u2028", "good film"),
    ],
)
def test_forms_of_one_text_are_alike(text: str, other: str) -> None:
    """Case, spaces, punctuation, what is not seen and compatible forms make no other text."""
    assert normalise(text) == normalise(other) != ""


@pytest.mark.parametrize(("text", "other"), [("!!!", "???"), ("कि", "का"), ("good 🙂", "good 🙁"), ("1.5 $", "1.5 €")])
def test_other_texts_are_not_alike(text: str, other: str) -> None:
    """Vowel signs, symbols and texts of punctuation alone still tell texts apart."""
    assert normalise(text) != normalise(other)


def test_rows_are_counted_by_hand() -> None:
    """By hand: two to the letter, one of them twice; two more but for their form; two of them with another label."""
    train, heldout = table(("a film", 1), ("a plot", 0), ("so so", 1)), table(("So so.", 0), ("fine!", 1))
    reported = table(("a film", 1), ("a plot", 1), ("A FILM", 1), ("SO SO", 0), ("fine", 0), ("new", 1))
    assert overlap([train, heldout], reported) == Overlap(exact=2, normalised=5, other_label=2)


def test_pairs_are_compared_as_pairs() -> None:
    """A pair is known where both texts are, in their order, and a text does not run into the next."""
    train = table(("a b|c", 1), ("d|e", 0), pairs=True)
    reported = table(("a|b c", 1), ("e|d", 0), ("d|x", 0), ("D|e.", 0), ("d|e", 0), pairs=True)
    assert overlap([train], reported) == Overlap(exact=1, normalised=2, other_label=0)


def test_scores_are_labels_too() -> None:
    """In a regression another score is another label."""
    train = datasets.Dataset.from_dict({"text": ["a"], "pair": ["b"], "label": [2.5]})
    other = datasets.Dataset.from_dict({"text": ["a", "a"], "pair": ["b", "b"], "label": [2.5, 4.0]})
    assert overlap([train], other) == Overlap(exact=2, normalised=2, other_label=1)


def test_the_plan_and_the_record_say_it(tmp_path: Path) -> None:
    """Of twelve reported rows two are copied into training, one as it is and one in capitals with another label."""
    data = write_sst2(tmp_path / "sst2", train=60, dev=12)
    rows = [line.split("\t") for line in (data / "dev.tsv").read_text(encoding="utf8").splitlines()[1:]]
    copies = [rows[3], [rows[4][0].upper() + " !", str(1 - int(rows[4][1]))]]
    with (data / "train.tsv").open("a", encoding="utf8") as file:
        file.writelines(f"{text}\t{label}\n" for text, label in copies)
    small = ("--backbone", write_backbone(tmp_path / "bert"), "--preset", "smoke", "--max-length", 32)
    places = ("--data-dir", data, "--store", tmp_path, "--report", tmp_path / "report", "--latency-examples", 0)
    answer = call("run", "--task", "sst2", "--method", "full", *small, *places)
    assert answer.code == 0, answer.err
    line = "overlap   1 of 12 reported texts are among the training rows, 2 but for case, spaces and punctuation; "
    assert line + "1 of them with another label\n" in answer.out
    record = RunStore(tmp_path / "runs").record(answer.records[0]["run_id"])
    assert record.data["overlap"] == {"exact": 1, "normalised": 2, "other_label": 1}
