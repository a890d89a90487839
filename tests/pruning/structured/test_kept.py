"""What is kept of a structure: factors of units, the states of sub-layers, and their file."""

from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertModel

from trainflat.anatomy import Anatomy, anatomy_of
from trainflat.core.errors import DamagedFile
from trainflat.core.files import save_tensors
from trainflat.pruning.structured import Kept


@pytest.fixture
def anatomy() -> Anatomy:
    sizes = {"hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 6}
    return anatomy_of(BertModel(BertConfig(vocab_size=9, **sizes)))


def test_factors_multiply_and_the_old_ones_stay(anatomy: Anatomy) -> None:
    kept, unit = Kept.all(anatomy), anatomy.units("feed-forward unit")[7]
    scaled = kept.scaled([(unit, 0.5), (unit, 0.5), (anatomy.units("hidden dimension")[3], 0.25)])
    assert scaled.layers[1].units.tolist() == [1, 0.25, 1, 1, 1, 1]
    assert scaled.hidden.tolist() == [1, 1, 1, 0.25, 1, 1, 1, 1]
    assert all(bool((tensor == 1).all()) for tensor in kept.tensors().values())


def test_states_tell_an_empty_sub_layer_from_a_skipped_one(anatomy: Anatomy) -> None:
    kept = Kept.all(anatomy)
    heads, dimensions = anatomy.units("head")[:2], anatomy.units("value-output dimension")[:8]
    assert kept.layers[0].attention_state == "alive"
    assert kept.without(heads).layers[0].attention_state == "bias-only"
    assert kept.without(dimensions).layers[0].attention_state == "bias-only"
    # Without queries and keys a head still hands on the mean of all values.
    assert kept.without(anatomy.units("query-key dimension")).layers[0].attention_state == "alive"
    # The heads that are left have lost their outputs.
    assert kept.without([heads[0], *dimensions[4:]]).layers[0].attention_state == "bias-only"
    assert kept.without(anatomy.units("feed-forward unit")).layers[1].feed_forward_state == "bias-only"
    first = kept.without(anatomy.units("layer")[:1]).layers
    assert [(one.attention_state, one.feed_forward_state) for one in first] == [("skipped",) * 2, ("alive",) * 2]


def test_a_file_gives_back_the_factors_and_refuses_another_shape(anatomy: Anatomy, tmp_path: Path) -> None:
    kept = Kept.all(anatomy).scaled((unit, 0.1) for unit in anatomy.units("head")[1:])
    kept = kept.without([anatomy.units("attention sub-layer")[0], anatomy.units("vocabulary entry")[4]])
    kept.save(tmp_path / "kept.safetensors")
    again = Kept.load(tmp_path / "kept.safetensors", anatomy).tensors()
    assert all(torch.equal(again[name], tensor) for name, tensor in kept.tensors().items())
    save_tensors(tmp_path / "other.safetensors", kept.tensors() | {"1.units": torch.ones(5)})
    with pytest.raises(DamagedFile, match=r"1\.units is \(5,\), of this model \(6,\)"):
        Kept.load(tmp_path / "other.safetensors", anatomy)
