"""Does one run of a grid in a process of its own: ``python -m trainflat.commands.grid.worker JOB.json``."""

import ctypes
import os
import signal
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from trainflat.commands.grid.status import FileProgress
from trainflat.core.errors import InputError, TrainflatError, one_line
from trainflat.core.files import read_as

DONE, FAULT, REFUSED, BUSY = 0, 1, 2, 75  # exit codes; BUSY is sysexits.h's "try again later"
_PR_SET_PDEATHSIG = 1  # <sys/prctl.h>


class Work(BaseModel):
    """Holds what a worker needs to know.

    Attributes:
        recipe: Resolved.
        folder: Of the run.
        data: Folder with the task's files.
        shared: Folders of runs that hold a stage of this run, by the stage's name.
        start: Folder that relative paths start from.
    """

    recipe: dict[str, Any]
    folder: Path
    start: Path
    data: Path | None = None
    shared: dict[str, Path] = {}


def main() -> None:
    """Runs the job, and says in the status file why it failed."""
    _end_with_parent()
    work = read_as(Path(sys.argv[1]), Work, "a job of a grid")
    os.chdir(work.start)
    progress = FileProgress(work.folder)
    sys.exit(outcome(work, progress))


def outcome(work: Work, progress: FileProgress) -> int:
    """Does the run of a job, and returns the exit code of its process."""
    from trainflat.commands.run import run
    from trainflat.commands.run_folder import FolderInUse

    try:
        run(work.recipe, data=work.data, out=work.folder.parent, progress=progress, shared=work.shared)
    except FolderInUse:
        return BUSY
    except TrainflatError as error:
        progress.fail(str(error))
        return REFUSED if isinstance(error, InputError) else FAULT
    except Exception as error:
        traceback.print_exc()
        progress.fail(f"{type(error).__name__}: {one_line(error)}")
        return FAULT
    return DONE


def _end_with_parent() -> None:
    """Asks Linux to kill this process with the one that started it, whose locks it would keep otherwise."""
    parent = os.getppid()
    with suppress(AttributeError, OSError):  # elsewhere it works on, and a second driver waits for it
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before we asked
            sys.exit(FAULT)


if __name__ == "__main__":
    main()
