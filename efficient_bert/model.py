"""`EfficientBertForSequenceClassification`: the encoder as a Hugging Face model, registered with the Auto classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel, initialization
from transformers.modeling_outputs import SequenceClassifierOutput

from efficient_bert.config import EfficientBertConfig
from efficient_bert.encoder.bert import Bert, Pooler
from efficient_bert.encoder.dropout import Dropout
from efficient_bert.engine.batch import Batch
from efficient_bert.engine.loop import Execution, run
from efficient_bert.engine.recorder import Output
from efficient_bert.errors import InputError
from efficient_bert.policies.contribution import Contribution, contribution_policy
from efficient_bert.policies.gates import Gates


class ExitHead(nn.Module):
    """A pooler and a classifier after an inner layer (DeeBERT, Xin et al., 2020, section 3.1)."""

    def __init__(self, config: EfficientBertConfig) -> None:
        super().__init__()
        self.pooler = Pooler(config)
        self.classifier = nn.Linear(config.hidden_size, config.classes)


@dataclass
class LengthReducedOutput(SequenceClassifierOutput):
    """A classification, and which tokens took part.

    Attributes:
        kept_positions: for each layer (B, n) int64, the input positions it ran on, ascending; rows that kept fewer
            than n are filled with -1.
    """

    kept_positions: tuple[Tensor, ...] | None = None


class EfficientBertForSequenceClassification(PreTrainedModel):
    """BERT with pooler and classifier, an exit head at each of `config.exit_depths`, and contribution predictors
    where `config.contribution_size` is not 0.

    On right-padded input `forward` is Hugging Face's `BertForSequenceClassification` (with padding on the left, the
    first real token is classified, not the first cell); adaptive passes go through `efficient_bert.engine.loop.run`.
    """

    config: EfficientBertConfig
    config_class = EfficientBertConfig
    base_model_prefix = "bert"
    _supports_sdpa = True

    def __init__(self, config: EfficientBertConfig) -> None:
        super().__init__(config)
        self.bert = Bert(config)
        dropout = config.classifier_dropout
        self.dropout = Dropout(config.hidden_dropout_prob if dropout is None else dropout)
        self.classifier = nn.Linear(config.hidden_size, config.classes)
        own_heads = () if config.shared_head else config.exit_depths
        self.exits = nn.ModuleDict({str(depth): ExitHead(config) for depth in own_heads})
        self.contribution = Contribution(config) if config.contribution_size else None
        self.gates = Gates(config) if config.num_gates else None
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, Contribution):
            # the predictors from here, because modules without parameters of their own are passed over
            for dense in (layer for layer in module.modules() if isinstance(layer, nn.Linear)):
                initialization.trunc_normal_(dense.weight, std=0.02, a=-0.04, b=0.04)
            initialization.constant_(module.eta, 0.25)
            initialization.ones_(module.theta)

    def classify(self, first: Tensor, *, depth: int | None = None) -> Tensor:
        """Classify [CLS] states (B, D) by the exit head at `depth`, or by the final head without one: (B, C) logits."""
        head = None if depth is None or self.config.shared_head else cast(ExitHead, self.exits[str(depth)])
        pooled = (head.pooler if head else self.bert.pooler)(first)
        logits: Tensor = (head or self).classifier(self.dropout(pooled) if self.training else pooled)
        return logits

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Compute the mean cross-entropy of logits (B, C) and classes (B,); mean squared error in a regression."""
        if self.config.regression:
            return F.mse_loss(logits[:, 0], labels.to(logits.dtype))
        return F.cross_entropy(logits, labels)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
        return_dict: bool = True,
        lr_mode: bool = False,
    ) -> SequenceClassifierOutput | tuple[Any, ...]:
        """Run the full model on a padded batch, as Hugging Face does; in `lr_mode`, drop tokens by contribution.

        Args:
            input_ids: (B, L) int64.
            attention_mask: (B, L), 1 or true = present; all present by default.
            token_type_ids: (B, L) int64, zeros by default.
            labels: (B,) int64 classes or, in a regression, scores, for a loss.
            output_hidden_states: also return N + 1 states (B, L, D).
            output_attentions: also return N attention maps (B, H, L, L); needs `attn_implementation="eager"`.
            return_dict: a tuple without it.
            lr_mode: drop the tokens that contribute too little before every layer; the result is a
                `LengthReducedOutput`.

        Raises:
            InputError: an example without tokens or with too many; attention maps of fused attention; `lr_mode`
                without contribution predictors or with states wanted.
        """
        if output_attentions and self.config._attn_implementation != "eager":
            raise InputError("fused attention returns no attention maps; load with attn_implementation='eager'")
        given = {"input_ids": input_ids, "attention_mask": attention_mask, "token_type_ids": token_type_ids}
        batch = Batch.of({name: value for name, value in given.items() if value is not None})
        record = output_hidden_states or output_attentions
        if lr_mode and record:
            raise InputError("lr_mode really drops tokens, so it has no padded states to return; ask without lr_mode")
        if lr_mode:
            output = self.drop_tokens(batch)
        else:
            output = run(self, batch, execution=Execution.SOFT, record=record, all_tokens=record)
        result = SequenceClassifierOutput(
            loss=None if labels is None else self.loss(output.logits, labels),
            logits=output.logits,
            hidden_states=output.hidden_states if output_hidden_states else None,
            attentions=output.attentions if output_attentions else None,
        )
        if lr_mode:
            kept = tuple(map(list_positions, output.trace.kept.unbind(1)))
            result = LengthReducedOutput(loss=result.loss, logits=result.logits, kept_positions=kept)
        return result if return_dict else result.to_tuple()

    def drop_tokens(self, batch: Batch) -> Output:
        """Run the pass that really drops tokens by contribution.

        Raises:
            InputError: the model has no contribution predictors.
        """
        return run(self, batch, contribution_policy(self.contributions()))

    def contributions(self) -> Contribution:
        """Return the contribution predictors and thresholds.

        Raises:
            InputError: the model has none.
        """
        if self.contribution is None:
            raise InputError(
                "the model has no contribution predictors (contribution_size is 0); train method 'adapler' or give "
                "EfficientBertConfig a contribution_size"
            )
        return self.contribution

    def width_gates(self) -> Gates:
        """Return the width gates.

        Raises:
            InputError: the model has none.
        """
        if self.gates is None:
            raise InputError("the model has no width gates (num_gates is 0); train method 'width_gates'")
        return self.gates


def list_positions(kept: Tensor) -> Tensor:
    """List where each row is true, ascending, filled with -1 to the largest count n: (B, L) bool -> (B, n) int64."""
    counts = kept.sum(1)
    listed = torch.full((len(kept), int(counts.max())), -1)
    listed[torch.arange(listed.shape[1]) < counts[:, None]] = kept.nonzero()[:, 1]
    return listed


def rebuild(model: EfficientBertForSequenceClassification, **fields: Any) -> EfficientBertForSequenceClassification:
    """Rebuild the model under a configuration with other `fields`; new parts and parts of another size start afresh."""
    config = EfficientBertConfig(**{**model.config.to_dict(), **fields})
    rebuilt: EfficientBertForSequenceClassification = EfficientBertForSequenceClassification._from_config(
        config, attn_implementation=model.config._attn_implementation
    )
    fresh, old = rebuilt.state_dict(), model.state_dict()
    shared = {name for name in fresh.keys() & old.keys() if fresh[name].shape == old[name].shape}
    rebuilt.load_state_dict({**fresh, **{name: old[name] for name in shared}})
    return rebuilt


AutoConfig.register(EfficientBertConfig.model_type, EfficientBertConfig, exist_ok=True)
AutoModelForSequenceClassification.register(EfficientBertConfig, EfficientBertForSequenceClassification, exist_ok=True)
