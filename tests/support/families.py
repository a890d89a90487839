"""One tiny configuration per architecture family, and checkpoints of them as `save_pretrained` leaves them."""

from pathlib import Path
from typing import Any

import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from trainflat.tasks.base import Head

TWO = Head("classification", ("no", "yes"))


HEADS = {"two classes": TWO, "number": Head("regression"), "spans": Head("spans")}


WORDS = ["a", "flat", "minimum", "keeps", "its", "loss", "when", "most", "weights", "are", "gone"]


SIZES: dict[str, Any] = {"vocab_size": 40, "hidden_size": 8, "num_hidden_layers": 3, "num_attention_heads": 2}
SIZES |= {"intermediate_size": 12, "max_position_embeddings": 32, "pad_token_id": 0}


FROM_PAD = {"max_position_embeddings": 34, "pad_token_id": 1}  # RoBERTa and MPNet count positions from the pad id on


FAMILIES: dict[str, dict[str, Any]] = {
    "Bert": {},
    "Roberta": FROM_PAD,
    "DistilBert": {"dim": 8, "hidden_dim": 12, "n_layers": 3, "n_heads": 2},
    "Electra": {"embedding_size": 4},
    "MPNet": FROM_PAD,
    "Albert": {"embedding_size": 4},
    "DebertaV2": {
        "relative_attention": True,
        "position_biased_input": False,
        "share_att_key": True,
        "type_vocab_size": 0,
    }
    | {"pos_att_type": ["c2p", "p2c"]},  # as published
    "ModernBert": {"layer_types": ["full_attention", "sliding_attention", "sliding_attention"], "local_attention": 8},
}


def tokenizer(pad_id: int, *, pad: bool = True, words: list[str] = WORDS) -> PreTrainedTokenizerFast:
    """Word pieces, or byte pairs where RoBERTa's order of special tokens is wanted."""
    special = ["[CLS]", "[PAD]", "[SEP]", "[UNK]"] if pad_id else ["[PAD]", "[CLS]", "[SEP]", "[UNK]"]
    if pad_id:
        inner = Tokenizer(models.BPE(unk_token="[UNK]"))
        inner.pre_tokenizer = pre_tokenizers.Whitespace()
        inner.train_from_iterator(
            words, trainers.BpeTrainer(vocab_size=40, special_tokens=special, show_progress=False)
        )
    else:
        vocabulary = {word: index for index, word in enumerate([*special, *dict.fromkeys(words)])}
        inner = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
        inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.normalizer = normalizers.Lowercase()
    ends = [(name, special.index(name)) for name in ("[CLS]", "[SEP]")]
    inner.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    names = {"cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]"} | ({"pad_token": "[PAD]"} if pad else {})
    return PreTrainedTokenizerFast(tokenizer_object=inner, **names)


def config(family: str, **options: Any) -> transformers.PreTrainedConfig:
    return getattr(transformers, f"{family}Config")(**(SIZES | FAMILIES[family] | options))


def write(folder: Path, model: transformers.PreTrainedModel) -> Path:
    """What `save_pretrained` leaves, with a tokenizer that fits."""
    model.save_pretrained(folder)
    tokenizer(model.config.pad_token_id).save_pretrained(folder)
    return folder
