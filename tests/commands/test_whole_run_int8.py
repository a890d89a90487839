"""int8 beside float32 at every stage of a recipe, and what recipes and records without it keep."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import BertForSequenceClassification

import trainflat
from tests.support.families import config, write
from tests.support.pages import WIDTHS, Visit
from tests.support.runs import Saying, own_files, recipe
from trainflat.cli.plans import print_plan
from trainflat.commands.diagnose import diagnose
from trainflat.core.errors import InputError
from trainflat.core.rng import derive_seed
from trainflat.evaluation import measure_int8, predict, score
from trainflat.models import load_encoder
from trainflat.quantization import quantize_dynamic
from trainflat.recipe import load_recipe, packaged_recipes
from trainflat.records.run import Record, Stage
from trainflat.report import write_report
from trainflat.tasks import TASKS

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("int8")
    torch.manual_seed(0)
    made = recipe(write(folder / "model", BertForSequenceClassification(config("Bert"))), own_files(folder))
    made["protocol"] = {"name": "iterative", "sparsities": [0.5]}
    return made | {"evaluation": {"latency": {"batches": []}, "int8": {"embeddings": True, "activations": "torch"}}}


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def said() -> Saying:
    return Saying()


@pytest.fixture(scope="module")
def record(given: dict[str, Any], out: Path, said: Saying) -> Record:
    return trainflat.run(given, out=out, progress=said)


def test_every_stage_has_the_scores_of_its_copy(record: Record, given: dict[str, Any], out: Path):
    """As loading the stage's folder and rounding it by hand gives them."""
    folder = trainflat.plan(given, out=out).folder
    task = TASKS.read(given["task"]).build(data=None, seed=derive_seed(0, "rows"))
    for stage in record.stages:
        encoder = load_encoder(str(folder / "stages" / stage.name), task.head, fine_tuned=True)
        _, evaluation = task.encode(encoder.tokenizer, 16)
        small = quantize_dynamic(encoder.model, embeddings=True, activations="torch")
        assert stage.int8 is not None
        by_hand = {name: score(task, small, split, encoder.tokenizer) for name, split in evaluation.items()}
        assert stage.int8.scores == by_hand
        assert stage.int8.bytes == sum(tensor.nbytes for tensor in small.state_dict().values())
        assert (stage.int8.activations, stage.int8.embeddings, stage.int8.head) == ("torch", True, False)


def test_progress_and_plan_tell(record: Record, given: dict[str, Any], out: Path, said: Saying, capsys):
    dense = record.stages[0]
    assert dense.int8 is not None
    shown = f"(int8: {dense.int8.scores[record.task.split][record.task.metric]:.1f}), 0% of the encoder is zero"
    assert any(line.startswith("dense: ") and line.endswith(shown) for line in said.said)
    assert dense.answers is not None
    assert (f"dense: {dense.answers.remark()}" in said.said) == (dense.answers.remark() != "")
    print_plan(trainflat.plan(given, out=out))
    assert "scored too: activations torch, embeddings True, head False" in " ".join(
        capsys.readouterr().out.replace("│", " ").split()
    )


def test_it_changes_neither_training_nor_any_other_measure(record: Record, given: dict[str, Any], tmp_path: Path):
    """A measure between two trainings: the second one takes the same steps, with dropout, to the same bits."""
    without = trainflat.run(given, out=tmp_path, overrides={"evaluation.int8": False})
    assert [stage.model_copy(update=ANEW) for stage in without.stages] == [
        stage.model_copy(update=ANEW) for stage in record.stages
    ]
    weights = [[s.files[f"stages/{s.name}/model.safetensors"] for s in one.stages] for one in (record, without)]
    assert weights[0] == weights[1]


ANEW: dict[str, Any] = {"int8": None, "timing": Stage.model_fields["timing"].default, "files": {}}


def test_the_model_and_the_random_state_are_left_alone(given: dict[str, Any]):
    task = TASKS.read(given["task"]).build(data=None, seed=derive_seed(0, "rows"))
    encoder = load_encoder(given["model"], task.head)
    _, evaluation = task.encode(encoder.tokenizer, 16)
    encoder.model.train()
    encoder.model.bert.pooler.eval()
    before = state(encoder.model)
    measure_int8(task, encoder.model, evaluation, encoder.tokenizer, activations="batch")
    after = state(encoder.model)
    assert before[1:] == after[1:]
    assert all(torch.equal(one, other) for one, other in zip(before[0], after[0], strict=True))


def state(model: nn.Module) -> tuple[list[torch.Tensor], list[Any], list[Any]]:
    """Tensors and random state; modes; classes and configuration."""
    tensors = [tensor.clone() for tensor in model.state_dict().values()]
    modes = [module.training for module in model.modules()]
    return [*tensors, torch.get_rng_state()], modes, [*map(type, model.modules()), model.config.to_dict()]


def test_it_is_part_of_the_digest_where_it_is_there(record: Record):
    dense, *others = record.stages
    assert dense.int8 is not None
    for changed in None, dense.int8.model_copy(update={"bytes": 1}):
        stages = [dense.model_copy(update={"int8": changed}), *others]
        assert record.model_copy(update={"stages": stages}).expected_digest() != record.digest
    assert "int8" not in dense.model_copy(update={"int8": None}).model_dump()


def test_recipes_without_it_keep_their_hash():
    plain = {"task": "stdlib-docs", "model": "minilm"}
    assert "int8" not in load_recipe(plain).resolved()["evaluation"]
    assert load_recipe({**plain, "evaluation": {"int8": False}}).hash == load_recipe(plain).hash
    short = load_recipe({**plain, "evaluation": {"int8": True}})
    spelled = {"activations": "token", "embeddings": False, "head": False}
    assert short.resolved()["evaluation"]["int8"] == spelled
    assert short.hash == load_recipe({**plain, "evaluation": {"int8": spelled}}).hash != load_recipe(plain).hash


def test_every_recipe_of_the_package_scores_int8():
    for name in packaged_recipes():
        recipe = load_recipe(name)
        options = recipe.evaluation.int8
        if recipe.training.quantization is not None:
            continue
        assert options is not None, name
        if name.startswith("paper/"):  # as torch's quantize_dynamic did it
            assert (options.activations, options.head, options.embeddings) == ("torch", True, False)


@pytest.mark.parametrize(
    ("int8", "message"),
    [
        (
            {"activations": "row"},
            r"evaluation\.int8\.activations: 'token', 'batch' or 'torch' is expected, got 'row'",
        ),
        ({"embedding": True}, r"evaluation\.int8\.embedding is not a key of recipes\. Did you mean 'embeddings'"),
        (3, r"evaluation\.int8: a mapping is expected, got 3"),
    ],
)
def test_what_is_wrong_is_said_before_anything_runs(int8: object, message: str):
    with pytest.raises(InputError, match=message):
        load_recipe({"task": "stdlib-docs", "model": "minilm", "evaluation": {"int8": int8}})


def test_a_model_without_linear_layers_is_refused_in_the_plan(given: dict[str, Any], tmp_path: Path, monkeypatch):
    from trainflat.commands import refusals as checks

    def refuse(*_: Any, **__: Any) -> None:
        raise InputError("it has no linear layer to round to int8.")

    monkeypatch.setattr(checks, "layers_to_round", refuse)
    for method in trainflat.plan, trainflat.run:
        with pytest.raises(InputError, match=r"evaluation\.int8 for model .* no linear layer"):
            method(given, out=tmp_path)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_diagnosis_tells_what_int8_costs(record: Record, given: dict[str, Any], out: Path):
    folder = trainflat.plan(given, out=out).folder / "stages" / "dense"
    [found] = diagnose([folder], given["task"], rows=8, measures=[{"name": "gradient-norm"}])
    task = TASKS.read(given["task"]).build(data=None, seed=derive_seed(0, "rows"))
    encoder = load_encoder(str(folder), task.head, fine_tuned=True)
    _, evaluation = task.encode(encoder.tokenizer, encoder.max_length)
    small = quantize_dynamic(encoder.model)
    rounded = score(task, small, evaluation[task.split], encoder.tokenizer)[task.metric]
    assert found.int8_loss.value == found.score - rounded


@pytest.mark.long
def test_a_report_of_the_run_has_a_section(record: Record, browser: Any, tmp_path: Path):
    visit = Visit(browser, write_report([record], tmp_path), WIDTHS["phone"])
    assert visit.complaints == []
    assert visit.page.locator("#int8-0 .plot").count() == 3
    assert "per batch in 7 bits, embeddings too" in visit.page.text_content("#int8-0")
    visit.page.close()
    assert list((tmp_path / "figures").glob("int8-*.png"))
    assert "int8_torch_embeddings_score_mean" in (tmp_path / "results.csv").read_text().split("\n")[0]
    assert "| Inputs |" in (tmp_path / "results.md").read_text()


def test_stages_of_half_precision_are_scored_in_float32(given: dict[str, Any], tmp_path: Path, monkeypatch):
    """As whoever loads them will; autocast is for training. And it is the copy that is scored."""
    seen = []

    def watching(model: nn.Module, *args: Any, **kwargs: Any) -> Any:
        linear = model.get_submodule("bert.encoder.layer.0.output.dense")
        hook = linear.register_forward_hook(lambda module, x, y: seen.append((type(module).__name__, y.dtype)))
        found = predict(model, *args, **kwargs)
        hook.remove()
        return found

    monkeypatch.setattr("trainflat.evaluation.predictions.predict", watching)
    trainflat.run(given, out=tmp_path, overrides={"training.precision": "bf16"})
    assert set(seen) == {("Linear", torch.float32), ("Int8Linear", torch.float32)}
