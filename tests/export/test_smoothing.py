"""openvino-int8 rounds a graph twice, with and without SmoothQuant, and keeps what is nearer to the model."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.exports import small
from tests.support.families import write
from trainflat.commands.export import _source, export
from trainflat.export import openvino_int8
from trainflat.export.openvino import converted


@pytest.mark.slow
def test_of_two_roundings_the_nearer_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path / "model", small())
    other = small()
    with torch.no_grad():
        other.classifier.weight.add_(0.3)
    near, far = (converted(_source(one, None)) for one in (folder, write(tmp_path / "other", other)))
    for number, order in enumerate([(near, far), (far, near)]):
        made = dict(zip(openvino_int8._SMOOTHING, order, strict=True))
        monkeypatch.setattr(openvino_int8, "_static", lambda model, texts, alpha, made=made: made[alpha].clone())
        assert export(folder, "openvino-int8", tmp_path / str(number), ["samples=4"]).difference < 1e-3


@pytest.mark.long
def test_a_channel_far_above_the_others_is_smoothed(tmp_path: Path) -> None:
    """Without smoothing its range is that of all: logits up to 4 were off by 5."""
    model: Any = small()
    with torch.no_grad():
        model.bert.embeddings.LayerNorm.weight[3] = 60
        model.bert.encoder.layer[0].attention.output.LayerNorm.weight[5] = 60
    found = export(write(tmp_path / "model", model), "openvino-int8", tmp_path / "out", ["samples=16"])
    assert found.difference < 1
