"""Lists the optimizers: flat ones, which choose where the gradient of a step is taken, and plain bases."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch.optim import Optimizer

from trainflat.core.registry import Registry
from trainflat.optim.adam import Adam, AdamW
from trainflat.optim.asam import ASAM
from trainflat.optim.base import FlatOptimizer
from trainflat.optim.cram import CrAM
from trainflat.optim.entropy_sgd import EntropySGD
from trainflat.optim.esam import ESAM
from trainflat.optim.extrapolated import ExtrapolatedGradient
from trainflat.optim.fisher_ssam import FisherSSAM
from trainflat.optim.friendlysam import FriendlySAM
from trainflat.optim.gsam import GSAM
from trainflat.optim.l1 import L1Penalty
from trainflat.optim.label_noise import LabelNoise
from trainflat.optim.looksam import LookSAM
from trainflat.optim.msam import MSAM
from trainflat.optim.options import build, complete, settle
from trainflat.optim.perturbation import Move, Perturbation
from trainflat.optim.s2sam import S2SAM
from trainflat.optim.sam import SAM

OPTIMIZERS: Registry[Optimizer] = Registry(
    "optimizer",
    given={"params", "base_optimizer"},
    adam=Adam,
    adamw=AdamW,
    sam=SAM,
    asam=ASAM,
    looksam=LookSAM,
    esam=ESAM,
    fisher_ssam=FisherSSAM,
    gsam=GSAM,
    friendlysam=FriendlySAM,
    msam=MSAM,
    s2sam=S2SAM,
    cram=CrAM,
    extrapolated=ExtrapolatedGradient,
    entropy_sgd=EntropySGD,
    label_noise=LabelNoise,
    l1=L1Penalty,
)


def make_optimizer(name: str, params: Iterable[Any], **options: Any) -> Optimizer:
    """Builds the optimizer that a recipe names.

    Args:
        name: A name in ``OPTIMIZERS``.
        params: Parameters, parameter groups or named parameters (which ``exclude`` needs).
        **options: The member's options. A flat optimizer also takes ``base``, any class of ``torch.optim`` by its name
            in lower or upper case, and the options of that class.

    Raises:
        UnknownName: for a name or option that does not exist.
        InputError: for a value that cannot be used.

    Example:
        >>> weight = torch.nn.Parameter(torch.ones(2))
        >>> make_optimizer("sam", [weight], base="sgd", lr=0.1, momentum=0.9, rho=0.02).base.defaults["momentum"]
        0.9
    """
    member = OPTIMIZERS[name]
    return build(name, member, params, settle(name, member, options))


def check_options(name: str, options: Mapping[str, Any]) -> None:
    """Checks options without a model; raises what :func:`make_optimizer` would raise.

    Example:
        >>> check_options("sam", {"rho": 0.05, "lr": 2e-5, "momentun": 0.9, "base": "sgd"})
        Traceback (most recent call last):
            ...
        trainflat.core.errors.UnknownName: no option of optimizer 'sam' is called 'momentun'. Did you ...
    """
    member = OPTIMIZERS[name]
    settled = settle(name, member, options)
    settled.pop("exclude", None)  # which needs the names of a model
    # A matrix, because some optimizers (Muon) take nothing else.
    build(name, member, [torch.nn.Parameter(torch.zeros(1, 1))], settled)


def complete_options(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns all options of an optimizer as a recipe resolves them; raises what :func:`check_options` raises.

    Example:
        >>> complete_options("adam", {"lr": "3e-5"})
        {'lr': 3e-05, 'betas': [0.9, 0.999], 'eps': 1e-08, 'weight_decay': 0.0, 'amsgrad': False}
    """
    check_options(name, options)
    return complete(name, OPTIMIZERS[name], options)


def average_passes(name: str, options: Mapping[str, Any]) -> float:
    """Counts the forward and backward passes over a batch that a step of the optimizer takes with these options.

    Example:
        >>> average_passes("adamw", {"lr": 2e-5}), average_passes("sam", {"rho": 0.05, "every": 5})
        (1.0, 1.2)
    """
    member = OPTIMIZERS[name]
    return member.average_passes(settle(name, member, options)) if issubclass(member, FlatOptimizer) else 1.0


__all__ = [
    "ASAM",
    "ESAM",
    "GSAM",
    "MSAM",
    "OPTIMIZERS",
    "S2SAM",
    "SAM",
    "Adam",
    "AdamW",
    "CrAM",
    "EntropySGD",
    "ExtrapolatedGradient",
    "FisherSSAM",
    "FlatOptimizer",
    "FriendlySAM",
    "L1Penalty",
    "LabelNoise",
    "LookSAM",
    "Move",
    "Perturbation",
    "average_passes",
    "check_options",
    "complete_options",
    "make_optimizer",
]
