"""Prefect's server for a command that was not given one: it ends when the command does.

Prefect would start one, too, but its server outlives a command that is killed, and keeps the
command's output open. Ours reads a pipe whose other end is the command's, and ends when that
closes, for whatever reason.
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
from pathlib import Path

from flows.ending import leave
from flows.homes import prefect_home
from storage.errors import StorageError

_URL = "PREFECT_API_URL"
_LOOPBACK = "127.0.0.1"
_EPHEMERAL = {  # as Prefect sets them
    "PREFECT_UI_ENABLED": "0",
    "PREFECT__SERVER_EPHEMERAL": "1",
    "PREFECT__SERVER_FINAL": "1",
}
# `python -m` looks into the present folder first, in which there may be packages named like ours.
OUR_PACKAGES = {"PYTHONSAFEPATH": "1"}


class Unreachable(StorageError, ConnectionError):
    """Prefect's server does not answer."""


@contextlib.contextmanager
def prefect_server() -> Iterator[None]:
    """Provide flows with a server: the one in Prefect's settings, else one that starts here.

    Unless these settings seem to name a server, ours starts while we import them and everything
    else; early requests wait in its socket.

    Raises
    ------
    Unreachable
        If the server does not answer.
    """
    early = _Temporary() if _seems_alone() else None
    from httpx import TransportError
    from prefect.context import refresh_global_settings_context
    from prefect.settings import (
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
        get_current_settings,
        temporary_settings,
    )

    url, changed = get_current_settings().api.url, {}
    if url is None:
        os.environ[_URL] = (early or _Temporary()).url
        refresh_global_settings_context()
        # nobody asks it which runs are alive, and heartbeats delay a flow's end by up to 1 s
        changed = {PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}
    elif early is not None:
        early.end()
    try:
        with temporary_settings(changed):
            yield
    except (RuntimeError, TransportError) as error:  # as Prefect begins, or later
        if isinstance(error, RuntimeError) and "Failed to reach API" not in str(error):
            raise
        raise Unreachable(
            f"Prefect's server at {url} does not answer: start it (`wavemill up`), or unset {_URL} "
            f"(`prefect config unset {_URL}`), and the command starts one of its own"
            if url is not None
            else "the Prefect server that this command started has ended: look whether the disk of "
            f"{prefect_home()} is full, and run it again (WAVEMILL_DEBUG=1 shows what it says)"
        ) from error


def _seems_alone() -> bool:
    """Guess whether Prefect's settings name no server: loading them would take a second."""
    if "prefect" in sys.modules or _URL in os.environ:
        return False
    profiles = Path(os.environ.get("PREFECT_PROFILES_PATH") or prefect_home() / "profiles.toml")
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return _URL not in profiles.read_text()
    return True


class _Temporary:
    """A server that lasts as long as this process."""

    def __init__(self) -> None:
        said = None if os.environ.get("WAVEMILL_DEBUG") else subprocess.DEVNULL
        with socket.create_server((_LOOPBACK, 0), backlog=128) as listener:
            self.url = f"http://{_LOOPBACK}:{listener.getsockname()[1]}/api"
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(listener.fileno())],
                stdin=subprocess.PIPE,
                stdout=said,
                stderr=said,
                env={**os.environ, **_EPHEMERAL, **OUR_PACKAGES},
                pass_fds=[listener.fileno()],
                start_new_session=True,  # a terminal's Ctrl-C is for the command, which ends it
            )
        atexit.register(self._see_out)  # by then Prefect has sent all it had to

    def end(self) -> None:
        """Tell the server to end; if it is still starting, it ends once it has started."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    def _see_out(self) -> None:
        self.end()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(2.0)


def _serve(number: int) -> None:
    """Serve a socket until standard input ends."""
    import uvicorn

    factory = "prefect.server.api.server:create_app"
    config = uvicorn.Config(factory, factory=True, log_level="error", lifespan="on")
    server = uvicorn.Server(config)

    def end() -> None:
        sys.stdin.buffer.read()
        while not server.started:  # so that no migration of its database is cut short
            time.sleep(0.1)
        server.should_exit = True
        time.sleep(5.0)
        os._exit(1)

    threading.Thread(target=end, daemon=True).start()
    gc.set_threshold(10_000)  # nothing that it begins with is garbage
    server.run([socket.socket(fileno=number)])
    leave()


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
