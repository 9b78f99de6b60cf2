"""What the classical systems and zero-shot score on a corpus's test rows; thresholds are chosen on its validation rows.
`python benchmarks/baselines.py CORPUS`; one file a system in results/, as `bert-genres train --record` writes for a recipe.
"""
import sys
from importlib.metadata import version

import numpy as np

import bert_genres
from bert_genres.baselines import BASELINES, PUBLISHED_THRESHOLDS, best_threshold, run_baseline
from bert_genres.data import binarize, corpus_checksum, corpus_name, label_names, load_corpus, split_corpus
from bert_genres.embeddings import BertEncoder
from bert_genres.evaluation import evaluate
from bert_genres.files import InputError
from bert_genres.recipes import fit_names
from bert_genres.results import record
from bert_genres.vectors import encode_cached

PACKAGES = ("tensorflow", "openvino", "numpy", "scikit-learn")


def zero_shot(films, part, classes, Y_validation):
    "Cosines of the test rows' vectors with those of the labels' names, decisions, and seconds of training."
    encoder = BertEncoder(layer=-1)
    names = fit_names(encoder.encode(classes), encode_cached(encoder, list(films["plot"][part == "train"])))
    validation, test = (names.cosines(encode_cached(encoder, list(films["plot"][part == p]))).clip(0, 1)
                        for p in ("validation", "test"))
    return test, test >= best_threshold(Y_validation, validation)[0], 0.


def systems(films, part, classes):
    "Yield name, scores and decisions, [test rows, labels], and seconds of training."
    for name in BASELINES:
        run = run_baseline(name, films, part)
        yield name, run["scores_test"], run["named_test"], run["seconds"]
        if name in PUBLISHED_THRESHOLDS:
            cut = best_threshold(run["Y_validation"], run["scores_validation"])[0]
            yield name.replace("cut 0.3", "tuned cut"), run["scores_test"], run["scores_test"] >= cut, run["seconds"]
    yield "zero-shot", *zero_shot(films, part, classes, run["Y_validation"])


def main(corpus="sample"):
    films = load_corpus(corpus)
    part = split_corpus(films, corpus=corpus)
    genres, classes = films.genres[part == "test"], label_names(films.genres[part == "train"])
    support = binarize(films.genres[part == "train"], classes)[0].sum(0)
    origin = {"kind": "baseline", "split": "stratified", "corpus": corpus_name(corpus), "checksum": corpus_checksum(films),
              "seed": 0, "versions": {"bert_genres": bert_genres.__version__} | {p: version(p) for p in PACKAGES}}
    for name, scores, named, seconds in systems(films, part, classes):
        metrics = evaluate(genres, np.float32(scores), named, classes, support=support, n_train=int((part == "train").sum()))
        path = record(origin | {"recipe": name, "seconds": round(seconds, 1), "metrics": metrics})
        print(f"{path}: micro-F1 {metrics['micro_f1']:.3f}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except InputError as e:
        sys.exit(print(f"baselines: {e}", file=sys.stderr) or 2)
