"""A recipe with a teacher: refused or scored before anything is trained, learned from in every round, and told."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import BertForQuestionAnswering, BertForSequenceClassification, PreTrainedTokenizerFast

import trainflat
from tests.support.families import WORDS, config, tokenizer, write
from tests.support.runs import own_files, recipe
from tests.support.teachers import LABELS
from trainflat.cli.plans import print_plan
from trainflat.commands.diagnose import diagnose
from trainflat.core.errors import InputError
from trainflat.core.progress import Progress
from trainflat.recipe import load_recipe
from trainflat.records.run import Record
from trainflat.report import write_report


class Heard(Progress):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)

    def begin(self, what: str, total: int, done: int = 0) -> None:
        self.lines.append(what)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("teachers")
    torch.manual_seed(0)
    makers = {"model": {}, "teacher": LABELS, "three": {"num_labels": 3}, "number": {"num_labels": 1}}
    makers["swapped"] = {"id2label": {0: "yes", 1: "no"}, "label2id": {"no": 1, "yes": 0}}
    makers["short"] = LABELS | {"max_position_embeddings": 8}
    for name, options in makers.items():
        write(folder / name, BertForSequenceClassification(config("Bert", **options)))
    write(folder / "spans", BertForQuestionAnswering(config("Bert")))
    write(folder / "bare", BertForSequenceClassification(config("Bert")).bert)
    other = BertForSequenceClassification(config("Bert", **LABELS))
    other.save_pretrained(folder / "words")
    tokenizer(0, words=["other", *WORDS]).save_pretrained(folder / "words")
    other.save_pretrained(folder / "inputs")
    inner = tokenizer(0)
    names = {"cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]", "pad_token": "[PAD]"}
    PreTrainedTokenizerFast(
        tokenizer_object=inner.backend_tokenizer,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        **names,
    ).save_pretrained(folder / "inputs")
    (folder / "empty").mkdir()
    return folder


def given(place: Path, protocol: Any = "dense", **distillation: Any) -> dict[str, Any]:
    section = {"teacher": str(place / "teacher"), **distillation}
    made = recipe(place / "model", own_files(place), distillation=section)
    return made | {"protocol": protocol, "evaluation": {"latency": {"batches": []}}}


def test_the_teacher_is_scored_first_and_goes_into_the_record(place: Path, tmp_path: Path) -> None:
    heard = Heard()
    record = trainflat.run(given(place), out=tmp_path, progress=heard)
    first = next(k for k, line in enumerate(heard.lines) if line.startswith(f"teacher {place / 'teacher'}: accuracy"))
    assert first < heard.lines.index("training dense")
    assert record.teacher is not None
    alone = diagnose([place / "teacher"], given(place)["task"], rows=4, measures=[{"name": "gradient-norm"}])
    assert record.teacher.scores[record.task.split][record.task.metric] == alone[0].score
    assert (record.teacher.weights_sha256, record.teacher.layers) == (alone[0].weights_sha256, 3)
    assert Record.load(next(tmp_path.iterdir())) == record
    again = trainflat.run(given(place), out=tmp_path / "again")
    assert again.digest == record.digest
    [stage] = record.stages
    without = given(place)
    del without["training"]["distillation"]
    plain = trainflat.run(without, out=tmp_path / "plain")
    assert plain.stages[0].files != stage.files
    assert plain.stages[0].training.passes == stage.training.passes


@pytest.mark.parametrize(
    "protocol",
    [
        {"name": "iterative", "sparsities": [0.5]},
        {"name": "one-shot", "sparsities": [0.5]},
        {"name": "ticket", "sparsity": 0.5, "structure": "random"},
    ],
    ids=lambda protocol: protocol["name"],
)
def test_every_training_of_a_protocol_has_the_teacher(
    protocol: dict[str, Any], place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    original = trainflat.training.FlatTrainer.__init__

    def watching(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        asked.append(kwargs["distillation"].teacher)

    monkeypatch.setattr(trainflat.training.FlatTrainer, "__init__", watching)
    record = trainflat.run(given(place, protocol), out=tmp_path)
    assert len(asked) == sum(stage.training is not None for stage in record.stages)
    assert len({id(teacher) for teacher in asked}) == 1  # loaded once
    assert isinstance(asked[0], torch.nn.Module)


def test_both_refuse_in_the_same_words_and_leave_nothing(place: Path, tmp_path: Path) -> None:
    refused = {
        "three": "was fine-tuned for the classes LABEL_0, LABEL_1, LABEL_2, the task has no, yes",
        "number": "was fine-tuned for numbers, the task has classes",
        "spans": "was fine-tuned for spans, the task has classes",
        "bare": "has no head for this task (it is a BertModel)",
        "words": "has another vocabulary than the student",
        "inputs": "reads input_ids, token_type_ids, attention_mask, but the tokenizer of the student",
        "short": "reads at most 8 tokens, training.max_length is 16",
        "empty": "has no config.json",
        "absent": "there is no model folder",
    }
    for name, message in refused.items():
        lines = []
        for call in (trainflat.plan, trainflat.run):
            with pytest.raises(InputError) as error:
                call(given(place, teacher=str(place / name)), out=tmp_path / "runs")
            lines.append(str(error.value))
        assert lines[0].startswith("training.distillation.teacher: ")
        assert message in lines[0]
        assert lines[0] == lines[1]
        assert "\n" not in lines[0]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("distillation", "message"),
    [
        ({"weight": 1.5}, r"training.distillation: weight is the teacher's share of the loss, in \[0, 1\], got 1.5"),
        ({"temperature": 0}, "training.distillation: temperature of the logits is a number above 0, got 0"),
        ({"teacher": 3}, "training.distillation: teacher is the folder or hub name of a fine-tuned model, got 3"),
        ({"teacher": ""}, "training.distillation needs a teacher"),
        ({"alpha": 1}, "no option of distillation is called 'alpha'"),
    ],
)
def test_options_that_no_recipe_may_have(place: Path, distillation: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_recipe(given(place, **distillation))


def test_a_section_is_completed_and_its_absence_leaves_no_trace(place: Path) -> None:
    short, full = given(place), given(place, weight=0.5, temperature=2)
    short["training"]["distillation"] = str(place / "teacher")
    assert load_recipe(short) == load_recipe(full)
    assert load_recipe(full).resolved()["training"]["distillation"]["temperature"] == 2.0
    del short["training"]["distillation"]
    assert "distillation" not in load_recipe(short).resolved()["training"]


def test_check_shows_it(place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    print_plan(trainflat.plan(given(place, weight=0.9)))
    assert f"teacher {place / 'teacher'}, weight 0.9, temperature 2.0" in capsys.readouterr().out
    print_plan(trainflat.plan(given(place, teacher="no/such-teacher")))
    assert "teacher no/such-teacher, weight 0.5, temperature 2.0 (not looked at" in capsys.readouterr().out


def test_the_report_tells_of_it(place: Path, tmp_path: Path) -> None:
    record = trainflat.run(given(place), out=tmp_path / "runs")
    page = write_report([record], tmp_path / "report").read_text(encoding="utf8")
    score = record.teacher.scores[record.task.split]["accuracy"]
    assert f"some students learned from {place / 'teacher'}, which scored {score:.1f}." in page
    assert record.teacher.weights_sha256 in page


def test_a_run_that_was_begun_with_another_teacher(place: Path, tmp_path: Path) -> None:
    torch.manual_seed(3)
    teacher = write(tmp_path / "teacher", BertForSequenceClassification(config("Bert", **LABELS)))
    begun = given(place, {"name": "iterative", "sparsities": [0.5]}, teacher=str(teacher))
    record = trainflat.run(begun, out=tmp_path / "runs")
    run = next((tmp_path / "runs").iterdir())
    claim = json.loads((run / "claim.json").read_text())
    assert claim["teacher"] == record.teacher.weights_sha256
    (run / "record.json").unlink()
    assert trainflat.run(begun, out=tmp_path / "runs").digest == record.digest
    (run / "record.json").unlink()
    write(teacher, BertForSequenceClassification(config("Bert", **LABELS)))
    with pytest.raises(InputError, match=r"was begun with other weights of .*teacher"):
        trainflat.run(begun, out=tmp_path / "runs")


def test_the_page_of_the_docs_is_so() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "distillation.md").read_text(encoding="utf8")
    section = page.partition("```yaml\n")[2].partition("```")[0]
    assert load_recipe(yaml.safe_load(section)).training.distillation.dump() == {
        "teacher": "runs/dense-3f2a91c0de/stages/dense",
        "weight": 0.5,
        "temperature": 2.0,
    }
    code = page.partition("```python\n")[2].partition("```")[0]
    names: dict[str, Any] = {}
    exec(code, names)  # noqa: S102
    assert names["loss"].item() > 0
