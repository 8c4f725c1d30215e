"""Build ONNX graphs node by node; branches of an `If` see every value of the graph around them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

OPSET = 20
"""Version of ONNX operators that exported graphs are written in."""

MICROSOFT = "com.microsoft"


class Graph:
    """A graph under construction: values are names. Each graph holds its own weights: others are not packed."""

    def __init__(self, outer: Graph | None = None) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self._known: dict[tuple[Any, ...], str] = {}
        self._numbers: count[int] = outer._numbers if outer else count()

    def name(self, stem: str) -> str:
        """Return a name that no other value of the model has."""
        return f"{stem}_{next(self._numbers)}"

    def op(self, kind: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """Add a node with one output; return the output's name."""
        return self.ops(kind, *inputs, outputs=1, domain=domain, **attributes)[0]

    def ops(self, kind: str, *inputs: str, outputs: int, domain: str = "", **attributes: Any) -> tuple[str, ...]:
        """Add a node; return the names of its outputs."""
        names = tuple(self.name(kind) for _ in range(outputs))
        self.nodes.append(helper.make_node(kind, inputs, names, domain=domain, **attributes))
        return names

    def weight(self, values: NDArray[Any]) -> str:
        """Add a constant tensor; return its name. Equal small ones are stored once."""
        key = (values.dtype.str, values.shape, values.tobytes()) if values.size <= 16 else None
        if key is not None and key in self._known:
            return self._known[key]
        name = self.name("weight")
        self.weights.append(numpy_helper.from_array(np.asarray(values, order="C"), name))
        if key is not None:
            self._known[key] = name
        return name

    def integers(self, *values: int) -> str:
        """Add a constant vector of int64."""
        return self.weight(np.array(values, np.int64))

    def integer(self, value: int) -> str:
        """Add a constant int64 scalar."""
        return self.weight(np.array(value, np.int64))

    def concatenate(self, parts: Sequence[str]) -> str:
        """Join vectors."""
        return parts[0] if len(parts) == 1 else self.op("Concat", *parts, axis=0)

    def choose(
        self, condition: str, then: tuple[Graph, Sequence[str]], other: tuple[Graph, Sequence[str]]
    ) -> list[str]:
        """Add an `If` whose two branches give as many values; only the chosen branch runs."""
        branches = [graph.as_branch(values, self.name("branch")) for graph, values in (then, other)]
        return list(self.ops("If", condition, outputs=len(then[1]), then_branch=branches[0], else_branch=branches[1]))

    def as_branch(self, values: Sequence[str], name: str) -> onnx.GraphProto:
        """Return this graph as a branch with these results."""
        results = []
        for value in values:  # a branch may not return a value of the graph around it, nor one value twice
            results.append(helper.make_empty_tensor_value_info(self.op("Identity", value)))
        return helper.make_graph(self.nodes, name, [], results, self.weights)

    def inline(self, traced: onnx.ModelProto, inputs: dict[str, str]) -> list[str]:
        """Add a whole model's nodes with some values as its inputs; return its outputs."""
        prefixed = onnx.compose.add_prefix(traced, self.name("decision") + "/").graph
        for given, value in zip(traced.graph.input, prefixed.input, strict=True):
            self.nodes.append(helper.make_node("Identity", [inputs[given.name]], [value.name]))
        self.nodes.extend(prefixed.node)
        self.weights.extend(prefixed.initializer)
        return [value.name for value in prefixed.output]
