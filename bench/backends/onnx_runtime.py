"""ONNX Runtime: an exported graph with the method's decisions inside, as `bench export` writes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from bench.backends import Backend
from bench.backends.runners import count_flops

if TYPE_CHECKING:
    import onnxruntime

    from bench.backends.runners import Counts, Subject
    from efficient_bert import EfficientBertConfig
    from efficient_bert.engine.decisions import Policy
    from efficient_bert.engine.recorder import Output
    from efficient_bert.rows import Rows


@dataclass(frozen=True)
class OnnxRunner:
    """A graph in a session; examples run one by one, unpadded, as in the exported folder.

    Attributes:
        graph: what the session runs, an ONNX model.
        config, policy: of the model in the graph.
        full_config: of the full model that it is compared with.
    """

    graph: bytes
    session: onnxruntime.InferenceSession
    config: EfficientBertConfig
    policy: Policy
    full_config: EfficientBertConfig
    precision: str

    @property
    def environment(self) -> Mapping[str, Any]:
        """Version, precision, and the threads that the session says it has."""
        import onnxruntime

        options = self.session.get_session_options()
        return {
            "dtype": self.precision,
            "onnxruntime": onnxruntime.__version__,
            "threads": options.intra_op_num_threads,
            "providers": self.session.get_providers(),
        }

    def prepare(self, rows: Rows) -> list[dict[str, Any]]:
        """Make the arrays of each row."""
        from efficient_bert.runtime import arrays

        return [arrays(row["input_ids"], row["token_type_ids"]) for row in rows]

    def __call__(self, inputs: Sequence[dict[str, Any]]) -> list[list[Any]]:
        """Run the graph on each row."""
        return [self.session.run(None, each) for each in inputs]

    def output(self, inputs: Sequence[dict[str, Any]], result: Sequence[list[Any]]) -> Output:
        """Join the logits and what ran for each row."""
        from efficient_bert.export.passes import Pass, output_of_passes

        passes = [Pass(len(each["input_ids"]), *ran) for each, ran in zip(inputs, result, strict=True)]
        return output_of_passes(passes, config=self.config, policy=self.policy)

    def on_one_thread(self) -> OnnxRunner:
        """Return the graph in a session of its own, on one thread."""
        from efficient_bert.runtime import open_session

        return replace(self, session=open_session(self.graph, threads=1))

    def flops(self, output: Output) -> Counts:
        """Count the FLOPs of a pass and of the full model on its examples."""
        return count_flops(output, self.config, self.full_config)

    def published_flops(self, output: Output) -> Counts:
        """Count as `flops`: what the authors count is not in the graph."""
        return self.flops(output)


def make_onnx_runner(subject: Subject, *, precision: str) -> OnnxRunner:
    """Export the model with its method, and open a session on as many threads as PyTorch has."""
    import torch

    from efficient_bert.export import Precision, export_graph
    from efficient_bert.policies.gates import possible_widths
    from efficient_bert.runtime import open_session

    config = subject.model.config
    policy = subject.method.policy(subject.model, subject.knobs)
    widths = possible_widths(config, subject.knobs)
    graph = export_graph(subject.model, policy, precision=Precision(precision), widths=widths).SerializeToString()
    session = open_session(graph, threads=torch.get_num_threads())
    return OnnxRunner(graph, session, config, policy, subject.full_config, precision)


SOURCE = "ONNX Runtime (Microsoft); DynamicQuantizeMatMul of its contributed operators for int8"

FLOAT32 = Backend(
    name="onnxruntime",
    summary="the exported graph in ONNX Runtime, float32",
    source=SOURCE,
    make=partial(make_onnx_runner, precision="fp32"),
    exports="fp32",
)

INT8 = Backend(
    name="onnxruntime-int8",
    summary="the exported graph in ONNX Runtime, dense products in int8, dynamically quantized",
    source=SOURCE,
    make=partial(make_onnx_runner, precision="int8"),
    exports="int8",
)
