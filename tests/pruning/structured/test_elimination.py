"""Backward elimination against solving anew for every candidate at every step."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from trainflat.pruning.structured.elimination import eliminate


def drawn(columns: int, outputs: int, seed: int) -> tuple[Tensor, Tensor]:
    draws = torch.Generator().manual_seed(seed)
    mixed = torch.randn(columns, columns, generator=draws).double()
    x = torch.randn(3 * columns, columns, generator=draws).double() @ mixed
    return x, torch.randn(3 * columns, outputs, generator=draws).double()


def error(x: Tensor, t: Tensor, columns: list[int]) -> float:
    solved = torch.linalg.lstsq(x[:, columns], t).solution if columns else t.new_zeros(0, t.shape[1])
    return float((x[:, columns] @ solved - t).square().sum())


def check(groups: int, size: int, outputs: int, seed: int, steps: int) -> None:
    x, t = drawn(groups * size, outputs, seed)
    hessian = x.T @ x
    order, errors = eliminate(hessian, torch.linalg.solve(hessian, x.T @ t).T, size)
    left, whole = list(range(groups)), error(x, t, list(range(groups * size)))
    for step in range(steps):
        rises = {}
        for group in left:
            kept = [c for g in left if g != group for c in range(g * size, (g + 1) * size)]
            rises[group] = error(x, t, kept) - whole
        best = min(rises, key=rises.__getitem__)
        assert int(order[step]) == best
        assert float(errors[step + 1]) == pytest.approx(rises[best], rel=1e-7, abs=1e-9 * float(t.square().sum()))
        left.remove(best)
    assert sorted(order.tolist()) == list(range(groups))
    assert float(errors[-1]) == pytest.approx(float(t.square().sum()) - whole, rel=1e-7)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(st.integers(1, 6), st.integers(1, 4), st.integers(1, 5), st.integers(0, 1000))
def test_each_step_drops_what_a_new_solution_misses_least(groups: int, size: int, outputs: int, seed: int) -> None:
    check(groups, size, outputs, seed, groups)


@pytest.mark.parametrize(("groups", "size"), [(128, 1), (70, 2)])
def test_updates_that_are_put_off_change_nothing(groups: int, size: int) -> None:
    """More columns than are put off at once: the first steps, and by the last error all the others."""
    check(groups, size, 3, 0, 3)
    x, t = drawn(groups * size, 3, 0)
    hessian = x.T @ x
    order, errors = eliminate(hessian, torch.linalg.solve(hessian, x.T @ t).T, size)
    kept = [c for g in order[-9:].tolist() for c in range(g * size, (g + 1) * size)]
    whole = error(x, t, list(range(groups * size)))
    assert float(errors[-10]) == pytest.approx(error(x, t, sorted(kept)) - whole, rel=1e-6)


def test_as_many_go_as_are_asked_for() -> None:
    x, t = drawn(6, 2, 0)
    hessian = x.T @ x
    weight = torch.linalg.solve(hessian, x.T @ t).T
    order, errors = eliminate(hessian, weight, 2, 1)
    assert order.tolist() == eliminate(hessian, weight, 2).order[:1].tolist()
    assert len(errors) == 2
    assert eliminate(hessian, weight, 2, 0).order.tolist() == []
