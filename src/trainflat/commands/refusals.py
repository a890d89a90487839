"""What a run and its plan refuse in the same words, before anything is trained."""

from pathlib import Path

import torch
from torch import nn

from trainflat.anatomy.params import prunable
from trainflat.core.errors import InputError
from trainflat.core.formatting import plural
from trainflat.models import Encoder
from trainflat.optim import OPTIMIZERS, FlatOptimizer, make_optimizer
from trainflat.pruning.gates import GATES
from trainflat.quantization import layers_to_round
from trainflat.recipe import Recipe
from trainflat.reparametrization import check_alone
from trainflat.tasks.base import Head, Task
from trainflat.training.fit import training_arguments
from trainflat.training.passes import refuse_parts
from trainflat.training.teachers import check_weight, outline_teacher
from trainflat.training.trackers import check_installed


def check_machine(recipe: Recipe, task: Task, folder: Path) -> None:
    """This machine can train as the recipe says.

    Raises:
        InputError: precision, trackers, how the batch is cut over the processes, or what :func:`check_method` refuses.
    """
    training_arguments(recipe.training, task, folder, recipe.seed)
    check_installed(recipe.training.report_to)
    check_method(recipe, task)


def check_method(recipe: Recipe, task: Task) -> None:
    """The optimizer can do what it is for: with these labels, on these parts of a batch, in so many steps.

    Raises:
        InputError: it cannot, and would not until the first step, or in silence.
    """
    options = {key: value for key, value in recipe.training.optimizer.items() if key != "exclude"}
    optimizer = make_optimizer(options.pop("name"), [nn.Parameter(torch.zeros(1, 1))], **options)
    if not isinstance(optimizer, FlatOptimizer):
        return
    name, spans = recipe.training.optimizer["name"], task.head.kind == "spans"
    if optimizer.changes_labels and spans:
        raise InputError(
            f"training.optimizer {name} changes classes or numbers, and {task.name} has spans. Use another."
        )
    try:
        if recipe.training.perturb_over == "micro-batch":
            refuse_parts(optimizer)
        if not spans:  # of which there are some more steps, in several windows
            optimizer.check_length(recipe.training.steps(task.fingerprints["train"].rows))
    except InputError as error:
        raise InputError(f"training.optimizer {name}: {error}") from error


def check_encoder(recipe: Recipe, encoder: Encoder) -> None:
    """All that a recipe asks of its model can be had of this one, of which only names and shapes are looked at.

    Raises:
        InputError: names what cannot.
    """
    for check in (check_length, check_optimizer, check_measures, check_int8):
        check(recipe, encoder)


def check_optimizer(recipe: Recipe, encoder: Encoder) -> None:
    """The optimizer takes the encoder's parameters.

    Raises:
        InputError: it does not: a pattern that matches none, a class that is for matrices alone.
    """
    options = dict(recipe.training.optimizer)
    trained = [(name, p) for name, p in encoder.model.named_parameters() if p.requires_grad]
    outlines = [(name, nn.Parameter(torch.empty_like(p, device="meta"))) for name, p in trained]
    try:
        make_optimizer(options.pop("name"), outlines, **options)
    except InputError as error:
        move = "" if str(error).endswith(".") else ". Choose another optimizer, or another base."  # torch says none
        raise InputError(f"training.optimizer for model {recipe.model.name!r}: {error}{move}") from error


def check_gate(recipe: Recipe) -> None:
    """A gate goes with what is trained, and what it says about displacing meets an optimizer that displaces.

    Raises:
        InputError: it does not.
    """
    gate, name = recipe.protocol.options.get("gate", {}), recipe.training.optimizer["name"]
    if gate and GATES[gate["name"]].needs_weights and recipe.training.reparametrization is not None:
        check_alone(gate=gate["name"])
    member = OPTIMIZERS[name]
    displaces = issubclass(member, FlatOptimizer) and member.rho_only_displaces
    if gate.get("perturb") is not None and not displaces:
        raise InputError(
            f"protocol.gate.perturb {gate['perturb']} says what an optimizer like sam displaces, and {name} is not "
            "one. Leave it out, or set training.optimizer.name=sam."
        )


def check_length(recipe: Recipe, encoder: Encoder) -> None:
    """The model has a position for every token.

    Raises:
        InputError: it has fewer.
    """
    length, name = recipe.training.max_length, recipe.model.name
    if length > encoder.max_length:
        raise InputError(
            f"training.max_length {length} is more than the {plural(encoder.max_length, 'position')} of {name}. "
            f"Set {encoder.max_length} or less."
        )


def check_teacher(recipe: Recipe, head: Head, student: Encoder | None) -> bool:
    """There is such a teacher for the student and the task; its weights are not looked at.

    Returns:
        Whether it could be looked at; True where the recipe asks for none.

    Raises:
        InputError: there is none, or its weight is not for this task.
    """
    section = recipe.training.distillation
    if section is None:
        return True
    check_weight(section["weight"], head)
    return outline_teacher(section["teacher"], head, student, recipe.training.max_length)


def check_measures(recipe: Recipe, encoder: Encoder) -> None:
    """Every measure of flatness finds weights enough, also in the sparsest stage.

    Raises:
        InputError: one needs more.
    """
    options = recipe.evaluation.flatness
    if options is None:
        return
    weights = sum(p.numel() for p in encoder.model.parameters() if p.requires_grad)
    if options.surviving:
        sparsest = max(stage.sparsity for stage in recipe.protocol.build().plan())
        weights -= int(sparsest * sum(p.numel() for p in prunable(encoder.model).values()))
    for one in options.measures:
        one.build().fits(weights)


def check_int8(recipe: Recipe, encoder: Encoder) -> None:
    """The model has layers that an int8 copy, or training for one, could round.

    Raises:
        InputError: it has none.
    """
    after, along = recipe.evaluation.int8, recipe.training.quantization
    asked = {} if after is None else {"evaluation.int8": after.model_dump()}
    asked |= {} if along is None else {"training.quantization": along}
    for place, options in asked.items():
        try:
            layers_to_round(encoder.model, embeddings=options["embeddings"], head=options["head"])
        except InputError as error:
            raise InputError(f"{place} for model {recipe.model.name!r}: {error}") from error
