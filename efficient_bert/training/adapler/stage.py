"""AdapLeR's training: predictors follow a fine-tuned model's saliency while thresholds rise (section 3.4).

Model, predictors and thresholds learn together from soft passes whose removal grows sharper with each epoch; epochs
are compared by what really dropping tokens gives.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import torch
from accelerate import PartialState
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from efficient_bert.cost.flops import full_flops, trace_flops
from efficient_bert.engine.decisions import Policy
from efficient_bert.engine.loop import Execution, run
from efficient_bert.fidelity import Fidelity
from efficient_bert.knobs import Knob, Values
from efficient_bert.model import EfficientBertForSequenceClassification, rebuild
from efficient_bert.policies.contribution import contribution_policy
from efficient_bert.rows import Rows, chunks
from efficient_bert.training import Context, Stage, Trained
from efficient_bert.training.adapler.objectives import keep_in_bounds, new_probe, soft_losses, two_objectives
from efficient_bert.training.adapler.saliency import FILE, SALIENCY, with_saliency
from efficient_bert.training.batches import batch_of, collate, compute_by_length
from efficient_bert.training.cached_rows import with_cached
from efficient_bert.training.loop import train, with_defaults
from efficient_bert.training.recipe import Backward, Inputs, Progress, Recipe

THRESHOLDS = ("contribution.eta", "contribution.theta")
"""Names of the parameters that the second objective owns."""


def with_contribution(
    model: EfficientBertForSequenceClassification, size: int, *, eta: float = 0.25
) -> EfficientBertForSequenceClassification:
    """Add fresh contribution predictors of this size to the model, with thresholds that start at `eta`."""
    grown = rebuild(model, contribution_size=size)
    with torch.no_grad():
        grown.contributions().eta.fill_(eta)
    return grown


def sharpness(epoch: int, epochs: int, fidelity: Fidelity = Fidelity.CORRECTED) -> float:
    """Return the soft removal's sharpness in this epoch, counted from 0.

    It is 50 x 50^e in three epochs, 10 x 3^e in ten, else it rises from 10 to 100,000.

    As released, 10 x 10^e in any other number of epochs, whatever it ends at.
    """
    growth = 10.0 if fidelity == Fidelity.RELEASED else 10.0 ** (4 / max(1, epochs - 1))
    start, growth = {3: (50.0, 50.0), 10: (10.0, 3.0)}.get(epochs, (10.0, growth))
    return float(start * growth**epoch)


def collate_maps(rows: Rows, *, pad_token_id: int) -> Inputs:
    """Collate a batch; where the rows have them, with saliency (B, L), 0 on padding, and a teacher's logits (B, C)."""
    batch = collate(rows, pad_token_id=pad_token_id)
    if "saliency" in rows[0]:
        batch["saliency"] = pad_sequence([row["saliency"] for row in rows], batch_first=True)
    if "teacher" in rows[0]:
        batch["teacher"] = torch.stack([row["teacher"] for row in rows])
    return batch


@torch.inference_mode()
def full_logits(model: EfficientBertForSequenceClassification, rows: Rows) -> Tensor:
    """Compute the full model's logits, (rows, C)."""

    def compute(chunk: Rows) -> Tensor:
        return run(model, batch_of(model, collate(chunk, pad_token_id=model.config.padding))).logits.float().cpu()

    return compute_by_length(rows, compute)


def sharpness_at(progress: Progress, options: Values) -> float:
    """Return the soft removal's sharpness in this step.

    As released, an epoch's value comes one step late, after 1000 in the first step.
    """
    epoch, fidelity = progress.epoch, Fidelity(options["fidelity"])
    late = fidelity == Fidelity.RELEASED and progress.batch == 0
    if late and not epoch:
        return 1000.0
    return sharpness(epoch - late, options["epochs"], fidelity)


def descend(
    model: EfficientBertForSequenceClassification,
    batch: Inputs,
    progress: Progress,
    backward: Backward,
    *,
    options: Values,
) -> Tensor:
    """Descend on both objectives in one soft pass, and return the first one."""
    gamma: float = options["gamma"]
    fidelity = Fidelity(options["fidelity"])
    probe = new_probe(model.contributions())
    losses = soft_losses(
        model,
        batch_of(model, batch),
        classes=batch["labels"],
        saliency=batch["saliency"],
        sharpness=sharpness_at(progress, options),
        teacher=batch.get("teacher"),
        distill=options["distill"],
        probe=probe,
        fidelity=fidelity,
    )
    two_objectives(model, losses, probe, gamma=gamma, phi=options["phi"], backward=backward, fidelity=fidelity)
    return (losses.classification + gamma * losses.weighted_contribution(fidelity)).detach()


def pruned_logits(model: EfficientBertForSequenceClassification, batch: Inputs) -> Tensor:
    """Compute logits (B, C) with tokens really dropped."""
    policy = contribution_policy(model.contributions())
    return run(model, batch_of(model, batch), policy, execution=Execution.MASKED).logits


@dataclass(frozen=True)
class Verdict:
    """A model on the held-out rows: score, FLOPs speed-up (a ratio of sums), and each layer's share of the tokens."""

    score: float
    speedup: float
    profile: tuple[float, ...]


@torch.inference_mode()
def measure_heldout(model: EfficientBertForSequenceClassification, context: Context, policy: Policy) -> Verdict:
    """Measure the model on the held-out rows under a policy, in float32."""
    model.eval()
    logits, traces = [], []
    for chunk in chunks(context.heldout):
        batch = batch_of(model, collate(chunk, pad_token_id=model.config.padding))
        output = run(model, batch, policy, execution=Execution.MASKED)
        logits.append(output.logits.float().cpu())
        traces.append(output.trace)
    lengths = torch.cat([trace.length for trace in traces])
    spent = sum(int(trace_flops(trace, model.config).sum()) for trace in traces)
    tokens = torch.cat([trace.tokens for trace in traces]).sum(0)
    return Verdict(
        score=context.score(torch.tensor([row["label"] for row in context.heldout]), torch.cat(logits)),
        speedup=int(full_flops(lengths, model.config).sum()) / spent,
        profile=tuple((tokens / lengths.sum()).tolist()),
    )


def observe(model: EfficientBertForSequenceClassification) -> dict[str, list[float]]:
    """Return the thresholds, which tell how much is dropped."""
    contribution = model.contributions()
    return {"eta": contribution.eta.tolist(), "theta": contribution.theta.tolist()}


def learning_rates(model: EfficientBertForSequenceClassification, options: Values) -> dict[str, float]:
    """Return the learning rates of the thresholds and, where they have one, of the predictors, by parameter names."""
    of_thresholds: float = options["threshold_rate"]
    of_predictors: float = options["predictor_rate"]
    rates = dict.fromkeys(THRESHOLDS, of_thresholds)
    if not of_predictors:
        return rates
    predictors = [name for name, _ in model.named_parameters() if name.startswith("contribution.predictors.")]
    return rates | dict.fromkeys(predictors, of_predictors)


def train_adapler(context: Context) -> Trained:
    """Train model, predictors and thresholds, and keep the fastest epoch of those that lose little enough score."""
    options, tuned = context.options, context.model
    rows = with_saliency(context.train, context.stage_before() / FILE)
    device = PartialState(cpu=context.device == "cpu").device
    torch.nn.Module.to(tuned, device)
    full_score, allowed_drop = measure_heldout(tuned, context, Policy()).score, options["allowed_drop"]
    if options["distill"]:
        rows = with_cached(rows, context.folder / "teacher", name="teacher", compute=partial(full_logits, tuned))
    tuned.cpu()

    def verdict(model: EfficientBertForSequenceClassification) -> Verdict:
        return measure_heldout(model, context, contribution_policy(model.contributions()))

    def rank(model: EfficientBertForSequenceClassification, _: float) -> float:
        """Rank by the speed-up, or below every speed-up by the score."""
        result = verdict(model)
        return result.speedup if context.holds_up(result.score, full_score, allowed_drop) else result.score - 10.0

    torch.manual_seed(context.seed)
    start = tuned if options["start"] == "finetuned" else context.fresh()
    model = with_contribution(start, options["contribution_size"], eta=options["initial_eta"])
    fidelity = Fidelity(options["fidelity"])
    recipe = Recipe(
        descend=partial(descend, options=options),
        predict=pruned_logits,
        collate=partial(collate_maps, pad_token_id=model.config.padding),
        rates=learning_rates(model, options),
        norm_group=THRESHOLDS,
        after_step=lambda model: keep_in_bounds(model.contributions(), fidelity),
        rank=rank,
        observe=observe,
    )
    trained = train(replace(context, model=model, train=rows), recipe)
    torch.nn.Module.to(trained.model, device)
    trained.model.config.length_profile = list(verdict(trained.model).profile)
    trained.model.cpu()
    return trained


ADAPLER = Stage(
    name="adapler",
    summary="train contribution predictors, thresholds and the fine-tuned model to drop tokens",
    train=train_adapler,
    options=(
        *with_defaults(epochs=5, learning_rate=3e-5),
        Knob("contribution_size", "inner size of the contribution predictors", 32, low=1, high=4096),
        Knob("threshold_rate", "learning rate of the thresholds", 5e-4, low=1e-8, high=1.0),
        Knob("predictor_rate", "learning rate of the contribution predictors; 0 = the model's", 0.0, low=0.0, high=1.0),
        Knob("initial_eta", "where the thresholds start, as fractions of an equal share", 0.25, low=0.01, high=1.0),
        Knob("distill", "part of the loss that follows the fine-tuned model's answers", 0.0, low=0.0, high=1.0),
        Knob("start", "the model that learning starts from", "finetuned", choices=("finetuned", "backbone")),
        Knob("allowed_drop", "held-out score that a chosen epoch may lose, absolute", 0.01, low=0.0, high=1.0),
        Knob(
            "fidelity",
            "the method's arithmetic, or the authors' with its defects",
            "corrected",
            choices=tuple(Fidelity),
        ),
    ),
    knobs=(
        Knob("gamma", "weight of following the saliency, nats per layer", 0.005, low=0.0, high=1e6),
        Knob(
            "phi", "weight of the length, tokens summed over the layers: higher drops more", 0.0005, low=0.0, high=1e6
        ),
    ),
    after=SALIENCY,
    changes=lambda config, options: {"contribution_size": options["contribution_size"]},
    step_cost=lambda options: 1.4,  # one forward pass, two backward, the second only for the thresholds
)
