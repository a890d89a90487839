"""Whether the Hugging Face hub answers, decided within seconds: its own client tries again for half a minute."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from threading import Thread

from huggingface_hub import constants, get_session

_SECONDS = 4.0  # that the hub has to answer


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


def why_silent() -> str:
    """Why nothing comes from the hub where :func:`hub_answers` is False, as a clause."""
    return "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else f"the hub ({constants.ENDPOINT}) does not answer"


@contextmanager
def cache_alone() -> Iterator[None]:
    """Inside, clients of the hub read its cache and ask nobody."""
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
