"""R-Drop, against torch's own divergences; adversarial training, against a table of embeddings that is moved."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch.distributions import Categorical, kl_divergence

from efficient_bert.training.batches import collate
from efficient_bert.training.finetune import adversarial_loss, classification_loss, classify, consistent_loss
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


def test_an_adversarial_loss_moves_each_example_against_itself(tmp_path: Path) -> None:
    """Equal to moving a table of embeddings that has a row for every token, by gradients of one example at a time."""
    model = tiny_model("four_heads", exit_depths=[]).eval()
    rows = context(tmp_path).train[:6]
    found = adversarial_loss(model, collate(rows, pad_token_id=0), loss=classification_loss, radius=0.7)

    words = model.bert.embeddings.word_embeddings
    losses, moves = [], []
    for row in rows:
        batch = collate([row], pad_token_id=0)
        length = batch["input_ids"].shape[1]
        table = words.weight.detach()[batch["input_ids"][0]].requires_grad_()
        model.bert.embeddings.word_embeddings = torch.nn.Embedding.from_pretrained(table, freeze=False)
        batch["input_ids"] = torch.arange(length)[None]
        plain = classification_loss(model, batch)
        (gradient,) = torch.autograd.grad(plain, [model.bert.embeddings.word_embeddings.weight])
        with torch.no_grad():
            model.bert.embeddings.word_embeddings.weight.add_(0.7 * gradient / gradient.norm())
        moved = classification_loss(model, batch)
        losses.append(plain + moved)
        moves.append(moved - plain)
    assert min(moves) > 0  # each example's own loss rises
    torch.testing.assert_close(found, torch.stack(losses).mean())


def test_an_adversarial_loss_learns_from_both_passes(tmp_path: Path) -> None:
    """Its gradient is that of both losses, the moved embeddings being constants to it; nothing stays hooked."""
    model = tiny_model("four_heads", exit_depths=[]).eval()
    batch = collate(context(tmp_path).train[:6], pad_token_id=0)
    weights = list(model.parameters())
    found = torch.autograd.grad(
        adversarial_loss(model, batch, loss=classification_loss, radius=1e-6), weights, allow_unused=True
    )
    plain = torch.autograd.grad(classification_loss(model, batch), weights, allow_unused=True)
    for both, one in zip(found, plain, strict=True):
        if one is not None:
            torch.testing.assert_close(both, 2 * one, rtol=1e-3, atol=1e-6)
    assert not model.bert.embeddings.word_embeddings._forward_hooks
