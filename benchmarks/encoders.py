"""What an encoder's vectors know of the labels: each layer and pooling of each model, read by a linear model. Validation rows.
`python benchmarks/encoders.py CORPUS MODEL...`; written to results/<corpus>-<checksum8>-encoders.json after each model. Other
models that are there already stay."""
import json
import sys
import time
from pathlib import Path

import numpy as np
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from bert_genres.data import binarize, corpus_checksum, corpus_name, label_names, load_corpus, split_corpus
from bert_genres.embeddings import BertEncoder, pool
from bert_genres.evaluation import average_precision, f1_scores
from bert_genres.experiments import decide_crosswise
from bert_genres.files import InputError, progress
from bert_genres.results import hardware, write_metrics

WAYS = ("mean", "max", "cls")


def vectors_of_all_layers(encoder, texts):
    "float32 [layers, poolings, texts, hidden], first layer first, in one pass."
    depth, d = encoder.checkpoint.config["num_hidden_layers"], encoder.checkpoint.config["hidden_size"]
    out = np.zeros((depth, len(WAYS), len(texts), d), np.float32)
    with progress(len(texts), "encoding") as bar:
        for rows, states in encoder.replace(layer=tuple(range(-depth, 0)), pooling="none").vectors(texts, bar):
            real = states.any(axis=2)
            for layer in range(depth):
                for way, how in enumerate(WAYS):
                    out[layer, way, rows] = pool(states[..., layer * d:(layer + 1) * d], real, how)
    return out


def scores(vectors, Y, missed, learn):
    "Of ridge regression fitted on the rows `learn`, its penalty chosen among them, on the others, whose halves cut each other."
    model = make_pipeline(StandardScaler(), RidgeCV([100, 1000, 10_000])).fit(vectors[learn], Y[learn].astype(np.float32))
    guess, truth = model.predict(vectors[~learn]), Y[~learn]
    f1 = f1_scores(truth, decide_crosswise(truth, guess), missed=missed[~learn])
    return {name: float(f1[name]) for name in ("micro_f1", "macro_f1")} | {"micro_ap": average_precision(truth, guess)}


def main(corpus, *models):
    films = load_corpus(corpus)
    part = split_corpus(films, corpus=corpus)
    path = Path("results") / f"{corpus_name(corpus)}-{corpus_checksum(films)[:8]}-encoders.json"
    films, part = films[part != "test"], part[part != "test"]
    learn = part == "train"
    Y, unknown = binarize(films.genres, label_names(films.genres[learn]))
    missed = np.array([len(labels) for labels in unknown])
    done = json.loads(path.read_text()) if path.exists() else {
        "corpus": corpus_name(corpus), "train": int(learn.sum()), "validation": int((~learn).sum()), "models": {}}
    for name in models:
        encoder, began = BertEncoder(name), time.monotonic()
        vectors = vectors_of_all_layers(encoder, list(films["plot"]))
        seconds = time.monotonic() - began
        table = [{"layer": layer + 1, "pooling": how} | scores(vectors[layer, way], Y, missed, learn)
                 for layer in range(len(vectors)) for way, how in enumerate(WAYS)]
        done["models"][encoder.model] = {"precision": encoder.precision, "seconds": round(seconds), "hardware": hardware(),
                                         "scores": table}
        write_metrics(path, done)
        best = max(table, key=lambda row: row["micro_f1"])
        print(f"{path.name}: {encoder.model}, {seconds:.0f} s; best {best}")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except InputError as e:
        sys.exit(print(f"encoders: {e}", file=sys.stderr) or 2)
