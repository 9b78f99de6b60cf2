"""Run the course's notebooks in order, each in a fresh kernel, on a corpus; print the ladder at the end. `--all`: those of the
engine below it and of what uses it above, too.

Two run at a time where neither reads what the other leaves. Executed copies, figures and metrics.json go to
reports/<corpus>/. A notebook whose executed copy was made from the same cells, the same notebooks before it and the modules
that they export, the same corpus, encoder and environment is not run again, so an interrupted run picks up where it was.
"""
import argparse
import atexit
import base64
import contextlib
import hashlib
import json
import os
import re
import signal
import sys
import time
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from bert_genres.data import corpus_checksum, corpus_name, load_corpus, split_corpus
from bert_genres.files import InputError, atomic_path
from bert_genres.results import show_ladder

ROOT = Path(__file__).resolve().parent.parent
READS = {"06_cooccurrence": {"05_model"}, "07_recipes": {"06_cooccurrence"}, "08_results": {"02_baselines", "07_recipes"},
         "14_changes": {"06_cooccurrence"}, "index": {"07_recipes"}, "03_explanation": {"07_recipes"},
         "04_scaling_out": {"06_cooccurrence"}, "05_command": {"06_cooccurrence"}}     # what others leave in the reports
ALONE = "04_scaling_out"                                                 # Ray gives up where a node takes more than 30 s to start


def all_notebooks():
    "Floor by floor, from below."
    return [path for floor in ("engine", ".", "uses") for path in sorted((ROOT / "nbs" / floor).resolve().glob("*.ipynb"))]


def stamps(notebooks, checksum):
    """What each notebook's executed copy depends on, as a chain of checksums: its cells, the files that they name, the module
    that it exports, and all of that of the notebooks before it, for a notebook imports only what these export."""
    model = os.environ.get("MODEL", "")
    weights = sorted(Path(model).glob("*")) if os.path.isdir(model) else []
    weights = [(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in weights]
    digest = hashlib.sha256(f"{checksum} {model} {weights}".encode())
    recorded = b"".join(p.read_bytes() for p in sorted((ROOT / "results").glob("*.json")))
    for path in (ROOT / "requirements.lock", ROOT / "bert_genres" / "__init__.py"):
        digest.update(path.read_bytes())
    for path in notebooks:
        nb = nbformat.read(path, as_version=4)
        code = "\0".join(c.source for c in nb.cells if c.cell_type == "code")
        digest.update(code.encode())
        for file in named_files(code):
            digest.update(f"\0{file.name}\0".encode() + file.read_bytes())
        reads_results = "../results" in code
        yield hashlib.sha256(digest.digest() + (recorded if reads_results else b"")).hexdigest()


def named_files(code):
    "The module that a notebook's cells export, and the tables beside it and the package's folders of data that they name."
    exported = re.findall(r"#\| default_exp (\w+)", code)
    for path in sorted([*(ROOT / "nbs").glob("*.csv"), *(ROOT / "bert_genres").iterdir()]):
        if f'"{path.name}"' in code or path.name in [f"{name}.py" for name in exported]:
            yield from [path] if path.is_file() else (p for p in sorted(path.rglob("*")) if p.is_file())


def execute(path, target, stamp, clients):
    "Run one notebook and write its executed copy and its figures, or raise CellExecutionError. Its client goes to `clients`."
    nb = nbformat.read(path, as_version=4)
    client = NotebookClient(nb, timeout=None, kernel_name="python3", extra_arguments=["--log-level=40"],
                            resources={"metadata": {"path": str(path.parent)}})
    clients.append(client)
    try:
        client.execute()
    finally:
        atexit.unregister(client._cleanup_kernel)           # which fails for a kernel that was killed while it started
    nb.metadata["stamp"] = stamp
    figures = [o.data["image/png"] for c in nb.cells for o in c.get("outputs", []) if "image/png" in o.get("data", {})]
    for k, png in enumerate(figures, 1):
        with atomic_path(target.parent / "figures" / f"{path.stem}-{k}.png") as part:
            part.write_bytes(base64.b64decode(png))
    with atomic_path(target) as part:
        nbformat.write(nb, part)


def run_all(notebooks, stamps, reports):
    "Two at a time, each after those that it reads, the one for itself last; a line at each begin and end."
    clients, running, here, done = [], {}, {path.stem for path in notebooks}, set()

    def run(label, path, stamp):
        if up_to_date(reports / path.name, stamp):
            return sys.stderr.write(f"{label} up to date\n")
        began = time.monotonic()
        sys.stderr.write(f"{label} ...\n")
        execute(path, reports / path.name, stamp, clients)
        sys.stderr.write(f"{label} {time.monotonic() - began:3.0f} s\n")

    def ready(label, path, stamp):
        return len(here - done) == 1 if path.stem == ALONE else READS.get(path.stem, set()) & here <= done

    waiting = [(f"[{k}/{len(notebooks)}] {path.stem:<16}", path, stamp)
               for k, (path, stamp) in enumerate(zip(notebooks, stamps, strict=True), 1)]
    with ThreadPoolExecutor(2) as pool:
        try:
            while len(done) < len(here):
                for job in [job for job in waiting if ready(*job)][:2 - len(running)]:
                    waiting.remove(job)
                    running[pool.submit(run, *job)] = job[1].stem
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    future.result()
                    done.add(running.pop(future))
        except BaseException as e:
            pool.shutdown(wait=False, cancel_futures=True)
            if isinstance(e, KeyboardInterrupt):
                stop(clients, [f for f in running if f.running()])
            raise


def stop(clients, running):
    "Interrupt the cells, so that what they have started ends with them; kill kernels that run none, and after 10 s all."
    for sent in (signal.SIGINT, signal.SIGKILL):
        for client in clients:
            with contextlib.suppress(AttributeError, TypeError, ProcessLookupError):    # not started yet, or gone
                os.killpg(client.km.provisioner.pgid, sent if client.code_cells_executed else signal.SIGKILL)
        if not wait(running, timeout=10).not_done:
            break


def up_to_date(target, stamp):
    try:
        return json.loads(target.read_text())["metadata"].get("stamp") == stamp
    except (OSError, ValueError, KeyError):
        return False


def store(path, target):
    "Copy outputs, but what went to stderr, from an executed copy into the notebook itself."
    nb, done = nbformat.read(path, as_version=4), nbformat.read(target, as_version=4)
    for cell, ran in zip(nb.cells, done.cells, strict=True):
        if cell.cell_type == "code":
            cell.outputs = [o for o in ran.outputs if o.get("name") != "stderr"]
            cell.execution_count = None
            for o in cell.outputs:
                o.pop("execution_count", None) if o.output_type != "execute_result" else o.update(execution_count=None)
    nbformat.write(nb, path)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpus", nargs="?", default="sample")
    parser.add_argument("--all", action="store_true", help="run the engine's notebooks and the uses', too")
    parser.add_argument("--store", action="store_true", help="copy the outputs into the notebooks")
    args = parser.parse_args()
    if args.store and args.corpus != "sample":
        parser.error("only outputs from the sample are stored: those of another corpus hold its texts")
    corpus = str(Path(args.corpus).resolve()) if Path(args.corpus).exists() else args.corpus
    films = load_corpus(corpus)
    split_corpus(films, corpus=corpus)  # what cannot be split is said now, not in a notebook
    checksum = corpus_checksum(films)
    reports = Path(os.environ.setdefault("BERT_GENRES_REPORTS", str(ROOT / "reports"))) / corpus_name(corpus)
    os.environ["CORPUS"] = corpus
    if os.path.isdir(model := os.environ.get("MODEL", "")):
        os.environ["MODEL"] = os.path.abspath(model)        # notebooks run in another folder
    start = time.monotonic()
    stamp = dict(zip(notebooks := all_notebooks(), stamps(notebooks, checksum), strict=True))
    if not (args.all or args.store):
        notebooks = [path for path in notebooks if path.parent.name == "nbs"]
    run_all(notebooks, [stamp[path] for path in notebooks], reports)
    if args.store:
        for path in notebooks:
            store(path, reports / path.name)
    metrics = json.loads((reports / "metrics.json").read_text())
    print(show_ladder(metrics))
    print(f"reports in {os.path.relpath(reports)}, {time.monotonic() - start:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    try:
        main()
    except InputError as e:
        sys.exit(print(f"reproduce: {e}", file=sys.stderr) or 2)
    except CellExecutionError as e:
        sys.exit(print(f"\n{e}", file=sys.stderr) or 1)
    except ConnectionError as e:
        sys.exit(print(f"reproduce: {e}", file=sys.stderr) or 3)
    except KeyboardInterrupt:
        sys.exit(print("\nreproduce: interrupted; the same call goes on here", file=sys.stderr) or 130)
