"""Finds the stages that several runs train alike, so that each is trained once."""

from collections.abc import Mapping
from pathlib import Path

from trainflat.commands.prepare import Job
from trainflat.core.files import hash_json, is_sealed
from trainflat.protocols import Planned
from trainflat.protocols.store import STAGES
from trainflat.protocols.teaching import OWN


def stage_keys(job: Job) -> dict[str, str]:
    """Returns, by stage name, a hash of all that decides its weights; stages that no other run could have are left out.

    Two runs with the same data in the same environment train stages of one key to the same bits.
    """
    keys = {}
    for stage in job.protocol.plan():
        way = job.protocol.shared(stage)
        if way is not None:
            keys[stage.name] = hash_json([stage.name, dict(way), _beginnings(job, stage)])
    return keys


def _beginnings(job: Job, stage: Planned) -> dict[str, object]:
    recipe = job.recipe.resolved()
    training = recipe["training"]
    del training["report_to"]
    if stage.name == OWN and job.given_teacher is None:
        training.pop("distillation", None)  # it is the teacher itself
    if training.get("distillation") is None:
        training.pop("layerwise", None)  # it learns from the same teacher
    return {key: recipe[key] for key in ("task", "model", "seed", "training")} | {"phase": stage.phase.options()}


def finished_stages(keys: Mapping[Path, Mapping[str, str]]) -> dict[str, Path]:
    """Returns, by key, a run folder in which that stage is complete.

    Args:
        keys: Of each run's stages, by the folder of the run.
    """
    return {
        key: folder for folder, own in keys.items() for name, key in own.items() if is_sealed(folder / STAGES / name)
    }
