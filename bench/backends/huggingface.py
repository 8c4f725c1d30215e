"""Hugging Face's BERT with the weights of the trained model: what most people serve."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from bench.backends import Backend
from bench.backends.dense import DenseRunner, plain_bert
from bench.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from bench.backends.runners import Subject
    from efficient_bert.rows import Rows

GRAPHS = 64
"""Graphs that are compiled at most: one for single texts, and two for batches, with and without a mask, for each depth
of model."""


def make_plain_runner(
    subject: Subject, *, attention: str = "sdpa", dtype: str = "float32", compiled: bool = False
) -> DenseRunner:
    """Make a runner of Hugging Face's class.

    Args:
        attention: implementation, by Hugging Face's name.
        dtype: of the weights, by PyTorch's name.
        compiled: by `torch.compile`, for any length; a text is answered at once, so that compiling is not timed.

    Raises:
        InputError: the model cannot be compiled here.
    """
    import torch
    import transformers

    model = plain_bert(subject.model, attention=attention)
    torch.nn.Module.to(model, getattr(torch, dtype))
    environment = {
        "attention": model.config._attn_implementation,
        "dtype": str(model.dtype),
        "threads": torch.get_num_threads(),
        "transformers": transformers.__version__,
        "compiled": compiled,
    }
    call: Any = model
    if compiled:
        torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, GRAPHS)
        call = torch.compile(model, dynamic=True, fullgraph=True)

    def answer(inputs: dict[str, Tensor]) -> Tensor:
        with torch.inference_mode():
            logits: Tensor = call(**inputs).logits
        return logits

    ready = partial(padded, pad_token_id=subject.model.config.padding, device=subject.device)
    runner = DenseRunner(ready, answer, subject.model.config, subject.full_config, environment)
    if compiled:
        try:
            runner(runner.prepare([{"input_ids": [0] * 16, "token_type_ids": [0] * 16}]))
        except torch._dynamo.exc.TorchDynamoException as error:
            reason = str(error).strip().partition("\n")[0]
            raise InputError(
                f"torch.compile cannot compile the model: {reason}; install a C++ compiler, or leave hf-compile out"
            ) from error
    return runner


def padded(rows: Rows, *, pad_token_id: int, device: str) -> dict[str, Tensor]:
    """Pad rows to the longest: the model's arguments, (B, L) int64 each; rows of one length need no attention mask."""
    from efficient_bert.engine.batch import pad_rows

    inputs = {name: part.to(device) for name, part in pad_rows(rows, pad_token_id=pad_token_id).items()}
    if len({len(row["input_ids"]) for row in rows}) == 1:
        del inputs["attention_mask"]
    return inputs


SOURCE = "transformers (Hugging Face): BertForSequenceClassification"

EAGER = Backend(
    name="hf-eager",
    summary="Hugging Face's BERT, attention by plain products, float32",
    source=SOURCE,
    make=partial(make_plain_runner, attention="eager"),
    dense=True,
    devices=("cpu", "cuda"),
)

SDPA = Backend(
    name="hf-sdpa",
    summary="Hugging Face's BERT, fused attention, float32: what a pipeline runs",
    source=SOURCE,
    make=make_plain_runner,
    dense=True,
    devices=("cpu", "cuda"),
)

BFLOAT16 = Backend(
    name="hf-bf16",
    summary="Hugging Face's BERT, fused attention, bfloat16 weights",
    source=SOURCE,
    make=partial(make_plain_runner, dtype="bfloat16"),
    dense=True,
    devices=("cpu", "cuda"),
)

COMPILED = Backend(
    name="hf-compile",
    summary="Hugging Face's BERT compiled by torch.compile for any length, float32; needs a C++ compiler on a CPU",
    source=f"{SOURCE}; torch.compile (PyTorch)",
    make=partial(make_plain_runner, compiled=True),
    dense=True,
    devices=("cpu", "cuda"),
)
