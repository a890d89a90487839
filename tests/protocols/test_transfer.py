"""Sizes of the pre-trained model: what each starts from, and that nothing but its size sets it apart."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import BertForSequenceClassification, FunnelConfig, FunnelForSequenceClassification

import trainflat
from tests.support.families import config, write
from tests.support.runs import own_files, recipe
from trainflat.anatomy import anatomy_of
from trainflat.core.errors import InputError
from trainflat.protocols import Transfer
from trainflat.protocols import workspace as workspaces
from trainflat.pruning.structured import Kept, shrink


@pytest.fixture
def place(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_attention_heads": 4, "intermediate_size": 20}
    write(tmp_path / "model", BertForSequenceClassification(config("Bert", **sizes)))
    return tmp_path


def given(place: Path, **options: Any) -> dict[str, Any]:
    made = recipe(place / "model", own_files(place), optimizer={"name": "adamw", "lr": 1e-3})
    return made | {"protocol": {"name": "transfer", **options}, "evaluation": {"latency": {"batches": []}}}


def smallest(model: Any, share: float) -> Kept:
    """Spelt out, by the names of BERT's tensors: columns of least norm in the matrices that read heads and units."""
    anatomy = anatomy_of(model)
    gone = []
    for number, layer in enumerate(model.bert.encoder.layer):
        heads = layer.attention.output.dense.weight.view(16, 4, 4).square().sum((0, 2)).argsort()[: round(4 * share)]
        units = layer.output.dense.weight.norm(dim=0).argsort()[: round(20 * share)]
        gone += [u for u in anatomy.units("head") if u.layer == number and u.index in heads]
        gone += [u for u in anatomy.units("feed-forward unit") if u.layer == number and u.index in units]
    return Kept.all(anatomy).without(gone)


def test_every_size_starts_from_the_pretrained_weights_without_their_smallest_units(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts: list[nn.Module] = []
    original = workspaces.fit

    def watching(model: Any, *args: Any, **kwargs: Any) -> Any:
        starts.append(shrink(model, Kept.all(anatomy_of(model))))  # a copy
        return original(model, *args, **kwargs)

    monkeypatch.setattr(workspaces, "fit", watching)
    record = trainflat.run(given(place, sparsities=[0.25, 0.5]), out=place / "runs")
    dense, *smaller = starts
    for model, share in zip(smaller, (0.25, 0.5), strict=True):
        expected = shrink(dense, smallest(dense, share)).state_dict()
        found = model.state_dict()
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
        assert torch.equal(found["classifier.weight"], dense.state_dict()["classifier.weight"])
    entries = [sum(matrix.entries for matrix in stage.matrices[:-1]) for stage in record.stages]  # without the pooler
    assert [one / entries[0] for one in entries] == [1, 0.75, 0.5]
    assert record.stages[0].structure is None
    for stage, share in zip(record.stages[1:], (0.75, 0.5), strict=True):
        assert stage.structure and stage.structure.multiply_adds == share
        assert [(len(one.heads), one.units) for one in stage.structure.layers] == [(4 * share, 20 * share)] * 3
    assert record.stages[2].sizes.parameters < record.stages[1].sizes.parameters < record.stages[0].sizes.parameters


def test_a_finished_size_is_recalled_and_trained_on_by_nobody(place: Path) -> None:
    first = trainflat.run(given(place, sparsities=[0.5]), out=place / "runs")
    folder = next((place / "runs").iterdir())
    model = trainflat.load(folder / "stages" / "sparsity-0.50")
    assert [len(layer.heads) for layer in Kept.all(anatomy_of(model)).layers] == [2, 2, 2]
    (folder / "record.json").unlink()
    written = (folder / "stages" / "sparsity-0.50" / "model.safetensors").stat().st_mtime_ns
    again = trainflat.run(given(place, sparsities=[0.5]), out=place / "runs")
    assert again.digest == first.digest
    assert (folder / "stages" / "sparsity-0.50" / "model.safetensors").stat().st_mtime_ns == written


def test_a_control_drops_units_by_chance_and_by_the_seed() -> None:
    torch.manual_seed(0)
    model = BertForSequenceClassification(config("Bert", intermediate_size=64))

    def units(score: str, seed: int) -> list[float]:
        return Transfer([0.5], score=score).kept(model, 0.5, seed).layers[0].units.tolist()

    assert units("random", 0) == units("random", 0) != units("random", 1)
    assert units("magnitude", 0) == units("magnitude", 1) != units("random", 0)
    assert sum(units("random", 0)) == 32


def test_every_sub_layer_keeps_a_unit() -> None:
    kept = Transfer([0.99]).kept(BertForSequenceClassification(config("Bert")), 0.99, 0)
    assert [(int(one.heads.sum()), int(one.units.sum())) for one in kept.layers] == [(1, 1)] * 3


def test_what_cannot_be_followed_is_refused(place: Path, tmp_path: Path) -> None:
    for options, said in (
        ({"sparsities": [0.5, 0.25]}, "ascending"),
        ({"score": "taylor"}, "no score is called 'taylor'. Known: magnitude, random"),
    ):
        with pytest.raises(InputError, match=said):
            trainflat.run(given(place, **options), out=place / "runs")
    sizes = {"d_model": 8, "n_head": 2, "d_head": 4, "d_inner": 8, "block_sizes": [1, 1], "vocab_size": 40}
    write(tmp_path / "funnel", FunnelForSequenceClassification(FunnelConfig(**sizes, pad_token_id=0)))
    with pytest.raises(InputError, match=r"(?i)funnel"):
        trainflat.plan(given(place) | {"model": str(tmp_path / "funnel")}, out=place / "runs")
