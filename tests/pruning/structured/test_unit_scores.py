"""Scores of units: each formula written out, and what holds for all of them."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support.structured import NAMES, hearing, questions, random_model, rows
from trainflat.core.errors import InputError
from trainflat.pruning.structured.layerwise import Seen
from trainflat.pruning.structured.moments import Moments
from trainflat.pruning.structured.pulls import pulls
from trainflat.pruning.structured.sensitivity import sensitivities
from trainflat.pruning.structured.sub_layers import gated, sub_layers
from trainflat.pruning.structured.unit_scores import UNIT_SCORES, Ranking, UnitInputs


def rankings(name: str, model: Any, batches: list[dict[str, Tensor]], seed: int = 0) -> list[Ranking]:
    return UNIT_SCORES.build(name).rankings(UnitInputs(model, batches, seed))


def scores(ranking: Ranking) -> Tensor:
    """The scores of units whose losses add up."""
    found = torch.empty_like(ranking.loss[1:])
    found[ranking.order] = ranking.loss.diff()
    return found


@pytest.mark.parametrize("family", NAMES)
@pytest.mark.parametrize("name", UNIT_SCORES)
def test_every_score_ranks_every_unit_of_every_family(name: str, family: str) -> None:
    model, batch = random_model(family), rows(family)
    found = rankings(name, model, [batch if UNIT_SCORES[name].labelled else questions(batch)])
    for sub, ranking in zip(sub_layers(model), found, strict=True):
        assert sorted(ranking.order.tolist()) == list(range(len(sub.units)))
        assert ranking.loss[0] == 0
        assert (ranking.loss.diff() >= 0).all()
        assert ranking.loss.isfinite().all()


@pytest.mark.parametrize("name", UNIT_SCORES)
def test_padding_and_the_order_of_batches_change_nothing_but_rounding(name: str) -> None:
    model = random_model("Bert")
    first, second, wider = rows("Bert"), rows("Bert", seed=5), rows("Bert", padding=4)
    plain = rankings(name, model, [first, second])
    for batches in ([second, first], [wider, second]):
        for a, b in zip(plain, rankings(name, model, batches), strict=True):
            assert a.order.tolist() == b.order.tolist()
            torch.testing.assert_close(a.loss, b.loss, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("name", ["taylor", "fisher", "kprune"])
def test_one_batch_is_as_good_as_several(name: str) -> None:
    model, whole = random_model("Bert"), rows("Bert")
    parts = [{key: value[i : i + 2] for key, value in whole.items()} for i in (0, 2, 4)]
    for a, b in zip(rankings(name, model, [whole]), rankings(name, model, parts), strict=True):
        torch.testing.assert_close(a.loss, b.loss, rtol=1e-8, atol=1e-12)


def test_magnitude_is_the_share_of_the_output_matrix() -> None:
    model = random_model("Bert")
    sub, found = sub_layers(model)[0], rankings("magnitude", model, [])[0]
    weight = sub.matrix(model).weight.detach()
    heads = torch.stack([weight[:, :4].square().sum(), weight[:, 4:].square().sum()])
    torch.testing.assert_close(scores(found), heads / heads.sum())


def test_random_scores_follow_the_seed_and_weigh_sub_layers_alike() -> None:
    model = random_model("Bert")
    one, same, other = (rankings("random", model, [], seed) for seed in (1, 1, 2))
    assert [r.order.tolist() for r in one] == [r.order.tolist() for r in same]
    assert [r.order.tolist() for r in one] != [r.order.tolist() for r in other]
    assert all(ranking.loss[-1] <= 1 for ranking in one)


def by_row(model: Any, batch: dict[str, Tensor], what: Callable[[Tensor], Tensor]) -> list[Tensor]:
    """Gradients of gates from single rows' losses, as the model itself computes them."""
    subs, total = sub_layers(model), [torch.zeros(len(sub.units)).double() for sub in sub_layers(model)]
    for i in range(len(batch["labels"])):
        gates = [torch.ones(len(sub.units)).double().requires_grad_() for sub in subs]
        with gated(model, list(zip(subs, gates, strict=True))):
            loss = model(**{name: tensor[i : i + 1] for name, tensor in batch.items()}).loss
        for sums, gradient in zip(total, torch.autograd.grad(loss, gates), strict=True):
            sums.add_(what(gradient) / len(batch["labels"]))
    return total


@pytest.mark.parametrize("family", ["Bert", "Albert", "ViT"])
def test_taylor_and_fisher_are_means_over_rows(family: str) -> None:
    model, batch = random_model(family), rows(family)
    first, second = rankings("taylor", model, [batch]), rankings("fisher", model, [batch])
    for found, expected in zip(first, by_row(model, batch, Tensor.abs), strict=True):
        torch.testing.assert_close(scores(found), expected, rtol=1e-9, atol=1e-12)
    for found, expected in zip(second, by_row(model, batch, Tensor.square), strict=True):
        torch.testing.assert_close(scores(found), expected / 2, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["taylor", "fisher"])
def test_scores_of_the_loss_want_labels(name: str) -> None:
    with pytest.raises(InputError, match=r"have no labels.*obs, kprune, wanda"):
        rankings(name, random_model("Bert"), [questions(rows("Bert"))])


def test_wanda_is_the_energy_of_a_units_part_of_the_output() -> None:
    model, batch = random_model("Bert"), rows("Bert")
    sub = sub_layers(model)[1]
    with hearing(model, [sub.module]) as heard:
        model(**questions(batch))
    x = heard[sub.module][0][0].flatten(0, 1)[batch["attention_mask"].flatten().bool()]
    weight = sub.matrix(model).weight.detach()
    parts = torch.stack([(x[:, i : i + 1] * weight[:, i]).square().sum(1).mean() for i in range(12)])
    spread = (x @ weight.T).var(0, correction=0).sum()
    torch.testing.assert_close(scores(rankings("wanda", model, [batch])[1]), parts / spread, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("classes", [1, 2, 3])
def test_kprune_is_curvature_of_the_own_predictions_and_energy(classes: int) -> None:
    model = random_model("Bert", classes=classes, attn_implementation="eager")  # whose second derivative is known
    batch = questions(rows("Bert"))
    subs = sub_layers(model)
    dense = model(**batch).logits.detach()

    def divergence(gate: Tensor) -> Tensor:
        with gated(model, [(subs[3], gate)]):
            logits = model(**batch).logits
        if classes == 1:
            return (logits - dense).square().mean()
        p, q = dense.log_softmax(-1), logits.log_softmax(-1)
        return (p.exp() * (p - q)).sum(-1).mean()

    ones = torch.ones(12).double()
    curvature = torch.autograd.functional.hessian(divergence, ones).diagonal()
    found = UNIT_SCORES.build("kprune", predictive=2.0, representational=0.0).rankings(UnitInputs(model, [batch]))
    torch.testing.assert_close(scores(found[3]), curvature, rtol=1e-7, atol=1e-9)
    with hearing(model, [subs[3].module]) as heard:
        model(**batch)
    x = heard[subs[3].module][0][0] * batch["attention_mask"][:, :, None]
    energy = x.square().sum((0, 1)) / len(x) * subs[3].matrix(model).weight.detach().square().mean(0)
    found = UNIT_SCORES.build("kprune", predictive=0.0, representational=0.5).rankings(UnitInputs(model, [batch]))
    torch.testing.assert_close(scores(found[3]), energy / 2, rtol=1e-9, atol=1e-12)


def test_obs_predicts_what_a_new_solution_loses_of_the_predictions() -> None:
    """Brute force over single units: least squares with ridge, errors weighed by the Fisher matrix of the output."""
    model, batch, ridge = random_model("Bert"), rows("Bert", count=12), 0.01
    sub = sub_layers(model)[1]
    [found] = [UNIT_SCORES.build("obs", ridge=ridge).rankings(UnitInputs(model, [batch]))[1]]
    weighed = sensitivities(model, [sub], [batch], 0)[0]
    with hearing(model, [sub.module]) as heard:
        model(**questions(batch))
    x = heard[sub.module][0][0].flatten(0, 1)[batch["attention_mask"].flatten().bool()]
    x = x - x.mean(0)
    weight = sub.matrix(model).weight.detach()
    pull = (ridge * x.square().sum() / x.shape[1]).sqrt()  # as rows of data, whose target is the dense weight
    full = torch.cat([x, pull * torch.eye(12).double()])
    losses = []
    for unit in range(12):
        rest = [i for i in range(12) if i != unit]
        left = full @ weight.T - full[:, rest] @ torch.linalg.lstsq(full[:, rest], full @ weight.T).solution
        losses.append(torch.trace(weighed @ left.T @ left) / len(x))
    first = int(found.order[0])
    assert first == int(torch.stack(losses).argmin())
    assert float(found.loss[1]) == pytest.approx(float(losses[first]), rel=1e-4)


@pytest.mark.parametrize("classes", [1, 2, 4])
def test_sensitivities_are_the_fisher_information_of_outputs(classes: int) -> None:
    model, batch = random_model("Bert", classes=classes), questions(rows("Bert", count=3))
    sub = sub_layers(model)[3]
    found, expected = sensitivities(model, [sub], [batch], 0)[0], torch.zeros(8, 8).double()
    for i in range(3):
        row = {name: tensor[i : i + 1, : int(batch["attention_mask"][i].sum())] for name, tensor in batch.items()}

        def logits(added: Tensor, row: dict[str, Tensor] = row) -> Tensor:
            handle = sub.matrix(model).register_forward_hook(lambda _, __, output: output + added)
            try:
                return model(**row).logits[0]
            finally:
                handle.remove()

        added = torch.zeros(row["input_ids"].shape[1], 8).double()
        jacobian = torch.autograd.functional.jacobian(logits, added)  # [classes, positions, outputs]
        p = logits(added).detach().softmax(-1)
        hessian = torch.diag(p) - torch.outer(p, p) if classes > 1 else torch.full((1, 1), 2.0).double()
        expected += torch.einsum("ktj,kl,lti->ji", jacobian, hessian, jacobian) / 6
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("kind", ["classes", "labels", "numbers", "tokens", "spans"])
def test_pulls_have_the_curvature_of_the_loss_in_expectation(kind: str) -> None:
    """Logits of one row as parameters; draws over many seeds."""
    torch.manual_seed(0)
    size = {"classes": (1, 6), "labels": (1, 3), "numbers": (1, 3), "tokens": (1, 2, 5), "spans": (1, 5)}[kind]
    problems = {"labels": "multi_label_classification", "numbers": "regression"}
    model = random_model("Bert")
    model.config.problem_type = problems.get(kind, "single_label_classification")
    logits = torch.randn(size).double().requires_grad_()
    outputs = {"start_logits": logits, "end_logits": logits.detach()} if kind == "spans" else {"logits": logits}
    found, draws = torch.zeros(logits.numel(), logits.numel()).double(), 1000
    for seed in range(draws):
        for pull in pulls(model, outputs, {}, torch.Generator().manual_seed(seed)):
            g = torch.autograd.grad(pull, logits, retain_graph=True)[0].flatten()
            found += torch.outer(g, g) / draws
    p = logits.detach().flatten() if kind == "labels" else logits.detach()
    expected = {
        "labels": lambda: torch.diag(p.sigmoid() * (1 - p.sigmoid())) / 3,
        "numbers": lambda: torch.eye(3).double() * 2 / 3,
    }.get(
        kind, lambda: torch.block_diag(*map(softmax_curvature, p.view(-1, size[-1]))) * (0.5 if kind == "spans" else 1)
    )()
    torch.testing.assert_close(found, expected, rtol=0, atol=0.05)


def softmax_curvature(logits: Tensor) -> Tensor:
    p = logits.softmax(-1)
    return torch.diag(p) - torch.outer(p, p)


def test_obs_chooses_again_by_what_the_matrix_shall_put_out_now() -> None:
    """Targets that are no output of the dense matrix; brute force over single units, with the bias solved too."""
    model, batch, ridge = random_model("Bert"), questions(rows("Bert")), 0.01
    sub, score = sub_layers(model)[1], UNIT_SCORES.build("obs", ridge=ridge)
    score.rankings(UnitInputs(model, [batch]))
    torch.manual_seed(0)
    x, t = torch.randn(40, 12).double() + 1, torch.randn(40, 8).double()
    matrix = sub.matrix(model)
    found = score.order_again(sub, matrix, Moments.of([Seen(x, t)]), 3)
    assert found is not None
    weighed, about, target = sensitivities(model, [sub], [batch], 0)[0], x - x.mean(0), t - t.mean(0)
    pull = (ridge * about.square().sum() / 12).sqrt()
    left = torch.cat([about, pull * torch.eye(12).double()])
    right = torch.cat([target, pull * matrix.weight.detach().T])
    losses = []
    for unit in range(12):
        rest = [i for i in range(12) if i != unit]
        missed = right - left[:, rest] @ torch.linalg.lstsq(left[:, rest], right).solution
        losses.append(float(torch.trace(weighed @ missed.T @ missed)))
    assert len(found) == 3
    assert int(found[0]) == min(range(12), key=losses.__getitem__)
