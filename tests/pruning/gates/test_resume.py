"""From where a gated run goes on, and from where it does not."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from transformers import TrainerCallback

from tests.conftest import tiny_bert
from tests.support.gated_steps import on_noise, small
from tests.support.gated_structure import TRAINED
from tests.support.gated_training import HARD, trained
from tests.support.training import SAM, assert_same_weights
from trainflat.core.errors import InputError
from trainflat.pruning.gates import GATES, STRUCTURE_GATES, read_gate


@pytest.mark.parametrize("name", [*GATES, *STRUCTURE_GATES])
def test_the_state_of_another_gate_is_refused(name: str) -> None:
    other, model = "magnitude" if name != "magnitude" else "random", tiny_bert() if name in TRAINED else small()
    for one in ({"hard-movement": "l0", "l0": "soft-movement"}.get(name, other), other):
        gate, made = GATES.make(one, model), read_gate(TRAINED.get(name, name)).build(model)
        gate.begin(200, objective=on_noise(model))
        with pytest.raises(InputError, match=rf"another gate, {gate.kind}, and not of {made.kind}"):
            made.begin(200, state=gate.state_dict(), step=3, objective=on_noise(model))


def test_a_run_goes_on_from_a_checkpoint_in_another_folder(tmp_path: Path) -> None:
    class Copy(TrainerCallback):
        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            shutil.copytree(tmp_path / f"a/checkpoint-{state.global_step}", tmp_path / f"kept-{state.global_step}")

    saved: dict[str, Any] = {"save_strategy": "steps", "save_steps": 5}
    whole = trained(tmp_path / "a", SAM, HARD, callbacks=[Copy()], **saved)
    rest = trained(tmp_path / "b", SAM, HARD, resume=str(tmp_path / "kept-5"), **saved)
    assert_same_weights(rest.model, whole.model, atol=0)
    assert rest.masks == whole.masks and rest.passes.count == whole.passes.count
