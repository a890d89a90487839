"""int8 in a report, the paper's third experiment beside it where model, task, split and metric are its own."""

from typing import Any

import pytest

from tests.support.pages import figures_of, markdown
from tests.support.records import make_record
from trainflat.records.run import Int8, Record, TaskInfo
from trainflat.report.elements import Line, Plot
from trainflat.report.panels import make_panels
from trainflat.report.sections.int8 import Int8Scores, int8_table, metric
from trainflat.report.tables import score_rows

SAM = {"name": "sam", "base": "adamw", "lr": 2e-5}


def rounded(costs: dict[float, float], *, how: str = "batch", scores: dict[str, float] | None = None, **options: Any):
    """A run that loses so many points in int8, by sparsity; stages that are not named were not rounded."""
    record = make_record(**options)
    stages = []
    for stage in record.stages:
        before = {split: found | (scores or {}) for split, found in stage.scores.items()}
        cost = costs.get(stage.target_sparsity)
        after = {split: {k: v - (cost or 0) for k, v in found.items()} for split, found in before.items()}
        int8 = Int8(activations=how, embeddings=False, head=True, scores=after, bytes=181_200_000)
        stages.append(stage.model_copy(update={"scores": before, "int8": None if cost is None else int8}))
    return record.model_copy(update={"stages": stages}).sealed()


def table(*records: Record) -> list[list[str]]:
    (panel,) = make_panels(records)
    return [list(row.values()) for row in int8_table(panel)]


def test_the_papers_third_experiment_stands_below_ours():
    runs = [rounded({0.0: 1.0, 0.5: 2.0}, seed=0), rounded({0.0: 2.0}, seed=1), rounded({0.0: 0.5}, optimizer=SAM)]
    before = [[run.stages[k].scores["validation"]["pearson"] for run in runs] for k in (0, 3)]
    mean = (before[0][0] + before[0][1]) / 2
    std = abs(before[0][0] - before[0][1]) / 2**0.5
    after = (before[0][0] - 1, before[0][1] - 2)
    both = f"{sum(after) / 2:.1f} ± {abs(after[0] - after[1]) / 2**0.5:.1f}"
    way = "per batch, head too"
    assert table(*runs) == [
        ["adamw", "2", "0 %", way, f"{mean:.1f} ± {std:.1f}", both, "1.50 ± 0.71", "181.2"],
        ["adamw", "1", "50 %", way, f"{before[1][0]:.1f}", f"{before[1][0] - 2:.1f}", "2.00", "181.2"],
        ["sam", "1", "0 %", way, f"{before[0][2]:.1f}", f"{before[0][2] - 0.5:.1f}", "0.50", "181.2"],
        ["Na et al. 2022, Adam", "published", "0 %", "per batch in 7 bits", "89.1 ± 0.1", "86.5 ± 1.1", "2.52", "–"],
        ["Na et al. 2022, SAM", "published", "0 %", "per batch in 7 bits", "89.4 ± 0.1", "87.2 ± 0.8", "2.23", "–"],
        ["Zafrir et al. 2019, Q8BERT", "published", "0 %", "by trained ranges", "–", "89.0", "–", "–"],
    ]


def test_float32_is_of_the_runs_that_were_rounded():
    """A seed without int8 would make the difference of the two columns another one than what is lost."""
    plain = make_record(seed=1)
    (row,) = [row for row in table(rounded({0.0: 1.0}), plain) if row[1] != "published"]
    assert row[1] == "1" and "±" not in row[4]


def test_ways_to_round_are_rows_of_their_own():
    rows = table(rounded({0.0: 1.0}, how="token"), rounded({0.0: 3.0}, how="batch", seed=0))
    assert [row[3:7:3] for row in rows[:2]] == [["per batch, head too", "3.00"], ["per token, head too", "1.00"]]
    (figure,) = figures_of(Int8Scores(), [rounded({0.0: 1.0}, how="token"), rounded({0.0: 3.0}, how="batch")])
    assert [each.title.partition(",")[0] for each in figure.plots] == [
        "float32",
        *["int8"] * 2,
        *["lost by int8"] * 2,
    ]
    row = score_rows([rounded({0.0: 1.0}, how="token"), rounded({0.0: 3.0})])[0]
    assert row["int8_token_head_score_mean"] == row["int8_batch_head_score_mean"] + 2


@pytest.mark.parametrize(
    "options",
    [
        {"model": "minilm"},
        {"layers": 3},
        {"partial": True},
        {"task": "stdlib-docs"},
        {"protocol": {"name": "ticket"}},
        {"task": TaskInfo(name="stsb", kind="regression", split="holdout", metric="pearson")},
    ],
)
def test_nothing_is_compared_that_differs(options: dict[str, Any]):
    changes = {"task": options.pop("task")} if isinstance(options.get("task"), TaskInfo) else {}
    record = rounded({0.0: 1.0}, **options)
    if changes:
        stages = [s.model_copy(update={"scores": {"holdout": s.scores["validation"]}}) for s in record.stages]
        record = record.model_copy(update={**changes, "stages": stages}).sealed()
    assert [row for row in table(record) if row[1] == "published"] == []


def test_f1_of_the_paper_is_set_beside_our_f1():
    """Our main score of MRPC and QQP is accuracy; their table has F1."""
    record = rounded({0.0: 1.0}, task="mrpc", scores={"f1": 90.0})
    (panel,) = make_panels([record])
    assert (panel.metric, metric(panel)) == ("accuracy", "f1")
    assert list(int8_table(panel)[0])[4:6] == ["float32, F1 (%)", "int8, F1 (%)"]
    assert [row[4:6] for row in table(record)] == [
        ["90.0", "89.0"],
        ["89.6 ± 1.1", "86.8 ± 1.7"],
        ["91.2 ± 0.2", "89.4 ± 0.8"],
        ["–", "89.6"],
    ]
    without = rounded({0.0: 1.0}, task="mrpc")  # no F1 was measured: nothing to compare with
    assert len(table(without)) == 1


def test_nothing_is_said_of_int8_where_there_is_none():
    (panel,) = make_panels([make_record()])
    assert int8_table(panel) == figures_of(Int8Scores(), [make_record()]) == []
    assert "int8" not in markdown(make_record())


@pytest.mark.parametrize(
    ("ways", "compares"), [(["torch"], True), (["batch"], False), (["token"], False), (["torch", "batch"], False)]
)
def test_a_finer_arithmetic_than_the_published_one_is_told_and_not_drawn_beside_it(ways: list[str], compares: bool):
    """Also of records from before there was the published one."""
    records = [rounded({0.0: 1.0}, how=way, seed=k) for k, way in enumerate(ways)]
    text = markdown(*records)
    assert "one step per weight matrix, inputs per batch in 7 bits" in text
    assert ("finer arithmetic than the published" in text) is not compares
    (figure,) = figures_of(Int8Scores(), records)
    beside = {plot.title: published_labels(plot) for plot in figure.plots}
    for way, drawn in {"per batch in 7 bits": PAPERS, "per batch": [], "per token": []}.items():
        assert beside.get(f"int8, inputs {way}, head too", drawn) == drawn


PAPERS = ["Na et al. 2022, Adam", "Na et al. 2022, SAM"]


def published_labels(plot: Plot) -> list[str]:
    return [mark.label for mark in plot.frames[0] if isinstance(mark, Line) and mark.hover.startswith("published")]


def test_plots_of_scores_share_one_scale_that_holds_all():
    record = rounded({0.0: 1.0, 0.9: 30.0}, how="torch")
    ((plain, small, gap),) = [figure.plots for figure in figures_of(Int8Scores(), [record])]
    assert plain.y == small.y and gap.y.low is None
    values = [y for plot in (plain, small) for mark in plot.frames[0] if isinstance(mark, Line) for y in mark.y]
    assert len(values) == 2 * (2 + 2 * 2)  # two stages of ours, and two bars
    assert plain.y.low is not None and plain.y.high is not None
    assert all(plain.y.low < y < plain.y.high for y in values if y is not None)
    assert published_labels(small) == published_labels(plain) == PAPERS
