"""Stored runs that somebody or something has changed: one line that names the file, never another number."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from analysis.tables.frames import Runs
from bench.errors import InputError
from bench.store.runs import RunStore
from tests.support.command_line import call
from tests.support.stored_runs import StoredRun, forget_digests, write_runs

RUN = StoredRun("run", wrong=(1, 2), shown=[{"pieces": ["a"], "layers": [6]}])
Damage = Callable[[Path], object]


def stored(tmp_path: Path, *, early: bool = False) -> RunStore:
    """A store with `RUN`, as this version or, without digests, an early one has written it."""
    store, _ = write_runs(tmp_path / "runs", RUN)
    if early:
        forget_digests(store, "run")
    return store


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the values of a JSON file."""
    values = json.loads(path.read_text(encoding="utf8"))
    change(values)
    path.write_text(json.dumps(values), encoding="utf8")


def rewrite(path: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    """Change a parquet file's table."""
    pq.write_table(change(pq.read_table(path)), path)


def with_column(name: str, values: Callable[[list[Any]], list[Any]], kind: pa.DataType | None = None) -> Any:
    """A change of one column of a table."""

    def change(table: pa.Table) -> pa.Table:
        place = table.schema.get_field_index(name)
        own = pa.array(values(table[name].to_pylist()), kind or table.schema.field(name).type)
        return table.set_column(place, name, own)

    return change


def refusal(store: RunStore) -> str:
    """The one line with which the runs are refused."""
    with pytest.raises(InputError) as refused:
        Runs.read(store, ["run"])
    assert "\n" not in str(refused.value)
    return str(refused.value)


def flipped(path: Path, place: int = -200) -> None:
    """Turn one bit of a file over."""
    content = bytearray(path.read_bytes())
    content[place] ^= 4
    path.write_bytes(content)


@pytest.mark.parametrize("change", [
    lambda table: table.slice(0, 5),
    lambda table: pa.concat_tables([table.slice(0, 39), table.slice(0, 1)]),
    with_column("prediction", lambda own: [1 - own[0], *own[1:]]),
    with_column("flops", lambda own: [own[0] + 1, *own[1:]]),
    lambda table: table.take(list(reversed(range(len(table))))),
    lambda table: table,  # the same rows, written again by hand with other settings
])  # fmt: skip
def test_a_table_that_was_changed_is_refused(tmp_path: Path, change: Any) -> None:
    """Rows lost, doubled, edited or put in another order: the table is not the one whose digest the record holds."""
    store = stored(tmp_path)
    path = store.folder("run") / "examples.parquet"
    table = change(pq.read_table(path))
    pq.write_table(table, path, compression="gzip")
    assert f"{path} is damaged" in refusal(store)


@pytest.mark.parametrize(("change", "told"), [
    (lambda table: table.slice(0, 5), "it has 5 rows, but the record beside it says 40"),
    (lambda table: pa.concat_tables([table, table.slice(0, 1)]), "it has 41 rows"),
    (lambda table: pa.concat_tables([table.slice(0, 39), table.slice(0, 1)]), "column example_id: .* twice"),
    (with_column("label", lambda own: [str(each) for each in own], pa.string()), "column label is of type string"),
    (with_column("length", lambda own: [None, *own[1:]]), "column length has 1 empty"),
    (with_column("tokens", lambda own: [[None] * 6, *own[1:]]), "column tokens has 6 empty"),
    (with_column("tokens", lambda own: [own[0][:5], *own[1:]]), "column tokens: .* each layer"),
    (with_column("heads", lambda own: [[-1] * 6, *own[1:]]), "column heads: .* negative"),
    (with_column("flops", lambda own: [-own[0], *own[1:]]), "column flops: .* positive"),
    (with_column("exit_depth", lambda own: [7, *own[1:]]), "column exit_depth: .* 1 to 6"),
    (with_column("seconds", lambda own: [[float("nan")], *own[1:]]), "column seconds has .* not finite"),
    (with_column("probabilities", lambda own: [[1.0], *own[1:]]), "column probabilities: .* each class"),
    (with_column("prediction", lambda own: [1 - own[0], *own[1:]]), "column correct: .* prediction == label"),
])  # fmt: skip
def test_an_early_table_is_checked_against_itself_and_its_record(tmp_path: Path, change: Any, told: str) -> None:
    """Without digests, what a column cannot hold and what the record says otherwise still shows."""
    store = stored(tmp_path, early=True)
    path = store.folder("run") / "examples.parquet"
    rewrite(path, change)
    with pytest.raises(InputError, match=told) as refused:
        store.examples("run")
    assert str(path) in str(refused.value)
    assert "delete the folder" in str(refused.value)


def test_an_early_record_and_its_table_must_give_the_same_metric(tmp_path: Path) -> None:
    """Predictions edited with their column of right answers: 38 of 40 in the record, 39 of 40 in the table."""
    store = stored(tmp_path, early=True)
    path = store.folder("run") / "examples.parquet"
    rewrite(path, with_column("prediction", lambda own: [own[0], 1 - own[1], *own[2:]]))
    rewrite(path, with_column("correct", lambda own: [own[0], not own[1], *own[2:]]))
    line = refusal(store)
    assert "accuracy of run run is 0.975000 by the table and 0.950000 by the record" in line
    assert str(path) in line


def test_an_early_run_that_is_whole_is_read_as_before(tmp_path: Path) -> None:
    """A record without digests is no reason to refuse it."""
    early, now = stored(tmp_path / "early", early=True), stored(tmp_path / "now")
    assert early.examples("run").equals(now.examples("run"))
    assert early.record("run") == now.record("run")
    assert dict(early.record("run").digests) == {}


@pytest.mark.parametrize("early", [True, False])
@pytest.mark.parametrize(("change", "told"), [
    (lambda values: values["metrics"].update(accuracy=None), "metrics.accuracy is null"),
    (lambda values: values["metrics"].update(accuracy="0.9"), "metrics.accuracy is \"0.9\""),
    (lambda values: values["metrics"].update(accuracy=float("nan")), "metrics.accuracy is NaN"),
    (lambda values: values["heldout"].update(accuracy=True), "heldout.accuracy is true"),
    (lambda values: values["heldout"].update(accuracy=1e999), "heldout.accuracy is Infinity"),
    (lambda values: values["data"].update(rows="12"), "data.rows is \"12\""),
    (lambda values: values["data"].pop("rows"), "its data no rows"),
    (lambda values: values["data"].update(fingerprints=["x"]), "data.fingerprints is a list of 1"),
    (lambda values: values["artifacts"].update(finetune=3), "artifacts.finetune is 3"),
    (lambda values: values["timing"].update(threads=-1), "timing.threads is -1"),
    (lambda values: values["knobs"].update(phi=[1]), "knobs.phi is a list of 1"),
    (lambda values: values["training"].update(finetune=None), "training.finetune is null"),
    (lambda values: values.update(layers=0), "it has no layers"),
    (lambda values: values.update(layers=6.0), "layers is 6.0"),
    (lambda values: values.update(seed=True), "seed is true"),
    (lambda values: values.update(backbone="\ud800"), "backbone is "),
    (lambda values: values.update(flops_convention="MACs"), "flops_convention is another"),
    (lambda values: values.update(novel=1), "unknown fields \"novel\""),
    (lambda values: values.pop("control_of"), "unknown fields \"control_of\""),
])  # fmt: skip
def test_a_record_of_wrong_content_names_file_and_field(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], told: str, early: bool
) -> None:
    """Whatever a field holds that it cannot hold is refused by its name, in a record of any version."""
    store = stored(tmp_path, early=early)
    path = store.folder("run") / "record.json"
    edit(path, change)
    line = refusal(store)
    assert line.startswith(str(path))
    assert told in line


@pytest.mark.parametrize(("content", "told"), [
    (b"\xff\xfe{", "byte 0 is not UTF-8"),
    ("{}".encode("utf-16"), "is not UTF-8"),
    (b"", "no JSON at line 1, column 1"),
    (b'{"run_id": "run"', "no JSON at line 1"),
    (b"[]", "it holds a list of 0, not an object"),
    (b"null", "it holds null, not an object"),
    (b'{"run_id": "run", "run_id": "run"}', 'field "run_id" stands there twice'),
    (b"[" * 100_000, "nested too deeply"),
    (b'{"seed": ' + b"9" * 5000 + b"}", "integer string"),
])  # fmt: skip
def test_a_record_that_is_no_record_names_the_file(tmp_path: Path, content: bytes, told: str) -> None:
    """Bytes of whatever kind are refused with the path, the fault and the remedy."""
    store = stored(tmp_path)
    path = store.folder("run") / "record.json"
    path.write_bytes(content)
    line = refusal(store)
    assert line.startswith(str(path))
    assert told in line
    assert f"delete the folder {store.folder('run')}" in line


def test_numbers_that_look_right_are_not_believed(tmp_path: Path) -> None:
    """A held-out score that was edited fits its field, but not the record's own digest."""
    store = stored(tmp_path)
    path = store.folder("run") / "record.json"
    edit(path, lambda values: values["heldout"].update(accuracy=0.99))
    assert refusal(store).startswith(f"{path} is damaged: its content is not what its digest is of")


@pytest.mark.parametrize("content", [b"\xff", b"{}", b'[{"pieces": ["a"], "layers": ["six"]}]', b"[1]", b'[{"a": 1}]'])
@pytest.mark.parametrize("early", [True, False])
def test_texts_that_are_damaged_may_be_deleted(tmp_path: Path, content: bytes, early: bool) -> None:
    """What a run shows is checked too, and the remedy is true: without the file the run is whole."""
    store = stored(tmp_path, early=early)
    path = store.folder("run") / "shown.json"
    path.write_bytes(content)
    line = refusal(store)
    assert line.startswith(f"{path} is damaged")
    assert "delete it" in line
    path.unlink()
    assert len(Runs.read(store, ["run"]).records) == 1


@pytest.mark.parametrize("damage", [
    lambda folder: (folder / "record.json").write_bytes(b"\xff"),
    lambda folder: flipped(folder / "examples.parquet"),
    lambda folder: (folder / "examples.parquet").unlink(),
    lambda folder: folder.with_name("copy").mkdir() or [
        (folder.with_name("copy") / each.name).write_bytes(each.read_bytes()) for each in list(folder.iterdir())
    ],
])  # fmt: skip
def test_report_and_compare_refuse_in_one_line(tmp_path: Path, damage: Damage) -> None:
    """Both commands end with exit code 2 and one line, and write no report."""
    store, _ = write_runs(tmp_path / "runs", RUN, StoredRun("other", method="entropy_exit"))
    damage(store.folder("run"))
    answer = call("report", store.root, "--out", tmp_path / "report")
    assert (answer.code, answer.err.count("\n")) == (2, 1), answer.err
    assert not (tmp_path / "report").exists()
    if (store.root / "copy").exists():
        return
    answer = call("compare", "run", "other", "--store", tmp_path)
    assert (answer.code, answer.err.count("\n")) == (2, 1), answer.err
