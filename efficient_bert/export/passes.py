"""What the passes of an exported graph leave behind, in the form of the engine's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from efficient_bert.config import EfficientBertConfig
from efficient_bert.engine.decisions import Policy
from efficient_bert.engine.recorder import Output
from efficient_bert.engine.trace import Trace

Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class Pass:
    """One pass of a graph over one example, as its outputs are (`efficient_bert.export.network`).

    Attributes:
        length: word pieces of the example.
        logits: (1, C) float32.
        kept: positions that each layer ran on, one layer after the other.
        tokens, heads: of each layer that ran.
        macs: of each decision that was taken.
    """

    length: int
    logits: NDArray[np.float32]
    kept: Numbers
    tokens: Numbers
    heads: Numbers
    macs: Numbers


def output_of_passes(passes: Sequence[Pass], *, config: EfficientBertConfig, policy: Policy) -> Output:
    """Join passes over B examples into an output, without states or decisions.

    Args:
        config, policy: of the model in the graph.
    """
    return Output(
        logits=torch.cat([torch.from_numpy(each.logits) for each in passes]),
        exit_logits={},
        hidden_states=(),
        attentions=(),
        decisions=(),
        _trace=lambda: trace_of_passes(passes, config=config, policy=policy),
    )


def trace_of_passes(passes: Sequence[Pass], *, config: EfficientBertConfig, policy: Policy) -> Trace:
    """Build the trace of passes over B examples."""
    order = range(config.num_hidden_layers) if policy.layers is None else policy.layers
    examples, layers = len(passes), config.num_hidden_layers
    heads, neurons, macs = torch.zeros(3, examples, layers, dtype=torch.int64)
    kept = torch.zeros(examples, layers, max(each.length for each in passes), dtype=torch.bool)
    for row, each in enumerate(passes):
        ends = np.cumsum(each.tokens)[:-1]
        for layer, positions, count in zip(order, np.split(each.kept, ends), each.heads.tolist(), strict=False):
            kept[row, layer, positions] = True
            heads[row, layer], neurons[row, layer] = count, config.neurons(count)
        for layer, spent in zip(order, each.macs.tolist(), strict=False):
            macs[row, layer] = spent
    depths = kept.any(2).sum(1)
    exits = (torch.tensor(policy.exits, dtype=torch.int64) <= depths[:, None]).sum(1)
    return Trace(
        length=torch.tensor([each.length for each in passes]),
        exit_depth=depths,
        tokens=kept.sum(2),
        heads=heads,
        neurons=neurons,
        kept=kept,
        head_runs=exits + (depths == len(order)),
        decision_macs=macs,
    )


def output_of_full_passes(logits: torch.Tensor, lengths: Sequence[int], *, config: EfficientBertConfig) -> Output:
    """Make the output of full passes over B examples: every layer on every token, (B, C) logits, B lengths."""
    heads, layers = np.array(config.heads_by_layer), config.num_hidden_layers
    passes = [
        Pass(
            length=length,
            logits=answer[None].numpy(),
            kept=np.tile(np.arange(length), layers),
            tokens=np.full(layers, length),
            heads=heads,
            macs=np.array([], np.int64),
        )
        for answer, length in zip(logits, lengths, strict=True)
    ]
    return output_of_passes(passes, config=config, policy=Policy())
