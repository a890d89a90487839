"""`trainflat diagnose`: on whole runs of tiny models, on what does not fit, and on the page in a real browser."""

import json
import os
import re
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertForSequenceClassification, BertModel

import trainflat
from tests.support.families import config, write
from tests.support.runs import own_files, recipe
from trainflat.cli import main as cli
from trainflat.commands import diagnose as diagnosing
from trainflat.commands.diagnose import diagnose
from trainflat.core.errors import InputError
from trainflat.core.progress import Progress
from trainflat.models import load_encoder
from trainflat.models.base import weights_sha256
from trainflat.records.diagnosis import Cut, Diagnosis, Measured, save_diagnoses
from trainflat.report import write_diagnosis
from trainflat.report.advice import advice
from trainflat.report.words import places
from trainflat.sharpness.slope import GradientNorm
from trainflat.tasks.base import Head

MEASURES = [{"name": "keskar", "space": "full"}, {"name": "ball", "rho": 0.1}]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The folder of a finished run, dense and half pruned, and its task."""
    folder = tmp_path_factory.mktemp("diagnose")
    torch.manual_seed(0)
    given = recipe(write(folder / "model", BertForSequenceClassification(config("Bert"))), own_files(folder))
    given["protocol"] = {"name": "iterative", "sparsities": [0.5]}
    given["evaluation"] = {"latency": {"batches": []}}
    trainflat.run(given, out=folder / "runs")
    return next((folder / "runs").iterdir()) / "stages", given["task"]


@pytest.fixture(scope="module")
def found(run: tuple[Path, dict[str, Any]]) -> list[Diagnosis]:
    stages, task = run
    return diagnose([stages / "dense", stages / "sparsity-0.50"], task, rows=16, measures=MEASURES)


def test_what_is_found(found: list[Diagnosis], run: tuple[Path, dict[str, Any]]):
    dense, pruned = found
    assert [cut.sparsity for cut in dense.one_shot] == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    assert [cut.sparsity for cut in pruned.one_shot] == [0.6, 0.7, 0.8, 0.9]
    assert (dense.sparsity, pruned.sparsity) == (0, pytest.approx(0.5, abs=1e-2))
    assert {one.part for one in dense.sensitivity} >= {"layer 0", "layer 2", "query", "ffn_in", "pooler"}
    assert [one.name for one in dense.flatness] == ["keskar", "ball"]
    stage = json.loads((run[0] / "dense" / "stage.json").read_text())
    assert dense.score == stage["scores"][dense.split][dense.metric]


def test_the_same_seed_finds_the_same(found: list[Diagnosis], run: tuple[Path, dict[str, Any]]):
    stages, task = run
    [again] = diagnose([stages / "dense"], task, rows=16, measures=MEASURES)
    moving = {"seconds": 0.0, "flatness": []}
    assert again.model_copy(update=moving) == found[0].model_copy(update=moving)
    assert [one.values for one in again.flatness] == [one.values for one in found[0].flatness]


def test_nothing_is_left_behind(run: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch):
    seen = []
    from trainflat.commands import diagnose as module

    def kept(*args: Any, **kwargs: Any) -> Any:
        encoder = load_encoder(*args, **kwargs)
        seen.append((encoder.model, weights_sha256(encoder.model)))
        return encoder

    monkeypatch.setattr(module, "load_encoder", kept)
    stages, task = run
    diagnose([stages / "dense"], task, rows=8, measures=MEASURES)
    [(model, before)] = seen
    assert weights_sha256(model) == before


@pytest.mark.long
def test_what_the_command_writes(found: list[Diagnosis], run: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch):
    stages, task = run
    sets = [f"--set={key}={json.dumps(value)}" for key, value in task.items() if key != "name"]
    given = ["diagnose", str(stages / "dense"), str(stages / "sparsity-0.50"), "--task", task["name"], *sets]
    monkeypatch.setattr(sys, "argv", ["trainflat", *given, "--rows", "8", "--out", str(tmp_path / "d")])
    cli.main()
    assert len(json.loads((tmp_path / "d" / "diagnosis.json").read_text())["models"]) == 2
    assert sorted(path.name for path in (tmp_path / "d").iterdir()) == ["diagnosis.html", "diagnosis.json"]
    assert "How flat, how compressible" in (tmp_path / "d" / "diagnosis.html").read_text()


def test_the_file_says_all_and_what_follows(found: list[Diagnosis], tmp_path: Path):
    value = json.loads(save_diagnoses(found, advice(found), tmp_path).read_text())
    assert [Diagnosis.model_validate(one) for one in value["models"]] == found
    assert value["advice"] == advice(found)


def test_models_that_do_not_fit(run: tuple[Path, dict[str, Any]], tmp_path: Path):
    stages, task = run
    bare = write(tmp_path / "bare", BertModel(config("Bert")))
    with pytest.raises(InputError, match="has no head for this task"):
        diagnose([bare], task)
    three = BertForSequenceClassification(config("Bert", num_labels=3))
    with pytest.raises(InputError, match="was fine-tuned for the classes LABEL_0, LABEL_1, LABEL_2, the task has"):
        diagnose([write(tmp_path / "three", three)], task)
    other = BertForSequenceClassification(config("Bert", id2label={0: "so", 1: "no"}, label2id={"so": 0, "no": 1}))
    with pytest.raises(InputError, match="classes so, no, the task has no, yes"):
        load_encoder(str(write(tmp_path / "other", other)), Head("classification", ("no", "yes")), fine_tuned=True)
    with pytest.raises(InputError, match="no measure of sharpness is called 'kesker'"):
        diagnose([stages / "dense"], task, measures=[{"name": "kesker"}])
    with pytest.raises(InputError, match="at least one model"):
        diagnose([], task)


def test_folders_that_are_no_models(run: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    stages, task = run
    with pytest.raises(InputError, match=r"is no model but holds some\. Give one of them, such as .*stages/dense\.$"):
        diagnose(str(stages.parent), task)  # a single one, in words
    unfinished = tmp_path / "run" / "stages" / "dense"
    unfinished.mkdir(parents=True)
    for folder in (unfinished, unfinished.parents[1]):
        with pytest.raises(InputError, match=r"has no config\.json"):
            diagnose([folder], task)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="there is no model folder runs/gone/stages/dense"):
        diagnose(["runs/gone/stages/dense"], task)


def with_curve(found: Diagnosis, scores: list[float], **changes: Any) -> Diagnosis:
    cuts = [Cut(sparsity=k / 10, score=score) for k, score in enumerate(scores, 1)]
    fixed = {"sampled_score": 80.0, "sampled_rows": 10_000, "flatness_rows": 128, "answers": None, "without": {}}
    return found.model_copy(update={"one_shot": cuts, "sensitivity": [], **fixed, **changes})


def test_the_share_that_can_go_for_nothing_ends_at_the_first_loss(found: list[Diagnosis]):
    assert with_curve(found[0], [80, 79.5, 70, 80]).kept_to(1.0) == 0.2
    assert with_curve(found[0], [70, 80]).kept_to(1.0) == 0


def test_advice_names_its_numbers(found: list[Diagnosis]):
    good, bad = with_curve(found[0], [80, 79.5, 70], model="a"), with_curve(found[0], [70], model="b")
    assert "up to 20" in advice([good])[0]
    assert "to 10 % of the encoder costs 10.0 points (between" in advice([bad])[0]
    assert "differs significantly between a and b; a loses less than b" in advice([good, bad])[-1]


def test_a_matrix_that_a_global_ranking_empties_is_named(tmp_path: Path):
    """As MiniLM's pooler, whose small weights go first: its score falls to 0 at once."""
    torch.manual_seed(0)
    model = BertForSequenceClassification(config("Bert"))
    with torch.no_grad():
        model.bert.pooler.dense.weight.mul_(1e-3)
    folder = write(tmp_path / "model", model)
    [one] = diagnose([folder], own_files(tmp_path), rows=8, measures=[{"name": "gradient-norm"}])
    assert one.one_shot[-1].emptied == ["bert.pooler.dense.weight"]
    cut = one.one_shot[-1].model_copy(update={"score": 0.0, "without": []})
    collapsed = with_curve(one, [], one_shot=[cut])
    (said,) = [sentence for sentence in advice([collapsed]) if "scope: layer" in sentence]
    assert "leave nothing of bert.pooler.dense.weight at 90 %" in said
    assert not any("scope: layer" in sentence for sentence in advice([with_curve(one, [80.0])]))


@pytest.mark.parametrize(
    ("lower", "curve", "text"),
    [
        (3, [80, 80], "by 3 and sharper by 0 of 3 figures; a loses less than b without training: as the flatness"),
        (1, [80, 80], "by 1 and sharper by 2 of 3 figures; a loses less than b without training: not as the"),
        (2, [80, 70], "by 2 and sharper by 1 of 3 figures; neither loses significantly less without training"),
    ],
)
def test_two_models_are_compared_by_what_is_flatness(found: list[Diagnosis], lower: int, curve: list[float], text: str):
    names = ["keskar_0.001", "eigenvalue_1", "trace"]
    sharp = dict.fromkeys(names, 2.0) | {"trace_error": 0.1, "eigenvalue_lowest": -1.0}
    flat = sharp | {name: 1.0 if k < lower else 3.0 for k, name in enumerate(names)}
    one, other = (
        with_curve(found[0], scores, model=model, flatness=[Measured(name="m", options={}, values=values, seconds=1.0)])
        for scores, model, values in ((curve, "/r/a/stages/dense", flat), ([80, 70], "/r/b/stages/dense", sharp))
    )
    assert f"a is flatter than b {text}" in advice([one, other])[-1]


def test_models_of_different_size_are_set_apart(found: list[Diagnosis]):
    one, other = (each.model_copy(update={"answers": None}) for each in found)
    larger = other.model_copy(update={"parameters": one.parameters + 1})
    assert "different size" in advice([one, larger])[-1]
    assert "different size" not in advice([one, other])[-1]


def test_models_go_by_what_tells_their_folders_apart():
    assert places(["r/a/stages/x", "r/b/stages/x"]) == ["a", "b"]
    assert places(["r/a/stages/x", "r/a/stages/y", "r/a/stages/y"]) == ["x", "y (2)", "y (3)"]
    assert places(["r/a", "r"]) == ["r/a", "r"]
    assert places(["org/name", "/deep/in/a/folder"]) == ["org/name", "deep/in/a/folder"]
    assert places(["/deep/in/a/folder"]) == ["a/folder"]


def test_each_model_is_announced_with_its_number(run: tuple[Path, dict[str, Any]]):
    said: list[str] = []
    stages, task = run
    diagnose([stages / "dense"] * 2, task, rows=4, measures=[{"name": "gradient-norm"}], progress=Saying(said))
    assert [line.split(",")[0] for line in said if line.startswith("model")] == ["model 1 of 2", "model 2 of 2"]


class Saying(Progress):
    def __init__(self, said: list[str]) -> None:
        self.said = said

    def say(self, text: str) -> None:
        self.said.append(text)


def test_the_page_in_a_browser(found: list[Diagnosis], browser: Any, tmp_path: Path):
    page, complaints = browser.new_page(), []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.append(message.text))
    page.goto(write_diagnosis(found, tmp_path).as_uri())
    assert page.locator("#one-shot .legend li").count() == page.locator("#parts-kind .legend li").count() == 2
    assert page.locator("#one-shot-0 use:has(title)").count() == sum(1 + len(one.one_shot) for one in found)
    assert complaints == []
    page.close()


def test_a_quick_look_says_what_is_to_come(run: tuple[Path, dict[str, Any]]):
    stages, task = run
    said: list[str] = []
    [found] = diagnose(stages / "dense", task, quick=True, progress=Saying(said))
    assert [cut.sparsity for cut in found.one_shot] == [0.3, 0.6, 0.9] and found.flatness_rows <= 32
    assert [one.name for one in found.flatness] == ["keskar", "ball", "gradient-norm"]
    [estimate] = [line for line in said if line.startswith("this takes about")]
    kinds = f"scores T, flatness T, int8 T, 3 cuts T, {len(found.sensitivity)} single parts T; flatness up to T where"
    assert kinds in re.sub(r"\d+ s\b", "T", estimate)


class Watching(Saying):
    """Also notes what begins."""

    def begin(self, what: str, total: int, done: int = 0) -> None:
        self.said.append(f"begins: {what}")


def test_how_long_it_takes_is_said_before_anything_long_begins(run: tuple[Path, dict[str, Any]]):
    said: list[str] = []
    diagnose(run[0] / "dense", run[1], rows=8, measures=MEASURES, progress=Watching(said))
    starts = [line.split(":")[0].split(" about")[0] for line in said]
    assert starts[:3] == ["model 1 of 1, " + str(run[0] / "dense"), "this takes", "begins"]


def killed(*args: Any, **kwargs: Any) -> Any:
    os.kill(os.getpid(), signal.SIGKILL)


QUICKLY: dict[str, Any] = {"rows": 4, "measures": [{"name": "gradient-norm"}, {"name": "ball", "iterations": 2}]}


@pytest.mark.parametrize(("point", "before"), [("quantize_dynamic", 4), ("MagnitudePruner", 5), ("keep_highest", 14)])
def test_a_killed_diagnosis_goes_on(
    run: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str, before: int
):
    model, keep, said = run[0] / "dense", tmp_path / "unfinished.json", list[str]()
    [whole] = diagnose(model, run[1], **QUICKLY)
    if (child := os.fork()) == 0:
        setattr(diagnosing, point, killed)
        diagnose(model, run[1], keep=keep, **QUICKLY)
        os._exit(1)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
    monkeypatch.setattr(GradientNorm, "compute", None)  # cannot be measured again
    [found] = diagnose(model, run[1], keep=keep, progress=Saying(said), **QUICKLY)
    total = 5 + len(found.one_shot) + len(found.sensitivity)
    assert f"going on: {before} of {total} parts were measured before" in said
    assert without_seconds(found) == without_seconds(whole)


def without_seconds(found: Diagnosis) -> Diagnosis:
    measured = [one.model_copy(update={"seconds": 0.0}) for one in found.flatness]
    return found.model_copy(update={"seconds": 0.0, "flatness": measured})


@pytest.mark.long
def test_parts_are_used_where_nothing_differs(run: tuple[Path, dict[str, Any]], tmp_path: Path):
    model, keep = run[0] / "dense", tmp_path / "unfinished.json"
    said: list[str] = []

    def again(model: Path = model, task: Any = run[1], **changes: Any) -> list[Diagnosis]:
        said.clear()
        return diagnose(model, task, progress=Saying(said), **(QUICKLY | {"keep": keep} | changes))

    def goes_on() -> bool:
        return any(line.startswith("going on") for line in said)

    first = again()
    assert not goes_on()
    content = keep.read_text()
    assert again() == first and goes_on() and not any(line.startswith("this takes") for line in said)
    other = BertForSequenceClassification.from_pretrained(model)
    with torch.no_grad():
        other.classifier.bias[0] += 1
    changes: list[dict[str, Any]] = [{"seed": 1}, {"rows": 5}, {"measures": MEASURES[:1]}, {"quick": True}]
    for change in [*changes, {"model": write(tmp_path / "other", other)}]:
        keep.write_text(content)
        again(**change)
        assert not goes_on(), change
    for damaged in (content[:-20], content.replace("0.", "1.", 1), "[" * 100_000, "[]"):
        keep.write_text(damaged)
        assert without_seconds(again()[0]) == without_seconds(first[0]) and not goes_on()
