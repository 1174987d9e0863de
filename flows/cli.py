"""The command line: ``wavemill``."""

from __future__ import annotations

import atexit
import gc
import logging
import os
import signal
import sys
import threading
from collections.abc import Sequence
from types import FrameType
from typing import Annotated, Any

if "PREFECT_LOGGING_LEVEL" not in os.environ:  # runs log to the UI, not to the terminal
    _runs = {
        f"PREFECT_LOGGING_LOGGERS_PREFECT_{run}_RUNS_LEVEL": "INFO" for run in ("FLOW", "TASK")
    }
    os.environ |= {"PREFECT_LOGGING_LEVEL": "CRITICAL", **_runs}
for _name, _value in {  # before Prefect is imported, which reads its settings once
    "PREFECT_INTERNAL_LOGGING_LEVEL": "CRITICAL",
    "MPLBACKEND": "Agg",
}.items():
    os.environ.setdefault(_name, _value)

for _name in (
    "matplotlib",  # it warns at length if it cannot write to its folder and takes another
    *("EventsWorker", "APILogWorker"),  # Prefect's, which at the end count what is left to send
):
    logging.getLogger(_name).setLevel(logging.ERROR)

import typer  # noqa: E402
from typer.core import TyperGroup  # noqa: E402

from flows.commands import amend, compute, generate, ingest, inspect, judge, serve  # noqa: E402
from flows.commands.options import printable  # noqa: E402
from flows.ending import leave  # noqa: E402
from flows.homes import choose_prefect_home  # noqa: E402

ORDER = (  # of commands in the help: as work proceeds
    *("demo", "ingest", "label", "features", "query"),
    *("fit", "predict", "synthesize", "generate", "evaluate", "compare"),
    *("ls", "show", "verify", "remove", "gc", "up"),
)
OF_THE_STORE = ("label", "query", "ls", "show", "verify", "remove", "gc")  # these need no Prefect


class _AsWorkGoes(TyperGroup):
    """Commands in the order in which they are used; typer would put ``ingest``, a group, last."""

    def resolve_command(self, context: Any, arguments: list[str]) -> Any:
        if arguments[0] not in OF_THE_STORE:
            choose_prefect_home()
        return super().resolve_command(context, arguments)

    def list_commands(self, context: Any) -> list[str]:
        return sorted(super().list_commands(context), key=ORDER.index)


app = typer.Typer(
    name="wavemill",
    cls=_AsWorkGoes,
    help="Mill raw data into wavelet features, and features into models.",
    epilog="Start with `wavemill demo`. Every command has an example behind --help.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
for _module in (ingest, compute, generate, judge, inspect, amend, serve):
    _module.register(app)
_interrupted = threading.Event()


def _version(wanted: bool) -> None:
    """Say which code this is, as manifests record it."""
    if wanted:
        from storage.attempts import provenance

        said = (f"{name} {value}" for name, value in provenance().items() if value)
        print(", ".join(said))
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Print the versions and exit."
        ),
    ] = False,
) -> None: ...


class _NoRetries:
    """Stands for Prefect's setting of how often a client asks again."""

    @staticmethod
    def value() -> int:
        return 0


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command: exit 0 done, 1 failed with one line that says why, 2 usage, 130 stopped."""
    gc.set_threshold(10_000)  # imports make millions of objects, none of them garbage
    status = [1]
    atexit.register(lambda: leave(*status))  # registered first, it is called last
    # workers killed at work leave locks behind, which are cleared away: no reason for a warning
    told = os.environ.get("PYTHONWARNINGS", "").split(",")
    os.environ["PYTHONWARNINGS"] = ",".join([*filter(None, told), "ignore:resource_tracker"])
    logging.raiseExceptions = False  # logs for a server that has ended are dropped silently
    signal.signal(signal.SIGTERM, _interrupt)
    for number in (signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as a background job or nohup has it
            signal.signal(number, _interrupt)
    status[0] = run(arguments)
    sys.exit(status[0])


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Stop everything that was started, on Ctrl-C, SIGTERM (services) or SIGHUP (lost terminals).

    A terminal's Ctrl-C also ends the temporary Prefect server; without this, Prefect would try for
    minutes to tell that server that the run has crashed.
    """
    _interrupted.set()
    logging.disable()  # what was half started would log how far it came, and why no farther
    client = sys.modules.get("prefect.client.base")
    if client is not None:  # settings come and go with flows and tasks: this one is to stay
        client.PREFECT_CLIENT_MAX_RETRIES = _NoRetries  # type: ignore[attr-defined]
    raise KeyboardInterrupt


def run(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status."""
    try:
        status = app(args=None if arguments is None else list(arguments), standalone_mode=False)
        return _fail("stopped", 130) if status == 130 else int(status or 0)
    except KeyboardInterrupt:
        return _fail("stopped", 130)
    except Exception as error:
        return _fail("stopped", 130) if _interrupted.is_set() else _status(error)


def _status(error: Exception) -> int:
    """Say what failed in one line; a failure that is nobody's fault shows where, too."""
    from storage import StorageError
    from wavemill.errors import WavemillError

    if type(error).__name__ == "Abort":
        return _fail("stopped", 130)
    show, code = getattr(error, "show", None), getattr(error, "exit_code", None)
    if callable(show) and isinstance(code, int):  # a usage error: click shows it best
        show()
        return code
    if isinstance(error, StorageError | WavemillError | OSError):
        return _fail(f"error: {error}", 1)
    if os.environ.get("WAVEMILL_DEBUG"):
        raise error
    where = type(error).__name__
    return _fail(f"error: {where}: {error} (WAVEMILL_DEBUG=1 shows the traceback)", 1)


def _fail(message: str, status: int) -> int:
    print(printable(" ".join(message.split())), file=sys.stderr)
    return status


if __name__ == "__main__":
    main()
