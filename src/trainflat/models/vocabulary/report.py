"""Describes what trimming a vocabulary saved, and what it changed."""

from collections.abc import Mapping
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from trainflat.models.vocabulary.fast import FastTokenizer

_EXAMPLES = 5


@dataclass(frozen=True)
class TrimReport:
    """Describes what trimming a vocabulary saved, and what it changed for texts whose tokens were not all kept.

    Attributes:
        tokens_before, tokens_after: Entries of the tokenizer, special ones included.
        megabytes_before, megabytes_after: Of the model's parameters, 10^6 bytes.
        texts: In the corpus.
        texts_kept: Those that are read as before, in ids that stand for the same tokens, and answered to the bit.
        token_share: Share of the corpus's tokens, special ones left out, that were kept; 1 without a corpus.
        lost: Tokens that were dropped and stand for a text of their own.
        unknown: Those among them that now are or have an unknown token; all others are cut into smaller pieces.
        examples: Some of them, with the tokens that they are read as now.
    """

    tokens_before: int
    tokens_after: int
    megabytes_before: float
    megabytes_after: float
    texts: int
    texts_kept: int
    token_share: float
    lost: int
    unknown: int
    examples: tuple[tuple[str, tuple[str, ...]], ...]

    def lines(self) -> list[str]:
        """Returns the report in words, a sentence a line."""
        said = [
            f"{self.tokens_after} of {self.tokens_before} tokens kept; the model takes {self.megabytes_after:.1f} MB "
            f"instead of {self.megabytes_before:.1f} MB."
        ]
        if self.texts:
            said.append(
                f"{self.texts_kept} of {self.texts} texts are read as before and answered to the bit; "
                f"{self.token_share:.2%} of all their tokens were kept."
            )
        return [*said, *([self.losses()] if self.lost else [])]

    def losses(self) -> str:
        """Returns a sentence about what dropped tokens become."""
        some = "; ".join(f"{text!r} as {' '.join(pieces)}" for text, pieces in self.examples)
        gone = f"{self.unknown} of the {self.lost} dropped tokens become unknown"
        return f"{gone}, the others are read in pieces: {some}."


def examples(lost: list[tuple[str, tuple[str, ...]]]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Chooses a few of :func:`lost_texts`: words, and of low ids, which in most vocabularies are the frequent ones."""
    return tuple(sorted(lost, key=_is_no_word)[:_EXAMPLES])


def lost_texts(
    fast: FastTokenizer, tokenizer: PreTrainedTokenizerBase, places: Mapping[int, int]
) -> list[tuple[str, tuple[str, ...]]]:
    """Returns the texts that were one token, which was dropped, with the tokens that they are read as now."""
    dropped = [number for number in fast.model.entries.values() if number not in places]
    names = {number: token for token, number in fast.model.entries.items()}
    texts = [fast.model.text(names[number]) for number in dropped]
    read = ([one for one in ids if one not in fast.special] for ids in fast.encode(texts))
    alone = [text for text, ids, number in zip(texts, read, dropped, strict=True) if ids == [number]]
    new = FastTokenizer(tokenizer)
    after = {number: token for token, number in new.ids.items()}
    around = {places[number] for number in fast.around}
    now = ([after[one] for one in ids if one not in around] for ids in new.encode(alone))
    return [(text, tuple(pieces)) for text, pieces in zip(alone, now, strict=True)]


def _is_no_word(lost: tuple[str, tuple[str, ...]]) -> bool:
    return not (lost[0].strip().isalpha() and len(lost[0].strip()) > 3)
