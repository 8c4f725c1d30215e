"""A sound folder of a tiny BERT, and ways to change what its files say."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from bench.errors import InputError
from bench.planning.plan import Plan, make_plan
from bench.planning.settings import Settings
from tests.support.tiny_files import write_backbone, write_sst2

Tensors = dict[str, Tensor]
Damage = Callable[[Path], object]

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"


@cache
def sound() -> tuple[Path, Path]:
    """A backbone whose weights differ from those at a start, and data in SST-2's layout; written once."""
    folder = Path(mkdtemp())
    backbone = write_backbone(folder / "bert")
    change_weights(backbone, noise)
    return backbone, write_sst2(folder / "sst2", train=12, dev=4)


def noise(tensors: Tensors) -> Tensors:
    """Other biases and layer norms than zeros and ones, and spread weights."""
    generator = torch.Generator().manual_seed(1)
    return {name: value + 0.2 * torch.randn(value.shape, generator=generator) for name, value in tensors.items()}


def copy_sound(folder: Path) -> Path:
    """A copy of the sound backbone as `folder`."""
    shutil.copytree(sound()[0], folder)
    return folder


def change_json(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a JSON object in place."""
    content = json.loads(path.read_text(encoding="utf8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf8")


def set_fields(folder: Path, fields: Mapping[str, Any]) -> None:
    """Set fields of config.json."""
    change_json(folder / "config.json", lambda content: content.update(fields))


def change_weights(folder: Path, change: Callable[[Tensors], Tensors]) -> None:
    """Write other tensors."""
    path = folder / "model.safetensors"
    save_file({name: value.contiguous() for name, value in change(load_file(path)).items()}, path, {"format": "pt"})


def shard(folder: Path, *, parts: int = 2) -> list[Path]:
    """The weights in several files with an index, as large checkpoints are saved; the files."""
    path = folder / "model.safetensors"
    tensors = load_file(path)
    path.unlink()
    names = [f"model-{part + 1:05d}-of-{parts:05d}.safetensors" for part in range(parts)]
    where = {tensor: names[place % parts] for place, tensor in enumerate(tensors)}
    for name in names:
        held = {tensor: value for tensor, value in tensors.items() if where[tensor] == name}
        save_file(held, folder / name, {"format": "pt"})
    index = {"metadata": {"total_size": 1}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf8")
    return [folder / name for name in names]


def keep_vocabulary_alone(folder: Path) -> Path:
    """Leave vocab.txt as the one tokenizer file; its path."""
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        (folder / name).unlink(missing_ok=True)
    return folder / "vocab.txt"


def set_vocabulary(folder: Path, change: Callable[[list[str]], list[str]]) -> None:
    """Leave another vocab.txt as the one tokenizer file."""
    path = keep_vocabulary_alone(folder)
    path.write_text("\n".join(change(path.read_text(encoding="utf8").split("\n"))), encoding="utf8")


def planned(folder: Path, task: str = "sst2") -> Plan:
    """A plan with this backbone."""
    data = sound()[1]
    if task == "mrpc":
        data = folder.parent / "mrpc"
        data.mkdir()
        lines = ["Quality\t#1 ID\t#2 ID\t#1 String\t#2 String"]
        lines += [f"{row % 2}\t{row}\t{row + 100}\tthe film was {row}\tthe plot was fine" for row in range(12)]
        for name in ("msr_paraphrase_train.txt", "msr_paraphrase_test.txt"):
            (data / name).write_text("\n".join(lines) + "\n", encoding="utf8")
    asked = Settings(task, methods=("full",), backbone=str(folder), data_dir=data, max_length=32, store=folder.parent)
    return make_plan(asked)


def refusal(folder: Path, task: str = "sst2") -> str:
    """The one line that the plan refuses the backbone with."""
    with pytest.raises(InputError) as caught:
        planned(folder, task)
    line = str(caught.value)
    assert "\n" not in line
    assert len(line) < 600
    return line


def fields(**changes: Any) -> Damage:
    """Set fields of the configuration."""
    return lambda folder: set_fields(folder, changes)


def weights(change: Callable[[Tensors], Tensors]) -> Damage:
    """Write other tensors."""
    return lambda folder: change_weights(folder, change)


def vocabulary(change: Callable[[list[str]], list[str]]) -> Damage:
    """Leave another vocab.txt as the one tokenizer file."""
    return lambda folder: set_vocabulary(folder, change)


def tokenizer(**parts: Any) -> Damage:
    """Set parts of tokenizer.json, and leave it as the one tokenizer file."""

    def change(folder: Path) -> None:
        change_json(folder / "tokenizer.json", lambda content: content.update(parts))
        (folder / "vocab.txt").unlink()
        special = {f"{name}_token": f"[{name.upper()}]" for name in ("cls", "sep", "pad", "unk", "mask")}
        content = {"tokenizer_class": "PreTrainedTokenizerFast", **special}
        (folder / "tokenizer_config.json").write_text(json.dumps(content), encoding="utf8")

    return change


def replaced(name: str, content: bytes | None) -> Damage:
    """Write a file's bytes; without any, a folder of that name in its place."""

    def change(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).mkdir() if content is None else (folder / name).write_bytes(content)

    return change


def linked_to_nowhere(name: str) -> Damage:
    """A link to nothing in a file's place."""

    def change(folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).symlink_to("nowhere")

    return change


def plus(name: str, *shape: int) -> Damage:
    """One more tensor."""
    return weights(lambda tensors: {**tensors, name: torch.ones(shape)})


def recast(name: str, dtype: torch.dtype) -> Damage:
    """One tensor as another type."""
    return weights(lambda tensors: {**tensors, name: tensors[name].to(dtype)})


def index(change: Callable[[dict[str, Any]], object]) -> Damage:
    """Weights in two files, and another index."""

    def damage(folder: Path) -> None:
        shard(folder)
        change_json(folder / "model.safetensors.index.json", change)

    return damage


def without_part(folder: Path) -> None:
    """One of three files of weights is gone."""
    shard(folder, parts=3)[1].unlink()


def without_index(folder: Path) -> None:
    """Files of weights without their index."""
    shard(folder)
    (folder / "model.safetensors.index.json").unlink()


def named(damages: list[tuple[Damage, str]]) -> pytest.MarkDecorator:
    """Each way of damage, by what its refusal says."""
    return pytest.mark.parametrize(("damage", "said"), damages, ids=[said[:40] for _, said in damages])
