"""Verdicts by their rules: the smallest that holds, at the sparsity where methods part, and nothing from one answer."""

import pytest

from tests.support.records import make_record
from trainflat.core.margins import Answers
from trainflat.records.run import ModelInfo, Record, TeacherInfo
from trainflat.report.elements import Line, Note, Rule
from trainflat.report.panels import Panel, make_panels
from trainflat.report.sections.base import Results
from trainflat.report.sections.tradeoff import Tradeoff
from trainflat.report.tables import to_summary
from trainflat.report.verdict import chosen, parting, verdict

SAM = {"name": "sam", "base": "adamw", "lr": 2e-5, "rho": 0.05}


def scored(scores: dict[float, float], **options: object) -> Record:
    """A run with these scores by sparsity."""
    record = make_record(sparsities=tuple(scores), **options)  # type: ignore[arg-type]
    stages = [
        stage.model_copy(update={"scores": {"validation": {"pearson": scores[stage.target_sparsity]}}})
        for stage in record.stages
    ]
    return record.model_copy(update={"stages": stages}).sealed()


def panel_of(*records: Record) -> Panel:
    (panel,) = make_panels(records)
    return panel


@pytest.mark.parametrize(
    ("scores", "sparsity"),
    [
        ({0.0: 80.0, 0.3: 81.0, 0.6: 79.1, 0.9: 40.0}, 0.6),  # within a point
        ({0.0: 80.0, 0.3: 78.9, 0.6: 78.0}, 0.0),
        ({0.0: 80.0, 0.3: 78.0, 0.6: 79.5}, 0.6),  # also past one that lost more
    ],
)
def test_the_smallest_within_a_point_is_shipped(scores: dict[float, float], sparsity: float):
    model = chosen(panel_of(scored(scores)))
    assert model is not None and model[1].target == sparsity


def test_a_standard_error_of_more_than_a_point_is_allowed_for():
    """Dense scores of 76, 80 and 84: the standard error is 4 / sqrt(3) = 2.3."""
    records = [scored({0.0: dense, 0.5: 78.0}, seed=seed) for seed, dense in enumerate((76.0, 80.0, 84.0))]
    model = chosen(panel_of(*records))
    assert model is not None and model[1].target == 0.5
    assert chosen(panel_of(records[1]))[1].target == 0.0  # type: ignore[index]


def test_of_two_methods_at_one_size_the_better_is_shipped():
    found = verdict(panel_of(scored({0.0: 80.0, 0.6: 79.5}), scored({0.0: 79.0, 0.6: 81.0}, optimizer=SAM)))
    assert found is not None and found.ship.startswith("Ship sam at 60 %: 81.0 (one seed), ")


def test_a_constant_answer_is_never_shipped():
    record = scored({0.0: 80.0, 0.6: 80.0})
    blind = Answers(rows=1500, constant=True, common="a", blind="a", baseline=80.0, low=0.0, high=0.0)
    stages = [record.stages[0], record.stages[1].model_copy(update={"answers": blind})]
    assert chosen(panel_of(record))[1].target == 0.6  # type: ignore[index]
    assert chosen(panel_of(record.model_copy(update={"stages": stages})))[1].target == 0.0  # type: ignore[index]


def test_what_nothing_dense_is_beside_is_measured_by_its_teacher():
    info = ModelInfo(name="t", architecture="B", layers=12, parameters=1, weights_sha256="ab").model_dump()
    teacher = TeacherInfo(**info, scores={"validation": {"pearson": 85.0}})
    record = scored({0.5: 84.5, 0.9: 80.0}).model_copy(update={"teacher": teacher})
    found = verdict(panel_of(record))
    assert found is not None and "at 50 %: 84.5" in found.ship and found.ship.endswith("teacher 85.0.")
    better = teacher.model_copy(update={"scores": {"validation": {"pearson": 99.0}}})
    worse = verdict(panel_of(record.model_copy(update={"teacher": better})))
    assert worse is not None and worse.ship.startswith("Ship none: nothing is within 1.0 of the teacher (99.0).")
    (plot,) = Tradeoff().plots(panel_of(record), Results.of([record]).palette)
    assert [mark for mark in plot.frames[0] if isinstance(mark, Rule)] == [Rule(85.0, "teacher 85.0", level=True)]


def test_methods_part_where_they_differ_most_and_still_stand():
    adamw, sam = {0.0: 80.0, 0.5: 75.0, 0.7: 60.0, 0.9: 0.0}, {0.0: 80.2, 0.5: 76.0, 0.7: 64.0, 0.9: 20.0}
    panel = panel_of(scored(adamw), scored(sam, optimizer=SAM))
    assert parting(panel) == 0.7  # at 90 % they differ by more, but both are dead
    assert parting(panel_of(scored(adamw))) == 0.7
    found = verdict(panel)
    assert found is not None
    (said,) = found.flat
    assert said.startswith("Flatness: sam − adamw at 70 %: +4.0 (") and said.endswith("twice the passes.")


def test_the_frontier_is_named():
    record = scored({0.0: 80.0, 0.3: 81.0, 0.6: 79.0})
    (plot,) = Tradeoff().plots(panel_of(record), Results.of([record]).palette)
    frontier = next(mark for mark in plot.frames[0] if isinstance(mark, Line))
    notes = [mark.text for mark in plot.frames[0] if isinstance(mark, Note)]
    assert (frontier.label, list(frontier.y)) == ("frontier", [81.0, 79.0])  # dense is larger than 30 %, and worse
    assert notes == ["adamw 30 %", "adamw 60 %"]


def test_a_summary_is_short_and_says_where_the_rest_is():
    text = to_summary(Results.of([scored({0.0: 80.0, 0.6: 79.5}), scored({0.0: 80.0, 0.6: 81.0}, optimizer=SAM)]))
    assert "- Ship sam at 60 %" in text and "- Flatness: " in text
    assert text.count("| --- ") and "`report.html`" in text
    assert len(text) < 2000
