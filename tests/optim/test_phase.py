"""SAM on some steps only: every k-th one, or those between two shares of the training."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim import SGD, AdamW

from tests.conftest import tiny_bert
from tests.support.optimizers import bits, problem, two_passes
from tests.support.plain_loop import random_split, train
from tests.support.training import ADAMW, NO_DROPOUT, assert_same_weights, trained
from tests.support.training import SAM as RECIPE
from trainflat.core.errors import InputError
from trainflat.optim import OPTIMIZERS, SAM
from trainflat.optim.sam import Phase


def steps_of(phase: Phase, total: int) -> list[int]:
    return [step for step in range(total) if phase.includes(step, total)]


@given(st.integers(1, 9), st.integers(0, 9), st.integers(1, 10), st.integers(1, 200))
def test_a_phase_is_every_kth_step_between_its_shares(every, start, length, total):
    stop = min(start + length, 10)
    phase = Phase(every, start / 10, stop / 10)
    found = steps_of(phase, total)
    assert all(step % every == 0 and start * total <= 10 * step + 1e-9 for step in found)
    assert all(10 * step < stop * total + 1e-9 for step in found)
    assert abs(len(found) - phase.share * total) <= 1
    if every == 1 and stop < 10:  # phases that meet share no step and leave none out
        rest = Phase(1, stop / 10, 1.0)
        assert sorted([*found, *steps_of(rest, total)]) == steps_of(Phase(1, start / 10, 1.0), total)


def test_the_whole_training_needs_no_number_of_steps():
    assert steps_of(Phase(every=3), 8) == [0, 3, 6]
    assert Phase(every=3).includes(6, None)
    with pytest.raises(InputError, match=r"set optimizer\.total_steps before its first step"):
        Phase(start=0.5).includes(0, None)


def test_plain_steps_between_take_one_pass_and_are_the_bases():
    (one, first), (two, second) = problem(), problem()
    flat, calls = SAM(one.parameters(), SGD, rho=0.5, every=3, lr=0.1), []
    full = SAM(two.parameters(), SGD, rho=0.5, lr=0.1)
    for step in range(9):
        before = len(calls)
        flat.step(lambda: calls.append(1) or first())
        assert len(calls) - before == (2 if step % 3 == 0 else 1)
        if step % 3 == 0:
            two_passes(full, second)
        else:
            second()
            full.base.step()
        assert bits(one) == bits(two)
    assert len(calls) == 9 * OPTIMIZERS.read({"name": "sam", "every": 3}).average_passes


def test_a_plain_step_in_a_loop_of_ones_own():
    model, passes = problem()
    optimizer = SAM(model.parameters(), AdamW, every=2, lr=0.1)
    assert optimizer.second_pass
    two_passes(optimizer, passes)
    assert not optimizer.second_pass
    passes()
    optimizer.step()  # asks for no second gradient
    passes()
    with pytest.raises(RuntimeError, match="before a second gradient was taken"):
        optimizer.step()


def test_where_the_phase_stands_is_resumed():
    model, passes = problem()
    optimizer = SAM(model.parameters(), every=4, lr=0.1)
    for _ in range(6):
        optimizer.step(passes)
    resumed = SAM(problem()[0].parameters(), every=4, lr=0.1)
    resumed.load_state_dict(optimizer.state_dict())
    assert [resumed.steps_taken, resumed.second_pass] == [6, False]


@pytest.mark.parametrize(
    ("options", "flat_steps"),
    [({"start": 0.7}, [9, 10, 11]), ({"stop": 0.25}, [0, 1, 2]), ({"every": 5}, [0, 5, 10])],
    ids=["last phase", "first phase", "every fifth"],
)
def test_the_trainer_takes_the_phase_from_its_steps(tmp_path: Path, options, flat_steps):
    recipe = {**RECIPE, **options}
    trainer = trained(tmp_path, recipe)  # 12 steps
    by_hand = tiny_bert(**NO_DROPOUT).double()
    train(by_hand, random_split(), recipe, epochs=2, batch_size=8, seed=3)
    assert_same_weights(trainer.model, by_hand)
    logs = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert [entry["step"] - 1 for entry in logs if "perturbation" in entry] == flat_steps
    assert trainer.passes.count == 12 + len(flat_steps)
    assert logs[-1]["passes"] == trainer.passes.count


def test_until_its_phase_it_is_the_base(tmp_path: Path):
    late = trained(tmp_path, {**RECIPE, "start": 0.999}, lr_scheduler_type="constant")
    plain = trained(tmp_path, ADAMW, lr_scheduler_type="constant")
    assert_same_weights(late.model, plain.model, atol=0)
    assert late.passes.count == 12  # 0.999 of 12 steps lies behind the last


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"every": 0}, "every is a whole number >= 1, got 0"),
        ({"every": 1.5}, "every is a whole number >= 1, got 1.5"),
        ({"every": True}, "every is a whole number >= 1, got True"),
        ({"every": "often"}, "every is a whole number >= 1, got 'often'"),
        ({"every": float("inf")}, "every is a whole number >= 1, got inf"),
        ({"start": 0.7, "stop": 0.7}, "start and stop are shares with start < stop, got 0.7 and 0.7"),
        ({"start": -0.1}, "start is a share of the training, from 0 to 1, got -0.1"),
        ({"stop": 70}, "stop is a share of the training, from 0 to 1, got 70"),
        ({"start": "late"}, "start is a share of the training, from 0 to 1, got 'late'"),
    ],
    ids=str,
)
def test_values_that_do_not_fit(options, text):
    for attempt in (
        lambda: OPTIMIZERS.read({"name": "sam", **options}),
        lambda: OPTIMIZERS.read({"name": "sam", **options}).average_passes,
    ):
        with pytest.raises(InputError) as caught:
            attempt()
        assert text in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_share_without_total_steps_says_so_before_anything_moves():
    model, passes = problem()
    optimizer, before = SAM(model.parameters(), start=0.7, lr=0.1), bits(model)
    with pytest.raises(InputError, match="total_steps"):
        optimizer.step(passes)
    assert bits(model) == before
    optimizer.total_steps = 10
    optimizer.step(passes)
    assert torch.equal(optimizer.last_norm, torch.zeros(()))
