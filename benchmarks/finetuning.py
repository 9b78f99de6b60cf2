"""What training the encoder is worth on a corpus: ways to train it, and linear, frozen and finetuned on few films.

Everything is scored on the corpus's validation rows; test rows are not touched. In the comparison of ways these rows have also
chosen the epoch, which flatters all ways alike; weights and thresholds come from the other half of the rows. On few films frozen
and finetuned choose everything within them; the linear machine, which has no threshold of its own, gets the other half's.
Written to results/<corpus>-<checksum8>-finetuning.json after each run: a run that is there is not made again, and one that was
interrupted goes on where it was.
"""
import json
import sys
from pathlib import Path

import numpy as np
from scipy.special import expit

from bert_genres.baselines import BASELINES
from bert_genres.data import binarize, corpus_checksum, corpus_name, load_corpus, split_all_rows, split_corpus
from bert_genres.evaluation import f1_scores, paired_difference
from bert_genres.experiments import decide_crosswise
from bert_genres.files import InputError
from bert_genres.finetuning import fit_finetuned
from bert_genres.recipes import fit_frozen, fit_stack
from bert_genres.results import hardware, write_metrics

FIRST = {"from_frozen": True, "epochs": 3, "rate": 2e-4, "head_rate": 3e-4}    # where the recipe began
WAYS = {"all weights": {}, "from frozen's network": FIRST, "the same, adapters": FIRST | {"adapters": 64, "rate": 1e-3},
        "the same, labels alone": FIRST | {"teacher": 0}}
SIZES, SEEDS = (1000, 3000), (0, 1, 2)


def scores(truth, probs, than=None):
    "Of probabilities, each half decided by the other's threshold; and the paired difference to others of the same rows."
    named = decide_crosswise(truth, probs)
    found = {k: v for k, v in f1_scores(truth, named).items() if k in ("micro_f1", "macro_f1")}
    if than is not None:
        found["difference"] = paired_difference(truth, named, decide_crosswise(truth, than))["micro_f1"]
    return found


def weigh_crosswise(truth, logits):
    "Even rows weighed by what the odd ones chose, and the other way round, as `decide_crosswise` decides."
    probs = np.zeros(truth.shape)
    for half in (0, 1):
        *weights, intercept = fit_stack(logits[1 - half::2], truth[1 - half::2])
        probs[half::2] = expit(logits[half::2] @ np.array(weights) + intercept)
    return probs


def run_way(films, part, corpus, settings):
    "One full training, on all training rows; the validation rows have also chosen its epoch."
    bundle, held = fit_finetuned(films, part, 0, corpus=corpus, **settings)
    truth, before = held["Y"], expit(held["frozen"])
    both = weigh_crosswise(truth, np.stack([held["tuned"], held["frozen"]], -1))
    return {"training_seconds": bundle.info["training_seconds"], "epochs": held["scores"],
            "weights": bundle.head.weights.tolist(), "frozen": scores(truth, before),
            "encoder alone": scores(truth, expit(held["tuned"]), before), "finetuned": scores(truth, both, before)}


def run_few(train, valid, corpus, n, seed):
    "Three systems on `n` training rows, scored on all validation rows; labels that the n rows lack count as missed."
    few = train.iloc[np.random.default_rng(seed).permutation(len(train))[:n]].reset_index(drop=True)
    part, texts, plots = split_all_rows(few, seed), list(few["plot"]), list(valid["plot"])
    frozen, _ = fit_frozen(few, part, seed, corpus=corpus)
    tuned, _ = fit_finetuned(few, part, seed, corpus=corpus, **FIRST)
    out = {}
    for name, bundle in {"frozen": frozen, "from frozen's network": tuned}.items():
        truth, unknown = binarize(valid.genres, bundle.classes_)
        out[name] = f1_scores(truth, bundle.predict(plots), missed=np.array([len(u) for u in unknown]))
    truth, unknown = binarize(valid.genres, frozen.classes_)
    linear = BASELINES["linear SVM"](texts, binarize(few.genres, frozen.classes_)[0], seed)(plots)
    out["linear SVM"] = f1_scores(truth, decide_crosswise(truth, linear), missed=np.array([len(u) for u in unknown]))
    return out


def main(corpus):
    films = load_corpus(corpus)
    part = split_corpus(films, corpus=corpus)
    train, valid = (films[part == name].reset_index(drop=True) for name in ("train", "validation"))
    path = Path("results") / f"{corpus_name(corpus)}-{corpus_checksum(films)[:8]}-finetuning.json"
    done = json.loads(path.read_text()) if path.exists() else {
        "corpus": corpus_name(corpus), "checksum": corpus_checksum(films), "rows": "validation", "n": len(valid),
        "ways": {}, "few": {}}
    for way, settings in WAYS.items():
        if way not in done["ways"]:
            done["ways"][way] = {"settings": settings, "hardware": hardware()} | run_way(films, part, corpus, settings)
            write_metrics(path, done)
    for n, seed in [(n, seed) for n in SIZES if n < len(train) for seed in SEEDS]:
        runs = done["few"].setdefault(str(n), {})
        if str(seed) not in runs:
            runs[str(seed)] = {"hardware": hardware()} | run_few(train, valid, corpus, n, seed)
            write_metrics(path, done)


if __name__ == "__main__":
    try:
        main(sys.argv[1] if len(sys.argv) > 1 else "sample")
    except InputError as e:
        sys.exit(print(f"finetuning: {e}", file=sys.stderr) or 2)
    except KeyboardInterrupt:
        sys.exit(print("finetuning: interrupted; the same call goes on here", file=sys.stderr) or 130)
