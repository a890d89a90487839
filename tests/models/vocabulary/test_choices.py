"""Which tokens are chosen, and what is refused in one line."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    BertConfig,
    BertModel,
    CanineConfig,
    CanineModel,
    CanineTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from tests.support.vocabularies import TOKENIZERS, made
from trainflat.core.errors import InputError
from trainflat.models.vocabulary import VOCABULARIES, fast, trim_vocabulary
from trainflat.quantization import quantize_dynamic

WORDS = ["[PAD]", "[UNK]", "the", "flat", "minimum", "\u043c\u0438\u0440", "\u4e16\u754c", "2026", "!", "\u03c0r"]


def tokenizer(model: Any = None) -> PreTrainedTokenizerFast:
    inner = Tokenizer(model or models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="[PAD]", unk_token="[UNK]")


def bert(rows: int = len(WORDS)) -> PreTrainedModel:
    sizes = {"hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 6}
    torch.manual_seed(0)
    return BertModel(BertConfig(**sizes, vocab_size=rows))


def kept(keep: Any, *texts: str) -> set[str]:
    trimmed = trim_vocabulary(bert(), tokenizer(), texts, keep)
    return set(trimmed.tokenizer.get_vocab()) - {"[PAD]", "[UNK]"}


def test_a_corpus_keeps_what_it_uses_or_uses_often_enough() -> None:
    texts = ["the flat minimum", "the minimum", "the"]
    assert kept("corpus", *texts) == {"the", "flat", "minimum"}
    assert kept({"min_frequency": 2}, *texts) == {"the", "minimum"}
    assert kept({"name": "corpus", "min_frequency": 3}, *texts) == {"the"}


def test_of_rare_tokens_the_report_says_what_went() -> None:
    report = trim_vocabulary(bert(), tokenizer(), ["the flat minimum", "the minimum"], {"min_frequency": 2}).report
    assert (report.texts, report.texts_kept, report.token_share) == (2, 1, 4 / 5)
    assert report.lost == report.unknown == 6
    assert ("flat", ("[UNK]",)) in report.examples


def test_words_and_the_lines_of_a_file_keep_their_tokens(tmp_path: Path) -> None:
    assert kept({"words": ["flat", "the minimum"]}) == {"flat", "the", "minimum"}
    (tmp_path / "words.txt").write_text("flat\n\n2026\n")
    assert kept({"file": str(tmp_path / "words.txt")}) == {"flat", "2026"}


@pytest.mark.parametrize("family", TOKENIZERS)
def test_a_word_is_kept_at_the_start_of_a_text_and_after_a_space(family: str) -> None:
    whole = made(family)
    rows = max(whole.get_vocab().values()) + 1
    trimmed = trim_vocabulary(bert(rows), whole, keep={"words": ["median"]})
    for text in ("median", "median median"):
        old, new = (one(text)["input_ids"] for one in (whole, trimmed.tokenizer))
        assert [trimmed.kept[number] for number in new] == old


def test_an_entry_of_the_vocabulary_keeps_itself() -> None:
    whole = made("Bert")
    piece = next(token for token in whole.get_vocab() if token.startswith("##") and len(token) > 4)
    rows = max(whole.get_vocab().values()) + 1
    assert piece in trim_vocabulary(bert(rows), whole, keep={"words": [piece]}).tokenizer.get_vocab()


def test_ids_keep_themselves() -> None:
    assert kept({"ids": [3, 7]}) == {WORDS[3], WORDS[7]}
    with pytest.raises(InputError, match=r"there is no token 99\. Give ids of the tokenizer, from 0 to 9"):
        kept({"ids": [99]})


def test_a_script_keeps_its_letters_and_what_has_none() -> None:
    assert kept({"script": "latin"}) == {"the", "flat", "minimum", "2026", "!"}
    assert kept({"script": ["cyrillic", "cjk"]}) == {"\u043c\u0438\u0440", "\u4e16\u754c", "2026", "!"}
    assert kept({"script": ["greek", "latin"]}) == kept({"script": "latin"}) | {"\u03c0r"}


def test_a_script_is_read_from_bytes_too() -> None:
    entries = {one: i for i, one in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    merges = [
        ("\u00d0", "\u00bc"),
        ("a", "b"),
        ("\u00e4", "\u00b8"),
    ]  # a Cyrillic letter, two Latin ones, half a Han one
    entries |= {first + second: 256 + i for i, (first, second) in enumerate(merges)}
    inner = Tokenizer(models.BPE(entries, merges))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    whole = PreTrainedTokenizerFast(tokenizer_object=inner)
    trimmed = trim_vocabulary(bert(259), whole, keep={"script": "latin"})
    assert set(range(259)) - set(trimmed.kept) == {256}


def test_the_choices_of_the_guide_are_the_codes() -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "vocabulary.md").read_text(encoding="utf8")
    cells = re.findall(r"^\| (`.*?`) \|", page.partition("## What is exact")[0], flags=re.MULTILINE)
    shown = [yaml.safe_load(one) for cell in cells[1:] for one in re.findall("`(.*?)`", cell)]
    assert {VOCABULARIES.read(one).name for one in shown} == set(VOCABULARIES)


def test_a_choice_is_settings_that_a_recipe_can_write() -> None:
    section = VOCABULARIES.read({"min_frequency": 5}).section()
    assert section == {"name": "corpus", "min_frequency": 5}
    assert json.loads(json.dumps(VOCABULARIES.read({"script": "latin"}).section())) == {
        "name": "script",
        "script": ["latin"],
    }


@pytest.mark.parametrize(
    ("keep", "said"),
    [
        ("corpus", r"the texts have no token 1 times or more.*Give more texts"),
        ({"min_frequency": 0}, r"min_frequency is how many times, from 1 on, got 0"),
        ({"min_frequence": 2}, r"no option of a vocabulary is called 'min_frequence'. Did you mean 'min_frequency'"),
        ({"script": "latn"}, r"no script is called 'latn'. Did you mean 'latin'"),
        ({"script": []}, r"script is a script, such as latin, or a list of some, got \[\]"),
        ({"words": [" "]}, r"there are no words to keep. Give some, one a line."),
        ({"file": "absent.txt"}, r"file 'absent.txt' cannot be read \(.*\). Give words, one a line."),
        ("corpse", r"no vocabulary is called 'corpse'. Did you mean 'corpus'"),
    ],
)
def test_a_choice_that_cannot_be_made_is_refused(keep: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        trim_vocabulary(bert(), tokenizer(), keep=keep)


def unknown_model() -> Any:
    """As of a version of tokenizers to come."""

    class Backend:
        def to_str(self) -> str:
            return json.dumps(json.loads(tokenizer().backend_tokenizer.to_str()) | {"model": {"type": "Bytes"}})

    class Other:
        backend_tokenizer = Backend()

    return Other()


def test_a_tokenizer_that_cannot_be_trimmed_is_refused() -> None:
    merging = models.BPE({"[PAD]": 0, "[UNK]": 1, "a": 2, "b": 3, "ab": 4}, [("a", "b")], dropout=0.1)
    for whole, said in (
        (CanineTokenizer(), r"CanineTokenizer has no tokenizer.json, .* Keep this vocabulary whole, or give"),
        (tokenizer(merging), r"cannot be trimmed: its merges are left out at random \(dropout 0.1"),
        (unknown_model(), r"of the type Bytes, whose vocabulary cannot be trimmed, only WordPiece, BPE, Unigram, Word"),
    ):
        with pytest.raises(InputError, match=said):
            trim_vocabulary(bert(), whole, ["ab"])


def test_a_model_that_cannot_be_trimmed_is_refused() -> None:
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 8}
    for model, said in (
        (CanineModel(CanineConfig(**sizes)), r"CanineModel has no table of word embeddings"),
        (bert(5), r"the tokenizer has ids up to 9, the model has 5 word embeddings."),
        (quantize_dynamic(bert()), r"has tensors that its config does not describe \(.*\).*before it is quantized"),
    ):
        with pytest.raises(InputError, match=said):
            trim_vocabulary(model, tokenizer(), ["flat"])


def test_a_text_in_place_of_texts_is_refused() -> None:
    with pytest.raises(InputError, match="texts is a list of texts, got a text"):
        trim_vocabulary(bert(), tokenizer(), "flat")


def test_a_class_that_reads_its_files_otherwise_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers makes some tokenizers anew from their entries, with what is written in the class around them."""

    def other(folder: Path) -> Any:
        read = PreTrainedTokenizerFast.from_pretrained(folder)
        read.backend_tokenizer.pre_tokenizer = pre_tokenizers.Split("a", "isolated")
        return read

    monkeypatch.setattr(fast, "read_tokenizer", other)
    with pytest.raises(InputError, match="reads 'the flat minimum' in other tokens once its vocabulary is trimmed"):
        trim_vocabulary(bert(), tokenizer(), ["the flat minimum"])


def test_a_model_that_uses_ids_otherwise_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = BertModel.forward

    def forward(self: Any, input_ids: torch.Tensor, attention_mask: Any = None) -> Any:
        found = plain(self, input_ids=input_ids, attention_mask=attention_mask)
        found.pooler_output = found.pooler_output + input_ids.max()
        return found

    monkeypatch.setattr(BertModel, "forward", forward)
    with pytest.raises(InputError, match="pooler_output of BertModel changes when its vocabulary is trimmed"):
        trim_vocabulary(bert(), tokenizer(), ["the minimum"])
