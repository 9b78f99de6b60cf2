"""Scores against plain loops over films and labels, on small matrices with ties, lost labels and odd shapes; intervals against
truth that is known because it was simulated."""
import json

import numpy as np
import pytest
from sklearn.metrics import average_precision_score
from threadpoolctl import threadpool_limits

from bert_genres.evaluation import (
    brier_skill,
    evaluate,
    f1_scores,
    interval,
    paired_difference,
    precision_at_k,
    rankings,
    resample,
)


def f1_of(true, named):
    return 2 * len(true & named) / (len(true) + len(named)) if true or named else 0.0


@pytest.fixture(params=range(5))
def system(request):
    "truth and named (bool [30, 8], rare labels in the last columns), and probabilities with many ties."
    rng = np.random.default_rng(request.param)
    share = np.geomspace(0.5, 0.04, 8)
    return rng.random((30, 8)) < share, rng.random((30, 8)) < share, rng.integers(0, 5, (30, 8)) / 4


def test_whole_weights_score_like_films_repeated(system):
    truth, named, _ = system
    missed = np.arange(30) % 3 == 0
    weights = np.random.default_rng(1).multinomial(30, np.full(30, 1 / 30), 40)
    scores = f1_scores(truth, named, weights.astype(np.float32), missed)
    labels, lost = np.flatnonzero(truth.any(0)), 0
    for r, row in enumerate(weights):
        films = np.repeat(np.arange(30), row)
        pairs = [({(k, j) for j in np.flatnonzero(truth[i])} | ({(k, "missed")} if missed[i] else set()),
                  {(k, j) for j in np.flatnonzero(named[i])}) for k, i in enumerate(films)]
        assert np.isclose(scores["micro_f1"][r], f1_of(set().union(*(t for t, _ in pairs)), set().union(*(n for _, n in pairs))))
        assert np.isclose(scores["samples_f1"][r], np.mean([f1_of(t, n) for t, n in pairs]))
        columns = [f1_of(set(np.flatnonzero(truth[films, j])), set(np.flatnonzero(named[films, j]))) for j in labels]
        assert np.isclose(scores["macro_f1"][r], np.mean(columns))                # over the labels of all films, not of the draw
        lost += not truth[films][:, labels].any(0).all()
    assert lost                                                                   # some draw did lose a label


def test_a_draw_scores_like_sums_of_its_weights(system):
    truth, named, _ = system
    missed, labels = np.arange(30) % 3 == 0, np.flatnonzero(truth.any(0))
    weights = resample(30, resamples=20, seed=1)
    scores = f1_scores(truth, named, weights, missed)
    f1 = lambda w, y, p, lost=0: 2 * (w * (y & p)).sum() / ((w * y).sum() + (w * p).sum() + lost)
    films = [f1_of({*np.flatnonzero(y)} | ({"missed"} if m else set()), {*np.flatnonzero(p)})
             for y, p, m in zip(truth, named, missed, strict=True)]
    for r, w in enumerate(weights.astype(float)):
        expected = {"micro_f1": f1(w[:, None], truth, named, w[missed].sum()), "samples_f1": np.average(films, weights=w),
                    "macro_f1": np.mean([f1(w, truth[:, j], named[:, j]) for j in labels])}
        for k, value in expected.items():
            assert np.isclose(scores[k][r], value, atol=1e-6)


@pytest.mark.parametrize("n", [1, 2, 68, 3000])
def test_no_weight_is_zero_and_those_of_a_draw_sum_to_the_films(n):
    weights = resample(n, resamples=200, seed=3)
    assert weights.dtype == np.float32 and weights.shape == (200, n) and (weights > 0).all()
    assert np.allclose(weights.sum(1, dtype=float), n, rtol=1e-6)
    assert np.array_equal(weights, resample(n, resamples=200, seed=3))
    assert n == 1 or not np.array_equal(weights, resample(n, resamples=200, seed=4))


@threadpool_limits.wrap(limits=1)      # threads that wait for each other take ten times as long on small products
def test_intervals_cover_simulated_truth():
    """In 93 to 97 % of 400 repetitions, for scores and for paired differences. Half of the films are of a kind with more labels
    and more errors, so a film's decisions hang together; a label is in 20 to 100 of 250 films."""
    rng, n, repetitions, labels = np.random.default_rng(0), 250, 400, 10
    share = np.geomspace(0.4, 0.08, labels) * [[0.6], [1.4]]                      # of a kind's films, with each label
    a, b = ((found * [[1.1], [0.9]], false * [[0.7], [1.3]]) for found, false in [
        (rng.uniform(0.4, 0.8, labels), rng.uniform(0.2, 0.8, labels) * share.mean(0)),
        (rng.uniform(0.3, 0.7, labels), rng.uniform(0.2, 0.8, labels) * share.mean(0))])

    def true_scores(found, false):
        tp, wrong = (share * found).mean(0), (share * (1 - found) + (1 - share) * false).mean(0)
        return {"micro_f1": 2 * tp.sum() / (2 * tp + wrong).sum(), "macro_f1": np.mean(2 * tp / (2 * tp + wrong))}

    true_a, true_b, weights, hits = true_scores(*a), true_scores(*b), resample(n), []
    for _ in range(repetitions):
        kind = rng.integers(0, 2, n)
        truth = rng.random((n, labels)) < share[kind]
        named = [rng.random((n, labels)) < np.where(truth, found[kind], false[kind]) for found, false in (a, b)]
        (score, draws), (other, other_draws) = ((f1_scores(truth, y), f1_scores(truth, y, weights)) for y in named)
        hits.append([lo <= t <= hi for k in true_a for t, (lo, hi) in [
            (true_a[k], interval(draws[k], score[k])),
            (true_a[k] - true_b[k], interval(draws[k] - other_draws[k], score[k] - other[k]))]])
    covered = np.mean(hits, axis=0)
    assert ((0.93 <= covered) & (covered <= 0.97)).all(), covered


@pytest.mark.parametrize("seed", range(3))
def test_scores_lie_within_their_intervals_however_many_labels_are_rare(seed):
    rng, n, labels = np.random.default_rng(seed), 500, 1200
    truth = np.zeros((n, labels), dtype=bool)
    truth[rng.integers(0, n, (2, labels)), np.arange(labels)] = True               # one or two films a label
    better, worse = ((truth & (rng.random(truth.shape) < found)) | (rng.random(truth.shape) < 1 / n) for found in (0.7, 0.5))
    weights = resample(n)
    for named in (better, worse):
        score, draws = f1_scores(truth, named), f1_scores(truth, named, weights)
        for k in score:
            lo, hi = interval(draws[k], score[k])
            assert lo <= round(score[k], 4) <= hi and lo < hi
        assert interval(draws["macro_f1"])[1] < score["macro_f1"]                  # the plain middle of the draws lies below
    for found in paired_difference(truth, better, worse).values():
        assert found["ci95"][0] <= found["difference"] <= found["ci95"][1]
    for found in paired_difference(truth, better, better).values():
        assert found == {"difference": 0.0, "ci95": [0.0, 0.0]}


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
        score, draws = f1_scores(T, named[:, columns]), f1_scores(T, named[:, columns], weights)
        assert got["n_labels"] == T.any(0).sum()
        for k in ("micro_f1", "macro_f1"):
            assert got[k] == round(score[k], 4)
            assert got[f"{k}_ci95"] == np.clip(interval(draws[k], score[k]), 0, 1).tolist()
        reference = average_precision_score(T[ranked].ravel(), probs[ranked][:, columns].ravel())
        assert np.isclose(got["micro_ap"], reference, atol=1e-4)
        assert got["brier_skill"] == round(brier_skill(T, probs[:, columns], support[columns] / 1000), 4)


def test_a_group_without_a_positive_is_left_out_and_one_label_is_enough():
    probs, named = np.array([[0.9], [0.2]]), np.array([[True], [False]])
    scores = evaluate([["a"], ["b"]], probs, named, ["a"], support=np.array([7]), n_train=10)
    assert list(scores["by_support"]) == ["tail"] and scores["coverage_error"] == scores["lrap"] == 1.0
    nothing = evaluate([["b"], ["b"]], probs, named, ["a"], support=np.array([7]), n_train=10)
    assert nothing["by_support"] == {} and nothing["micro_ap"] == 0.0 and nothing["unknown_labels"] == ["b"]
