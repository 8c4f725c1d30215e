"""FLOPs as Flexible BERT's authors count them: to reproduce published figures, not to compare methods.

The project's own count, `efficient_bert.cost`, charges what really ran. What differs here:

    attention's two products are not charged, and padding is, where there is any
    one gate more than layers run, because the gate after the last layer is asked and ignored
    every exit head that runs, and the final one always, also for examples that have left
"""

from __future__ import annotations

import torch
from torch import Tensor

from efficient_bert.config import EfficientBertConfig
from efficient_bert.cost import FLOPS_PER_MAC, head_macs
from efficient_bert.decisions import Policy
from efficient_bert.engine import Batch, run
from efficient_bert.gates import gate_macs
from efficient_bert.model import EfficientBertForSequenceClassification


def flexible_flops(heads: Tensor, *, exits: Tensor, tokens: Tensor, config: EfficientBertConfig) -> Tensor:
    """(B,) int64 FLOPs, which the authors' code prints in units of 1e10.

    Args:
        heads: (B, N) int64 of each layer, 0 where it did not run.
        exits: (B,) int64 exit heads evaluated.
        tokens: (B,) int64, the lengths that inputs are padded to.
        config: of a model with width gates.
    """
    hidden, neurons = config.hidden_size, heads * config.intermediate_size // config.num_attention_heads
    dense = tokens * (4 * hidden * heads * config.head_size + 2 * hidden * neurons).sum(1)
    gates = ((heads > 0).sum(1) + 1) * gate_macs(config)
    return FLOPS_PER_MAC * (dense + gates + (exits + 1) * head_macs(config))


@torch.inference_mode()
def policy_flops(model: EfficientBertForSequenceClassification, batch: Batch, policy: Policy) -> Tensor:
    """(B,) int64 of passes under a policy of gates and exits, each example padded to no more than its own length."""
    trace = run(model, batch, policy).trace
    stayed = trace.exit_depth == model.config.num_hidden_layers
    return flexible_flops(trace.heads, exits=trace.head_runs - stayed.long(), tokens=trace.length, config=model.config)
