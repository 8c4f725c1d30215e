"""The weights of a foreign BERT, by the headers of its safetensors files: which tensors, of what shape and type."""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.backbones.config import Fields
from bench.backbones.files import AGAIN, is_there, json_object, one_line, require_file, show_value
from bench.errors import InputError

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
SAVE = "save the encoder alone, with BertModel.from_pretrained(FOLDER).save_pretrained(OTHER_FOLDER)"

DENSE, NORM = ("weight", "bias"), ("LayerNorm.weight", "LayerNorm.bias")
SHAPES = {
    "embeddings.word_embeddings.weight": ("vocab_size", "hidden_size"),
    "embeddings.position_embeddings.weight": ("max_position_embeddings", "hidden_size"),
    "embeddings.token_type_embeddings.weight": ("type_vocab_size", "hidden_size"),
    **{f"embeddings.{name}": ("hidden_size",) for name in NORM},
}
"""Tensors of the embeddings, and the fields of the configuration that give their shapes."""

LAYER_SHAPES = {
    **{
        f"attention.{part}.weight": ("hidden_size", "hidden_size")
        for part in ("self.query", "self.key", "self.value", "output.dense")
    },
    **{f"attention.{part}.bias": ("hidden_size",) for part in ("self.query", "self.key", "self.value", "output.dense")},
    **{f"{half}.{name}": ("hidden_size",) for half in ("attention.output", "output") for name in NORM},
    "intermediate.dense.weight": ("intermediate_size", "hidden_size"),
    "intermediate.dense.bias": ("intermediate_size",),
    "output.dense.weight": ("hidden_size", "intermediate_size"),
    "output.dense.bias": ("hidden_size",),
}
"""Tensors of one layer."""

POOLER_SHAPES = {"pooler.dense.weight": ("hidden_size", "hidden_size"), "pooler.dense.bias": ("hidden_size",)}
BUFFERS = {"embeddings.position_ids", "embeddings.token_type_ids"}
HEADS = re.compile(r"(cls|classifier|qa_outputs|linear|crf|dropout)\.")
"""Parts behind the encoder that a task of its own has, and that are left behind; the classifier may be kept."""

TYPES = {"F32", "F16", "BF16", "F64"}
"""Number types that weights are stored in; all are read as float32."""


@dataclass(frozen=True)
class Header:
    """What a file says of one of its tensors."""

    file: Path
    shape: tuple[int, ...]
    dtype: str


Headers = Mapping[str, Header]
"""Headers by the tensors' names, without the prefix `bert.` and with today's names of layer norms."""


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files that transformers would read: one, or those that an index names.

    Raises:
        InputError: there are none, or the index is damaged or names files that are not there.
    """
    if is_there(folder / SINGLE):
        return [folder / SINGLE]
    if is_there(folder / INDEX):
        return index_files(folder / INDEX)
    raise InputError(f"{folder} has no {SINGLE}{describe_contents(folder)}")


def describe_contents(folder: Path) -> str:
    """Say what a folder has in place of weights, and what to do."""
    others = sorted(path.name for path in folder.glob("*.safetensors"))
    shards = [name for name in others if re.fullmatch(r"model-\d+-of-\d+\.safetensors", name)]
    if shards:
        return f", and its parts ({shards[0]}, ...) need {INDEX}; {AGAIN}"
    if others:
        return f" but {others[0]}, which is not read; rename it where it holds all of the encoder's weights"
    convert = "convert it with save_pretrained(..., safe_serialization=True)"
    if list(folder.glob("*.bin")):
        return f" (its pytorch_model.bin is a pickle, which is never opened); {convert}"
    return f"; {convert}"


def index_files(index: Path) -> list[Path]:
    """Return the files that an index names.

    Raises:
        InputError: it is damaged, or one is not there.
    """
    names = json_object(index).get("weight_map")
    if not isinstance(names, dict) or not names or not all(isinstance(name, str) for name in names.values()):
        raise InputError(f"{index} has no weight_map of tensors and the files they are in; {AGAIN}")
    files = sorted(set(names.values()))
    strange = [name for name in files if Path(name).name != name or not name.endswith(".safetensors")]
    if strange:
        raise InputError(f"{index} names {show_value(strange[0])}, but parts are .safetensors files beside it; {AGAIN}")
    absent = [name for name in files if not is_there(index.with_name(name))]
    if absent:
        raise InputError(
            f"{index} names {show_value(absent[0])}, one of {len(absent)} files that are not there; {AGAIN}"
        )
    tensors_of = {name: set(read_header(index.with_name(name))) for name in files}
    lost = sorted(tensor for tensor, name in names.items() if tensor not in tensors_of[name])
    if lost:
        raise InputError(f"{index} says that {names[lost[0]]} holds {show_value(lost[0])}, which it does not; {AGAIN}")
    return [index.with_name(name) for name in files]


def read_header(path: Path) -> dict[str, Header]:
    """Read the headers of one file, by the names it has for its tensors.

    Raises:
        InputError: it cannot be read or is no safetensors file.
    """
    from safetensors import SafetensorError, safe_open

    require_file(path)
    try:
        with safe_open(path, framework="pt") as file:
            parts = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - no mapping
            return {name: Header(path, tuple(part.get_shape()), part.get_dtype()) for name, part in parts.items()}
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{path}: {one_line(error)}; {AGAIN}") from error


def read_headers(folder: Path) -> dict[str, Header]:
    """Read the headers of all files of a folder.

    Raises:
        InputError: a file cannot be read, or a tensor is there twice.
    """
    headers: dict[str, Header] = {}
    parts = {path: read_header(path) for path in weight_files(folder)}
    prefixed = any(name.startswith("bert.") for part in parts.values() for name in part)
    for path, part in parts.items():
        for name, header in part.items():
            plain = our_tensor_name(name, prefixed=prefixed)
            if plain in headers:
                raise InputError(f"{path} holds {show_value(name)}, which {headers[plain].file.name} holds too; {SAVE}")
            headers[plain] = header
    return headers


def our_tensor_name(name: str, *, prefixed: bool) -> str:
    """Return the name without `bert.`, with today's names of layer norms; `/` marks one outside a prefixed encoder."""
    name = re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", name))
    if not prefixed or HEADS.match(name):
        return name
    plain = name.removeprefix("bert.")
    return plain if plain != name and not HEADS.match(plain) else f"/{name}"


def check_weights(headers: Headers, fields: Fields, *, name: str) -> None:
    """Raise InputError unless these are the tensors of the BERT encoder that the configuration describes."""
    problems = [*misfits(headers, fields)]
    if problems:
        raise InputError(f"the weights of backbone {name!r} {'; they '.join(problems[:3])}; {SAVE}")


def misfits(headers: Headers, fields: Fields) -> Iterator[str]:
    """Yield what is missing, too much, of another shape or of another type."""
    layers = int(fields["num_hidden_layers"])
    layer_count = len({match[1] for name in headers if (match := re.match(r"encoder\.layer\.(\d+)\.", name))})
    if layers != layer_count:
        yield f"have {layer_count} layers, but num_hidden_layers is {layers}"
    expected = shapes(headers, layers=min(layers, layer_count + 1))
    wanted = {name: tuple(int(fields[field]) for field in shape) for name, shape in expected.items()}
    known = wanted.keys() & headers.keys()
    yield from name_some("lack", "that its config.json asks for", [name for name in wanted if name not in headers])
    yield from name_some("hold", "that BERT has not", [name for name in headers if is_foreign(name, wanted)])
    resized = [name for name in wanted if name in known and headers[name].shape != wanted[name]]
    yield from name_some("hold", "of other sizes than its config.json asks for", resized)
    for name in resized[:1]:
        sizes = ", ".join(f"{field} {fields[field]}" for field in expected[name])
        yield f"have {list(headers[name].shape)} there, not {list(wanted[name])} ({sizes})"
    integers = [name for name in wanted if name in known and headers[name].dtype not in TYPES]
    yield from name_some("hold", f"of other types than {', '.join(sorted(TYPES))}", integers)


def is_foreign(name: str, wanted: Container[str]) -> bool:
    """Say whether a tensor is none of the encoder's, of its buffers or of a head."""
    return name not in wanted and name not in BUFFERS and not HEADS.match(name)


def name_some(verb: str, which: str, names: Sequence[str]) -> Iterator[str]:
    """Yield a phrase for some tensors, none for none."""
    if names:
        first = names[0].removeprefix("/") if names[0].startswith("/") else f"bert.{names[0]}"
        yield f"{verb} {len(names)} tensors {which}, {quote_tensor(first)} among them"


def shapes(headers: Headers, *, layers: int) -> dict[str, tuple[str, ...]]:
    """Return the tensors that an encoder of so many layers has, with a pooler where a part of one is there."""
    inner = {f"encoder.layer.{layer}.{name}": shape for layer in range(layers) for name, shape in LAYER_SHAPES.items()}
    pooler = POOLER_SHAPES if any(name.startswith("pooler.") for name in headers) else {}
    return {**SHAPES, **inner, **pooler}


def quote_tensor(name: str) -> str:
    """Return a tensor's name for a message; an unusual or long one is shown as text."""
    return name if re.fullmatch(r"[\w.]{1,90}", name) else show_value(name)
