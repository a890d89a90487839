"""Which layers of a model become int8, and what the whole model then computes."""

import copy
import pickle
import warnings

import pytest
import torch
import transformers
from torch import nn

from tests.conftest import tiny_bert
from trainflat.anatomy.params import prunable
from trainflat.core.errors import InputError
from trainflat.pruning import MagnitudePruner
from trainflat.quantization import Int8Embedding, Int8Linear, Int8Module, Layout, prepare, quantize_dynamic


def rounded(model: nn.Module) -> dict[str, str]:
    return {name: type(m).__name__ for name, m in model.named_modules() if isinstance(m, Int8Module)}


def words(rows: int = 3, length: int = 9) -> torch.Tensor:
    return torch.randint(0, 120, (rows, length), generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def logits(model: nn.Module) -> torch.Tensor:
    return model(input_ids=words()).logits


def test_encoder_and_pooler_by_default_the_rest_on_request():
    model = tiny_bert()
    matrices = {name.removesuffix(".weight") for name in prunable(model)}
    assert set(rounded(quantize_dynamic(model))) == matrices
    assert any("pooler" in name for name in matrices)
    assert set(rounded(quantize_dynamic(model, head=True))) == matrices | {"classifier"}
    tables = {f"bert.embeddings.{kind}_embeddings" for kind in ("word", "position", "token_type")}
    whole = rounded(quantize_dynamic(model, embeddings=True))
    assert set(whole) == matrices | tables
    assert {name for name, kind in whole.items() if kind == "Int8Embedding"} == tables
    without = quantize_dynamic(model, exclude=["*.pooler.dense", "bert.encoder.layer.1.*"])
    assert set(rounded(without)) == {name for name in matrices if "layer.0" in name}


def test_the_model_itself_is_left_alone_and_nothing_is_shared_with_the_copy():
    model = tiny_bert().train()
    before = copy.deepcopy(model.state_dict())
    made = quantize_dynamic(model, embeddings=True, head=True)
    assert model.training
    assert not made.training
    assert rounded(model) == {}
    assert getattr(model.config, "quantization_config", None) is None
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    mine = {t.untyped_storage().data_ptr() for t in model.state_dict().values()}
    assert not mine & {t.untyped_storage().data_ptr() for t in made.state_dict().values()}


@pytest.mark.parametrize("activations", ["token", "batch", "torch"])
def test_logits_are_near_the_float_ones(activations):
    model = tiny_bert(initializer_range=0.2).eval()
    made = quantize_dynamic(model, activations=activations, embeddings=True, head=True)
    dense = logits(model)
    assert float((logits(made) - dense).norm()) < 0.05 * float(dense.norm())
    assert not torch.equal(logits(made), dense)


def test_torch_s_own_engine_gives_the_same_logits_but_for_its_coarser_steps():
    """It rounds inputs to 7 bits on x86, and weights by one step per matrix; ours must not be farther from the float
    model, and is where torch's is with ``activations="torch"``."""
    model = tiny_bert(initializer_range=0.5).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", UserWarning)  # quantized tensors are deprecated
        peer = logits(torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8))
    ours, dense = logits(quantize_dynamic(model, head=True, activations="batch")), logits(model)
    size = float(dense.abs().max())
    assert float((ours - peer).abs().max()) < 0.1 * size
    assert float((ours - dense).norm()) < 1.5 * float((peer - dense).norm())
    same = logits(quantize_dynamic(model, head=True, activations="torch"))
    if torch.backends.quantized.engine in ("x86", "fbgemm"):
        torch.testing.assert_close(same, peer, rtol=0, atol=1e-5 * size)


def test_zeros_of_a_pruned_model_stay_zeros():
    model = tiny_bert()
    masks = MagnitudePruner(model, sparsity=0.7).prune()
    made = quantize_dynamic(model)
    zeros = 0
    for name, weight in prunable(model).items():
        layer = made.get_submodule(name.removesuffix(".weight"))
        assert bool((layer.weight_int8[weight == 0] == 0).all())
        assert not bool(layer.weight[weight == 0].any())
        zeros += int((layer.weight == 0).sum())
    assert zeros >= masks.zeros


def test_a_matrix_that_two_modules_share_stays_float():
    model = transformers.BertForMaskedLM(tiny_bert().config)
    made = quantize_dynamic(model, embeddings=True, head=True)
    assert made.cls.predictions.decoder.weight is made.bert.embeddings.word_embeddings.weight
    assert isinstance(made.cls.predictions.transform.dense, Int8Linear)
    assert isinstance(made.bert.embeddings.position_embeddings, Int8Embedding)


def test_a_layer_that_stands_in_two_places_is_rounded_once():
    layer = nn.Linear(4, 4)
    made = quantize_dynamic(nn.Sequential(layer, nn.ReLU(), layer))
    assert made[0] is made[2]
    skeleton = nn.Sequential(layer, nn.ReLU(), layer)
    prepare(skeleton, Layout("token", ("0",)))
    assert skeleton[0] is skeleton[2]


def test_a_subclass_keeps_its_weights_and_a_transformer_of_torch_still_runs():
    model = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    made = quantize_dynamic(model)
    assert set(rounded(made)) == {"linear1", "linear2"}
    x = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(made(x), model(x), atol=0.05, rtol=0)


def test_copies_pickles_and_state_dicts_compute_the_same():
    model = quantize_dynamic(tiny_bert(), activations="batch", embeddings=True)
    expected = logits(model)
    again = quantize_dynamic(tiny_bert(seed=1), activations="batch", embeddings=True)
    assert not torch.equal(logits(again), expected)
    again.load_state_dict(model.state_dict())
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), again):
        assert torch.equal(logits(other), expected)


def test_what_cannot_be_rounded_is_refused_in_one_line():
    for model, options, text in [
        (nn.Sequential(nn.LayerNorm(3)), {}, "Sequential has no linear layer"),
        (nn.Embedding(3, 3), {"embeddings": True}, "Embedding has no linear layer"),
        (nn.Linear(3, 3, device="meta"), {}, "has no weights yet"),
        (quantize_dynamic(tiny_bert()), {}, "BertForSequenceClassification is quantized already"),
        (quantize_dynamic(nn.Linear(3, 3)), {}, "Int8Linear is quantized already"),
        (tiny_bert(), {"exclude": ["*.poler.dense"]}, r"exclude names '\*\.poler\.dense'"),
        (tiny_bert(), {"exclude": "bert.*"}, "has no linear layer to round"),
        (tiny_bert(), {"activations": "row"}, "token, batch or torch, got 'row'"),
    ]:
        with pytest.raises(InputError, match=text) as error:
            quantize_dynamic(model, **options)
        assert "\n" not in str(error.value)


def test_a_layout_that_is_none_is_refused_in_one_line():
    good = Layout("token", ("0",)).as_config()
    assert Layout.from_config(good) == Layout("token", ("0",))
    for change, text in [
        ({"linears": None}, "linears must be a list of module names, got None"),
        ({"linears": [1]}, r"got \[1\]"),
        ({"embeddings": "0"}, "embeddings must be a list"),
        ({"activations": "row"}, "got 'row'"),
    ]:
        with pytest.raises(InputError, match=text):
            Layout.from_config(good | change)
    with pytest.raises(InputError, match="names 1, which is a ReLU, no Linear"):
        prepare(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), Layout("token", ("0", "1")))
    with pytest.raises(InputError, match="names no layer of this Linear"):
        prepare(nn.Linear(2, 2), Layout("token", ("a", "b.c")))
