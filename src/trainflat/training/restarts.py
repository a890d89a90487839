"""Begins the schedule of learning rates anew at a step, and keeps the rates of some parameter groups constant."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from transformers import get_scheduler

from trainflat.core.errors import InputError

Factor = Callable[[int], float]


def rescheduled(args: Any, steps: int, scheduler: Any, constant: Sequence[bool], restart: int | None) -> LambdaLR:
    """Returns a scheduler like the Trainer's that begins anew after ``restart`` steps, for the steps that are left.

    It is a function of the step alone, so that a resumed training goes on with the same rates.

    Args:
        args: The Trainer's arguments.
        steps: Of the whole training.
        scheduler: What the Trainer made for it; not used any more.
        constant: Of each of the optimizer's parameter groups whether its rate stays as it is.
        restart: None keeps the course of the rates.

    Raises:
        InputError: the schedule is no function of the step.
    """
    if not isinstance(scheduler, LambdaLR):
        raise InputError(
            f"lr_scheduler_type {args.lr_scheduler_type} is no function of the step, which a gate that restarts or "
            "keeps rates constant needs. Use linear, constant_with_warmup or cosine."
        )
    course: Factor = scheduler.lr_lambdas[0]
    if restart is not None:
        course = _restarted(course, restart, _course(args, steps - restart))
    return LambdaLR(scheduler.optimizer, [_one if still else course for still in constant])


def forget(optimizer: Optimizer, parameters: Sequence[torch.Tensor]) -> None:
    """Drops what an optimizer remembers of parameters, its moments and step counts, as if it were made anew."""
    for p in parameters:
        optimizer.state.pop(p, None)
        getattr(optimizer, "memory", {}).pop(p, None)


def _course(args: Any, steps: int) -> Factor:
    """Returns the factors by step of the Trainer's schedule for so many steps."""
    aside = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    made = get_scheduler(args.lr_scheduler_type, aside, args.get_warmup_steps(steps), steps, args.lr_scheduler_kwargs)
    found: Factor = made.lr_lambdas[0]
    return found


def _restarted(before: Factor, step: int, after: Factor) -> Factor:
    return lambda at: before(at) if at < step else after(at - step)


def _one(_: int) -> float:
    return 1.0
