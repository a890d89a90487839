"""Schedules: the published formula, their ends, and what they refuse."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainflat.core.errors import InputError, UnknownName
from trainflat.core.schedules import SCHEDULES, Cubic, Steps, make_schedule, section


def test_cubic_is_the_published_formula() -> None:
    """Kept share v(t) of Sanh et al. (2020), section 5, with 10 steps of warm-up and 20 of cool-down of 100."""
    v_f, t_i, t_f, total = 0.1, 10, 20, 100
    for t in range(total + 1):
        inside = v_f + (1 - v_f) * (1 - (t - t_i) / (total - t_i - t_f)) ** 3
        kept = 1.0 if t < t_i else v_f if t >= total - t_f else inside
        assert 1 - Cubic(t_i, t_f).value(t, total, 0.0, 1 - v_f) == pytest.approx(kept, abs=1e-15)


@given(
    st.sampled_from(sorted(SCHEDULES)),
    st.integers(1, 500),
    st.one_of(st.integers(0, 50), st.floats(0, 0.45)),
    st.one_of(st.integers(0, 50), st.floats(0, 0.45)),
)
def test_every_schedule_rises_from_0_to_1_and_holds_both(
    name: str, total: int, start: int | float, hold: int | float
) -> None:
    schedule = make_schedule({"name": name, "start": start, "hold": hold})
    try:
        first, last = schedule.lengths(total)
    except InputError:
        whole = [n if isinstance(n, int) else round(n * total) for n in (start, hold)]
        assert sum(whole) >= total
        return
    shares = [schedule.share(step, total) for step in range(total + 1)]
    assert shares == sorted(shares) and all(0 <= share <= 1 for share in shares)
    assert not any(shares[:first]) and set(shares[total - last :]) == {1.0}
    assert schedule.value(total, total, 0.2, 0.7) == 0.7
    curve = schedule.curve(total, 0.0, 0.9)
    assert curve[0][0] == 0 and curve[-1] == (total, 0.9)
    assert dict(curve) == {step: schedule.value(step, total, 0.0, 0.9) for step, _ in curve}
    assert vars(make_schedule(section(schedule))) == vars(schedule)


def test_shares_and_steps_say_the_same() -> None:
    assert Cubic(0.1, 0.3).lengths(200) == Cubic(20, 60).lengths(200) == (20, 60)


def test_steps_rise_at_equal_distances() -> None:
    assert [Steps(count=2, start=4, hold=2).share(step, 10) for step in range(3, 10)] == [0, 0.5, 0.5, 1, 1, 1, 1]


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ("cubbic", "no schedule is called 'cubbic'. Did you mean 'cubic'?"),
        (["cubic"], "name a schedule: cubic, linear, constant, step; such as {name: cubic}, got ['cubic']"),
        ({"start": 1}, "got {'start': 1}"),
        (None, "got None"),
        ({"name": "linear", "hodl": 1}, "no option of schedule 'linear' is called 'hodl'. Did you mean 'hold'?"),
        ({"name": "cubic", "start": -1}, "start of a schedule is a number of optimizer steps such as 500"),
        ({"name": "cubic", "hold": 1.5}, "or a share of the run in [0, 1) such as 0.1, got 1.5"),
        ({"name": "cubic", "hold": True}, "got True"),
        ({"name": "step", "count": 0}, "count of a schedule in steps is a whole number >= 1, got 0"),
    ],
)
def test_what_is_no_schedule_is_refused_in_one_line(given: object, text: str) -> None:
    with pytest.raises((InputError, UnknownName)) as caught:
        make_schedule(given)  # type: ignore[arg-type]
    assert text in str(caught.value) and "\n" not in str(caught.value)


def test_a_schedule_longer_than_the_run_is_refused() -> None:
    with pytest.raises(InputError, match="holds 5400 steps at its start and 10800 at its end, and the run has 900"):
        Cubic(5400, 10800).lengths(900)
