"""GRAIN's gate outside the Trainer: against sums over weights, a slow reference, and the shrunk model, in float64."""

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.conftest import tiny_bert
from tests.support.grain_reference import NAMES, GrainByHand, importances
from tests.support.marks import quick
from tests.support.masked import masked
from tests.support.tiny_families import MODELS, logits, make
from tests.support.training import NO_DROPOUT
from trainflat.anatomy import anatomy_of
from trainflat.anatomy.params import named_weights
from trainflat.core.errors import InputError
from trainflat.pruning.gates import STRUCTURE_GATES, Grain, read_gate
from trainflat.pruning.gates.unit_gradients import Place, UnitGradients
from trainflat.pruning.structured import Kept, count, shrink

RAMP = {"name": "cubic", "start": 4, "hold": 6}
TOTAL = 20


def begun(model: nn.Module, **options: Any) -> Grain:
    gate = Grain(model, **({"schedule": RAMP, "target_sparsity": 0.7} | options))
    gate.begin(TOTAL)
    return gate


def scored(gate: Grain, seed: int) -> Grain:
    """Random scores, on very different scales in different groups."""
    draw = torch.Generator().manual_seed(seed)
    for score in gate.scores.values():
        scale = 10 ** float(torch.randn((), generator=draw))
        score.data.copy_(scale * torch.rand(score.shape, generator=draw, dtype=torch.float64))
    return gate


def batch(seed: int = 0) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, 24, (4, 6), generator=draw)
    return {"input_ids": ids, "labels": torch.randint(0, 2, (4,), generator=draw)}


def losses(model: Any, rows: dict[str, Tensor]) -> dict[str, Tensor]:
    outputs = model(**rows, output_hidden_states=True)
    return {"task": outputs.loss, "layerwise": outputs.hidden_states[1].square().mean()}


def sums(model: Any, grads: dict[str, Tensor], kind: str, layer: int | None) -> Tensor:
    """What the definition says, by the anatomy's slices: over a column, or over a row and its bias."""
    named, found = named_weights(model, every_name=True), []
    part = next(one for one in anatomy_of(model).layers if one.number == layer)
    queries = {name for one in part.attention.query for name in (one.weight, one.bias)}
    for unit in anatomy_of(model).units(kind):
        own = [s for s in unit.producers if s.tensor in queries] if kind.startswith("query") else unit.consumers
        if unit.layer == layer:
            products = [
                (named[s.tensor] * grads[s.tensor]).narrow(s.axis, s.start, s.stop - s.start)
                for s in dict.fromkeys(own)
            ]
            found.append(torch.stack([one.sum() for one in products]).sum())
    return torch.stack(found)


@pytest.mark.parametrize("name", quick(MODELS, "bert", "albert", "modernbert"))
def test_importances_are_sums_of_weights_times_gradients_of_one_term(name: str) -> None:
    """Of two micro-batches, at no change of any gradient of the weights."""
    model = make(name)
    gate, twin = begun(model), make(name)
    rows = [batch(0), batch(1)] if "pixel" not in model.main_input_name else [pictures(0), pictures(1)]
    with gate.passes():
        for one in rows:
            terms = losses(model, one)
            gate.differentiate(terms, 0.25)
            (0.25 * sum(terms.values())).backward()
    for one in rows:
        (0.25 * sum(losses(twin, one).values())).backward()
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        assert p.grad is q.grad is None or torch.equal(p.grad, q.grad)
    twin.zero_grad()
    for one in rows:
        (0.25 * losses(twin, one)["task"]).backward()
    grads = {
        n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in named_weights(twin, every_name=True).items()
    }
    kinds = {key.rstrip(" 0123456789") for key in gate.scores}
    assert kinds == {"feed-forward unit", "value-output dimension"} | (
        set() if name == "modernbert" else {"query-key dimension"}
    )
    for key, score in gate.scores.items():
        kind, number = key.rstrip(" 0123456789"), key.rpartition(" ")[2]
        wanted = sums(twin, grads, kind, int(number) if number.isdecimal() else None)
        assert wanted.abs().max() > 0
        torch.testing.assert_close(score.grad, wanted, rtol=1e-9, atol=1e-14)


def pictures(seed: int) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    pixels = torch.randn(3, 3, 8, 8, dtype=torch.float64, generator=draw)
    return {"pixel_values": pixels, "labels": torch.tensor([0, 1, 1])}


def test_units_may_be_a_part_of_what_a_layer_puts_out_or_reads() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2)).double()
    places = [Place("out", "0", 2, 5, reads=False), Place("in", "2", 1, 3, reads=True)]
    factors = {name: torch.zeros(size).double().requires_grad_() for name, size in (("out", 3), ("in", 2))}
    with UnitGradients(model, places, factors).standing():
        model(torch.randn(5, 4).double()).square().sum().backward()
    first, last = model[0], model[2]
    rows = (first.weight * first.weight.grad).sum(1) + first.bias * first.bias.grad
    torch.testing.assert_close(factors["out"].grad, rows[2:5].detach())
    torch.testing.assert_close(factors["in"].grad, (last.weight * last.weight.grad).sum(0)[1:3].detach())


def test_a_loss_of_one_term_and_the_whole_loss_take_no_backward_pass_of_their_own(monkeypatch: Any) -> None:
    def forbidden(*_: Any, **__: Any) -> None:
        raise AssertionError("a second backward pass")

    monkeypatch.setattr(torch.autograd, "grad", forbidden)
    for term, chosen in (("task", ["task"]), (None, ["task", "layerwise"])):
        model = make("bert")
        gate = begun(model, term=term)
        with gate.passes():
            terms = {name: value for name, value in losses(model, batch()).items() if name in chosen}
            gate.differentiate(terms)
            sum(terms.values()).backward()
        grads = {n: p.grad for n, p in model.named_parameters()}
        for key, score in gate.scores.items():
            wanted = sums(model, grads, key.rstrip(" 0123456789"), int(key[-1]))
            torch.testing.assert_close(score.grad, wanted, rtol=1e-9, atol=1e-14)


def test_scores_and_cuts_are_those_of_the_slow_reference() -> None:
    torch.manual_seed(0)
    model = tiny_bert(hidden_size=12, intermediate_size=10, num_attention_heads=3, **NO_DROPOUT).double()
    gate = begun(model, target_sparsity=0.8, decay=0.7, alpha=0.4)
    twin = copy.deepcopy(model)
    hand, gone = GrainByHand(twin, alpha=0.4, decay=0.7), []
    sgd = [torch.optim.SGD(one.parameters(), lr=0.5) for one in (model, twin)]
    gate.held.attach(sgd[0])
    for step in range(TOTAL):
        rows = batch(step)
        for one, optimizer in zip((model, twin), sgd, strict=True):
            optimizer.zero_grad()
            with gate.passes() if one is model else torch.enable_grad():
                terms = losses(one, rows)
                if one is model:
                    gate.differentiate(terms)
                elif not gate.settled:  # then nothing ranks any more
                    leaves = dict(one.named_parameters())
                    grads = torch.autograd.grad(terms["task"], [*leaves.values()], retain_graph=True, allow_unused=True)
                    hand.observe(importances(one, dict(zip(leaves, grads, strict=True))))
                sum(terms.values()).backward()
        gate.observe(lr=0.5)
        for optimizer in sgd:
            optimizer.step()
        gate.advance(step + 1)
        share = 0.8 * (0 if step + 1 < 4 else 1 - (1 - min((step + 1 - 4) / 10, 1)) ** 3)
        hand.drop(share)
        hand.zero()
        for (kind, layer, i), score in hand.scores.items():
            key = f"{NAMES[kind]} {layer}"
            assert gate.scores[key][i].item() == pytest.approx(score, rel=1e-8, abs=1e-15)
            assert bool(gate.left[key][i]) == ((kind, layer, i) not in hand.gone), (step, kind, layer, i)
        gone.append(len(hand.gone))
        assert gate.settled == (step + 1 >= 14)
    assert gone[2] == 0 < gone[4] < gone[9] and gone[-1] == gone[13]
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-9, atol=1e-12)
    assert gate.finish().sparsity > 0.5


@pytest.mark.parametrize("name", quick(MODELS, "bert", "albert", "deberta-v2", "modernbert", "vit"))
def test_evaluations_see_what_shrinking_leaves(name: str) -> None:
    """With ragged heads, heads without queries, and sub-layers that have lost everything."""
    states = set()
    for seed in range(5):
        model = make(name, seed)
        dense = logits(model)
        gate = scored(begun(model, target_sparsity=(0.3, 0.6, 0.8, 0.9, 0.97)[seed]), seed)
        if seed == 1 and "query-key dimension 0" in gate.scores:
            gate.scores["query-key dimension 0"].data.fill_(-1.0)  # uniform attention
        gate.advance(TOTAL)
        masks, kept = gate.finish(), gate.kept()
        states |= {one for layer in kept.layers for one in (layer.attention_state, layer.feed_forward_state)}
        pruned, small = logits(model), shrink(model, kept)
        scale = max(float(pruned.abs().max()), 1.0)
        torch.testing.assert_close(logits(small), pruned, rtol=0, atol=1e-12 * scale)
        torch.testing.assert_close(logits(masked(make(name, seed), kept)), pruned, rtol=0, atol=1e-12 * scale)
        assert not torch.equal(pruned, dense)
        masks.check(model)
        found = count(kept, gate.anatomy)
        assert gate.logs()["sparsity"] == found.sparsity
        assert gate.alive() == [bool(one.value_output.any() or one.units.any()) for one in kept.layers]
    assert states == {"alive", "bias-only"} | ({"skipped"} & states)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0, 0.99), min_size=2, max_size=4), st.integers(0, 2**20))
def test_units_go_by_parameters_and_never_return(shares: list[float], seed: int) -> None:
    """Whatever the scores are each time: as many as it takes, those that are gone counted first."""
    model = tiny_bert(hidden_size=12, intermediate_size=10, num_attention_heads=3).double()
    gate, hand = begun(model), GrainByHand(model)
    for place, share in enumerate(sorted(shares)):
        before = dict(scored(gate, seed + place).left)
        hand.scores = {unit: gate.scores[f"{NAMES[unit[0]]} {unit[1]}"][unit[2]].item() for unit in hand.scores}
        if not gate._reaches(share):
            gate._drop(share)
            gate._hold()
        hand.drop(share)
        for kind, layer, i in hand.scores:
            left = gate.left[f"{NAMES[kind]} {layer}"][i]
            assert bool(left) == ((kind, layer, i) not in hand.gone)
            assert before[f"{NAMES[kind]} {layer}"][i] or not left
        assert gate._gone == sum(hand.size(unit) for unit in hand.gone) >= share * float(gate._sizes.sum())


def test_importances_are_unscaled_and_steps_that_overflow_are_skipped() -> None:
    gates = [begun(make("bert")) for _ in range(2)]
    for gate, weight in zip(gates, (1.0, 1024.0), strict=True):
        with gate.passes(weight):
            terms = losses(gate.model, batch())
            gate.differentiate(terms, weight)
            (weight * sum(terms.values())).backward()
        gate.observe(1e-3, weight)
    one, other = (gate.scores for gate in gates)
    assert all(torch.equal(score, other[name]) and score.any() for name, score in one.items())
    before = {name: score.clone() for name, score in one.items()}
    for name, score in one.items():
        score.grad = torch.full_like(score, torch.inf if name[-1] == "1" else 1.0)
    gates[0].observe(1e-3)
    assert all(torch.equal(score, before[name]) and score.grad is None for name, score in one.items())


def test_nothing_stays_on_the_model_and_nothing_is_heard_once_units_are_final() -> None:
    model = make("bert")
    gate = begun(model)
    before = logits(model)

    def hooks() -> int:
        return sum(len(one._forward_hooks) + len(one._forward_pre_hooks) for one in model.modules())

    with gate.passes():
        model(**batch()).loss.backward()
        assert hooks() == 6 and torch.equal(logits(model), before)
    with pytest.raises(KeyError), gate.passes():
        raise KeyError
    assert not hooks()
    gate.observe(1e-3)
    gate.advance(TOTAL)
    assert gate.settled
    with gate.passes():
        assert not hooks()
        gate.differentiate({"other": torch.zeros(())})


def test_a_gate_goes_on_from_its_state() -> None:
    gate = scored(begun(make("bert")), 3)
    gate.advance(9)
    again = begun(make("bert"))
    again.begin(TOTAL, state=gate.state_dict(), step=9)
    assert again.logs() == gate.logs() and again.logs()["sparsity_units"] > 0
    for name, weight in again.weights.items():  # zeros are held at once, also where no more will come
        assert torch.equal(again.held.factor(weight), gate.held.factor(gate.weights[name]))
    for one in (gate, again):
        one.advance(12)
    assert again.masks() == gate.masks() and again.kept().tensors().keys() == Kept.all(gate.anatomy).tensors().keys()
    assert all(torch.equal(left, gate.left[name]) for name, left in again.left.items())
    with pytest.raises(InputError, match="the scores are of another model"):
        Grain(make("bert", 0).bert, schedule=RAMP).begin(TOTAL, state=begun(tiny_bert()).state_dict(), step=9)


def test_what_cannot_be_used_is_refused() -> None:
    gate = begun(make("bert"), term="labels")
    with gate.passes(), pytest.raises(InputError, match="loss's term 'labels', and the loss has task, layerwise"):
        gate.differentiate(losses(gate.model, batch()))
    with pytest.raises(InputError, match="prunes before the first step, and grain ranks by gradients"):
        begun(make("bert"), schedule="constant")
    with pytest.raises(InputError, match="has seen none but zeros"):
        begun(make("bert")).advance(TOTAL)
    begun(make("bert")).advance(9)  # a loss scaler may have skipped all steps so far
    with pytest.raises(InputError, match=r"alpha is a density, above 0, got 0\."):
        read_gate({"name": "grain", "alpha": 0})
    with pytest.raises(InputError, match="term names a term of the loss"):
        read_gate({"name": "grain", "term": 3})
    with pytest.raises(InputError, match="ReLU"):
        Grain(nn.ReLU())
    model = make("bert")
    model.bert.encoder.layer[0].output.dense.weight.requires_grad_(False)
    with pytest.raises(InputError, match="is frozen"):
        Grain(model).begin(100)
    assert STRUCTURE_GATES.read("grain").term == "task"


def test_the_page_names_every_option() -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "learned-structure.md").read_text(encoding="utf8")
    named = set(re.findall(r"^\* `(\w+)`", page.partition("## GRAIN")[2], flags=re.MULTILINE))
    assert named == STRUCTURE_GATES.options("grain").keys() - {"schedule"}
