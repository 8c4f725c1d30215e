"""The reference set for Flexible BERT as tensors, and our model with its weights; its README names the arrays."""

from __future__ import annotations

import json
import os
from copy import deepcopy
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from efficient_bert import Batch, EfficientBertConfig, EfficientBertForSequenceClassification, Execution, run
from efficient_bert.calibration.importance import Importance, importance
from efficient_bert.fidelity import Fidelity
from efficient_bert.policies.subnets import Subnet, subnet_policy
from efficient_bert.training.flexible.rewiring import rewire

FOLDER = Path(os.environ.get("GOLDEN_DIR", Path(__file__).parents[3] / "shared" / "golden")) / "flexible_bert"
MODES = {"cumulative": Fidelity.RELEASED, "zeroed": Fidelity.CORRECTED}


def our_name(name: str) -> str:
    """The set's name of a parameter -> ours."""
    if not name.startswith("gates."):
        return name
    _, gate, part, kind = name.split(".")
    return f"gates.{gate}.{ {'0': 'dense', '2': 'choose'}[part] }.{kind}"


class Golden:
    """The set: expected arrays, settings, and our model with the set's weights."""

    @cached_property
    def config(self) -> dict[str, Any]:
        """Sizes, hyper-parameters, lists and thresholds."""
        fields: dict[str, Any] = json.loads((FOLDER / "config.json").read_text(encoding="utf8"))
        return fields

    @cached_property
    def expected(self) -> dict[str, Tensor]:
        with np.load(FOLDER / "outputs.npz") as stored:
            return {name: torch.from_numpy(np.asarray(stored[name])) for name in stored}

    @cached_property
    def inputs(self) -> dict[str, Tensor]:
        with np.load(FOLDER / "inputs.npz") as stored:
            return {name: torch.from_numpy(stored[name]) for name in stored}

    @property
    def labels(self) -> Tensor:
        return self.inputs["labels"]

    @cached_property
    def batch(self) -> Batch:
        return Batch.of({name: self.inputs[name] for name in ("input_ids", "attention_mask", "token_type_ids")})

    @cached_property
    def model(self) -> EfficientBertForSequenceClassification:
        """The weights as stored, with gates, and exits that share the final head."""
        names = (
            "num_labels", "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
            "max_position_embeddings", "type_vocab_size", "layer_norm_eps", "pad_token_id", "hidden_dropout_prob",
            "attention_probs_dropout_prob",
        )  # fmt: skip
        config = EfficientBertConfig(
            **{name: self.config[name] for name in names},
            hidden_act=self.config["hidden_act"].split()[0],
            exit_depths=self.config["exit_layers_1based"],
            shared_head=True,
            num_gates=self.config["gate"]["num_gates"],
            widths=self.config["gate"]["classes"],
        )
        model = EfficientBertForSequenceClassification(config)
        states = load_file(FOLDER / "weights.safetensors")
        model.load_state_dict({our_name(name): value for name, value in states.items()})
        model.eval()
        return model

    @property
    def widths(self) -> list[float]:
        widths: list[float] = self.config["widths"]
        return widths

    @property
    def depths(self) -> list[float]:
        depths: list[float] = self.config["depths"]
        return depths

    @property
    def named_tensors(self) -> list[str]:
        """Parameters whose gradients and updates the set holds."""
        names: list[str] = self.config["named_gradient_tensors"]
        return names

    def rows(self, first: int, last: int) -> Batch:
        """Some examples, padded as the whole set is."""
        batch = self.batch
        return Batch(*(part[first:last] for part in (batch.input_ids, batch.mask, batch.token_type_ids)))

    @cached_property
    def importances(self) -> dict[str, Importance]:
        """Ours, in both modes."""
        bounds = self.config["importance_batches"]
        batches = [(self.rows(first, last), self.labels[first:last]) for first, last in bounds]
        return {mode: importance(self.model, batches, fidelity=fidelity) for mode, fidelity in MODES.items()}

    def rewired(self, mode: str) -> EfficientBertForSequenceClassification:
        """A copy of the model, put in order."""
        model = deepcopy(self.model)
        rewire(model, self.importances[mode])
        return model


def close(found: Tensor, expected: Tensor, *, atol: float, rtol: float = 0.0) -> None:
    """Within the set's tolerances."""
    torch.testing.assert_close(found.detach(), expected, atol=atol, rtol=rtol)


def record(golden: Golden, subnet: Subnet) -> tuple[Tensor, list[Tensor]]:
    """Logits (N, C) and states of a subnet of the stored weights."""
    policy = subnet_policy(subnet)
    with torch.no_grad():
        output = run(golden.model, golden.batch, policy, execution=Execution.MASKED, record=True)
        gathered = run(golden.model, golden.batch, policy)
    close(gathered.logits, output.logits, atol=1e-4)
    return output.logits, list(output.hidden_states)


def flops_file() -> dict[str, Any]:
    """The set's FLOPs figures."""
    figures: dict[str, Any] = json.loads((FOLDER / "flops.json").read_text(encoding="utf8"))
    return figures
