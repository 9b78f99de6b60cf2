"""The baselines: thresholds against brute force, labels that cannot be fitted, and that no row is read before its time."""
import numpy as np
import pytest
from sklearn.metrics import precision_recall_curve

from bert_genres.baselines import (
    BASELINES,
    PUBLISHED_THRESHOLDS,
    best_threshold,
    classifier_chain,
    f1_curve,
    fit_labels,
    nearest_neighbours,
    run_baseline,
    tfidf_logistic,
)
from bert_genres.data import binarize, load_corpus, split_corpus
from bert_genres.evaluation import f1_scores

every_baseline = pytest.mark.parametrize("name", BASELINES)


@pytest.fixture(scope="module")
def films():
    "A quarter of the sample, with its twelve most frequent genres."
    films = load_corpus("sample").iloc[::4].reset_index(drop=True)
    often = films.genres.explode().value_counts(sort=True).index[:12]
    films["genres"] = [[g for g in genres if g in set(often)] or ["Drama"] for genres in films.genres]
    return films


@pytest.fixture(scope="module")
def rows(films):
    "Texts, labels of different frequency, and texts to score."
    texts = list(films["plot"])
    Y = binarize(films.genres, sorted({g for genres in films.genres for g in genres}))[0]
    Y = Y[:, np.unique(Y[:100].sum(0), return_index=True)[1]]
    return texts[:100], Y[:100], texts[100:]


def random_cases(dtype):
    rng = np.random.default_rng(0)
    for case in range(60):
        shape = rng.integers(1, 9, 2)
        scores = rng.integers(0, 5, shape) / 4 if case % 2 else rng.random(shape)   # every other one with many ties
        yield rng.random(shape) < rng.choice([.1, .5, 1]), scores.astype(dtype)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
def test_best_threshold_is_the_best_of_all_and_scores_what_it_says(dtype):
    for truth, scores in random_cases(dtype):
        threshold, found = best_threshold(truth, scores)
        assert f1_scores(truth, scores >= threshold)["micro_f1"] == found
        assert found == max(f1_scores(truth, scores >= s)["micro_f1"] for s in np.unique(scores))


def test_small_differences_in_scores_change_no_decision():
    rng = np.random.default_rng(1)
    for truth, scores in random_cases(np.float64):
        threshold, _ = best_threshold(truth, scores)
        gaps = np.diff(np.unique(scores))
        noise = rng.uniform(-.49, .49, scores.shape) * (gaps.min() if len(gaps) else .1)
        assert ((scores + noise >= threshold) == (scores >= threshold)).all()


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_scores_a_last_digit_apart_are_told_apart(dtype):
    high = dtype(0.3)
    scores = np.array([[high, np.nextafter(high, dtype(0))]])
    assert (scores >= best_threshold(np.array([[True, False]]), scores)[0]).tolist() == [[True, False]]


def test_no_true_pair_scores_nothing():
    assert best_threshold(np.zeros((3, 2), bool), np.random.default_rng(0).random((3, 2)))[1] == 0


def test_f1_curve_agrees_with_scikit_learn():
    rng = np.random.default_rng(2)
    truth, scores = rng.random((40, 6)) < .3, rng.integers(0, 30, (40, 6)) / 30
    precision, recall, cuts = precision_recall_curve(truth.ravel(), scores.ravel())
    with np.errstate(invalid="ignore"):
        expected = np.nan_to_num(2 * precision * recall / (precision + recall))[:-1]
    ours_cuts, ours = f1_curve(truth, scores)
    assert np.array_equal(ours_cuts[::-1], cuts) and np.allclose(ours[::-1], expected)


def test_best_threshold_of_calibrated_probabilities_is_half_of_the_best_f1():
    rng = np.random.default_rng(3)
    for a, b in [(.1, 3), (.5, .5), (2, 5)]:
        p = np.sort(rng.beta(a, b, 5000))[::-1]
        expected_f1 = 2 * np.cumsum(p) / (np.arange(1, len(p) + 1) + p.sum())     # with expected counts for counts
        n = int(np.argmax(expected_f1))
        assert p[n] >= expected_f1[n] / 2 > p[n + 1]
        threshold, found = best_threshold(p[:, None], p[:, None])
        assert np.isclose(found, expected_f1[n]) and p[n] >= threshold > p[n + 1]


@every_baseline
def test_labels_of_all_films_or_none_and_single_labels(name, rows):
    texts, Y, others = rows
    Y = np.column_stack([Y, np.ones(len(Y), bool), np.zeros(len(Y), bool)])
    scores = BASELINES[name](texts, Y, 0)(others)
    assert scores.shape == (len(others), Y.shape[1]) and np.isfinite(scores).all()
    assert scores.min() >= 0 and scores.max() <= 1 + 1e-9
    assert np.allclose(scores[:, -2], 1) and np.allclose(scores[:, -1], 0)
    for j in (-2, -1):
        assert np.allclose(BASELINES[name](texts, Y[:, [j]], 0)(others), scores[:, [j]])
    if "chain" not in name:                             # each label is on its own, and so the same when alone
        assert np.allclose(BASELINES[name](texts, Y[:, [0]], 0)(others), scores[:, [0]], atol=1e-6)


@every_baseline
def test_same_seed_same_scores_and_columns_in_any_order(name, rows):
    texts, Y, others = rows
    scores = BASELINES[name](texts, Y, 3)(others)
    assert np.array_equal(BASELINES[name](texts, Y, 3)(others), scores)
    order = np.random.default_rng(0).permutation(Y.shape[1])
    assert np.allclose(BASELINES[name](texts, Y[:, order], 3)(others), scores[:, order], atol=1e-9)


def test_a_chain_goes_from_frequent_to_rare_and_hands_on_what_it_said(rows):
    texts, Y, others = rows
    order = np.argsort(-Y.sum(0))
    chained, alone = classifier_chain(texts, Y)(others), fit_labels(tfidf_logistic(), texts, Y)(others)
    assert np.allclose(chained[:, order[0]], alone[:, order[0]], atol=1e-3)      # the first knows words alone
    for n in range(2, len(order)):                                               # a label hears of those before, not after
        some = order[:n]
        assert np.allclose(classifier_chain(texts, Y[:, some])(others), chained[:, some], atol=1e-9)
    assert not np.allclose(chained[:, order[-1]], alone[:, order[-1]], atol=1e-3)


def test_chains_never_name_what_fewer_than_ten_films_have():
    texts = [f"{w} story number{i}" for i, w in enumerate(["ghost", "love", "war"] * 20)]
    Y = np.arange(60)[:, None] % 20 < [9, 10]
    Y = Y & (np.arange(60)[:, None] < [20, 20])
    scores = classifier_chain(texts, Y)(texts)
    assert np.allclose(scores[:, 0], 9 / 60) and scores[:, 1].std() > 0


def test_neighbours_vote_with_their_likeness():
    texts = ["ghost house ghost", "ghost house", "love letter", "love letter war"]
    Y = np.array([[1, 0], [1, 1], [0, 1], [0, 0]], dtype=bool)
    alike = nearest_neighbours(texts, Y, k=2)(["ghost house ghost"])
    # the first is itself, with cosine 1; so the second's cosine c gives the second label c / (1 + c)
    assert np.isclose(alike[0, 0], 1) and 0 < alike[0, 1] < .5
    assert np.allclose(nearest_neighbours(texts, Y, k=9)(["love", "nothing known"])[1], 0)


@pytest.mark.parametrize("name", ["naive Bayes", *PUBLISHED_THRESHOLDS])
def test_test_labels_change_nothing_and_validation_labels_only_the_threshold(name, films):
    part = split_corpus(films)
    before = run_baseline(name, films, part)
    assert before["scores_test"].shape == before["named_test"].shape == ((part == "test").sum(), len(before["classes"]))
    assert ((before["scores_test"] >= before["threshold"]) == before["named_test"]).all()

    relabelled = films.copy()
    relabelled["genres"] = [["New", "Drama"] if p == "test" else g for g, p in zip(films.genres, part, strict=True)]
    after = run_baseline(name, relabelled, part)
    for key in set(before) - {"seconds"}:
        assert np.array_equal(before[key], after[key]), key

    relabelled["genres"] = [["New", "Drama"] if p == "validation" else g for g, p in zip(films.genres, part, strict=True)]
    after = run_baseline(name, relabelled, part)
    assert np.array_equal(before["scores_test"], after["scores_test"]) and "New" not in after["classes"]
    assert (after["threshold"] == before["threshold"]) == (name in PUBLISHED_THRESHOLDS)
