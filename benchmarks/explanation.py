"""Do explanations name what matters? The deletion test on 500 validation plots of four sentences or more: the
bundle of recipe frozen explains, it and the article's recipe judge; both are trained on the training rows. Written to
results/<corpus>-<checksum8>-explanation.json; intervals are 95 %, from 1,000 resamples of the plots.
"""
import sys
from pathlib import Path

import numpy as np
from scipy.special import logit

from bert_genres.data import corpus_checksum, corpus_name, load_corpus, split_corpus
from bert_genres.evaluation import interval, resample
from bert_genres.explanation import split_sentences
from bert_genres.files import InputError, progress
from bert_genres.model import load_bundle
from bert_genres.results import hardware, write_metrics

PLOTS, REMOVED, SEED = 500, 2, 0


def deletion_test(bundle, texts, judges):
    """Return what the likeliest label's logit loses for each of the judges (bundles with the same labels) when the sentences
    go that `bundle` names, and when random ones go: float [judges, n, 2]. The texts have more than `REMOVED` sentences."""
    rng, variants, label = np.random.default_rng(SEED), [], []
    with progress(len(texts), "explaining") as bar:
        for text in texts:
            parts = split_sentences(text)
            cut = lambda gone, parts=parts: "".join(part for k, part in enumerate(parts) if k not in gone)
            probs = bundle.predict_proba([text, *(cut([k]) for k in range(len(parts)))])
            label.append(probs[0].argmax())
            first = np.argsort(probs[1:, label[-1]], kind="stable")[:REMOVED]
            variants += [text, cut(first), cut(rng.choice(len(parts), REMOVED, replace=False))]
            bar.update()
    losses = []
    for judge in judges:
        p = judge.predict_proba(variants)[np.arange(len(variants)), np.repeat(label, 3)].reshape(-1, 3)
        x = logit(np.clip(p, 1e-7, 1 - 1e-7))
        losses.append(x[:, :1] - x[:, 1:])
    return np.array(losses)


def main(corpus, places):
    films = load_corpus(corpus)
    valid = films[split_corpus(films, corpus=corpus) == "validation"]
    bundles = {name: load_bundle(folder) for name, folder in places.items()}
    for name, bundle in bundles.items():
        if set(valid.movie_id) & set(bundle.rows["train"]) or bundle.info["checksum"] != corpus_checksum(films):
            raise InputError(f"{places[name]}: was not trained on this corpus's training rows")
    rng = np.random.default_rng(SEED)
    plots = [valid["plot"].iloc[i] for i in rng.permutation(len(valid))]
    texts = [plot for plot in plots if len(split_sentences(plot)) >= 2 * REMOVED][:PLOTS]
    losses = deletion_test(bundles["frozen"], texts, list(bundles.values()))
    weights, out = resample(losses.shape[1], seed=SEED), {}
    for name, loss in zip(bundles, losses, strict=True):
        more = loss[:, 0] - loss[:, 1]
        out[name] = {"named": round(float(loss[:, 0].mean()), 4), "random": round(float(loss[:, 1].mean()), 4),
                     "difference": round(float(more.mean()), 4), "difference_ci95": interval(weights @ more / len(more))}
        print(name, out[name])
    checksum = corpus_checksum(films)
    write_metrics(Path("results") / f"{corpus_name(corpus)}-{checksum[:8]}-explanation.json", {
        "corpus": corpus_name(corpus), "checksum": checksum, "hardware": hardware(), "rows": "validation", "seed": SEED,
        "n": len(texts), "removed": REMOVED, "loss of the likeliest label's logit": out})


if __name__ == "__main__":
    try:
        main(sys.argv[1], {"frozen": Path(sys.argv[2]), "article": Path(sys.argv[3])})
    except IndexError:
        sys.exit(print("usage: explanation.py CORPUS FROZEN_BUNDLE ARTICLE_BUNDLE", file=sys.stderr) or 2)
    except InputError as e:
        sys.exit(print(f"explanation: {e}", file=sys.stderr) or 2)
