"""What the tests of gates share."""

from pathlib import Path

import pytest
import torch
from transformers import BertForSequenceClassification

from tests.support.families import config, write


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gates")
    torch.manual_seed(0)
    write(folder / "model", BertForSequenceClassification(config("Bert")))
    return folder
