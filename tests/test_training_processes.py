"""Two processes take the steps of one."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.test_training_trajectory import ADAMW, SAM, trained

ROOT = Path(__file__).resolve().parents[1]


def run_on_two_processes(module: str, given: str) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    command += ["-m", module, given]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": f"{ROOT}/src:{ROOT}"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def on_two_processes(out: Path, recipe: dict[str, Any], **options: Any) -> list[dict[str, torch.Tensor]]:
    run_on_two_processes("tests.ddp_training", json.dumps({"out": str(out), "recipe": recipe, **options}))
    assert json.loads((out / "rank0.json").read_text())["processes"] == 2
    return [load_file(out / f"rank{rank}.safetensors") for rank in (0, 1)]


CASES = {
    "adamw": (ADAMW, {"per_device_train_batch_size": 4}, {}),
    "sam-synchronised": (SAM, {"per_device_train_batch_size": 4, "sync_perturbation": True}, {}),
    "sam-synchronised-window-masked": (
        SAM,
        {
            "per_device_train_batch_size": 2,
            "gradient_accumulation_steps": 2,
            "sync_perturbation": True,
            "sparsity": 0.6,
        },
        {"masks": 0.6},
    ),
}


# The masked window holds what the plain case does; `make test-all` takes both.
_SLOW = {"sam-synchronised": pytest.mark.slow}


@pytest.mark.parametrize("case", [pytest.param(c, id=name, marks=_SLOW.get(name, ())) for name, c in CASES.items()])
def test_two_processes_take_the_steps_of_one(tmp_path: Path, case: Any) -> None:
    recipe, options, alone = case
    ranks = on_two_processes(tmp_path, recipe, **options)
    one = dict(trained(tmp_path / "one", recipe, **alone).model.named_parameters())
    for name, weights in ranks[0].items():
        assert torch.equal(weights, ranks[1][name])
        torch.testing.assert_close(weights, one[name].detach(), rtol=0, atol=1e-10)


def test_local_perturbation_is_m_sharpness(tmp_path: Path) -> None:
    """Each process at its own displaced weights is the micro-batch form of one process."""
    recipe = {"name": "sam", "base": "sgd", "lr": 0.1, "rho": 0.5}
    settings = {"max_grad_norm": 0.0, "lr_scheduler_type": "constant"}
    ranks = on_two_processes(tmp_path, recipe, per_device_train_batch_size=4, **settings)
    cut = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}
    micro = trained(tmp_path / "one", recipe, perturb_over="micro-batch", **cut, **settings)
    window = trained(tmp_path / "two", recipe, **cut, **settings)
    differs = 0.0
    for name, weights in ranks[0].items():
        torch.testing.assert_close(weights, dict(micro.model.named_parameters())[name].detach(), rtol=0, atol=1e-10)
        differs = max(differs, float((weights - dict(window.model.named_parameters())[name].detach()).abs().max()))
    assert differs > 1e-4
