"""Gates that rank by gradients: against plain Python, closed forms, and the one-shot methods."""

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.conftest import tiny_bert
from tests.support.gated_steps import on_noise, small
from tests.support.gated_training import RAMP, trained
from tests.support.training import ADAMW, NO_DROPOUT, arguments
from trainflat.core.errors import InputError
from trainflat.objective import Objective
from trainflat.protocols.gradual import Gradual
from trainflat.pruning import GradientNormPruner, GraspPruner
from trainflat.pruning.gates import (
    GATES,
    PINS,
    Gate,
    GradualGradientNorm,
    GradualLossPreservation,
)
from trainflat.pruning.scores import ScoreInputs
from trainflat.training import FlatTrainer

STEPS = 50
CUBIC = {"name": "cubic", "start": 5, "hold": 8}
SIZES = {"0.weight": 120, "2.weight": 40}


class Smoothed:
    """The mean of |θ g| or |θ² g| of one weight."""

    def __init__(self, beta: float, biased: bool) -> None:
        self.beta, self.power, self.score = beta, 2 if biased else 1, 0.0

    def step(self, theta: float, g: float, lr: float) -> None:
        self.score = self.beta * self.score + (1 - self.beta) * abs(theta**self.power * g)


class Uncertain:
    """PINS of one weight."""

    def __init__(self, window: int, beta1: float, beta2: float) -> None:
        self.window, self.beta1, self.beta2 = window, beta1, beta2
        self.steps: list[float] = []
        self.mean = self.uncertainty = 0.0
        self.complete = False

    def step(self, theta: float, g: float, lr: float) -> None:
        self.steps.append(abs(-theta * g + lr * g * g))
        if len(self.steps) == self.window:
            found = sum(self.steps) / self.window
            self.mean = self.beta1 * self.mean + (1 - self.beta1) * found
            self.uncertainty = self.beta2 * self.uncertainty + (1 - self.beta2) * abs(found - self.mean)
            self.steps, self.complete = [], True

    @property
    def score(self) -> float:
        return self.mean * self.uncertainty if self.complete else sum(self.steps)


def pruned_by_hand(marks: dict[str, list[Any]], gone: set[Any], sparsity: float, scope: str) -> set[Any]:
    """Which weights are gone, by sorting them one by one; those that were gone go first."""
    pools = [list(marks)] if scope == "global" else [[name] for name in marks]
    for names in pools:
        all_of_them = [(name, k) for name in names for k in range(len(marks[name]))]
        order = sorted(all_of_them, key=lambda at: (at not in gone, marks[at[0]][at[1]].score))
        gone = gone | set(order[: round(sparsity * len(order))])
    return gone


@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize(
    ("name", "options", "mark"),
    [
        ("pins", {"every": 3}, lambda: Uncertain(10, 0.85, 0.99)),
        ("pins", {"every": 4, "window": 4, "beta1": 0.3, "beta2": 0.6}, lambda: Uncertain(4, 0.3, 0.6)),
        ("loss-preservation", {"every": 3}, lambda: Smoothed(0.99, False)),
        ("loss-preservation", {"every": 1, "beta": 0.5, "biased": True}, lambda: Smoothed(0.5, True)),
    ],
)
def test_the_choices_are_those_of_plain_python(name: str, options: dict[str, Any], mark: Any, scope: str) -> None:
    """Also when resumed halfway, and whatever a loss scaler multiplies by."""
    model, dice = small().double(), random.Random(7)
    gate = GATES.make(name, model, sparsity=0.8, scope=scope, schedule=CUBIC, **options)
    gate.begin(STEPS)
    marks = {key: [mark() for _ in range(size)] for key, size in SIZES.items()}
    gone: set[Any] = set()
    for step in range(STEPS):
        lr, scale = dice.uniform(0.01, 2.0), 2.0 ** dice.randrange(8)
        for key, weight in gate.weights.items():
            values = [(dice.gauss(0, 1), dice.gauss(0, 0.3)) for _ in range(SIZES[key])]
            weight.data.copy_(torch.tensor([theta for theta, _ in values]).view(weight.shape))
            weight.grad = torch.tensor([g * scale for _, g in values], dtype=weight.dtype).view(weight.shape)
            read = zip(weight.flatten().tolist(), weight.grad.flatten().tolist(), strict=True)
            for one, (theta, g) in zip(marks[key], read, strict=True):
                one.step(theta, g / scale, lr)
        gate.observe(lr, scale)
        gate.advance(step + 1)
        wanted = gate.schedule.value(step + 1, STEPS, 0.0, 0.8)
        if (step + 1) % options["every"] == 0 or step + 1 == STEPS - 8:
            gone = pruned_by_hand(marks, gone, wanted, scope)
        assert dropped(gate) == gone, step
        if step == 23:
            state = {key: tensor.clone() for key, tensor in gate.state_dict().items()}
            gate = GATES.make(name, model, sparsity=0.8, scope=scope, schedule=CUBIC, **options)
            gate.begin(STEPS, state=state, step=24)
    assert len(gone) == sum(round(0.8 * n) for n in SIZES.values())


def dropped(gate: Gate) -> set[Any]:
    return {(name, int(k)) for name, mask in gate.masks().items() for k in (~mask).flatten().nonzero()}


def test_pins_in_closed_form() -> None:
    """A constant gradient: after n windows Ī = (1 - β1ⁿ) I and U is the average of β1ᵏ I."""
    weight, g, lr = torch.tensor([[2.0, -1.0]]).double(), torch.tensor([[0.5, 3.0]]).double(), 0.1
    model = nn.Linear(2, 1, bias=False).double()
    model.weight.data.copy_(weight)
    model.weight.grad = g.clone()
    gate = PINS(model, sparsity=0.5, schedule={"name": "linear", "start": 35})
    gate.begin(50)
    for _ in range(30):
        gate.observe(lr)
    score = (-weight * g + lr * g.square()).abs()
    far = 0.01 * (0.99**2 * 0.85 + 0.99 * 0.85**2 + 0.85**3)
    exact: dict[str, Any] = {"rtol": 1e-14, "atol": 0}
    torch.testing.assert_close(gate.score.memory["importance"]["weight"], (1 - 0.85**3) * score, **exact)
    torch.testing.assert_close(gate.score.memory["uncertainty"]["weight"], far * score, rtol=1e-13, atol=0)
    ranked = gate.score.values(ScoreInputs(gate.weights))
    torch.testing.assert_close(ranked["weight"].square(), (1 - 0.85**3) * far * score**2, rtol=1e-13, atol=0)


def bowl(model: nn.Module, curvature: Tensor) -> Objective:
    rows = [{"h": curvature[None]}]
    return Objective(model, rows, loss=lambda model, batch: (model.weight.square() * batch["h"][0]).sum() / 2)


@pytest.mark.parametrize(
    ("name", "kept"), [("gradient-norm", [[False, False, False, True]]), ("grasp", [[False, True, False, False]])]
)
def test_the_norm_of_the_gradient_in_closed_form(name: str, kept: list[list[bool]]) -> None:
    """L = Σ h θ² / 2 + 2 sin θ₄: θ·Hg is h² θ² = 4, 9, 1, and -4 θ₄ sin θ₄ cos θ₄ = -18.3."""
    model = nn.Linear(4, 1, bias=False).double()
    model.weight.data.copy_(torch.tensor([[2.0, -1.0, 1.0, 10.0]]))

    def loss(model: Any, batch: Any) -> Tensor:
        (theta,), (h,) = model.weight, batch["h"]
        return (theta[:3].square() * h).sum() / 2 + 2 * theta[3].sin()

    gate = GATES.make(name, model, sparsity=0.75, schedule="linear", every=1, temperature=1)
    gate.begin(3, objective=Objective(model, [{"h": torch.tensor([[1.0, 3.0, 1.0]]).double()}], loss=loss))
    for step in range(3):
        gate.advance(step + 1)
    assert gate.masks()["weight"].tolist() == kept


@pytest.mark.parametrize(("name", "pruner"), [("grasp", GraspPruner), ("gradient-norm", GradientNormPruner)])
def test_a_choice_is_the_one_shot_methods_at_this_moment(name: str, pruner: Any) -> None:
    model = small().double()
    objective = Objective(
        model,
        [{"x": torch.randn(8, 12, generator=torch.Generator().manual_seed(k)).double()} for k in range(2)],
        loss=lambda model, batch: model(batch["x"]).square().mean(),
    )
    gate = GATES.make(name, model, sparsity=0.8, scope="global", schedule="linear", every=2, temperature=1)
    gate.begin(8, objective=objective)
    for step in range(8):
        before = gate.masks()
        with torch.no_grad():
            for weight in model.parameters():
                weight.mul_(1.1).add_(0.01)
        before.apply_(model)
        if step % 2:
            given: Any = {"scope": "global", "masks": before, "objective": objective, "temperature": 1}
            before = pruner(model, sparsity=0.1 * (step + 1), **given).select()
        gate.advance(step + 1)
        assert gate.masks() == before


def test_a_step_that_a_loss_scaler_skips_is_not_remembered() -> None:
    model = small()
    gate = GradualLossPreservation(model, sparsity=0.5, schedule=RAMP, every=1)
    gate.begin(12)
    for value in (float("inf"), float("nan")):
        for weight in gate.weights.values():
            weight.grad = torch.ones_like(weight)
        gate.weights["2.weight"].grad[0, 0] = value  # type: ignore[index]
        gate.observe(0.1, 1024.0)
    assert gate.score.seen == 0 and not any(t.any() for t in gate.score.memory["mean"].values())
    gate.advance(4)
    assert gate.masks().zeros == 0  # it waits
    gate.weights["2.weight"].grad[0, 0] = 1.0  # type: ignore[index]
    gate.observe(0.1, 1024.0)
    gate.advance(5)
    assert gate.masks().zeros > 0


def test_the_trainer_shows_the_gradients_before_they_are_clipped(tmp_path: Path, monkeypatch: Any) -> None:
    seen: list[tuple[float, float]] = []

    class Watch(PINS):
        def observe(self, lr: float, weight: float = 1.0) -> None:
            norm = torch.stack([p.grad.norm() for p in self.model.parameters() if p.grad is not None]).norm()
            seen.append((lr, norm.item() / weight))
            super().observe(lr, weight)

    monkeypatch.setitem(GATES._members, "pins", Watch)
    gate = {"name": "pins", "sparsity": 0.5, "schedule": RAMP}
    model = tiny_bert(**NO_DROPOUT).double()
    trainer = trained(tmp_path, ADAMW, gate, model=model, max_grad_norm=1e-3)
    logged = [e["grad_norm"] for e in trainer.state.log_history if "grad_norm" in e]
    assert [norm for _, norm in seen] == pytest.approx(logged, rel=1e-6) and min(logged) > 1e-3
    assert [lr for lr, _ in seen] == pytest.approx([1e-3 * (1 - k / 12) for k in range(12)])


@pytest.mark.parametrize(
    ("name", "options", "text"),
    [
        ("pins", {"window": 0}, "window is a whole number of optimizer steps, at least 1, got 0"),
        ("pins", {"beta1": 1.0}, "beta1 is the share that an average keeps of itself, in [0, 1), got 1.0"),
        ("pins", {"beta2": -0.1}, "beta2 is the share that an average keeps of itself, in [0, 1), got -0.1"),
        ("loss-preservation", {"beta": "much"}, "beta is the share that an average keeps of itself"),
        ("loss-preservation", {"rows": 3}, "no option of gate 'loss-preservation' is called 'rows'"),
        ("grasp", {"rows": 0}, "rows of a pruner is a number of training rows, at least 1, got 0"),
        ("gradient-norm", {"temperature": 0}, "temperature of the logits is a number above 0, got 0"),
    ],
)
def test_bad_options_are_refused(name: str, options: dict[str, Any], text: str) -> None:
    with pytest.raises(InputError) as caught:
        GATES.read({"name": name, **options}).section()
    assert text in str(caught.value) and "\n" not in str(caught.value)


def test_biased_is_true_or_false() -> None:
    for value in ("no", 1, None):
        with pytest.raises(InputError, match=rf"biased is true or false, got {value!r}"):
            GATES.make("loss-preservation", small(), biased=value)


def test_what_cannot_be_ranked_is_refused() -> None:
    early = {"name": "pins", "schedule": "constant"}
    text = "the schedule prunes before the first step, and PINS ranks by gradients"
    with pytest.raises(InputError, match=text):
        GATES.make("pins", small(), schedule="constant").begin(20)
    with pytest.raises(InputError, match=text):
        Gradual(early).check(20, None)
    blind = GradualLossPreservation(small(), schedule="linear", every=1)
    blind.begin(2)
    blind.advance(1)
    with pytest.raises(InputError, match=r"RunningLossPreservation ranks by gradients and has seen none. Call observe"):
        blind.advance(2)
    with pytest.raises(InputError, match=r"GradientNorm scores by the loss and got none. Give objective=Objective"):
        GradualGradientNorm(small()).begin(20)
    other, model = GradualLossPreservation(small()), small()
    other.begin(20)
    with pytest.raises(InputError, match="the state is of another gate, GradualLossPreservation"):
        PINS(model).begin(20, state=other.state_dict(), step=2)
    flat = GradualGradientNorm(model, schedule="linear", every=1)
    constant = on_noise(model)
    constant.loss = lambda model, batch: model[0].weight.sum() * 0.0
    flat.begin(2, objective=constant)
    with pytest.raises(InputError, match=r"finds every score 0"):
        flat.advance(1)


def test_the_trainer_refuses_what_a_measuring_gate_cannot_do(tmp_path: Path) -> None:
    class Endless(torch.utils.data.IterableDataset[Any]):
        def __iter__(self) -> Any:
            return iter(())

    grasp = {"name": "grasp", "schedule": RAMP}
    with pytest.raises(InputError, match="gate reads the trained parameters, which reparametrization makes θ"):
        FlatTrainer(tiny_bert(), arguments(tmp_path), gate=grasp, reparametrization="powerprop")
    trainer = FlatTrainer(tiny_bert(), arguments(tmp_path, max_steps=12), gate=grasp, train_dataset=Endless())
    with pytest.raises(InputError, match="the gate draws training rows, and this data set has no length"):
        trainer.features.begin(trainer.run_of(12), None, 0)
