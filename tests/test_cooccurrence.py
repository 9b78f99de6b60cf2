"""Implications, rules and merged labels: properties on random matrices, degenerate columns, parity with naive loops."""
import numpy as np
import pytest

from bert_genres.cooccurrence import (
    LabelRules,
    arrange,
    article_rules,
    close_rules,
    dependency_graph,
    explore,
    implications,
    merged_labels,
    outcomes,
    propose_merges,
    reduce_genres,
    restore_genres,
    wilson,
)
from bert_genres.evaluation import f1_scores
from bert_genres.model import apply_rules

SEEDS = range(12)


def random_labels(seed, n=80, labels=9):
    "Labels of different frequency, some implied by others; the last three columns are empty, full, and a copy of the first."
    rng = np.random.default_rng(seed)
    Y = rng.random((n, labels)) < rng.uniform(.05, .6, labels)
    Y[:, 1] |= Y[:, 0] & (rng.random(n) < .9)
    Y[:, 2] |= Y[:, 1]
    return np.column_stack([Y, np.zeros(n, bool), np.ones(n, bool), Y[:, 0]])


def decisions(seed):
    "Truth, and decisions that are half right: some labels left out, some added."
    rng = np.random.default_rng(seed)
    truth = random_labels(seed, n=300)
    return truth, (truth & (rng.random(truth.shape) < .5)) | (rng.random(truth.shape) < .1)


@pytest.mark.parametrize("seed", SEEDS)
def test_implications_equal_a_naive_loop(seed):
    Y = random_labels(seed)
    table = implications(Y, range(Y.shape[1]))
    found = {(r.a, r.b): r for r in table.itertuples()}
    for a in range(Y.shape[1]):
        for b in range(Y.shape[1]):
            both = sum(bool(row[a]) and bool(row[b]) for row in Y)
            assert ((a, b) in found) == (a != b and both > 0)
            if (a, b) in found:
                support, r = sum(bool(row[a]) for row in Y), found[a, b]
                assert (r.support, r.both) == (support, both)
                assert np.isclose(r.confidence, both / support) and np.isclose(r.lift, r.confidence / Y[:, b].mean())
                assert r.lower <= r.confidence and np.isclose(r.lower, wilson(both, support)[0])


@pytest.mark.parametrize("seed", SEEDS)
def test_the_order_of_labels_and_films_changes_no_implication(seed):
    Y, rng = random_labels(seed), np.random.default_rng(seed)
    names = np.array([f"label {j}" for j in range(Y.shape[1])])
    order = rng.permutation(len(names))
    one, other = implications(Y, names), implications(Y[rng.permutation(len(Y))][:, order], names[order])
    assert one.equals(other)


@pytest.mark.parametrize("seed", SEEDS)
def test_chaining_brings_back_what_is_marked_transitive(seed):
    Y = random_labels(seed)
    table = implications(Y, range(Y.shape[1]))
    assert table.transitive.any()
    for cut in (.3, .5, .7, .9, .99):
        rules = table[table.confidence > cut]
        closed = {tuple(r) for r in close_rules(rules[~rules.transitive][["a", "b"]].to_numpy(dtype=int), Y.shape[1])}
        assert closed >= set(rules[["a", "b"]].itertuples(index=False, name=None))


@pytest.mark.parametrize("Y", [np.zeros((5, 3), bool), np.zeros((0, 3), bool), np.zeros((4, 0), bool), np.eye(3, dtype=bool)])
def test_labels_that_never_meet_imply_nothing(Y):
    assert len(implications(Y, range(Y.shape[1]))) == 0 and len(article_rules(Y)) == 0
    rules = LabelRules().fit(Y, Y)
    assert rules.on_.shape == rules.off_.shape == (0, 2) and (rules.transform(Y) == Y).all()


def test_empty_and_full_columns():
    Y = np.column_stack([np.zeros(50, bool), np.ones(50, bool), np.arange(50) < 20])
    table = implications(Y, ["none", "all", "some"]).set_index(["a", "b"])
    assert set(table.index) == {("all", "some"), ("some", "all")}
    assert table.confidence["some", "all"] == 1 and table.confidence["all", "some"] == .4
    assert np.allclose(table.lift, 1) and not table.transitive.any()


def test_wilson_is_within_bounds_and_narrows():
    n = np.arange(1, 200)
    for share in (0, .3, 1):
        low, high = wilson(share * n, n)
        assert (low > -1e-12).all() and (high < 1 + 1e-12).all() and (low < share + 1e-12).all() and (high > share - 1e-12).all()
        assert (np.diff(high - low) < 0).all()
    assert np.allclose(wilson(81, 263), [.2553, .3662], atol=1e-4)       # Newcombe (1998), table I


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("on", [True, False])
def test_outcomes_equal_a_naive_loop(seed, on):
    truth, named = decisions(seed)
    changed, right = outcomes(named, truth, on)
    for a in range(truth.shape[1]):
        for b in range(truth.shape[1]):
            rows = [i for i in range(len(truth)) if named[i, a] and named[i, b] != on]
            assert (changed[a, b], right[a, b]) == (len(rows), sum(truth[i, b] for i in rows))


@pytest.mark.parametrize("seed", SEEDS)
def test_rules_once_equal_a_loop_in_any_order_and_twice_equal_once(seed):
    truth, named = decisions(seed)
    rules, rng = LabelRules(z=1).fit(named, truth), np.random.default_rng(seed)
    assert len(rules.on_) + len(rules.off_) > 0
    once = rules.transform(named)
    assert (rules.transform(once) == once).all()
    looped = named.copy()
    for value, pairs in (True, rules.on_), (False, rules.off_):        # off has the last word
        for a, b in rng.permutation(pairs):
            for row in looped:
                if row[a]:
                    row[b] = value
    assert (looped == once).all()


@pytest.mark.parametrize("seed", SEEDS)
def test_the_order_of_labels_and_films_changes_no_rule(seed):
    truth, named = decisions(seed)
    rng = np.random.default_rng(seed)
    order, rows = rng.permutation(truth.shape[1]), rng.permutation(len(truth))
    one, other = LabelRules(z=1).fit(named, truth), LabelRules(z=1).fit(named[rows][:, order], truth[rows][:, order])
    for kind in ("on_", "off_"):
        assert {tuple(r) for r in getattr(one, kind)} == {tuple(order[r]) for r in getattr(other, kind)}


@pytest.mark.parametrize("seed", SEEDS)
def test_each_rule_alone_pays_where_it_was_chosen(seed):
    truth, named = decisions(seed)
    rules, before = LabelRules(z=1).fit(named, truth), f1_scores(truth, named)["micro_f1"]
    for kind, value in (("on_", True), ("off_", False)):
        for a, b in getattr(rules, kind):
            after = named.copy()
            after[named[:, a], b] = value
            assert f1_scores(truth, after)["micro_f1"] > before


@pytest.mark.parametrize("seed", SEEDS)
def test_the_articles_rules_in_any_order(seed):
    Y, rng = random_labels(seed), np.random.default_rng(seed)
    rules, named = article_rules(Y), rng.random(Y.shape) < .2
    once = apply_rules(named, rules)
    assert (apply_rules(named, rng.permutation(rules)) == once).all() and (apply_rules(once, rules) == once).all()
    assert len(rules) and (once >= named).all()


def test_merged_labels_go_there_and_back():
    merges = merged_labels()
    kept = {part for into in merges.into for part in into.split("|")}
    assert len(merges) == merges.label.nunique() > 50 and not kept & set(merges.label)
    assert set(merges.kind) == {"synonym", "composite", "kind"}
    assert (merges[merges.kind != "synonym"].lower > 2 / 3).all()
    rng, labels = np.random.default_rng(0), sorted(kept | set(merges.label) | {"A label of its own"})
    films = [sorted(rng.choice(labels, 4, replace=False)) for _ in range(200)] + [[]]
    reduced = reduce_genres(films, merges)
    assert not {g for film in reduced for g in film} & set(merges.label)
    assert reduce_genres(reduced, merges) == reduced == reduce_genres(restore_genres(reduced, merges), merges)
    assert reduce_genres([["Action Comedy", "Comedy film"]], merges) == [["Action", "Comedy"]]


def test_proposals_do_not_depend_on_the_order_of_labels():
    names = np.array(["Comedy", "Comedy film", "Horror", "Horror Comedy", "Comedy horror", "Courtroom Drama", "Drama", "Opera"])
    rng = np.random.default_rng(1)
    Y = rng.random((400, len(names))) < .2
    Y[:, [0, 2]] |= Y[:, [3]]
    Y[:, 6] |= Y[:, 5]
    Y[:, [1, 4]] &= rng.random((400, 2)) < .3
    order = rng.permutation(len(names))
    one = propose_merges(Y, names.tolist())
    assert one.equals(propose_merges(Y[:, order], names[order].tolist()))
    assert dict(zip(one.label, one.into, strict=True)) == {
        "Comedy film": "Comedy", "Horror Comedy": "Comedy|Horror", "Comedy horror": "Comedy|Horror", "Courtroom Drama": "Drama"}


@pytest.mark.parametrize("seed", SEEDS)
def test_hubs_stand_apart(seed):
    rng = np.random.default_rng(seed)
    Y = rng.random((400, 40)) < rng.uniform(.01, .5, 40)
    graph = dependency_graph(implications(Y, [f"genre number {j}" for j in range(40)]), 60)
    around, hubs = arrange(graph)
    assert around.keys() | hubs.keys() == set(graph) and len(hubs) > 3
    assert all(np.isclose(np.hypot(*x), 1) for x in around.values())
    at = np.array(list(hubs.values()))
    gap = np.abs(at[:, None] - at)[np.triu_indices(len(at), 1)]
    assert ((gap[:, 0] > .3) | (gap[:, 1] > .09)).all()


def test_exploring_an_unknown_label_says_so():
    with pytest.raises(ValueError, match="'Opera' occurs with no other label"):
        explore("Opera", implications(np.ones((3, 2), bool), ["Drama", "Comedy"]))
