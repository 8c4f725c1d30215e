"""The model and data hub: named files of a repository as a local folder, from the cache where the network is absent."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from bench.errors import InputError


def snapshot(
    repository: str, *, kind: Literal["model", "dataset"], patterns: Sequence[str], revision: str | None = None
) -> Path:
    """Download the files of `repository` that match `patterns`; the folder returned is named by the commit.

    Plain files only: no code of the repository is ever run. `HF_HUB_OFFLINE=1` restricts it to the local cache.

    Raises:
        InputError: the repository is neither reachable nor cached; the caller adds the remedy.
    """
    import huggingface_hub
    from huggingface_hub.errors import HFValidationError, OfflineModeIsEnabled, RepositoryNotFoundError

    try:
        folder = huggingface_hub.snapshot_download(
            repository, repo_type=kind, revision=revision, allow_patterns=list(patterns)
        )
    except RepositoryNotFoundError as error:
        raise InputError(f"the hub has no public {kind} {repository!r}") from error
    except (OSError, HFValidationError, OfflineModeIsEnabled) as error:
        version = f" at revision {revision!r}" if revision else ""
        raise InputError(
            f"{kind} {repository!r}{version} is not in the hub's local cache, and the hub did not provide it "
            f"({type(error).__name__})"
        ) from error
    return Path(folder)
