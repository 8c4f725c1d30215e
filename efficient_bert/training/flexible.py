"""Subnets trained jointly, in stages (DynaBERT, Hou et al., 2020; Flexible BERT, Hu et al., 2023).

    rewire  heads and neurons in order of importance; the function stays what it was
    width   every width learns from the fine-tuned model, while weak units are grafted
    depth   every width at every depth learns from the model of stage `width`; a depth is a prefix of the layers, which
            may be left early, or follows another rule of DynaBERT's
    final   every width at every depth learns the gold classes

Every step descends on the sum over all subnets; the epoch whose subnets score best on average is kept. The widths and
depths that were trained are kept in the model's configuration.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import torch
from accelerate import PartialState
from torch import Tensor

from efficient_bert.config import EfficientBertConfig, example_fractions, kept_heads
from efficient_bert.engine import Batch
from efficient_bert.errors import InputError
from efficient_bert.fidelity import Fidelity
from efficient_bert.importance import Importance, importance
from efficient_bert.knobs import Knob, Value, numbers, spelled
from efficient_bert.model import EfficientBertForSequenceClassification, reshaped
from efficient_bert.subnets import DepthRule, kept_count, rewire
from efficient_bert.training import Context, Rows, Stage, Trained
from efficient_bert.training.augmentation import FILE, OPTIONS, augmented, check_sources, with_augmented
from efficient_bert.training.batches import batch_of, collate, in_order
from efficient_bert.training.distillation import Reading, distance, readings, teach, teacher_states
from efficient_bert.training.finetune import FINETUNE, classify
from efficient_bert.training.grafting import graft, graft_steps
from efficient_bert.training.loop import train, with_defaults
from efficient_bert.training.profiles import measure_profiles
from efficient_bert.training.recipe import Backward, Inputs, Progress, Recipe

FIDELITY = Knob(
    "fidelity",
    "gradients cleared between batches and padding left out (corrected), or as in the authors' code",
    "corrected",
    choices=tuple(Fidelity),
)
LEARNING = with_defaults(epochs=3, warmup=0.0, weight_decay=0.0)
IMPORTANCE = (
    Knob("importance_rows", "rows on which importance is scored", 2048, low=1),
    Knob("importance_split", "where they come from; the authors use the evaluation split", "train",
         choices=("train", "heldout")),
    FIDELITY,
)  # fmt: skip


@dataclass(frozen=True)
class Teaching:
    """What the subnets of a step learn.

    Attributes:
        widths: of the subnets, descending.
        depths: of the subnets, descending.
        rule: which layers are left at a depth.
        teacher: the model that is followed; None for gold classes.
        answers, states: weights of the two distances.
        same_width: the teacher runs as wide as the student.
    """

    widths: tuple[float, ...]
    depths: tuple[float, ...]
    rule: DepthRule = DepthRule.PREFIX
    teacher: EfficientBertForSequenceClassification | None = None
    answers: float = 1.0
    states: float = 0.0
    same_width: bool = False
    fidelity: Fidelity = Fidelity.CORRECTED


def joint_losses(model: EfficientBertForSequenceClassification, inputs: Inputs, teaching: Teaching) -> Iterator[Tensor]:
    """Each width's loss when it is asked for, the sum over its depths: from a teacher, or with the gold classes."""
    batch = batch_of(model, inputs)
    followed = teach(teaching.teacher, batch) if teaching.teacher and not teaching.same_width else None
    for width in teaching.widths:
        if teaching.teacher and teaching.same_width:
            followed = teach(teaching.teacher, batch, width=width)
        found = readings(model, batch, width=width, depths=teaching.depths, rule=teaching.rule)
        yield torch.stack(
            [
                model.loss(reading.logits.float(), inputs["labels"])
                if followed is None
                else followed_loss(reading, followed, batch.mask, depth=depth, teaching=teaching)
                for depth, reading in zip(teaching.depths, found, strict=True)
            ]
        ).sum()


def descend_jointly(
    model: EfficientBertForSequenceClassification, inputs: Inputs, teaching: Teaching, backward: Backward
) -> Tensor:
    """Leave the gradients of all subnets' losses behind; their sum. One width's graph is held at a time."""
    total = torch.zeros((), device=model.device)
    for loss in joint_losses(model, inputs, teaching):
        backward(loss)
        total += loss.detach()
    return total


def followed_loss(reading: Reading, teacher: Reading, mask: Tensor, *, depth: float, teaching: Teaching) -> Tensor:
    """One subnet's loss from its teacher."""
    places = teacher_states(depth, len(teacher.states) - 1)
    apart = distance(reading, teacher, mask, places=places, fidelity=teaching.fidelity)
    return apart.loss(answers=teaching.answers, states=teaching.states)


def labelled(model: EfficientBertForSequenceClassification, rows: Rows) -> Iterator[tuple[Batch, Tensor]]:
    """Batches with their classes, on the model's device."""
    for chunk in in_order(rows):
        inputs = collate(chunk, pad_token_id=model.config.padding)
        yield batch_of(model, inputs), inputs["labels"].to(model.device)


def scored(model: EfficientBertForSequenceClassification, context: Context) -> Importance:
    """Importance on rows spread evenly over the chosen split, in full precision."""
    rows = context.train if context.options["importance_split"] == "train" else context.heldout
    chosen = [rows[place] for place in spread(len(rows), context.options)]
    with torch.autocast(model.device.type, enabled=False):
        return importance(model, labelled(model, chosen), fidelity=Fidelity(str(context.options["fidelity"])))


def spread(rows: int, options: Mapping[str, Value]) -> list[int]:
    """Places of `importance_rows` rows spread evenly over so many."""
    count = min(rows, int(options["importance_rows"]))
    return [place * rows // count for place in range(count)]


def unscored(rows: int, options: Mapping[str, Value], seed: int) -> Sequence[int]:
    """Places of the held-out rows whose labels importance does not read."""
    read = spread(rows, options) if options["importance_split"] == "heldout" else ()
    return sorted(set(range(rows)).difference(read))


@torch.no_grad()
def mean_score(model: EfficientBertForSequenceClassification, context: Context, teaching: Teaching) -> float:
    """Held-out score, averaged over all subnets."""
    model.eval()
    found: list[list[Tensor]] = []
    for batch, _ in labelled(model, context.heldout):
        every = [
            reading.logits.float().cpu()
            for width in teaching.widths
            for reading in readings(model, batch, width=width, depths=teaching.depths, rule=teaching.rule)
        ]
        found.append(every)
    classes = torch.tensor([row["label"] for row in context.heldout])
    scores = [context.score(classes, torch.cat(logits)) for logits in zip(*found, strict=True)]
    return sum(scores) / len(scores)


def joint(context: Context, teaching: Teaching, *, grafts: Sequence[int] = ()) -> Trained:
    """Train every subnet together; a graft comes before the step whose number (from 0) is in `grafts`."""

    def descend(
        model: EfficientBertForSequenceClassification, inputs: Inputs, progress: Progress, backward: Backward
    ) -> Tensor:
        if progress.step in grafts:
            graft(model, scored(model, context), alpha=float(context.options["graft_alpha"]))
        return descend_jointly(model, inputs, teaching, backward)

    def rank(model: EfficientBertForSequenceClassification, score: float) -> float:
        return mean_score(model, context, teaching)

    return train(context, Recipe(descend=descend, predict=classify, rank=rank))


def fractions(text: str, *, kind: str, left: Callable[[float, int], int], whole: int, units: str) -> tuple[float, ...]:
    """The fractions of a list that ascends or descends, largest first.

    Args:
        kind: "width" or "depth".
        left: (fraction, whole) -> how many of the `whole` units it leaves.

    Raises:
        InputError: no numbers, neither order, one that leaves nothing, two that leave as many, or none that leaves all.
    """
    name, remedy = f"the {kind} list", f"such as --{kind}-list {spelled(example_fractions(whole))}"
    values = numbers(text, name=name)
    ordered = sorted(set(values), reverse=True)
    if list(values) not in (ordered, ordered[::-1]):
        raise InputError(f"{name} is {text!r}, but its numbers ascend or descend and differ, {remedy}")
    try:
        counts = [left(value, whole) for value in ordered]
    except InputError as error:
        raise InputError(f"{name} is {text!r}: {str(error).partition('; ')[0]}; give others, {remedy}") from error
    if len(set(counts)) < len(counts) or counts[0] != whole:
        raise InputError(
            f"{name} {text!r} leaves {counts} of {whole} {units}, but each {kind} leaves another number and the "
            f"largest all, {remedy}"
        )
    return tuple(ordered)


def width_list(text: str, config: EfficientBertConfig) -> tuple[float, ...]:
    """Widths to train, largest first; refused as `fractions` of the heads are."""
    return fractions(text, kind="width", left=kept_heads, whole=config.num_attention_heads, units="heads")


def depth_list(text: str, config: EfficientBertConfig) -> tuple[float, ...]:
    """Depths to train, largest first; refused as `fractions` of the layers are."""
    return fractions(text, kind="depth", left=kept_count, whole=config.num_hidden_layers, units="layers")


def new_widths(config: EfficientBertConfig, options: Mapping[str, Value]) -> dict[str, Any]:
    """The widths to train."""
    return {"widths": width_list(str(options["list"]), config)[::-1]}


def new_depths(config: EfficientBertConfig, options: Mapping[str, Value]) -> dict[str, Any]:
    """The depths to train; where they are prefixes, the final head answers after all, so that they are exits."""
    depths, rule = depth_list(str(options["list"]), config)[::-1], DepthRule(str(options["rule"]))
    inner = depths[:-1] if rule == DepthRule.PREFIX else ()
    exits = [kept_count(depth, config.num_hidden_layers) for depth in inner]
    return {"depths": depths, "depth_rule": rule.value, "exit_depths": exits, "shared_head": bool(exits)}


def copied(model: EfficientBertForSequenceClassification, device: str) -> EfficientBertForSequenceClassification:
    """A copy where this process computes: the stage before stays as it was."""
    copy = deepcopy(model)
    copy.eval()
    torch.nn.Module.to(copy, PartialState(cpu=device == "cpu").device)
    return copy


def frozen(model: EfficientBertForSequenceClassification, device: str) -> EfficientBertForSequenceClassification:
    """A copy that only answers."""
    copy = copied(model, device)
    copy.requires_grad_(False)
    return copy


def rewire_model(context: Context) -> Trained:
    """Score on some rows, then put heads and neurons in order."""
    model = copied(context.model, context.device)
    rewire(model, scored(model, context))
    return Trained(model.cpu().eval(), ())


def train_widths(context: Context) -> Trained:
    """All widths at full depth, from the fine-tuned model's answers and states or from gold classes, with grafts.

    Where copies of the rows with other words are wanted, they are kept for the stage that trains depths.
    """
    options = context.options
    more = augmented(context)
    context = replace(context, train=with_augmented(context.train, more))
    model = reshaped(context.model, **new_widths(context.model.config, options))
    teaching = Teaching(
        tuple(model.config.widths[::-1]),
        depths=(1.0,),
        teacher=frozen(context.model, context.device) if options["distill"] == "yes" else None,
        answers=float(options["lambda1"]),
        states=float(options["lambda2"]),
        fidelity=Fidelity(str(options["fidelity"])),
    )
    steps = graft_steps(
        examples=len(context.train),
        batch_size=int(options["batch_size"]),
        epochs=int(options["epochs"]),
        per_epoch=int(options["grafts"]),
    )
    grafts = steps if options["graft"] == "yes" else ()
    trained = joint(replace(context, model=model), teaching, grafts=grafts)
    return replace(trained, beside={FILE: more}) if more else trained


def train_depths(context: Context) -> Trained:
    """All widths at all depths, from the model of the stage before; the final head answers after every depth."""
    options = context.options
    model = reshaped(context.model, **new_depths(context.model.config, options))
    teaching = Teaching(
        tuple(model.config.widths[::-1]),
        depths=tuple(model.config.depths[::-1]),
        rule=DepthRule(model.config.depth_rule),
        teacher=frozen(context.model, context.device),
        answers=float(options["lambda1"]),
        states=float(options["lambda2"]),
        same_width=options["teacher"] == "same",
        fidelity=Fidelity(str(options["fidelity"])),
    )
    rows = with_augmented(context.train, context.before / FILE if context.before else None)
    return joint(replace(context, model=model, train=rows), teaching)


def train_final(context: Context) -> Trained:
    """All widths at all depths, gold classes, unless for no epoch; then how many would leave where, at full width."""
    config, model = context.model.config, copied(context.model, context.device)
    teaching = Teaching(tuple(config.widths[::-1]), tuple(config.depths[::-1]), DepthRule(config.depth_rule))
    epochs = int(context.options["epochs"])
    trained = joint(replace(context, model=model), teaching) if epochs else Trained(model.cpu())
    measure_profiles(trained.model, context.heldout, device=context.device)
    return replace(trained, model=trained.model.cpu())


REWIRE = Stage(
    name="rewire",
    summary="put the fine-tuned model's heads and neurons in order of importance",
    train=rewire_model,
    options=IMPORTANCE,
    after=FINETUNE,
    draws=False,
    step_cost=lambda options: 0.1,
    unseen=unscored,
)

WIDTH = Stage(
    name="width",
    summary="train every width together, with distillation and neural grafting",
    train=train_widths,
    options=(
        *LEARNING,
        Knob("list", "fractions of heads and neurons, separated by commas", "0.25,0.5,0.75,1", listed=True),
        Knob("distill", "learn from the fine-tuned model, or else the gold classes", "yes", choices=("yes", "no")),
        Knob("lambda1", "weight of the teacher's answers", 1.0, low=0.0),
        Knob("lambda2", "weight of the teacher's states", 0.1, low=0.0),
        Knob("grafts", "grafts in each epoch but the last", 3, low=1),
        Knob("graft_alpha", "what a weak unit takes of its donor", 0.1, low=0.0, high=1.0),
        *IMPORTANCE,
        *OPTIONS,
    ),
    knobs=(
        Knob(
            "graft",
            "neural grafting while widths are trained, in all epochs but the last",
            "yes",
            choices=("yes", "no"),
        ),
    ),
    after=REWIRE,
    changes=new_widths,
    check=check_sources,
    # widths 1, .75, .5, .25, and the teacher's forward pass, on every copy
    step_cost=lambda options: 2.9 * (1 + int(options["augment_copies"])),
    unseen=unscored,
)

DEPTH = Stage(
    name="depth",
    summary="train every width at every depth together, with distillation",
    train=train_depths,
    options=(
        *LEARNING,
        Knob("list", "fractions of the layers, separated by commas", "0.5,0.75,1", listed=True),
        Knob(
            "rule",
            "which layers are left: the first ones, or DynaBERT's",
            "prefix",
            choices=tuple(DepthRule),
            before="prefix",
        ),
        Knob("lambda1", "weight of the teacher's answers", 1.0, low=0.0),
        Knob("lambda2", "weight of the teacher's states", 1.0, low=0.0),
        Knob("teacher", "the teacher's width: full, or that of its student", "full", choices=("full", "same")),
        FIDELITY,
    ),
    after=WIDTH,
    changes=new_depths,
    step_cost=lambda options: 2.9,
)

FINAL = Stage(
    name="final",
    summary="fine-tune every width at every depth together on the gold classes",
    train=train_final,
    options=tuple(
        replace(knob, low=0, summary="passes over the training rows; 0 = none, stage depth's model")
        if knob.name == "epochs"
        else knob
        for knob in LEARNING
    ),
    after=DEPTH,
    step_cost=lambda options: 2.5,
)
