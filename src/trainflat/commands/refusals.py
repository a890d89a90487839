"""Checks a recipe against the machine, the task and the model, before anything is trained."""

from pathlib import Path

from trainflat.anatomy.params import prunable
from trainflat.core.errors import InputError
from trainflat.core.formatting import plural
from trainflat.models import Encoder
from trainflat.optim import FlatOptimizer
from trainflat.quantization import layers_to_round
from trainflat.recipe import Recipe
from trainflat.reparametrization import check_alone
from trainflat.tasks.base import Task
from trainflat.training.features.gate import refuse_renewal
from trainflat.training.fit import training_arguments
from trainflat.training.step_runner import refuse_parts
from trainflat.training.trackers import check_installed


def check_machine(recipe: Recipe, task: Task, folder: Path) -> None:
    """Checks that this machine can train as the recipe says.

    Raises:
        InputError: precision, trackers, or how the batch is cut over the processes.
    """
    training_arguments(recipe.training, task, folder, recipe.seed)
    check_installed(recipe.training.report_to)


def check_methods(recipe: Recipe, task: Task) -> None:
    """Checks that the methods of a recipe go together, and with the labels, the batches and the number of steps.

    Raises:
        InputError: one would not until the first step, or would do nothing in silence.
    """
    check_optimizer(recipe, task)
    check_gate(recipe)


def check_optimizer(recipe: Recipe, task: Task) -> None:
    """Checks that a flat optimizer can do what it is for: with these labels, on these batches, in so many steps."""
    settings, spans = recipe.training.optimizer, task.head.kind == "spans"
    flat, options = settings.member, settings.options
    if not issubclass(flat, FlatOptimizer):
        return
    if flat.changes_labels and spans:
        raise InputError(
            f"training.optimizer {settings.name} changes classes or numbers, and {task.name} has spans. Use another."
        )
    try:
        if recipe.training.perturb_over == "micro-batch":
            refuse_parts(flat, flat.second_share_of(options))
        if not spans:  # of which there are some more steps, in several windows
            flat.check_length(options, recipe.training.steps(task.fingerprints["train"].rows))
    except InputError as error:
        raise InputError(f"training.optimizer {settings.name}: {error}") from error


def check_gate(recipe: Recipe) -> None:
    """Checks that a gate goes with what is trained, and its ``perturb`` with an optimizer that displaces."""
    key = "gate" if "gate" in recipe.protocol.options else "method"
    gate, optimizer = recipe.protocol.options.get(key), recipe.training.optimizer
    if gate is None:
        return
    if key == "method" and recipe.training.quantization is not None:
        raise InputError(
            "training.quantization rounds a model of one shape, and protocol.method makes it smaller. Leave it out; "
            "evaluation.int8 scores an int8 copy."
        )
    if recipe.training.distillation is not None and recipe.training.distillation.renew is not None:
        refuse_renewal(gate)
    if gate.member.needs_weights and recipe.training.reparametrization is not None:
        check_alone(gate=gate.name)
    displaces = issubclass(optimizer.member, FlatOptimizer) and optimizer.member.rho_only_displaces
    perturb = gate.options.get("perturb")
    if perturb is not None and not displaces:
        raise InputError(
            f"protocol.{key}.perturb {perturb} says what an optimizer like sam displaces, and {optimizer.name} "
            "is not one. Leave it out, or set training.optimizer.name=sam."
        )


def check_encoder(recipe: Recipe, encoder: Encoder) -> None:
    """Checks all that a recipe asks of its model, of which only names and shapes are looked at.

    Raises:
        InputError: names what this model cannot do.
    """
    for check in (check_length, check_parameters, check_measures, check_int8):
        check(recipe, encoder)


def check_parameters(recipe: Recipe, encoder: Encoder) -> None:
    """Checks that the optimizer takes the model's parameters.

    Raises:
        InputError: a pattern matches none of them, or the class is for matrices alone.
    """
    trained = [(name, p) for name, p in encoder.model.named_parameters() if p.requires_grad]
    try:
        recipe.training.optimizer.check_parameters(trained)
    except InputError as error:
        move = "" if str(error).endswith(".") else ". Choose another optimizer, or another base."  # torch says none
        raise InputError(f"training.optimizer for model {recipe.model.name!r}: {error}{move}") from error


def check_length(recipe: Recipe, encoder: Encoder) -> None:
    """Checks that the model has a position for every token."""
    length, name = recipe.training.max_length, recipe.model.name
    if length > encoder.max_length:
        raise InputError(
            f"training.max_length {length} is more than the {plural(encoder.max_length, 'position')} of {name}. "
            f"Set {encoder.max_length} or less."
        )


def check_measures(recipe: Recipe, encoder: Encoder) -> None:
    """Checks that every measure of flatness finds weights enough, also in the sparsest stage."""
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
    """Checks that the model has layers that an int8 copy, or training for one, could round."""
    after, along = recipe.evaluation.int8, recipe.training.quantization
    asked = {} if after is None else {"evaluation.int8": after.model_dump()}
    asked |= {} if along is None else {"training.quantization": along.options}
    for place, options in asked.items():
        try:
            layers_to_round(encoder.model, embeddings=options["embeddings"], head=options["head"])
        except InputError as error:
            raise InputError(f"{place} for model {recipe.model.name!r}: {error}") from error
