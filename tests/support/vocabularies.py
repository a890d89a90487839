"""Tokenizers of every kind, trained on some sentences, under the classes of transformers that real models have."""

import json
from collections.abc import Callable
from functools import cache
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    AlbertTokenizer,
    BertTokenizer,
    CamembertTokenizer,
    DebertaV2Tokenizer,
    MPNetTokenizer,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    RobertaTokenizer,
    XLMRobertaTokenizer,
)

from trainflat.tasks.stdlib_docs import sentences_of

SIZE = 300  # entries, of which a corpus of a few sentences uses half


@cache
def sentences() -> tuple[str, ...]:
    return tuple(one for name in ("statistics", "random", "heapq") for one in sentences_of(name))


def _trained(inner: Tokenizer, trainer: Any) -> dict[str, Any]:
    inner.train_from_iterator(sentences(), trainer)
    part: dict[str, Any] = json.loads(inner.to_str())["model"]
    return part


def _pieces(special: list[str]) -> list[tuple[str, float]]:
    inner = Tokenizer(models.Unigram())
    inner.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=SIZE, special_tokens=special, unk_token=special[-1], show_progress=False
    )
    return [(piece, score) for piece, score in _trained(inner, trainer)["vocab"]]


def _pairs(special: list[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=SIZE + 256, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    part = _trained(inner, trainer)
    return part["vocab"], [(first, second) for first, second in part["merges"]]


def _words(special: list[str]) -> dict[str, int]:
    inner = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    inner.normalizer, inner.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    vocabulary: dict[str, int] = _trained(
        inner, trainers.WordPieceTrainer(vocab_size=SIZE, special_tokens=special, show_progress=False)
    )["vocab"]
    return vocabulary


def bert() -> PreTrainedTokenizerBase:
    return BertTokenizer(vocab=_words(["[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]))


def mpnet() -> PreTrainedTokenizerBase:
    vocabulary = _words(["<s>", "<pad>", "</s>", "[UNK]"])
    return MPNetTokenizer(vocab=vocabulary | {"<mask>": len(vocabulary)})


def roberta() -> PreTrainedTokenizerBase:
    vocabulary, merges = _pairs(["<s>", "<pad>", "</s>", "<unk>"])
    return RobertaTokenizer(vocab=vocabulary | {"<mask>": len(vocabulary)}, merges=merges)


def modernbert() -> PreTrainedTokenizerBase:
    """Byte pairs, with added tokens below and above the merged ones, under no class of its own."""
    vocabulary, merges = _pairs(["<|padding|>"])
    inner = Tokenizer(models.BPE(vocabulary, merges))
    inner.normalizer, inner.decoder = normalizers.NFC(), decoders.ByteLevel()
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.add_tokens([AddedToken("    ", normalized=False)])
    inner.add_special_tokens(special := ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"])
    ends = [(name, inner.token_to_id(name)) for name in special]
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=ends
    )
    names = {f"{name[1:-1].lower()}_token": name for name in special}
    return PreTrainedTokenizerFast(tokenizer_object=inner, model_input_names=["input_ids", "attention_mask"], **names)


def xlm_roberta() -> PreTrainedTokenizerBase:
    return XLMRobertaTokenizer(vocab=[*_pieces(["<s>", "<pad>", "</s>", "<unk>"]), ("<mask>", 0.0)])


def camembert() -> PreTrainedTokenizerBase:
    special = ["<s>NOTUSED", "<pad>", "</s>NOTUSED", "<unk>"]
    pieces = _pieces(special)
    return CamembertTokenizer(vocab=[*pieces[:4], ("<s>", 0.0), ("</s>", 0.0), *pieces[4:], ("<mask>", 0.0)])


def albert() -> PreTrainedTokenizerBase:
    pieces = _pieces(["<pad>", "<unk>"])
    return AlbertTokenizer(vocab=[*pieces[:2], ("[CLS]", 0.0), ("[SEP]", 0.0), ("[MASK]", 0.0), *pieces[2:]])


def deberta_v2() -> PreTrainedTokenizerBase:
    pieces = _pieces(["[PAD]", "[UNK]"])
    return DebertaV2Tokenizer(vocab=[pieces[0], ("[CLS]", 0.0), ("[SEP]", 0.0), *pieces[1:]])


TOKENIZERS: dict[str, Callable[[], PreTrainedTokenizerBase]] = {  # by a family of tests/support/families.py
    "Bert": bert,
    "MPNet": mpnet,
    "Roberta": roberta,
    "ModernBert": modernbert,
    "XLMRoberta": xlm_roberta,
    "Camembert": camembert,
    "Albert": albert,
    "DebertaV2": deberta_v2,
}


@cache
def made(family: str) -> PreTrainedTokenizerBase:
    """Trained once per process."""
    return TOKENIZERS[family]()
