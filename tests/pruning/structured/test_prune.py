"""Structured pruning without training, from scores to the repaired model, over the families."""

from typing import Any

import pytest
import torch

from tests.support.marks import quick
from tests.support.structured import NAMES, questions, random_model, rows
from trainflat.core.errors import InputError, UnknownName
from trainflat.core.progress import Progress
from trainflat.pruning.structured.budgets import Budget, MultiplyAdds, Parameters
from trainflat.pruning.structured.prune import Pruned, prune_structure
from trainflat.pruning.structured.repairs import REPAIRS
from trainflat.pruning.structured.shrink import shrink
from trainflat.pruning.structured.sub_layers import sub_layers
from trainflat.pruning.structured.unit_scores import UNIT_SCORES, RankedOnce

HALF = MultiplyAdds(0.5, length=9)


def check(model: Any, pruned: Pruned) -> None:
    """The kept set, the notes and the columns that are 0 say the same."""
    layers = pruned.kept.layers
    for sub, note in zip(sub_layers(model), pruned.notes, strict=True):
        own = layers[sub.place].heads if sub.kind == "attention" else layers[sub.place].units
        columns = sub.matrix(pruned.model).weight.abs().sum(0).view(-1, sub.width).sum(1)
        assert own.bool().tolist() == (columns > 0).tolist()
        assert (note.name, note.kept, note.units) == (sub.name, int(own.sum()), len(sub.units))
        if note.before is not None:
            assert note.after is not None
            assert note.after <= note.before


# A repair is given matrices and what they put out, whatever the family.
PAIRS = [(family, repair) for repair in REPAIRS for family in NAMES]


@pytest.mark.parametrize(
    "case", quick(PAIRS, *(p for p in PAIRS if p[0] == "Bert" or p[1] == "least-squares")), ids=str
)
def test_every_family_is_pruned_to_a_budget(case: tuple[str, str]) -> None:
    family, repair = case
    model, batches = random_model(family), [questions(rows(family)), questions(rows(family, seed=2))]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    pruned = prune_structure(model, batches, HALF, repair=repair, shape="ragged")
    check(model, pruned)
    assert pruned.cost <= 0.5 * pruned.dense < pruned.cost + 0.1 * pruned.dense
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert pruned.model(**batches[0]).logits.isfinite().all()


@pytest.mark.parametrize("score", UNIT_SCORES)
def test_the_same_seed_keeps_the_same_units(score: str) -> None:
    model, batches = random_model("Bert"), [rows("Bert")]
    one, same = (prune_structure(model, batches, HALF, score=score, shape="ragged", seed=3) for _ in range(2))
    check(model, one)
    assert all(torch.equal(a, same.kept.tensors()[name]) for name, a in one.kept.tensors().items())


def test_what_is_solved_anew_answers_more_like_the_dense_model() -> None:
    model, batches = random_model("Bert", intermediate_size=24), [rows("Bert", count=40)]
    dense = model(**questions(batches[0])).logits.detach()
    errors = {}
    for repair in REPAIRS:
        pruned = prune_structure(model, batches, MultiplyAdds(0.6, length=9), repair=repair, shape="ragged")
        found = pruned.model(**questions(batches[0])).logits.detach()
        errors[repair] = float((found - dense).square().mean())
    assert errors["least-squares"] < min(errors["none"], errors["rescale"]) / 100


def test_a_repair_that_makes_it_worse_does_not_hold() -> None:
    class Worse(REPAIRS["least-squares"]):  # type: ignore[misc]
        def repaired(self, damage: Any) -> Any:
            weight, bias = super().repaired(damage)
            return weight, bias + 1000

    model = random_model("Bert")
    plain = prune_structure(model, [rows("Bert")], HALF, score="wanda", repair="none", shape="ragged")
    pruned = prune_structure(model, [rows("Bert")], HALF, score="wanda", repair=Worse(), shape="ragged")
    assert {note.repair for note in pruned.notes} == {"none"}
    assert all(note.after == note.before for note in pruned.notes)
    for name, tensor in plain.model.state_dict().items():
        assert torch.equal(tensor, pruned.model.state_dict()[name])


def test_friendly_widths_are_multiples_of_32() -> None:
    model = random_model("Bert", intermediate_size=112)
    pruned = prune_structure(model, [rows("Bert")], Parameters(share=0.6), score="wanda", repair="none")
    widths = [note.kept for note in pruned.notes if note.units == 112]
    assert all(width % 32 == 0 or width == 112 for width in widths)
    assert len(set(widths)) > 1


@pytest.mark.parametrize("family", NAMES)
def test_what_is_counted_is_what_the_shrunk_model_has(family: str) -> None:
    model, batch = random_model(family), questions(rows(family))
    whole = sum(p.numel() for p in model.parameters())
    budget = Parameters(count=whole - 300)
    pruned = prune_structure(model, [batch], budget, score="wanda", shape="ragged")
    small = shrink(pruned.model, pruned.kept)
    assert pruned.dense == whole
    assert pruned.cost == sum(p.numel() for p in small.parameters()) <= whole - 300
    torch.testing.assert_close(small(**batch).logits, pruned.model(**batch).logits, rtol=0, atol=1e-10)


def test_ranking_once_for_several_budgets_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batches, score = random_model("Bert"), [rows("Bert")], UNIT_SCORES.build("obs")
    plain = [prune_structure(model, batches, MultiplyAdds(share), shape="ragged") for share in (0.7, 0.5)]
    once, calls, rank = RankedOnce(score), [], score.rankings
    monkeypatch.setattr(score, "rankings", lambda inputs: calls.append(0) or rank(inputs))
    for share, expected in zip((0.7, 0.5), plain, strict=True):
        found = prune_structure(model, batches, MultiplyAdds(share), score=once, shape="ragged")
        assert found.notes == expected.notes
        assert all(torch.equal(a, found.kept.tensors()[name]) for name, a in expected.kept.tensors().items())
    assert len(calls) == 1


@pytest.mark.parametrize("score", ["obs", "kprune", "taylor", "wanda"])
def test_every_stretch_of_work_is_shown_to_its_end(score: str) -> None:
    pieces, progress = list[Any](), Progress()
    progress.begin = lambda what, total, done=0: pieces.append([what, total, 0])  # type: ignore[method-assign]
    progress.advance = lambda done, note="": pieces[-1].__setitem__(2, done)  # type: ignore[method-assign]
    prune_structure(random_model("Bert"), [rows("Bert")] * 3, HALF, score=score, shape="ragged", progress=progress)
    assert all(total == done > 0 for _, total, done in pieces)
    assert len({what for what, _, _ in pieces}) >= 2 and pieces[-1][0] == "repairing sub-layers"


def test_nothing_is_dropped_and_nothing_changed_where_all_fits() -> None:
    model = random_model("Bert")
    pruned = prune_structure(model, [rows("Bert")], MultiplyAdds(1.0))
    assert pruned.predicted == 0
    assert all(bool((tensor == 1).all()) for tensor in pruned.kept.tensors().values())
    assert all(torch.equal(tensor, pruned.model.state_dict()[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        (
            Parameters(count=50),
            r"a budget of 50 parameters \(0.0 MB.*\) is out of reach: .* 842 parameters \(0.0 MB.*\), \d+\.\d% of",
        ),
        (Parameters(share=0.01), "is out of reach: with no head and no unit left"),
    ],
)
def test_a_budget_out_of_reach_says_what_is_in_reach(budget: Budget, message: str) -> None:
    with pytest.raises(InputError, match=message):
        prune_structure(random_model("Bert"), [rows("Bert")], budget)


def test_bad_input_is_refused_in_one_line() -> None:
    model, batches = random_model("Bert"), [rows("Bert")]
    with pytest.raises(UnknownName, match=r"no score of units is called 'ob'\. Did you mean 'obs'"):
        prune_structure(model, batches, HALF, score="ob")
    with pytest.raises(UnknownName, match="no repair is called 'solve'"):
        prune_structure(model, batches, HALF, repair="solve")
    with pytest.raises(UnknownName, match="no shape is called 'round'"):
        prune_structure(model, batches, HALF, shape="round")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no row to calibrate on"):
        prune_structure(model, [], HALF)
    with pytest.raises(InputError, match="a share or a count"):
        Parameters()
    with pytest.raises(InputError, match="share is the share that may be left, above 0 and at most 1, got 60"):
        MultiplyAdds(60)
    with pytest.raises(InputError, match="known are logits"):
        prune_structure(model.bert, batches, HALF)
