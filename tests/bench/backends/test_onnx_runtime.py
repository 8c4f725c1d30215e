"""An exported graph as a backend: its answers, decisions and costs are the engine's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import onnxruntime
import pytest
import torch

from bench.backends.onnx_runtime import OnnxRunner
from bench.backends.runners import Subject, answer
from bench.registry import BACKENDS, METHODS
from bench.runs.evaluation import evaluate
from tests.support.points import knobs_of
from tests.support.tiny import tiny_config, tiny_model

ROWS: list[Mapping[str, Any]] = [
    {
        "example_id": str(length),
        "input_ids": torch.randint(1, 60, (length,), generator=torch.Generator().manual_seed(length)).tolist(),
        "token_type_ids": [0] * length,
        "label": 0,
    }
    for length in (9, 1, 30, 2, 17)
]
COSTS = ("length", "exit_depth", "tokens", "heads", "neurons", "flops", "reference_flops")


def subject_of(method: str) -> Subject:
    """A random model, run by a method at knobs at which something happens."""
    model = tiny_model()
    return Subject(model, METHODS[method], knobs_of(method, model), tiny_config(), "cpu")


@pytest.mark.parametrize("method", [name for name, method in METHODS.items() if not method.control_of])
def test_decisions_and_costs_are_the_engines(method: str) -> None:
    """Logits within 1e-4, and the same rows in the table of examples: tokens, widths, depths and FLOPs."""
    subject = subject_of(method)
    graph, eager = BACKENDS["onnxruntime"].make(subject), BACKENDS["torch"].make(subject)
    assert (answer(graph, ROWS).logits - answer(eager, ROWS).logits).abs().max() < 1e-4
    expected, table = evaluate(eager, ROWS), evaluate(graph, ROWS)
    assert table.select(COSTS).to_pydict() == expected.select(COSTS).to_pydict()


def test_int8_answers_closely_and_says_what_it_is() -> None:
    """Logits move a little; version, precision, threads and providers are those of the session."""
    subject = subject_of("adapler")
    graph, eager = BACKENDS["onnxruntime-int8"].make(subject), BACKENDS["torch"].make(subject)
    apart = (answer(graph, ROWS).logits - answer(eager, ROWS).logits).abs().max()
    assert 0 < apart < 0.5
    assert graph.environment == {
        "dtype": "int8",
        "onnxruntime": onnxruntime.__version__,
        "threads": torch.get_num_threads(),
        "providers": ["CPUExecutionProvider"],
    }


def test_on_one_thread_it_is_another_session_with_the_same_answers() -> None:
    """The runner for parallel examples has one thread, whatever PyTorch has."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        graph = BACKENDS["onnxruntime"].make(subject_of("entropy_exit"))
    finally:
        torch.set_num_threads(threads)
    alone = graph.on_one_thread()
    assert isinstance(alone, OnnxRunner)
    assert (graph.environment["threads"], alone.environment["threads"]) == (2, 1)
    assert torch.allclose(answer(graph, ROWS).logits, answer(alone, ROWS).logits, atol=1e-6)
