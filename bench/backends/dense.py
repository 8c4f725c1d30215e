"""Engines that know nothing of decisions: they answer with logits, and every layer runs on every token."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.backends.runners import count_flops
from bench.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import BertForSequenceClassification

    from bench.backends.runners import Counts
    from efficient_bert import EfficientBertConfig, EfficientBertForSequenceClassification
    from efficient_bert.engine.recorder import Output
    from efficient_bert.rows import Rows


@dataclass(frozen=True)
class DenseRunner:
    """An engine for BERT as a runner.

    Attributes:
        ready: encoded rows -> what one call of the engine takes.
        answer: what one call takes -> logits (B, C).
        config: of the model that answers.
        full_config: of the full model that it is compared with.
        environment: version, precision and threads of the engine, as it says them.
        one_thread: makes the same on one thread; None where it answers batches faster.
    """

    ready: Callable[[Rows], Any]
    answer: Callable[[Any], Tensor]
    config: EfficientBertConfig
    full_config: EfficientBertConfig
    environment: Mapping[str, Any]
    one_thread: Callable[[], DenseRunner] | None = None

    def prepare(self, rows: Rows) -> tuple[list[int], Any]:
        """Return the lengths of the rows, and what the engine takes."""
        return [len(row["input_ids"]) for row in rows], self.ready(rows)

    def __call__(self, inputs: tuple[list[int], Any]) -> Tensor:
        """Answer with logits (B, C)."""
        return self.answer(inputs[1])

    def output(self, inputs: tuple[list[int], Any], result: Tensor) -> Output:
        """Add the trace of full passes to the logits."""
        from efficient_bert.export.passes import output_of_full_passes

        return output_of_full_passes(result.float().cpu(), inputs[0], config=self.config)

    def on_one_thread(self) -> DenseRunner | None:
        """Return the same on one thread; None where it answers batches faster."""
        return self.one_thread() if self.one_thread else None

    def flops(self, output: Output) -> Counts:
        """Count the FLOPs of a pass and of the full model on its examples."""
        return count_flops(output, self.config, self.full_config)

    def published_flops(self, output: Output) -> Counts:
        """Count as `flops`: a pass that decides nothing has no count of its authors."""
        return self.flops(output)


def plain_bert(model: EfficientBertForSequenceClassification, *, attention: str) -> BertForSequenceClassification:
    """Copy the full model into Hugging Face's own class, in evaluation mode; what decides is left behind.

    Args:
        attention: implementation, by Hugging Face's name.

    Raises:
        InputError: its layers have different numbers of heads, which that class does not know.
    """
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    if model.config.layer_heads:
        raise InputError(
            f"the model's layers have {model.config.layer_heads} heads, but Hugging Face's BERT has as many in each; "
            f"leave this backend out, or take a backbone of full width"
        )
    fields = {name: value for name, value in model.config.to_dict().items() if name != "model_type"}
    plain: BertForSequenceClassification = BertForSequenceClassification._from_config(
        BertConfig(**fields), attn_implementation=attention
    )
    weights = model.state_dict()
    plain.load_state_dict({name: weights[name] for name in plain.state_dict()})
    plain.eval()
    torch.nn.Module.to(plain, model.device)
    return plain
