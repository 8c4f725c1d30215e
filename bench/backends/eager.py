"""PyTorch, layer by layer: what models are trained and evaluated with, and the same in bfloat16."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING

from bench.backends import Backend
from bench.store.records import TORCH

if TYPE_CHECKING:
    from bench.backends.runners import EagerRunner, Subject


def in_bfloat16(subject: Subject) -> EagerRunner:
    """Make a runner of a copy of the model with bfloat16 weights."""
    import torch

    model = copy.deepcopy(subject.model)
    torch.nn.Module.to(model, torch.bfloat16)
    return replace(subject, model=model).runner()


EAGER = Backend(
    name=TORCH,
    summary="PyTorch, layer by layer, in float32: what every other backend is held against",
    source="this project's engine",
    make=lambda subject: subject.runner(),
    devices=("cpu", "cuda"),
)

BFLOAT16 = Backend(
    name="torch-bf16",
    summary="PyTorch with bfloat16 weights: fast where a processor multiplies these natively (AMX, AVX-512 BF16, GPUs)",
    source="this project's engine",
    make=in_bfloat16,
    devices=("cpu", "cuda"),
)
