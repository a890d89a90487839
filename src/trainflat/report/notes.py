"""Writes the caveats that a reader must know before comparing numbers."""

from collections import defaultdict
from collections.abc import Sequence

from trainflat.records.run import Record
from trainflat.report.differences import differing
from trainflat.report.panels import Line, Panel, main_score

MARK = "†"  # at scores that may stand for nothing learned
PARTIAL = "partial data: not comparable with published figures"


def notes(panels: Sequence[Panel]) -> list[str]:
    """Returns one sentence per caveat that applies to some of the panels."""
    other_rows = [panel for panel in panels if _differ(_rows_seen(panel, "train"))]
    return [
        *_about(PARTIAL, [panel for panel in panels if panel.partial]),
        *_about(
            "lines that stand on one seed have no spread; a small difference from them means nothing", _single(panels)
        ),
        *_about("runs of one seed were scored on different rows, so that their scores do not compare", _mixed(panels)),
        *_about("runs of one seed were trained on different rows", other_rows),
        *remarks(panels),
        *_taught(panels),
        *dict.fromkeys(f"{p.task_title}: {note}" for p in panels for r in p.records for note in r.task.notes),
        *_about("some stages have no main score; they are left out of the figure", _unscored(panels)),
    ]


def remarks(panels: Sequence[Panel]) -> list[str]:
    """Warns of scores that a constant answer reaches, and of lines that differ in more than the method."""
    said = [sentence for panel in panels for line in panel.lines for sentence in _blind(panel, line)]
    return said + [f"{panel.task_title}: {found}." for panel in panels if (found := differing(panel))]


def _blind(panel: Panel, line: Line) -> list[str]:
    """Returns a sentence per remark on a line, with the sparsities that it holds for."""
    where: defaultdict[str, list[str]] = defaultdict(list)
    for point in line.points:
        for remark in point.remarks:
            where[remark].append(point.title)
    return [f"{MARK} {panel.task_title}, {line.label} at {', '.join(at)}: {remark}." for remark, at in where.items()]


def _about(caveat: str, panels: Sequence[Panel]) -> list[str]:
    names = dict.fromkeys(panel.task_title for panel in panels)
    return [f"{', '.join(names)}: {caveat}."] if names else []


def _taught(panels: Sequence[Panel]) -> list[str]:
    """Names teachers and their scores: a student's score says little without its teacher's."""
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
    return [panel for panel in panels if _differ(_rows_seen(panel, panel.split))]


def _differ(hashes: dict[int, set[str]]) -> bool:
    return any(len(found) > 1 for found in hashes.values())


def _rows_seen(panel: Panel, split: str) -> dict[int, set[str]]:
    hashes: defaultdict[int, set[str]] = defaultdict(set)
    for record in panel.records:
        if split in record.data:
            hashes[record.seed].add(record.data[split].sha256)
    return hashes


def _unscored(panels: Sequence[Panel]) -> list[Panel]:
    return [panel for panel in panels if any(main_score(r, stage) is None for r in panel.records for stage in r.stages)]
