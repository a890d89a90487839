"""Unigram language model (Kudo, ACL 2018; SentencePiece's): the cut with the highest sum of scores."""

from collections.abc import Mapping
from typing import Any

from trainflat.models.vocabulary.base import TokenizerModel


class Unigram(TokenizerModel):
    """Needs a piece of the lowest score, from which the price of an unknown character is taken (10 below it).

    Proof. The best cut of a text whose pieces are kept is still a cut. Every other one costs what it did, is gone, or
    has an unknown character where a piece of one character was, which costs more: at no place of the text does the
    best sum rise, and on the best cut it stays. The sums are rounded, but adding the same score keeps their order; and
    of equal ones the first counts, which no other can overtake.
    """

    def _read_entries(self) -> dict[str, int]:
        return {piece: number for number, (piece, _) in enumerate(self.part["vocab"])}

    def check(self) -> str:
        sampled = next((key for key in ("alpha", "nbest_size") if self.part.get(key)), None)
        return f"its cuts are drawn at random ({sampled})" if sampled else ""

    def unknown(self) -> str | None:
        number = self.part.get("unk_id")
        return None if number is None else str(self.part["vocab"][number][0])

    def needed(self, kept: set[str]) -> set[str]:
        lowest = min(self.part["vocab"], key=lambda entry: float(entry[1]))[0]
        return super().needed(kept) | {lowest}

    def cut(self, places: Mapping[int, int]) -> dict[str, Any]:
        # The list's order is the numbering, and `places` numbers the model's own entries first.
        order = sorted((new, old) for old, new in places.items() if old < len(self.part["vocab"]))
        unknown = self.part.get("unk_id")
        vocabulary = [self.part["vocab"][old] for _, old in order]
        return {**self.part, "vocab": vocabulary, "unk_id": None if unknown is None else places[unknown]}
