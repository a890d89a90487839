"""What each protocol promises: where it starts, what it prunes, what it carries on."""

from pathlib import Path
from typing import Any

import hypothesis
import pytest
import torch
from hypothesis import strategies as st
from transformers import BertForSequenceClassification

import trainflat
from tests.support.families import config, write
from tests.support.runs import own_files, recipe
from tests.support.teachers import LABELS
from trainflat.anatomy.narrow import CODE_FILE
from trainflat.anatomy.params import prunable
from trainflat.core.errors import InputError
from trainflat.core.files import load_tensors
from trainflat.core.rng import derive_seed
from trainflat.protocols import PROTOCOLS, Iterative, OneShot
from trainflat.protocols.iterative import head_names
from trainflat.pruning import Masks
from trainflat.records.run import Record

SPARSITIES = [0.5, 0.75]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("protocols")
    torch.manual_seed(0)
    write(folder / "model", BertForSequenceClassification(config("Bert")))
    return folder


def ran(place: Path, protocol: dict[str, Any], out: str, **options: Any) -> tuple[Record, Path]:
    given = recipe(place / "model", own_files(place), **options) | {"protocol": protocol}
    given["evaluation"] = {"latency": {"batches": []}}
    record = trainflat.run(given, out=place / out)
    return record, next((place / out).iterdir())


def weights(run: Path, stage: str) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(run / "stages" / stage / "model.safetensors")


def starts(place: Path, protocol: dict[str, Any], out: str, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The weights that every training began with, masks applied."""
    import trainflat.protocols.workspace as module

    seen = []
    original = module.fit

    def watching(model: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        return original(model, *args, **kwargs)

    monkeypatch.setattr(module, "fit", watching)
    ran(place, protocol, out)
    return seen


def test_rewinding_goes_back_to_the_pretrained_weights_and_the_seeded_head(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    protocol = {"name": "iterative", "sparsities": SPARSITIES}
    dense, *rounds = starts(place, protocol, "rewound", monkeypatch)
    run = next((place / "rewound").iterdir())
    for begun, sparsity in zip(rounds, SPARSITIES, strict=True):
        masks = Masks.load(run / "stages" / f"sparsity-{sparsity:.2f}" / "masks.safetensors")
        for name, tensor in begun.items():
            expected = dense[name] * masks[name] if name in masks else dense[name]
            assert torch.equal(tensor, expected), name


def test_each_round_drops_the_smallest_of_the_weights_that_the_round_before_trained(place: Path) -> None:
    _, run = ran(place, {"name": "iterative", "sparsities": SPARSITIES}, "ranked")
    dense = weights(run, "dense")
    masks = Masks.load(run / "stages" / "sparsity-0.50" / "masks.safetensors")
    kept = torch.cat([dense[name][masks[name]].abs() for name in masks])
    gone = torch.cat([dense[name][~masks[name]].abs() for name in masks])
    assert gone.max() <= kept.min()
    assert len(gone) == round(0.5 * masks.entries)


def test_standard_pruning_continues_from_the_trained_weights(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    protocol = {"name": "iterative", "sparsities": SPARSITIES, "rewind": "none"}
    _, first, second = starts(place, protocol, "standard", monkeypatch)
    run = next((place / "standard").iterdir())
    for before, begun in [("dense", first), ("sparsity-0.50", second)]:
        trained = weights(run, before)
        after = "sparsity-0.50" if before == "dense" else "sparsity-0.75"
        masks = Masks.load(run / "stages" / after / "masks.safetensors")
        for name, tensor in begun.items():
            expected = trained[name] * masks[name] if name in masks else trained[name]
            assert torch.equal(tensor, expected), name


def test_a_training_that_stops_before_the_step_to_rewind_to(place: Path) -> None:
    protocol = {"name": "iterative", "sparsities": [0.5], "rewind": 5}
    frozen = {"name": "adamw", "lr": 1e-30}  # never better than at first
    options = {"evaluate_every": 1, "patience": 1, "optimizer": frozen}
    with pytest.raises(InputError, match=r"stopped before the step of protocol\.rewind\. Name an earlier step"):
        ran(place, protocol, "stopped", **options)


def test_rewinding_to_a_step_goes_back_to_that_step(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    protocol = {"name": "iterative", "sparsities": [0.5], "rewind": 2}
    dense, rewound = starts(place, protocol, "step", monkeypatch)
    run = next((place / "step").iterdir())
    snapshot, _ = load_tensors(run / "rewind" / "weights.safetensors")
    masks = Masks.load(run / "stages" / "sparsity-0.50" / "masks.safetensors")
    for name, tensor in rewound.items():
        assert torch.equal(tensor, snapshot[name] * masks[name] if name in masks else snapshot[name])
    moved = [name for name in snapshot if not torch.equal(snapshot[name], dense[name])]
    assert moved
    assert any(not torch.equal(snapshot[name], weights(run, "dense")[name]) for name in moved)


def test_a_kept_head_stays_as_trained(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    protocol = {"name": "iterative", "sparsities": [0.5], "head": "keep"}
    dense, begun = starts(place, protocol, "head", monkeypatch)
    trained = weights(next((place / "head").iterdir()), "dense")
    assert torch.equal(begun["classifier.weight"], trained["classifier.weight"])
    assert not torch.equal(begun["classifier.weight"], dense["classifier.weight"])
    assert torch.equal(begun["bert.embeddings.word_embeddings.weight"], dense["bert.embeddings.word_embeddings.weight"])


def test_one_shot_prunes_copies_of_the_trained_model(place: Path) -> None:
    record, run = ran(place, {"name": "one-shot", "sparsities": [0.25, 0.9]}, "one-shot")
    dense = weights(run, "dense")
    for stage in record.stages[1:]:
        assert stage.training is None
        masks = Masks.load(run / "stages" / stage.name / "masks.safetensors")
        for name, tensor in weights(run, stage.name).items():
            assert torch.equal(tensor, dense[name] * masks[name] if name in masks else dense[name])


@pytest.mark.long
def test_tickets(place: Path) -> None:
    _, source = ran(place, {"name": "iterative", "sparsities": SPARSITIES}, "source")
    found = Masks.load(source / "stages" / "sparsity-0.75" / "masks.safetensors")
    given = {"name": "ticket", "sparsity": 0.75}
    masks = {}
    for structure in ("found", "layer-shuffled", "random"):
        run = {} if structure == "random" else {"run": str(source)}
        _, folder = ran(place, {**given, "structure": structure, **run}, structure)
        masks[structure] = Masks.load(folder / "stages" / "sparsity-0.75" / "masks.safetensors")
        assert masks[structure].zeros == found.zeros
    assert masks["found"].sha256 == found.sha256
    assert [m.zeros for m in masks["layer-shuffled"].statistics()] == [m.zeros for m in found.statistics()]
    assert len({m.sha256 for m in masks.values()}) == 3


def test_a_ticket_of_another_task_with_other_labels(place: Path, tmp_path: Path) -> None:
    _, source = ran(place, {"name": "iterative", "sparsities": [0.5]}, "transfer-source")
    torch.manual_seed(1)
    model = write(tmp_path / "model", BertForSequenceClassification(config("Bert", num_labels=1)))
    given = recipe(model, own_files(tmp_path, "regression"))
    given |= {"protocol": {"name": "ticket", "sparsity": 0.5, "run": str(source)}}
    record = trainflat.run(given, out=tmp_path / "runs")
    assert record.stages[0].sizes.encoder_sparsity == pytest.approx(0.5, abs=1e-3)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_plan_names_the_stages_that_a_run_leaves(name: str, place: Path) -> None:
    """The contract, over the table: stages, every file; and that running a complete run again changes nothing."""
    options = {"ticket": {"sparsity": 0.5, "structure": "random"}, "iterative": {"sparsities": [0.5], "rewind": 2}}
    options["gradual"] = {"gate": {"name": "soft-movement", "penalty": 1.0}}
    model = place / "model"
    if PROTOCOLS[name].fine_tuned:
        model = write(place / f"tuned-{name}", BertForSequenceClassification(config("Bert", **LABELS)))
    given = recipe(model, own_files(place)) | {"protocol": {"name": name, **options.get(name, {})}}
    plan = trainflat.plan(given, out=place / f"plan-{name}")
    record = trainflat.run(given, out=place / f"plan-{name}")
    assert [stage.name for stage in plan.stages] == [stage.name for stage in record.stages]
    assert [stage.trained for stage in plan.stages] == [stage.training is not None for stage in record.stages]
    assert plan.steps == sum(stage.training.steps for stage in record.stages if stage.training)
    files = {str(p.relative_to(plan.folder)) for p in plan.folder.rglob("*") if p.is_file()}
    # A smaller model that its architecture's own config can describe needs no file that does so.
    assert files <= set(plan.files) and all(CODE_FILE in file for file in set(plan.files) - files)
    assert len(plan.files) == len(set(plan.files))
    left = {p: p.stat().st_mtime_ns for p in plan.folder.rglob("*") if p.name != ".lock"}
    assert trainflat.run(given, out=place / f"plan-{name}") == record
    assert {p: p.stat().st_mtime_ns for p in plan.folder.rglob("*") if p.name != ".lock"} == left


def test_the_head_is_what_the_encoder_has_not() -> None:
    model = BertForSequenceClassification(config("Bert"))
    assert head_names(model) == {"classifier.weight", "classifier.bias"}
    assert not head_names(model) & set(prunable(model))


@pytest.mark.parametrize(
    ("protocol", "message"),
    [
        ({"name": "iterative", "sparsities": [0.5, 0.5]}, "ascending"),
        ({"name": "iterative", "sparsities": []}, "empty"),
        ({"name": "one-shot", "sparsities": [1.0]}, r"shares in \(0, 1\)"),
        ({"name": "one-shot", "sparsities": [1e-11]}, "differ in their first ten decimals, got 1e-11 after 0.0"),
        ({"name": "one-shot", "sparsities": [0.3, 0.30000000000000004]}, "got 0.30000000000000004 after 0.3. Leave"),
        ({"name": "one-shot", "sparsities": [0.999999999999]}, "differ in their first ten decimals"),
        ({"name": "iterative", "rewind": -1}, "rewind"),
        ({"name": "iterative", "sparsities": [0.5], "rewind": 99}, "beyond the 5 steps"),
        ({"name": "ticket", "sparsity": 0.5}, "run is missing"),
        ({"name": "ticket", "sparsity": 0.5, "run": "nowhere"}, "has no masks at sparsity 0.5"),
        ({"name": "ticket", "sparsity": 0.5, "run": "x", "structure": "random"}, "not read for a random ticket"),
        ({"name": "itrative"}, "Did you mean 'iterative'"),
        ({"name": "one-shot", "pruner": "magnitud"}, "Did you mean 'magnitude'"),
    ],
)
def test_protocols_that_cannot_be_followed(protocol: dict[str, Any], message: str, place: Path) -> None:
    with pytest.raises(InputError, match=message):
        ran(place, protocol, "refused")


def test_published_steps_are_the_default() -> None:
    assert [round(stage.sparsity, 1) for stage in Iterative().plan()] == [k / 10 for k in range(10)]
    assert [stage.name for stage in OneShot().plan()][:3] == ["dense", "sparsity-0.05", "sparsity-0.10"]


@hypothesis.given(
    st.lists(st.floats(0, 1, exclude_min=True, exclude_max=True), min_size=1, max_size=5, unique=True).map(sorted)
)
@hypothesis.example([0.001, 0.002])
@hypothesis.example([1e-9, 2e-9, 0.1, 0.1000000001])
def test_stages_have_names_of_their_own(sparsities: list[float]) -> None:
    try:
        names = [stage.name for stage in Iterative(sparsities).plan()]
    except InputError:
        ten = [f"{sparsity:.10f}" for sparsity in (0, *sparsities, 1)]
        assert len(set(ten)) < len(ten)
    else:
        assert len(set(names)) == len(sparsities) + 1


def test_usual_stages_have_two_decimals() -> None:
    names = [stage.name for stage in Iterative([0.001, 0.1, 0.125, 0.5]).plan()]
    assert names == ["dense", "sparsity-0.001", "sparsity-0.10", "sparsity-0.125", "sparsity-0.50"]


def test_seeds_of_different_purposes_and_runs_differ() -> None:
    seeds = {derive_seed(seed, purpose) for seed in range(50) for purpose in ("dense", "sparsity-0.50", "head")}
    assert len(seeds) == 150
