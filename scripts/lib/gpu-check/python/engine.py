"""The Engine API without the agent: images, containers, and what the engine knows of the node's containers."""

import http.client
import json
import os
import socket
import tarfile
import time
import urllib.parse


class UnixConnection(http.client.HTTPConnection):
    """One kept connection to the engine's socket."""

    def __init__(self) -> None:
        super().__init__("docker", timeout=60)
        self._path = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock").removeprefix("unix://")

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Refused(Exception):
    """The engine answered with an error; holds its words."""


class Engine:
    """Calls on one kept connection."""

    def __init__(self) -> None:
        self._connection = UnixConnection()

    def call(self, method: str, path: str, body: object = None, raw: bytes | None = None) -> bytes:
        """Makes one call and returns the answer's body."""
        data = json.dumps(body) if body is not None else raw
        kind = "application/x-tar" if raw is not None else "application/json"
        self._connection.request(method, path, body=data, headers={"Content-Type": kind} if data else {})
        answer = self._connection.getresponse()
        text = answer.read()
        if answer.status >= 300:
            raise Refused(f"{method} {path}: {answer.status} {text.decode(errors='replace')[:600]}")
        return text

    def get(self, path: str, **filters: object) -> object:
        """Reads JSON; `filters` are the engine's."""
        if filters:
            path += ("&" if "?" in path else "?") + "filters=" + urllib.parse.quote(json.dumps(filters))
        return json.loads(self.call("GET", path))

    def close(self) -> None:
        """Closes the connection, after an error within a call."""
        self._connection.close()

    def run(self, image: str, command: list[str], uuid: str | None = None, env: tuple[str, ...] = (),
            keep_log: bool = True, more: dict | None = None) -> tuple[int, str]:
        """One container from create to removed: its exit code and its words. `more` is added to HostConfig."""
        host = {"NetworkMode": "none", "Init": True, "CapDrop": ["ALL"],
                "SecurityOpt": ["no-new-privileges"], **(more or {})}
        if uuid:
            host["DeviceRequests"] = [{"Driver": "nvidia", "DeviceIDs": [uuid], "Capabilities": [["gpu"]]}]
        body = {"Image": image, "Cmd": command, "Env": list(env), "HostConfig": host}
        path = "/containers/" + json.loads(self.call("POST", "/containers/create", body))["Id"]
        try:
            self.call("POST", f"{path}/start")
            code = json.loads(self.call("POST", f"{path}/wait"))["StatusCode"]
            return code, demux(self.call("GET", f"{path}/logs?stdout=1&stderr=1")) if keep_log else ""
        finally:
            self.call("DELETE", f"{path}?force=1&v=1")


def demux(data: bytes) -> str:
    """The text of a log in frames: eight bytes before each, the last four of which are its length."""
    out = b""
    while len(data) >= 8:
        size = int.from_bytes(data[4:8], "big")
        out += data[8:8 + size]
        data = data[8 + size:]
    return out.decode(errors="replace")


def ping() -> int:
    """Whether the engine answers."""
    try:
        Engine().call("GET", "/_ping")
        return 0
    except (OSError, Refused):
        return 1


def version() -> None:
    """Prints what the engine is."""
    info = Engine().get("/info")
    print(f"Docker {info['ServerVersion']}, {info['Driver']}, cgroup v{info['CgroupVersion']} by {info['CgroupDriver']}")


def import_image(tar: str, image: str) -> None:
    """Imports a root file system."""
    repo, _, tag = image.partition(":")
    query = urllib.parse.urlencode([("fromSrc", "-"), ("repo", repo), ("tag", tag),
                                    ("changes", "ENV PATH=/bin:/usr/bin"), ("changes", 'CMD ["/bin/sh"]')])
    with open(tar, "rb") as file:
        Engine().call("POST", f"/images/create?{query}", raw=file.read())


def container(image: str, uuid: str, *command: str) -> int:
    """Runs a container with a card ("-": none) and prints its words; VISIBLE is given on as its variable."""
    env = (f"NVIDIA_VISIBLE_DEVICES={os.environ['VISIBLE']}",) if os.environ.get("VISIBLE") else ()
    try:
        code, words = Engine().run(image, list(command), None if uuid == "-" else uuid, env)
    except Refused as err:
        code, words = 125, str(err)
    print(words.rstrip())
    return code


def of_node(node: str) -> list[dict]:
    """The node's containers, running or not."""
    return Engine().get("/containers/json?all=1", label=[f"lamda.node={node}"])


def containers(node: str) -> None:
    """Prints a line for each of the node's containers."""
    for one in of_node(node):
        job = one["Labels"].get("lamda.job_id")
        print(one["Id"][:12], one["State"], f"job={job}" if job else "no job", *one["Names"])


def pids(job_id: str) -> None:
    """Prints the host's ids of a job's processes."""
    engine = Engine()
    for one in engine.get("/containers/json", label=[f"lamda.job_id={job_id}"]):
        top = engine.get(f"/containers/{one['Id']}/top?ps_args=-eo%20pid")
        at = top["Titles"].index("PID")
        for process in top["Processes"]:
            print(process[at])


def starts(job_id: str, since: str) -> None:
    """Prints how many container starts the engine saw for a job."""
    filters = urllib.parse.quote(json.dumps(
        {"type": ["container"], "event": ["start"], "label": [f"lamda.job_id={job_id}"]}))
    text = Engine().call("GET", f"/events?since={since}&until={time.time():.3f}&filters={filters}")
    print(sum(1 for line in text.splitlines() if line.strip()))


def remove(image: str, node: str) -> None:
    """Removes what the checks left in an engine that is not theirs."""
    engine = Engine()
    for one in of_node(node) if node else []:
        engine.call("DELETE", f"/containers/{one['Id']}?force=1&v=1")
    engine.call("DELETE", f"/images/{image}?force=1")


def untar(folder: str, pack: str) -> None:
    """Unpacks where there is no xz."""
    with tarfile.open(pack, "r:xz") as archive:
        archive.extractall(folder)
