"""R-Drop: the loss of two passes and how much they disagree, against torch's own divergences."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch.distributions import Categorical, kl_divergence

from efficient_bert.training.batches import collate
from efficient_bert.training.finetune import classification_loss, classify, consistent_loss
from tests.test_training_loop import context
from tests.tiny import tiny_model


def test_a_consistent_loss_is_the_loss_where_passes_agree(tmp_path: Path) -> None:
    """Without dropout both passes are one, nothing disagrees, and what is left is the task's loss."""
    given = context(tmp_path)
    batch = collate(given.train[:8], pad_token_id=0)
    model = given.model.eval()
    plain, consistent = classification_loss(model, batch), consistent_loss(model, batch, weight=3.0)
    torch.testing.assert_close(consistent, plain)


@pytest.mark.parametrize("weight", [0.5, 2.0])
def test_a_consistent_loss_charges_disagreement(tmp_path: Path, weight: float) -> None:
    """Two passes under dropout cost their mean loss and half the sum of both divergences, as torch computes them."""
    given = context(tmp_path)
    batch = collate(given.train[:8], pad_token_id=0)
    model = given.model.train()
    torch.manual_seed(0)
    found = consistent_loss(model, batch, weight=weight)
    torch.manual_seed(0)
    with torch.no_grad():
        logits = classify(model, {name: torch.cat([value, value]) for name, value in batch.items()})
    p, q = (Categorical(logits=half) for half in logits.chunk(2))
    divergence = (kl_divergence(p, q) + kl_divergence(q, p)).mean() / 2
    assert divergence > 1e-4
    losses = [F.cross_entropy(half, batch["labels"]) for half in logits.chunk(2)]
    torch.testing.assert_close(found, sum(losses) / 2 + weight * divergence)


def test_a_consistent_regression_charges_the_squared_difference(tmp_path: Path) -> None:
    """One output: the mean squared error of both passes, and their mean squared difference."""
    model = tiny_model("four_heads", classes=1, exit_depths=[]).train()
    batch = collate(context(tmp_path).train[:8], pad_token_id=0)
    torch.manual_seed(0)
    found = consistent_loss(model, batch, weight=2.0)
    torch.manual_seed(0)
    with torch.no_grad():
        one, other = classify(model, {name: torch.cat([value, value]) for name, value in batch.items()}).chunk(2)
    labels = batch["labels"].float()
    errors = ((one[:, 0] - labels) ** 2 + (other[:, 0] - labels) ** 2).mean() / 2
    torch.testing.assert_close(found, errors + 2 * ((one - other) ** 2).mean())
