"""Two processes take the steps of one."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.test_training_trajectory import ADAMW, SAM, trained
from tests.two_processes import on_two_processes

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
