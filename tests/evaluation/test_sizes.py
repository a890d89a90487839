"""Sizes: against counts done by hand, and against bytes that are really written and read back."""

import zlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import nn
from transformers import AlbertConfig, AlbertForSequenceClassification, BertForSequenceClassification

from trainflat.anatomy.params import prunable
from trainflat.core.errors import ZerosRevived
from trainflat.core.positions import gap_bytes
from trainflat.evaluation import SPEED_NOTE, check_zeros, matrix_zeros, measure_sizes
from trainflat.evaluation.sizes import index_forms
from trainflat.pruning import Masks

patterns = arrays(bool, st.integers(0, 1500), elements=st.booleans(), fill=st.just(False))


def read_gaps(stream: bytes, entries: int) -> np.ndarray:
    """Slow reader of gap bytes, one byte at a time."""
    kept, position = np.zeros(entries, dtype=bool), 0
    for byte in stream:
        position += byte
        if byte != 255:
            kept[position] = True
            position += 1
    return kept


READERS = {
    "bits": lambda index, n: np.unpackbits(np.frombuffer(index, np.uint8), count=n).astype(bool),
    "zlib": lambda index, n: np.unpackbits(np.frombuffer(zlib.decompress(index), np.uint8), count=n).astype(bool),
    "gaps": read_gaps,
}


@given(patterns)
def test_every_index_can_be_read_back(kept: np.ndarray) -> None:
    forms = index_forms(kept)
    assert forms.keys() == READERS.keys()
    for name, index in forms.items():
        np.testing.assert_array_equal(READERS[name](index, len(kept)), kept)


@pytest.mark.parametrize("gap", [0, 1, 254, 255, 256, 509, 510, 511])
def test_gaps_around_the_escape(gap: int) -> None:
    kept = np.zeros(gap + 1, dtype=bool)
    kept[gap] = True
    assert len(gap_bytes(kept)) == gap // 255 + 1
    np.testing.assert_array_equal(read_gaps(gap_bytes(kept), gap + 1), kept)


def linear(entries: list[list[float]]) -> nn.Linear:
    layer = nn.Linear(len(entries[0]), len(entries))
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(entries))
        layer.bias.fill_(1.0)
    return layer


def test_bytes_counted_by_hand() -> None:
    """3 × 7 entries, 2 of them not zero: 21 bits are 3 bytes, gaps 3 and 16 are 2 bytes; the bias stays dense."""
    weights = torch.zeros(21)
    weights[3], weights[20] = 0.5, -2.0
    sizes = measure_sizes(linear(weights.view(3, 7).tolist()))
    assert (sizes.parameters, sizes.nonzero) == (24, 5)
    assert sizes.encoder_sparsity == pytest.approx(19 / 21)
    assert sizes.total_sparsity == pytest.approx(19 / 24)
    assert sizes.dense_bytes == 4 * 24
    assert sizes.bitmask_bytes == 4 * 3 + 4 * 2 + 3
    assert sizes.packed_bytes == 4 * 3 + 4 * 2 + 2


def test_a_matrix_without_zeros_stays_dense() -> None:
    sizes = measure_sizes(linear([[1.0] * 5] * 4))
    assert sizes.dense_bytes == sizes.bitmask_bytes == sizes.packed_bytes == 4 * 24
    assert sizes.encoder_sparsity == sizes.total_sparsity == 0.0


def test_a_matrix_of_zeros_costs_next_to_nothing() -> None:
    sizes = measure_sizes(linear([[0.0] * 100] * 100))
    assert sizes.bitmask_bytes == 400 + 1250
    assert sizes.packed_bytes == 400  # no value, no gap
    assert sizes.encoder_sparsity == 1.0


def test_without_prunable_matrices_all_is_dense() -> None:
    sizes = measure_sizes(nn.LayerNorm(4))
    assert (sizes.dense_bytes, sizes.bitmask_bytes, sizes.packed_bytes) == (32, 32, 32)
    assert (sizes.encoder_sparsity, sizes.total_sparsity) == (0.0, 0.5)  # the bias starts as zeros


def prune(model: nn.Module, share: float) -> dict[str, torch.Tensor]:
    """Zeroes exactly round(share * n) random entries per matrix; what is kept."""
    generator, kept = torch.Generator().manual_seed(0), {}
    with torch.no_grad():
        for name, weight in prunable(model).items():
            order = torch.randperm(weight.numel(), generator=generator)
            kept[name] = (order >= round(share * weight.numel())).view_as(weight)
            weight.normal_(generator=generator).mul_(kept[name])
    return kept


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.97])
def test_sizes_of_a_model_are_those_of_its_parts(tiny_model: BertForSequenceClassification, share: float) -> None:
    kept = prune(tiny_model, share)
    sizes, zeros = measure_sizes(tiny_model), matrix_zeros(tiny_model)
    entries = sum(m.numel() for m in kept.values())
    dropped = sum(round(share * m.numel()) for m in kept.values())
    assert [z.name for z in zeros] == list(kept)
    assert sum(z.entries for z in zeros) == entries
    assert [z.zeros for z in zeros] == [round(share * m.numel()) for m in kept.values()]
    assert sizes.encoder_sparsity == pytest.approx(dropped / entries, abs=1e-12)
    assert sizes.parameters == sum(p.numel() for p in tiny_model.parameters())
    assert sizes.parameters - sizes.nonzero == sum(int((p == 0).sum()) for p in tiny_model.parameters())
    assert sizes.packed_bytes <= sizes.bitmask_bytes <= sizes.dense_bytes
    if share >= 0.3:
        bits = sum(-(-m.numel() // 8) + 4 * int(m.sum()) for m in kept.values())
        assert sizes.bitmask_bytes == sizes.dense_bytes - 4 * entries + bits


@pytest.mark.parametrize("share", [0.9, 0.97])
def test_the_packed_index_comes_near_the_entropy_of_the_mask(share: float) -> None:
    """Never below the bound -p log p - q log q bits per entry, and within the factor that the form costs."""
    generator = np.random.default_rng(0)
    kept = generator.random(200_000) >= share
    p = kept.mean()
    bound = len(kept) * -(p * np.log2(p) + (1 - p) * np.log2(1 - p)) / 8
    smallest = min(map(len, index_forms(kept).values()))
    assert bound <= smallest <= 1.35 * bound


def test_shared_matrices_count_once() -> None:
    sizes_of = {
        "vocab_size": 20,
        "embedding_size": 4,
        "hidden_size": 8,
        "num_attention_heads": 2,
        "intermediate_size": 12,
    }
    one, three = (
        AlbertForSequenceClassification(AlbertConfig(**sizes_of, num_hidden_layers=n, max_position_embeddings=8))
        for n in (1, 3)
    )
    assert measure_sizes(one).parameters == measure_sizes(three).parameters
    assert [z.name for z in matrix_zeros(one)] == [z.name for z in matrix_zeros(three)]


def test_half_precision_counts_as_float32(tiny_model: BertForSequenceClassification) -> None:
    whole = measure_sizes(tiny_model)
    assert measure_sizes(tiny_model.bfloat16()).dense_bytes == whole.dense_bytes


def test_no_figure_for_zeros_that_have_revived(tiny_model: BertForSequenceClassification) -> None:
    masks = Masks(prune(tiny_model, 0.5))
    check_zeros(tiny_model, masks)
    assert measure_sizes(tiny_model, masks).encoder_sparsity == pytest.approx(0.5)
    name, weight = next(iter(prunable(tiny_model).items()))
    with torch.no_grad():
        weight.add_(1e-30)
    with pytest.raises(ZerosRevived, match=name):
        check_zeros(tiny_model, masks)
    with pytest.raises(ZerosRevived):
        measure_sizes(tiny_model, masks)


def test_the_note_says_that_zeros_do_not_speed_up() -> None:
    assert "not time" in SPEED_NOTE
    assert "\n" not in SPEED_NOTE
