"""Keeps loading silent where it has nothing to say that a user could act on."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from transformers.utils import logging as transformers_logging


def _says_more_than_the_report(record: logging.LogRecord) -> bool:
    return "LOAD REPORT" not in record.getMessage()


@contextmanager
def no_bars() -> Iterator[None]:
    """Hides the progress bars of transformers and the hub's client: one voice on the terminal, ours."""
    had_bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if had_bars:
            transformers_logging.enable_progress_bar()


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Hides progress bars and the table of unused and new weights; other warnings come through.

    The table is what `load_encoder` reads as data and checks; to a user it looks like an error where there is none.
    """
    logger = logging.getLogger("transformers.modeling_utils")
    logger.addFilter(_says_more_than_the_report)
    try:
        with no_bars():
            yield
    finally:
        logger.removeFilter(_says_more_than_the_report)
