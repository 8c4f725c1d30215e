"""`python -m eraser_eval score` and `validate`; what is wrong with the input is said in one line, with exit code 2."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from eraser_eval.errors import InputError
from eraser_eval.formats.schema import present_splits
from eraser_eval.report import table
from eraser_eval.scorer import Settings
from eraser_eval.scoring import score, validate


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Raise InputError for a wrong argument, as for any other wrong input."""
        raise InputError(f"{message}; see python -m eraser_eval --help")


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of both commands."""
    parser = _Parser(prog="python -m eraser_eval", description="Score rationales in ERASER's format.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="{score,validate}")
    score_, check = (
        commands.add_parser("score", help="score a prediction file"),
        commands.add_parser("validate", help="check a data set, and a prediction file if one is given"),
    )
    for command in (score_, check):
        command.add_argument("--data", "--data_dir", type=Path, required=True, metavar="DIR", help="the data set")
        command.add_argument("--split", required=command is score_, help="train, val or test")
        command.add_argument(
            *("--predictions", "--results"), type=Path, required=command is score_, metavar="FILE", help="may be .gz"
        )
        command.add_argument("--json", action="store_true", help="print JSON, with all digits")
    _add_settings(score_)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    try:
        given = build_parser().parse_args(arguments)
        print(_validate(given) if given.command == "validate" else _score(given), flush=True)
    except InputError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # Whoever reads has seen enough; what is still buffered must not be written when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _add_settings(command: argparse.ArgumentParser) -> None:
    defaults = Settings()
    command.add_argument(
        *("--iou-thresholds", "--iou_thresholds"),
        type=float,
        nargs="+",
        default=defaults.iou_thresholds,
        metavar="SHARE",
        help="intersection over union from which on spans meet (default: 0.5)",
    )
    command.add_argument(
        *("--aopc-thresholds", "--aopc_thresholds"),
        type=float,
        nargs="+",
        metavar="SHARE",
        help="erased shares to average (default: 0.01 0.05 0.1 0.2 0.5 if the file has them, else all it has)",
    )
    command.add_argument("--strict", action="store_true", help="refuse files without classes and comprehensiveness")
    command.add_argument("--resamples", type=int, default=defaults.resamples, help="of the bootstrap (default: 1000)")
    command.add_argument("--seed", type=int, default=defaults.seed, help="of the bootstrap (default: 0)")
    command.add_argument("--per-document", type=Path, metavar="FILE", help="write the values of each document there")


def _score(given: argparse.Namespace) -> str:
    settings = Settings(
        iou_thresholds=tuple(given.iou_thresholds),
        aopc_thresholds=None if given.aopc_thresholds is None else tuple(given.aopc_thresholds),
        strict=given.strict,
        resamples=given.resamples,
        seed=given.seed,
    )
    report = score(
        given.data,
        split=given.split,
        predictions=given.predictions,
        settings=settings,
        per_document=given.per_document,
    )
    return json.dumps(report, indent=1, allow_nan=False) if given.json else table(report)


def _validate(given: argparse.Namespace) -> str:
    if given.predictions is not None and given.split is None:
        raise InputError("--predictions needs --split; say which split is predicted")
    splits = present_splits(given.data) if given.split is None else (given.split,)
    counts = validate(given.data, splits=splits, predictions=given.predictions)
    if given.json:
        return json.dumps({"valid": True, **counts})
    return "valid: " + ", ".join(f"{count} {name}" for name, count in counts.items())


if __name__ == "__main__":
    sys.exit(main())
