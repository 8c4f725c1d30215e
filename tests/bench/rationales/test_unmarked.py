"""Where people marked nothing, or everything, or there is one document: undefined numbers, never 0 or 100 %."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis.rationales.page import Agreement, claims, group_tables, table_rows, write_page
from analysis.rationales.page import Comparison as Stored
from analysis.rationales.texts import document_views
from bench.errors import InputError
from bench.rationales import metrics as rationale_metrics
from bench.rationales.command import select_rationales
from bench.rationales.documents import Document
from bench.rationales.files import AVERAGE
from bench.rationales.gold import read_gold
from bench.rationales.results import RationaleResults
from bench.registry import TASKS
from eraser_eval.formats.predictions import Prediction, Rationale, write_predictions
from eraser_eval.formats.schema import Annotation, Evidence, write_dataset
from eraser_eval.scoring import score

WORDS = ["a", "fine", "film", "with", "a", "dull", "end"]
ANSWER: Any = {"classification": "POS", "scores": {"POS": 1.0}}
Marks = list[list[int]]


def dataset(folder: Path, marks: Marks) -> Path:
    """A data set of ERASER's in which document number k has these marked words."""
    names = [f"d{number}" for number in range(len(marks))]
    rows = tuple(
        Annotation(name, "", "POS", tuple((Evidence(name, at, at + 1),) for at in own), docids=(name,))
        for name, own in zip(names, marks, strict=True)
    )
    write_dataset(folder, {name: " ".join(WORDS) for name in names}, {"test": rows})
    return folder


def found_in(folder: Path, marks: Marks, kept: list[list[int]]) -> Stored:
    """What a comparison of AdapLeR, which keeps these words, and of people's own marks leaves behind."""
    gold = dataset(folder / "gold", marks)
    for name in ("predictions", "scores"):
        (folder / name).mkdir()
    masks = [np.isin(np.arange(len(WORDS)), own) for own in marks]
    keeps = [np.isin(np.arange(len(WORDS)), own) for own in kept]
    units = np.arange(len(WORDS))
    documents = [
        Document(f"d{number}", f"d{number}", "POS", tuple(WORDS), units, units, own) for number, own in enumerate(masks)
    ]
    findings = RationaleResults(folder, gold, "test", documents, with_text=True)
    for method, scores in (("adapler", keeps), ("human", masks)):
        values = [own.astype(float) for own in scores]
        chosen = select_rationales(method, values, keeps)
        lines = [
            Prediction(one.docid, (Rationale(one.docid, hard=spans(own), soft=soft),), **ANSWER)
            for one, own, soft in zip(documents, chosen, values, strict=True)
        ]
        findings.add(method, 0, predictions=lines, chosen=chosen)
    shared: dict[str, Any] = {
        **{
            "task": "movies",
            "source": "made up",
            "synthetic": False,
            "sensitive": False,
            "controls": ["human"],
            "layers": 1,
            "kept": [0.4],
        },
        **{"methods": {"adapler": "a", "human": "people"}, "pooling": "mean", "accuracy": {"fine-tuned": 0.9}},
        **{"seeds": [0], "speedup": 2.0, "environment": {"device_name": "a processor"}, "backbone": "tiny"},
        **{"preset": "quick", "knobs": {"gamma": 0.1}},
    }
    findings.write(shared)
    return Stored.read(folder)


def spans(mask: Any) -> tuple[tuple[int, int], ...]:
    """A span for each word that is chosen."""
    return tuple((int(at), int(at) + 1) for at in np.flatnonzero(mask))


def test_nobody_marked_anything_is_refused_before_the_work(tmp_path: Path) -> None:
    """No annotation with a marked word: one line with the split and a remedy, with a limit or without."""
    dataset(tmp_path / "eraser" / "movies", [[], [1], [], []])
    for limit in (1, 2):
        with pytest.raises(
            InputError, match=rf"nobody marked a token in the {limit} annotations of split 'test'.*--limit"
        ):
            read_gold(TASKS["movies"], "test", data_dir=tmp_path, limit=limit)
    assert len(read_gold(TASKS["movies"], "test", data_dir=tmp_path).annotations) == 4
    dataset(tmp_path / "eraser" / "movies", [[], []])
    with pytest.raises(InputError, match="name another --split"):
        read_gold(TASKS["movies"], "test", data_dir=tmp_path)


@pytest.mark.parametrize("unmarked", [1, 3, 6])
def test_people_are_not_charged_with_what_they_did_not_mark(unmarked: int, tmp_path: Path) -> None:
    """Of eight documents some have no mark: people's marks are right in the others, and differences over those."""
    marks: Marks = [[]] * unmarked + [[1, 5]] * (8 - unmarked)
    found = found_in(tmp_path, marks, [[1, 2]] * 8)
    cells = {metric: found.cell("human", metric) for metric in ("fpr", "fpr_equal", "token_f1", "iou_f1")}
    assert [cells[name]["value"] for name in cells] == [0.0, 0.0, 1.0, 1.0]
    assert cells["fpr_equal"]["difference"] == pytest.approx(-1 / 5)  # of five unmarked words AdapLeR keeps one
    views = {view.name: dict(view.rates) for view in document_views_of(found)}
    assert views["d0"] == {"adapler": "28.6%", "human": "undefined, nothing is marked"}
    assert views["d7"] == {"adapler": "20.0%", "human": "0.0%"}
    page = write_page(tmp_path).read_text(encoding="utf8")
    assert f"none in {unmarked} documents" in page


def document_views_of(found: Stored) -> Any:
    """The documents as the page lists them."""
    rows = [{str(name): value for name, value in row.items()} for row in found.documents.to_dict("records")]
    return document_views(rows, found.texts, methods=found.methods, layer=0, first="adapler")


CASES: dict[str, tuple[Marks, Marks]] = {
    "everything marked": ([list(range(7))] * 3, [[0, 1]] * 3),
    "everything kept": ([[1, 5]] * 3, [list(range(7))] * 3),
    "nothing kept": ([[1, 5]] * 3, [[], [], []]),
    "one document": ([[1, 5]], [[1, 2]]),
    "one marked of two": ([[], [1]], [[1, 2], [1]]),
}


@pytest.mark.parametrize("case", CASES)
def test_every_extreme_has_a_page_without_invented_numbers(case: str, tmp_path: Path) -> None:
    """All marked, all or nothing kept, one document: a page, undefined cells, and no interval of one document."""
    marks, kept = CASES[case]
    found = found_in(tmp_path, marks, kept)
    assert write_page(tmp_path).is_file()
    cells = {method: dict(zip(found.metrics, values, strict=True)) for method, values in table_rows(found)}
    shown = {name: value for name, (value, _) in cells["adapler"].items()}
    if case == "everything marked":
        assert (shown["fpr"], shown["fpr_equal"]) == ("undefined", "undefined")
        assert all("undefined at the uniform level" in claim for claim in claims(found))
        assert {values[0] for _, _, values in group_tables(found)[0][2]} == {"undefined"}
    if case == "nothing kept":
        assert shown["token_f1"].startswith("0.000")
    if case == "one document":
        assert shown["fpr_equal"] == "0.200"
        assert "not told apart by so few documents" in claims(found)[0]
    if case == "one marked of two":
        assert cells["human"]["fpr"][0] == "0.000"
        assert math.isnan(found.cell("human", "fpr")["low"])


def test_what_nobody_marked_is_undefined_in_the_scores(tmp_path: Path) -> None:
    """The scorer gives no precision and no false-positive rate where no word is marked anywhere, and says so."""
    cases: dict[str, Marks] = {"none": [[], []], "some": [[], [1]]}
    for name, marks in cases.items():
        gold = dataset(tmp_path / name, marks)
        ramp = np.arange(7.0)
        lines = [
            Prediction(f"d{number}", (Rationale(f"d{number}", hard=((0, 2),), soft=ramp),))
            for number in range(len(marks))
        ]
        write_predictions(tmp_path / f"{name}.jsonl", lines)
        report = score(gold, split="test", predictions=tmp_path / f"{name}.jsonl")
        level = {key: value for key, value in report["agreement"].items() if key.startswith(("fpr", "precision"))}
        assert (set(level.values()) == {None}) == (name == "none")
        assert any("marked" in note and "agreement" in note for note in report["notes"])
    assert level["fpr_mean_over_documents_with_rationale"] == pytest.approx(4 / 6)


def test_intervals_need_two_documents() -> None:
    """Of one document no resample differs, so there is no interval; of two there is one."""
    columns = {"fpr": 0.5, "n_tokens": 10, "n_rationale": 2, "token_gold": 2, "token_predicted": 3, "token_both": 1}
    columns |= {"span_gold": 1, "span_predicted": 1, "reached_0": 1, "average_precision": 0.5, "auprc": 0.5}
    for count in (1, 2):
        names = [f"d{number}" for number in range(count)]
        frame = pd.DataFrame({"method": "adapler", "layer": 0, "annotation_id": names, **columns})
        table = rationale_metrics.metrics_table([frame], against="adapler", resamples=20)
        assert table["low"].isna().all() == (count == 1)
        found = Agreement({"methods": {"adapler": ""}, "metrics": {"fpr": ""}}, table)
        assert found.cells["adapler", "fpr", AVERAGE]["value"] == 0.5
