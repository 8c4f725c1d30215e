"""The rules that hold for the whole source: who imports whom, and what is never used."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import efficient_bert

ROOT = Path(__file__).parents[1]
MAY_IMPORT = {
    "efficient_bert": set(),
    "eraser_eval": set(),
    "analysis": {
        *(
            "bench.registry",
            "bench.store.records",
            "bench.store.runs",
            "bench.store.packs",
            "bench.rationales.files",
            "bench.store.folders",
            "bench.planning.presets",
        ),
        *("bench.errors", "bench.choosing", "bench.visible", "eraser_eval.metrics.intervals"),
    },
    "bench": {"efficient_bert", "eraser_eval"},
}
"""Package -> what it may import of ours besides itself; parts of a named module count as that module."""

COMMAND_LINE = {"bench/cli.py", "bench/__main__.py"}
"""What puts everything together, and `python -m bench`, which only calls it."""

FOR_TYPES = {
    "bench/registry.py": {"analysis.plots", "bench.backends", "bench.metrics", "bench.tasks"},
    "bench/planning/checks.py": {"bench.backends"},
    "bench/planning/plan.py": {"bench.backends"},
    "analysis/tables/engines.py": {"bench.metrics"},
    "analysis/tables/statistics.py": {"bench.metrics"},
    "bench/data/examples.py": {"bench.planning.presets", "bench.planning.settings"},
    "bench/data/finite.py": {"bench.planning.plan"},
    "bench/store/exclusive.py": {"bench.planning.plan"},
    "efficient_bert/policies/controls.py": {"efficient_bert.model"},
}
"""What is only named as a type, not imported when the program runs, against the order of packages and rooms."""

ROOMS = {
    "efficient_bert": (
        "errors runtime | config files fidelity knobs memory rows | encoder | engine | policies | model | cost | "
        "calibration | export | explainers | methods | training"
    ),
    "bench": (
        "errors | choosing demo_corpus machine progress registry signals visible | metrics tasks | data | store | "
        "backbones console | planning | backends | latency | runs | rationales | commands | cli | __main__"
    ),
    "eraser_eval": "errors | formats | metrics | align checks report scorer | notes | scoring | __main__",
    "analysis": "tables | figures | plots | pages | rationales | result_pages",
}
"""Package -> its rooms and modules in levels, the lowest first: each imports from levels below it alone."""

MOST_MODULES = 15
"""Modules in one folder of code, beside its `__init__.py`."""

ENGINE = {
    *("efficient_bert.run", "efficient_bert.Batch", "efficient_bert.engine.loop", "efficient_bert.engine.batch"),
    "efficient_bert.training.batches",
}
"""What passes examples through the engine, or makes batches for it."""

MAY_USE_ENGINE = {
    "bench/backends/runners.py": {"efficient_bert.engine.loop.run", "efficient_bert.engine.batch.Batch"},
    "bench/backends/huggingface.py": {"efficient_bert.engine.batch.pad_rows"},
    "bench/runs/estimate.py": {f"efficient_bert.training.batches.{name}" for name in ("LengthBuckets", "collate")},
}
"""Module of bench -> what it may use of these: a runner answers, and a training step that is timed has labels."""

SOURCES = sorted(path.relative_to(ROOT) for package in MAY_IMPORT for path in (ROOT / package).rglob("*.py"))
FORBIDDEN_MODULES = {"pickle", "dill", "cloudpickle", "shelve", "marshal", "joblib"}
FORBIDDEN_CALLS = {"torch.load", "torch.save", "numpy.load", "np.load", "pd.read_pickle", "eval", "exec"}

each_source = pytest.mark.parametrize("source", SOURCES, ids=str)


def parsed(source: Path) -> ast.Module:
    """The syntax tree of a source file."""
    return ast.parse((ROOT / source).read_text(encoding="utf8"))


def imports(tree: ast.AST, *, typing_only: bool = False) -> Iterator[tuple[str, bool]]:
    """(module, whether it is for type checkers alone) of every import, at the top or inside a function.

    `from a import b` counts as `a.b`, for b may be a module.
    """
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from ((name.name, typing_only) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((f"{'.' * node.level}{node.module}.{name.name}", typing_only) for name in node.names)
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            yield from imports(ast.Module(node.body, []), typing_only=True)
            yield from imports(ast.Module(node.orelse, []), typing_only=typing_only)
        else:
            yield from imports(node, typing_only=typing_only)


def within(module: str, allowed: set[str]) -> bool:
    """Whether `module` is one of `allowed` or a part of one."""
    return any(f"{module}.".startswith(f"{name}.") for name in allowed)


@each_source
def test_imports_go_one_way(source: Path) -> None:
    """Leaves import none of ours, analysis bench's side of the store and the interval; bench.cli alone sees all."""
    package = source.parts[0]
    allowed = MAY_IMPORT[package] | {package}
    for module, typing_only in imports(parsed(source)):
        if source.as_posix() in COMMAND_LINE or module.split(".")[0] not in MAY_IMPORT:
            continue
        known = allowed | (FOR_TYPES.get(source.as_posix(), set()) if typing_only else set())
        assert within(module, known), f"{source} imports {module}; {package} may import {sorted(known)}"
        assert not within(module, {"bench.cli"}), f"{source} imports the command line"


@each_source
def test_inference_needs_no_training(source: Path) -> None:
    """In the library only training imports training, or accelerate (which transformers loads where it is installed)."""
    if source.parts[0] == "efficient_bert" and source.parts[1] != "training":
        needed = [module for module, typing_only in imports(parsed(source)) if not typing_only]
        assert not [module for module in needed if within(module, {"efficient_bert.training", "accelerate"})]


@each_source
def test_bench_answers_through_runners(source: Path) -> None:
    """In bench only a runner calls the engine; others neither pass a batch nor make one, by whatever import."""
    if source.parts[0] == "bench":
        tree = parsed(source)
        imported = {module for module, typing_only in imports(tree) if not typing_only}
        attributes = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        used = {name for name in imported | attributes if within(name, ENGINE)}
        assert used <= MAY_USE_ENGINE.get(source.as_posix(), set()), f"{source} uses {sorted(used)}; take a Runner"
        calls = [ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)]
        assert "Batch" not in calls, f"{source} builds a batch; prepare one by a Runner"


def module_of(source: Path) -> str:
    """Name of the module in a source file."""
    parts = source.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(source): source for source in SOURCES}


def imported_modules(source: Path, *, typing: bool = False) -> set[str]:
    """The modules of ours that a file imports, those for type checkers only with `typing`."""
    known = set()
    for name, typing_only in imports(parsed(source)):
        while name and name not in MODULES:
            name = name.rpartition(".")[0]
        if name and (typing or not typing_only):
            known.add(name)
    return known - {module_of(source)}


@each_source
def test_rooms_import_from_lower_levels_alone(source: Path) -> None:
    """Within a package nothing is imported from the same level of another room, nor from one above."""
    package, *rest = module_of(source).split(".")
    if package not in ROOMS or not rest:
        return
    levels = {room: number for number, level in enumerate(ROOMS[package].split(" | ")) for room in level.split()}
    for module in imported_modules(source, typing=True):
        parts = module.split(".")
        if parts[0] == package and len(parts) > 1 and parts[1] != rest[0]:
            named = within(module, FOR_TYPES.get(source.as_posix(), set()))
            assert named or levels[parts[1]] < levels[rest[0]], f"{source} imports {module}, which is no level below it"


def test_no_imports_run_in_a_circle() -> None:
    """No module imports itself by way of others."""
    left = {module: imported_modules(source) for module, source in MODULES.items()}
    while free := {module for module, needed in left.items() if not needed & left.keys()}:
        left = {module: needed for module, needed in left.items() if module not in free}
    assert not left


def test_no_folder_holds_too_many_modules() -> None:
    """A folder of code, or of tests, can be taken in at a glance."""
    sources = [*SOURCES, *(path.relative_to(ROOT) for path in (ROOT / "tests").rglob("*.py"))]
    counts = Counter(source.parent for source in sources if source.name != "__init__.py")
    assert not {folder: count for folder, count in counts.items() if count > MOST_MODULES}


@each_source
def test_imports_are_absolute(source: Path) -> None:
    """No import starts with a dot."""
    assert not [module for module, _ in imports(parsed(source)) if module.startswith(".")]


@each_source
def test_nothing_unpickles_or_runs_foreign_code(source: Path) -> None:
    """No pickling module, no torch.load or torch.save, no eval, no remote code."""
    tree = parsed(source)
    assert not [module for module, _ in imports(tree) if within(module, FORBIDDEN_MODULES | FORBIDDEN_CALLS)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            assert ast.unparse(node.func) not in FORBIDDEN_CALLS, f"{source}, line {node.lineno}"
        if isinstance(node, ast.keyword) and node.arg == "trust_remote_code":
            assert ast.unparse(node.value) == "False", f"{source}, line {node.value.lineno}"
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            assert ast.unparse(node.value) == "False", f"{source}, line {node.value.lineno}"


@pytest.mark.parametrize(
    ("statement", "heavy"),
    [
        ("import bench.cli", {"torch", "transformers", "datasets", "pandas", "numpy", "matplotlib", "pyarrow"}),
        ("import analysis.pages.report; from bench.registry import PLOTS, METRICS; [*PLOTS, *METRICS]", {"torch"}),
        ("import eraser_eval.formats.schema", {"torch", "transformers", "pandas"}),
        (
            "from efficient_bert.methods.entropy_exit import ENTROPY_EXIT as m; from tests.support.tiny import *;"
            "from efficient_bert import run; import torch; o = tiny_model();"
            "run(o, tiny_batch([3]), m.policy(o, {'exit_threshold': 0.3}))",
            {"datasets", "efficient_bert.training"},
        ),
        (
            "import efficient_bert.errors, efficient_bert.knobs, efficient_bert.rows, bench.registry",
            {"torch", "transformers", "numpy", "efficient_bert.engine"},
        ),
        ("import bench.choosing", {"torch", "transformers", "pandas", "numpy"}),
    ],
)
def test_importing_is_light(statement: str, heavy: set[str]) -> None:
    """The command line imports without numbers, report and errors without torch; a method runs without training."""
    code = f"{statement}\nimport sys\nprint(*sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_the_package_has_its_names() -> None:
    """Every public name is there and listed, and no other."""
    assert set(efficient_bert.__all__) == set(efficient_bert.MODULES) <= set(dir(efficient_bert))
    for name in efficient_bert.__all__:
        assert getattr(efficient_bert, name).__module__ == f"efficient_bert.{efficient_bert.MODULES[name]}"
    with pytest.raises(AttributeError, match="has no attribute 'Model'"):
        _ = efficient_bert.Model
