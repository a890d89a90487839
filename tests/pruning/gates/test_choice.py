"""Which weights a gate keeps: against a plain sort, with ties; who may come back; what is refused."""

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.conftest import tiny_bert
from tests.support.gated_reference import top
from tests.support.gated_steps import on_noise, small
from tests.support.gated_structure import TRAINED
from trainflat.core.errors import InputError, UnknownName
from trainflat.pruning.gates import GATES, STRUCTURE_GATES, GradualPruner, HardMovement, read_gate
from trainflat.pruning.gates.selection import Selection
from trainflat.pruning.keys import Keys, Magnitudes
from trainflat.pruning.scores import Score, ScoreInputs

RAMP = {"name": "cubic", "start": 4, "hold": 4}
HELD = sorted(name for name in GATES if issubclass(GATES[name], GradualPruner))
values = st.lists(st.sampled_from([-2.0, -0.5, -0.0, 0.0, 0.25, 0.5, 1.0, 3.0]), min_size=1, max_size=40)
numbers = st.lists(st.floats(-(2.0**60), 2.0**60, width=32), min_size=1, max_size=40)


@given(
    st.lists(st.one_of(values, numbers), min_size=1, max_size=4),
    st.floats(0, 0.99),
    st.sampled_from(["layer", "global"]),
)
def test_a_threshold_keeps_what_a_sort_keeps(scores: list[list[float]], sparsity: float, scope: Any) -> None:
    named = {str(k): torch.tensor(one) for k, one in enumerate(scores)}
    threshold = Selection()
    threshold.refresh(named, sparsity, scope)
    expected = top(named, sparsity, scope)
    restored = Selection()
    restored.load_state_dict(threshold.state_dict(), named)
    for name, score in named.items():
        assert torch.equal(threshold.write(name, score, torch.empty_like(score)).bool(), expected[name])
        assert torch.equal(restored.write(name, score, torch.empty_like(score)).bool(), expected[name])


@given(numbers, st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]), st.booleans())
def test_a_key_tells_its_score(scores: list[float], dtype: torch.dtype, absolute: bool) -> None:
    tensor = torch.tensor(scores).to(dtype)
    keys = Keys(Magnitudes({"a": tensor}) if absolute else {"a": tensor})
    found = [keys.value(int(key)) for key in keys.read(keys.pieces()[0], keys.scratch(), check=False)]
    assert found == (tensor.abs() if absolute else tensor).double().tolist()


def test_between_refreshes_the_threshold_stays() -> None:
    scores = {"a": torch.tensor([0.0, 1.0, 2.0, 3.0])}
    threshold = Selection()
    threshold.refresh(scores, 0.5, "layer")
    scores["a"][0] = 1.5
    assert threshold.write("a", scores["a"], torch.empty(4)).tolist() == [1, 0, 1, 1]


def trained(gate: Any, model: nn.Module, steps: int, lr: float = 0.05) -> list[dict[str, Tensor]]:
    """The masks after every step of a training on noise."""
    gate.begin(steps, seed=1, objective=on_noise(model))
    groups = [{"params": model.parameters()}, *([{"params": gate.scores.values(), "lr": 0.2}] if gate.scores else [])]
    optimizer = torch.optim.AdamW(groups, lr=lr)
    attached = gate.held.attach(optimizer) if gate.held is not None else None
    generator, masks = torch.Generator().manual_seed(3), []
    for step in range(steps):
        optimizer.zero_grad()
        with gate.passes():
            model(torch.randn(16, 12, generator=generator)).square().mean().backward()
        gate.observe(lr)
        optimizer.step()
        gate.advance(step + 1)
        masks.append(dict(gate.masks().items()))
    gate.finish()
    if attached is not None:
        attached.remove()
    return masks


@pytest.mark.parametrize("name", HELD)
@pytest.mark.parametrize("scope", ["layer", "global"])
def test_a_zero_of_a_held_gate_never_comes_back(name: str, scope: str) -> None:
    model = small()
    own = {"temperature": 1} if GATES[name].needs_weights else {}
    gate = GATES.make(name, model, sparsity=0.75, scope=scope, schedule=RAMP, every=3, **own)
    masks = trained(gate, model, 24)
    for before, after in itertools.pairwise(masks):
        assert all(not (after[name] & ~before[name]).any() for name in after)
    assert gate.masks().zeros == sum(round(0.75 * n) for n in (120, 40))
    gate.masks().check(model)
    assert all((w != 0).sum() == gate.masks()[n].sum() for n, w in gate.weights.items())


class Fickle(Score):
    """Thinks anew of every weight at every choice."""

    choices = 0

    def values(self, inputs: ScoreInputs) -> dict[str, Tensor]:
        self.choices += 1
        generator = torch.Generator().manual_seed(self.choices)
        return {name: torch.rand(w.shape, generator=generator) for name, w in inputs.weights.items()}


def test_zeros_stay_also_where_the_importance_changes() -> None:
    model = small()
    masks = trained(GradualPruner(model, sparsity=0.75, schedule="linear", every=1, score=Fickle()), model, 8)
    assert all(not (after[n] & ~before[n]).any() for before, after in itertools.pairwise(masks) for n in after)


def test_a_weight_can_come_back_in_movement() -> None:
    model = small()
    masks = trained(GATES.make("hard-movement", model, sparsity=0.6, refresh=1, schedule=RAMP), model, 40)
    assert any((after[n] & ~before[n]).any() for before, after in itertools.pairwise(masks) for n in after)


@pytest.mark.parametrize("name", ["soft-movement", "l0"])
def test_a_weight_that_wants_to_grow_comes_back(name: str) -> None:
    model = nn.Linear(2, 1, bias=False)
    nn.init.constant_(model.weight, 0.5)
    gate = GATES.make(name, model, penalty=0.0, schedule="constant")
    gate.begin(20)
    gate.scores["weight"].data.copy_(torch.tensor([[-2.5, 3.0]]))
    assert gate.masks()["weight"].tolist() == [[False, True]]
    optimizer = torch.optim.Adam(gate.scores.values(), lr=0.2)
    for step in range(19):
        optimizer.zero_grad()
        with gate.passes():
            (model(torch.ones(1, 2)) - 5).square().sum().backward()
        optimizer.step()
        gate.advance(step + 1)
    assert gate.masks()["weight"].all()


def test_a_weight_that_is_gated_away_rests() -> None:
    model = small()
    gate = HardMovement(model, sparsity=0.5, schedule={"name": "constant", "start": 1}, refresh=1)
    gate.begin(10)
    gate.advance(1)
    with gate.passes():
        zero = {n: w == 0 for n, w in gate.weights.items()}
        model(torch.ones(2, 12)).sum().backward()
    for name, weight in gate.weights.items():
        assert zero[name].sum() == weight.numel() // 2 and not (weight == 0).any()
        assert weight.grad is not None and not weight.grad[zero[name]].any()


def test_magnitude_takes_the_smallest_of_what_training_made() -> None:
    model = small()
    gate = GATES.make("magnitude", model, sparsity=0.5, schedule="linear", every=1)
    gate.begin(4)
    nn.init.uniform_(model[0].weight)
    expected = top({n: w.detach().abs() for n, w in gate.weights.items()}, 0.125, "layer")
    gate.advance(1)
    assert all(torch.equal(gate.masks()[name], mask) for name, mask in expected.items())


@pytest.mark.parametrize("name", ["soft-movement", "l0"])
@pytest.mark.parametrize("target", [0.5, 0.9])
def test_a_penalty_is_tuned_to_the_target(name: str, target: float) -> None:
    model = small()
    gate = GATES.make(name, model, target_sparsity=target, schedule={"name": "cubic", "start": 0.1, "hold": 0.3})
    trained(gate, model, 120)
    assert gate.masks().sparsity == pytest.approx(target, abs=0.01) and gate.settled
    assert all((w != 0).sum() <= gate.masks()[n].sum() for n, w in gate.weights.items())


def test_a_pass_is_as_sparse_as_the_schedule_while_the_penalty_moves_all_scores() -> None:
    model = small()
    gate = GATES.make(
        "soft-movement", model, target_sparsity=0.9, schedule={"name": "cubic", "start": 0.1, "hold": 0.3}
    )
    gate.begin(120)
    optimizer = torch.optim.AdamW([{"params": model.parameters()}, {"params": gate.scores.values(), "lr": 0.2}], 0.05)
    for step in range(120):
        optimizer.zero_grad()
        with gate.passes():
            zeros = sum(int((w == 0).sum()) for w in gate.weights.values())
            model(torch.randn(16, 12)).square().mean().backward()
        assert zeros == round(160 * gate.logs()["sparsity"])
        optimizer.step()
        gate.advance(step + 1)
    assert zeros == 144


def test_more_penalty_is_more_sparsity() -> None:
    reached = []
    for penalty in (0.0, 0.05, 50.0):
        model = small()
        gate = GATES.make("soft-movement", model, penalty=penalty, schedule=RAMP)
        trained(gate, model, 60)
        reached.append(gate.masks().sparsity)
    assert reached[0] < reached[1] < reached[2]


def test_draws_are_those_of_the_step() -> None:
    gate = GATES.make("l0", small())
    gate.begin(10, seed=3)

    def noise() -> Tensor:
        return gate.function.noise("0.weight", gate.scores["0.weight"], gate.at)

    one = noise()
    assert torch.equal(one, noise()) and one.min() > 0 and one.max() < 1
    gate.advance(1)
    assert not torch.equal(one, noise())


@pytest.mark.parametrize(
    ("name", "options", "text"),
    [
        ("magnitud", {}, "no gate is called 'magnitud'. Did you mean 'magnitude'?"),
        ("magnitude", {"model": 1}, "no option of gate 'magnitude' is called 'model'"),
        ("magnitude", {"sparsity": 1.0}, "sparsity is the share of weights to drop, in [0, 1), got 1.0"),
        ("magnitude", {"scope": "block"}, "no scope is called 'block'"),
        ("magnitude", {"every": 0}, "every is a whole number of optimizer steps, at least 1, got 0"),
        ("hard-movement", {"refresh": 1.5}, "refresh is a whole number of optimizer steps, at least 1, got 1.5"),
        ("hard-movement", {"unit": "head"}, "no unit is called 'head'"),
        ("hard-movement", {"perturb": "all"}, "no perturb is called 'all'"),
        ("hard-movement", {"score_lr": -1}, "score_lr is a number, at least 0, got -1"),
        ("soft-movement", {"penalty": -1.0}, "penalty is a number, at least 0, got -1.0"),
        ("soft-movement", {"threshold": 0.7}, "in (0, 0.5), got 0.7"),
        ("l0", {"penalty": 1.0, "target_sparsity": 0.9}, "Give one of the two"),
    ],
)
def test_bad_options_are_refused_in_one_line(name: str, options: dict[str, Any], text: str) -> None:
    with pytest.raises((InputError, UnknownName)) as caught:
        GATES.read({"name": name, **options}).section()
    assert text in str(caught.value) and "\n" not in str(caught.value)


def test_a_target_has_a_way_to_go() -> None:
    """All scores begin alike: of those dropped at once only their order in the model would decide."""
    assert GATES.read({"name": "l0", "target_sparsity": 0.9}).section()["schedule"]["name"] == "cubic"
    assert GATES.read({"name": "l0"}).section()["schedule"]["name"] == "constant"
    late = {"name": "constant", "start": 1}
    for name, target in (
        ("soft-movement", "target_sparsity"),
        ("l0", "target_sparsity"),
        ("hard-movement", "sparsity"),
    ):
        for schedule in ("constant", "step"):
            with pytest.raises(InputError, match=r"sparsity 0\.9 before the first step, and all scores begin alike"):
                GATES.make(name, small(), schedule=schedule, **{target: 0.9}).begin(20)
        GATES.make(name, small(), schedule=late, **{target: 0.9}).begin(20)


@pytest.mark.parametrize("name", GATES)
def test_what_does_not_fit_the_run_is_refused_before_it(name: str) -> None:
    late = {"schedule": {"name": "cubic", "start": 8, "hold": 4}}
    with pytest.raises(
        InputError, match="the schedule holds 8 steps at its start and 4 at its end, and the run has 12"
    ):
        GATES.make(name, small(), **late).begin(12)
    with pytest.raises(InputError, match="ReLU has no prunable weights"):
        GATES.make(name, nn.ReLU()).begin(12)
    frozen = small()
    frozen[0].weight.requires_grad_(False)
    with pytest.raises(InputError, match=r"0\.weight is frozen"):
        GATES.make(name, frozen).begin(12)
    sharded = small()
    sharded[0].weight = nn.Parameter(torch.zeros(120))
    with pytest.raises(InputError, match=r"0\.weight is sharded, as FSDP does it"):
        GATES.make(name, sharded).begin(12)


@pytest.mark.parametrize("name", ["magnitude", "hard-movement", "soft-movement"])
def test_a_target_below_the_sparsity_that_is_there_is_refused(name: str) -> None:
    model = small()
    nn.init.zeros_(model[0].weight)
    key = "target_sparsity" if name == "soft-movement" else "sparsity"
    with pytest.raises(InputError, match=r"sparsity 0.5 is below the 0.7500 of the weights that are zero already"):
        GATES.make(name, model, **{key: 0.5}).begin(20)


@pytest.mark.parametrize("name", [*GATES, *STRUCTURE_GATES])
def test_the_state_of_another_model_is_refused(name: str) -> None:
    bert, other = tiny_bert(), tiny_bert(num_attention_heads=4, intermediate_size=24) if name in TRAINED else small()
    settings = read_gate(TRAINED.get(name, name))
    gate = settings.build(bert)
    gate.begin(200, objective=on_noise(bert))
    with pytest.raises(InputError, match=r"of another model: .* differs. Resume with the same model."):
        settings.build(other).begin(200, state=gate.state_dict(), step=3, objective=on_noise(other))


@pytest.mark.parametrize("name", STRUCTURE_GATES)
def test_what_a_gate_of_a_structure_cannot_train_is_refused(name: str) -> None:
    settings, bert = read_gate(TRAINED[name]), tiny_bert()
    with pytest.raises(InputError, match="the schedule holds 3 steps at its start and 5 at its end, and the run has 7"):
        settings.build(bert).begin(7)
    frozen = bert.bert.encoder.layer[0].output.dense.weight.requires_grad_(False)
    for refuse in (lambda: settings.build(bert).begin(12), lambda: settings.member.check_model(settings, bert)):
        with pytest.raises(InputError, match=r"layer\.0\.output\.dense\.weight is frozen, so that no gate can learn"):
            refuse()
    frozen.requires_grad_(True)
    settings.member.check_model(settings, bert)


def test_blocks_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match=r"0\.weight of 10 by 12 cannot be cut into blocks of 32 by 32"):
        GATES.make("hard-movement", small(), unit="block").begin(20)
