"""Defines the contract of a tokenizer's model: which entries others need, and its JSON with fewer of them."""

from collections.abc import Collection, Mapping
from typing import Any

from tokenizers import decoders, pre_tokenizers


class TokenizerModel:
    """Reads the ``model`` part of a tokenizer.json.

    Dropping entries is *exact* where every text whose tokens are all kept is cut into the same tokens as before. Each
    kind of model says, with the proof, which further entries must be kept for that (:meth:`needed`).

    Args:
        part: The ``model`` part; it is not changed.
        byte_level: Whether the entries are written in the 256 characters that stand for bytes.
        added: Tokens that are found in a text before the model reads the rest.

    Attributes:
        entries: Id of each token.
        prefix, suffix: What marks a token inside of a word, and at its end; "" where nothing does.
        incomplete: Whether unknown words may become readable, but for what :meth:`before_unknown` names.
    """

    incomplete: bool = False

    def __init__(
        self, part: Mapping[str, Any], *, byte_level: bool = False, added: Collection[str] = frozenset()
    ) -> None:
        self.part, self.byte_level, self.added = part, byte_level, added
        self.entries = self._read_entries()
        self.prefix: str = part.get("continuing_subword_prefix") or ""
        self.suffix: str = part.get("end_of_word_suffix") or ""

    def _read_entries(self) -> dict[str, int]:
        return dict(self.part["vocab"])

    def check(self) -> str:
        """Returns why a tokenizer with this model cannot be trimmed exactly; "" if it can."""
        return ""

    def unknown(self) -> str | None:
        """Returns the token of what cannot be read, if there is one."""
        return self.part.get("unk_token")

    def needed(self, kept: set[str]) -> set[str]:
        """Adds to some tokens what they need: here the unknown token, all bytes, and the characters in them."""
        # Characters and bytes are kept for texts that come later: a word whose token went is then cut into smaller
        # pieces, and does not become unknown.
        letters = {character for token in kept for character in self.core(token)}
        single = {a + c + b for c in letters for a in ("", self.prefix) for b in ("", self.suffix)}
        return (kept | single | {self.unknown() or ""} | self._bytes()) & self.entries.keys()

    def _bytes(self) -> set[str]:
        fallback = {f"<0x{byte:02X}>" for byte in range(256)} if self.part.get("byte_fallback") else set()
        return fallback | (set(pre_tokenizers.ByteLevel.alphabet()) if self.byte_level else set())

    def before_unknown(self, word: str) -> set[str]:
        """Returns the pieces that must be kept so that an unknown word stays unknown."""
        return set()

    def cut(self, places: Mapping[int, int]) -> dict[str, Any]:
        """Returns the part with the entries in ``places`` alone, under their new ids."""
        vocabulary = {token: places[number] for token, number in self.entries.items() if number in places}
        return {**self.part, "vocab": vocabulary}

    def core(self, token: str) -> str:
        """Returns a token without the marks of its place in a word."""
        return token.removeprefix(self.prefix).removesuffix(self.suffix)

    def text(self, token: str) -> str:
        """Returns the text that a token stands for; of one that ends inside of a character, the whole characters."""
        if self.byte_level:
            return str(decoders.ByteLevel().decode([token])).replace("\ufffd", "")
        return self.core(token).replace("\u2581", " ")  # SentencePiece's sign for a space
