"""What a diagnosis makes of its numbers in words: nothing that its rows cannot tell, and signs that are right."""

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.records import ROWS, diagnosis
from trainflat.core.margins import GROUPS, Answers, Difference
from trainflat.records.diagnosis import Cut, Diagnosis, Measured
from trainflat.report.advice import advice
from trainflat.report.words import change

SUPERIOR = r"bears more than any other|is flatter than|loses less than|leave nothing of"


def made(scores: list[float], figures: list[float]) -> Diagnosis:
    """One with these 24 scores and 3 figures of flatness."""
    flat = [Measured(name="m", options={}, values=dict(zip("abc", figures, strict=True)), seconds=1.0)]
    return diagnosis(scores[0], tuple(scores[1:10]), tuple(scores[10:22]), scores[23], flatness=flat)


def superior(one: Diagnosis, other: Diagnosis) -> list[str]:
    """Sentences on two models that set one thing above another."""
    said = advice([one, other.model_copy(update={"model": "runs/b/stages/dense"})])
    return [sentence for sentence in said if re.search(SUPERIOR, sentence)]


# Of 512 rows two scores of 75 % differ by up to 5.3 points by chance, and of 128 rows two figures by a quarter.
inside = st.tuples(
    st.lists(st.floats(73, 77), min_size=24, max_size=24), st.lists(st.floats(1, 1.2), min_size=3, max_size=3)
)


@settings(max_examples=200, deadline=None)
@given(inside, inside)
def test_nothing_is_superior_where_all_differences_lie_inside_the_noise(one: Any, other: Any):
    assert superior(made(*one), made(*other)) == []
    assert all("between" in sentence for sentence in advice([made(*one)]))


def test_chance_alone_makes_sentences_no_more_often_than_margins_say():
    draw = np.random.default_rng(0)

    def drawn() -> Diagnosis:
        scores = (100 * draw.binomial(ROWS, 0.75, 24) / ROWS).tolist()
        return made(scores, (1 + draw.normal(0, 0.05, 3)).tolist())

    assert sum(bool(superior(drawn(), drawn())) for _ in range(300)) <= 20


def test_a_layer_that_another_equals_is_not_singled_out_and_one_far_from_all_is():
    assert not any("bears more" in said for said in advice([diagnosis(layers=(60.0, 60.0, 74.0, 74.0))]))
    assert not any("bears more" in said for said in advice([diagnosis(layers=(60.0, 60.4, 74.0, 74.0))]))
    (said,) = [each for each in advice([diagnosis(layers=(40.0, 74.0, 73.0, 72.0))]) if "bears more" in each]
    assert "layer 0 alone at 80 % costs 35.0 points (between 29.3 and 40.7), the median layer 2.5." in said


def test_pairs_of_rows_tell_what_their_number_does_not():
    def cut(score: float, groups: int) -> Cut:
        """Loses its rows in so many groups alike."""
        lost = 75.0 - score
        without = [75.0 - lost * (1 - (k < groups) / groups) for k in range(GROUPS)]
        return Cut(sparsity=0.8, score=score, without=without)

    pairs = {"sampled": [75.0] * GROUPS}
    steady, shaky = diagnosis(without=pairs).lost(cut(72.0, 20)), diagnosis(without=pairs).lost(cut(72.0, 1))
    assert steady.significant and not shaky.significant
    assert not diagnosis().lost(Cut(sparsity=0.8, score=72.0)).significant


CHANGES = {
    (1.24, 0.3, 2.1): "costs 1.2 points (between 0.3 and 2.1)",
    (-0.4, -0.7, -0.1): "gains 0.4 points (between 0.1 and 0.7)",
    (-0.4, -1.2, 0.4): "gains 0.4 points (between -0.4 and 1.2), not significant on 300 rows",
    (0.4, -0.4, 1.2): "costs 0.4 points (between -0.4 and 1.2), not significant on 300 rows",
    (0.0, -0.3, 0.3): "leaves the score where it is (between -0.3 and 0.3 points less)",
    (-0.04, -0.04, 0.04): "leaves the score where it is (between 0.0 and 0.0 points less)",
}


@pytest.mark.parametrize("lost", CHANGES, ids=str)
def test_a_gain_is_no_negative_cost(lost: tuple[float, float, float]):
    assert change(Difference(*lost), 300) == CHANGES[lost]


@given(st.floats(-100, 100), st.floats(0, 100), st.integers(1, 10**6))
def test_no_sentence_holds_a_negative_cost_or_a_negative_zero(value: float, half: float, rows: int):
    said = change(Difference(value, value - half, value + half), rows)
    assert "-0.0" not in said
    assert not re.search(r"(costs|gains) -", said)


def test_int8_is_recommended_only_where_its_cost_is_told():
    assert "these" not in advice([diagnosis(int8=75.4)])[-1]
    assert "gains 0.4 points" in advice([diagnosis(int8=75.4)])[-1]
    assert "not significantly more than 1 point" in advice([diagnosis(int8=74.0)])[-1]
    sure = {"whole": [75.0] * GROUPS, "int8": [74.9] * GROUPS}
    assert "can be had without training" in advice([diagnosis(int8=74.9, without=sure)])[-1]
    assert "Train with fake quantization" in advice([diagnosis(int8=60.0)])[-1]


def test_of_a_model_that_learned_nothing_nothing_else_is_said():
    answers = Answers(rows=ROWS, constant=True, common="no", blind="no", baseline=52.7, low=-0.4, high=0.4)
    (said,) = advice([diagnosis(answers=answers)])
    assert said.startswith("Every answer is no: no better than always answering no, which scores 52.7. What pruning")
    both = advice([diagnosis(answers=answers), diagnosis(model="runs/b/stages/dense")])
    assert not any("differs significantly" in each for each in both)
    unsure = answers.model_copy(update={"constant": False, "low": -1.0, "high": 5.0})
    assert advice([diagnosis(answers=unsure)])[0].startswith("512 rows do not distinguish it from always answering no")
    assert len(advice([diagnosis(answers=unsure)])) > 1
