"""The command line: what it prints, what it answers with, and that it leaves nothing half-written."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import trainflat
from tests.support.fresh import run_fresh
from tests.support.records import make_record
from trainflat.averaging import AVERAGING
from trainflat.cli.lines import beside, shrinking
from trainflat.cli.main import main
from trainflat.cli.terminal import TerminalProgress
from trainflat.core.listing import KINDS, listed
from trainflat.evaluation.checklist import SUITES
from trainflat.export import EXPORTERS
from trainflat.models import MODELS
from trainflat.optim import OPTIMIZERS
from trainflat.protocols import PROTOCOLS
from trainflat.pruning import PRUNERS
from trainflat.pruning.gates import GATES
from trainflat.pruning.structured import REPAIRS, UNIT_SCORES
from trainflat.quantization import QUANTIZERS
from trainflat.recipe import packaged_recipes
from trainflat.reparametrization import REPARAMETRIZATIONS
from trainflat.sharpness import MEASURES
from trainflat.tasks import TASKS

# Stands in for the pipeline, which takes seconds to import.
PLAN = """
import types
def plan(*a, **k): raise {}
sys.modules["trainflat.commands.check"] = types.SimpleNamespace(plan=plan)
"""
CLOSED = "http://127.0.0.1:9"  # nobody listens there
DEMO = ("--set", "model.layers=1", "--set", "evaluation.latency.batches=[]")


class Answer:
    """Exit code, standard output and standard error of one call in this process."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    def refuses(self, *pieces: str) -> None:
        """Exit code 2 and one line that holds ``pieces``; before it only which run it was."""
        *before, last = self.err.splitlines()
        assert self.code == 2 and self.out == "" and last.startswith("trainflat: ")
        assert all(line.startswith("[1/") for line in before)
        for piece in pieces:
            assert piece in last


@pytest.fixture
def trainflat_(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Calls the command line in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("TRAINFLAT_DATA", raising=False)

    def call(*arguments: str) -> Answer:
        monkeypatch.setattr(sys, "argv", ["trainflat", *arguments])
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        out, err = capsys.readouterr()
        return Answer(code, out, err)

    return call


MAIN = "import sys; sys.argv[0] = 'trainflat'\n{}\nfrom trainflat.cli.main import main\nmain()"


def in_own_process(code: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs the command line after ``code``."""
    wide = {**os.environ, "COLUMNS": "200", **variables}
    command = [sys.executable, "-c", MAIN.format(code), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=wide)


@pytest.mark.parametrize("arguments", [("--help",), ("list",), ("run", "--help"), ("report", "--help")])
def test_help_imports_nothing_heavy(arguments: tuple[str, ...]):
    # typer itself takes pydantic for the options of a command.
    heavy = "'torch', 'transformers', 'numpy',"
    heavy += "" if arguments[1:] or arguments == ("list",) else "'pydantic',"
    heavy += "'sklearn', 'matplotlib', 'plotly', 'yaml', 'pyarrow'"
    code = f"import atexit; atexit.register(lambda: print('HEAVY', [m for m in ({heavy}) if m in sys.modules]))"
    done = in_own_process(code, *arguments)
    assert done.returncode == 0 and "HEAVY []" in done.stdout
    assert "Example: trainflat" in done.stdout or arguments == ("list",)


@pytest.mark.parametrize("command", ["run", "check", "list", "report", "compress"])
def test_every_command_shows_an_example(trainflat_, command: str):
    answer = trainflat_(command, "--help")
    assert answer.code == 0 and f"Example: trainflat {command}" in answer.out


def test_module_is_the_same_door():
    done = subprocess.run([sys.executable, "-m", "trainflat", "list", "--help"], capture_output=True, check=False)
    assert done.returncode == 0


def test_list_shows_every_member_and_recipe(trainflat_):
    answer = trainflat_("list")
    shown = {line.split()[0] for line in answer.out.splitlines() if line.startswith("  ")}
    for names in (TASKS, OPTIMIZERS, PRUNERS, PROTOCOLS, MODELS, packaged_recipes()):
        assert set(names) <= shown
    assert answer.code == 0 and "CoLA: is the sentence acceptable English?" in answer.out


def test_check_prints_the_plan_and_writes_nothing(trainflat_, tmp_path: Path):
    lines = ["text,label", *["a fine day,good", "a grey day,bad"] * 20]
    (tmp_path / "rows.csv").write_text("\n".join(lines), encoding="utf8")
    (tmp_path / "scored.csv").write_text("\n".join([*lines, "a day,bad"]), encoding="utf8")
    (tmp_path / "mine.yaml").write_text(
        "{name: mine, task: {name: files, train_file: rows.csv, validation_file: scored.csv}, model: minilm,"
        " training: {epochs: 2, batch_size: 8, optimizer: {name: sam, lr: 2e-5}},"
        " protocol: {name: iterative, sparsities: [0.5, 0.9]}}",
        encoding="utf8",
    )
    before = sorted(tmp_path.rglob("*"))
    answer = trainflat_("check", "mine.yaml", "--set", "training.epochs=3", "--out", "else")
    assert answer.code == 0 and answer.err == ""
    for piece in (
        "mine, hash ",
        "files: 40 training rows; validation 41",
        "name sam, ",
        "lr 2e-05",
        "sparsities [0.5, 0.9]",
        "3 of 15 steps (3 epochs of batch 8)",
        "45 in all, 2 forward and backward passes each: 90 passes",
        "else/mine-",
        "  dense            trained",
        "  sparsity-0.90    trained",
        "  stages/sparsity-0.50/masks.safetensors",
        "  record.json",
        "Unstructured zeros save storage, not time",
    ):
        assert piece in answer.out
    assert "stages/dense/masks.safetensors" not in answer.out
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "pieces"),
    [
        (["check", "demo-sma"], ["no recipe is called 'demo-sma'. Did you mean 'demo-sam'?"]),
        (["run", "mine.yaml"], ["there is no recipe file mine.yaml."]),
        (["run", "demo-sam", "--set", "training.epoch=1"], ["training.epoch is not a key", "'epochs'?"]),
        (["run", "demo-sam", "demo-adamv"], ["'demo-adamw'?"]),
        (["run", "demo-sam", "--set", "epochs"], ["--set takes key=value"]),
        (["run", "demo-sam", "--seeds", "1,,2"], ["--seeds takes whole numbers such as 1,2,3, got ''."]),
        (["run", "demo-sam", "--seeds", "²"], ["--seeds takes whole numbers"]),
        (["run", "demo-sam", "--set", "model=nowhere/model"], ["nowhere/model"]),
        (["run", "small/cola-imp", "--data", "nowhere"], ["--data names nowhere, which is not a folder."]),
        (["check", "small/cola-imp", "--data", "."], ["has no cola"]),
        (["report", "nowhere"], ["nowhere"]),
        (["report", "."], ["."]),
    ],
    ids=lambda value: " ".join(value)[:40] if value and value[0] in ("check", "run", "report") else "",
)
def test_bad_input_is_one_line_and_nothing_is_written(trainflat_, tmp_path: Path, arguments, pieces):
    trainflat_(*arguments, *(["--out", "made"] if arguments[0] != "check" else [])).refuses(*pieces)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [("run",), ("check", "demo-sam", "--nothing"), ("prune",)])
def test_unknown_options_and_commands(trainflat_, arguments: tuple[str, ...]):
    answer = trainflat_(*arguments)
    answer.refuses("--help`.")


def test_list_of_a_kind_is_part_of_the_list(trainflat_):
    whole = trainflat_("list").out
    parts = [trainflat_("list", kind).out for kind in KINDS]
    assert "".join(parts) == whole
    trainflat_("list", "optimzers").refuses("no kind is called 'optimzers'", "'optimizers'?")


FAMILIES = {"tasks": TASKS, "optimizers": OPTIMIZERS, "averaging": AVERAGING, "pruners": PRUNERS, "gates": GATES}
FAMILIES |= {"protocols": PROTOCOLS, "measures": MEASURES, "quantization": QUANTIZERS, "formats": EXPORTERS}
FAMILIES |= {"reparametrizations": REPARAMETRIZATIONS, "unit-scores": UNIT_SCORES, "repairs": REPAIRS}


@pytest.mark.parametrize("kind", FAMILIES)
def test_list_reads_from_the_sources_what_the_tables_hold(kind: str):
    registry = FAMILIES[kind]
    assert listed(kind)[1] == {name: registry.summary(name) for name in registry}
    assert set(KINDS) == {*FAMILIES, "models", "suites", "recipes"} and set(MODELS) < set(listed("models")[1])
    assert set(SUITES) == set(listed("suites")[1])


def test_version(trainflat_):
    answer = trainflat_("--version")
    assert answer.code == 0 and re.match(r"trainflat \S+, torch \S+, transformers \S+, Python 3\.\d+", answer.out)


def test_nothing_shows_the_help(trainflat_):
    answer = trainflat_()
    assert answer.code == 0 and "Usage: " in answer.out and "run" in answer.out


@pytest.mark.parametrize(
    ("redirected", "variables", "code"),
    [
        ("", {"PYTHONIOENCODING": "ascii"}, 0),
        pytest.param("", {"PYTHONIOENCODING": "latin-1"}, 0, marks=pytest.mark.slow),
        pytest.param("", {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, 0, marks=pytest.mark.slow),
        ("", {"COLUMNS": "7"}, 0),
        ("", {"NO_COLOR": "1", "TERM": "dumb"}, 0),
        (" >&-", {}, 0),
        (" 2>&-", {}, 0),
        (" | head -n 1", {}, 0),
        (" > /dev/full", {}, 2),
    ],
)
def test_wherever_the_output_goes_there_is_no_traceback(redirected: str, variables: dict[str, str], code: int):
    call = f"{sys.executable} -m trainflat list{redirected}"
    wide = {**os.environ, "COLUMNS": "200", **variables}
    done = subprocess.run(["bash", "-c", call], capture_output=True, check=False, env=wide)
    assert done.returncode == code and b"Traceback" not in done.stderr and b"Exception" not in done.stderr
    assert done.stderr.count(b"\n") == (1 if code else 0)


@pytest.mark.parametrize("call", ["list", "--version", ""])
def test_a_closed_pipe_is_no_fault(call: str):
    command = f"{sys.executable} -m trainflat {call} | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, check=False)
    assert done.returncode in (0, 141) and done.stderr == b""


@pytest.mark.long
def test_a_hub_that_does_not_answer_is_one_line(tmp_path: Path):
    code = "import huggingface_hub.utils._http as http; http.time.sleep = lambda seconds: None\n"
    code += "from huggingface_hub import constants\n"  # read from the environment once, which the fork has behind it
    code += f"constants.ENDPOINT, constants.HF_HUB_OFFLINE = {CLOSED!r}, False\n"
    code += f"constants.HF_HUB_CACHE = {str(tmp_path / 'cache')!r}"
    rows = tmp_path / "rows.csv"
    days = [f"day {i},{('good', 'bad')[i % 2]}" for i in range(40)]
    rows.write_text("\n".join(["text,label", *days]), encoding="utf8")
    task = f"task={{name: files, train_file: {rows}}}"  # the demo's parses the whole standard library first
    arguments = ("demo-sam", "--set", task, "--set", "model=no/such-model", "--out", str(tmp_path / "runs"))
    done = run_fresh("run", *arguments, code=MAIN.format(code))
    first, last = done.stderr.splitlines()
    assert (
        done.returncode == 2
        and first.startswith("[1/1] demo-sam")
        and "'no/such-model'" in last
        and not last.endswith("...")
    )


def test_fault_shows_where_it_happened():
    done = run_fresh("check", "x", code=MAIN.format(PLAN.format("RuntimeError('odd')")))
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback") and done.stderr.endswith("RuntimeError: odd\n")


INTERRUPTED = """
import types
def interrupted(*a, **k): raise KeyboardInterrupt
sys.modules["trainflat.commands.{0}"] = types.SimpleNamespace(plan=interrupted, run=interrupted)
"""


@pytest.mark.parametrize(("command", "following"), [("check", ""), ("run", " A run continues with the same command.")])
def test_interruption_is_one_line_that_says_what_continues(command: str, following: str):
    done = run_fresh(command, "demo-sam", code=MAIN.format(INTERRUPTED.format(command)))
    assert done.returncode == 130
    assert done.stderr.splitlines()[-1] == f"trainflat: interrupted.{following}"


@pytest.mark.parametrize("found", [True, False])
def test_report_opens_its_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], found: bool
):
    make_record().save(tmp_path / "run")
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", lambda address: opened.append(address) or found)
    monkeypatch.setattr("trainflat.report.write_report", lambda *args, **kwargs: tmp_path / "out" / "report.html")
    monkeypatch.setattr(sys, "argv", ["trainflat", "report", str(tmp_path / "run"), "--open"])
    main()
    assert opened == [(tmp_path / "out" / "report.html").as_uri()]
    assert ("no browser was found" in capsys.readouterr().out) is not found


def test_report_of_a_folder(trainflat_, tmp_path: Path):
    for name in ("adamw", "sam"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        make_record("stdlib-docs", "minilm", 6, {"name": name}, name=name).save(tmp_path / "runs" / name)
    (tmp_path / "runs" / "begun").mkdir()
    (tmp_path / "runs" / "begun" / "claim.json").write_text("{}", encoding="utf8")
    answer = trainflat_("report", "runs", "--out", "page")
    page, following = answer.out.splitlines()[0], answer.out.splitlines()[-1]
    page = Path(page)
    assert following == "Next: trainflat list recipes"  # no stage of these runs is there
    assert answer.code == 0 or answer.err
    assert page.is_file() and page.suffix == ".html" and page.resolve().is_relative_to(tmp_path / "page")


@pytest.mark.long
def test_run_ends_with_a_table_and_leaves_what_was_planned(trainflat_, tmp_path: Path):
    options = (*DEMO, "--set", "task.rows=32", "--set", "task.holdout=0.02", "--set", "training.epochs=1")
    short = (*options, "--set", "protocol={name: one-shot, sparsities: [0.5]}")
    answer = trainflat_("run", "demo-sam", *short, "--seeds", "1,2")
    assert answer.code == 0
    for piece in ("[1/2] demo-sam-", "[2/2] demo-sam-", "seed 2", "dense: accuracy", "50% of the encoder is zero"):
        assert piece in answer.err
    folders = sorted((tmp_path / "runs").iterdir())
    assert len(folders) == 2 and len(re.findall(r"runs/demo-sam-\S+/record.json", answer.out)) == 2
    assert answer.out.startswith("task stdlib-docs") and "model minilm" in answer.out
    assert re.search("Optimizer.*0 %.*50 %", answer.out) and "SAM" in answer.out.upper()

    plan = trainflat.plan("demo-sam", out=tmp_path / "runs", overrides=[*short[1::2], "seed=1"])
    made = {str(p.relative_to(plan.folder)) for p in plan.folder.rglob("*") if p.is_file()}
    assert set(plan.files) <= made
    again = trainflat_("run", "demo-sam", *short, "--seeds", "1")
    assert again.code == 0 and "is complete: nothing to do." in again.err


class Spoken(TerminalProgress):
    def __init__(self, *, live: bool) -> None:
        super().__init__()
        self.live, self.said = live, []

    def say(self, text: str) -> None:
        self.said.append(text)


@pytest.mark.parametrize("live", [False, True])
def test_resuming_says_from_where(live: bool):
    progress = Spoken(live=live)
    progress.begin("training dense", 76, 40)
    progress.begin("training sparsity-0.50", 1)
    assert progress.said[0] == "continuing training dense at 40/76 steps"
    assert progress.said[1:] == ([] if live else ["training sparsity-0.50: 1 step"])


def test_check_ends_with_the_run_that_it_planned(trainflat_):
    answer = trainflat_("check", "demo-sam", "--set", "protocol={name: one-shot, sparsities: [0.5]}", "--out", "a b")
    line = answer.out.splitlines()[-1]
    assert line == "Next: trainflat run demo-sam --set 'protocol={name: one-shot, sparsities: [0.5]}' --out 'a b'"
    assert shlex.split(line)[2:4] == ["run", "demo-sam"]


def test_what_follows_names_folders_as_they_were_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    assert beside(Path("runs/dense"), "onnx") == Path("runs/dense-onnx")
    assert beside(tmp_path / "model", "int8") == tmp_path / "model-int8"
    assert shrinking(Path("model")) == ("export", Path("model"), "--to", "int8")
    monkeypatch.chdir(tmp_path / "model")
    assert beside(Path(), "int8") == tmp_path / "model-int8"
    (tmp_path / "model-int8").mkdir()
    assert shrinking(Path("../model")) == ("bench", Path("../model"), Path("../model-int8"))
