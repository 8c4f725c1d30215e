"""What subnets learn from: prefixes that share a pass, and distances from a teacher worked out by hand."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from efficient_bert import Batch, EfficientBertForSequenceClassification, Execution, run
from efficient_bert.fidelity import Fidelity
from efficient_bert.policies.subnets import DepthRule, subnet_policy, uniform_subnet
from efficient_bert.training.distillation import (
    Reading,
    distance,
    readings,
    soft_cross_entropy,
    teach,
    teacher_state_numbers,
)
from tests.conftest import MiniLM
from tests.support.tiny import tiny_batch, tiny_model

WIDTHS, DEPTHS = (1.0, 0.75, 0.5, 0.25), (1.0, 0.75, 0.5)


def apart(
    model: EfficientBertForSequenceClassification, batch: Batch, *, width: float, depths: Sequence[float]
) -> list[Reading]:
    """Each subnet by a forward pass of its own."""
    found = []
    for depth in depths:
        policy = subnet_policy(uniform_subnet(model.config, width=width, depth_mult=depth))
        output = run(model, batch, policy, execution=Execution.SOFT, record=True)
        found.append(Reading(output.logits, output.hidden_states))
    return found


def gradients(
    model: EfficientBertForSequenceClassification, batch: Batch, teacher: Reading, *, shared: bool
) -> tuple[Tensor, dict[str, Tensor]]:
    """The sum of the twelve subnets' losses and its gradient, from shared or from separate passes."""
    model.zero_grad()
    total = torch.zeros(())
    for width in WIDTHS:
        given = readings(model, batch, width=width, depths=DEPTHS) if shared else apart(
            model, batch, width=width, depths=DEPTHS
        )  # fmt: skip
        for depth, reading in zip(DEPTHS, given, strict=True):
            state_numbers = teacher_state_numbers(depth, model.config.num_hidden_layers)
            total = total + distance(reading, teacher, batch.mask, state_numbers=state_numbers).loss(
                answers=1.0, states=1.0
            )
    total.backward()
    return total.detach(), {name: part.grad.clone() for name, part in model.named_parameters() if part.grad is not None}


def assert_same_gradients(
    model: EfficientBertForSequenceClassification, batch: Batch, teacher: EfficientBertForSequenceClassification
) -> None:
    """Shared and separate passes have one loss, and gradients within 1e-5 of their norm.

    A key's bias moves all logits of a query alike: its gradient is zero but for rounding.
    """
    reading = teach(teacher, batch)
    together, shared = gradients(model, batch, reading, shared=True)
    alone, separate = gradients(model, batch, reading, shared=False)
    torch.testing.assert_close(together, alone, rtol=1e-6, atol=0)
    assert list(shared) == list(separate)
    for name, value in separate.items():
        assert value.isfinite().all()
        if not name.endswith("key.bias"):
            assert (shared[name] - value).norm() <= 1e-5 * value.norm(), name


def test_shared_prefixes_have_the_naive_gradient() -> None:
    """One pass for each width gives the gradient of twelve."""
    assert_same_gradients(tiny_model(seed=1), tiny_batch([7, 3, 5, 9]), tiny_model(seed=2))


def test_shared_prefixes_have_the_naive_gradient_on_real_weights(
    minilm: MiniLM, texts: list[list[tuple[str, ...]]]
) -> None:
    """On the packaged weights and real sentences too."""
    teacher, student = minilm.ours("sdpa"), minilm.ours("sdpa")
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.mul_(0.98)
    assert_same_gradients(student, minilm.batches(texts[0][:8], size=8)[0], teacher)


@pytest.mark.parametrize("rule", DepthRule)
@torch.no_grad()
def test_readings_are_the_subnets(rule: DepthRule) -> None:
    """Whatever the order of the depths, every reading is its subnet's own pass."""
    model, batch, depths = tiny_model(), tiny_batch([7, 3]), (0.5, 1.0, 0.75)
    for depth, reading in zip(depths, readings(model, batch, width=0.5, depths=depths, rule=rule), strict=True):
        policy = subnet_policy(uniform_subnet(model.config, width=0.5, depth_mult=depth, rule=rule))
        output = run(model, batch, policy, execution=Execution.MASKED, record=True)
        torch.testing.assert_close(reading.logits, output.logits)
        assert len(reading.states) == round(4 * depth) + 1
        for own, other in zip(reading.states, output.hidden_states, strict=True):
            torch.testing.assert_close(own[batch.mask], other[batch.mask])


def test_teacher_states_by_hand() -> None:
    """Six layers of twelve are compared with every second state, nine with three of four."""
    assert teacher_state_numbers(0.5, 12) == (0, 2, 4, 6, 8, 10, 12)
    assert teacher_state_numbers(0.75, 12) == (0, 1, 2, 4, 5, 6, 8, 9, 10, 12)
    assert teacher_state_numbers(1.0, 4) == (0, 1, 2, 3, 4)


def test_a_distance_by_hand() -> None:
    """Squared errors of live tokens only; as released, padding counts; the weights multiply."""
    mask = torch.tensor([[True, True], [True, False]])
    ones, teacher = torch.ones(2, 2, 3), torch.zeros(2, 2, 3)
    off = torch.tensor([[[1.0] * 3, [2.0] * 3], [[3.0] * 3, [10.0] * 3]])
    answers = torch.tensor([[0.0, 0.0], [0.0, 0.0]])
    student, given = Reading(answers, (ones, off)), Reading(answers, (teacher, ones, teacher))
    corrected = distance(student, given, mask, state_numbers=(0, 2))
    released = distance(student, given, mask, state_numbers=(0, 2), fidelity=Fidelity.RELEASED)
    assert corrected.states.tolist() == pytest.approx([1.0, (1 + 4 + 9) / 3])
    assert released.states.tolist() == pytest.approx([1.0, (1 + 4 + 9 + 100) / 4])
    assert corrected.answers.item() == pytest.approx(0.6931471805599453)
    assert corrected.loss(answers=2.0, states=0.1).item() == pytest.approx(2 * 0.6931471805599453 + 0.1 * 17 / 3)


def test_the_answers_distance_is_the_divergence_and_an_entropy() -> None:
    """Cross-entropy with the teacher is its entropy plus the divergence from it; one class is squared error."""
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(6, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    divergence = F.kl_div(student.log_softmax(-1), teacher.log_softmax(-1), log_target=True, reduction="batchmean")
    entropy = torch.distributions.Categorical(logits=teacher).entropy().mean()
    torch.testing.assert_close(soft_cross_entropy(student, teacher), divergence + entropy)
    assert soft_cross_entropy(torch.tensor([[1.0], [3.0]]), torch.tensor([[0.0], [1.0]])).item() == 2.5
