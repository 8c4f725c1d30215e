"""Milliseconds of exported graphs on one thread: `python tests/benchmarks/bench_exported_latency.py`.

Random weights in MiniLM's size: dense, AdapLeR at a fixed share of tokens in each layer, exits and gates as one graph
with `If` and, for exits that nobody takes, the same layers as a chain of sessions. All arms take turns.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import onnxruntime
import torch
from onnx import TensorProto, helper

from efficient_bert import Batch, EfficientBertConfig, EfficientBertForSequenceClassification, run
from efficient_bert.engine.decisions import Decision, Policy, View
from efficient_bert.export import OPSET, Precision, export_graph
from efficient_bert.export.graph import MICROSOFT, Graph
from efficient_bert.export.layers import Builder
from efficient_bert.export.network import IR_VERSION
from efficient_bert.policies.contribution import contribution_policy
from efficient_bert.policies.exit_rules import entropy
from efficient_bert.policies.gates import gate_policy
from tests.support.tiny import randomise

LENGTHS = (32, 128, 256, 512)
KEPT = (0.6, 0.4, 0.3, 0.2, 0.15, 0.1)
"""Share of the text's tokens that each layer runs on: a mean of 0.29."""

WIDTHS = (0.25, 0.5, 0.75, 1.0)
ROUNDS = 60

Pass = Callable[[], Any]


def minilm_size() -> EfficientBertForSequenceClassification:
    """A random model of MiniLM-L6's size with predictors, exits and gates."""
    torch.manual_seed(0)
    config = EfficientBertConfig(
        hidden_size=384,
        num_hidden_layers=6,
        num_attention_heads=12,
        intermediate_size=1536,
        contribution_size=32,
        exit_depths=range(1, 6),
        num_gates=6,
        widths=WIDTHS,
        num_labels=2,
    )
    model = EfficientBertForSequenceClassification(config)
    randomise(model, seed=0).eval()
    return model


def session_of(graph: Any) -> onnxruntime.InferenceSession:
    """A session on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.enable_mem_pattern = False
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])


def set_thresholds(model: EfficientBertForSequenceClassification, batch: Batch) -> None:
    """Set the thresholds at which an example keeps `KEPT` of its tokens."""
    contribution, length = model.contributions(), batch.mask.shape[1]
    with torch.no_grad():
        contribution.eta.zero_()
        for layer, share in enumerate(KEPT):
            with torch.inference_mode():
                decision = run(model, batch, contribution_policy(contribution)).decisions[layer]
            assert decision.scores is not None
            scores = decision.scores[0].sort(descending=True).values
            wanted = min(max(1, round(share * length)), len(scores))
            contribution.eta[layer] = scores[wanted - 1] * len(scores) * (1 - 1e-4)


def never(view: View) -> Decision:
    """An exit that nobody takes: its entropy is never below 0."""
    return Decision(leave=entropy(view.logits[-1]) < 0) if len(view.logits) else Decision()


def chain_of(model: EfficientBertForSequenceClassification, precision: Precision) -> list[onnxruntime.InferenceSession]:
    """One session for the embeddings and each layer with the head after it."""
    builder, sessions = Builder(model.config, precision), []
    for number, layer in enumerate(model.bert.encoder.layers):
        graph = Graph()
        if number == 0:
            inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, ["n"]) for name in ("ids", "types")]
            positions = graph.op(
                "Range", graph.integer(0), graph.op("Squeeze", graph.op("Shape", "ids")), graph.integer(1)
            )
            hidden = builder.embed(graph, model.bert.embeddings, "ids", "types", positions)
        else:
            inputs, hidden = [helper.make_tensor_value_info("hidden", TensorProto.FLOAT, ["n", 384])], "hidden"
        last = number == model.config.num_hidden_layers - 1
        hidden = builder.layer(graph, layer, hidden, heads=12, first_only=last)
        head: Any = model if last else model.exits[str(number + 1)]
        pooler = model.bert.pooler if last else head.pooler
        first = graph.op("Slice", hidden, *map(graph.integers, (0, 1, 0)))
        logits = builder.classify(graph, pooler, head.classifier, first)
        names = (("out", hidden), ("logits", logits))
        graph.nodes += [helper.make_node("Identity", [value], [name]) for name, value in names]
        outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name, _ in names]
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(MICROSOFT, 1)]
        content = helper.make_graph(graph.nodes, "layer", inputs, outputs, graph.weights)
        sessions.append(session_of(helper.make_model(content, opset_imports=opsets, ir_version=IR_VERSION)))
    return sessions


def run_chain(sessions: Sequence[onnxruntime.InferenceSession], ids: Any, types: Any) -> Any:
    """Run the chain, looking at each exit's logits."""
    hidden, logits = sessions[0].run(None, {"ids": ids, "types": types})
    for session in sessions[1:]:
        float(logits.max())
        hidden, logits = session.run(None, {"hidden": hidden})
    return logits


def arms(model: EfficientBertForSequenceClassification, length: int) -> Iterator[tuple[str, Pass]]:
    """Name and pass of each arm at one length."""
    ids = torch.randint(1000, 30000, (1, length), generator=torch.Generator().manual_seed(length))
    batch = Batch(ids, torch.ones_like(ids, dtype=torch.bool), torch.zeros_like(ids))
    set_thresholds(model, batch)
    policies = {
        "dense": Policy(),
        "AdapLeR": contribution_policy(model.contributions()),
        "exits, none taken": Policy(never, exits=(1, 2, 3, 4, 5)),
        "gates": gate_policy(model.width_gates(), WIDTHS),
    }
    values = {"input_ids": ids[0].numpy(), "token_type_ids": np.zeros(length, np.int64)}
    for precision in Precision:
        for name, policy in policies.items():
            session = session_of(export_graph(model, policy, precision=precision, widths=WIDTHS))
            yield f"{name} {precision}", partial(session.run, None, values)
        sessions = chain_of(model, precision)
        yield f"exits, chain {precision}", partial(run_chain, sessions, *values.values())


def medians(passes: dict[str, Pass]) -> dict[str, tuple[float, float]]:
    """Median and smallest milliseconds of each arm, in turns."""
    seconds: dict[str, list[float]] = {name: [] for name in passes}
    for _ in range(ROUNDS):
        for name, each in passes.items():
            each()  # weights into the cache, as for the next of a stream of requests
            start = time.perf_counter()
            each()
            seconds[name].append(time.perf_counter() - start)
    return {name: (1000 * float(np.median(times)), 1000 * min(times)) for name, times in seconds.items()}


if __name__ == "__main__":
    torch.set_num_threads(1)
    model = minilm_size()
    table = {length: medians(dict(arms(model, length))) for length in LENGTHS}
    print("| median (smallest) ms |" + "".join(f" {length} |" for length in LENGTHS))
    for name in table[LENGTHS[0]]:
        cells = (f" {table[length][name][0]:.2f} ({table[length][name][1]:.2f}) |" for length in LENGTHS)
        print(f"| {name} |" + "".join(cells))
