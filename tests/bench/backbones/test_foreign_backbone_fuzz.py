"""Backbones with random damage: each is refused in one line, or is the model that Hugging Face reads there."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError
from transformers import AutoTokenizer, BertModel

from bench.backbones.resolving import inspect, resolve
from bench.errors import InputError
from bench.planning.plan import Plan
from bench.registry import TASKS
from bench.runs.train import fresh_model
from tests.support.backbone_folders import POINTER, Tensors, change_weights, copy_sound, planned, shard, sound

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "40"))
TEXT = "The film was very Fine, and the plöt dull"

Draw = Callable[[st.SearchStrategy[Any]], Any]

VALUES: st.SearchStrategy[Any] = st.sampled_from(
    [
        *(
            None,
            True,
            False,
            "",
            "16",
            "true",
            "nan",
            "gelu",
            "relu",
            "gelu_new",
            "absolute",
            "relative_key",
            "float16",
        ),
        *(
            -1,
            0,
            1,
            2,
            3,
            4,
            5,
            16,
            18,
            32,
            64,
            512,
            10**30,
            0.0,
            0.1,
            1.0,
            16.0,
            1e-12,
            1e-5,
            -0.5,
            1e400,
            float("nan"),
        ),
        *([], {}, [1], ["BertModel"], ["RobertaModel"], {"0": "a"}, {"0": "a", "1": "b"}, {"a": {"b": []}}, "x" * 900),
        *("[UNK]", "[CLS]", "the", "##", "WordPiece", "BPE", "\ud800", "\n", "multi_label_classification"),
    ]
)
FIELDS = st.sampled_from(
    [
        "vocab_size",
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "intermediate_size",
        "hidden_act",
        "hidden_dropout_prob",
        "attention_probs_dropout_prob",
        "max_position_embeddings",
        "type_vocab_size",
        "initializer_range",
        "layer_norm_eps",
        "pad_token_id",
        "classifier_dropout",
        "is_decoder",
        "add_cross_attention",
        "is_encoder_decoder",
        "position_embedding_type",
        "pruned_heads",
        "dtype",
        "torch_dtype",
        "architectures",
        "model_type",
        "id2label",
        "label2id",
        "num_labels",
        "problem_type",
        "auto_map",
        "quantization_config",
        "adapters",
        "per_layer_config",
        "use_cache",
        "tie_word_embeddings",
        "return_dict",
        "output_hidden_states",
        "output_attentions",
        "chunk_size_feed_forward",
        "torchscript",
        "transformers_version",
        "rope_theta",
        "sliding_window",
        "embedding_size",
        "extra",
        "_attn_implementation",
        "attn_implementation",
        "tokenizer_class",
        "name_or_path",
        "task_specific_params",
    ]
)
NAMES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.txt")
NEW = ("classifier.weight", "classifier.bias", "embeddings.position_ids", "encoder.layer.2.output.dense.bias", "x", "é")
ADDED = ("adapter_config.json", "added_tokens.json", "special_tokens_map.json", "model.safetensors.index.json")


def change_field(draw: Draw, folder: Path) -> None:
    """Drop a field of config.json, or set one."""
    path = folder / "config.json"
    content = json.loads(path.read_text(encoding="utf8"))
    for name in draw(st.lists(FIELDS, min_size=1, max_size=2)):
        content.pop(name, None)
        if draw(st.booleans()):
            content[name] = draw(VALUES)
    path.write_text(json.dumps(content), encoding="utf8")


def change_place(draw: Draw, folder: Path) -> None:
    """Change or drop something anywhere in a tokenizer's JSON."""
    path = folder / draw(st.sampled_from(["tokenizer.json", "tokenizer_config.json"]))
    content = json.loads(path.read_text(encoding="utf8"))
    at: Any = content
    while True:
        keys = list(at) if isinstance(at, dict) else list(range(len(at)))
        if not keys:
            return
        key = draw(st.sampled_from(keys))
        if not isinstance(at[key], dict | list) or draw(st.integers(0, 3)) == 0:
            break
        at = at[key]
    if draw(st.booleans()):
        del at[key]
    else:
        at[key] = draw(VALUES)
    path.write_text(json.dumps(content), encoding="utf8")


def change_bytes(draw: Draw, folder: Path) -> None:
    """Cut a file, change a byte of it, or put one before it."""
    path = folder / draw(st.sampled_from(NAMES))
    content = bytearray(path.read_bytes() or b"\0")
    place = draw(st.integers(0, min(len(content) - 1, draw(st.sampled_from([10, 300, 10**6])))))
    match draw(st.sampled_from(["cut", "flip", "before"])):
        case "cut":
            content = content[:place]
        case "flip":
            content[place] ^= 1 << draw(st.integers(0, 7))
        case "before":
            content = bytearray(draw(st.sampled_from([b"\xef\xbb\xbf", b"\0", b" ", b"\n", b"\xff"]))) + content
    path.write_bytes(content)


def change_file(draw: Draw, folder: Path) -> None:
    """Remove a file, or write another thing in its place."""
    path = folder / draw(st.sampled_from([*NAMES, *ADDED]))
    path.unlink(missing_ok=True)
    match draw(st.sampled_from(["gone", "empty", "folder", "pointer", "link", "object", "list"])):
        case "empty":
            path.write_bytes(b"")
        case "folder":
            path.mkdir()
        case "pointer":
            path.write_bytes(POINTER)
        case "link":
            path.symlink_to("nowhere")
        case "object":
            path.write_text("{}", encoding="utf8")
        case "list":
            path.write_text('["[CLS]", 3]', encoding="utf8")


def change_tensor(draw: Draw, folder: Path) -> None:
    """Drop, rename, add, cast, cut or turn tensors."""

    def change(tensors: Tensors) -> Tensors:
        name = draw(st.sampled_from(sorted(tensors)))
        value = tensors[name]
        match draw(st.sampled_from(["drop", "rename", "add", "cast", "cut", "turn", "prefix", "all"])):
            case "drop":
                return {other: kept for other, kept in tensors.items() if other != name}
            case "rename":
                before = draw(st.sampled_from(["bert.", "roberta.", "cls.", "classifier.", "encoder.layer.7.", "x"]))
                return {(before + other if other == name else other): kept for other, kept in tensors.items()}
            case "add":
                new = draw(st.sampled_from([*NEW, f"bert.{name}", f"{name}_more"]))
                return {**tensors, new: torch.ones(draw(st.sampled_from([(2, 16), (2,), (16,), ()])))}
            case "cast":
                kind = draw(st.sampled_from([torch.float16, torch.bfloat16, torch.float64, torch.int8, torch.bool]))
                return {**tensors, name: value.to(kind)}
            case "cut":
                return {**tensors, name: value[:-1]}
            case "turn":
                return {**tensors, name: value.T if value.ndim == 2 else value[None]}
            case "prefix":
                return {f"bert.{other}": kept for other, kept in tensors.items()}
            case _:
                kind = draw(st.sampled_from([torch.float16, torch.bfloat16, torch.float64]))
                return {other: kept.to(kind) for other, kept in tensors.items()}

    change_weights(folder, change)


def change_shards(draw: Draw, folder: Path) -> None:
    """Weights in several files, of which one is lost, swapped with another or wrong in the index."""
    files = shard(folder, parts=draw(st.integers(1, 3)))
    index = folder / "model.safetensors.index.json"
    content = json.loads(index.read_text(encoding="utf8"))
    match draw(st.sampled_from(["whole", "gone", "swapped", "index", "place"])):
        case "gone":
            draw(st.sampled_from([*files, index])).unlink()
        case "swapped":
            files[0].rename(folder / "other")
            files[-1].rename(files[0]) if len(files) > 1 else None
            (folder / "other").rename(files[-1])
        case "index":
            content["weight_map"] = draw(VALUES)
            index.write_text(json.dumps(content), encoding="utf8")
        case "place":
            content["weight_map"][draw(st.sampled_from(sorted(content["weight_map"])))] = draw(VALUES)
            index.write_text(json.dumps(content), encoding="utf8")


def change_vocabulary(draw: Draw, folder: Path) -> None:
    """Other lines of vocab.txt, alone or beside tokenizer.json."""
    path = folder / "vocab.txt"
    if draw(st.booleans()):
        (folder / "tokenizer.json").unlink()
    lines = path.read_text(encoding="utf8").split("\n")
    place = draw(st.integers(0, len(lines) - 1))
    match draw(st.sampled_from(["drop", "twice", "swap", "blank", "cut", "title", "windows", "more", "same"])):
        case "drop":
            del lines[place]
        case "twice":
            lines[place] = lines[-1]
        case "swap":
            lines[place], lines[-1] = lines[-1], lines[place]
        case "blank":
            lines.insert(place, "")
        case "cut":
            lines = lines[:place]
        case "title":
            lines = [line.title() if line[:1] != "[" else line for line in lines]
        case "windows":
            lines = [line + "\r" for line in lines]
        case "more":
            lines += ["##s"] * draw(st.integers(1, 2))
    path.write_text("\n".join(lines), encoding="utf8", newline="")


CHANGES = (change_field, change_place, change_bytes, change_file, change_tensor, change_shards, change_vocabulary)


@cache
def sound_plan() -> Plan:
    """The plan with the sound backbone."""
    return planned(sound()[0])


def read(folder: Path) -> tuple[Any, Any]:
    """Our model of a folder and its tokenizer, as a plan and a first stage make them."""
    backbone = resolve(str(folder))
    encoder = inspect(backbone, TASKS["sst2"])
    plan = replace(
        sound_plan(),
        backbone=backbone,
        config=encoder.config,
        tokenizer=encoder.tokenizer,
        other_head=encoder.other_head,
    )
    return fresh_model(plan, 0).eval(), encoder.tokenizer


def refusal(folder: Path) -> tuple[str, Any, Any]:
    """The line that refuses a folder; or none, its model and its tokenizer."""
    try:
        return ("", *read(folder))
    except InputError as error:
        return str(error), None, None


def check(folder: Path) -> None:
    """One line that refuses the folder, or Hugging Face's hidden states and numbers of word pieces."""
    line, model, words = refusal(folder)
    if line:
        assert "\n" not in line
        assert len(line) < 600
        return
    ids = words(TEXT)["input_ids"]
    assert ids == AutoTokenizer.from_pretrained(folder)(TEXT)["input_ids"]
    plain: dict[str, Any] = {"attn_implementation": "eager", "chunk_size_feed_forward": 0}
    theirs = BertModel.from_pretrained(folder, dtype=torch.float32, **plain).train(False)
    batch = {"input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, len(ids), dtype=torch.int64)}
    with torch.inference_mode():
        states = model(**batch, output_hidden_states=True).hidden_states
        wanted = theirs(**batch, output_hidden_states=True, return_dict=True).hidden_states
    assert len(states) == len(wanted)
    for own, other in zip(states, wanted, strict=True):
        torch.testing.assert_close(own, other, atol=1e-4, rtol=1e-4, equal_nan=True)


@settings(max_examples=EXAMPLES, deadline=None, derandomize=EXAMPLES <= 40, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_a_damaged_backbone_is_refused_or_read_as_hugging_face_reads_it(data: st.DataObject) -> None:
    """Whatever is wrong with a folder is said in one line before training, or changes no state and no word piece."""
    with TemporaryDirectory() as name:
        folder = copy_sound(Path(name) / "bert")
        for change in data.draw(st.lists(st.sampled_from(CHANGES), min_size=1, max_size=2)):
            try:
                change(data.draw, folder)
            except (
                OSError,
                ValueError,
                LookupError,
                AttributeError,
                TypeError,
                SafetensorError,
            ):
                break
        check(folder)
        shutil.rmtree(folder, ignore_errors=True)
