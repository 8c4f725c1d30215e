"""Folders of foreign models: what is no sound BERT encoder is refused in the plan, in one line, by what is wrong."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertModel

from bench.backbones.resolving import resolve
from bench.errors import InputError
from bench.planning.describe import describe
from bench.runs.train import fresh_model
from efficient_bert import EfficientBertConfig, EfficientBertForSequenceClassification
from efficient_bert import InputError as LibraryError
from tests.support.backbone_folders import (
    POINTER,
    Damage,
    Tensors,
    change_json,
    change_weights,
    copy_sound,
    fields,
    index,
    keep_vocabulary_alone,
    linked_to_nowhere,
    named,
    planned,
    plus,
    recast,
    refusal,
    replaced,
    set_fields,
    shard,
    sound,
    vocabulary,
    weights,
    without_index,
    without_part,
)

QUERY = "encoder.layer.0.attention.self.query.weight"

CONFIGURATIONS: list[tuple[Damage, str]] = [
    (fields(position_embedding_type="relative_key_query"), "position_embedding_type is 'relative_key_query'"),
    (fields(is_decoder=True), "is_decoder is True"),
    (fields(add_cross_attention=True), "add_cross_attention is True"),
    (fields(pruned_heads={"0": [1]}), "pruned_heads"),
    (fields(adapters={"adapters": {"sst": "x"}, "config_map": {}}), "adapters"),
    (fields(quantization_config={"quant_method": "bitsandbytes"}), "quantization_config .* quantised"),
    (fields(quantization_config={"weights": {"bits": []}}), "quantization_config .* quantised"),
    (fields(auto_map={"AutoModel": "modeling.Own"}), "auto_map .* never run"),
    (fields(alibi_starting_size=512), "'alibi_starting_size' is 512"),
    (fields(num_hidden_groups=1), "num_hidden_groups"),
    (fields(architectures=["RobertaModel"]), "architectures .*RobertaModel"),
    (fields(model_type="distilbert"), "model_type 'distilbert'"),
    (fields(hidden_size="16"), "hidden_size is '16', but it takes a whole number"),
    (fields(num_attention_heads=None), "num_attention_heads is None"),
    (fields(num_attention_heads=3), "hidden_size is 16, but 3 heads must share it"),
    (fields(num_hidden_layers=0), "num_hidden_layers is 0"),
    (fields(layer_norm_eps=[1e-12]), "layer_norm_eps"),
    (fields(layer_norm_eps=float("nan")), "layer_norm_eps is nan"),
    (fields(hidden_dropout_prob=1.5), "hidden_dropout_prob is 1.5"),
    (fields(hidden_act="prelu"), "hidden_act is 'prelu'"),
    (fields(hidden_act=["gelu"]), "hidden_act"),
    (fields(pad_token_id=-1), "pad_token_id is -1"),
    (fields(torch_dtype="float12"), "torch_dtype is 'float12'"),
    (fields(id2label=["a", "b"]), "id2label"),
    (fields(hidden_size=None, type_vocab_size="2", is_decoder=True), "hidden_size .*type_vocab_size .*is_decoder"),
    (lambda folder: change_json(folder / "config.json", lambda each: each.pop("num_attention_heads")), "is absent"),
    (replaced("config.json", b'{"model_type": "bert", "hidden_act": "g\xe9lu"}'), "config.json is no JSON text"),
    (replaced("config.json", b'["bert"]'), "config.json holds a JSON list"),
    (replaced("config.json", b""), "config.json is empty"),
    (replaced("config.json", b"[" * 100_000), "config.json is no JSON text"),
    (replaced("config.json", POINTER), "config.json is a pointer .* git lfs pull"),
    (replaced("config.json", None), "config.json is a folder"),
    (linked_to_nowhere("config.json"), "config.json is a link to a file that is not there"),
    (replaced("adapter_config.json", b'{"peft_type": "LORA"}'), "adapter_config.json.* merge"),
]

WEIGHTS: list[tuple[Damage, str]] = [
    (fields(num_hidden_layers=1), "have 2 layers, but num_hidden_layers is 1"),
    (fields(num_hidden_layers=10**12), "have 2 layers, but num_hidden_layers is 1000000000000"),
    (fields(intermediate_size=64), r"other sizes .*have \[32, 16\] there, not \[64, 16\] \(intermediate_size 64"),
    (fields(max_position_embeddings=512), r"position_embeddings.weight .*\[64, 16\] there, not \[512, 16\]"),
    (fields(vocab_size=19), r"word_embeddings.weight .*\[18, 16\] there, not \[19, 16\]"),
    (plus("encoder.layer.0.attention.self.query.lora_A.weight", 2, 16), "hold 1 tensors that BERT has not.*lora_A"),
    (plus("encoder.layer.1.output.adapters.sst.adapter_up.weight", 16, 4), "adapters.sst"),
    (plus("encoder.layer.0.attention.self.distance_embedding.weight", 127, 8), "distance_embedding"),
    (plus("prefix_encoder.embedding.weight", 4, 16), "prefix_encoder"),
    (plus("encoder.layer.2.output.dense.bias", 16), "have 3 layers"),
    (plus("pooler.dense.extra", 16), "pooler.dense.extra"),
    (weights(lambda tensors: {f"roberta.{name}": value for name, value in tensors.items()}), "lack"),
    (weights(lambda tensors: {n: v for n, v in tensors.items() if n != QUERY}), f"lack 1 tensors .*{QUERY}"),
    (weights(lambda tensors: {n: v for n, v in tensors.items() if n != "pooler.dense.bias"}), "pooler.dense.bias"),
    (plus("embeddings.LayerNorm.gamma", 16), "which model.safetensors holds too"),
    (recast(QUERY, torch.int8), "of other types than BF16, F16, F32, F64"),
    (recast(QUERY, torch.float8_e4m3fn), "of other types"),
    (recast("embeddings.LayerNorm.weight", torch.bool), "of other types"),
    (lambda folder: (folder / "model.safetensors").rename(folder / "model.fp16.safetensors"), "model.fp16.safetensors"),
    (lambda folder: (folder / "model.safetensors").rename(folder / "adapter_model.safetensors"), "adapter_model"),
    (replaced("model.safetensors", POINTER), "pointer .* git lfs pull"),
    (replaced("model.safetensors", b""), "model.safetensors is empty"),
    (replaced("model.safetensors", None), "model.safetensors is a folder"),
    (replaced("model.safetensors", b"\x10" + b"\0" * 40), "the weights of backbone 'bert' cannot be read"),
    (linked_to_nowhere("model.safetensors"), "is a link to a file that is not there"),
    (without_part, "names 'model-00002-of-00003.safetensors', one of 1 files that are not there"),
    (without_index, "model-00001-of-00002.safetensors.* need model.safetensors.index.json"),
    (index(lambda each: each["weight_map"].update(more="model-00001-of-00002.safetensors")), "which it does not"),
    (index(lambda each: each["weight_map"].update({QUERY: "../model.safetensors"})), "beside it"),
    (index(lambda each: each["weight_map"].update({QUERY: 3})), "has no weight_map"),
    (index(lambda each: each.pop("weight_map")), "has no weight_map"),
    (lambda folder: [shard(folder), replaced("model.safetensors.index.json", b"{")(folder)], "index.json is no JSON"),
]


@named(CONFIGURATIONS)
def test_a_configuration_of_another_encoder_is_refused_by_its_field(damage: Damage, said: str, tmp_path: Path) -> None:
    """Fields that are mistyped, contradict each other or change what layers compute are named with their value."""
    folder = copy_sound(tmp_path / "bert")
    damage(folder)
    assert re.search(said, refusal(folder))


@named(WEIGHTS)
def test_weights_that_are_not_the_encoders_are_refused_by_their_tensor(
    damage: Damage, said: str, tmp_path: Path
) -> None:
    """Files that are absent or damaged, and tensors that are lacking, foreign, of other sizes or types, are named."""
    folder = copy_sound(tmp_path / "bert")
    damage(folder)
    assert re.search(said, refusal(folder))


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "vocab.txt"])
def test_files_without_the_right_to_read_are_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line names the file and the reason; the test may run as root, who may read everything."""
    folder, opening = copy_sound(tmp_path / "bert"), Path.open

    def closed(path: Path, *given: Any, **options: Any) -> Any:
        if path.name == name:
            raise PermissionError(13, "Permission denied", str(path))
        return opening(path, *given, **options)

    monkeypatch.setattr(Path, "open", closed)
    assert re.search(rf"{name} cannot be read \(Permission denied\)", refusal(folder))


def one_segment(tensors: Tensors) -> Tensors:
    """A table of one segment."""
    name = "embeddings.token_type_embeddings.weight"
    return {**tensors, name: tensors[name][:1]}


def test_pairs_need_two_segments(tmp_path: Path) -> None:
    """A backbone of one segment takes single texts, and is refused for pairs by its field."""
    folder = copy_sound(tmp_path / "bert")
    set_fields(folder, {"type_vocab_size": 1})
    change_weights(folder, one_segment)
    planned(folder)
    assert re.search("type_vocab_size is 1, but the pairs of task 'mrpc' need two segments", refusal(folder, "mrpc"))


def renamed(change: Callable[[str], str]) -> Damage:
    """Write the tensors under other names."""
    return weights(lambda tensors: {change(name): value for name, value in tensors.items()})


def old_names(name: str) -> str:
    """Layer norms as they were called first."""
    return name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")


HARMLESS: list[Damage] = [
    lambda folder: None,
    fields(gradient_checkpointing=False, directionality="bidi", pooler_type="first_token_transform", language="en"),
    fields(architectures=["BertForMaskedLM"], use_cache=False, torch_dtype="float16", chunk_size_feed_forward=2),
    fields(adapters={"adapters": {}, "config_map": {}}, pruned_heads={}, quantization_config=None),
    fields(num_beams=4, task_specific_params={"summarization": {}}, torchscript=True, output_hidden_states=True),
    renamed("bert.{}".format),
    renamed(old_names),
    plus("embeddings.position_ids", 1, 64),
    weights(lambda tensors: {n: v for n, v in tensors.items() if not n.startswith("pooler.")}),
    weights(lambda tensors: {**{f"bert.{n}": v for n, v in tensors.items()}, "cls.predictions.bias": torch.ones(18)}),
    shard,
    keep_vocabulary_alone,
    replaced("modules.json", b"[]"),
    replaced("README.md", b"# about"),
    lambda folder: (folder / "vocab.txt").write_text((folder / "vocab.txt").read_text() + "\n"),
    lambda folder: (folder / "vocab.txt").unlink(),
    vocabulary(list),
]


@pytest.mark.parametrize("change", HARMLESS)
def test_what_changes_no_answer_is_taken(change: Damage, tmp_path: Path) -> None:
    """Old names, heads of pretraining, absent poolers and leftovers of saving give Hugging Face's states."""
    folder = copy_sound(tmp_path / "bert")
    change(folder)
    ours = fresh_model(planned(folder), 0).eval()
    theirs = BertModel.from_pretrained(sound()[0]).eval()
    batch = {"input_ids": torch.tensor([[2, 5, 6, 9, 3]]), "attention_mask": torch.ones(1, 5, dtype=torch.int64)}
    with torch.inference_mode():
        wanted = theirs(**batch, output_hidden_states=True).hidden_states
        states = ours(**batch, output_hidden_states=True).hidden_states
    for own, other in zip(states, wanted, strict=True):
        torch.testing.assert_close(own, other, atol=1e-5, rtol=1e-5)


def test_unknown_fields_are_named_in_the_plan(tmp_path: Path) -> None:
    """A field that nobody knows and that does not sound like the encoder is told, not dropped silently."""
    folder = copy_sound(tmp_path / "bert")
    set_fields(folder, {"favourite": "blue", "colour": 0})
    line = next(line for line in describe(planned(folder), (), 0.0) if line.startswith("backbone"))
    assert line.endswith(", without the fields favourite of its config.json")


def test_the_encoder_in_a_folder_below_is_pointed_to(tmp_path: Path) -> None:
    """A folder whose part holds the encoder, as sentence-transformers saves, is told which to give."""
    copy_sound(tmp_path / "sentences" / "0_Transformer")
    with pytest.raises(InputError, match=r"encoder seems to be in .*0_Transformer: give that"):
        resolve(str(tmp_path / "sentences"))


def test_expected_tensors_are_hugging_faces() -> None:
    """The tensors that are asked for, and their shapes, are those of BertModel."""
    from bench.backbones.weights import LAYER_SHAPES, POOLER_SHAPES, SHAPES

    config = BertConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=12, vocab_size=9,
        max_position_embeddings=7, type_vocab_size=3,
    )  # fmt: skip
    inner = {f"encoder.layer.0.{name}": shape for name, shape in LAYER_SHAPES.items()}
    own = {
        name: tuple(getattr(config, field) for field in shape)
        for name, shape in {**SHAPES, **inner, **POOLER_SHAPES}.items()
    }
    assert own == {name: tuple(value.shape) for name, value in BertModel(config).state_dict().items()}


@pytest.mark.parametrize(
    "change", [{"is_decoder": True}, {"add_cross_attention": True}, {"position_embedding_type": "relative_key"}]
)
def test_the_library_refuses_other_encoders_too(change: dict[str, Any], tmp_path: Path) -> None:
    """A checkpoint of BERT that is no plain encoder is refused by its field, however it is loaded."""
    folder = copy_sound(tmp_path / "bert")
    set_fields(folder, change)
    with pytest.raises(LibraryError, match=next(iter(change))):
        EfficientBertConfig.from_bert(BertConfig.from_pretrained(folder))
    with pytest.raises(LibraryError, match=next(iter(change))):
        EfficientBertForSequenceClassification.from_pretrained(folder)


def test_other_special_tokens_are_another_backbone(tmp_path: Path) -> None:
    """Files that change word pieces or what is read of the weights change the identity; usual ones do not."""
    folder = copy_sound(tmp_path / "bert")
    before = resolve(str(folder)).identity
    path = folder / "special_tokens_map.json"
    path.write_text('{"cls_token": "[CLS]", "pad_token": "[PAD]"}', encoding="utf8")
    assert resolve(str(folder)).identity == before
    path.write_text('{"cls_token": "[SEP]"}', encoding="utf8")
    other = resolve(str(folder)).identity
    (folder / "added_tokens.json").write_text('{"more": 17}', encoding="utf8")
    assert len({before, other, resolve(str(folder)).identity}) == 3
