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
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from bench.errors import InputError, first_line
from bench.store.digests import DIGESTS, digests_below, marker_text, require_seal, require_unchanged
from bench.store.folders import Folders
from bench.store.json_files import misfit, read_object, shorten
from bench.store.runs import write_aside

if TYPE_CHECKING:
    from efficient_bert import EfficientBertForSequenceClassification
    from efficient_bert.training import Stage, Trained

WEIGHTS = "model.safetensors"


def content_hash(value: object) -> str:
    """Return 12 hexadecimal digits of the SHA-256 of a JSON value, whatever the order of its keys."""
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
        with self.assemble(job.id) as ready:
            trained.model.save_pretrained(ready)
            save_tokenizer(ready)
            for name, file in trained.beside.items():
                (ready / name).parent.mkdir(exist_ok=True)
                shutil.copyfile(file, ready / name)  # not moved: a kill before the rename leaves the stage as it was
            manifest = {
                "id": job.id,
                "stage": job.stage.name,
                "options": dict(job.options),
                "decided_by": dict(job.decided_by),
                "after": job.after.id if job.after else None,
                "chain": [each.id for each in job.chain[:-1]],
                "heldout_scores": list(trained.scores),
                "history": dict(trained.history),
            }
            write_aside(ready / self.marker, marker_text(manifest, digests_below(ready), self.marker))

    def load(self, name: str) -> EfficientBertForSequenceClassification:
        """Load a finished stage's model, in evaluation mode, on the CPU.

        Raises:
            InputError: as `require_whole`, or its model is not what its configuration says.
        """
        from efficient_bert import EfficientBertForSequenceClassification

        self.require_whole(name)
        read: Any = EfficientBertForSequenceClassification.from_pretrained  # typed without its loading report
        model: EfficientBertForSequenceClassification
        try:
            model, report = read(
                self.folder(name), local_files_only=True, use_safetensors=True, output_loading_info=True
            )
        except Exception as error:  # a damaged configuration may raise anything
            raise InputError(
                f"the model in {self.folder(name)} cannot be loaded: {first_line(error)}; {self._remedy(name)}"
            ) from error
        odd = sorted(map(str, [*report["missing_keys"], *report["unexpected_keys"], *report["mismatched_keys"]]))
        if odd:
            raise InputError(
                f"{self.folder(name) / WEIGHTS} lacks or adds {len(odd)} tensors of its config.json, {odd[0]} among "
                f"them; {self._remedy(name)}"
            )
        model.eval()
        return model

    def require_whole(self, name: str) -> None:
        """Check that a finished stage is what was stored: its manifest, and every file that this speaks of.

        Raises:
            InputError: it is not, or is not there.
        """
        digests, folder, remedy = self.manifest(name).get(DIGESTS, {}), self.folder(name), self._remedy(name)
        require_unchanged(folder, digests, remedy=remedy, without=self.marker)
        if not digests:  # of a version that kept none
            read_object(folder / "config.json", remedy=remedy)
            require_readable(folder / WEIGHTS, remedy=remedy)

    def _remedy(self, name: str) -> str:
        """Return the remedy for a damaged stage, as the end of a message."""
        return (
            f"delete the folder {self.folder(name)} and run the same command again, which trains this stage anew, or "
            "train all anew with bench train --fresh"
        )

    def ids_made_with(self, stages: Collection[str]) -> list[str]:
        """Return the ids of these stages and of those trained from them, finished or not; the latest first.

        Of a stage whose manifest is damaged no more is known than its name.
        """
        chains = {name: self._chain_if_known(name) for name in self.ids()}
        ids = [name for name, chain in chains.items() if set(stages) & set(chain)]
        return [*sorted(ids, key=lambda name: -len(chains[name])), *self.unfinished_ids(stages)]

    def _chain_if_known(self, name: str) -> list[str]:
        try:
            return self.chain(name)
        except InputError:
            return [name]

    def chain(self, name: str) -> list[str]:
        """Return the ids of the stages that a finished one was trained from, and its own.

        Raises:
            InputError: the manifest of any of them is damaged.
        """
        ids = [name]
        while ids[0] in self:
            manifest = self._content(ids[0])
            if "chain" in manifest:
                return [*manifest["chain"], *ids]
            if manifest["after"] is None or manifest["after"] in ids:
                break
            ids.insert(0, manifest["after"])  # of a version that kept no chain
        return ids

    def manifest(self, name: str) -> dict[str, Any]:
        """Read what is known of a finished stage: its options, held-out scores and history.

        Raises:
            InputError: it is not there, or damaged, or another stage's.
        """
        content = self._content(name)
        require_seal(content, self.folder(name) / self.marker, remedy=self._remedy(name))
        return content

    def _content(self, name: str) -> dict[str, Any]:
        """Read a manifest, whatever its digests say: a damaged one may have to be deleted."""
        path, remedy = self.folder(name) / self.marker, self._remedy(name)
        content = read_object(path, remedy=remedy)
        lacking = next((key for key in MANIFEST if key not in content), None)
        wrong = f"it has no {lacking}" if lacking else next(filter(None, _misfits(content)), None)
        if wrong is None and content.get("id", name) != name:
            wrong = f"it is that of stage {shorten(content['id'])}"
        if wrong:
            raise InputError(f"{path} is damaged: {wrong}; {remedy}")
        return content


MANIFEST: Mapping[str, Any] = {
    "stage": str,
    "options": Mapping[str, object],
    "decided_by": Mapping[str, Any],
    "after": str | None,
    "heldout_scores": Sequence[Any],
    "history": Mapping[str, Sequence[Any]],
}
"""Field of a manifest -> its kind, in every version."""


def _misfits(content: Mapping[str, Any]) -> Iterator[str | None]:
    """Say what is wrong with each field of a manifest."""
    kinds = {**MANIFEST, "chain": Sequence[str], "id": str, DIGESTS: Mapping[str, str]}
    for name, kind in kinds.items():
        if name in content:
            yield misfit(content[name], kind, name)
    for number, score in enumerate(content["heldout_scores"]):
        yield None if isinstance(score, float | int) else f"heldout_scores.{number} is {shorten(score)}, no number"


def require_readable(path: Path, *, remedy: str) -> None:
    """Check that a file is whole as safetensors go: what its head says of its tensors is there.

    Raises:
        InputError: it is not there, or not whole.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise InputError(f"{path} is missing; {remedy}")
    try:
        with safe_open(path, framework="pt"):
            pass
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is damaged: {first_line(error)}; {remedy}") from error
