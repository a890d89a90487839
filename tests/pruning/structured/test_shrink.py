"""The shrinker, over the architecture families: what comes out computes what the masked model does."""

import inspect
import itertools
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
import transformers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.support.masked import masked
from tests.support.patterns import KINDS, pattern
from tests.support.tiny_families import MODELS, SIZES, logits, make, states
from trainflat.anatomy import FAMILIES, anatomy_of, layout_of
from trainflat.core.errors import InputError
from trainflat.pruning.structured import Kept, State, count, shrink

EXACT = {torch.float64: 1e-12, torch.float32: 1e-5}
PATTERNS = {
    "seed": st.integers(0, 10**6),
    "share": st.sampled_from([0.05, 0.3, 0.6, 0.9]),
    "kinds": st.lists(st.sampled_from(KINDS), min_size=1, unique=True).map(tuple),
    "soft": st.booleans(),
    "kind": st.sampled_from(list(EXACT)),
}
QUIET: dict[str, Any] = {"deadline": None, "suppress_health_check": list(HealthCheck), "derandomize": True}


def assert_same(found: Tensor, expected: Tensor) -> None:
    scale = max(float(expected.abs().max()), 1.0)
    assert float((found - expected).abs().max()) <= EXACT[expected.dtype] * scale


def parameters_of_layers(model: Any) -> int:
    layer = re.compile(re.escape(layout_of(model).layer).replace(r"\#", r"\d+") + r"\.")
    return sum(p.numel() for name, p in model.base_model.named_parameters() if layer.match(name))


def shrunk_is_masked(name: str, seed: int, kind: Any, **drawn: Any) -> Any:
    model = make(name, seed % 7).to(kind)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    kept = pattern(model, seed, **drawn)
    small = shrink(model, kept)
    assert_same(logits(small), logits(masked(model, kept)))
    assert count(kept, anatomy_of(model)).encoder == parameters_of_layers(small)
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())
    return small


@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=3, **QUIET)
@given(**PATTERNS)
def test_shrunk_is_masked(name: str, **drawn: Any) -> None:
    small = shrunk_is_masked(name, **drawn)
    # All that is left of it is left of a second shrinking too.
    again = shrink(small, Kept.all(anatomy_of(small)))
    assert type(again) is type(small) and again.config.to_dict() == small.config.to_dict()
    assert torch.equal(logits(again), logits(small))


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=200, **QUIET)
@given(**PATTERNS)
def test_shrunk_is_masked_on_many_patterns(name: str, **drawn: Any) -> None:
    shrunk_is_masked(name, **drawn)


@pytest.mark.parametrize("name", MODELS)
def test_an_encoder_is_shrunk_with_the_parts_that_it_was_built_with(name: str) -> None:
    """Its class takes more than the config: a pooler or none, a token for masked patches or none."""
    dense = make(name)
    kind, config = type(dense.base_model), dense.config
    known = inspect.signature(kind).parameters.keys() - {"config"}
    assert known <= {"add_pooling_layer", "use_mask_token"}  # what else makes a model differ from its config?
    for choice in itertools.product((False, True), repeat=len(known)):
        model = kind(config, **dict(zip(sorted(known), choice, strict=True))).double().eval()
        kept = pattern(model, 3, 0.6)
        whole, small = states(masked(model, kept)), shrink(model, kept)
        whole[0] = whole[0][..., kept.hidden != 0]
        for one in (small, shrink(small, Kept.all(anatomy_of(small)))):
            assert one.state_dict().keys() <= model.state_dict().keys()
            assert {n for n in model.state_dict() if "pool" in n or "mask" in n} <= one.state_dict().keys()
            for found, expected in zip(states(one), whole, strict=True):
                assert_same(found, expected)


def sizes(model: Any) -> list[tuple[int, int, int]]:
    """Heads, their size and feed-forward units of each layer."""
    found = anatomy_of(model).layers
    return [(one.attention.heads, one.attention.head_size, one.feed_forward.output.inputs) for one in found]


@pytest.mark.parametrize("name", MODELS)
def test_whatever_is_left_of_a_layer(name: str) -> None:
    """One head of one dimension, one unit; only biases; nothing; one layer after the other."""
    model, rotary = make(name), "modernbert" in name
    ones = Kept.all(anatomy_of(model))
    layer = ones.layers[0]
    first = torch.zeros_like(layer.value_output).index_fill(0, torch.tensor([1]), 1.0)
    thin = replace(layer, value_output=first, query_key=layer.query_key if rotary else first)
    wide = (
        torch.arange(len(layer.heads) * 4) % 4 < 3
    ).double()  # a size whose root is no power of 2 times the old one's
    three = replace(layer, value_output=wide, query_key=layer.query_key if rotary else wide)
    thin = replace(thin, units=torch.zeros_like(layer.units).index_fill(0, torch.tensor([4]), 1.0))
    bare = replace(layer, heads=layer.heads * 0, units=layer.units * 0)
    nothing = replace(layer, attention=0.0, feed_forward=0.0)
    half = replace(layer, attention=0.0)
    for own in (thin, three, bare, nothing, half, replace(bare, feed_forward=0.7)):
        kept = replace(ones, layers=(own, *ones.layers[1:]))
        assert_same(logits(shrink(model, kept)), logits(masked(model, kept)))
    assert sizes(shrink(model, replace(ones, layers=(thin, *ones.layers[1:]))))[0] == (1, 4 if rotary else 1, 1)
    every = replace(ones, layers=(nothing,) * len(ones.layers))
    assert_same(logits(shrink(model, every)), logits(masked(model, every)))


def test_what_transformers_can_describe_is_a_plain_model() -> None:
    model = make("bert")
    anatomy = anatomy_of(model)
    units, layers = anatomy.units("feed-forward unit"), anatomy.units("layer")
    kept = Kept.all(anatomy).without([unit for unit in units if unit.index > 3] + layers[:1])
    small = shrink(model.train(), kept)
    assert type(small) is transformers.BertForSequenceClassification and small.training
    assert (small.config.num_hidden_layers, small.config.intermediate_size) == (1, 4)
    assert small.config.model_type == "bert"
    assert_same(logits(small.eval()), logits(masked(model.eval(), kept)))
    uneven = Kept.all(anatomy).without(units[:1])
    assert type(shrink(model, uneven)).__name__ == "ShrunkBertForSequenceClassification"
    # Once its layers are alike again, it is a plain one again.
    ragged = shrink(model, uneven)
    second = [unit for unit in anatomy_of(ragged).units("feed-forward unit") if unit.layer == 1][:1]
    even = shrink(ragged, Kept.all(anatomy_of(ragged)).without(second))
    assert type(even) is transformers.BertForSequenceClassification
    assert not set(even.config.to_dict()) - set(model.config.to_dict())


def test_widths_are_in_the_config_and_reading_it_is_no_error() -> None:
    model = make("bert")
    anatomy = anatomy_of(model)
    gone = [*anatomy.units("head")[:1], *anatomy.units("feed-forward unit")[:3], *anatomy.units("hidden dimension")[:2]]
    gone += [unit for unit in anatomy.units("attention sub-layer") if unit.layer == 1]
    config = shrink(model, Kept.all(anatomy).without(gone)).config
    assert config.per_layer_config == {
        "0": {"num_attention_heads": 2, "intermediate_size": 7},
        "1": {"num_attention_heads": 0, "skip": ["attention"]},
    }
    assert (config.hidden_size, config.dense_hidden_size, config.head_dim) == (10, 12, 4)
    assert (config.num_attention_heads, config.intermediate_size) == (3, 10)
    assert config.model_type == "trainflat-bert"


@pytest.mark.parametrize("name", [name for name in MODELS if name != "vit"])
def test_words_are_rows_of_the_table(name: str) -> None:
    model = make(name)
    anatomy = anatomy_of(model)
    gone = [unit for unit in anatomy.units("vocabulary entry") if unit.index in (4, 6, 11, 23)]
    small = shrink(model, Kept.all(anatomy).without(gone))
    assert isinstance(small, type(model)) and small.config.vocab_size == 20
    new = [i - sum(i > one for one in (4, 6, 11)) for i in (1, 5, 7, 3, 2)]
    with torch.no_grad():
        before, after = (
            one(input_ids=torch.tensor([ids])).logits for one, ids in ((model, [1, 5, 7, 3, 2]), (small, new))
        )
    assert torch.equal(before, after)


def test_words_of_a_language_model_are_rows_of_its_decoder_too() -> None:
    torch.manual_seed(0)
    model = transformers.BertForMaskedLM(
        transformers.BertConfig(**SIZES | {"eos_token_id": 9, "bos_token_id": 4})
    ).eval()
    anatomy = anatomy_of(model)
    kept = Kept.all(anatomy).without(anatomy.units("vocabulary entry")[4:7])
    small = shrink(model, kept)
    rows = kept.vocabulary.bool()
    ids = torch.tensor([[1, 2, 3]])
    assert torch.equal(small(input_ids=ids).logits, model(input_ids=ids).logits[..., rows])
    assert small.cls.predictions.decoder.weight is small.bert.embeddings.word_embeddings.weight
    assert (small.config.eos_token_id, small.config.bos_token_id) == (6, None)


def test_a_shrunk_model_is_pruned_and_shrunk_again() -> None:
    model = make("mpnet")
    kept = pattern(model, 3, 0.7, ("heads", "units", "hidden"))
    small = shrink(model, kept)
    more = pattern(small, 4, 0.7, ("heads", "value_output", "units", "hidden", "sublayers"))
    smaller = shrink(small, more)
    assert_same(logits(smaller), logits(masked(small, more)))
    assert sum(p.numel() for p in smaller.parameters()) < sum(p.numel() for p in small.parameters())


def refused(model: Any, kept: Kept, why: str) -> None:
    with pytest.raises(InputError, match=why) as refusal:
        shrink(model, kept)
    assert "\n" not in str(refusal.value)


def test_what_is_not_exact_is_refused_by_name() -> None:
    tied = transformers.BertForMaskedLM(transformers.BertConfig(**SIZES))
    ones = Kept.all(anatomy_of(tied))
    refused(tied, ones.without(anatomy_of(tied).units("hidden dimension")[:1]), "BertForMaskedLM.*decoder is tied")
    refused(tied, replace(ones, vocabulary=ones.vocabulary * 0.5), "can be dropped, not scaled")
    heads = transformers.BertForPreTraining(transformers.BertConfig(**SIZES, tie_word_embeddings=False))
    refused(heads, ones.without(anatomy_of(tied).units("hidden dimension")[:1]), "BertForPreTraining.*not known")
    modern = make("modernbert")
    ones = Kept.all(anatomy_of(modern))
    scores = replace(ones.layers[0], query_key=ones.layers[0].query_key * 0.5)
    refused(modern, replace(ones, layers=(scores, *ones.layers[1:])), "query-key dimensions.*rotate")
    modern.config.rope_parameters["full_attention"]["rope_type"] = "linear"
    refused(modern, Kept.all(anatomy_of(modern)), "rotary positions of the type 'linear'")
    _, options = MODELS["deberta-v2"]
    convolved = transformers.DebertaV2Model(transformers.DebertaV2Config(**options, conv_kernel_size=3))
    ones = Kept.all(anatomy_of(convolved))
    refused(
        convolved, ones.without(anatomy_of(convolved).units("hidden dimension")[:1]), "convolution mixes all hidden"
    )
    assert shrink(convolved, ones.without(anatomy_of(convolved).units("layer")[:1])).config.num_hidden_layers == 2
    roberta = make("roberta")
    words = anatomy_of(roberta).units("vocabulary entry")
    refused(roberta, Kept.all(anatomy_of(roberta)).without(words[:1]), "counts positions from its padding token")
    bert = make("bert")
    ones = Kept.all(anatomy_of(bert))
    refused(bert, replace(ones, hidden=ones.hidden[1:]), "another model: hidden is")
    refused(bert, replace(ones, hidden=ones.hidden * 0), "no hidden dimension is kept")
    refused(bert, replace(ones, vocabulary=ones.vocabulary * 0), "no word is kept")
    refused(bert, replace(ones, hidden=ones.hidden * float("nan")), "not finite")


def test_parameters_by_cofis_count() -> None:
    """The numbers of CoFi's code for BERT-base: per head 64 · 4 · 768, per unit 2 · 768; biases in the denominator."""
    with torch.device("meta"):
        anatomy = anatomy_of(transformers.BertModel(transformers.BertConfig()))
    ones = Kept.all(anatomy)
    heads, units = anatomy.units("head"), anatomy.units("feed-forward unit")
    hidden = anatomy.units("hidden dimension")
    assert count(ones, anatomy).cofi_dense == 85_017_600
    assert count(ones, anatomy).encoder == 85_054_464  # LayerNorms: 12 · 2 · 2 · 768 more
    few = count(ones.without([*heads[7:], *units[100:], *hidden[700:]]), anatomy)
    assert few.cofi == 7 * 700 * 256 + 100 * 700 * 2
    assert few.cofi_sparsity == pytest.approx(1 - few.cofi / 85_017_600)


def test_every_architecture_is_shrunk() -> None:
    assert {name.split()[0] for name in MODELS} == set(FAMILIES)


def test_the_page_runs_and_its_states_are_the_codes(capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "structured.md").read_text(encoding="utf8")
    code = re.search(r"```python\n(.*?)```", page, flags=re.DOTALL)
    assert code is not None
    exec(compile(code[1], "structured.md", "exec"), {})  # noqa: S102
    said = capsys.readouterr().out
    assert "ShrunkBertForSequenceClassification {'0': {'num_attention_heads': 1, 'intermediate_size': 12}}" in said
    assert said.rstrip().endswith("True")
    assert re.findall(r"^\| `([a-z-]+)` \|", page, flags=re.MULTILINE)[:3] == list(get_args(State))
