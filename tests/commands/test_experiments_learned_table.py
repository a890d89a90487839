"""The tables of ``experiments.learned_table``: teachers are compared within a seed, by an interval of Student's t."""

import math
from typing import Any

import pytest
import torch
from scipy.stats import ttest_rel
from transformers import BertForSequenceClassification

from experiments.learned_table import differences, interval, markdown
from experiments.structured_table import shrunk
from tests.support.families import config
from trainflat.anatomy import anatomy_of
from trainflat.evaluation.structure import describe_structure
from trainflat.pruning.structured import Kept, shrink

SCORES = {"adamw": [80.0, 81.0, 82.5], "sam": [80.5, 82.5, 83.0]}


def row(teacher: str, seed: int, score: float, **more: Any) -> dict[str, Any]:
    common = {"task": "stsb", "method": "cofi, finetuned", "sparsity": 0.8, "reached": 0.81, "metric": "pearson"}
    return common | {"teacher": teacher, "seed": seed, "score": score} | more


def test_teachers_are_compared_within_a_seed() -> None:
    rows = [row(teacher, seed, s) for teacher, scores in SCORES.items() for seed, s in enumerate(scores)]
    rows += [row("sam", 7, 0.0), row("adamw", 0, 50.0, sparsity=0.95)]  # without a partner
    [found] = differences(rows[::-1])
    assert (found["seeds"], found["differences"]) == (3, [0.5, 1.5, 0.5])
    exact = ttest_rel(SCORES["sam"], SCORES["adamw"]).confidence_interval()
    assert (found["low"], found["high"]) == pytest.approx((exact.low, exact.high))
    assert "| 80% | 81.0% | 81.2 ± 1.3 (3) |" in markdown(rows, [found])


def test_one_seed_has_no_interval() -> None:
    assert interval([1.0]) == (None, None)
    assert all(math.isfinite(bound) for bound in interval([1.0, 2.0]) if bound is not None)


def test_models_that_are_timed_have_the_widths_of_the_record() -> None:
    dense = BertForSequenceClassification(config("Bert")).eval()
    anatomy = anatomy_of(dense)
    gone = [anatomy.units("head")[1], *anatomy.units("feed-forward unit")[3:5], anatomy.units("hidden dimension")[2]]
    gone += [unit for unit in anatomy.units("attention sub-layer") if unit.layer == 1]
    kept = Kept.all(anatomy).without(gone)
    small = shrink(dense, kept)
    again = shrunk(describe_structure(dense, small, kept, "", ""), dense)
    shapes = [{name: tuple(p.shape) for name, p in model.named_parameters()} for model in (small, again)]
    assert shapes[0] == shapes[1]
    ids = torch.randint(5, 30, (1, 6))
    assert again(input_ids=ids).logits.shape == small(input_ids=ids).logits.shape
