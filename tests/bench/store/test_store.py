"""The store of runs: whole or not there, found again, and refused where it was tampered with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.errors import InputError
from bench.store.runs import RunStore
from tests.support.stored_runs import StoredRun, write_runs


def stored(tmp_path: Path) -> RunStore:
    """A store with one run, `run`."""
    return write_runs(tmp_path, StoredRun("run"))[0]


def test_a_run_comes_back_as_it_was_put(tmp_path: Path) -> None:
    """Record and table survive, and nothing but the two files is left."""
    run = StoredRun("run", wrong=(1, 2))
    store = stored(tmp_path / "other")
    store.put(run.record(), run.table())
    assert store.record("run") == run.record()
    assert store.examples("run").to_pylist() == run.table().to_pylist()
    assert sorted(path.name for path in store.folder("run").iterdir()) == ["examples.parquet", "record.json"]
    assert [path.name for path in store.root.iterdir()] == ["run"]


def test_a_run_can_be_passed_on_without_its_texts(tmp_path: Path) -> None:
    """What a record shows lies in a file of its own; without it, all else is still there."""
    run = StoredRun("run", shown=[{"pieces": ["a", "word"], "layers": [6, 2]}])
    store = write_runs(tmp_path, run)[0]
    assert list(store.record("run").shown) == list(run.shown)
    assert "word" not in (store.folder("run") / "record.json").read_text(encoding="utf8")
    (store.folder("run") / "shown.json").write_text('[{"pieces"', encoding="utf8")
    with pytest.raises(InputError, match=r"run/shown.json is damaged; delete it"):
        store.record("run")
    (store.folder("run") / "shown.json").unlink()
    assert store.record("run") == StoredRun("run").record()


def test_only_whole_runs_are_listed(tmp_path: Path) -> None:
    """A folder without its record, an unfinished attempt and a stray file are no runs."""
    store = stored(tmp_path)
    (store.root / "half").mkdir()
    store.partial("begun")
    (store.root / "notes.txt").write_text("x", encoding="utf8")
    assert list(store.ids()) == ["run"]
    with pytest.raises(InputError, match=r"no run 'half' in .*; there are: run"):
        store.record("half")


def test_restarting_forgets_the_run_and_its_chunks(tmp_path: Path) -> None:
    """Neither the run nor what an unfinished attempt has kept is met by a fresh one."""
    store = stored(tmp_path)
    chunk = store.partial("run") / "part-0.parquet"
    chunk.write_bytes(b"x")
    store.restart("run")
    assert list(store.root.iterdir()) == []


def test_a_renamed_folder_is_refused(tmp_path: Path) -> None:
    """A folder that holds another run's record says whose it is."""
    store = stored(tmp_path)
    store.folder("run").rename(store.root / "copy")
    with pytest.raises(InputError, match="folder copy holds the record of run run"):
        store.record("copy")


def test_a_table_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    """A damaged table is one line with the run and the remedy."""
    store = stored(tmp_path)
    (store.folder("run") / "examples.parquet").write_bytes(b"no parquet")
    with pytest.raises(InputError, match=r"run/examples\.parquet is damaged: .*--fresh"):
        store.examples("run")


@pytest.mark.parametrize(("field", "value"), [("created", 3), ("layers", "six"), ("metrics", [0.9]), ("seed", None)])
def test_a_record_of_wrong_types_is_refused(tmp_path: Path, field: str, value: object) -> None:
    """A field of another type names itself, its value and the type."""
    store = stored(tmp_path)
    path = store.folder("run") / "record.json"
    values = json.loads(path.read_text(encoding="utf8"))
    path.write_text(json.dumps({**values, field: value}), encoding="utf8")
    with pytest.raises(InputError, match=f"not a run's record: {field} is"):
        store.record("run")
