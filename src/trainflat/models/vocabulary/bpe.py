"""Byte-pair encoding (Sennrich, Haddow and Birch, ACL 2016): merges characters, the pair of the lowest rank first."""

from collections.abc import Collection, Mapping
from itertools import pairwise
from math import inf
from typing import Any

from trainflat.models.vocabulary.base import TokenizerModel


class BytePairs(TokenizerModel):
    """Needs every token that the merges of a kept token pass through.

    Proof. Let all tokens of a text be kept. No merge of the text crosses the border of one of its tokens, so those
    inside a token are the ones of that token read alone, in the same order: :meth:`made_from` finds what they make.
    With it, all merges that the text uses stay, in their order. The next merge is always the first one that applies;
    among fewer merges, of which it is one, it still is. At the end none of all merges applies, so none of the kept
    ones does.
    """

    def __init__(
        self, part: Mapping[str, Any], *, byte_level: bool = False, added: Collection[str] = frozenset()
    ) -> None:
        super().__init__(part, byte_level=byte_level, added=added)
        pairs = (tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge) for merge in part["merges"])
        self.merges: list[tuple[str, str]] = [(first, second) for first, second in pairs]
        self._ranks = {pair: rank for rank, pair in enumerate(self.merges)}

    def check(self) -> str:
        dropout = self.part.get("dropout")
        return f"its merges are left out at random (dropout {dropout})" if dropout else ""

    def needed(self, kept: set[str]) -> set[str]:
        kept = super().needed(kept)
        return kept.union(*map(self.made_from, kept))

    def made_from(self, token: str) -> set[str]:
        """Returns the tokens that merging passes through to make one, itself included; none where it never gets there.

        Those that it does not lead to stand for themselves: special tokens, and whole words that are looked up first
        (``ignore_merges``).
        """
        symbols = self._characters(token)
        passed = set(symbols)
        while len(symbols) > 1:
            rank, place = min((self._ranks.get(pair, inf), i) for i, pair in enumerate(pairwise(symbols)))
            if rank == inf:
                return set()
            symbols[place : place + 2] = [self._merged(symbols[place], symbols[place + 1])]
            passed.add(symbols[place])
        return passed if symbols == [token] else set()

    def _characters(self, token: str) -> list[str]:
        inside = bool(self.prefix) and token.startswith(self.prefix)
        body = token.removeprefix(self.prefix)
        last = self.suffix if self.suffix and body.endswith(self.suffix) else ""
        symbols = [(self.prefix if inside or i else "") + one for i, one in enumerate(body.removesuffix(last))]
        return [*symbols[:-1], symbols[-1] + last] if symbols else []

    def _merged(self, first: str, second: str) -> str:
        return first + second.removeprefix(self.prefix)

    def cut(self, places: Mapping[int, int]) -> dict[str, Any]:
        part = super().cut(places)
        kept = part["vocab"].keys()
        merges = [list(m) for m in self.merges if kept >= {*m, self._merged(*m)}]
        return {**part, "merges": merges}
