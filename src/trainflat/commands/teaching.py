"""The teacher of a run: found, checked and scored before the student learns anything."""

import torch

from trainflat.evaluation import main_score, predictions_of
from trainflat.models import Encoder, model_info
from trainflat.protocols import Bench
from trainflat.recipe import Recipe
from trainflat.records import run as record
from trainflat.tasks.base import Head
from trainflat.training.teachers import check_weight, load_teacher


def find_teacher(recipe: Recipe, head: Head, student: Encoder) -> Encoder | None:
    """The teacher that a recipe asks for, where it asks for one.

    Raises:
        InputError: it is none for this student and task, or its weight is not.
    """
    section = recipe.training.distillation
    if section is None:
        return None
    check_weight(section["weight"], head)
    teacher = load_teacher(section["teacher"], head, student, recipe.training.max_length)
    teacher.model.eval().to("cuda" if torch.cuda.is_available() else "cpu")
    return teacher


def enlist(teacher: Encoder, bench: Bench) -> record.TeacherInfo:
    """Makes it the teacher of all trainings, after it was scored on the rows as the student reads them.

    Returns:
        What the record says of it.
    """
    bench.teacher, progress = teacher.model, bench.progress
    if teacher.note:
        progress.say(f"note: {teacher.note}")
    scores, found = {}, {}
    for name, split in bench.evaluation.items():
        progress.begin(f"scoring the teacher on {name}", len(split))
        found[name] = predictions_of(
            teacher.model, split, bench.encoder.tokenizer, progress=lambda done, _: progress.advance(done)
        )
        scores[name] = bench.task.score(split, found[name])
        progress.end()
    main = scores[bench.task.split][bench.task.metric]
    _, answers = main_score(bench.task, bench.evaluation[bench.task.split], found[bench.task.split])
    remark = f" ({answers.remark()})" if answers and answers.remark() else ""
    progress.say(f"teacher {teacher.name}: {bench.task.score_name} {main:z.1f} on {bench.task.split}{remark}")
    return record.TeacherInfo(**model_info(teacher).model_dump(), scores=scores)
