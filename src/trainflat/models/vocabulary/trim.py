"""Trims the vocabulary of a model and its tokenizer together, and checks that kept texts are answered to the bit."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Self

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from trainflat.core.errors import InputError
from trainflat.core.files import together
from trainflat.core.settings import Section
from trainflat.models.base import positions_from_padding
from trainflat.models.vocabulary.checks import check_answers, check_ids
from trainflat.models.vocabulary.choices import VOCABULARIES
from trainflat.models.vocabulary.fast import FastTokenizer
from trainflat.models.vocabulary.report import TrimReport, examples, lost_texts
from trainflat.models.vocabulary.tables import cut_tables, used_rows, word_rows

_JOINED = 8  # tokens of the vocabulary in each text that is checked where no corpus is given


@dataclass(frozen=True)
class Trimmed:
    """Holds a model and its tokenizer with a smaller vocabulary.

    Attributes:
        model: Of the given model's class.
        tokenizer: As `AutoTokenizer` loads it.
        kept: The old id of each new one.
        report: What it saved and what it changed.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    kept: tuple[int, ...]
    report: TrimReport

    def save(self, folder: str | Path) -> None:
        """Writes a folder that `from_pretrained` of transformers loads without this package, atomically.

        Raises:
            InputError: it cannot be written.
        """
        with together(Path(folder).expanduser()) as place:
            self.model.save_pretrained(place)
            self.tokenizer.save_pretrained(place)


def trim_vocabulary(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str] = (),
    keep: Section = "corpus",
) -> Trimmed:
    """Drops the tokens that are not needed, from tokenizer and model together.

    A text whose tokens are all kept gets the same tokens, under their new ids, and the same logits, bit for bit,
    whether it is in the corpus or not; each kind of tokenizer's model holds the proof. (An exception: WordPiece
    vocabularies in which some character has no entry of its own, and words that were unknown and are not in the
    corpus.) This is also checked on every text of the corpus, and the logits on some, before anything is returned.
    Special and added tokens are always kept, and the characters and bytes of the kept ones, so that other words are cut
    into smaller pieces and seldom become unknown. RoBERTa's padding id keeps its number: positions start from it.

    Args:
        model: With any head, or none; it is not changed.
        tokenizer: A fast one: WordPiece, BPE, Unigram or WordLevel.
        texts: The corpus. A row of two texts is two of them.
        keep: What to keep: ``"corpus"``, the tokens that the texts use; ``{"min_frequency": 5}``, at least so often;
            ``{"words": [...]}`` or ``{"file": "words.txt"}``, those of a list, one a line; ``{"script": "latin"}``.

    Raises:
        InputError: the tokenizer or the model cannot be trimmed, or nothing would be kept.

    Example:
        >>> from tokenizers import Tokenizer, models, pre_tokenizers
        >>> from transformers import BertConfig, BertModel, PreTrainedTokenizerFast
        >>> words = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "a", "flat", "steep", "minimum"])}
        >>> inner = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
        >>> inner.pre_tokenizer = pre_tokenizers.Whitespace()
        >>> tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="[PAD]", unk_token="[UNK]")
        >>> sizes = dict(hidden_size=8, num_attention_heads=2, num_hidden_layers=1, intermediate_size=6, vocab_size=6)
        >>> trimmed = trim_vocabulary(BertModel(BertConfig(**sizes)), tokenizer, ["a flat minimum"])
        >>> trimmed.kept, trimmed.tokenizer.convert_ids_to_tokens(range(5))
        ((0, 1, 2, 3, 5), ['[PAD]', '[UNK]', 'a', 'flat', 'minimum'])
    """
    if isinstance(texts, str):
        raise InputError("texts is a list of texts, got a text. Put it into a list.")
    choice = VOCABULARIES.read(keep).build()
    fast, rows = FastTokenizer(tokenizer), word_rows(model)
    _check_fit(fast, rows)
    corpus = _Corpus.read(fast, texts)
    ids = choice.choose(fast, corpus.counts(fast)) | used_rows(model, rows)
    places = fast.numbered(fast.needed(ids, corpus.unknown_words(fast)))
    _check_padding(model, places)
    kept = tuple(sorted(places, key=places.__getitem__))
    small = cut_tables(model, kept)
    trimmed = small, fast.cut(places, small.config)
    seen = corpus if texts else _Corpus.read(fast, _texts_of(fast, kept))
    same = check_ids(trimmed[1], seen.texts, seen.ids, places)
    check_answers((model, tokenizer), trimmed, [seen.texts[i] for i in same], kept)
    sizes = {"megabytes_before": _megabytes(model), "megabytes_after": _megabytes(small)}
    report = _report(fast, trimmed[1], places, corpus, texts_kept=len(same) if texts else 0, **sizes)
    return Trimmed(*trimmed, kept, report)


@dataclass(frozen=True)
class _Corpus:
    """Holds texts with their ids by the whole vocabulary."""

    texts: Sequence[str]
    ids: Sequence[Sequence[int]]

    @classmethod
    def read(cls, fast: FastTokenizer, texts: Sequence[str]) -> Self:
        return cls(texts, list(fast.encode(texts)))

    def counts(self, fast: FastTokenizer) -> Counter[int]:
        """Counts the tokens, without special ones."""
        counts = Counter(chain.from_iterable(self.ids))
        for special in fast.special:
            counts.pop(special, None)
        return counts

    def unknown_words(self, fast: FastTokenizer) -> set[str]:
        """Returns the unknown words that could become readable."""
        if not fast.model.incomplete:
            return set()
        unknown = fast.ids.get(fast.model.unknown() or "")
        found = zip(self.texts, self.ids, strict=True)
        return set().union(*(fast.unknown_words(text) for text, ids in found if unknown in ids))


def _check_fit(fast: FastTokenizer, rows: int) -> None:
    if (highest := max(fast.ids.values())) >= rows:
        raise InputError(
            f"the tokenizer has ids up to {highest}, the model has {rows} word embeddings. Give the tokenizer that it "
            "was trained with."
        )


def _check_padding(model: PreTrainedModel, places: Mapping[int, int]) -> None:
    table = positions_from_padding(model)
    if table is not None and places[int(table.padding_idx or 0)] != table.padding_idx:
        raise InputError(
            f"{type(model).__name__} counts positions from its padding id {table.padding_idx}, which its tokenizer has "
            "as an added token, so it cannot keep this number. Keep this vocabulary whole."
        )


def _report(
    fast: FastTokenizer,
    tokenizer: PreTrainedTokenizerBase,
    places: Mapping[int, int],
    corpus: _Corpus,
    **measured: Any,
) -> TrimReport:
    counts, lost = corpus.counts(fast), lost_texts(fast, tokenizer, places)
    return TrimReport(
        tokens_before=len(fast.ids),
        tokens_after=len(tokenizer),
        texts=len(corpus.texts),
        token_share=sum(counts[one] for one in places) / counts.total() if counts else 1.0,
        lost=len(lost),
        unknown=sum(fast.model.unknown() in pieces for _, pieces in lost),
        examples=examples(lost),
        **measured,
    )


def _texts_of(fast: FastTokenizer, kept: Sequence[int]) -> list[str]:
    """Returns texts made of kept tokens, a few in each."""
    names = {number: fast.model.text(token) for token, number in fast.model.entries.items()}
    words = [names[one].strip() for one in kept if one in names]
    return [" ".join(words[i : i + _JOINED]) for i in range(0, len(words), _JOINED)]


def _megabytes(model: PreTrainedModel) -> float:
    return sum(int(p.numel()) * int(p.element_size()) for p in model.parameters()) / 1e6
