"""How much each token matters to a model's answer, read off the model.

Shapes: B examples, L tokens, D hidden size, N layers, H heads. Every score is 0 on padding and does not depend on what
else is in the batch; the model is explained without dropout, and no gradient is left behind in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from efficient_bert.encoder.hooks import change_output
from efficient_bert.engine.batch import Batch
from efficient_bert.engine.decisions import first_states
from efficient_bert.engine.loop import Execution, run
from efficient_bert.engine.recorder import Output
from efficient_bert.model import EfficientBertForSequenceClassification

STEPS = 20
"""Points on the path of integrated gradients; Sundararajan et al. (2017, section 5) find 20 to 300 enough."""


def gradient_times_input(model: EfficientBertForSequenceClassification, batch: Batch, classes: Tensor) -> Tensor:
    """Compute the norm over D of h * d logit / d h, h the embedding output: (B, L); 0 on padding.

    The logit is that of the given class (not its loss or probability), without dropout: the saliency that AdapLeR's
    predictors learn (section 3.2). Leaves no gradient behind.

    Args:
        classes: (B,) int64, the class whose logit is explained: for labels, the gold one. In a regression the one
            output is explained, whatever is given.
    """
    with without_dropout(model):
        embedded, gradient, _ = embedding_gradient(model, batch, classes)
    importance: Tensor = torch.linalg.vector_norm(embedded * gradient, dim=-1)
    return importance * batch.mask


def integrated_gradients(
    model: EfficientBertForSequenceClassification, batch: Batch, classes: Tensor, *, steps: int = STEPS
) -> Tensor:
    """Compute each token's part of logit(input) - logit(baseline): (B, L), negative where it speaks against the class.

    The gradient at the embedding output h is averaged over the straight line from the baseline's to h, in the middles
    of `steps` equal pieces, and multiplied by their difference (Sundararajan et al., 2017, section 3). The baseline is
    [PAD] at every position; parts add up to the difference of the logits as far as `steps` are fine enough.

    Args:
        classes: (B,) int64, as for `gradient_times_input`.
        steps: points on the line, each a forward and a backward pass.
    """
    empty = Batch(torch.full_like(batch.input_ids, model.config.padding), batch.mask, batch.token_type_ids)
    with without_dropout(model):
        with torch.no_grad():
            start, end = embed(model, empty), embed(model, batch)
        total = torch.zeros_like(end)
        for step in range(steps):
            point = start + (step + 0.5) / steps * (end - start)
            total += embedding_gradient(model, batch, classes, embedded=point)[1]
    return ((end - start) * total / steps).sum(-1) * batch.mask


def attention(model: EfficientBertForSequenceClassification, batch: Batch) -> Tensor:
    """Compute what [CLS] attends to in each layer, the mean of its attention probabilities over heads: (B, N, L).

    The row of [CLS] rather than the mean over all rows: the answer is read from [CLS] alone, and rows of tokens that
    it never looks at say nothing about the answer. A layer's scores of an example add up to 1.
    """
    with without_dropout(model):
        return cls_rows(batch, head_means(model, batch))


def attention_rollout(model: EfficientBertForSequenceClassification, batch: Batch) -> Tensor:
    """Compute how much of each input token reaches [CLS] through the layers up to this one: (B, N, L).

    Attention of layer i is (A_i + 1) / 2, A_i the mean over heads and 1 the residual connection; rollout is the product
    of the layers, the newest on the left, and the row of [CLS] is read (Abnar and Zuidema, 2020, section 3). A layer's
    scores of an example add up to 1.
    """
    with without_dropout(model):
        means = head_means(model, batch)
    identity = torch.eye(means[0].shape[-1], device=means[0].device)
    paths = [(means[0] + identity) / 2]
    for mean in means[1:]:
        paths.append((mean + identity) / 2 @ paths[-1])
    return cls_rows(batch, paths)


def kept_tokens(output: Output) -> Tensor:
    """Mark the tokens that each layer ran on: (B, N, L), 1 for those, 0 for dropped tokens and skipped layers."""
    return output.trace.kept.to(output.logits)


def decision_scores(output: Output) -> Tensor:
    """Stack the scores that a policy gave each token before each layer: (B, N, L); 0 for dropped tokens.

    Of a policy that scores every token before every layer, in a recorded pass in which nobody leaves.
    """
    return torch.stack([decision.scores for decision in output.decisions if decision.scores is not None], 1)


@contextmanager
def without_dropout(model: EfficientBertForSequenceClassification) -> Iterator[None]:
    """Switch the model's dropout off while the block runs."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


@contextmanager
def eager_attention(model: EfficientBertForSequenceClassification) -> Iterator[None]:
    """Use attention that records its probabilities while the block runs."""
    chosen = model.config._attn_implementation
    model.config._attn_implementation = "eager"
    try:
        yield
    finally:
        model.config._attn_implementation = chosen


def embedding_gradient(
    model: EfficientBertForSequenceClassification, batch: Batch, classes: Tensor, *, embedded: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the (B, L, D) embedding output, its gradient, and the (B,) logits of the classes; all detached.

    With `embedded` that embedding output is used instead of the batch's.
    """
    answered = torch.zeros_like(classes, dtype=torch.int64) if model.config.regression else classes

    def leaf(output: Tensor, *inputs: Tensor) -> Tensor:
        return (output if embedded is None else embedded).detach().requires_grad_()

    with torch.enable_grad(), change_output(model.bert.embeddings, leaf):
        output = run(model, batch, execution=Execution.SOFT, record=True, all_tokens=False)
        states = output.hidden_states[0]
        chosen = output.logits.gather(1, answered[:, None]).squeeze(1)
        (gradient,) = torch.autograd.grad(chosen.sum(), states)
    return states.detach(), gradient, chosen.detach()


def embed(model: EfficientBertForSequenceClassification, batch: Batch) -> Tensor:
    """Compute the embedding output, (B, L, D)."""
    positions = torch.arange(batch.mask.shape[1], device=batch.mask.device).expand_as(batch.mask)
    embedded: Tensor = model.bert.embeddings(batch.input_ids, positions, batch.token_type_ids)
    return embedded


def head_means(model: EfficientBertForSequenceClassification, batch: Batch) -> list[Tensor]:
    """Compute every layer's attention probabilities, the mean over heads, each (B, L, L)."""
    with torch.no_grad(), eager_attention(model):
        attentions = run(model, batch, execution=Execution.MASKED, record=True).attentions
    return [probabilities.mean(1) for probabilities in attentions]


def cls_rows(batch: Batch, layers: list[Tensor]) -> Tensor:
    """Stack the rows of [CLS] of N matrices, each (B, L, L): (B, N, L)."""
    rows = torch.stack([first_states(layer, batch.mask) for layer in layers], 1)
    return rows * batch.mask[:, None]
