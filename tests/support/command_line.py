"""The command line, called in this process."""

from __future__ import annotations

import contextlib
import io
import json
import re
from dataclasses import dataclass
from typing import Any

import pytest

from bench.cli import main


@dataclass(frozen=True)
class Answer:
    """What a command left behind."""

    code: object
    out: str
    err: str

    def planned(self, state: str) -> int:
        """How many stages and runs the plan calls `state`, "to do" or "cached"."""
        return len(re.findall(rf"^(?:stage|run) .*: {state}", self.out, re.MULTILINE))

    @property
    def records(self) -> list[dict[str, Any]]:
        """The lines of JSON among the output."""
        return [json.loads(line) for line in self.out.splitlines() if line.startswith("{")]


def call(*arguments: object) -> Answer:
    """Run the command line in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    return Answer(stop.value.code, out.getvalue(), err.getvalue())
