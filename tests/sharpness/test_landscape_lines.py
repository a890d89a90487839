"""Lines through the space of weights and barriers between models, on functions where they are known."""

import math

import pytest
import torch
from torch import nn

from tests.conftest import tiny_bert
from tests.support.loss_planes import BERT, assert_untouched, bowl, corners, sentences, snapshot, state
from trainflat.core.errors import InputError
from trainflat.pruning import MagnitudePruner
from trainflat.records.landscape import LineRecord
from trainflat.sharpness import Objective, barrier, filter_normalised, loss_line, spectral_density, spectrum_record


class Place(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(2, dtype=torch.float64))


def wells(tilt=0.0, depth=1.0):
    """A double well along the first axis: minima at -1 and 1, ``depth`` below the hill at 0, on a slope."""

    def loss(model, batch):
        x, y = model.w
        return depth * (x**2 - 1) ** 2 + y**2 + tilt * x + 0 * batch["x"].sum()

    return Objective(Place(), [{"x": torch.zeros(4)}], loss=loss)


def at(x, y=0.0):
    return {"w": torch.tensor([x, y], dtype=torch.float64)}


def test_the_barrier_of_a_double_well_is_its_depth():
    line = barrier(wells(depth=2.5), at(-1.0), at(1.0), names=("left", "right"))
    assert line.barrier == pytest.approx(2.5, abs=1e-14)
    assert line.barrier_over_mean == pytest.approx(2.5, abs=1e-14)
    assert line.peak == 0.5
    assert (line.ends, line.positions[0], line.positions[-1], len(line.positions)) == (("left", "right"), 0, 1, 11)


def test_both_definitions_on_a_slope():
    """On a slope the linear interpolation takes the slope out, and the mean of the ends does not."""
    line = barrier(wells(tilt=0.8), at(-1.0), at(1.0), points=201)
    assert line.barrier == pytest.approx(1.0, abs=1e-13)
    x = torch.linspace(-1, 1, 201, dtype=torch.float64)
    assert line.barrier_over_mean == pytest.approx(((x**2 - 1) ** 2 + 0.8 * x).max().item(), abs=1e-12)


def test_without_a_hill_there_is_no_barrier():
    line = barrier(wells(), at(1.0, 2.0), at(1.0, 1.0))
    assert line.barrier == 0.0
    assert line.barrier_over_mean == pytest.approx(1.5)  # from 4 down to 1: the higher end is above the mean
    assert barrier(wells(), at(1.0), at(1.0)).barrier == 0.0


def test_a_line_goes_beyond_both_models_and_has_exactly_theirs():
    points = {name: state for name, state in corners().items() if name != "init"}
    line = loss_line(bowl(), points, size=4, margin=0.5)
    assert line.positions == pytest.approx([-0.5, 0.0, 1 / 6, 5 / 6, 1.0, 1.5])
    for position, name in (0.0, "adam"), (1.0, "sam"):
        objective = bowl()
        with torch.no_grad():
            objective.model.load_state_dict(points[name])
        assert line.losses[line.positions.index(position)] == objective.value()


def test_the_ends_of_a_float32_line_are_the_models_to_the_bit():
    names = ("model 0", "model 1")
    line = barrier(Objective(tiny_bert(5), sentences()), BERT[names[0]], BERT[names[1]], points=3)
    for name, loss in zip(names, line.losses[::2], strict=True):
        model = tiny_bert(6)
        model.load_state_dict(BERT[name])
        assert Objective(model, sentences()).value() == loss


def test_an_end_may_be_the_state_of_the_very_model_that_moves():
    objective = wells(tilt=0.8)
    objective.model.load_state_dict(at(-1.0, 0.5))
    own = objective.model.state_dict()
    assert barrier(objective, own, at(1.0)) == barrier(wells(tilt=0.8), at(-1.0, 0.5), at(1.0))
    assert barrier(objective, at(1.0), own) == barrier(wells(tilt=0.8), at(1.0), at(-1.0, 0.5))


def test_a_direction_leads_away_from_the_model_as_it_stands():
    objective = wells()
    with torch.no_grad():
        objective.model.w.copy_(torch.tensor([1.0, 0.0]))
    line = loss_line(objective, direction=[torch.tensor([0.5, 0.0], dtype=torch.float64)], size=5, span=2.0)
    assert line.positions == [-2.0, -1.0, 0.0, 1.0, 2.0]
    assert line.losses == [1.0, 0.5625, 0.0, 1.5625, 9.0]
    assert line.ends is None
    assert line.barrier is None
    assert line.peak is None


def test_a_score_is_taken_at_every_point_with_the_weights_in_place():
    seen = []

    def score(model):
        seen.append(model.training)
        return 100 * model.w[0].item()

    objective = wells()
    objective.model.train()
    line = barrier(objective, at(-1.0), at(1.0), points=5, score=score, score_name="position (%)")
    assert line.scores == [-100.0, -50.0, 0.0, 50.0, 100.0]
    assert line.score_name == "position (%)"
    assert seen == [False] * 5


@pytest.mark.parametrize("fails", [False, True])
def test_no_trace_is_left(fails):
    model = tiny_bert(9).train()
    before, random = snapshot(model), torch.get_rng_state()

    def score(model):
        torch.rand(1)
        if fails:
            raise RuntimeError("no power")
        return 1.0

    objective = Objective(model, sentences())
    try:
        barrier(objective, BERT["model 0"], BERT["model 1"], points=4, score=score)
    except RuntimeError:
        assert fails
    assert_untouched(model, before, random)
    loss_line(objective, direction=filter_normalised(objective), size=3)
    assert_untouched(model, before, random)


def test_pruned_weights_stay_zero_along_the_line():
    model = tiny_bert()
    masks = MagnitudePruner(model, sparsity=0.5).prune()

    def loss(model, batch):
        masks.check(model)
        return model(**batch).loss

    objective = Objective(model, sentences(), loss=loss, masks=masks)
    barrier(objective, BERT["model 0"], BERT["model 1"], points=3)
    loss_line(objective, direction=filter_normalised(objective), size=3)


def test_passes_are_one_per_point():
    model, calls = tiny_bert(), []
    model.register_forward_hook(lambda *_: calls.append(1))
    barrier(Objective(model, sentences(batches=2)), BERT["model 0"], BERT["model 1"], points=5)
    assert len(calls) == 5 * 2


def test_a_loss_that_is_no_number_leaves_no_barrier():
    line = LineRecord(name="a", positions=[0, 0.5, 1], losses=[1.0, None, 2.0], ends=("a", "b"))
    assert line.barrier is None
    assert line.barrier_over_mean is None


MORE = state([1.0, 0, 0]) | {"c": torch.zeros(1)}
BAD = {
    "one point": (lambda o: loss_line(o, {"a": state([0.0, 0, 0])}), "exactly two points, got 1: a"),
    "nothing": (loss_line, "two points or along a direction"),
    "small": (lambda o: loss_line(o, corners(), size=1), "at least 2 points, got size 1"),
    "margin": (lambda o: loss_line(o, corners(), margin=-1), "margin is .* got -1"),
    "span": (lambda o: loss_line(o, direction=[], span=-2), "span is .* above 0, got -2"),
    "direction": (lambda o: loss_line(o, direction=[torch.zeros(2)]), "objective's 2 weights.*this one has 1"),
    "ends only": (lambda o: barrier(o, *list(corners().values())[:2], points=2), "got points 2"),
    "same names": (lambda o: barrier(o, {}, {}, names=("a", "a")), "both called 'a'"),
    "surplus": (lambda o: barrier(o, state([0.0, 0, 0]), MORE), "other has a weight c, which the model lacks"),
    "surplus on a line": (lambda o: loss_line(o, {"x": MORE, "y": MORE}), "x has a weight c, which the model lacks"),
    "nan": (lambda o: barrier(o, state([0.0, math.nan, 0]), state([0.0, 0, 0])), "a of one holds NaN or infinite"),
    "models": (lambda o: barrier(o, o.model, o.model), "one is a Weights, no state dict"),
    "half a point": (lambda o: barrier(o, {}, {}, points=3.5), "got points 3.5"),
    "half a size": (lambda o: loss_line(o, corners(), size=2.5), "whole number of at least 2 points, got size 2.5"),
    "direction nan": (
        lambda o: loss_line(o, direction=[torch.ones(2), torch.tensor([math.nan])]),
        "b of the direction",
    ),
    "shape": (lambda o: barrier(o, state([0.0, 0, 0]), state([0.0, 0, 0, 0])), r"b has shape \[2\] in other"),
}


@pytest.mark.parametrize(("call", "text"), BAD.values(), ids=BAD)
def test_bad_input_is_one_clear_line(call, text):
    with pytest.raises(InputError, match=text):
        call(bowl())


def test_a_spectral_density_becomes_a_record():
    found = spectral_density(bowl(), steps=3, probes=2)
    record = spectrum_record(found, top=[1.0, 7.0])
    assert record.eigenvalues == found.grid.tolist()
    assert record.top == [7.0, 1.0]
    assert (record.probes, record.steps, record.measured_on) == (2, 3, "3 rows")
