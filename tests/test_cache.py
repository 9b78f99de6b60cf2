"""The cache of vectors: killed at random moments, shared, damaged in every file, on a full disk, read-only; and streams."""
import contextlib
import json
import os
import platform
import pty
import random
import re
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import termios
import time
from importlib.metadata import version
from pathlib import Path

import nbformat
import numpy as np
import pytest
from conftest import one_line, small_disk
from safetensors.numpy import save_file
from test_encoder import CONFIG, VOCAB

from bert_genres import embeddings
from bert_genres.embeddings import BertEncoder
from bert_genres.files import InputError, code_digest
from bert_genres.model import Article, Bundle, Head
from bert_genres.vectors import VectorCache, encode_cached, vector_key, write_npy

WINDOW = 64
SETTINGS = ("--max-seq-len", 32, "--precision", "fp32")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    "A tiny random BERT in Hugging Face's format."
    folder, rng = tmp_path_factory.mktemp("model"), np.random.default_rng(0)
    d, wide = CONFIG["hidden_size"], CONFIG["intermediate_size"]
    shapes = {f"embeddings.{name}_embeddings.weight": (n, d) for name, n in [
        ("word", CONFIG["vocab_size"]), ("position", CONFIG["max_position_embeddings"]), ("token_type", 2)]}
    linear = [(f"attention.self.{name}", d, d) for name in ("query", "key", "value")] + [
        ("attention.output.dense", d, d), ("intermediate.dense", wide, d), ("output.dense", d, wide)]
    norms = ["embeddings.LayerNorm"]
    for k in range(CONFIG["num_hidden_layers"]):
        norms += [f"encoder.layer.{k}.{name}.LayerNorm" for name in ("attention.output", "output")]
        for name, n, m in linear:
            shapes |= {f"encoder.layer.{k}.{name}.weight": (n, m), f"encoder.layer.{k}.{name}.bias": (n,)}
    for name in norms:
        shapes |= {f"{name}.weight": (d,), f"{name}.bias": (d,)}
    save_file({name: rng.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()},
              folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "vocab.txt").write_text("\n".join(VOCAB) + "\n")
    return folder


@pytest.fixture
def encoder(model, tmp_path, monkeypatch):
    "The tiny model's encoder, which notes in `computed` what it computes; with an empty cache under tmp_path/cache."
    monkeypatch.setenv("BERT_GENRES_CACHE", str(tmp_path / "cache"))
    encoder = BertEncoder(model, max_seq_len=32, precision="fp32")
    encoder.window, encoder.computed, real = WINDOW, [], encoder.vectors

    def note(texts, *more):
        encoder.computed += texts
        return real(texts, *more)

    encoder.vectors = note
    return encoder


def some_texts(n, seed=0):
    rng = random.Random(seed)
    return [" ".join(rng.choices("abcdefgh", k=rng.randint(1, 29))) + f" {seed} {i}" for i in range(n)]


def same(a, b):
    "Equal to the last bit; on processors whose products were not looked at, nearly."
    return a.shape == b.shape and ((a == b).all() if platform.machine() in ("x86_64", "AMD64") else np.abs(a - b).max() < 1e-5)


def n_kept():
    with VectorCache() as cache:
        return len(cache)


def files(folder):
    return sorted(p.name for p in Path(folder).iterdir())


# ---- what is computed, and what is not


def test_every_setting_has_keys_of_its_own(model, tmp_path):
    other = shutil.copytree(model, tmp_path / "other")
    with open(other / "model.safetensors", "r+b") as f:
        f.seek(-1, 2)
        f.write(b"\x01")
    longer = shutil.copytree(model, tmp_path / "longer")
    (longer / "vocab.txt").write_text("\n".join([*VOCAB[:-1], "##x"]) + "\n")
    ways = [{}, dict(model=other), dict(model=longer), dict(layer=-1), dict(layer=(-2, -1)), dict(pooling="max"),
            dict(max_seq_len=31)]
    keys = {vector_key(BertEncoder(**dict(model=model, max_seq_len=32, precision="fp32") | way))(text)
            for way in ways for text in ("a cat", "a cat ", "")}
    assert len(keys) == 3 * len(ways) and all(len(k) == 16 for k in keys)
    assert vector_key(BertEncoder(model, 32))("a") == vector_key(BertEncoder(shutil.copytree(model, tmp_path / "copy"), 32))("a")


def test_other_code_has_keys_of_its_own(model, tmp_path):
    "The package is copied and a number of it edited; then it encodes two texts, which a cache may have already."
    code = """
import sys
from bert_genres import embeddings, vectors as kept
encoder = embeddings.BertEncoder(sys.argv[1], 32, precision="fp32")
before, vectors = len(kept.VectorCache()), kept.encode_cached(encoder, ["a cat", "it sat"])
print(embeddings.__file__, len(kept.VectorCache()) - before)
print(kept.vector_key(encoder)("a").hex(), vectors.tobytes().hex())
"""
    told = []
    for k, (module, old, new) in enumerate([("embeddings", "1e-12", "1e-12"), ("command", "def main(", "def main(\n"),
                                            ("embeddings", "epsilon, \"inside_sqrt\"", "1e-2, \"inside_sqrt\"")]):
        package = shutil.copytree(Path(embeddings.__file__).parent, tmp_path / str(k) / "bert_genres")
        source = (package / f"{module}.py").read_text()
        assert source.count(old)
        (package / f"{module}.py").write_text(source.replace(old, new))
        done = subprocess.run([sys.executable, "-c", code, model], capture_output=True, text=True, check=True, cwd=tmp_path,
                              env=os.environ | {"BERT_GENRES_CACHE": str(tmp_path / "cache"), "PYTHONPATH": str(package.parent)})
        file, *rest = done.stdout.split()
        assert Path(file).parent == package
        told.append(rest)
    (_, key, vectors), *others = told
    assert told[0][0] == "2" and others[0] == ["0", key, vectors]              # the command computes no vectors
    assert others[1][0] == "2" and others[1][1] != key and others[1][2] != vectors


def test_other_texts_of_the_same_length_get_their_own_vectors(encoder):
    a, b = some_texts(100, 1), some_texts(100, 2)
    for texts in (a, b, a[::-1]):
        assert same(encode_cached(encoder, texts), encoder.encode(texts))


def test_a_grown_corpus_costs_what_is_new_and_duplicates_cost_nothing(encoder):
    texts, more = some_texts(300), some_texts(100, 1)
    encode_cached(encoder, texts + texts[:50] + texts)
    assert sorted(encoder.computed) == sorted(texts)
    encoder.computed.clear()
    grown = encode_cached(encoder, more[:30] + texts + more[30:])
    assert sorted(encoder.computed) == sorted(more)
    assert same(grown, encoder.encode(more[:30] + texts + more[30:]))
    encoder.computed.clear()
    assert encode_cached(encoder, []).shape == (0, 24) and same(encode_cached(encoder, more), encoder.encode(more))
    assert sorted(encoder.computed) == sorted(more)                        # by the comparison alone


def test_the_vector_of_a_text_does_not_depend_on_its_company():
    encoder = BertEncoder(precision="fp32")
    text = "Two sisters inherit a vineyard and a debt. "
    texts = [text * k + "word " * n for k in range(5) for n in range(12)]
    order = np.random.default_rng(0).permutation(len(texts))
    together = encoder.encode(texts)
    assert same(encoder.encode([texts[i] for i in order]), together[order])
    assert same(np.concatenate([encoder.encode([t]) for t in texts]), together)


def test_unpooled_vectors_and_the_texts_of_users_are_not_kept(encoder, model):
    unpooled = BertEncoder(model, 8, pooling="none", precision="fp32")
    unpooled.window = 3
    texts = some_texts(10)
    assert same(encode_cached(unpooled, texts), unpooled.encode(texts))
    head = Head(np.ones((24, 2), np.float32), np.zeros(2), np.ones((2, 1)), np.zeros(1))
    bundle = Bundle(["a"], Article(encoder, head), .5, {}, {})
    bundle.predict(texts)
    assert n_kept() == 0


# ---- kills and company


WORKER = """
import json, os, sys
import filelock, openvino, pandas
from bert_genres import data, embeddings
from bert_genres import vectors as cache
from bert_genres.command import main

embeddings.BertEncoder.window = int(sys.argv[1])
cache.KEEP_AFTER = 1e9                          # a window as a whole, which is what the log says
vectors, put = embeddings.BertEncoder.vectors, cache.VectorCache.put

def note(what):
    os.write(log, (json.dumps([what, now]) + "\\n").encode())

def noted_vectors(self, texts, *more):
    global now
    now = texts
    note("computing")
    return vectors(self, texts, *more)

def noted_put(self, vectors):
    put(self, vectors)
    note("kept")

embeddings.BertEncoder.vectors, cache.VectorCache.put = noted_vectors, noted_put
for line in sys.stdin:
    ask = json.loads(line)
    if "wait" in ask:
        print(os.waitstatus_to_exitcode(os.waitpid(ask["wait"], 0)[1]), flush=True)
    elif child := os.fork():
        print(child, flush=True)
    else:
        os.environ.update(ask["env"])
        log = os.open(os.environ["BERT_GENRES_CACHE"] + ".log", os.O_CREAT | os.O_APPEND | os.O_WRONLY)
        os._exit(main(ask["args"]))
"""


class Worker:
    "Starts the command in processes that have imported everything already: forks of one that has computed nothing."
    def __init__(self):
        self.process = subprocess.Popen([sys.executable, "-c", WORKER, str(WINDOW)], text=True, stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE)

    def _ask(self, **what):
        self.process.stdin.write(json.dumps(what) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def start(self, *args, cache, **env):
        return self._ask(args=[str(a) for a in args], env={"BERT_GENRES_CACHE": str(cache)} | env)

    def wait(self, pid):
        return self._ask(wait=pid)


@pytest.fixture(scope="module")
def worker():
    worker = Worker()
    yield worker
    worker.process.stdin.close()
    worker.process.wait()


@pytest.fixture(scope="module")
def job(worker, model, tmp_path_factory):
    "job(out): a command that encodes 800 texts, some twice; job.want: the bytes that it writes; job.seconds: it takes."
    folder = tmp_path_factory.mktemp("job")
    texts = some_texts(700)
    texts = texts[:350] + texts[:100] + texts[350:]
    (folder / "texts.tsv").write_text("".join(f"{i}\t{t}\n" for i, t in enumerate(texts)))
    job = lambda out: ("encode", folder / "texts.tsv", "--out", out, "--model", model, *SETTINGS)
    for out in ("warm.npy", "want.npy"):
        start = time.monotonic()
        assert worker.wait(worker.start(*job(folder / out), cache=folder / out[:4])) == 0
        job.seconds = time.monotonic() - start
    job.want, job.texts = (folder / "want.npy").read_bytes(), texts
    assert same(np.load(folder / "want.npy"), BertEncoder(model, 32, precision="fp32").encode(texts))
    return job


def log(cache):
    return [json.loads(line) for line in Path(f"{cache}.log").read_text().splitlines()]


def killed_and_called_again(worker, job, cache, out, rng, **env):
    "Kill the job at five random moments, one call after the other, then let it finish; how many kills came in time."
    kills = 0
    for _ in range(5):
        pid = worker.start(*job(out), cache=cache, **env)
        time.sleep(rng.uniform(0, job.seconds))
        os.kill(pid, signal.SIGKILL)
        kills += worker.wait(pid) != 0
        assert not out.exists() or out.read_bytes() == job.want            # whole or not at all
        out.unlink(missing_ok=True)
    assert worker.wait(worker.start(*job(out), cache=cache, **env)) == 0 and out.read_bytes() == job.want
    return kills


def test_killed_at_any_moment_and_called_again(worker, job, tmp_path):
    rng, kills = random.Random(), 0
    while kills < 20:
        cache, out = tmp_path / f"cache{kills}", tmp_path / "v.npy"
        kills += killed_and_called_again(worker, job, cache, out, rng)
        kept = set()
        for what, texts in log(cache):
            assert what == "kept" or not kept & set(texts)                 # finished work is not computed again
            kept |= set(texts) if what == "kept" else set()
        assert sqlite3.connect(cache / "vectors.sqlite").execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_what_is_computed_is_kept_within_a_window(encoder, monkeypatch):
    texts, batches, vectors = some_texts(WINDOW), [], encoder.vectors

    def dying(*args):
        for batch in vectors(*args):
            yield batch
            batches.append(batch[0])
            if len(batches) == 3:
                raise KeyboardInterrupt

    monkeypatch.setattr("bert_genres.vectors.KEEP_AFTER", 0)
    encoder.vectors, encoder.batch_tokens = dying, 64
    with pytest.raises(KeyboardInterrupt):
        encode_cached(encoder, texts)
    done = {texts[i] for rows in batches for i in rows}
    assert 0 < len(done) < WINDOW and n_kept() == len(done)
    encoder.vectors = vectors
    encoder.computed.clear()
    again = encode_cached(encoder, texts)
    assert set(encoder.computed) == set(texts) - done and same(again, encoder.encode(texts))


def test_killed_where_the_oldest_make_room(worker, job, tmp_path):
    rng, kills = random.Random(), 0
    while kills < 5:
        cache = tmp_path / f"cache{kills}"
        kills += killed_and_called_again(worker, job, cache, tmp_path / "v.npy", rng, BERT_GENRES_CACHE_SIZE="0.00006")
        assert (cache / "vectors.sqlite").stat().st_size <= 60_000


def test_several_processes_compute_everything_once(worker, job, tmp_path):
    outs = [tmp_path / f"{k}.npy" for k in range(3)]
    pids = [worker.start(*job(out), cache=tmp_path / "cache") for out in outs]
    assert [worker.wait(pid) for pid in pids] == [0, 0, 0]
    assert all(out.read_bytes() == job.want for out in outs)
    computed = [t for what, texts in log(tmp_path / "cache") if what == "computing" for t in texts]
    assert len(computed) == len(set(computed)) == 700


def test_where_one_is_killed_the_other_goes_on(worker, job, tmp_path):
    for k in range(5):
        first, second = (worker.start(*job(tmp_path / f"{n}.npy"), cache=tmp_path / f"cache{k}") for n in "ab")
        time.sleep(random.uniform(0, job.seconds))
        os.kill(first, signal.SIGKILL)
        assert worker.wait(second) == 0 and worker.wait(first) in (0, -signal.SIGKILL)
        assert (tmp_path / "b.npy").read_bytes() == job.want


def test_processes_with_other_texts_do_no_harm(worker, job, model, tmp_path):
    parts, want = [job.texts[k * 80:k * 80 + 400] for k in range(6)], np.load(write(tmp_path / "want.npy", job.want))
    pids = []
    for k, texts in enumerate(parts):
        path = write(tmp_path / f"{k}.tsv", "".join(f"{i}\t{t}\n" for i, t in enumerate(texts)).encode())
        pids.append(worker.start("encode", path, "--out", tmp_path / f"{k}.npy", "--model", model, *SETTINGS,
                                 cache=tmp_path / "cache"))
    assert {worker.wait(pid) for pid in pids} == {0}
    for k in range(6):
        assert same(np.load(tmp_path / f"{k}.npy"), want[k * 80:k * 80 + 400])


def test_where_another_process_starts_the_file_anew(encoder, kept, capsys):
    texts, want, path = kept
    with VectorCache() as one, VectorCache() as other:
        assert len(one) == len(other) == 400
        other.empty()
        assert not path.exists() and len(one) == 0
        one.put({b"k": b"1"})
        assert other.get([b"k"]) == {b"k": b"1"}

        def in_the_middle(db):
            if one.get([b"k"]):
                one.empty()
            db.execute("INSERT INTO vectors (key) VALUES ('new')")

        other.do("written", in_the_middle)
        assert len(one) == 1 and one.fault is other.fault is None and capsys.readouterr().err == ""
    assert same(encode_cached(encoder, texts), want)


def write(path, content):
    path.write_bytes(content)
    return path


# ---- faults


@pytest.fixture
def kept(encoder, tmp_path):
    "Some texts, their vectors, and the cache's file that has them all."
    texts = some_texts(400)
    want = encode_cached(encoder, texts)
    encoder.computed.clear()
    return texts, want, tmp_path / "cache" / "vectors.sqlite"


def flip(data, rng, n):
    data = bytearray(data)
    for _ in range(n):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(data)


def heals(encoder, kept, capsys):
    "Right vectors with at most a line about the file, now and from then on; how many were computed at first."
    texts, want, path = kept
    computed = []
    for _ in range(5):                                                     # damage may show only when something is written
        encoder.computed.clear()
        assert same(encode_cached(encoder, texts), want)
        computed.append(len(encoder.computed))
        said = capsys.readouterr().err.splitlines()
        assert len(said) <= 1 and all(line.startswith(f"{path} is damaged") for line in said)
    if computed[-1]:                                                       # the index leads astray
        with VectorCache() as cache:
            cache.verify()
        encoder.computed.clear()
        assert same(encode_cached(encoder, texts), want) and not encoder.computed
    return computed[0]


def test_altered_bits(encoder, kept, capsys):
    rng, whole = random.Random(0), kept[2].read_bytes()
    computed = []
    for k in range(90):
        kept[2].write_bytes(flip(whole, rng, (1, 10, 100)[k % 3]))
        computed.append(heals(encoder, kept, capsys))
    assert 0 < sum(computed[::3]) < sum(computed[1::3]) < sum(computed[2::3])


def test_altered_vectors_and_changed_places(encoder, kept, capsys):
    db = sqlite3.connect(kept[2])
    with db:
        db.execute("UPDATE vectors SET data = zeroblob(96) WHERE id <= 10")
        db.execute("UPDATE vectors SET data = 'text' WHERE id = 11")
        db.execute("UPDATE vectors SET data = NULL WHERE id = 12")
        db.execute("UPDATE vectors SET checksum = NULL WHERE id = 13")
        swap = "UPDATE vectors SET (checksum, data) = (SELECT checksum, data FROM vectors WHERE id = ?) WHERE id = ?"
        db.executemany(swap, [(21, 31), (22, 32), (23, 33)])
    db.close()
    assert heals(encoder, kept, capsys) == 16 and n_kept() == 416
    with VectorCache() as cache:
        assert (cache.verify(), len(cache), cache.verify()) == (16, 400, 0)
    assert heals(encoder, kept, capsys) == 0


def test_truncated_emptied_and_replaced(encoder, kept, capsys):
    whole = kept[2].read_bytes()
    for size in (0, 1, 99, 100, 4095, 4096, 5000, len(whole) // 2, len(whole) - 4096, len(whole) - 1):
        kept[2].write_bytes(whole[:size])
        assert heals(encoder, kept, capsys) > 0 or size == len(whole) - 1
    for content in (b"no database", os.urandom(9000), whole[:4096] + os.urandom(len(whole) - 4096), whole + b"more"):
        kept[2].write_bytes(content)
        heals(encoder, kept, capsys)


def test_damaged_journals(encoder, kept, capsys):
    "A process dies in the middle of a transaction that has reached the file; then its journal is damaged as well."
    dies = ("import os, sqlite3, sys; db = sqlite3.connect(sys.argv[1]); db.execute('PRAGMA cache_size = 1'); "
            "db.execute('UPDATE vectors SET data = zeroblob(96), checksum = zeroblob(8)'); os.kill(os.getpid(), 9)")
    subprocess.run([sys.executable, "-c", dies, kept[2]], check=False)
    journal, rng = Path(f"{kept[2]}-journal"), random.Random(0)
    half, undo = kept[2].read_bytes(), journal.read_bytes()
    assert b"\0" * 96 in half and len(undo) > 20_000
    assert heals(encoder, kept, capsys) == 0 and not journal.exists()      # rolled back
    for k in range(40):
        kept[2].write_bytes(half)
        journal.write_bytes(flip(undo, rng, 1 + k) if k % 2 else undo[:rng.randrange(len(undo))])
        heals(encoder, kept, capsys)


def test_what_stands_where_the_cache_should_be(encoder, kept, capsys):
    texts, want, path = kept
    (path.parent / "locks").rename(path.parent / "gone")
    for spoil in (lambda: write(path.parent / "locks", b""), lambda: (path.parent / "locks").unlink() or [
            (path.parent / "locks" / f"{k:02x}").mkdir(parents=True) for k in range(256)]):
        spoil()                                                            # no lock to be had
        path.unlink()
        assert same(encode_cached(encoder, texts), want) and n_kept() == 400 and capsys.readouterr().err == ""
    for spoil in (lambda: path.unlink() or path.mkdir(), lambda: shutil.rmtree(path.parent) or write(path.parent, b"a file")):
        spoil()
        assert same(encode_cached(encoder, texts), want)
        line, = capsys.readouterr().err.splitlines()
        assert line.startswith(f"{path} cannot be read") and line.endswith("vectors are computed, but not kept")


@contextlib.contextmanager
def nobody():
    "As a user to whom the folder is read-only; root could write to it."
    if os.geteuid():
        yield
    else:
        os.seteuid(65534)
        try:
            yield
        finally:
            os.seteuid(0)


def test_a_read_only_folder_is_read_from(encoder, kept, capsys, monkeypatch):
    texts, want, path = kept
    known = {name: version(name) for name in ("tokenizers", "openvino")}     # nobody may be kept out of the environment's folder
    code = {encoder.module: code_digest(encoder.module)}                     # and out of the checkout's
    monkeypatch.setattr("bert_genres.vectors.version", known.get)
    monkeypatch.setattr("bert_genres.vectors.code_digest", code.get)
    more = some_texts(200, 1)
    right = encoder.encode(more)
    encoder.computed.clear()
    with tempfile.TemporaryDirectory() as open_to_all:
        os.chmod(open_to_all, 0o755)
        for name in ("full", "empty", "damaged"):
            folder = Path(open_to_all) / name
            folder.mkdir()
            if name != "empty":
                content = path.read_bytes() if name == "full" else b"no database at all"
                write(folder / path.name, content).chmod(0o444)
            folder.chmod(0o555)
            monkeypatch.setenv("BERT_GENRES_CACHE", str(folder))
            before = files(folder)
            with nobody():
                assert same(encode_cached(encoder, texts + more), np.concatenate([want, right]))
            line, = capsys.readouterr().err.splitlines()
            assert line.startswith(str(folder)) and "vectors are computed, but not kept" in line
            assert encoder.computed == (more if name == "full" else texts + more)
            assert files(folder) == before
            encoder.computed.clear()
            folder.chmod(0o755)


@contextlib.contextmanager
def small_files(limit):
    "No file of this process can grow beyond `limit` bytes."
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def full_then_not(encoder, capsys, full, room):
    "Encoding under `full`, then under `room`; what was kept in the first is not computed in the second."
    texts = some_texts(2000)
    with full:
        vectors = encode_cached(encoder, texts)
        line, = capsys.readouterr().err.splitlines()
        assert str(VectorCache().path) in line and "cannot be written" in line and "not kept" in line
        assert sorted(encoder.computed) == sorted(texts)
        assert same(vectors, encoder.encode(texts))
        kept = n_kept()
        assert 0 < kept < 2000
        room()
        encoder.computed.clear()
        assert same(encode_cached(encoder, texts), vectors)
        assert len(encoder.computed) == 2000 - kept


def test_a_file_that_may_not_grow(encoder, capsys):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    full_then_not(encoder, capsys, small_files(100_000), lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard)))


def test_a_full_disk(encoder, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("BERT_GENRES_CACHE", str(tmp_path / "disk"))
    remount = ["mount", "-o", "remount,size=9m", str(tmp_path / "disk")]
    full_then_not(encoder, capsys, small_disk(tmp_path / "disk", 200_000), lambda: subprocess.run(remount, check=True))
    monkeypatch.setenv("BERT_GENRES_CACHE", str(tmp_path / "small"))
    with small_disk(tmp_path / "small", 200_000):
        encode_cached(encoder, some_texts(2000))
        with open(tmp_path / "small" / "rest", "wb", 0) as f, contextlib.suppress(OSError):
            while True:
                f.write(b"1" * 0x1000)
        with VectorCache() as cache:
            cache.empty()
            assert len(cache) == 0 and cache.fault is None
        capsys.readouterr()
    with small_disk(tmp_path / "disk2", 0x1000):
        write(tmp_path / "disk2" / "all", b"1" * 0x1000)
        monkeypatch.setenv("BERT_GENRES_CACHE", str(tmp_path / "disk2" / "cache"))
        assert same(encode_cached(encoder, ["a"]), encoder.encode(["a"]))
        assert len(capsys.readouterr().err.splitlines()) == 1


def test_no_room_for_the_output_is_one_line(run, model, tmp_path):
    texts = write(tmp_path / "t.tsv", "".join(f"{i}\t{t}\n" for i, t in enumerate(some_texts(3000))).encode())
    (tmp_path / "out").mkdir()
    out = tmp_path / "out" / "v.npy"
    with small_files(200_000):
        done = run("encode", texts, "--out", out, "--model", model, *SETTINGS, env={"BERT_GENRES_CACHE": str(tmp_path / "c"),
                                                                                    "BERT_GENRES_CACHE_SIZE": "0"})
    assert str(out) in one_line(done, 3) and files(tmp_path / "out") == []


def test_a_clock_that_runs_backwards(encoder, kept, monkeypatch):
    texts, want, path = kept
    now = iter(range(10**9, 0, -1000))
    monkeypatch.setattr(time, "time", lambda: float(next(now)))
    for stamp in (1, 2**33):
        os.utime(path, (stamp, stamp))
        more = some_texts(100, stamp)
        encoder.computed.clear()
        assert same(encode_cached(encoder, texts + more)[:400], want) and sorted(encoder.computed) == sorted(more)


# ---- bounds and the command


def test_the_bound_holds_and_the_oldest_go_first(encoder, tmp_path, monkeypatch, capsys):
    texts, path = some_texts(5000), tmp_path / "cache" / "vectors.sqlite"
    monkeypatch.setenv("BERT_GENRES_CACHE_SIZE", "0.0004")
    right = encoder.encode(texts)
    for part in (texts[:2500], texts[2500:]):
        encode_cached(encoder, part)
        assert path.stat().st_size <= 400_000
    line, = {*capsys.readouterr().err.splitlines()}
    assert str(path) in line and "full, at 0.0004 GB" in line
    with VectorCache() as cache:
        there = np.array([len(cache.get([k])) for k in map(vector_key(encoder), texts)])
    n = there.sum()
    assert 1000 < n < 2500 and there[-n:].all()
    assert same(encode_cached(encoder, texts), right) and path.stat().st_size <= 400_000
    monkeypatch.setenv("BERT_GENRES_CACHE_SIZE", "0.0001")                 # a smaller one holds from the next call on
    encode_cached(encoder, texts[:100])
    assert n_kept() < n / 3 and path.stat().st_size <= 100_000
    for size in ("ten", "-1", "nan", "inf", "1e3", "9" * 400):
        monkeypatch.setenv("BERT_GENRES_CACHE_SIZE", size)
        with pytest.raises(InputError, match=f"BERT_GENRES_CACHE_SIZE={size}"):
            encode_cached(encoder, texts)


def test_the_command_shows_verifies_and_empties(run, kept, tmp_path):
    path, cache = kept[2], lambda *flags: run("cache", *flags, env={"BERT_GENRES_CACHE": str(tmp_path / "cache")})
    assert f"{path}: 400 vectors, 0.1 MB of at most 10,000.0 MB\n" in cache().stdout.decode()
    db = sqlite3.connect(path)
    with db:
        db.execute("UPDATE vectors SET data = zeroblob(96) WHERE id % 50 = 0")
    db.close()
    assert b"8 damaged vectors dropped" in cache("--verify").stdout and b" 392 vectors" in cache().stdout
    assert b"verified: 0 damaged" in cache("--verify").stdout
    done = cache("--empty")
    assert done.returncode == 0 and b" 0 vectors" in done.stdout and path.stat().st_size < 20_000
    path.write_bytes(b"no database at all")
    done = cache("--verify")
    assert done.returncode == 0 and b" 0 vectors" in done.stdout and b"started anew" in done.stderr
    path.unlink()
    path.mkdir()
    done = cache()
    assert done.returncode == 3 and done.stdout == b"" and len(done.stderr.splitlines()) == 1


# ---- streams


def test_a_stream_into_a_file(encoder, tmp_path):
    texts, out = some_texts(500), tmp_path / "v.npy"
    got = encode_cached(encoder, iter(texts), out)
    assert isinstance(got, np.memmap) and got.dtype == np.float32 and same(got, encoder.encode(texts))
    assert same(np.load(out), got) and encode_cached(encoder, iter([]), out).shape == np.load(out).shape == (0, 24)

    def breaks():
        yield from texts
        raise KeyError("the source of texts")

    with pytest.raises(KeyError):
        encode_cached(encoder, breaks(), tmp_path / "new.npy")
    assert files(tmp_path) == ["cache", "v.npy"]


@pytest.mark.parametrize("sizes", [[], [0], [3], [1, 0, 7, 1000]])
@pytest.mark.parametrize("shape", [(5,), (4, 3)])
def test_npy_in_blocks_is_npy(tmp_path, sizes, shape):
    blocks = [np.random.default_rng(n).normal(size=(n, *shape)).astype(np.float32) for n in sizes]
    want = np.concatenate([np.zeros((0, *shape), np.float32), *blocks])
    assert write_npy(tmp_path / "a.npy", (b for b in blocks), shape) == len(want)
    np.save(tmp_path / "b.npy", want)
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()


def test_memory_does_not_grow_with_the_number_of_texts(model, tmp_path):
    code = """
import sys
from bert_genres.embeddings import BertEncoder
from bert_genres.vectors import encode_cached
model, out = sys.argv[1:]
encoder = BertEncoder(model, 8, layer=(-1, -2, -3), pooling="mean_max", precision="fp32")
peak = lambda: next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) / 1e3
for n in (5_000, 50_000):
    vectors = encode_cached(encoder, (f"cat {n} {i}" for i in range(n)), out)
    print(peak(), vectors.nbytes / 1e6)
"""
    if not Path("/proc/self/status").exists():
        pytest.skip("reads the peak memory from /proc")
    done = subprocess.run([sys.executable, "-c", code, model, tmp_path / "v.npy"], capture_output=True, text=True, check=True,
                          env=os.environ | {"BERT_GENRES_CACHE": str(tmp_path)})
    (small, _), (large, written) = (map(float, line.split()) for line in done.stdout.splitlines())
    assert written > 25 and large - small < 10


# ---- progress


def test_progress_on_a_terminal_and_none_in_a_pipe(model, tmp_path):
    texts = write(tmp_path / "t.tsv", "".join(f"{i}\t{t}\n" for i, t in enumerate(some_texts(10_000))).encode())
    command = [Path(sys.executable).with_name("bert-genres"), "encode", texts, "--out", tmp_path / "v.npy", "--model", model,
               *map(str, SETTINGS)]
    call = dict(env=os.environ | {"BERT_GENRES_CACHE": str(tmp_path)}, stdout=subprocess.PIPE)
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 100))
    with subprocess.Popen(command, stderr=theirs, **call) as process:
        os.close(theirs)
        shown = b""
        while block := read(ours):
            shown += block
    os.close(ours)
    assert process.returncode == 0
    bars = [re.fullmatch(r"encoding: +(\d+)%\|.*\| (\d+)/10000 \[\d\d:\d\d<(\?|\d\d:\d\d), +([\d.]+it/s|\?it/s)\]", part.strip())
            for part in shown.decode().split("\r") if "encoding" in part]
    assert len(bars) > 1 and all(bars) and any("?" not in bar[0] for bar in bars)
    counts = [int(bar[2]) for bar in bars]
    assert counts == sorted(counts)
    done = subprocess.run(command, stderr=subprocess.PIPE, check=True, **call)
    assert done.stderr == done.stdout == b""


def test_progress_in_a_notebook(tmp_path):
    source = "import time\nfrom bert_genres.files import progress\nwith progress(40, 'encoding') as bar:\n    for _ in range(2):"
    cell = nbformat.v4.new_code_cell(source + "\n        time.sleep(0.6)\n        bar.update(20)")
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "n.ipynb")
    execute = [Path(sys.executable).with_name("jupyter"), "nbconvert", "--to", "notebook", "--execute", "--stdout"]
    done = subprocess.run([*execute, tmp_path / "n.ipynb"], capture_output=True, check=True)   # a process of its own
    cell, = nbformat.reads(done.stdout.decode(), as_version=4).cells
    assert {output.name for output in cell.outputs} == {"stderr"}
    *bars, last = "".join(output.text for output in cell.outputs).split("\r")[1:]
    assert any(re.fullmatch(r"encoding:  50%\|.*\| 20/40 \[00:0\d<00:0\d, [\d. ]+it/s\]", bar) for bar in bars)
    assert all(len(bar) < 80 and "\n" not in bar for bar in bars) and bars[-1].strip() == last == ""   # one line, gone at the end


def read(fd):
    "What a terminal shows next; nothing when the other side is closed."
    try:
        return os.read(fd, 1 << 16)
    except OSError:
        return b""
