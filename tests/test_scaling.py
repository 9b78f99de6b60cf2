"""Files of texts on a Ray cluster: a head and two more nodes, processes of their own that talk over loopback."""
import contextlib
import csv
import gzip
import json
import os
import random
import signal
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
from conftest import one_line
from pyarrow import Table, dataset, parquet
from pyarrow.fs import LocalFileSystem, SubTreeFileSystem
from ray.cluster_utils import Cluster

from bert_genres import scaling_out
from bert_genres.data import load_corpus
from bert_genres.embeddings import BertEncoder
from bert_genres.files import InputError, code_digest
from bert_genres.model import fit_article, load_bundle, save_bundle
from bert_genres.recipes import Frozen

WORDS = "a ship king war love night city train murder ghost farm school doctor robot island winter letter queen thief".split()
FIRST, TEXTS = 1100, 1100 + 9 * 150


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    films = load_corpus("sample").iloc[:150].reset_index(drop=True)
    fitted = fit_article(films, np.full(len(films), "train"), encoder=BertEncoder(max_seq_len=64))
    return save_bundle(fitted[0] if isinstance(fitted, tuple) else fitted, tmp_path_factory.mktemp("scaling") / "article")


@pytest.fixture(scope="module")
def cluster():
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    soon = {"health_check_period_ms": 1000, "health_check_timeout_ms": 3000}               # a death is noticed
    cluster = Cluster(True, head_node_args={"num_cpus": 0, "include_dashboard": False, "object_store_memory": 80_000_000,
                                            "_system_config": soon})
    # one node claims a GPU that is not there, so the work is done by cores
    cluster.workers = [cluster.add_node(num_cpus=1, num_gpus=k, object_store_memory=80_000_000) for k in range(2)]
    yield cluster
    cluster.shutdown()


@pytest.fixture(scope="module")
def plots(tmp_path_factory):
    "Distinct texts in ten files of three kinds, most in a folder below: eleven parts, for only the first file has two."
    folder, rng = tmp_path_factory.mktemp("plots"), random.Random(0)
    texts = iter(f"Story {k}: {' '.join(rng.choices(WORDS, k=rng.randint(3, 6)))}." for k in range(TEXTS))
    with open(folder / "a.csv", "w", newline="") as f:
        csv.writer(f).writerows([("movie_id", "plot"), *((f"a{k}", text) for k, text in enumerate(islice(texts, FIRST)))])
    with gzip.open(folder / "b.jsonl.gz", "wt") as f:
        f.writelines(json.dumps({"plot": text}) + "\n" for text in islice(texts, 150))
    (folder / "more").mkdir()
    for k in range(8):
        parquet.write_table(Table.from_pydict({"plot": list(islice(texts, 150))}), folder / "more" / f"c{k}.parquet")
    return folder


def start(bundle, source, out, cluster):
    command = [Path(sys.executable).with_name("bert-genres"), "predict", bundle, source, "--out", out, "--engine", "ray",
               "--address", cluster.address]
    return subprocess.Popen(command, stderr=subprocess.PIPE, preexec_fn=lambda: signal.signal(
        signal.SIGINT, signal.default_int_handler))


def parts(out):
    return {p: p.stat().st_mtime_ns for p in Path(out).rglob("*.parquet") if p.is_file()}


def wait_for_parts(process, out, n):
    until = time.monotonic() + 900
    while len(parts(out)) < n:
        assert process.poll() is None, process.stderr.read().decode()
        assert time.monotonic() < until
        time.sleep(.05)


def kill(node):
    "SIGKILL to a node and to all that it has started, workers in the middle of a part included."
    raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
    processes = [raylet, *raylet.children(recursive=True)]
    assert any(" ".join(p.cmdline()).startswith("ray::MapWorker") for p in processes)
    for p in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            p.kill()


def test_an_interrupted_job_goes_on_and_a_dead_node_is_done_without(bundle, plots, cluster, run, run_process, tmp_path):
    out = tmp_path / "out"
    process = start(bundle, plots, out, cluster)
    wait_for_parts(process, out, 2)
    process.send_signal(signal.SIGINT)
    assert (process.wait(120), process.stderr.read().decode()) == (130, "bert-genres: interrupted\n")
    kept = parts(out)
    assert 2 <= len(kept) < 11

    process = start(bundle, plots, out, cluster)
    wait_for_parts(process, out, len(kept) + 2)
    assert len(parts(out)) < 11
    kill(node := cluster.workers.pop())
    cluster.remove_node(node, allow_graceful=False)
    assert process.wait(900) == 0
    assert process.stderr.read().decode().endswith("texts done by this call\n")
    assert kept.items() <= parts(out).items() and len(parts(out)) == 11
    assert not [p for p in out.rglob("_*") if p.name != "_job.json"]

    rows = dataset.dataset(out).to_table().to_pylist()
    found = {(row["file"], row["row"]): row for row in rows}
    assert len(rows) == len(found) == TEXTS
    for name in ("a.csv", "b.jsonl.gz", "more/c7.parquet"):
        alone = run("predict", bundle, plots / name).stdout.splitlines()
        for n, line in enumerate(alone, 1):
            said, row = json.loads(line), found.pop((name, n))
            assert (said["id"], None) == (row["id"], row["error"])
            probabilities = dict(row["probabilities"])
            for label, p in said["probabilities"].items():               # sums over more threads end in other last digits
                assert probabilities.get(label, p) == pytest.approx(p, abs=1e-5)
                assert (label in said["genres"]) == (label in row["genres"]) or p == pytest.approx(.2, abs=1e-5)
    assert {name for name, _ in found} == {f"more/c{k}.parquet" for k in range(7)}

    again = run_process("predict", bundle, plots, "--out", out, "--engine", "ray", "--address", cluster.address)
    assert again.stderr.decode().endswith("0 texts done by this call\n")


def test_a_bad_row_is_named_with_its_file_or_is_an_error_row(bundle, cluster, run_process, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "good.csv").write_text("plot\nA ghost.\n")
    (tmp_path / "in" / "x.jsonl").write_text('{"plot": "A king."}\n\n{"plot": " "}\n{"plot": "A thief."}\n')
    call = ["predict", bundle, tmp_path / "in", "--out", tmp_path / "out", "--engine", "ray", "--address", cluster.address]
    assert one_line(run_process(*call), 2).endswith(f"{tmp_path / 'in'}: x.jsonl, row 3: empty plot")
    assert not (tmp_path / "out").exists()
    assert run_process(*call, "--skip-bad").returncode == 0
    rows = dataset.dataset(tmp_path / "out").to_table().to_pylist()
    assert [(r["file"], r["row"], r["error"]) for r in rows] == [
        ("good.csv", 1, None), ("x.jsonl", 1, None), ("x.jsonl", 3, "empty plot"), ("x.jsonl", 4, None)]
    assert [r["genres"] is None for r in rows] == [False, False, True, False]
    (tmp_path / "in" / "broken.csv").write_text("words\nA ghost.\n")
    found = scaling_out._look({"name": "broken.csv"}, LocalFileSystem(), str(tmp_path / "in"))
    assert found["broken"].startswith("broken.csv: no column 'text' or 'plot'")


def test_a_file_of_another_machine_is_read_from_a_copy(plots, tmp_path):
    elsewhere = SubTreeFileSystem(str(plots), LocalFileSystem())
    names = "a.csv", "b.jsonl.gz", "more/c0.parquet"
    assert [sum(scaling_out._look({"name": name}, elsewhere, "")["sizes"]) for name in names] == [FIRST, 150, 150]
    parts = list(scaling_out._read({"name": "a.csv", "parts": [1]}, elsewhere, ""))
    assert [(x["part"], len(json.loads(x["rows"]))) for x in parts] == [(1, FIRST - 1024)]
    scaling_out.write_whole(elsewhere, "x", b"whole")
    with elsewhere.open_input_stream("x") as f:
        assert f.read() == b"whole"


def test_vectors_are_those_of_encode(cluster, plots, run, run_process, tmp_path):
    source = plots / "a.csv"
    done = run_process("encode", source, "--out", tmp_path / "out", "--max-seq-len", "32", "--engine", "ray",
                       "--address", cluster.address)
    assert done.returncode == 0 and "Warning" not in done.stderr.decode(), done.stderr.decode()
    assert run("encode", source, "--out", tmp_path / "alone.npy", "--max-seq-len", "32").returncode == 0
    rows = dataset.dataset(tmp_path / "out").to_table().sort_by("row")
    assert rows["id"].to_pylist() == [f"a{k}" for k in range(FIRST)]
    np.testing.assert_allclose(np.stack(rows["vector"].to_numpy()), np.load(tmp_path / "alone.npy"), atol=1e-5)


def test_a_bundle_of_own_labels_fills_a_column_labels(tmp_path, monkeypatch):
    own = SimpleNamespace(of_films=False, classes_=["late", "broken"], decide=lambda probs, *settings: probs > .5,
                          predict_proba=lambda texts: np.full((len(texts), 2), [.1, .9]))
    monkeypatch.setattr(scaling_out, "load_bundle", lambda folder: own)
    worker = scaling_out.Worker(LocalFileSystem(), str(tmp_path), scaling_out.load_predictor, "own", None, True)
    rows = json.dumps([(1, "x", "It came in two pieces.", None), (2, "y", None, "empty text")])
    assert worker(Table.from_pylist([{"name": "a.csv", "part": 0, "rows": rows}])) == {"n": [2]}
    table = parquet.read_table(tmp_path / "a.csv" / "000000.parquet", partitioning=None)
    assert table["labels"].to_pylist() == [["broken"], None] and table["error"].to_pylist() == [None, "empty text"]


def test_parts_of_other_code_are_not_gone_on_with(bundle, tmp_path, monkeypatch):
    jobs, loaded = [], load_bundle(bundle)
    monkeypatch.setattr(scaling_out, "run_job", lambda worker, settings, job, *args: jobs.append(job))
    scaling_out.predict_files(bundle, "in", "out")
    monkeypatch.setattr(scaling_out, "load_bundle", lambda folder: SimpleNamespace(head=object.__new__(Frozen)))
    scaling_out.predict_files(bundle, "in", "out")
    scaling_out.encode_files({"model": loaded.encoder.checkpoint}, "in", "out")
    own, *heads = (code_digest(name) for name in ("scaling_out", "model", "recipes"))
    assert [job["code"] for job in jobs] == [[own, heads[0]], [own, heads[1]], own]     # what decides is part of it
    scaling_out.claim(str(tmp_path / "out"), jobs[0])
    scaling_out.claim(str(tmp_path / "out"), jobs[0])
    with pytest.raises(InputError, match=r"another job \(other code\): choose another --out"):
        scaling_out.claim(str(tmp_path / "out"), jobs[1])
    (tmp_path / "out" / "_job.json").write_text("[]")
    with pytest.raises(InputError, match="another job"):
        scaling_out.claim(str(tmp_path / "out"), jobs[0])


@pytest.mark.parametrize("call, says, status", [
    (["predict", "bundle", "-", "--engine", "ray", "--out", "out"], "not standard input", 2),
    (["predict", "bundle", "in", "--engine", "ray"], "--out DIR", 2),
    (["predict", "bundle", "in", "--address", "auto"], "goes with --engine ray", 2),
    (["predict", "bundle", "gone", "--engine", "ray", "--out", "out"], "no such bundle", 2),
    (["encode", "in", "--engine", "ray", "--out", "out", "--pooling", "none"], "another --pooling", 2),
    (["encode", "in", "--engine", "ray", "--out", "out", "--address", "127.0.0.1"], "neither HOST:PORT nor auto", 2),
    (["encode", "in", "--engine", "ray", "--out", "out", "--address", "127.0.0.1:9"], "no Ray cluster there", 3),
])
def test_mistakes(call, says, status, run, tmp_path):
    assert says in one_line(run(*call, cwd=tmp_path), status)


def test_without_the_extra(run, tmp_path, monkeypatch):
    monkeypatch.setattr(scaling_out, "find_spec", lambda name: None if name == "ray" else object())
    said = one_line(run("encode", "in", "--engine", "ray", "--out", "out", cwd=tmp_path), 2)
    assert "needs ray: install bert-genres[ray]" in said
