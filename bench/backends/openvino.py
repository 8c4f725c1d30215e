"""OpenVINO: Hugging Face's BERT, converted; in int8 quantized by NNCF on training texts."""

from __future__ import annotations

import contextlib
import io
import sys
import warnings
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from bench.backends import Backend
from bench.backends.dense import DenseRunner, plain_bert

if TYPE_CHECKING:
    import numpy as np
    import openvino
    from numpy.typing import NDArray
    from torch import Tensor

    from bench.backends.runners import Subject
    from efficient_bert.rows import Rows

    Arrays = dict[str, NDArray[np.int64]]
    """The inputs of one text, (1, L) each."""
    Call = tuple[openvino.InferRequest, Arrays]
    """What answers a text, and its inputs."""

STEP = 16
"""Static lengths are multiples of it; a text is padded to the next one."""


def make_dynamic_runner(subject: Subject) -> DenseRunner:
    """Make a runner of one graph for every length, in the precision that OpenVINO chooses for this processor."""
    load_openvino()
    graph = convert(subject, masked=False)
    compiled = compile_graph(graph)
    request = compiled.create_infer_request()

    @cache
    def meet(length: int) -> openvino.InferRequest:
        """Run a length once: the first pass of each makes kernels for it."""
        answer_one(request, inputs_of([0] * length, [0] * length))
        return request

    def ready(rows: Rows) -> list[Call]:
        return [(meet(len(row["input_ids"])), inputs_of(row["input_ids"], row["token_type_ids"])) for row in rows]

    def on_one_thread() -> DenseRunner:
        parallel = compile_graph(graph, in_parallel=True)

        def ready_in_parallel(rows: Rows) -> list[Call]:
            inputs = (inputs_of(row["input_ids"], row["token_type_ids"]) for row in rows)
            return [(parallel.create_infer_request(), arrays) for arrays in inputs]

        return runner_of(subject, ready_in_parallel, parallel, dtype=precision_of(parallel))

    return runner_of(subject, ready, compiled, dtype=precision_of(compiled), one_thread=on_one_thread)


def make_int8_runner(subject: Subject) -> DenseRunner:
    """Make a runner of weights and activations in int8, with a graph for every static length that is asked for.

    A graph of changing lengths in int8 can end the process on processors with AMX (OpenVINO 2026.1 to 2026.3, its
    issue 37577).
    """
    load_openvino()
    graph = quantize(convert(subject, masked=True), subject.calibration())
    return make_static_runner(subject, graph, one_thread=partial(make_static_runner, subject, graph, in_parallel=True))


def make_static_runner(
    subject: Subject,
    graph: openvino.Model,
    *,
    in_parallel: bool = False,
    one_thread: Callable[[], DenseRunner] | None = None,
) -> DenseRunner:
    """Make a runner of a quantized graph, compiled for each static length.

    Args:
        graph: that takes a mask.
        in_parallel: it answers from several threads at once; every text then has a request of its own.
        one_thread: of the runner.
    """
    longest = subject.model.config.max_position_embeddings

    @cache
    def compiled_at(length: int) -> openvino.CompiledModel:
        static = graph.clone()
        static.reshape({name: [1, length] for name in padded_inputs([], [])})
        return compile_graph(static, in_parallel=in_parallel)

    def new_request(length: int) -> openvino.InferRequest:
        return compiled_at(length).create_infer_request()

    request_at = new_request if in_parallel else cache(new_request)

    def ready(rows: Rows) -> list[Call]:
        lengths = [min(-(-len(row["input_ids"]) // STEP) * STEP, longest) for row in rows]
        return [
            (request_at(length), padded_inputs(row["input_ids"], row["token_type_ids"], length))
            for row, length in zip(rows, lengths, strict=True)
        ]

    return runner_of(subject, ready, compiled_at(min(STEP, longest)), dtype="int8", one_thread=one_thread)


def load_openvino() -> None:
    """Import OpenVINO without its reports of use, which it would send over the network."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino  # noqa: F401


def convert(subject: Subject, *, masked: bool) -> openvino.Model:
    """Convert Hugging Face's copy of the model, for one text of any length.

    Args:
        masked: it takes an attention mask too.
    """
    import openvino
    import torch

    given = {"input_ids": torch.zeros(1, STEP, dtype=torch.int64)}
    given["token_type_ids"] = given["input_ids"].clone()
    if masked:
        given["attention_mask"] = torch.ones_like(given["input_ids"])
    length = torch.export.Dim("length", min=2, max=subject.model.config.max_position_embeddings)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names within torch that the converter should no longer use
        exported = torch.export.export(
            plain_bert(subject.model, attention="sdpa"), (), given, dynamic_shapes={name: {1: length} for name in given}
        )
        graph = openvino.convert_model(exported)
    for part, name in zip(graph.inputs, given, strict=True):
        part.get_tensor().set_names({name})
    graph.reshape({name: [1, -1] for name in given})
    return graph


def quantize(graph: openvino.Model, rows: Rows) -> openvino.Model:
    """Quantize weights and activations to int8; the ranges of activations are those of these rows."""
    with contextlib.redirect_stdout(io.StringIO()):  # progress bars of its own
        import nncf

        return nncf.quantize(
            graph,
            nncf.Dataset(rows, lambda row: padded_inputs(row["input_ids"], row["token_type_ids"])),
            model_type=nncf.ModelType.TRANSFORMER,
            subset_size=len(rows),
        )


def compile_graph(graph: openvino.Model, *, in_parallel: bool = False) -> openvino.CompiledModel:
    """Compile for as many threads as PyTorch has.

    Args:
        in_parallel: each thread answers a text of its own; otherwise all work on one text at a time.
    """
    import openvino
    import torch

    threads = torch.get_num_threads()
    settings = {"NUM_STREAMS": threads if in_parallel else 1, "INFERENCE_NUM_THREADS": threads}
    return openvino.Core().compile_model(graph, "CPU", settings)


def inputs_of(ids: Sequence[int], types: Sequence[int]) -> Arrays:
    """Make the arrays of one text, without a mask."""
    import numpy as np

    return {"input_ids": np.array([ids], np.int64), "token_type_ids": np.array([types], np.int64)}


def padded_inputs(ids: Sequence[int], types: Sequence[int], length: int | None = None) -> Arrays:
    """Make the arrays of one text, with a mask; padded to `length` where it is given."""
    import numpy as np

    arrays = {**inputs_of(ids, types), "attention_mask": np.ones((1, len(ids)), np.int64)}
    fill = 0 if length is None else length - len(ids)
    return {name: np.pad(part, [(0, 0), (0, fill)]) for name, part in arrays.items()}


def runner_of(
    subject: Subject,
    ready: Callable[[Rows], list[Call]],
    compiled: openvino.CompiledModel,
    *,
    dtype: str,
    one_thread: Callable[[], DenseRunner] | None = None,
) -> DenseRunner:
    """Make the runner that answers texts one by one."""
    import openvino

    environment = {
        "dtype": dtype,
        "float_dtype": precision_of(compiled),
        "openvino": openvino.__version__,
        "threads": compiled.get_property("INFERENCE_NUM_THREADS"),
        "streams": compiled.get_property("NUM_STREAMS"),
    }
    return DenseRunner(ready, answer, subject.model.config, subject.full_config, environment, one_thread)


def answer(calls: Sequence[Call]) -> Tensor:
    """Answer texts one by one: (B, C) logits."""
    import torch

    return torch.cat([answer_one(request, arrays) for request, arrays in calls])


def answer_one(request: openvino.InferRequest, arrays: Arrays) -> Tensor:
    """Answer a text: (1, C) logits."""
    import torch

    request.infer(arrays, share_inputs=True)
    return torch.tensor(request.get_output_tensor(0).data)


def precision_of(compiled: openvino.CompiledModel) -> str:
    """Return the type in which OpenVINO computes what is not quantized: "bf16" where the processor has it."""
    name: Any = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    return str(name)


DEFAULT = Backend(
    name="openvino",
    summary="OpenVINO in the precision it chooses: bfloat16 where the processor has it, else float32",
    source="OpenVINO (Intel), of transformers' BertForSequenceClassification",
    make=make_dynamic_runner,
    dense=True,
    packages=("openvino",),
    extra="openvino",
)

INT8 = Backend(
    name="openvino-int8",
    summary="OpenVINO, weights and activations in int8, quantized by NNCF on 128 training texts; static lengths",
    source="OpenVINO and NNCF (Intel), of transformers' BertForSequenceClassification",
    make=make_int8_runner,
    dense=True,
    packages=("openvino", "nncf"),
    extra="openvino",
)
