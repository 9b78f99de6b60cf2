"""What several tests share: real corpora, a real bundle, the command in a process of its own."""
import contextlib
import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from pathlib import Path
from unittest import mock

import pytest
from playwright.sync_api import sync_playwright

from bert_genres import recipes
from bert_genres.command import main

signal.signal(signal.SIGINT, signal.default_int_handler)     # where a shell has told its background jobs to ignore it
ROOT = Path(__file__).resolve().parent.parent
ARCHIVE = ROOT.parent / "shared" / "corpus" / "MovieSummaries.tar.gz"


SLOW = {"archive", "browser", "bundle_dir", "cluster", "run_process"}     # what waits for a process, or reads 10,000 plots


def pytest_collection_modifyitems(items):
    "The files that take longest begin first, so that at the end no process works alone; a test of a slow fixture is marked slow."
    for item in items:
        if SLOW & {*item.fixturenames}:
            item.add_marker("slow")
    longest = ["test_finetuning", "test_command", "test_experiments", "test_site", "test_estimator"]
    place = {name: k for k, name in enumerate(longest)}
    items.sort(key=lambda item: place.get(item.module.__name__.rpartition(".")[2], len(longest)))


@pytest.fixture(scope="session")
def archive():
    "A large corpus in CMU's format, beside the repository where there is one."
    if not ARCHIVE.exists():
        pytest.skip(f"needs {ARCHIVE.relative_to(ROOT.parent)} beside the repository")
    return ARCHIVE


@pytest.fixture(scope="session")
def archive_texts(archive):
    "The two files of the archive, as text."
    with tarfile.open(archive) as tar:
        return {name: tar.extractfile(f"MovieSummaries/{name}").read().decode()
                for name in ("movie.metadata.tsv", "plot_summaries.txt")}


@pytest.fixture(scope="session")
def run_process():
    "run_process(*args, stdin=…): the installed command, in a new process."
    def call(*args, stdin=b"", env=None, cwd=None):
        command = [str(Path(sys.executable).with_name("bert-genres")), *map(str, args)]
        return subprocess.run(command, input=stdin, capture_output=True, cwd=cwd, env=os.environ | (env or {}))
    return call


@pytest.fixture(scope="session")
def run():
    "run(*args, stdin=…): the command's own function, in this process, so that TensorFlow starts once."
    def call(*args, stdin=b"", env=None, cwd=None):
        streams, place = (sys.stdin, sys.stdout, sys.stderr), os.getcwd()
        wrapped = [io.TextIOWrapper(s, encoding="utf-8", write_through=True)
                   for s in (io.BytesIO(stdin), io.BytesIO(), io.BytesIO())]
        sys.stdin, sys.stdout, sys.stderr = wrapped
        try:
            with mock.patch.dict(os.environ, env or {}):
                os.chdir(cwd or place)
                status = main([str(a) for a in args])
        except SystemExit as e:  # --help and --version
            status = e.code
        finally:
            sys.stdin, sys.stdout, sys.stderr = streams
            os.chdir(place)
        said = [w.buffer.getvalue() for w in wrapped[1:]]
        return subprocess.CompletedProcess(args, status, *said)
    return call


@pytest.fixture(scope="session")
def bundle_dir(run_process, tmp_path_factory):
    "A bundle of recipe article, trained by the command on the sample."
    folder = tmp_path_factory.mktemp("bundle") / "article"
    done = run_process("train", "sample", "--recipe", "article", "--out", folder)
    assert done.returncode == 0, done.stderr.decode()
    return folder


@contextlib.contextmanager
def few_networks():
    "Recipe frozen with two networks a layer, not five, where what it trains is not what is tested."
    with mock.patch.object(recipes, "FOLDS", 2):
        yield


def one_line(done, status, before=0):
    "The one line on stderr of a refused call, after `before` others of talk, after checking that it is one, and the status."
    lines = done.stderr.decode().strip().splitlines()
    assert done.returncode == status, (done.returncode, lines[-3:])
    assert len(lines) == before + 1 and lines[-1].startswith("bert-genres: ") and "Traceback" not in lines[-1], lines
    return lines[-1]


@contextlib.contextmanager
def small_disk(folder, size):
    "A file system of `size` bytes at `folder`."
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("may not mount a small disk here")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture(scope="module")
def browser():
    "Chromium without a window."
    with sync_playwright() as p:
        sandbox = [] if os.getuid() else ["--no-sandbox"]
        browser = p.chromium.launch(executable_path=shutil.which("chromium"), args=sandbox)
        yield browser
        browser.close()
