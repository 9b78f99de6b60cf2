"""What is not encoding: parsing, counting pairs, the correction against the article's loop, importing, one plot predicted
cold. Writes results/bench-rest.json."""
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np

from bert_genres.cooccurrence import close_rules, implications
from bert_genres.data import SAMPLE, binarize, label_names, read_metadata
from bert_genres.model import apply_rules
from bert_genres.results import hardware, write_metrics

ROOT = Path(__file__).resolve().parent.parent


def timed(function, rounds=5):
    "Median seconds of a call, and what it gave."
    taken = []
    for _ in range(rounds):
        start = time.perf_counter()
        result = function()
        taken.append(time.perf_counter() - start)
    return median(taken), result


def article_loop(named, rules):
    "The article's correction: for every rule a loop over all rows."
    named = named.copy()
    for a, b in rules:
        for row in named:
            if row[a]:
                row[b] = True
    return named


def process(code):
    return timed(lambda: subprocess.run([sys.executable, "-c", code], check=True, capture_output=True))[0]


def main():
    corpus = ROOT.parent / "shared" / "corpus" / "MovieSummaries.tar.gz"
    if corpus.exists():
        with tarfile.open(corpus) as tar:
            text = tar.extractfile("MovieSummaries/movie.metadata.tsv").read().decode()
    else:
        text = (SAMPLE / "movie.metadata.tsv").read_text()
    figures = {"metadata rows": text.count("\n")}
    figures["parsing the metadata, s"], films = timed(lambda: read_metadata(text), 3)
    classes = label_names(films.genres)
    Y = binarize(films.genres, classes)[0]
    figures["implications of all pairs, s"], table = timed(lambda: implications(Y, range(len(classes))))
    rng = np.random.default_rng(0)
    named = rng.random((8_000, len(classes))) < 0.012
    rules = close_rules(table[["a", "b"]].head(120).to_numpy(dtype=int), len(classes))[:200]
    slow, by_loop = timed(lambda: article_loop(named, rules), 3)
    fast, at_once = timed(lambda: apply_rules(named, rules), 15)
    closed = close_rules(rules, len(classes))
    again = article_loop(article_loop(article_loop(named, rules), rules), rules)      # the loop until nothing changes
    figures |= {"rules": len(rules), "the article's loop, s": slow, "the correction, s": fast, "ratio": slow / fast,
                "equal output": bool((again == apply_rules(named, closed)).all()
                                     and ((len(closed) > len(rules)) or (by_loop == at_once).all()))}
    figures["python itself, s"] = process("pass")
    figures["import bert_genres, s"] = process("import bert_genres") - figures["python itself, s"]
    with tempfile.TemporaryDirectory() as folder:
        exe = Path(sys.executable).with_name("bert-genres")
        subprocess.run([exe, "train", "sample", "--recipe", "article", "--out", f"{folder}/b"], check=True, capture_output=True)
        figures["one plot predicted in a new process, s"] = timed(lambda: subprocess.run(
            [exe, "predict", f"{folder}/b", "-"], input=b"A ghost haunts an inn.\n", check=True, capture_output=True))[0]
    figures = {k: float(f"{v:.3g}") if isinstance(v, float) else v for k, v in figures.items()}
    write_metrics(ROOT / "results" / "bench-rest.json", {"hardware": hardware(), "figures": figures})
    print("\n".join(f"{k}: {v}" for k, v in figures.items()))


if __name__ == "__main__":
    main()
