"""Chooses the tokens to keep: by a corpus, by a list, or by scripts."""

import unicodedata
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from trainflat.core.errors import InputError, UnknownName, one_line
from trainflat.core.registry import Registry
from trainflat.core.settings import Check, Number, checked
from trainflat.models.vocabulary.fast import FastTokenizer

# Words that begin the Unicode names of letters, of the scripts that published vocabularies hold.
SCRIPTS = (
    *("arabic", "armenian", "bengali", "cjk", "cyrillic", "devanagari", "ethiopic", "georgian", "greek", "gujarati"),
    *("gurmukhi", "hangul", "hebrew", "hiragana", "kannada", "katakana", "khmer", "lao", "latin", "malayalam"),
    *("myanmar", "oriya", "sinhala", "tamil", "telugu", "thai", "tibetan"),
)


class Choice:
    """Chooses tokens; the special ones, and what the chosen ones need, are kept besides."""

    def choose(self, tokenizer: FastTokenizer, counts: Mapping[int, int]) -> set[int]:
        """Returns ids.

        Args:
            tokenizer: Whose vocabulary is trimmed.
            counts: How often the corpus has each token.
        """
        raise NotImplementedError


class Corpus(Choice):
    """Keeps the tokens that the texts use, or that they use often enough.

    Args:
        min_frequency: How many times.
    """

    @checked
    def __init__(
        self, min_frequency: Annotated[int, Number("is how many times, from 1 on", lambda n: n >= 1, whole=True)] = 1
    ) -> None:
        self.min_frequency = min_frequency

    def choose(self, tokenizer: FastTokenizer, counts: Mapping[int, int]) -> set[int]:
        chosen = {token for token, times in counts.items() if times >= self.min_frequency}
        if not chosen:
            raise InputError(
                f"the texts have no token {self.min_frequency} times or more, so nothing would be kept. Give more "
                "texts or a lower min_frequency."
            )
        return chosen


class Words(Choice):
    """Keeps the tokens of some words or texts, read alone and after a space; a word may also be a token itself."""

    def __init__(self, words: tuple[str, ...]) -> None:
        self.words = words

    def choose(self, tokenizer: FastTokenizer, counts: Mapping[int, int]) -> set[int]:
        return _tokens_of(self.words, tokenizer)


class File(Choice):
    """Keeps the tokens of the words or texts in a file, one a line, as ``words`` does."""

    def __init__(self, file: str) -> None:
        self.file = file

    def choose(self, tokenizer: FastTokenizer, counts: Mapping[int, int]) -> set[int]:
        try:
            lines = Path(self.file).expanduser().read_text(encoding="utf8").splitlines()
        except (OSError, ValueError) as error:
            raise InputError(
                f"file {self.file!r} cannot be read ({one_line(error)}). Give words, one a line."
            ) from error
        return _tokens_of(lines, tokenizer)


def _tokens_of(lines: Collection[str], tokenizer: FastTokenizer) -> set[int]:
    words = [line for line in lines if line.strip()]
    if not words:
        raise InputError("there are no words to keep. Give some, one a line.")
    # Byte-level pairs and SentencePiece have tokens of their own for words after a space.
    read = tokenizer.encode([*words, *(f" {word}" for word in words)])
    return {token for ids in read for token in ids} | {tokenizer.ids[word] for word in words if word in tokenizer.ids}


class Ids(Choice):
    """Keeps tokens by their ids.

    Args:
        ids: Numbers in the tokenizer's vocabulary.
    """

    def __init__(self, ids: list[int]) -> None:
        self.ids = ids

    def choose(self, tokenizer: FastTokenizer, counts: Mapping[int, int]) -> set[int]:
        known = set(tokenizer.ids.values())
        for one in self.ids:
            if one not in known:
                raise InputError(f"there is no token {one!r}. Give ids of the tokenizer, from 0 to {max(known)}.")
        return set(self.ids)


@dataclass(frozen=True)
class _Scripts(Check):
    def read(self, name: str, value: Any) -> tuple[str, ...]:
        named = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list | tuple) else ()
        if not named:
            raise InputError(f"{name} is a script, such as latin, or a list of some, got {value!r}.")
        for one in named:
            if one not in SCRIPTS:
                raise UnknownName("script", str(one), SCRIPTS)
        return named


class Script(Choice):
    """Keeps the tokens whose letters are all of some scripts, and those without letters, such as digits.

    Args:
        script: One or several, such as ``latin`` or ``[cjk, hiragana, katakana]``.
    """

    @checked
    def __init__(self, script: Annotated[str | list[str], _Scripts()]) -> None:
        self.script = {one.upper() for one in script}

    def choose(self, tokenizer: FastTokenizer, counts: Mapping[int, int]) -> set[int]:
        model = tokenizer.model
        return {number for token, number in model.entries.items() if self._fits(model.text(token))}

    def _fits(self, text: str) -> bool:
        letters = (unicodedata.name(one, "").split() for one in text if one.isalpha())
        return all(self.script & set(words) for words in letters)


class Choices(Registry[Choice]):
    """Lets a section go without a name where its options say which member is meant: ``{min_frequency: 5}``."""

    def named(self, section: str | Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        if isinstance(section, Mapping) and section and "name" not in section:
            known = {key: name for name in self for key in self.options(name)}
            first = str(next(iter(section)))
            if first not in known:
                raise UnknownName("option of a vocabulary", first, known)
            section = {"name": known[first], **section}
        return super().named(section)


VOCABULARIES: Choices = Choices("vocabulary", corpus=Corpus, words=Words, file=File, ids=Ids, script=Script)
