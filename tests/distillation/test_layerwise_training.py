"""Layerwise distillation in FlatTrainer: the steps of a loop by hand, and the contract of every feature."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from tests.conftest import tiny_bert
from tests.support.layered import FIXED, SHARE, ByHand, layered, wide_teacher
from tests.support.marks import quick
from tests.support.plain_loop import collate, random_split, train
from tests.support.shrunk import ragged
from tests.support.structured import random_model
from tests.support.teachers import LABELS, Counting, spans, teacher_model
from tests.support.training import (
    ADAMW,
    NO_DROPOUT,
    SAM,
    StoppedError,
    accuracy,
    arguments,
    assert_same_weights,
    reproducible,
)
from tests.support.two_processes import on_two_processes
from trainflat.anatomy import anatomy_of
from trainflat.core.errors import InputError
from trainflat.distillation import cut_maps, read_layerwise
from trainflat.pruning.structured import Kept, shrink
from trainflat.training import FlatTrainer, checkpoints

CUT = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}


def maps(trainer: FlatTrainer) -> dict[str, torch.Tensor]:
    return {name: p.detach() for name, p in trainer.features["layerwise"].param_groups()[0]["params"]}


@pytest.mark.parametrize("accumulate", quick([2, 1], 2))
@pytest.mark.parametrize("recipe", [ADAMW, SAM, {**SAM, "name": "esam", "beta": 1.0}], ids=["adamw", "sam", "esam"])
def test_takes_the_steps_of_a_plain_loop(tmp_path: Path, accumulate: int, recipe: dict[str, Any]) -> None:
    """With a map that is clipped with the model, is neither decayed nor displaced, and a smaller last window."""
    by_hand = ByHand(tiny_bert(**NO_DROPOUT).double(), wide_teacher(), SHARE)
    recipe = recipe | {"weight_decay": 0.0}
    apart = {} if recipe["name"] == "adamw" else {"exclude": ["map.*"]}
    losses = train(by_hand, random_split(45), recipe | apart, epochs=2, batch_size=8, seed=3)

    cut = {"per_device_train_batch_size": 8 // accumulate, "gradient_accumulation_steps": accumulate}
    trainer = layered(tmp_path, recipe, rows=45, **cut)
    trainer.train()
    logged = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert logged == pytest.approx(losses, abs=1e-6)
    assert_same_weights(trainer.model, by_hand.model)
    learned = maps(trainer)["maps.linears.0.weight"]
    torch.testing.assert_close(learned, by_hand.map.weight.detach(), rtol=0, atol=1e-10)
    assert (learned - torch.eye(24, 16)).abs().max() > 1e-3


def test_maps_are_not_decayed(tmp_path: Path) -> None:
    """A weight of 0 leaves them without a gradient: only decay could move them."""
    trainer = layered(tmp_path, ADAMW, FIXED | {"weight": 0.0})
    trainer.train()
    assert torch.equal(maps(trainer)["maps.linears.0.weight"], torch.eye(24, 16).double())
    alone = layered(tmp_path, ADAMW, None)
    alone.train()
    assert_same_weights(trainer.model, alone.model, atol=0)


@pytest.mark.parametrize("name", ["adamw", "sam", "msam"])
def test_the_teacher_is_asked_once_for_both(tmp_path: Path, name: str) -> None:
    teacher = wide_teacher()
    asked: list[int] = []
    teacher.register_forward_hook(lambda *_: asked.append(torch.is_grad_enabled()))
    trainer = layered(tmp_path, {"name": name, "lr": 1e-3}, teacher=teacher, weight=0.5, **CUT)
    before = {key: value.clone() for key, value in teacher.state_dict().items()}
    trainer.train()
    assert asked == [False] * (2 * 12)
    assert all(torch.equal(value, before[key]) for key, value in teacher.state_dict().items())
    assert not any(module._forward_hooks for module in trainer.model.modules())
    assert not any(module._forward_hooks for module in teacher.bert.modules())
    logs = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert all(0 < entry["loss_layerwise"] < entry["loss"] for entry in logs)


@pytest.mark.parametrize("matching", ["nearest", "ordered", "fixed", "random-windows"])
def test_every_matching_is_counted_and_learned(tmp_path: Path, matching: str) -> None:
    """From a teacher of six layers to a student of three, whose layers come nearer to its."""
    section = {"weight": 1.0, "matching": matching, "map": "separate"}
    student = tiny_bert(num_hidden_layers=3, **NO_DROPOUT).double()
    trainer = layered(
        tmp_path, {**ADAMW, "lr": 1e-2}, section, teacher=wide_teacher(6), model=student, num_train_epochs=4
    )
    trainer.train()
    losses = [entry["loss_layerwise"] for entry in trainer.state.log_history if "loss_layerwise" in entry]
    assert sum(losses[-6:]) < 0.8 * sum(losses[:6])
    [counts] = [entry["matches"] for entry in trainer.features["layerwise"].record().values()]
    assert all(1 <= int(number) <= 3 for row in counts.values() for number in row)
    total = {layer: sum(row.values()) for layer, row in counts.items()}
    if matching in ("nearest", "fixed"):
        assert total == dict.fromkeys("2356", 24)
    elif matching == "ordered":  # four teacher layers, three of the student
        assert total == dict.fromkeys("356", 24)
    else:
        assert sum(total.values()) == 3 * 24 and set(total) >= {"5", "6"}
    if matching == "fixed":
        assert counts == {"2": {"1": 24}, "3": {"2": 24}, "5": {"3": 24}, "6": {"3": 24}}


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one(tmp_path: Path) -> None:
    options = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "sync_perturbation": True}
    ranks = on_two_processes(
        tmp_path / "two", SAM, distillation={"weight": 0.5, "temperature": 2.0}, layerwise=FIXED, **options
    )
    one = layered(tmp_path / "one", SAM, teacher=teacher_model().double(), weight=0.5, **CUT)
    one.train()
    both = [load_file(tmp_path / "two" / f"maps{rank}.safetensors") for rank in (0, 1)]
    for name, tensor in {**dict(one.model.named_parameters()), **maps(one)}.items():
        found = [{**weights, **learned}[name] for weights, learned in zip(ranks, both, strict=True)]
        assert torch.equal(*found)
        torch.testing.assert_close(found[0], tensor.detach(), rtol=0, atol=1e-10)


def test_two_processes_that_match_their_own_rows_stay_alike(tmp_path: Path) -> None:
    section = FIXED | {"matching": "ordered"}
    ranks = on_two_processes(tmp_path, ADAMW, distillation={"weight": 0.5}, layerwise=section, num_train_epochs=1)
    assert all(torch.equal(weights, ranks[1][name]) for name, weights in ranks[0].items())
    both = [load_file(tmp_path / f"maps{rank}.safetensors") for rank in (0, 1)]
    assert all(torch.equal(tensor, both[1][name]) for name, tensor in both[0].items() if name != "matches")


def evaluated(folder: Path, **options: Any) -> FlatTrainer:
    """With dropout, evaluations and checkpoints, and draws of layers."""
    every = {"eval_strategy": "epoch", "save_strategy": "epoch", "num_train_epochs": 3, "logging_steps": 4}
    best = {"load_best_model_at_end": True, "metric_for_best_model": "eval_validation_accuracy"}
    parts = {"eval_dataset": {"validation": random_split(20, seed=9)}, "score": accuracy}
    return layered(
        folder,
        SAM,
        {"matching": "random-windows", "teacher_layers": [1, 3, 6]},
        teacher=teacher_model(num_hidden_layers=6),
        model=tiny_bert(hidden_dropout_prob=0.1),
        parts=parts,
        **(every | best | CUT | {"greater_is_better": True} | options),
    )


def test_resuming_continues_the_same_path(tmp_path: Path) -> None:
    """To the best checkpoint's maps; the record counts the matches of all steps."""
    whole = evaluated(tmp_path / "whole")
    whole.train()
    stopped = evaluated(tmp_path / "part")
    step = stopped.training_step

    def stopping(*args: Any) -> torch.Tensor:
        if stopped.state.global_step == 8:
            raise StoppedError
        return step(*args)

    stopped.training_step = stopping
    with pytest.raises(StoppedError):
        stopped.train()
    assert not any(module._forward_hooks for module in stopped.model.modules())
    again = evaluated(tmp_path / "part")
    again.train(resume_from_checkpoint=str(checkpoints.newest(tmp_path / "part")))
    assert_same_weights(whole.model, again.model, atol=0)
    assert reproducible(again) == reproducible(whole)
    assert all(torch.equal(tensor, maps(again)[name]) for name, tensor in maps(whole).items())
    assert again.features["layerwise"].record() == whole.features["layerwise"].record()
    best = Path(whole.state.best_model_checkpoint)
    stored = load_file(best / "layerwise.safetensors")
    assert all(torch.equal(tensor, maps(whole)[name]) for name, tensor in stored.items() if name != "matches")
    counted = whole.features["layerwise"].record()["layerwise"]["matches"]
    assert sum(sum(row.values()) for row in counted.values()) == 2 * 18 * 2  # two layers, 18 steps of two micro-batches

    other = evaluated(tmp_path / "part", num_train_epochs=4)
    other.features["layerwise"]._options.map = "separate"
    with pytest.raises(InputError, match=r"maps of layers are of another training: maps\.linears\.[1-3]\.\w+ differs"):
        other.train(resume_from_checkpoint=str(checkpoints.newest(tmp_path / "part")))


def test_autocast_and_activation_checkpointing(tmp_path: Path) -> None:
    trainer = evaluated(tmp_path / "a", bf16=True, num_train_epochs=1)
    trainer.train()
    assert {p.dtype for p in (*trainer.model.parameters(), *maps(trainer).values())} == {torch.float32}
    plain = layered(tmp_path / "plain", SAM, num_train_epochs=1)
    plain.train()
    for reentrant in (False, True):
        again = {"activation_checkpointing": True, "activation_checkpointing_kwargs": {"use_reentrant": reentrant}}
        saving = layered(tmp_path / str(reentrant), SAM, num_train_epochs=1, **again)
        saving.train()
        assert_same_weights(plain.model, saving.model, atol=1e-9)
        learned = [maps(one)["maps.linears.0.weight"] for one in (plain, saving)]
        torch.testing.assert_close(*learned, rtol=0, atol=1e-9)


def test_evaluations_know_no_layers(tmp_path: Path) -> None:
    trainer = evaluated(tmp_path)
    loss = trainer.evaluate()["eval_validation_loss"]
    alone = FlatTrainer(
        trainer.model,
        arguments(tmp_path),
        eval_dataset={"validation": random_split(20, seed=9)},
        data_collator=collate,
    )
    assert alone.evaluate()["eval_validation_loss"] == loss


# Students that are smaller than their teachers


def layer_outputs(model: nn.Module, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
    rows = {key: value for key, value in batch.items() if not key.endswith(("labels", "positions"))}
    states: tuple[torch.Tensor, ...] = model.eval()(**rows, output_hidden_states=True).hidden_states
    return states


def of_a_batch(trainer: FlatTrainer, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, Any]:
    """The layers' part of a batch's loss, and how often which layers were matched."""
    feature = trainer.features["layerwise"]
    feature.begin(None, 0)
    given = trainer.features["distillation"].batch(dict(batch))
    given = feature.batch(given)
    with feature.passes(1.0, False):
        loss, outputs = trainer.compute_loss(trainer.model.eval(), dict(batch), return_outputs=True)
        terms = feature.terms({"task": loss}, outputs, given, 1.0)
        rows = feature.row_losses(torch.zeros(len(batch["input_ids"])), outputs, given)
    torch.testing.assert_close(rows.mean().double(), terms["layerwise"].double(), rtol=1e-5, atol=0)
    return terms["layerwise"], feature.record()["layerwise"]["matches"]


def mean_apart(student: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """With states that were not mapped: the identity passes on what both have."""
    filled = torch.zeros_like(teacher)
    filled[..., : student.shape[-1]] = student
    squares = (filled - teacher).pow(2).mean(-1)
    return torch.stack([row[own.bool()].mean() for row, own in zip(squares, mask, strict=True)]).mean()


def batch_of(rows: int = 4) -> dict[str, torch.Tensor]:
    batch = collate([random_split(rows, vocabulary=40)[i] for i in range(rows)])
    return {key: value[:, :12] if value.dim() == 2 else value for key, value in batch.items()}


def test_a_ragged_student_learns_with_the_layers_that_it_has(tmp_path: Path) -> None:
    """One layer narrower, one with biases only, one half skipped, and a hidden dimension fewer."""
    student, teacher = ragged(), wide_teacher(4, vocab_size=40, max_position_embeddings=32).float()
    section = {"weight": 1.0, "teacher_layers": [2, 4]}
    trainer = layered(tmp_path, ADAMW, section, teacher=teacher, model=student)
    batch = batch_of()
    found, counts = of_a_batch(trainer, batch)
    assert counts == {"2": {"1": 1}, "4": {"3": 1}}  # layer 2 has neither heads nor units
    ours, its = layer_outputs(student, batch), layer_outputs(teacher, batch)
    wanted = sum(mean_apart(ours[s], its[t], batch["attention_mask"]) for s, t in ((1, 2), (3, 4)))
    torch.testing.assert_close(found, wanted)


def test_a_student_of_fewer_layers(tmp_path: Path) -> None:
    dense = tiny_bert(num_hidden_layers=3).double()
    teacher = wide_teacher(4)
    gone = [one for one in anatomy_of(dense).units("layer") if one.layer != 1]
    student = shrink(dense, Kept.all(anatomy_of(dense)).without(gone))
    trainer = layered(tmp_path, ADAMW, {"weight": 1.0, "teacher_layers": [2, 4]}, teacher=teacher, model=student)
    batch = batch_of()
    found, counts = of_a_batch(trainer, batch)
    assert counts == {"4": {"1": 1}}
    wanted = mean_apart(layer_outputs(student, batch)[1], layer_outputs(teacher, batch)[4], batch["attention_mask"])
    torch.testing.assert_close(found, wanted)
    trainer.train()


def test_a_shrunk_student_goes_on_with_the_maps_of_the_dense_one(tmp_path: Path) -> None:
    """A softly gated student and the smaller one have the same mapped states, and so the same loss."""
    dense, teacher = random_model("Bert", vocab_size=120), wide_teacher(3)
    anatomy, section = anatomy_of(dense), read_layerwise({"weight": 1.0, "matching": "fixed", "map": "separate"})
    factors = [(unit, 0.0 if unit.index < 2 else 0.5 + 0.1 * unit.index) for unit in anatomy.units("hidden dimension")]
    kept = Kept.all(anatomy).scaled(factors)
    small, gated = shrink(dense, kept), StructuralReference(dense, kept)
    first = layered(tmp_path / "a", ADAMW, section, teacher=teacher, model=dense)
    first.train()
    learned = first.features["layerwise"].product
    first.model.load_state_dict(random_model("Bert", vocab_size=120).state_dict())

    settings = section.model_copy(update={"start": cut_maps(learned, kept.hidden)})
    assert settings.dump() == section.dump()
    trainer = layered(tmp_path / "b", ADAMW, settings, teacher=teacher, model=small)
    batch = batch_of()
    found, _ = of_a_batch(trainer, batch)
    wanted = gated.loss(batch, learned, layer_outputs(teacher, batch))
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=0)
    trainer.train()
    with pytest.raises(InputError, match="maps of layers are of another training"):
        layered(tmp_path, ADAMW, section.model_copy(update={"start": learned}), teacher=teacher, model=small).train()


class StructuralReference:
    """Widens a shrunk model's hidden states again: those of the dense model with its dimensions gated."""

    def __init__(self, dense: nn.Module, kept: Kept) -> None:
        self.small, self.kept = shrink(dense, kept), kept

    def loss(
        self, batch: dict[str, torch.Tensor], maps: dict[str, torch.Tensor], its: tuple[torch.Tensor, ...]
    ) -> torch.Tensor:
        total = torch.zeros((), dtype=torch.float64)
        for place, layer in enumerate((1, 2, 3)):
            ours = layer_outputs(self.small, batch)[layer]
            wide = torch.zeros(*ours.shape[:-1], len(self.kept.hidden), dtype=ours.dtype)
            wide[..., self.kept.hidden != 0] = ours
            mapped = wide @ maps[f"maps.linears.{place}.weight"].T + maps[f"maps.linears.{place}.bias"]
            total = total + mean_apart(mapped, its[layer], batch["attention_mask"])
        return total


class Drawing:
    """Stands for a gate that draws which layers are alive."""

    def __init__(self) -> None:
        self.drawn = [True, False, True]

    def alive(self) -> list[bool]:
        return self.drawn


def test_a_gate_says_which_layers_are_alive(tmp_path: Path) -> None:
    student = tiny_bert(num_hidden_layers=3, **NO_DROPOUT).double()
    section = {"weight": 1.0, "teacher_layers": [1, 2], "map": "none"}
    trainer = layered(tmp_path, ADAMW, section, teacher=teacher_model().double(), model=student)
    gate = type("Fellow", (), {"gate": Drawing()})()
    trainer.features["gate"] = gate
    assert of_a_batch(trainer, batch_of())[1] == {"1": {"1": 1}, "2": {"3": 1}}
    gate.gate.drawn = [False, True, False]
    assert of_a_batch(trainer, batch_of())[1] == {"2": {"2": 1}}


def test_layers_that_cofi_has_closed_are_not_matched(tmp_path: Path) -> None:
    """Beside the gate itself: gated states are compared, closed layers left out, and its scores learn from layers."""
    student = tiny_bert(num_hidden_layers=3, **NO_DROPOUT).double()
    gate = {"name": "cofi", "target_sparsity": 0.5, "score_lr": 2.0, "schedule": {"name": "linear", "start": 0}}
    section = {"weight": 1.0, "teacher_layers": [1, 3]}
    teacher = wide_teacher(3)
    parts = {"gate": gate}
    trainer = layered(tmp_path, ADAMW, section, teacher=teacher, model=student, parts=parts, num_train_epochs=4)
    trainer.train()
    counted = trainer.features["layerwise"].record()["layerwise"]["matches"]
    assert sum(counted["3"].values()) == 24

    gated = trainer.features["gate"].gate
    with torch.no_grad():
        for name, score in gated.scores.items():
            score.fill_(-40.0 if name in ("attention sub-layer 1", "feed-forward sub-layer 1") else 4.0)
    feature, batch = trainer.features["layerwise"], batch_of()
    with gated.passes(), feature.passes(1.0, False):
        given = feature.batch(trainer.features["distillation"].batch(dict(batch)))
        loss, outputs = trainer.compute_loss(student, dict(batch), return_outputs=True)
        assert gated.alive() == [True, False, True]
        assert torch.equal(feature._student[2], feature._student[1])  # passed on
        before = {layer: dict(row) for layer, row in feature.record()["layerwise"]["matches"].items()}
        layers = feature.terms({"task": loss}, outputs, given, 1.0)["layerwise"]
        layers.backward()
        [drawn] = gated._draws
        assert all(drawn[name].grad.any() for name in ("head 0", "head 2", "hidden dimension"))
    after = feature.record()["layerwise"]["matches"]
    assert after["1"]["1"] == before["1"].get("1", 0) + 1 and after["3"]["3"] == before["3"].get("3", 0) + 1


def test_layers_that_share_their_tensors_are_listed_once_by_a_gate(tmp_path: Path) -> None:
    teacher = wide_teacher(3, vocab_size=40, max_position_embeddings=32)
    trainer = layered(tmp_path, ADAMW, {"weight": 1.0}, teacher=teacher, model=random_model("Albert"))
    gate = Drawing()
    gate.drawn = [True]
    trainer.features["gate"] = type("Fellow", (), {"gate": gate})()
    assert set(of_a_batch(trainer, batch_of())[1]) == {"1", "2", "3"}


def numbers() -> tuple[Any, dict[str, torch.Tensor]]:
    rows = collate([random_split(4, vocabulary=50, kind="regression")[i] for i in range(4)])
    return tiny_bert(num_labels=1).double().eval(), {**rows, "labels": rows["labels"].double()}


@pytest.mark.parametrize("kind", [spans, numbers])
def test_spans_and_numbers_without_labels(tmp_path: Path, kind: Any) -> None:
    """CoFi's loss: a teacher's answers and its layers, and no labels anywhere."""
    torch.manual_seed(5)
    (model, batch), (teacher, _) = kind(), kind()
    with torch.no_grad():
        for p in teacher.parameters():
            p.add_(torch.randn_like(p), alpha=0.3)
    sections = {"distillation": {"teacher": teacher, "weight": 1}, "layerwise": {"weight": 0.9}}
    trainer = FlatTrainer(model, arguments(tmp_path), data_collator=collate, **sections)
    layers, _ = of_a_batch(trainer, batch)
    last = model.config.num_hidden_layers
    ours, its = layer_outputs(model, batch), layer_outputs(teacher, batch)
    pairs = [(ours[n], its[n]) for n in range(1, last + 1)]
    torch.testing.assert_close(layers, 0.9 * sum(mean_apart(*pair, batch["attention_mask"]) for pair in pairs))

    features = trainer.features
    given = features["layerwise"].batch(features["distillation"].batch(dict(batch)))

    def total(batch: dict[str, torch.Tensor]) -> torch.Tensor:
        with features["layerwise"].passes(1.0, False):
            loss, outputs = trainer.compute_loss(model, dict(batch), return_outputs=True)
            terms = features["distillation"].terms({"task": loss}, outputs, given, 1.0)
            return torch.stack([*features["layerwise"].terms(terms, outputs, given, 1.0).values()]).sum()

    answers = {key: value.flip(0) for key, value in batch.items() if key.endswith(("labels", "positions"))}
    torch.testing.assert_close(total(batch | answers), total(batch), rtol=1e-14, atol=0)


# What is refused


def test_what_does_not_go_together(tmp_path: Path) -> None:
    student, wide = tiny_bert(**LABELS), wide_teacher(**LABELS).float()
    linear = Counting(teacher_model())
    swapped = tiny_bert(id2label={0: "yes", 1: "no"}, label2id={"no": 1, "yes": 0})
    refused: list[tuple[Any, Any, str]] = [
        (None, {}, "layerwise learns from the layers of a teacher, and there is none. Give distillation a teacher"),
        (wide, {"teacher_layers": [1, 3]}, r"teacher_layers are \[1, 3\], and the teacher has 2 layers"),
        (wide, {"map": "none"}, "the teacher's hidden states have width 24, the student's 16"),
        (linear, {}, "layerwise compares hidden states of known architectures, and Counting is none of them: albert"),
        (wide, {"matchng": "nearest"}, "no option of layerwise is called 'matchng'"),
        (wide, "ordered", "layerwise is a mapping of options"),
        (swapped, {}, "has the student's classes in another order: yes, no"),
    ]
    for teacher, section, message in refused:
        given = {} if teacher is None else {"distillation": teacher}
        with pytest.raises(InputError, match=message) as error:
            FlatTrainer(student, arguments(tmp_path), train_dataset=random_split(), layerwise=section, **given)
        assert "\n" not in str(error.value)
    renewed = {"distillation": {"teacher": wide, "renew": "best"}, "layerwise": {}}
    with pytest.raises(
        InputError, match="renew best puts the student, of 2 layers of width 16, in the place of a teach"
    ):
        FlatTrainer(student, arguments(tmp_path), train_dataset=random_split(), **renewed)
    scheduled = (torch.optim.AdamW(student.parameters()), torch.optim.lr_scheduler.ConstantLR)
    optimizer = scheduled[0]
    with pytest.raises(InputError, match="layerwise adds its maps to the optimizer, and a scheduler that was made"):
        FlatTrainer(
            student,
            arguments(tmp_path),
            train_dataset=random_split(),
            optimizers=(optimizer, scheduled[1](optimizer)),
            distillation=wide,
            layerwise={},
        )


def test_a_student_that_is_renewed_teaches_its_layers(tmp_path: Path) -> None:
    every = {"eval_strategy": "epoch", "metric_for_best_model": "eval_validation_accuracy", "greater_is_better": True}
    trainer = FlatTrainer(
        tiny_bert(),
        arguments(tmp_path, **every),
        train_dataset=random_split(),
        eval_dataset={"validation": random_split(20, seed=9)},
        data_collator=collate,
        optimizer=ADAMW,
        distillation={"teacher": teacher_model(), "renew": "best"},
        layerwise={},
        score=accuracy,
    )
    trainer.train()
    assert trainer.features["self_teaching"].steps == [6]
    losses = [entry["loss_layerwise"] for entry in trainer.state.log_history if "loss_layerwise" in entry]
    assert losses[6] < 0.1 * losses[5]
