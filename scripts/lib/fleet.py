"""A made-up fleet for scripts/demo --hub: forty nodes that beat to the hub of HUB_URL with SHARED_SECRET. One is always
silent, and one goes down and comes back every two minutes."""

import json
import os
import random
import time
import urllib.request

NODES = 40
EVERY_S = 15
SITES = ("ams", "fra", "hel", "iad")

hub = os.environ["HUB_URL"].rstrip("/") + "/api/heartbeat"
head = {"Authorization": "Bearer " + os.environ["SHARED_SECRET"], "Content-Type": "application/json"}
web = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def beat(number, status):
    site = SITES[number % len(SITES)]
    body = {
        "node_id": f"{site}-{number:02}",
        "ip": f"198.51.100.{number + 1}",
        "meta": f"rack {number // 10 + 1} of {site} (made up)",
        "status": status,
    }
    request = urllib.request.Request(hub, json.dumps(body).encode(), head)
    try:
        web.open(request, timeout=5).close()
    except OSError as err:
        print(f"{body['node_id']}: {err}", flush=True)


beat(NODES - 1, "UP")
while True:
    for number in random.sample(range(NODES - 1), NODES - 1):
        is_down = number == 7 and time.time() % 240 < 120
        beat(number, "DOWN" if is_down else "UP")
        time.sleep(EVERY_S / NODES)
