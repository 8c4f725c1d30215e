"""Packed runs: two files that read as the store they were made from."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from analysis.tables.compare import compare
from analysis.tables.frames import Runs
from analysis.tables.summary import markdown, summary
from bench.cli import bench
from bench.errors import InputError
from bench.store.packs import EXAMPLES, RECORDS, PackedRuns, open_runs, pack
from bench.store.runs import RunStore
from bench.store.stored_examples import example_schema
from tests.support.stored_runs import StoredRun, sweep, write_runs


def packed(tmp_path: Path, *runs: StoredRun) -> tuple[RunStore, PackedRuns]:
    """Write runs to a store and pack it; both."""
    store, _ = write_runs(tmp_path / "runs", *runs)
    pack(store, store.ids(), tmp_path / "pack")
    return store, PackedRuns(tmp_path / "pack")


def test_a_pack_reads_as_its_store(tmp_path: Path) -> None:
    """Ids, records and tables of a pack equal those of the store, and so does the table that is made of them."""
    store, pack_of_it = packed(tmp_path, *sweep())
    assert list(pack_of_it.ids()) == list(store.ids())
    for run_id in store.ids():
        assert pack_of_it.record(run_id) == store.record(run_id)
        assert pack_of_it.examples(run_id).equals(store.examples(run_id))
    read = [markdown(summary(Runs.read(reader, reader.ids()))) for reader in (store, pack_of_it)]
    assert read[0] == read[1]


def test_a_regression_keeps_its_scores(tmp_path: Path) -> None:
    """Scores come back as real numbers, also those that are whole; classes come back as whole numbers."""
    run = StoredRun("scores", task="stsb")
    table = run.table()
    real = example_schema(regression=True)
    correct = table.schema.get_field_index("correct")
    table = table.set_column(correct, "correct", pa.nulls(len(table), pa.bool_())).cast(real)
    RunStore(tmp_path / "runs").put(run.record(), table)
    write_runs(tmp_path / "runs", StoredRun("classes"))
    pack(RunStore(tmp_path / "runs"), ["scores", "classes"], tmp_path / "pack")
    assert PackedRuns(tmp_path / "pack").examples("scores").equals(table)
    assert PackedRuns(tmp_path / "pack").examples("classes").equals(StoredRun("classes").table())


def test_a_pack_holds_no_text(tmp_path: Path) -> None:
    """The beginnings of examples that a run shows are left out; the run itself keeps them."""
    run = StoredRun("one", shown=({"pieces": ["secret"], "layers": [6]},))
    store, _ = packed(tmp_path, run)
    assert store.record("one").shown
    assert "secret" not in (tmp_path / "pack" / RECORDS).read_text(encoding="utf8")


def test_a_pack_can_be_packed_again(tmp_path: Path) -> None:
    """Packing a pack gives the same two files."""
    _, first = packed(tmp_path, *sweep())
    pack(first, first.ids(), tmp_path / "again")
    assert (tmp_path / "again" / RECORDS).read_bytes() == (first.root / RECORDS).read_bytes()
    assert pq.read_table(tmp_path / "again" / EXAMPLES).equals(pq.read_table(first.root / EXAMPLES))


def test_damage_is_one_line(tmp_path: Path) -> None:
    """A lost line, a changed or wrong one, and another or a cut table are refused with the file's name."""
    _, reader = packed(tmp_path, *sweep())
    path = reader.root / RECORDS
    lines = path.read_text(encoding="utf8").splitlines()
    path.write_text("\n".join(lines[1:]) + "\n", encoding="utf8")
    with pytest.raises(InputError, match=r"examples\.parquet and records\.jsonl beside it do not belong together"):
        PackedRuns(reader.root).examples(json.loads(lines[1])["run_id"])
    path.write_text("\n".join(lines[:-1]) + "\n", encoding="utf8")
    with pytest.raises(InputError, match=r"examples\.parquet and records\.jsonl beside it do not belong together"):
        PackedRuns(reader.root).examples(json.loads(lines[0])["run_id"])
    path.write_text("\n".join([lines[0], "{}"]), encoding="utf8")
    with pytest.raises(InputError, match=r"records\.jsonl, line 2"):
        list(PackedRuns(reader.root).ids())
    path.write_text(lines[0].replace("0.9", "0.8", 1), encoding="utf8")
    with pytest.raises(InputError, match=r"records\.jsonl, line 1: .*its content is not what its digest is of"):
        list(PackedRuns(reader.root).ids())
    (reader.root / EXAMPLES).write_bytes(b"")
    path.write_text("\n".join(lines), encoding="utf8")
    with pytest.raises(InputError, match=r"examples\.parquet is damaged"):
        PackedRuns(reader.root).examples(json.loads(lines[0])["run_id"])


def test_a_pack_goes_to_no_folder_of_other_things(tmp_path: Path) -> None:
    """A folder that holds something else is refused, and left as it is; a store without runs is refused too."""
    store, _ = write_runs(tmp_path / "runs", StoredRun("one"))
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter.txt").write_text("dear", encoding="utf8")
    with pytest.raises(InputError, match=r"letter\.txt"):
        pack(store, ["one"], tmp_path / "home")
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["letter.txt"]
    with pytest.raises(InputError, match="no finished runs"):
        pack(store, [], tmp_path / "pack")


def test_the_commands_read_a_pack(tmp_path: Path) -> None:
    """`bench pack` packs; `bench report` and a comparison take the pack as they take runs/."""
    store, ids = write_runs(tmp_path / "runs", *sweep())
    done = CliRunner().invoke(bench, ["pack", str(tmp_path / "runs"), "--out", str(tmp_path / "pack")])
    assert done.exit_code == 0, done.output
    assert f"{len(ids)} runs" in done.output
    done = CliRunner().invoke(bench, ["report", str(tmp_path / "pack"), "--out", str(tmp_path / "report")])
    assert done.exit_code == 0, done.output
    assert compare(open_runs(tmp_path / "pack"), *ids[:2]).equals(compare(store, *ids[:2]))


def test_an_unknown_run_is_refused(tmp_path: Path) -> None:
    """A run that the pack lacks is named, with those that it has."""
    _, reader = packed(tmp_path, replace(StoredRun("one"), seed=1))
    with pytest.raises(InputError, match=r"no run 'two' .*; there are: one"):
        reader.record("two")
