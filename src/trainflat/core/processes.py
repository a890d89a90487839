"""Reads the processes that ``torchrun`` starts for one run."""

import os


def process_count() -> int:
    """Returns the number of processes that share the run; 1 without ``torchrun``."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first_process() -> bool:
    """Returns whether this process writes and prints: rank 0 of several, or the only one."""
    # A shell on a cluster may set RANK without starting more than one process.
    return process_count() == 1 or os.environ.get("RANK", "0") == "0"
