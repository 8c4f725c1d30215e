"""Policies together: each decides as it does alone, and their costs add up."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from efficient_bert import Execution, run
from efficient_bert.cost.flops import trace_flops
from efficient_bert.engine.decisions import Decision, Policy
from efficient_bert.methods.entropy_exit import ENTROPY_EXIT
from efficient_bert.policies.compose import compose
from efficient_bert.policies.contribution import contribution_policy
from efficient_bert.policies.exit_rules import entropy, stack_exit_logits
from efficient_bert.policies.gates import gate_policy
from tests.support.tiny import tiny_batch, tiny_model

MODEL = tiny_model(classes=2)
BATCH = tiny_batch([7, 3, 5, 9, 2, 4, 8, 6] * 4, seed=3)
TOKENS = contribution_policy(MODEL.contributions())


def exit_policy(threshold: float) -> Policy:
    """The policy of `entropy_exit`."""
    return ENTROPY_EXIT.policy(MODEL, {"exit_threshold": threshold})


@torch.inference_mode()
@pytest.mark.parametrize("execution", [Execution.GATHERED, Execution.MASKED])
def test_tokens_and_exits_as_by_hand(execution: Execution) -> None:
    """Every example answers at the first exit that is certain of a pass with tokens dropped, and pays that far."""
    dropped = run(MODEL, BATCH, replace(TOKENS, exits=(1, 2, 3)), execution=Execution.MASKED)
    threshold = float(entropy(stack_exit_logits(dropped)).quantile(0.3))
    output = run(MODEL, BATCH, compose([TOKENS, exit_policy(threshold)]), execution=execution)
    depths = []
    for row in range(len(BATCH.mask)):
        certain = [depth for depth, logits in dropped.exit_logits.items() if entropy(logits[row]) < threshold]
        depth = certain[0] if certain else 4
        answer = dropped.exit_logits[depth] if certain else dropped.logits
        torch.testing.assert_close(output.logits[row], answer[row], atol=1e-5, rtol=0)
        assert output.trace.tokens[row, :depth].equal(dropped.trace.tokens[row, :depth])
        assert not output.trace.tokens[row, depth:].any()
        # who leaves before a layer was still looked at by that layer's predictor
        assert output.trace.decision_macs[row, : depth + 1].equal(dropped.trace.decision_macs[row, : depth + 1])
        assert not output.trace.decision_macs[row, depth + 1 :].any()
        assert output.trace.head_runs[row] == min(depth, 3) + (depth == 4)
        depths.append(depth)
    assert output.trace.exit_depth.tolist() == depths
    assert len(set(depths)) > 2
    assert (trace_flops(output.trace, MODEL.config) < trace_flops(dropped.trace, MODEL.config)).any()


@torch.inference_mode()
def test_costs_add_up() -> None:
    """Predictors and gates are both charged: a pass of both costs more than its layers by the sum of the two."""
    gates = MODEL.width_gates()
    both = run(MODEL, BATCH, compose([TOKENS, gate_policy(gates, [1.0] * 4)])).trace
    alone = run(MODEL, BATCH, TOKENS).trace
    assert both.kept.equal(alone.kept)
    assert both.decision_macs.equal(alone.decision_macs + gates.macs)
    added = trace_flops(both, MODEL.config) - trace_flops(alone, MODEL.config)
    assert added.eq(2 * 4 * gates.macs).all()


@torch.inference_mode()
def test_each_policy_sees_its_own_exits() -> None:
    """Exits that another policy evaluates change neither who leaves nor with which answer."""
    sparse = Policy(exit_policy(0.5).decide, exits=(2,))
    alone, beside = run(MODEL, BATCH, sparse), run(MODEL, BATCH, compose([sparse, Policy(exits=(1, 3))]))
    assert list(beside.exit_logits) == [1, 2, 3]
    torch.testing.assert_close(beside.logits, alone.logits)
    assert beside.trace.exit_depth.equal(alone.trace.exit_depth)
    assert len(alone.trace.exit_depth.unique()) == 2


def test_one_question_has_one_answer() -> None:
    """Two that say the same field, layers or widths are refused; nothing composed is the full model."""
    twice = compose([TOKENS, TOKENS])
    with pytest.raises(ValueError, match="2 of the policies say `keep`"):
        run(MODEL, BATCH, twice)
    with pytest.raises(ValueError, match="`widths`"):
        compose([Policy(widths=(1.0,) * 4), Policy(widths=(0.5,) * 4)])
    assert compose([]) == Policy()
    narrow = compose([Policy(layers=(0, 1)), Policy(lambda view: Decision(), needs_fingerprints=True)])
    assert (narrow.layers, narrow.needs_fingerprints) == ((0, 1), True)
