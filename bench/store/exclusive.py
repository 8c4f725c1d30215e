"""Keep other commands from what a command makes, and notice when they change what it is made of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from bench.errors import InputError
from bench.store.folders import Folders
from bench.store.locks import exclusive_lock

if TYPE_CHECKING:
    from bench.planning.plan import Plan
    from bench.store.artifacts import Job


@contextmanager
def lock_folders(store: Folders, names: Iterable[str]) -> Iterator[None]:
    """Keep other commands from making or deleting these folders."""
    with ExitStack() as locks:
        for name in sorted(names):  # in one order, so that no two commands wait for each other
            locks.enter_context(exclusive_lock(store.folder(name)))
        yield


@contextmanager
def fresh_locks(plan: Plan) -> Iterator[None]:
    """Keep other commands, with `fresh`, from all that is deleted and made again, until it is made."""
    with ExitStack() as locks:
        if plan.settings.fresh:
            runs, stages = plan.outdated
            locks.enter_context(lock_folders(plan.artifacts, {*stages, *(job.id for job in plan.missing_jobs)}))
            locks.enter_context(lock_folders(plan.runs, {*runs, *(arm.run_id for arm in plan.missing_arms)}))
        yield


@contextmanager
def same_stages(plan: Plan, jobs: Sequence[Job]) -> Iterator[None]:
    """Check that finished stages are intact, and that they are the same ones when the block ends.

    Raises:
        InputError: one is damaged, or another command has trained it again or forgotten it.
    """
    names = list(dict.fromkeys(job.id for job in jobs))
    for name in names:
        plan.artifacts.require_whole(name)
    before = {name: plan.artifacts.manifest(name) for name in names}
    yield
    for name in names:
        if name not in plan.artifacts or plan.artifacts.manifest(name) != before[name]:
            raise InputError(
                f"stage {name} was trained again or forgotten by another command (--fresh) meanwhile; give this "
                "command again once that one has ended"
            )


def require_whole_before(plan: Plan, jobs: Sequence[Job]) -> None:
    """Check the finished stages that these start from, before the first one trains.

    Raises:
        InputError: one is damaged.
    """
    for name in dict.fromkeys(job.after.id for job in jobs if job.after and job.after.id in plan.artifacts):
        plan.artifacts.require_whole(name)
