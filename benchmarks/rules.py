"""What corrections.py tries that no recipe has: rules chosen by their effect, and fewer labels.

Rules are bool [labels, labels] matrices, at [a, b]: whether the rule turns b on, or off, where a is named.
`merged-labels.csv` is the proposal of labels to merge, made by `propose_merges`; it can be edited.
"""
import re
from pathlib import Path

import numpy as np
import pandas as pd

from bert_genres.cooccurrence import implications, wilson

MERGES = Path(__file__).with_name("merged-labels.csv")
FILLERS = {"film", "films", "movie", "movies", "fiction", "cinema", "picture", "feature"}
SPELLINGS = {"sci fi": "science", "thrillers": "thriller", "romantic": "romance", "comdedy": "comedy",
             "biopic": "biographical", "pornographic": "pornography"}


def outcomes(named, truth, on=True):
    """Return, at [a, b], on how many films a rule turns b on (with `on` False: off), and on how many of them b is true.

    `named` and `truth` are bool [n, labels]."""
    a, cells = named.T.astype(np.float32), ~named if on else named
    return [(a @ x.astype(np.float32)).astype(int) for x in (cells, cells & truth)]


def rules_by_effect(named, truth, z=1.96):
    """Return the rules that turn on and those that turn off, chosen by what they do to micro-F1 on held-out decisions.

    The Wilson interval of a rule's share of right cells lies on the paying side of F1/2. No a of one rule is a b of
    another, so no order matters: each label has the role in which its rules gain more."""
    f1 = 2 * (named & truth).sum() / max(named.sum() + truth.sum(), 1)
    fired, right = outcomes(named, truth)
    dropped, lost = outcomes(named, truth, on=False)
    different = ~np.eye(named.shape[1], dtype=bool)
    on = different & (fired > 0) & (wilson(right, fired, z)[0] > f1 / 2)
    off = different & (dropped > 0) & (wilson(lost, dropped, z)[1] < f1 / 2)
    gain = on * (2 * right - f1 * fired) + off * (f1 * dropped - 2 * lost)
    target = np.round(gain.sum(0) - gain.sum(1), 6) >= 0
    return on & target & ~target[:, None], off & target & ~target[:, None]


def turn(named, on, off):
    "Return the decisions after all rules at once; off has the last word."
    reached = lambda rules: named.astype(np.float32) @ rules.astype(np.float32) > 0
    return (named | reached(on)) & ~reached(off)


def words(label):
    "Return the words of a label as a frozenset, in one spelling and without those that say nothing."
    text = " ".join(re.findall(r"[\w']+", label.lower()))
    for spelling, word in SPELLINGS.items():
        text = re.sub(rf"\b{spelling}\b", word, text)
    return frozenset(text.split()) - FILLERS or frozenset([label])


def propose_merges(Y, classes, at_least=2 / 3):
    """Return a table of labels that others can stand for: label, kind, into (labels, joined by |), films, lower, back.

    A synonym has the same words as a more frequent label. A composite has the words of several labels, a kind those of
    one, and implies them, with lower bounds above `at_least`. `back` is the share of the films with all of `into` that
    have the label."""
    sure = implications(Y, classes).set_index(["a", "b"]).lower.to_dict()
    column, words_of = {c: j for j, c in enumerate(classes)}, {c: words(c) for c in classes}
    films_with = dict(zip(classes, np.sum(Y, axis=0), strict=True))
    first = {}                                                       # of labels with the same words, the most frequent
    for c in sorted(classes, key=lambda c: (-films_with[c], c)):
        first.setdefault(words_of[c], c)
    into = {c: [first[words_of[c]]] for c in classes if first[words_of[c]] != c}
    for c in first.values():
        parts = [p for p in first.values() if words_of[p] < words_of[c] and sure.get((c, p), 0) > at_least]
        if parts:
            into[c] = sorted(parts)

    def resolve(label):
        return {q for p in into[label] for q in resolve(p)} if label in into else {label}

    rows = []
    for c in sorted(into):
        parts = sorted(resolve(c))
        whole = np.all([Y[:, column[p]] for p in parts], axis=0)
        kind = "synonym" if first[words_of[c]] != c else "composite" if len(parts) > 1 else "kind"
        rows.append((c, kind, "|".join(parts), int(films_with[c]), min(sure.get((c, p), 0.) for p in parts),
                     float(Y[whole, column[c]].mean()) if whole.any() else 0.))
    return pd.DataFrame(rows, columns=["label", "kind", "into", "films", "lower", "back"])


def reduce_genres(genres, merges):
    "Return each film's labels with what stands for the merged ones, sorted; a second time changes nothing."
    into = dict(zip(merges.label, merges.into.str.split("|"), strict=True))
    return [sorted({part for g in film for part in into.get(g, [g])}) for film in genres]


def restore_genres(genres, merges):
    "Return each film's labels, and those merged ones that most films with all their parts have."
    likely = [(m.label, set(m.into.split("|"))) for m in merges[merges.back > .5].itertuples()]
    return [sorted(set(film) | {label for label, parts in likely if parts <= set(film)}) for film in genres]
