"""The main job: a recipe goes in, a record comes out."""

from trainflat.pipeline.job import run
from trainflat.pipeline.planning import Plan, plan

__all__ = ["Plan", "plan", "run"]
