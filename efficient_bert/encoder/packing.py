"""Dense layers whose weights lie as oneDNN wants them, for a CPU: no product turns them over again."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from efficient_bert.encoder.bert import Dense
from efficient_bert.errors import InputError


class PackedDense(Dense):
    """A dense layer that keeps its weights packed, a copy for each part of it that has run; not for training."""

    def __init__(self, dense: nn.Linear) -> None:
        super().__init__(dense.in_features, dense.out_features, device="meta")
        self.weight, self.bias = dense.weight, dense.bias
        self.packed: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}

    def part(self, inputs: Tensor, outputs: int) -> Tensor:
        """Do as `Dense.part`."""
        corner = outputs, inputs.shape[-1]
        if corner not in self.packed:
            weight = self.weight.detach()[:outputs, : corner[1]].contiguous()
            packed = torch.ops.mkldnn._reorder_linear_weight(weight)
            self.packed[corner] = packed, self.bias.detach()[:outputs].contiguous()
        product: Tensor = torch.ops.mkldnn._linear_pointwise(inputs, *self.packed[corner], "none", [], "")
        return product

    def forward(self, inputs: Tensor) -> Tensor:
        """Compute all outputs: (..., in_features) -> (..., out_features)."""
        return self.part(inputs, self.out_features)


def pack(module: nn.Module) -> None:
    """Replace every dense layer of a module by a packed one; the module then answers only on a CPU, without gradients.

    Raises:
        InputError: this PyTorch was built without oneDNN.
    """
    if not torch.backends.mkldnn.is_available():
        raise InputError(f"torch {torch.__version__} was built without oneDNN, which packs weights; run unpacked")
    for name, dense in [each for each in module.named_modules() if isinstance(each[1], nn.Linear)]:
        module.set_submodule(name, PackedDense(dense))
