"""Lets the dense stage of a run teach the stages after it."""

from dataclasses import replace

from trainflat.distillation import read_distillation
from trainflat.protocols.stages import Produced
from trainflat.protocols.workspace import Workspace

OWN = "dense"
"""Name of the teacher in recipes that is the run's own first stage."""

_SELF = {"teacher": OWN, "weight": 0.9, "temperature": 2.0}  # as nn_pruning trains again (Lagunas et al., 2021)


def untaught(workspace: Workspace) -> Workspace:
    """Returns the workspace in which the run's own teacher is trained: without one, unless the recipe names another."""
    if workspace.teacher is not None:
        return workspace
    return replace(workspace, options=workspace.options.model_copy(update={"distillation": None}))


def retraining(workspace: Workspace, dense: Produced) -> Workspace:
    """Returns the workspace in which smaller models are trained: with the dense one as teacher, if there is none.

    It teaches as the recipe's ``distillation`` says or, where there is none, with weight 0.9 and temperature 2.
    """
    if workspace.teacher is not None:
        return workspace
    options = workspace.options
    if options.distillation is None:
        options = options.model_copy(update={"distillation": read_distillation(_SELF)})
    return replace(workspace, options=options, teacher=dense.model)
