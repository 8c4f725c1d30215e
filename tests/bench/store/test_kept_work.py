"""What a killed command has kept and something has damaged since: it is done again, and the result is the same."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from bench.errors import InputError
from bench.rationales.explanation_store import ExplanationStore
from bench.rationales.files import OVERVIEW, POINTS, points_in, read_frame
from bench.runs import evaluation
from bench.runs.evaluation import evaluate
from efficient_bert.training import loop as training_loop
from efficient_bert.training.adapler.saliency import SALIENCY
from efficient_bert.training.cached_rows import with_cached
from efficient_bert.training.finetune import FINETUNE
from tests.bench.runs import test_evaluation
from tests.bench.store.test_stored_results import flipped
from tests.efficient_bert.training import test_training_loop
from tests.support.tiny import tiny_model

Damage = Callable[[Path], object]


def emptied(path: Path) -> None:
    """Leave nothing of a file."""
    path.write_bytes(b"")


def halved(path: Path) -> None:
    """Leave the first half of a file."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def middle_flipped(path: Path) -> None:
    """Turn a bit over among a file's numbers."""
    flipped(path, path.stat().st_size - 8 if path.suffix == ".safetensors" else path.stat().st_size // 4)


DAMAGES = [emptied, halved, middle_flipped]


@pytest.mark.parametrize("name", ["checkpoint.safetensors", "epoch-001.safetensors"])
@pytest.mark.parametrize("damage", [*DAMAGES, Path.unlink])
def test_a_damaged_checkpoint_is_said_and_trained_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str, damage: Damage
) -> None:
    """The checkpoint itself, or an epoch that it speaks of: one line, and the model of a training never disturbed."""
    monkeypatch.setattr(training_loop, "CHECKPOINT_SECONDS", 0.0)
    options = {"epochs": 2}
    whole = FINETUNE.train(test_training_loop.context(tmp_path / "whole", options=options))
    begun = test_training_loop.context(tmp_path / "begun", options=options, watch=test_training_loop.killing(8))
    with pytest.raises(test_training_loop.KilledError):
        FINETUNE.train(begun)
    damage(tmp_path / "begun" / name)
    with caplog.at_level(logging.WARNING):
        again = FINETUNE.train(replace(begun, model=begun.fresh(), watch=lambda status: None))
    if (name, damage) != ("checkpoint.safetensors", Path.unlink):
        (line,) = [record.getMessage() for record in caplog.records if record.name == training_loop.__name__]
        assert str(tmp_path / "begun" / name) in line
        assert line.endswith("; this stage trains from its start")
    test_training_loop.assert_same_parameters(again.model, whole.model)
    assert again.scores == whole.scores


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_shard_of_numbers_is_computed_again(tmp_path: Path, damage: Damage) -> None:
    """What is kept for every row comes back as it was, whatever has happened to a shard."""
    rows = test_training_loop.rows(6, 0)

    def compute(shard: Any) -> torch.Tensor:
        return torch.tensor([[float(len(row["input_ids"]))] * 40 for row in shard])

    first = with_cached(rows, tmp_path, name="numbers", compute=compute)
    damage(tmp_path / "00000.safetensors")
    again = with_cached(rows, tmp_path, name="numbers", compute=compute)
    assert all(torch.equal(a["numbers"], b["numbers"]) for a, b in zip(first, again, strict=True))
    with torch.no_grad():
        assert torch.equal(again[0]["numbers"], compute(rows)[0])


@pytest.mark.parametrize("damage", [*DAMAGES, lambda path: pq.write_table(pq.read_table(path).slice(1), path)])
def test_a_damaged_shard_of_saliency_is_computed_again(tmp_path: Path, damage: Damage) -> None:
    """A shard with another row's maps is none either."""
    model = tiny_model("four_heads", classes=2, exit_depths=[])
    (tmp_path / "before" / "epochs").mkdir(parents=True)
    training_loop.save_tensors(tmp_path / "before" / "epochs" / "001.safetensors", model.state_dict())
    context = test_training_loop.context(
        tmp_path / "stage", stage=SALIENCY, model=model, before=tmp_path / "before", options={"batch_size": 8}
    )
    first = pq.read_table(SALIENCY.train(context).beside["saliency.parquet"])
    damage(tmp_path / "stage" / "shard-00000.parquet")
    again = pq.read_table(SALIENCY.train(context).beside["saliency.parquet"])
    assert again.equals(first)


@pytest.mark.parametrize("damage", [
    *DAMAGES,
    lambda path: pq.write_table(pq.read_table(path).slice(1), path),
    lambda path: pq.write_table(pa.table({"example_id": ["x"]}), path),
    lambda path: path.write_bytes(b"PAR1 and no more"),
])  # fmt: skip
def test_a_damaged_chunk_of_an_evaluation_is_computed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Damage
) -> None:
    """Whatever a chunk holds by now, the table is that of an evaluation never disturbed."""
    monkeypatch.setattr(evaluation, "CHUNK", 8)
    rows = test_evaluation.rows(16)
    whole = evaluate(test_evaluation.arm(), rows, folder=tmp_path)
    damage(tmp_path / "part-00000008.parquet")
    assert evaluate(test_evaluation.arm(), rows, folder=tmp_path).equals(whole)


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_explanations_are_asked_for_again(tmp_path: Path, damage: Damage) -> None:
    """Scores come from the explainer again, and what is not damaged from the shelf."""
    shelf, calls = ExplanationStore(tmp_path / "shelf"), []
    scores = [np.arange(300.0).reshape(1, 300), np.ones((1, 2))]

    def find() -> list[Any]:
        calls.append(1)
        return scores

    def asked() -> int:
        got = shelf.scores("saliency-mean", [300, 2], find)
        assert all(np.array_equal(a, b) for a, b in zip(got, scores, strict=True))
        return len(calls)

    assert (asked(), asked()) == (1, 1)
    damage(shelf.folder / "saliency-mean.safetensors")
    assert (asked(), asked()) == (2, 2)


@pytest.mark.parametrize("damage", [
    *DAMAGES,
    lambda path: pq.write_table(pa.table({"annotation_id": [1]}), path),
    lambda path: pq.write_table(pq.read_table(path).set_column(2, "probabilities", [[[0.5]] * 40]), path),
    lambda path: pq.write_table(pq.read_table(path).set_column(2, "probabilities", [[[2.0, -1.0]] * 40]), path),
])  # fmt: skip
def test_damaged_answers_to_erased_texts_are_none(tmp_path: Path, damage: Damage) -> None:
    """Of a table with other columns, other labels or no probabilities nothing is believed."""
    shelf = ExplanationStore(tmp_path / "shelf")
    known = {(f"document {number}", bytes([number])): {"no": 0.25, "yes": 0.75} for number in range(40)}
    shelf.add_erased_answers(known)
    assert shelf.erased_answers(["no", "yes"]) == known
    damage(shelf.folder / "erased.parquet")
    assert shelf.erased_answers(["no", "yes"]) == {}
    shelf.add_erased_answers(known)
    assert shelf.erased_answers(["no", "yes"]) == known


@pytest.mark.parametrize(("content", "told"), [
    (b"\xff", "not UTF-8"),
    (b"[]", "a list of 0"),
    (b'{"points": []}', "no points"),
    (b'{"points": null}', "points is null"),
    (b'{"points": [{"task": 3}]}', "points.0.task is 3"),
])  # fmt: skip
def test_a_damaged_overview_is_one_line(tmp_path: Path, content: bytes, told: str) -> None:
    """The overview of comparisons names itself, the fault and the command that writes it."""
    (tmp_path / OVERVIEW).write_bytes(content)
    with pytest.raises(InputError, match=told) as refused:
        points_in(tmp_path)
    assert str(refused.value).startswith(str(tmp_path / OVERVIEW))
    assert "run bench rationales" in str(refused.value)
    (tmp_path / POINTS).write_text(json.dumps([]), encoding="utf8")
    with pytest.raises(InputError, match=f"{POINTS} cannot be read"):
        read_frame(tmp_path / POINTS)
