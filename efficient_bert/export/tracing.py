"""Trace a policy's decision before one layer into ONNX, for one example of any length."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from efficient_bert.config import EfficientBertConfig
from efficient_bert.engine.decisions import Decision, Policy, View
from efficient_bert.engine.fingerprints import fingerprints
from efficient_bert.errors import InputError
from efficient_bert.export.graph import OPSET

CHANGES = ("keep", "leave", "width")
"""Parts of a decision that change what runs."""

ANSWERS = (*CHANGES, "macs")
"""Parts of a decision that a graph holds: `macs`, (1,) int64, is what deciding costs."""

INPUTS = ("hidden", "positions", "length", "logits", "fingerprints")
"""Parts of a view that a traced decision takes."""

LENGTH = 7
"""Tokens of the example that is traced; any number of them runs afterwards."""


@dataclass(frozen=True)
class TracedDecision:
    """A decision as an ONNX model with the inputs `INPUTS`, and the names of its outputs, among `ANSWERS`."""

    model: onnx.ModelProto
    answers: tuple[str, ...]


class Call(nn.Module):
    """A function as a module, which is what the exporter takes."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Any:
        """Call the function."""
        return self.function(*inputs)


def trace_decision(policy: Policy, depth: int, config: EfficientBertConfig, *, exits: int) -> TracedDecision | None:
    """Trace a policy's decision after `depth` layers; None where it changes nothing there.

    Args:
        exits: heads that were evaluated by then.

    Raises:
        InputError: the decision cannot be traced, or depends on data in a way that a graph cannot hold.
    """
    decide = policy.decide
    if decide is None:
        return None

    def answer(hidden: Tensor, positions: Tensor, length: Tensor, logits: Tensor, prints: Tensor) -> dict[str, Tensor]:
        mask = positions >= 0
        numbers = prints if policy.needs_fingerprints else None
        view = View(depth, hidden, mask, positions, length, logits, fingerprints=numbers, unpadded=True)
        return answers_of(decide(view))

    example = (
        torch.linspace(-1, 1, LENGTH * config.hidden_size).view(1, LENGTH, -1),
        torch.arange(LENGTH)[None],
        torch.tensor([LENGTH]),
        torch.zeros(exits, 1, config.classes),
        torch.tensor([1]),
    )
    with torch.no_grad():
        answers = tuple(answer(*example))
    if not {*CHANGES} & {*answers}:
        return None
    varying = torch.export.Dim.DYNAMIC
    shapes = (({1: varying}, {1: varying}, None, None, None),)  # of the one variable argument
    return TracedDecision(trace(answer, example, shapes, INPUTS, answers), answers)


def answers_of(decision: Decision) -> dict[str, Tensor]:
    """Return the parts of a decision that a graph holds."""
    answers = {name: value for name in ANSWERS if (value := getattr(decision, name)) is not None}
    if "macs" in answers:
        answers["macs"] = torch.ones(1, dtype=torch.int64) * answers["macs"]  # one number for all rows, or one each
    return answers


def trace_fingerprints() -> onnx.ModelProto:
    """Trace how an example's word pieces (1, L) make its fingerprint (1,)."""
    ids = torch.arange(1, LENGTH + 1)[None]
    shapes = (({1: torch.export.Dim.DYNAMIC},),)
    return trace(lambda pieces: fingerprints(pieces, pieces >= 0), (ids,), shapes, ("ids",), ("fingerprints",))


def trace(
    function: Callable[..., Any],
    example: tuple[Tensor, ...],
    shapes: Any,
    inputs: tuple[str, ...],
    outputs: tuple[str, ...],
) -> onnx.ModelProto:
    """Trace a tensor function into an ONNX model.

    Raises:
        InputError: the exporter cannot.
    """
    try:
        with silence():
            program = torch.onnx.export(
                Call(function).eval(),
                example,
                dynamo=True,
                opset_version=OPSET,
                dynamic_shapes=shapes,
                input_names=inputs,
                output_names=outputs,
                verbose=False,
            )
    except Exception as error:  # whatever the exporter trips over
        reason = str(error.__cause__ or error).strip().partition("\n")[0]
        raise InputError(
            f"the policy's decision cannot be traced ({type(error).__name__}: {reason}); write it with tensor "
            "operations alone"
        ) from error
    if program is None:
        raise InputError("the policy's decision cannot be traced; write it with tensor operations alone")
    model: onnx.ModelProto = program.model_proto
    return model


@contextmanager
def silence() -> Iterator[None]:
    """Keep the exporter's notes on other packages off the terminal."""
    logger = logging.getLogger("torch.onnx")
    before: Mapping[str, Any] = {"level": logger.level}
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before["level"])
