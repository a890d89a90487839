"""Train transformer encoders into flat minima, then compress them, and see what that did.

``trainflat.run("recipe.yaml")`` does the whole job; every part also works alone in a plain PyTorch loop:
``trainflat.optim.SAM``, ``trainflat.pruning.MagnitudePruner``, ``trainflat.pruning.Masks``,
``trainflat.training.FlatTrainer``.
"""

from typing import TYPE_CHECKING, Any

from trainflat.core.registration import register

if TYPE_CHECKING:
    from trainflat.commands.check import plan
    from trainflat.commands.compress import compress
    from trainflat.commands.grid.grid import grid
    from trainflat.commands.run import run
    from trainflat.export.loading import load
    from trainflat.recipe import Recipe, load_recipe
    from trainflat.records.run import Record

__all__ = ["Recipe", "Record", "compress", "grid", "load", "load_recipe", "plan", "run"]

_HOMES = {
    "run": "commands.run",
    "compress": "commands.compress",
    "grid": "commands.grid.grid",
    "plan": "commands.check",
    "load": "export.loading",
    "Recipe": "recipe",
    "load_recipe": "recipe",
    "Record": "records.run",
}

register()  # from_pretrained then reads what we export


def __getattr__(name: str) -> Any:  # the commands import torch and transformers, which takes seconds
    if name not in _HOMES:
        raise AttributeError(f"module 'trainflat' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"trainflat.{_HOMES[name]}"), name)
