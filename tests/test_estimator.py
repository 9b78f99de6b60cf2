"""The estimator among scikit-learn's own tools: clones, pipelines, cross-validation, searches; both forms of labels."""
import copy
import dataclasses
import hashlib
import os
import pickle
import random
import signal
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from scipy.sparse import csr_matrix
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import f1_score
from sklearn.model_selection import GridSearchCV, KFold, cross_val_predict, cross_val_score, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from bert_genres import model, recipes
from bert_genres.data import binarize, load_corpus
from bert_genres.embeddings import BertEncoder
from bert_genres.evaluation import f1_scores
from bert_genres.files import InputError
from bert_genres.model import load_bundle
from bert_genres.recipes import TextClassifier, fit_recipe
from bert_genres.runtimes import import_tensorflow
from bert_genres.vectors import encode_cached

LABELS = ["Action", "Comedy", "Drama", "Opera", "Romance Film"]      # no film of the sample is an opera


@pytest.fixture(scope="module")
def texts():
    return list(load_corpus("sample")["plot"][:90])


@pytest.fixture(scope="module")
def Y():
    return binarize(load_corpus("sample").genres[:90], LABELS)[0].astype(int)


@pytest.fixture(scope="module")
def small():
    return TextClassifier("article", max_seq_len=32)


@pytest.fixture(scope="module")
def fitted(small, texts, Y):
    return clone(small).fit(texts[:60], Y[:60])


def test_parameters_and_clones(small):
    assert small.get_params() == {"recipe": "article", "model": "all-MiniLM-L6-v2", "max_seq_len": 32, "random_state": 0}
    assert clone(small).set_params(random_state=3).get_params() == small.get_params() | {"random_state": 3}
    with pytest.raises(NotFittedError):
        small.predict(["A plot."])


def test_an_indicator_matrix_comes_back_as_one(fitted, small, texts, Y):
    named, probs = fitted.predict(texts[60:]), fitted.predict_proba(texts[60:])
    assert named.shape == probs.shape == (30, 5) and named.dtype == int and not probs[:, 3].any()
    assert fitted.classes_.tolist() == ["0", "1", "2", "3", "4"]
    assert fitted.score(texts[60:], Y[60:]) == pytest.approx(f1_score(Y[60:], named, average="micro"))
    for same in (pd.DataFrame(Y, columns=LABELS), csr_matrix(Y)):
        other = clone(small).fit(texts[:60], same[:60])
        assert (other.predict(texts[60:]) == named).all()
    assert fitted.score(texts[60:], np.zeros((30, 5))) == 0


def test_lists_come_back_as_lists(fitted, small, texts, Y):
    lists = [[LABELS[j] for j in np.flatnonzero(row)] for row in Y]
    other = clone(small).fit(texts[:60], lists[:60])
    assert other.classes_.tolist() == ["Action", "Comedy", "Drama", "Romance Film"]
    as_rows = binarize(other.predict(texts[60:]), LABELS)[0]
    assert (as_rows == fitted.predict(texts[60:])).all()
    missed = [[*labels, "Opera"] for labels in lists[60:]]                            # a label that fit never saw
    assert other.score(texts[60:], missed) < other.score(texts[60:], lists[60:])


@pytest.mark.slow
def test_cross_validation_pipeline_and_search(small, texts, Y):
    lists = [[LABELS[j] for j in np.flatnonzero(row)] for row in Y]
    by_matrix = cross_val_score(small, texts, Y, cv=2)
    by_lists = cross_val_score(small, texts, lists, cv=KFold(2))
    assert by_matrix == pytest.approx(by_lists) and (by_matrix > .3).all()
    shouting = make_pipeline(FunctionTransformer(lambda texts: [text.upper() for text in texts]), clone(small))
    assert shouting.fit(texts[:60], Y[:60]).score(texts[60:], Y[60:]) > .3
    search = GridSearchCV(small, {"max_seq_len": [32]}, cv=2).fit(texts, Y)
    assert search.cv_results_["mean_test_score"] == pytest.approx([by_matrix.mean()])


def test_saved_it_is_a_bundle_and_comes_back(fitted, texts, tmp_path):
    folder = fitted.save(tmp_path / "own")
    again, bundle = TextClassifier.load(folder), load_bundle(folder)
    assert (again.predict(texts) == fitted.predict(texts)).all() and again.get_params() == fitted.get_params()
    assert bundle.classes_ == ["0", "1", "2", "4"]
    with pytest.raises(InputError, match="exists already"):
        fitted.save(folder)


@pytest.mark.parametrize("texts, Y, message", [
    ("one text", [["a"]], "one text where a list"), (["a", " "], [["a"], ["b"]], "text 1: empty"),
    (["a", None], [["a"], ["b"]], "text 1: not a text"), (["a", "half \ud83d"], [["a"], ["b"]], "text 1: has half"),
    (["a", "b"], [["a"]], "2 texts, but labels for 1"), (["a"], np.array([1]), "neither an indicator"),
    (["a"], np.array([[.5]]), "neither an indicator"), (["a"], [{"b": .5}], "row 1: an object whose values"),
    (["a"], [["half \ud83d"]], "labels of row 0: has half"),
    (pd.DataFrame({"text": ["a"]}), [["b"]], "a table or a dictionary where a list"),
    ({"text": ["a"]}, [["b"]], "a table or a dictionary where a list"),
    ([], [], "none of 0 texts has a label"), (["a", "b"], np.zeros((2, 3)), "none of 2 texts has a label"),
    (["a", "b"], ["Health, Safety", "IT"], "one label or several"), (["a"], "Drama", "one text where a list"),
    (["a"], pd.DataFrame([[1, 0]], columns=["x", "x"]), "two columns"), (["a"], np.array([[np.nan]]), "neither an indicator"),
])
def test_bad_input_is_said_before_anything_is_computed(texts, Y, message):
    with pytest.raises(InputError, match=message):
        TextClassifier().fit(texts, Y)


def test_an_unknown_recipe():
    with pytest.raises(InputError, match="unknown recipe 'nope'"):
        TextClassifier("nope").fit(["a"], [["a"]])


@pytest.mark.slow
def test_a_matrix_without_names_is_scored_by_position(small, texts, Y, fitted):
    frame = pd.DataFrame(Y, columns=LABELS)
    named = clone(small).fit(texts[:60], frame[:60])
    score = named.score(texts[60:], frame[60:])
    assert score > 0
    for same in (Y[60:], Y[60:].astype(bool), csr_matrix(Y[60:]), frame[60:][LABELS[::-1]]):
        assert named.score(texts[60:], same) == score
    lists = [[LABELS[j] for j in np.flatnonzero(row)] for row in Y]
    assert clone(small).fit(texts[:60], lists[:60]).score(texts[60:], lists[60:]) == score
    for wrong in (lists[60:], frame[60:], np.zeros((30, 4)), Y[61:]):          # fitted's labels are 0 to 4
        with pytest.raises(InputError, match="was fitted|were fitted|30 texts, but labels for 29"):
            fitted.score(texts[60:], wrong)


@pytest.mark.slow
def test_seeds_of_every_kind_and_the_caller_s_random_states(small, texts, Y):
    tf = import_tensorflow()
    fit = lambda state: clone(small).set_params(random_state=state).fit(texts[:60], Y[:60]).predict_proba(texts[60:])
    random.seed(3), np.random.seed(3), tf.random.set_seed(3)
    drawn = random.random(), np.random.rand(), float(tf.random.uniform([]))
    random.seed(3), np.random.seed(3), tf.random.set_seed(3)
    one = fit(1)
    assert (random.random(), np.random.rand(), float(tf.random.uniform([]))) == drawn
    assert (fit(np.int64(1)) == one).all() and (fit(np.random.RandomState(0)) == fit(np.random.RandomState(0))).all()
    assert (fit(None) != fit(None)).any() and (fit(2) != one).any()
    for wrong in (-1, 2**32, "one", 1.5):
        with pytest.raises(InputError, match="random_state"):
            fit(wrong)


def test_one_text_is_not_a_list_of_its_letters(fitted):
    for call in (fitted.predict_proba, fitted.bundle_.predict_proba, fitted.bundle_.predict, fitted.bundle_.encoder.encode):
        with pytest.raises(InputError, match="one text where a list of texts is needed"):
            call("abc")
    with pytest.raises(InputError, match="one text where"):
        encode_cached(fitted.bundle_.encoder, "abc")


def test_what_was_seen_is_a_matter_of_the_text(fitted, texts):
    bundle = fitted.bundle_
    table = lambda plots, ids=None: pd.DataFrame({"movie_id": ids or [f"new {i}" for i in range(len(plots))], "plot": plots})
    assert bundle.seen(table([t + "\n" for t in texts[:60]])).all()
    assert bundle.seen(table([f"  {t.upper()}".replace(" ", "\u00a0 ") for t in texts[:60]])).all()
    assert not bundle.seen(table(texts[60:], [f"row {i}" for i in range(1, 31)])).any()       # ids of rows that were seen
    assert bundle.seen(table([])).shape == (0,)
    as_it_stands = hashlib.sha256(texts[70].encode()).hexdigest()[:16]
    old = dataclasses.replace(bundle, rows={"train": {"1": as_it_stands}})
    assert old.seen(table(texts[69:72])).tolist() == [False, True, False]


def test_a_precision_that_is_none_is_said_to_be_none(fitted, tmp_path):
    folder = fitted.save(tmp_path / "bundle")
    with pytest.raises(InputError, match="unknown precision 'fp8'"):
        load_bundle(folder, precision="fp8")


@pytest.mark.slow
def test_the_card_s_scores_are_those_of_the_rules_too(texts):
    films = load_corpus("sample").iloc[:120]
    part = np.repeat(["train", "validation"], [90, 30])
    bundle = fit_recipe("article", films, part, encoder=BertEncoder(max_seq_len=32))
    assert len(bundle.rules)
    truth, unknown = binarize(films.genres[90:], bundle.classes_)
    named = bundle.predict(list(films["plot"][90:]))
    missed = np.array([len(u) for u in unknown])
    scores = {k: round(v, 4) for k, v in f1_scores(truth, named, missed=missed).items()}
    assert scores == {k: bundle.info["scores"][k] for k in scores}


@pytest.mark.slow
def test_article_longer_chooses_its_epochs_on_validation_rows(texts, monkeypatch):
    monkeypatch.setattr(model, "EPOCHS", (5, 60))
    films = load_corpus("sample").iloc[:120]
    part = np.repeat(["train", "validation"], [90, 30])
    bundle = fit_recipe("article-longer", films, part, encoder=BertEncoder(max_seq_len=32))
    assert bundle.info["recipe"] == "article-longer" and bundle.info["settings"] == {"epochs": 60} and len(bundle.rules)
    with pytest.raises(InputError, match="validation rows"):
        fit_recipe("article-longer", films, np.full(120, "train"))


@pytest.mark.slow
def test_labels_as_people_write_them(small, texts):
    "In Python as in files: one string a text, white space, a label that is none; lists in any column."
    some = [["Drama", "War"], ["War"], ["Drama"], ["Comedy", "War"]] * 15
    separated = ([", ".join(row) for row in some], "commas"), (pd.Series(["|".join(row) for row in some]), "vertical bars")
    lists = ([[f" {x} " for x in row] + [""] for row in some], pd.Series(some), pa.array(some),
             pa.chunked_array([some[:20], some[20:]]), np.array([*some, []], dtype=object)[:-1], [np.array(row) for row in some])
    for Y, mark in (*separated, *((Y, None) for Y in lists)):
        with warnings.catch_warnings(record=True) as said:
            assert recipes._label_lists(Y) == (["Comedy", "Drama", "War"], some, False)
        assert [str(w.message) for w in said] == ([f"labels separated by {mark}"] if mark else [])
    one, other = (clone(small).fit(texts[:60], Y) for Y in (some, pa.array(some)))
    assert one.predict(texts[60:]) == other.predict(texts[60:])


def test_a_label_that_means_nothing_is_left_out_aloud():
    with pytest.warns(UserWarning, match="2 cells say 'nan', which is read as no label"):
        assert recipes._label_lists([["Drama", "nan"], ["nan"], ["War"]])[1] == [["Drama"], [], ["War"]]


def test_any_column_of_texts(fitted, texts):
    want = fitted.predict_proba(texts[60:64])
    strings = np.array(texts[60:64], dtype=np.dtypes.StringDType())
    for column in (pd.Series(texts[60:64]), np.array(texts[60:64]), strings, tuple(texts[60:64]),
                   pd.Series(texts[60:64], dtype="string"), pa.array(texts[60:64]),
                   pa.chunked_array([texts[60:62], texts[62:64]])):
        assert (fitted.predict_proba(column) == want).all()


def test_an_emptied_text_is_a_text_without_words(fitted):
    with pytest.warns(UserWarning, match="empty texts get the probabilities"):
        probs = fitted.predict_proba(["", "  ", "A dog."])
    assert np.isfinite(probs).all() and np.abs(probs[0] - probs[1]).max() < 1e-6


@pytest.mark.slow
def test_copies_and_probabilities_across_folds(fitted, small, texts, Y):
    want = fitted.predict_proba(texts[60:])
    for again in (pickle.loads(pickle.dumps(fitted)), copy.deepcopy(fitted)):
        assert (again.predict_proba(texts[60:]) == want).all()
    assert cross_val_predict(small, texts, Y, cv=2, method="predict_proba").shape == Y.shape
    kept = cross_validate(small, texts, Y, cv=2, return_estimator=True)["estimator"]
    assert pickle.loads(pickle.dumps(kept[0])).predict(texts[:2]).shape == (2, 5)


@pytest.mark.slow
def test_two_threads_fit_as_one(small, texts, Y):
    fit = lambda _: clone(small).fit(texts[:60], Y[:60]).predict_proba(texts[60:])
    alone = fit(0)
    with ThreadPoolExecutor(2) as threads:
        assert all((probs == alone).all() for probs in threads.map(fit, range(2)))


def test_a_forked_process_predicts(fitted, texts):
    want = fitted.predict_proba(texts[60:62])
    if not (child := os.fork()):
        signal.alarm(60)
        os._exit(not (fitted.predict_proba(texts[60:62]) == want).all())
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.slow
def test_few_rows_and_labels_that_are_everywhere(texts):
    for recipe in ("article", "frozen"):
        few = TextClassifier(recipe, max_seq_len=16).fit(texts[:12], [["All", "A"], ["All", "B"]] * 6)
        assert few.predict_proba(texts[12:14]).shape == (2, 3)
