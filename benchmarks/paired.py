"""Which of two bundles is better: their paired differences on a corpus's validation rows, on which choices are made, and beside
them on its test rows, which neither has seen. `python benchmarks/paired.py CORPUS BUNDLE OTHER`; written to
results/<corpus>-<checksum8>-paired.json, under both recipes' names. Where a recipe has chosen something on validation rows, as
article-longer and finetuned do, these flatter it.
"""
import json
import sys
from pathlib import Path

import numpy as np

from bert_genres.data import binarize, corpus_checksum, corpus_name, load_corpus, split_corpus
from bert_genres.evaluation import paired_difference
from bert_genres.files import InputError
from bert_genres.model import load_bundle
from bert_genres.results import hardware, write_metrics


def difference(bundles, films):
    truth, unknown = binarize(films.genres, bundles[0].classes_)
    named = [bundle.predict(list(films["plot"])) for bundle in bundles]
    return {"n": len(films)} | paired_difference(truth, *named, np.array([len(labels) for labels in unknown]))


def main(corpus, *folders):
    films = load_corpus(corpus)
    part = split_corpus(films, corpus=corpus)
    bundles = [load_bundle(folder) for folder in folders]
    if any(bundle.seen(films[part == "test"]).any() for bundle in bundles):
        raise InputError("a bundle was trained or chosen on test rows")
    if bundles[0].classes_ != bundles[1].classes_:
        raise InputError("the bundles have different genres")
    test, validation = (difference(bundles, films[part == rows]) for rows in ("test", "validation"))
    path = Path("results") / f"{corpus_name(corpus)}-{corpus_checksum(films)[:8]}-paired.json"
    done = json.loads(path.read_text()) if path.exists() else {
        "corpus": corpus_name(corpus), "checksum": corpus_checksum(films), "pairs": {}}
    pair = " minus ".join(bundle.info["recipe"] for bundle in bundles)
    done["pairs"][pair] = {"hardware": hardware(), "seeds": [b.info["seed"] for b in bundles]} | test | {"validation": validation}
    write_metrics(path, done)
    for rows, found in [("validation", validation), ("test", test)]:
        print(f"{path.name}: {pair}, {rows}, micro-F1 {found['micro_f1']['difference']:+.4f} {found['micro_f1']['ci95']}")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except InputError as e:
        sys.exit(print(f"paired: {e}", file=sys.stderr) or 2)
