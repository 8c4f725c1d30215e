"""The same forward pass counted by two independent tools, to check the closed form of `efficient_bert.cost.flops`."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from efficient_bert.cost.flops import FLOPS_PER_MAC
from efficient_bert.engine.batch import Batch
from efficient_bert.engine.decisions import Decision, Policy, View
from efficient_bert.engine.loop import run
from efficient_bert.model import EfficientBertForSequenceClassification


class _Pass(nn.Module):
    """A forward pass with its policy fixed, as the tracer wants it."""

    def __init__(self, model: EfficientBertForSequenceClassification, policy: Policy) -> None:
        super().__init__()
        self.model = model
        self.policy = policy

    def forward(self, input_ids: Tensor, mask: Tensor, token_type_ids: Tensor) -> tuple[Tensor, ...]:
        """Return answers, every exit's logits and every decision, so that the tracer drops none as unused."""
        decided: list[Tensor] = []
        policy, batch = record_decisions(self.policy, decided), Batch(input_ids, mask, token_type_ids)
        output = run(self.model, batch, policy)
        return (output.logits, *output.exit_logits.values(), *decided)


def record_decisions(policy: Policy, decided: list[Tensor]) -> Policy:
    """Return the same policy, whose decisions' tensors are also appended to `decided`."""
    decide = policy.decide
    if decide is None:
        return policy

    def decide_and_record(view: View) -> Decision:
        decision = decide(view)
        decided.extend(part for part in vars(decision).values() if isinstance(part, Tensor))
        return decision

    return replace(policy, decide=decide_and_record)


def attention_macs(inputs: Sequence[Any], outputs: Sequence[Any]) -> int:
    """Count the two products of `scaled_dot_product_attention` for fvcore: 2 B h L S d multiply-adds.

    Args:
        inputs: the operator's traced values; query (B, h, L, d) and key (B, h, S, d) come first.
        outputs: not used; the tracer passes them.
    """
    query, key = (value.type().sizes() for value in inputs[:2])
    return int(2 * math.prod(query) * key[-2])


def count_with_fvcore(
    model: EfficientBertForSequenceClassification,
    batch: Batch,
    policy: Policy | None = None,
) -> int:
    """Count the FLOPs (2 x fvcore's multiply-adds) of one pass over the whole batch, fused or eager attention."""
    module = _Pass(model, policy or Policy()).eval()
    with torch.no_grad(), warnings.catch_warnings():
        # fvcore scripts and traces with torch.jit, which says of itself that it is deprecated
        warnings.filterwarnings("ignore", "`torch.jit", DeprecationWarning)
        from fvcore.nn import FlopCountAnalysis

        analysis = FlopCountAnalysis(module, (batch.input_ids, batch.mask, batch.token_type_ids))
        analysis.set_op_handle("aten::scaled_dot_product_attention", attention_macs)
        # fvcore would count the norm's element-wise work; the convention counts matrix products
        analysis.set_op_handle("aten::layer_norm", lambda inputs, outputs: 0)
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
        return FLOPS_PER_MAC * int(analysis.total())


def count_with_torch(
    model: EfficientBertForSequenceClassification,
    batch: Batch,
    policy: Policy | None = None,
) -> int:
    """Count the FLOPs by `FlopCounterMode`, with eager attention: the mode misses the fused kernel on a CPU."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            run(model, batch, policy)
    finally:
        model.set_attn_implementation(before)
    return int(counter.get_total_flops())
