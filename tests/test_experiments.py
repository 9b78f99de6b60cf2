"""Grids on the real file store, killed and gone on with; a real server that speaks MongoDB's protocol, also one that dies."""
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
import pytest
from conftest import one_line, small_disk
from pymongo import MongoClient
from pymongo.errors import PyMongoError
from safetensors.numpy import load_file

import bert_genres
from bert_genres.data import binarize, label_names, load_corpus, split_corpus
from bert_genres.embeddings import BertEncoder
from bert_genres.experiments import (
    DEFAULTS,
    compare,
    decide_crosswise,
    parse_grid,
    read_runs,
    run_grid,
    run_once,
    run_origin,
)
from bert_genres.files import InputError
from bert_genres.vectors import encode_cached

SHORT = {"epochs": [2], "max_seq_len": [32]}
films = load_corpus("sample")
part = split_corpus(films, corpus="sample")
SECRET = "pa55-w0rd"


def files_of(folder, runs, name="head.safetensors"):
    return [(Path(folder) / run / name).read_bytes() for run in runs.id]


def test_the_same_grid_side_by_side_gives_the_same_runs(tmp_path):
    grid = SHORT | {"gamma": [0.0, 2.0], "seed": [0, 1]}
    one, two = run_grid(films, part, grid, tmp_path / "one"), run_grid(films, part, grid, tmp_path / "two", 2)
    assert len(one) == 4 and list(one.gamma) == [0, 0, 2, 2] and list(one.seed) == [0, 1, 0, 1]
    varying = ["id", "start", "seconds"]
    pd.testing.assert_frame_equal(one.drop(columns=varying), two.drop(columns=varying))
    heads = [[load_file(tmp_path / place / run / "head.safetensors") for run in runs.id] for place, runs in
             [("one", one), ("two", two)]]
    for a, b in zip(*heads, strict=True):                # two threads add up in another order than one
        assert a.keys() == b.keys() and all(np.abs(a[k] - b[k]).max() < 1e-4 for k in a)
    assert len(set(files_of(tmp_path / "one", one))) == 4


def test_a_grid_over_gamma_and_batch_size_encodes_each_plot_once(tmp_path):
    counted, encode = [], BertEncoder.vectors

    def counting(self, texts, *args):
        counted.extend(texts)
        return encode(self, texts, *args)

    place = {"BERT_GENRES_CACHE": str(tmp_path / "cache")}
    with mock.patch.dict(os.environ, place), mock.patch.object(BertEncoder, "vectors", counting):
        run_grid(films, part, SHORT | {"gamma": [1.0, 2.0], "batch_size": [64, 128]}, tmp_path / "runs")
    assert sorted(counted) == sorted(films["plot"])


def test_test_rows_play_no_part(tmp_path):
    config = DEFAULTS | {"epochs": 2, "max_seq_len": 32} | run_origin(films, part, "sample")
    other = films.copy()
    rng, tested = np.random.default_rng(0), np.flatnonzero(part == "test")
    for column in ("plot", "genres"):
        other.loc[tested, column] = other.loc[rng.permutation(tested), column].to_numpy()
    first, second = (run_once(config, f, part, tmp_path)[0] for f in (films, other))
    results = [json.loads((tmp_path / run / "run.json").read_text())["result"] for run in (first, second)]
    assert results[0] == results[1] and results[0]["micro_f1"] > 0


def descendants(pid):
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True).stdout.split()
    return [int(p) for child in found for p in (child, *descendants(child))]


def alive(pid):
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()
    return bool(state) and not state.startswith("Z")


def test_a_killed_grid_goes_on_with_what_is_missing(tmp_path, run_process, jobs=2):
    call = ["experiment", "sample", "--grid", "gamma=0,1,2,3", "--grid", "epochs=15", "--grid", "max_seq_len=32"]
    call += ["--jobs", str(jobs)]
    process = subprocess.Popen([str(Path(sys.executable).with_name("bert-genres")), *call], cwd=tmp_path,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    (tmp_path / "runs").mkdir(exist_ok=True)
    while process.poll() is None and (runs := read_runs(tmp_path / "runs")).status.nunique() < 2:
        time.sleep(.05)                                                  # until one is complete and one under way
    helpers = descendants(process.pid)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    for _ in range(100):
        if not any(map(alive, helpers)):
            break
        time.sleep(.1)
    assert not any(map(alive, helpers))                                  # workers leave with whoever started them
    before = {run: (tmp_path / "runs" / run / "run.json").stat().st_mtime_ns for run in runs.id[runs.status == "COMPLETED"]}
    assert 0 < len(before) < 4
    done = run_process(*call, cwd=tmp_path)
    assert done.returncode == 0, done.stderr.decode()
    assert all((tmp_path / "runs" / run / "run.json").stat().st_mtime_ns == t for run, t in before.items())
    runs = read_runs(tmp_path / "runs")
    assert sorted(runs.gamma[runs.status == "COMPLETED"]) == [0, 1, 2, 3]
    assert runs[runs.status == "UNFINISHED"].micro_f1.isna().all()
    assert len(done.stdout.decode().splitlines()) == 5


@pytest.mark.parametrize("name", ["run.json", "config.json", "metrics.json", "validation.npz"])
def test_a_record_with_something_missing_counts_for_nothing(tmp_path, name):
    runs = run_grid(films, part, SHORT, tmp_path)
    path = tmp_path / runs.id[0] / name
    path.unlink() if name.endswith("npz") else path.write_bytes(path.read_bytes()[:-20])
    assert read_runs(tmp_path).status.tolist() == ["UNFINISHED"]
    again = run_grid(films, part, SHORT, tmp_path)
    assert again.id[0] != runs.id[0] and again.micro_f1[0] == runs.micro_f1[0]


def test_other_code_is_another_config(tmp_path, monkeypatch):
    origin = run_origin(films, part, "sample")
    package = shutil.copytree(Path(bert_genres.__file__).parent, tmp_path / "bert_genres")
    monkeypatch.setattr("bert_genres.files.files", lambda name: tmp_path / name)
    assert run_origin(films, part, "sample") == origin
    for name, same in [("command", True), ("experiments", False), ("baselines", False), ("focal_loss", False), ("data", False)]:
        before = run_origin(films, part, "sample")
        with open(package / f"{name}.py", "a") as module:
            module.write("# other code\n")
        now = run_origin(films, part, "sample")
        assert (now["code"] == before["code"]) is same and now | {"code": ""} == before | {"code": ""}, name


def test_dropout_is_a_setting_and_a_run_from_before_it_was_one_is_read(tmp_path):
    runs = run_grid(films, part, SHORT | {"dropout": [0.2, 0.8]}, tmp_path)
    assert list(runs.dropout) == [.2, .8] and runs.micro_ap.nunique() == 2
    path = tmp_path / runs.id[1] / "config.json"
    old = json.loads(path.read_text())
    del old["dropout"]
    path.write_text(json.dumps(old))
    pd.testing.assert_frame_equal(read_runs(tmp_path)[[*runs]], runs.sort_values("id", ignore_index=True), check_like=True)
    assert list(compare(read_runs(tmp_path), tmp_path, films, part).dropout) == [.2, .8]
    again = run_once(old, films, part, tmp_path)[0]
    assert (tmp_path / again / "head.safetensors").read_bytes() == (path.parent / "head.safetensors").read_bytes()


def test_crosswise_decisions_are_by_the_other_half_s_threshold():
    rng = np.random.default_rng(0)
    truth, probs = rng.random((40, 5)) < .3, rng.random((40, 5))
    named, changed = decide_crosswise(truth, probs), truth.copy()
    changed[::2] ^= True                                                  # what is true of the even rows
    assert (decide_crosswise(changed, probs)[::2] == named[::2]).all()    # decides nothing about the even rows,
    assert (decide_crosswise(changed, probs)[1::2] != named[1::2]).any()  # but about the odd ones


def test_compare_draws_films_and_seeds(tmp_path):
    runs = run_grid(films, part, SHORT | {"epochs": [8], "alpha": [0.3, 0.1], "seed": [0, 1]}, tmp_path)
    table = compare(runs, tmp_path, films, part)
    assert list(table.alpha) == [0.3, 0.1] and list(table.seeds) == [[0, 1], [0, 1]]
    assert table.difference.isna().tolist() == [False, True]              # the base is nearest the article's, not the first
    watched, classes = films[part == "validation"], label_names(films.genres[part == "train"])
    truth, unknown = binarize(watched.genres, classes)
    counted = {}
    for row in table.itertuples():
        mine = runs[runs.alpha == row.alpha]
        assert row.micro_f1 == pytest.approx(mine.micro_f1.mean())
        assert row.sd == pytest.approx(abs(np.diff(mine.micro_f1)[0]) / 2 ** .5)
        right = wrong = 0
        for run in mine.id:                                               # 2 tp / (2 tp + fp + fn), counted over both seeds
            named = decide_crosswise(truth, np.load(tmp_path / run / "validation.npz")["probs"])
            right += (named & truth).sum()
            wrong += (named ^ truth).sum() + sum(map(len, unknown))
        counted[row.alpha] = 2 * right / (2 * right + wrong)
    assert table.difference[0] == pytest.approx(counted[0.3] - counted[0.1])
    assert table.low[0] < table.difference[0] < table.high[0]
    one = compare(runs[runs.seed == 0], tmp_path, films, part)
    same = compare(pd.concat([runs[runs.seed == 0]] * 3), tmp_path, films, part)        # seeds that agree add no width
    assert same.high[0] - same.low[0] == pytest.approx(one.high[0] - one.low[0], abs=.005)


def test_runs_of_other_films_are_not_compared(tmp_path):
    runs = run_grid(films, part, SHORT, tmp_path)
    with pytest.raises(InputError, match="other validation films"):
        compare(runs, tmp_path, films, np.roll(part, 1))


def test_a_training_that_diverges_does_not_stop_the_others(tmp_path, monkeypatch):
    encode, calls = encode_cached, []

    def spoilt(encoder, texts):
        calls.append(len(texts))
        return encode(encoder, texts) * np.float32(1e37 if len(calls) == 1 else 1)      # too large, for the first training

    monkeypatch.setattr("bert_genres.model.encode_cached", spoilt)
    with pytest.raises(InputError, match="1 of 2 runs failed: the training diverged"):
        run_grid(films, part, SHORT | {"seed": [0, 1]}, tmp_path)
    assert sorted(read_runs(tmp_path).status) == ["COMPLETED", "FAILED"]


# --- the command's mistakes


@pytest.mark.parametrize("flags, status, said", [
    (["--grid", "gama=1"], 2, "is 'gamma' meant"),
    (["--grid", "gamma=x"], 2, "numbers are needed"),
    (["--grid", "batch_size=1e3"], 2, "whole numbers"),
    (["--grid", "gamma"], 2, "numbers are needed"),
    (["--grid", "gamma=1", "--grid", "gamma=2"], 2, "given twice"),
    (["--grid", "seed=-1"], 2, "not between 0"),
    (["--grid", f"seed={'9' * 400}"], 2, "not between 0"),
    (["--grid", "layer=-9"], 2, "layers -6 to -1"),
    (["--grid", "max_seq_len=2"], 2, "not between 3"),
    (["--grid", "dropout=1"], 2, "not between 0 and 0.95"),
    (["--grid", "alpha=nan"], 2, "not between 0"),
    (["--jobs", "0"], 2, "--jobs 0"),
    (["--model", "no/folder/here"], 2, "no/folder/here"),
    (["--runs", "taken"], 2, "taken"),
])
def test_bad_grids_are_refused_in_one_line_and_leave_nothing(run, tmp_path, flags, status, said):
    (tmp_path / "taken").write_text("a file")
    line = one_line(run("experiment", "sample", *flags, cwd=tmp_path, env={"BERT_GENRES_OFFLINE": "1"}), status)
    assert said in line
    assert os.listdir(tmp_path) == ["taken"]


def test_one_validation_film_is_too_few(tmp_path):
    few = np.where((part == "validation") & (np.cumsum(part == "validation") > 1), "test", part)
    with pytest.raises(InputError, match="too few films"):
        run_grid(films, few, SHORT, tmp_path / "runs")
    assert list(tmp_path.iterdir()) == []


def test_no_room_for_runs_is_one_line_and_counts_for_nothing(run, tmp_path):
    call = ("experiment", "sample", "--grid", "epochs=2", "--grid", "max_seq_len=32")
    with small_disk(tmp_path / "runs", 700_000):
        one_line(run(*call, cwd=tmp_path), 3)
        assert "COMPLETED" not in set(read_runs(tmp_path / "runs").status)


def test_record_holds_all_runs_of_the_folder_that_differ_in_settings_alone(run, tmp_path):
    call = ("experiment", "sample", "--grid", "epochs=2", "--grid", "max_seq_len=32", "--grid")
    assert run(*call, "gamma=1", cwd=tmp_path).returncode == 0
    done = run(*call, "gamma=2", "--record", cwd=tmp_path)
    assert done.returncode == 0, done.stderr.decode()
    kept, = (json.loads(p.read_text()) for p in (tmp_path / "results").iterdir())
    assert sorted(p["gamma"] for p in kept["points"]) == [1, 2] and kept["n"] == (part == "validation").sum()
    assert {"checksum", "weights", "precision", "split", "code", "versions", "hardware"} <= kept.keys()
    assert len(done.stdout.decode().splitlines()) == 2


@pytest.mark.parametrize("jobs, sent, status, said", [
    (1, signal.SIGINT, 130, "interrupted"), (2, signal.SIGINT, 130, "interrupted"), (2, None, 3, "a process was killed")])
def test_interrupted_runs_end_in_one_line(tmp_path, jobs, sent, status, said):
    call = ["experiment", "sample", "--grid", "gamma=0,1,2", "--grid", "epochs=500", "--grid", "max_seq_len=32"]
    call += ["--jobs", str(jobs)]
    process = subprocess.Popen([str(Path(sys.executable).with_name("bert-genres")), *call], cwd=tmp_path, stderr=subprocess.PIPE)
    (tmp_path / "runs").mkdir()
    while process.poll() is None and len(read_runs(tmp_path / "runs")) < jobs:
        time.sleep(.05)
    if sent:
        process.send_signal(sent)
    else:                                                                 # a worker, as by a system that is out of memory
        workers = [p for p in descendants(process.pid) if "popen_loky" in Path(f"/proc/{p}/cmdline").read_text()]
        os.kill(workers[0], signal.SIGKILL)
    err = process.communicate()[1].decode()
    assert process.returncode == status and "Traceback" not in err, err
    assert [line for line in err.splitlines() if line.startswith("bert-genres:")] and said in err
    assert "COMPLETED" not in set(read_runs(tmp_path / "runs").status)


def test_two_grids_do_not_share_a_folder_at_once(run, tmp_path):
    from filelock import FileLock

    (tmp_path / "runs").mkdir()
    with FileLock(tmp_path / "runs" / ".lock"):
        assert "another process" in one_line(run("experiment", "sample", cwd=tmp_path), 2)


def test_without_sacred_one_line_says_what_to_install(run, tmp_path):
    with mock.patch("bert_genres.command.find_spec", return_value=None):
        assert "install bert-genres[train,experiments]" in one_line(run("experiment", "sample", cwd=tmp_path), 2)


def test_values_keep_their_kind():
    assert parse_grid(["seed=1,1,0", "gamma=1"]) == {"seed": [1, 0], "gamma": [1.0]}


# --- a database: SecantusDB, a server of its own that speaks MongoDB's wire protocol, with passwords


class Server:
    def __init__(self, folder):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        program = Path(sys.executable).with_name("secantusd-py")
        self.command = [str(program), "--port", str(self.port), "--storage-path", str(folder)]
        self.start()
        with MongoClient(port=self.port) as client:
            client.admin.command("createUser", "genres", pwd=SECRET, roles=["root"])
        self.stop()
        self.start("--auth")
        self.url = f"mongodb://genres:{SECRET}@127.0.0.1:{self.port}/films?authSource=admin"

    def start(self, *flags):
        self.process = subprocess.Popen([*self.command, *flags], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(100):
            try:
                with MongoClient(port=self.port, serverSelectionTimeoutMS=200) as client:
                    return client.admin.command("ping")
            except PyMongoError:
                time.sleep(.1)
        raise TimeoutError("the server does not start")

    def stop(self, how=signal.SIGTERM):
        self.process.send_signal(how)
        self.process.wait()


@pytest.fixture
def server(tmp_path):
    server = Server(tmp_path / "database")
    yield server
    server.stop()


def metrics_of(folder):
    return json.loads((folder / "metrics.json").read_text())


def everything_written(folder):
    return b"".join(p.read_bytes() for p in folder.rglob("*") if p.is_file())


def test_a_database_gets_every_run_and_the_password_goes_nowhere(run, tmp_path, server):
    call = ("experiment", "sample", "--grid", "gamma=0,2", "--grid", "epochs=2", "--grid", "max_seq_len=32")
    done = run(*call, cwd=tmp_path, env={"BERT_GENRES_MONGO_URL": server.url})
    assert done.returncode == 0, done.stderr.decode()
    files, database = read_runs(tmp_path / "runs"), read_runs(server.url)
    assert len(files) == 2 and (files.status == "COMPLETED").all()
    same = [c for c in files if c not in ("start", "seconds")]
    pd.testing.assert_frame_equal(files[same], database[same])
    assert abs((files.start - database.start).dt.total_seconds()).max() < 1
    with MongoClient(server.url) as client:
        metrics = list(client.films.metrics.find())
        kept = str(list(client.films.runs.find())) + str(metrics)
    assert len(metrics) == 2 * 4
    for metric in metrics:
        in_file = metrics_of(tmp_path / "runs" / metric["run_id"])[metric["name"]]
        assert all(metric[k] == in_file[k] for k in ("steps", "values"))
    assert SECRET not in kept and SECRET.encode() not in everything_written(tmp_path / "runs") + done.stdout + done.stderr


def test_a_database_that_dies_costs_one_line(tmp_path, server):
    call = ["experiment", "sample", "--grid", "gamma=0,1,2", "--grid", "epochs=10", "--grid", "max_seq_len=32"]
    process = subprocess.Popen([str(Path(sys.executable).with_name("bert-genres")), *call], cwd=tmp_path, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, env=os.environ | {"BERT_GENRES_MONGO_URL": server.url})
    with MongoClient(server.url) as client:
        while process.poll() is None and not client.films.runs.count_documents({}):
            time.sleep(.02)
    server.stop(signal.SIGKILL)                                           # in the middle of the first run
    out, err = process.communicate()
    said = [line for line in err.decode().splitlines() if "MongoDB" in line]
    assert process.returncode == 0 and len(said) == 1 and "the runs go on" in said[0], err.decode()
    assert SECRET not in err.decode() + out.decode() and "Traceback" not in err.decode()
    runs = read_runs(tmp_path / "runs")
    assert sorted(runs.gamma) == [0, 1, 2] and (runs.status == "COMPLETED").all()
    for run in runs.id:
        assert [len(m["values"]) for m in metrics_of(tmp_path / "runs" / run).values()] == [10] * 4


def test_a_database_out_of_reach_stops_a_grid_before_it_starts(run, tmp_path, server):
    call = ("experiment", "sample", "--grid", "epochs=2")
    for url, status, said in [
            (server.url.replace(SECRET, "guessed"), 2, "the database refuses (AuthenticationFailed)"),
            (server.url.replace("mongodb:", "mongo:"), 2, "not a MongoDB address"),
            (server.url.replace(SECRET, "gues/sed"), 2, "percent-encoded"),
            (server.url.replace(str(server.port), "port"), 2, "not a MongoDB address"),
            (server.url.replace(str(server.port), "1"), 3, "no database answers")]:
        line = one_line(run(*call, cwd=tmp_path, env={"BERT_GENRES_MONGO_URL": url}), status)
        assert said in line and SECRET not in line and "gues" not in line
        assert os.listdir(tmp_path) == ["database"]
