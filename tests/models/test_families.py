"""Loading, over the architecture families: tiny random checkpoints, written and read as real ones are."""

from pathlib import Path

import pytest
import torch
import transformers
from transformers import AutoModel, AutoModelForSequenceClassification

from tests.support.families import FAMILIES, FROM_PAD, HEADS, SIZES, TWO, config, write
from trainflat.anatomy import matrix_kinds
from trainflat.anatomy.params import prunable
from trainflat.models import load_encoder, max_positions, weights_sha256
from trainflat.tasks.base import Head


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def encoder_folder(family: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint as published: the encoder without any head, in float16."""
    torch.manual_seed(1)
    return write(tmp_path_factory.mktemp(family), AutoModel.from_config(config(family)).half())


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS.keys())
def test_the_encoder_is_the_checkpoint_s_in_float32(encoder_folder: Path, head: Head) -> None:
    encoder = load_encoder(str(encoder_folder), head)
    published = AutoModel.from_pretrained(encoder_folder, dtype=torch.float32).state_dict()
    loaded = encoder.model.base_model.state_dict()
    assert {p.dtype for p in encoder.model.parameters()} == {torch.float32}
    assert loaded.keys() == published.keys() - {k for k in published if k not in loaded and "pooler" in k}
    for name, tensor in loaded.items():
        torch.testing.assert_close(tensor, published[name], rtol=0, atol=0)


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS.keys())
def test_the_model_takes_as_many_tokens_as_it_has_positions_for(encoder_folder: Path, head: Head) -> None:
    encoder = load_encoder(str(encoder_folder), head, layers=1)
    assert encoder.max_length == encoder.tokenizer.model_max_length == 32 == max_positions(encoder.model)
    rows = encoder.tokenizer([" ".join(["flat"] * 40)], truncation=True, return_tensors="pt")
    assert rows["input_ids"].shape == (1, 32)
    output = encoder.model(input_ids=rows["input_ids"], attention_mask=rows["attention_mask"])
    shapes = {"classification": (1, 2), "regression": (1, 1), "spans": (1, 32)}
    assert (output.start_logits if head.kind == "spans" else output.logits).shape == shapes[head.kind]


def test_kept_layers_are_the_first_ones_and_the_head_does_not_depend_on_their_number(encoder_folder: Path) -> None:
    whole = load_encoder(str(encoder_folder), TWO, seed=3).model.state_dict()
    cut = load_encoder(str(encoder_folder), TWO, seed=3, layers=2)
    kept = cut.model.state_dict()
    assert cut.model.config.num_hidden_layers == 2
    for name, tensor in kept.items():
        # ModernBERT draws its head with a deviation of 1 / sqrt(2 layers): the same numbers, scaled.
        scale = tensor.norm() / whole[name].norm() if name in ("head.dense.weight", "classifier.weight") else 1
        torch.testing.assert_close(tensor, whole[name] * scale, rtol=1e-6 if scale != 1 else 0, atol=0)
        assert scale in (1, pytest.approx((3 / 2) ** 0.5 if "ModernBert" in type(cut.model).__name__ else 1))
    numbers = {number for number, _ in matrix_kinds(cut.model, prunable(cut.model)).values()} - {None}
    assert numbers == (set() if "Albert" in type(cut.model).__name__ else {0, 1})


def test_new_weights_come_from_the_seed_alone_and_leave_the_random_state_alone(encoder_folder: Path) -> None:
    def new(seed: int) -> dict[str, torch.Tensor]:
        model = load_encoder(str(encoder_folder), TWO, layers=1, seed=seed).model
        inside = {id(p) for p in model.base_model.parameters()}
        return {name: p for name, p in model.named_parameters() if id(p) not in inside and p.dim() > 1}

    torch.manual_seed(5)
    first, state = new(0), torch.get_rng_state()
    torch.rand(7)
    second, other = new(0), new(1)
    assert first
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first)
    torch.manual_seed(5)
    assert torch.equal(state, torch.get_rng_state())


def test_a_head_that_fits_is_kept_and_one_that_does_not_is_refused(family: str, tmp_path: Path) -> None:
    torch.manual_seed(2)
    trained = AutoModelForSequenceClassification.from_config(config(family, num_labels=2))
    folder = write(tmp_path, trained)
    loaded = load_encoder(str(folder), TWO, seed=9).model.state_dict()
    assert all(torch.equal(tensor, loaded[name]) for name, tensor in trained.state_dict().items())
    with pytest.raises(ValueError, match=r"does not fit: .* has shape \[2.*\[3.* is needed.*another task"):
        load_encoder(str(folder), Head("classification", ("a", "b", "c")))


def test_every_prunable_matrix_has_a_kind_that_the_family_names(encoder_folder: Path) -> None:
    model = load_encoder(str(encoder_folder), TWO).model
    kinds = list(matrix_kinds(model, prunable(model)).values())
    four = {"query", "key", "value"} if "ModernBert" not in type(model).__name__ else {"query_key_value"}
    four |= {"attention_output", "ffn_in", "ffn_out"}
    assert {kind for _, kind in kinds} - {"pooler"} == four
    assert len(set(kinds)) == len(kinds)


def test_a_cut_model_is_saved_and_loaded_again(encoder_folder: Path, tmp_path: Path) -> None:
    cut = load_encoder(str(encoder_folder), TWO, layers=2)
    cut.model.save_pretrained(tmp_path)
    cut.tokenizer.save_pretrained(tmp_path)
    again = load_encoder(str(tmp_path), TWO, seed=1)
    assert again.model.config.num_hidden_layers == 2
    assert weights_sha256(again.model) == weights_sha256(cut.model)


def test_lists_with_an_entry_per_layer_are_cut_too(tmp_path: Path) -> None:
    longformer = transformers.LongformerConfig(**(SIZES | FROM_PAD), attention_window=[4, 4, 8])
    folder = write(tmp_path, AutoModel.from_config(longformer))
    assert load_encoder(str(folder), TWO, layers=2).model.config.attention_window == [4, 4]


def test_loading_says_nothing(
    encoder_folder: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Neither what was left out of a cut model nor what is new in its head looks like a fault to the user."""
    logger = transformers.logging.get_logger("transformers")  # does not propagate to the root, which caplog listens to
    logger.addHandler(caplog.handler)
    try:
        load_encoder(str(encoder_folder), TWO, layers=1)
    finally:
        logger.removeHandler(caplog.handler)
    assert caplog.text == ""
    assert capfd.readouterr() == ("", "")
