"""Which evaluations of a gated training could be the best: told by the record, shown by the report."""

from pathlib import Path
from typing import Any

from tests.support.records import make_record
from trainflat.records.run import Record
from trainflat.report import write_report
from trainflat.report.panels import make_panels
from trainflat.report.sections.eligible import Eligible
from trainflat.report.words import DASH


def gated(*entries: tuple[int, float, float, int], seed: int = 0) -> Record:
    """A run with evaluations of (step, score, sparsity, eligible), beside those of another split."""
    run = make_record("stsb", "minilm", 6, seed=seed, protocol={"name": "structured"}, sparsities=(0.0, 0.8))
    dense, pruned = run.stages
    assert pruned.training is not None
    key = f"{run.task.split}/{run.task.metric}"
    told: list[dict[str, Any]] = []
    for step, score, sparsity, eligible in entries:
        logs = {"step": step, "sparsity": sparsity, "eligible": eligible}
        told += [{**logs, key: score}, {**logs, "other/loss": 1.0}]
    training = pruned.training.model_copy(update={"evaluations": told})
    return run.model_copy(update={"stages": [dense, pruned.model_copy(update={"training": training})]}).sealed()


def test_the_first_the_best_and_the_last_are_told() -> None:
    run = gated(
        (100, 88.0, 0.1, 0), (200, 80.0, 0.795, 1), (300, 82.0, 0.8, 1), (400, 82.0, 0.81, 1), (500, 70.0, 0.7, 0)
    )
    [panel] = make_panels([run, gated((100, 60.0, 0.2, 0), seed=1)])
    [table] = Eligible().tables(panel)
    first, second = table.rows
    assert [first[name] for name in ("Seed", "Eligible")] == ["0", "3 of 5"]
    assert first["First eligible"] == "step 200: 80.0 at 79.5 %"
    assert first["Best eligible"] == "step 300: 82.0 at 80.0 %"  # the first of equal ones, which the Trainer keeps
    assert first["Last"] == "step 500: 70.0 at 70.0 %"
    assert (second["Eligible"], second["Best eligible"], second["Last"]) == ("0 of 1", DASH, "step 100: 60.0 at 20.0 %")


def test_it_is_on_the_page_of_gated_runs_alone(tmp_path: Path) -> None:
    title = Eligible.title
    assert title in write_report([gated((200, 80.0, 0.8, 1))], tmp_path / "one").read_text(encoding="utf8")
    assert title not in write_report([make_record("stsb", "minilm", 6)], tmp_path / "two").read_text(encoding="utf8")
