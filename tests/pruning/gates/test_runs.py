"""The gradual protocol: from a recipe to a plain model with exact zeros, its masks, its record and its report."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, BertForSequenceClassification
from typer.testing import CliRunner

import trainflat
from tests.support.gated_runs import OPTIONS, recipe, section
from tests.support.marks import quick
from trainflat.anatomy.params import prunable
from trainflat.cli.commands import app
from trainflat.commands.check import plan
from trainflat.core.errors import InputError
from trainflat.pruning import Masks
from trainflat.pruning.gates import GATES
from trainflat.recipe import load_recipe
from trainflat.records.run import Record
from trainflat.report.panels import make_panels
from trainflat.report.sections.training import curves


@pytest.mark.parametrize("name", quick(GATES, "magnitude", "pins", "hard-movement", "l0", "block-movement"))
def test_a_run_ends_in_a_plain_model_with_zeros_and_its_masks(place: Path, name: str) -> None:
    given = recipe(place, section(name), "sam" if name == "hard-movement" else "adamw")
    planned = plan(given, out=place / name)
    record = trainflat.run(given, out=place / name)
    [stage], [run] = record.stages, (place / name).iterdir()
    model = AutoModelForSequenceClassification.from_pretrained(run / "stages" / stage.name)
    masks = Masks.load(run / "stages" / stage.name / "masks.safetensors")
    masks.check(model)
    zeros = sum(int((w == 0).sum()) for w in prunable(model).values())
    assert zeros == sum(m.zeros for m in stage.matrices) >= masks.zeros > 0
    asked = OPTIONS.get(name, {}).get("sparsity") or OPTIONS.get(name, {}).get("target_sparsity")
    assert stage.target_sparsity == (masks.sparsity if asked is None else asked)
    assert stage.training is not None
    shown = [entry["sparsity"] for entry in stage.training.curve]
    reached = {entry["step"]: entry["sparsity"] for entry in stage.training.evaluations}
    assert shown[0] == 0
    assert reached[stage.training.best_step or 0] == pytest.approx(masks.sparsity, abs=1e-3)
    last = stage.training.steps - round(0.4 * stage.training.steps)
    assert stage.training.best_step is not None and stage.training.best_step >= last
    assert {str(p.relative_to(run)) for p in run.rglob("*") if p.is_file()} >= set(planned.files) - {".lock"}
    [panel] = make_panels([record])
    assert curves(panel.lines[0].points[0], "sparsity")[0].values == shown
    assert trainflat.run(given, out=place / name).digest == record.digest
    frozen = [n for n, p in model.named_parameters() if "embeddings." in n]
    first = BertForSequenceClassification.from_pretrained(place / "model")
    assert all(torch.equal(model.get_parameter(n), first.get_parameter(n)) for n in frozen)


def test_embeddings_train_where_a_recipe_says_so(place: Path) -> None:
    record = trainflat.run(recipe(place, section("magnitude"), freeze_embeddings=False), out=place / "all")
    [run] = (place / "all").iterdir()
    model = AutoModelForSequenceClassification.from_pretrained(run / "stages" / record.stages[0].name)
    first = BertForSequenceClassification.from_pretrained(place / "model")
    name = "bert.embeddings.word_embeddings.weight"
    assert not torch.equal(model.get_parameter(name), first.get_parameter(name))


def test_a_recipe_tells_every_option_and_has_one_hash() -> None:
    base = {"task": "stdlib-docs", "model": "minilm"}
    short = load_recipe(base | {"protocol": {"name": "gradual", "gate": "hard-movement"}})
    gate = short.protocol.gate.section()
    assert gate["score_lr"] == 0.01 and gate["schedule"] == {"name": "cubic", "start": 0, "hold": 0}
    long = load_recipe(base | {"protocol": {"name": "gradual", "gate": dict(gate), "freeze_embeddings": True}})
    assert short.hash == long.hash == load_recipe(short).hash
    over = load_recipe(base, ["protocol.name=gradual", "protocol.gate.name=magnitude", "protocol.gate.sparsity=0.5"])
    assert over.protocol.gate.sparsity == 0.5


@pytest.mark.parametrize(
    ("gate", "text"),
    [
        ({"sparsity": 0.5}, "name a gate: magnitude"),
        ("hard-movment", "no gate is called 'hard-movment'. Did you mean 'hard-movement'?"),
        ({"name": "magnitude", "sparcity": 0.5}, "no option of gate 'magnitude' is called 'sparcity'"),
        ({"name": "soft-movement", "penalty": -1}, "penalty is a number, at least 0, got -1"),
        ({"name": "magnitude", "sparsity": 0}, "protocol sparsities are shares in (0, 1), got 0.0"),
        ({"name": "l0", "target_sparsity": 0}, "protocol sparsities are shares in (0, 1), got 0.0"),
        ({"name": "magnitude", "schedule": "cubik"}, "no schedule is called 'cubik'"),
        ({"name": "magnitude", "schedule": 7}, "gate: name a schedule: cubic, linear, constant, step; such as"),
        ({"name": "loss-preservation", "biased": "maybe"}, "gate: biased is true or false, got 'maybe'."),
    ],
)
def test_a_bad_gate_is_refused_with_the_recipe(place: Path, gate: Any, text: str) -> None:
    with pytest.raises(InputError) as caught:
        load_recipe(recipe(place, gate))
    assert text in str(caught.value) and "\n" not in str(caught.value)
    assert str(caught.value).count(", got ") <= 1


@pytest.mark.parametrize(
    ("gate", "text"),
    [
        ({"schedule": {"name": "cubic", "start": 5400, "hold": 10800}}, "the schedule holds 5400 steps at its start"),
        ({"perturb": "both"}, "protocol.gate.perturb both says what an optimizer like sam displaces, and adamw"),
        ({"unit": "block"}, "cannot be cut into blocks of 32 by 32"),
    ],
)
def test_a_plan_and_a_run_refuse_alike(place: Path, gate: dict[str, Any], text: str) -> None:
    given = recipe(place, {"name": "hard-movement", **gate})
    for call in (plan, trainflat.run):
        with pytest.raises(InputError) as caught:
            call(given, out=place / "refused")  # type: ignore[operator]
        assert text in str(caught.value) and "\n" not in str(caught.value)


def test_a_gate_with_scores_and_a_reparametrization_take_different_things_for_weights(place: Path) -> None:
    for name, refused in (("hard-movement", True), ("magnitude", False)):
        given = recipe(place, section(name))
        given["training"] |= {"reparametrization": "powerprop", "epochs": 3}
        if refused:
            with pytest.raises(InputError, match="gate reads the trained parameters, which reparametrization makes θ"):
                plan(given, out=place / "theta")
        else:
            [stage] = trainflat.run(given, out=place / "theta").stages
            assert sum(m.zeros for m in stage.matrices) >= 0.6 * sum(m.entries for m in stage.matrices) - 50


def test_a_plan_shows_the_curve(place: Path, tmp_path: Path) -> None:
    import yaml

    file = tmp_path / "recipe.yaml"
    steps = plan(recipe(place, section("magnitude"))).steps
    arrives = steps - round(0.4 * steps)
    for gate, text in ((section("hard-movement"), f"60% at {arrives}"), (section("soft-movement"), f"4 at {arrives}")):
        file.write_text(yaml.safe_dump(recipe(place, gate)))
        done = CliRunner().invoke(app, ["check", str(file)], env={"COLUMNS": "400"})
        assert done.exit_code == 0, done.output
        assert text in done.output and "▁▁" in done.output
        assert f"gate {gate['name']} (" in done.output and "{" not in done.output


def test_records_hold_the_curve_of_each_run(place: Path) -> None:
    record = trainflat.run(recipe(place, section("magnitude")), out=place / "magnitude")
    loaded = Record.load(next((place / "magnitude").iterdir()))
    assert loaded.digest == record.digest
