"""What a reader must know before comparing numbers."""

from collections import defaultdict
from collections.abc import Sequence

from trainflat.record import Record
from trainflat.report.panels import Panel, main_score

PARTIAL = "partial data: not comparable with published figures"


def notes(panels: Sequence[Panel]) -> list[str]:
    """One sentence per caveat that applies to some of the panels."""
    return [
        *_about("{1}: {0}.", PARTIAL, [panel for panel in panels if panel.partial]),
        *_about(
            "{1}: {0}.",
            "lines that stand on one seed have no spread; a small difference from them means nothing",
            _single(panels),
        ),
        *_about(
            "{1}: {0}.",
            "runs of one seed were scored on different rows, so that their scores do not compare",
            _mixed(panels),
        ),
        *_taught(panels),
        *dict.fromkeys(f"{p.task_title}: {note}" for p in panels for r in p.records for note in r.task.notes),
        *_about("{1}: {0}.", "some stages have no main score; they are left out of the figure", _unscored(panels)),
    ]


def _about(sentence: str, caveat: str, panels: Sequence[Panel]) -> list[str]:
    names = list(dict.fromkeys(panel.task_title for panel in panels))
    return [sentence.format(caveat, ", ".join(names))] if names else []


def _taught(panels: Sequence[Panel]) -> list[str]:
    """Teachers and their scores: a student's score says little without its teacher's."""
    found: defaultdict[tuple[str, str, str], set[float]] = defaultdict(set)
    for panel in panels:
        for record, teacher in ((r, r.teacher) for r in panel.records if r.teacher is not None):
            score = teacher.scores.get(panel.split, {}).get(panel.metric)
            found[panel.task_title, teacher.name, _until(record)] |= set() if score is None else {score}
    return [
        f"{task}: some students learned from {name}"
        + (f", which scored {' and '.join(f'{s:.1f}' for s in sorted(scores))}" if scores else "")
        + f"{until}."
        for (task, name, until), scores in found.items()
    ]


def _until(record: Record) -> str:
    renewed = any(stage.training and stage.training.teacher_steps for stage in record.stages)
    return ", and then from the best model that they had been themselves" if renewed else ""


def _single(panels: Sequence[Panel]) -> list[Panel]:
    return [panel for panel in panels if any(len({r.seed for r in line.records}) == 1 for line in panel.lines)]


def _mixed(panels: Sequence[Panel]) -> list[Panel]:
    return [panel for panel in panels if any(len(hashes) > 1 for hashes in _scored_rows(panel).values())]


def _scored_rows(panel: Panel) -> dict[int, set[str]]:
    hashes: defaultdict[int, set[str]] = defaultdict(set)
    for record in panel.records:
        if panel.split in record.data:
            hashes[record.seed].add(record.data[panel.split].sha256)
    return hashes


def _unscored(panels: Sequence[Panel]) -> list[Panel]:
    return [panel for panel in panels if any(main_score(r, stage) is None for r in panel.records for stage in r.stages)]
