"""Checks within seconds whether the Hugging Face hub answers; its own client retries for half a minute."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from threading import Thread

from huggingface_hub import constants, get_session

_SECONDS = 4.0  # that the hub has to answer


@cache
def hub_answers() -> bool:
    """Returns whether the hub answers, asked once per process, in a thread since DNS look-ups have no timeout."""
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
    """Explains in a clause why :func:`hub_answers` is False."""
    return "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else f"the hub ({constants.ENDPOINT}) does not answer"


@contextmanager
def cache_alone() -> Iterator[None]:
    """Makes clients of the hub read the cache only, inside the block."""
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
