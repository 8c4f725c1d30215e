"""How much each token matters to a model's answer, read off the model.

Shapes: B examples, L tokens, D hidden size.
"""

from __future__ import annotations

import torch
from torch import Tensor

from efficient_bert.engine import Batch, Execution, run
from efficient_bert.model import EfficientBertForSequenceClassification


def gradient_times_input(model: EfficientBertForSequenceClassification, batch: Batch, classes: Tensor) -> Tensor:
    """(B, L): the Euclidean norm over D of h * d logit / d h, h the embedding output; 0 on padding.

    The logit is that of the given class (not its loss or probability), without dropout: the saliency that AdapLeR's
    predictors learn (section 3.2). Leaves no gradient behind.

    Args:
        classes: (B,) int64, the class whose logit is explained: for labels, the gold one. In a regression the one
            output is explained, whatever is given.
    """
    training = model.training
    model.eval()
    try:
        with torch.enable_grad():
            output = run(model, batch, execution=Execution.SOFT, record=True)
            embedded = output.hidden_states[0]
            place = torch.zeros_like(classes, dtype=torch.int64) if model.config.regression else classes
            chosen = output.logits.gather(1, place[:, None]).sum()
            (gradient,) = torch.autograd.grad(chosen, embedded)
    finally:
        model.train(training)
    importance: Tensor = torch.linalg.vector_norm((embedded * gradient).detach(), dim=-1)
    return importance * batch.mask
