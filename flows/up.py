"""A Prefect server, a worker, Dask and the schedules, started together and stopped together."""

from __future__ import annotations

import contextlib
import copy
import errno
import fcntl
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import yaml

from flows.durations import seconds
from flows.homes import prefect_home
from flows.runtime import LOOPBACK, environment_to_reach, open_cluster
from flows.server import OUR_PACKAGES
from storage.errors import InvalidRequest, StorageError

POOL = "wavemill"
NIGHTLY = "nightly"
SNAPSHOTS = "snapshots"  # what prefect.yaml calls the dataset that is watched
_PATIENCE = 120.0  # seconds for a server to answer
_PORTS = 50
_WILDCARDS = {"0.0.0.0": LOOPBACK, "::": "::1"}
_LEASES = "prefect.server.concurrency.lease_storage.filesystem"
_DEFAULTS = {  # of Prefect's settings, which the environment may set otherwise
    # Scheduled runs, their logs and tables are kept for a month; else the database would only grow.
    "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
    "PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD": str(30 * 86400),
    # Who holds a deployment's one place is known to the next server, too, which takes it from runs
    # that died with this one. In memory, as by default, it would be forgotten and never be free.
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": _LEASES,
}


@dataclass(frozen=True)
class Service:
    """What to serve, where, how often to look at the watched folder, and how to read it."""

    store: str
    port: int = 4200
    host: str = LOOPBACK
    cluster: str = "local"
    device: str = "cpu"
    watch: str | None = None
    dataset: str = SNAPSHOTS
    every: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


class ServiceFailed(StorageError, RuntimeError):
    """A process that is part of the service ended or did not start."""


def up(service: Service) -> None:
    """Start everything, print where it is, and serve until told to stop.

    Raises
    ------
    InvalidRequest
        If no port is free, ``every`` is no duration, or this Prefect home is served already.
    KeyboardInterrupt
        On Ctrl-C, when everything has been stopped.
    ServiceFailed
        If the server or the worker ends by itself, or does not start.
    """
    if service.every is not None:
        _interval(service.every)  # refused at once: deploying comes late
    with contextlib.ExitStack() as stack:
        notes = stack.enter_context(alone(prefect_home()))
        port = free_port(service.host, service.port)
        url = url_of(_reachable(service.host), port)
        print(f"pid {os.getpid()}, {url}", file=notes, flush=True)
        _say("starting Dask")
        address = stack.enter_context(open_cluster(service.cluster, device=service.device))
        environment = environment_of(service, port, address)
        _say(f"starting a Prefect server on port {port}")
        host, number = service.host, str(port)
        command = ["server", "start", "--host", host, "--port", number]
        server = stack.enter_context(_running("server", command, environment))
        _wait_until_healthy(f"{url}/api/health", server)
        _say("deploying the flows")
        _deploy(service, environment)
        _say("starting a worker")
        # Prefect's worker uses a name in the folder for temporary files that its first user owns
        temporary = tempfile.TemporaryDirectory(prefix="wavemill-", ignore_cleanup_errors=True)
        environment["TMPDIR"] = stack.enter_context(temporary)
        worker = stack.enter_context(
            _running("worker", ["worker", "start", "--pool", POOL], environment)
        )
        _announce(service, port)
        _serve({"server": server, "worker": worker})


def _say(step: str) -> None:
    print(f"wavemill: {step}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def alone(home: Path) -> Iterator[IO[str]]:
    """Keep a Prefect home for this service alone, and yield a file in which to note who serves it.

    The schedules in its database are one service's: another would have them run with its own
    dataset and store. The system releases the home when this process ends, by whatever cause.

    Raises
    ------
    InvalidRequest
        If another service has it.
    """
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (home / "wavemill-up.lock").open("a+") as notes:
        try:
            fcntl.flock(notes, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            notes.seek(0)
            raise InvalidRequest(
                f"a `wavemill up` already serves Prefect's home {home} ({notes.read().strip()}): "
                "stop it, or set PREFECT_HOME to another folder"
            ) from None
        notes.truncate(0)
        yield notes


def free_port(host: str, first: int) -> int:
    """Return the first port from ``first`` on that nobody listens on.

    Raises
    ------
    InvalidRequest
        If there is none, or the host is no address of this machine.
    """
    try:
        family, *_, place = socket.getaddrinfo(host, first, type=socket.SOCK_STREAM)[0]
        for port in range(first, min(first + _PORTS, 2**16)):
            with socket.socket(family) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind((place[0], port, *place[2:]))
                except OSError as error:
                    if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                        raise
                else:
                    return port
    except OSError as error:
        raise InvalidRequest(
            f"--host {host}: cannot listen there ({error.strerror}): pass an address of this "
            f"machine, as {LOOPBACK}"
        ) from error
    raise InvalidRequest(f"ports from {first} on of {host} are taken: pass --port")


def _interval(every: str) -> int:
    found = round(seconds(every, "--every", "s"))
    if not found:
        raise InvalidRequest(f"--every {every}: runs need a second between them")
    return found


def scheduled(description: Mapping[str, Any], service: Service) -> dict[str, Any]:
    """Return the deployments with the service's dataset of snapshots, device and nightly schedule.

    Molecules and images keep the names of their own datasets.
    """
    made = copy.deepcopy(dict(description))
    nightly = next(entry for entry in made["deployments"] if entry["name"] == NIGHTLY)
    for parameters in (entry["parameters"] for entry in made["deployments"]):
        if "device" in parameters:
            parameters["device"] = service.device
        if parameters.get("dataset") == SNAPSHOTS:
            parameters["dataset"] = service.dataset
            if service.options and "sources" in parameters:
                parameters["options"] = dict(service.options)
        if "artifact" in parameters:
            parameters["artifact"] = parameters["artifact"].replace(
                f"/{SNAPSHOTS}@", f"/{service.dataset}@"
            )
    if service.every is not None:
        nightly["schedules"] = [{"interval": _interval(service.every), "timezone": "UTC"}]
    nightly["schedules"][0]["active"] = service.watch is not None
    return made


def environment_of(service: Service, port: int, address: str) -> dict[str, str]:
    """Return the environment of the processes, in which nothing is sent anywhere else.

    Clients give the password that the server asks for.
    """
    password = os.environ.get("PREFECT_SERVER_API_AUTH_STRING")
    # A worker's runs are processes of their own: they cannot use a thread of this one.
    ours = not address.startswith("inproc") and address != service.cluster
    return {
        **_DEFAULTS,
        **os.environ,
        **OUR_PACKAGES,
        **({"PREFECT_API_AUTH_STRING": password} if password else {}),
        "PREFECT_API_URL": f"{url_of(_reachable(service.host), port)}/api",
        "PREFECT_UI_API_URL": f"{_shown(service, port)}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_LOGGING_LEVEL": "INFO",
        "WAVEMILL_STORE": service.store,
        "WAVEMILL_CLUSTER": service.cluster,
        **(environment_to_reach(service.cluster, address) if ours else {}),
        "WAVEMILL_WATCH": service.watch or "snapshots",
    }


def _reachable(host: str) -> str:
    return _WILDCARDS.get(host, host)


def _shown(service: Service, port: int) -> str:
    """Return the address of the UI as others see it."""
    return url_of(socket.gethostname() if service.host in _WILDCARDS else service.host, port)


def url_of(host: str, port: int) -> str:
    """Return a server's URL, with an IPv6 address in brackets."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@contextlib.contextmanager
def _running(
    name: str, arguments: list[str], environment: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a Prefect command, out of reach of the terminal's Ctrl-C; it ends when this does."""
    prefect = [sys.executable, "-m", "prefect", *arguments]
    with (
        tempfile.TemporaryFile(prefix=f"wavemill-{name}-") as log,
        subprocess.Popen(
            [sys.executable, "-m", "flows.child", *prefect],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            start_new_session=True,
        ) as process,
    ):
        try:
            yield process
        finally:
            process.communicate()  # the end of its input tells it to end
            if process.returncode:
                log.seek(0)
                sys.stderr.write(log.read().decode(errors="replace")[-2000:])


def _wait_until_healthy(url: str, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise ServiceFailed(f"the Prefect server ended with status {server.returncode}")
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=2):
            return
        time.sleep(0.2)
    raise ServiceFailed(f"the Prefect server did not answer within {_PATIENCE:.0f} s")


def _deploy(service: Service, environment: Mapping[str, str]) -> None:
    """Make the work pool and deploy every flow; deploying again updates."""
    _prefect(["work-pool", "create", POOL, "--type", "process", "--overwrite"], environment)
    description = yaml.safe_load(deployments_file().read_text())
    with tempfile.TemporaryDirectory(prefix="wavemill-") as folder:
        file = Path(folder) / "prefect.yaml"
        file.write_text(yaml.safe_dump(scheduled(description, service)))
        deploy = ["--no-prompt", "deploy", "--all", "--prefect-file", str(file)]
        _prefect(deploy, environment, folder)  # from where it starts, it imports flows first


def deployments_file() -> Path:
    """Return ``prefect.yaml``: beside the packages when installed, else in ``deployments/``."""
    installed = Path(__file__).with_name("prefect.yaml")
    return (
        installed
        if installed.exists()
        else Path(__file__).parents[1] / "deployments" / "prefect.yaml"
    )


def _prefect(
    arguments: list[str], environment: Mapping[str, str], folder: str | None = None
) -> None:
    command = [sys.executable, "-m", "prefect", *arguments]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        tail = (done.stdout + done.stderr).strip()[-1500:]
        raise ServiceFailed(f"prefect {' '.join(arguments[:2])} failed: {tail}")


def _announce(service: Service, port: int) -> None:
    print(f"Prefect UI: {_shown(service, port)}")
    print(f"store: {service.store}")
    if service.watch is None:
        print("schedules: paused; --watch FOLDER ingests what is new there every night")
    else:
        rhythm = f"every {service.every}" if service.every else "every night at 03:00 UTC"
        print(f"schedules: {service.dataset} from {service.watch}, {rhythm}")
    if service.host not in (LOOPBACK, "localhost", "::1"):
        print(
            "warning: whoever reaches this address can run flows; "
            "PREFECT_SERVER_API_AUTH_STRING sets a password",
            file=sys.stderr,
        )
    print("Ctrl-C stops everything", flush=True)


def _serve(processes: Mapping[str, subprocess.Popen[bytes]]) -> None:
    while True:
        for name, process in processes.items():
            if process.poll() is not None:
                raise ServiceFailed(f"the {name} ended with status {process.returncode}")
        time.sleep(0.5)
