"""Runners: what answers examples, and what the harness may ask of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from bench.backends.runners import EagerRunner, Runner
from bench.runs.estimate import seconds_per_pass
from bench.runs.evaluation import evaluate
from efficient_bert import EfficientBertConfig, run
from efficient_bert.cost.flops import full_flops, trace_flops
from efficient_bert.engine.decisions import Policy
from efficient_bert.engine.recorder import Output
from efficient_bert.rows import Rows
from tests.support.tiny import everything, tiny_config, tiny_model

if TYPE_CHECKING:
    from bench.backends.runners import Counts

ROWS: list[dict[str, Any]] = [
    {"example_id": str(length), "input_ids": list(range(1, 1 + length)), "token_type_ids": [0] * length, "label": 0}
    for length in (5, 3, 9)
]
EAGER = EagerRunner(tiny_model(), Policy(everything, exits=(1, 2, 3)), tiny_config(), "cpu")


@dataclass(frozen=True)
class Foreign:
    """A runner that has nothing beyond the protocol; what it says is another runner's."""

    other: Runner

    @property
    def full_config(self) -> EfficientBertConfig:
        return self.other.full_config

    @property
    def environment(self) -> Mapping[str, str]:
        return self.other.environment

    def prepare(self, rows: Rows) -> Any:
        return self.other.prepare(rows)

    def __call__(self, inputs: Any) -> Any:
        return self.other(inputs)

    def output(self, inputs: Any, result: Any) -> Output:
        return self.other.output(inputs, result)

    def on_one_thread(self) -> Runner | None:
        return self.other.on_one_thread()

    def flops(self, output: Output) -> Counts:
        return self.other.flops(output)

    def published_flops(self, output: Output) -> Counts:
        return self.other.published_flops(output)


def test_the_protocol_is_enough() -> None:
    """A runner without a model of PyTorch is evaluated and estimated like any other."""
    assert evaluate(Foreign(EAGER), ROWS).equals(evaluate(EAGER, ROWS))
    assert seconds_per_pass(Foreign(EAGER), ROWS) > 0


def test_an_eager_runner_is_a_gathered_pass_without_gradients() -> None:
    """Its answer is the engine's, of a batch that is padded with the model's own padding."""
    batch = EAGER.prepare(ROWS)
    output = EAGER(batch)
    assert output.logits.is_inference()
    assert torch.equal(output.logits, run(EAGER.model, batch, EAGER.policy).logits)
    assert batch.mask.sum(1).tolist() == [5, 3, 9]
    assert set(batch.input_ids[~batch.mask].tolist()) == {EAGER.model.config.padding}
    assert EAGER.environment == {"attention": EAGER.model.config._attn_implementation, "dtype": "torch.float32"}


def test_the_authors_count_is_beside_ours() -> None:
    """Where a method has no count of its authors, it is ours."""
    output = EAGER(EAGER.prepare(ROWS))
    ours = trace_flops(output.trace, EAGER.model.config), full_flops(output.trace.length, EAGER.full_config)
    theirs = torch.tensor([1, 2, 3]), torch.tensor([4, 5, 6])
    counted = EagerRunner(EAGER.model, EAGER.policy, EAGER.full_config, "cpu", lambda _: theirs)
    for pair, expected in [
        (EAGER.flops(output), ours),
        (EAGER.published_flops(output), ours),
        (counted.flops(output), ours),
        (counted.published_flops(output), theirs),
    ]:
        assert all(map(torch.equal, pair, expected))
    table = evaluate(counted, ROWS)
    assert table["released_flops"].to_pylist() == [1, 2, 3]
    assert table["released_reference_flops"].to_pylist() == [4, 5, 6]
    assert table["flops"].to_pylist() == ours[0].tolist()
