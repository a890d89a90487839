"""Gates on activations: against autograd through a masked copy, closed forms and Monte-Carlo means, in float64."""

import copy
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

from tests.support.gated_structure import SHORT, TOTAL, begun, reference, size_by_hand, values_by_hand
from tests.support.marks import quick
from tests.support.masked import masked
from tests.support.tiny_families import MODELS, logits, make
from trainflat.anatomy import anatomy_of
from trainflat.core.errors import InputError
from trainflat.optim import SAM
from trainflat.pruning.gates import STRUCTURE_GATES, CoFi, ExpectedSize, HardConcrete, Lagrangian
from trainflat.pruning.gates.activations import norm_over_kept
from trainflat.pruning.gates.cofi import CoFiGates
from trainflat.pruning.structured import count, shrink

PRE_NORM = ("modernbert", "vit")
CASES = [(name, True) for name in MODELS if name not in PRE_NORM] + [(name, False) for name in MODELS]
BOTH = pytest.mark.parametrize("hidden", [True, False], ids=["hidden", "whole width"])


def batch(seed: int) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, 24, (4, 6), generator=draw)
    return {"input_ids": ids, "labels": torch.randint(0, 2, (4,), generator=draw)}


def base(hidden_layers: int = 12) -> Any:
    with torch.device("meta"):
        return anatomy_of(transformers.BertModel(transformers.BertConfig(num_hidden_layers=hidden_layers)))


# What the model computes


@pytest.mark.parametrize("case", quick(CASES, ("bert", True), ("albert", True), ("vit", False)), ids=str)
def test_evaluations_see_what_shrinking_leaves(case: tuple[str, bool]) -> None:
    """With soft factors, sub-layers that are skipped, and such without a head that add their bias."""
    (name, hidden), states = case, set()
    for seed in range(6):
        model = make(name, seed)
        before = logits(model)
        gate = begun(model, seed=seed, hidden=hidden)
        if seed == 3:
            gate.scores["head 0"].data.fill_(-4.0)
            gate.scores["attention sub-layer 0"].data.fill_(4.0)
        kept = gate.kept()
        states |= {one for layer in kept.layers for one in (layer.attention_state, layer.feed_forward_state)}
        with gate.applied(), gate.applied():
            gated = logits(model)
        scale = max(float(gated.abs().max()), 1.0)
        for other in (shrink(model, kept), masked(model, kept)):
            torch.testing.assert_close(logits(other), gated, rtol=0, atol=1e-12 * scale)
        assert torch.equal(logits(model), before) and not torch.equal(gated, before)
        assert gate.finish() is None and torch.equal(logits(model), before)
    assert states == {"alive", "bias-only", "skipped"}


@BOTH
def test_gradients_of_every_draw_are_those_of_autograd(hidden: bool) -> None:
    """Two micro-batches, of which each has a draw of its own; sub-layers are skipped in some."""
    closed = set()
    for seed in range(4):
        ours = make("bert", seed)
        gate = begun(ours, seed=seed, hidden=hidden)
        gate.pressure.multipliers.data.copy_(torch.tensor([0.3, 7.0]))
        scores = {name: s.detach().clone().requires_grad_() for name, s in gate.scores.items()}
        total, shared = torch.zeros(()).double(), dict(ours.named_parameters())
        for k in range(2):
            values = values_by_hand(gate, scores, k)
            theirs = reference(ours, values)
            closed |= {name for name, z in values.items() if "sub-layer" in name and z == 0}
            loss = torch.func.functional_call(theirs, shared, kwargs=batch(k)).loss
            total = total + 0.25 * loss
        chances = {name: (s - HardConcrete.shift).sigmoid() for name, s in scores.items()}
        dense = count(gate.kept(), gate.activations.anatomy).cofi_dense
        multipliers = gate.pressure.multipliers.detach().clone().requires_grad_()
        gap = 1 - size_by_hand(gate.activations.anatomy, chances, hidden=hidden) / dense - gate.pressure.wanted
        total = total + 2.0 * (multipliers[0] * gap + multipliers[1] * gap**2)
        expected = torch.autograd.grad(total, [*scores.values(), multipliers, *shared.values()], allow_unused=True)
        with gate.passes(2.0):
            for k in range(2):
                (0.25 * ours(**batch(k)).loss).backward()
        found = [*gate.scores.values(), gate.pressure.multipliers, *ours.parameters()]
        for one, other in zip(found, expected, strict=True):
            wanted = torch.zeros_like(one) if other is None else other  # a LayerNorm that is skipped
            torch.testing.assert_close(one.grad, wanted, rtol=1e-9, atol=1e-13)
        assert gate.pressure.wanted == pytest.approx(0.95 * 6 / 16)
    assert closed


def test_the_second_pass_of_sam_sees_the_same_draws_at_displaced_weights() -> None:
    ours, rho = make("bert"), 0.1
    gate = begun(ours)
    values = values_by_hand(gate, {name: s.detach().clone().requires_grad_() for name, s in gate.scores.items()}, 0)
    theirs = reference(ours, values)
    theirs(**batch(0)).loss.backward(retain_graph=True)
    moved = [p for p in theirs.parameters() if p.grad is not None]
    norm = torch.stack([p.grad.norm() for p in moved]).norm()
    with torch.no_grad():
        for p in moved:
            p.add_(rho * p.grad / norm)
    theirs.zero_grad()
    theirs(**batch(0)).loss.backward(retain_graph=True)

    groups = [
        {"params": ours.parameters()},
        *({**g, "params": [p for _, p in g["params"]]} for g in gate.param_groups()),
    ]
    sam = SAM(groups, torch.optim.AdamW, rho=rho, lr=1e-3)
    with gate.passes():
        ours(**batch(0)).loss.backward()
    first = {name: score.grad.clone() for name, score in gate.scores.items()}
    scores = {name: score.detach().clone() for name, score in gate.scores.items()}
    with sam.perturbed():
        sam.zero_grad()
        assert all(torch.equal(score, scores[name]) for name, score in gate.scores.items())
        with gate.passes():
            ours(**batch(0)).loss.backward()
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        wanted = torch.zeros_like(p) if q.grad is None else q.grad
        torch.testing.assert_close(p.grad, wanted, rtol=1e-9, atol=1e-13)
    assert any(not torch.equal(score.grad, first[name]) for name, score in gate.scores.items())
    sam.step()
    gap = float(gate.pressure.size.sparsity(gate.pressure.chances(scores))[0]) - gate.pressure.wanted
    one, two = gate.pressure.multipliers.tolist()  # a step of Adam, upwards
    assert one == pytest.approx(math.copysign(0.2, gap), rel=1e-4) and two == pytest.approx(0.2, rel=1e-4)


def test_draws_follow_seed_step_and_micro_batch() -> None:
    model = make("bert")
    gate = begun(model)
    seen: list[dict[str, Tensor]] = []

    def heard() -> list[dict[str, Tensor]]:
        seen.clear()
        with gate.passes():
            for k in range(3):
                model(**batch(k))
                seen.append({name: z.detach().clone() for name, z in gate._current().values.items()})
        return copy.deepcopy(seen)

    first, again = heard(), heard()
    for one, other in zip(first, again, strict=True):
        assert all(torch.equal(z, other[name]) for name, z in one.items())
    for k in (1, 2):
        assert any(not torch.equal(z, first[k][name]) for name, z in first[0].items())
    with gate.passes(), torch.no_grad():  # as ESAM compares rows: the draw of the pass with a graph
        model(**batch(0))
        assert all(torch.equal(z, first[0][name]) for name, z in gate._current().values.items())
    gate.advance(11)
    assert any(not torch.equal(z, first[0][name]) for name, z in heard()[0].items())
    other = begun(make("bert"), step=10, seed=6)
    other.scores = gate.scores
    with other.passes():
        other.model(**batch(0))
        assert any(not torch.equal(z, first[0][name]) for name, z in other._current().values.items())


def test_nothing_stays_on_the_model() -> None:
    model = make("bert")
    gate = begun(model)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    with gate.passes():
        model(**batch(0)).loss.backward()
        assert hooks(model)
    with pytest.raises(KeyError), gate.passes():
        model(**batch(0)).loss.backward()
        raise KeyError
    with gate.applied():
        assert hooks(model)
    assert not hooks(model)
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    with gate.passes(), pytest.raises(InputError, match=r"applied\(\) was called inside passes\(\)"), gate.applied():
        pass


def hooks(model: nn.Module) -> int:
    return sum(len(one._forward_hooks) + len(one._forward_pre_hooks) for one in model.modules())


def test_a_layer_is_alive_if_either_sub_layer_is() -> None:
    model = make("bert")
    gate = begun(model)
    for name, number in (
        ("attention sub-layer 0", -4),
        ("feed-forward sub-layer 0", -4),
        ("attention sub-layer 1", -4),
    ):
        gate.scores[name].data.fill_(number)
    gate.scores["feed-forward sub-layer 1"].data.fill_(4)
    assert gate.alive() == [True, True]  # nothing is drawn
    with gate.applied():
        assert gate.alive() == [False, True]
    found = set()
    for step in range(10, 30):
        gate.step = step
        with gate.passes():
            model(**batch(0))
            found.add(tuple(gate.alive()))
            z = gate._current().values
            assert gate.alive() == [
                bool(z[f"attention sub-layer {i}"] != 0 or z[f"feed-forward sub-layer {i}"] != 0) for i in range(2)
            ]
    assert (False, True) in found


def test_a_layer_norm_over_kept_dimensions_is_one_of_a_gathered_row() -> None:
    torch.manual_seed(0)
    norm = nn.LayerNorm(8, eps=0.3).double()
    nn.init.normal_(norm.weight), nn.init.normal_(norm.bias)
    for kept in (8, 5, 1):
        factors = torch.rand(8).double().index_fill(0, torch.randperm(8)[kept:], 0.0).requires_grad_()
        rows = (torch.randn(3, 8).double() * (factors != 0)).requires_grad_()
        index = factors.nonzero().flatten()
        x = rows[:, index]
        y = (x - x.mean(1, keepdim=True)) / (x.var(1, correction=0, keepdim=True) + 0.3).sqrt()
        slow = torch.zeros(3, 8).double().index_copy(1, index, (y * norm.weight[index] + norm.bias[index]))
        pull = torch.randn(3, 8).double()
        wanted = torch.autograd.grad((slow * factors * pull).sum(), [rows, factors, norm.weight, norm.bias])
        fast = norm_over_kept(rows, factors, kept, norm)
        found = torch.autograd.grad((fast * pull).sum(), [rows, factors, norm.weight, norm.bias])
        torch.testing.assert_close(fast, slow * factors, rtol=1e-13, atol=1e-14)
        inside = (factors != 0).double()  # what else gets a gradient was multiplied by 0, and drawn where z' is 0
        for one, other, of_x in zip(found, wanted, (True, True, False, False), strict=True):
            torch.testing.assert_close(one * inside if of_x else one, other, rtol=1e-11, atol=1e-13)


# First values, bounds and the phase without gates


def test_scores_begin_as_published_and_are_bounded_after_every_step() -> None:
    model = make("bert")
    for init, units in (("published", 0.0), ("mild", 10.0)):
        gate = CoFi(model, init=init, **SHORT)
        gate.begin(TOTAL)
        for name, score in gate.scores.items():
            mean = units if name.startswith("feed-forward unit") else 10.0
            assert (score - mean).abs().max() < 0.05 and score.std(correction=0) < 0.03
            assert score.numel() == 1 or score.unique().numel() > 1
        gate.advance(1)  # a dense step
        assert not gate.on
        for name, score in gate.scores.items():
            highest = math.log(100) if units == 10 or not name.startswith("feed-forward unit") else 0.05
            assert score.max() <= highest + 1e-12 and (highest != math.log(100) or (score == highest).all())
    with torch.no_grad():
        gate.scores["head 0"].fill_(-9)
    gate.advance(2)
    assert (gate.scores["head 0"] == -math.log(100)).all()


def test_without_gates_the_model_is_itself_and_nothing_is_learned() -> None:
    model = make("bert")
    gate = begun(model, step=3)
    whole = logits(model)
    with gate.passes():
        assert not hooks(model)
        model(**batch(0)).loss.backward()
    assert all(score.grad is None for score in gate.scores.values()) and gate.pressure.multipliers.grad is None
    with gate.applied():
        assert torch.equal(logits(model), whole)
    assert gate.logs() == {"sparsity": 0.0} and gate.alive() == [True, True] and not gate.settled
    gate.advance(4)
    assert gate.on and gate.pressure.wanted == 0
    with gate.passes():
        model(**batch(0)).loss.backward()
    assert gate.pressure.multipliers.grad is not None


def test_the_dense_phase_is_a_share_of_the_epochs() -> None:
    for steps in (1000, 4000):
        gate = CoFi(make("bert"))
        gate.begin(steps * 20)
        assert gate.dense_steps == steps
        gate.step = steps + steps  # the target has risen half of its way, over two epochs
        gate.pressure.advance({}, gate.at, torch.empty_like)
        assert gate.pressure.wanted == pytest.approx(0.95 / 2)


# Expected size


def test_sizes_of_bert_base_are_cofis() -> None:
    anatomy = base()
    ones = {f"head {i}": torch.ones(12).double() for i in range(12)}
    ones |= {f"feed-forward unit {i}": torch.ones(3072).double() for i in range(12)}
    for kind in ("attention", "feed-forward"):
        ones |= {f"{kind} sub-layer {i}": torch.ones(1).double() for i in range(12)}
    whole, with_hidden = (ExpectedSize(anatomy, hidden=hidden) for hidden in (False, True))
    assert whole.dense == with_hidden.dense == 85_017_600
    assert {part.each for part in whole.parts} == {196_864, 1_537}
    assert {round(part.each, 2) for part in with_hidden.parts} == {256.33, 2}
    assert float(whole.sparsity(ones)[0]) == pytest.approx(12 * 768 / 85_017_600)  # the biases behind the units
    ones["hidden dimension"] = torch.ones(768).double()
    assert 1 - float(with_hidden.sparsity(ones)[0]) == pytest.approx(0.99946, abs=1e-5)
    # At the first gated step of the published initial values, after scores of 10 were bounded.
    start = {name: (1.0 if not name.startswith("feed-forward unit") else 0.0) for name in ones}
    scores = {name: torch.full((len(ones[name]),), 4.60517 if high else 0.0) for name, high in start.items()}
    pressure = Lagrangian(HardConcrete(0.0), 0.95, with_hidden)
    assert float(with_hidden.sparsity(pressure.chances(scores))[0]) == pytest.approx(0.116, abs=2e-3)
    chances = {score: float((torch.tensor(score) + 1.5986).sigmoid()) for score in (4.605, 0.0, -1.5986, -4.605)}
    assert [round(p, 3) for p in chances.values()] == [0.998, 0.832, 0.5, 0.047]


@BOTH
def test_expected_sizes_and_slopes_are_those_of_a_slow_sum(hidden: bool) -> None:
    gate = begun(make("bert"), hidden=hidden)
    anatomy = gate.activations.anatomy
    chances = {name: p.requires_grad_() for name, p in gate.pressure.chances(gate.scores).items()}
    slow = 1 - size_by_hand(anatomy, chances, hidden=hidden) / gate.pressure.size.dense
    wanted = torch.autograd.grad(slow, [*chances.values()])
    found, slopes = gate.pressure.size.sparsity({name: p.detach() for name, p in chances.items()})
    assert float(found) == pytest.approx(float(slow.detach()), rel=1e-13)
    for name, one in zip(chances, wanted, strict=True):
        torch.testing.assert_close(slopes[name], one, rtol=1e-12, atol=1e-18)


@BOTH
def test_expected_sizes_are_means_over_draws(hidden: bool) -> None:
    gate = begun(make("bert"), hidden=hidden)
    sizes = []
    for k in range(1000):
        drawn = {name: (gate._drawn(name, k, score) != 0).double() for name, score in gate.scores.items()}
        sizes.append(gate.pressure.size.sparsity(drawn)[0])
    found, error = torch.cat(sizes).mean(), torch.cat(sizes).std() / len(sizes) ** 0.5
    expected = gate.pressure.size.sparsity(gate.pressure.chances(gate.scores))[0]
    assert abs(float(found - expected)) < 4 * float(error)


def test_what_is_counted_is_what_is_left() -> None:
    gate = begun(make("bert"), spread=3.0)
    kept, anatomy = gate.kept(), gate.activations.anatomy
    small = shrink(gate.model, kept)
    left = sum(p.numel() for p in small.bert.encoder.parameters())
    dense = sum(p.numel() for p in gate.model.bert.encoder.parameters())
    assert gate.logs()["sparsity"] == pytest.approx(1 - left / dense)
    with_values = {name: (z != 0).double() for name, z in gate.deterministic().items()}
    entries = count(kept, anatomy).cofi  # no biases
    slow = 0
    for place, layer in enumerate(anatomy.layers):
        size = layer.attention.head_size
        heads = with_values[f"head {place}"].sum() * with_values[f"attention sub-layer {place}"]
        units = with_values[f"feed-forward unit {place}"].sum() * with_values[f"feed-forward sub-layer {place}"]
        slow += with_values["hidden dimension"].sum() * (heads * 4 * size + units * 2)
    assert entries == int(slow)


# Deterministic gates


def test_as_many_gates_close_as_are_expected_to_and_the_others_stay_soft() -> None:
    function, shift = CoFiGates(10.0), HardConcrete.shift
    draw = torch.Generator().manual_seed(0)
    for size in (1, 12, 100):
        for _ in range(20):
            score = 3 * torch.randn(size, generator=draw, dtype=torch.float64)
            values = function.final(score)
            open_ = [1 / (1 + math.exp(-(s + 1.5986))) for s in score.tolist()]
            gone = round(size - sum(open_))
            order = sorted(range(size), key=lambda i: score[i])
            assert set((values == 0).nonzero().flatten().tolist()) == set(order[:gone])
            for i in order[gone:]:
                assert float(values[i]) == pytest.approx(1 / (1 + math.exp(-1.2 * float(score[i]))))
    assert float(function.final(torch.tensor([4.60517]))) == pytest.approx(0.996, abs=1e-3)
    exactly_half = torch.tensor([shift], dtype=torch.float64)
    assert function.final(exactly_half) > 0 and function.final(exactly_half - 1e-9) == 0
    ties = function.final(torch.tensor([-1.5986, -1.5986, -1.5986, -1.5986]))
    assert (ties == 0).tolist() == [True, True, False, False]


def test_one_hidden_dimension_is_left_whatever_its_score() -> None:
    gate = begun(make("bert"))
    gate.scores["hidden dimension"].data.fill_(-4.6).index_fill_(0, torch.tensor(7), -4.5)
    assert gate.kept().hidden.nonzero().flatten().tolist() == [7]
    with gate.applied():
        gated = logits(gate.model)
    torch.testing.assert_close(logits(shrink(gate.model, gate.kept())), gated, rtol=0, atol=1e-12)
    for score in gate.scores.values():
        score.data.fill_(-4.6)
    with gate.passes():  # draws in which nothing is left
        for k in range(5):
            loss = gate.model(**batch(k)).loss
            loss.backward()
            assert torch.isfinite(loss)
    assert all(torch.isfinite(p.grad).all() for p in gate.model.parameters() if p.grad is not None)


# The Lagrangian


@pytest.mark.parametrize("target", quick([0.6, 0.8, 0.95], 0.95))
def test_the_target_is_reached_within_the_schedule(target: float) -> None:
    """At the published rates, against a data term that wants every gate open."""
    model, steps = make("bert"), 3000
    gate = CoFi(model, target_sparsity=target, schedule={"name": "linear", "start": 0.04, "hold": 0.66})
    gate.begin(steps)
    groups = [{**group, "params": [p for _, p in group["params"]]} for group in gate.param_groups()]
    optimizer = torch.optim.AdamW(groups)
    last = []
    for step in range(steps):
        if gate.on:
            optimizer.zero_grad()
            for score in gate.scores.values():
                score.grad = -1e-3 * (1 - score.sigmoid()) / score.numel()
            gate.pressure.push(gate.scores, 1.0, gate._scratch)
            optimizer.step()
        gate.advance(step + 1)
        if step > 0.8 * steps:
            last.append(float(gate.pressure.size.sparsity(gate.pressure.chances(gate.scores))[0]))
    assert sum(last) / len(last) == pytest.approx(target, abs=0.01)
    assert gate.pressure.multipliers[1] > 0


def test_a_resumed_gate_draws_and_pushes_alike() -> None:
    model = make("bert")
    gate = begun(model)
    gate.pressure.multipliers.data.copy_(torch.tensor([0.3, 2.0]))
    again = CoFi(model, **SHORT)
    again.begin(TOTAL, seed=5, state=gate.state_dict(), step=10)
    found = []
    for one in (gate, again):
        with one.passes():
            model(**batch(0)).loss.backward()
        found.append([p.grad for p in (*one.scores.values(), one.pressure.multipliers)])
        model.zero_grad()
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))
    assert again.logs() == gate.logs()


def test_the_best_must_be_small_enough_as_it_would_be_shrunk() -> None:
    gate = begun(make("bert"), step=25, target_sparsity=0.5)
    for score in gate.scores.values():
        score.data.fill_(4.6)
    assert not gate.settled
    for place in range(2):
        gate.scores[f"feed-forward sub-layer {place}"].data.fill_(-4.6)
    size = count(gate.kept(), gate.activations.anatomy).sparsity
    gate.pressure.target = size + 0.009
    assert gate.settled
    gate.pressure.target = size + 0.011
    assert not gate.settled
    gate.pressure.target = size
    gate.step = 19  # the target is still on its way
    assert not gate.settled


# Refusals


def test_what_cannot_be_gated_is_refused_in_one_line() -> None:
    with pytest.raises(InputError, match=r"ModernBERT cannot be gated: its LayerNorms stand before .* hidden: false"):
        CoFi(make("modernbert"))
    positions = {"relative_attention": True, "position_biased_input": False, "pos_att_type": ["c2p"]}
    sizes: dict[str, Any] = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    deberta = transformers.DebertaV2Model(transformers.DebertaV2Config(vocab_size=9, **sizes, **positions))
    with pytest.raises(InputError, match=r"no LayerNorm follows encoder\.rel_embeddings. Set hidden: false"):
        CoFi(deberta)
    CoFi(deberta, hidden=False)
    tied = transformers.BertForMaskedLM(transformers.BertConfig(vocab_size=9, **sizes))
    with pytest.raises(InputError, match="tied to the word embeddings"):
        CoFi(tied, **SHORT).begin(TOTAL)
    with pytest.raises(InputError, match=r"target_sparsity 0\.999 is more than the 0\.997\d that the gates"):
        CoFi(make("bert"), target_sparsity=0.999, hidden=False, **SHORT).begin(TOTAL)
    with pytest.raises(InputError, match="ReLU"):
        CoFi(nn.ReLU())


def test_a_target_that_scores_cannot_follow_is_refused() -> None:
    model, schedule = make("bert"), {"name": "linear", "start": 100, "hold": 1000}
    with pytest.raises(InputError, match=r"rises within 620 steps, and at score_lr 0\.01 .* 621 from open to closed"):
        CoFi(model, schedule=schedule).begin(1720)
    CoFi(model, schedule=schedule).begin(1721)
    with pytest.raises(InputError, match=r"or set score_lr to 0\.063\."):
        CoFi(model, schedule=schedule).begin(1200)
    CoFi(model, schedule=schedule, score_lr=0.063).begin(1200)
    with pytest.raises(InputError, match="the schedule holds 100 steps"):
        CoFi(model, schedule=schedule).begin(900)
    settings: Any = {"score_lr": 0.0, "schedule": schedule}
    with pytest.raises(InputError, match="infinitely many"):
        CoFi(model, **settings).begin(9000)


def test_the_example_of_the_page_runs(capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "learned-structure.md").read_text(encoding="utf8")
    page = page.partition("## GRAIN")[0]
    [code] = re.findall(r"^```python\n(.*?)^```", page, flags=re.DOTALL | re.MULTILINE)
    names: dict[str, Any] = {}
    exec(code, names)  # noqa: S102
    assert "of the layers' parameters are gone" in capsys.readouterr().out
    listed = "".join(line for line in page.splitlines(True) if line.startswith("* "))
    assert STRUCTURE_GATES.options("cofi").keys() <= set(re.findall(r"`(\w+)(?:: \w+)?`", listed))
