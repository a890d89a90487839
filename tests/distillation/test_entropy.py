"""How sure a student is, and a loss that weighs every row by it, against their formulas."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.support.teachers import drawn
from trainflat.core.errors import InputError
from trainflat.distillation import (
    Distillation,
    certainties,
    check_renewal,
    logit_losses,
    read_distillation,
    span_certainties,
)


def slow_certainty(logits: list[float]) -> float:
    """Number by number: 1 - H / log C."""
    p = [math.exp(z - max(logits)) for z in logits]
    p = [x / sum(p) for x in p]
    return 1 + sum(x * math.log(x) for x in p if x) / math.log(len(p))


def test_every_row_is_the_formula_of_the_published_code() -> None:
    for classes in (2, 3, 50):
        logits = drawn(6, classes)
        slow = torch.tensor([slow_certainty(row) for row in logits.tolist()], dtype=torch.float64)
        torch.testing.assert_close(certainties(logits), slow, rtol=1e-12, atol=1e-14)


@given(st.lists(st.floats(-80, 80), min_size=2, max_size=6), st.floats(-50, 50), st.floats(1, 4))
@settings(max_examples=80, deadline=None)
def test_a_share_blind_to_shifts_and_order_that_grows_with_the_margin(
    logits: list[float], shift: float, sharper: float
) -> None:
    row = torch.tensor([logits], dtype=torch.float64)
    sure = certainties(row)
    assert 0 <= sure.item() <= 1
    torch.testing.assert_close(certainties(row + shift), sure, rtol=0, atol=1e-9)
    torch.testing.assert_close(certainties(row.flip(-1)), sure, rtol=0, atol=1e-12)
    assert certainties(sharper * row).item() >= sure.item() - 1e-12


def test_the_ends_are_exact_and_halves_are_widened() -> None:
    assert certainties(torch.tensor([[2.0, 2.0, 2.0], [900.0, 0.0, 0.0]])).tolist() == [pytest.approx(0, abs=1e-6), 1]
    halves = drawn(4, 300).bfloat16()
    torch.testing.assert_close(certainties(halves), certainties(halves.float()), rtol=0, atol=0)


def test_spans_are_the_mean_of_both_ends_over_the_tokens_alone() -> None:
    ends, lengths = (drawn(4, 6), drawn(4, 6, seed=1)), [6, 4, 2, 1]
    tokens = torch.tensor([[1] * n + [0] * (6 - n) for n in lengths])
    slow = [sum(slow_certainty(end[k, :n].tolist()) if n > 1 else 1 for end in ends) / 2 for k, n in enumerate(lengths)]
    found = span_certainties(ends, tokens)
    torch.testing.assert_close(found, torch.tensor(slow, dtype=torch.float64), rtol=1e-12, atol=1e-14)
    further = tuple(torch.cat([end, 100 + drawn(4, 3)], -1) for end in ends)
    padded = torch.cat([tokens, torch.zeros(4, 3, dtype=torch.long)], -1)
    torch.testing.assert_close(span_certainties(further, padded), found, rtol=0, atol=0)
    torch.testing.assert_close(span_certainties(ends), span_certainties(ends, torch.ones(4, 6)))


def test_the_gradient_has_the_weight_as_a_constant() -> None:
    """a T (softmax(z / T) - softmax(t / T)) + (1 - a) (softmax(z) - y), row by row, with a = 1 - H / log C."""
    student, teacher, temperature = drawn(5, 3).requires_grad_(), drawn(5, 3, seed=1), 2.0
    labels = torch.tensor([0, 1, 2, 0, 1])
    how = Distillation("entropy", temperature)
    task = torch.nn.functional.cross_entropy(student, labels, reduction="none")
    how.blend(task, how.losses((student,), (teacher,)), (student,)).sum().backward()
    z, share = student.detach(), certainties(student)[:, None]
    assert not share.requires_grad and 0.05 < share.min() < share.max() < 0.95
    apart = temperature * (torch.softmax(z / temperature, -1) - torch.softmax(teacher / temperature, -1))
    wrong = torch.softmax(z, -1) - torch.nn.functional.one_hot(labels, 3)
    torch.testing.assert_close(student.grad, share * apart + (1 - share) * wrong, rtol=1e-12, atol=1e-14)


def test_who_wavers_learns_the_labels_and_who_is_sure_the_teacher() -> None:
    student, teacher = torch.tensor([[1.0, 1.0], [300.0, 0.0]]), torch.tensor([[2.0, 0.0], [2.0, 0.0]])
    how, task = Distillation("entropy"), torch.tensor([7.0, 9.0])
    taught = how.losses((student,), (teacher,))
    assert torch.equal(taught, logit_losses(student, teacher))
    assert torch.equal(how.blend(task, taught, (student,)), torch.stack([task[0], taught[1]]))


def test_a_weight_by_row_needs_rows() -> None:
    numbers: list[tuple[Tensor, ...]] = [(), (torch.zeros(2, 1),)]
    for student in numbers:
        with pytest.raises(InputError, match="weight entropy needs the student's logits"):
            Distillation("entropy").blend(torch.zeros(2), torch.zeros(2), student)


def test_options_are_completed_and_those_unused_leave_no_trace() -> None:
    base = {"teacher": "t", "weight": "entropy", "temperature": 2.0}
    assert read_distillation({"teacher": "t", "weight": "entropy"}).dump() == base
    assert read_distillation({"teacher": "t", "weight": "entropy", "renew": None}).dump() == base
    assert read_distillation({"teacher": "t", "weight": "entropy", "renew": "best"}).dump() == base | {"renew": "best"}


@pytest.mark.parametrize("renew", ["last", True, False, 3, "", ["best"]])
def test_what_renew_may_not_be(renew: object) -> None:
    with pytest.raises(InputError, match="renew says whose weights the teacher takes on: best, or left out for none"):
        read_distillation({"teacher": "t", "renew": renew})


def test_a_renewal_needs_an_evaluation_before_the_end() -> None:
    check_renewal(12, 11)
    for every, told in {12: "the first is after 12", 40: "the first is after 40", 0: "there is none"}.items():
        with pytest.raises(InputError, match=f"before the last of 12 steps, and {told}. Evaluate more often"):
            check_renewal(12, every)
