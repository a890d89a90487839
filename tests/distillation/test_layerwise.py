"""Losses between layers and their matchings: by hand, against slow references, and for any input."""

import math
from itertools import combinations
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.support.teachers import drawn
from trainflat.core.errors import InputError
from trainflat.distillation import Layerwise, LayerwiseLoss, Shape, layerwise_loss, state_losses
from trainflat.distillation.matching import draw_layers, nearest, ordered, same_depth

ROWS, TOKENS = 3, 4
MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0]])


def test_the_loss_of_two_layers_by_hand() -> None:
    student = torch.tensor([[[1.0, 2.0], [0.0, 0.0], [9.0, 9.0]], [[1.0, 1.0], [9.0, 9.0], [9.0, 9.0]]]).double()
    tokens = torch.tensor([[1, 1, 0], [1, 0, 0]])
    assert state_losses(student, torch.zeros_like(student), tokens).tolist() == [1.25, 1.0]
    assert state_losses(student, torch.zeros_like(student)).tolist() == [(5 + 162) / 6, (2 + 324) / 6]
    mean = state_losses(student, torch.zeros_like(student)).mean()
    assert float(mean) == pytest.approx(float(student.square().mean()))  # CoFi's, with padding
    assert state_losses(student.half(), student.half(), tokens).dtype == torch.float32
    assert state_losses(student, student * 0, torch.zeros(2, 3)).tolist() == [0, 0]  # a row of padding alone


@given(st.integers(0, 5), st.integers(0, 2**16))
@settings(max_examples=40, deadline=None)
def test_padding_further_changes_no_loss(more: int, seed: int) -> None:
    student, teacher = drawn(ROWS, TOKENS + more, 5, seed=seed), drawn(ROWS, TOKENS + more, 5, seed=seed + 1)
    tokens = torch.cat([MASK, torch.zeros(ROWS, more)], 1)
    short = state_losses(student[:, :TOKENS], teacher[:, :TOKENS], MASK)
    torch.testing.assert_close(state_losses(student, teacher, tokens), short, rtol=1e-13, atol=0)


# Matchings

tables = st.integers(1, 6).flatmap(
    lambda depth: st.lists(st.lists(st.integers(0, 9), min_size=depth, max_size=depth), min_size=1, max_size=4)
)


@given(tables, st.data())
@settings(max_examples=200, deadline=None)
def test_ordered_is_the_first_of_all_assignments(table: list[list[int]], data: Any) -> None:
    """Of all strictly increasing ones with alive layers, that which is best for the last teacher layer, and so on."""
    alive = data.draw(st.lists(st.booleans(), min_size=len(table[0]), max_size=len(table[0])))
    found, columns = ordered(table, alive), [number for number, lives in enumerate(alive) if lives]
    matched = min(len(table), len(columns))
    places = range(len(table) - matched, len(table))
    assert sorted(found) == list(places)
    numbers = [found[place] for place in places]
    assert numbers == sorted(set(numbers)) and all(alive[number - 1] for number in numbers)
    best = min(
        combinations(columns, matched),
        key=lambda chosen: [(table[place][column], column) for place, column in zip(places, chosen, strict=True)][::-1],
    )
    assert numbers == [column + 1 for column in best]


def plain_greedy(table: list[list[float]], alive: list[bool]) -> dict[int, int] | None:
    """Version 4 of CoFi's code with its bugs taken out; None where it leaves a teacher layer without a student."""
    found, before = {}, len(table[0])
    for place in reversed(range(len(table))):
        left = [column for column in range(before) if alive[column]]
        if not left:
            return None
        before = min(left, key=lambda column: (table[place][column], column))
        found[place] = before + 1
    return found


@given(tables, st.data())
@settings(max_examples=200, deadline=None)
def test_ordered_is_the_published_choice_where_that_finds_one(table: list[list[float]], data: Any) -> None:
    alive = data.draw(st.lists(st.booleans(), min_size=len(table[0]), max_size=len(table[0])))
    published = plain_greedy(table, alive)
    assume(published is not None)
    assert ordered(table, alive) == published


def test_ordered_leaves_room_below() -> None:
    table = [[5.0, 1.0, 9.0], [0.0, 3.0, 7.0]]
    assert ordered(table, [True] * 3) == {1: 2, 0: 1}  # the nearest to the last one is layer 1, with nothing below it
    assert ordered(table, [True, False, True]) == {1: 3, 0: 1}
    assert ordered(table, [False, False, True]) == {1: 3}  # the last teacher layer
    assert ordered(table, [False] * 3) == {}


def test_nearest_looks_at_every_layer() -> None:
    assert nearest([[3.0, 1.0, 1.0], [0.0, 3.0, 7.0]]) == {0: 2, 1: 1}


def test_default_layers_and_those_at_the_same_depth() -> None:
    chosen = {depth: Layerwise().layers_of(depth) for depth in (12, 24, 6, 3, 1)}
    assert chosen == {12: [3, 6, 9, 12], 24: [6, 12, 18, 24], 6: [2, 3, 5, 6], 3: [1, 2, 3], 1: [1]}
    assert [same_depth(layer, 12, 12) for layer in range(13)] == list(range(13))
    assert [same_depth(layer, 6, 12) for layer in (0, 1, 6)] == [0, 2, 12]


def test_windows_are_drawn_once_per_step() -> None:
    drawn = [draw_layers([3, 6, 9, 12], 7, step) for step in range(2000)]
    assert drawn[:5] == [draw_layers([3, 6, 9, 12], 7, step) for step in range(5)]
    assert drawn != [draw_layers([3, 6, 9, 12], 8, step) for step in range(2000)]
    assert {first for first, *_ in drawn} == {3}
    for place, window in enumerate([{4, 5, 6}, {7, 8, 9}, {10, 11, 12}], start=1):
        counts = [sum(one[place] == layer for one in drawn) for layer in sorted(window)]
        assert sum(counts) == 2000
        assert all(abs(count - 2000 / 3) < 4.5 * math.sqrt(2000 * 2 / 9) for count in counts)


# The loss as a whole


def slow(
    options: Layerwise, loss: LayerwiseLoss, students: list[Tensor], teachers: list[Tensor], alive: list[bool]
) -> list[float]:
    """Loops over rows, tokens and dimensions, in Python's floats."""
    linears = [(one.weight.tolist(), one.bias.tolist()) for one in loss.maps.linears]

    def distance(row: int, place: int, number: int) -> float:
        total, count = 0.0, 0
        for token in range(TOKENS):
            if options.padding == "exclude" and not MASK[row, token]:
                continue
            state = students[number][row, token].tolist()
            if linears:
                weight, bias = linears[place % len(linears)]
                state = [
                    sum(w * x for w, x in zip(ws, state, strict=True)) + b for ws, b in zip(weight, bias, strict=True)
                ]
            wanted = teachers[place][row, token].tolist()
            total += sum((x - y) ** 2 for x, y in zip(state, wanted, strict=True)) / len(wanted)
            count += 1
        return total / count

    depth, places = len(students) - 1, range(len(teachers))
    means = [[sum(distance(r, p, n) for r in range(ROWS)) / ROWS for n in range(1, depth + 1)] for p in places]
    living = [number for number in range(1, depth + 1) if alive[number - 1]]
    if options.matching == "nearest":
        match = {p: 1 + means[p].index(min(means[p])) for p in places}
    elif options.matching == "fixed":
        at = {p: math.ceil(layer * depth / loss.teacher.depth) for p, layer in enumerate(loss.chosen)}
        match = {p: number for p, number in at.items() if number == 0 or alive[number - 1]}
    else:
        last = list(places)[-len(living) :]
        every = combinations(living, len(last))
        best = min(every, key=lambda chosen: [means[p][n - 1] for p, n in zip(last, chosen, strict=True)][::-1])
        match = dict(zip(last, best, strict=True))
    return [sum(distance(row, place, number) for place, number in match.items()) for row in range(ROWS)]


def filled(options: Layerwise, student: Shape, teacher: Shape, seed: int = 0) -> LayerwiseLoss:
    """With maps that are no longer the identity."""
    loss = LayerwiseLoss(options, student, teacher, torch.zeros(1, dtype=torch.float64))
    for k, p in enumerate(loss.parameters()):
        p.data += drawn(*p.shape, seed=seed + k, scale=0.3)
    return loss


def states(depth: int, width: int, seed: int) -> list[Tensor]:
    return [drawn(ROWS, TOKENS, width, seed=seed + layer).requires_grad_() for layer in range(depth + 1)]


MATCHINGS = ("nearest", "ordered", "fixed", "random-windows")
ALIVE = {"all": [True] * 5, "some": [True, False, True, True, False], "fewer": [False, True, False, False, True]}


@pytest.mark.parametrize("matching", MATCHINGS)
@pytest.mark.parametrize("alive", ALIVE.values(), ids=ALIVE.keys())
@pytest.mark.parametrize(
    ("padding", "kind"), [("exclude", "shared"), ("include", "separate"), ("exclude", "none"), ("include", "shared")]
)
def test_the_sum_over_layers_against_a_slow_reference(
    matching: str, alive: list[bool], padding: str, kind: str
) -> None:
    wide = 5 if kind == "none" else 7
    options = Layerwise(matching=matching, padding=padding, map=kind, teacher_layers=[2, 4, 6])
    loss = filled(options, Shape(5, 5), Shape(6, wide))
    students, hidden = states(5, 5, seed=100), states(6, wide, seed=200)
    teachers = [hidden[layer] for layer in loss.layers(11, 2)]
    found, match = loss(students, teachers, alive, MASK)
    assert found.tolist() == pytest.approx(slow(options, loss, students, teachers, alive), rel=1e-12)
    found.sum().backward()
    assert {n for n, state in enumerate(students) if state.grad is not None} == set(match.values())


def test_embeddings_are_matched_by_fixed_alone() -> None:
    options = Layerwise(matching="fixed", teacher_layers=[0, 3, 6], map="separate")
    loss = filled(options, Shape(3, 5), Shape(6, 5))
    students, hidden = states(3, 5, seed=1), states(6, 5, seed=9)
    teachers = [hidden[layer] for layer in loss.layers()]
    found, match = loss(students, teachers, [True, True, True], MASK)
    assert match == {0: 0, 1: 2, 2: 3}
    assert found.tolist() == pytest.approx(slow(options, loss, students, teachers, [True] * 3), rel=1e-12)
    with pytest.raises(InputError, match="names 0, the embeddings, which matching ordered does not compare"):
        Layerwise(teacher_layers=[0, 3])


@pytest.mark.parametrize("kind", ["shared", "separate"])
def test_gradients_of_states_and_maps(kind: str) -> None:
    loss = filled(Layerwise(matching="ordered", map=kind, teacher_layers=[1, 3]), Shape(3, 3), Shape(3, 4))
    students, hidden = states(3, 3, seed=4), [one.detach() for one in states(3, 4, seed=8)]
    parameters = list(loss.parameters())

    def total(*_: Tensor) -> Tensor:
        return loss(students, [hidden[1], hidden[3]], [True] * 3, MASK)[0].sum()

    assert torch.autograd.gradcheck(total, (*students, *parameters))


def test_maps_begin_as_the_identity() -> None:
    like = torch.zeros(1, dtype=torch.float64)
    before = torch.get_rng_state()
    for student, teacher in ((4, 4), (3, 5), (5, 3)):
        loss = LayerwiseLoss(Layerwise(), Shape(2, student), Shape(2, teacher), like)
        state = drawn(ROWS, TOKENS, student)
        both, mapped = min(student, teacher), loss.maps(state, 0)
        assert torch.equal(mapped[..., :both], state[..., :both]) and not mapped[..., both:].any()
    assert torch.equal(torch.get_rng_state(), before)  # dropout draws what it would without


def test_nothing_alive_is_no_loss() -> None:
    loss = filled(Layerwise(), Shape(2, 4), Shape(2, 4))
    found, match = loss(states(2, 4, seed=0), states(2, 4, seed=3)[1:], [False, False], MASK)
    assert match == {} and found.tolist() == [0, 0, 0]


def test_the_function_alone() -> None:
    students, teachers = states(4, 5, seed=0)[1:], states(2, 5, seed=50)[1:]
    table = [[state_losses(s, t, MASK).mean().item() for s in students] for t in teachers]
    wanted = sum(table[place][number - 1] for place, number in ordered(table, [True] * 4).items())
    assert layerwise_loss(students, teachers, tokens_BT=MASK).item() == pytest.approx(wanted, rel=1e-12)
    near = layerwise_loss(students, teachers, "nearest", tokens_BT=MASK)
    assert near.item() == pytest.approx(sum(map(min, table)), rel=1e-12)
    assert layerwise_loss(students, teachers, alive=[False] * 4).item() == 0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"weight": 1.2}, r"weight is the layers' share of the loss, in \[0, 1\], got 1.2"),
        ({"teacher_layers": [3, 3]}, r"teacher_layers are ascending numbers of layers, .*, got \[3, 3\]"),
        ({"teacher_layers": []}, "ascending numbers of layers"),
        ({"teacher_layers": 3}, "ascending numbers of layers"),
        ({"teacher_layers": [-1, 2]}, "ascending numbers of layers"),
        ({"matching": "closest"}, "no matching is called 'closest'"),
        ({"padding": "leave"}, "no padding is called 'leave'"),
        ({"map": True}, "map is shared or separate or none, got"),
    ],
)
def test_options_that_cannot_be_used(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Layerwise(**given)


def test_teachers_that_do_not_fit() -> None:
    with pytest.raises(InputError, match=r"teacher_layers are \[3, 12\], and the teacher has 6 layers"):
        Layerwise(teacher_layers=[3, 12]).check_shapes(Shape(6, 8), Shape(6, 8))
    with pytest.raises(InputError, match=r"hidden states have width 8, the student's 6. Learn a map"):
        Layerwise(map="none").check_shapes(Shape(6, 6), Shape(6, 8))
    Layerwise().check_shapes(Shape(6, 6), Shape(6, 8))
