"""Ten thousand plots of a corpus through a bundle: by the command alone, and on a Ray cluster of a head and two nodes with a
core each, alternating; rates of reading and tokenising; and the memory of workers over an input ten times their nodes' object
store. `python benchmarks/scaling.py CORPUS BUNDLE`; written to results/bench-scaling.json.

What a start takes is told apart by doing 2,048 plots as well: rates are from the difference. Both ways must give the same rows.
"""
import csv
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from statistics import median

from pyarrow import Table, dataset, parquet
from ray.cluster_utils import Cluster

from bert_genres.data import load_corpus
from bert_genres.model import load_bundle
from bert_genres.results import hardware, write_metrics
from bert_genres.tables import read_texts

FEW, MANY, ROUNDS, STORE = 2048, 10_000, 3, 80_000_000
COMMAND = Path(sys.executable).with_name("bert-genres")


def take(*args):
    "Seconds that a call of the command takes."
    began = time.perf_counter()
    subprocess.run([COMMAND, *map(str, args)], check=True, stderr=subprocess.DEVNULL)
    return time.perf_counter() - began


def reading(folder, plots):
    "Texts and megabytes a second from each kind of file, one process."
    paths = {kind: folder / f"read.{kind}" for kind in ("csv", "jsonl", "parquet")}
    with open(paths["csv"], "w", newline="") as f:
        csv.writer(f).writerows([["plot"], *([plot] for plot in plots)])
    with open(paths["jsonl"], "w") as f:
        f.writelines(json.dumps({"plot": plot}) + "\n" for plot in plots)
    parquet.write_table(Table.from_pydict({"plot": plots}), paths["parquet"])
    out = {}
    for kind, path in paths.items():
        took = []
        for _ in range(5):
            began = time.perf_counter()
            assert sum(1 for _ in read_texts(path)) == len(plots)
            took.append(time.perf_counter() - began)
        rate, size = len(plots) / median(took), path.stat().st_size / len(plots)
        out[kind] = {"texts_per_second": round(rate), "bytes_per_text": round(size)}
    return out


def tokenising(bundle, plots):
    "Texts a second, one core."
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    tokenizer = load_bundle(bundle).encoder.tokenizer
    began = time.perf_counter()
    for plot in plots:
        tokenizer.encode(plot)
    return round(len(plots) / (time.perf_counter() - began))


def resident():
    "Megabytes in use, of each process of Ray that has a worker of ours."
    out = {}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes().startswith((b"ray::MapWorker", b"ray::MapBatches", b"ray::FlatMap")):
                status = dict(line.split(":", 1) for line in (path.parent / "status").read_text().splitlines())
                out[int(path.parent.name)] = int(status["RssAnon"].split()[0]) / 1024
        except OSError:                                                      # it has ended
            continue
    return out


def memory(folder, address):
    "What workers hold in the first and in the last third of an input ten times as large as each node's object store."
    line = json.dumps({"plot": "A ship sails to an island and a storm comes up. " * 500}) + "\n"
    n = 10 * STORE // len(line)
    with open(folder / "large.jsonl", "w") as f:
        for k in range(n):
            f.write(line.replace("A ship", f"Ship {k}", 1))
    seen, done = [], threading.Event()

    def watch():
        while not done.wait(1):
            parts = len(list((folder / "large").rglob("*.parquet")))
            seen.extend((parts, pid, mb) for pid, mb in resident().items())

    watcher = threading.Thread(target=watch)
    watcher.start()
    took = take("encode", folder / "large.jsonl", "--max-seq-len", "16", "--out", folder / "large", "--engine", "ray",
                "--address", address)
    done.set()
    watcher.join()
    last = max(parts for parts, _, _ in seen)
    most = lambda low, high: round(max(mb for parts, _, mb in seen if low <= parts / last <= high))
    return {"input_mb": round((folder / "large.jsonl").stat().st_size / 1e6), "object_store_mb": STORE // 1_000_000, "texts": n,
            "seconds": round(took), "most_mb_first_third": most(.05, 1 / 3), "most_mb_last_third": most(2 / 3, 1)}


def differences(alone, folder):
    """How many rows have other genres in one output than in the other. AssertionError where a row is missing, or a probability
    differs by more than the last digits that a sum over more threads ends in."""
    rows = dataset.dataset(folder).to_table().sort_by("row").to_pylist()
    lines, differ = [json.loads(line) for line in alone.read_text().splitlines()], 0
    assert [row["id"] for row in rows] == [line["id"] for line in lines]
    for row, line in zip(rows, lines, strict=True):
        p = dict(row["probabilities"])
        assert all(abs(p.get(label, q) - q) < 1e-4 for label, q in line["probabilities"].items()), row["row"]
        differ += set(row["genres"]) != set(line["genres"])
    return differ


def main(corpus, bundle):
    plots = list(load_corpus(corpus)["plot"][:MANY])
    assert len(set(plots)) == MANY
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    cluster = Cluster(True, head_node_args={"num_cpus": 0, "include_dashboard": False, "object_store_memory": STORE})
    for _ in range(2):
        cluster.add_node(num_cpus=1, object_store_memory=STORE)
    took = {(way, n): [] for way in ("alone", "ray") for n in (FEW, MANY)}
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        for n in (FEW, MANY):
            parquet.write_table(Table.from_pydict({"plot": plots[:n]}), folder / f"{n}.parquet")
        for k in range(ROUNDS):
            for n in (FEW, MANY):
                source, alone, out = folder / f"{n}.parquet", folder / f"{n}-{k}.jsonl", folder / f"{n}-{k}"
                on_cluster = ["--out", out, "--engine", "ray", "--address", cluster.address]
                took["alone", n].append(take("predict", bundle, source, "--out", alone))
                took["ray", n].append(take("predict", bundle, source, *on_cluster))
                differ = differences(alone, out)
        size = sum(p.stat().st_size for p in (folder / f"{MANY}-0").rglob("*.parquet") if p.is_file()) / MANY
        found = {"hardware": hardware(), "bundle": load_bundle(bundle).info["recipe"], "plots": MANY}
        for way in ("alone", "ray"):
            few, many = median(took[way, FEW]), median(took[way, MANY])
            rate = (MANY - FEW) / (many - few)
            found[way] = {"texts_per_second": round(rate, 1), "start_seconds": round(few - FEW / rate, 1),
                          "seconds": {str(n): [round(s, 1) for s in took[way, n]] for n in (FEW, MANY)}}
        found["rows_with_other_genres"] = differ
        found["overhead"] = round(found["alone"]["texts_per_second"] / found["ray"]["texts_per_second"] - 1, 3)
        found["output_bytes_per_text"] = round(size)
        found["memory"] = memory(folder, cluster.address)
        cluster.shutdown()
        found["reading"], found["tokenised_per_second"] = reading(folder, plots), tokenising(bundle, plots)
    write_metrics(Path("results") / "bench-scaling.json", found)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main(*sys.argv[1:3])
