"""Counts what a run constructs: a method once in each training that it joins, and nothing only to check words.

The rule: the gate, the flat optimizer, the averaging and the quantizer are each constructed exactly once per stage that
is trained, and never by ``check``. Torch's own optimizer classes stand apart: only their constructors tell which values
and which shapes they take, so the base optimizer is also tried on placeholders.
"""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertForSequenceClassification

import trainflat
from tests.support.families import config, write
from tests.support.gated_runs import recipe
from tests.support.runs import own_files
from trainflat.averaging import AVERAGING
from trainflat.optim import OPTIMIZERS, FlatOptimizer
from trainflat.pruning.gates import GATES
from trainflat.quantization import QUANTIZERS

COUNTED = (
    *(member for member in OPTIMIZERS.values() if issubclass(member, FlatOptimizer)),
    *GATES.values(),
    *AVERAGING.values(),
    *QUANTIZERS.values(),
)
TRAINING = {"optimizer": {"name": "sam", "lr": 1e-3}, "averaging": {"name": "ema"}, "quantization": "q8bert"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("constructions")
    torch.manual_seed(0)
    write(folder / "model", BertForSequenceClassification(config("Bert")))
    own_files(folder)
    return folder


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """By class, how many instances of exactly it were constructed."""
    found: Counter[str] = Counter()

    def counting(member: type, init: Any) -> Any:
        def counted(self: Any, *args: Any, **options: Any) -> None:
            if type(self) is member:
                found[member.__name__] += 1
            init(self, *args, **options)

        counted.__wrapped__ = init  # type: ignore[attr-defined]  # settings are made from its signature
        return counted

    for member in COUNTED:
        monkeypatch.setattr(member, "__init__", counting(member, member.__init__))
    return found


@pytest.mark.parametrize("gate", ["magnitude", "soft-movement"])
def test_a_gradual_run_with_sam_makes_one_of_each(place: Path, tmp_path: Path, made: Counter[str], gate: str) -> None:
    given = recipe(place, {"name": gate, "schedule": {"name": "cubic", "hold": 0.5}})
    given["training"] |= TRAINING | {"epochs": 2}
    trainflat.plan(given, out=tmp_path)
    assert not made, "checked by constructing"
    trainflat.run(given, out=tmp_path)
    assert made == {"SAM": 1, "EMA": 1, "Q8BERT": 1, GATES[gate].__name__: 1}


def test_each_round_makes_its_own(place: Path, tmp_path: Path, made: Counter[str]) -> None:
    given = recipe(place, "magnitude")
    given["training"] |= {"optimizer": {"name": "sam", "lr": 1e-3}, "averaging": "ema", "epochs": 1}
    given["protocol"] = {"name": "iterative", "sparsities": [0.5]}
    trainflat.run(given, out=tmp_path)
    assert made == {"SAM": 2, "EMA": 2}
