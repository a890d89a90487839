"""The calls of ``experiments.compress``: each is one that the command line understands."""

import pytest
from typer.main import get_command

from experiments.compress import GOALS
from trainflat.cli.commands import app
from trainflat.commands.compress.goal import read_goal


@pytest.mark.parametrize("name", GOALS)
def test_every_call_has_one_goal(name: str) -> None:
    command = get_command(app).commands["compress"]  # type: ignore[attr-defined]
    given = command.make_context("compress", ["folder", "--task", "stsb", *GOALS[name]]).params
    kinds = ("speedup", "latency", "size", "sparsity", "max_drop")
    goal = read_goal(**{kind: given[kind] for kind in kinds})
    assert name.startswith(goal.kind)
