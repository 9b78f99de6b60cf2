"""The page's server under load: its first answer after the start, then one user alone, then twenty at once for a minute, each
asking for the labels of a plot of 200 words as soon as the last answer is there. `python benchmarks/page.py BUNDLE`; written to
results/bench-page.json. An answer that is an error ends it.
"""
import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.request import Request, urlopen

import numpy as np

from bert_genres.results import hardware, write_metrics

PORT, USERS, SECONDS = 8756, 20, 60
SENTENCES = ["A widow buys a lighthouse on a rock where no ship has passed since the war.", "She repaints it and learns to fish.",
             "Each night a captain who drowned a century ago knocks at the door and asks for the way home.",
             "Her brother, a banker, wants to sell the rock to a hotel and sends two crooks to frighten her.",
             "They are frightened first.", "In the storm of the year she has to choose between the light and the living."]
PLOT = " ".join(" ".join(SENTENCES * 4).split()[:200])


def ask(path, text):
    began = time.perf_counter()
    body = json.dumps({"text": text, "label": None}).encode()
    with urlopen(Request(f"http://127.0.0.1:{PORT}/{path}", body, {"Content-Type": "application/json"})) as answer:
        json.load(answer)
    return time.perf_counter() - began


def user(number):
    until, took = time.perf_counter() + SECONDS, []
    while time.perf_counter() < until:
        took.append(ask("answer", f"{PLOT} {number} {len(took)}"))
    return took


def main(bundle):
    began = time.perf_counter()
    command = [Path(sys.executable).with_name("bert-genres"), "app", bundle, "--port", str(PORT)]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        if not (said := server.stderr.readline()).startswith("http"):
            sys.exit(said.strip())
        ask("answer", PLOT)
        first = time.perf_counter() - began
        alone = {path: [ask(path, f"{PLOT} {k}") for k in range(20)] for path in ("answer", "why")}
        with ThreadPoolExecutor(USERS) as users:
            crowd = [t for took in users.map(user, range(USERS)) for t in took]
    finally:
        server.terminate()
        server.wait()
    spread = lambda seconds: {f"p{q}": round(1000 * float(np.quantile(seconds, q / 100))) for q in (50, 95, 100)}
    figures = {"first answer after the start, s": round(first, 2), "words": len(PLOT.split()),
               "one user, ms": {path: spread(took) for path, took in alone.items()},
               "twenty users, ms": spread(crowd), "twenty users, answers a second": round(len(crowd) / SECONDS, 1), "errors": 0}
    print(json.dumps(figures, indent=1))
    write_metrics(Path("results") / "bench-page.json", {"hardware": hardware(), "bundle": Path(bundle).name, "figures": figures})


if __name__ == "__main__":
    main(*sys.argv[1:])
