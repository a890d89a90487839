"""The main job: a recipe goes in, a record comes out."""

from trainflat.pipeline.planning import Plan, plan
from trainflat.pipeline.job import run

__all__ = ["Plan", "plan", "run"]
