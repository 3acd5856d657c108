"""The agent from outside: publishes jobs over NATS and receives their terminal statuses."""

import asyncio
import http.client
import json
import os
import signal
import subprocess
import time
import urllib.parse
from dataclasses import dataclass

import nats
import nats.js.errors

TERMINAL = {"completed", "failed", "cancelled", "timed_out", "rejected"}


@dataclass(frozen=True)
class Done:
    """A finished job, with the times of its publish and of its terminal status by the host's clock,
    which the engine's times also use."""

    job_id: str
    published_ns: int
    ended_ns: int
    status: dict

    @property
    def took_ms(self) -> float:
        """How long the requester waited."""
        return (self.ended_ns - self.published_ns) / 1e6


class Agent:
    """`lamda-node run` as a child process, ended by SIGTERM as by a service manager."""

    def __init__(self, slots: int | None, log: str, settings: dict[str, str | None] | None = None):
        # A value of None removes a setting.
        given = os.environ | (settings or {})
        environment = {key: value for key, value in given.items() if value is not None}
        if slots:
            environment["JOB_SLOTS"] = str(slots)
        with open(log, "ab") as file:
            self.started_ns = time.time_ns()
            self._child = subprocess.Popen(
                [os.environ["LAMDA_NODE"], "run"], env=environment, stdin=subprocess.DEVNULL,
                stdout=file, stderr=file, start_new_session=True)
        self.log = log

    def __enter__(self) -> "Agent":
        return self

    def __exit__(self, *_: object) -> None:
        self._child.send_signal(signal.SIGTERM)
        try:
            self._child.wait(60)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """Sends SIGKILL and waits for the end."""
        self._child.kill()
        self._child.wait()

    def _status(self, key: str) -> int:
        if self._child.poll() is not None:
            raise SystemExit(f"bench: the agent ended by itself; its log is {self.log}")
        with open(f"/proc/{self._child.pid}/status", encoding="utf-8") as file:
            line = next(line for line in file if line.startswith(f"{key}:"))
        return int(line.split()[1])

    def rss_mib(self) -> float:
        """Resident memory in MiB."""
        return self._status("VmRSS") / 1024

    def forget_peak(self) -> None:
        """Resets the peak to what is resident at present."""
        with open(f"/proc/{self._child.pid}/clear_refs", "w", encoding="utf-8") as file:
            file.write("5")

    def peak_rss_mib(self) -> float:
        """Peak resident memory in MiB since `forget_peak`."""
        return self._status("VmHWM") / 1024

    def cpu_s(self) -> float:
        """User and system time since the start, in seconds."""
        with open(f"/proc/{self._child.pid}/stat", encoding="utf-8") as file:
            fields = file.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Dispatcher:
    """A requester on one kept NATS connection."""

    def __init__(self, client: nats.NATS, address: str):
        self._client = client
        self._address = address
        self._waiting: dict[str, asyncio.Future] = {}
        self._count = 0
        self._prefix = f"bench-{time.time_ns():x}"

    @classmethod
    async def connect(cls, address: str | None = None) -> "Dispatcher":
        """Connects, and waits until the agent has created its streams: a job published earlier would
        be lost."""
        client = await nats.connect(os.environ["NATS_URL"])
        self = cls(client, address or os.environ["AGENT_ADDRESS"])
        await client.subscribe(f"jobs.status.{self._address}.*", cb=self._received)
        for _ in range(600):
            try:
                await client.jetstream().stream_info("JOBS")
                break
            except nats.js.errors.NotFoundError:
                await asyncio.sleep(0.1)
        else:
            raise SystemExit("bench: the agent made no stream JOBS within 60 s")
        await client.flush()
        return self

    async def close(self) -> None:
        """Closes the connection."""
        await self._client.close()

    async def _received(self, message: object) -> None:
        ended_ns = time.time_ns()
        status = json.loads(message.data)
        waiting = self._waiting.get(status["job_id"])
        if status["status"] in TERMINAL and waiting and not waiting.done():
            waiting.set_result((ended_ns, status))

    async def run(self, job: dict, limit_s: float = 120, expected: str = "completed") -> Done:
        """Publishes one job and waits for its terminal status, which must be `expected`."""
        self._count += 1
        job_id = f"{self._prefix}-{self._count}"
        waiting = self._waiting[job_id] = asyncio.get_running_loop().create_future()
        published_ns = await self.publish(job_id, job)
        try:
            ended_ns, status = await asyncio.wait_for(waiting, limit_s)
        except asyncio.TimeoutError:
            raise SystemExit(
                f"bench: job {job_id} has no terminal status after {limit_s} s") from None
        del self._waiting[job_id]
        if status["status"] != expected:
            raise SystemExit(f"bench: a job ended as {status['status']}: "
                             f"{status.get('reason_code')}: {status.get('error')}")
        return Done(job_id, published_ns, ended_ns, status)

    async def begin(self, job: dict) -> tuple[str, asyncio.Future]:
        """Publishes one job; returns its id, and what holds its terminal status once it has ended."""
        self._count += 1
        job_id = f"{self._prefix}-{self._count}"
        waiting = self._waiting[job_id] = asyncio.get_running_loop().create_future()
        await self.publish(job_id, job)
        return job_id, waiting

    async def publish(self, job_id: str, job: dict) -> int:
        """Publishes a job; returns when, in ns since 1970."""
        body = json.dumps({"job_id": job_id, **job}).encode()
        published_ns = time.time_ns()
        await self._client.publish(f"jobs.dispatch.{self._address}", body)
        await self._client.flush()
        return published_ns

    async def cancel(self, job_id: str) -> None:
        """Cancels a job and waits for the answer."""
        body = json.dumps({"action": "cancel", "job_id": job_id}).encode()
        await self._client.request(f"jobs.control.{self._address}", body, timeout=30)

    async def pulls(self) -> object:
        """Subscribes to the agent's pull requests."""
        consumer = f"agent-{self._address.lower()}"
        return await self._client.subscribe(f"$JS.API.CONSUMER.MSG.NEXT.JOBS.{consumer}")


def pin(data: object, length: int) -> str:
    """Uploads bytes or a file to the store with Pinata's pinFileToIPFS; returns the CID."""
    url = urllib.parse.urlsplit(os.environ["PINATA_API_URL"])
    mark = "----bench"
    head = (f'--{mark}\r\nContent-Disposition: form-data; name="pinataOptions"\r\n\r\n'
            f'{{"cidVersion":1}}\r\n--{mark}\r\nContent-Disposition: form-data; name="file"; '
            'filename="input"\r\nContent-Type: application/octet-stream\r\n\r\n').encode()
    tail = f"\r\n--{mark}--\r\n".encode()
    connection = http.client.HTTPConnection(url.hostname, url.port, timeout=300,
                                            blocksize=1 << 20)
    connection.putrequest("POST", f"{url.path}/pinning/pinFileToIPFS")
    connection.putheader("Authorization", f"Bearer {os.environ['PINATA_JWT']}")
    connection.putheader("Content-Type", f"multipart/form-data; boundary={mark}")
    connection.putheader("Content-Length", str(len(head) + length + len(tail)))
    connection.endheaders()
    connection.send(head)
    connection.send(data)
    connection.send(tail)
    answer = connection.getresponse()
    text = answer.read()
    if answer.status != 200:
        raise SystemExit(f"bench: the store refused an upload: {answer.status} {text.decode()}")
    return json.loads(text)["IpfsHash"]
