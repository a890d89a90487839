"""Reads a fast tokenizer's JSON, and makes the tokenizer again with fewer tokens under new ids."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tokenizers import Tokenizer
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from trainflat.core.errors import InputError
from trainflat.models.safe_load import read_tokenizer
from trainflat.models.vocabulary.base import TokenizerModel
from trainflat.models.vocabulary.bpe import BytePairs
from trainflat.models.vocabulary.unigram import Unigram
from trainflat.models.vocabulary.word_level import WordLevel
from trainflat.models.vocabulary.wordpiece import WordPiece
from trainflat.tasks.encoding import BATCH

TOKENIZER_MODELS: dict[str, type[TokenizerModel]] = {  # by the type that tokenizer.json names
    "WordPiece": WordPiece,
    "BPE": BytePairs,
    "Unigram": Unigram,
    "WordLevel": WordLevel,
}
_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")


class FastTokenizer:
    """Holds a tokenizer's JSON with its model.

    Attributes:
        model: With the entries that texts are cut by.
        ids: Id of each token, added ones included.
        special: Ids that are always kept: added tokens, those around a text, of padding and of what is unknown.
        around: Ids that the tokenizer puts around a text.

    Raises:
        InputError: there is no such JSON (a tokenizer of Python code), its model is of no known type, or it reads texts
            at random.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        backend = getattr(tokenizer, "backend_tokenizer", None)
        kind = type(tokenizer).__name__
        if backend is None:
            raise InputError(
                f"{kind} has no tokenizer.json, so its vocabulary cannot be trimmed. Keep this vocabulary whole, or "
                "give a model with a fast tokenizer."
            )
        self.tokenizer, self.json = tokenizer, json.loads(backend.to_str())
        self.model = _model(self.json, kind)
        self._reader = _reader(self.json)
        self.ids: dict[str, int] = self._reader.get_vocab(with_added_tokens=True)
        self.around = set(self._reader.encode("").ids)
        self.special = self._special()

    def _special(self) -> set[int]:
        found = {int(one["id"]) for one in self.json["added_tokens"]} | {*map(int, self.tokenizer.all_special_ids)}
        unknown = self.ids.get(self.model.unknown() or "")
        found |= _numbers(self.json)
        return found | ({unknown} if unknown is not None else set())

    def encode(self, texts: Sequence[str]) -> Iterator[list[int]]:
        """Yields the ids of each text, whole, with the special tokens around it."""
        for start in range(0, len(texts), BATCH):
            yield from (one.ids for one in self._reader.encode_batch_fast(list(texts[start : start + BATCH])))

    def unknown_words(self, text: str) -> set[str]:
        """Returns the words of a text that are unknown, as the model reads them."""
        unknown, normalizer = self.model.unknown(), self._reader.normalizer
        found = self._reader.encode(text)
        words = {text[slice(*o)] for token, o in zip(found.tokens, found.offsets, strict=True) if token == unknown}
        return {normalizer.normalize_str(word) for word in words} if normalizer else words

    def needed(self, ids: set[int], unknown: set[str]) -> set[int]:
        """Adds to some ids all that texts of them need to be read as before, and the special ones.

        Args:
            ids: To keep.
            unknown: Words that must stay unknown.
        """
        names = {number: token for token, number in self.ids.items()}
        tokens = {names[one] for one in ids | self.special if one in names} & self.model.entries.keys()
        tokens = self.model.needed(tokens.union(*map(self.model.before_unknown, unknown)))
        return ids | self.special | {self.model.entries[token] for token in tokens}

    def numbered(self, ids: set[int]) -> dict[int, int]:
        """Returns the new id of each old one: the model's entries first, then added tokens, each in its old order."""
        # tokenizers numbers added tokens that the model lacks from the number of its entries on.
        own, added = set(self.model.entries.values()), set(self.ids.values())
        order = sorted(ids, key=lambda number: (number not in own, number not in added, number))
        return {old: new for new, old in enumerate(order)}

    def cut_json(self, places: Mapping[int, int]) -> dict[str, Any]:
        """Returns the content of tokenizer.json with the tokens in ``places`` alone, under their new ids."""
        part = _renumbered(self.json, lambda number: places[number]) | {"model": self.model.cut(places)}
        return part | {"added_tokens": [one | {"id": places[one["id"]]} for one in self.json["added_tokens"]]}

    def cut(self, places: Mapping[int, int], config: PreTrainedConfig) -> PreTrainedTokenizerBase:
        """Returns the tokenizer with the tokens in ``places`` alone, as `AutoTokenizer` loads it.

        Args:
            places: New ids by old ones.
            config: Of the model beside it, by which transformers may choose the tokenizer's class.
        """
        with TemporaryDirectory() as name:
            folder = Path(name)
            self.tokenizer.save_pretrained(folder)
            for path in folder.iterdir():  # others hold the old vocabulary: vocab.txt, spiece.model
                if path.name not in _FILES:
                    path.unlink()
            config.save_pretrained(folder)
            written = json.dumps(self.cut_json(places), ensure_ascii=False)
            (folder / "tokenizer.json").write_text(written, encoding="utf8")
            _renumber_config(folder / "tokenizer_config.json", places)
            tokenizer = read_tokenizer(folder)
        tokenizer.name_or_path = self.tokenizer.name_or_path
        return tokenizer


def _model(whole: Mapping[str, Any], kind: str) -> TokenizerModel:
    name = whole["model"]["type"]
    if name not in TOKENIZER_MODELS:
        raise InputError(
            f"{kind} is of the type {name}, whose vocabulary cannot be trimmed, only {', '.join(TOKENIZER_MODELS)}. "
            "Keep this vocabulary whole."
        )
    added = {one["content"] for one in whole["added_tokens"]}
    made = TOKENIZER_MODELS[name](whole["model"], byte_level=_has_byte_level(whole), added=added)
    if reason := made.check():
        raise InputError(f"the vocabulary of {kind} cannot be trimmed: {reason}. Set that to none in tokenizer.json.")
    return made


def _has_byte_level(part: Any) -> bool:
    if isinstance(part, dict):
        return part.get("type") == "ByteLevel" or any(_has_byte_level(v) for k, v in part.items() if k != "model")
    return isinstance(part, list) and any(map(_has_byte_level, part))


def _reader(whole: Mapping[str, Any]) -> Tokenizer:
    return Tokenizer.from_str(json.dumps(dict(whole) | {"truncation": None, "padding": None}))


def _numbers(whole: Mapping[str, Any]) -> set[int]:
    """Returns the ids in a tokenizer's post-processor and padding."""
    found: list[int] = []

    def note(number: int) -> int:
        found.append(number)
        return number

    _renumbered(whole, note)
    return set(found)


def _renumbered(whole: Mapping[str, Any], number: Callable[[int], int]) -> dict[str, Any]:
    """Returns the JSON with other numbers in its post-processor and padding."""
    found = dict(whole) | {"post_processor": _processor(whole["post_processor"], number)}
    if whole["padding"] is not None:
        found["padding"] = whole["padding"] | {"pad_id": number(whole["padding"]["pad_id"])}
    return found


def _processor(part: Any, number: Callable[[int], int]) -> Any:
    if not isinstance(part, dict):
        return part
    found = dict(part)
    if part["type"] == "Sequence":
        found["processors"] = [_processor(one, number) for one in part["processors"]]
    for key in {"sep", "cls"} & part.keys():  # BertProcessing, RobertaProcessing
        found[key] = [part[key][0], number(part[key][1])]
    if part["type"] == "TemplateProcessing":
        tokens = part["special_tokens"].items()
        found["special_tokens"] = {name: one | {"ids": [*map(number, one["ids"])]} for name, one in tokens}
    return found


def _renumber_config(path: Path, places: Mapping[int, int]) -> None:
    """Renumbers what tokenizer_config.json may hold: added tokens by id, and the unknown piece of a Unigram model."""
    config = json.loads(path.read_text(encoding="utf8"))
    if "added_tokens_decoder" in config:
        added = config["added_tokens_decoder"].items()
        config["added_tokens_decoder"] = {str(places[int(old)]): one for old, one in added}
    if isinstance(config.get("unk_id"), int):
        config["unk_id"] = places.get(config["unk_id"], config["unk_id"])
    path.write_text(json.dumps(config, indent=2, ensure_ascii=False), encoding="utf8")
