"""Block movement: courses, penalty, floors and blocks by their formulas; what the masks empty is shrunk away."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.conftest import tiny_bert
from tests.support.block_reference import open_scores
from tests.support.gated_steps import SCORED, batches, begun, model, shaken, small
from tests.support.marks import quick
from tests.support.tiny_families import MODELS, logits, make
from trainflat.anatomy import anatomy_of
from trainflat.core.errors import InputError
from trainflat.pruning.gates import GATES, BlockMovement, FlooredThreshold, Position
from trainflat.pruning.gates.selection import SizedSelection
from trainflat.pruning.gates.units import Along, Blocks, Following
from trainflat.pruning.structured import count, shrink

QUIET: dict[str, Any] = {"deadline": None, "suppress_health_check": list(HealthCheck), "derandomize": True}
OPTIONS = {
    "seed": st.integers(0, 10**6),
    "block": st.sampled_from([1, 2, 4, 5, 32, [2, 3], [4, 12], [12, 4]]),
    "feed_forward": st.sampled_from(["dimension", "block"]),
    "biases": st.booleans(),
    "level": st.sampled_from([-1.0, -2.5, -4.0, -9.0]),
}


def gate_on(one: nn.Module, **options: Any) -> BlockMovement:
    gate = GATES.make("block-movement", one, **options)
    assert isinstance(gate, BlockMovement)
    return gate


def test_threshold_and_lambda_follow_the_published_course() -> None:
    """A warm-up of W steps, i of them at 0 and f at the end (methods of the published code, step by step)."""
    total, warmup, first, last, tau, strength = 400, 20, 1, 4, 0.1, 15.0
    schedule = {"name": "cubic", "start": first * warmup, "hold": last * warmup}
    gate = gate_on(tiny_bert(), penalty=strength, schedule=schedule)
    gate.begin(total)
    for step in range(total):
        if step <= first * warmup:
            wanted = 0.0
        elif step > total - last * warmup:
            wanted = tau
        else:
            wanted = tau - tau * (1 - (step - first * warmup) / (total - (first + last) * warmup)) ** 3
        gate.advance(step)
        cut = torch.tensor(gate.function.cut(gate.at), dtype=torch.float64)
        assert float(cut.sigmoid()) == pytest.approx(wanted, abs=1e-12)
        assert gate.pressure.strength == pytest.approx(strength * wanted / tau, abs=1e-12)
    assert gate.scheduled_quantity == ("lambda", strength)


def test_the_penalty_is_a_mean_over_each_kind_of_matrix() -> None:
    one = model()
    gate = gate_on(one, penalty=3.0, block=4, attention_weight=0.7, feed_forward_weight=0.2)
    gate.begin(10)
    shaken(gate, 10)
    attentions = [s for key, s in gate.scores.items() if "attention" in key]
    others = [s for key, s in gate.scores.items() if "attention" not in key]
    assert (len(attentions), len(others), len(others[0])) == (8, 2, 32)
    for score in gate.scores.values():
        score.grad = torch.zeros_like(score)
    gate.pressure.push(gate.scores, 0.5, lambda key: torch.empty_like(gate.scores[key]))
    for kinds, weight in ((attentions, 0.7), (others, 0.2)):
        for score in kinds:
            s = score.detach().sigmoid()
            wanted = 0.5 * 3.0 / 2 * weight / len(kinds) / score.numel() * s * (1 - s)
            torch.testing.assert_close(score.grad, wanted, rtol=1e-12, atol=0)
    free = gate_on(model(), block=4, feed_forward_weight=0.0)
    free.begin(10)
    free.advance(10)
    for score in free.scores.values():
        score.grad = torch.zeros_like(score)
    free.pressure.push(free.scores, 1.0, lambda key: torch.empty_like(free.scores[key]))
    assert {key for key, s in free.scores.items() if s.grad.any()} == {key for key in free.scores if "attention" in key}


@settings(**QUIET)
@given(
    st.lists(st.sampled_from([-5.0, -3.0, -3.0, -2.0, 0.0, 2.0]) | st.floats(-9, 3), min_size=1, max_size=700),
    st.sampled_from([0.0, 0.05, 0.1]),
)
def test_a_floor_keeps_the_highest(scores: list[float], tau: float) -> None:
    """As the published code does where no scores are equal; where they are, never fewer."""
    score, at = torch.tensor(scores, dtype=torch.float64), Position(3, 1.0, 0)
    function = FlooredThreshold(tau)
    kept = function.kept({"a": score}, at)["a"]
    assert torch.equal(kept.double(), open_scores(score, tau))
    least = int(0.005 * len(scores)) + 1
    assert int(kept.sum()) >= least
    if len(set(scores)) == len(scores) > least:
        above = torch.sigmoid(score) > tau
        if above.sum() < least:
            above = score > score.kthvalue(len(scores) - least).values
        assert torch.equal(kept, above)
    assert function.dropped({"a": score}, at) == pytest.approx(1 - float(kept.double().mean()))
    function.refresh({"a": score}, at)
    again = FlooredThreshold(tau)
    again.load_state_dict(function.state_dict(), {"a": score})
    for one in (function, again):  # also of displaced scores: what was chosen stays chosen
        assert torch.equal(one.values("a", score, at, torch.empty_like(score)), kept.double())
        if (score.sigmoid() > tau).sum() < least:
            assert torch.equal(one.values("a", score - 9, at, torch.empty_like(score)), kept.double())


@settings(**QUIET)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 5), st.integers(1, 5))
def test_blocks_of_any_size_cover_a_matrix(rows: int, columns: int, high: int, wide: int) -> None:
    blocks = Blocks((rows, columns), (high, wide))
    down, across = blocks.counts
    values = torch.arange(down * across, dtype=torch.float64).view(down, across)
    entries = torch.randn(rows, columns, dtype=torch.float64)
    spread, total = blocks.spread(values), torch.zeros(down, across, dtype=torch.float64)
    for i in range(rows):
        for j in range(columns):
            assert spread[i, j] == values[i // high, j // wide]
            total[i // high, j // wide] += entries[i, j]
    torch.testing.assert_close(blocks.collect(entries, values.shape), total)
    bias = Following(Along((rows,), 0, torch.arange(rows) // high))
    assert bias.spread(values > 0).tolist() == [bool(values[i // high].any()) for i in range(rows)]
    assert not bias.collect(torch.ones(rows), values.shape).any()


def shrunk_is_masked(name: str, seed: int, level: float, **options: Any) -> None:
    """At scores around a level; some heads are silent, some look at everything alike, some units are gone."""
    one = make(name, seed % 7)
    gate = gate_on(one, schedule={"name": "cubic", "start": 1}, **options)
    gate.begin(10)
    draws = torch.Generator().manual_seed(seed)
    for score in gate.scores.values():
        score.data.add_(level + 2 * torch.randn(score.shape, generator=draws, dtype=score.dtype))
    gate.advance(9)
    with gate.applied():
        masked, left = logits(one), gate.kept()
        if options["biases"]:
            assert_same(logits(shrink(one, left)), masked)
    masks = gate.finish()
    assert_same(logits(one), masked)
    assert all(not one.get_parameter(key)[~mask].any() for key, mask in masks.items())
    after = gate.kept()
    small = shrink(one, after)
    assert_same(logits(small), masked)
    assert all(torch.equal(a.units, b.units) for a, b in zip(left.layers, after.layers, strict=True))
    assert count(after, anatomy_of(one)).encoder <= count(left, anatomy_of(one)).encoder


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


def test_a_row_and_its_column_are_one_unit() -> None:
    one = model()
    for p in one.parameters():
        nn.init.normal_(p)
    gate = begun(one, "block-movement", SCORED["block-movement"])
    gate.scores["feed-forward unit 1"].data[[2, 5]] = -9
    gate.advance(50)
    gate.finish()
    layer = one.bert.encoder.layer[1]
    gone = torch.tensor([i in (2, 5) for i in range(32)])
    for part in (layer.intermediate.dense.weight.T, layer.intermediate.dense.bias[None], layer.output.dense.weight):
        assert torch.equal(~part.any(0), gone)
    assert layer.output.dense.bias.all()
    assert torch.equal(gate.kept().layers[1].units == 0, gone)


def test_blocks_of_output_matrices_are_turned() -> None:
    gate = gate_on(tiny_bert(), block=[8, 2])
    shapes = {key.split("layer.1.attention.")[-1]: s.shape for key, s in gate_scores(gate).items() if "layer.1" in key}
    assert shapes["self.query.weight"] == shapes["self.value.weight"] == (2, 8)
    assert shapes["output.dense.weight"] == (8, 2)


def gate_scores(gate: BlockMovement) -> dict[str, nn.Parameter]:
    gate.begin(20)
    return gate.scores


def test_evaluations_see_the_final_threshold_or_that_of_their_step() -> None:
    for evaluate, gone in (("final", True), ("now", False)):
        one = model()
        gate = begun(one, "block-movement", SCORED["block-movement"] | {"evaluate": evaluate})
        key = "bert.encoder.layer.0.attention.self.value.weight"
        gate.scores[key].data[0, 0] = -3  # sigmoid(-3) = 0.047
        gate.advance(0)
        assert gate.logs()["sparsity"] == 0
        with gate.applied():
            assert (one.get_parameter(key)[:4, :4] == 0).all() == gone
        with gate.passes():
            assert one.get_parameter(key)[:4, :4].all()
        assert not gate.settled


@pytest.mark.parametrize("own", [{"block": 3}, {"feed_forward": "block"}, {"evaluate": "now"}])
def test_the_log_counts_entries_of_matrices(own: dict[str, Any]) -> None:
    gate = begun(model(), "block-movement", SCORED["block-movement"] | own)
    shaken(gate, 45)
    masks = gate.masks()
    assert 0.1 < masks.sparsity < 0.9 and not any(name.endswith("bias") for name in masks)
    assert gate.logs()["sparsity"] == pytest.approx(masks.sparsity, abs=1e-12)


def test_whole_matrices_are_never_emptied() -> None:
    """Scores far below the threshold: one block of each matrix and one unit of each layer are left."""
    one = model()
    gate = begun(one, "block-movement", SCORED["block-movement"])
    for score in gate.scores.values():
        score.data -= 20
    gate.advance(50)
    kept = gate.kept()
    assert all(int(mask.sum()) in (16, 16 * 1) for name, mask in gate.masks().items() if "attention" in name)
    assert [int(layer.units.sum()) for layer in kept.layers] == [1, 1]
    state = gate.state_dict()
    again = gate_on(model(), **SCORED["block-movement"])
    again.begin(50, state=state, step=50)
    assert again.masks() == gate.masks()
    for name, highest in gate.function.state_dict().items():
        assert torch.equal(again.function.state_dict()[name], highest)


def test_a_training_ends_smaller() -> None:
    one = model()
    gate = begun(one, "block-movement", SCORED["block-movement"] | {"penalty": 20.0, "score_lr": 0.2})
    groups = [{"params": one.parameters()}, {"params": gate.scores.values(), **gate.score_group()}]
    adam = torch.optim.AdamW(groups, lr=1e-3)
    for step, batch in enumerate(batches(50)):
        adam.zero_grad()
        with gate.passes():
            one(**batch).loss.backward()
        adam.step()
        gate.advance(step + 1)
    gate.finish()
    small, batch = shrink(one.eval(), gate.kept()), batches(1)[0]
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in one.parameters())
    torch.testing.assert_close(small(**batch).logits, one(**batch).logits, rtol=0, atol=1e-12)


@settings(**QUIET)
@given(
    st.lists(
        st.lists(st.sampled_from([-2.0, -1.0, -1.0, 0.0, 0.5, 3.0]), min_size=1, max_size=9), min_size=1, max_size=4
    ),
    st.lists(st.integers(1, 5), min_size=36, max_size=36),
    st.floats(0, 0.99),
)
def test_a_share_of_entries_goes_unit_by_unit(scores: list[list[float]], sizes: list[int], share: float) -> None:
    named = {str(k): torch.tensor(one) for k, one in enumerate(scores)}
    drawn = iter(sizes)
    entries = {k: torch.tensor([float(next(drawn)) for _ in s], dtype=torch.float64) for k, s in named.items()}
    units = [(float(s), k, i) for k, one in named.items() for i, s in enumerate(one)]
    safe = {(k, max(range(len(one)), key=lambda i: (one[i], i))) for k, one in named.items()}  # 0.5 % of few is one
    left, gone = share * sum(float(e.sum()) for e in entries.values()), set()
    for _, k, i in sorted((u for u in units if u[1:] not in safe), key=lambda u: u[0]):  # stable: the first go
        left -= float(entries[k][i])
        if left < 0:
            break
        gone.add((k, i))
    selection = SizedSelection(entries)
    selection.refresh(named, share, "global")
    again = SizedSelection(entries)
    again.load_state_dict(selection.state_dict(), named)
    for k, one in named.items():
        wanted = [float((k, i) not in gone) for i in range(len(one))]
        assert all(s.write(k, one + 9, torch.empty_like(one)).tolist() == wanted for s in (selection, again))


def test_a_share_that_units_make_up_exactly_goes() -> None:
    chosen = SizedSelection({"a": torch.ones(4, dtype=torch.float64)}).choose(
        {"a": torch.tensor([3.0, 1.0, 2.0, 0.0])}, 0.5
    )
    assert chosen["a"].tolist() == [True, False, True, False]


def test_lambda_of_a_target_is_of_the_size_of_the_datas_gradient() -> None:
    """Averaged over all scores the penalty's slope is that mean times the control, whatever the shares."""
    gate = gate_on(
        model(), block=4, target_sparsity=0.5, feed_forward_weight=0.3, schedule={"name": "cubic", "start": 1}
    )
    gate.begin(50)
    gate.advance(40)
    for score in gate.scores.values():
        score.grad = torch.full_like(score, 0.25)
    gate.pressure.push(gate.scores, 1.0, lambda key: torch.empty_like(gate.scores[key]))
    strength, control, _, size = gate.state_dict()["penalty"].tolist()
    assert size == pytest.approx(0.25) and control == pytest.approx(10 * 0.5 * 0.986, abs=0.2)
    added = torch.cat(
        [(s.grad - 0.25).flatten() for s in gate.scores.values()]
    )  # at S = 0 the sigmoid's slope is a quarter
    assert float(added.mean()) == pytest.approx(control * 0.25, rel=1e-9) and strength > 0


def test_a_target_is_met_to_a_unit() -> None:
    one, target = model(), 0.6
    options = SCORED["block-movement"] | {"penalty": None, "target_sparsity": target, "score_lr": 0.2}
    gate = begun(one, "block-movement", options)
    total, largest = gate.masks(), max(float(e.max()) for e in gate.pressure.sizes.values())
    groups = [{"params": one.parameters()}, {"params": gate.scores.values(), **gate.score_group()}]
    adam = torch.optim.AdamW(groups, lr=1e-3)
    for step, batch in enumerate(batches(50)):
        adam.zero_grad()
        with gate.passes():
            zeros = sum(int((gate.weights[name] == 0).sum()) for name in total)
            one(**batch).loss.backward()
        assert abs(zeros / total.entries - gate.logs()["sparsity"]) < 1e-9
        adam.step()
        gate.advance(step + 1)
    assert gate.settled and gate.scheduled_quantity == ("sparsity", target)
    assert target - largest / total.entries <= gate.masks().sparsity <= target + 0.01
    assert gate.logs()["sparsity"] == pytest.approx(gate.masks().sparsity, abs=1e-12)
    state = gate.state_dict()
    again = gate_on(model(), **options)
    again.begin(50, state=state, step=50)
    assert again.masks() == gate.masks() and again.pressure.state_dict().keys() == gate.pressure.state_dict().keys()


def test_a_target_that_cannot_be_reached_is_refused() -> None:
    """Of 16 x 16 matrices in blocks of 4 one of 16 stays, of 32 units one: 8 of 16 and 2 of 32 parts."""
    least = (8 * 16 + 2 * 32) / (8 * 256 + 2 * 1024)
    for call in (
        lambda: gate_on(model(), block=4, target_sparsity=0.96).begin(50),
        lambda: BlockMovement.check_model(
            GATES.read({"name": "block-movement", "block": 4, "target_sparsity": 0.96}), model()
        ),
    ):
        with pytest.raises(InputError, match=rf"0\.96 cannot be reached: .* {least:.2%} .* Ask for 0\.9531 at most"):
            call()
    gate_on(model(), block=4, target_sparsity=0.9531).begin(50)


def test_a_model_of_unknown_structure_is_cut_into_blocks() -> None:
    gate = gate_on(small(), block=4)
    gate.begin(20)
    assert {key: tuple(s.shape) for key, s in gate.scores.items()} == {"0.weight": (3, 3), "2.weight": (1, 3)}
    gate.advance(20)
    gate.finish()
    with pytest.raises(InputError, match="structure of 'Sequential' is not known"):
        gate.kept()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"block": 0}, "block is a number of rows and columns, such as 32, or both: [32, 16]; got 0."),
        ({"block": [4, 4, 4]}, "or both: [32, 16]; got [4, 4, 4]."),
        ({"block": True}, "got True."),
        ({"feed_forward": "row"}, "no feed_forward is called 'row'"),
        ({"evaluate": "later"}, "no evaluate is called 'later'"),
        ({"penalty": -1}, "penalty is a number, at least 0, got -1"),
        ({"threshold": 0.5}, "in (0, 0.5), got 0.5"),
        ({"penalty": 1.0, "target_sparsity": 0.9}, "Give one of the two"),
        ({"biases": 1}, "biases is true or false, got 1."),
        ({"unit": "row"}, "no option of gate 'block-movement' is called 'unit'"),
    ],
)
def test_bad_options_are_refused_in_one_line(options: dict[str, Any], text: str) -> None:
    with pytest.raises(InputError) as caught:
        GATES.read({"name": "block-movement", **options})
    assert text in str(caught.value) and "\n" not in str(caught.value)


def test_options_are_written_as_a_recipe_has_them() -> None:
    read = GATES.read({"name": "block-movement", "block": [32, 16]})
    assert read.dump()["block"] == [32, 16] and GATES.read(read.dump() | {"name": "block-movement"}).block == (32, 16)
    assert "unit" not in read.dump()
    assert replace(Position(1, 0.5, 0), share=1.0).share == 1
