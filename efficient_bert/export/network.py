"""A model with its policy as one ONNX graph: the loop of `efficient_bert.engine.loop` for one unpadded example.

    inputs    input_ids, token_type_ids (L,) int64
    outputs   logits (1, C); kept: positions that each layer ran on, one layer after the other; tokens and heads, each
              one number for every layer that ran; macs: multiply-adds of each decision that was taken

An exit is an `If` that holds the rest of the network; a width is chosen by an `If` in its layer, one branch for each
width that the policy may ask for, with weights of that width, which are packed once when a session starts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper

from efficient_bert.config import kept_heads
from efficient_bert.encoder.bert import Layer
from efficient_bert.engine.decisions import Policy
from efficient_bert.engine.loop import check_exits
from efficient_bert.errors import InputError
from efficient_bert.export.graph import MICROSOFT, OPSET, Graph
from efficient_bert.export.layers import Builder, Precision
from efficient_bert.export.tracing import trace_decision, trace_fingerprints
from efficient_bert.model import EfficientBertForSequenceClassification, ExitHead


@dataclass(frozen=True)
class State:
    """Values that enter the next layer.

    Attributes:
        hidden: (L, D).
        positions: (L,) int64.
        width: (), float64, where a decision has named one.
        logits: of the exits so far, each (1, C).
        kept, tokens, heads: of each layer that ran, (n,), (1,) and (1,) int64.
        macs: of each decision, (1,) int64.
    """

    hidden: str
    positions: str
    width: str | None = None
    logits: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    tokens: tuple[str, ...] = ()
    heads: tuple[str, ...] = ()
    macs: tuple[str, ...] = ()


def export_graph(
    model: EfficientBertForSequenceClassification,
    policy: Policy,
    *,
    precision: Precision = Precision.FP32,
    widths: Sequence[float] = (1.0,),
) -> onnx.ModelProto:
    """Build the ONNX graph of a model under a policy.

    Args:
        model: on the CPU, in float32.
        precision: of the layers' dense products; decisions and answers stay in float32.
        widths: that the policy's decisions may name; another one is rounded up to the next of them.

    Raises:
        InputError: the policy reads exits that the model lacks, its decision cannot be traced, or the model is not on
            the CPU in float32 or has an unknown activation.
    """
    if model.dtype != torch.float32 or model.device.type != "cpu":
        raise InputError(f"the model is {model.dtype} on {model.device}; an export takes float32 on cpu")
    check_exits(model, policy)
    model.eval()
    network = Network(model, policy, Builder(model.config, precision), tuple(widths))
    graph = Graph()
    results = network.run(graph)
    for name, value in zip(OUTPUTS, results, strict=True):
        graph.nodes.append(helper.make_node("Identity", [value], [name]))
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, ["length"]) for name in INPUTS]
    shapes: tuple[list[str | int], ...] = ([1, model.config.classes], ["kept"], ["layers"], ["layers"], ["decisions"])
    kinds = (TensorProto.FLOAT, *[TensorProto.INT64] * 4)
    described = zip(OUTPUTS, kinds, shapes, strict=True)
    outputs = [helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in described]
    whole = helper.make_graph(graph.nodes, "efficient_bert", inputs, outputs, graph.weights)
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(MICROSOFT, 1)]
    return helper.make_model(whole, opset_imports=opsets, ir_version=IR_VERSION, producer_name="efficient_bert")


IR_VERSION = 10
OUTPUTS = ("logits", "kept", "tokens", "heads", "macs")
INPUTS = ("input_ids", "token_type_ids")


@dataclass(frozen=True)
class Network:
    """A model under a policy, which adds itself to a graph."""

    model: EfficientBertForSequenceClassification
    policy: Policy
    builder: Builder
    widths: tuple[float, ...]

    @property
    def order(self) -> tuple[int, ...]:
        """Indices of the layers that run."""
        layers = self.policy.layers
        return tuple(range(self.model.config.num_hidden_layers)) if layers is None else layers

    def run(self, graph: Graph) -> list[str]:
        """Add the whole network; return the values of `OUTPUTS`."""
        ids, types = INPUTS
        length = graph.op("Shape", ids)
        count = graph.op("Squeeze", length)
        positions = graph.op("Range", graph.integer(0), count, graph.integer(1))
        hidden = self.builder.embed(graph, self.model.bert.embeddings, ids, types, positions)
        prints = graph.integers(0)
        if self.policy.needs_fingerprints:
            row = graph.op("Unsqueeze", ids, graph.integers(0))
            prints = graph.inline(trace_fingerprints(), {"ids": row})[0]
        return self.go_on(graph, State(hidden, positions), 0, {"length": length, "fingerprints": prints})

    def go_on(self, graph: Graph, state: State, depth: int, example: dict[str, str]) -> list[str]:
        """Add everything after `depth` layers; return the values of `OUTPUTS`."""
        if depth == len(self.order):
            return self.answer(graph, state, self.classify(graph, state.hidden, None))
        if depth in self.policy.exits:
            state = replace(state, logits=(*state.logits, self.classify(graph, state.hidden, depth)))
        answers = self.decide(graph, state, depth, example)
        state = replace(state, macs=(*state.macs, answers.get("macs") or graph.integers(0)))
        if "leave" not in answers:
            return self.run_layer(graph, state, depth, example, answers)
        if not state.logits:
            raise ValueError("a policy lets examples leave before any exit was evaluated; name its exits")
        leaves, stays = Graph(graph), Graph(graph)
        left = self.answer(leaves, state, state.logits[-1])
        went_on = self.run_layer(stays, state, depth, example, answers)
        return graph.choose(graph.op("Squeeze", answers["leave"]), (leaves, left), (stays, went_on))

    def classify(self, graph: Graph, hidden: str, depth: int | None) -> str:
        """Classify [CLS] by the exit head at `depth`, or by the final head: (1, C)."""
        model = self.model
        first = graph.op("Slice", hidden, *map(graph.integers, (0, 1, 0)))
        if depth is None or model.config.shared_head:
            return self.builder.classify(graph, model.bert.pooler, model.classifier, first)
        head = cast(ExitHead, model.exits[str(depth)])
        return self.builder.classify(graph, head.pooler, head.classifier, first)

    def answer(self, graph: Graph, state: State, logits: str) -> list[str]:
        """Return the values of `OUTPUTS` where the pass ends; a pass may end before any layer."""
        empty = graph.weight(np.zeros(0, np.int64))
        joined = (graph.concatenate(parts or (empty,)) for parts in (state.kept, state.tokens, state.heads, state.macs))
        return [logits, *joined]

    def decide(self, graph: Graph, state: State, depth: int, example: dict[str, str]) -> dict[str, str]:
        """Add the policy's decision; return the values that it gives."""
        config = self.model.config
        traced = trace_decision(self.policy, depth, config, exits=len(state.logits))
        if traced is None:
            return {}
        axis = graph.integers(0)
        logits = graph.weight(np.zeros((0, 1, config.classes), np.float32))
        if state.logits:
            logits = graph.concatenate([graph.op("Unsqueeze", each, axis) for each in state.logits])
        view = {name: graph.op("Unsqueeze", getattr(state, name), axis) for name in ("hidden", "positions")}
        values = graph.inline(traced.model, {**view, **example, "logits": logits})
        return dict(zip(traced.answers, values, strict=True))

    def run_layer(
        self, graph: Graph, state: State, depth: int, example: dict[str, str], answers: dict[str, str]
    ) -> list[str]:
        """Carry out a decision, run the next layer and all that follows; return the values of `OUTPUTS`."""
        if "keep" in answers:
            state = keep_tokens(graph, state, answers["keep"])
        if "width" in answers:
            width = graph.op("Cast", graph.op("Squeeze", answers["width"]), to=TensorProto.DOUBLE)
            state = replace(state, width=width)
        layer = self.model.bert.encoder.layers[self.order[depth]]
        last = depth == len(self.order) - 1
        if state.width is None:
            planned = 1.0 if self.policy.widths is None else self.policy.widths[depth]
            count = kept_heads(planned, layer.heads)
            heads = graph.integer(count)
            hidden = self.builder.layer(graph, layer, state.hidden, heads=count, first_only=last)
        else:
            rounded = graph.op("Round", graph.op("Mul", state.width, graph.weight(np.array(float(layer.heads)))))
            heads = graph.op("Cast", rounded, to=TensorProto.INT64)
            choices = sorted({kept_heads(width, layer.heads) for width in self.widths})
            hidden = self.choose_width(graph, layer, state.hidden, heads, choices, first_only=last)
        state = replace(
            state,
            hidden=hidden,
            kept=(*state.kept, state.positions),
            tokens=(*state.tokens, graph.op("Shape", state.positions)),
            heads=(*state.heads, graph.op("Reshape", heads, graph.integers(1))),
        )
        return self.go_on(graph, state, depth + 1, example)

    def choose_width(
        self, graph: Graph, layer: Layer, hidden: str, heads: str, choices: Sequence[int], *, first_only: bool
    ) -> str:
        """Run a layer at the smallest of the `choices`, ascending, that has as many heads as are asked for."""
        if len(choices) == 1:
            return self.builder.layer(graph, layer, hidden, heads=choices[0], first_only=first_only)
        narrow, wider = Graph(graph), Graph(graph)
        one = self.builder.layer(narrow, layer, hidden, heads=choices[0], first_only=first_only)
        rest = self.choose_width(wider, layer, hidden, heads, choices[1:], first_only=first_only)
        fits = graph.op("LessOrEqual", heads, graph.integer(choices[0]))
        return graph.choose(fits, (narrow, [one]), (wider, [rest]))[0]


def keep_tokens(graph: Graph, state: State, keep: str) -> State:
    """Remove the tokens where keep (1, L) is false, but never the first."""
    first = graph.op("Equal", state.positions, graph.integer(0))
    stays = graph.op("Or", graph.op("Reshape", keep, graph.integers(-1)), first)
    indices = graph.op("Squeeze", graph.op("NonZero", stays), graph.integers(0))
    hidden, positions = (graph.op("Gather", part, indices, axis=0) for part in (state.hidden, state.positions))
    return replace(state, hidden=hidden, positions=positions)
