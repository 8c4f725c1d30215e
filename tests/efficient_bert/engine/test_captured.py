"""Captured blocks answer as the gathered engine does, whatever their buffers held before."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from bench.registry import METHODS, all_knobs
from efficient_bert import Batch, EfficientBertForSequenceClassification, Execution, run
from efficient_bert.encoder.attention import attend
from efficient_bert.engine.captured import CapturedBlocks, buckets
from efficient_bert.engine.decisions import Policy
from tests.support.accelerator import accelerator
from tests.support.cuda_graphs import HostReadError, cuda_graphs
from tests.support.tiny import everything, tiny_batch, tiny_model

MODEL = tiny_model(classes=2)
LAYER = MODEL.bert.encoder.layers[0]
BATCH = tiny_batch([9, 3, 5, 13, 1])


@pytest.fixture
def graphs() -> Iterator[None]:
    """CUDA graphs, for as long as the test runs."""
    with cuda_graphs():
        yield


def blocks(longest: int = 20, *, eager: bool = False) -> CapturedBlocks:
    """Blocks without any graph."""
    return CapturedBlocks(longest=longest, eager=eager)


def states(length: int, seed: int = 0) -> Tensor:
    """Random states of one text."""
    return torch.randn(length, 48, generator=torch.Generator().manual_seed(seed))


def called(some: Tensor, heads: int) -> Tensor:
    """The layer itself on one text."""
    output: Tensor = LAYER(some[None], partial(attend, heads=heads, eager=False), heads=heads)
    return output[0]


def test_buckets_are_at_most_half_too_long() -> None:
    """They begin at 8 and rise by powers of two and their halves between; the longest text has one of its own."""
    assert buckets(40) == (8, 12, 16, 24, 32, 40)
    assert buckets(512) == (8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
    assert buckets(5) == (5,)
    assert buckets(8) == (8,)
    for length in range(8, 513):
        assert min(bucket for bucket in buckets(512) if bucket >= length) <= 1.5 * length


@pytest.mark.usefixtures("graphs")
@torch.inference_mode()
def test_a_block_does_what_its_layer_does() -> None:
    """At every length and width, after longer and shorter texts, and after one whose states are no numbers."""
    captured = blocks()
    for length in (17, 3, 20, 1, 8, 9, 12):
        for heads in (12, 5):
            bucket = min(each for each in captured.buckets if each >= length)
            captured(LAYER, torch.full((bucket, 48), torch.nan), heads)
            text = states(length, seed=length)
            torch.testing.assert_close(captured(LAYER, text, heads), called(text, heads), atol=1e-5, rtol=0)


@pytest.mark.usefixtures("graphs")
@torch.inference_mode()
def test_an_answer_outlives_the_next_one() -> None:
    """What a block returned is a copy: neither another text nor another layer changes it."""
    captured, text = blocks(), states(7)
    first = captured(LAYER, text, 12)
    before = first.clone()
    captured(LAYER, states(6, seed=1), 12)
    captured(MODEL.bert.encoder.layers[1], states(5, seed=2), 12)
    assert torch.equal(first, before)
    assert torch.equal(captured(LAYER, text, 12), before)


@pytest.mark.usefixtures("graphs")
@torch.inference_mode()
def test_a_graph_serves_a_bucket_a_width_and_a_type() -> None:
    """Lengths of one bucket share it; another width, length, type or layer has its own; changed weights count."""
    captured, layer = blocks(), deepcopy(LAYER)
    for length in (1, 5, 8):
        captured(layer, states(length), 12)
    assert len(captured.graphs) == 1
    captured(layer, states(8), 6)
    captured(layer, states(9), 12)
    captured(LAYER, states(8), 12)
    assert len(captured.graphs) == 4
    layer.to(torch.bfloat16)
    assert captured(layer, states(8).bfloat16(), 12).dtype == torch.bfloat16
    assert len(captured.graphs) == 5
    first = captured(LAYER, states(8), 12)
    with torch.inference_mode(False), torch.no_grad():
        bias = LAYER.output.LayerNorm.bias
        bias.add_(1.0)
    torch.testing.assert_close(captured(LAYER, states(8), 12), first + 1.0)
    with torch.inference_mode(False), torch.no_grad():
        bias.sub_(1.0)


@pytest.mark.usefixtures("graphs")
@torch.inference_mode()
def test_what_was_captured_beforehand_serves_texts_of_any_length(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is captured any more afterwards."""
    captured = blocks()
    captured.capture_all(LAYER, states(1), 12)
    assert len(captured.graphs) == len(captured.buckets)
    monkeypatch.delattr(CapturedBlocks, "capture")
    for length in range(1, 21):
        text = states(length)
        torch.testing.assert_close(captured(LAYER, text, 12), called(text, 12), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.usefixtures("graphs")
def test_every_method_answers_as_the_gathered_engine_does(name: str) -> None:
    """Logits within 1e-5 and the same trace, on one device, in a batch of unequal texts that share buffers."""
    method = METHODS[name]
    knobs = {knob.name: knob.parse(knob.default) for knob in all_knobs(method)}
    with accelerator():
        model, batch = moved(MODEL, BATCH, "cuda")
        assert_same(model, batch, method.policy(model, method.calibrate(model, None, knobs)), blocks())


@pytest.mark.parametrize("eager", [False, True])
@pytest.mark.usefixtures("graphs")
def test_every_decision_at_once_is_answered_as_by_the_gathered_engine(eager: bool) -> None:
    """Tokens, widths and exits together, under either attention."""
    model = tiny_model(attn_implementation="eager" if eager else "sdpa")
    assert_same(model, BATCH, Policy(everything, exits=(1, 2, 3)), blocks(eager=eager))


def moved(
    model: EfficientBertForSequenceClassification, batch: Batch, device: str
) -> tuple[EfficientBertForSequenceClassification, Batch]:
    """Copies on a device."""
    copy = deepcopy(model)
    nn.Module.to(copy, device)
    return copy, Batch(*(part.to(device) for part in (batch.input_ids, batch.mask, batch.token_type_ids)))


@torch.inference_mode()
def assert_same(
    model: EfficientBertForSequenceClassification, batch: Batch, policy: Policy, captured: CapturedBlocks
) -> None:
    """The gathered engine and captured blocks agree."""
    expected = run(model, batch, policy)
    output = run(model, batch, policy, run_block=captured)
    torch.testing.assert_close(output.logits, expected.logits, atol=1e-5, rtol=0)
    for field, value in vars(expected.trace).items():
        assert torch.equal(getattr(output.trace, field), value), field
    assert captured.graphs


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("name", METHODS)
def test_real_graphs_answer_as_the_gathered_engine_does(name: str) -> None:
    """On a GPU that is there, within what its float32 products differ by between shapes."""
    method = METHODS[name]
    knobs = {knob.name: knob.parse(knob.default) for knob in all_knobs(method)}
    model, batch = moved(MODEL, BATCH, "cuda")
    assert_same(model, batch, method.policy(model, method.calibrate(model, None, knobs)), blocks())


@pytest.mark.usefixtures("graphs")
def test_what_captured_blocks_cannot_do_raises() -> None:
    """Gradients, dropout, padded executions."""
    with pytest.raises(ValueError, match="inference_mode"):
        blocks()(LAYER, states(3), 12)
    with torch.inference_mode(), pytest.raises(ValueError, match="eval"):
        blocks()(deepcopy(LAYER).train(), states(3), 12)
    for execution in (Execution.MASKED, Execution.SOFT):
        with pytest.raises(ValueError, match="gathered"):
            run(MODEL, BATCH, execution=execution, run_block=blocks())


@pytest.mark.usefixtures("graphs")
def test_recorded_work_is_as_blind_as_a_gpus() -> None:
    """It follows its input and not Python, spoils its pool, and a number that Python reads raises."""
    pool, given = torch.cuda.graph_pool_handle(), torch.tensor([1.0, 2.0])
    outputs, made = [], []
    for factor in (2.0, 3.0):
        made.append(torch.cuda.CUDAGraph())
        with torch.cuda.graph(made[-1], pool=pool):
            outputs.append((given * factor).add_(1.0))
    given.copy_(torch.tensor([5.0, 7.0]))
    made[1].replay()
    assert outputs[1].tolist() == [16.0, 22.0]
    assert outputs[0].isnan().all()
    made[0].replay()
    assert outputs[0].tolist() == [11.0, 15.0]
    with torch.cuda.graph(torch.cuda.CUDAGraph(), pool=pool), pytest.raises(HostReadError):
        bool(given.sum() > 3)
