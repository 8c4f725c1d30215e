"""What runs of one arm share, and what tells two arms apart, in words.

An arm is told by what its runs were made of, never by a name or a count: two folders of one name may hold two models,
and two files of as many rows other texts.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.store.records import Record

UNTIMED = "not timed"
"""The device of a run without latencies."""

PACKAGES = ("torch", "transformers", "datasets", "accelerate", "numpy", "tokenizers", "safetensors")
"""Those whose version decides a number."""

NUMERICS = (
    *("python", "cuda", "dtype", "attention", "default_dtype", "float32_matmul_precision", "deterministic_algorithms"),
    *("cudnn_deterministic", "cudnn_benchmark", "sdpa_kernels"),
)
"""Of the environment, what decides how numbers are computed."""

PROTOCOL = ("batch_size", "clock", "examples", "rounds", "warm_up_examples", "examples_per_turn")
"""Of the timing, what decides what a latency is."""

_SHORT = 8  # letters of a hash that are shown


def device(record: Record) -> str:
    """Return the device that was read back when the run was timed."""
    return str(record.timing.get("device") or UNTIMED)


def version(environment: Mapping[str, Any]) -> str:
    """Return the version of the code that made a run: another may train or measure another way."""
    return str(environment.get("versions", {}).get("efficient-bert"))


def finetune_seed(record: Record) -> int:
    """Return the seed of the fine-tuned model that the run started from."""
    return int(record.data.get("finetune_seed", record.seed))


def training_rows(record: Record) -> int:
    """Count the rows of the training split before any were held out: the rest may depend on the seed."""
    return sum(record.data.get(f"{part}_rows", 0) for part in ("train", "heldout", "dropped"))


def evaluation_data(record: Record) -> tuple[object, ...]:
    """Return which rows a run reports on, and how much of each was read."""
    data = record.data
    return data.get("split"), data.get("rows"), data.get("max_length"), fingerprint(record, "evaluation")


def fingerprint(record: Record, part: str) -> str | None:
    """Return the fingerprint of a part of the data; None where a record of an earlier version has none."""
    value = record.data.get("fingerprints", {}).get(part)
    return None if value is None else str(value)


def backbone_identity(record: Record) -> str | None:
    """Return what the backbone is, whatever it is called: a hash of its files, or a commit."""
    value = record.environment.get("backbone_identity")
    return None if value is None else str(value)


def backbone_names(records: Iterable[Record]) -> list[str]:
    """Name the backbones of some runs, each with the beginning of its hash where another one has its name."""
    known: dict[str, dict[str | None, None]] = defaultdict(dict)
    for record in records:
        known[record.backbone][backbone_identity(record)] = None
    return [
        name if len(identities) == 1 else f"{name} ({short_hash(identity)})"
        for name, identities in known.items()
        for identity in identities
    ]


def same_examples(one: Record, other: Record) -> bool:
    """Say whether nothing shows that two runs report on other texts: they may be paired example by example."""
    split = one.data.get("split") == other.data.get("split")
    return one.task == other.task and split and not _differ(one, other, "evaluation")


def short_hash(identity: str | None) -> str:
    """Return the beginning of a hash, without what stands before it."""
    return "unknown" if identity is None else identity.replace("@", ":").rpartition(":")[2][:_SHORT]


def differ_in_training_data(one: Record, other: Record) -> bool:
    """Say whether two runs are known to be trained on other rows.

    Seeds hold out other rows of the same split, so what is left of it tells only runs of one seed apart.
    """
    if finetune_seed(one) == finetune_seed(other):
        return any(_differ(one, other, part) for part in ("train", "heldout"))
    return _differ(one, other, "training")


def _differ(one: Record, other: Record, part: str) -> bool:
    prints = {fingerprint(one, part), fingerprint(other, part)} - {None}
    return len(prints) > 1


def group_by_training_data(records: Sequence[Record]) -> Iterator[list[Record]]:
    """Group runs that are alike in all else: together where nothing says that they were trained on other rows.

    Where something does, only runs of which it is known that they share their rows stay together.
    """
    if not any(differ_in_training_data(one, other) for one in records for other in records):
        yield list(records)
        return
    groups: dict[object, list[Record]] = defaultdict(list)
    for record in records:
        whole = fingerprint(record, "training")
        known = (finetune_seed(record), fingerprint(record, "train"), fingerprint(record, "heldout"))
        groups[whole or known].append(record)
    yield from groups.values()


def identity(record: Record) -> str:
    """Return what runs of one arm share but for the rows that they are trained on, as text."""
    shared = (
        record.task,
        record.method,
        record.backend,
        record.knobs,
        record.preset,
        record.backbone,
        record.options,
        evaluation_data(record),
        training_rows(record),
        device(record),
        version(record.environment),
        [detail.value(record) for detail in DETAILS],
    )
    return json.dumps(shared, sort_keys=True, default=str)


@dataclass(frozen=True)
class Detail:
    """Something that tells arms apart where nothing does that a user named.

    Attributes:
        value: record -> what is compared.
        words: record -> how it is said.
    """

    value: Callable[[Record], object]
    words: Callable[[Record], str]


def _field_reader(field: str, *keys: str) -> Callable[[Record], Any]:
    """Return what reads a field of a record, and what lies in it by its keys; None where nothing does."""

    def value(record: Record) -> Any:
        inner = getattr(record, field)
        for key in keys:
            inner = (inner or {}).get(key)
        return inner

    return value


def _named_detail(name: str, field: str, *keys: str) -> Detail:
    """Make a detail that is said by its name and its value."""
    value = _field_reader(field, *keys)
    return Detail(value, lambda record: f"{name.replace('_', ' ')} {value(record)}")


def _threads(record: Record) -> Any:
    return record.timing.get("threads", record.environment.get("torch_threads"))


def _thread_words(record: Record) -> str:
    count = _threads(record)
    return f"{count} CPU thread{'' if count == 1 else 's'}"


def _hardware(record: Record) -> object:
    """Return the device of a run that was not timed: it decides the answers all the same."""
    return None if record.timing else record.environment.get("device_name")


def _contents(record: Record) -> Mapping[str, str]:
    """Return the digests of the files that options name."""
    return record.data.get("contents") or {}


DETAILS = (
    Detail(backbone_identity, lambda record: f"{record.backbone} ({short_hash(backbone_identity(record))})"),
    Detail(
        lambda record: fingerprint(record, "evaluation"),
        lambda record: f"evaluation data {short_hash(fingerprint(record, 'evaluation'))}",
    ),
    Detail(
        _contents,
        lambda record: "; ".join(f"{name} {short_hash(digest)}" for name, digest in _contents(record).items()),
    ),
    Detail(_hardware, lambda record: f"run on {_hardware(record)}"),
    Detail(_threads, _thread_words),
    Detail(lambda record: record.layers, lambda record: f"{record.layers} layers"),
    *(_named_detail(f"timing {name}", "timing", name) for name in PROTOCOL),
    *(_named_detail(name, "environment", "versions", name) for name in PACKAGES),
    *(_named_detail(name, "environment", name) for name in NUMERICS),
    Detail(lambda record: record.flops_convention, lambda record: f"FLOPs: {record.flops_convention}"),
)
