"""Masks whose values stand for slices of several tensors, and multiply: against autograd, in float64."""

import copy
from itertools import chain
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from tests.support.gated_steps import batches, model
from trainflat.anatomy import Slice, Unit, anatomy_of
from trainflat.core.errors import InputError
from trainflat.pruning.gates import Controller, HardConcrete, LearnedMask, Threshold, TopK, structure_units
from trainflat.pruning.gates.functions import GateFunction
from trainflat.pruning.gates.units import MaskGroup

KINDS = ("feed-forward unit", "feed-forward sub-layer", "head", "hidden dimension")


def units_of(one: nn.Module, *kinds: str) -> list[Unit]:
    anatomy = anatomy_of(one)
    return [*chain.from_iterable(anatomy.units(kind) for kind in kinds)]


def groups_of(one: nn.Module, *kinds: str) -> dict[str, MaskGroup]:
    return structure_units(units_of(one, *kinds), dict(one.named_parameters()))


def begun(one: nn.Module, function: GateFunction, *kinds: str, **options: Any) -> LearnedMask:
    """A mask in the middle of a run, with scores on both sides of the cut."""
    mask = LearnedMask(one, function, units=groups_of(one, *kinds), **options)
    mask.begin(40, seed=5)
    generator = torch.Generator().manual_seed(7)
    for score in mask.scores.values():
        score.data.add_(2 * torch.randn(score.shape, generator=generator, dtype=score.dtype))
    mask.advance(30)
    return mask


def factors_by_hand(one: nn.Module, values: dict[str, Tensor], *kinds: str) -> dict[str, Tensor]:
    """What each entry is multiplied by, one slice after the other."""
    factors = {name: torch.ones_like(p) for name, p in one.named_parameters()}
    for kind in kinds:
        layers: dict[int | None, int] = {}
        for unit in units_of(one, kind):
            number = layers[unit.layer] = layers.get(unit.layer, -1) + 1
            value = values[kind if unit.layer is None else f"{kind} {unit.layer}"][number]
            for s in unit.slices:
                factor = factors[s.tensor]
                inside = torch.zeros(factor.shape[s.axis], dtype=factor.dtype)
                inside[s.start : s.stop] = 1
                shape = [-1 if axis == s.axis else 1 for axis in range(factor.dim())]
                factors[s.tensor] = factor * (1 + (value - 1) * inside.view(shape))
    return factors


def open_values(mask: LearnedMask, scores: dict[str, Tensor]) -> dict[str, Tensor]:
    """m(S) as autograd sees it."""
    function, found = mask.function, {}
    for key, score in scores.items():
        if isinstance(function, HardConcrete):
            u = function.noise(key, score.detach(), mask.at)
            s = ((u.log() - (1 - u).log() + score) * 1.5).sigmoid()
            found[key] = (s * 1.2 - 0.1).clamp(0, 1)
        else:
            still = function.values(key, score.detach(), mask.at, torch.empty_like(score))
            found[key] = still + score - score.detach()
    return found


@pytest.mark.parametrize("kinds", [KINDS[:1], KINDS[:2], KINDS], ids=["one kind", "a product of two", "all"])
@pytest.mark.parametrize(
    "function", [HardConcrete(0.5), Threshold(0.1), TopK(0.4, refresh=1)], ids=["hard-concrete", "threshold", "top-k"]
)
def test_gradients_of_units_and_of_their_products_are_those_of_autograd(
    function: GateFunction, kinds: tuple[str, ...]
) -> None:
    ours, [batch] = model(), batches(1)
    theirs = copy.deepcopy(ours)
    schedule = {"name": "cubic", "start": 5, "hold": 5}
    mask = begun(ours, function, *kinds, schedule=schedule)
    scores = {key: s.detach().clone().requires_grad_() for key, s in mask.scores.items()}
    factors = factors_by_hand(theirs, open_values(mask, scores), *kinds)
    weights = {name: p * factors[name] for name, p in theirs.named_parameters()}
    functional_call(theirs, weights, kwargs=batch).loss.backward()
    before = {name: p.detach().clone() for name, p in ours.named_parameters()}
    with mask.passes():
        for name, p in ours.named_parameters():
            torch.testing.assert_close(p.detach(), weights[name].detach(), rtol=1e-13, atol=0)
        ours(**batch).loss.backward()
    assert all(torch.equal(p, before[name]) for name, p in ours.named_parameters())
    assert any(factor.dim() == 1 and (factor != 1).any() for factor in factors.values())  # biases among them
    for name, p in theirs.named_parameters():
        torch.testing.assert_close(dict(ours.named_parameters())[name].grad, p.grad, rtol=1e-9, atol=1e-15)
    moved = {key.rstrip(" 0123456789") for key, score in scores.items() if score.grad is not None and score.grad.any()}
    assert moved == set(kinds)
    for key, score in scores.items():
        torch.testing.assert_close(mask.scores[key].grad, score.grad, rtol=1e-9, atol=1e-15)


def test_a_unit_that_is_dropped_is_gone_from_all_its_tensors() -> None:
    one = model()
    function = HardConcrete(2.0)
    schedule = {"name": "cubic", "start": 2, "hold": 5}
    groups = groups_of(one, "feed-forward unit")
    mask = LearnedMask(one, function, Controller(function, 0.5), units=groups, schedule=schedule, score_lr=0.3)
    mask.begin(40)
    optimizer = torch.optim.AdamW(
        [{"params": one.parameters()}, {"params": mask.scores.values(), **mask.score_group()}], lr=1e-3
    )
    for step, batch in enumerate(batches(40)):
        optimizer.zero_grad()
        with mask.passes():
            one(**batch).loss.backward()
        optimizer.step()
        mask.advance(step + 1)
    state = mask.state_dict()
    again = LearnedMask(one, function, Controller(function, 0.5), units=groups, schedule=schedule)
    again.begin(40, state=state, step=40)
    assert again.masks() == mask.masks() and again.settled
    masks = mask.finish()
    units = units_of(one, "feed-forward unit")
    tensors = dict(one.named_parameters())
    gone = 0
    for unit in units:
        parts = [tensors[s.tensor].narrow(s.axis, s.start, s.stop - s.start) for s in unit.slices]
        kept = [masks[s.tensor].narrow(s.axis, s.start, s.stop - s.start) for s in unit.slices]
        assert len(parts) == 3 and len({bool(k.all()) for k in kept}) == len({bool(k.any()) for k in kept}) == 1
        assert all(bool(k.any()) == bool(part.any()) for k, part in zip(kept, parts, strict=True))
        gone += not kept[0].any()
    assert gone == pytest.approx(len(units) / 2, abs=1)


def test_parts_of_a_fused_matrix_and_places_in_no_unit() -> None:
    """Two ranges of rows belong to one unit; what lies in none is left alone."""
    fused = nn.Linear(2, 6, bias=False).double()
    units = [Unit("head", 0, i, (Slice("weight", 0, i, i + 1), Slice("weight", 0, 3 + i, 4 + i)), ()) for i in range(2)]
    mask = LearnedMask(fused, Threshold(0.1), units=structure_units(units, dict(fused.named_parameters())))
    mask.begin(10)
    mask.scores["head 0"].data.copy_(torch.tensor([-5.0, 1.0]))
    with mask.passes():
        assert [bool(row.any()) for row in fused.weight] == [False, True, True, False, True, True]
        (fused(torch.ones(1, 2).double()) * torch.arange(6)).sum().backward()
    rows = fused.weight.detach().sum(1) * torch.arange(6)
    torch.testing.assert_close(mask.scores["head 0"].grad, torch.stack([rows[0] + rows[3], rows[1] + rows[4]]))


def test_a_mask_on_a_tensor_that_is_not_there_is_refused() -> None:
    groups = {"heads": MaskGroup((2,), {"nowhere.weight": ()})}
    with pytest.raises(InputError, match=r"there is no nowhere\.weight in Linear"):
        LearnedMask(nn.Linear(2, 2), Threshold(0.1), units=groups)
