"""Two processes take the steps of one."""

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import tiny_bert
from tests.support.plain_loop import collate, random_split
from tests.support.training import ADAMW, NO_DROPOUT, SAM, trained
from tests.support.two_processes import Pair, on_two_processes
from trainflat.training import LengthGroupedSampler

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


@pytest.mark.slow
def test_torchrun_launches_them_too(tmp_path: Path) -> None:
    options = {"recipe": ADAMW, "per_device_train_batch_size": 4, "max_steps": 1}
    forked = on_two_processes(tmp_path / "forked", **options)
    with closing(Pair(torchrun=True)) as pair:
        launched = on_two_processes(tmp_path / "launched", on=pair, **options)
    for one, other in zip(forked, launched, strict=True):
        assert all(torch.equal(weights, other[name]) for name, weights in one.items())


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


def test_esam_weighs_all_rows_where_two_processes_are_to_be_one(tmp_path: Path) -> None:
    recipe = {"name": "esam", "gamma": 1.0, "lr": 1e-3, "rho": 0.05}
    ranks = on_two_processes(tmp_path, recipe, per_device_train_batch_size=4, sync_perturbation=True)
    one = dict(trained(tmp_path / "one", recipe).model.named_parameters())
    for name, weights in ranks[0].items():
        torch.testing.assert_close(weights, one[name].detach(), rtol=0, atol=1e-10)


def test_esam_chooses_among_the_rows_of_each_process(tmp_path: Path) -> None:
    """One step by hand: the share gamma of each half of the batch, where one process takes it of the whole."""
    recipe = {"name": "esam", "base": "sgd", "lr": 0.1, "rho": 0.5, "beta": 1.0, "gamma": 0.5}
    settings = {"max_grad_norm": 0.0, "lr_scheduler_type": "constant", "max_steps": 1}
    ranks = on_two_processes(tmp_path, recipe, per_device_train_batch_size=4, sync_perturbation=True, **settings)
    split, model = random_split(), tiny_bert(**NO_DROPOUT).double().train()
    order = LengthGroupedSampler(split.lengths, 8, 3).order(0)
    halves = [collate([split[i] for i in part]) for part in (order[:4], order[4:8])]
    params = list(model.parameters())

    def losses(batch: Any) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(model(**batch).logits, batch["labels"], reduction="none")

    before = [losses(batch) for batch in halves]
    first = torch.autograd.grad(torch.cat(before).mean(), params)
    move = [0.5 * g / torch.stack([g.norm() for g in first]).norm() for g in first]
    with torch.no_grad():
        torch._foreach_add_(params, move)
    after = [losses(batch) for batch in halves]
    chosen = [new[(new - old).topk(2).indices].mean() for new, old in zip(after, before, strict=True)]
    second = torch.autograd.grad(torch.stack(chosen).mean(), params)
    with torch.no_grad():
        torch._foreach_sub_(params, move)
        torch._foreach_sub_(params, second, alpha=0.1)
    for name, p in model.named_parameters():
        assert torch.equal(ranks[0][name], ranks[1][name])
        torch.testing.assert_close(ranks[0][name], p.detach(), rtol=0, atol=1e-10)
