"""The losses of distillation against their formulas, and what holds of them for any logits."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.teachers import drawn
from trainflat.core.errors import InputError, UnknownName
from trainflat.distillation import (
    Distillation,
    logit_loss,
    logit_losses,
    number_losses,
    read_distillation,
    span_losses,
)


def slow_kl(student: list[float], teacher: list[float], temperature: float) -> float:
    """Number by number, as the paper writes it."""
    q, p = ([math.exp(z / temperature) for z in logits] for logits in (student, teacher))
    q, p = ([x / sum(one) for x in one] for one in (q, p))
    return temperature**2 * sum(b * math.log(b / a) for a, b in zip(q, p, strict=True))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0, 7.0])
def test_every_row_is_the_papers_formula(temperature: float) -> None:
    student, teacher = drawn(5, 4), drawn(5, 4, seed=1)
    slow = [slow_kl(a, b, temperature) for a, b in zip(student.tolist(), teacher.tolist(), strict=True)]
    found = logit_losses(student, teacher, temperature)
    torch.testing.assert_close(found, torch.tensor(slow, dtype=torch.float64), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(logit_loss(student, teacher, temperature), found.mean())


def test_its_gradient_is_the_difference_of_the_soft_answers() -> None:
    """d/dz of T² KL is T (softmax(z / T) - softmax(t / T)), row by row."""
    student, teacher, temperature = drawn(3, 4).requires_grad_(), drawn(3, 4, seed=1), 3.0
    logit_losses(student, teacher, temperature).sum().backward()
    soft = [torch.softmax(z.detach() / temperature, -1) for z in (student, teacher)]
    torch.testing.assert_close(student.grad, temperature * (soft[0] - soft[1]), rtol=1e-12, atol=1e-14)


def test_at_a_high_temperature_logits_are_matched() -> None:
    """Section 2.1: in the limit half the squared difference of centred logits, over the number of classes."""
    student, teacher = drawn(6, 5), drawn(6, 5, seed=1)
    centred = (student - student.mean(-1, keepdim=True)) - (teacher - teacher.mean(-1, keepdim=True))
    limit = centred.square().sum(-1) / (2 * 5)
    torch.testing.assert_close(logit_losses(student, teacher, 1e5), limit, rtol=1e-3, atol=1e-4)


rows = st.lists(st.lists(st.floats(-30, 30), min_size=3, max_size=3), min_size=1, max_size=4)


@given(rows, st.integers(0, 100), st.floats(0.3, 10), st.floats(-50, 50))
@settings(max_examples=60, deadline=None)
def test_never_negative_zero_at_the_teacher_and_blind_to_a_shift(
    values: list[list[float]], seed: int, temperature: float, shift: float
) -> None:
    teacher = torch.tensor(values, dtype=torch.float64)
    student = teacher + drawn(*teacher.shape, seed=seed)
    assert (logit_losses(student, teacher, temperature) >= -1e-9).all()
    assert logit_losses(teacher + shift, teacher, temperature).abs().max() < 1e-9
    moved = logit_losses(student + shift, teacher, temperature)
    torch.testing.assert_close(moved, logit_losses(student, teacher, temperature), rtol=1e-7, atol=1e-9)


def test_spans_are_the_mean_of_both_ends_over_the_tokens_alone() -> None:
    students, teachers = (drawn(3, 6), drawn(3, 6, seed=1)), (drawn(3, 6, seed=2), drawn(3, 6, seed=3))
    tokens = torch.ones(3, 6)
    tokens[1, 4:] = tokens[2, 2:] = 0
    found = span_losses(students, teachers, 2.0, tokens)
    slow = []
    for row, length in enumerate([6, 4, 2]):
        ends = zip(students, teachers, strict=True)
        slow.append(sum(slow_kl(s[row, :length].tolist(), t[row, :length].tolist(), 2.0) for s, t in ends) / 2)
    torch.testing.assert_close(found, torch.tensor(slow, dtype=torch.float64), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(
        span_losses(students, teachers, 2.0), span_losses(students, teachers, 2.0, torch.ones(3, 6))
    )


def test_padding_has_no_gradient_and_does_not_matter() -> None:
    students, teachers = (drawn(2, 5), drawn(2, 5, seed=1)), (drawn(2, 5, seed=2), drawn(2, 5, seed=3))
    tokens = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 0, 0, 0]])
    student = students[0].requires_grad_()
    loss = span_losses((student, students[1]), teachers, 2.0, tokens)
    loss.sum().backward()
    assert (student.grad[tokens == 0] == 0).all()
    assert torch.isfinite(student.grad).all()
    further = [torch.cat([z.detach(), 100 + drawn(2, 3)], -1) for z in (*students, *teachers)]
    padded = torch.cat([tokens, torch.zeros(2, 3, dtype=torch.long)], -1)
    torch.testing.assert_close(span_losses(tuple(further[:2]), tuple(further[2:]), 2.0, padded), loss.detach())


def test_numbers_are_the_squared_difference() -> None:
    assert number_losses(torch.tensor([[1.0], [2.0]]), torch.tensor([[4.0], [2.5]])).tolist() == [9.0, 0.25]


def test_halves_are_widened() -> None:
    student, teacher = (drawn(4, 3, seed=k).bfloat16() for k in (0, 1))
    found = logit_losses(student, teacher)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, logit_losses(student.float(), teacher.float()))


def test_a_blend_is_a_weighted_mean_and_its_parts_at_the_ends() -> None:
    task, taught = torch.tensor(3.0), torch.tensor(1.0)
    assert [Distillation(weight=w).blend(task, taught).item() for w in (0, 0.25, 1)] == [3.0, 2.5, 1.0]


def test_the_kind_of_answer_is_told_by_its_shape() -> None:
    how, one, other = Distillation(temperature=3.0), drawn(4, 3), drawn(4, 3, seed=1)
    assert torch.equal(how.losses((one,), (other,)), logit_losses(one, other, 3.0))
    assert torch.equal(how.losses((one[:, :1],), (other[:, :1],)), number_losses(one[:, :1], other[:, :1]))
    assert torch.equal(how.losses((one, other), (other, one)), span_losses((one, other), (other, one), 3.0))


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"teacher": "t", "weight": 1.5}, r"weight is the teacher's share of the loss, in \[0, 1\], got 1.5"),
        ({"teacher": "t", "weight": -0.1}, "got -0.1"),
        ({"teacher": "t", "weight": True}, "got True"),
        ({"teacher": "t", "weight": "half"}, "got 'half'"),
        ({"teacher": "t", "weight": math.nan}, "got nan"),
        ({"teacher": "t", "temperature": 0}, "temperature of the logits is a number above 0, got 0"),
        ({"teacher": "t", "temperature": -2.0}, "got -2.0"),
        ({"teacher": "t", "temperature": math.inf}, "got inf"),
        ({"weight": 0.5}, "distillation needs a teacher"),
        ({"teacher": " "}, "distillation needs a teacher"),
    ],
)
def test_refusals(section: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_distillation(section)


def test_an_unknown_option() -> None:
    with pytest.raises(UnknownName, match="no option of distillation is called 'temprature'"):
        read_distillation({"teacher": "t", "temprature": 2})
