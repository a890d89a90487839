"""Sparse files: any matrix comes back, the bytes are near what entropy allows, and whoever loads gets the same bits."""

import json
import subprocess
import sys
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor
from transformers import AutoModelForSequenceClassification
from transformers.quantizers import auto

import trainflat
from tests.conftest import tiny_bert
from tests.support.exports import pruned, same_bits, same_model
from tests.support.families import FAMILIES, config, write
from tests.support.fresh import run_fresh
from trainflat.anatomy.params import prunable
from trainflat.core.errors import InputError
from trainflat.core.files import is_sealed, load_tensors, save_tensors, seal, verify
from trainflat.core.positions import BITS_DEFLATED, GAPS_DEFLATED, decode, encode
from trainflat.core.registration import register
from trainflat.export import save_sparse
from trainflat.export.native import SparseQuantizer
from trainflat.export.packed import INDEX, SCALES, pack, packed_bytes, unpack
from trainflat.export.unpacking import QUANT_METHOD

DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64]
masks = arrays(bool, st.integers(0, 1200), elements=st.booleans(), fill=st.booleans())
bits = arrays(np.uint32, st.tuples(st.integers(1, 12), st.integers(1, 40)), elements=st.integers(0, 2**32 - 1))


def entropy(share: float) -> float:
    """Bits per entry of a random mask."""
    return 0.0 if share in (0, 1) else -share * np.log2(share) - (1 - share) * np.log2(1 - share)


@settings(max_examples=60)
@given(masks)
def test_every_mask_comes_back(kept: np.ndarray) -> None:
    index = encode(kept)
    np.testing.assert_array_equal(decode(index, entries=len(kept), count=int(kept.sum())), np.flatnonzero(kept))


@pytest.mark.parametrize("gap", [0, 1, 253, 254, 255, 256, 509, 510, 511, 100_000])
def test_gaps_around_the_escape(gap: int) -> None:
    kept = np.zeros(gap + 2, dtype=bool)
    kept[gap] = True
    assert decode(encode(kept), entries=gap + 2, count=1).tolist() == [gap]


@settings(max_examples=60)
@given(masks, st.integers(0, 2**31), st.sampled_from([-1, 1, 8]))
def test_an_index_of_another_mask_is_refused(kept: np.ndarray, place: int, more: int) -> None:
    count = int(kept.sum())
    with pytest.raises(ValueError, match=r"bits|gaps|index|code"):
        decode(encode(kept), entries=len(kept), count=count + more)
    index = bytearray(encode(kept))
    index[place % len(index)] ^= 1 << place % 7
    try:
        positions = decode(bytes(index), entries=len(kept), count=count)
    except ValueError:
        return
    assert len(positions) == count and (np.diff(positions) > 0).all() and (positions < len(kept)).all()


@pytest.mark.parametrize("form", [BITS_DEFLATED, GAPS_DEFLATED])
def test_an_index_that_swells_is_not_swollen(form: int) -> None:
    bomb = bytes([form]) + zlib.compress(bytes(5_000_000))
    tracemalloc.start()
    with pytest.raises(ValueError, match="does not end"):
        decode(bomb, entries=1000, count=10)
    assert tracemalloc.get_traced_memory()[1] < 100_000
    tracemalloc.stop()


@pytest.mark.parametrize("share", [0.02, 0.3])
def test_an_index_ends_where_it_ends(share: float) -> None:
    kept = np.random.default_rng(0).random(50_000) < share
    index, sizes = encode(kept), {"entries": 50_000, "count": int(kept.sum())}
    assert index[0] in (BITS_DEFLATED, GAPS_DEFLATED)
    for wrong in (index[:-1], index[:-4], index + b"x"):
        with pytest.raises(ValueError, match="a code that"):
            decode(wrong, **sizes)


@settings(max_examples=60)
@given(bits, st.sampled_from(DTYPES))
def test_lossless_is_lossless_for_any_bits(words: np.ndarray, dtype: torch.dtype) -> None:
    """NaN, infinities and subnormal numbers too; of -0.0 the sign is lost, which no zero has."""
    whole = torch.from_numpy(words.view(np.int32))
    weight = whole.view(dtype) if dtype.itemsize <= 4 else whole.view(torch.float32).to(dtype)
    weight = weight.reshape(len(words), -1)
    weight = torch.where(weight.isfinite() & (whole.sum(dim=1, keepdim=True) % 3 == 0), -0.0, weight)
    back = unpack("it", pack(weight, "fp32", "it")).to(dtype)
    assert torch.equal(back.isnan(), weight.isnan()) and not back[back == 0].signbit().any()
    numbers = ~weight.isnan()  # of what is no number, the bits of float32 say more than its type
    assert torch.equal(back[numbers], weight[numbers])
    if dtype == torch.float32:
        assert same_bits(back[weight != 0], weight[weight != 0])


rows = arrays(np.float32, st.tuples(st.integers(1, 9), st.integers(1, 30)), elements=st.floats(-1e4, 1e4, width=32))


@settings(max_examples=60)
@given(rows)
def test_rounding_is_off_by_half_a_step_at_most(values: np.ndarray) -> None:
    weight = torch.from_numpy(values)
    for held, step in (("int8", weight.abs().amax(dim=1, keepdim=True) / 126), ("fp16", weight.abs() / 1024 + 1e-7)):
        back = unpack("it", pack(weight, held, "it"))  # type: ignore[arg-type]
        assert ((back - weight).abs() <= 0.5001 * step + 1e-37).all()
        assert (back[weight == 0] == 0).all() and back.dtype == torch.float32


@pytest.mark.parametrize(("held", "value"), [("fp16", 1e6), ("fp16", torch.nan), ("int8", torch.inf)])
def test_what_rounding_cannot_hold_is_refused(held: Any, value: float) -> None:
    with pytest.raises(InputError, match=f"it has values that {held} cannot hold. Export it with values=fp32"):
        pack(torch.tensor([[0.0, value]]), held, "it")


@pytest.mark.parametrize("held", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("sparsity", [0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.97, 0.99])
def test_within_a_tenth_of_the_entropy(held: Any, sparsity: float) -> None:
    weight = random_matrix(384, 768, sparsity)
    kept = int(weight.count_nonzero())
    bound = weight.numel() * entropy(kept / weight.numel()) / 8 + kept * {"fp32": 4, "fp16": 2, "int8": 1}[held]
    parts = pack(weight, held, "it")
    assert bound <= packed_bytes({k: v for k, v in parts.items() if k != SCALES}) <= 1.02 * bound + 16
    # A scale per row is no part of the bound; at 99 % it stands for eight values.
    assert packed_bytes(parts) <= (1.10 if sparsity < 0.99 else 1.15) * bound


def random_matrix(height: int, width: int, sparsity: float, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(height, width, generator=generator) * 0.04
    return weight * (torch.rand(height, width, generator=generator) >= sparsity)


LAYER = [(768, 768)] * 4 + [(3072, 768), (768, 3072)]  # of BERT-base, which has twelve


def encoder_bytes(layers: int, scale: int, sparsity: float, held: Any) -> tuple[int, int]:
    """Sparse and dense bytes of layers shaped like BERT-base's, each side ``scale`` times shorter."""
    sizes = [(height // scale, width // scale) for height, width in LAYER] * layers
    parts = [pack(random_matrix(*size, sparsity, seed), held, "it") for seed, size in enumerate(sizes)]
    return sum(map(packed_bytes, parts)), 4 * sum(height * width for height, width in sizes)


def test_sizes_of_a_layer() -> None:
    """The same ratios as below on a sixteenth of a layer; scales, one per row, weigh four times as much."""
    sparse, dense = encoder_bytes(1, 4, 0.97, "int8")
    assert sparse <= 11e6 / 340e6 * dense
    assert encoder_bytes(1, 4, 0.90, "fp32")[0] <= 0.16 * dense


@pytest.mark.slow
def test_sizes_of_bert_base() -> None:
    sparse, dense = encoder_bytes(12, 1, 0.97, "int8")
    assert dense == 339_738_624 and sparse <= 11e6
    assert encoder_bytes(12, 1, 0.90, "fp32")[0] <= 0.16 * dense


@pytest.fixture(scope="module", params=FAMILIES)
def family_folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pruned model as a run leaves it."""
    torch.manual_seed(1)
    kind = getattr(transformers, f"{request.param}ForSequenceClassification")
    folder = write(tmp_path_factory.mktemp(request.param) / "dense", pruned(kind(config(request.param))))
    seal(folder)
    return folder


def test_every_family_comes_back_bit_for_bit(family_folder: Path, tmp_path: Path) -> None:
    source = trainflat.load(family_folder)
    out = save_sparse(family_folder, tmp_path / "out")
    assert is_sealed(out) and (out / "tokenizer.json").read_bytes() == (family_folder / "tokenizer.json").read_bytes()
    verify(out)
    assert any(name.endswith(INDEX) for name in load_tensors(out / "trainflat.safetensors")[0])
    native, info = AutoModelForSequenceClassification.from_pretrained(out, output_loading_info=True)
    assert not any(info.values()) and not native.is_quantized and not hasattr(native.config, "quantization_config")
    for model in (trainflat.load(out), native):
        assert type(model) is type(source) and same_model(model, source) and not model.training
        assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("held", ["fp16", "int8"])
def test_rounded_files_load_alike_everywhere(family_folder: Path, tmp_path: Path, held: Any) -> None:
    source = trainflat.load(family_folder)
    out = save_sparse(family_folder, tmp_path / "out", values=held, embeddings=held)
    loaded = trainflat.load(out)
    assert same_model(loaded, AutoModelForSequenceClassification.from_pretrained(out))
    for name, weight in source.state_dict().items():
        off = (loaded.state_dict()[name] - weight).abs().max()
        assert off <= weight.abs().max() / (251 if held == "int8" else 2000)
    words = [model.get_input_embeddings().weight.data for model in (loaded, source)]
    assert not same_bits(*words)
    for name, weight in prunable(source).items():
        assert (loaded.get_parameter(name)[weight == 0] == 0).all()


def test_a_fresh_process_loads_it(tmp_path: Path) -> None:
    model = pruned(tiny_bert())
    save_sparse(model, tmp_path / "out")
    save_tensors(tmp_path / "expected", {name: tensor.clone() for name, tensor in model.state_dict().items()})
    code = """
    import warnings, sys, pathlib
    warnings.simplefilter("error")
    import trainflat
    from transformers import AutoModelForSequenceClassification
    from trainflat.core.files import load_tensors
    model = AutoModelForSequenceClassification.from_pretrained(sys.argv[1])
    expected = load_tensors(pathlib.Path(sys.argv[2]))[0]
    same = all((tensor == expected[name]).all() for name, tensor in model.state_dict().items())
    print('same', same, len(expected) == len(model.state_dict()))
    """
    code = "\n".join(line.strip() for line in code.splitlines())
    answer = run_fresh(tmp_path / "out", tmp_path / "expected", code=code)
    assert answer.stdout == "same True True\n", answer.stderr


def test_transformers_may_be_imported_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(auto.AUTO_QUANTIZER_MAPPING, QUANT_METHOD)
    monkeypatch.delitem(auto.AUTO_QUANTIZATION_CONFIG_MAPPING, QUANT_METHOD)
    finders = list(sys.meta_path)
    register()
    assert sys.meta_path == finders and auto.AutoHfQuantizer.supports_quant_method({"quant_method": QUANT_METHOD})
    assert isinstance(auto.AutoHfQuantizer.from_config({"quant_method": QUANT_METHOD}), SparseQuantizer)


def test_importing_it_stays_light() -> None:
    code = "import sys, trainflat; print([m for m in ('torch', 'transformers', 'numpy') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == b"[]\n"


def test_a_loaded_model_is_an_ordinary_one(tmp_path: Path) -> None:
    model = pruned(tiny_bert())
    out = save_sparse(model, tmp_path / "out")
    native = AutoModelForSequenceClassification.from_pretrained(out)
    native.save_pretrained(tmp_path / "again")
    assert "quantization_config" not in json.loads((tmp_path / "again" / "config.json").read_text())
    assert load_tensors(tmp_path / "again" / "model.safetensors")[0].keys() == model.state_dict().keys()
    assert same_model(trainflat.load(tmp_path / "again"), model)
    assert same_model(trainflat.load(save_sparse(out, tmp_path / "third")), model)
    half = AutoModelForSequenceClassification.from_pretrained(out, dtype=torch.bfloat16)
    assert same_model(half, model.bfloat16())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_other_types_keep_theirs(tmp_path: Path, dtype: torch.dtype) -> None:
    model = pruned(tiny_bert()).to(dtype)
    out = save_sparse(model, tmp_path / "out")
    native = AutoModelForSequenceClassification.from_pretrained(out)
    for loaded in (trainflat.load(out), native):
        assert all(
            torch.equal(a, b) and a.dtype == dtype for a, b in zip(loaded.parameters(), model.parameters(), strict=True)
        )


def test_the_same_model_gives_the_same_bytes(tmp_path: Path) -> None:
    model = pruned(tiny_bert())
    one, other = (save_sparse(model, tmp_path / name) for name in ("one", "other"))
    assert (one / "manifest.json").read_bytes() == (other / "manifest.json").read_bytes()


def test_refusals_leave_nothing(tmp_path: Path) -> None:
    model = pruned(tiny_bert())
    with pytest.raises(InputError, match="values are held as fp32, fp16, int8, got 'int4'"):
        save_sparse(model, tmp_path / "out", values="int4")  # type: ignore[arg-type]
    with torch.no_grad():
        model.bert.encoder.layer[1].output.dense.weight[0, 0] = torch.inf
    with pytest.raises(InputError, match=r"layer.1.output.dense.weight has values that int8 cannot hold"):
        save_sparse(model, tmp_path / "out", values="int8")
    assert list(tmp_path.iterdir()) == []
    save_sparse(model, tmp_path / "out")
    with pytest.raises(InputError, match=r"is there already. Choose another --out"):
        save_sparse(model, tmp_path / "out")
