"""The anatomy, over the architecture families: what it says goes together can be cut out, and nothing else changes."""

import copy
from collections import defaultdict
from collections.abc import Iterable
from functools import cache
from math import prod
from typing import Any

import pytest
import torch
import transformers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from tests.conftest import tiny_bert
from tests.support.masked import norm_over
from tests.support.tiny_families import MODELS, SIZES, logits, make
from trainflat.anatomy import FAMILIES, KINDS, Unit, anatomy_of, matrix_kinds
from trainflat.anatomy.params import prunable
from trainflat.core.errors import InputError, UnknownName


def without(model: Any, units: Iterable[Unit]) -> Any:
    """A copy whose tensors lack the units' entries: what a shrinker does, with nothing but the slices."""
    narrow = copy.deepcopy(model)
    gone: dict[tuple[str, int], set[int]] = defaultdict(set)
    for unit in units:
        for one in unit.slices:
            gone[one.tensor, one.axis].update(range(one.start, one.stop))
    for (name, axis), entries in gone.items():
        path, _, last = name.rpartition(".")
        module = narrow.get_submodule(path)
        tensor = getattr(module, last)
        kept = torch.tensor([i for i in range(tensor.shape[axis]) if i not in entries])
        setattr(module, last, nn.Parameter(tensor.detach().index_select(axis, kept)))
        if isinstance(module, nn.LayerNorm):
            module.normalized_shape = tuple(module.weight.shape)
    return narrow


def masked(model: Any, units: Iterable[Unit]) -> Any:
    """A copy in which what reads the units reads zeros; what computes them computes noise."""
    silent = copy.deepcopy(model)
    tensors = dict(silent.named_parameters(remove_duplicate=False))
    with torch.no_grad():
        for unit in units:
            for slices, value in ((unit.producers, 3.0), (unit.consumers, 0.0)):
                for one in slices:
                    tensors[one.tensor].narrow(one.axis, one.start, one.stop - one.start).fill_(value)
    return silent


unchanged = cache(make)  # for tests that change copies of it
FREE = ("head", "value-output dimension", "feed-forward unit")  # silent as soon as nothing reads them


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("kind", FREE)
@settings(max_examples=3, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(data=st.data())
def test_what_nothing_reads_can_be_anything(name: str, kind: str, data: st.DataObject) -> None:
    model = unchanged(name)
    units = data.draw(st.lists(st.sampled_from(anatomy_of(model).units(kind)), unique=True))
    silent = masked(model, units)
    zeroed = masked(model, units)
    tensors = dict(zeroed.named_parameters(remove_duplicate=False))
    with torch.no_grad():
        for one in (s for unit in units for s in unit.slices):
            tensors[one.tensor].narrow(one.axis, one.start, one.stop - one.start).zero_()
    torch.testing.assert_close(logits(silent), logits(zeroed), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", MODELS)
def test_units_are_cut_out_as_if_they_had_been_silent(name: str) -> None:
    """Feed-forward units, and the last head of each layer, where transformers keeps how many there are."""
    model = make(name)
    anatomy = anatomy_of(model)
    units = [unit for unit in anatomy.units("feed-forward unit") if unit.index in (0, 3)]
    units += [unit for unit in anatomy.units("head") if unit.index == 2]
    narrow = without(model, units)
    for module in narrow.modules():
        for count in ("num_attention_heads", "num_heads", "n_heads"):
            if isinstance(getattr(module, count, None), int):
                setattr(module, count, 2)
        if hasattr(module, "all_head_size"):
            module.all_head_size = 8
    if "MPNet" in type(model).__name__:  # the last head's column of the table that all layers share
        table = narrow.mpnet.encoder.relative_attention_bias
        table.weight = nn.Parameter(table.weight.detach()[:, :2])
    torch.testing.assert_close(logits(narrow), logits(masked(model, units)), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", MODELS)
def test_hidden_dimensions_are_cut_out_as_if_they_had_been_silent(name: str) -> None:
    model = make(name)
    gone = (1, 6, 7)
    units = [unit for unit in anatomy_of(model).units("hidden dimension") if unit.index in gone]
    silent = masked(model, units)
    kept = torch.tensor([i not in gone for i in range(12)], dtype=torch.float64)
    hidden = {one.tensor for unit in units for one in unit.producers}
    for path, module in silent.named_modules():
        if isinstance(module, nn.LayerNorm) and f"{path}.weight" in hidden:
            norm_over(module, kept)
    torch.testing.assert_close(logits(without(model, units)), logits(silent), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", MODELS)
def test_units_of_a_kind_do_not_overlap_and_leave_nothing_out(name: str) -> None:
    model = make(name)
    anatomy = anatomy_of(model)
    shapes = {n: tuple(p.shape) for n, p in model.named_parameters(remove_duplicate=False)}
    inner = {"head", "value-output dimension", "feed-forward unit", "query-key dimension", "vocabulary entry"}
    for kind in inner - set(anatomy.missing):
        spans = defaultdict(list)
        for one in (s for unit in anatomy.units(kind) for s in unit.slices):
            spans[one.tensor, one.axis].append((one.start, one.stop))
        assert spans
        for found in spans.values():
            entries = [i for span in found for i in range(*span)]
            assert len(set(entries)) == len(entries)
    heads = [s for unit in anatomy.units("head") for s in unit.slices]
    size = sum((s.stop - s.start) * prod(shapes[s.tensor]) // shapes[s.tensor][s.axis] for s in heads)
    attention = [n for n, (_, k) in anatomy.matrices().items() if k in ("query", "key", "value", "query_key_value")]
    outputs = [n for n, (_, k) in anatomy.matrices().items() if k == "attention_output"]
    biases = [shapes[b][0] for n in attention if (b := n.replace(".weight", ".bias")) in shapes]
    assert size == sum(prod(shapes[n]) for n in attention + outputs) + sum(biases)


@pytest.mark.parametrize("name", MODELS)
def test_its_matrices_are_those_that_are_pruned(name: str) -> None:
    model = make(name)
    pruned = prunable(model)
    assert anatomy_of(model).matrices().keys() == pruned.keys()
    kinds = {kind for _, kind in matrix_kinds(model, pruned).values()}
    assert kinds - {"pooler"} >= {"attention_output", "ffn_in", "ffn_out"}


def test_every_known_architecture_is_tested() -> None:
    assert {name.split()[0] for name in MODELS} == set(FAMILIES)


@pytest.mark.parametrize("kind", ["attention sub-layer", "feed-forward sub-layer", "layer"])
def test_parts_of_layers_hold_all_but_their_norms(kind: str) -> None:
    model = tiny_bert()
    units = anatomy_of(model).units(kind)
    assert [unit.layer for unit in units] == [0, 1]
    named = {one.tensor for unit in units for one in unit.slices}
    inside = {name for name, _ in model.named_parameters() if ".layer." in name and "LayerNorm" not in name}
    part = {"attention sub-layer": ".attention.", "feed-forward sub-layer": "", "layer": ""}[kind]
    expected = {name for name in inside if part in name}
    if kind == "feed-forward sub-layer":
        expected -= {name for name in inside if ".attention." in name}
    assert named == expected


def test_tied_and_absent_words() -> None:
    tied = transformers.BertForMaskedLM(transformers.BertConfig(**SIZES))
    assert len(anatomy_of(tied).units("vocabulary entry")) == SIZES["vocab_size"]
    with pytest.raises(InputError, match="ViT has no units of the kind 'vocabulary entry': it reads no words"):
        anatomy_of(make("vit")).units("vocabulary entry")


def test_what_cannot_be_said_is_refused_in_one_line() -> None:
    squeeze = transformers.SqueezeBertModel(
        transformers.SqueezeBertConfig(**SIZES | {"embedding_size": 12, "intermediate_size": 12})
    )
    with pytest.raises(
        InputError,
        match=r"structure of 'squeezebert' is not known.*Known: albert.*write a Layout.*in trainflat/anatomy",
    ):
        anatomy_of(squeeze)
    assert matrix_kinds(squeeze, ["encoder.layers.0.attention.query.weight"]) == {
        "encoder.layers.0.attention.query.weight": (0, "attention.query")
    }
    with pytest.raises(InputError, match="ModernBERT has no units of the kind 'query-key dimension': rotary"):
        anatomy_of(make("modernbert")).units("query-key dimension")
    with pytest.raises(InputError, match="ALBERT has no units of the kind 'layer': all layers share"):
        anatomy_of(make("albert")).units("layer")
    with pytest.raises(UnknownName, match=r"kind of unit.*'heads'.*Did you mean 'head'"):
        anatomy_of(tiny_bert()).units("heads")
    assert len(KINDS) == 9
