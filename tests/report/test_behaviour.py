"""Loyalty and behavioural tests in a report: failures paired with the dense model's, case by case."""

import csv
from pathlib import Path

import numpy as np
import pytest

from tests.support.records import make_record
from trainflat.records.behaviour import Checklist, Loyalty, SuiteTest, pack
from trainflat.records.run import Int8, Record
from trainflat.report import write_report
from trainflat.report.palette import Palette
from trainflat.report.panels import make_panels
from trainflat.report.sections.base import Results
from trainflat.report.sections.behaviour import Behaviour, bootstrap

Outcomes = dict[str, list[bool | None]]


def checklist(outcomes: Outcomes, sha256: str = "ab") -> Checklist:
    """By test: whether each case failed. A test is called by its capability."""
    tests = [
        SuiteTest(
            name=f"a test of {name}",
            capability=name,
            type="MFT" if name == "Negation" else "INV",
            cases=len(found),
            failed=pack([one is True for one in found]),
            left_out=pack([one is None for one in found]) if None in found else "",
        )
        for name, found in outcomes.items()
    ]
    return Checklist(suite="own", sha256=sha256, most=500, seed=0, tests=tests)


DENSE: Outcomes = {"Negation": [False, False, True, True], "Robustness": [False, None]}
PRUNED: Outcomes = {"Negation": [True, True, False, True], "Robustness": [True, True]}


def behaving(seed: int = 0, dense: Outcomes = DENSE, pruned: Outcomes = PRUNED, sha256: str = "ab") -> Record:
    run = make_record(
        "stsb", "minilm", 6, seed=seed, protocol={"name": "one-shot", "sparsities": [0.5]}, sparsities=(0.0, 0.5)
    )
    loyalty = Loyalty(to="dense", base="e", scores={"label": 90.0 + seed, "probability": 80.0})
    int8 = Int8(
        activations="token", embeddings=False, head=False, scores=run.stages[1].scores, bytes=1000, loyalty=loyalty
    )
    stages = [
        run.stages[0].model_copy(update={"checklist": checklist(dense)}),
        run.stages[1].model_copy(update={"checklist": checklist(pruned, sha256), "loyalty": loyalty, "int8": int8}),
    ]
    return run.model_copy(update={"stages": stages}).sealed()


def test_cases_are_paired_with_the_dense_models_where_they_apply_to_both() -> None:
    [panel] = make_panels([behaving()])
    table, parts = Behaviour().tables(panel)
    dense, pruned, rounded = table.rows
    assert (dense["Failed (%)"], dense["Regressions"], dense["Label loyalty (%)"]) == ("40.0", "–", "–")
    # Of five cases that apply to both, three are failed anew and one no longer; one more fails that did not apply.
    assert (pruned["Failed (%)"], pruned["Regressions"], pruned["Fixes"]) == ("83.3", "60.0", "20.0")
    assert pruned["Change"].startswith("+40.0 [")
    assert (pruned["Label loyalty (%)"], pruned["Probability loyalty (%)"]) == ("90.0", "80.0")
    assert (rounded["Weights"], rounded["Label loyalty (%)"], rounded["Failed (%)"]) == ("int8", "90.0", "–")
    assert [(row["Capability"], row["Type"], row["Cases"], row["Dense failed (%)"]) for row in parts.rows] == [
        ("Negation", "MFT", "4", "50.0"),
        ("Robustness", "INV", "1", "0.0"),
    ]


def test_what_was_measured_is_explained() -> None:
    [panel] = make_panels([behaving()])
    about = Behaviour().caption(panel)
    assert "(base e of its logarithm)" in about and "Suite: own, at most 500 cases per test." in about
    assert "spans" not in about and "correlations" not in about


def test_lines_stand_side_by_side_under_each_capability() -> None:
    sam = behaving().model_copy(update={"optimizer": "sam"}).sealed()
    [panel] = make_panels([behaving(), sam])
    rows = Behaviour().tables(panel)[1].rows
    assert [(row["Capability"], row["Optimizer"]) for row in rows] == [
        (capability, optimizer) for capability in DENSE for optimizer in ("adamw", "sam")
    ]


def test_cases_of_another_suite_are_not_paired() -> None:
    [panel] = make_panels([behaving(sha256="cd")])
    pruned = Behaviour().tables(panel)[0].rows[1]
    assert (pruned["Failed (%)"], pruned["Regressions"], pruned["Change"]) == ("83.3", "–", "–")


def test_seeds_are_put_together_case_by_case() -> None:
    """A case that only one of two seeds loses counts half, and cases, not rows of seeds, are drawn."""
    same = {"Negation": [False] * 40}
    lost = {"Negation": [True] * 40}
    [panel] = make_panels([behaving(0, same, lost), behaving(1, same, same)])
    row = Behaviour().tables(panel)[0].rows[1]
    assert (row["Regressions"], row["Change"]) == ("50.0", "+50.0 [+50.0, +50.0]")
    assert row["Label loyalty (%)"] == "90.5 ± 0.7"


def test_the_interval_is_that_of_cases_drawn_with_replacement() -> None:
    changes = np.repeat([100.0, 0.0, -100.0], [30, 150, 20])
    low, high = bootstrap(list(changes), draws=20_000)
    generator = np.random.default_rng(1)
    drawn = [generator.choice(changes, len(changes)).mean() for _ in range(4000)]
    assert (low, high) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])), abs=0.6)
    assert bootstrap([100.0] * 9) == (100.0, 100.0)


def test_figures_and_the_csv_have_a_column_per_capability(tmp_path: Path) -> None:
    [panel] = make_panels([behaving()])
    titles = [plot.title for plot in Behaviour().plots(panel, Palette(["adamw"]))]
    assert titles == ["Label loyalty (%)", "Probability loyalty (%)"] + [
        f"Failed, {name} (%)" for name in ("all tests", "Negation", "Robustness")
    ]
    write_report([behaving()], tmp_path)
    dense, pruned = csv.DictReader((tmp_path / "results.csv").read_text().splitlines())
    assert pruned["checklist_failed_negation"] == "75.0" and dense["checklist_failed_robustness"] == "0.0"
    assert (pruned["checklist_regressions"], pruned["checklist_fixes"]) == ("60.0", "20.0")
    assert (pruned["loyalty_label"], pruned["int8_loyalty_label"], dense["loyalty_label"]) == ("90.0", "90.0", "")
    assert "a suite of behavioural tests" in (tmp_path / "results.md").read_text()


def test_reports_without_are_as_before() -> None:
    results = Results.of([make_record()])
    assert Behaviour().show(results).entries == []
    assert Behaviour().columns(results.panels[0], results.panels[0].lines[0].points[0]) == {}
