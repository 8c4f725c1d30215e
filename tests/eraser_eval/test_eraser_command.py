"""The scorer's command line: what it prints, what it refuses, and that it needs nothing but numpy."""

from __future__ import annotations

import gzip
import json
import os
import re
import runpy
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import eraser_eval
from eraser_eval import InputError
from eraser_eval.formats.lines import write_objects
from tests.support.eraser_files import GOLD, call, lines, predictions, refused, scored, write

ROOT = Path(__file__).parents[2]


def test_the_table_names_every_number(tmp_path: Path) -> None:
    """Without --json each number has a line, with its interval, and the notes follow."""
    write(tmp_path)
    files = ("--data", tmp_path, "--split", "val", "--predictions", tmp_path / "predictions.jsonl")
    found = call("score", *files, "--resamples", 20)
    numbers = dict(line.split(maxsplit=1) for line in found.out.splitlines() if not line.startswith("note"))
    report = call("score", *files, "--resamples", 20, "--json").report
    assert found.code == 0
    assert numbers["iou_scores.0.threshold"] == "0.5"
    assert numbers["agreement.fpr_pooled"].startswith(f"{report['agreement']['fpr_pooled']:.6g} [")
    assert [line.removeprefix("note: ") for line in found.out.splitlines() if line.startswith("note")] == report[
        "notes"
    ]
    assert report["notes"]


def test_nothing_is_left_out_where_nothing_is_predicted(tmp_path: Path) -> None:
    """Empty rationales give 0, an undefined number is null, and notes say both."""
    rows = [{"annotation_id": row["annotation_id"], "rationales": row["rationales"]} for row in predictions()]
    for row in rows:
        for entry in row["rationales"]:
            entry["hard_rationale_predictions"] = []
    found = scored(write(tmp_path, given=lines(rows))).report
    assert found["iou_scores"][0]["micro"] == {"p": 0.0, "r": 0.0, "f1": 0.0}
    assert found["token_prf"]["instance_macro"] == {"p": 0.0, "r": 0.0, "f1": 0.0}
    assert "no span is predicted anywhere: precision, recall and F1 are 0" in found["notes"]


@pytest.mark.parametrize(("count", "accepted"), [(1, False), (2, True)])
def test_a_class_that_one_line_alone_has_is_refused(count: int, accepted: bool, tmp_path: Path) -> None:
    """A class that the gold lacks is misspelt, unless every line gives it a probability: the gold may be a subset."""
    rows = predictions()
    for row in rows[:count]:
        for field in ("classification_scores", *(name for name in row if name.endswith("_classification_scores"))):
            row[field] = {"PSO": 0.5, "NEG": 0.5}
        for each in row["thresholded_scores"]:
            each |= {name: {"PSO": 0.5, "NEG": 0.5} for name in each if name != "threshold"}
        row["classification"] = "PSO"
    found = scored(write(tmp_path, given=lines(rows)))
    assert refused(found) != accepted
    assert accepted or "line 1: class 'PSO' is not among the gold's, ['NEG', 'POS']; is it misspelt?" in found.err


def test_validate_counts_what_is_sound(tmp_path: Path) -> None:
    """Without a split every split is checked; with predictions those too, as text and as JSON."""
    write(tmp_path)
    assert call("validate", "--data", tmp_path).out == "valid: 2 documents, 2 val\n"
    files = ("--data", tmp_path, "--split", "val", "--predictions", tmp_path / "predictions.jsonl")
    assert call("validate", *files).out == "valid: 2 documents, 2 val, 2 predictions\n"
    assert call("validate", *files, "--json").report == {"valid": True, "documents": 2, "val": 2, "predictions": 2}
    (tmp_path / "predictions.jsonl").write_bytes(lines(predictions()[:1]))
    assert "lacks 1 of 2 annotations, such as 'seconde'" in call("validate", *files).err


def test_the_official_flags_are_understood(tmp_path: Path) -> None:
    """The official scorer's spelling of the flags gives the same report."""
    write(tmp_path)
    ours = ("--data", tmp_path, "--predictions", tmp_path / "predictions.jsonl", "--iou-thresholds", 0.1, 1)
    theirs = ("--data_dir", tmp_path, "--results", tmp_path / "predictions.jsonl", "--iou_thresholds", 0.1, 1)
    common = ("--split", "val", "--json", "--strict", "--resamples", 0)
    first = call("score", *ours, "--aopc-thresholds", 0.5, *common)
    assert not refused(first)
    assert first == call("score", *theirs, "--aopc_thresholds", 0.5, *common)
    assert first.report["classification_scores"]["aopc_thresholds"] == [0.5]
    assert "intervals" not in first.report


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--iou-thresholds", 0), "iou threshold 0.0 is out of range"),
        (("--iou-thresholds", "nan"), "iou threshold nan is out of range"),
        (("--iou-thresholds", "half"), "invalid float value: 'half'"),
        (("--aopc-thresholds", 0.5, 0.5), "each once"),
        (("--aopc-thresholds", 0.5, 0.75), "[0.25, 0.5], but (0.5, 0.75) were asked for"),
        (("--resamples", -1), "resamples is -1"),
        (("--split", "validation"), "no split 'validation'; it has val"),
        (("--data", "nowhere"), "nowhere has neither docs.jsonl nor docs/"),
        (("--predictions", "nothing.jsonl"), "nothing.jsonl cannot be read (No such file or directory)"),
        (("--resamples", "1000000000000000"), "100,000 are the most"),
        (("--unknown",), "unrecognized arguments: --unknown"),
    ],
)
def test_wrong_arguments_are_refused(arguments: tuple[object, ...], message: str, tmp_path: Path) -> None:
    """Arguments are refused as files are: in one line, with exit code 2."""
    found = scored(write(tmp_path), *arguments)
    assert refused(found)
    assert message.replace("(0.5, 0.75)", "[0.5, 0.75]") in found.err
    assert refused(call())
    assert refused(call("validate", "--data", tmp_path, "--predictions", tmp_path / "predictions.jsonl"))


def test_it_runs_as_a_module_with_numpy_alone(tmp_path: Path) -> None:
    """`python -m eraser_eval` scores and refuses, and imports none of the heavy packages."""
    write(tmp_path)
    code = "import runpy, sys; sys.argv = sys.argv[1:]\ntry: runpy.run_module('eraser_eval', run_name='__main__')\n"
    code += "finally: print({'torch', 'sklearn', 'scipy', 'pandas', 'bench', 'efficient_bert'} & set(sys.modules))"
    files = ["--data", str(tmp_path), "--split", "val", "--predictions", str(tmp_path / "predictions.jsonl")]
    command = [sys.executable, "-c", code, "eraser_eval", "score", *files, "--json", "--resamples", "0"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    report, _, modules = done.stdout.rstrip().rpartition("\n")
    assert (done.returncode, done.stderr, modules) == (0, "", "set()")
    assert json.loads(report)["agreement"]["documents"] == 3
    (tmp_path / "predictions.jsonl").write_bytes(b"\xff\n")
    done = subprocess.run(
        [sys.executable, "-m", "eraser_eval", "score", *files], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: {tmp_path / 'predictions.jsonl'}, line 1 is not UTF-8 (byte 0); convert it\n"


def test_values_of_each_document_are_written(tmp_path: Path) -> None:
    """Each document of each annotation has a line; a file that cannot be written is named, and nothing is left."""
    write(tmp_path)
    assert not refused(scored(tmp_path, "--per-document", tmp_path / "values.jsonl"))
    rows = [json.loads(line) for line in (tmp_path / "values.jsonl").read_text(encoding="utf8").splitlines()]
    assert [(row["annotation_id"], row["docid"]) for row in rows] == [
        ("première", "un"),
        ("première", "deux"),
        ("seconde", "deux"),
    ]
    assert rows[2]["fpr"] == rows[2]["false_positives"] / (rows[2]["n_tokens"] - rows[2]["n_rationale"])
    assert "cannot be written" in scored(tmp_path, "--per-document", tmp_path / "nowhere" / "values.jsonl").err
    (tmp_path / "predictions.jsonl").write_bytes(lines(predictions()[:1]))
    assert refused(scored(tmp_path, "--per-document", tmp_path / "more.jsonl"))
    assert {path.name for path in tmp_path.iterdir()} == {
        "docs.jsonl",
        "val.jsonl",
        "predictions.jsonl",
        "values.jsonl",
    }


@pytest.mark.parametrize("name", ["predictions.jsonl", "val.jsonl", "train.jsonl", "docs.jsonl", "docs/un"])
def test_what_is_read_is_not_written_over(name: str, tmp_path: Path) -> None:
    """The values of each document go to no file of the data set or of the predictions, by whatever path."""
    write(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    found = scored(tmp_path, "--per-document", tmp_path / ".." / tmp_path.name / name)
    assert refused(found)
    assert "is read by this command" in found.err
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_thresholds_of_nothing_are_refused(tmp_path: Path) -> None:
    """A file without scores at thresholds has none to choose from."""
    rows = predictions()
    for row in rows:
        del row["thresholded_scores"]
    write(tmp_path, given=lines(rows))
    assert not refused(scored(tmp_path))
    assert "has no thresholded_scores" in scored(tmp_path, "--aopc-thresholds", 0.5).err


def test_unknown_fields_are_noted_at_every_level(tmp_path: Path) -> None:
    """A misspelt field says that it was ignored, wherever in a line it stands."""
    rows = predictions()
    rows[1]["odd"] = rows[1]["rationales"][0]["odder"] = 1
    rows[1]["rationales"][0]["hard_rationale_predictions"][0]["oddest"] = rows[1]["thresholded_scores"][0]["oddly"] = 1
    notes = scored(write(tmp_path, given=lines(rows))).report["notes"]
    said = [note for note in notes if "is not ERASER's" in note]
    assert len(said) == 4
    for field in ("odd", "odder", "oddest", "oddly"):
        assert any(note.startswith(f"the field '{field}'") and note.endswith("line 2") for note in said)


@pytest.mark.parametrize("name", ["accuracy", "macro avg", "weighted avg"])
def test_a_class_named_like_a_row_of_the_report_is_refused(name: str, tmp_path: Path) -> None:
    """It would take the place of the accuracy, or of an average."""
    given, gold = (lines(rows).replace(b'"POS"', json.dumps(name).encode()) for rows in (predictions(), GOLD))
    found = scored(write(tmp_path, given=given, gold=gold))
    assert refused(found)
    assert "as a row of the report is" in found.err


@pytest.mark.parametrize("as_json", [True, False])
def test_half_a_surrogate_pair_is_refused(as_json: bool, tmp_path: Path) -> None:
    """An escape that is half a character is named with its line; a whole pair is a character."""
    for escape, fine in ((b'"P\\ud800"', False), (b'"P\\ud83d\\ude00"', True)):
        given, gold = (lines(rows).replace(b'"POS"', escape) for rows in (predictions(), GOLD))
        write(tmp_path, given=given, gold=gold)
        files = ("--data", tmp_path, "--split", "val", "--predictions", tmp_path / "predictions.jsonl")
        found = call("score", *files, "--resamples", 0, *(["--json"] if as_json else []))
        assert (found.code == 0) == fine
        assert fine or found.err.endswith(
            "val.jsonl, line 1 has half a surrogate pair, which is no text; write the whole character\n"
        )


def test_predictions_may_come_through_a_pipe(tmp_path: Path) -> None:
    """What can be read only once is read once, packed or not."""
    write(tmp_path)
    plain = (tmp_path / "predictions.jsonl").read_bytes()
    for given in (plain, gzip.compress(plain)):
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        writer = threading.Thread(target=pipe.write_bytes, args=(given,))
        writer.start()
        found = call("score", "--data", tmp_path, "--split", "val", "--predictions", pipe, "--json", "--resamples", 3)
        writer.join()
        pipe.unlink()
        assert found.report == scored(tmp_path).report


@pytest.mark.parametrize("value", ["\ud800", float("nan"), float("inf")])
def test_what_no_file_can_hold_is_not_written(value: object, tmp_path: Path) -> None:
    """Half a surrogate pair or a number that is not finite is refused, and the file that was there stays."""
    (tmp_path / "lines.jsonl").write_bytes(b"before")
    with pytest.raises(InputError, match=r"lines\.jsonl, line 2 cannot be written"):
        write_objects(tmp_path / "lines.jsonl", [{"fine": 1}, {"value": value}])
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"before"]


def test_the_documented_example_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The documentation's example writes a prediction file that its commands accept and score."""
    page = (ROOT / "docs" / "rationale-scorer.md").read_text(encoding="utf8")
    rows = [{**row, "docids": row["docids"][:1], "evidences": row["evidences"][:1]} for row in GOLD]
    write(tmp_path / "demo-eraser", gold=lines(rows))
    (tmp_path / "example.py").write_text(page.partition("```python\n")[2].partition("```")[0], encoding="utf8")
    monkeypatch.chdir(tmp_path)
    runpy.run_path("example.py")
    commands = re.findall(r"^python -m eraser_eval (.*)$", page, re.MULTILINE)
    assert {command.split()[0] for command in commands} == {"score", "validate"}
    for command in commands:
        assert call(*command.split()).code == 0


def test_what_is_exported_is_there() -> None:
    """Every name of `eraser_eval.__all__` exists and has a docstring."""
    assert all(getattr(eraser_eval, name).__doc__ for name in eraser_eval.__all__)
