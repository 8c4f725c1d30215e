"""PyTorch on a GPU, each layer one CUDA graph: decisions run as ever, but no layer waits for Python."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from bench.backends import Backend

if TYPE_CHECKING:
    from bench.backends.runners import EagerRunner, Subject


def in_graphs(subject: Subject) -> EagerRunner:
    """Make a runner that captured each layer beforehand, at every width that the method may choose."""
    import torch

    from efficient_bert.config import kept_heads
    from efficient_bert.engine.captured import CapturedBlocks
    from efficient_bert.policies.gates import possible_widths

    runner, model = subject.runner(), subject.model.eval()
    policy, layers, config = runner.policy, model.bert.encoder.layers, model.config
    blocks = CapturedBlocks(longest=config.max_position_embeddings, eager=config._attn_implementation == "eager")
    widths = {*(policy.widths or (1.0,)), *(possible_widths(config, subject.knobs) if policy.decide else ())}
    states = torch.zeros(1, config.hidden_size, dtype=model.dtype, device=model.device)
    with torch.inference_mode():
        for index in range(len(layers)) if policy.layers is None else policy.layers:
            for heads in sorted({kept_heads(width, layers[index].heads) for width in widths}):
                blocks.capture_all(layers[index], states, heads)
    return replace(runner, run_block=blocks)


CAPTURED = Backend(
    name="torch-captured",
    summary="PyTorch in float32, each layer one CUDA graph: for short texts, where a GPU waits for Python",
    source="this project's engine; CUDA graphs (NVIDIA)",
    make=in_graphs,
    devices=("cuda",),
)
