"""Prefect's server for a command that was told of none: it ends when the command does.

Prefect starts one, too, but it outlives a command that is killed, and keeps its output open. Ours
reads a pipe whose other end is the command's, and ends when that closes, for whatever reason.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

from flows.ending import leave
from storage.errors import StorageError

_URL = "PREFECT_API_URL"
_EPHEMERAL = {  # as Prefect does
    "PREFECT_UI_ENABLED": "0",
    "PREFECT__SERVER_EPHEMERAL": "1",
    "PREFECT__SERVER_FINAL": "1",
}


class Unreachable(StorageError, ConnectionError):
    """Prefect's server does not answer."""


@contextlib.contextmanager
def prefect_server() -> Iterator[None]:
    """See to it that flows find a server: the one of Prefect's settings, else one that starts here.

    It starts beside what the block imports: what is asked of it early waits in its socket.

    Raises
    ------
    Unreachable
        If the server does not answer.
    """
    from prefect.context import refresh_global_settings_context
    from prefect.settings import get_current_settings

    url = get_current_settings().api.url
    if url is None:
        url = os.environ[_URL] = _temporary()
        refresh_global_settings_context()
    try:
        yield
    except RuntimeError as error:
        if "Failed to reach API" not in str(error):
            raise
        raise Unreachable(
            f"Prefect's server at {url} does not answer: start it (`wavemill up`), or unset {_URL} "
            f"(`prefect config unset {_URL}`), and the command starts one of its own"
        ) from error


def _temporary() -> str:
    """Start a server that lasts as long as this process; return its address."""
    said = None if os.environ.get("WAVEMILL_DEBUG") else subprocess.DEVNULL
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        port, number = listener.getsockname()[1], listener.fileno()
        process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(number)],
            stdin=subprocess.PIPE,
            stdout=said,
            stderr=said,
            env={**os.environ, **_EPHEMERAL},
            pass_fds=[number],
            start_new_session=True,  # a terminal's Ctrl-C is for the command, which ends it
        )
    atexit.register(_end, process)  # Prefect has said by then what it had to say
    return f"http://127.0.0.1:{port}/api"


def _end(process: subprocess.Popen[bytes]) -> None:
    """Tell the server to end; one that is still starting is not waited for."""
    assert process.stdin is not None
    process.stdin.close()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(2.0)


def _serve(number: int) -> None:
    """Serve a socket until standard input ends."""
    import uvicorn

    factory = "prefect.server.api.server:create_app"
    config = uvicorn.Config(factory, factory=True, log_level="error", lifespan="on")
    server = uvicorn.Server(config)

    def end() -> None:
        sys.stdin.buffer.read()
        while not server.started:  # no migration of its database is cut short
            time.sleep(0.1)
        server.should_exit = True
        time.sleep(5.0)
        os._exit(1)

    threading.Thread(target=end, daemon=True).start()
    gc.set_threshold(10_000)  # what it begins with is none of it garbage
    server.run([socket.socket(fileno=number)])
    leave()


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
