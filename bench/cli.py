"""`bench`: the command line, where everything is put together. Heavy imports happen inside the commands."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from bench import __version__
from bench.commands.export import export_command
from bench.commands.flags import (
    FILE,
    FOLDER,
    HELP_WIDTH,
    MANY,
    MEASURING,
    ONE,
    SEED,
    SEEDS,
    SHARED,
    Name,
    Share,
    WithKnobs,
    given_values,
)
from bench.commands.latency import latency_command
from bench.commands.parameters import add_config_entry, default_device, make_plans, make_settings
from bench.console import print_summary, progress_bars, silence_libraries
from bench.errors import InputError, input_errors, system_trouble
from bench.planning.presets import PRESETS
from bench.registry import BACKENDS, EXPLAINERS, METHODS, METRICS, PLOTS, TASKS
from bench.signals import Interruption, ending_signals, interruption
from bench.visible import visible

if TYPE_CHECKING:
    from analysis.tables.frames import Runs
    from bench.planning.plan import Plan

JSON_LINE = ("run_id", "task", "method", "backend", "knobs", "seed", "preset", "backbone", "metrics", "heldout")
"""Fields of the record that the JSON line of a run repeats."""


@click.group(context_settings={"help_option_names": ["-h", "--help"], "terminal_width": HELP_WIDTH})
@click.version_option(__version__, prog_name="efficient-bert")
def bench() -> None:
    """Train, run and honestly measure input-adaptive BERT.

    `bench run --task demo` needs no download; `bench list` names tasks, methods, backends, explainers, metrics,
    plots and presets. `bench advise` says which of the models that were measured to deploy, or that none is worth it.
    """


@bench.command("run", cls=WithKnobs)
@SHARED
@MANY
@MEASURING
@click.option("--config", type=FILE, help="The method and knobs that bench search chose; flags go first.")
@click.option("--specs", type=FOLDER, help="Run nothing: write each stage and run as JSON, for bench carry-out.")
def run_command(
    seeds: tuple[int, ...], device: str | None, out: Path, config: Path | None, specs: Path | None, **given: Any
) -> None:
    """Plan, train what is missing, evaluate, time, store, and write the report."""
    given = add_config_entry(given, config) if config else given
    if specs:
        write_specs_of(seeds, device, specs, given)
    else:
        run_and_report(seeds, device, out, given)


def write_specs_of(seeds: tuple[int, ...], device: str | None, folder: Path, given: dict[str, Any]) -> None:
    """Write the stages and runs of a plan per seed as specs, each once."""
    silence_libraries()
    from bench.runs.specs import require_new_folder, specs_of, write_specs

    require_new_folder(folder)
    if given["fresh"] or given["time_again"]:
        raise InputError("specs are carried out where they are not stored yet; leave --fresh and --time-again out")
    plans = make_plans(seeds, device, given)
    specs = {spec.id: spec for plan in plans for part in specs_of(plan) for spec in part}
    write_specs(specs.values(), folder)
    click.echo(f"specs: {len(specs)} in {folder}")


@bench.command("carry-out")
@click.argument("specs", metavar="SPEC.json...", type=FILE, nargs=-1, required=True)
@click.option("--store", type=FOLDER, default=Path(), help="Folder of runs/ and artifacts/. [default: here]")
def carry_out_command(specs: tuple[Path, ...], store: Path) -> None:
    """Train the stages and measure the runs of specs that bench run --specs wrote, stages first.

    Nothing is done where the data, the backbone or the hardware is another one: the id would be another one.
    """
    silence_libraries()
    from bench.runs.specs import carry_out_spec, read_specs

    for spec in read_specs(specs):
        click.echo(f"{spec.kind}: {carry_out_spec(spec, store, progress_bars())}")


@bench.command("search", cls=WithKnobs)
@SHARED
@MANY
@click.option(
    "--allowed-drop",
    type=Share(0, 1),
    default=0.01,
    show_default=True,
    help="How much of the full model's score the chosen point may lose.",
)
@click.option(
    "--out",
    type=FILE,
    default=Path("best_tradeoff_inference_config.json"),
    show_default=True,
    help="File that keeps each task's point, for bench run --config.",
)
def search_command(
    seeds: tuple[int, ...], device: str | None, allowed_drop: float, out: Path, methods: tuple[str, ...], **given: Any
) -> None:
    """Choose a method's fastest point that holds up on training rows that no stage learnt on, and keep it in a file.

    Give one --method, and the knob values to try where its own points are not enough.
    """
    from bench.runs.search import best_point, existing_entries, measure_points, method_to_search, write_entry

    method = method_to_search(methods)
    existing_entries(out)  # a file that cannot be read is refused before anything is trained
    plans = make_plans(seeds, device, {**given, "methods": methods}, measuring=False)
    full, others = measure_points(plans, progress_bars())
    for point in [full, *others]:
        knobs = " ".join(f"{name}={value}" for name, value in point.knobs.items())
        click.echo(f"point   score {point.score:.4f}, FLOPs speed-up {point.speedup:.3f}: {knobs or 'full'}")
    chosen = best_point(full, others, allowed_drop=allowed_drop)
    write_entry(out, task=given["task"], method=method, knobs=chosen.knobs)
    click.echo(f"chosen  {json.dumps(dict(chosen.knobs))}\nkept in {out}")


@bench.command("sweep", cls=WithKnobs)
@SHARED
@MANY
@MEASURING
@click.option("--controls/--no-controls", default=True, show_default=True, help="Each point's controls beside it.")
def sweep_command(
    seeds: tuple[int, ...], device: str | None, out: Path, controls: bool, methods: tuple[str, ...], **given: Any
) -> None:
    """Measure methods over a grid of knob values, what they share trained once, and name the point to choose.

    Give --method, and at least one knob with several values: --phi 0.001,0.005,0.02.
    """
    from analysis.tables.selection import choices
    from bench.runs.sweep import methods_to_sweep

    wanted = methods_to_sweep(methods, given_values(given)["knobs"], controls=controls)
    runs = run_and_report(seeds, device, out, {**given, "methods": wanted})
    for line in choices(runs) if runs else ():
        click.echo(visible(line))


def run_and_report(seeds: tuple[int, ...], device: str | None, out: Path, given: dict[str, Any]) -> Runs | None:
    """Carry out a plan per seed, print table, records and the folders of the models, write the report.

    Returns:
        the runs; None in every process but the first, which alone prints and writes.
    """
    from analysis.pages.report import require_replaceable, write_report
    from analysis.tables.frames import Runs
    from analysis.tables.summary import summary
    from bench.runs.run import carry_out
    from bench.store.locks import is_main_process

    require_replaceable(out)
    plans = make_plans(seeds, device, given)
    if (out / "index.html").is_file() and is_main_process():
        click.echo(f"report    the one in {out} will be replaced")
    bars = progress_bars()
    run_ids = list(dict.fromkeys(run_id for plan in plans for run_id in carry_out(plan, bars)))
    if not is_main_process():
        return None
    store = plans[0].runs
    runs = Runs.read(store, run_ids)
    print_summary(summary(runs))
    for record in runs.records:
        click.echo(json.dumps({name: getattr(record, name) for name in JSON_LINE}))
    print_models(plans)
    click.echo(f"report: {write_report(runs, out, source=store.root)}")
    return runs


def print_models(plans: Sequence[Plan]) -> None:
    """Print the folder of each stage's model that is there, each once."""
    jobs = {job.id: (job.stage.name, plan.artifacts) for plan in plans for job in plan.jobs}
    for name, (stage, artifacts) in jobs.items():
        if name in artifacts:
            click.echo(f"{stage}: {artifacts.folder(name)}")


@bench.command("train", cls=WithKnobs)
@SHARED
@MANY
@click.option(
    "--stage", "until", metavar="NAME", help="Train this stage and those before it, and no others. [default: all]"
)
def train_command(seeds: tuple[int, ...], device: str | None, **given: Any) -> None:
    """Train the stages that the methods need, one after the other; finished ones are kept."""
    from bench.runs.train import train_missing

    plans = make_plans(seeds, device, given, measuring=False)
    for plan in plans:
        train_missing(plan, progress_bars())
    print_models(plans)


@bench.command("predict", cls=WithKnobs)
@SHARED
@ONE
@click.option("--split", "splits", multiple=True, help="May be repeated. [default: all that have no labels]")
@click.option("--out", type=FOLDER, required=True, help="Where the files go.")
@click.option("--force", is_flag=True, help="Replace files that are there.")
def predict_command(
    method: str, device: str | None, splits: tuple[str, ...], out: Path, force: bool, **given: Any
) -> None:
    """Write a model's answers: GLUE's files for splits without labels, a table with probabilities for others."""
    silence_libraries()
    from bench.planning.plan import make_plan
    from bench.runs.predict import missing_stages, one_point, output_files, predict

    settings = make_settings(given, device, methods=(method,))
    paths = output_files(TASKS[settings.task], splits, out, force=force)
    plan = make_plan(one_point(settings))
    for job in missing_stages(plan, plan.arms[-1]):
        click.echo(f"stage     {job.stage.name}: to do")
    wordless = predict(plan, paths, progress_bars())
    for split, path in paths.items():
        count = wordless[split]
        rows = f" ({count:,} rows have no word pieces: their answers say nothing)" if count else ""
        click.echo(f"{split}: {path}{rows}")


@bench.command("report")
@click.argument("folder", type=FOLDER)
@click.option("--out", type=FOLDER, required=True, help="Where the report goes.")
@click.option("--task", type=Name(TASKS), help="Only this task's runs.")
@click.option("--markdown", "in_markdown", is_flag=True, help="Also print the table in Markdown.")
def report_command(folder: Path, out: Path, task: str | None, in_markdown: bool) -> None:
    """Write the report of all finished runs in FOLDER: a store, its runs/ folder, or one run.

    Of a folder of rationales that were put together, the report is theirs.
    """
    from analysis.pages.report import write_report
    from analysis.rationales import overview as rationale_overview
    from analysis.tables.frames import Runs
    from analysis.tables.summary import markdown, summary
    from bench.rationales.files import OVERVIEW
    from bench.store.locations import finished_runs

    if (folder / OVERVIEW).is_file():
        if task:
            raise InputError(f"--task is {task}, but the rationales in {folder} are of one task; leave it out")
        page = rationale_overview.write_report(folder, out)
        table = rationale_overview.summary(folder) if in_markdown else None
    else:
        store, run_ids = finished_runs(folder, task)
        runs = Runs.read(store, run_ids)
        page = write_report(runs, out, source=store.root)
        table = summary(runs) if in_markdown else None
    click.echo(f"report: {page}")
    if table is not None:
        click.echo(visible(markdown(table)))


@bench.command("compare")
@click.argument("a")
@click.argument("b")
@click.option("--store", type=FOLDER, default=Path(), help="A store, its runs/ folder or a pack. [default: here]")
def compare_command(a: str, b: str, store: Path) -> None:
    """Compare runs A and B (ids, or their folders) example by example: metrics, paired difference, interval."""
    from analysis.tables.compare import comparison
    from bench.store.locations import run_store
    from bench.store.packs import open_runs

    folders = {run: Path(run).resolve() for run in (a, b) if Path(run).is_dir()}
    roots = {folder.parent for folder in folders.values()} or {run_store(store).root}
    if len(roots) > 1:
        raise InputError(f"{a} and {b} lie in different folders; give two runs of one")
    one, other = (folders[run].name if run in folders else run for run in (a, b))
    print_summary(comparison(open_runs(roots.pop()), one, other))


@bench.command("advise")
@click.argument("runs", type=FOLDER)
@click.option(
    "--max-drop",
    type=Share(0, 1),
    default=0.01,
    show_default=True,
    help="How much of the full model's score may be lost, with 95 % confidence.",
)
@click.option(
    "--latency",
    type=click.Choice(["p50", "p90", "p99"]),
    default="p50",
    show_default=True,
    help="Percentile by which arms are compared.",
)
@click.option("--task", type=Name(TASKS), help="Whose runs, where there are several tasks.")
def advise_command(runs: Path, max_drop: float, latency: str, task: str | None) -> None:
    """Say which model to deploy: the fastest in RUNS, on any engine, that loses little enough; or a plain no.

    RUNS is a store, its runs/ folder or a pack. A no is an answer too: the exit code is 0.
    """
    from analysis.tables.advice import advise
    from analysis.tables.frames import Runs
    from analysis.tables.verdict import paragraph, verdict
    from bench.store.locations import finished_runs

    advice = advise(Runs.read(*finished_runs(runs, task)), max_drop=max_drop, percentile=latency)
    click.echo(f"{visible(paragraph(advice))}\n")
    print_summary(verdict(advice))


@bench.command("pack")
@click.argument("runs", type=FOLDER)
@click.option("--out", type=FOLDER, required=True, help="Folder for records.jsonl and examples.parquet.")
def pack_command(runs: Path, out: Path) -> None:
    """Pack the finished runs of a store into two files, to keep them or to pass them on.

    `bench report` and `bench compare --store` read such a folder as they read runs/.
    """
    from bench.store.locations import finished_runs
    from bench.store.packs import pack

    click.echo(f"packed: {len(pack(*finished_runs(runs), out))} runs in {out}")


@bench.command("gold")
@click.option("--task", type=Name(TASKS), required=True, help="A synthetic task: demo.")
@click.option("--out", type=FOLDER, required=True, help="Folder for docs.jsonl and {train,val,test}.jsonl.")
@click.option("--seed", type=SEED, default=0, show_default=True)
@click.option("--force", is_flag=True, help="Replace files that are there.")
def gold_command(task: str, out: Path, seed: int, force: bool) -> None:
    """Write a synthetic task's texts and gold rationales in ERASER's layout."""
    from bench.rationales.synthetic_gold import write_gold

    write_gold(TASKS[task], seed=seed, folder=out, force=force)
    click.echo(f"rationales: {out}")


bench.add_command(export_command)
bench.add_command(latency_command)


@bench.command("rationales", cls=WithKnobs)
@SHARED
@SEEDS
@click.option("--methods", "explainers", help="Explainers, separated by commas. [default: all but kept]")
@click.option("--split", help="train, val or test. [default: the task's]")
@click.option("--limit", type=click.IntRange(1), help="So many annotations, evenly spread. [default: all]")
@click.option(
    "--pooling",
    type=click.Choice(["mean", "sum", "max"]),
    default="mean",
    show_default=True,
    help="From the scores of word pieces to that of their word.",
)
@click.option(
    "--faithfulness",
    "erased",
    type=click.Choice(["all", "last", "none"]),
    default="all",
    show_default=True,
    help="Layers in which tokens are erased and the rest is read again (comprehensiveness, sufficiency): most of the"
    " time.",
)
@click.option(
    "--precision",
    type=click.Choice(["no", "bf16"]),
    default="no",
    show_default=True,
    help="Of gradients and of answers to erased texts, which are held against float32's to whole ones: bf16 takes about"
    " half the time where a processor multiplies it natively.",
)
@click.option("--show-text", is_flag=True, help="Keep and show texts of tasks whose texts are hateful.")
@click.option("--fresh", is_flag=True, help="Compare again what is finished; models are kept.")
@click.option("--out", type=FOLDER, required=True, help="Where predictions, tables and page go.")
def rationales_command(
    seeds: tuple[int, ...],
    device: str | None,
    explainers: str | None,
    split: str | None,
    limit: int | None,
    **given: Any,
) -> None:
    """Compare what AdapLeR keeps, and what other explainers score high, with what people marked.

    Several seeds, or several values of a knob, are compared one by one and pooled.
    """
    silence_libraries()
    from analysis.rationales import overview as rationale_overview
    from analysis.rationales.page import write_page
    from bench.rationales.command import METHODS as DEFAULT_METHODS
    from bench.rationales.command import RationaleSettings, compare_rationales, eraser_split, settings_of_models
    from bench.rationales.overview import pool_comparisons
    from bench.store.folders import exclusive_lock

    chosen = tuple(dict.fromkeys(explainers.split(","))) if explainers else DEFAULT_METHODS
    fields = {name: given.pop(name) for name in ("pooling", "erased", "precision", "show_text", "fresh", "out")}
    settings = RationaleSettings(chosen, eraser_split(given["task"], split), limit=limit, **fields)
    plans = make_plans(seeds, device, given, measuring=False, adapt=settings_of_models)
    with exclusive_lock(settings.out.resolve()):
        folders = compare_rationales(plans, settings, progress_bars())
        pages = [write_page(folder) for folder in folders]
        pool_comparisons(folders, settings.out)
        if len(folders) > 1:
            pages = [rationale_overview.write_overview(settings.out, settings.out)]
        print_summary(rationale_overview.summary(settings.out))
    click.echo(f"rationales: {pages[0]}")


@bench.command("list")
@click.argument("method", type=Name(METHODS), required=False)
def list_command(method: str | None) -> None:
    """List tasks, methods, backends, explainers, metrics, plots and presets; or explain METHOD with its knobs."""
    from bench.commands.method_help import method_lines

    if method is not None:
        click.echo("\n".join(method_lines(METHODS[method])))
        return
    registries = {f"{registry.kind}s": registry for registry in (TASKS, METHODS, BACKENDS, EXPLAINERS, METRICS, PLOTS)}
    for kind, entries in {**registries, "presets": PRESETS}.items():
        click.echo(kind)
        for name, entry in entries.items():
            click.echo(f"  {name:24} {entry.summary}")


@bench.command("env")
@click.option("--device", help="cpu or cuda. [default: cuda where there is one]")
def env_command(device: str | None) -> None:
    """Print what a measurement here would record of the machine, as JSON."""
    from bench.machine.environment import crowding_line, read_environment, read_load
    from bench.planning.checks import check_device

    chosen = device or default_device()
    check_device(chosen)
    environment = read_environment(chosen)
    click.echo(json.dumps({**environment, "load": read_load()}, indent=2))
    if line := crowding_line(environment):
        click.echo(f"bench: {environment['torch_threads']} threads, {line}", err=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; a user's mistake is one line on standard error and exit code 2.

    A signal that ends it is one line too, and its exit code 128 and the signal's number: 130 for Ctrl-C.
    """
    try:
        with ending_signals():
            code = bench.main(arguments, prog_name="bench", standalone_mode=False)
    except click.ClickException as error:
        fail(error.format_message())
    except (click.Abort, KeyboardInterrupt, Interruption) as error:
        fail(*interruption(error))
    except OSError as error:
        fail(system_trouble(error))
    except input_errors() as error:
        fail(str(error))
    else:
        sys.exit(code or 0)


def fail(message: str, code: int = 2) -> NoReturn:
    """Print one line on standard error, and exit with the code."""
    click.echo(f"bench: {visible(' '.join(message.split()))}", err=True)
    sys.exit(code)
