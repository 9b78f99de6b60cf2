"""Training the encoder: interruption, replicas, and the bundle."""
import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import few_networks, one_line
from safetensors import safe_open
from safetensors.numpy import save_file

import bert_genres
from bert_genres.checkpoints import MINILM, Checkpoint, read_weights
from bert_genres.data import load_corpus
from bert_genres.embeddings import BertEncoder
from bert_genres.files import InputError
from bert_genres.finetuning import training_folder
from bert_genres.model import load_bundle, save_bundle
from bert_genres.recipes import TextClassifier, fit_frozen


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    "The packaged encoder's first two layers."
    folder, whole = tmp_path_factory.mktemp("small") / "model", Checkpoint(MINILM)
    folder.mkdir()
    whole.save(folder)
    (folder / "config.json").write_text(json.dumps(whole.config | {"num_hidden_layers": 2}))
    kept = {k: np.ascontiguousarray(v) for k, v in read_weights(whole.folder).items()
            if not any(f"layer_{n}/" in k for n in (2, 3, 4, 5))}
    save_file(kept, folder / "model.safetensors")
    return folder


@pytest.fixture(scope="module")
def start(small, tmp_path_factory):
    "Recipe frozen on 100 films."
    films = load_corpus("sample").iloc[:100].reset_index(drop=True)
    with few_networks():
        bundle, _ = fit_frozen(films, np.full(len(films), "train"), encoder=BertEncoder(small, 64, precision="fp32"))
    return save_bundle(bundle, tmp_path_factory.mktemp("start") / "frozen")


FIT = """
import re, signal, sys, time, numpy as np
signal.signal(signal.SIGINT, signal.default_int_handler)
import bert_genres.finetuning as finetuning
from bert_genres import recipes
from bert_genres.data import load_corpus, split_all_rows
from bert_genres.embeddings import BertEncoder
from bert_genres.runtimes import import_tensorflow
import_tensorflow().config.optimizer.set_experimental_options({"disable_meta_optimizer": True})     # it differs by process
finetuning.SAVE_EVERY, recipes.FOLDS = .3, 2
if len(sys.argv) > 3:                    # save after each step, and stand still in this one
    step, finetuning.SAVE_EVERY = finetuning.Training.step, 0
    def counted(training, *args):
        if training.number == int(sys.argv[3]):
            time.sleep(3600)
        return step(training, *args)
    finetuning.Training.step = counted
films = load_corpus("sample").iloc[:120].reset_index(drop=True)
encoder = BertEncoder(sys.argv[1], 64, precision="fp32")
fit = finetuning.fit_network
def kept(training, ids, topics, *args):     # what a training was given, and what came of it
    top = training.net.top
    given = {"topics": topics, "targets": args[0], "center": top.center, "scale": top.scale}
    out = fit(training, ids, topics, *args)
    names = [re.sub(r"dense_\\d+", "dense", v.name) for v in training.variables]      # Keras counts those of `frozen`, too
    np.savez(sys.argv[2], **given, **{f"{k} {name}": v.numpy() for k, (name, v) in enumerate(zip(names, training.variables))})
    return out
finetuning.fit_network = kept
began = time.monotonic()
part = split_all_rows(films)
bundle = finetuning.fit_finetuned(films, part, encoder=encoder, epochs=2, batch_size=8)
print(time.monotonic() - began, bundle.info["seconds"], bundle.info["training_seconds"])
tuned, frozen = bundle.head.parts(list(films["plot"][part == "validation"]))
scores = bundle.info["epoch_scores"]
np.savez(sys.argv[2].replace(".npz", "-said.npz"), scores=scores, tuned=tuned, frozen=frozen)
"""


def fit_process(small, out, cache, *stop):
    "One operation at a time, on one thread: there is no order of sums otherwise, nor the same last bits."
    threads = ("TF_NUM_INTEROP", "TF_NUM_INTRAOP", "OMP_NUM", "OPENBLAS_NUM", "RAYON_NUM")
    env = os.environ | {"BERT_GENRES_CACHE": str(cache)} | {f"{name}_THREADS": "1" for name in threads}
    command = [sys.executable, "-c", FIT, small, out, *stop]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def steps_made(cache):
    "The optimizers' count in the saved state."
    for path in cache.glob("training/*/state.safetensors"):
        with safe_open(path, "numpy") as f:
            return max(int(f.get_tensor(k)) for k in f.keys() if f.get_slice(k).get_dtype() == "I64")
    return 0


def test_a_killed_training_ends_as_one_that_was_left_alone(small, tmp_path):
    calm = fit_process(small, tmp_path / "calm.npz", tmp_path / "calm")
    assert calm.wait() == 0, calm.stderr.read().decode()
    (began,) = (tmp_path / "calm" / "training").iterdir()                # what it began with is the same for both
    ended = tmp_path / "killed" / "training" / began.name
    shutil.copytree(began / "frozen", ended / "frozen")
    shutil.copy(began / "held.safetensors", ended)
    process = fit_process(small, tmp_path / "killed.npz", tmp_path / "killed", "18")
    while steps_made(tmp_path / "killed") < 18:                          # in the second of two epochs of 13
        assert process.poll() is None, process.stderr.read().decode()
        time.sleep(.2)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    before = json.loads((ended / "seconds.json").read_text())["seconds"]
    last = fit_process(small, tmp_path / "killed.npz", tmp_path / "killed")
    assert last.wait() == 0, last.stderr.read().decode()
    for process, earlier in ((calm, 0), (last, before)):                 # what is recorded is the time of all calls
        call, seconds, training = map(float, process.stdout.read().split())
        assert 0 < training <= seconds and earlier + call - 3 < seconds < earlier + call + 1
    assert before > 1 and json.loads((ended / "seconds.json").read_text())["done"]
    a, b = np.load(tmp_path / "calm.npz"), np.load(tmp_path / "killed.npz")
    assert a.files == b.files
    for name in a.files:                                                 # in the order in which one follows from the other
        np.testing.assert_allclose(a[name], b[name], atol=1e-6, err_msg=name)
    a, b = np.load(tmp_path / "calm-said.npz"), np.load(tmp_path / "killed-said.npz")
    assert len(a["scores"]) == 2
    for name in a.files:
        np.testing.assert_allclose(a[name], b[name], atol=1e-5, err_msg=name)


REPLICAS = """
import os, sys
os.environ["TF_USE_LEGACY_KERAS"] = "1"
import tensorflow as tf
if "TF_CONFIG" in os.environ:
    strategies = [tf.distribute.MultiWorkerMirroredStrategy()]
else:
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    strategies = [tf.distribute.get_strategy(), tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])]
import numpy as np
from bert_genres.embeddings import pad
from bert_genres.finetuning import Network, Training
from bert_genres.model import load_bundle
start = load_bundle(sys.argv[1], "fp32")
from itertools import product
texts = ["A {} hunts a {} on {}.".format(*who) for who in product(["cop", "nun"], ["thief", "ghost"], ["Mars", "Capri"])]
ids = pad([e.ids for e in start.encoder.tokenizer.encode_batch(texts)])
topics = start.head.topics(texts)
y = (np.random.default_rng(0).random((len(texts), len(start.classes_))) < .1).astype(np.float32)
for strategy in strategies:
    with strategy.scope():
        training = Training(Network(start, texts, (0, 0, 0)), 6, precision=sys.argv[2], strategy=strategy)
        print(strategy.num_replicas_in_sync, *[training.step(ids, topics, y) for _ in range(4)])
"""


def two_workers(code, *args, caches, kinds=("worker", "worker")):
    "Two processes that know of each other, each of a kind of task; what each has printed."
    ports = []
    with contextlib.ExitStack() as stack:
        for _ in range(2):
            free = stack.enter_context(socket.socket())
            free.bind(("127.0.0.1", 0))
            ports.append(f"127.0.0.1:{free.getsockname()[1]}")
    cluster = {kind: [port for k, port in zip(kinds, ports, strict=True) if k == kind] for kind in kinds}
    tasks = [{"type": kind, "index": kinds[:k].count(kind)} for k, kind in enumerate(kinds)]
    settings = [{"cluster": cluster, "task": task} for task in tasks]
    with contextlib.ExitStack() as stack:
        files = [[stack.enter_context(tempfile.TemporaryFile("w+")) for _ in range(2)] for _ in range(2)]
        workers = [subprocess.Popen([sys.executable, "-c", code, *map(str, mine)], stdout=out, stderr=err,
                                    env=os.environ | {"TF_CONFIG": json.dumps(config), "BERT_GENRES_CACHE": str(cache)})
                   for config, mine, cache, (out, err) in zip(settings, args, caches, files, strict=True)]
        for worker in workers:
            stack.callback(worker.kill)
        until = time.monotonic() + 600
        while any(worker.poll() is None for worker in workers):
            assert time.monotonic() < until and not any(worker.poll() for worker in workers), said(files)
            time.sleep(.2)
        assert not any(worker.returncode for worker in workers), said(files)
        return [out.splitlines() for out, _ in said(files)]


def said(files):
    "What two processes have written, to standard output and, the end of it, to standard error."
    for file in (file for pair in files for file in pair):
        file.seek(0)
    return [(out.read(), err.read()[-2000:]) for out, err in files]


@pytest.mark.parametrize("precision", ["fp32", "fp16"])     # on a processor, fp16 is but the scale of the loss
def test_two_replicas_and_two_workers_go_the_way_of_one(start, tmp_path, precision):
    done = subprocess.run([sys.executable, "-c", REPLICAS, start, precision], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    first, second = two_workers(REPLICAS, *[[start, precision]] * 2, caches=[tmp_path] * 2)
    one, *two = np.array([line.split() for line in [*done.stdout.decode().splitlines(), *first, *second]], dtype=float)
    assert (one[0], *(other[0] for other in two)) == (1, 2, 2, 2)
    for other in two:
        np.testing.assert_allclose(one[1:], other[1:], rtol=1e-4)
    assert len(set(one[1:].round(4))) == 4                     # the weights move from step to step


CHIEF = """
from bert_genres.finetuning import _strategy, agree
strategy = _strategy()
chief = strategy.extended.should_checkpoint
print(strategy.num_replicas_in_sync, chief, agree(strategy, .25 if chief else 7.))
"""


@pytest.mark.parametrize("kinds, chief", [(("worker", "worker"), 0), (("worker", "chief"), 1)])
def test_there_is_one_chief_whose_value_all_are_told(tmp_path, kinds, chief):
    said = two_workers(CHIEF, [], [], caches=[tmp_path] * 2, kinds=kinds)
    assert said == [[f"2 {k == chief} 0.25"] for k in range(2)]


@pytest.mark.parametrize("config, says", [
    ("{", "TF_CONFIG: broken JSON"),
    ("[1]", "TF_CONFIG: not a JSON object"),
    ({"cluster": {"worker": ["a:1"]}, "task": {"type": "ps", "index": 0}}, "a task of type ps does not train"),
    ({"cluster": {"worker": ["a:1"]}, "task": {"type": "evaluator", "index": 0}}, "a task of type evaluator does not train"),
    ({"cluster": {"worker": ["a:1"]}}, "a task of no type does not train"),
    ({"cluster": {"worker": "a:1"}, "task": {"type": "worker", "index": 0}}, "must be a list"),
    ({"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": "x"}}, "TF_CONFIG: invalid literal"),
    ({"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 5}}, "exceeds the maximum id of worker"),
])
def test_a_cluster_that_cannot_train_is_one_line(run, tmp_path, config, says):
    config = config if isinstance(config, str) else json.dumps(config)
    call = ("train", "sample", "--recipe", "finetuned", "--out", tmp_path / "out")
    assert says in one_line(run(*call, env={"TF_CONFIG": config, "BERT_GENRES_CACHE": str(tmp_path)}), 2, before=3)
    assert list(tmp_path.iterdir()) == []


def test_other_code_begins_another_training(tmp_path, monkeypatch):
    monkeypatch.setenv("BERT_GENRES_CACHE", str(tmp_path / "cache"))
    package = shutil.copytree(Path(bert_genres.__file__).parent, tmp_path / "bert_genres")
    monkeypatch.setattr("bert_genres.files.files", lambda name: tmp_path / name)

    def place():
        with training_folder("what") as folder:
            return folder

    changed = {}
    for name in ("data", "evaluation", "baselines", "embeddings", "model", "recipes", "finetuning", "command"):
        before = place()
        with open(package / f"{name}.py", "a") as module:
            module.write("# other code\n")
        changed[name] = place() != before
    assert [name for name, other in changed.items() if not other] == ["command"]
    before = place()
    monkeypatch.setattr(bert_genres, "__version__", "99")
    assert place() != before


def test_two_workers_keep_one_training(small, tmp_path):
    two_workers(FIT, [small, tmp_path / "0.npz"], [small, tmp_path / "1.npz"], caches=[tmp_path / "cache"] * 2)
    (folder,) = (tmp_path / "cache" / "training").iterdir()
    assert (folder / "best" / "model.safetensors").exists()
    first, second = (np.load(tmp_path / f"{k}-said.npz") for k in range(2))
    assert 0 < len(first["scores"]) <= 2
    for name in first.files:
        np.testing.assert_array_equal(first[name], second[name])


def test_the_estimator_trains_it_and_the_bundle_predicts_without_tensorflow(small, tmp_path, monkeypatch):
    monkeypatch.setenv("BERT_GENRES_CACHE", str(tmp_path / "cache"))
    films = load_corpus("sample").iloc[:120]
    texts = list(films["plot"])
    random.seed(3)
    np.random.seed(3)
    with few_networks():
        classifier = TextClassifier("finetuned", str(small), 64).fit(texts, list(films.genres))
    assert random.random() == random.Random(3).random()                  # the caller's own numbers go on as they were
    assert np.random.random() == np.random.RandomState(3).random()
    classifier.save(tmp_path / "bundle")
    code = ("import sys, json; from bert_genres.model import load_bundle; b = load_bundle(sys.argv[1]);"
            "p = b.predict_proba(json.load(sys.stdin)); assert 'tensorflow' not in sys.modules; print(json.dumps(p.tolist()))")
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "bundle"], input=json.dumps(texts[:9]).encode(),
                          capture_output=True, check=True)
    np.testing.assert_allclose(json.loads(done.stdout), classifier.bundle_.predict_proba(texts[:9]), atol=1e-6)
    said = (tmp_path / "bundle" / "bundle.json").read_text()
    assert str(tmp_path / "cache") not in said
    (tmp_path / "bundle" / "tuned" / "vocab.txt").unlink()
    with pytest.raises(InputError, match="tuned/vocab.txt is missing"):
        load_bundle(tmp_path / "bundle")


def test_a_split_without_validation_rows_is_refused_in_one_line(run, tmp_path):
    said = one_line(run("train", "sample", "--split", "article", "--recipe", "finetuned", "--out", tmp_path / "out"), 2, before=3)
    assert "needs validation rows" in said and not (tmp_path / "out").exists()
