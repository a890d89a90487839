"""Score against training compute: what a pass of a smaller model costs, and what no other size beats."""

from pathlib import Path

import pytest

from tests.support.records import make_record
from trainflat.records.run import Record
from trainflat.report import write_report
from trainflat.report.palette import Palette
from trainflat.report.panels import make_panels
from trainflat.report.sections.transfer import TransferFrontier, on_frontier, reached

SCORES = {0.0: (70.0, 85.0, 88.0), 0.5: (78.0, 80.0, 81.0), 0.75: (50.0, 60.0, 65.0)}


def transferred(optimizer: str = "adamw", seed: int = 0) -> Record:
    """Three sizes, evaluated after each of three epochs."""
    run = make_record(
        "stsb", "minilm", 6, {"name": optimizer, "lr": 2e-5}, seed, protocol={"name": "transfer"}, sparsities=[*SCORES]
    )
    stages = []
    for stage in run.stages:
        left = 1 - stage.target_sparsity
        smaller = [m.model_copy(update={"entries": round(left * m.entries), "zeros": 0}) for m in stage.matrices]
        found = [
            {"epoch": float(n), "step": 180.0 * n, "validation/pearson": score + seed}
            for n, score in enumerate(SCORES[stage.target_sparsity], 1)
        ]
        assert stage.training
        training = stage.training.model_copy(update={"evaluations": found})
        stages.append(stage.model_copy(update={"matrices": smaller, "training": training}))
    return run.model_copy(update={"stages": stages}).sealed()


def test_compute_is_that_of_the_multiply_adds_and_passes() -> None:
    [panel] = make_panels([transferred("sam"), transferred("sam", 1)])
    [line] = panel.lines
    found = [[(one.compute, one.score) for one in reached(point)] for point in line.points]
    assert found[0] == [(2.0, 70.5), (4.0, 85.5), (6.0, 88.5)]  # two passes per step; means over two seeds
    assert found[1] == [(1.0, 78.5), (2.0, 80.5), (3.0, 81.5)]
    assert [x for x, _ in found[2]] == [0.5, 1.0, 1.5]


def test_the_frontier_is_what_no_size_beats_with_less() -> None:
    [panel] = make_panels([transferred()])
    best = [(one.size, one.epoch, one.compute) for one in on_frontier(panel)]
    assert best == [(0.75, 1, 0.25), (0.5, 1, 0.5), (0.5, 2, 1.0), (0.5, 3, 1.5), (0.0, 2, 2.0), (0.0, 3, 3.0)]
    [table] = TransferFrontier().tables(panel)
    assert table.rows[0] == {"Compute": "0.25", "Model": "75 % fewer heads and units", "Epoch": "1", "Score": "50.0"}
    assert table.rows[-1]["Model"] == "whole model"


def test_there_is_a_line_per_size_and_one_for_the_frontier() -> None:
    [panel] = make_panels([transferred()])
    [plot] = TransferFrontier().plots(panel, Palette(["adamw"]))
    [marks] = plot.frames
    assert [mark.label.rpartition(", ")[2] for mark in marks] == [
        "frontier",
        "whole model",
        "50 % fewer heads and units",
        "75 % fewer heads and units",
    ]
    assert len({mark.dash for mark in marks[1:]}) == 3


def test_other_protocols_show_none_of_it(tmp_path: Path) -> None:
    [panel] = make_panels([make_record()])
    assert not TransferFrontier().plots(panel, Palette([]))
    assert not TransferFrontier().tables(panel)


@pytest.mark.long
def test_it_is_on_the_page_and_among_the_files(tmp_path: Path) -> None:
    write_report([transferred()], tmp_path)
    assert "Score against training compute" in (tmp_path / "report.html").read_text()
    assert list(tmp_path.rglob("transfer-*"))
