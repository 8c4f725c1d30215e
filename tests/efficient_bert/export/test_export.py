"""Exported graphs do what the engine does: the same tokens, widths, exits and logits."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.data.loading import encode, load_split
from bench.registry import METHODS, TASKS, all_knobs
from efficient_bert import Batch, EfficientBertForSequenceClassification, InputError, run
from efficient_bert.engine.decisions import Decision, Policy, View
from efficient_bert.export import OPSET, Precision, export_graph
from efficient_bert.export.layers import quantize
from efficient_bert.policies.contribution import contribution_policy
from tests.conftest import DATA, MiniLM
from tests.support.points import policy_of
from tests.support.tiny import VOCABULARY, tiny_model

WIDTHS = (0.25, 0.5, 0.75, 1.0)


def session_of(
    model: EfficientBertForSequenceClassification, policy: Policy, precision: Precision = Precision.FP32
) -> onnxruntime.InferenceSession:
    """A session of the exported graph, on one thread."""
    graph = export_graph(model, policy, precision=precision, widths=WIDTHS)
    onnx.checker.check_model(graph)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])


def example(length: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Random word pieces and segments, (1, length)."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, VOCABULARY, (1, length), generator=generator)
    return ids, torch.randint(0, 2, (1, length), generator=generator)


def answer(session: onnxruntime.InferenceSession, ids: torch.Tensor, types: torch.Tensor) -> list[Any]:
    """Logits, kept positions, tokens and heads of one example."""
    given_values = {"input_ids": ids[0].numpy(), "token_type_ids": types[0].numpy()}
    return list(session.run(["logits", "kept", "tokens", "heads"], given_values))


def require_same(
    session: onnxruntime.InferenceSession,
    model: EfficientBertForSequenceClassification,
    policy: Policy,
    ids: torch.Tensor,
    types: torch.Tensor,
) -> None:
    """Assert that session and engine agree on an example."""
    with torch.inference_mode():
        output = run(model, Batch(ids, torch.ones_like(ids, dtype=torch.bool), types), policy)
    logits, kept, tokens, heads = answer(session, ids, types)
    trace = output.trace
    ran = (trace.tokens[0] > 0).nonzero()[:, 0]
    assert tokens.tolist() == trace.tokens[0, ran].tolist()
    assert heads.tolist() == trace.heads[0, ran].tolist()
    wanted = [trace.kept[0, layer].nonzero()[:, 0] for layer in ran]
    assert kept.tolist() == torch.cat([*wanted, torch.zeros(0, dtype=torch.int64)]).tolist()
    assert np.abs(logits - output.logits.numpy()).max() < 1e-4


@cache
def tiny_export(name: str) -> tuple[onnxruntime.InferenceSession, EfficientBertForSequenceClassification, Policy]:
    """A session, model and policy of a method, made once: tracing takes seconds."""
    model = tiny_model()
    policy = policy_of(name, model)
    return session_of(model, policy), model, policy


@pytest.fixture(scope="module", params=METHODS)
def exported(request: pytest.FixtureRequest) -> tuple[Any, ...]:
    """A session, model and policy of each method in turn."""
    return tiny_export(request.param)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(length=st.integers(1, 130), seed=st.integers(0, 1000))
def test_a_method_runs_as_in_the_engine(exported: tuple[Any, ...], length: int, seed: int) -> None:
    """The same tokens in every layer, the same widths, the same exit, and logits within 1e-4, for any length."""
    session, model, policy = exported
    require_same(session, model, policy, *example(length, seed))


@pytest.mark.parametrize("shape", ["four_heads", "odd_inner"])
@pytest.mark.parametrize("name", METHODS)
def test_other_shapes_and_a_regression(shape: str, name: str) -> None:
    """Inner sizes that heads do not divide, and one score as the answer, where exits compare two of them."""
    model = tiny_model(shape, classes=1, problem_type="regression", widths=[0.34, 0.5, 0.75, 1.0])
    method = METHODS[name]
    knobs = {knob.name: knob.default for knob in all_knobs(method)}
    knobs |= {"width_mult_list": "0.34,0.5,0.75,1"} if name == "flexible" else {}
    policy = method.policy(model, method.calibrate(model, None, knobs))
    graph = export_graph(model, policy, widths=(0.34, 0.5, 0.75, 1.0))
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    for length in (1, 2, 31):
        require_same(session, model, policy, *example(length, length))


def test_every_kind_of_decision_at_once() -> None:
    """A user's policy that drops tokens, narrows layers and lets examples leave is traced like any other."""

    def decide(view: View) -> Decision:
        feature = view.hidden[..., 5]
        return Decision(
            keep=feature > feature.mean(1, keepdim=True) - 0.5,
            leave=view.logits[-1].max(-1).values > 0.9 if len(view.logits) else None,
            width=torch.where(view.hidden[:, 0, 1] > 0, 0.5, 1.0),
        )

    model = tiny_model()
    policy = Policy(decide, exits=(1, 2, 3))
    session = session_of(model, policy)
    for seed in range(20):
        require_same(session, model, policy, *example(1 + 3 * seed, seed))


@pytest.mark.parametrize("name", ["adapler", "flexible"])
def test_real_sentences_run_as_in_the_engine(minilm: MiniLM, texts: list[list[tuple[str, ...]]], name: str) -> None:
    """The same on sentences and pairs, at the size of a real model."""
    method = METHODS[name]
    knobs = {knob.name: knob.default for knob in all_knobs(method)}
    policy = method.policy(minilm.exits, method.calibrate(minilm.exits, None, knobs))
    session = session_of(minilm.exits, policy)
    for batch in (*minilm.batches(texts[0][:12], size=1), *minilm.batches(texts[1][:4], size=1)):
        require_same(session, minilm.exits, policy, batch.input_ids, batch.token_type_ids)


@pytest.mark.skipif(DATA not in os.environ, reason=f"{DATA} is not set")
@pytest.mark.parametrize(("task", "max_length"), [("imdb", 256), ("movies", 512)])
def test_long_texts_run_as_in_the_engine(minilm: MiniLM, task: str, max_length: int) -> None:
    """Reviews lose the same tokens in every layer."""
    model = minilm.exits
    policy = contribution_policy(model.contributions())
    session = session_of(model, policy)
    rows = load_split(TASKS[task], TASKS[task].evaluation, data_dir=Path(os.environ[DATA]), seed=0, limit=4)
    for row in encode(rows, minilm.tokenizer, max_length=max_length, windows=TASKS[task].windows).to_list()[:6]:
        ids, types = torch.tensor([row["input_ids"]]), torch.tensor([row["token_type_ids"]])
        require_same(session, model, policy, ids, types)


def test_something_happens() -> None:
    """The knobs of these tests drop tokens, and let some leave and others not: an equality of nothing proves little."""
    for name in ("entropy_exit", "prefix_exit", "flexible", "random_exits"):
        session, _, _ = tiny_export(name)
        layers = {len(answer(session, *example(20, seed))[2]) for seed in range(40)}
        assert len(layers) > 1, name
    tokens = answer(tiny_export("adapler")[0], *example(60, 0))[2]
    assert tokens[-1] < tokens[0] <= 60


def test_int8_stays_close() -> None:
    """Weights of one byte give nearly the same logits, and no other count of layers of the full model."""
    model = tiny_model()
    exact, rounded = (session_of(model, Policy(), precision) for precision in Precision)
    for seed in range(5):
        first, second = (answer(session, *example(40, seed)) for session in (exact, rounded))
        assert np.abs(first[0] - second[0]).max() < 0.35
        assert first[2].tolist() == second[2].tolist()


def test_int8_weights() -> None:
    """Each output has its scale: a row of zeros stays zeros, and an error is at most half a step."""
    weight = np.array([[0.0, 0.0], [1.0, -2.0], [100.0, 3.0]], np.float32)
    quantized, scales = quantize(weight)
    assert np.abs(quantized * scales[:, None] - weight).max() <= scales.max() / 2
    assert quantized[1].tolist() == [32, -64]
    assert not quantized[0].any()


def test_a_decision_that_no_graph_holds_is_refused() -> None:
    """A Python choice by the data is one clear line."""

    def decide(view: View) -> Decision:
        return Decision(keep=view.mask if view.hidden.sum().item() > 0 else ~view.mask)

    with pytest.raises(InputError, match="tensor operations alone"):
        export_graph(tiny_model(), Policy(decide))


def test_another_precision_or_activation_is_refused() -> None:
    """Only float32 on the CPU is read, and activations that have an operator."""
    with pytest.raises(InputError, match="hidden_act is 'mish'"):
        export_graph(tiny_model(hidden_act="mish"), Policy())
    half = tiny_model()
    half.bfloat16()
    with pytest.raises(InputError, match="takes float32 on cpu"):
        export_graph(half, Policy())


def test_the_opset_is_the_documented_one() -> None:
    """The graph names its opset, which the manifest repeats."""
    graph = export_graph(tiny_model(), Policy())
    assert {entry.domain: entry.version for entry in graph.opset_import}[""] == OPSET
