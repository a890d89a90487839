"""Scores the teacher of a run before the student learns anything."""

from trainflat.evaluation import main_score, predictions_of
from trainflat.models import Encoder, model_info
from trainflat.protocols import Workspace
from trainflat.records import run as record


def score_teacher(teacher: Encoder, workspace: Workspace) -> record.TeacherInfo:
    """Scores a teacher on the rows as the student reads them; returns what the record says of it."""
    progress = workspace.progress
    if teacher.note:
        progress.say(f"note: {teacher.note}")
    scores, found = {}, {}
    for name, split in workspace.evaluation.items():
        progress.begin(f"scoring the teacher on {name}", len(split))
        found[name] = predictions_of(
            teacher.model, split, workspace.tokenizer, progress=lambda done, _: progress.advance(done)
        )
        scores[name] = workspace.task.score(split, found[name])
        progress.end()
    main = scores[workspace.task.split][workspace.task.metric]
    _, answers = main_score(workspace.task, workspace.evaluation[workspace.task.split], found[workspace.task.split])
    remark = f" ({answers.remark()})" if answers and answers.remark() else ""
    progress.say(f"teacher {teacher.name}: {workspace.task.score_name} {main:z.1f} on {workspace.task.split}{remark}")
    return record.TeacherInfo(**model_info(teacher).model_dump(), scores=scores)
