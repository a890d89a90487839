"""Trackers are looked for, not tried out."""

import gc
import sys
from typing import Any

import pytest
from transformers.integrations import integration_utils

from trainflat.core.errors import InputError
from trainflat.training import trackers


def test_looking_for_a_tracker_makes_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half-made callbacks of MLflow, DagsHub and Neptune complain on standard error when they are thrown away."""
    complaints: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", complaints.append)
    for name in integration_utils.INTEGRATION_TO_CALLBACK:  # each can be looked for, by whatever name
        found = f"is_{trackers._CALLED.get(name, name)}_available"
        with monkeypatch.context() as patch:
            patch.setattr(integration_utils, found, lambda: True)
            trackers.check_installed([name])
            patch.setattr(integration_utils, found, lambda: False)
            with pytest.raises(InputError, match=f"report_to: {name} cannot be used here") as error:
                trackers.check_installed([name])
        move = "Set KUBEFLOW_TRAINER_SERVER_URL" if name == "kubeflow" else "Run: pip install "
        assert move in str(error.value)
    gc.collect()
    assert complaints == []
