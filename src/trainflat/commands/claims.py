"""Claims what decides a run's bits beside its recipe (data, models, environment), and compares it ever after."""

import hashlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from trainflat.core.errors import DamagedFile, InputError
from trainflat.core.files import hash_file, hash_json, read_as, write_json
from trainflat.core.processes import process_count
from trainflat.models import Encoder, no_bars, weights_sha256
from trainflat.records import run as record

CLAIM = "claim.json"
# Other versions compute other things, another number of processes draws other dropout: rounds of both are no run.
_VERSIONS = ("trainflat", "torch", "transformers", "accelerate", "tokenizers", "numpy", "scikit-learn")
_FIXED = (*_VERSIONS, "device", "processes")
# The same computation, rounded otherwise: goes on, and the record tells of it. Not here: how many cores there are.
_ROUNDING = ("python", "system", "machine", "cpu", "gpu", "threads", "variables")
# Of the environment variables, those of the libraries that compute.
_COMPUTING = "OMP_ MKL_ KMP_ OPENBLAS_ BLIS_ DNNL_ ONEDNN_ ATEN_ CUBLAS_ CUDNN_ NVIDIA_TF32 TORCH_ PYTORCH_ ACCELERATE_"
_VARIABLES = tuple(_COMPUTING.split())
_TOLD_BY_CONFIG_ONLY = ("_name_or_path", "transformers_version")  # a moved model is the same; versions are claimed


class Claim(BaseModel):
    """Holds the content of ``claim.json``; folders of older versions have only ``recipe`` and ``data``."""

    recipe: str  # hash
    data: dict[str, dict[str, Any]]  # fingerprints by split
    models: dict[str, str] = {}  # hashes by what they are of: "tokenizer", "config", "teacher config", "masks in RUN"
    model: str | None = None  # hash of the starting weights
    teacher: str | None = None
    environments: list[dict[str, Any]] = []  # that worked on the run, in the order in which they did

    def save(self, folder: Path) -> None:
        """Writes the folder's claim, atomically."""
        write_json(folder / CLAIM, self.model_dump(mode="json", exclude_none=True))


def read_claim(folder: Path) -> Claim:
    """Reads the claim of a folder. Raises DamagedFile if it is missing or not what was written."""
    try:
        return read_as(folder / CLAIM, Claim, "a claim")
    except DamagedFile as error:
        raise DamagedFile(
            f"{folder / CLAIM} is damaged: whose run this is cannot be told. Choose another --out."
        ) from error


def environment_here() -> dict[str, Any]:
    """Collects versions, machine and settings that decide how this process computes."""
    cuda = torch.cuda.is_available()
    return record.environment(
        {
            "threads": torch.get_num_threads(),
            "cores": os.cpu_count(),
            "gpu": torch.cuda.get_device_name() if cuda else "none",
            "processes": process_count(),
            "device": "cuda" if cuda else "cpu",
            "cpu": torch.backends.cpu.get_cpu_capability(),
            "variables": {name: value for name, value in sorted(os.environ.items()) if name.startswith(_VARIABLES)},
        }
    )


def compare_environment(folder: Path, claim: Claim) -> None:
    """Refuses to go on where another environment would train other rounds.

    Raises:
        InputError: names what differs.
    """
    here = environment_here()
    for before in claim.environments:
        for key in _FIXED:
            if key in before and before[key] != here[key]:
                raise InputError(
                    f"{folder} was begun with {key} {before[key]!s:.40}, and here it is {here[key]}. Go back to that, "
                    "or choose another --out to begin anew."
                )


def claim_environment(folder: Path) -> None:
    """Adds the environment to the claim, unless one that rounds alike is there."""
    claim, here = read_claim(folder), environment_here()
    told = {key: here[key] for key in _FIXED + _ROUNDING}
    if told not in claim.environments:
        claim.model_copy(update={"environments": [*claim.environments, told]}).save(folder)


def notes(folder: Path) -> Iterator[str]:
    """Yields notes where a run continues in an environment that rounds otherwise than the first one."""
    first, here = read_claim(folder).environments[0], environment_here()
    for key in _ROUNDING:
        if key in first and first[key] != here[key]:
            yield (
                f"{folder} was begun with {key} {first[key]!s:.60}, and here it is {here[key]!s:.60}: the last bits "
                "may differ from an uninterrupted run's. The record names both environments."
            )


def claim_models(
    folder: Path, student: Encoder, weights: str, teacher: Encoder | None, sources: Mapping[str, str]
) -> None:
    """Adds what a run begins with to the claim, or compares it: rounds of two models are no run.

    Args:
        folder: Of the run.
        student: That is about to be trained.
        weights: Their hash.
        teacher: Where the recipe asks for one.
        sources: Of the protocol, by what they are called.

    Raises:
        InputError: names what differs.
    """
    claim = read_claim(folder)
    known: dict[str, str | None] = {"model": claim.model, "teacher": claim.teacher, **claim.models}
    given = {"model": (weights, f"weights of {student.name}")}
    given["tokenizer"] = _tokenizer_sha256(student.tokenizer), f"tokenizer files of {student.name}"
    given["config"] = _config_sha256(student.model), f"settings in config.json of {student.name}"
    if teacher is not None:
        given["teacher"] = weights_sha256(teacher.model), f"weights of {teacher.name}"
        given["teacher config"] = _config_sha256(teacher.model), f"settings in config.json of {teacher.name}"
    given |= {words: (digest, words) for words, digest in sources.items()}
    for key, (digest, words) in given.items():
        if known.get(key, digest) not in (None, digest):
            raise InputError(
                f"{folder} was begun with other {words}. Choose another --out, or bring back those that were there."
            )
    found = {key: digest for key, (digest, _) in given.items()}
    weights_of = {key: found.pop(key) for key in ("model", "teacher") if key in found}  # where older versions look
    if found != claim.models:
        claim.model_copy(update={"models": found} | weights_of).save(folder)


def begun_alike(folder: Path, other: Path) -> bool:
    """Returns whether two runs began with the same data and models in the same environment, so that bits agree."""
    if not (other / CLAIM).is_file():
        return False
    mine, theirs = (_beginnings(read_claim(one)) for one in (folder, other))
    return mine == theirs and len(mine["environments"]) == 1


def _beginnings(claim: Claim) -> dict[str, Any]:
    """Returns what decides how a stage is trained; not what it is measured by, nor masks, which belong to one run."""
    models = {key: claim.models.get(key) for key in ("tokenizer", "config", "teacher config")}
    return claim.model_dump(include={"data", "model", "teacher", "environments"}) | models


def require_claim(folder: Path) -> None:
    """Raises InputError where the folder of a run is no longer there."""
    if not (folder / CLAIM).is_file():
        raise InputError(
            f"{folder} was deleted or moved while the run worked in it. Delete what is left there and run it again."
        )


def _tokenizer_sha256(tokenizer: PreTrainedTokenizerBase) -> str:
    """Hashes the files as which a tokenizer is stored."""
    with tempfile.TemporaryDirectory() as place, no_bars():
        tokenizer.save_pretrained(place)
        return hash_json({path.name: hash_file(path) for path in Path(place).iterdir() if path.is_file()})


def _config_sha256(model: PreTrainedModel) -> str:
    values: Mapping[str, Any] = model.config.to_dict()
    told = {key: values[key] for key in sorted(values) if key not in _TOLD_BY_CONFIG_ONLY}
    return hashlib.sha256(repr(told).encode()).hexdigest()
