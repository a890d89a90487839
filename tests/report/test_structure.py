"""Structurally pruned stages: maps of heads and widths, tables, and scores against measured speed-ups."""

import csv
from pathlib import Path

import pytest

from tests.support.records import make_record, make_structure
from trainflat.records.run import Record
from trainflat.records.structure import LayerWidths
from trainflat.report import write_report
from trainflat.report.palette import Palette
from trainflat.report.panels import make_panels
from trainflat.report.sections.base import Results
from trainflat.report.sections.costs import Costs
from trainflat.report.sections.frontier import SpeedFrontier, frontier
from trainflat.report.sections.scores import PLAIN, Scores, score_table, summary_table
from trainflat.report.sections.structure import StructureMap, heat
from trainflat.report.sections.training import TrainingCurves
from trainflat.report.tables import to_markdown


def structured(seed: int = 0, speed: float = 1.0) -> Record:
    """A run whose pruned stages have a structure and are faster than its dense one."""
    run = make_record("stsb", "minilm", 6, seed=seed, protocol={"name": "post-training"}, sparsities=(0.0, 0.4, 0.6))
    stages = []
    for stage in run.stages:
        share = stage.target_sparsity
        times = [one.model_copy(update={"median": one.median * (1 - share) / speed}) for one in stage.timing.latency]
        predicted = 2 * times[0].median if share else None
        latency = times if share else stage.timing.latency
        timing = stage.timing.model_copy(update={"latency": latency, "predicted_seconds": predicted})
        structure = make_structure(share) if share else None
        stages.append(stage.model_copy(update={"timing": timing, "structure": structure}))
    return run.model_copy(update={"stages": stages}).sealed()


def test_the_map_has_a_cell_per_head_and_the_share_of_units() -> None:
    found = heat([make_structure(0.5), make_structure(0.0)])
    assert (found.rows[0], found.rows[-1], len(found.rows), len(found.columns)) == ("head 0", "units", 13, 6)
    assert found.values[0][:5] == [100.0] * 5 and found.values[0][5] == 0.0  # attention of the last is skipped in both
    assert found.values[11][4] == 50.0  # in one of the two
    assert found.values[-1] == [75.0] * 6


def test_tables_say_widths_states_and_both_times() -> None:
    [panel] = make_panels([structured()])
    [table] = StructureMap().tables(panel)
    assert [row["Target"] for row in table.rows] == ["40 %", "60 %"]
    row = table.rows[1]
    assert row["Heads · units by layer"].startswith("12·614 | 11·614") and row["Heads · units by layer"].endswith(
        "skip·614"
    )
    assert row["Multiply-adds left"] == "40.0 %" and row["Layers' parameters gone"] == "60.0 %"
    predicted, measured = row["ms, 1 × 128, predicted → measured"].split(" → ")
    assert float(predicted) == pytest.approx(2 * float(measured), rel=0.05)


def learned(seed: int = 0) -> Record:
    """A run whose pruned model was trained once more: two stages of one sparsity, with what a Lagrangian logs."""
    run = structured(seed)
    dense, pruned, finetuned = run.stages
    assert pruned.training is not None and finetuned.training is not None
    curve = [
        {"step": step, "loss": 1.0, "sparsity": 0.3, "sparsity_target": 0.4, "sparsity_expected": 0.35}
        | {"multiplier_1": -0.5, "multiplier_2": 0.1}
        for step in (10.0, 20.0)
    ]
    first = pruned.training.model_copy(update={"steps": 20, "curve": curve})
    last = finetuned.training.model_copy(update={"steps": 30, "curve": [{"step": 30.0, "loss": 0.5}]})
    stages = [
        dense,
        pruned.model_copy(update={"name": "pruned", "training": first}),
        finetuned.model_copy(update={"name": "finetuned", "training": last, "target_sparsity": pruned.target_sparsity}),
    ]
    protocol = {"name": "structured", "method": {"name": "cofi"}}
    recipe = run.recipe | {"protocol": protocol}
    return run.model_copy(update={"stages": stages, "recipe": recipe, "protocol": "structured"}).sealed()


def test_stages_of_one_sparsity_are_told_apart() -> None:
    records = [learned(seed) for seed in (0, 1)]
    [panel] = make_panels(records)
    [scores] = score_table(panel)
    names = ["40 %, pruned", "40 %, finetuned"]
    assert list(scores) == ["Optimizer", "Seeds", "0 %", *names]
    for name, stage in zip(names, (1, 2), strict=True):
        mean = sum(record.score(record.stages[stage]) or 0.0 for record in records) / 2
        assert scores[name].startswith(f"{mean:.1f}")
    for section, column in ((StructureMap(), "Target"), (Costs(), "Sparsity")):
        [table] = section.tables(panel)
        assert [row[column] for row in table.rows][-2:] == names
    [summary] = summary_table(records)
    assert summary.keys() >= {"0 %", *names}


def test_curves_of_a_model_that_was_pruned_go_on_where_it_was_trained_again() -> None:
    [panel] = make_panels([learned()])
    section = TrainingCurves()
    plots = {plot.title: plot for plot in section.plots(panel, Palette(["adamw"]))}
    assert {"Sparsity that is wanted by then", "λ₁, multiplier of the gap between the two"} <= set(plots)
    steps = [mark.x for mark in plots["Training loss"].frames[section.targets(panel).index(0.4)]]
    assert [list(x) for x in steps] == [[10, 20], [50]]  # the second training began at step 20
    assert "follows" in section.caption(panel)
    assert "follows" not in section.caption(make_panels([structured()])[0])


def test_a_panel_without_structures_shows_neither() -> None:
    [panel] = make_panels([make_record("stsb", "minilm", 6)])
    assert not StructureMap().tables(panel) or not StructureMap().tables(panel)[0].rows
    assert not StructureMap().plots(panel, Palette([])) and not SpeedFrontier().plots(panel, Palette([]))


def test_the_frontier_joins_what_nothing_beats() -> None:
    points = [(1.0, 90.0), (2.0, 80.0), (2.0, 85.0), (3.0, 86.0), (4.0, 70.0), (4.0, 71.0)]
    assert frontier(points) == [(1.0, 90.0), (3.0, 86.0), (4.0, 71.0)]
    assert frontier([]) == []


def test_speeds_are_those_over_the_run_s_own_dense_model() -> None:
    [panel] = make_panels([structured(0), structured(1, speed=2.0)])
    plot = SpeedFrontier().plots(panel, Palette(["adamw"]))[0]
    line = plot.frames[0][1]
    assert list(line.x) == pytest.approx([1.0, (1 / 0.6 + 2 / 0.6) / 2, (1 / 0.4 + 2 / 0.4) / 2])
    assert plot.title == "1 × 128 tokens, 2 threads (cpu)"


def test_both_are_on_the_page_among_the_files_and_in_the_csv(tmp_path: Path) -> None:
    page = write_report([structured(0), structured(1)], tmp_path)
    assert "What is left of the structure" in page.read_text(encoding="utf8")
    assert {path.name.split("-")[0] for path in tmp_path.glob("**/*.png")} >= {"structure", "frontier"}
    with next(tmp_path.glob("**/*.csv")).open(encoding="utf8") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["structure_multiply_adds"]) for row in rows if row["structure_multiply_adds"]] == pytest.approx(
        [0.6, 0.4]
    )


def test_widths_are_written_short() -> None:
    from trainflat.report.sections.structure import widths

    assert widths(LayerWidths(heads=[], units=0, attention="bias-only", feed_forward="bias-only")) == "bias·bias"


def test_models_that_became_smaller_are_not_said_to_be_as_slow_as_before() -> None:
    smaller = Results.of([structured()])
    assert Scores().closing(smaller) == ("", "") and PLAIN not in to_markdown(smaller, [])
    zeros = Results.of([make_record()])
    assert Scores().closing(zeros) == ("Sparse is not fast.", PLAIN) and PLAIN in to_markdown(zeros, [])
