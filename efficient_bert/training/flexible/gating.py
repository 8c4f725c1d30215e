"""Width gates trained on the frozen subnets (Flexible BERT, Hu et al., 2023).

Each example's label is the smallest width that answers it rightly, else the full one. Nothing but the gates learns, so
labels and the states that the gates read, in a pass at the label's width, are computed once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from accelerate import PartialState
from torch import Tensor

from efficient_bert.calibration.profiles import store_profiles
from efficient_bert.config import EfficientBertConfig, example_fractions, kept_heads
from efficient_bert.engine.decisions import Decision, Policy, first_states
from efficient_bert.engine.loop import Execution, run
from efficient_bert.errors import InputError
from efficient_bert.knobs import Knob, Values, format_numbers, parse_numbers
from efficient_bert.model import EfficientBertForSequenceClassification, rebuild
from efficient_bert.policies.gates import (
    balanced_weights,
    expected_width,
    gate_policy,
    gumbel_softmax,
    gumbel_temperature,
    label_losses,
    width_labels,
)
from efficient_bert.policies.subnets import subnet_policy, uniform_subnet
from efficient_bert.rows import Rows, chunks
from efficient_bert.training import Context, Stage, Trained
from efficient_bert.training.batches import batch_of, collate, compute_by_length, labelled_batches, random_permutation
from efficient_bert.training.cached_rows import with_cached
from efficient_bert.training.flexible.stage import FINAL
from efficient_bert.training.loop import train, with_defaults
from efficient_bert.training.recipe import Backward, Inputs, Progress, Recipe

SELECTION = 4
"""One in so many held-out rows selects the epoch where the others train the gates."""


@torch.inference_mode()
def labels_of(model: EfficientBertForSequenceClassification, rows: Rows, *, tolerance: float = 0.5) -> Tensor:
    """Find the class of the smallest width that is right, at full depth and without dropout: (rows,) int64.

    In a regression a score is right within less than `tolerance`.
    """
    policies = [subnet_policy(uniform_subnet(model.config, width=width)) for width in model.config.widths[:-1]]

    def compute(chunk: Rows) -> Tensor:
        batch, labels = next(labelled_batches(model, chunk))
        answers = torch.stack([run(model, batch, policy).logits for policy in policies])
        if model.config.regression:
            return width_labels((answers[..., 0] - labels).abs() < tolerance).cpu()
        return width_labels(answers.argmax(-1) == labels).cpu()

    return compute_by_length(rows, compute)


@torch.inference_mode()
def states_of(model: EfficientBertForSequenceClassification, rows: Rows) -> Tensor:
    """Compute what each gate reads in a pass at the width that the row's `gate_label` names: (rows, G, D)."""
    span = model.width_gates().span
    widths = torch.tensor(model.config.widths, dtype=torch.float64, device=model.device)

    def compute(chunk: Rows) -> Tensor:
        batch, _ = next(labelled_batches(model, chunk))
        row_widths = widths[[int(row["gate_label"]) for row in chunk]]
        policy = Policy(lambda view: Decision(width=row_widths))
        states = run(model, batch, policy, execution=Execution.MASKED, record=True).hidden_states
        return torch.stack([first_states(state, batch.mask) for state in states[:-1:span]], dim=1).float().cpu()

    return compute_by_length(rows, compute, first_by="gate_label")


def with_states(rows: Rows, *, pad_token_id: int) -> dict[str, Tensor]:
    """Collate a padded batch with `states` (B, G, D) and `gate_labels` (B,)."""
    return {
        **collate(rows, pad_token_id=pad_token_id),
        "states": torch.stack([row["states"] for row in rows]),
        "gate_labels": torch.stack([row["gate_label"] for row in rows]),
    }


def class_weights(text: str, labels: Tensor, classes: int) -> Tensor:
    """Return (K,) weights: "balanced" on these labels, "none" for equal ones, or the numbers of a list.

    Raises:
        InputError: not one number for each class.
    """
    return balanced_weights(labels, classes) if text == "balanced" else torch.tensor(parse_class_weights(text, classes))


def parse_class_weights(text: str, classes: int) -> list[float]:
    """Parse K weights that need no labels: "none" for equal ones, or the numbers of a list.

    Raises:
        InputError: not one finite number for each class.
    """
    if text == "none":
        return [1.0] * classes
    weights = list(parse_numbers(text, name="class_weights"))
    if len(weights) != classes or not all(0 <= weight < math.inf for weight in weights):
        raise InputError(f"class_weights is {text!r}, but it is balanced, none or {classes} numbers of 0 or more")
    return weights


def gate_loss(
    model: EfficientBertForSequenceClassification,
    inputs: Inputs,
    *,
    weights: Tensor,
    options: Values,
    heat: float | None = None,
) -> Tensor:
    """Compute the classes' losses, weighted, and the width's distance from its target.

    Args:
        heat: temperature of the noisy softmax; None for the plain cross-entropy.
    """
    logits = model.width_gates().all_logits(inputs["states"]).float()
    draws = None if heat is None else torch.empty_like(logits).exponential_()
    losses = label_losses(gumbel_softmax(logits, draws, temperature=heat or 1.0), inputs["gate_labels"])
    total = (losses * weights.to(losses)).sum()
    heads = model.config.num_attention_heads
    fractions = [kept_heads(width, heads) / heads for width in model.config.widths]
    off_target = expected_width(logits.softmax(-1), fractions) - options["flops_target"]
    penalty: Tensor = options["flops_lambda"] * off_target.square()
    return total + penalty


def gated_logits(model: EfficientBertForSequenceClassification, inputs: Inputs) -> Tensor:
    """Compute logits (B, C) of passes whose widths the gates choose."""
    policy = gate_policy(model.width_gates(), model.config.widths)
    return run(model, batch_of(model, inputs), policy, execution=Execution.MASKED).logits


def new_gates(config: EfficientBertConfig, gates: int) -> dict[str, Any]:
    """Return the configuration's new field: so many gates, one for each layer where their number is 0."""
    return {"num_gates": gates or config.num_hidden_layers}


def with_gates(model: EfficientBertForSequenceClassification, gates: int) -> EfficientBertForSequenceClassification:
    """Add fresh gates to the model, one for each layer where their number is 0; only they learn."""
    grown = rebuild(model, **new_gates(model.config, gates))
    grown.eval()
    for name, parameter in grown.named_parameters():
        parameter.requires_grad = name.startswith("gates.")
    return grown


def folds(context: Context) -> tuple[Rows, Rows]:
    """Return rows that train the gates, and rows that select the epoch."""
    if context.options["label_split"] == "train":
        return context.train, context.heldout
    learn, select = heldout_folds(len(context.heldout), context.seed)
    if not learn:
        raise InputError(
            f"{len(context.heldout)} training row is held out, but gates learn on some and are selected on others; "
            "train on more rows, or give --gates-label-split train"
        )
    return [context.heldout[number] for number in learn], [context.heldout[number] for number in select]


def heldout_folds(rows: int, seed: int) -> tuple[list[int], list[int]]:
    """Return the numbers of held-out rows that train the gates, and of those that select the epoch."""
    order = random_permutation(rows, torch.Generator().manual_seed(seed))
    cut = max(1, rows // SELECTION)
    return order[cut:], order[:cut]


def untouched_rows(rows: int, options: Values, seed: int) -> Sequence[int]:
    """Return the numbers of the held-out rows that the gates do not learn on."""
    return range(rows) if options["label_split"] == "train" else heldout_folds(rows, seed)[1]


def train_gates(context: Context) -> Trained:
    """Train the gates alone; every other parameter stays as it was. The epoch of least loss on other rows is kept.

    On those rows it is measured how often the gates choose each width, and how many would leave where.
    """
    options = context.options
    torch.manual_seed(context.seed)
    model = with_gates(context.model, options["num_gates"])
    torch.nn.Module.to(model, PartialState(cpu=context.device == "cpu").device)

    label = partial(labels_of, model, tolerance=options["regression_threshold"])

    def prepare(rows: Rows, name: str) -> Rows:
        named = with_cached(rows, context.folder / name / "labels", name="gate_label", compute=label)
        return with_cached(named, context.folder / name / "states", name="states", compute=partial(states_of, model))

    learn, select = (prepare(rows, name) for rows, name in zip(folds(context), ("learn", "select"), strict=True))
    labels = torch.stack([row["gate_label"] for row in learn])
    weights = class_weights(options["class_weights"], labels, len(model.config.widths))
    steps = options["epochs"] * len(learn) / options["batch_size"]
    on_batch = partial(with_states, pad_token_id=model.config.padding)

    def descend(
        model: EfficientBertForSequenceClassification, inputs: Inputs, progress: Progress, backward: Backward
    ) -> Tensor:
        heat = gumbel_temperature(progress.step / steps) if options["loss"] == "gumbel" else None
        total = gate_loss(model, inputs, weights=weights, options=options, heat=heat)
        backward(total)
        return total

    @torch.no_grad()
    def rank(model: EfficientBertForSequenceClassification, score: float) -> float:
        batches = [
            ({name: part.to(model.device) for name, part in on_batch(chunk).items()}, len(chunk))
            for chunk in chunks(select)
        ]
        return -sum(float(gate_loss(model, inputs, weights=weights, options=options)) * n for inputs, n in batches)

    trained = train(
        replace(context, model=model, train=learn, heldout=select),
        Recipe(descend=descend, predict=gated_logits, collate=on_batch, rank=rank),
    )
    store_profiles(trained.model, select, device=context.device)
    return replace(trained, model=trained.model.cpu().requires_grad_(True))


def check_classes(config: EfficientBertConfig, options: Values) -> None:
    """Raise InputError where there is no width to choose, or the classes' weights do not fit the widths."""
    if len(config.widths) < 2:
        widths = format_numbers(example_fractions(config.num_attention_heads))
        remedy = f"give --width-list {widths}" if "," in widths else "take a backbone of two heads or more"
        raise InputError(f"the widths are {list(config.widths)}, but gates choose among several; {remedy}")
    text = options["class_weights"]
    if text != "balanced":
        parse_class_weights(text, len(config.widths))


GATES = Stage(
    name="gates",
    summary="train width gates on the frozen subnets, labelled with the smallest width that is right",
    train=train_gates,
    options=(
        *with_defaults(epochs=8, learning_rate=2e-4, warmup=0.0, weight_decay=0.0),
        Knob("label_split", "rows that are labelled: held out from every stage, or those trained on (the authors)",
             "heldout", choices=("heldout", "train")),
        Knob("loss", "cross-entropy of a softmax with Gumbel noise, or without", "gumbel", choices=("gumbel", "plain")),
        Knob("class_weights", "balanced, none, or a number for each width, separated by commas", "balanced"),
        Knob("regression_threshold", "a score is right within less than this", 0.5, low=0.0),
        Knob("flops_lambda", "weight of the squared distance of the expected width from its target", 0.0, low=0.0),
        Knob("flops_target", "expected width, the layers' FLOPs as a fraction of the full model's", 0.5, low=0.0,
             high=1.0),
    ),
    knobs=(Knob("num_gates", "gates, each for as many consecutive layers; 0 = one per layer", 0, low=0),),
    after=FINAL,
    changes=lambda config, options: new_gates(config, options["num_gates"]),
    check=lambda config, options, vocabulary: check_classes(config, options),
    step_cost=lambda options: 0.02 + (3.0 / options["epochs"] if options["label_split"] == "train" else 0.0),
    untouched_rows=untouched_rows,
)  # fmt: skip
