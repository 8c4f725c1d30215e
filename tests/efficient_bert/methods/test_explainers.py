"""Explainers: each against a hand computation, and all of them alike for one text and for many."""

from __future__ import annotations

import math

import pytest
import torch
from captum.attr import IntegratedGradients
from torch import Tensor

from bench.registry import EXPLAINERS
from efficient_bert import Batch, EfficientBertForSequenceClassification, Execution, run
from efficient_bert.encoder.hooks import change_output
from efficient_bert.explainers import Question
from efficient_bert.explainers.attribution import (
    attention,
    attention_rollout,
    embed,
    embedding_gradient,
    gradient_times_input,
    integrated_gradients,
)
from efficient_bert.policies.contribution import contribution_policy
from tests.support.tiny import rows_of, tiny_batch, tiny_model

LENGTHS = (9, 5, 12)
CLASSES = torch.tensor([2, 0, 1])


def asked(model: EfficientBertForSequenceClassification, batch: Batch, classes: Tensor) -> Question:
    """The question with the model's own predictors, so sharp that tokens go, and every other token marked."""
    marked = batch.mask & (batch.mask.cumsum(1) % 2 == 0)
    before = (batch.mask.cumsum(1) - 1) / batch.mask.sum(1, keepdim=True)
    return Question(model, batch, classes, marked, before, contribution_policy(model.contributions(), scale=3.0))


def probabilities(model: EfficientBertForSequenceClassification, batch: Batch, layer: int) -> Tensor:
    """(B, L, L): a layer's attention, the mean over heads, from the definition and the states entering it."""
    states = run(model, batch, execution=Execution.MASKED, record=True).hidden_states[layer]
    own, found = model.bert.encoder.layers[layer].attention.self, []
    for head in range(model.config.num_attention_heads):
        part = slice(head * model.config.head_size, (head + 1) * model.config.head_size)
        query, key = own.query(states)[..., part], own.key(states)[..., part]
        scores = torch.einsum("bqd,bkd->bqk", query, key) / math.sqrt(model.config.head_size)
        shares = scores.exp() * batch.mask[:, None]
        found.append(shares / shares.sum(-1, keepdim=True))
    return torch.stack(found).mean(0)


@pytest.mark.parametrize("name", sorted(EXPLAINERS))
def test_scores_are_each_texts_own(name: str) -> None:
    """Alone and in a padded batch a text has the same scores, none negative, 0 on padding, of the promised shape."""
    explainer, model, batch = EXPLAINERS[name], tiny_model(), tiny_batch(LENGTHS)
    together = explainer.explain(asked(model, batch, CLASSES))
    assert together.shape == (3, 4 if explainer.by_layer else 1, max(LENGTHS))
    assert bool((together >= 0).all())
    assert bool(together.sum(-1).gt(0).all())
    for row, length in enumerate(LENGTHS):
        alone = explainer.explain(asked(model, rows_of(batch, [row]), CLASSES[row : row + 1]))[0]
        torch.testing.assert_close(together[row, :, :length], alone, atol=1e-5, rtol=1e-3)
        assert bool((together[row, :, length:] == 0).all())
        if explainer.shares:
            torch.testing.assert_close(alone.sum(-1), torch.ones(len(alone)))


@pytest.mark.parametrize("name", sorted(EXPLAINERS))
def test_the_model_is_left_as_it_was(name: str) -> None:
    """Explaining leaves no gradient, no hook, the mode and the attention kernel as they were, and turns dropout off."""
    model, batch = tiny_model(hidden_dropout_prob=0.5), tiny_batch(LENGTHS)
    expected = EXPLAINERS[name].explain(asked(model, batch, CLASSES))
    kernel = model.config._attn_implementation
    assert torch.equal(EXPLAINERS[name].explain(asked(model, batch, CLASSES)), expected)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not model.bert.embeddings._forward_hooks
    assert (model.training, model.config._attn_implementation) == (False, kernel)


@pytest.mark.parametrize("explain", [gradient_times_input, integrated_gradients])
def test_gradients_are_taken_without_dropout(explain: object) -> None:
    """A model in training mode is explained as in evaluation mode, and stays in training mode."""
    assert callable(explain)
    model, batch = tiny_model(hidden_dropout_prob=0.5), tiny_batch(LENGTHS)
    expected = explain(model, batch, CLASSES)
    model.train()
    torch.testing.assert_close(explain(model, batch, CLASSES), expected)
    assert model.training


def test_attention_is_the_row_of_cls() -> None:
    """Raw attention is the first row of the softmax of scaled products, averaged over heads, in every layer."""
    model, batch = tiny_model(), tiny_batch(LENGTHS)
    found = attention(model, batch)
    for layer in range(4):
        torch.testing.assert_close(found[:, layer], probabilities(model, batch, layer)[:, 0], atol=1e-6, rtol=1e-4)


def test_rollout_is_the_product_of_layers() -> None:
    """Rollout multiplies (A + 1) / 2 of the layers so far, the newest on the left."""
    model, batch = tiny_model("four_heads"), tiny_batch([7])
    first, second = ((probabilities(model, batch, layer)[0] + torch.eye(7)) / 2 for layer in range(2))
    found = attention_rollout(model, batch)[0]
    torch.testing.assert_close(found[0], first[0])
    torch.testing.assert_close(found[1], (second @ first)[0])


def test_integrated_gradients_are_complete() -> None:
    """The parts of all tokens add up to logit(input) - logit(baseline) (Sundararajan et al., 2017, proposition 1)."""
    model, batch = tiny_model(), tiny_batch(LENGTHS)
    empty = Batch(torch.full_like(batch.input_ids, model.config.padding), batch.mask, batch.token_type_ids)
    logits = [run(model, each, execution=Execution.MASKED).logits[range(3), CLASSES] for each in (batch, empty)]
    found = integrated_gradients(model, batch, CLASSES, steps=300).sum(-1)
    torch.testing.assert_close(found, (logits[0] - logits[1]).detach(), atol=2e-3, rtol=2e-3)
    assert not torch.allclose(found, integrated_gradients(model, batch, CLASSES, steps=1).sum(-1), atol=2e-3)


def test_integrated_gradients_are_captums() -> None:
    """Every token's part equals captum's, on the same line of embeddings in the middles of as many pieces."""
    model, batch = tiny_model(), tiny_batch(LENGTHS)
    empty = Batch(torch.full_like(batch.input_ids, model.config.padding), batch.mask, batch.token_type_ids)

    def logits(embedded: Tensor, *parts: Tensor) -> Tensor:
        with change_output(model.bert.embeddings, lambda own, *inputs: embedded):
            return run(model, Batch(*parts), execution=Execution.SOFT).logits

    expected = IntegratedGradients(logits).attribute(
        embed(model, batch).detach(),
        baselines=embed(model, empty).detach(),
        target=CLASSES,
        additional_forward_args=(batch.input_ids, batch.mask, batch.token_type_ids),
        n_steps=7,
        method="riemann_middle",
    )
    found = integrated_gradients(model, batch, CLASSES, steps=7)
    torch.testing.assert_close(found, expected.sum(-1).float() * batch.mask, atol=1e-5, rtol=1e-4)


def test_gradients_at_another_embedding() -> None:
    """The gradient at a given embedding output is the slope of the logit there, by finite differences."""
    model, batch = tiny_model(), tiny_batch([6])
    place = embed(model, batch).detach() * 0.5
    _, gradient, before = embedding_gradient(model, batch, CLASSES[:1], embedded=place)
    direction = torch.randn(place.shape, generator=torch.Generator().manual_seed(0))
    after, less = (
        embedding_gradient(model, batch, CLASSES[:1], embedded=place + step * direction)[2] for step in (1e-2, -1e-2)
    )
    torch.testing.assert_close((after - less) / 2e-2, (gradient * direction).sum()[None], atol=1e-2, rtol=2e-2)
    assert torch.isfinite(before).all()


def test_adaptive_explainers_show_what_ran() -> None:
    """A kept token has a predictor's share of at least its threshold, and a token that is gone has the score 0."""
    model, batch = tiny_model(), tiny_batch(LENGTHS)
    question = asked(model, batch, CLASSES)
    kept = EXPLAINERS["kept"].explain(question).bool()
    scores = EXPLAINERS["adapler"].explain(question)
    trace = run(model, batch, question.policy).trace
    assert torch.equal(kept, trace.kept)
    assert not bool(kept[:, -1].sum() == batch.mask.sum())
    before = torch.cat([batch.mask[:, None], kept[:, :-1]], 1)
    eta = 3.0 * model.contributions().eta
    chosen = (scores >= eta[:, None] / before.sum(-1, keepdim=True)) & before
    chosen[:, :, 0] = True
    assert torch.equal(chosen, kept)
    assert bool((scores[~before] == 0).all())


def test_controls_know_nothing_of_the_model() -> None:
    """Random scores follow the text alone, and position scores fall evenly from 1."""
    one, other = (asked(tiny_model(seed=seed), tiny_batch(LENGTHS), CLASSES) for seed in (0, 1))
    assert torch.equal(EXPLAINERS["random"].explain(one), EXPLAINERS["random"].explain(other))
    found = EXPLAINERS["position"].explain(one)[1, 0, :5]
    torch.testing.assert_close(found, torch.tensor([1.0, 0.8, 0.6, 0.4, 0.2]))
