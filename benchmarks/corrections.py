"""What corrections by co-occurrence are worth, and fewer labels: chosen on held-out training rows, judged on validation rows,
three seeds. Test rows are not touched. Written to results/<corpus>-<checksum8>-corrections.json after each seed; a seed
that is there already, from this corpus and code, is not computed again. `--labels ARCHIVE` writes merged-labels.csv, the
proposal of labels to merge.
"""
import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import rules
from corpus import metadata
from scipy.special import expit, logit

from bert_genres.baselines import best_threshold
from bert_genres.cooccurrence import article_rules, close_rules, implications
from bert_genres.data import (
    binarize,
    corpus_checksum,
    corpus_name,
    label_names,
    load_corpus,
    read_metadata,
    split_corpus,
    stratify,
)
from bert_genres.embeddings import BertEncoder
from bert_genres.evaluation import f1_scores, paired_difference, support_groups
from bert_genres.files import InputError, atomic_path, code_digest
from bert_genres.model import apply_rules, fit_head, load_bundle
from bert_genres.results import hardware, write_metrics
from bert_genres.vectors import encode_cached

SEEDS = (0, 1, 2)
GLOBAL, OWN = "one threshold", "thresholds per genre"


def article_logits(V, Y, fold, V_valid, seed):
    "The article's head: logits of training rows, each by a head fitted without their fold, and of validation rows."
    held = np.zeros(Y.shape, np.float32)
    for k in range(5):
        held[fold == k] = fit_head(V[fold != k], Y[fold != k], seed=seed)[0].logits(V[fold == k])
    return held, fit_head(V, Y, seed=seed)[0].logits(V_valid)


def thresholds_per_label(Y, scores):
    """The threshold of each label with which all together have the highest micro-F1 on these rows. At the optimum F each
    label's own maximises 2 tp - F named (Dinkelbach, 1967), so F and thresholds are found in turn; a label without a gain
    keeps the best one for all."""
    best, f1 = best_threshold(Y, scores)
    order = np.argsort(-scores, axis=0, kind="stable")
    ranked = np.take_along_axis(scores, order, 0)
    tp = np.vstack([np.zeros(Y.shape[1]), np.cumsum(np.take_along_axis(Y, order, 0), 0)])
    cuts = np.vstack([ranked[:1] + 1, (ranked[1:] + ranked[:-1]) / 2, ranked[-1:] - 1])
    n, labels = np.arange(len(tp))[:, None], np.arange(Y.shape[1])
    shared = (scores >= best).sum(0)
    for _ in range(20):
        worth = 2 * tp - f1 * n
        k = worth.argmax(0)
        k = np.where(worth[k, labels] > worth[shared, labels], k, shared)
        f1 = 2 * tp[k, labels].sum() / (Y.sum() + k.sum())
    return np.where(k == shared, best, cuts[k, labels])


def logistic(features, Y, steps=10):
    "Weights of a logistic regression over all cells, the features float [n, labels, m], by Newton's method."
    X, y = features.reshape(-1, features.shape[-1]), Y.ravel()
    w = np.zeros(X.shape[1])
    for _ in range(steps):
        p = expit(X @ w)
        w -= np.linalg.solve((X * (p * (1 - p)).astype(np.float32)[:, None]).T @ X + 1e-3 * np.eye(len(w)), X.T @ (p - y))
    return w


def graph_features(logits, Y, calibration):
    "float32 [n, labels, 5]: 1, the own logit, the label's prior, and what the others' probabilities lead one to expect, twice."
    prior, together = Y.mean(0), Y.T.astype(np.float32) @ Y.astype(np.float32)
    P = (together + 5 * prior) / (together.diagonal()[:, None] + 5)              # P(b|a), shrunk to P(b) by five films
    expected, lift = P - prior, np.clip(np.log(P / prior), -3, 3)
    for M in (expected, lift):
        np.fill_diagonal(M, 0)
    p = expit(calibration[1] * logits + calibration[0]).astype(np.float32)
    ones = np.ones_like(logits)
    return np.stack([ones, logits, ones * logit(prior), p @ expected, p @ lift], axis=-1, dtype=np.float32)


def ridge(X, X_new, Y, penalty):
    "Scores of ridge regression of all labels on all columns: of each row without itself (exactly), and of new rows."
    mean, spread, prior = X.mean(0), X.std(0), Y.mean(0)
    A, B = (X - mean) / spread, (X_new - mean) / spread
    G = np.linalg.inv(A.T @ A + penalty * np.eye(A.shape[1]))
    W = G @ A.T @ (Y - prior)
    leverage = np.einsum("ij,jk,ik->i", A, G, A)
    return Y - (Y - prior - A @ W) / (1 - leverage)[:, None], prior + B @ W


def best_of(pairs, Y):
    "Of (held-out scores, validation scores), the pair whose held-out scores reach the highest micro-F1."
    return max(pairs, key=lambda pair: best_threshold(Y, pair[0])[1])


def softer(held, valid, Y):
    "Name -> scores of held-out training rows and of validation rows."
    first = [np.stack([np.ones_like(held), held], axis=-1)]
    calibration = logistic(first[0], Y)
    F, F_valid = (graph_features(z, Y, calibration) for z in (held, valid))
    yield "logits smoothed along the label graph", best_of([(held + s * F[..., 3], valid + s * F_valid[..., 3])
                                                            for s in (0, .05, .1, .2, .4)], Y)
    own = "logistic regression: own logit, prior"
    for name, used in {own: [0, 1, 2], f"{own}, two expectations from the label graph": slice(None)}.items():
        w = logistic(F[..., used], Y)
        yield name, (F[..., used] @ w, F_valid[..., used] @ w)
    yield "ridge regression on all probabilities", best_of([ridge(expit(held), expit(valid), Y, penalty)
                                                            for penalty in (100, 1000, 10000)], Y)


def systems(held, valid, Y):
    "Name -> decisions on validation rows, all chosen on held-out training rows."
    table = implications(Y, range(Y.shape[1]))
    sure = table[table.lower > .9][["a", "b"]].to_numpy(dtype=int)
    cut = best_threshold(Y, held)[0]
    named = {GLOBAL: (held >= cut, valid >= cut)}
    cuts = thresholds_per_label(Y, held)
    named[OWN] = held >= cuts, valid >= cuts
    at = logit(.2)
    yield "0.20", valid >= at
    yield "0.20, the article's rules", apply_rules(valid >= at, article_rules(Y))
    for name, (on_held, on_valid) in named.items():
        yield name, on_valid
        yield f"{name}, the article's rules", apply_rules(on_valid, article_rules(Y))
        yield f"{name}, those with a lower bound above 0.9", apply_rules(on_valid, close_rules(sure, Y.shape[1]))
        for z in (1., 1.96, 3.):
            yield f"{name}, rules by effect, z = {z:g}", rules.turn(on_valid, *rules.rules_by_effect(on_held, Y, z))
    for name, (h, v) in softer(held, valid, Y):
        yield f"{name}; {GLOBAL}", v >= best_threshold(Y, h)[0]
        yield f"{name}; {OWN}", v >= thresholds_per_label(Y, h)


def scores(truth, missed, decided):
    "Validation scores of each system, and the paired differences to the same head's thresholds."
    out = {}
    for name, named in decided.items():
        out[name] = f1_scores(truth, named, missed=missed)
        out[name]["against"] = {other: {k: v for k, v in paired_difference(truth, named, decided[other], missed).items()
                                        if k != "samples_f1"} for other in (GLOBAL, OWN) if other != name}
    return out


def rule_outcomes(named, Y, fold):
    "What the article's rules, counted on four folds, do to the held-out decisions of the fifth: sums over the folds."
    half, total = f1_scores(Y, named)["micro_f1"] / 2, np.zeros(5, dtype=int)
    for k in range(5):
        pairs = article_rules(Y[fold != k])
        fired, right = (x[tuple(pairs.T)] for x in rules.outcomes(named[fold == k], Y[fold == k]))
        total += len(pairs), (fired > 0).sum(), (right > fired * half).sum(), fired.sum(), right.sum()
    return dict(zip(("rules", "fire", "pay", "cells", "right"), total.tolist(), strict=True)) | {"half_f1": half}


def reduced_scores(V, train, V_valid, valid, full, merges, seed):
    "The article's head at 0.20, trained on all labels and on the reduced ones, judged on both."
    classes = label_names(train.genres)
    few_train, few_valid = (rules.reduce_genres(g, merges) for g in (train.genres, valid.genres))
    few = label_names(few_train)
    head, _ = fit_head(V, binarize(few_train, few)[0], seed=seed)
    names = lambda named, labels: [[labels[j] for j in np.flatnonzero(row)] for row in named]
    decided = {"all labels": names(full >= logit(.2), classes), "reduced": names(head.logits(V_valid) >= logit(.2), few)}
    out = {}
    for trained, said in decided.items():
        there = said if trained == "reduced" else rules.reduce_genres(said, merges)
        back = said if trained == "all labels" else rules.restore_genres(said, merges)
        out[trained] = {"judged on all labels": judged(valid.genres, back, train.genres, classes),
                        "judged on the reduced": judged(few_valid, there, few_train, few)}
    return out


def judged(genres, said, train_genres, classes):
    truth, unknown = binarize(genres, classes)
    named, support = binarize(said, classes)[0], binarize(train_genres, classes)[0].sum(0)
    tail = support_groups(support).get("tail", np.zeros(len(classes), bool))
    return f1_scores(truth, named, missed=np.array([len(u) for u in unknown])) | {
        "tail_macro_f1": f1_scores(truth[:, tail], named[:, tail])["macro_f1"], "n_labels": len(classes)}


def frozen_logits(place, valid):
    "Held-out and validation logits of recipe `frozen` from what `make reproduce` left, or None."
    if not (place / "held-out.npz").exists() or not (place / "frozen").exists():
        return None
    p = np.load(place / "held-out.npz")["probs"], load_bundle(place / "frozen").predict_proba(list(valid["plot"]))
    return [logit(np.clip(x, 1e-7, 1 - 1e-7)) for x in p]


def write_labels(archive):
    "Write the proposal: from the genres of the metadata's films that have no plot in this archive."
    films = read_metadata(metadata(archive))
    genres = [g for g in films.genres[~films.movie_id.isin(load_corpus(archive).movie_id)] if g]
    classes = label_names(genres)
    with atomic_path(rules.MERGES) as path:
        rules.propose_merges(binarize(genres, classes)[0], classes).round(4).to_csv(path, index=False)


def main(corpus):
    films = load_corpus(corpus)
    part = split_corpus(films, corpus=corpus)
    train, valid = (films[part == p].reset_index(drop=True) for p in ("train", "validation"))
    classes, merges = label_names(train.genres), pd.read_csv(rules.MERGES)
    Y, (truth, unknown) = binarize(train.genres, classes)[0], binarize(valid.genres, classes)
    missed = np.array([len(genres) for genres in unknown])
    path = Path("results") / f"{corpus_name(corpus)}-{corpus_checksum(films)[:8]}-corrections.json"
    own = b"".join(Path(name).read_bytes() for name in (__file__, rules.__file__, rules.MERGES))
    code = hashlib.sha256(code_digest("recipes").encode() + own).hexdigest()
    done = json.loads(path.read_text()) if path.exists() else {}
    done = done if done.get("code") == code else {
        "corpus": corpus_name(corpus), "checksum": corpus_checksum(films), "code": code, "hardware": hardware(),
        "rows": "validation", "n": len(valid), "n_labels": len(classes),
        "n_reduced": len(label_names(rules.reduce_genres(train.genres, merges))), "seeds": {}}
    V, V_valid = (encode_cached(BertEncoder(), list(rows["plot"])) for rows in (train, valid))
    frozen = frozen_logits(Path("reports") / corpus_name(corpus), valid)
    for seed in [s for s in SEEDS if str(s) not in done["seeds"]]:
        fold = stratify(train, [.2] * 5, seed)
        held, new = article_logits(V, Y, fold, V_valid, seed)
        decided = {"article": dict(systems(held, new, Y))}
        if frozen and not seed:     # there is one of it
            decided["frozen"] = dict(systems(*frozen, Y))
        done["seeds"][str(seed)] = {
            "systems": {head: scores(truth, missed, by_name) for head, by_name in decided.items()},
            "article_rules": rule_outcomes(held >= logit(.2), Y, fold),
            "reduced": reduced_scores(V, train, V_valid, valid, new, merges, seed)}
        write_metrics(path, done)


if __name__ == "__main__":
    try:
        write_labels(sys.argv[2]) if sys.argv[1:2] == ["--labels"] else main(sys.argv[1] if len(sys.argv) > 1 else "sample")
    except InputError as e:
        sys.exit(print(f"corrections: {e}", file=sys.stderr) or 2)
