"""What planes through the space of weights refuse, each in one line and before anything is measured."""

import math
from collections import OrderedDict

import pytest
import torch
from torch import nn

from tests.conftest import tiny_bert
from tests.support.loss_planes import BERT, assert_untouched, bowl, corners, sentences, snapshot
from trainflat.core.errors import InputError
from trainflat.sharpness import Objective, filter_normalised, loss_plane

SMALL = tiny_bert(0, hidden_size=8).state_dict()
TWO = dict(list(BERT.items())[:2])
DEEP = tiny_bert(2, num_hidden_layers=3).state_dict()
POOLER = "bert.pooler.dense.bias"


def with_value(state, key, value):
    changed = state[key].clone()
    changed.view(-1)[-1] = value
    return {**state, key: changed}


BAD = {
    "two points": ({"points": dict(list(BERT.items())[:2])}, "exactly three points, got 2: model 0, model 1"),
    "no points": ({}, "three points or along two directions"),
    "both": ({"points": BERT, "directions": ([], [])}, "give the one or the other"),
    "other shapes": ({"points": {**BERT, "model 2": SMALL}}, r"has shape \[120, 8\] in model 2, but \[120, 16\]"),
    "other names": ({"points": {**BERT, "model 2": OrderedDict()}}, "model 2 has no weight bert.embeddings"),
    "more layers": ({"points": {**BERT, "model 2": DEEP}}, r"model 2 has a weight bert\.encoder\.layer\.2\..* lacks"),
    "more layers under a head": (
        {"points": {**BERT, "model 2": DEEP}, "head": "model 0"},
        "weight bert.encoder.layer.2",
    ),
    "nan": ({"points": {**TWO, "b": with_value(BERT["model 2"], POOLER, math.nan)}}, f"{POOLER} of b holds NaN"),
    "infinite": ({"points": {**TWO, "b": with_value(BERT["model 2"], POOLER, math.inf)}}, f"{POOLER} of b holds NaN"),
    "models": ({"points": dict.fromkeys("abc", tiny_bert())}, "a is a BertForSequenceClassification, no state dict"),
    "a list": ({"points": list(BERT.values())}, "points are state dicts by name, got a list"),
    "numbers for names": ({"points": dict(enumerate(BERT.values()))}, "by name, got 0 for a name"),
    "no tensors": ({"points": {**BERT, "model 2": dict.fromkeys(DEEP, 1.0)}}, "model 2 has no weight bert.embeddings"),
    "half a size": ({"points": BERT, "size": 3.5}, "whole number of at least 2 points, got size 3.5"),
    "true size": ({"points": BERT, "size": True}, "whole number of at least 2 points, got size True"),
    "margin in words": ({"points": BERT, "margin": "wide"}, "margin is .* got wide"),
    "three directions": ({"directions": ([], [], [])}, "exactly two directions, got 3"),
    "a direction of names": ({"directions": (DEEP, DEEP)}, "a tensor for each of the objective's"),
    "one line": ({"points": {**BERT, "model 2": BERT["model 1"]}}, "model 0, model 1, model 2 are on one line"),
    "one point": ({"points": dict.fromkeys("abc", BERT["model 1"])}, "a, b, c are on one line"),
    "small grid": ({"points": BERT, "size": 1}, "at least 2 points, got size 1"),
    "negative margin": ({"points": BERT, "margin": -0.1}, "margin is .* got -0.1"),
    "no span": ({"directions": ([], []), "span": 0.0}, "span is .* above 0, got 0.0"),
    "span nan": ({"directions": ([], []), "span": float("nan")}, "span is .* got nan"),
    "wrong direction": ({"directions": ([], [])}, "a tensor for each of the objective's"),
    "unknown head": ({"points": BERT, "head": "model 3"}, "no point is called 'model 3'. Did you mean 'model"),
    "head of directions": ({"directions": ([], []), "head": "adam"}, "head 'adam' names one of three points"),
}


@pytest.mark.parametrize(("options", "text"), BAD.values(), ids=BAD)
def test_bad_input_is_one_clear_line(options, text):
    model = tiny_bert(7)
    before, random = snapshot(model), torch.get_rng_state()
    with pytest.raises(InputError, match=text) as caught:
        loss_plane(Objective(model, sentences()), **options)
    assert "\n" not in str(caught.value)
    assert_untouched(model, before, random)


@pytest.mark.parametrize("factor", [1.0, -3.0, 0.0, 1e-9])
def test_directions_on_one_line_span_no_plane(factor):
    objective = Objective(tiny_bert(), sentences())
    one, other = filter_normalised(objective, 0), filter_normalised(objective, 1)
    for pair in (one, [factor * d for d in one]), ([factor * d for d in one], one):
        with pytest.raises(InputError, match="two directions are on one line, so that they span no plane"):
            loss_plane(objective, directions=pair)
    almost = [d + 1e-3 * e for d, e in zip(one, other, strict=True)]
    assert loss_plane(bowl(), directions=([torch.ones(2), torch.ones(1)], [torch.ones(2), torch.zeros(1)]), size=2)
    assert loss_plane(Objective(tiny_bert(), sentences(batches=1)), directions=(one, almost), size=2)


def test_directions_and_where_they_start_are_finite():
    objective = Objective(tiny_bert(), sentences())
    one, other = filter_normalised(objective, 0), filter_normalised(objective, 1)
    with pytest.raises(InputError, match=r"word_embeddings.weight of the direction holds NaN"):
        loss_plane(objective, directions=(one, [d * math.nan for d in other]))
    objective.model.load_state_dict(with_value(BERT["model 0"], POOLER, math.nan))
    with pytest.raises(InputError, match=f"{POOLER} of the model holds NaN"):
        loss_plane(objective, directions=(one, other))
    assert loss_plane(objective, BERT, size=2).losses[0][0] is not None  # only the three models count there


def test_what_is_no_weight_may_be_more():
    """Buffers, saved by other versions or not, names of one tied weight, and the heads that are not used."""
    objective = Objective(tiny_bert(), sentences(batches=1))
    expected = loss_plane(objective, BERT, head="model 0", size=2).losses
    extra = {"bert.embeddings.position_ids": torch.arange(3), "bert.other_ids": torch.arange(3), "bert.note": "mine"}
    extra["cls.predictions.bias"] = torch.zeros(3)  # a head from pre-training
    points = {name: {**values, **extra} for name, values in BERT.items()}
    assert loss_plane(objective, points, head="model 0", size=2).losses == expected
    with pytest.raises(InputError, match=r"model 0 has a weight cls\.predictions\.bias, which the model lacks"):
        loss_plane(objective, points, size=2)


def test_a_tied_weight_may_have_both_its_names():
    tied = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    tied[1].weight = tied[0].weight
    objective = Objective(tied, [{"x": torch.eye(2)}], loss=lambda model, batch: model(batch["x"]).square().mean())
    assert "1.weight" in tied.state_dict() and "1.weight" not in objective.names
    points = {name: {k: torch.randn_like(v) for k, v in tied.state_dict().items()} for name in "abc"}
    assert loss_plane(objective, points, size=2)


def test_a_head_needs_an_encoder_beside_it():
    with pytest.raises(InputError, match="Weights has no task head beside an encoder"):
        loss_plane(bowl(), corners(), head="sam")


def test_an_empty_split_is_refused():
    with pytest.raises(InputError, match="split is empty"):
        loss_plane(Objective(tiny_bert(), [{"input_ids": torch.zeros(0, 4)}]), BERT)
