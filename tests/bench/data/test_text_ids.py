"""Names of rows: what is a window says so in a column, an id is just an id, and other ids are another run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from analysis.tables.compare import comparison
from analysis.tables.frames import Runs
from analysis.tables.statistics import group_rows_by_text
from bench.backbones.resolving import resolve, tokenizer
from bench.data.loading import encode, fingerprint, load_split
from bench.planning.plan import Plan, make_plan
from bench.planning.settings import Settings
from bench.registry import TASKS
from bench.runs import evaluation
from bench.store.runs import RunStore
from bench.store.stored_examples import EXAMPLE_SCHEMA
from eraser_eval.formats.schema import Annotation, write_dataset
from tests.bench.runs.test_evaluation import arm, rows
from tests.support.stored_runs import StoredRun, forget_digests, write_runs
from tests.support.tiny_files import write_backbone

HATEXPLAIN, MOVIES = TASKS["hatexplain"], TASKS["movies"]
ODD_IDS = {
    "fragments of addresses": [f"page#{number}" for number in range(12)],
    "digits of another script": [f"a#{digit}" for digit in "٠١٢٣٤٥٦٧٨٩०१"],
    "several marks": [f"a#1#{number}" for number in range(12)],
    "numbers alone": [f"#{number}" for number in range(12)],
}


def write_lines(folder: Path, ids: Sequence[str], *, split: str = "test") -> Path:
    """HateXplain's JSON lines, twelve words each, with these ids."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [
        {"post_id": name, "text": f"the film {number} was fine", "label": HATEXPLAIN.labels[number % 3]}
        for number, name in enumerate(ids)
    ]
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    (folder / f"{split}.jsonl").write_text(text, encoding="utf8")
    return folder


def plan(folder: Path, backbone: Path) -> Plan:
    """The plan of a run of the full model on HateXplain."""
    settings = Settings("hatexplain", ("full",), preset="smoke", backbone=str(backbone), data_dir=folder, max_length=32)
    return make_plan(replace(settings, latency_examples=0, store=folder / "store"))


@pytest.mark.parametrize("ids", ODD_IDS.values(), ids=ODD_IDS)
def test_an_id_is_just_an_id(tmp_path: Path, ids: Sequence[str]) -> None:
    """Ids that end in a mark and a number are texts of their own, in a fresh table as in a stored one."""
    table = evaluation.evaluate(
        arm(), [{**row, "example_id": name} for row, name in zip(rows(12), ids, strict=True)]
    ).to_pandas()
    assert [list(own) for own in group_rows_by_text(table)] == [[row] for row in range(12)]
    run = StoredRun("run", examples=12)
    store = RunStore(tmp_path)
    store.put(run.record(), renamed(run.table(), ids, texts=ids))
    assert len(group_rows_by_text(Runs.read(store, ["run"]).frames["run"])) == 12


def renamed(table: pa.Table, ids: Sequence[str], *, texts: Sequence[str] | None) -> pa.Table:
    """A table with other ids; without `texts` as an earlier version wrote it."""
    columns = {**{name: table[name] for name in table.column_names}, "example_id": pa.array(ids)}
    columns.pop("text_id", None)
    if texts is not None:
        columns["text_id"] = pa.array(texts)
    return pa.table(columns).select([name for name in EXAMPLE_SCHEMA.names if name in columns])


def test_windows_name_their_text(tmp_path: Path) -> None:
    """A window's row names its text, whose own id may end like a window's."""
    backbone = write_backbone(tmp_path / "bert")
    reviews = {"r#1": "the film was fine and the plot was very good", "r": "dull"}
    write_dataset(tmp_path / "movies", reviews, {"val": [Annotation(name, "", "POS", (), (name,)) for name in reviews]})
    table = load_split(MOVIES, "validation", data_dir=tmp_path / "movies", seed=0)
    encoded = encode(table, tokenizer(resolve(str(backbone))), max_length=6, windows=True)
    assert encoded["example_id"][:] == ["r#1#0", "r#1#1", "r#1#2", "r#0"]
    assert encoded["text_id"][:] == ["r#1", "r#1", "r#1", "r"]
    found = evaluation.evaluate(
        arm(), [{**row, "text_id": f"t{place // 5}"} for place, row in enumerate(rows(12))]
    ).to_pandas()
    assert [list(own) for own in group_rows_by_text(found)] == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9], [10, 11]]


@pytest.mark.parametrize(("task", "texts"), [("movies", 4), ("hatexplain", 12), ("sst2", 12), ("gone", 12)])
def test_a_table_without_the_column_is_read(tmp_path: Path, task: str, texts: int) -> None:
    """Of tables of earlier versions, the ids of a task that reads in windows alone are taken apart."""
    ids = [f"r{number // 3}#{number % 3}" for number in range(12)]
    run = StoredRun("old", task=task, examples=12)
    store, _ = write_runs(tmp_path, run)
    forget_digests(store, "old")
    pq.write_table(renamed(run.table(), ids, texts=None), tmp_path / "old" / "examples.parquet")
    table = store.examples("old")
    assert table.schema.names == EXAMPLE_SCHEMA.names
    assert table["example_id"].to_pylist() == ids
    assert len(group_rows_by_text(table.to_pandas())) == texts


def test_old_tables_and_new_ones_are_compared(tmp_path: Path) -> None:
    """A table without the column beside one with it: the same texts, drawn together in both."""
    old, new = (StoredRun(name, task="movies", windows=3, examples=12, wrong=range(5)) for name in ("old", "new"))
    store, ids = write_runs(tmp_path, old, new)
    forget_digests(store, "old")
    table = old.table()
    pq.write_table(renamed(table, table["example_id"].to_pylist(), texts=None), tmp_path / "old" / "examples.parquet")
    frames = Runs.read(store, ids).frames
    assert [list(own) for own in group_rows_by_text(frames["old"])] == [
        list(own) for own in group_rows_by_text(frames["new"])
    ]
    assert any("windows of a text" in note for note in comparison(store, "old", "new").notes)


@pytest.mark.parametrize("ids", ODD_IDS.values(), ids=ODD_IDS)
def test_other_ids_are_other_data(tmp_path: Path, ids: Sequence[str]) -> None:
    """Ids of the file take part in what identifies the reported rows, and in nothing that decides training."""
    one, other = (
        load_split(HATEXPLAIN, "test", data_dir=write_lines(tmp_path / name, own), seed=0)
        for name, own in (("one", ids), ("other", [*ids[1:], *ids[:1]]))
    )
    assert fingerprint(one, names=True) != fingerprint(other, names=True)
    assert fingerprint(one) == fingerprint(other)


def test_ids_of_documents_are_other_data(tmp_path: Path) -> None:
    """The same holds of ERASER's annotations, whose text is in a document of any name."""

    def loaded(name: str) -> str:
        write_dataset(tmp_path / name, {"d": "the film was fine"}, {"test": [Annotation(name, "", "POS", (), ("d",))]})
        return fingerprint(load_split(MOVIES, "test", data_dir=tmp_path / name, seed=0), names=True)

    assert loaded("one") != loaded("two")


def test_numbered_rows_add_nothing(tmp_path: Path) -> None:
    """Where rows have no ids of their own, GLUE's fingerprints are what they were, in every layout."""
    columns: Mapping[str, Sequence[object]] = {"sentence": ["a", "b"], "label": [1, 0]}
    pq.write_table(pa.table(columns), tmp_path / "validation.parquet")
    (tmp_path / "tsv").mkdir()
    (tmp_path / "tsv" / "dev.tsv").write_text("sentence\tlabel\na\t1\nb\t0\n", encoding="utf8")
    tables = [load_split(TASKS["sst2"], "validation", data_dir=tmp_path / name, seed=0) for name in ("", "tsv")]
    # printf '[["a", "b"], [1, 0]]' | sha256sum
    assert [fingerprint(table, names=True) for table in tables] == ["4c390cd0481922bf"] * 2


def test_renamed_rows_are_run_again_by_the_same_model(tmp_path: Path) -> None:
    """Other ids of the reported rows are another run of the stored model; other ids of training rows are neither."""
    backbone = write_backbone(tmp_path / "bert")
    ids = [f"t{number}" for number in range(60)]
    folders = {name: write_lines(tmp_path / name, ids, split="train") for name in ("one", "reported", "trained")}
    for name, folder in folders.items():
        write_lines(folder, [f"{'r' if name == 'reported' else 'e'}{number}" for number in range(12)])
    write_lines(folders["trained"], [f"x{number}" for number in range(60)], split="train")
    one, reported, trained = (plan(folder, backbone).arms[0] for folder in folders.values())
    assert one.job.id == reported.job.id == trained.job.id
    assert one.run_id == trained.run_id != reported.run_id


def test_chunks_of_other_rows_are_not_taken_over(tmp_path: Path) -> None:
    """What a killed evaluation left is taken where it is of these very rows in these columns, and of numbers."""
    whole = evaluation.evaluate(arm(), rows(12), folder=tmp_path)
    path = tmp_path / "part-00000000.parquet"
    odd = whole["probabilities"].to_pylist()
    odd[3] = [float("nan")] * 3
    place = whole.schema.get_field_index("probabilities")
    left = {
        "other rows": renamed(whole, [f"x{number}" for number in range(12)], texts=whole["text_id"].to_pylist()),
        "an earlier version's": renamed(whole, whole["example_id"].to_pylist(), texts=None),
        "fewer": whole.slice(0, 5),
        "no numbers": whole.set_column(place, whole.schema.field(place), pa.array(odd)),
    }
    for table in left.values():
        pq.write_table(table, path)
        assert evaluation.evaluate(arm(), rows(12), folder=tmp_path).equals(whole)
    path.write_bytes(path.read_bytes()[:100])
    assert evaluation.evaluate(arm(), rows(12), folder=tmp_path).equals(whole)
