"""Numbers that are none: the example that they are of is named, and nothing is counted, kept or written."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file, save_file

from bench.backends.runners import EagerRunner
from bench.errors import InputError
from bench.rationales.documents import answers, explanations
from bench.registry import EXPLAINERS
from bench.runs.evaluation import Reading, evaluate, evaluate_readings
from bench.store.runs import RunStore
from bench.store.stored_examples import example_schema
from efficient_bert import EfficientBertForSequenceClassification
from efficient_bert.engine.decisions import Policy
from efficient_bert.errors import InputError as TrainingError
from efficient_bert.policies.exit_rules import replay
from efficient_bert.training.finetune import classification_loss, classify
from efficient_bert.training.loop import train
from efficient_bert.training.recipe import one_loss
from tests.bench.rationales.test_rationale_reading import LONG, READER, SHORT
from tests.efficient_bert.training.test_training_loop import context
from tests.support.command_line import Answer, call
from tests.support.stored_runs import StoredRun
from tests.support.tiny import VOCABULARY, tiny_config, tiny_model
from tests.support.tiny_files import write_backbone, write_sst2

ODD = VOCABULARY - 1
"""A word piece whose embedding is no number."""


def spoilt(value: float = math.nan, **changes: Any) -> EfficientBertForSequenceClassification:
    """A model to which one word piece is `value`."""
    model = tiny_model(**changes)
    with torch.no_grad():
        model.bert.embeddings.word_embeddings.weight[ODD] = value
    return model


def rows(*ids: int) -> list[dict[str, Any]]:
    """Forty examples, of which those numbered `ids` hold the odd word piece."""
    return [
        {"example_id": f"e{n}", "input_ids": [1, ODD if n in ids else 3, 2], "token_type_ids": [0] * 3, "label": n % 3}
        for n in range(40)
    ]


def runner(model: EfficientBertForSequenceClassification, **changes: Any) -> EagerRunner:
    """The model, compared with a full one of its kind."""
    return EagerRunner(model, Policy(exits=()), tiny_config(**changes), "cpu")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_an_answer_that_is_no_number_is_refused_by_its_example(tmp_path: Path, value: float) -> None:
    """The first example is named, also one of a later batch, and its chunk is not kept."""
    with pytest.raises(InputError, match="answer to example 'e37' is no finite number; leave it out, or train"):
        evaluate(runner(spoilt(value)), rows(37, 38), folder=tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert len(evaluate(runner(spoilt(value)), rows(), folder=tmp_path)) == 40


@pytest.mark.parametrize("logits", [[math.inf, 0.0, 0.0], [-math.inf, 0.0, 0.0], [math.nan, 1.0, 2.0]])
def test_one_odd_class_is_enough(logits: list[float]) -> None:
    """An infinite logit of one class is no answer, though its probabilities may be numbers."""
    model = tiny_model()
    with torch.no_grad():
        model.classifier.weight.zero_()
        model.classifier.bias.copy_(torch.tensor(logits))
    with pytest.raises(InputError, match="answer to example 'e0' is no finite number"):
        evaluate(runner(model), rows())


def test_a_score_that_is_no_number_is_refused() -> None:
    """The same holds of a regression, whose answer has no probabilities."""
    regression: dict[str, Any] = {"classes": 1, "problem_type": "regression"}
    with pytest.raises(InputError, match="answer to example 'e5' is no finite number"):
        evaluate(runner(spoilt(**regression), **regression), rows(5))


def test_an_answer_read_off_an_exit_is_one(tmp_path: Path) -> None:
    """Of several readings of a pass each is looked at: here all leave at the first exit, whose head is broken."""
    model = tiny_model()
    with torch.no_grad():
        model.get_parameter("exits.1.classifier.bias")[0] = math.nan
    given = EagerRunner(model, Policy(exits=(1,)), tiny_config(), "cpu")
    leaving = Reading(tmp_path / "leaving", lambda output: replay(output, lambda found: torch.ones(found.shape[1]) > 0))
    staying = Reading(tmp_path / "staying")
    assert len(evaluate_readings(given, rows(), [staying])[0]) == 40
    with pytest.raises(InputError, match="answer to example 'e0' is no finite number"):
        evaluate_readings(given, rows(), [staying, leaving])


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("regression", [False, True])
def test_a_stored_answer_that_is_no_number_is_not_reported(tmp_path: Path, odd: float, regression: bool) -> None:
    """What an earlier version counted as an answer is refused by its file and column when it is read."""
    run = StoredRun("run", examples=12)
    table = run.table().to_pylist()
    if regression:
        table = [{**row, "label": 1.0, "prediction": 2.5, "probabilities": []} for row in table]
    table[7] |= {"prediction": odd} if regression else {"probabilities": [odd, 0.5]}
    store = RunStore(tmp_path)
    store.put(run.record(), pa.Table.from_pylist(table, example_schema(regression=regression)))
    with pytest.raises(InputError, match=r"column (prediction|probabilities) has a value that is not finite; delete"):
        store.examples("run")


def test_documents_are_named_too() -> None:
    """An answer to a document, to what is left of it, or an explanation that is no number names the annotation."""
    model = tiny_model("four_heads")
    with torch.no_grad():
        model.bert.embeddings.word_embeddings.weight[int(LONG.pieces[7])] = math.nan
    broken = EagerRunner(model, Policy(), model.config, "cpu")
    assert np.isfinite(answers(broken, READER, [(SHORT, None)])[0].probabilities).all()
    without = np.arange(9) != LONG.units[7]
    assert np.isfinite(answers(broken, READER, [(LONG, without)])[0].probabilities).all()
    with pytest.raises(InputError, match="answer to example 'long' is no finite number"):
        answers(broken, READER, [(SHORT, None), (LONG, None)])
    with pytest.raises(InputError, match="explanation of example 'long' is no finite number"):
        explanations(EXPLAINERS["saliency"], broken, READER, documents=[SHORT, LONG], classes=[0, 0], pooling="mean")


def test_held_out_rows_are_named_in_training(tmp_path: Path) -> None:
    """An epoch whose held-out answers are no numbers ends in one line, which asks for what is not in force already."""
    given = context(tmp_path)
    heldout = [{**row, "example_id": f"train-{place}"} for place, row in enumerate(given.heldout)]

    def broken(model: EfficientBertForSequenceClassification, batch: Any) -> torch.Tensor:
        return classify(model, batch) * torch.where(batch["input_ids"].sum(1) == total, math.nan, 1.0)[:, None]

    total = sum(heldout[9]["input_ids"])
    first = next(place for place, row in enumerate(heldout) if sum(row["input_ids"]) == total)
    with pytest.raises(TrainingError, match=rf"held-out example 'train-{first}' is no finite number at step 5") as one:
        train(replace(given, heldout=heldout), one_loss(classification_loss, broken))
    assert str(one.value).endswith("lower the learning rate (it is 0.001)")
    assert list(tmp_path.iterdir()) == []


def run(folder: Path, *more: object) -> Answer:
    """`bench run` on SST-2's layout with a small backbone."""
    small = ("--preset", "smoke", "--max-length", 32, "--latency-examples", 0, "--backbone", folder / "bert")
    places = ("--data-dir", folder / "sst2", "--store", folder / "store", "--report", folder / "report")
    return call("run", "--task", "sst2", "--method", "full", *small, *places, *more)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A backbone and data; only the last reported row says "poor"."""
    write_backbone(tmp_path / "bert")
    data = write_sst2(tmp_path / "sst2", train=60, dev=12)
    for name in ("train.tsv", "dev.tsv"):
        path = data / name
        path.write_text(path.read_text(encoding="utf8").replace("poor", "bad"), encoding="utf8")
    with (data / "dev.tsv").open("a", encoding="utf8") as file:
        file.write("the film was poor\t0\n")
    return tmp_path


def spoil(folder: Path, name: str, place: int, value: float) -> None:
    """Put a value into a tensor of the backbone."""
    path = folder / "bert" / "model.safetensors"
    tensors = load_file(path)
    tensors[name][place] = value
    save_file(tensors, path, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("name", "place", "value", "parts"),
    [
        ("embeddings.word_embeddings.weight", 17, math.nan, ["16 values", "example 'validation-12' is read with"]),
        ("embeddings.word_embeddings.weight", 6, math.inf, ["16 values", "example 'validation-", "is read with"]),
        ("embeddings.word_embeddings.weight", 0, math.nan, ["16 values", "in bert.embeddings.word_embeddings.weight;"]),
        ("encoder.layer.1.output.dense.bias", 3, -math.inf, ["1 values", "in bert.encoder.layer.1.output.dense.bias;"]),
        ("embeddings.LayerNorm.weight", 0, math.nan, ["1 values", "in bert.embeddings.LayerNorm.weight;"]),
    ],
)
def test_a_backbone_s_odd_weights_are_refused(
    folder: Path, name: str, place: int, value: float, parts: list[str]
) -> None:
    """Before anything is trained, with the example that is read with an odd word piece, or the tensor."""
    spoil(folder, name, place, value)
    answer = run(folder)
    assert answer.code == 2
    assert answer.err.count("\n") == 1
    assert [part for part in ["'bert' hold", *parts] if part not in answer.err] == []
    assert not (folder / "store").exists()


def test_a_word_that_nobody_says_does_no_harm(folder: Path) -> None:
    """An odd embedding of a word that no row holds trains as ever; the answer to a text that says it is refused."""
    spoil(folder, "embeddings.word_embeddings.weight", 17, math.nan)
    path = folder / "sst2" / "dev.tsv"
    path.write_text(path.read_text(encoding="utf8").replace("poor", "bad"), encoding="utf8")
    answer = run(folder)
    assert answer.code == 0, answer.err
    (folder / "sst2" / "test.tsv").write_text("index\tsentence\n0\tthe film\n1\ta poor plot\n", encoding="utf8")
    small = ("--preset", "smoke", "--max-length", 32, "--backbone", folder / "bert", "--data-dir", folder / "sst2")
    refused = call("predict", "--task", "sst2", "--method", "full", *small, "--store", folder / "store",
                   "--out", folder / "out")  # fmt: skip
    assert refused.code == 2
    assert "answer to example 'test-1' is no finite number" in refused.err
    assert not (folder / "out").exists()


def test_a_training_that_diverges_names_its_stage(folder: Path) -> None:
    """Weights that are numbers, but too large to compute with: stage, step and a remedy, and nothing is stored."""
    spoil(folder, "embeddings.LayerNorm.weight", 0, 3e38)
    answer = run(folder, "--finetune-precision", "no")
    assert answer.code == 2
    assert answer.err.splitlines()[-1].startswith(
        "bench: stage finetune: the loss is nan at step 0; lower the learning"
    )
    assert answer.err.endswith("(it is 2e-05)\n")
    assert not any((folder / "store").glob("*/[!.]*"))
