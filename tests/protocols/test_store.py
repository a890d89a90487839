"""A stage may have another shape than the one before it: it is committed, sealed and recalled like any other."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertForSequenceClassification

import trainflat
from tests.support.families import config, write
from tests.support.runs import own_files, recipe
from trainflat.core.errors import DamagedFile
from trainflat.core.files import is_sealed
from trainflat.evaluation import measure_sizes
from trainflat.models import load_encoder
from trainflat.protocols import Dense, Planned, Produced, StageStore, Workspace
from trainflat.protocols.workspace import train
from trainflat.pruning import MagnitudePruner
from trainflat.records import run as record
from trainflat.tasks.base import Head

STAGES = [Planned("dense", 0.0, trained=True), Planned("halved", 0.0, trained=True)]


def halved(model: Any) -> BertForSequenceClassification:
    """The first half of the feed-forward units of every layer."""
    small = copy.deepcopy(model.config)
    small.intermediate_size //= 2
    cut = type(model)(small)
    whole = model.state_dict()
    cut.load_state_dict({n: whole[n][tuple(map(slice, t.shape))] for n, t in cut.state_dict().items()})
    return cut


def shrinking(self: Dense, workspace: Workspace) -> Iterator[Produced]:
    """A protocol that trains, cuts, and trains what is left."""
    dense = workspace.store.recall(STAGES[0]) or train(workspace, STAGES[0], workspace.untrained())
    yield dense
    yield workspace.store.recall(STAGES[1]) or train(workspace, STAGES[1], halved(dense.model))


@pytest.fixture
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    torch.manual_seed(0)
    write(tmp_path / "model", BertForSequenceClassification(config("Bert")))
    monkeypatch.setattr(Dense, "plan", lambda self: STAGES)
    monkeypatch.setattr(Dense, "run", shrinking)
    made = recipe(tmp_path / "model", own_files(tmp_path)) | {"protocol": "dense"}
    return made | {"evaluation": {"latency": {"batches": []}}}


class StoppedError(Exception):
    pass


def test_a_killed_run_goes_on_from_a_smaller_stage(
    given: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = trainflat.run(given, out=tmp_path / "whole")
    commit = StageStore.commit

    def stopping(self: StageStore, *args: Any) -> None:
        commit(self, *args)
        raise StoppedError

    for calls in range(1, 3):  # one that ends after each stage
        with monkeypatch.context() as patch, pytest.raises(StoppedError):
            patch.setattr(StageStore, "commit", stopping)
            trainflat.run(given, out=tmp_path / "parts")
        assert len(list(tmp_path.glob("parts/*/stages/*/manifest.json"))) == calls
    with monkeypatch.context() as patch:  # both are recalled, the smaller one too
        patch.setattr("trainflat.protocols.workspace.fit", None)
        parts = trainflat.run(given, out=tmp_path / "parts")
    assert parts.digest == whole.digest
    sizes = [trainflat.load(path) for path in sorted(tmp_path.glob("parts/*/stages/*"))]
    assert [model.config.intermediate_size for model in sizes] == [12, 6]
    assert whole.stages[1].sizes != whole.stages[0].sizes


def measured(produced: Produced) -> record.Stage:
    return record.Stage(
        name=produced.plan.name,
        target_sparsity=0.0,
        scores={},
        sizes=measure_sizes(produced.model, produced.masks),
        matrices=[],
        training=None,
        timing=record.Timing(train_seconds=2.5, evaluate_seconds=0.0, latency=[]),
    )


def test_what_is_recalled_is_what_was_committed(tmp_path: Path) -> None:
    write(tmp_path / "model", BertForSequenceClassification(config("Bert")))
    encoder = load_encoder(str(tmp_path / "model"), Head("classification", ("no", "yes")))
    model = halved(encoder.model)
    masks = MagnitudePruner(model, sparsity=0.5).prune()
    store, plan = StageStore(tmp_path / "run"), STAGES[1]
    assert store.recall(plan) is None
    produced = Produced(plan, model, masks)
    StageStore(tmp_path / "run", writes=False).commit(produced, measured(produced), encoder.tokenizer)
    assert not (tmp_path / "run").exists()
    committed = store.commit(produced, measured(produced), encoder.tokenizer)
    assert is_sealed(store.path("halved")) and store.measured(plan) == committed
    again = store.recall(plan)
    assert again is not None and again.masks is not None and again.masks.sha256 == masks.sha256
    assert type(again.model) is type(model) and again.seconds == 2.5
    assert all(torch.equal(t, model.state_dict()[name]) for name, t in again.model.state_dict().items())
    content = bytearray((store.path("halved") / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (store.path("halved") / "model.safetensors").write_bytes(content)
    with pytest.raises(DamagedFile, match="differs from what was written"):
        store.recall(plan)


def test_a_copy_has_a_quantizer_of_its_own() -> None:
    from trainflat.quantization import QUANTIZERS

    model = BertForSequenceClassification(config("Bert"))
    trained = Produced(STAGES[0], model, seconds=1.0, quantizer=QUANTIZERS.make("q8bert", model))
    copied = trained.copied(STAGES[1])
    assert copied.quantizer is not None and copied.quantizer.model is copied.model is not model
    assert (copied.plan, copied.seconds) == (STAGES[1], 0.0)
