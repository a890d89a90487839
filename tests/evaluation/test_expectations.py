"""What is expected of answers, against predictions made by hand: invariance, direction, minimum functionality."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainflat.evaluation.checklist import EXPECTATIONS, Answers, Case, judge, with_neutral

NEG, POS = [0.8, 0.1, 0.1], [0.1, 0.1, 0.8]
NEUTRAL = [0.2, 0.7, 0.1]


def answers(*rows: Any) -> Answers:
    """Texts, or probabilities whose largest is the label; two numbers are those of not duplicate and duplicate."""
    if isinstance(rows[0], str):
        return Answers(list(rows))
    p = np.array(rows, dtype=np.float64)
    return Answers(p.argmax(axis=1).tolist(), p)


def pair(duplicate: float) -> list[float]:
    return [1 - duplicate, duplicate]


# Expectation, answers, labels, changes, and whether the case passes; None: it does not apply.
BY_HAND: list[tuple[str, Answers, Any, Any, bool | None]] = [
    # Minimum functionality: all are right.
    ("label", answers(POS, NEG), [2, 0], (), True),
    ("label", answers(POS, NEG), [2, 2], (), False),
    ("label", answers(pair(0.9), pair(0.2)), [None, 0], (), True),
    ("label", answers(pair(0.9), pair(0.6)), [None, 0], (), False),
    ("not-negative", answers(POS, NEUTRAL), (), (), True),
    ("not-negative", answers(POS, NEG), (), (), False),
    ("neutral-allowed", answers(POS), [1], (), True),
    ("neutral-allowed", answers(NEUTRAL), [1], (), True),
    ("neutral-allowed", answers(NEG), [1], (), False),
    ("neutral-allowed", answers(NEUTRAL), [0], (), False),
    ("text", answers("a cow", "In Rome."), ["cow", "Rome"], (), True),
    ("text", answers("cow and van"), ["cow"], (), False),
    ("text", answers("eat"), ["tea"], (), False),  # whose letters the published function all strips
    # Invariance: the same label, or the probability of the original's within 0.1.
    ("same", answers(POS, [0.3, 0.1, 0.6], POS), (), (), True),
    ("same", answers(POS, NEG), (), (), False),
    ("same", answers([0.46, 0.0, 0.54], [0.55, 0.0, 0.45]), (), (), True),
    ("same", answers([0.44, 0.0, 0.56], [0.55, 0.0, 0.45]), (), (), False),
    ("same", answers("Rome", "Rome"), (), (), True),
    ("same", answers("Rome", "in Rome"), (), (), False),
    ("same-but-changes", answers("Al and Ali", "Bo and Ali"), (), [None, ("Al", "Bo")], True),
    ("same-but-changes", answers("Al", "Al"), (), [None, ("Al", "Bo")], False),
    ("same-but-changes", answers("the US\\1", "the US\\1"), (), (), True),
    ("same-but-changes", answers("two", "\\1"), (), [None, ("two", "\\1")], True),
    # Direction: p of the original's label, with a tolerance of 0.1; not where it cannot fail, or was neutral.
    ("more-confident", answers(POS, [0.1, 0.2, 0.71]), (), (), True),
    ("more-confident", answers(POS, [0.1, 0.2, 0.69]), (), (), False),
    ("more-confident", answers(POS, POS, NEG), (), (), False),
    ("more-confident", answers(NEUTRAL, NEG), (), (), None),
    ("less-confident", answers(POS, [0.05, 0.06, 0.89]), (), (), True),
    ("less-confident", answers(POS, [0.05, 0.04, 0.91]), (), (), False),
    ("less-confident", answers([0.02, 0.03, 0.95], POS), (), (), None),
    ("less-confident", answers(NEUTRAL, NEG), (), (), None),
    ("more-positive", answers(NEG, POS), (), (), True),
    ("more-positive", answers([0.5, 0.0, 0.5], [0.54, 0.0, 0.46]), (), (), True),
    ("more-positive", answers([0.5, 0.0, 0.5], [0.56, 0.0, 0.44]), (), (), False),
    ("more-positive", answers(NEUTRAL, [0.35, 0.6, 0.05]), (), (), False),  # by both ends, whatever the label
    ("less-positive", answers(POS, NEG), (), (), True),
    ("less-positive", answers([0.5, 0.0, 0.5], [0.44, 0.0, 0.56]), (), (), False),
    # Only pairs that were answered duplicate are changed.
    ("no-longer-duplicate", answers(pair(0.9), pair(0.1), pair(0.4)), (), (), True),
    ("no-longer-duplicate", answers(pair(0.9), pair(0.1), pair(0.6)), (), (), False),
    ("no-longer-duplicate", answers(pair(0.3), pair(0.9)), (), (), None),
    ("implied", answers(pair(1), pair(1), pair(1)), (), (), True),
    ("implied", answers(pair(1), pair(1), pair(0)), (), (), False),
    ("implied", answers(pair(1), pair(0), pair(0)), (), (), True),
    ("implied", answers(pair(0), pair(1), pair(1)), (), (), False),
    ("implied", answers(pair(0), pair(0), pair(1)), (), (), None),
]


@pytest.mark.parametrize(("name", "given", "labels", "changes", "passes"), BY_HAND)
def test_by_hand(name: str, given: Answers, labels: Any, changes: Any, passes: bool | None) -> None:
    assert EXPECTATIONS[name].judge(given, labels, changes) is passes


def test_every_expectation_has_a_case_that_passes_and_one_that_fails() -> None:
    told = {(name, passes) for name, *_, passes in BY_HAND}
    assert told >= {(name, passes) for name in EXPECTATIONS for passes in (True, False)}


probabilities = st.lists(st.floats(0, 1), min_size=1, max_size=20).map(np.array)


@given(probabilities)
def test_two_classes_become_three(positive: np.ndarray) -> None:
    found = with_neutral(positive)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    assert (found >= 0).all()
    inside = (abs(positive - 0.5) < 1 / 6 - 1e-12) | (found.argmax(axis=1) == 1)
    for p, row, neutral in zip(positive, found, inside, strict=True):
        assert (row.argmax() == 1) == neutral
        if neutral:
            assert row[1] == pytest.approx(1 - 3 * abs(p - 0.5)) and row[1] > 0.5
        else:
            assert row.tolist() == [1 - p, 0, p]


def case(test: str, examples: int = 1, **more: Any) -> Case:
    values = {"capability": "C", "type": "MFT", "expect": "not-negative", "examples": ["x"] * examples}
    return Case(test=test, **(values | more))


def test_tests_are_judged_apart_and_what_does_not_apply_is_marked() -> None:
    cases = [case("a"), case("a"), case("b", 2, type="DIR", expect="less-confident", capability="D"), case("a")]
    found = judge(cases, [answers(POS), answers(NEG), answers([0.0, 0.0, 1.0], POS), answers(NEG)])
    assert [(test.name, test.capability, test.type, test.failures) for test in found] == [
        ("a", "C", "MFT", [False, True, True]),
        ("b", "D", "DIR", [None]),
    ]
    assert found[0].left_out == ""
