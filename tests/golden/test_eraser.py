"""The official ERASER scorer's numbers, its values per document, and what it makes of malformed input.

The set is read from the folder `eraser` in GOLDEN_DIR; its README says what each file is. Names, splits, models,
thresholds and cases come from the files, so another set in the same format runs as well.
"""

from __future__ import annotations

import gzip
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eraser_eval import InputError, Settings, read_dataset, score
from eraser_eval.__main__ import main
from eraser_eval.formats.predictions import HARD
from eraser_eval.metrics.agreement import above_uniform_level
from eraser_eval.metrics.plausibility import hard_counts, hard_scores, hard_terms
from eraser_eval.metrics.table import Table, total
from eraser_eval.report import nest, point

FOLDER = Path(os.environ.get("GOLDEN_DIR", Path(__file__).parents[3] / "shared" / "golden")) / "eraser"
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason=f"no reference outputs in {FOLDER}; set GOLDEN_DIR")

TOLERANCE = 1e-9
Spans = set[tuple[int, int]]


def read(name: str) -> Any:
    """A JSON file of the set; nothing where the set is not there."""
    path = FOLDER / name
    if not path.is_file():
        return {"files": {}, "results": {}, "cases": [], "exact_ties": {"cases": []}}
    text = gzip.decompress(path.read_bytes()).decode() if path.suffix == ".gz" else path.read_text(encoding="utf8")
    return json.loads(text)


FILES: dict[str, Any] = read("official_scores.json")["files"]
SCORED = {name: file for name, file in FILES.items() if file["outcome"] == "scored"}
REJECTED = {name: file for name, file in FILES.items() if file["outcome"] != "scored"}
DOCUMENTS: dict[str, Any] = read("official_per_instance.json.gz")["files"]
RATES: dict[str, Any] = read("rationale_fpr_map.json")["results"]
TIES: list[Any] = read("rationale_fpr_map.json")["exact_ties"]["cases"]
CASES: dict[str, Any] = {case["id"]: case for case in read("edge.json")["cases"]}


def leaves(value: Any, place: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Every number of nested objects and lists, with its place."""
    if isinstance(value, dict | list):
        for name, each in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(each, (*place, name))
    else:
        yield place, value


def agrees(theirs: object, ours: object) -> bool:
    """Whether a number is the official one; what JSON cannot hold is null here."""
    if theirs is None or isinstance(theirs, str):
        return ours is None
    return isinstance(ours, int | float) and math.isclose(float(str(theirs)), ours, rel_tol=TOLERANCE, abs_tol=1e-15)


def differing(theirs: Any, ours: Any) -> list[tuple[Any, object, object]]:
    """(place, official, ours) of every official number that is not reported, or differs."""
    found = dict(leaves(ours))
    return [
        (place, value, found.get(place, "absent"))
        for place, value in leaves(theirs)
        if not agrees(value, found.get(place, "absent"))
    ]


def scored(
    file: Mapping[str, Any],
    per_document: Path | None = None,
    *,
    iou_thresholds: Sequence[float] = (0.5,),
    aopc_thresholds: Sequence[float] | None = None,
) -> dict[str, Any]:
    """Our report on a prediction file of the set."""
    return score(
        FOLDER / file["gold"],
        split=file["split"],
        predictions=FOLDER / file["predictions"],
        settings=Settings(
            tuple(iou_thresholds), None if aopc_thresholds is None else tuple(aopc_thresholds), resamples=0
        ),
        per_document=per_document,
    )


def iou_thresholds(file: Mapping[str, Any]) -> tuple[float, ...]:
    """Of the official run with more of them; the default where there is none."""
    blocks = file.get("scores_with_more_thresholds", {}).get("iou_scores", [])
    return tuple(block["threshold"] for block in blocks) or (0.5,)


@pytest.mark.parametrize("name", SCORED)
def test_every_official_number(name: str) -> None:
    """Every number of both official runs is there under its name, and equal."""
    file = SCORED[name]
    assert differing(file["scores"], scored(file)) == []
    more = dict(file.get("scores_with_more_thresholds", {}))
    ours = scored(file, iou_thresholds=iou_thresholds(file), aopc_thresholds=more.get("aopc_thresholds"))
    assert differing({"iou_scores": more.pop("iou_scores", [])}, ours) == []
    assert differing(more, ours.get("classification_scores", {})) == []


@pytest.mark.parametrize("name", SCORED)
def test_corrected_numbers(name: str) -> None:
    """What the set calls affected by a defect has a note, and the right number under `corrected`."""
    file = SCORED[name]
    thresholds = iou_thresholds(file)
    ours = scored(file, iou_thresholds=thresholds)
    for defect in file["affected_by_defects"]:
        block, *words = defect["number"].replace(".auprc", "").split()
        assert any(block in note or "AUPRC" in note for note in ours["notes"])
        mean = defect.get("mean_of_the_scorer's_own_values_over_the_other_pairs")
        if mean is not None:
            assert agrees(mean, ours["corrected"][block]["auprc"])
        if "gold_spans_met_by_at_least_one_prediction" in defect:
            index = thresholds.index(float(words[-1]))
            recall = defect["gold_spans_met_by_at_least_one_prediction"] / defect["gold_spans"]
            assert agrees(recall, ours["corrected"]["iou_scores"][index]["micro"]["r"])


@pytest.mark.parametrize("name", [name for name in SCORED if "tokens_to_flip_mean_fraction" in SCORED[name]])
def test_tokens_to_flip(name: str) -> None:
    """The share of tokens to flip is the one that the official scorer computes and drops."""
    assert agrees(SCORED[name]["tokens_to_flip_mean_fraction"], scored(SCORED[name])["tokens_to_flip_mean_fraction"])


@pytest.mark.parametrize("name", REJECTED)
def test_rejected_files_are_refused_and_can_be_counted(name: str) -> None:
    """A file with overlapping spans is refused in one line; called directly, the counts give the official numbers."""
    file = REJECTED[name]
    with pytest.raises(InputError, match="overlap"):
        scored(file)
    theirs = {block: value for block, value in file["scores_by_direct_call"].items() if block != "note"}
    thresholds = [block["threshold"] for block in theirs["iou_scores"]]
    gold = read_dataset(FOLDER / file["gold"]).splits[file["split"]]
    marked: dict[tuple[str, str], Spans] = {(row.annotation_id, docid): set() for row in gold for docid in row.docids}
    for row in gold:
        for span in row.spans:
            marked[row.annotation_id, span.docid].add((span.start_token, span.end_token))
    table = Table()
    for line in gzip.decompress((FOLDER / file["predictions"]).read_bytes()).decode().splitlines():
        prediction = json.loads(line)
        for entry in prediction["rationales"]:
            spans = {(span["start_token"], span["end_token"]) for span in entry[HARD]}
            pair = marked.pop((prediction["annotation_id"], entry["docid"]))
            table.append(hard_counts(array(pair), array(spans), thresholds))
    for pair in marked.values():
        table.append(hard_counts(array(pair), array(set()), thresholds))
    assert differing(theirs, nest(hard_scores(total(table, hard_terms), thresholds), point)) == []


def array(spans: Spans) -> np.ndarray[Any, np.dtype[np.int32]]:
    """Spans as an array [k, 2]."""
    return np.array(sorted(spans), np.int32).reshape(-1, 2)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_values_of_each_document(name: str, tmp_path: Path) -> None:
    """Every document has the official precision, recall, AUPRC, average precision and ROC AUC."""
    scored(FILES[name], tmp_path / "documents.jsonl")
    lines = (tmp_path / "documents.jsonl").read_text(encoding="utf8").splitlines()
    ours = {(row["annotation_id"], row["docid"]): row for row in map(json.loads, lines)}
    for field, values in DOCUMENTS[name].items():
        kind, _, measure = field.partition("_")
        for (annotation_id, docid), value in values:
            row = ours[annotation_id, docid]
            if measure == "prf":
                unit = {"rationale": "span", "token": "token"}[kind]
                both = row.get(f"{unit}_both", 0)
                assert agrees(value["p"], both / max(row.get(f"{unit}_predicted", 0), 1))
                assert agrees(value["r"], both / max(row.get(f"{unit}_gold", 0), 1))
            elif measure != "auprc" or row["n_rationale"]:
                prefix = "sentence_" if kind == "sentence" else ""
                if row[prefix + measure] is not None:
                    assert agrees(value, row[prefix + measure])
                elif kind == "token":  # undefined where there is nothing to tell apart
                    assert row["n_rationale"] in {0, row["n_tokens"]}


@pytest.mark.parametrize("name", RATES)
def test_mean_average_precision_and_false_positive_rates(name: str, tmp_path: Path) -> None:
    """The summary and the values of each document are the set's, counts included."""
    ours = scored(FILES[name], tmp_path / "documents.jsonl")["agreement"]
    summary = {key: value for key, value in RATES[name]["summary"].items() if key in ours}
    assert len(summary) == len(ours)
    assert differing(summary, ours) == []
    rows = map(json.loads, (tmp_path / "documents.jsonl").read_text(encoding="utf8").splitlines())
    for theirs, row in zip(RATES[name]["per_example"], rows, strict=True):
        assert {field: row[field] for field in ("annotation_id", "docid")}.items() <= theirs.items()
        numbers = {field: value for field, value in theirs.items() if field not in {"annotation_id", "docid"}}
        assert differing(numbers, row) == []


def test_ties_at_the_uniform_level() -> None:
    """Tokens exactly on the level are predicted, as in rational arithmetic."""
    for case in TIES:
        assert above_uniform_level(np.array(case["scores"], float)).tolist() == [
            bool(p) for p in case["predicted_exact"]
        ]
    assert TIES


def inherited(case: Mapping[str, Any], field: str) -> Any:
    """A field of a case, or of the case it is based on."""
    return case[field] if case[field] is not None or case["base"] is None else inherited(CASES[case["base"]], field)


def written(case: Mapping[str, Any], folder: Path) -> list[str]:
    """The case as files, and the arguments that score it."""
    layout, documents = inherited(case, "documents_layout"), inherited(case, "documents")
    if layout != "docs.jsonl":
        (folder / "docs").mkdir()
        for docid, text in documents.items():
            (folder / "docs" / docid).write_text(text, encoding="utf8")
    if layout != "docs":
        rows = (json.dumps({"docid": docid, "document": text}) for docid, text in documents.items())
        (folder / "docs.jsonl").write_text("\n".join(rows), encoding="utf8")
    (folder / "val.jsonl").write_text("\n".join(map(json.dumps, inherited(case, "gold"))), encoding="utf8")
    (folder / "predictions.jsonl").write_text(inherited(case, "predictions"), encoding="utf8")
    names = ["--data", str(folder), "--split", "val", "--predictions", str(folder / "predictions.jsonl")]
    return ["score", *names, "--json", "--resamples", "10", *case["arguments"]]


@pytest.mark.parametrize("name", CASES)
def test_every_malformed_input(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What a careful scorer should refuse is refused in one line, what it should accept has the official numbers."""
    case = CASES[name]
    code = main(written(case, tmp_path))
    out, error = capsys.readouterr()
    assert case["careful_scorer_should"] in {"choice", "accept" if code == 0 else "reject"}
    if code:
        assert (code, out) == (2, "")
        assert error.startswith("error: ")
        assert error.count("\n") == 1
    elif case["official"]["outcome"] == "accepted":
        ours = json.loads(out)
        assert error == ""
        missing = {place[0] for place, _, found in differing(case["official"]["scores"], ours) if found == "absent"}
        assert missing == set()
        assert differing(case["official"]["scores"], ours) == []
