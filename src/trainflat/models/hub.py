"""Where a model of the Hugging Face hub is: there, or in its cache if the hub does not answer within seconds."""

from collections.abc import Iterable
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from threading import Thread

from huggingface_hub import constants, get_session, try_to_load_from_cache
from huggingface_hub.errors import HFValidationError

from trainflat.errors import InputError
from trainflat.models.checks import FILES

_SECONDS = 4.0  # that the hub has to answer; its own client tries again for half a minute


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
    reason = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else f"the hub ({constants.ENDPOINT}) does not answer"
    near = next(iter(get_close_matches(name.lower(), packaged, n=1, cutoff=0.7)), "")
    move = f"Did you mean {near!r}?" if near else f"Give a folder with {FILES}, or `minilm`."
    error = NotHere(f"model {name!r} is neither packaged nor a folder nor in the hub's cache, and {reason}. {move}")
    error.near = near
    raise error


@cache
def hub_answers() -> bool:
    """Whether the hub says anything at all, asked once per process; a thread, for names are looked up without limit."""
    if constants.HF_HUB_OFFLINE:
        return False
    answers: list[object] = []
    thread = Thread(target=_ask, args=(answers,), daemon=True)
    thread.start()
    thread.join(_SECONDS)
    return bool(answers)


def _ask(answers: list[object]) -> None:
    try:
        answers.append(get_session().head(constants.ENDPOINT, timeout=_SECONDS))
    except Exception:  # each version of the client has its own
        return
