"""Runs containers without the agent: with Docker's client, and with the bare Engine API."""

import http.client
import json
import os
import socket
import subprocess
import threading
import time
import urllib.parse
from datetime import datetime, timezone


class UnixConnection(http.client.HTTPConnection):
    """One kept connection to the engine's socket."""

    def __init__(self, path: str):
        super().__init__("docker", timeout=300)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Engine:
    """The bare Engine API: create, start, wait, remove, on one kept connection."""

    def __init__(self) -> None:
        self._connection = self.connect()

    @staticmethod
    def connect() -> UnixConnection:
        """Opens a new connection to the engine."""
        host = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
        if not host.startswith("unix://"):
            raise SystemExit(f"bench: DOCKER_HOST={host}: only a unix socket is measured")
        return UnixConnection(host.removeprefix("unix://"))

    def call(self, method: str, path: str, body: object = None) -> object:
        """Makes one call; any error ends the bench."""
        data = None if body is None else json.dumps(body)
        headers = {"Content-Type": "application/json"} if data else {}
        self._connection.request(method, path, body=data, headers=headers)
        answer = self._connection.getresponse()
        text = answer.read()
        if answer.status >= 300:
            raise SystemExit(f"bench: {method} {path}: {answer.status} {text.decode()}")
        return json.loads(text) if text else None

    def run(self, image: str, command: list[str], binds: list[str]) -> None:
        """Runs one container from create to remove."""
        created = self.call("POST", "/containers/create", {
            "Image": image,
            "Cmd": command,
            "HostConfig": {"NetworkMode": "none", "Binds": binds},
        })
        path = f"/containers/{created['Id']}"
        self.call("POST", f"{path}/start")
        code = self.call("POST", f"{path}/wait")["StatusCode"]
        self.call("DELETE", f"{path}?v=1")
        if code != 0:
            raise SystemExit(f"bench: the container exited with {code}")


class Watch:
    """Records when the engine created each job's container, and when it reported the container's exit
    to a client that waits as the agent does."""

    def __init__(self) -> None:
        self.created_ns: dict[str, int] = {}
        self.ended_ns: dict[str, int] = {}
        self._seen = threading.Condition()
        filters = urllib.parse.quote(json.dumps({"type": ["container"], "event": ["create"]}))
        connection = Engine.connect()
        connection.request("GET", f"/events?filters={filters}")
        self._answer = connection.getresponse()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        engine = Engine()
        while line := self._answer.readline():
            event = json.loads(line)
            job_id = event["Actor"]["Attributes"].get("lamda.job_id")
            if not job_id:
                continue
            container = event["Actor"]["ID"]
            threading.Thread(target=self._wait, args=(job_id, container), daemon=True).start()
            # The event follows the creation; `Created` is when the engine began with it.
            found = engine.call("GET", f"/containers/{container}/json")
            self._note(self.created_ns, job_id, nanoseconds(found["Created"]))

    def _wait(self, job_id: str, container: str) -> None:
        Engine().call("POST", f"/containers/{container}/wait?condition=next-exit")
        self._note(self.ended_ns, job_id, time.time_ns())

    def _note(self, times: dict[str, int], job_id: str, at: int) -> None:
        with self._seen:
            times[job_id] = at
            self._seen.notify_all()

    def of(self, job_id: str) -> tuple[int, int]:
        """The times of creation and exit of a finished job, in ns since 1970."""
        with self._seen:
            if not self._seen.wait_for(
                    lambda: job_id in self.created_ns and job_id in self.ended_ns, timeout=10):
                raise SystemExit(f"bench: the engine reported no start and end of {job_id}")
            return self.created_ns[job_id], self.ended_ns[job_id]


def nanoseconds(text: str) -> int:
    """Parses a time of the engine, `2026-11-22T08:00:00.123456789Z`, to ns since 1970."""
    whole, _, fraction = text.removesuffix("Z").partition(".")
    at = datetime.fromisoformat(whole).replace(tzinfo=timezone.utc)
    return int(at.timestamp()) * 10**9 + int(fraction.ljust(9, "0") or 0)


def docker_run(image: str, command: list[str], binds: list[str]) -> None:
    """Runs the same container with Docker's client, one process per run."""
    volumes = [argument for bind in binds for argument in ("-v", bind)]
    subprocess.run(
        ["docker", "run", "--rm", "--network", "none", *volumes, image, *command],
        check=True, stdout=subprocess.DEVNULL)
