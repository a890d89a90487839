"""Runs with every option are killed at random moments, started again, and end to the bit as if nothing had happened."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertForSequenceClassification

from tests.support.families import config, write
from tests.support.fresh import run_fresh
from tests.support.kill_options import FAMILIES, QUICK, SOURCE, TWO_PROCESSES, recipes
from tests.support.runs import sentences
from tests.support.teachers import LABELS
from trainflat.protocols import PROTOCOLS

KILLS = 4  # of each recipe


def killed(place: Path, chosen: dict[str, Any], kills: int, *, processes: int = 1, patience: int = 1500) -> int:
    """How many kills struck; every run must have ended with the digest of the one that was left alone."""
    torch.manual_seed(0)
    for name, options in {"model": {}, "teacher": LABELS}.items():
        write(place / name, BertForSequenceClassification(config("Bert", **options)))
    sentences(place, "classification")
    spec = {"out": str(place / "runs"), "recipes": recipes(place, chosen), "kills": kills, "processes": processes}
    (place / "spec.json").write_text(json.dumps(spec | {"seed": 0, "kept": SOURCE}))
    done = run_fresh(place / "spec.json", module="tests.support.kill_options_driver", patience=patience)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    faults = [line for line in lines if "fault" in line]
    assert done.returncode == 0, (faults, done.stderr[-3000:])
    for line in lines:
        assert set(line["found"]) == {line["whole"]}, line
    assert [line["name"] for line in lines] == list(chosen)
    return sum(line["struck"] for line in lines)


@pytest.mark.timeout(1600)
@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_runs_killed_at_random_end_on_the_same_bits(family: str, tmp_path: Path) -> None:
    assert killed(tmp_path, FAMILIES[family], KILLS) == KILLS * len(FAMILIES[family])


@pytest.mark.slow
@pytest.mark.timeout(1600)
def test_two_processes_killed_at_random_end_on_the_same_bits(tmp_path: Path) -> None:
    assert killed(tmp_path, TWO_PROCESSES, KILLS, processes=2) == KILLS * len(TWO_PROCESSES)


@pytest.mark.long
@pytest.mark.parametrize("family", QUICK)
def test_some_runs_killed_once(family: str, tmp_path: Path) -> None:
    chosen = {name: FAMILIES[family][name] for name in QUICK[family]}
    assert killed(tmp_path, chosen, 1, patience=280) == len(chosen)


def test_every_member_of_every_table_is_killed_and_that_200_times() -> None:
    used = {sections["protocol"]["name"] for family in FAMILIES.values() for sections in family.values()}
    assert used == set(PROTOCOLS)
    assert KILLS * sum(map(len, [*FAMILIES.values(), TWO_PROCESSES])) >= 200
