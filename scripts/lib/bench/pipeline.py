"""Measures whether a slot waits for the network: jobs whose fetch and upload take a second each."""

import asyncio
import http.client
import http.server
import os
import threading
import time
import urllib.parse
from collections.abc import Callable
from pathlib import Path

from agent import Agent, Dispatcher, pin
from engine import Engine
from report import percentile

SLOW_S = 1.0
WORK = ["/bin/sh", "-c", "cat /input/input > /output/output; sleep 1"]


class Slow(http.server.BaseHTTPRequestHandler):
    """A proxy before the store that delays each fetch and each upload by a second."""

    protocol_version = "HTTP/1.1"

    def _pass(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self._chunks() if self.headers.get("Transfer-Encoding") else self.rfile.read(length)
        slow = self.path.startswith("/ipfs/") or self.path.endswith("/pinFileToIPFS")
        if slow:
            time.sleep(SLOW_S)
        store = urllib.parse.urlsplit(os.environ["PINATA_API_URL"])
        connection = http.client.HTTPConnection(store.hostname, store.port, timeout=60)
        kept = {key: value for key, value in self.headers.items()
                if key.lower() not in ("host", "connection", "transfer-encoding", "content-length")}
        connection.request(self.command, self.path, body=body or None, headers=kept)
        answer = connection.getresponse()
        text = answer.read()
        self.send_response(answer.status)
        for key, value in answer.getheaders():
            if key.lower() not in ("connection", "transfer-encoding", "content-length"):
                self.send_header(key, value)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def _chunks(self) -> bytes:
        found = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            found += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return found

    do_GET = do_POST = _pass

    def log_message(self, *_: object) -> None:
        """Suppresses the log line per request."""


def jobs(image: str, count: int) -> list[dict]:
    """Jobs with unique inputs, whose outputs the store has not seen either."""
    data = [f"pipeline {number} {time.time_ns()}\n".encode() for number in range(count)]
    return [{"image_name": image, "command": WORK, "input_file_cid": pin(text, len(text))}
            for text in data]


def engine_s(image: str, binds: list[str], rounds: int) -> float:
    """The median time of `sleep 1` on the bare engine, in seconds."""
    engine, took = Engine(), []
    for _ in range(rounds):
        started = time.perf_counter()
        engine.run(image, ["/bin/sh", "-c", "sleep 1"], binds)
        took.append(time.perf_counter() - started)
    return percentile(took, 0.5)


async def measure(image: str, binds: list[str], count: int, folder: Path,
                  say: Callable[[str], None]) -> dict:
    """Measures jobs all at once on one slot, then one after the other, and the engine's own time."""
    proxy = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Slow)
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{proxy.server_port}"
    settings = {"IPFS_GATEWAYS": url, "PINATA_API_URL": url}
    try:
        with Agent(1, str(folder / "agent.log"), settings):
            dispatcher = await Dispatcher.connect()
            await dispatcher.run(jobs(image, 1)[0])
            before = engine_s(image, binds, 3)
            started = time.perf_counter()
            await asyncio.gather(*(dispatcher.run(job) for job in jobs(image, count)))
            together = time.perf_counter() - started
            after = engine_s(image, binds, 3)
            say(f"{count} jobs at once took {together:.1f} s")
            started = time.perf_counter()
            for job in jobs(image, count):
                await dispatcher.run(job)
            serial = time.perf_counter() - started
            await dispatcher.close()
    finally:
        proxy.shutdown()
    own = (before + after) / 2
    return {"pipeline": {"jobs": count, "together_s": round(together, 2),
                         "serial_s": round(serial, 2), "engine_sleep_1_s": round(own, 3),
                         "limit_s": round(1.05 * (2 * SLOW_S + count * own), 2)}}
