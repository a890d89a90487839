"""Checks within seconds whether the Hugging Face hub answers; its own client retries for half a minute."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from threading import Thread

from huggingface_hub import constants, get_session

_SECONDS = 4.0  # timeout


@cache
def hub_answers() -> bool:
    """Returns whether the hub answers a HEAD request; asked once per process."""
    # In a thread, because a DNS look-up has no timeout and the client's covers the connection only.
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
    except Exception:  # the exception differs between versions of the client (requests, httpx)
        return


def why_silent() -> str:
    """Explains in a clause why :func:`hub_answers` is False."""
    return "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else f"the hub ({constants.ENDPOINT}) does not answer"


@contextmanager
def cache_alone() -> Iterator[None]:
    """Makes clients of the hub read the cache only, inside the block."""
    # The environment variable is read at import; later only the constant has an effect.
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
