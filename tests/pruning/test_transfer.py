"""Tickets between tasks whose models differ by the pooler: spans have none, classes have one that is prunable."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertForSequenceClassification

import trainflat
from tests.support.families import WORDS, config, write
from tests.support.runs import own_files, recipe
from trainflat.core.errors import InputError
from trainflat.core.progress import Progress
from trainflat.pruning import Masks
from trainflat.records.run import Record

POOLER = "bert.pooler.dense.weight"


class Lines(Progress):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


def questions(folder: Path) -> dict[str, Any]:
    """A made SQuAD."""
    (folder / "squad").mkdir()
    rows = []
    for i in range(16):
        words = [WORDS[(i + k) % len(WORDS)] for k in range(9)]
        answers = {"text": [words[0]], "answer_start": [0]}
        rows.append({"question": f"when {words[0]}", "context": " ".join(words), "answers": answers})
    for split in ("train", "validation"):
        (folder / "squad" / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"name": "squad", "doc_stride": 3}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One pre-trained model, a folder of data, and a run of each kind of task that found a ticket."""
    folder = tmp_path_factory.mktemp("transfer")
    torch.manual_seed(0)
    write(folder / "model", BertForSequenceClassification(config("Bert")))
    questions(folder)
    for kind in ("spans", "classes"):
        ran(folder, kind, {"name": "iterative", "sparsities": [0.5]}, folder / f"found-on-{kind}")
    return folder


def ran(
    place: Path, kind: str, protocol: dict[str, Any], out: Path, model: Path | None = None
) -> tuple[Record, Masks, list[str]]:
    """The record, the masks of its sparse stage and what was said."""
    task = {"name": "squad", "doc_stride": 3} if kind == "spans" else own_files(place)
    given = recipe(model or place / "model", task) | {"protocol": protocol, "evaluation": {"latency": {"batches": []}}}
    progress = Lines()
    record = trainflat.run(given, data=place, out=out, progress=progress)
    return record, Masks.load(next(out.glob("*/stages/sparsity-0.50/masks.safetensors"))), progress.said


def ticket(place: Path, found_on: str, **options: Any) -> dict[str, Any]:
    return {"name": "ticket", "sparsity": 0.5, "run": str(next((place / f"found-on-{found_on}").iterdir())), **options}


def found(place: Path, kind: str) -> Masks:
    return Masks.load(next((place / f"found-on-{kind}").glob("*/stages/sparsity-0.50/masks.safetensors")))


@pytest.mark.parametrize("structure", ["found", "layer-shuffled"])
def test_a_ticket_of_spans_keeps_the_whole_pooler_of_classes(place: Path, tmp_path: Path, structure: str) -> None:
    given = ticket(place, "spans", structure=structure)
    record, masks, said = ran(place, "classes", given, tmp_path)
    source = found(place, "spans")
    assert POOLER not in source and bool(masks[POOLER].all())
    assert masks.keys() - source.keys() == {POOLER}
    assert [m for m in masks.statistics() if m.name != POOLER] == source.statistics()
    same = all(torch.equal(masks[name], source[name]) for name in source)
    assert same == (structure == "found")
    [line] = [line for line in said if "pooler" in line]
    share = f"{100 * masks.sparsity:.2f}%"
    assert f"{POOLER} is kept whole" in line and share in line and "in the other run 50.00%" in line
    assert record.stages[0].sizes.encoder_sparsity == pytest.approx(masks.sparsity, abs=1e-3)
    assert masks.sparsity < 0.5


def test_a_ticket_of_classes_leaves_its_pooler_out_for_spans(place: Path, tmp_path: Path) -> None:
    _, masks, said = ran(place, "spans", ticket(place, "classes"), tmp_path)
    source = found(place, "classes")
    assert source.keys() - masks.keys() == {POOLER}
    assert all(torch.equal(masks[name], source[name]) for name in masks)
    [line] = [line for line in said if "pooler" in line]
    assert f"the ticket's {POOLER} is left out" in line and f"{100 * masks.sparsity:.2f}%" in line


def test_nothing_is_said_where_both_have_a_pooler(place: Path, tmp_path: Path) -> None:
    _, masks, said = ran(place, "classes", ticket(place, "classes"), tmp_path)
    assert masks == found(place, "classes")
    assert not any("pooler" in line for line in said)


@pytest.mark.parametrize("found_on", ["spans", "classes"])
@pytest.mark.parametrize("options", [{"num_hidden_layers": 2}, {"num_hidden_layers": 4}], ids=["fewer", "more"])
def test_another_number_of_layers_stays_an_error(
    place: Path, tmp_path: Path, found_on: str, options: dict[str, Any]
) -> None:
    other = write(tmp_path / "model", BertForSequenceClassification(config("Bert", **options)))
    with pytest.raises(InputError, match=r"found on another architecture: bert\.encoder\.layer\.\d.* on one side only"):
        ran(place, "classes", ticket(place, found_on), tmp_path / "runs", other)


def test_a_plan_takes_a_ticket_of_spans(place: Path, tmp_path: Path) -> None:
    given = recipe(place / "model", own_files(place)) | {"protocol": ticket(place, "spans")}
    assert [stage.name for stage in trainflat.plan(given, out=tmp_path).stages] == ["sparsity-0.50"]


def test_a_run_whose_name_no_folder_can_have_is_one_line(place: Path, tmp_path: Path) -> None:
    given = {"name": "ticket", "sparsity": 0.5, "run": "a" * 5000}
    with pytest.raises(InputError, match=r"protocol\.run a+ cannot be read: File name too long") as caught:
        ran(place, "classes", given, tmp_path)
    assert len(str(caught.value)) < 300
