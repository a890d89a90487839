"""Structure that is learned: a teacher, a pruning, a last fine-tuning, and what each stage hands on to the next."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import BertForSequenceClassification

import trainflat
from tests.support.families import config, write
from tests.support.runs import own_files, recipe
from trainflat.anatomy import anatomy_of
from trainflat.core.errors import InputError
from trainflat.core.files import load_tensors
from trainflat.protocols import PROTOCOLS, LearnedStructure, Produced, Structured, learned_structure, rates
from trainflat.protocols import workspace as workspaces
from trainflat.protocols.phases import Phase
from trainflat.pruning.structured import Kept
from trainflat.records.run import Record, Training
from trainflat.tasks.base import EncodedSplit
from trainflat.training.options import TrainingOptions

COFI: dict[str, Any] = {
    "name": "cofi",
    "target_sparsity": 0.5,
    "schedule": {"name": "linear", "start": 0.1, "hold": 0.5},
    "score_lr": 0.8,
    "multiplier_lr": 0.5,
    "tolerance": 0.5,
}
METHODS: dict[str, dict[str, Any]] = {
    "cofi": COFI,
    "grain": {"name": "grain", "target_sparsity": 0.6, "schedule": {"name": "cubic", "start": 0.2, "hold": 0.6}},
    "block-movement": {
        "name": "block-movement",
        "target_sparsity": 0.5,
        "block": 4,
        "score_lr": 0.5,
        "schedule": {"name": "linear", "start": 0.1, "hold": 0.2},
    },
    "mlpruning": {
        "name": "mlpruning",
        "target_sparsity": 0.3,
        "score_lr": 0.5,
        "schedule": {"name": "linear", "start": 0.1, "hold": 0.2},
    },
}
TAUGHT = {"distillation": {"teacher": "dense", "weight": 1.0}, "layerwise": {"weight": 0.5}}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("learned")
    torch.manual_seed(0)
    write(folder / "model", BertForSequenceClassification(config("Bert")))
    return folder


def given(place: Path, training: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
    chosen: dict[str, Any] = {"optimizer": {"name": "adamw", "lr": 1e-3}, "epochs": 4, **(training or {})}
    made = recipe(place / "model", own_files(place), **chosen)
    protocol = {"name": "structured", "method": COFI, **options}
    return made | {"protocol": protocol, "evaluation": {"latency": {"batches": []}}}


def ran(place: Path, out: str, training: dict[str, Any] | None = None, **options: Any) -> tuple[Record, Path]:
    record = trainflat.run(given(place, training, **options), out=place / out)
    return record, next((place / out).iterdir())


@pytest.mark.parametrize("name", METHODS)
def test_every_method_ends_in_a_smaller_model_that_is_trained_once_more(place: Path, name: str) -> None:
    record, run = ran(place, name, TAUGHT, method=METHODS[name], dense={"epochs": 1}, finetune={"epochs": 1})
    assert [stage.name for stage in record.stages] == ["dense", "pruned", "finetuned"]
    dense, pruned, finetuned = record.stages
    assert [stage.training.steps for stage in record.stages if stage.training] == [5, 20, 5]
    assert dense.structure is None and pruned.structure is not None
    eligible = [["eligible" in one for one in s.training.evaluations] for s in record.stages if s.training]
    assert [{*one} for one in eligible] == [{False}, {True}, {False}]  # of a training under a gate alone
    assert pruned.structure == finetuned.structure and pruned.structure.score == name
    for stage in (pruned, finetuned):
        model = trainflat.load(run / "stages" / stage.name)
        own = [p for name, p in model.named_parameters() if ".layer." in name]
        assert pruned.structure.parameters == sum(p.numel() for p in own)
        assert sum(p.numel() for p in model.parameters()) == stage.sizes.parameters <= dense.sizes.parameters
    matrices = [p for name, p in model.named_parameters() if ".layer." in name and p.dim() > 1]
    # Zeros inside of what is left were filled; GRAIN may leave a layer no dimension of queries and keys.
    assert all(p.all() or (name == "grain" and not p.any()) for p in matrices)


def test_a_run_that_is_killed_between_stages_goes_on_to_the_same_bits_with_its_maps(place: Path) -> None:
    options: dict[str, Any] = {"dense": {"epochs": 1}, "finetune": {"epochs": 1, "lr": [1e-4, 1e-3]}}
    whole, run = ran(place, "killed", TAUGHT, **options)
    maps = load_tensors(run / "stages" / "pruned" / "maps.safetensors")[0]
    hidden = whole.stages[1].structure.hidden if whole.stages[1].structure else 0
    assert {tuple(one.shape) for one in maps.values()} == {(8, hidden), (8,)}
    last = run / "stages" / "finetuned"
    before = (last / "model.safetensors").read_bytes()
    for path in [run / "record.json", *last.iterdir()]:
        path.unlink()
    last.rmdir()
    again, _ = ran(place, "killed", TAUGHT, **options)
    assert again.digest == whole.digest and (last / "model.safetensors").read_bytes() == before


def test_the_rate_that_is_best_on_held_out_rows_trains_the_last_stage(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, float, int, int]] = []
    original, starts = rates.train, []

    def watching(workspace: Any, stage: Any, model: Any, **features: Any) -> Any:
        starts.append({name: p.detach().clone() for name, p in model.named_parameters()})
        rows = {split.name: len(split) for split in [workspace.train_split, *workspace.evaluation.values()]}
        seen.append((stage.name, workspace.options.optimizer.lr, len(workspace.train_split), sum(rows.values())))
        return original(workspace, stage, model, **features)

    monkeypatch.setattr(rates, "train", watching)
    monkeypatch.setattr(rates, "_score", lambda *_, **__: {1e-5: 1.0, 1e-3: 3.0, 1e-4: 3.0}[seen[-1][1]])
    record, _ = ran(place, "rates", finetune={"epochs": 1, "lr": [1e-5, 1e-3, 1e-4], "held_out": 0.25})
    rows = seen[-1][2]
    held = round(0.25 * rows)
    assert [(name, lr) for name, lr, *_ in seen] == [
        ("finetuned-lr-1e-05", 1e-5),
        ("finetuned-lr-0.001", 1e-3),
        ("finetuned-lr-0.0001", 1e-4),
        ("finetuned", 1e-3),  # the first of the best
    ]
    # A trial leaves the model as it was for the next, and for the last training.
    assert all(torch.equal(p, starts[0][name]) for start in starts[1:] for name, p in start.items())
    assert [learned for *_, learned, _ in seen] == [rows - held] * 3 + [rows]
    training = record.stages[-1].training
    assert training is not None and training.features is not None
    assert training.features["rates"] == {"chosen": 1e-3, "scores": [[1e-5, 1.0], [1e-3, 3.0], [1e-4, 3.0]]}


def test_a_rate_is_scored_by_the_weights_that_its_training_ended_with() -> None:
    evaluations = [{"step": float(step), "holdout/accuracy": score} for step, score in [(1, 9.0), (2, 5.0), (3, 4.0)]]
    training = Training(
        optimizer="adamw", steps=3, epochs=1.0, passes=3, best_step=None, curve=[], evaluations=evaluations
    )
    best = training.model_copy(update={"best_step": 2})  # not the first: an average held no model yet
    assert rates._score(best, "holdout/accuracy") == 5.0
    assert rates._score(training, "holdout/accuracy") == 4.0


def test_held_out_rows_are_not_learned_from() -> None:
    split = EncodedSplit("train", [{"input_ids": [i]} for i in range(20)], list(range(20)))
    learned, held = rates.held_out(split, 5, seed=1)
    assert (len(learned), len(held)) == (15, 5)
    first, second = ([row["input_ids"][0] for row in part.rows] for part in (learned, held))
    assert sorted([*first, *second]) == list(range(20)) and first == sorted(first)
    assert list(held.lengths) == second
    assert rates.held_out(split, 5, seed=1)[1].rows == held.rows != rates.held_out(split, 5, seed=2)[1].rows


def test_each_stage_is_trained_with_what_the_one_before_hands_on(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: dict[str, tuple[dict[str, Any], TrainingOptions]] = {}
    original = workspaces.fit

    def watching(model: Any, *args: Any, **kwargs: Any) -> Any:
        calls[kwargs["folder"].name] = kwargs["options"].features() | kwargs["features"], kwargs["options"]
        return original(model, *args, **kwargs)

    monkeypatch.setattr(workspaces, "fit", watching)
    again = {"epochs": 2, "lr": 1e-4, "schedule": "constant"}
    _, run = ran(place, "handed", TAUGHT, dense={"epochs": 1}, finetune=again)
    stages = run / "stages"
    assert list(calls) == ["dense", "pruned", "finetuned"]
    dense, pruned, finetuned = (features for features, _ in calls.values())
    assert dense["distillation"] is dense["layerwise"] is None and "gate" not in dense
    weights = trainflat.load(stages / "dense").state_dict()
    for features in (pruned, finetuned):
        assert features["distillation"].weight == 1.0 and features["freeze_embeddings"] is True
        taught = features["distillation"].teacher.state_dict()
        assert all(torch.equal(taught[name], tensor) for name, tensor in weights.items())
    assert pruned["gate"].name == "cofi" and "gate" not in finetuned
    assert pruned["layerwise"].start is None
    maps, start = load_tensors(stages / "pruned" / "maps.safetensors")[0], finetuned["layerwise"].start
    assert all(torch.equal(start[name], tensor) for name, tensor in maps.items()) and start.keys() == maps.keys()
    options = calls["finetuned"][1]
    assert (options.epochs, options.optimizer.lr, options.schedule) == (2, 1e-4, "constant")
    assert [one.epochs for _, one in calls.values()] == [1, 4, 2]


def test_pruning_begins_from_the_dense_weights_where_it_shall(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    starts: dict[str, dict[str, Any]] = {}
    original = workspaces.fit

    def watching(model: Any, *args: Any, **kwargs: Any) -> Any:
        starts[kwargs["folder"].name] = {name: p.detach().clone() for name, p in model.named_parameters()}
        return original(model, *args, **kwargs)

    monkeypatch.setattr(workspaces, "fit", watching)
    _, run = ran(place, "begun", start="dense", dense={"epochs": 1})
    dense = trainflat.load(run / "stages" / "dense").state_dict()
    assert starts.keys() == {"dense", "pruned"}
    assert all(torch.equal(p, dense[name]) for name, p in starts["pruned"].items())
    assert not all(torch.equal(p, starts["dense"][name]) for name, p in starts["pruned"].items())


def test_parameters_are_a_budget_of_the_whole_model(place: Path) -> None:
    dense = sum(p.numel() for p in trainflat.load(place / "model").parameters())
    record, _ = ran(place, "counted", method={**COFI, "hidden": False, "tolerance": 0.1}, parameters=dense - 800)
    [stage] = record.stages
    assert stage.name == "pruned" and stage.structure is not None
    assert stage.target_sparsity == stage.structure.sparsity > 0
    assert stage.training is not None and stage.training.best_step is not None
    asked = 800 / dense
    log = [one["sparsity_target"] for one in stage.training.curve if "sparsity_target" in one]
    assert log[-1] == pytest.approx(asked)


def test_a_speedup_is_one_of_this_machine(place: Path) -> None:
    method = {**COFI, "hidden": False}
    record, run = ran(place, "timed", method=method, speedup=1.05, length=8)
    assert (run / "latency.json").is_file()
    assert record.stages[-1].timing.predicted_seconds is not None


def test_without_a_method_the_name_stands_for_pruning_between_trainings() -> None:
    assert PROTOCOLS.read("structured").member is Structured
    learned = PROTOCOLS.read({"name": "structured", "method": "cofi", "finetune": {"lr": "2e-5"}})
    assert learned.member is LearnedStructure
    section = learned.section()
    assert section["finetune"] == {"lr": [2e-5]} and section["dense"] is None
    assert PROTOCOLS.read(section).section() == section


@pytest.mark.parametrize(
    ("options", "training", "message"),
    [
        ({"method": "hard-movement"}, {}, "method"),
        ({"start": "dense"}, {}, "dense is null"),
        ({"finetune": {"epoch": 3}}, {}, "epochs"),
        ({"finetune": {"epochs": 0}}, {}, r"finetune.epochs"),
        ({"finetune": {"lr": []}}, {}, "lr"),
        ({"finetune": {"lr": [1e-4, 1e-4]}}, {}, "different"),
        ({"finetune": 3}, {}, "mapping"),
        ({"pruner": "obs"}, {}, "pruner"),
        ({"method": {**COFI, "target_sparsity": 0.9999}}, {}, "can reach"),
        ({"method": {**COFI, "score_lr": 0.01}}, {}, "score_lr"),
        ({"parameters": 100}, {}, "hidden to false"),
        ({"method": {**COFI, "hidden": False}, "parameters": 100}, {}, "can reach"),
        ({"method": {**COFI, "hidden": False}, "parameters": 100, "speedup": 2}, {}, "one of the two"),
        ({"method": {**COFI, "hidden": False}, "speedup": 1}, {}, "speedup"),
        ({"method": METHODS["block-movement"], "speedup": 2}, {}, "target of its own"),
        ({"method": {**COFI, "budget": 3}}, {}, "budget"),
        ({}, {"quantization": "q8bert"}, "quantization"),
        ({}, {"layerwise": {"weight": 0.5}}, "teacher"),
        (
            {"finetune": {"epochs": 1}},  # the last stage alone ends before the average holds a model
            {"averaging": {"name": "swa", "every": 3}},
            "stage finetuned: .*averag",
        ),
        ({"dense": {}}, {"distillation": {"teacher": "dense", "renew": "best"}}, "renew best makes a teacher of the s"),
    ],
)
def test_wrong_options_are_one_line_before_anything_is_trained(
    place: Path, options: dict[str, Any], training: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        trainflat.plan(given(place, training, **options), out=place / "wrong")
    assert "\n" not in str(caught.value)


def test_maps_are_cut_to_the_hidden_dimensions_that_are_left(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = trainflat.load(place / "model")
    gone = anatomy_of(model).units("hidden dimension")[2:5]
    maps = {"linears.0.weight": torch.arange(64.0).view(8, 8), "linears.0.bias": torch.ones(8)}
    products = {"gate": Kept.all(anatomy_of(model)).without(gone), "layerwise": maps}
    monkeypatch.setattr(learned_structure, "train", lambda _, stage, m, **__: Produced(stage, m, products=products))
    protocol = LearnedStructure(finetune={"epochs": 1})
    workspace: Any = SimpleNamespace(folder=place)
    made = protocol._pruned(workspace, protocol.plan()[0], model)
    assert made.maps is not None and made.products == {}
    assert torch.equal(made.maps["linears.0.weight"], maps["linears.0.weight"][:, [0, 1, 5, 6, 7]])
    assert torch.equal(made.maps["linears.0.bias"], torch.ones(8))


def test_a_phase_replaces_what_it_names_and_nothing_else() -> None:
    training = TrainingOptions(epochs=3, warmup=0.1, optimizer={"name": "sam", "rho": 0.02, "lr": 1e-3})
    changed = Phase(epochs=1, lr=1e-4, schedule="constant", warmup=0.3).applied(training)
    assert (changed.epochs, changed.schedule, changed.warmup) == (1, "constant", 0.3)
    assert (changed.optimizer.lr, changed.optimizer.rho, changed.batch_size) == (1e-4, 0.02, training.batch_size)
    assert Phase().applied(training) == training


def test_phases_count_the_steps_of_the_rates_that_are_compared() -> None:
    training = TrainingOptions(epochs=3, batch_size=10)
    assert Phase().steps(training, 100) == 30
    assert Phase(epochs=1, lr=[1e-4]).steps(training, 100) == 10
    assert Phase(epochs=1, lr=[1e-4, 1e-3], held_out=0.35).steps(training, 100) == 2 * 7 + 10
