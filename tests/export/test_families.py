"""Every architecture and every head in every format: minutes of tracing, so run by `make test-all`."""

from pathlib import Path

import pytest
import transformers
from transformers import BertForQuestionAnswering

from tests.support.exports import small
from tests.support.families import FAMILIES, write
from trainflat.commands.export import export
from trainflat.export import EXPORTERS


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPORTERS)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_exports(family: str, name: str, tmp_path: Path) -> None:
    model = small(getattr(transformers, f"{family}ForSequenceClassification"), family)
    found = export(write(tmp_path / "model", model), name, tmp_path / "out")
    assert found.agreement >= 0.9


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPORTERS)
@pytest.mark.parametrize("head", ["spans", "number"])
def test_every_head_exports(head: str, name: str, tmp_path: Path) -> None:
    model = small(BertForQuestionAnswering) if head == "spans" else small(num_labels=1)
    # Without training all tokens of one kind are nearly alike: where a span begins is then a matter of rounding.
    options = ["activations=dynamic"] if (head, name) == ("spans", "openvino-int8") else []
    found = export(write(tmp_path / "model", model), name, tmp_path / "out", options)
    assert found.agreement >= 0.9
