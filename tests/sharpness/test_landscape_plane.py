"""Planes through the space of weights: closed forms in float64, masks, heads, counted passes, no trace, bad input."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import tiny_bert
from tests.support.loss_planes import (
    BERT,
    CORNERS,
    Weights,
    assert_untouched,
    bowl,
    corners,
    quadratic,
    sentences,
    snapshot,
    state,
)
from trainflat.core.errors import InputError
from trainflat.pruning import MagnitudePruner
from trainflat.sharpness import Objective, filter_normalised, loss_plane
from trainflat.sharpness.directions import orthonormal_basis
from trainflat.sharpness.paths import AffineSubspace


def test_three_points_have_their_own_losses_and_distances():
    plane = loss_plane(bowl(), corners(), size=2)
    for name, values in CORNERS.items():
        exact = quadratic(torch.tensor(values, dtype=torch.float64)).item()
        assert plane.point_losses[name] == pytest.approx(exact, rel=1e-15)
    for (one, p), (other, q) in itertools.combinations(plane.points.items(), 2):
        assert math.dist(p, q) == pytest.approx(math.dist(CORNERS[one], CORNERS[other]), rel=1e-14)
    assert plane.points["init"] == (0.0, 0.0)
    assert plane.points["adam"][1] == 0.0
    assert plane.points["adam"][0] > 0 < plane.points["sam"][1]


def test_coordinates_lead_to_the_points():
    objective = bowl()
    models = [[corner["a"], corner["b"]] for corner in corners().values()]
    u, v, places = orthonormal_basis(models, list(CORNERS))
    plane = AffineSubspace(objective, models[0], (u, v))
    with objective.measuring():
        plane.enter()
        for place, values in zip(places, CORNERS.values(), strict=True):
            plane.move_to(*place)
            assert objective.value() == pytest.approx(
                quadratic(torch.tensor(values, dtype=torch.float64)).item(), abs=1e-12
            )


def test_the_grid_of_a_quadratic_is_a_quadratic():
    plane = loss_plane(bowl(), corners(), size=7, margin=0.5)
    origin, adam, sam = (torch.tensor(values, dtype=torch.float64) for values in CORNERS.values())
    basis = torch.linalg.qr(torch.stack([adam - origin, sam - origin], dim=1)).Q  # an independent Gram-Schmidt
    basis = basis * torch.sign(basis.T @ torch.stack([adam - origin, sam - origin], dim=1)).diagonal()
    expected = [
        [quadratic(origin + basis @ torch.tensor([x, y], dtype=torch.float64)) for x in plane.x] for y in plane.y
    ]
    assert torch.tensor(plane.losses, dtype=torch.float64).sub(torch.tensor(expected)).abs().max() < 1e-12
    xs, ys = zip(*plane.points.values(), strict=True)
    for side, seen in (plane.x, xs), (plane.y, ys):
        assert side[0] == pytest.approx(min(seen) - 0.5 * (max(seen) - min(seen)))
        assert side[-1] == pytest.approx(max(seen) + 0.5 * (max(seen) - min(seen)))


triple = st.lists(st.lists(st.floats(-3, 3), min_size=3, max_size=3), min_size=3, max_size=3)


@settings(deadline=None, max_examples=50)
@given(triple)
def test_the_basis_is_orthonormal_or_refused(points):
    vectors = [torch.tensor(values, dtype=torch.float64) for values in points]
    try:
        (u,), (v,), places = orthonormal_basis([[w] for w in vectors], ["a", "b", "c"])
    except InputError as error:
        assert "on one line" in str(error)
        return
    assert (u @ u).item() == pytest.approx(1, abs=1e-9)
    assert (v @ v).item() == pytest.approx(1, abs=1e-9)
    assert abs((u @ v).item()) < 1e-6  # points almost on one line lose digits
    for w, (x, y) in zip(vectors, places, strict=True):
        assert torch.dist(vectors[0] + x * u + y * v, w) < 1e-8


def test_a_long_walk_does_not_drift():
    """Position by position the weights are what they are when nothing was visited before, to the bit."""
    model, batches = tiny_bert(), sentences(batches=1)
    whole = loss_plane(Objective(model, batches), BERT, size=5)
    objective = Objective(model, batches)
    models = [[state[key] for key in objective.names] for state in BERT.values()]
    u, v, _ = orthonormal_basis(models, ["a", "b", "c"])
    with objective.measuring():
        plane = AffineSubspace(objective, models[0], (u, v))
        plane.enter()
        plane.move_to(whole.x[3], whole.y[4])
        assert objective.value() == whole.losses[4][3]


def test_passes_are_one_per_point_and_nothing_else():
    model, batches = tiny_bert(), sentences()
    calls = []
    model.register_forward_hook(lambda *_: calls.append(1))
    loss_plane(Objective(model, batches), BERT, size=4)
    assert len(calls) == (4 * 4 + 3) * len(batches)


def test_weights_that_do_not_move_are_not_written():
    model = tiny_bert()
    base = model.state_dict()
    moved = "bert.encoder.layer.1.output.dense.weight"
    points = {
        name: {**base, moved: base[moved] + k * torch.eye(*base[moved].shape).roll(k, 0)}
        for k, name in enumerate("abc")
    }
    objective = Objective(model, sentences(batches=1))
    models = [[points[name][key] for key in objective.names] for name in points]
    u, v, _ = orthonormal_basis(models, list(points))
    plane = AffineSubspace(objective, models[0], (u, v))
    versions = [w._version for w in objective.weights]
    plane.move_to(1.0, 1.0)
    written = [
        name
        for name, w, before in zip(objective.names, objective.weights, versions, strict=True)
        if w._version > before
    ]
    assert written == [moved]


@pytest.mark.parametrize("fails_at", [None, 0, 1, 7])
def test_no_trace_is_left_also_after_an_exception(fails_at):
    model = tiny_bert(9).train()
    model.bert.embeddings.word_embeddings.weight.requires_grad_(False)
    model.classifier.weight.requires_grad_(False)  # a head that the objective does not name
    model.classifier.bias.grad = torch.ones(2)
    before, random = snapshot(model), torch.get_rng_state()

    def loss(model, batch):
        torch.rand(1)
        if next(calls) == fails_at:
            raise RuntimeError("no power")
        return model(**batch).loss

    objective = Objective(model, sentences(batches=1), loss=loss)
    directions = filter_normalised(objective, 0), filter_normalised(objective, 1)
    stopped = []
    for options in {"points": BERT, "head": "model 1"}, {"directions": directions}:
        calls = itertools.count()
        try:
            loss_plane(objective, size=3, **options)
        except RuntimeError as error:
            stopped.append(str(error))
        assert_untouched(model, before, random)
    assert stopped == ([] if fails_at is None else ["no power"] * 2)


def test_every_point_has_the_head_that_was_named():
    """The plane under a head is the one of models that all have that head, and their other weights span it."""
    batches, points = sentences(batches=1), BERT
    head = {key: points["model 2"][key] for key in ("classifier.weight", "classifier.bias")}
    named = loss_plane(Objective(tiny_bert(5), batches), points, head="model 2", size=3)
    own = loss_plane(Objective(tiny_bert(5), batches), {k: {**s, **head} for k, s in points.items()}, size=3)
    assert named.losses == own.losses
    assert named.points == own.points
    assert (named.head, own.head) == ("model 2", "")
    frozen = tiny_bert(6)
    frozen.classifier.requires_grad_(False)
    assert loss_plane(Objective(frozen, batches), points, head="model 2", size=3).losses == named.losses
    with_own_heads = loss_plane(Objective(tiny_bert(5), batches), points, size=3)
    assert with_own_heads.points["model 1"][0] > named.points["model 1"][0]  # heads are apart as well


def test_rows_of_a_random_direction_are_as_long_as_the_weights():
    objective = Objective(tiny_bert(), sentences())
    direction = filter_normalised(objective, seed=3)
    for d, w in zip(direction, objective.weights, strict=True):
        if w.ndim > 1:
            assert torch.allclose(d.norm(dim=1), w.norm(dim=1), rtol=1e-5)
        else:
            assert not d.any()
    again, other = filter_normalised(objective, seed=3), filter_normalised(objective, seed=4)
    assert all(map(torch.equal, direction, again))
    assert not all(map(torch.equal, direction, other))


def test_the_plane_along_directions_spans_them_from_the_model_as_it_stands():
    objective = bowl()
    with torch.no_grad():
        objective.model.a.copy_(torch.tensor([1.0, 2.0]))
    u, v = ([torch.tensor(x, dtype=torch.float64) for x in each] for each in ([[1.0, 0], [2.0]], [[0, -1.0], [0.5]]))
    plane = loss_plane(objective, directions=(u, v), size=3, span=0.5)
    assert plane.x == plane.y == [-0.5, 0.0, 0.5]
    expected = [
        [quadratic(torch.tensor([1 + x, 2 - y, 2 * x + 0.5 * y], dtype=torch.float64)).item() for x in plane.x]
        for y in plane.y
    ]
    assert torch.tensor(plane.losses).sub(torch.tensor(expected)).abs().max() < 1e-12
    assert plane.points == {}


@pytest.mark.parametrize("name", CORNERS)
def test_a_corner_may_be_the_state_of_the_very_model_that_moves(name):
    """``state_dict()`` holds the weights themselves, not copies of them."""
    objective, copied = bowl(), bowl()
    for model in (objective.model, copied.model):
        model.load_state_dict(state(CORNERS[name]))
    plane = loss_plane(objective, corners() | {name: objective.model.state_dict()}, size=3)
    assert plane == loss_plane(copied, corners(), size=3)
    assert torch.equal(objective.model.a, copied.model.a)


def test_a_direction_may_be_a_model_itself():
    """From the origin's weights along these: the same as along copies of them."""
    objective = bowl()
    objective.model.load_state_dict(state(CORNERS["init"]))
    other = list(state(CORNERS["sam"]).values())
    own = list(objective.model.parameters())
    plane = loss_plane(objective, directions=(other, own), size=3)
    assert plane == loss_plane(objective, directions=(other, [p.detach().clone() for p in own]), size=3)


def test_pruned_weights_never_move():
    model = tiny_bert()
    masks = MagnitudePruner(model, sparsity=0.7).prune()
    seen = []

    def loss(model, batch):
        masks.check(model)  # raises as soon as one is not zero
        seen.append(float(model.bert.pooler.dense.weight.detach().abs().sum()))
        return model(**batch).loss

    objective = Objective(model, sentences(batches=1), loss=loss, masks=masks)
    directions = filter_normalised(objective, 0), filter_normalised(objective, 1)
    for d, w, kept in zip(directions[0], objective.weights, objective.kept, strict=True):
        if kept is not None:
            assert not d[~kept].any()
            assert torch.allclose(d.norm(dim=1), w.norm(dim=1), rtol=1e-5)
    loss_plane(objective, directions=directions, size=3)
    loss_plane(objective, BERT, size=3)  # three dense models, taken under the mask
    assert len(set(seen)) > 10


def test_losses_that_are_no_numbers_are_kept_as_none():
    def loss(model, batch):
        return model.a[0].log() + 0 * batch["x"].sum()

    objective = Objective(Weights(), [{"x": torch.zeros(1)}], loss=loss)
    plane = loss_plane(objective, corners(), size=5, margin=1.0)
    seen = {value is None for row in plane.losses for value in row}
    assert seen == {True, False}
