"""Every block of code in README.md and docs is tried: Python runs, recipes load, commands are understood."""

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from trainflat import report as reporting
from trainflat.cli.main import main
from trainflat.commands import check as checking
from trainflat.commands import compress as compressing
from trainflat.commands import diagnose as diagnosing
from trainflat.commands import export as exporting
from trainflat.commands import run as running
from trainflat.commands.bench import compare as comparing
from trainflat.commands.compress.goal import read_goal
from trainflat.commands.grid import plan as planning
from trainflat.commands.grid.cells import cells
from trainflat.commands.grid.spec import read_grid
from trainflat.core.files import read_json
from trainflat.export import EXPORTERS
from trainflat.recipe import load_recipe

ROOT = Path(__file__).resolve().parents[2]
PAGES = {path.name: path.read_text(encoding="utf8") for path in (ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")))}
BASE = {"task": "sst2", "model": "minilm", "training": {"optimizer": "sam"}, "protocol": "iterative"}


def blocks(page: str, *languages: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", PAGES[page], flags=re.DOTALL | re.MULTILINE)
    return [code for language, code in found if language in languages]


def commands(page: str) -> Iterator[str]:
    for block in blocks(page, "console", "", "bash", "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            if re.match(r"(\$ )?trainflat ", line):
                yield line.removeprefix("$ ")


def test_every_block_is_of_a_kind_that_is_tried() -> None:
    for page, text in PAGES.items():
        assert text.count("\n```") == 2 * len(blocks(page, "python", "yaml", "console", ""))


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:'pin_memory'")  # what the Trainer's default is without a GPU
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")])
def test_python_runs_as_written(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    names: dict[str, Any] = {}
    for block in blocks(page, "python"):
        exec(block, names)  # noqa: S102
    if page == "README.md":
        assert [stage.name for stage in names["record"].stages] == ["dense", "sparsity-0.50"]
        assert names["masks"].sparsity == pytest.approx(0.9, abs=0.01)
        assert names["trainer"].passes.count == 2 * names["trainer"].state.global_step == 4


@pytest.mark.parametrize(("page", "text"), [(page, text) for page in PAGES for text in blocks(page, "yaml")])
def test_recipes_load(page: str, text: str) -> None:
    value = yaml.safe_load(text)
    if {"axes", "parts"} & value.keys():
        assert cells(read_grid({"recipe": BASE} | value if "axes" in value else value), Path("runs"))
    else:
        load_recipe(BASE | value)


class Reached(Exception):
    """What a command works with was reached."""


@pytest.mark.parametrize("line", [line for page in PAGES for line in commands(page)])
def test_commands_are_understood(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = blocks("README.md", "yaml")[0]
    Path("sentences.yaml").write_text(recipe, encoding="utf8")
    Path("rho.yaml").write_text(blocks("grids.md", "yaml")[0], encoding="utf8")

    def reached(*given: Any, task: Any = None, overrides: Any = (), **options: Any) -> None:
        section = task or next((one for one in given if isinstance(one, dict) and "name" in one), None)
        load_recipe({"task": section, "model": "minilm"} if section else given[0], overrides)
        raise Reached

    def exported(model: Path, to: str, out: Path, options: Any, **others: Any) -> None:
        EXPORTERS.read({"name": to, **options})
        reached(BASE, **others)

    def stop(*given: Any, **options: Any) -> None:
        reached(BASE, task=options.get("task"))

    def crossed(file: Path, overrides: Any, **options: Any) -> None:
        reached(cells(read_grid(file), Path("runs"), overrides)[0].recipe)

    monkeypatch.setattr(planning, "plan_grid", crossed)
    monkeypatch.setattr(running, "run", reached)
    monkeypatch.setattr(checking, "plan", reached)
    monkeypatch.setattr(diagnosing, "diagnose", lambda models, section, **o: reached(BASE, task=section))
    monkeypatch.setattr(exporting, "export", exported)

    def compressed(model: str, section: Any, **options: Any) -> None:
        read_goal(**{key: options[key] for key in ("speedup", "latency", "size", "sparsity", "max_drop")})
        reached(BASE, task=section)

    monkeypatch.setattr(compressing, "compress", compressed)
    monkeypatch.setattr(comparing, "compare", stop)
    monkeypatch.setattr(reporting, "find_results", stop)
    words = shlex.split(line, comments=True)
    monkeypatch.setattr(sys, "argv", words)
    if words[1] == "list":
        main()
        return
    with pytest.raises(Reached):
        main()


@pytest.mark.slow  # a minute and a half
def test_the_readmes_own_example_learns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(blocks("README.md", "python")[0], {})  # noqa: S102
    record = running.run(yaml.safe_load(blocks("README.md", "yaml")[0]))
    scores = [record.score(stage) for stage in record.stages]
    assert min(scores) > 65 and len(scores) == 3  # half of the rows are of the most frequent class


def test_the_readmes_scores_are_those_of_its_record() -> None:
    record = read_json(ROOT / "results" / "readme" / "sentences" / "record.json")
    told = re.search(r"it answers ([\d.]+), ([\d.]+) and ([\d.]+) % right", PAGES["README.md"])
    scores = [stage["scores"][record["task"]["split"]]["accuracy"] for stage in record["stages"]]
    assert told and [float(one) for one in told.groups()] == [round(score, 1) for score in scores]
    recipe = load_recipe(yaml.safe_load(blocks("README.md", "yaml")[0]))
    assert recipe.task.rows == record["recipe"]["task"]["rows"] and recipe.seed == record["seed"]
