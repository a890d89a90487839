"""Tables say what the records say: means and spreads by hand, one row per stage, nothing averaged that differs."""

import csv
import io
from statistics import stdev

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.pages import markdown
from tests.support.records import SPARSITIES, make_record, make_records
from trainflat.records.run import Record, Timing
from trainflat.report import score_rows, summary_table
from trainflat.report.notes import notes
from trainflat.report.panels import make_panels
from trainflat.report.sections.costs import cost_table
from trainflat.report.sections.scores import PLAIN, score_table
from trainflat.report.tables import to_csv

RECORDS = make_records()
SAM = {"name": "sam", "base": "adamw", "lr": 2e-5}


def scored(value: float, seed: int = 0, **options) -> Record:
    """A run of one dense stage with a given score."""
    record = make_record(seed=seed, sparsities=(0.0,), **options)
    stage = record.stages[0].model_copy(update={"scores": {"validation": {"pearson": value}}})
    return record.model_copy(update={"stages": [stage]}).sealed()


def labels(records) -> list[str]:
    return [line.label for panel in make_panels(records) for line in panel.lines]


def test_mean_and_standard_deviation_over_seeds_by_hand():
    (row,) = score_rows([scored(80.0, 0), scored(82.0, 1), scored(87.0, 2)])
    assert (row["score_mean"], row["seeds"]) == (83.0, 3)
    assert row["score_std"] == pytest.approx(13**0.5)  # (9 + 1 + 16) / (3 - 1)


def test_one_seed_has_no_spread():
    (row,) = score_rows([scored(80.0)])
    assert (row["score_mean"], row["score_std"], row["seeds"]) == (80.0, None, 1)
    assert score_table(make_panels([scored(80.0)])[0])[0]["0 %"] == "80.0"


def test_a_seed_that_ran_twice_counts_once():
    twice = [scored(80.0, 0), scored(84.0, 0), scored(90.0, 1)]
    (row,) = score_rows(twice)
    assert (row["score_mean"], row["seeds"]) == (86.0, 2)
    assert row["score_std"] == pytest.approx(stdev([82.0, 90.0]))


def test_one_row_per_setting_and_sparsity():
    rows = score_rows(RECORDS)
    keys = [(row["task"], row["model"], row["optimizer"], row["target_sparsity"]) for row in rows]
    assert len(keys) == len(set(keys)) == 2 * 2 * len(SPARSITIES)
    assert {row["seeds"] for row in rows} == {3}


def test_sizes_and_costs_are_those_of_the_stage():
    record = make_record(optimizer=SAM)
    rows = score_rows([record])
    for row, stage in zip(rows, record.stages, strict=True):
        sizes = stage.sizes
        assert (row["dense_bytes"], row["bitmask_bytes"], row["packed_bytes"]) == (
            sizes.dense_bytes,
            sizes.bitmask_bytes,
            sizes.packed_bytes,
        )
        assert (row["encoder_sparsity"], row["total_sparsity"]) == (sizes.encoder_sparsity, sizes.total_sparsity)
        assert (row["passes"], row["train_seconds"]) == (1080, 433.0)
        assert row["latency_ms_32x128_cpu_2_threads"] == pytest.approx(1000 * stage.timing.latency[1].median)


def test_stages_without_training_have_no_cost_of_training():
    rows = score_rows([make_record(protocol={"name": "one-shot", "sparsities": list(SPARSITIES[1:])})])
    assert [row["passes"] for row in rows] == [540] + [None] * (len(SPARSITIES) - 1)
    assert [row["train_seconds"] for row in rows][1:] == [None] * (len(SPARSITIES) - 1)


def test_latency_of_other_threads_is_another_measurement():
    one, other = make_record(seed=0, sparsities=(0.0,)), make_record(seed=1, sparsities=(0.0,))
    latency = [each.model_copy(update={"threads": 8}) for each in other.stages[0].timing.latency]
    stage = other.stages[0].model_copy(update={"timing": Timing(latency=latency)})
    (row,) = score_rows([one, other.model_copy(update={"stages": [stage]})])
    assert [name for name in row if "latency" in name and "32x" in name] == [
        "latency_ms_32x128_cpu_2_threads",
        "latency_ms_32x128_cpu_8_threads",
    ]


def test_seeds_that_went_differently_far_are_counted_where_they_are():
    far = [make_record(seed=0), make_record(seed=1, sparsities=SPARSITIES[:4])]
    assert [row["seeds"] for row in score_rows(far)] == [2, 2, 2, 2, 1, 1]


def test_missing_latency_is_missing():
    assert not [name for row in score_rows([make_record(latency=False)]) for name in row if "latency" in name]
    both = cost_table(make_panels([make_record(), make_record(optimizer=SAM, latency=False)])[0])
    assert "ms, 1 × 128 tokens, cpu, 2 threads" in both[0]


def test_a_line_is_named_by_its_optimizer_while_that_is_enough():
    assert labels(RECORDS) == ["adamw", "sam", "adamw", "sam"]


def test_lines_that_would_collide_tell_their_radius():
    records = [make_record(optimizer=SAM | {"rho": rho}, seed=seed) for rho in (0.05, 0.01, 0.005) for seed in (0, 1)]
    assert labels(records) == ["sam (rho 0.005)", "sam (rho 0.01)", "sam (rho 0.05)"]
    both = [make_record(optimizer=SAM | {"rho": rho, "lr": rho / 1000}) for rho in (0.05, 0.01)]
    assert labels(both) == ["sam (rho 0.01)", "sam (rho 0.05)"]  # the radius tells more than what goes with it


def test_other_settings_tell_lines_apart_where_the_optimizer_does_not():
    record = make_record()
    longer = record.recipe | {"training": record.recipe["training"] | {"epochs": 10}}
    assert labels([record, record.model_copy(update={"recipe": longer})]) == ["adamw (epochs 3)", "adamw (epochs 10)"]


def test_names_and_what_is_measured_do_not_split_a_line():
    record = make_record(seed=0)
    other = make_record(seed=1)
    other = other.model_copy(update={"recipe": other.recipe | {"name": "again", "evaluation": {"latency": {}}}})
    assert labels([record, other]) == ["adamw"]


def test_rounds_on_another_path_are_another_line():
    fine = make_record(seed=0, sparsities=(0.0, 0.1, 0.2, 0.3))
    coarse = make_record(seed=1, sparsities=(0.0, 0.3))
    assert [row["seeds"] for row in score_rows([fine, coarse])] == [1] * 6
    shot = {"name": "one-shot"}
    shots = [make_record(seed=k, sparsities=s, protocol=shot) for k, s in enumerate([(0.0, 0.1, 0.3), (0.0, 0.3)])]
    assert [row["seeds"] for row in score_rows(shots)] == [2, 1, 2]


def test_what_does_not_compare_stands_in_panels_of_its_own():
    records = [
        make_record(),
        make_record(layers=6),
        make_record(model="minilm"),
        make_record(task="cola"),
        make_record(partial=True),
        make_record(protocol={"name": "iterative", "rewind": "none"}),
        make_record(protocol={"name": "iterative", "rewind": 40}),
        make_record(protocol={"name": "one-shot"}),
    ]
    panels = make_panels(records)
    assert len(panels) == len(records)
    assert {panel.protocol for panel in panels} == {
        "iterative, rewound to the start",
        "iterative, not rewound",
        "iterative, rewound to step 40",
        "one-shot",
    }


def test_notes_name_partial_data_single_seeds_and_other_rows():
    (partial, single) = notes(make_panels([make_record(partial=True)]))
    assert partial == "STS-B: partial data: not comparable with published figures."
    assert single.startswith("STS-B: lines that stand on one seed")
    data = {k: f.model_copy(update={"sha256": "0" * 64}) for k, f in make_record().data.items()}
    mixed = notes(make_panels([make_record(), make_record(optimizer=SAM, data=data)]))
    assert any("scored on different rows" in note for note in mixed)
    assert notes(make_panels(RECORDS)) == []


def test_a_stage_without_its_main_score_is_left_out_and_noted():
    record = make_record(sparsities=(0.0, 0.5))
    stages = [record.stages[0], record.stages[1].model_copy(update={"scores": {}})]
    panels = make_panels([record.model_copy(update={"stages": stages})])
    assert score_table(panels[0])[0] == {"Optimizer": "adamw", "Seeds": "1", "0 %": "87.6", "50 %": "–"}
    assert any("no main score" in note for note in notes(panels))


def test_csv_reads_back_as_the_rows():
    rows = score_rows(RECORDS)
    back = list(csv.DictReader(io.StringIO(to_csv(rows))))
    assert [float(row["score_mean"]) for row in back] == [row["score_mean"] for row in rows]
    assert [row["task"] for row in back] == [row["task"] for row in rows]


def test_markdown_shows_names_and_never_obeys_them():
    text = markdown(make_record(model="a|b<script>`[x](y)\n# no"))
    title = next(line for line in text.splitlines() if line.startswith("## "))
    assert title == "## STS-B · a\\|b&lt;script&gt;\\`\\[x](y) # no, 12 layers · iterative, rewound to the start"
    assert "\n# no" not in text


def test_markdown_says_that_zeros_alone_are_not_fast():
    assert PLAIN in markdown(*RECORDS)
    assert PLAIN.startswith("Unstructured zeros alone do not speed up dense kernels")


def test_terminal_summary_has_few_columns_with_both_ends():
    far = [make_record(sparsities=[k / 10 for k in range(10)])]
    (row,) = summary_table(far, columns=4)
    assert [name for name in row if "%" in name] == ["0 %", "30 %", "60 %", "90 %"]
    assert row["Task"] == "STS-B"
    assert row["Optimizer"] == "adamw"


def test_published_figures_stand_under_the_runs_they_compare_with():
    table = score_table(make_panels([record for record in RECORDS if record.task.name == "stsb"])[0])
    assert table[-1] == {
        "Optimizer": "Na et al. 2022, SAM",
        "Seeds": "published",
        **dict.fromkeys(["10 %", "30 %", "70 %", "90 %"], "–"),
        "0 %": "89.4 ± 0.2",
        "50 %": "88.9 ± 0.2",
    }


@settings(max_examples=20, deadline=None)
@given(st.permutations(RECORDS[:7]))
def test_the_order_of_the_records_does_not_matter(records):
    assert to_csv(score_rows(records)) == to_csv(score_rows(RECORDS[:7]))


FORMULAS = ["=HYPERLINK(0)", "+1+1", "-2+3", "@SUM(1)", "\t=1", "\r=1", " =1", "＝1", "-"]
PLAIN_TEXTS = ["-0.25", "+1e5", "1", "a=b", "x-y", "–", ""]


@pytest.mark.parametrize("text", [*FORMULAS, *PLAIN_TEXTS])
def test_no_text_is_a_formula_and_numbers_stay_numbers(text):
    back = list(
        csv.reader(io.StringIO(to_csv([{"name": text, text or "x": -0.25, "n": -3, "none": None}]), newline=""))
    )
    assert back[1][0] == ("'" + text if text in FORMULAS else text).replace("\r", "\n")
    assert back[1][1:] == ["-0.25", "-3", ""]
    assert back[0][1].startswith("'") == (text in FORMULAS)


@pytest.mark.parametrize("text", FORMULAS)
def test_names_of_runs_are_no_formulas_in_any_table(text):
    record = make_record(text, text, optimizer={"name": text}, sparsities=(0.0,))
    cells = [cell for row in csv.reader(io.StringIO(to_csv(score_rows([record])), newline="")) for cell in row]
    assert "'" + text.replace("\r", "\n") in cells and text not in cells
    shown = markdown(record)
    assert "| --- |" in shown
    rows = [line.split(" | ") for line in shown.splitlines() if line.startswith("| ")]
    assert not [cell for row in rows for cell in row if cell.strip("| ")[:1] in tuple("=+@") and cell.strip("| ")]


def test_a_backslash_opens_no_column_and_stars_no_markup():
    record = make_record(optimizer={"name": "a\\|b *c*"}, sparsities=(0.0,))
    assert "| a\\\\\\|b \\*c\\* |" in markdown(record)
