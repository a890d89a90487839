"""The processes that ``torchrun`` starts for one run."""

import os


def process_count() -> int:
    """How many processes share the run; 1 without ``torchrun``."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first_process() -> bool:
    """Whether this is the one that writes and speaks. A ``RANK`` means something only where there are several."""
    return process_count() == 1 or os.environ.get("RANK", "0") == "0"
