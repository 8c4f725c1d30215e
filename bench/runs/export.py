"""Take a trained model away (`bench export`): a folder that answers texts without torch.

DIR/model.onnx      the network with its decisions
DIR/tokenizer.json  its word pieces
DIR/manifest.json   method, knobs, labels, versions, and digests of all other files
DIR/runtime.py      loads and runs the folder: needs onnxruntime, tokenizers and numpy
DIR/example.py      a first answer
DIR/README.md       the model card: what it is, and what was measured of it
"""

from __future__ import annotations

import difflib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import efficient_bert
from bench import __version__
from bench.errors import InputError
from bench.planning.presets import trial_warning
from bench.registry import BACKENDS, METHODS, METRICS, TASKS
from bench.store.artifacts import ArtifactStore
from bench.store.digests import digests_below
from bench.store.folders import flush, require_folder
from bench.store.locations import RUNS
from bench.store.packs import RECORDS
from bench.store.runs import RunStore

if TYPE_CHECKING:
    from bench.store.records import Record
    from efficient_bert.knobs import Value

ARTIFACTS = "artifacts"
PRECISIONS = {
    "fp32": "fp32",
    "int8": "products of dense layers in int8, their weights of 7 bits; attention, decisions and answers in fp32",
}
"""Precision -> what a model card says of it."""


STAR = r"\*"
"""Stands behind a time that is not to be trusted, as Markdown writes a star."""


@dataclass(frozen=True)
class Source:
    """What is exported.

    Attributes:
        folder: of a trained model.
        method: how it runs, with a value for each of its knobs.
        max_length: word pieces at which a text is cut.
        pair: whether examples are pairs; None where it is not known.
        windows: a longer text is read in windows.
        record: of the run that it was measured in, where there is one.
        runs: the store of that run.
    """

    folder: Path
    method: str
    knobs: Mapping[str, Value]
    max_length: int | None = None
    pair: bool | None = None
    windows: bool = False
    record: Record | None = None
    runs: RunStore | None = None

    @property
    def measured_precision(self) -> str:
        """Return the precision of the graph that the run measured; empty where it measured something else."""
        return BACKENDS[self.record.backend].exports if self.record and self.record.backend in BACKENDS else ""


def find_source(name: str, *, store: Path, method: str | None, knobs: Mapping[str, str]) -> Source:
    """Find a run by its id in a store or by its folder, or a trained model by its folder.

    Raises:
        InputError: there is neither; a run with a method or knobs, or a model without a method; an unknown knob.
    """
    folder = Path(name)
    if (folder / RunStore.marker).is_file():
        path = folder.resolve()
        store, name = path.parents[1], path.name
    runs = RunStore(store / RUNS)
    if name in runs:
        if method or knobs:
            raise InputError(f"run {name} has its method and knobs; leave --method and --knob out, or give its model")
        return source_of_run(runs, name, ArtifactStore(store / ARTIFACTS))
    if not (folder / ArtifactStore.marker).is_file():
        for pack in (folder, store):
            if (pack / RECORDS).is_file():
                raise InputError(f"{pack} is a pack, and packs hold no models; give the store that it was packed from")
        nearest = ", ".join(difflib.get_close_matches(name, list(runs.ids()), n=5, cutoff=0)) or "none yet"
        raise InputError(
            f"{name!r} is no run in {runs.root} and no folder of a trained model; give the id of a run, with --store "
            f"where it lies, or a folder such as artifacts/finetune-...; the nearest runs there are: {nearest}"
        )
    if method is None:
        raise InputError(f"{name} is a model, which several methods can run; give --method")
    known = {knob.name: knob for knob in METHODS[method].knobs}
    unknown = sorted(set(knobs) - set(known))
    if unknown:
        raise InputError(f"{method} has no knob {unknown[0]!r}; it has: {', '.join(known) or 'none'}")
    values = {knob.name: knob.parse(knobs.get(knob.name, knob.default)) for knob in known.values()}
    return Source(folder.resolve(), method, values)


def source_of_run(runs: RunStore, run_id: str, artifacts: ArtifactStore) -> Source:
    """Return the model of a run, as it was measured."""
    record = runs.record(run_id)
    name = list(record.artifacts.values())[-1]  # the last stage's, whose model runs
    if name not in artifacts:
        raise InputError(f"run {run_id} was of the model {name}, which is not in {artifacts.root}; train it again")
    task = TASKS[record.task]
    knobs: Any = record.knobs
    pair = task.pair is not None
    longest = record.data["max_length"]
    return Source(artifacts.folder(name), record.method, knobs, longest, pair, task.windows, record, runs)


def export(source: Source, out: Path, *, precision: str | None) -> Path:
    """Write an exported folder, whole or not at all.

    Args:
        precision: of the layers, "fp32" or "int8"; None for that in which the run was measured, where an export has it.

    Raises:
        InputError: `out` is there, the model is damaged, or its method cannot be exported.
    """
    import onnx

    from bench.data.word_pieces import as_text
    from efficient_bert.export import Precision, export_graph
    from efficient_bert.policies.gates import possible_widths

    require_folder(out, kind="an export")
    if out.exists():
        raise InputError(f"{out} is already there; name a new folder")
    precision = precision or source.measured_precision or "fp32"
    model = ArtifactStore(source.folder.parent).load(source.folder.name)
    method = METHODS[source.method]
    method.check(model.config, source.knobs)
    policy = method.policy(model, method.calibrate(model, None, source.knobs))
    graph = export_graph(
        model, policy, precision=Precision(precision), widths=possible_widths(model.config, source.knobs)
    )
    tokenizer = as_text(read_tokenizer(source.folder))
    longest = min(source.max_length or tokenizer.model_max_length, model.config.max_position_embeddings)
    layers = model.config.num_hidden_layers
    content = {
        "format": FORMAT,
        "method": source.method,
        "knobs": dict(source.knobs),
        "model": source.folder.name,
        "run": source.record.run_id if source.record else None,
        "task": source.record.task if source.record else None,
        "precision": precision,
        "labels": list(dict(model.config.id2label or {}).values()),
        "regression": model.config.regression,
        "pair": source.pair,
        "windows": source.windows,
        "max_length": longest,
        "layers": layers,
        "order": list(range(layers) if policy.layers is None else policy.layers),
        "opset": graph.opset_import[0].version,
        "efficient_bert": __version__,
        "onnxruntime": version("onnxruntime"),
    }
    with whole_folder(out) as folder:
        onnx.save(graph, folder / "model.onnx")
        tokenizer.backend_tokenizer.no_truncation()
        tokenizer.backend_tokenizer.no_padding()
        tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
        shutil.copyfile(RUNTIME, folder / "runtime.py")
        (folder / "example.py").write_text(example_text(pair=bool(source.pair)), encoding="utf8")
        (folder / "README.md").write_text(card_text(source, content), encoding="utf8")
        write_manifest(folder, content)
    return out


RUNTIME = Path(efficient_bert.__file__).with_name("runtime.py")

FORMAT = 1
"""As `efficient_bert.runtime` has it."""


def read_tokenizer(folder: Path) -> Any:
    """Read the tokenizer that was stored beside a model, whose files are its own."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, local_files_only=True, split_special_tokens=True)


def write_manifest(folder: Path, content: Mapping[str, Any]) -> None:
    """Write what the folder says of itself, with the digests of what lies in it."""
    from efficient_bert.runtime import MANIFEST, SEAL, seal_of  # what the folder is read with

    manifest = {**content, "digests": digests_below(folder)}
    manifest[SEAL] = seal_of(json.loads(json.dumps(manifest)))
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2, ensure_ascii=False), encoding="utf8")


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """Give an empty folder beside `out`, which takes its name when the block ends well."""
    part = out.with_name(f".{out.name}.{os.getpid()}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        yield part
        flush(part)
        part.replace(out)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def example(*, pair: bool) -> str:
    """Return a text, or a pair of texts, as Python writes it."""
    return '("a man sleeps", "a man is awake")' if pair else '"a film that is a joy from start to end"'


def example_text(*, pair: bool) -> str:
    """Return a program that answers the texts of its arguments."""
    return f'''"""Answer a text: python example.py "some text" """

import sys

from runtime import ExportError, load

texts = sys.argv[1:]
try:
    model = load()
    answer = model(tuple(texts) if len(texts) > 1 else texts[0]) if texts else model({example(pair=pair)})
except ExportError as error:
    print(f"example.py: {{error}}", file=sys.stderr)
    sys.exit(2)
print("answer        ", answer.label if answer.score is None else answer.score)
print("probabilities ", {{name: round(share, 4) for name, share in answer.probabilities.items()}})
print("tokens        ", answer.tokens)
print("heads         ", answer.widths)
print("layers run    ", answer.layers)
print("threads       ", model.threads)
'''


def card_text(source: Source, content: Mapping[str, Any]) -> str:
    """Return the model card."""
    knobs = ", ".join(f"{name} {value}" for name, value in source.knobs.items()) or "none"
    method = METHODS[source.method]
    answers = "a score" if content["regression"] else ", ".join(map(str, content["labels"]))
    lines = [
        f"# {source.method}, {content['precision']}",
        "",
        f"{method.summary} ({method.source}).",
        "",
        "| | |",
        "| --- | --- |",
        f"| knobs | {knobs} |",
        f"| model | {source.folder.name} |",
        f"| answers | {answers} |",
        f"| texts are cut at | {content['max_length']} word pieces{', then read in windows' * source.windows} |",
        f"| precision | {PRECISIONS[content['precision']]} |",
        f"| made by | efficient-bert {content['efficient_bert']}, opset {content['opset']}, "
        f"onnxruntime {content['onnxruntime']} |",
        "",
        'Run it where onnxruntime, tokenizers and numpy are installed: `python example.py "some text"`. Nothing else is'
        " needed; the folder can be moved. In Python, started anywhere:",
        "",
        "```python",
        "import sys",
        "",
        'sys.path.insert(0, "FOLDER")  # where this file lies; not needed by what runs inside it',
        "from runtime import load",
        "",
        "model = load()",
        f"answer = model({example(pair=bool(content['pair']))})",
        "print(answer.label if answer.score is None else answer.score, answer.probabilities)",
        "```",
        "",
        "## What was measured",
        "",
        *measured_lines(source, content["precision"]),
        "",
    ]
    return "\n".join(lines)


def measured_lines(source: Source, precision: str) -> Iterator[str]:
    """Yield the table of the run that the model was measured in, and its machine."""
    record, runs = source.record, source.runs
    if record is None or runs is None:
        yield "Nothing: the model was exported by its folder. Export it by the id of a run to see its numbers here."
        return
    if warning := trial_warning(record.preset):
        yield f"{warning[0].upper()}{warning[1:]}."
        yield ""
    yield f"Run {record.run_id} on {record.data['rows']} rows of {record.task}, split {record.data['split']}:"
    yield ""
    yield "| measure | value |"
    yield "| --- | --- |"
    frame = runs.examples(record.run_id).to_pandas()
    timed = frame[frame["seconds"].map(len) > 0]
    disturbed_by = record.timing.get("disturbed_by") or ()
    for name, metric in METRICS.items():
        rows = timed if metric.timed else frame
        if len(rows) and (name in record.metrics or (metric.headline and not metric.quality)):
            unit = f" {metric.unit}" if metric.unit else ""
            mark = STAR * bool(metric.timed and disturbed_by)
            yield f"| {metric.summary} | {metric.format(metric.compute(rows) * metric.scale)}{unit}{mark} |"
    yield ""
    if disturbed_by:
        yield f"{STAR} of a busy or unsteady machine, not to be trusted: {'; '.join(disturbed_by)}."
        yield ""
    threads, machine = record.timing.get("threads"), record.environment.get("device_name")
    if source.measured_precision == precision:
        yield f"Quality, FLOPs and times are those of this graph on {machine}, {threads} threads."
        return
    yield (
        f"Quality, FLOPs and times are those of {record.backend} on {machine}, {threads} threads, not of this folder:"
        " its times were not measured, and in int8 some answers differ."
    )
