"""Scores against plain loops over films and labels, on small matrices with ties, lost labels and odd shapes."""
import json

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from bert_genres.evaluation import brier_skill, evaluate, f1_scores, precision_at_k, rankings, resample


def f1_of(true, named):
    return 2 * len(true & named) / (len(true) + len(named)) if true or named else 0.0


@pytest.fixture(params=range(5))
def system(request):
    "truth and named (bool [30, 8], rare labels in the last columns), and probabilities with many ties."
    rng = np.random.default_rng(request.param)
    share = np.geomspace(0.5, 0.04, 8)
    return rng.random((30, 8)) < share, rng.random((30, 8)) < share, rng.integers(0, 5, (30, 8)) / 4


def test_each_resample_scores_like_its_films_drawn_one_by_one(system):
    truth, named, _ = system
    missed = np.arange(30) % 3 == 0
    weights = resample(30, resamples=40, seed=1)
    scores = f1_scores(truth, named, weights, missed)
    labels, lost = np.flatnonzero(truth.any(0)), 0
    for r, row in enumerate(weights.astype(int)):
        films = np.repeat(np.arange(30), row)
        pairs = [({(k, j) for j in np.flatnonzero(truth[i])} | ({(k, "missed")} if missed[i] else set()),
                  {(k, j) for j in np.flatnonzero(named[i])}) for k, i in enumerate(films)]
        assert np.isclose(scores["micro_f1"][r], f1_of(set().union(*(t for t, _ in pairs)), set().union(*(n for _, n in pairs))))
        assert np.isclose(scores["samples_f1"][r], np.mean([f1_of(t, n) for t, n in pairs]))
        columns = [f1_of(set(np.flatnonzero(truth[films, j])), set(np.flatnonzero(named[films, j]))) for j in labels]
        assert np.isclose(scores["macro_f1"][r], np.mean(columns))                # over the labels of all films, not of the draw
        lost += not truth[films][:, labels].any(0).all()
    assert lost                                                                   # some draw did lose a label


def test_rankings_are_what_loops_over_films_and_labels_give(system):
    truth, _, probs = system
    lrap, coverage = [], []
    for y, p in zip(truth, probs, strict=True):
        true = np.flatnonzero(y)
        if len(true):
            lrap.append(np.mean([sum(p[true] >= p[j]) / sum(p >= p[j]) for j in true]))
            coverage.append(max(sum(p >= p[j]) for j in true))
    assert np.isclose(rankings(truth, probs)["lrap"], np.mean(lrap))
    assert np.isclose(rankings(truth, probs)["coverage_error"], np.mean(coverage))
    for k in (1, 3, 20):
        top = [sorted(range(8), key=lambda j, p=p: (-p[j], j))[:k] for p in probs]
        assert np.isclose(precision_at_k(truth, probs, k), np.mean([y[t].mean() for y, t in zip(truth, top, strict=True)]))


def test_groups_of_labels_are_scored_as_if_alone(system):
    truth, named, probs = system
    names, support = [f"g{j}" for j in range(8)], np.array([900, 501, 500, 90, 50, 49, 2, 0])
    scores = evaluate([[names[j] for j in np.flatnonzero(y)] for y in truth], probs, named, names, support=support, n_train=1000)
    assert json.loads(json.dumps(scores)) == scores and list(scores["by_support"]) == ["head", "torso", "tail"]
    assert scores["brier_skill"] == round(brier_skill(truth, probs, support / 1000), 4)
    weights, ranked = resample(30), truth.any(1)
    for group, columns in {"head": slice(0, 2), "torso": slice(2, 5), "tail": slice(5, 8)}.items():
        got, T = scores["by_support"][group], truth[:, columns]
        draws = f1_scores(T, named[:, columns], weights)
        assert got["n_labels"] == T.any(0).sum()
        assert got["micro_f1_ci95"] == np.quantile(draws["micro_f1"], [0.025, 0.975]).round(4).tolist()
        assert got["macro_f1"] == round(f1_scores(T, named[:, columns])["macro_f1"], 4)
        reference = average_precision_score(T[ranked].ravel(), probs[ranked][:, columns].ravel())
        assert np.isclose(got["micro_ap"], reference, atol=1e-4)
        assert got["brier_skill"] == round(brier_skill(T, probs[:, columns], support[columns] / 1000), 4)


def test_a_group_without_a_positive_is_left_out_and_one_label_is_enough():
    probs, named = np.array([[0.9], [0.2]]), np.array([[True], [False]])
    scores = evaluate([["a"], ["b"]], probs, named, ["a"], support=np.array([7]), n_train=10)
    assert list(scores["by_support"]) == ["tail"] and scores["coverage_error"] == scores["lrap"] == 1.0
    nothing = evaluate([["b"], ["b"]], probs, named, ["a"], support=np.array([7]), n_train=10)
    assert nothing["by_support"] == {} and nothing["micro_ap"] == 0.0 and nothing["unknown_labels"] == ["b"]
