"""FLOPs as Flexible BERT's authors count them: to reproduce published figures, not to compare methods.

The project's own count, `efficient_bert.cost.flops`, charges what really ran. What differs here:

    attention's two products are not charged, and padding is, where there is any
    one gate more than layers run, because the gate after the last layer is asked and ignored
    every exit head that runs, and the final one always, also for examples that have left
"""

from __future__ import annotations

from torch import Tensor

from efficient_bert.config import EfficientBertConfig
from efficient_bert.cost.flops import FLOPS_PER_MAC, head_macs
from efficient_bert.engine.trace import Trace
from efficient_bert.policies.gates import gate_macs


def pass_flops(heads: Tensor, *, exits: Tensor, tokens: Tensor, config: EfficientBertConfig) -> Tensor:
    """Count the FLOPs of a pass, (B,) int64, which the authors' code prints in units of 1e10.

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


def published_counts(trace: Trace, config: EfficientBertConfig) -> tuple[Tensor, Tensor]:
    """Count the FLOPs of a pass of gates and exits and of the full model, (B,) int64 each.

    Each example counts at no more than its own length; the full model has no gates and one head.
    """
    stayed = trace.exit_depth == config.num_hidden_layers
    spent = pass_flops(trace.heads, exits=trace.head_runs - stayed.long(), tokens=trace.length, config=config)
    full_layer = 4 * config.hidden_size**2 + 2 * config.hidden_size * config.intermediate_size
    return spent, FLOPS_PER_MAC * (trace.length * config.num_hidden_layers * full_layer + head_macs(config))
