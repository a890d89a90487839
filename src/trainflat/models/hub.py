"""Where a model of the Hugging Face hub is: there, or in its cache if the hub does not answer within seconds."""

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError

from trainflat.core.errors import InputError
from trainflat.core.hub import hub_answers, why_silent
from trainflat.models.checks import FILES


class NotHere(InputError):
    """A name that only the hub could know, which does not answer.

    Attributes:
        near: A known name that was probably meant, or "".
    """

    near = ""


def locate(name: str, packaged: Iterable[str]) -> str:
    """The name itself where the hub answers, else the folder of the hub's cache that holds the model.

    Raises:
        NotHere: there is none.
    """
    if hub_answers():
        return name
    try:
        config = try_to_load_from_cache(name, "config.json")
    except HFValidationError:  # the hub could not have such a name either
        config = None
    if isinstance(config, str):
        return str(Path(config).parent)
    near = next(iter(get_close_matches(name.lower(), packaged, n=1, cutoff=0.7)), "")
    move = f"Did you mean {near!r}?" if near else f"Give a folder with {FILES}, or `minilm`."
    error = NotHere(
        f"model {name!r} is neither packaged nor a folder nor in the hub's cache, and {why_silent()}. {move}"
    )
    error.near = near
    raise error
