"""The reference set for AdapLeR as tensors, and our model with its weights; its README names the arrays."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor
from transformers import BertConfig

from efficient_bert import Batch, EfficientBertConfig, EfficientBertForSequenceClassification, Execution, run
from efficient_bert.engine.recorder import Output
from efficient_bert.fidelity import Fidelity
from efficient_bert.policies.contribution import contribution_policy

FOLDER = Path(os.environ.get("GOLDEN_DIR", Path(__file__).parents[3] / "shared" / "golden")) / "adapler"


def our_name(name: str) -> str:
    """The set's name of a parameter -> ours."""
    parts = {"contribution_predictors.": "contribution.predictors.", ".dense1.": ".dense.", ".dense2.": ".score."}
    if name in ("eta", "theta"):
        return f"contribution.{name}"
    if name.startswith("contribution_predictors."):
        for theirs, ours in parts.items():
            name = name.replace(theirs, ours)
    return name


@dataclass(frozen=True)
class Golden:
    """The set in one precision: expected arrays, and our model with the set's weights."""

    dtype: torch.dtype

    @property
    def exact(self) -> bool:
        """The strict comparison."""
        return self.dtype == torch.float64

    @cached_property
    def config(self) -> dict[str, Any]:
        fields: dict[str, Any] = json.loads((FOLDER / "config.json").read_text(encoding="utf8"))
        return fields

    @cached_property
    def adapler(self) -> dict[str, Any]:
        """The hyper-parameters."""
        fields: dict[str, Any] = self.config["adapler"]
        return fields

    @cached_property
    def expected(self) -> dict[str, Tensor]:
        name = "outputs_float64.npz" if self.exact else "outputs.npz"
        return {name: torch.from_numpy(value) for name, value in arrays(FOLDER / name).items()}

    @cached_property
    def labels(self) -> Tensor:
        return torch.from_numpy(arrays(FOLDER / "inputs.npz")["labels"])

    @cached_property
    def batch(self) -> Batch:
        found = arrays(FOLDER / "inputs.npz")
        return Batch.of({name: torch.from_numpy(value) for name, value in found.items() if name != "labels"})

    @cached_property
    def model(self) -> EfficientBertForSequenceClassification:
        counted = {"num_labels"} if "id2label" in self.config else set()  # transformers wants one of the two
        fields = {name: value for name, value in self.config.items() if name not in {"adapler", *counted}}
        config = EfficientBertConfig.from_bert(BertConfig(**fields), contribution_size=self.adapler["cp_width"])
        model = EfficientBertForSequenceClassification(config)
        states = {our_name(name): value for name, value in load_file(FOLDER / "weights.safetensors").items()}
        thresholds = {f"contribution.{name}": torch.tensor(self.adapler[name]) for name in ("eta", "theta")}
        model.load_state_dict({**states, **thresholds})
        # thresholds keep the digits that float32 would cut
        torch.nn.Module.to(model, self.dtype)
        model.eval()
        for name in ("eta", "theta"):
            model.get_parameter(f"contribution.{name}").data = torch.tensor(self.adapler[name], dtype=self.dtype)
        return model

    @cached_property
    def soft(self) -> tuple[Output, ...]:
        """One recorded soft pass for each sharpness."""
        found = []
        for sharpness in self.adapler["lambdas"]:
            policy = contribution_policy(
                self.model.contributions(), sharpness=sharpness, fidelity=Fidelity.RELEASED
            )  # fmt: skip
            with torch.no_grad():
                found.append(run(self.model, self.batch, policy, execution=Execution.SOFT, record=True))
        return tuple(found)

    def check(self, found: Tensor, expected: Tensor, *, atol: float) -> None:
        """`found` equals `expected`: strictly in float64, within `atol` in float32."""
        assert found.dtype == expected.dtype == self.dtype
        rtol, atol = (1e-9, 1e-10) if self.exact else (0.0, atol)
        torch.testing.assert_close(found.detach(), expected, rtol=rtol, atol=atol)


def arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Every array of an .npz file."""
    with np.load(path) as stored:
        return {name: stored[name] for name in stored}
