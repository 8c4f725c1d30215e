"""FLOPs in closed form against hand counts, two counters, and a counter on Hugging Face's model."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertConfig, BertForSequenceClassification

from efficient_bert import Batch, EfficientBertConfig, EfficientBertForSequenceClassification, Execution, run
from efficient_bert.cost.counters import count_with_fvcore, count_with_torch
from efficient_bert.cost.flops import full_flops, head_macs, layer_macs, trace_flops
from efficient_bert.engine.decisions import Decision, Policy, View
from efficient_bert.policies.exit_rules import is_certain
from tests.support.tiny import SHAPES, everything, tiny_batch, tiny_config, tiny_model

LENGTHS = [16, 64, 128, 256, 512]
MINILM: dict[str, Any] = {
    "vocab_size": 97, "num_hidden_layers": 6, "hidden_size": 384, "num_attention_heads": 12, "intermediate_size": 1536
}  # fmt: skip


def analytic(model: EfficientBertForSequenceClassification, batch: Batch, policy: Policy | None = None) -> int:
    """The closed form's FLOPs of a whole batch."""
    with torch.inference_mode():
        return int(trace_flops(run(model, batch, policy).trace, model.config).sum())


def test_a_layer_by_hand() -> None:
    """3 tokens, 2 of 4 heads of size 8, 10 neurons, width 32, counted product by product."""
    query_key_value, scores, context, output = 3 * 3 * 32 * 16, 2 * 3 * 3 * 8, 2 * 3 * 3 * 8, 3 * 16 * 32
    feed_forward = 3 * 32 * 10 + 3 * 10 * 32
    by_hand = query_key_value + scores + context + output + feed_forward
    tokens, heads, neurons = (torch.tensor([value]) for value in (3, 2, 10))
    assert layer_macs(tokens, heads=heads, neurons=neurons, config=tiny_config("four_heads")).tolist() == [by_hand]
    # 4608 + 144 + 144 + 1536 + 1920
    assert by_hand == 8352


def test_a_head_by_hand() -> None:
    """The pooler is 32 x 32 multiply-adds, a classifier of 3 classes 32 x 3."""
    assert head_macs(tiny_config("four_heads", classes=3)) == 1024 + 96


def test_bert_base_at_128_tokens() -> None:
    """The twelve layers of BERT-base cost 22,347,251,712 FLOPs at 128 tokens, 11,173,625,856 multiply-adds."""
    config = EfficientBertConfig()
    layers = int(full_flops(torch.tensor([128]), config)) - 2 * head_macs(config)
    assert layers == 22_347_251_712 == 2 * 11_173_625_856


@pytest.fixture(scope="module", params=["twelve_heads", "odd_inner", "minilm"])
def full_size(request: pytest.FixtureRequest) -> EfficientBertForSequenceClassification:
    """Models with random weights: tiny, and of MiniLM's dimensions."""
    if request.param in SHAPES:
        return tiny_model(request.param)
    model = EfficientBertForSequenceClassification(EfficientBertConfig(**MINILM))
    model.eval()
    return model


@pytest.mark.parametrize("length", LENGTHS)
def test_full_model_is_counted_alike(full_size: EfficientBertForSequenceClassification, length: int) -> None:
    """Closed form, torch's counter, twice fvcore's and torch's counter on Hugging Face's model agree to the digit."""
    batch = tiny_batch([length])
    expected = int(full_flops(torch.tensor([length]), full_size.config))
    assert analytic(full_size, batch) == expected
    assert count_with_torch(full_size, batch) == expected
    assert count_with_fvcore(full_size, batch) == expected
    fields = {name: value for name, value in full_size.config.to_dict().items() if name != "model_type"}
    theirs = BertForSequenceClassification(BertConfig(**{**fields, "attn_implementation": "eager"})).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        theirs(batch.input_ids)
    assert counter.get_total_flops() == expected


def test_padding_costs_nothing() -> None:
    """A ragged batch costs what its examples cost alone, by the closed form and by both counters."""
    model, lengths = tiny_model(), [9, 2, 5, 5]
    expected = sum(int(full_flops(torch.tensor([length]), model.config)) for length in lengths)
    batch = tiny_batch(lengths)
    assert analytic(model, batch) == count_with_torch(model, batch) == count_with_fvcore(model, batch) == expected


@pytest.mark.parametrize("shape", SHAPES)
def test_adaptive_passes_are_counted_alike(shape: str) -> None:
    """With dropped tokens, mixed widths and early exits all three counts agree, also in ragged batches."""
    model, batch = tiny_model(shape), tiny_batch([16, 7, 12, 3, 9])

    def free(view: View) -> Decision:
        decided = everything(view)
        return Decision(keep=decided.keep, leave=decided.leave, width=decided.width)

    policy = Policy(free, exits=tuple(model.config.exit_depths))
    expected = analytic(model, batch, policy)
    assert count_with_torch(model, batch, policy) == expected
    assert count_with_fvcore(model, batch, policy) == expected
    assert expected < analytic(model, batch)


def test_a_policys_own_modules_are_counted_alike() -> None:
    """A predictor on the first token's states costs its multiply-adds, declared in `macs` and seen by both counters."""
    model, batch = tiny_model(), tiny_batch([8, 5, 3])
    torch.manual_seed(0)
    predictor = nn.Sequential(nn.Linear(48, 10), nn.ReLU(), nn.Linear(10, 1)).requires_grad_(False)

    def decide(view: View) -> Decision:
        width = 0.5 + 0.5 * predictor(view.hidden[:, 0]).sigmoid().squeeze(1)
        return Decision(width=width, macs=torch.full((len(width),), 48 * 10 + 10))

    policy = Policy(decide)
    expected = analytic(model, batch, policy)
    assert count_with_torch(model, batch, policy) == expected
    assert count_with_fvcore(model, batch, policy) == expected
    with torch.inference_mode():
        assert run(model, batch, policy).trace.decision_macs.tolist() == [[490] * 4] * 3


def test_an_early_exit_by_hand() -> None:
    """Leaving at depth 2 of 4 with exits at 1 and 2 costs two layers and two heads."""
    model, batch = tiny_model(), tiny_batch([6])
    policy = Policy(
        lambda view: (
            Decision(leave=is_certain(view.logits, 9.0) & (view.depth == 2)) if len(view.logits) else Decision()
        ),
        exits=(1, 2),
    )
    # a layer: 6 tokens x (4 x 48 x 48 + 2 x 48 x 192) + 2 x 36 x 48; a head: 48 x 48 + 48 x 3
    by_hand = 2 * (2 * (6 * (9216 + 18432) + 3456) + 2 * (2304 + 144))
    assert analytic(model, batch, policy) == by_hand == count_with_torch(model, batch, policy)


def test_a_masked_pass_reports_the_cost_of_the_gathered_one() -> None:
    """The trace, not the arithmetic of masks, decides the FLOPs."""
    model, batch, policy = tiny_model(), tiny_batch([9, 4]), Policy(everything, exits=(1, 2, 3))
    with torch.inference_mode():
        masked = run(model, batch, policy, execution=Execution.MASKED).trace
    assert int(trace_flops(masked, model.config).sum()) == analytic(model, batch, policy)


def test_counting_leaves_the_model_as_it_was() -> None:
    """Counting runs eager attention, but the model's own kernel is back afterwards."""
    model = tiny_model()
    before = model.config._attn_implementation
    count_with_torch(model, tiny_batch([4]))
    assert model.config._attn_implementation == before == "sdpa"
