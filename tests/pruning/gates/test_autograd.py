"""Every gate is plain autograd through ``W * m(S)``, in float64."""

import copy
from typing import Any

import pytest
import torch

from tests.support.gated_reference import ByHand, train_by_hand
from tests.support.gated_steps import RAMP, SCORED, assert_same, batches, begun, model, shaken
from tests.support.marks import quick
from tests.support.plain_loop import collate, random_split
from trainflat.core.errors import InputError
from trainflat.optim import SAM
from trainflat.pruning.gates import GATES, LearnedMask

WEIGHTS = [*SCORED.items(), ("hard-movement", SCORED["hard-movement"] | {"scope": "global"})]
UNITS = [(name, {"unit": unit}) for name in SCORED if "unit" in GATES.options(name) for unit in ("row", "column")]
UNITS += [("block-movement", one) for one in ({"feed_forward": "block"}, {"block": [3, 5]}, {"biases": False})]
UNITS += [("mlpruning", one) for one in ({"level": "block", "block": 5}, {"penalty": 20000.0}, {"first_ratio": -7.0})]
CASES = WEIGHTS + [(name, SCORED[name] | own) for name, own in UNITS]


def test_every_gate_with_scores_is_compared() -> None:
    assert {name for name in GATES if issubclass(GATES[name], LearnedMask)} == set(SCORED)


@pytest.mark.parametrize(("name", "options"), CASES)
def test_gradients_are_those_of_autograd(name: str, options: dict[str, Any]) -> None:
    ours = model()
    theirs = copy.deepcopy(ours)
    gate = begun(ours, name, options)
    shaken(gate, 30)
    assert 0 < gate.masks().sparsity < 0.95
    hand, [batch] = ByHand(theirs, gate), batches(1)
    hand.loss(batch).backward()
    before = [p.detach().clone() for p in ours.parameters()]
    with gate.passes():
        assert any(not torch.equal(p, q) for p, q in zip(ours.parameters(), before, strict=True))
        ours(**batch).loss.backward()
    assert all(torch.equal(p, q) for p, q in zip(ours.parameters(), before, strict=True))
    assert_same([p.grad for p in ours.parameters()], [p.grad for p in theirs.parameters()], 1e-14)
    assert_same([s.grad for s in gate.scores.values()], [s.grad for s in hand.scores.values()], 1e-14)


def test_blocks_of_weights_share_a_score() -> None:
    ours = model(hidden_size=32, intermediate_size=64)
    theirs = copy.deepcopy(ours)
    gate = begun(ours, "hard-movement", SCORED["hard-movement"] | {"unit": "block", "scope": "global"})
    shaken(gate, 30)
    hand, [batch] = ByHand(theirs, gate), batches(1)
    hand.loss(batch).backward()
    with gate.passes():
        ours(**batch).loss.backward()
    assert_same([s.grad for s in gate.scores.values()], [s.grad for s in hand.scores.values()], 1e-14)
    mask = gate.masks()["bert.encoder.layer.0.intermediate.dense.weight"]
    assert mask[:32].any() != mask[32:].any() or mask[:32].all() == mask[:32].any()


LONG = [*WEIGHTS, ("hard-movement", SCORED["hard-movement"] | {"unit": "row"})]


@pytest.mark.parametrize("case", quick(LONG, *WEIGHTS[: len(SCORED)]))
def test_fifty_steps_of_adam_are_those_of_autograd(case: tuple[str, dict[str, Any]]) -> None:
    name, options = case
    ours = model()
    theirs = copy.deepcopy(ours)
    gate = begun(ours, name, options)
    twin = begun(theirs, name, options)  # tells the other one the step and its draws
    shaken(gate, 0)
    shaken(twin, 0)
    hand = ByHand(theirs, twin)
    other = torch.optim.Adam(
        [{"params": theirs.parameters()}, {"params": hand.scores.values(), "lr": gate.score_lr}], lr=1e-3
    )
    train_by_hand(hand, batches(), other, twin.advance)
    optimizer = torch.optim.Adam(
        [{"params": ours.parameters()}, {"params": gate.scores.values(), "lr": gate.score_lr}], lr=1e-3
    )
    for step, batch in enumerate(batches()):
        optimizer.zero_grad()
        with gate.passes():
            ours(**batch).loss.backward()
        optimizer.step()
        gate.advance(step + 1)
    assert_same([*ours.parameters()], [*theirs.parameters()], 1e-9)
    assert_same([*gate.scores.values()], [*hand.scores.values()], 1e-9)
    assert 0 < gate.masks().sparsity < 1


@pytest.mark.parametrize("perturb", ["weights", "scores", "both", "none"])
@pytest.mark.parametrize("name", SCORED)
def test_sam_displaces_what_it_is_told_to(name: str, perturb: str) -> None:
    """The second gradient is autograd's at the displaced weights and scores, thresholds and draws held."""
    rho, [batch] = 0.5, batches(1)
    ours = model()
    theirs = copy.deepcopy(ours)
    options = SCORED[name] | ({"refresh": 16} if name == "hard-movement" else {})
    gate = begun(ours, name, options)
    shaken(gate, 32)
    hand = ByHand(theirs, gate)
    moved = {
        "weights": [*theirs.parameters()],
        "scores": [*hand.scores.values()],
        "both": hand.parameters(),
        "none": [],
    }
    hand.loss(batch).backward()
    grads = [p.grad.clone() for p in moved[perturb]]
    norm = torch.stack([g.norm() for g in grads]).norm() if grads else torch.ones(())
    origin = copy.deepcopy([p.detach() for p in hand.parameters()])
    if name == "hard-movement":  # Top_v by the threshold that stood before
        kept = gate.pressure.kept(gate.scores, gate.at)
        cuts = {n: s.detach()[~kept[n]].max() for n, s in hand.scores.items()}
    with torch.no_grad():
        for p, g in zip(moved[perturb], grads, strict=True):
            p.add_(rho * g / norm)
    for p in hand.parameters():
        p.grad = None
    if name == "hard-movement":
        factors = {n: (s > cuts[n]) + s - s.detach() for n, s in hand.scores.items()}
        gated = {n: w * factors[n] for n, w in hand.weights.items()}
        torch.func.functional_call(theirs, gated, kwargs=batch).loss.backward()
    else:
        hand.loss(batch).backward()

    still = {"rho": 0.0}
    groups = [
        {"params": ours.parameters(), **(still if perturb in ("scores", "none") else {})},
        {"params": gate.scores.values(), **(still if perturb in ("weights", "none") else {})},
    ]
    sam = SAM(groups, torch.optim.SGD, rho=rho, lr=0.1)
    with gate.passes():
        ours(**batch).loss.backward()
    with sam.perturbed():
        sam.zero_grad()
        with gate.passes():
            ours(**batch).loss.backward()
    assert_same([p.grad for p in ours.parameters()], [p.grad for p in theirs.parameters()], 1e-13)
    assert_same([s.grad for s in gate.scores.values()], [s.grad for s in hand.scores.values()], 1e-13)
    for p, before in zip([*ours.parameters(), *gate.scores.values()], origin, strict=True):
        assert torch.equal(p, before)


def test_an_exception_inside_leaves_the_weights_as_they_were() -> None:
    ours = model()
    gate = begun(ours, "hard-movement", SCORED["hard-movement"])
    shaken(gate, 40)
    before = [p.detach().clone() for p in ours.parameters()]
    with pytest.raises(KeyboardInterrupt), gate.passes():
        raise KeyboardInterrupt
    assert all(torch.equal(p, q) for p, q in zip(ours.parameters(), before, strict=True))
    with pytest.raises(KeyboardInterrupt), gate.applied():
        raise KeyboardInterrupt
    assert all(torch.equal(p, q) for p, q in zip(ours.parameters(), before, strict=True))
    [batch] = batches(1)
    with gate.passes():
        ours(**batch).loss.backward()


def test_what_is_applied_twice_is_taken_away_once() -> None:
    gate = begun(model(), "hard-movement", SCORED["hard-movement"])
    gate.advance(gate.total_steps)
    before = {name: w.clone() for name, w in gate.weights.items()}
    with gate.applied():
        with gate.applied():
            inside = {name: w.clone() for name, w in gate.weights.items()}
        assert all(torch.equal(w, inside[name]) for name, w in gate.weights.items())
    assert all(torch.equal(w, before[name]) and not torch.equal(w, inside[name]) for name, w in gate.weights.items())
    with pytest.raises(InputError, match=r"applied\(\) was called inside passes\(\)"), gate.passes(), gate.applied():
        pass
    assert all(torch.equal(w, before[name]) for name, w in gate.weights.items())


@pytest.mark.parametrize("name", SCORED)
def test_gradients_of_micro_batches_add_up(name: str) -> None:
    """Closed once for each micro-batch, which ends in what one pass over both makes."""
    grads = []
    for parts in (1, 2):
        ours = model()
        gate = begun(ours, name, SCORED[name])
        shaken(gate, 30)
        split = random_split(8)
        for part in range(parts):
            rows = [split[i] for i in range(part * 8 // parts, (part + 1) * 8 // parts)]
            with gate.passes(1 / parts):
                (ours(**collate(rows)).loss / parts).backward()
        grads.append([p.grad for p in [*ours.parameters(), *gate.scores.values()]])
    assert_same(*grads, 1e-14)


@pytest.mark.parametrize("name", ["soft-movement", "l0", "block-movement"])
def test_a_target_measures_each_micro_batch_alone(name: str) -> None:
    """What tunes lambda is the mean size of the data's gradient, without that of earlier micro-batches."""
    sizes, [batch] = [], batches(1)
    for parts in (1, 4):
        ours = model()
        gate = begun(ours, name, {"target_sparsity": 0.4, "schedule": RAMP})
        shaken(gate, 30)
        for _ in range(parts):
            with gate.passes(1 / parts):
                (ours(**batch).loss / parts).backward()
        sizes.append(gate.state_dict()["penalty"][-1])
    torch.testing.assert_close(*sizes, rtol=1e-12, atol=0)
