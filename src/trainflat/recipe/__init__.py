"""Recipes: what to train and compress, how, and what to measure. Checked to the last key before anything runs."""

from trainflat.core.listing import packaged_recipes
from trainflat.recipe.overrides import named_sections
from trainflat.recipe.reading import load_recipe
from trainflat.recipe.sections import (
    EvaluationOptions,
    FlatnessOptions,
    Int8Options,
    LatencyOptions,
    ModelOptions,
    Recipe,
)

__all__ = [
    "EvaluationOptions",
    "FlatnessOptions",
    "Int8Options",
    "LatencyOptions",
    "ModelOptions",
    "Recipe",
    "load_recipe",
    "named_sections",
    "packaged_recipes",
]
