"""Width gates (Flexible BERT, Hu et al., 2023): before a layer, [CLS] says how wide the layer runs for this example.

Shapes: B examples, D hidden size, N layers, G gates, K classes of width (`widths`). Gate g reads the state that
enters layer g N / G and decides for that layer, heads and neurons together, and for those up to the next gate.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from efficient_bert.config import EfficientBertConfig, kept_heads
from efficient_bert.engine.decisions import Decision, Policy, View
from efficient_bert.errors import InputError
from efficient_bert.knobs import Values, format_numbers, parse_numbers


class WidthGate(nn.Module):
    """Two dense layers, D -> D -> K, with ReLU between them."""

    def __init__(self, config: EfficientBertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.choose = nn.Linear(config.hidden_size, len(config.widths))

    def forward(self, first: Tensor) -> Tensor:
        """Compute the logits of the classes from [CLS] states: (..., D) -> (..., K)."""
        logits: Tensor = self.choose(F.relu(self.dense(first)))
        return logits


def gate_macs(config: EfficientBertConfig) -> int:
    """Count the multiply-adds of one gate on one example."""
    return int(config.hidden_size * (config.hidden_size + len(config.widths)))


class Gates(nn.ModuleList):
    """G gates; `span` is how many layers each decides for, `macs` its multiply-adds on one example."""

    def __init__(self, config: EfficientBertConfig) -> None:
        super().__init__(WidthGate(config) for _ in range(config.num_gates))
        self.span = config.num_hidden_layers // config.num_gates
        self.macs = gate_macs(config)

    def gate_before(self, layer: int) -> WidthGate | None:
        """Return the gate that decides before this layer; None where no gate does."""
        return None if layer % self.span else cast(WidthGate, self[layer // self.span])

    def all_logits(self, states: Tensor) -> Tensor:
        """Compute the logits of every gate from the [CLS] states that it reads: (B, G, D) -> (B, G, K)."""
        return torch.stack([gate(states[:, number]) for number, gate in enumerate(self)], dim=1)


def gate_policy(
    gates: Gates,
    widths: Sequence[float],
    *,
    exits: tuple[int, ...] = (),
    done: Callable[[Tensor], Tensor] | None = None,
) -> Policy:
    """Make the policy under which each example runs each layer at the width that its gate chooses, until it leaves.

    Args:
        gates: the model's gates.
        widths: what each of the K classes is run at; need not be the widths that the gates learnt.
        exits: depths at which examples may leave.
        done: logits of the exits so far (E, B, C) -> (B,) bool, who leaves.
    """

    def decide(view: View) -> Decision:
        leave = done(view.logits) if done is not None and view.depth in exits else None
        gate = gates.gate_before(view.depth)
        if gate is None:
            return Decision(leave=leave)
        # float64: a width that stands for a half of a head must round as in `kept_heads`
        choices, first = torch.tensor(widths, dtype=torch.float64, device=view.hidden.device), view.first()
        if leave is None:
            return Decision(width=choices[gate(first).argmax(-1)], macs=gates.macs)
        width = choices.new_ones(len(leave))
        width[~leave] = choices[gate(first[~leave]).argmax(-1)]
        return Decision(leave=leave, width=width, macs=~leave * gates.macs)

    return Policy(decide, exits=exits)


def possible_widths(config: EfficientBertConfig, knobs: Values) -> tuple[float, ...]:
    """Return the widths that a policy of these knobs may choose."""
    if "width_mult_list" in knobs:
        return class_widths(knobs["width_mult_list"], config)
    return tuple(config.widths) or (1.0,)


def class_widths(text: str, config: EfficientBertConfig) -> tuple[float, ...]:
    """Parse the width at which each class of a gate runs, from "0.5,0.75,0.75,0.75".

    Raises:
        InputError: not as many numbers as the trained model has classes, or a width that leaves no head.
    """
    widths = parse_numbers(text, name="width_mult_list")
    if len(widths) != len(config.widths):
        raise InputError(
            f"width_mult_list is {text!r}, but the gates tell {len(config.widths)} classes apart, the widths "
            f"{config.widths}; give --width-mult-list as many, such as theirs, {format_numbers(config.widths)}"
        )
    for width in widths:
        kept_heads(width, config.num_attention_heads, name=f"width_mult_list is {text!r}: the width")
    return widths


def width_labels(correct: Tensor) -> Tensor:
    """Find the smallest width that is right for each example: (K - 1, B) bool, ascending -> (B,) int64 class.

    Where none is, the class is K - 1: the full width, which need not be asked.
    """
    last = correct.new_ones(1, correct.shape[1])
    return torch.cat([correct, last]).int().argmax(0)


def balanced_weights(labels: Tensor, classes: int) -> Tensor:
    """Compute weights B / (K n_k) that give every class the same total, (K,); 0 where a class is empty."""
    counts = labels.bincount(minlength=classes).double()
    return torch.where(counts > 0, len(labels) / (classes * counts), 0.0)


def gumbel_softmax(logits: Tensor, draws: Tensor | None = None, *, temperature: float = 1.0) -> Tensor:
    """Compute softmax((logits + noise) / temperature) over the last axis; without draws there is no noise.

    Gumbel noise is -ln of exponential draws (..., K).
    """
    noisy = logits if draws is None else logits - draws.log()
    return (noisy / temperature).softmax(-1)


def label_losses(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Compute for each class -ln p of its examples, over all gates, per gate and example of the batch: (K,).

    Args:
        probabilities: (B, G, K) of states of a pass at the width that each example's label names.
        labels: (B,) int64.
    """
    of_labels = probabilities.gather(2, labels[:, None, None].expand(-1, probabilities.shape[1], 1)).squeeze(2)
    each = -of_labels.clamp(min=1e-6).log().sum(1) / of_labels.numel()
    return each.new_zeros(probabilities.shape[2]).index_add(0, labels, each)


def gumbel_temperature(done: float, *, lowest: float = 0.5) -> float:
    """Return the temperature after a fraction of the training: from 1 towards 0.3, but at least `lowest`."""
    return max(lowest, float(0.3**done))


def expected_width(probabilities: Tensor, widths: Sequence[float]) -> Tensor:
    """Compute the mean over gates and examples of the expected width, ().

    Args:
        probabilities: (B, G, K).
        widths: of the K classes; as fractions of the heads that run, it is the layers' FLOPs as a fraction of the full.
    """
    return (probabilities @ torch.tensor(widths, dtype=probabilities.dtype, device=probabilities.device)).mean()
