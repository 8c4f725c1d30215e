"""R-Drop, against torch's own divergences; adversarial training, against a table of embeddings that is moved."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch.distributions import Categorical, kl_divergence

from efficient_bert.training.batches import collate
from efficient_bert.training.finetune import adversarial_loss, classification_loss, classify, consistent_loss
from tests.efficient_bert.training.test_training_loop import context
from tests.support.tiny import tiny_model


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


def test_an_adversarial_loss_moves_the_table_of_words(tmp_path: Path) -> None:
    """Equal to a second model whose table is moved by hand, by 0.7 in all, up the gradient of the batch's loss."""
    model = tiny_model("four_heads", exit_depths=[]).eval()
    batch = collate(context(tmp_path).train[:6], pad_token_id=0)
    found = adversarial_loss(model, batch, loss=classification_loss, radius=0.7)
    words = model.bert.embeddings.word_embeddings.weight
    plain = classification_loss(model, batch)
    plain.backward()
    assert words.grad is not None
    with torch.no_grad():
        words += 0.7 * words.grad / words.grad.norm()
    moved = classification_loss(model, batch)
    assert moved > plain + 0.01
    torch.testing.assert_close(found, plain + moved)


def test_an_adversarial_loss_learns_from_both_passes(tmp_path: Path) -> None:
    """Its gradient is that of both passes, to which the move is a constant; nothing stays hooked or moved."""
    model = tiny_model("four_heads", exit_depths=[]).eval()
    batch = collate(context(tmp_path).train[:6], pad_token_id=0)
    names, weights = zip(*model.named_parameters(), strict=True)
    before = model.bert.embeddings.word_embeddings.weight.detach().clone()
    both = torch.autograd.grad(
        adversarial_loss(model, batch, loss=classification_loss, radius=0.7), weights, allow_unused=True
    )
    assert torch.equal(model.bert.embeddings.word_embeddings.weight, before)
    assert not model.bert.embeddings.word_embeddings._forward_hooks
    plain = torch.autograd.grad(classification_loss(model, batch), weights, allow_unused=True)
    table = dict(zip(names, plain, strict=True))["bert.embeddings.word_embeddings.weight"]
    with torch.no_grad():
        model.bert.embeddings.word_embeddings.weight += 0.7 * table / table.norm()
    moved = torch.autograd.grad(classification_loss(model, batch), weights, allow_unused=True)
    for sum_, one, other in zip(both, plain, moved, strict=True):
        assert (sum_ is None) == (one is None)
        if sum_ is not None:
            torch.testing.assert_close(sum_, one + other)
