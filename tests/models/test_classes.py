"""A model whose classes are otherwise ordered or written than the task's answers as before, under the task's names."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, BertForSequenceClassification

from tests.support.families import FAMILIES, config, write
from trainflat.commands.diagnose import diagnose
from trainflat.commands.export import export
from trainflat.core.errors import InputError
from trainflat.core.progress import Progress
from trainflat.models import load_encoder, load_on_meta
from trainflat.tasks import TASKS
from trainflat.tasks.base import Head
from trainflat.tasks.glue import Mnli

NAMES = ("sadness", "joy", "love")


def named(names: Any, family: str = "Bert") -> Any:
    torch.manual_seed(0)
    id2label = dict(enumerate(names))
    options = {"id2label": id2label, "label2id": {name: i for i, name in id2label.items()}}
    return AutoModelForSequenceClassification.from_config(config(family, **options)).eval()


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.eval()(input_ids=torch.tensor([[1, 5, 6, 2], [1, 7, 4, 2]])).logits
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_s_head_is_put_in_order(family: str, tmp_path: Path) -> None:
    model = named(NAMES, family)
    folder = write(tmp_path / family, model)
    for fine_tuned in (True, False):
        encoder = load_encoder(str(folder), Head("classification", ("Joy", "LOVE", "sadness ")), fine_tuned=fine_tuned)
        torch.testing.assert_close(logits(encoder.model), logits(model)[:, [1, 2, 0]], rtol=0, atol=0)
        assert encoder.model.config.id2label == {0: "Joy", 1: "LOVE", 2: "sadness "}
        assert "has the classes in the order sadness, joy, love; its head is put in the task's order" in encoder.note


# the model's names, the task's, where each of the task's stands in the model, what is said
SAME: list[tuple[Any, Any, Any, str]] = [
    (NAMES, NAMES, [0, 1, 2], ""),
    (NAMES, ("Sadness", "JOY", " love"), [0, 1, 2], ""),
    (("not entailment", "Entailment"), ("entailment", "not_entailment"), [1, 0], "put in the task's order"),
    (("CONTRADICTION", "NEUTRAL", "ENTAILMENT"), Mnli.spec.labels, [2, 1, 0], "put in the task's order"),
    (NAMES, ("0", "1", "2"), [0, 1, 2], "taken in order for those of model .*: 0 for sadness, 1 for joy, 2 for love"),
    (("LABEL_0", "LABEL_1"), ("no", "yes"), [0, 1], "no for LABEL_0, yes for LABEL_1"),
    (("LABEL_1", "LABEL_0"), ("0", "1"), [1, 0], "put in the task's order"),
    (("LABEL_0", "LABEL_1"), ("0", "1"), [0, 1], ""),
    (("Pos", "pos"), ("pos", "Pos"), [1, 0], "put in the task's order"),
]


@pytest.mark.parametrize(("model", "task", "places", "note"), SAME, ids=str)
def test_the_same_classes_are_found(model: Any, task: Any, places: Any, note: str, tmp_path: Path) -> None:
    made = named(model)
    folder = str(write(tmp_path / "model", made))
    encoder, seen = (
        load_encoder(folder, Head("classification", task), fine_tuned=True),
        load_on_meta(folder, Head("classification", task), fine_tuned=True),
    )
    torch.testing.assert_close(logits(encoder.model), logits(made)[:, places], rtol=0, atol=0)
    assert seen is not None and seen.note == encoder.note
    assert bool(encoder.note) == bool(note)
    assert re.search(note, encoder.note)


@pytest.mark.parametrize(
    "task", [("sadness", "joy"), ("sadness", "joy", "hate"), ("1", "2", "3"), ("Joy", "joy", "love")]
)
def test_other_classes_are_refused(task: Any, tmp_path: Path) -> None:
    folder = str(write(tmp_path / "model", named(NAMES)))
    with pytest.raises(InputError, match="was fine-tuned for the classes sadness, joy, love, the task has"):
        load_encoder(folder, Head("classification", task), fine_tuned=True)


class Heard(Progress):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


def rows(folder: Path, labels: Any) -> dict[str, Any]:
    folder.mkdir()
    text = "".join(f"a flat {['minimum', 'keeps', 'its', 'loss'][i % 4]} {i},{labels[i % 3]}\n" for i in range(60))
    (folder / "x.csv").write_text("text,label\n" + text, encoding="utf8")
    return {"name": "files", "train_file": str(folder / "x.csv"), "holdout": 0.5}


@pytest.mark.long
def test_a_diagnosis_and_an_export_score_a_model_in_any_order_alike(tmp_path: Path) -> None:
    """Alphabetical words, numbers in the model's order, and a listed order: always the score of the model as it is."""
    folder = write(tmp_path / "model", named(NAMES))
    sections = [
        rows(tmp_path / "words", NAMES),
        rows(tmp_path / "capitals", [name.upper() for name in NAMES]),
        rows(tmp_path / "numbers", range(3)),
        rows(tmp_path / "listed", NAMES) | {"classes": ["love", "sadness", "joy"]},
    ]
    scores = set()
    for k, section in enumerate(sections):
        found = export(folder, "sparse", tmp_path / f"out{k}", task=section)
        assert found.score == found.source_score
        assert all(f"note: {note}" in found.sentences() for note in found.notes)
        heard = Heard()
        [one] = diagnose([folder], section, rows=4, measures=[{"name": "gradient-norm"}], progress=heard)
        scores |= {found.score, one.score}
        saved = json.loads((tmp_path / f"out{k}" / "config.json").read_text(encoding="utf8"))
        assert saved["id2label"] == dict(zip("012", NAMES, strict=True))  # the model's own
        assert any("model" in line and line.startswith("note: ") for line in heard.lines)
    assert len(scores) == 1


def test_labels_follow_the_model_s_order(tmp_path: Path) -> None:
    section = rows(tmp_path / "words", NAMES)
    task = TASKS.build("files", data=None, seed=0, **{k: v for k, v in section.items() if k != "name"})
    assert task.head.labels == ("joy", "love", "sadness")
    moved = task.in_order(NAMES)
    called = [[t.head.labels[i] for i in t.evaluation["holdout"].columns["label"]] for t in (task, moved)]
    assert called[0] == called[1]


def test_a_head_that_cannot_be_put_in_order_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path / "model", named(NAMES))
    monkeypatch.setattr(BertForSequenceClassification, "modules", lambda self: iter([]))
    with pytest.raises(InputError, match=r"cannot be put in order\. List the task's `classes`"):
        load_encoder(str(folder), Head("classification", NAMES[::-1]), fine_tuned=True)
