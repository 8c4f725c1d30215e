"""Blocks as CUDA graphs: a GPU starts a whole layer by one call, so that short texts do not wait for Python.

A graph repeats the kernels that were recorded, at the shapes and addresses that they had. So there is one for each
layer, number of heads, type and bucket of lengths, with buffers that stay; a text is copied into the next larger
bucket, whose rest no token sees. What is decided between two layers runs in the usual loop.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from efficient_bert.encoder.attention import attend
from efficient_bert.encoder.bert import Layer

SHORTEST = 8
"""Tokens of the smallest bucket."""

WARM_UP = 3
"""Runs before a layer is recorded."""


def buckets(longest: int) -> tuple[int, ...]:
    """Return the lengths that are captured, ascending to `longest`: 8, 12, 16, 24, 32, .., at most half too long."""
    powers = [SHORTEST * 2**power for power in range(longest.bit_length())]
    lengths = sorted({length for power in powers for length in (power, power * 3 // 2) if length < longest})
    return (*lengths, longest)


@dataclass(frozen=True)
class Graph:
    """Recorded work.

    Attributes:
        states: (1, L, D), read by the recorded work: the tokens of one text, and zeros.
        visible: (1, 1, 1, L) bool, read by it: which of them are tokens.
        output: (1, L, D), written by it.
        replay: starts the work.
    """

    states: Tensor
    visible: Tensor
    output: Tensor
    replay: Callable[[], None]

    def __call__(self, states: Tensor) -> Tensor:
        """Run the recorded work on the tokens of one text: (T, D) -> (T, D), a copy, because the next run overwrites.

        What an earlier text left in the buffers is overwritten too, so that it cannot leak into this one.
        """
        length = len(states)
        self.states[0, :length] = states
        self.states[0, length:].zero_()
        self.visible[..., :length].fill_(True)
        self.visible[..., length:].fill_(False)
        self.replay()
        return self.output[0, :length].clone()


class CapturedBlocks:
    """The layers of one model as CUDA graphs, recorded when they are first wanted.

    Args:
        longest: tokens of the longest text.
        eager: attention by plain matrix products.
    """

    def __init__(self, *, longest: int, eager: bool) -> None:
        self.buckets = buckets(longest)
        self.eager = eager
        self.inputs: dict[tuple[Any, ...], tuple[Tensor, Tensor]] = {}
        self.graphs: dict[tuple[Any, ...], Graph] = {}

    @cached_property
    def pool(self) -> Any:
        """The memory that all graphs share: no two run at once, and every output is copied at once."""
        return torch.cuda.graph_pool_handle()

    def __call__(self, layer: Layer, states: Tensor, heads: int) -> Tensor:
        """Run a layer at so many heads on the tokens of one text: (T, D) -> (T, D).

        Raises:
            ValueError: gradients or dropout may be wanted.
        """
        if layer.training or not torch.is_inference_mode_enabled():
            raise ValueError("captured blocks only answer: call eval() and run under torch.inference_mode()")
        length = next(bucket for bucket in self.buckets if bucket >= len(states))
        buffers = length, states.shape[1], states.dtype, states.device
        if buffers not in self.inputs:
            visible = torch.ones(1, 1, 1, length, dtype=torch.bool, device=states.device)
            self.inputs[buffers] = states.new_zeros(1, length, states.shape[1]), visible
        if (layer, heads, buffers) not in self.graphs:
            self.graphs[layer, heads, buffers] = self.capture(layer, *self.inputs[buffers], heads=heads)
        return self.graphs[layer, heads, buffers](states)

    def capture_all(self, layer: Layer, states: Tensor, heads: int) -> None:
        """Record what texts of any length need, so that none waits for it; `states` (1, D) tells type and device."""
        for length in self.buckets:
            self(layer, states.expand(length, -1), heads)

    def capture(self, layer: Layer, states: Tensor, visible: Tensor, *, heads: int) -> Graph:
        """Record a layer on its buffers, after a few runs in which libraries set themselves up."""

        def run() -> Tensor:
            output: Tensor = layer(states, attend_visible, heads=heads)
            return output

        def attend_visible(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            return attend(query, key, value, heads=heads, eager=self.eager, bias=visible)

        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                run()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.pool):
            output = run()
        return Graph(states, visible, output, graph.replay)
