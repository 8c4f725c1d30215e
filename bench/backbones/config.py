"""The configuration of a foreign BERT: what of it is taken, what is refused, and what is harmless.

Only the fields of `TAKEN` reach the model. Of all others it must be known that they change no answer: a field that says
that the encoder is another than BERT's is refused, one that nobody knows is named in the plan.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.backbones.files import json_object, show_value
from bench.errors import InputError

Fields = Mapping[str, Any]


@dataclass(frozen=True)
class Rule:
    """What a field takes, in words, and the test for it."""

    words: str
    holds: Callable[[Any], bool]


def is_whole(value: object) -> bool:
    """Say whether this is a whole number; true and false are none."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> bool:
    """Say whether this is a finite number."""
    return is_whole(value) or (isinstance(value, float) and math.isfinite(value))


def is_activation(value: object) -> bool:
    """Say whether this names an activation of transformers without parameters."""
    from transformers.activations import ACT2FN

    if not isinstance(value, str) or value not in ACT2FN:
        return False
    try:
        return not list(ACT2FN[value].parameters())
    except TypeError:  # one that is made from other arguments
        return False


def are_names(value: object) -> bool:
    """Say whether this is an object of class numbers, from 0 on without a gap, and names."""
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value.values()):
        return False
    numbers = [int(number) for number in value if re.fullmatch(r"[0-9]{1,6}", number)]
    return sorted(numbers) == list(range(len(value)))


def or_none(rule: Rule) -> Rule:
    """Return a rule that also takes null."""
    return Rule(f"{rule.words}, or null", lambda value: value is None or rule.holds(value))


COUNT = Rule("a whole number of 1 or more", lambda value: is_whole(value) and value >= 1)
CHANCE = Rule("a number of 0 or more and below 1", lambda value: is_number(value) and 0 <= value < 1)
SMALL = Rule("a number above 0", lambda value: is_number(value) and value > 0)

TAKEN = {
    "vocab_size": COUNT,
    "hidden_size": COUNT,
    "num_hidden_layers": COUNT,
    "num_attention_heads": COUNT,
    "intermediate_size": COUNT,
    "max_position_embeddings": Rule("a whole number of 3 or more", lambda value: is_whole(value) and value >= 3),
    "type_vocab_size": COUNT,
    "hidden_act": Rule(
        "the name of an activation without parameters, such as gelu, gelu_new, relu, silu or tanh", is_activation
    ),
    "hidden_dropout_prob": CHANCE,
    "attention_probs_dropout_prob": CHANCE,
    "classifier_dropout": or_none(CHANCE),
    "initializer_range": SMALL,
    "layer_norm_eps": SMALL,
    "pad_token_id": or_none(Rule("a whole number of 0 or more", lambda value: is_whole(value) and value >= 0)),
}
"""Fields that the model gets, and what each takes; BERT's own value where one is absent, as in transformers."""

DTYPES = [f"{before}{name}" for before in ("", "torch.") for name in ("float32", "float16", "bfloat16", "float64")]
PROBLEMS = ("single_label_classification", "multi_label_classification", "regression")

CHECKED = {
    "id2label": or_none(Rule("an object of class numbers from 0 on and their names", are_names)),
    "num_labels": or_none(COUNT),
    "problem_type": or_none(Rule(f"one of {', '.join(PROBLEMS)}", lambda value: value in PROBLEMS)),
    "architectures": or_none(
        Rule(
            "a list of classes of BERT such as BertModel (write that where the encoder is plain BERT)",
            lambda value: (
                isinstance(value, list) and all(isinstance(name, str) and name.startswith("Bert") for name in value)
            ),
        )
    ),
    "dtype": or_none(Rule("float32, float16, bfloat16 or float64", lambda value: value in DTYPES)),
    "torch_dtype": or_none(Rule("float32, float16, bfloat16 or float64", lambda value: value in DTYPES)),
    "quantization_config": Rule(
        "null: quantised weights are not read; save them as float32", lambda value: value is None
    ),
    "position_embedding_type": or_none(
        Rule("absolute (relative positions are not computed here)", lambda value: value == "absolute")
    ),
}
"""Fields that say what the weights are, and what each takes."""

REFUSED = {
    "is_decoder": "a decoder's words see only those before them",
    "is_encoder_decoder": "there is no decoder here",
    "add_cross_attention": "there is no other text to attend to",
    "pruned_heads": "layers of unequal heads are not read",
    "auto_map": "it names code, which is never run; remove it where the encoder is plain BERT",
    "per_layer_config": "layers of unequal sizes are not read",
    "adapters": "adapters are not computed; merge them into the weights, or remove them",
}
"""Fields that must be off, and why."""

HARMLESS = {
    "_attn_implementation",
    "_attn_implementation_autoset",
    "_commit_hash",
    "_name_or_path",
    "_num_labels",
    "attn_implementation",
    "bad_words_ids",
    "begin_suppress_tokens",
    "bos_token_id",
    "chunk_size_feed_forward",
    "cross_attention_hidden_size",
    "decoder_start_token_id",
    "directionality",
    "diversity_penalty",
    "do_sample",
    "early_stopping",
    "encoder_no_repeat_ngram_size",
    "eos_token_id",
    "eos_token_ids",
    "exponential_decay_length_penalty",
    "finetuning_task",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "gradient_checkpointing",
    "id2label",
    "keys_to_ignore_at_inference",
    "label2id",
    "language",
    "length_penalty",
    "max_length",
    "min_length",
    "model_type",
    "name",
    "name_or_path",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_return_sequences",
    "output_attentions",
    "output_hidden_states",
    "output_past",
    "output_scores",
    "pooler_fc_size",
    "pooler_num_attention_heads",
    "pooler_num_fc_layers",
    "pooler_size_per_head",
    "pooler_type",
    "prefix",
    "remove_invalid_values",
    "repetition_penalty",
    "return_dict",
    "return_dict_in_generate",
    "sbert_ce_default_activation_function",
    "sentence_transformers",
    "sep_token_id",
    "suppress_tokens",
    "task_specific_params",
    "temperature",
    "tf_legacy_loss",
    "tie_encoder_decoder",
    "tie_last_hidden_states",
    "tie_word_embeddings",
    "tokenizer_class",
    "top_k",
    "top_p",
    "torchscript",
    "transformers_version",
    "typical_p",
    "use_bfloat16",
    "use_cache",
    "xla_device",
}
"""Fields that no answer depends on: of saving, of generating text, of other heads."""

STRUCTURE = re.compile(
    r"act|adapter|alibi|attent|attn|bias|block|conv|cross|decod|embed|expert|factor|ffn|glu|group|head|hidden|kernel|"
    r"layer|lora|mask|mlp|moe|norm|posit|prompt|prun|quant|relative|residual|rope|rotary|scal|shar|span|spars|window"
)
"""Words in the names of fields that usually change the encoder's answers."""


def read_config(folder: Path) -> Fields:
    """Read the fields of config.json, checked, with BERT's values for those of `TAKEN` that are absent.

    Raises:
        InputError: it cannot be read, or holds what no BERT encoder has; one line names everything that is wrong.
    """
    from transformers import BertConfig

    path = folder / "config.json"
    given = json_object(path)
    problems = [*type_problems(given), *foreign_fields(given), *conflicts(given)]
    if problems:
        more = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise InputError(f"{path}: {'; '.join(problems[:3])}{more}")
    usual = BertConfig()
    return {**{name: getattr(usual, name) for name in TAKEN}, **given}


def type_problems(given: Fields) -> Iterator[str]:
    """Yield what is wrong with single fields."""
    for name, rule in {**TAKEN, **CHECKED}.items():
        if name in given and not rule.holds(given[name]):
            yield f"{name} is {show_value(given[name])}, but it takes {rule.words}"


def foreign_fields(given: Fields) -> Iterator[str]:
    """Yield the fields that make it another encoder than BERT's."""
    for name, value in given.items():
        if is_off(value):
            continue
        if name in REFUSED:
            yield f"{name} is {show_value(value)}, but {REFUSED[name]}"
        elif name in unknown_fields(given) and STRUCTURE.search(name.lower()):
            yield (
                f"{show_value(name)} is {show_value(value)}, but BERT has no such field, and it may change the "
                "encoder; remove it where the encoder is plain BERT"
            )


def conflicts(given: Fields) -> Iterator[str]:
    """Yield what is wrong with fields beside each other; the heads have to be there, since no tensor tells them."""
    heads, size = given.get("num_attention_heads"), given.get("hidden_size", 768)
    if "num_attention_heads" not in given:
        yield "num_attention_heads is absent, and the weights do not tell it; add it"
    elif COUNT.holds(heads) and COUNT.holds(size) and size % heads:
        yield f"hidden_size is {size}, but {heads} heads must share it equally (num_attention_heads)"


def is_off(value: object) -> bool:
    """Say whether a field says that what it names is not there: null, false, 0, nothing, or only such inside."""
    if isinstance(value, dict):
        return all(map(is_off, value.values()))
    return value in (None, False, 0, "", [])


def unknown_fields(given: Fields) -> tuple[str, ...]:
    """Return fields that are switched on and that nothing here knows; they are not used."""
    known = {*TAKEN, *CHECKED, *REFUSED, *HARMLESS}
    return tuple(name for name, value in given.items() if name not in known and not is_off(value))
