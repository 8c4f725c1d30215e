"""`bench predict`: the files it writes, against passes of the stored model, and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from bench.planning.presets import PRESETS
from bench.planning.settings import Settings
from bench.registry import METHODS, TASKS, all_knobs
from bench.runs.predict import leaderboard_text, one_point, table_text
from bench.store.runs import RunStore
from efficient_bert import Batch, EfficientBertForSequenceClassification, run
from efficient_bert.methods.entropy_exit import ENTROPY_EXIT
from tests.support.command_line import Answer, call
from tests.support.tiny_files import write_backbone, write_sst2

TEXTS = ["the film was fine", "", "a dull plot and a very poor cast", "great", 'good " bad']


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a backbone and SST-2's three files."""
    folder = tmp_path_factory.mktemp("predictions")
    write_backbone(folder / "bert")
    write_sst2(folder / "SST-2", train=60, dev=12)
    lines = ["index\tsentence", *(f"{row}\t{text}" for row, text in enumerate(TEXTS))]
    (folder / "SST-2" / "test.tsv").write_text("\n".join(lines) + "\n", encoding="utf8")
    return folder


def bench(folder: Path, *more: object, task: str = "sst2") -> Answer:
    """`bench predict` with the small backbone."""
    data = ("--task", task, "--data-dir", folder, "--backbone", folder / "bert", "--max-length", 32)
    return call("predict", *data, "--preset", "smoke", "--device", "cpu", "--store", folder, *more)


def table(path: Path) -> list[list[str]]:
    """The rows of a tab-separated file."""
    return [line.split("\t") for line in path.read_text(encoding="utf8").splitlines()]


def single(folder: Path, text: str) -> dict[str, torch.Tensor]:
    """A text as tensors, by the tokenizer that was saved with the model."""
    return dict(AutoTokenizer.from_pretrained(folder)([text], return_tensors="pt"))


def test_it_trains_answers_and_writes_glue_s_file(given: Path) -> None:
    """Missing stages are trained, and each row of the file is what the saved model answers to that text alone."""
    answer = bench(given, "--method", "full", "--out", given / "full")
    assert answer.code == 0, answer.err
    assert "stage     finetune: to do" in answer.out
    (artifact,) = (given / "artifacts").glob("finetune-*")
    model = AutoModelForSequenceClassification.from_pretrained(artifact).eval()
    header, *rows = table(given / "full" / "SST-2.tsv")
    assert header == ["index", "prediction"]
    with torch.inference_mode():
        expected = [int(model(**single(artifact, text)).logits.argmax()) for text in TEXTS]
    assert rows == [[str(row), str(label)] for row, label in enumerate(expected)]
    assert [path.name for path in (given / "full").iterdir()] == ["SST-2.tsv"]
    assert not (given / "runs").exists()


def test_a_method_answers_at_the_knobs_given(given: Path) -> None:
    """The adaptive method's answers are those of a pass with its policy, probabilities included on labelled splits."""
    knobs = ("--method", "entropy_exit", "--exit-threshold", 0.66)
    answer = bench(given, *knobs, "--split", "validation", "--out", given / "exits")
    assert answer.code == 0, answer.err
    (artifact,) = (given / "artifacts").glob("exits-*")
    model: EfficientBertForSequenceClassification = EfficientBertForSequenceClassification.from_pretrained(artifact)
    policy = ENTROPY_EXIT.policy(model.eval(), {"exit_threshold": 0.66})
    texts = [row[0] for row in table(given / "SST-2" / "dev.tsv")[1:]]
    header, *rows = table(given / "exits" / "sst2-validation.tsv")
    assert header == ["example_id", "prediction", "probabilities"]
    assert [row[0] for row in rows] == [f"validation-{number}" for number in range(12)]
    for text, (_, prediction, probabilities) in zip(texts, rows, strict=True):
        with torch.inference_mode():
            expected = run(model, Batch.of(single(artifact, text)), policy).logits[0].softmax(-1)
        written = [float(value) for value in probabilities.split(",")]
        assert written == pytest.approx(expected.tolist(), abs=2e-5)
        assert prediction == ("negative", "positive")[int(expected.argmax())]


def test_a_point_is_what_is_given_then_the_preset_s_then_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each knob of the method gets one value, from the first that has one."""
    preset = replace(PRESETS["smoke"], knobs={"gamma": 0.25, "phi": 0.5})
    monkeypatch.setitem(PRESETS, "smoke", preset)
    settings = Settings(task="demo", methods=("adapler",), preset="smoke", knobs={"phi": ("0.1",)})
    defaults = {knob.name: (knob.default,) for knob in all_knobs(METHODS["adapler"])}
    assert one_point(settings).knobs == {**defaults, "gamma": (0.25,), "phi": ("0.1",)}


def test_a_file_is_replaced_only_by_force(given: Path) -> None:
    """A file that is there is refused before anything is computed; with --force nothing is trained, and it is new."""
    out = given / "twice"
    assert bench(given, "--method", "full", "--out", out).code == 0
    first = (out / "SST-2.tsv").read_text(encoding="utf8")
    (out / "SST-2.tsv").write_text("mine", encoding="utf8")
    (out / "notes.txt").write_text("mine too", encoding="utf8")
    times = {path: path.stat().st_mtime_ns for path in (given / "artifacts").rglob("*")}
    refused = bench(given, "--method", "full", "--out", out)
    assert refused.code == 2
    assert "SST-2.tsv is already there; name another folder, or pass --force" in refused.err
    assert (out / "SST-2.tsv").read_text(encoding="utf8") == "mine"
    forced = bench(given, "--method", "full", "--out", out, "--force")
    assert forced.code == 0
    assert "to do" not in forced.out
    assert (out / "SST-2.tsv").read_text(encoding="utf8") == first
    assert (out / "notes.txt").read_text(encoding="utf8") == "mine too"
    assert {path: path.stat().st_mtime_ns for path in (given / "artifacts").rglob("*")} == times


def test_a_task_without_such_splits_gets_a_table(given: Path) -> None:
    """The demo task is answered on the split that it is reported on, by class name."""
    answer = bench(given, "--method", "full", "--out", given / "demo", task="demo")
    assert answer.code == 0, answer.err
    header, *rows = table(given / "demo" / "demo-test.tsv")
    assert header == ["example_id", "prediction", "probabilities"]
    assert len(rows) == 500
    assert {row[1] for row in rows} <= {"negative", "positive"}
    assert all(sum(map(float, row[2].split(","))) == pytest.approx(1, abs=2e-6) for row in rows)


def test_mnli_s_model_answers_all_of_its_test_files(given: Path) -> None:
    """Both test files of MNLI and GLUE's diagnostics get a file each; the mismatched pairs can be reported on."""
    names = ("entailment", "neutral", "contradiction")
    words = ("good", "dull", "great", "poor") * 9
    rows = [[f"film {number} was fine", f"the plot was {word}"] for number, word in enumerate(words)]
    labelled = [[*pair, names[number % 3]] for number, pair in enumerate(rows)]
    contents = {"train": labelled, "dev_matched": labelled[:6], "dev_mismatched": labelled[:9]}
    contents |= {"test_matched": rows[:2], "test_mismatched": rows[:3], "../diagnostic/diagnostic": rows[:4]}
    for folder in ("MNLI", "diagnostic"):
        (given / "glue" / folder).mkdir(parents=True)
    for name, pairs in contents.items():
        header = ["sentence1", "sentence2", "gold_label"][: len(pairs[0])]
        lines = ["\t".join(["index", *header]), *("\t".join([str(n), *pair]) for n, pair in enumerate(pairs))]
        (given / "glue" / "MNLI" / f"{name}.tsv").write_text("\n".join(lines) + "\n", encoding="utf8")
    answer = bench(given, "--method", "full", "--out", given / "mnli", task="mnli")
    assert answer.code == 0, answer.err
    written = {path.name: table(path) for path in (given / "mnli").iterdir()}
    assert {name: len(found) - 1 for name, found in written.items()} == {
        "MNLI-m.tsv": 2,
        "MNLI-mm.tsv": 3,
        "AX.tsv": 4,
    }
    assert written["AX.tsv"][:3] == written["MNLI-m.tsv"]
    assert {row[1] for row in written["AX.tsv"][1:]} <= set(names)
    small = ("--backbone", given / "bert", "--max-length", 32, "--preset", "smoke", "--device", "cpu")
    places = ("--data-dir", given, "--store", given, "--report", given / "report", "--latency-examples", 0)
    other = call("run", "--task", "mnli", "--method", "full", "--split", "validation_mismatched", *small, *places)
    assert other.code == 0, other.err
    assert "stage     finetune: cached" in other.out
    record = RunStore(given / "runs").record(other.records[0]["run_id"])
    assert (record.data["split"], record.data["rows"]) == ("validation_mismatched", 9)


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (("--method", "patience_exit", "--patience", "1,2"), ["patience is 1, 2", "one operating point"]),
        (("--method", "full", "--patience", "1"), ["'patience'", "full"]),
        (("--method", "full", "--split", "nope"), ["no 'nope' split", "'sst2'"]),
        (("--patience", "1"), ["--method"]),
    ],
)
def test_what_cannot_be_predicted_is_refused(given: Path, arguments: tuple[str, ...], parts: list[str]) -> None:
    """Several points at once, a knob of another method, an unknown split and no method are one line each."""
    answer = bench(given, *arguments, "--out", given / "refused")
    assert answer.code == 2
    assert answer.err.count("\n") == 1
    assert [part for part in parts if part not in answer.err] == []
    assert not (given / "refused").exists()


def test_a_file_is_no_folder(given: Path) -> None:
    """Where the folder's name is a file's, another name is asked for."""
    answer = bench(given, "--method", "full", "--out", given / "bert" / "vocab.txt" / "answers")
    assert answer.code == 2
    assert "vocab.txt is a file, but what predictions go to is a folder" in answer.err


WRITTEN = {
    "sst2": ["1", "0"],
    "mrpc": ["1", "0"],
    "qqp": ["1", "0"],
    "cola": ["1", "0"],
    "rte": ["not_entailment", "entailment"],
    "qnli": ["not_entailment", "entailment"],
    "mnli": ["neutral", "entailment"],
}


@pytest.mark.parametrize("name", WRITTEN)
def test_glue_s_files_name_or_number_classes(name: str) -> None:
    """Each of GLUE's tasks writes its classes as its own data does."""
    text = leaderboard_text(TASKS[name], pa.table({"prediction": [1, 0]}))
    one, other = WRITTEN[name]
    assert text == f"index\tprediction\n0\t{one}\n1\t{other}\n"


def test_glue_s_files_bear_its_names() -> None:
    """The names are those that GLUE's server looks for."""
    names = {name for task in TASKS.values() for name in task.unlabelled.values()}
    glue = "AX CoLA MNLI-m MNLI-mm MRPC QNLI QQP RTE SST-2 STS-B"
    assert names == {f"{name}.tsv" for name in glue.split()}


def test_scores_are_cut_to_their_bounds() -> None:
    """A predicted similarity below 0 or above 5 is written as the bound; a table holds it as it is."""
    answers = pa.table({"example_id": ["a", "b", "c"], "prediction": [-0.2, 2.34567, 5.01], "probabilities": [[]] * 3})
    assert leaderboard_text(TASKS["stsb"], answers) == "index\tprediction\n0\t0.000\n1\t2.346\n2\t5.000\n"
    assert table_text(TASKS["stsb"], answers).splitlines()[1] == "a\t-0.200000\t"


def test_an_odd_name_does_not_break_a_table() -> None:
    """A tab or a line end in an example's name is quoted."""
    answers = pa.table({"example_id": ["a\tb\nc"], "prediction": [1], "probabilities": [[0.25, 0.75]]})
    expected = 'example_id\tprediction\tprobabilities\n"a\tb\nc"\tpositive\t0.250000,0.750000\n'
    assert table_text(TASKS["sst2"], answers) == expected
