"""The cut is exact: it keeps what a stable full sort keeps, whatever the numbers and their order."""

import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import prune

from tests.support.marks import quick
from trainflat.core.errors import InputError, UnknownName
from trainflat.pruning import MagnitudePruner, Magnitudes, Masks, cut, keep_highest, keys


@pytest.fixture(scope="module", params=["whole", "pieces", "threads"], autouse=True)
def sizes(request):
    """Small inputs as they are; and as if they were large: many pieces, a sample that does not see everything."""
    if request.param == "whole":
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keys, "PIECE", 16)
        patch.setattr(cut, "_SMALL", 0)
        patch.setattr(cut, "_STRIDE", 7)
        if request.param == "threads":
            patch.setattr(torch, "get_num_threads", lambda: 3)
        yield


def by_sorting(scores, drop, held=None):
    """The slow reference: one stable sort of everything, in float64."""
    flat = torch.cat([t.double().flatten() for t in scores.values()])
    still = torch.cat([held[name].flatten() if held else torch.ones(t.numel()) > 0 for name, t in scores.items()])
    places = still.nonzero().flatten()
    order = places[torch.sort(flat[places] + 0.0, stable=True).indices]  # -0.0 + 0.0 is 0.0
    kept = still.clone()
    kept[order[: drop - int((~still).sum())]] = False
    parts = kept.split([t.numel() for t in scores.values()])
    return {name: part.view(t.shape) for (name, t), part in zip(scores.items(), parts, strict=True)}


def same(masks, expected):
    return list(masks) == list(expected) and all(torch.equal(masks[name], expected[name]) for name in expected)


TIED = [0.0, -0.0, 1.0, -1.0, 2.0, 1e-45, -1e-45, 3e38, float("inf"), float("-inf")]
values = st.lists(st.one_of(st.sampled_from(TIED), st.floats(width=32, allow_nan=False)), max_size=60)
named = st.lists(values, min_size=1, max_size=4).map(
    lambda lists: {f"m{i}": torch.tensor(numbers, dtype=torch.float32) for i, numbers in enumerate(lists)}
)
shares = st.floats(0, 1, exclude_max=True)


def size(scores):
    return sum(t.numel() for t in scores.values())


@settings(max_examples=60, deadline=None)
@given(named, shares, st.booleans())
def test_equals_a_stable_sort(scores, share, absolute):
    masks = keep_highest(Magnitudes(scores) if absolute else scores, share)
    compared = {name: t.abs() for name, t in scores.items()} if absolute else scores
    assert same(masks, by_sorting(compared, round(share * size(scores))))
    assert masks.zeros == round(share * size(scores))


@settings(max_examples=60, deadline=None)
@given(named, shares, shares, st.booleans(), st.sampled_from(["global", "layer"]))
def test_sparser_is_a_subset_of_denser(scores, one, other, absolute, scope):
    denser, sparser = sorted((one, other))
    scores = Magnitudes(scores) if absolute else scores
    assert keep_highest(scores, sparser, scope).issubset(keep_highest(scores, denser, scope))


@settings(max_examples=60, deadline=None)
@given(named, st.integers(0, 100), shares, shares, st.booleans())
def test_what_is_pruned_goes_first_whatever_its_score(before, seed, one, other, absolute):
    generator = torch.Generator().manual_seed(seed)
    now = {name: t[torch.randperm(len(t), generator=generator)] for name, t in before.items()}
    denser, sparser = sorted((one, other))
    held = keep_highest(before, denser)
    masks = keep_highest(Magnitudes(now) if absolute else now, sparser, masks=held)
    compared = {name: t.abs() for name, t in now.items()} if absolute else now
    assert masks.issubset(held)
    assert same(masks, by_sorting(compared, round(sparser * size(now)), held))


@settings(max_examples=60, deadline=None)
@given(named, shares)
def test_a_second_cut_at_the_same_share_changes_nothing(scores, share):
    masks = keep_highest(scores, share)
    assert keep_highest(scores, share, masks=masks) == masks


@settings(max_examples=60, deadline=None)
@given(named, shares)
def test_per_layer_counts_each_tensor(scores, share):
    masks = keep_highest(scores, share, scope="layer")
    assert [m.zeros for m in masks.statistics()] == [round(share * t.numel()) for t in scores.values()]
    for name, t in scores.items():
        assert same(keep_highest({name: t}, share), {name: masks[name]})


def test_the_first_of_equal_scores_go():
    scores = {"a": torch.tensor([[1.0, 0.0], [-0.0, 1.0]]), "b": torch.tensor([0.0, 1.0])}
    masks = keep_highest(scores, 4 / 6)  # three zeros of either sign, then the first 1
    assert masks["a"].tolist() == [[False, False], [False, True]]
    assert masks["b"].tolist() == [False, True]


def test_nothing_goes_at_sparsity_0_not_even_zeros():
    assert keep_highest({"a": torch.zeros(5)}, 0.0).zeros == 0
    assert keep_highest(Magnitudes({"a": torch.zeros(5)}), 0.0).zeros == 0


def arrangements():
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn(40_000, generator=generator)
    yield "normal", normal
    yield "sorted", normal.sort().values
    yield "falling", normal.sort(descending=True).values
    yield "constant", torch.full((40_000,), -2.5)
    yield "mostly zero", normal * (normal.abs() > 1.5)
    yield "two values", (normal > 0.3).float()
    yield "rounded", (normal * 4).round() / 4
    yield "heavy tails", normal.exp().pow(9)
    yield "subnormal", normal * 1e-42
    yield "infinite ends", torch.where(normal.abs() > 1.6, normal * torch.inf, normal)
    for stride in (7, 257):  # the sample sees only these
        seen = normal.clone()
        seen[::stride] = 100.0
        yield f"every {stride}th large", seen
        seen = normal.clone()
        seen[::stride] = 0.0
        yield f"every {stride}th zero", seen.clone()
        seen[:25_000] = 0.0
        yield f"every {stride}th and most zero", seen.abs()


@pytest.mark.parametrize("share", quick([1e-4, 0.5, 0.9, 0.9999], 0.5, 0.9999))
@pytest.mark.parametrize(("flat"), [pytest.param(t, id=name) for name, t in arrangements()])
def test_any_distribution_and_order(flat, share, monkeypatch):
    monkeypatch.setattr(keys, "PIECE", 4096)
    scores = {"a": flat[:15_000].view(100, 150), "b": flat[15_000:15_003], "c": flat[15_003:]}
    assert same(keep_highest(scores, share), by_sorting(scores, round(share * 40_000)))
    magnitudes = {name: t.abs() for name, t in scores.items()}
    assert same(keep_highest(Magnitudes(scores), share), by_sorting(magnitudes, round(share * 40_000)))


def test_a_misleading_sample_falls_back_to_counting_digits(monkeypatch):
    monkeypatch.setattr(cut, "_SMALL", 0)
    monkeypatch.setattr(cut, "_STRIDE", 257)
    monkeypatch.setattr(keys, "PIECE", 4096)
    called = []
    by_digits = cut._by_digits
    monkeypatch.setattr(cut, "_by_digits", lambda *a: called.append(a) or by_digits(*a))
    flat = torch.randn(40_000, generator=torch.Generator().manual_seed(0))
    assert same(keep_highest({"a": flat}, 0.9), by_sorting({"a": flat}, 36_000))
    assert not called
    flat[:: cut._STRIDE] = 100.0
    assert same(keep_highest({"a": flat}, 0.9), by_sorting({"a": flat}, 36_000))
    assert len(called) == 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_counting_digits_is_exact_for_every_dtype(dtype, share, monkeypatch):
    monkeypatch.setattr(keys, "PIECE", 1024)
    flat = torch.randn(5_000, generator=torch.Generator().manual_seed(1)).to(dtype)
    for scores, compared in (({"a": flat}, flat), (Magnitudes({"a": flat}), flat.abs())):
        drop = round(share * 5_000)
        order = keys.Keys(scores)
        if drop:
            masks = Masks.of_packed(cut.pack_kept(order, cut._by_digits(order, drop)), {"a": (5_000,)})
            assert same(masks, by_sorting({"a": compared}, drop))
        assert same(keep_highest(scores, share), by_sorting({"a": compared}, drop))


def test_mixed_dtypes_are_compared_by_value():
    generator = torch.Generator().manual_seed(2)
    kinds = (torch.float16, torch.float64, torch.bfloat16, torch.float32)
    scores = {str(kind): torch.randn(3, 50, generator=generator).to(kind) for kind in kinds}
    assert same(keep_highest(scores, 0.7), by_sorting(scores, 420))


def test_strided_tensors_are_read_in_index_order():
    base = torch.randn(60, 80, generator=torch.Generator().manual_seed(3))
    scores = {"a": base.T, "b": base[::2, 1::3], "c": torch.tensor(0.0)}
    assert same(keep_highest(scores, 0.6), by_sorting(scores, round(0.6 * size(scores))))


@pytest.mark.parametrize("shapes", [[(5, 7)], [(64, 48), (1, 9), (300, 41)], [(31, 257)] * 3], ids=str)
@pytest.mark.parametrize("sparsity", [0.1, 0.5, 0.9])
def test_keeps_what_torch_keeps(shapes, sparsity):
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Linear(columns, rows) for rows, columns in shapes))
    with torch.no_grad():  # torch's cut leaves open which of equal weights stay
        places = torch.randperm(sum(layer.weight.numel() for layer in model)) + 1.0
        for layer, part in zip(model, places.split([m.weight.numel() for m in model]), strict=True):
            layer.weight.copy_(part.view_as(layer.weight) * torch.randn_like(layer.weight).sign())
    masks = MagnitudePruner(model, sparsity=sparsity).select()
    prune.global_unstructured(
        [(layer, "weight") for layer in model], pruning_method=prune.L1Unstructured, amount=sparsity
    )
    assert all(torch.equal(masks[f"{i}.weight"], layer.weight_mask.bool()) for i, layer in enumerate(model))


@pytest.mark.parametrize("number", [float("nan"), -float("nan")])
@pytest.mark.parametrize("share", [0.0, 0.5])
@pytest.mark.parametrize("scope", ["global", "layer"])
def test_nan_names_its_matrix(number, share, scope):
    scores = {
        "fine": torch.ones(50),
        "broken": torch.from_numpy(np.full(50, number, np.float32)).copysign(torch.ones(1)),
    }
    scores["broken"] = -scores["broken"] if np.signbit(number) else scores["broken"]
    for given_scores in (scores, Magnitudes(scores)):
        with pytest.raises(InputError, match=r"^the scores of broken contain NaN"):
            keep_highest(given_scores, share, scope)


def test_nan_of_a_pruned_entry_is_still_refused():
    held = Masks({"a": torch.tensor([False, True])})
    with pytest.raises(InputError, match="NaN"):
        keep_highest({"a": torch.tensor([torch.nan, 1.0])}, 0.5, masks=held)


@pytest.mark.parametrize("sparsity", [-0.1, 1.0, 1.5, float("nan"), "0.5", None, 50])
def test_sparsity_is_a_share(sparsity):
    with pytest.raises(InputError) as error:
        keep_highest({"a": torch.ones(2)}, sparsity)
    assert str(error.value) == f"sparsity is the share of weights to drop, in [0, 1), got {sparsity!r}."


def test_refusals():
    scores = {"a": torch.ones(4)}
    half = Masks({"a": torch.tensor([True, False, True, False])})
    with pytest.raises(UnknownName, match=r"no scope is called 'layers'\. Did you mean 'layer'"):
        keep_highest(scores, 0.5, "layers")
    with pytest.raises(InputError, match="no scores"):
        keep_highest({}, 0.5)
    with pytest.raises(InputError, match=r"a have dtype torch\.int64"):
        keep_highest({"a": torch.ones(4).long()}, 0.5)
    with pytest.raises(InputError, match="there is no b in the masks already held"):
        keep_highest({"a": torch.ones(4), "b": torch.ones(4)}, 0.5, masks=half)
    with pytest.raises(InputError, match=r"a is masked with shape \[2, 2\], but .* it has \[4\]"):
        keep_highest({"a": torch.ones(2, 2)}, 0.5, masks=half)
    with pytest.raises(
        InputError, match=r"sparsity 0.25 drops 1 of 4 entries of the weights, but 2 are pruned already"
    ):
        keep_highest(scores, 0.25, masks=half)
    with pytest.raises(InputError, match="4 entries of a, but 2"):
        keep_highest(scores, 0.25, "layer", masks=half)


@pytest.mark.parametrize("kind", ["normal", "constant", "misleading"])
def test_little_memory_whatever_the_weights(kind, monkeypatch):
    monkeypatch.setattr(keys, "PIECE", 1 << 14)
    monkeypatch.setattr(cut, "_STRIDE", 257)
    weights = torch.randn(2_000_000, generator=torch.Generator().manual_seed(0))
    if kind == "constant":
        weights.fill_(0.5)
    if kind == "misleading":
        weights[::257] = 100.0
    tracemalloc.start()
    masks = keep_highest(Magnitudes({"a": weights}), 0.9)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert masks.zeros == 1_800_000
    assert peak < 4e6  # of 8 MB of weights no copy is made; counting digits takes three tables of half a megabyte
