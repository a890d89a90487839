"""Two processes with a gate take the steps of one."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.support.gated_training import RAMP, trained
from tests.support.training import ADAMW, SAM
from tests.support.two_processes import pair

HARD: dict[str, Any] = {"name": "hard-movement", "sparsity": 0.6, "refresh": 3, "schedule": RAMP}
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "magnitude": (ADAMW, {"name": "magnitude", "sparsity": 0.6, "every": 2, "schedule": RAMP}),
    "gradient-norm": (ADAMW, {"name": "gradient-norm", "sparsity": 0.6, "every": 4, "rows": 8, "schedule": RAMP}),
    "pins": (ADAMW, {"name": "pins", "sparsity": 0.6, "every": 2, "window": 3, "schedule": RAMP}),
    "hard": (ADAMW, HARD),
    "hard-sam": (SAM, HARD | {"perturb": "both"}),  # without being told, the displacement is that of all processes
    "block-sam": (SAM, {"name": "block-movement", "penalty": 4.0, "score_lr": 0.5, "block": 4, "schedule": RAMP}),
    "ratios": (ADAMW, {"name": "mlpruning", "first_ratio": 2.0, "score_lr": 1.0, "schedule": RAMP}),
    "l0": (ADAMW, {"name": "l0", "penalty": 2.0, "schedule": RAMP}),
}


@pytest.mark.long
def test_two_processes_take_the_steps_of_one(tmp_path: Path) -> None:
    cut = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
    cases: dict[str, Any] = {name: (*case, cut) for name, case in CASES.items()}
    cases["refused"] = (SAM, HARD, {"per_device_train_batch_size": 4, "perturb_over": "micro-batch"})
    pair().run("tests.support.ddp_gates", {"out": str(tmp_path), "cases": cases})
    for name, (optimizer, gate) in CASES.items():
        one = dict(trained(tmp_path / f"one-{name}", optimizer, gate).model.named_parameters())
        first, second = (load_file(tmp_path / f"{name}-{rank}.safetensors") for rank in (0, 1))
        for key, weights in first.items():
            assert torch.equal(weights, second[key]), (name, key)
            torch.testing.assert_close(weights, one[key].detach(), rtol=0, atol=1e-8, msg=f"{name} {key}")
    text = (tmp_path / "refused-0.txt").read_text()
    assert text == "a gate with scores needs perturb_over: window where several processes train."
