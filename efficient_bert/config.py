"""Configuration: BERT's own fields, and which adaptive parts exist."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from transformers import BertConfig
from transformers.activations import ACT2FN

from efficient_bert.errors import InputError

PLAIN = {
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "add_cross_attention": False,
    "pruned_heads": {},
}
"""Fields of a BERT checkpoint that change what its layers compute, at the only values that are computed here."""


class EfficientBertConfig(BertConfig):
    """BERT's fields plus the adaptive parts.

    Args:
        exit_depths: depths (layers run, 1..N-1) after which an exit head exists, ascending.
        shared_head: the exits are answered by the final pooler and classifier, not by heads of their own.
        contribution_size: inner size of the contribution predictors, one before every layer; 0 = there are none.
        length_profile: fraction of a text's tokens that the predictors leave for each layer, over the rows they were
            chosen on; empty where it was not measured.
        layer_heads: heads that each layer has, with the same fraction of its neurons; empty = all of them.
        num_gates: width gates, each for N / num_gates consecutive layers; 0 = there are none.
        widths: those that the model was trained at, ascending, which its gates tell apart; empty = the full one.
        depths: fractions of the layers that the model was trained at, ascending; empty = the full one.
        depth_rule: which layers are left at a depth, a `DepthRule`.
        gate_profile: for each gate the share of examples that it gives each of the `widths`, over rows that no stage
            learnt on; empty where it was not measured.
        exit_profile: rows of a threshold, ascending, and the share of all examples that leave at each of the
            `exit_depths` under it, likewise; empty where it was not measured.
        staying_profile: for each row of `exit_profile`, as `gate_profile`, over the examples that are still there.
        kwargs: every field of `transformers.BertConfig`.

    Raises:
        InputError: heads that do not divide the hidden size, an unknown activation, a negative size, gates that do
            not divide the layers, widths without a head, an exit depth that is outside 1..N-1, unsorted or repeated, or
            fields of a BERT checkpoint that make it another encoder.
    """

    model_type = "efficient_bert"

    def __init__(
        self,
        exit_depths: Sequence[int] = (),
        shared_head: bool = False,
        contribution_size: int = 0,
        length_profile: Sequence[float] = (),
        layer_heads: Sequence[int] = (),
        num_gates: int = 0,
        widths: Sequence[float] = (),
        depths: Sequence[float] = (),
        depth_rule: str = "prefix",
        gate_profile: Sequence[Sequence[float]] = (),
        exit_profile: Sequence[Sequence[float]] = (),
        staying_profile: Sequence[Sequence[Sequence[float]]] = (),
        **kwargs: Any,
    ) -> None:
        if kwargs.get("model_type") == BertConfig.model_type:  # a checkpoint of BERT, not one of ours
            check_plain(kwargs)
        super().__init__(**kwargs)
        self.exit_depths = list(exit_depths)
        self.length_profile = list(length_profile)
        self.shared_head = shared_head
        self.layer_heads = list(layer_heads)
        self.num_gates = num_gates
        self.widths = list(widths)
        self.depths = list(depths)
        self.depth_rule = depth_rule
        self.gate_profile = [list(shares) for shares in gate_profile]
        self.exit_profile = [list(row) for row in exit_profile]
        self.staying_profile = [[list(shares) for shares in row] for row in staying_profile]
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
        self._check_widths()

    def _check_widths(self) -> None:
        layers, heads = self.num_hidden_layers, self.num_attention_heads
        if self.layer_heads and (
            len(self.layer_heads) != layers or any(count not in range(1, heads + 1) for count in self.layer_heads)
        ):
            raise InputError(f"layer_heads is {self.layer_heads}, but {layers} layers each have 1 to {heads} heads")
        check_gates(self.num_gates, layers=layers)
        if self.num_gates or self.widths:
            check_widths(self.widths, heads=heads)

    @property
    def head_size(self) -> int:
        """Dimensions of one attention head."""
        return int(self.hidden_size // self.num_attention_heads)

    @property
    def heads_by_layer(self) -> tuple[int, ...]:
        """Heads that each layer has."""
        return tuple(self.layer_heads) or (self.num_attention_heads,) * self.num_hidden_layers

    def neurons(self, heads: int) -> int:
        """Return the feed-forward neurons that go with `heads` heads: the same fraction."""
        return int(heads * self.intermediate_size // self.num_attention_heads)

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
        """Whether the one output is a real-valued score, by Hugging Face's rule."""
        return self.classes == 1 and self.problem_type in (None, "regression")

    @classmethod
    def from_bert(cls, source: BertConfig, **changes: Any) -> EfficientBertConfig:
        """Make a configuration of the same architecture as a BERT checkpoint's, with `changes` applied.

        Raises:
            InputError: the checkpoint is no plain encoder, or the changes do not fit it.
        """
        fields = source.to_dict()
        if fields.pop("model_type", None) == BertConfig.model_type:
            check_plain(fields)
        if "id2label" in changes or "num_labels" in changes:  # the source's own classes would contradict them
            class_fields = ("id2label", "label2id", "problem_type")
            fields = {name: value for name, value in fields.items() if name not in class_fields}
        return cls(**{**fields, **changes})


def check_plain(fields: Mapping[str, Any]) -> None:
    """Raise InputError where the fields of a BERT checkpoint's configuration make it another encoder than this one."""
    for name, usual in PLAIN.items():
        if (fields.get(name) or usual) != usual:
            raise InputError(f"{name} is {fields[name]!r}, but it must be {usual!r}: nothing else is computed here")


def count_kept(fraction: float, total: int, *, name: str, units: str) -> int:
    """Count the units that a fraction leaves of all: round(fraction * total), half to even.

    Raises:
        InputError: the fraction is not in (0, 1] or leaves none.
    """
    count = round(fraction * total) if 0 < fraction <= 1 else 0
    if not count:
        least = math.ceil(100 / total) / 100
        if 0 < fraction <= 1:
            raise InputError(
                f"{name} is {fraction:g}, which leaves none of {total} {units}; give {least:.2f} or more, at most 1"
            )
        raise InputError(
            f"{name} is {fraction:g}, but it is a fraction of the {total} {units}, in (0, 1]; give {least:.2f} to 1"
        )
    return count


def example_fractions(total: int) -> tuple[float, ...]:
    """Return ascending fractions up to 1 that leave different numbers of `total` units, for a message to propose."""
    by_count = {round(fraction * total): fraction for fraction in (0.25, 0.5, 0.75, 1.0)}
    return tuple(fraction for count, fraction in by_count.items() if count)


def kept_heads(width: float, heads: int, *, name: str = "the width") -> int:
    """Count the heads at a width: round(width * heads), half to even (DynaBERT, Hou et al., 2020, section 2.1).

    Raises:
        InputError: the width is not in (0, 1] or leaves no head.
    """
    return count_kept(width, heads, name=name, units="heads")


def check_widths(widths: Sequence[float], *, heads: int) -> None:
    """Raise InputError unless these are ascending, distinct widths that each leave a head."""
    for width in widths:
        kept_heads(width, heads)
    if not widths or sorted(set(widths)) != list(widths):
        raise InputError(
            f"the widths are {list(widths)}, but they ascend and differ, for example {list(example_fractions(heads))}"
        )


def check_gates(gates: int, *, layers: int) -> None:
    """Raise InputError where so many gates do not share the layers equally; 0 is none."""
    if gates and (gates < 0 or layers % gates):
        raise InputError(f"num_gates is {gates}, but gates divide {layers} layers equally; try {layers}")
