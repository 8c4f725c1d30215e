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

from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace

import torch
from accelerate import PartialState
from torch import Tensor

from efficient_bert.calibration.profiles import store_profiles
from efficient_bert.fidelity import Fidelity
from efficient_bert.knobs import Knob
from efficient_bert.model import EfficientBertForSequenceClassification, rebuild
from efficient_bert.policies.subnets import DepthRule
from efficient_bert.training import Context, Stage, Trained
from efficient_bert.training.batches import batch_of, labelled_batches
from efficient_bert.training.distillation import Reading, distance, readings, teach, teacher_state_numbers
from efficient_bert.training.finetune import FINETUNE, classify
from efficient_bert.training.flexible.augmentation import FILE, OPTIONS, augment, check_sources, with_augmented
from efficient_bert.training.flexible.grafting import graft, graft_steps
from efficient_bert.training.flexible.importance_rows import (
    FIDELITY,
    IMPORTANCE,
    rows_without_importance,
    score_importance,
)
from efficient_bert.training.flexible.rewiring import rewire
from efficient_bert.training.flexible.subnet_lists import new_depths, new_widths
from efficient_bert.training.loop import train, with_defaults
from efficient_bert.training.recipe import Backward, Inputs, Progress, Recipe

LEARNING = with_defaults(epochs=3, warmup=0.0, weight_decay=0.0)


@dataclass(frozen=True)
class Teaching:
    """What the subnets of a step learn.

    Attributes:
        widths: fractions of heads and neurons of the subnets, descending.
        depths: fractions of the layers of the subnets, descending.
        rule: which layers are left at a depth.
        teacher: the model that is learned from; None for gold classes.
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
    """Compute each width's loss when it is next wanted: the sum over its depths, from a teacher or the gold classes."""
    batch = batch_of(model, inputs)
    full = teach(teaching.teacher, batch) if teaching.teacher and not teaching.same_width else None
    for width in teaching.widths:
        teacher = full
        if teaching.teacher and teaching.same_width:
            teacher = teach(teaching.teacher, batch, width=width)
        students = readings(model, batch, width=width, depths=teaching.depths, rule=teaching.rule)
        losses = [
            model.loss(student.logits.float(), inputs["labels"])
            if teacher is None
            else teacher_loss(student, teacher, batch.mask, depth=depth, teaching=teaching)
            for depth, student in zip(teaching.depths, students, strict=True)
        ]
        yield torch.stack(losses).sum()


def descend_jointly(
    model: EfficientBertForSequenceClassification, inputs: Inputs, teaching: Teaching, backward: Backward
) -> Tensor:
    """Add the gradients of all subnets' losses, holding one width's graph at a time, and return the losses' sum."""
    total = torch.zeros((), device=model.device)
    for loss in joint_losses(model, inputs, teaching):
        backward(loss)
        total += loss.detach()
    return total


def teacher_loss(reading: Reading, teacher: Reading, mask: Tensor, *, depth: float, teaching: Teaching) -> Tensor:
    """Compute one subnet's loss from its teacher."""
    numbers = teacher_state_numbers(depth, len(teacher.states) - 1)
    gap = distance(reading, teacher, mask, state_numbers=numbers, fidelity=teaching.fidelity)
    return gap.loss(answers=teaching.answers, states=teaching.states)


@torch.no_grad()
def mean_score(model: EfficientBertForSequenceClassification, context: Context, teaching: Teaching) -> float:
    """Measure the held-out score, averaged over all subnets."""
    model.eval()
    by_batch = [
        [
            reading.logits.float().cpu()
            for width in teaching.widths
            for reading in readings(model, batch, width=width, depths=teaching.depths, rule=teaching.rule)
        ]
        for batch, _ in labelled_batches(model, context.heldout)
    ]
    classes = torch.tensor([row["label"] for row in context.heldout])
    scores = [context.score(classes, torch.cat(logits)) for logits in zip(*by_batch, strict=True)]
    return sum(scores) / len(scores)


def train_jointly(context: Context, teaching: Teaching, *, grafts: Sequence[int] = ()) -> Trained:
    """Train every subnet together; a graft comes before the step whose number (from 0) is in `grafts`."""

    def descend(
        model: EfficientBertForSequenceClassification, inputs: Inputs, progress: Progress, backward: Backward
    ) -> Tensor:
        if progress.step in grafts:
            graft(model, score_importance(model, context), alpha=context.options["graft_alpha"])
        return descend_jointly(model, inputs, teaching, backward)

    def rank(model: EfficientBertForSequenceClassification, score: float) -> float:
        return mean_score(model, context, teaching)

    return train(context, Recipe(descend=descend, predict=classify, rank=rank))


def copy_to_device(
    model: EfficientBertForSequenceClassification, device: str
) -> EfficientBertForSequenceClassification:
    """Copy a model to where this process computes; the model of the stage before stays as it was."""
    copy = deepcopy(model)
    copy.eval()
    torch.nn.Module.to(copy, PartialState(cpu=device == "cpu").device)
    return copy


def freeze_copy(model: EfficientBertForSequenceClassification, device: str) -> EfficientBertForSequenceClassification:
    """Copy a model to where this process computes, without gradients."""
    copy = copy_to_device(model, device)
    copy.requires_grad_(False)
    return copy


def rewire_model(context: Context) -> Trained:
    """Score importance on some rows, then put heads and neurons in order."""
    model = copy_to_device(context.model, context.device)
    rewire(model, score_importance(model, context))
    return Trained(model.cpu().eval(), ())


def train_widths(context: Context) -> Trained:
    """Train all widths at full depth, from the fine-tuned model or from gold classes, with grafts.

    Where copies of the rows with other words are wanted, they are kept for the stage that trains depths.
    """
    options = context.options
    augmented = augment(context)
    context = replace(context, train=with_augmented(context.train, augmented))
    model = rebuild(context.model, **new_widths(context.model.config, options))
    teaching = Teaching(
        tuple(model.config.widths[::-1]),
        depths=(1.0,),
        teacher=freeze_copy(context.model, context.device) if options["distill"] == "yes" else None,
        answers=options["lambda1"],
        states=options["lambda2"],
        fidelity=Fidelity(options["fidelity"]),
    )
    steps = graft_steps(
        examples=len(context.train),
        batch_size=options["batch_size"],
        epochs=options["epochs"],
        per_epoch=options["grafts"],
    )
    grafts = steps if options["graft"] == "yes" else ()
    trained = train_jointly(replace(context, model=model), teaching, grafts=grafts)
    return replace(trained, beside={FILE: augmented}) if augmented else trained


def train_depths(context: Context) -> Trained:
    """Train all widths at all depths, from the model of the stage before; the final head answers after every depth."""
    options = context.options
    model = rebuild(context.model, **new_depths(context.model.config, options))
    teaching = Teaching(
        tuple(model.config.widths[::-1]),
        depths=tuple(model.config.depths[::-1]),
        rule=DepthRule(model.config.depth_rule),
        teacher=freeze_copy(context.model, context.device),
        answers=options["lambda1"],
        states=options["lambda2"],
        same_width=options["teacher"] == "same",
        fidelity=Fidelity(options["fidelity"]),
    )
    rows = with_augmented(context.train, context.before / FILE if context.before else None)
    return train_jointly(replace(context, model=model, train=rows), teaching)


def train_final(context: Context) -> Trained:
    """Train all widths at all depths on the gold classes, if any epoch is wanted; then measure who leaves where."""
    config, model = context.model.config, copy_to_device(context.model, context.device)
    teaching = Teaching(tuple(config.widths[::-1]), tuple(config.depths[::-1]), DepthRule(config.depth_rule))
    epochs = context.options["epochs"]
    trained = train_jointly(replace(context, model=model), teaching) if epochs else Trained(model.cpu())
    store_profiles(trained.model, context.heldout, device=context.device)
    return replace(trained, model=trained.model.cpu())


REWIRE = Stage(
    name="rewire",
    summary="put the fine-tuned model's heads and neurons in order of importance",
    train=rewire_model,
    options=IMPORTANCE,
    after=FINETUNE,
    uses_seed=False,
    step_cost=lambda options: 0.1,
    untouched_rows=rows_without_importance,
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
    step_cost=lambda options: 2.9 * (1 + options["augment_copies"]),
    untouched_rows=rows_without_importance,
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
