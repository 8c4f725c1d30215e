"""Configuration: BERT's own fields, and which adaptive parts exist."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers import BertConfig
from transformers.activations import ACT2FN

from efficient_bert.errors import InputError


class EfficientBertConfig(BertConfig):
    """BERT's fields plus the adaptive parts.

    Args:
        exit_depths: depths (layers run, 1..N-1) after which an exit head exists, ascending.
        contribution_size: inner size of the contribution predictors, one before every layer; 0 = there are none.
        length_profile: fraction of a text's tokens that the predictors leave for each layer, over the rows they were
            chosen on; empty where it was not measured.
        kwargs: every field of `transformers.BertConfig`.

    Raises:
        InputError: heads that do not divide the hidden size, an unknown activation, a negative size, or an exit depth
            that is outside 1..N-1, unsorted or repeated.
    """

    model_type = "efficient_bert"

    def __init__(
        self,
        exit_depths: Sequence[int] = (),
        contribution_size: int = 0,
        length_profile: Sequence[float] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.exit_depths = list(exit_depths)
        self.length_profile = list(length_profile)
        if self.hidden_size % self.num_attention_heads:
            raise InputError(
                f"hidden_size is {self.hidden_size}, but {self.num_attention_heads} heads must share it equally"
            )
        if self.hidden_act not in ACT2FN:
            raise InputError(f"hidden_act is {self.hidden_act!r}, which transformers has no activation for")
        self.contribution_size = contribution_size
        inner = range(1, self.num_hidden_layers)
        if sorted(set(self.exit_depths)) != self.exit_depths or any(depth not in inner for depth in self.exit_depths):
            raise InputError(
                f"exit_depths is {self.exit_depths}, but exits are ascending depths in 1..{self.num_hidden_layers - 1}"
            )
        if contribution_size < 0:
            raise InputError(f"contribution_size is {contribution_size}, but a size is 0 (no predictors) or more")

    @property
    def head_size(self) -> int:
        """Dimensions of one attention head."""
        return int(self.hidden_size // self.num_attention_heads)

    @property
    def padding(self) -> int:
        """The word piece that fills short rows."""
        return int(self.pad_token_id or 0)

    @property
    def classes(self) -> int:
        """Number of classes C."""
        return len(self.id2label or ())

    @property
    def regression(self) -> bool:
        """Whether the one output is a real-valued score, as Hugging Face tells it."""
        return self.classes == 1 and self.problem_type in (None, "regression")

    @classmethod
    def from_bert(cls, source: BertConfig, **changes: Any) -> EfficientBertConfig:
        """The same architecture as a BERT checkpoint's configuration, with `changes` applied."""
        fields = source.to_dict()
        fields.pop("model_type", None)
        if "id2label" in changes or "num_labels" in changes:  # the source's own classes would contradict them
            fields = {name: value for name, value in fields.items() if name not in ("id2label", "label2id")}
        return cls(**{**fields, **changes})
