"""What each part of recipe `frozen` is worth on a corpus: validation rows, three seeds; test rows are not touched.

Parts are left out, swapped for what else was tried, or added. Written to results/<corpus>-<checksum8>-ablation.json after
each seed; a seed that is there already, from this corpus and code, is not computed again.
"""
import hashlib
import json
import sys
from pathlib import Path

import numpy as np
from scipy.special import expit

from bert_genres import recipes
from bert_genres.baselines import BASELINES, best_threshold
from bert_genres.data import binarize, corpus_checksum, corpus_name, label_names, load_corpus, split_corpus, stratify
from bert_genres.embeddings import BertEncoder
from bert_genres.evaluation import average_precision, calibration_error, f1_scores, paired_difference
from bert_genres.files import InputError, code_digest
from bert_genres.results import hardware, write_metrics
from bert_genres.runtimes import import_tensorflow
from bert_genres.splits import near_duplicates

SEEDS, FULL = (0, 1, 2), "all, one threshold"


def focal(labels, logits, gamma=2.):
    "The article's loss, in place of cross-entropy: (1 - p_t)^gamma times it (Lin and others, 2017)."
    tf = import_tensorflow()
    p = tf.sigmoid(logits)
    wrong = labels * (1 - p) + (1 - labels) * p
    plain = tf.maximum(logits, 0) - logits * labels + tf.math.softplus(-tf.abs(logits))
    return wrong ** gamma * plain


class Parts:
    "What does not depend on the seed: kernels, names, neighbours and linear logits, for held-out training and validation rows."
    def __init__(self, train, valid, Y, mean, d):
        n, texts = len(train), list(train["plot"])
        words, W = recipes.fit_words(texts)
        self.W, W_valid, groups = W, words.transform(list(valid["plot"])), near_duplicates(train)       # the column group
        self.prior, self.extra, self.kernels = Y.mean(0, dtype=np.float32), {}, {}
        for name, (w, v) in {"both": (1, 1), "words": (1, 0), "vectors": (0, 1)}.items():
            kernel, held = recipes.fit_kernel(W * w, mean[:n, d:] * v, Y, groups)
            self.kernels[name] = held, kernel.scores(W_valid * w, mean[n:, d:] * v)
        self.W_valid = W_valid
        encoder = recipes._reading(BertEncoder())
        names = recipes.fit_names(encoder.encode(label_names(train.genres))[:, :d], mean[:n, :d])
        self.names = names.scores(mean[:n, :d]), names.scores(mean[n:, :d])
        fold = stratify(train, [.2] * 5, 0)
        for name in ("nearest neighbours", "TF-IDF 1-2-grams, logistic regression"):
            held = np.zeros(Y.shape, np.float32)
            for k in range(5):
                held[fold == k] = BASELINES[name](list(train["plot"][fold != k]), Y[fold != k], 0)(list(train["plot"][fold == k]))
            p = held, BASELINES[name](texts, Y, 0)(list(valid["plot"]))
            self.extra[name] = [np.log(np.clip(x, 1e-4, 1)) for x in p]


def networks(states, lengths, topics, Y, train, seed, columns):
    "Held-out logits [layers, n, labels], and those of the remaining rows, by each network [layers, folds, rest, labels]."
    n, d = len(train), states.shape[2] // 3
    some = states[..., :columns * d]
    queries, heads, held = recipes.fit_networks(some[:n], lengths[:n], topics[:n], Y, train, seed)
    rest, each = np.arange(n, len(lengths)), []
    for k, head in enumerate(heads):
        layer = k // recipes.FOLDS
        here = slice((1 + layer) * d, (2 + layer) * d)
        q = np.concatenate([np.zeros((1, d), np.float32), queries[1 + 8 * k:9 + 8 * k, here]])
        each.append(head.logits(recipes._inputs(states[..., here], lengths, topics, rest, q)))
    return held, np.stack(each).reshape(len(held), recipes.FOLDS, len(rest), -1)


def variants(parts, nets, focal_nets, Y):
    "Name -> probabilities of held-out training rows and of validation rows."
    (held, each), focal_nets = nets, (focal_nets[0].mean(0), focal_nets[1].mean((0, 1)))
    net, kernel, none = [held.mean(0), each.mean((0, 1))], parts.kernels["both"], [x * 0 for x in parts.names]

    def stack(net, kernel, names, extra=None):
        F = [recipes.stack_features(a, b, c, parts.prior) for a, b, c in zip(net, kernel, names, strict=True)]
        if extra is not None:
            F = [np.concatenate([f, x[..., None]], axis=-1) for f, x in zip(F, extra, strict=True)]
        w = recipes.fit_stack(F[0], Y)
        return [expit(f @ w[:-1] + w[-1]) for f in F]

    yield FULL, stack(net, kernel, parts.names)
    yield "networks alone", net
    yield "kernel alone", kernel
    yield "names alone", parts.names
    yield "without networks", stack(none, kernel, parts.names)
    yield "without kernel", stack(net, none, parts.names)
    yield "without names", stack(net, kernel, none)
    for k in range(recipes.FOLDS):       # as the stack has seen a row: by two networks, here each a fold further
        yield f"two of the ten networks, {k + 1}", stack([net[0], (each[0, k] + each[1, k - 1]) / 2], kernel, parts.names)
    yield "networks on layer -2 alone", stack([held[0], each[0].mean(0)], kernel, parts.names)
    yield "the same, trained by focal loss", stack(focal_nets, kernel, parts.names)
    for name in ("words", "vectors"):
        yield f"all, with a kernel of {name} only", stack(net, parts.kernels[name], parts.names)
    for name, extra in parts.extra.items():
        yield f"and {name}", stack(net, kernel, parts.names, extra)


def scores(truth, missed, systems):
    "Validation scores of each system (probabilities, named), and the paired difference to the full one."
    full = systems[FULL][1]
    for name, (p, named) in systems.items():
        row = f1_scores(truth, named, missed=missed) | {"micro_ap": average_precision(truth, p),
                                                        "calibration_error": calibration_error(truth, p)}
        if name != FULL:
            row["against_full"] = paired_difference(truth, named, full, missed)
        yield name, row


def main(corpus):
    films = load_corpus(corpus)
    part = split_corpus(films, corpus=corpus)
    train, valid = (films[part == p].reset_index(drop=True) for p in ("train", "validation"))
    train["group"] = near_duplicates(train)
    classes = label_names(train.genres)
    Y, (truth, unknown) = binarize(train.genres, classes)[0], binarize(valid.genres, classes)
    missed = np.array([len(genres) for genres in unknown])
    path = Path("results") / f"{corpus_name(corpus)}-{corpus_checksum(films)[:8]}-ablation.json"
    code = hashlib.sha256(code_digest("recipes").encode() + Path(__file__).read_bytes()).hexdigest()
    done = json.loads(path.read_text()) if path.exists() else {}
    done = done if done.get("code") == code else {"corpus": corpus_name(corpus), "checksum": corpus_checksum(films),
                                                  "code": code, "hardware": hardware(), "rows": "validation",
                                                  "n": len(valid), "seeds": {}}
    with recipes.token_states(recipes._reading(BertEncoder()), [*train["plot"], *valid["plot"]]) as (states, lengths):
        mean = np.stack([states[i, :m].mean(0, dtype=np.float32) for i, m in enumerate(lengths)])
        parts = Parts(train, valid, Y, mean, mean.shape[1] // 3)
        for seed in [s for s in SEEDS if str(s) not in done["seeds"]]:
            topics = [w @ recipes.fit_topics(parts.W, seed).astype(np.float32) for w in (parts.W, parts.W_valid)]
            topics = np.concatenate(topics)
            nets = networks(states, lengths, topics, Y, train, seed, 3)
            tf, layers, plain = import_tensorflow(), recipes.LAYERS, import_tensorflow().nn.sigmoid_cross_entropy_with_logits
            try:
                tf.nn.sigmoid_cross_entropy_with_logits, recipes.LAYERS = focal, layers[:2]
                focal_nets = networks(states, lengths, topics, Y, train, seed, 2)
            finally:
                tf.nn.sigmoid_cross_entropy_with_logits, recipes.LAYERS = plain, layers
            systems = {name: (p, p >= best_threshold(Y, held)[0]) for name, (held, p) in variants(parts, nets, focal_nets, Y)}
            held, p = next(pair for name, pair in variants(parts, nets, focal_nets, Y) if name == FULL)
            thresholds, power = recipes.choose_thresholds(Y, held, parts.prior, stratify(train, [.2] * 5, seed))
            systems["all, thresholds by share: frozen"] = p, p >= thresholds
            for recipe in ("article", "article-longer"):
                bundle = recipes.fit_recipe(recipe, films, part, seed, corpus=corpus)
                probs = bundle.predict_proba(list(valid["plot"]))
                systems[recipe] = probs, bundle.decide(probs)
            done["seeds"][str(seed)] = {"power": power, "systems": dict(scores(truth, missed, systems))}
            write_metrics(path, done)


if __name__ == "__main__":
    try:
        main(sys.argv[1] if len(sys.argv) > 1 else "sample")
    except InputError as e:
        sys.exit(print(f"ablation: {e}", file=sys.stderr) or 2)
