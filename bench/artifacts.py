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
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from bench.folders import Folders
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

    @cached_property
    def id(self) -> str:
        """Name of the artifact: the stage and a content hash that covers the jobs before it.

        An option at its `before` is left out, so that models trained when it did not exist keep their names.
        """
        before = {knob.name: knob.before for knob in self.stage.options if knob.before is not None}
        options = {name: value for name, value in self.options.items() if name not in before or value != before[name]}
        parts = [self.stage.name, options, dict(self.decided_by), self.after.id if self.after else None]
        return f"{self.stage.name}-{content_hash(parts)}"

    @property
    def seed(self) -> int:
        """Of initialisation, order and dropout."""
        return int(self.decided_by["seed"])

    @property
    def chain(self) -> tuple[Job, ...]:
        """This job and all before it, first one first."""
        return (*(self.after.chain if self.after else ()), self)


@dataclass(frozen=True)
class ArtifactStore(Folders):
    """Finished stages below `root`, by the ids of their jobs."""

    marker: ClassVar = "manifest.json"

    def put(self, job: Job, trained: Trained, *, save_tokenizer: Callable[[Path], object]) -> None:
        """Store a finished stage: the model, the files beside it, the manifest."""
        with self.assembled(job.id) as ready:
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
                "chain": [each.id for each in job.chain[:-1]],
                "heldout_scores": list(trained.scores),
                "history": dict(trained.history),
            }
            write_aside(ready / self.marker, json.dumps(manifest, indent=2))

    def load(self, name: str) -> EfficientBertForSequenceClassification:
        """A finished stage's model, in evaluation mode, on the CPU."""
        from efficient_bert import EfficientBertForSequenceClassification

        model: EfficientBertForSequenceClassification = EfficientBertForSequenceClassification.from_pretrained(
            self.folder(name), local_files_only=True, use_safetensors=True
        )
        model.eval()
        return model

    def made_with(self, stages: Collection[str]) -> list[str]:
        """Ids of these stages and of those that came of them, finished or under way; the latest first."""
        chains = {name: self.chain(name) for name in self.ids()}
        found = [name for name, chain in chains.items() if set(stages) & set(chain)]
        return [*sorted(found, key=lambda name: -len(chains[name])), *self.unfinished(stages)]

    def chain(self, name: str) -> list[str]:
        """Ids of the stages that a finished one came of, and its own."""
        manifest = self.manifest(name)
        after = manifest["after"]
        if "chain" in manifest or after is None:
            return [*manifest.get("chain", []), name]
        return [*(self.chain(after) if after in self else [after]), name]  # of a version that kept no chain

    def manifest(self, name: str) -> dict[str, Any]:
        """What is known of a finished stage: its options, held-out scores and history."""
        content: dict[str, Any] = json.loads((self.folder(name) / self.marker).read_text(encoding="utf-8"))
        return content
