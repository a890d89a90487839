"""``trainflat compress``: from a fine-tuned folder to a smaller one that is as good as it says, or to nothing."""

import json
import random
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers

import trainflat
from tests.support.families import FROM_PAD, SIZES, WORDS, tokenizer, write
from trainflat.cli.main import main
from trainflat.commands.compress import compress
from trainflat.commands.compress.attempts import Search, refusal
from trainflat.commands.compress.goal import read_goal
from trainflat.commands.compress.pair import Judge, Reading, Speed
from trainflat.core import timing
from trainflat.core.errors import InputError, UnknownName
from trainflat.core.files import verify
from trainflat.core.progress import Progress
from trainflat.core.timing import Spread
from trainflat.models import load_encoder
from trainflat.protocols import Produced
from trainflat.pruning.structured import OutOfReach
from trainflat.records.compression import COMPRESSION, Goal
from trainflat.tasks.base import EncodedSplit, Head
from trainflat.training.options import TrainingOptions

WIDE = SIZES | {"hidden_size": 16, "num_attention_heads": 4, "intermediate_size": 64, "num_hidden_layers": 2}


def tiny(kind: str = "Bert", **options: Any) -> Any:
    torch.manual_seed(0)
    labels = {"id2label": {0: "no", 1: "yes"}, "label2id": {"no": 0, "yes": 1}, "initializer_range": 0.3}
    config = getattr(transformers, f"{kind}Config")(**(WIDE | labels | options))
    config.problem_type = "single_label_classification"
    return getattr(transformers, f"{kind}ForSequenceClassification")(config).eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("model") / "tiny", tiny())


@pytest.fixture(scope="module")
def section(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Rows that are labelled as the model answers them, so that it has learned something."""
    draw, place = random.Random(0), tmp_path_factory.mktemp("rows")
    texts = list(dict.fromkeys(" ".join(draw.choices(WORDS, k=draw.randint(3, 9))) for _ in range(240)))
    encoder = load_encoder(str(folder), Head("classification", ("no", "yes")), fine_tuned=True)
    batch = encoder.tokenizer(texts, padding=True, return_tensors="pt")
    answers = encoder.model.eval()(**batch).logits.argmax(1).tolist()
    lines = [f"{text},{('no', 'yes')[answer]}" for text, answer in zip(texts, answers, strict=True)]
    for name, part in (("train", lines[:160]), ("validation", lines[160:])):
        (place / f"{name}.csv").write_text("\n".join(["text,label", *part]) + "\n", encoding="utf8")
    files = {f"{name}_file": str(place / f"{name}.csv") for name in ("train", "validation")}
    return {"name": "files", "text": "text", "label": "label", **files}


@pytest.fixture(autouse=True)
def short_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Times single passes: what they come to is not looked at here."""
    monkeypatch.setattr(timing, "SHORTEST_SAMPLE", 0.0)
    monkeypatch.setattr(timing, "RETAKES", 0)


QUICK = {"rows": 64, "length": 8, "threads": 1, "floor": 0.0}


def test_the_folder_is_smaller_loads_and_is_what_its_record_says(
    folder: Path, section: dict[str, Any], tmp_path: Path
) -> None:
    out = tmp_path / "small"
    found = compress(folder, section, out=out, sparsity=0.5, **QUICK)
    verify(out)
    small, dense = trainflat.load(out), trainflat.load(folder)
    assert found.after.parameters == sum(p.numel() for p in small.parameters()) < found.before.parameters
    assert found.structure.sparsity >= 0.5 and len(found.structure.layers) == 2
    assert COMPRESSION.read(out / "compression.json") == found
    auto = transformers.AutoModelForSequenceClassification.from_pretrained(out)
    batch = transformers.AutoTokenizer.from_pretrained(out)(
        ["a flat minimum", "gone"], padding=True, return_tensors="pt"
    )
    assert torch.equal(auto(**batch).logits, small(**batch).logits)
    same = (small(**batch).logits.argmax(1) == dense(**batch).logits.argmax(1)).float().mean()
    assert found.before.score == 100.0 and found.after.score == pytest.approx(100 * found.agreement)
    assert found.after.score > 60 and same >= 0
    card = (out / "README.md").read_text(encoding="utf8")
    assert f"{found.after.parameters:,}" in card and "`tiny` (BertForSequenceClassification)" in card
    assert str(folder.parent) not in card
    assert {path.name for path in out.iterdir()} >= {"config.json", "model.safetensors", "tokenizer.json", "README.md"}
    assert not list(out.glob(".*")) and [path.name for path in tmp_path.iterdir()] == ["small"]


def test_classes_keep_the_model_s_names_and_order(section: dict[str, Any], tmp_path: Path) -> None:
    names = {"id2label": {0: "Yes", 1: "No"}, "label2id": {"Yes": 0, "No": 1}}  # the file has no, yes
    source = write(tmp_path / "model", tiny(**names))
    compress(source, section, out=tmp_path / "small", sparsity=0.3, **QUICK)
    config = transformers.AutoConfig.from_pretrained(tmp_path / "small")
    assert config.id2label == names["id2label"]


def test_the_same_seed_keeps_the_same_units(folder: Path, section: dict[str, Any], tmp_path: Path) -> None:
    hashes = {
        compress(folder, section, out=tmp_path / name, sparsity=0.4, **QUICK).structure.kept_sha256 for name in "ab"
    }
    assert len(hashes) == 1
    assert (tmp_path / "a" / "model.safetensors").read_bytes() == (tmp_path / "b" / "model.safetensors").read_bytes()


def test_training_again_learns_from_the_original(folder: Path, section: dict[str, Any], tmp_path: Path) -> None:
    found = compress(folder, section, out=tmp_path / "small", sparsity=0.6, retrain=1, **QUICK)
    assert found.retrained == 1 and not (tmp_path / "small" / ".work").exists()
    card = (tmp_path / "small" / "README.md").read_text(encoding="utf8")
    assert "`trainflat compress` and 1 epoch of distillation from the original, beside the labels of all" in card
    assert "chosen on 64 rows of the training split,\nwithout their labels" in card


def test_which_weights_are_kept_is_not_chosen_on_the_rows_that_are_scored(
    folder: Path, section: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = list[TrainingOptions]()
    monkeypatch.setattr(
        sys.modules[compress.__module__],
        "train",
        lambda workspace, stage, model: options.append(workspace.options) or Produced(stage, model),
    )
    compress(folder, section, out=tmp_path / "small", sparsity=0.3, retrain=2, **QUICK)
    assert [(one.epochs, one.keep) for one in options] == [(2, "last")]


def test_size_is_of_the_weights(folder: Path, section: dict[str, Any], tmp_path: Path) -> None:
    before = sum(p.numel() for p in trainflat.load(folder).parameters())
    found = compress(folder, section, out=tmp_path / "small", size=f"{0.7 * 4 * before / 1e3}kB", **QUICK)
    assert 0.6 * before < found.after.parameters <= 0.7 * before  # of a tiny model, in few steps


def test_words_that_no_training_row_uses_go(folder: Path, section: dict[str, Any], tmp_path: Path) -> None:
    """Rows of the validation split that use them are read in other tokens, and compared row by row all the same."""
    few = [word for word in WORDS if word not in ("gone", "weights")]
    rows = [line.rsplit(",", 1) for line in Path(section["train_file"]).read_text(encoding="utf8").splitlines()[1:]]
    kept = [f"{' '.join(w for w in text.split() if w in few) or 'a'},{label}" for text, label in rows]
    (tmp_path / "few.csv").write_text("\n".join(["text,label", *kept]) + "\n", encoding="utf8")
    task = section | {"train_file": str(tmp_path / "few.csv")}
    found = compress(folder, task, out=tmp_path / "small", sparsity=0.3, trim=True, **QUICK)

    auto, tokenizers = transformers.AutoModelForSequenceClassification, transformers.AutoTokenizer
    models = [
        (auto.from_pretrained(one).eval(), tokenizers.from_pretrained(one)) for one in (folder, tmp_path / "small")
    ]
    assert models[1][1].vocab_size == models[0][1].vocab_size - 2 == found.structure.vocabulary
    assert found.structure.dense_vocabulary == models[0][0].config.vocab_size
    [note] = [note for note in found.notes if "Words that no training row uses were dropped" in note]
    assert "of the 2 dropped tokens become unknown" in note and "'gone' as " in note
    lines = Path(section["validation_file"]).read_text(encoding="utf8").splitlines()[1:]
    answers = [
        [int(model(**read(line.rsplit(",", 1)[0], return_tensors="pt")).logits.argmax()) for line in lines]
        for model, read in models
    ]
    same = sum(one == other for one, other in zip(*answers, strict=True))
    assert found.agreement == same / len(lines) < 1


def test_a_vocabulary_that_cannot_be_trimmed_names_the_option(section: dict[str, Any], tmp_path: Path) -> None:
    source = write(tmp_path / "model", tiny())
    described = json.loads((source / "tokenizer.json").read_text(encoding="utf8"))
    pieces = {"type": "BPE", "dropout": 0.1, "merges": [], "vocab": described["model"]["vocab"], "unk_token": "[UNK]"}
    (source / "tokenizer.json").write_text(json.dumps(described | {"model": pieces}), encoding="utf8")
    with pytest.raises(InputError, match=r"--trim: the vocabulary of .* its merges are left out at random"):
        compress(source, section, out=tmp_path / "small", sparsity=0.3, trim=True, **QUICK)
    assert not (tmp_path / "small").exists()


def test_rows_are_paired_whatever_order_a_tokenizer_s_lengths_give_them() -> None:
    rows = [{"input_ids": [5 + number], "attention_mask": [1]} for number in range(3)]
    split = EncodedSplit("validation", [rows[2], rows[0], rows[1]], [1, 1, 1], {}, [2, 0, 1])
    [batch] = Reading(split, tokenizer(0)).batches([1, 2, 0])
    assert batch["input_ids"].flatten().tolist() == [6, 7, 5]


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no goal": ({}, "none was given. Choose one of --speedup 3"),
    "two goals": ({"speedup": 2, "size": "1MB"}, "--speedup and --size were given"),
    "a slower model": ({"speedup": 0.5}, "--speedup is times as fast .* above 1, got 0.5"),
    "no number": ({"latency": "fast"}, "--latency is milliseconds .* got 'fast'. Write it as 5ms"),
    "not finite": ({"size": "nan"}, "--size is megabytes"),
    "out of reach": ({"size": "1kB"}, r"--size 0.001MB: .* out of reach.* \(0.0 MB as float32\).*Or add --trim"),
    "out of reach of times": ({"speedup": 1e6}, "--speedup 1e\\+06.* out of reach"),
    "everything": ({"sparsity": 1.0}, r"in \(0, 1\), got 1.0"),
    "a score that is none": ({"sparsity": 0.5, "pruner": "obz"}, "obz.*obs"),
    "a repair that is none": ({"sparsity": 0.5, "repair": "last-squares"}, "last-squares.*least-squares"),
    "a shape that is none": ({"sparsity": 0.5, "shape": "round"}, "round.*friendly"),
    "a floor over all rows": ({"sparsity": 0.5, "floor": 2.0}, "--floor is a share"),
    "epochs below none": ({"sparsity": 0.5, "retrain": -1}, "--retrain is a number of epochs"),
    "too long": ({"sparsity": 0.5, "length": 500}, "--length 500: the model has positions for 32 tokens"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_words_are_one_line_and_nothing_is_written(
    case: str, folder: Path, section: dict[str, Any], tmp_path: Path
) -> None:
    given, message = REFUSED[case]
    with pytest.raises(InputError, match=message) as caught:
        compress(folder, section, out=tmp_path / "small", **(QUICK | given))
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())


def test_a_size_out_of_reach_is_refused_before_anything_is_scored(
    folder: Path, section: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Judge, "of", lambda *_: pytest.fail("the original was scored first"))
    with pytest.raises(InputError, match=r"--size 0\.001MB: a budget of 250 parameters"):
        compress(folder, section, out=tmp_path / "small", size="1kB", **QUICK)


@pytest.mark.parametrize(
    ("kind", "value", "excess", "most"),
    [
        ("sparsity", 0.999, 1.3, "--sparsity 0.998"),  # 0.9987
        ("sparsity", 0.5, 2.0, "--sparsity 0"),  # of a model without units
        ("size", 40.0, 1.2080641, "--size 48.4MB"),  # 48.32
        ("size", 200.0, 1.5, "--size 300MB"),
        ("latency", 5.0, 1.3333, "--latency 6.67ms"),
        ("speedup", 1e6, 1e6 / 12.39, "--speedup 12.3"),
    ],
)
def test_the_farthest_goal_that_is_named_is_within_reach(kind: str, value: float, excess: float, most: str) -> None:
    refused = refusal(Goal(kind=kind, value=value), OutOfReach("too far.", excess))
    assert str(refused).endswith(f": too far. The most that can be asked for is {most}.")


@pytest.mark.parametrize("kind", ["sparsity", "size"])
def test_what_a_refusal_names_can_be_asked_for(
    kind: str, folder: Path, section: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    too_far = {"sparsity": 0.9999, "size": "1kB"}[kind]
    with pytest.raises(InputError, match="The most that can be asked for") as caught:
        compress(folder, section, out=tmp_path / "small", **(QUICK | {kind: too_far}))
    found = re.search(rf"for is --{kind} (\S+)\.( |$)", str(caught.value))
    assert found is not None
    monkeypatch.setattr(Judge, "of", lambda *_: (_ for _ in ()).throw(Reached))
    with pytest.raises(Reached):
        compress(folder, section, out=tmp_path / "small", **(QUICK | {kind: found[1]}))


class Reached(Exception):  # no error: the goal was not refused
    pass


def test_a_model_below_the_floor_is_not_written(folder: Path, section: dict[str, Any], tmp_path: Path) -> None:
    options = QUICK | {"floor": 1.0, "pruner": "random", "repair": "none"}
    with pytest.raises(
        InputError,
        match=r"% of the answers are the original's, below the floor of 1 \(score .*Nothing was written. .*--retrain 2",
    ):
        compress(folder, section, out=tmp_path / "small", sparsity=0.9, **options)
    assert not list(tmp_path.iterdir())


def test_of_numbers_the_correlation_is_what_agrees(section: dict[str, Any], tmp_path: Path) -> None:
    scorer, draw = tiny(id2label={0: "LABEL_0"}, label2id={"LABEL_0": 0}), random.Random(1)
    scorer.config.problem_type = "regression"
    source = write(tmp_path / "model", scorer)
    model, read = trainflat.load(source).eval(), transformers.AutoTokenizer.from_pretrained(source)
    task = section | {"kind": "regression"}
    for name in ("train_file", "validation_file"):
        texts = [line.rsplit(",", 1)[0] for line in Path(section[name]).read_text(encoding="utf8").splitlines()[1:]]
        numbers = [model(**read(text, return_tensors="pt")).logits.item() + draw.gauss(0, 0.01) for text in texts]
        lines = [f"{text},{number:.4f}" for text, number in zip(texts, numbers, strict=True)]
        task[name] = str(tmp_path / f"{name}.csv")
        Path(task[name]).write_text("\n".join(["text,label", *lines]) + "\n", encoding="utf8")
    found = compress(source, task, out=tmp_path / "small", sparsity=0.3, **QUICK)
    small = trainflat.load(tmp_path / "small").eval()
    both = [[one(**read(text, return_tensors="pt")).logits.item() for text in texts] for one in (model, small)]
    assert found.agreement == pytest.approx(float(torch.corrcoef(torch.tensor(both))[0, 1]), abs=1e-4)
    assert found.numbers and found.agreed == f"the answers correlate with the original's at {found.agreement:.3f}"
    with pytest.raises(InputError, match=r"the answers correlate with the original's at .*, below the floor of 1 "):
        compress(source, task, out=tmp_path / "other", sparsity=0.3, **(QUICK | {"floor": 1.0}))


def test_an_architecture_without_anatomy_says_how_to_add_it(section: dict[str, Any], tmp_path: Path) -> None:
    other = write(tmp_path / "fnet", tiny("FNet", pad_token_id=0))
    with pytest.raises(InputError, match=r"the structure of 'fnet' is not known.*write a Layout"):
        compress(other, section, out=tmp_path / "small", sparsity=0.5, **QUICK)


def test_a_model_without_a_head_is_refused(section: dict[str, Any], tmp_path: Path) -> None:
    bare = write(tmp_path / "bare", tiny().bert)
    with pytest.raises(InputError, match="bare"):
        compress(bare, section, out=tmp_path / "small", sparsity=0.5, **QUICK)
    assert not (tmp_path / "small").exists()


def test_an_existing_folder_stays_as_it_is(folder: Path, section: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(InputError, match="is there already"):
        compress(folder, section, out=tmp_path, sparsity=0.5, **QUICK)
    assert (tmp_path / "mine").read_text() == "mine"


class Made:
    """Stands for a smaller model: the share of the work that it was allowed."""

    def __init__(self, budget: Any) -> None:
        self.share = budget.share


def searching(drop: Callable[[float], float] = lambda share: 0.0) -> Search:
    return Search(
        make=Made,  # type: ignore[arg-type]
        fast=lambda speedup: SimpleNamespace(share=1 / speedup),  # type: ignore[arg-type, return-value]
        drop=lambda made: drop(made.share),  # type: ignore[attr-defined]
        length=8,
        progress=Progress(),
    )


def test_a_latency_is_a_speedup_over_the_original() -> None:
    made: Any = searching().reach(Goal(kind="latency", value=5.0), 10.0)
    assert made.share == searching().reach(Goal(kind="speedup", value=2.0), 10.0).share == 0.5  # type: ignore[attr-defined]
    with pytest.raises(InputError, match=r"--latency 20ms: the model takes 10.0 ms already"):
        searching().reach(Goal(kind="latency", value=20.0), 10.0)


def test_the_smallest_model_within_a_drop_is_found() -> None:
    made: Any = searching(lambda share: 5 * (1 - share)).reach(Goal(kind="max-drop", value=1.0), 1.0)
    assert 0.8 <= made.share <= 0.8 + 1 / 2**5
    with pytest.raises(InputError, match=r"even with 97% of the multiply-adds the score falls by more"):
        searching(lambda share: 9.0).reach(Goal(kind="max-drop", value=1.0), 1.0)


@pytest.mark.parametrize(("given", "value"), [("5ms", 5.0), ("0.002s", 2.0), ("900us", 0.9), (4, 4.0), (" 3 MS ", 3.0)])
def test_units_of_time(given: Any, value: float) -> None:
    goal = read_goal(latency=given)
    assert goal.kind == "latency" and goal.value == pytest.approx(value)


def test_the_command_line_says_what_came_of_it_and_what_is_next(
    folder: Path,
    section: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    sets = [piece for key, value in section.items() if key != "name" for piece in ("--set", f"{key}={value}")]
    words = ["compress", str(folder), "--task", "files", *sets, "--sparsity", "0.5", "--rows", "64", "--length", "8"]
    monkeypatch.setattr(sys, "argv", ["trainflat", *words, "--floor", "0", "--out", str(tmp_path / "small")])
    main()
    said = capsys.readouterr().out
    assert "of the layers' parameters are gone" in said
    assert f"Next: trainflat export {tmp_path / 'small'} --to int8" in said


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["Roberta", "DistilBert", "Electra", "MPNet", "ModernBert"])
def test_families(kind: str, section: dict[str, Any], tmp_path: Path) -> None:
    options: dict[str, Any] = dict(FROM_PAD) if kind in ("Roberta", "MPNet") else {}
    if kind == "DistilBert":
        options = {"dim": 16, "hidden_dim": 64, "n_layers": 2, "n_heads": 4}
    source = write(tmp_path / "model", tiny(kind, **options))
    found = compress(source, section, out=tmp_path / "small", sparsity=0.4, **QUICK)
    program = "import sys, trainflat; print(sum(p.numel() for p in trainflat.load(sys.argv[1]).parameters()))"
    command = [sys.executable, "-c", program, str(tmp_path / "small")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) == found.after.parameters


def test_the_name_of_a_score_is_looked_up_before_anything_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(UnknownName):
        compress("nowhere", "cola", out=tmp_path / "small", sparsity=0.5, pruner="nothing")


def test_a_goal_of_time_that_was_missed_is_said() -> None:
    def speed(after: float) -> Speed:
        return Speed(20.0, after, Spread(20 / after, 20 / after, 20 / after))

    latency, twice = Goal(kind="latency", value=8.0), Goal(kind="speedup", value=2.0)
    assert speed(8.7).missed(latency) == speed(11.0).missed(twice) == ""
    assert speed(99.0).missed(Goal(kind="size", value=1.0)) == ""
    assert "--latency 8ms was missed: 8.9 ms beside the original's 20 ms" in speed(8.9).missed(latency)
    assert "--speedup 2 was missed: 1.74 times as fast" in speed(11.5).missed(twice)
