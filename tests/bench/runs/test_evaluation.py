"""An arm over a split: columns, FLOPs, and chunks that a killed evaluation left behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.special
import torch

from bench.backends.runners import EagerRunner
from bench.runs import evaluation
from bench.runs.evaluation import Reading, evaluate, evaluate_readings
from bench.store.stored_examples import EXAMPLE_SCHEMA
from efficient_bert import Batch, EfficientBertForSequenceClassification, run
from efficient_bert.cost.flops import full_flops, trace_flops
from efficient_bert.engine.decisions import Policy
from efficient_bert.engine.recorder import Output
from efficient_bert.policies.exit_rules import replay
from tests.support.tiny import VOCABULARY, everything, tiny_config, tiny_model

MODEL = tiny_model()


def rows(count: int) -> list[dict[str, Any]]:
    """Encoded examples of 1 to 9 tokens."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for number in range(count):
        length = 1 + number * 7 % 9
        ids = torch.randint(1, VOCABULARY, (length,), generator=generator).tolist()
        types = [0] * length
        found.append({"example_id": f"e{number}", "input_ids": ids, "token_type_ids": types, "label": number % 3})
    return found


def arm(model: EfficientBertForSequenceClassification = MODEL, policy: Policy | None = None) -> EagerRunner:
    """The model with a policy, compared with the full model of four layers."""
    return EagerRunner(model, policy or Policy(everything, exits=(1, 2, 3)), tiny_config(), "cpu")


def test_columns_are_what_one_pass_per_example_gives() -> None:
    """Every column equals the example's own pass at batch 1: logits, trace and FLOPs; answers by scipy and numpy."""
    given = arm()
    table = evaluate(given, rows(40))
    assert table.schema.equals(EXAMPLE_SCHEMA)
    for row, example in zip(rows(40), table.to_pylist(), strict=True):
        ids, types = (torch.tensor([row[name]]) for name in ("input_ids", "token_type_ids"))
        with torch.inference_mode():
            output = run(MODEL, Batch.of({"input_ids": ids, "token_type_ids": types}), given.policy)
        trace = output.trace
        expected = scipy.special.softmax(output.logits[0].double().numpy())
        np.testing.assert_allclose(example["probabilities"], expected, atol=1e-5)
        assert example["example_id"] == row["example_id"]
        assert example["label"] == row["label"]
        assert example["prediction"] == int(np.argmax(expected))
        assert example["correct"] == (example["prediction"] == row["label"])
        assert example["length"] == len(row["input_ids"])
        assert example["exit_depth"] == trace.exit_depth.item() == sum(tokens > 0 for tokens in example["tokens"])
        for name in ("tokens", "heads", "neurons"):
            assert example[name] == getattr(trace, name)[0].tolist()
        assert example["flops"] == trace_flops(trace, MODEL.config).item()
        assert example["reference_flops"] == full_flops(trace.length, MODEL.config).item()
        assert example["seconds"] == example["reference_seconds"] == example["event_seconds"] == []
    assert len(set(table["exit_depth"].to_pylist())) > 2


def test_several_readings_share_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each batch passes once for all readings, and not at all for a chunk that every reading has."""
    monkeypatch.setattr(evaluation, "CHUNK", evaluation.BATCH_SIZE)
    passed: list[int] = []

    class Counted(EagerRunner):
        def __call__(self, inputs: Batch) -> Output:
            passed.append(len(inputs.mask))
            return super().__call__(inputs)

    given = Counted(MODEL, Policy(exits=(1, 2)), tiny_config(), "cpu")
    first = Reading(tmp_path / "first", lambda output: replay(output, lambda logits: logits[-1, :, 0] > 0))
    second = Reading(tmp_path / "second")
    leaving, staying = evaluate_readings(given, rows(40), [first, second])
    assert passed == [32, 8]
    assert set(leaving["exit_depth"].to_pylist()) == {1, 4}
    assert set(staying["exit_depth"].to_pylist()) == {4}
    (tmp_path / "first" / "part-00000032.parquet").unlink()
    again = evaluate_readings(given, rows(40), [first, second])
    assert passed == [32, 8, 8]
    assert again == [leaving, staying]


def test_a_truncated_model_is_compared_with_the_full_one() -> None:
    """Two of four layers: zeros stand for the layers that are not there, and the reference has all four."""
    shallow = tiny_model(num_hidden_layers=2, exit_depths=[])
    example = evaluate(arm(shallow, Policy()), rows(3)).to_pylist()[2]
    length = example["length"]
    assert example["exit_depth"] == 2
    assert example["tokens"] == [length, length, 0, 0]
    assert example["heads"] == [12, 12, 0, 0]
    head = 2 * (48 * 48 + 48 * 3)
    assert 2 * (example["flops"] - head) == example["reference_flops"] - head


def test_the_full_model_costs_its_reference() -> None:
    """Without a policy, FLOPs and reference FLOPs are equal."""
    table = evaluate(arm(policy=Policy()), rows(10))
    assert table["flops"].to_pylist() == table["reference_flops"].to_pylist()


def test_ties_go_to_the_first_class() -> None:
    """Equal probabilities are answered with the smaller class, as argmax does."""
    model = tiny_model()
    torch.nn.init.zeros_(model.classifier.weight)
    torch.nn.init.zeros_(model.classifier.bias)
    assert evaluate(arm(model, Policy()), rows(4))["prediction"].to_pylist() == [0] * 4


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of 8 examples in batches of 4."""
    monkeypatch.setattr(evaluation, "BATCH_SIZE", 4)
    monkeypatch.setattr(evaluation, "CHUNK", 8)


@pytest.mark.usefixtures("small_chunks")
def test_chunks_join_to_the_same_table(tmp_path: Path) -> None:
    """With and without a folder the table is the same, in the order of the rows, and progress adds up."""
    done: list[int] = []
    with_folder = evaluate(arm(), rows(19), folder=tmp_path, advance=done.append)
    assert with_folder.equals(evaluate(arm(), rows(19)))
    assert with_folder["example_id"].to_pylist() == [f"e{number}" for number in range(19)]
    assert done == [8, 8, 3]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "part-00000000.parquet", "part-00000008.parquet", "part-00000016.parquet"
    ]  # fmt: skip


@pytest.mark.usefixtures("small_chunks")
def test_a_killed_evaluation_takes_its_chunks_over(tmp_path: Path) -> None:
    """A stored chunk is used and not computed again; what is missing is computed."""

    class KilledError(Exception):
        """The end of the process."""

    def kill(examples: int) -> None:
        raise KilledError

    with pytest.raises(KilledError):
        evaluate(arm(), rows(19), folder=tmp_path, advance=kill)
    first = tmp_path / "part-00000000.parquet"
    assert list(tmp_path.iterdir()) == [first]
    chunk = pq.read_table(first)
    place = chunk.schema.get_field_index("flops")
    pq.write_table(chunk.set_column(place, "flops", pa.array([-1] * 8, pa.int64())), first)
    resumed = evaluate(arm(), rows(19), folder=tmp_path)
    expected = evaluate(arm(), rows(19))
    assert resumed["flops"].to_pylist()[:8] == [-1] * 8
    assert resumed.slice(8).equals(expected.slice(8))


@pytest.mark.usefixtures("small_chunks")
def test_half_a_chunk_is_no_chunk(tmp_path: Path) -> None:
    """A file that was being written when the process ended is ignored."""
    half = tmp_path / ".part-00000000.parquet.1.part"
    half.write_bytes(b"PAR1 half of a file")
    assert evaluate(arm(), rows(10), folder=tmp_path).equals(evaluate(arm(), rows(10)))
