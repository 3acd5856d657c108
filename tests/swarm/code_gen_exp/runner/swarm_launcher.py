"""A node like one of RL-Swarm, for the tests of the sidecar: Hydra writes its log, wandb its folder, and urllib3 says what it
posts. Reads from its standard input what it does, a line each: `join ROUND`, `submit STATUS`, `fail`. Its end ends it."""

import http.server
import logging
import pathlib
import sys
import threading

import hydra
import requests
import wandb

LOG = logging.getLogger("genrl.logging_utils.global_defs")


class Login(http.server.BaseHTTPRequestHandler):
    """The login server: answers whatever is handed in with one status."""

    status = 200

    def do_POST(self):
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.send_response(Login.status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        """What it would log is no line of the node's."""


def login():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Login)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}"


def work(run, url):
    for line in sys.stdin:
        word, *values = line.split()
        if word == "join":
            LOG.info("Starting round: %s/1000000.", values[0])
            LOG.info("🐝 Joining round: %s", values[0])
            run.log({"round": int(values[0]), "reward": 0.5})
        elif word == "submit":
            Login.status = int(values[0])
            requests.post(f"{url}/api/submit-reward", json={"roundNumber": 1}, timeout=10)
        elif word == "fail":
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")


@hydra.main(version_base=None, config_path="../config", config_name="node")
def main(config):
    logs = pathlib.Path(config.log_dir)
    LOG.info("🐱 Hello 🐈 [%s] 🦮 [%s]!", "quick brown fox", config.peer)
    LOG.info("Using Model: %s", config.model)
    run = wandb.init(project="swarm", dir=logs, mode="offline", config={"mail": config.mail})
    try:
        work(run, login())
    except RuntimeError:
        LOG.exception("Exception occurred during game run.", stack_info=True)
        run.finish(exit_code=1)
        sys.exit(1)
    run.finish()


if __name__ == "__main__":
    main()
