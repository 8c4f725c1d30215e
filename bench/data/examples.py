"""The examples of a plan: loaded, held out, cut into word pieces, counted, and what identifies them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench.data.loading import DATA_SEED, encode, fingerprint, hold_out, load_split, locate_row
from bench.data.overlap import Overlap, overlap
from bench.data.word_pieces import Counts, count, rows_without_words
from bench.errors import InputError

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

    from bench.planning.presets import Preset
    from bench.planning.settings import Settings
    from bench.tasks import Task


@dataclass(frozen=True)
class Data:
    """Encoded splits and what identifies them.

    Attributes:
        dropped: training rows that are copies or phrases of held-out ones.
        cut: texts of all splits that are longer than what is read of them.
        counts: what the texts of each part are made of.
        overlap: how many reported rows are among the training rows, held out or not.
    """

    train: Dataset
    heldout: Dataset
    evaluation: Dataset
    dropped: int
    cut: int
    counts: Mapping[str, Counts]
    overlap: Overlap
    fingerprints: Mapping[str, str]

    def token_reading(self, *parts: str) -> dict[str, str]:
        """Say how names of special tokens in these parts were read, where there are any: once it was as the tokens."""
        return {"special_tokens": "text"} if any(self.counts[part].typed for part in parts) else {}


def load_data(
    task: Task, settings: Settings, preset: Preset, *, tokenizer: PreTrainedTokenizerBase, max_length: int
) -> Data:
    """Load, split and encode: the held-out slice comes out of the training split."""
    limits = {
        "train": settings.train_rows or preset.train_rows,
        task.evaluation: settings.eval_rows or preset.eval_rows,
    }
    splits = {
        split: load_split(task, split, data_dir=settings.data_dir, seed=DATA_SEED, limit=limit)
        for split, limit in limits.items()
    }
    training = splits["train"]
    train, heldout = hold_out(training, seed=settings.first_seed, phrases=task.phrases)
    parts = {"train": train, "heldout": heldout, "evaluation": splits[task.evaluation]}
    encoded = {
        name: encode(part, tokenizer, max_length=max_length, windows=task.windows) for name, part in parts.items()
    }
    for name, part in encoded.items():
        require_words(task, task.evaluation if name == "evaluation" else "train", part, data_dir=settings.data_dir)
    return Data(
        train=encoded["train"],
        heldout=encoded["heldout"],
        evaluation=encoded["evaluation"],
        dropped=len(training) - len(train) - len(heldout),
        cut=sum(sum(part["cut"][:]) for part in encoded.values()),
        counts={name: count(part, encoded[name], tokenizer) for name, part in parts.items()},
        overlap=overlap([train, heldout], parts["evaluation"]),
        fingerprints={
            name: fingerprint(part, names=name == "evaluation")
            for name, part in {**parts, "training": training}.items()
        },
    )


def require_words(task: Task, split: str, encoded: Dataset, *, data_dir: Path | None) -> None:
    """Raise InputError where the tokenizer leaves nothing of a text that has a label."""
    bare = rows_without_words(encoded, pairs=task.pair is not None)
    if bare:
        where = locate_row(
            task, split, encoded["text_id" if task.windows else "example_id"][bare[0]], data_dir=data_dir
        )
        kind = "one of the two texts" if task.pair else "the text"
        raise InputError(
            f"{where}: the backbone's tokenizer leaves no word pieces of {kind} (it holds only characters that it "
            f"drops, as invisible ones), but an example needs words; remove the row or fill it in"
        )
