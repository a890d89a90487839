"""What all records share: fixed fields, and files that are whole, versioned and, where they have a digest, sealed."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from trainflat.core.errors import DamagedFile, InputError
from trainflat.core.files import MOVE, hash_json, read_json, write_json
from trainflat.core.untrusted import validated


class Data(BaseModel):
    """A part of a record. Unknown fields are refused, and none is assigned after construction."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def added_later(default: Any) -> Any:
    """Declares a field that older records lack; it is written only where it says something, so their digests stay."""
    return Field(default=default, exclude_if=lambda value: value == default)


@dataclass(frozen=True)
class Format:
    """A kind of record file: JSON with the number of its format and, where ``sealed`` is given, a digest.

    Attributes:
        what: Name of the kind, for messages.
        kind: Type that the content is validated as.
        sealed: Takes the content, returns what the digest is a hash of; None writes no digest.
        again: What to do about a file that was changed, as a sentence.
        number: Raised whenever a file of this kind can no longer be read by the trainflat before.
    """

    what: str
    kind: Any
    sealed: Callable[[Any], Any] | None = None
    again: str = MOVE
    number: int = 1

    def write(self, path: Path, content: Data) -> Path:
        """Writes the file atomically and returns its path. Raises InputError if it cannot be written."""
        seal = {} if self.sealed is None else {"digest": hash_json(self.sealed(content))}
        write_json(path, {**content.model_dump(mode="json"), "format": self.number, **seal})
        return path

    def read(self, path: Path) -> Any:
        """Reads and validates the file.

        Raises:
            InputError: another version of trainflat wrote it.
            DamagedFile: it is something else, or not what was written.
        """
        value = read_json(path)
        marks = {"format"} if self.sealed is None else {"format", "digest"}
        if not isinstance(value, dict) or not marks <= set(value):
            raise DamagedFile(f"{path} is no {self.what} that trainflat wrote. {MOVE}")
        number, digest = value.pop("format"), value.pop("digest", None)
        if number != self.number:
            raise InputError(
                f"{path} has another format ({number!r:.20}) than this trainflat reads ({self.number}). "
                "Use the trainflat that wrote it."
            )
        content = validated(value, self.kind, f"{path} is not a {self.what}", MOVE)
        if self.sealed is not None and digest != hash_json(self.sealed(content)):
            raise DamagedFile(f"{path} was changed after it was written (its digest does not fit). {self.again}")
        return content
