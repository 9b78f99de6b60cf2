"""Implications, the article's rules, the chords, and what benchmarks/corrections.py tries beside them: properties on random
matrices, degenerate columns, parity with naive loops."""
import importlib.util
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bert_genres.cooccurrence import article_rules, chord, close_rules, dependency_graph, implications, wilson
from bert_genres.evaluation import f1_scores
from bert_genres.model import apply_rules

spec = importlib.util.spec_from_file_location("rules", Path(__file__).resolve().parent.parent / "benchmarks" / "rules.py")
spec.loader.exec_module(rules := importlib.util.module_from_spec(spec))
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
    assert not np.any(rules.rules_by_effect(Y, Y))


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
def test_the_articles_rules_equal_its_loop_in_any_order(seed):
    Y, rng = random_labels(seed), np.random.default_rng(seed)
    pairs, named = article_rules(Y), rng.random(Y.shape) < .2
    once, looped = apply_rules(named, pairs), named.copy()
    for _ in range(Y.shape[1]):                                        # until nothing changes
        for a, b in rng.permutation(pairs):
            looped[looped[:, a], b] = True
    assert len(pairs) and (once == looped).all() and (apply_rules(once, pairs) == once).all()
    assert (apply_rules(named, rng.permutation(pairs)) == once).all()


def test_the_graph_and_the_chords_are_of_the_strongest_and_the_most_frequent():
    table = implications(random_labels(0), [f"label {j}" for j in range(12)])
    graph, diagram = dependency_graph(table, 9), chord(table, 5)
    assert graph.number_of_edges() == 9 and not {(r.a, r.b) for r in table[table.transitive].itertuples()} & set(graph.edges)
    top = table.groupby("a").support.first().nlargest(5)
    links, nodes = diagram.data, diagram.nodes.data.set_index("label").films
    assert nodes.to_dict() == top.to_dict() and len(links) and links.both.between(1, links.support).all()
    lift = table.set_index(["a", "b"]).lift
    assert all(lift[r.a, r.b] > 1 and top[r.a] <= top[r.b] for r in links.itertuples())


@pytest.mark.parametrize("seed", SEEDS)
def test_what_a_rule_would_do_equals_a_naive_loop(seed):
    truth, named = decisions(seed)
    for on in (True, False):
        changed, right = rules.outcomes(named, truth, on)
        for a in range(truth.shape[1]):
            for b in range(truth.shape[1]):
                rows = named[:, a] & (named[:, b] != on)
                assert (changed[a, b], right[a, b]) == (rows.sum(), truth[rows, b].sum())


@pytest.mark.parametrize("seed", SEEDS)
def test_rules_by_effect_each_pay_and_have_no_order(seed):
    truth, named = decisions(seed)
    on, off = rules.rules_by_effect(named, truth, z=1)
    before, once, looped = f1_scores(truth, named)["micro_f1"], rules.turn(named, on, off), named.copy()
    assert (on | off).any() and (rules.turn(once, on, off) == once).all()
    for value, pairs in (True, np.argwhere(on)), (False, np.argwhere(off)):            # off has the last word
        for a, b in np.random.default_rng(seed).permutation(pairs):
            alone = named.copy()
            alone[named[:, a], b] = value
            assert f1_scores(truth, alone)["micro_f1"] > before
            looped[looped[:, a], b] = value
    assert (looped == once).all()


def test_merged_labels_go_there_and_back():
    merges = pd.read_csv(rules.MERGES)
    kept = {part for into in merges.into for part in into.split("|")}
    assert len(merges) == merges.label.nunique() == 64 and not kept & set(merges.label)          # as chapter 06 says
    rng, labels = np.random.default_rng(0), sorted(kept | set(merges.label) | {"A label of its own"})
    films = [sorted(rng.choice(labels, 4, replace=False)) for _ in range(200)] + [[]]
    reduced = rules.reduce_genres(films, merges)
    assert not {g for film in reduced for g in film} & set(merges.label)
    assert reduced == rules.reduce_genres(rules.restore_genres(reduced, merges), merges)
    assert rules.reduce_genres([["Action Comedy", "Comedy film"]], merges) == [["Action", "Comedy"]]


def test_proposals_do_not_depend_on_the_order_of_labels():
    names = np.array(["Comedy", "Comedy film", "Horror", "Horror Comedy", "Comedy horror", "Courtroom Drama", "Drama", "Opera"])
    rng = np.random.default_rng(1)
    Y = rng.random((400, len(names))) < .2
    Y[:, [0, 2]] |= Y[:, [3]]
    Y[:, 6] |= Y[:, 5]
    Y[:, [1, 4]] &= rng.random((400, 2)) < .3
    order = rng.permutation(len(names))
    one = rules.propose_merges(Y, names.tolist())
    assert one.equals(rules.propose_merges(Y[:, order], names[order].tolist()))
    assert dict(zip(one.label, one.into, strict=True)) == {
        "Comedy film": "Comedy", "Horror Comedy": "Comedy|Horror", "Comedy horror": "Comedy|Horror", "Courtroom Drama": "Drama"}
