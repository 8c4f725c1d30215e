"""What subnets learn from a teacher: its answers and its states (DynaBERT, Hou et al., 2020, section 2).

Shapes: B examples, L tokens, D hidden size, C classes, N layers, S = layers run + 1 states.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from efficient_bert.engine.batch import Batch
from efficient_bert.engine.decisions import first_states
from efficient_bert.engine.loop import Execution, run
from efficient_bert.fidelity import Fidelity
from efficient_bert.model import EfficientBertForSequenceClassification
from efficient_bert.policies.subnets import DepthRule, count_layers, kept_layers, subnet_policy, uniform_subnet


@dataclass(frozen=True)
class Reading:
    """A subnet's answer, and how it came about.

    Attributes:
        logits: (B, C).
        states: S of (B, L, D): what entered each layer, and what left the last one.
    """

    logits: Tensor
    states: tuple[Tensor, ...]


def readings(
    model: EfficientBertForSequenceClassification,
    batch: Batch,
    *,
    width: float,
    depths: Sequence[float] = (1.0,),
    rule: DepthRule = DepthRule.PREFIX,
) -> Iterator[Reading]:
    """Run the subnets of one width at these fractions of the layers; one pass gives all prefixes."""
    shared = rule == DepthRule.PREFIX
    for depth in [max(depths)] if shared else depths:
        subnet = uniform_subnet(model.config, width=width, depth_mult=depth, rule=rule)
        output = run(model, batch, subnet_policy(subnet), execution=Execution.SOFT, record=True)
        if not shared:
            yield Reading(output.logits, output.hidden_states)
    if shared:
        for depth in depths:
            count = count_layers(depth, model.config.num_hidden_layers)
            states = output.hidden_states[: count + 1]
            deepest = count == len(subnet.layers)
            logits = output.logits if deepest else model.classify(first_states(states[-1], batch.mask))
            yield Reading(logits, states)


@torch.no_grad()
def teach(model: EfficientBertForSequenceClassification, batch: Batch, *, width: float = 1.0) -> Reading:
    """Run the teacher at full depth, without gradients."""
    return next(readings(model, batch, width=width))


def teacher_state_numbers(depth_mult: float, layers: int) -> tuple[int, ...]:
    """Return which of the teacher's N + 1 states a subnet's states are compared with: evenly spaced, and the last one.

    For every depth rule: a prefix learns to reach the teacher's last state in fewer layers.
    """
    return (*kept_layers(depth_mult, layers, DepthRule.FLOOR), layers)


@dataclass(frozen=True)
class Distance:
    """How far a subnet is from its teacher.

    Attributes:
        answers: () cross-entropy in nats with the teacher's probabilities; with one class the squared error.
        states: (S,) mean squared errors.
    """

    answers: Tensor
    states: Tensor

    def loss(self, *, answers: float, states: float) -> Tensor:
        """Return the weighted sum of the answers' distance and the states' total, ()."""
        return answers * self.answers + states * self.states.sum()


def distance(
    student: Reading,
    teacher: Reading,
    mask: Tensor,
    *,
    state_numbers: Sequence[int],
    fidelity: Fidelity = Fidelity.CORRECTED,
) -> Distance:
    """Measure a subnet's distance from its teacher.

    Args:
        mask: (B, L) bool. Padding does not count; as released, it does.
        state_numbers: which of the teacher's states the student's are compared with.
    """
    everywhere = torch.ones_like(mask) if fidelity == Fidelity.RELEASED else mask
    counted = everywhere / everywhere.sum()
    squares = [
        ((state.float() - teacher.states[number].float()).square().mean(-1) * counted).sum()
        for state, number in zip(student.states, state_numbers, strict=True)
    ]
    return Distance(soft_cross_entropy(student.logits.float(), teacher.logits.float()), torch.stack(squares))


def soft_cross_entropy(student: Tensor, teacher: Tensor) -> Tensor:
    """Compute the mean cross-entropy with the teacher's probabilities, (); one class is a regression."""
    if student.shape[-1] == 1:
        return F.mse_loss(student, teacher)
    return F.cross_entropy(student, teacher.softmax(-1))
