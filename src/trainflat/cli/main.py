"""The door of the command line: exit codes, signals, and errors as one line."""

import io
import logging
import signal
import sys
from typing import Any, NoReturn

from trainflat.cli.grids import app  # the one of `commands`, to which these add theirs
from trainflat.core.errors import InputError, TrainflatError, one_line
from trainflat.core.formatting import shown, wanted
from trainflat.core.processes import process_count

# What is said where a command was interrupted; the others are begun again.
_CONTINUED = {
    "run": " A run continues with the same command.",
    "grid": " The same command goes on with what is missing.",
    "diagnose": " The same command goes on with what is missing.",
}


def main() -> None:
    """Runs the command line: exit code 0 done, 2 bad input in one line, 1 a fault, 130 interrupted, 143 terminated."""
    _prepare_process()
    # The hub's client tells of each of its attempts; what came of them all is our one line.
    logging.getLogger("huggingface_hub.utils._http").setLevel(logging.ERROR)
    try:
        code = app(standalone_mode=False)
    except TrainflatError as error:
        _fail(str(error), error.exit_code)
    except OSError as error:  # a name of 300 letters, a folder that may not be read: the machine's word for it
        where = "" if error.filename is None else f"{error.filename}: "
        _fail(f"{where}{error.strerror or one_line(error)}.", InputError.exit_code)
    except SystemExit as stop:
        if stop.code in (129, 143):
            _complain(_interrupted())
        if isinstance(stop.__context__, BrokenPipeError):  # rich and typer call it 1, which is a fault here
            sys.exit(128 + signal.SIGPIPE)
        raise
    except Exception as error:
        if not hasattr(error, "format_message"):  # typer's errors of usage have it; their class is not offered
            raise
        _fail(_usage(error), InputError.exit_code)
    if code == 130:  # typer's answer to Ctrl-C, which says nothing
        _fail(_interrupted(), code)
    if code:  # of a command that did its work and says that some of it failed
        sys.exit(code)


def _prepare_process() -> None:
    """Lets output escape what a terminal cannot show, and signals end the process as Ctrl-C does."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what an ascii terminal cannot show is escaped; so are names of bytes
            stream.reconfigure(errors="backslashreplace")
    if process_count() == 1:  # torchrun ends its own at once: one of them may wait for another, deaf to signals
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, _stop)


def _interrupted() -> str:
    command = next(iter(sys.argv[1:]), "")
    return f"interrupted.{_CONTINUED.get(command, '')}"


def _usage(error: Any) -> str:
    """Says what a call of the command line lacks, and where to read on."""
    cause = error.__cause__
    if hasattr(cause, "errors"):  # pydantic's, whose words are its own
        error.message = f"{wanted(cause.errors())}, got {shown(cause.errors()[0]['input'])}"
    text = error.format_message()
    where = error.ctx.command_path if error.ctx else "trainflat"
    return f"{text[:1].lower()}{text[1:]}{'' if text.endswith(('.', '?')) else '.'} See `{where} --help`."


def _complain(text: str) -> None:
    print(f"trainflat: {' '.join(text.split())}", file=sys.stderr)  # noqa: T201


def _fail(text: str, code: int) -> NoReturn:
    _complain(text)
    sys.exit(code)


def _stop(number: int, frame: object) -> None:
    """Ends the process as Ctrl-C does: what is half-written is deleted."""
    raise SystemExit(128 + number)
