"""Flexible BERT's stages: what each changes and leaves alone, grafts in time, labels, resume, refusals."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from efficient_bert import Batch, EfficientBertForSequenceClassification, InputError, run
from efficient_bert.calibration.importance import importance
from efficient_bert.engine.decisions import Decision, View
from efficient_bert.export.dense import export
from efficient_bert.methods.prefix_exit import PREFIX_EXIT
from efficient_bert.methods.static_subnet import STATIC_SUBNET
from efficient_bert.policies.gates import gate_policy
from efficient_bert.policies.subnets import DepthRule, layer_widths, subnet_policy, uniform_subnet
from efficient_bert.rows import Rows
from efficient_bert.training import Context, Stage
from efficient_bert.training.batches import collate
from efficient_bert.training.flexible import grafting
from efficient_bert.training.flexible import stage as stages
from efficient_bert.training.flexible.gating import GATES, class_weights, folds, labels_of, states_of, with_gates
from efficient_bert.training.flexible.stage import (
    DEPTH,
    FINAL,
    REWIRE,
    WIDTH,
    Teaching,
    descend_jointly,
    joint_losses,
    mean_score,
)
from efficient_bert.training.flexible.subnet_lists import parse_depths, parse_widths
from tests.efficient_bert.training.test_training_loop import (
    accuracy,
    assert_resumes,
    assert_says_what_it_changes,
    context,
    rows,
)
from tests.support.tiny import tiny_config, tiny_model

WIDTHS = (0.25, 0.5, 0.75, 1.0)
BARE: dict[str, Any] = {"exit_depths": [], "num_gates": 0, "contribution_size": 0}
ALL = Teaching(WIDTHS[::-1], depths=(1.0, 0.75, 0.5))


def plain(**changes: Any) -> EfficientBertForSequenceClassification:
    """A model as fine-tuning leaves it."""
    return tiny_model(classes=2, **{**BARE, "widths": [], **changes})


def supernet(**changes: Any) -> EfficientBertForSequenceClassification:
    """A model as stage `depth` leaves it."""
    return plain(
        **{"widths": list(WIDTHS), "depths": [0.5, 0.75, 1.0], "exit_depths": [2, 3], "shared_head": True, **changes}
    )


STARTS: Mapping[str, EfficientBertForSequenceClassification] = {
    "width": plain(),
    "depth": plain(widths=list(WIDTHS)),
    "final": supernet(),
    "gates": supernet(),
}


def given(folder: Path, stage: Stage, **changes: Any) -> Context:
    """A small run of a stage, on a copy of the model that it starts from."""
    start = STARTS.get(stage.name, STARTS["width"])
    model = EfficientBertForSequenceClassification(start.config)
    model.load_state_dict(start.state_dict())
    model.eval()
    return context(folder, stage=stage, **{"model": model, **changes})


def states(model: EfficientBertForSequenceClassification) -> dict[str, Tensor]:
    """A copy of every parameter."""
    return {name: value.clone() for name, value in model.state_dict().items()}


def batch_and_classes(some: Rows) -> tuple[Batch, dict[str, Tensor]]:
    """All rows in one batch."""
    inputs = collate(some, pad_token_id=0)
    return Batch.of(inputs), inputs


@pytest.mark.parametrize("stage", [WIDTH, DEPTH, FINAL, GATES], ids=lambda stage: stage.name)
@pytest.mark.parametrize("step", [2, 5, 8])
def test_a_killed_stage_ends_as_one_that_was_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: Stage, step: int
) -> None:
    """Killed within an epoch or at its end, between grafts too, a stage ends with the same parameters to the bit."""
    options = {"label_split": "train"} if stage is GATES else {}
    assert_resumes(stage, step, tmp_path, monkeypatch, model=STARTS[stage.name], options=options)


@pytest.mark.parametrize("stage", [REWIRE, WIDTH, DEPTH, FINAL, GATES], ids=lambda stage: stage.name)
def test_a_stage_says_what_it_changes(tmp_path: Path, stage: Stage) -> None:
    """What is planned with is the configuration that training leaves."""
    lists: dict[str, dict[str, Any]] = {
        "width": {"list": "0.5,1"},
        "depth": {"list": "0.75,1"},
        "gates": {"num_gates": 2},
    }
    assert_says_what_it_changes(given(tmp_path, stage, options={"epochs": 1, **lists.get(stage.name, {})}), stage)


def test_rewiring_is_a_stage(tmp_path: Path) -> None:
    """The rewired model is the same function in another order; the fine-tuned one stays as it was."""
    run_ = given(tmp_path, REWIRE, options={"importance_rows": 30})
    before = states(run_.model)
    model = REWIRE.train(run_).model
    assert all(torch.equal(value, before[name]) for name, value in run_.model.state_dict().items())
    batch, inputs = batch_and_classes(run_.heldout)
    with torch.inference_mode():
        torch.testing.assert_close(run(model, batch).logits, run(run_.model, batch).logits, atol=1e-5, rtol=0)
    chosen = [run_.train[place * 40 // 30] for place in range(30)]
    batch, inputs = batch_and_classes(chosen)
    heads = importance(model, [(batch, inputs["labels"])]).heads
    assert (heads.diff(dim=1) <= 1e-6).all()
    assert not torch.equal(
        model.bert.encoder.layers[0].output.dense.weight, before["bert.encoder.layer.0.output.dense.weight"]
    )


@pytest.mark.parametrize("stage", [WIDTH, DEPTH, FINAL], ids=lambda stage: stage.name)
def test_a_stage_improves_all_its_subnets(tmp_path: Path, stage: Stage) -> None:
    """The joint loss on the training rows falls, in whatever the stage teaches, and the start is left alone."""
    options = {"learning_rate": 2e-3, "epochs": 10, **({"graft": "no", "lambda2": 1.0} if stage is WIDTH else {})}
    run_ = given(tmp_path, stage, options=options, heldout=rows(40, 0))
    before = states(run_.model)
    trained = stage.train(run_)
    assert all(torch.equal(value, before[name]) for name, value in run_.model.state_dict().items())
    assert len(trained.scores) == 10
    model = trained.model
    assert not model.training
    assert model.config.widths == list(WIDTHS)
    assert model.config.exit_depths == ([] if stage is WIDTH else [2, 3])
    assert not [name for name in model.state_dict() if name.startswith("exits.")]
    teaching = replace(ALL, depths=(1.0,)) if stage is WIDTH else ALL
    if stage is not FINAL:
        teaching = replace(teaching, teacher=STARTS[stage.name], answers=0.0, states=1.0)
    _, inputs = batch_and_classes(run_.train)
    with torch.no_grad():
        now, at_first = (sum(map(float, joint_losses(each, inputs, teaching))) for each in (model, run_.model))
    assert now < 0.9 * at_first


@pytest.mark.parametrize(("rule", "half"), [(DepthRule.FLOOR, (0, 2)), (DepthRule.KEEP_LAST, (1, 3))])
def test_depths_may_leave_out_other_layers(tmp_path: Path, rule: DepthRule, half: tuple[int, ...]) -> None:
    """By DynaBERT's rules, stage after stage: what is trained is what a subnet then runs, and nobody leaves early."""
    run_ = given(tmp_path, DEPTH, options={"rule": rule.value, "learning_rate": 2e-3, "epochs": 10})
    deep = DEPTH.train(run_).model
    assert (deep.config.depths, deep.config.exit_depths) == ([0.5, 0.75, 1.0], [])
    model = FINAL.train(given(tmp_path / "final", FINAL, model=deep, options={"learning_rate": 2e-3})).model
    assert model.config.exit_profile == []
    chosen = STATIC_SUBNET.policy(model, {"width_mult": "0.5", "depth_mult": 0.5})
    assert chosen.layers == half
    dense = export(model, layer_widths("0.5", model.config, depth_mult=0.5)).config
    assert (dense.depths, dense.depth_rule) == ([], "prefix")  # its own layers follow one another
    batch, inputs = batch_and_classes(run_.train)
    with torch.no_grad():
        losses = [model.loss(run(each, batch, chosen).logits, inputs["labels"]) for each in (run_.model, deep, model)]
    assert losses[2] < 0.9 * losses[0]
    with pytest.raises(InputError, match=f"rule '{rule.value}' at depths .* give --depth-rule prefix"):
        PREFIX_EXIT.check(model.config, {"exit_width": 1.0, "exit_threshold": 0.1})


def test_a_joint_loss_is_the_sum_over_subnets() -> None:
    """Twelve subnets' cross-entropies, one by one."""
    model, some = supernet(), rows(12, 0)
    batch, inputs = batch_and_classes(some)
    with torch.no_grad():
        total = torch.stack(list(joint_losses(model, inputs, ALL))).sum()
        each = [
            torch.nn.functional.cross_entropy(
                run(model, batch, subnet_policy(uniform_subnet(model.config, width=width, depth_mult=depth))).logits,
                inputs["labels"],
            )
            for width in ALL.widths
            for depth in ALL.depths
        ]
    torch.testing.assert_close(total, torch.stack(each).sum())


def test_a_step_holds_the_graph_of_one_width() -> None:
    """The gradients are those of the sum over widths, and no more is held for them than the widest one needs."""
    held, most = 0, 0

    class Held:
        """A tensor that a graph keeps for its backward pass."""

        def __init__(self, tensor: Tensor) -> None:
            nonlocal held, most
            self.tensor, self.size = tensor.detach(), tensor.numel()
            held += self.size
            most = max(most, held)

        def __del__(self) -> None:
            nonlocal held
            held -= self.size

    def widest(step: Callable[[], object]) -> int:
        nonlocal most
        most = 0
        with torch.autograd.graph.saved_tensors_hooks(Held, lambda own: own.tensor):
            step()
        return most

    model, other = supernet(), supernet()
    _, inputs = batch_and_classes(rows(12, 0))
    alone = widest(lambda: list(joint_losses(model, inputs, replace(ALL, widths=(1.0,)))))
    together = widest(lambda: torch.stack(list(joint_losses(model, inputs, ALL))).sum().backward())
    assert together > 2 * alone
    assert widest(lambda: descend_jointly(other, inputs, ALL, Tensor.backward)) <= alone
    for (name, expected), found in zip(model.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(found.grad, expected.grad, rtol=1e-5, atol=1e-7, msg=name)


def test_a_teacher_of_the_same_width() -> None:
    """Followed at its student's width a model teaches its own subnets nothing; at full width it does."""
    model, some = supernet(), rows(12, 0)
    _, inputs = batch_and_classes(some)
    for same, expected in ((True, 0.0), (False, None)):
        teaching = Teaching((0.5,), depths=(1.0,), teacher=model, answers=0.0, states=1.0, same_width=same)
        with torch.no_grad():
            (loss,) = map(float, joint_losses(model, inputs, teaching))
        assert loss == pytest.approx(expected, abs=1e-9) if same else loss > 0.01


def test_epochs_are_compared_by_the_mean_over_subnets(tmp_path: Path) -> None:
    """The rank is the mean of twelve held-out scores."""
    run_ = given(tmp_path, FINAL)
    batch, inputs = batch_and_classes(run_.heldout)
    with torch.inference_mode():
        scores = [
            accuracy(
                inputs["labels"],
                run(
                    run_.model, batch, subnet_policy(uniform_subnet(run_.model.config, width=width, depth_mult=depth))
                ).logits,
            )
            for width in ALL.widths
            for depth in ALL.depths
        ]
    assert mean_score(run_.model, run_, ALL) == pytest.approx(sum(scores) / 12)


def test_the_last_stage_may_be_left_out(tmp_path: Path) -> None:
    """For no epoch the model is that of the stage before, which now knows how many examples leave where."""
    run_ = given(tmp_path, FINAL, options={"epochs": 0})
    trained = FINAL.train(run_)
    assert trained.scores == ()
    before, after = run_.model.state_dict(), trained.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert trained.model.config.exit_profile


@pytest.mark.parametrize(
    ("graft", "grafts", "expected"), [("yes", 1, [5, 10]), ("yes", 2, [*range(2, 11, 2)]), ("no", 2, [])]
)
def test_grafts_come_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, graft: str, grafts: int, expected: list[int]
) -> None:
    """Of 15 steps, a graft comes after those of the first two epochs on schedule, and leaves no gradient behind."""
    done, seen = [0], []

    def watched(model: EfficientBertForSequenceClassification, scores: Any, *, alpha: float) -> None:
        assert all(parameter.grad is None for parameter in model.parameters())
        assert alpha == 0.25
        seen.append(done[-1])
        grafting.graft(model, scores, alpha=alpha)

    monkeypatch.setattr(stages, "graft", watched)
    options = {"graft": graft, "grafts": grafts, "graft_alpha": 0.25, "importance_rows": 8}
    WIDTH.train(given(tmp_path, WIDTH, options=options, watch=lambda status: done.append(status.step)))
    assert seen == expected


def test_without_distillation_widths_learn_the_gold_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No teacher is asked."""
    monkeypatch.setattr(stages, "teach", None)
    trained = WIDTH.train(given(tmp_path, WIDTH, options={"distill": "no", "graft": "no"}))
    assert len(trained.scores) == 3


def test_only_gates_learn(tmp_path: Path) -> None:
    """The trunk stays to the bit, the gates do not, and everything can be trained afterwards."""
    run_ = given(tmp_path, GATES)
    before = states(run_.model)
    model = GATES.train(run_).model
    assert model.config.num_gates == 4
    for name, value in model.state_dict().items():
        if name.startswith("gates."):
            assert value.abs().sum() > 0
        else:
            assert torch.equal(value, before[name]), name
    torch.manual_seed(run_.seed)
    fresh = with_gates(run_.model, 0)
    assert not torch.equal(fresh.get_parameter("gates.0.choose.weight"), model.get_parameter("gates.0.choose.weight"))
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_gates_learn_their_labels(tmp_path: Path) -> None:
    """On rows that train them, gates come to choose each row's label far more often than at first."""
    run_ = given(
        tmp_path, GATES,
        options={"epochs": 60, "learning_rate": 1e-2, "label_split": "train", "loss": "plain", "warmup": 0.0},
    )  # fmt: skip
    model = GATES.train(run_).model
    batch, _ = batch_and_classes(run_.train)
    labels = labels_of(model, run_.train)
    assert len(labels.unique()) > 1
    with torch.inference_mode():
        heads = run(model, batch, gate_policy(model.width_gates(), WIDTHS)).trace.heads
    # the last gate reads states that tell rows apart
    right = (heads[:, -1] == torch.tensor([3, 6, 9, 12])[labels]).float().mean()
    assert right > 0.7


def test_labels_and_states_are_each_rows_own() -> None:
    """In batches of like length, in any order: the label by brute force, the states of a pass at its width."""
    model, some = with_gates(supernet(), 2), rows(80, 4)
    labels = labels_of(model, some)
    named = [{**row, "gate_label": label} for row, label in zip(some, labels, strict=True)]
    found = states_of(model, named)
    assert found.shape == (80, 2, 48)
    for row, label, own in list(zip(some, labels.tolist(), found, strict=True))[::7]:
        batch, _ = batch_and_classes([row])
        right = []
        for width in WIDTHS[:3]:
            with torch.inference_mode():
                answer = run(model, batch, subnet_policy(uniform_subnet(model.config, width=width))).logits.argmax()
            right.append(int(answer) == row["label"])
        assert label == (right.index(True) if True in right else 3)
        seen: list[Tensor] = []
        policy = subnet_policy(uniform_subnet(model.config, width=WIDTHS[label]))

        def watch(view: View, seen: list[Tensor] = seen) -> Decision:
            if view.depth % 2 == 0:
                seen.append(view.hidden[0, 0])
            return Decision()

        with torch.inference_mode():
            run(model, batch, replace(policy, decide=watch))
        torch.testing.assert_close(own, torch.stack(seen), atol=1e-5, rtol=0)


def test_a_regression_is_trained_and_labelled(tmp_path: Path) -> None:
    """Scores are followed by squared error, and a width is right within the tolerance."""
    model = supernet(num_labels=1)
    assert model.config.regression
    scores = [{**row, "label": 0.25 * place} for place, row in enumerate(rows(12, 0))]
    batch, inputs = batch_and_classes(scores)
    with torch.inference_mode():
        answers = [
            run(model, batch, subnet_policy(uniform_subnet(model.config, width=width))).logits[:, 0] for width in WIDTHS
        ]
        joint = sum(map(float, joint_losses(model, inputs, replace(ALL, depths=(1.0,)))))
    squared = [float((answer - inputs["labels"]).square().mean()) for answer in answers]
    assert joint == pytest.approx(sum(squared), rel=1e-5)
    near = [[abs(float(answer[row]) - 0.25 * row) < 0.7 for answer in answers[:3]] for row in range(12)]
    expected = [right.index(True) if True in right else 3 for right in near]
    assert labels_of(model, scores, tolerance=0.7).tolist() == expected
    assert len(set(expected)) > 1
    run_ = context(tmp_path, stage=DEPTH, model=model, train=scores, heldout=scores, score=lambda labels, logits: 0.5)
    assert len(DEPTH.train(run_).scores) == 3


def test_gate_rows_are_held_out(tmp_path: Path) -> None:
    """Corrected, gates learn on held-out rows and are selected on others of them; released, on the training rows."""
    run_ = given(tmp_path, GATES)
    learn, select = folds(run_)
    names = [row["input_ids"] for row in [*learn, *select]]
    assert sorted(names) == sorted(row["input_ids"] for row in run_.heldout)
    assert len(select) == 5
    released = given(tmp_path, GATES, options={"label_split": "train"})
    assert folds(released) == (released.train, released.heldout)
    with pytest.raises(InputError, match=r"1 training row is held out.*--gates-label-split train"):
        folds(replace(run_, heldout=run_.heldout[:1]))


def test_class_weights_are_read() -> None:
    """Balanced, equal, or numbers."""
    labels = torch.tensor([0, 0, 0, 1])
    assert class_weights("balanced", labels, 2).tolist() == [4 / 6, 2.0]
    assert class_weights("none", labels, 2).tolist() == [1.0, 1.0]
    assert class_weights("0.5,28", labels, 2).tolist() == [0.5, 28.0]
    for wrong in ("1", "1,-1", "1,nan", "1,inf", "x,1"):
        with pytest.raises(InputError):
            class_weights(wrong, labels, 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0.5,0.25,1", "ascend or descend"),
        ("0.5,0.5", "ascend or descend"),
        ("0.01,1", "leaves none"),
        ("0.25,0.5", "the largest all"),
        ("0.5,0.52,1", "another number"),
        ("a", "numbers"),
    ],
)
def test_bad_width_lists_are_refused(text: str, message: str) -> None:
    """Out of order, repeated, without a head, no full width, two of the same heads, no numbers: one line each."""
    with pytest.raises(InputError, match=message) as caught:
        parse_widths(text, tiny_config())
    assert "\n" not in str(caught.value)


def test_gates_of_one_width_are_refused() -> None:
    """There is nothing to choose; said before any stage trains."""
    config = tiny_config(widths=[1.0], num_gates=0)
    assert GATES.check is not None
    with pytest.raises(InputError, match="gates choose among several"):
        GATES.check(config, {"class_weights": "balanced"}, {})


@pytest.mark.parametrize(
    ("text", "message"),
    [("0.5,0.6,1", "another number"), ("0.5,0.75", "the largest all"), ("0.1,1", "leaves none"), ("nan,1", "is nan")],
)
def test_bad_depth_lists_are_refused(text: str, message: str) -> None:
    """Two depths of the same layers, no full depth, no layer, no number."""
    with pytest.raises(InputError, match=message):
        parse_depths(text, tiny_config())


def test_lists_may_ascend_or_descend() -> None:
    """Either order is read, largest first."""
    assert parse_widths("0.5,1", tiny_config()) == parse_widths("1,0.5", tiny_config()) == (1.0, 0.5)
    assert parse_depths("0.5,0.75,1", tiny_config()) == (1.0, 0.75, 0.5)
