"""The one training loop: AdamW, linear warm-up and decay, length buckets, resume, selection on held-out rows.

accelerate brings devices, several processes and mixed precision. Checkpoints are our own because accelerate's
pickle: one safetensors file holds parameters, their running mean where there is one, optimiser state, random state and
progress, and is renamed into place, so that a process killed at any moment leaves the last whole checkpoint.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import send_to_device, set_seed
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel
from transformers import get_linear_schedule_with_warmup

from efficient_bert.errors import InputError
from efficient_bert.files import CHECKSUM, DamagedError, aside, checksum, read_tensors, require_same_shapes
from efficient_bert.knobs import Knob
from efficient_bert.memory import keep_freed_memory
from efficient_bert.model import EfficientBertForSequenceClassification
from efficient_bert.rows import chunks
from efficient_bert.training import Context, Status, Trained
from efficient_bert.training.batches import LengthBuckets
from efficient_bert.training.batches import collate as pad
from efficient_bert.training.recipe import Progress, Recipe, parameter_groups, set_training_mode

logger = logging.getLogger(__name__)

CHECKPOINT_SECONDS = 30.0
"""A killed run loses at most this much work and the step under way."""

MOMENTS = 100
"""How often in a training a recipe's `observe` is asked."""

OPTIMISATION = (
    Knob("epochs", "passes over the training rows", 3, low=1, high=1000),
    Knob("learning_rate", "peak of the schedule", 2e-5, low=1e-8, high=1.0),
    Knob("batch_size", "examples per step", 32, low=1, high=65536),
    Knob("warmup", "fraction of the steps with a rising learning rate", 0.06, low=0.0, high=1.0),
    Knob("weight_decay", "AdamW's, not on biases and layer norms", 0.01, low=0.0, high=1.0),
    Knob("max_grad_norm", "gradients are clipped to this norm", 1.0, low=0.0),
    Knob("precision", "arithmetic of the forward pass", "auto", choices=("auto", "bf16", "no")),
)
"""The options that every trained stage has."""


def with_defaults(**defaults: float | int | str) -> tuple[Knob, ...]:
    """Return `OPTIMISATION` with other defaults."""
    return tuple(replace(knob, default=defaults.get(knob.name, knob.default)) for knob in OPTIMISATION)


def native_precision(device: str) -> str:
    """Return "bf16" where the device multiplies bfloat16 faster than float32, else "no" (float32).

    Of CPUs those with AMX, and those with AVX-512's bfloat16 products unless Intel made them: there these have no more
    throughput than float32's, and the conversions come on top. Float32 where torch cannot tell.
    """
    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "no"
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    products = capabilities.get("avx512_bf16") and not str(capabilities.get("cpu_name")).startswith("Intel")
    return "bf16" if capabilities.get("amx_bf16") or products else "no"


def save_tensors(path: Path, tensors: Mapping[str, Tensor], **metadata: Any) -> None:
    """Write tensors to one safetensors file, with their checksum."""
    contiguous = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    described = {**metadata, CHECKSUM: checksum(contiguous)}
    with aside(path) as part:
        save_file(contiguous, part, metadata={name: json.dumps(value) for name, value in described.items()})


def strip_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors whose name starts with `prefix`, under the rest of their name."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


class Trainer:
    """One training run of a stage: `Trainer(context, recipe).run()`."""

    def __init__(self, context: Context, recipe: Recipe) -> None:
        options = context.options
        precision = options["precision"]
        precision = native_precision(context.device) if precision == "auto" else precision
        AcceleratorState._reset_state()  # a stage before may have had another precision
        self.accelerator = Accelerator(mixed_precision=precision, cpu=context.device == "cpu")
        self.context = context
        self.recipe = recipe
        self.collate = recipe.collate or partial(pad, pad_token_id=context.model.config.padding)
        self.lengths = [len(row["input_ids"]) for row in context.train]
        self.epochs = options["epochs"]
        self.steps = self.epochs * len(self.buckets(0))
        self.model = context.model
        self.model.to(self.accelerator.device)
        optimizer = torch.optim.AdamW(
            parameter_groups(self.model, options["weight_decay"], recipe.rates),
            lr=options["learning_rate"],
            eps=1e-8,
            fused=True,
        )
        # the model itself is not wrapped: a loss may use any of its parts, and `step` averages the gradients
        self.optimizer = self.accelerator.prepare(optimizer)
        self.schedule = self.schedule_from(0)
        self.mean = running_mean(self.model, recipe.ema) if recipe.ema else None
        self.progress = Progress()
        self.checkpoint = context.folder / "checkpoint.safetensors"

    def run(self) -> Trained:
        """Train to the end, from the last checkpoint where there is one; the best epoch's parameters are kept."""
        set_seed(self.context.seed, device_specific=True)
        if self.checkpoint.exists():
            self.resume()
        while self.progress.epoch < self.epochs:
            self.train_epoch()
            self.finish_epoch()
        best = self.progress.best(self.recipe.epochs_to_keep)
        self.model.load_state_dict(read_tensors(self.parameters(best[0]))[0])
        beside = {f"epochs/{epoch + 1:03d}.safetensors": self.parameters(epoch) for epoch in best[: self.recipe.keep]}
        return Trained(self.model.cpu().eval(), tuple(self.progress.scores), self.progress.history, beside)

    @property
    def compared_model(self) -> EfficientBertForSequenceClassification:
        """The model whose epochs are compared and kept: the one that learns, or the running mean of it."""
        return self.model if self.mean is None else cast(EfficientBertForSequenceClassification, self.mean.module)

    def parameters(self, epoch: int) -> Path:
        """Return the file of an epoch's parameters, which is kept while the epoch is among the best."""
        return self.context.folder / f"epoch-{epoch + 1:03d}.safetensors"

    def schedule_from(self, step: int) -> LambdaLR:
        """Make the learning rate's schedule, at `step`; it sets the optimiser's rate."""
        warmup = round(self.context.options["warmup"] * self.steps)
        optimizer = self.optimizer.optimizer
        schedule: LambdaLR = get_linear_schedule_with_warmup(optimizer, warmup, self.steps, last_epoch=step - 1)
        return schedule

    def buckets(self, epoch: int) -> LengthBuckets:
        """Return the row numbers of each batch of an epoch."""
        size = self.context.options["batch_size"]
        return LengthBuckets(self.lengths, batch_size=size, seed=self.context.seed, epoch=epoch)

    def batches(self) -> Iterator[tuple[Mapping[str, Tensor], int, int]]:
        """Yield this process's part of what is left of the current epoch's batches, on the device.

        With it come two counts: its rows, and those of the whole batch. A process without a row of a small batch
        borrows its first one, so that all of them take every step.
        """
        processes, process = self.accelerator.num_processes, self.accelerator.process_index
        for row_numbers in islice(self.buckets(self.progress.epoch), self.progress.batch, None):
            part = row_numbers[process::processes]
            rows = [self.context.train[number] for number in part or row_numbers[:1]]
            yield send_to_device(self.collate(rows), self.accelerator.device), len(part), len(row_numbers)

    def train_epoch(self) -> None:
        """Run the rest of the epoch, with checkpoints."""
        set_training_mode(self.model)
        started = saved = time.monotonic()
        examples = 0
        for batch, rows, batch_rows in self.batches():
            loss = self.step(batch, rows / batch_rows)
            examples += batch_rows
            now = time.monotonic()
            self.watch(loss, rate=examples / (now - started))
            if now - saved > CHECKPOINT_SECONDS:
                self.save()
                saved = time.monotonic()

    def step(self, batch: Mapping[str, Tensor], share: float) -> float:
        """Take one optimiser step, to which this process's rows contribute `share`, and return their finite loss."""
        scale = share * self.accelerator.num_processes  # the gradients' mean over processes is that of the batch

        def backward(loss: Tensor, **keywords: Any) -> None:
            with torch.autocast(loss.device.type, enabled=False):
                self.accelerator.backward(loss * scale, **keywords)

        with self.accelerator.autocast():
            value = self.recipe.descend(self.model, batch, self.progress, backward).item()
        if share and not math.isfinite(value):
            raise InputError(f"the loss is {value} at step {self.progress.step}; {self.remedy}")
        self.average_gradients()
        self.clip_gradients()
        self.optimizer.step()
        self.recipe.after_step(self.model)
        if self.mean is not None:
            self.mean.update_parameters(self.model)
        self.schedule.step()
        self.optimizer.zero_grad()
        if self.progress.step % math.ceil(self.steps / MOMENTS) == 0:
            self.observe()
        self.progress.step += 1
        self.progress.batch += 1
        return float(value)

    @property
    def remedy(self) -> str:
        """What to do about numbers that are not finite."""
        options = self.context.options
        precise = "" if options["precision"] == "no" else " or set the precision to 'no'"
        return f"lower the learning rate (it is {options['learning_rate']}){precise}"

    def observe(self) -> None:
        """Record what the recipe watches, and at which step."""
        seen = self.recipe.observe(self.model)
        for name, value in ({"step": self.progress.step, **seen} if seen else {}).items():
            self.progress.history.setdefault(name, []).append(value)

    def average_gradients(self) -> None:
        """Average the gradients over processes; a single process has their mean already."""
        if self.accelerator.num_processes > 1:
            for parameter in self.model.parameters():
                if parameter.grad is not None:
                    parameter.grad = self.accelerator.reduce(parameter.grad, "mean")

    def clip_gradients(self) -> None:
        """Clip each norm to the limit: of the recipe's `norm_group`, and of all others."""
        limit = self.context.options["max_grad_norm"]
        if not limit:
            return
        self.accelerator.unscale_gradients()
        group, named = self.recipe.norm_group, list(self.model.named_parameters())
        for in_group in (True, False):
            nn.utils.clip_grad_norm_([each for name, each in named if (name in group) == in_group], limit)

    def finish_epoch(self) -> None:
        """Score on the held-out rows; the best epochs so far are kept.

        An epoch's parameters have a file of their own, and those that are no longer wanted go last: a run killed
        anywhere in between has what its checkpoint speaks of.
        """
        progress = self.progress
        score = self.heldout_score()
        progress.scores.append(score)
        progress.ranks.append(self.recipe.rank(self.compared_model, score))
        best = progress.best(self.recipe.epochs_to_keep)
        if progress.epoch in best and self.accelerator.is_main_process:
            save_tensors(self.parameters(progress.epoch), self.compared_model.state_dict())
        progress.epoch += 1
        progress.batch = 0
        self.save()
        self.accelerator.wait_for_everyone()
        for epoch in range(progress.epoch):
            if epoch not in best:
                self.parameters(epoch).unlink(missing_ok=True)
        self.watch(math.nan, rate=math.nan, score=score)

    def heldout_score(self) -> float:
        """Measure the context's score of the model that is compared."""
        rows, model = self.context.heldout, self.compared_model
        model.eval()
        with torch.no_grad(), self.accelerator.autocast():
            logits = [
                self.recipe.predict(model, {name: value.to(model.device) for name, value in batch.items()})
                for batch in map(self.collate, chunks(rows))
            ]
        answers = torch.cat(logits).float().cpu()
        if not answers.isfinite().all():
            row = int(answers.isfinite().flatten(1).all(1).int().argmin())
            raise InputError(
                f"the answer to held-out example {rows[row].get('example_id', row)!r} is no finite number at step "
                f"{self.progress.step}; {self.remedy}"
            )
        return self.context.score(torch.tensor([row["label"] for row in rows]), answers)

    def watch(self, loss: float, *, rate: float, score: float | None = None) -> None:
        """Tell the watcher, from the main process only."""
        if self.accelerator.is_main_process:
            self.context.watch(Status(self.progress.step, self.steps, loss=loss, examples_per_second=rate, score=score))

    def save(self) -> None:
        """Write everything needed to go on from here."""
        if not self.accelerator.is_main_process:
            return
        tensors = {f"model/{name}": value for name, value in self.model.state_dict().items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{index}/{name}": torch.as_tensor(value) for name, value in state.items()}
        if self.mean is not None:
            tensors |= {f"mean/{name}": value for name, value in self.mean.state_dict().items()}
        tensors["random/cpu"] = torch.get_rng_state()
        if torch.cuda.is_available():
            tensors["random/cuda"] = torch.cuda.get_rng_state()
        save_tensors(self.checkpoint, tensors, progress=vars(self.progress))

    def resume(self) -> None:
        """Continue from the checkpoint; from the start, where it or an epoch that it names is damaged."""
        try:
            tensors, metadata = read_tensors(self.checkpoint)
            for epoch in Progress(**metadata["progress"]).best(self.recipe.epochs_to_keep):
                read_tensors(self.parameters(epoch))
            require_same_shapes(strip_prefix("model/", tensors), self.model.state_dict())
        except (DamagedError, KeyError, TypeError) as error:
            logger.warning("%s; this stage trains from its start", error)
            return
        self.restore(tensors, metadata)

    def restore(self, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
        """Take over what a checkpoint holds."""
        self.model.load_state_dict(strip_prefix("model/", tensors))
        if self.mean is not None:
            self.mean.load_state_dict(strip_prefix("mean/", tensors))
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in strip_prefix("optimizer/", tensors).items():
            index, entry = name.split("/")
            state.setdefault(int(index), {})[entry] = value
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})
        self.progress = Progress(**metadata["progress"])
        self.schedule = self.schedule_from(self.progress.step)
        if not self.accelerator.is_main_process:  # whose random state alone is kept
            set_seed(self.context.seed + self.progress.step, device_specific=True)
            return
        torch.set_rng_state(tensors["random/cpu"])
        if "random/cuda" in tensors and torch.cuda.is_available():
            torch.cuda.set_rng_state(tensors["random/cuda"])


def running_mean(model: nn.Module, decay: float) -> AveragedModel:
    """Make an exponential moving average of the parameters, whose decay rises to `decay` over the first steps.

    After t updates the decay is at most (1 + t) / (10 + t), so that little is left of where a short training began.
    """

    def update(means: Any, parameters: Any, updates: Tensor | int) -> None:
        taken = int(updates)
        torch._foreach_lerp_(means, parameters, 1 - min(decay, (1 + taken) / (10 + taken)))

    return AveragedModel(model, multi_avg_fn=update)


def train(context: Context, recipe: Recipe) -> Trained:
    """Train `context.model`'s trainable parameters by a recipe, keeping the best epoch.

    Raises:
        InputError: the loss is not finite.
    """
    context.folder.mkdir(parents=True, exist_ok=True)
    keep_freed_memory()
    return Trainer(context, recipe).run()
