"""Rules that say who is done, as pure functions of the exits' logits (E exits so far, B examples, C classes)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from efficient_bert.config import EfficientBertConfig, example_fractions
from efficient_bert.engine.recorder import Output
from efficient_bert.errors import InputError
from efficient_bert.knobs import format_numbers

Done = Callable[[Tensor], Tensor]
"""Logits of the exits so far (E, B, C) -> (B,) bool, who leaves."""


def require_classes(config: EfficientBertConfig, method: str) -> None:
    """Raise InputError where the answer is a real-valued score, of which these rules cannot say how sure it is."""
    if config.regression:
        others = "full or static_depth" if config.num_hidden_layers > 1 else "full"
        raise InputError(f"{method} compares classes, but the answer is a real-valued score; take method {others}")


def require_exits(config: EfficientBertConfig, method: str) -> None:
    """Raise InputError where no prefix of the layers was trained to answer, or, for scores, none to compare with."""
    if not config.exit_depths:
        raise InputError(
            f"{method} leaves after a prefix of the layers, but rule {config.depth_rule!r} at depths {config.depths} "
            f"trains none but the whole; {propose_depths(config, 3 if config.regression else 2)}"
        )
    if config.regression and len(config.exit_depths) < 2:
        raise InputError(
            f"{method} leaves where two depths' scores agree, but of the depths {config.depths} only one is an exit; "
            f"{propose_depths(config, 3)}"
        )


def propose_depths(config: EfficientBertConfig, count: int) -> str:
    """Say what to give so that `count` depths are trained, or that the model is too small for them."""
    depths = example_fractions(config.num_hidden_layers)
    if len(depths) < count:
        return f"take a backbone of {count} layers or more"
    return f"give --depth-rule prefix --depth-list {format_numbers(depths)}"


def entropy(logits: Tensor) -> Tensor:
    """Compute the entropy in nats of softmax(logits): (..., C) -> (...); finite also for probabilities of 0."""
    log_probabilities = logits.log_softmax(-1)
    return -(log_probabilities.exp() * log_probabilities).sum(-1)


def is_certain(logits: Tensor, threshold: float) -> Tensor:
    """Check whether the newest exit's entropy is below `threshold` nats: (E, B, C) -> (B,) bool (DeeBERT, 3.3)."""
    return entropy(logits[-1]) < threshold


def exits_agree(logits: Tensor, patience: int) -> Tensor:
    """Check whether the newest `patience` + 1 exits predict one class: (E, B, C) -> (B,) bool (PABEE, 3.2)."""
    predictions = logits[-patience - 1 :].argmax(-1)
    agree = (predictions == predictions[-1]).all(0)
    return agree & (logits.shape[0] > patience)


def exit_rule(config: EfficientBertConfig, threshold: float) -> Done:
    """Return the rule by which examples leave at the exits that Flexible BERT trains."""
    return partial(scores_agree if config.regression else is_certain, threshold=threshold)


def scores_agree(scores: Tensor, threshold: float) -> Tensor:
    """Check whether the two newest exits' scores differ by less than `threshold`: (E, B, 1) -> (B,) bool."""
    if len(scores) < 2:
        return scores.new_zeros(scores.shape[1], dtype=torch.bool)
    return (scores[-1] - scores[-2]).abs().squeeze(-1) < threshold


def stack_exit_logits(output: Output) -> Tensor:
    """Stack the logits of a pass's exits: (E, B, C)."""
    return torch.stack(list(output.exit_logits.values()))


def leaving_exit(logits: Tensor, done: Done) -> Tensor:
    """Find the first exit at which each example leaves: logits (E, B, C) -> (B,) int64, E where it never does."""
    answers = torch.stack([done(logits[: exits + 1]) for exits in range(len(logits))])
    return torch.cat([answers, answers.new_ones(1, answers.shape[1])]).int().argmax(0)


def replay(output: Output, done: Done) -> Output:
    """Return a pass in which nobody left as it would have been if examples had left by this rule.

    Nothing is decided, and so nothing spent, for those who leave. Of its `decisions`, hidden states and exits those of
    all are still there.
    """
    if not output.exit_logits:
        return output
    logits, depths = stack_exit_logits(output), torch.tensor([*output.exit_logits, output.trace.tokens.shape[1]])
    at = leaving_exit(logits, done)
    answers = torch.cat([logits, output.logits[None]])[at, torch.arange(logits.shape[1], device=at.device)]
    trace = output.trace.until(depths[at.cpu()], head_runs=at.cpu() + 1)
    return replace(output, logits=answers, _trace=lambda: trace)
