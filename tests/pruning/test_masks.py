"""Masks: exact counts, exact files."""

import copy
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from trainflat.anatomy.params import prunable
from trainflat.core.errors import DamagedFile, InputError, ZerosRevived
from trainflat.core.files import save_tensors
from trainflat.pruning import Masks, shuffled_within_layers

shapes = st.lists(st.integers(0, 9), max_size=3).map(tuple)
bits = st.dictionaries(st.text("ab.", min_size=1, max_size=3), shapes, max_size=4).flatmap(
    lambda sizes: st.integers(0, 2**32 - 1).map(
        lambda seed: {
            name: torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < 0.4
            for name, shape in sizes.items()
        }
    )
)


@settings(max_examples=60, deadline=None)
@given(bits)
def test_what_goes_in_comes_out(tensors):
    masks = Masks(tensors)
    assert list(masks) == list(tensors)
    assert all(torch.equal(masks[name], mask) and masks[name].dtype == torch.bool for name, mask in tensors.items())
    assert masks.entries == sum(mask.numel() for mask in tensors.values())
    assert masks.zeros == sum(int((~mask).sum()) for mask in tensors.values())
    assert [(m.name, m.entries, m.zeros) for m in masks.statistics()] == [
        (name, mask.numel(), int((~mask).sum())) for name, mask in tensors.items()
    ]
    assert Masks(masks) == masks
    assert pickle.loads(pickle.dumps(masks)) == copy.deepcopy(masks) == masks


@settings(max_examples=60, deadline=None)
@given(bits)
def test_files_bring_masks_back(tmp_path_factory, tensors):
    path = tmp_path_factory.getbasetemp() / "masks.safetensors"
    masks = Masks(tensors)
    masks.save(path)
    loaded = Masks.load(path)
    assert loaded == masks
    assert list(loaded) == list(masks)
    assert loaded.statistics() == masks.statistics()


def some_masks():
    return Masks({"b": torch.arange(21).view(3, 7) % 3 > 0, "a": torch.tensor([True, False])})


def test_one_bit_per_entry_on_disk(tmp_path):
    Masks({"a": torch.ones(800, 1000, dtype=torch.bool)}).save(tmp_path / "m")
    assert 100_000 <= (tmp_path / "m").stat().st_size < 100_600


def test_immutable():
    masks = some_masks()
    masks["a"].fill_(False)
    assert masks["a"].tolist() == [True, False]


def test_every_flipped_bit_is_noticed(tmp_path):
    path, masks = tmp_path / "m", some_masks()
    masks.save(path)
    whole = path.read_bytes()
    for place in range(len(whole)):
        for bit in (1, 64):
            damaged = bytearray(whole)
            damaged[place] ^= bit
            path.write_bytes(bytes(damaged))
            try:
                assert Masks.load(path) == masks  # a bit that means nothing, such as padding of the header
            except DamagedFile as error:
                assert str(path) in str(error)


def test_every_truncated_file_is_noticed(tmp_path):
    path = tmp_path / "m"
    some_masks().save(path)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(DamagedFile, match="m "):
            Masks.load(path)


def test_other_files_are_not_masks(tmp_path):
    path = tmp_path / "m"
    with pytest.raises(DamagedFile, match="If trainflat wrote it, it is damaged: move it away"):
        Masks.load(path)
    save_tensors(path, {"a": torch.ones(3)})
    with pytest.raises(DamagedFile, match="does not hold the masks"):
        Masks.load(path)


def test_hash_sees_names_shapes_and_bits_but_not_order():
    masks = some_masks()
    assert Masks({name: masks[name] for name in ("a", "b")}).sha256 == masks.sha256
    flipped = masks["b"]
    flipped[0, 0] = ~flipped[0, 0]
    others = [
        {"c": masks["b"], "a": masks["a"]},
        {"b": masks["b"].view(7, 3), "a": masks["a"]},
        {"b": flipped, "a": masks["a"]},
        {"b": masks["b"]},
    ]
    assert len({Masks(other).sha256 for other in others} | {masks.sha256}) == 5
    assert masks != others[0]


def test_subsets():
    masks, all_kept = some_masks(), Masks.ones({"b": torch.empty(3, 7), "a": torch.empty(2)})
    assert masks.issubset(masks)
    assert masks.issubset(all_kept)
    assert not all_kept.issubset(masks)
    with pytest.raises(InputError, match="there is no b in the other masks"):
        masks.issubset(Masks({"a": torch.ones(2, dtype=torch.bool)}))


def test_only_booleans_are_masks():
    with pytest.raises(InputError, match=r"the mask of a has dtype torch\.float32"):
        Masks({"a": torch.ones(2)})


def test_ones_covers_the_prunable_weights(tiny_model):
    masks = Masks.ones(tiny_model)
    assert masks.shapes == {name: tuple(w.shape) for name, w in prunable(tiny_model).items()}
    assert (masks.zeros, masks.sparsity) == (0, 0)


def half(model):
    return shuffled_within_layers(
        Masks({n: torch.arange(w.numel()).view(w.shape) % 2 > 0 for n, w in prunable(model).items()}), 1
    )


def test_applied_masks_zero_what_they_drop_and_nothing_else(tiny_model):
    masks, before = half(tiny_model), copy.deepcopy(tiny_model.state_dict())
    poison = next(iter(masks))
    with torch.no_grad():
        prunable(tiny_model)[poison][~masks[poison]] = torch.tensor(torch.inf)
    masks.apply_(tiny_model)
    masks.check(tiny_model)
    for name, tensor in tiny_model.state_dict().items():
        assert torch.equal(tensor, before[name] * masks[name] if name in masks else before[name])


@pytest.mark.parametrize("value", [1e-45, -1.0, float("nan"), float("inf")])
def test_revived_weights_are_named_and_counted(tiny_model, value):
    masks = half(tiny_model)
    masks.apply_(tiny_model)
    name = list(masks)[3]
    with torch.no_grad():
        weight = prunable(tiny_model)[name]
        places = (~masks[name]).nonzero()[-2:]
        weight[places[:, 0], places[:, 1]] = value
    with pytest.raises(ZerosRevived, match=f"^2 of {weight.numel() // 2} pruned weights of {name} are not zero"):
        masks.check(tiny_model)


def test_weights_that_are_no_numbers_are_not_blamed_on_the_masks(tiny_model):
    masks = half(tiny_model)
    masks.apply_(tiny_model)
    name = next(iter(masks))
    with torch.no_grad():
        prunable(tiny_model)[name].fill_(torch.nan)
    with pytest.raises(ZerosRevived, match=r"256 of its 256 weights are NaN or infinite. It is the training that dive"):
        masks.check(tiny_model)


def test_masks_of_another_architecture_change_nothing():
    model, other = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3)), nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    before = copy.deepcopy(model.state_dict())
    masks = half(other)
    for act in (masks.apply_, masks.check, masks.hold):
        with pytest.raises(
            InputError, match=r"1.weight is masked with shape \[2, 4\], but in the model it has \[3, 4\]"
        ):
            act(model)
        with pytest.raises(InputError, match=r"there is no 1\.weight in the model"):
            act(model[:1])
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_negative_zero_is_zero():
    layer = nn.Linear(1, 1)
    with torch.no_grad():
        layer.weight.fill_(-0.0)
    Masks({"weight": torch.tensor([[False]])}).check(layer)
