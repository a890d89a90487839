"""What lines and panels are called: enough to tell what was run, whoever's files it was, and no more."""

from typing import Any

import pytest

from tests.support.records import make_record
from trainflat.optim import OPTIMIZERS, FlatOptimizer
from trainflat.records.run import Fingerprint, Record, TaskInfo
from trainflat.report import score_rows, summary_table
from trainflat.report.notes import notes
from trainflat.report.options import BASES, completed, own_options
from trainflat.report.panels import make_panels

ADAMW = {"name": "adamw", "lr": 2e-5}
SAM = {"name": "sam", "base": "adamw", "lr": 2e-5}


def labels(*optimizers: dict[str, Any], **options: Any) -> list[str]:
    records = [make_record(optimizer=optimizer, **options) for optimizer in optimizers]
    return [line.label for panel in make_panels(records) for line in panel.lines]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_defaults_are_those_of_the_optimizers(name: str):
    whole = OPTIMIZERS.read(name).dump()
    del whole["lr"]
    flat = issubclass(OPTIMIZERS[name], FlatOptimizer)
    assert whole == own_options(name) | ({"base": "adamw"} | BASES["adamw"] if flat else BASES[name])
    assert completed({"name": name}) == completed({"name": name} | whole)


def test_a_single_line_tells_what_is_not_the_default():
    assert labels(SAM) == labels(SAM | {"rho": 0.05, "every": 1}) == ["sam"]
    assert labels(SAM | {"rho": 0.01}) == ["sam (rho 0.01)"]
    assert labels(SAM | {"rho": 0.05, "every": 5}) == ["sam (every 5)"]
    assert labels(SAM | {"every": 5, "rho": 0.01}) == ["sam (rho 0.01, every 5)"]
    assert labels(SAM | {"base": "sgd", "momentum": 0.9}) == ["sam (base sgd)"]
    assert labels(ADAMW | {"weight_decay": 0.1}) == ["adamw"]


def test_what_one_panel_tells_the_others_tell_too():
    records = [make_record(optimizer=SAM), make_record("cola", optimizer=SAM | {"rho": 0.02}), make_record("rte")]
    assert [line.label for panel in make_panels(records) for line in panel.lines] == [
        "sam (rho 0.02)",
        "adamw",
        "sam (rho 0.05)",
    ]


@pytest.mark.parametrize("name", ["adam", "adamw", "sam", "l1", "esam"])
def test_a_record_that_leaves_defaults_out_is_on_the_line_of_one_that_has_them(name: str):
    bare = {"name": name, "lr": 1e-4}
    whole = OPTIMIZERS.read(bare).section()
    rows = score_rows([make_record(optimizer=bare, seed=0), make_record(optimizer=whole, seed=1)])
    assert {(row["optimizer"], row["seeds"]) for row in rows} == {(name, 2)}


def test_a_sparsity_of_the_optimizer_is_not_how_far_a_run_went():
    assert labels(*({"name": "fisher-ssam", "lr": 1e-5, "sparsity": s} for s in (0.5, 0.9))) == [
        "fisher-ssam (sparsity 0.5)",
        "fisher-ssam (sparsity 0.9)",
    ]


def own_files(sha: str, seed: int = 0, split: str = "validation") -> Record:
    data = {
        "train": Fingerprint(rows=100, sha256=f"{seed}{sha}", source="file:train.csv"),
        split: Fingerprint(rows=50, sha256=sha, source="file:test.csv"),
    }
    info = TaskInfo(name="files", kind="classification", split=split, metric="accuracy", labels=["a", "b"])
    return make_record("files", seed=seed).model_copy(update={"data": data, "task": info}).sealed()


def test_files_of_one_name_and_other_rows_are_other_data_sets():
    records = [own_files("1f", seed) for seed in (0, 1)] + [own_files("2e", 0)]
    panels = make_panels(records)
    assert sorted(len(panel.records) for panel in panels) == [1, 2]
    titles = [panel.title for panel in panels]
    assert len(set(titles)) == 2
    assert all(title.startswith("files (test.csv, ") for title in titles)
    assert {row["data"] for row in score_rows(records)} == {panel.data for panel in panels}
    assert {row["Task"] for row in summary_table(records)} == {panel.task_title for panel in panels}
    assert not any("scored on different rows" in note for note in notes(panels))


def test_rows_that_each_seed_holds_out_are_one_data_set():
    seeds = [own_files(f"{seed}a", seed, "holdout") for seed in range(3)]
    other = own_files("7b", 0, "holdout").model_copy(
        update={"task": seeds[0].task.model_copy(update={"labels": ["no", "yes"]})}
    )
    assert sorted(len(panel.records) for panel in make_panels([*seeds, other])) == [1, 3]


def test_official_tasks_need_no_name_of_a_file():
    (panel,) = make_panels([make_record()])
    assert (panel.data, panel.task_title) == ("", "STS-B")


def test_f1_names_its_class_and_rows_their_notes():
    def record(positive: str, *remarks: str) -> Record:
        task = {"name": "squad", "kind": "classification", "split": "validation", "metric": "f1"}
        made = make_record("squad")
        return made.model_copy(update={"task": TaskInfo(**task, positive=positive, notes=list(remarks))})

    records = [record("fake", "18 of the 20 rows are trained on."), record("real"), record("")]
    panels = make_panels(records)
    named = {panel.scored_on.partition(" on ")[0] for panel in panels}
    assert named == {"F1 of fake (%)", "F1 of real (%)", "F1 (%)"}
    assert "SQuAD: 18 of the 20 rows are trained on." in notes(panels)
    first, again = (record("fake", *remarks) for remarks in ((), ("Another remark.",)))
    assert first.expected_digest() == again.expected_digest() != records[1].expected_digest()
