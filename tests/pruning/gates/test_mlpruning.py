"""MLPruning: counts by learned ratios, the published size and penalty, and what of it can be taken out."""

import math
from typing import Any

import pytest
import torch
import transformers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.support.gated_steps import SCORED, batches, begun, model, shaken, small
from tests.support.marks import quick
from tests.support.tiny_families import MODELS, logits, make
from trainflat.anatomy import anatomy_of
from trainflat.core.errors import InputError
from trainflat.pruning.gates import GATES, MLPruning
from trainflat.pruning.structured import count, shrink

QUIET: dict[str, Any] = {"deadline": None, "suppress_health_check": list(HealthCheck), "derandomize": True}
LATE = {"name": "linear", "start": 1}


def gate_on(one: nn.Module, **options: Any) -> MLPruning:
    gate = GATES.make("mlpruning", one, **{"target_sparsity": 0.0} | options)  # tiny models cannot lose much
    assert isinstance(gate, MLPruning)
    return gate


def set_ratios(gate: MLPruning, ratio: Any) -> None:
    for name, theta in gate.keep.ratios.items():
        share = ratio(name)
        theta.data.fill_(math.log(share / (1 - share)))


def published_size(heads: float, outputs: float, units: float, last: float) -> float:
    """Of one layer of BERT-base, in the published code's numbers, over 12."""
    a, o = max(heads, 1 / 12), max(outputs, 1 / 768)
    f, g = max(units, 1 / 3072), max(last, 1 / 768)
    return (3 * a + a * o + 4 * f + 4 * f * g) / 12


@pytest.mark.parametrize("shares", [(0.5, 0.3, 0.25, 0.8), (0.01, 1e-4, 1e-4, 1e-4), (0.999, 0.999, 0.999, 0.999)])
def test_the_size_is_the_published_one(shares: tuple[float, ...]) -> None:
    with torch.device("meta"):
        bert = transformers.BertModel(transformers.BertConfig(num_hidden_layers=2))
    gate = gate_on(bert)
    kinds = ("head", "attention output", "feed-forward unit", "feed-forward output")
    given = {
        f"{kind} {n}": torch.tensor(s, dtype=torch.float64) for kind, s in zip(kinds, shares, strict=True) for n in "01"
    }
    assert gate.units.keys() == given.keys()
    assert float(gate.pressure.size.of(given)) == pytest.approx(published_size(*shares), rel=1e-12)
    assert [gate.units[f"{kind} 1"].shape for kind in kinds] == [(12,), (768,), (3072,), (768,)]


def test_everything_is_kept_at_first() -> None:
    gate = gate_on(model())
    gate.begin(10)
    assert gate.masks().zeros == 0 and gate.logs()["sparsity"] == 0
    assert {float(theta.detach()) for theta in gate.keep.ratios.values()} == {10.0}
    assert gate.scores.keys() == {*gate.units, *(f"ratio {name}" for name in gate.units)}


@settings(**QUIET)
@given(st.floats(-12, 12), st.lists(st.integers(-3, 3), min_size=1, max_size=60))
def test_the_highest_scores_are_open(theta: float, scores: list[int]) -> None:
    gate = gate_on(nn.Linear(2, len(scores)).double())
    gate.begin(5)
    gate.keep.ratios["weight"].data.fill_(theta)
    gate.scores["weight"].data.copy_(torch.tensor(scores))
    wanted = math.ceil(len(scores) / (1 + math.exp(-theta)))
    order = sorted(range(len(scores)), key=lambda i: (scores[i], i))[-wanted:]
    rows = gate.masks()["weight"].all(1)
    assert set(rows.nonzero().flatten().tolist()) == set(order) and len(order) >= 1
    assert gate.logs()["sparsity"] == pytest.approx(1 - wanted / len(scores))


def test_what_is_dropped_is_what_the_size_says() -> None:
    one = model()
    gate = begun(one, "mlpruning", SCORED["mlpruning"])
    shaken(gate, 30)
    assert gate.logs()["sparsity"] == pytest.approx(gate.masks().sparsity, abs=1e-12)
    gate.finish()
    zeros = {name: int((one.get_parameter(name) == 0).sum()) for name in gate.masks()}
    assert sum(zeros.values()) == gate.masks().zeros > 0
    blocks = begun(model(), "mlpruning", SCORED["mlpruning"] | {"level": "block", "block": 5})
    shaken(blocks, 30)
    assert not any(name.endswith("bias") for name in blocks.weights)
    assert blocks.logs()["sparsity"] == pytest.approx(blocks.masks().sparsity, abs=0.05)  # blocks at edges are smaller


def test_the_penalty_stops_at_the_target_and_grows_with_the_distance() -> None:
    """In closed form: d/dtheta of lambda (R - t)^2 of a single matrix, where R is sigmoid(theta)."""
    for share, wanted in ((0.9, max(20.0 * 0.4**2 / 0.5**2, 50.0)), (0.51, 10.0), (0.4, 10.0)):
        one = nn.Linear(3, 1000, bias=False).double()
        gate = gate_on(one, target_sparsity=0.5, penalty=20.0)
        gate.begin(10)
        set_ratios(gate, lambda name, share=share: share)
        gate.scores["weight"].grad = torch.zeros(1000, dtype=torch.float64)
        gate.pressure.push(gate.scores, 0.25, gate.scores.__getitem__)
        pull = 0.25 * wanted * 2 * max(share - 0.5, 0) * share * (1 - share)
        assert float(gate.keep.ratios["weight"].grad) == pytest.approx(pull, rel=1e-10)
        assert gate.logs()["penalty"] == wanted
    strong = gate_on(one, target_sparsity=0.5, penalty=20000.0)
    strong.begin(10)
    strong.scores["weight"].grad = torch.zeros(1000, dtype=torch.float64)
    strong.pressure.push(strong.scores, 1.0, strong.scores.__getitem__)
    assert strong.logs()["penalty"] == pytest.approx(20000.0, rel=1e-3)  # everything is kept: (1 - t)^2 / (1 - t)^2


def test_a_ratio_learns_from_the_open_units() -> None:
    gate = begun(model(), "mlpruning", SCORED["mlpruning"] | {"penalty": 0.0, "target_sparsity": 0.0})
    set_ratios(gate, lambda name: 0.4)
    for key in gate.units:
        gate.scores[key].grad = torch.arange(gate.scores[key].numel(), dtype=torch.float64)
    gate.pressure.push(gate.scores, 1.0, gate.scores.__getitem__)
    for key, theta in gate.keep.ratios.items():
        n = gate.scores[key].numel()
        assert float(theta.grad) == sum(range(n - math.ceil(0.4 * n), n))  # equal scores: the last are open


OPTIONS = {
    "seed": st.integers(0, 10**6),
    "level": st.sampled_from(["structure", "structure", "block"]),
    "block": st.sampled_from([2, 5, 32]),
    "share": st.sampled_from([0.05, 0.3, 0.7]),
}


def shrunk_is_masked(name: str, seed: int, share: float, **options: Any) -> None:
    one = make(name, seed % 7)
    gate = gate_on(one, schedule=LATE, **options)
    gate.begin(10)
    draws = torch.Generator().manual_seed(seed)
    for key in gate.keep.ratios:
        gate.scores[key].data.normal_(generator=draws)
    set_ratios(gate, lambda name: min(max(share + 0.3 * (float(torch.rand(1, generator=draws)) - 0.5), 0.01), 0.99))
    gate.advance(9)
    with gate.applied():
        masked = logits(one)
        if options["level"] == "structure":
            assert_same(logits(shrink(one, gate.kept())), masked)
    gate.finish()
    assert_same(logits(one), masked)
    after = gate.kept()
    assert_same(logits(shrink(one, after)), masked)
    if options["level"] == "structure":
        layers = anatomy_of(one).layers
        for layer, own in zip(layers, after.layers, strict=True):
            suffix = "" if layer.number is None else f" {layer.number}"
            assert len(own.kept_heads()) == gate.keep.count(f"head{suffix}", len(own.heads))
            assert int(own.units.sum()) == gate.keep.count(f"feed-forward unit{suffix}", len(own.units))
        assert count(after, anatomy_of(one)).sparsity > 0


def assert_same(found: Tensor, expected: Tensor) -> None:
    assert float((found - expected).abs().max()) <= 1e-12 * max(float(expected.abs().max()), 1.0)


@pytest.mark.parametrize("name", quick(MODELS, "bert", "mpnet", "albert", "modernbert", "vit"))
@settings(max_examples=3, **QUIET)
@given(**OPTIONS)
def test_shrunk_is_masked(name: str, **drawn: Any) -> None:
    shrunk_is_masked(name, **drawn)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=60, **QUIET)
@given(**OPTIONS)
def test_shrunk_is_masked_on_many_patterns(name: str, **drawn: Any) -> None:
    shrunk_is_masked(name, **drawn)


def test_a_training_ends_at_its_target() -> None:
    one = model()
    gate = begun(one, "mlpruning", {"target_sparsity": 0.6, "first_ratio": 2.0, "score_lr": 0.1})
    groups = [{"params": one.parameters()}, {"params": gate.scores.values(), **gate.score_group()}]
    adam = torch.optim.AdamW(groups, lr=1e-3)
    for step, batch in enumerate(batches(50)):
        adam.zero_grad()
        with gate.passes():
            one(**batch).loss.backward()
        adam.step()
        gate.advance(step + 1)
    assert gate.settled and gate.masks().sparsity == pytest.approx(0.6, abs=0.1)
    gate.finish()
    smaller = shrink(one.eval(), gate.kept())
    second = begun(smaller, "mlpruning", {"target_sparsity": 0.4, "level": "block", "block": 4, "first_ratio": 2.0})
    assert second.logs()["sparsity"] < 0.2 and len(second.keep.ratios) == 12
    batch = batches(1)[0]
    torch.testing.assert_close(smaller(**batch).logits, one(**batch).logits, rtol=0, atol=1e-12)


def test_a_target_that_cannot_be_reached_is_refused() -> None:
    with pytest.raises(InputError, match=r"target_sparsity 0\.9 cannot be reached: .* Ask for 0\.8002 at most"):
        gate_on(model(), target_sparsity=0.9).begin(50)  # one of two heads stays
    gate_on(model(), target_sparsity=0.7).begin(50)


def test_of_unknown_structure_rows_are_units() -> None:
    gate = gate_on(small())
    gate.begin(20)
    assert {key: tuple(s.shape) for key, s in gate.scores.items() if "ratio" not in key} == {
        "0.weight": (10,),
        "2.weight": (4,),
    }


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"target_sparsity": 1.0}, "target_sparsity is the share of weights to drop, in [0, 1), got 1.0"),
        ({"level": "head"}, "no level is called 'head'"),
        ({"block": 0}, "block is a number of rows and columns, at least 1, got 0"),
        ({"penalty": -1}, "penalty is a number, at least 0, got -1"),
        ({"first_ratio": "high"}, "first_ratio is a number, got 'high'"),
    ],
)
def test_bad_options_are_refused_in_one_line(options: dict[str, Any], text: str) -> None:
    with pytest.raises(InputError) as caught:
        GATES.read({"name": "mlpruning", **options})
    assert text in str(caught.value) and "\n" not in str(caught.value)
