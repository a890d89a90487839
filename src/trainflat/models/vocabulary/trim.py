"""Trims the vocabulary of a model and its tokenizer together, and checks that kept texts are answered to the bit."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

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
    before = list(fast.encode(texts))
    counts = _counted(fast, before)
    ids = choice.choose(fast, counts) | used_rows(model, rows)
    places = fast.numbered(fast.needed(ids, _unknown_words(fast, texts, before)))
    _check_padding(model, places)
    kept = tuple(sorted(places, key=places.__getitem__))
    small = cut_tables(model, kept)
    small_tokenizer = fast.cut(places, small.config)
    if not texts:
        before = list(fast.encode(texts := _texts_of(fast, kept)))
    same = check_ids(small_tokenizer, texts, before, places)
    check_answers((model, tokenizer), (small, small_tokenizer), [texts[i] for i in same], kept)
    lost = lost_texts(fast, small_tokenizer, places)
    report = TrimReport(
        tokens_before=len(fast.ids),
        tokens_after=len(small_tokenizer),
        megabytes_before=_megabytes(model),
        megabytes_after=_megabytes(small),
        texts=len(texts) if counts else 0,
        texts_kept=len(same) if counts else 0,
        token_share=sum(counts[one] for one in places) / counts.total() if counts else 1.0,
        lost=len(lost),
        unknown=sum(fast.model.unknown() in pieces for _, pieces in lost),
        examples=examples(lost),
    )
    return Trimmed(small, small_tokenizer, kept, report)


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
            "as an added token, so it cannot keep this number. Leave `vocabulary` out."
        )


def _counted(fast: FastTokenizer, read: Iterable[Sequence[int]]) -> Counter[int]:
    counts = Counter(chain.from_iterable(read))
    for special in fast.special:
        counts.pop(special, None)
    return counts


def _unknown_words(fast: FastTokenizer, texts: Sequence[str], read: Sequence[Sequence[int]]) -> set[str]:
    if not fast.model.incomplete:
        return set()
    unknown = fast.ids.get(fast.model.unknown() or "")
    return set().union(*(fast.unknown_words(text) for text, ids in zip(texts, read, strict=True) if unknown in ids))


def _texts_of(fast: FastTokenizer, kept: Sequence[int]) -> list[str]:
    """Returns texts made of kept tokens, a few in each."""
    names = {number: fast.model.text(token) for token, number in fast.model.entries.items()}
    words = [names[one].strip() for one in kept if one in names]
    return [" ".join(words[i : i + _JOINED]) for i in range(0, len(words), _JOINED)]


def _megabytes(model: PreTrainedModel) -> float:
    return sum(int(p.numel()) * int(p.element_size()) for p in model.parameters()) / 1e6
