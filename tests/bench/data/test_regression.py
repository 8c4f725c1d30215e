"""A task whose answer is a number: its loss, its rows in a store, its metrics, and what methods make of it."""

from __future__ import annotations

import random
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from scipy.stats import pearsonr, spearmanr
from transformers import AutoModelForSequenceClassification, BertForSequenceClassification

from bench.backends.runners import EagerRunner
from bench.registry import METHODS, all_knobs
from bench.runs.evaluation import answer_columns, evaluate
from bench.store.runs import RunStore
from bench.store.stored_examples import EXAMPLE_SCHEMA, example_schema
from efficient_bert import EfficientBertConfig, EfficientBertForSequenceClassification, InputError
from efficient_bert.engine.decisions import Policy
from efficient_bert.explainers.attribution import gradient_times_input
from efficient_bert.training.batches import collate
from efficient_bert.training.finetune import classification_loss
from tests.support.command_line import Answer, call
from tests.support.tiny import tiny_batch, tiny_config, tiny_model
from tests.support.tiny_files import WORDS, write_backbone

HEADER = "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2"


def write_stsb(folder: Path) -> Path:
    """STS-B's files: 60 training pairs, 20 to report on and 5 without a score, each scored by the words it shares."""
    folder.mkdir(parents=True)
    draw = random.Random(0)  # noqa: S311 - a draw, no secret
    for name, rows in (("train", 60), ("dev", 20), ("test", 5)):
        lines = [HEADER if name == "test" else f"{HEADER}\tscore"]
        for row in range(rows):
            shared = row % 6
            one, other = (draw.sample(WORDS, 5) for _ in range(2))
            pair = " ".join(one), " ".join([*one[:shared], *other[shared:]])
            score = [] if name == "test" else [f"{shared:.3f}"]
            lines.append("\t".join([str(row), "g", "f", "y", "0", "s", "s", *pair, *score]))
        (folder / f"{name}.tsv").write_text("\n".join(lines) + "\n", encoding="utf8")
    return folder


def test_the_loss_is_hugging_face_s() -> None:
    """With one output the loss is the mean squared error that Hugging Face computes, and training uses it too."""
    ours = tiny_model(classes=1, exit_depths=[])
    assert ours.config.regression
    theirs = BertForSequenceClassification(ours.config).eval()
    theirs.load_state_dict(ours.state_dict(), strict=False)
    batch, scores = tiny_batch([7, 3, 5]), torch.tensor([0.5, 4.0, 2.25])
    inputs = {"input_ids": batch.input_ids, "attention_mask": batch.mask.long(), "token_type_ids": batch.token_type_ids}
    with torch.no_grad():
        expected, found = theirs(**inputs, labels=scores), ours(**inputs, labels=scores)
        torch.testing.assert_close(found.logits, expected.logits, atol=1e-5, rtol=0)
        torch.testing.assert_close(found.loss, expected.loss)
        torch.testing.assert_close(classification_loss(ours, {**inputs, "labels": scores}), expected.loss)


def test_the_saliency_is_that_of_the_score() -> None:
    """Gradient x input explains the one output, as derived with Hugging Face's model; scores are no indices."""
    ours = tiny_model(classes=1, exit_depths=[])
    theirs = BertForSequenceClassification(ours.config).eval()
    theirs.load_state_dict(ours.state_dict(), strict=False)
    batch = tiny_batch([7, 3, 5])
    output = theirs(batch.input_ids, batch.mask.long(), batch.token_type_ids, output_hidden_states=True)
    states = output.hidden_states[0]
    (gradient,) = torch.autograd.grad(output.logits.sum(), states)
    expected = (states * gradient).norm(dim=-1) * batch.mask
    found = gradient_times_input(ours, batch, torch.tensor([4.5, 0.0, 2.0]))
    torch.testing.assert_close(found, expected.detach(), atol=1e-5, rtol=1e-4)


def test_what_a_regression_is() -> None:
    """One output is a regression, several are classes."""
    assert EfficientBertConfig(num_labels=1).regression
    assert EfficientBertConfig(num_labels=1, problem_type="regression").regression
    assert not EfficientBertConfig(num_labels=2).regression


def test_scores_are_collated_as_real_numbers() -> None:
    """Labels that are floats become float32."""
    rows = [{"input_ids": [1], "token_type_ids": [0], "label": label} for label in (0.0, 3.5)]
    assert collate(rows, pad_token_id=0)["labels"].tolist() == [0.0, 3.5]


def test_an_answer_is_the_output_itself() -> None:
    """The prediction of a regression is its one output, and it has no probabilities; classes have both, by hand."""
    assert answer_columns(torch.tensor([[1.5], [-2.0]]), regression=True) == {
        "prediction": [1.5, -2.0],
        "probabilities": [[], []],
    }
    assert answer_columns(torch.tensor([[0.0, 0.0], [0.0, 1000.0]]), regression=False) == {
        "prediction": [0, 1],
        "probabilities": [[0.5, 0.5], [0.0, 1.0]],
    }


def test_rows_of_a_regression_have_real_labels() -> None:
    """Only the types of label and prediction differ from a classification's table; `correct` is null."""
    assert example_schema(regression=False).equals(EXAMPLE_SCHEMA)
    odd = {field.name: field.type for field in example_schema(regression=True) if field not in EXAMPLE_SCHEMA}
    assert odd == {"label": pa.float64(), "prediction": pa.float64()}
    row = {"example_id": "e", "input_ids": [2, 3], "token_type_ids": [0, 0], "label": 1.25}
    arm = EagerRunner(tiny_model(classes=1), Policy(), tiny_config(classes=1), "cpu")
    (example,) = evaluate(arm, [row]).to_pylist()
    assert example["label"] == 1.25
    assert example["correct"] is None
    assert example["probabilities"] == []


@pytest.mark.parametrize("name", ["entropy_exit", "patience_exit"])
def test_rules_for_classes_refuse_scores(name: str) -> None:
    """An exit rule that compares classes says so in one line, before anything is trained."""
    method = METHODS[name]
    with pytest.raises(
        InputError, match=f"{name} compares classes, but the answer is a real-valued score; take method"
    ):
        method.check(tiny_config(classes=1), {knob.name: knob.default for knob in all_knobs(method)})


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a backbone and data."""
    folder = tmp_path_factory.mktemp("regression")
    write_backbone(folder / "bert")
    write_stsb(folder / "STS-B")
    return folder


def bench(command: str, folder: Path, *more: object) -> Answer:
    """A command on STS-B with the small backbone."""
    data = ("--task", "stsb", "--data-dir", folder, "--backbone", folder / "bert", "--max-length", 32)
    return call(command, *data, "--preset", "smoke", "--device", "cpu", "--store", folder, *more)


def test_a_regression_runs_from_training_to_report(given: Path) -> None:
    """Every method that can answers; the stored scores give the stored correlations by scipy; a page is written."""
    answer = bench("run", given, "--report", given / "report")
    assert answer.code == 0, answer.err
    methods = [record["method"] for record in answer.records]
    assert "full" in methods
    assert {"static_depth", "adapler"} <= set(methods)
    assert not {"entropy_exit", "patience_exit"} & set(methods)
    store = RunStore(given / "runs")
    for record in answer.records:
        examples = store.examples(record["run_id"])
        assert examples.schema.equals(example_schema(regression=True))
        label, prediction = examples["label"].to_pylist(), examples["prediction"].to_pylist()
        assert sorted(set(label)) == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
        assert len(set(prediction)) > 10
        assert record["metrics"]["pearson"] == pytest.approx(pearsonr(label, prediction).statistic)
        assert record["metrics"]["spearman"] == pytest.approx(spearmanr(label, prediction).statistic)
    assert "pearson" in (given / "report" / "index.html").read_text(encoding="utf8")
    full, shallow, *_ = store.ids()
    assert "pearson" in call("compare", full, shallow, "--store", given).out


def test_the_model_says_that_it_is_a_regression(given: Path) -> None:
    """The saved model loads with the Auto classes as a regression with a named score."""
    assert bench("train", given, "--method", "full").code == 0
    (folder,) = (given / "artifacts").glob("finetune-*")
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    assert isinstance(model, EfficientBertForSequenceClassification)
    assert model.config.problem_type == "regression"
    assert model.config.id2label == {0: "similarity"}


@pytest.mark.parametrize("name", ["entropy_exit", "patience_exit"])
def test_asking_for_a_rule_for_classes_is_refused(name: str, given: Path) -> None:
    """A method that is asked for by name and cannot run is refused instead of being left out."""
    answer = bench("run", given, "--method", name, "--report", given / "other")
    assert answer.code == 2
    assert f"{name} compares classes" in answer.err


def test_predicted_scores_lie_within_bounds(given: Path) -> None:
    """STS-B's file holds a score of three decimals within 0 and 5 for every row."""
    answer = bench("predict", given, "--method", "full", "--out", given / "answers")
    assert answer.code == 0, answer.err
    header, *rows = (given / "answers" / "STS-B.tsv").read_text(encoding="utf8").splitlines()
    assert header == "index\tprediction"
    assert [row.split("\t")[0] for row in rows] == ["0", "1", "2", "3", "4"]
    assert all(0 <= float(row.split("\t")[1]) <= 5 and len(row.partition(".")[2]) == 3 for row in rows)
