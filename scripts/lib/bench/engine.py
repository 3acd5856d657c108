"""The two ways around the agent: Docker's own client, and the bare Engine API."""

import http.client
import json
import os
import socket
import subprocess


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
    """The Engine API as it is: create, start, wait, remove, on one connection."""

    def __init__(self) -> None:
        host = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
        if not host.startswith("unix://"):
            raise SystemExit(f"bench: DOCKER_HOST={host}: only a unix socket is measured")
        self._connection = UnixConnection(host.removeprefix("unix://"))

    def call(self, method: str, path: str, body: object = None) -> object:
        """One call; anything but success ends the run."""
        data = None if body is None else json.dumps(body)
        headers = {"Content-Type": "application/json"} if data else {}
        self._connection.request(method, path, body=data, headers=headers)
        answer = self._connection.getresponse()
        text = answer.read()
        if answer.status >= 300:
            raise SystemExit(f"bench: {method} {path}: {answer.status} {text.decode()}")
        return json.loads(text) if text else None

    def run(self, image: str, command: list[str], binds: list[str]) -> None:
        """One container from create to removed."""
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


def docker_run(image: str, command: list[str], binds: list[str]) -> None:
    """The same container by Docker's client, a process each time."""
    volumes = [argument for bind in binds for argument in ("-v", bind)]
    subprocess.run(
        ["docker", "run", "--rm", "--network", "none", *volumes, image, *command],
        check=True, stdout=subprocess.DEVNULL)
