"""PyTorch, layer by layer, with the weights of dense layers packed for oneDNN."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING

from bench.backends import Backend

if TYPE_CHECKING:
    from bench.backends.runners import EagerRunner, Subject


def with_packed_weights(subject: Subject) -> EagerRunner:
    """Make a runner of a copy of the model whose dense layers are packed, at each width that they may run at."""
    import torch

    from efficient_bert.config import kept_heads
    from efficient_bert.encoder.packing import pack
    from efficient_bert.policies.gates import possible_widths

    model = copy.deepcopy(subject.model)
    pack(model)
    runner = replace(subject, model=model).runner()
    widths = {1.0, *possible_widths(model.config, subject.knobs), *(runner.policy.widths or ())}
    with torch.inference_mode():  # a layer packs a part when it first runs: before anything is timed
        for layer in model.bert.encoder.layers:
            for heads in {kept_heads(width, layer.heads) for width in widths}:
                layer(torch.zeros(1, model.config.hidden_size), lambda query, key, value: value, heads=heads)
    return runner


PACKED = Backend(
    name="torch-packed",
    summary="PyTorch, layer by layer, in float32, with weights packed for oneDNN beforehand",
    source="this project's engine; oneDNN (UXL Foundation) by PyTorch's private operators",
    make=with_packed_weights,
)
