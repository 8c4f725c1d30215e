"""Trained models by the content hash of everything that decides them: a finished stage is never redone.

artifacts/<stage>-<key>/          a model folder (config.json, model.safetensors, tokenizer), what the stage keeps
                                  for those after it, and manifest.json, which is written last: its existence means
                                  that the stage is finished
artifacts/.<stage>-<key>.partial/ checkpoints of a stage under way; the same command resumes from them
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.store import write_aside

if TYPE_CHECKING:
    from efficient_bert import EfficientBertForSequenceClassification
    from efficient_bert.training import Stage, Trained


def content_hash(value: object) -> str:
    """12 hexadecimal digits of the SHA-256 of a JSON value, whatever the order of its keys."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Job:
    """One stage with everything that decides its result.

    Attributes:
        stage: what to run.
        options: values of its options and knobs.
        decided_by: backbone identity, data fingerprints, seed, version: JSON.
        after: the job whose model it starts from.
    """

    stage: Stage
    options: Mapping[str, Any]
    decided_by: Mapping[str, Any]
    after: Job | None = None

    @property
    def id(self) -> str:
        """Name of the artifact: the stage and a content hash that covers the jobs before it."""
        parts = [self.stage.name, dict(self.options), dict(self.decided_by), self.after.id if self.after else None]
        return f"{self.stage.name}-{content_hash(parts)}"

    @property
    def chain(self) -> tuple[Job, ...]:
        """This job and all before it, first one first."""
        return (*(self.after.chain if self.after else ()), self)


@dataclass(frozen=True)
class ArtifactStore:
    """Finished stages below `root`."""

    root: Path

    def folder(self, job: Job) -> Path:
        return self.root / job.id

    def partial(self, job: Job) -> Path:
        """Where a stage under way keeps its checkpoints; made on demand."""
        folder = self.root / f".{job.id}.partial"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def __contains__(self, job: Job) -> bool:
        return (self.folder(job) / "manifest.json").is_file()

    def put(self, job: Job, trained: Trained, *, save_tokenizer: Callable[[Path], object]) -> None:
        """Store a finished stage: the model, the files beside it, the manifest, one rename."""
        ready = self.partial(job) / "ready"
        shutil.rmtree(ready, ignore_errors=True)
        trained.model.save_pretrained(ready)
        save_tokenizer(ready)
        for name, file in trained.beside.items():
            (ready / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(file, ready / name)  # not moved: a kill before the rename leaves the stage as it was
        manifest = {
            "stage": job.stage.name,
            "options": dict(job.options),
            "decided_by": dict(job.decided_by),
            "after": job.after.id if job.after else None,
            "heldout_scores": list(trained.scores),
            "history": dict(trained.history),
        }
        write_aside(ready / "manifest.json", json.dumps(manifest, indent=2))
        self._drop(job)
        ready.replace(self.folder(job))
        shutil.rmtree(self.partial(job))

    def load(self, job: Job) -> EfficientBertForSequenceClassification:
        """A finished stage's model, in evaluation mode, on the CPU."""
        from efficient_bert import EfficientBertForSequenceClassification

        model: EfficientBertForSequenceClassification = EfficientBertForSequenceClassification.from_pretrained(
            self.folder(job), local_files_only=True, use_safetensors=True
        )
        model.eval()
        return model

    def manifest(self, job: Job) -> dict[str, Any]:
        """What is known of a finished stage: its options, held-out scores and history."""
        content: dict[str, Any] = json.loads((self.folder(job) / "manifest.json").read_text(encoding="utf-8"))
        return content

    def restart(self, job: Job) -> None:
        """Forget a stage and its checkpoints (`--fresh`)."""
        self._drop(job)
        shutil.rmtree(self.root / f".{job.id}.partial", ignore_errors=True)

    def _drop(self, job: Job) -> None:
        """The manifest goes first, so that a half-removed artifact is none."""
        (self.folder(job) / "manifest.json").unlink(missing_ok=True)
        shutil.rmtree(self.folder(job), ignore_errors=True)
