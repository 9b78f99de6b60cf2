"""Recipe `frozen` on corpora with awkward labels and rows, from films to a bundle that is loaded again."""
import dataclasses
import errno
import re
from collections import namedtuple

import numpy as np
import pandas as pd
import pytest

from bert_genres import recipes
from bert_genres.data import binarize, load_corpus
from bert_genres.embeddings import BertEncoder
from bert_genres.files import InputError
from bert_genres.model import load_bundle, save_bundle
from bert_genres.recipes import Frozen, fit_frozen, fit_kernel, fit_words, token_states
from bert_genres.splits import near_duplicates


@pytest.fixture(scope="module")
def encoder():
    return BertEncoder(max_seq_len=32, precision="fp32")


@pytest.fixture(scope="module")
def films():
    "90 films and a twin of the first; one label is on every row, another on one row."
    films = load_corpus("sample").iloc[:90]
    twin = films.iloc[:1].assign(movie_id="twin", title="", plot=films["plot"].iloc[0].rsplit(" ", 20)[0])
    films = pd.concat([films, twin], ignore_index=True)
    films["genres"] = [["A film", *genres] for genres in films.genres]
    films.at[5, "genres"] = [*films.genres[5], "Only here"]
    return films


@pytest.fixture(scope="module")
def part(films):
    part = np.array(["train"] * 60 + ["validation"] * 15 + ["test"] * 15 + ["train"])
    assert near_duplicates(films)[0] == near_duplicates(films)[-1]
    return part


@pytest.fixture(scope="module")
def small():
    "A small setting of the recipe: two networks, one for each half, on one layer."
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recipes, "FOLDS", 2)
        patch.setattr(recipes, "LAYERS", (-1, -2))
        patch.setattr(recipes, "TOPICS", 10)
        yield


@pytest.fixture(scope="module")
def fitted(films, part, encoder, small):
    return fit_frozen(films, part, encoder=encoder)


def test_company_order_and_storage_change_nothing(fitted, films, part, tmp_path):
    bundle, texts = fitted[0], list(films["plot"][part != "train"])
    together = bundle.predict_proba(texts)
    loaded = load_bundle(save_bundle(bundle, tmp_path / "frozen"), precision="fp32")
    ways = {"alone": np.concatenate([bundle.predict_proba([text]) for text in texts]),
            "reversed": bundle.predict_proba(texts[::-1])[::-1], "loaded": loaded.predict_proba(texts)}
    for name, probs in ways.items():
        assert probs.shape == together.shape == (30, len(bundle.classes_)), name
        assert np.abs(probs - together).max() < 1e-5, name
    sure = np.abs(together - bundle.threshold) > 1e-4
    assert (loaded.predict(texts) == bundle.predict(texts))[sure].all()
    assert np.allclose(loaded.threshold, bundle.threshold) and loaded.seen(films).sum() == 76


class Forged(Frozen):
    "A head that is stored as tensors say."
    def __init__(self, encoder, tensors):
        self.encoder, self.stored = encoder, tensors

    def tensors(self):
        return self.stored


FAULTS = {
    "a word twice": (lambda t: t | {"terms": text("\n".join(["ghost"] * len(t["idf"])))}, "Duplicate term"),
    "words that are no text": (lambda t: t | {"terms": np.full_like(t["terms"], 255)}, "UnicodeDecodeError"),
    "too few words": (lambda t: t | {"idf": t["idf"][1:]}, "idf"),
    "titles that are none": (lambda t: t | {"films": text("[1, 2]")}, "no titles"),
    "titles too deep": (lambda t: t | {"films": text("[" * 100_000)}, "too deep"),
    "queries of another width": (lambda t: t | {"queries": t["queries"][:, 1:]}, "queries"),
    "too many queries": (lambda t: t | {"queries": t["queries"][[*range(len(t["queries"])), 0]]}, "queries"),
    "NaN in the queries": (lambda t: t | {"queries": t["queries"] * np.nan}, "queries holds NaN"),
    "topics of other words": (lambda t: t | {"axes": t["axes"][1:]}, "axes"),
    "other topics": (lambda t: t | {"axes": t["axes"][:, 1:]}, "network0.kernel_1"),
    "no networks": (lambda t: {k: v for k, v in t.items() if not k.startswith("network")}, "network0.kernel_1"),
    "one network less": (lambda t: {k: v for k, v in t.items() if not k.startswith("network1")}, "network0.kernel_1"),
    "landmarks of another width": (lambda t: t | {"kernel.landmarks": t["kernel.landmarks"][:, 1:]}, "kernel.landmarks"),
    "other labels": (lambda t: t | {"kernel.prior": t["kernel.prior"][1:]}, "kernel.prior"),
    "names of another width": (lambda t: t | {"names.vectors": t["names.vectors"][:, 1:]}, "shape"),
    "an infinite weight": (lambda t: t | {"stack": t["stack"] * np.inf}, "stack holds NaN or an infinite number"),
    "no stack": (lambda t: {k: v for k, v in t.items() if k != "stack"}, "stack"),
}


def text(value):
    return np.frombuffer(value.encode(), np.uint8)


@pytest.mark.parametrize("change, says", FAULTS.values(), ids=FAULTS)
def test_a_bundle_that_makes_no_sense(change, says, fitted, tmp_path):
    tensors = change(fitted[0].head.tensors())
    folder = save_bundle(dataclasses.replace(fitted[0], head=Forged(fitted[0].encoder, tensors)), tmp_path / "frozen")
    with pytest.raises(InputError, match=re.escape(says)) as error:
        load_bundle(folder, precision="fp32")
    assert "\n" not in str(error.value)


def test_labels_on_every_row_and_on_one(fitted, films, part):
    bundle, held = fitted
    probs = bundle.predict_proba(list(films["plot"][part == "test"]))
    assert np.isfinite(probs).all() and (probs >= 0).all() and (probs <= 1).all()
    assert np.isfinite(bundle.threshold).all() and (bundle.threshold > 0).all()
    always, once = (bundle.classes_.index(name) for name in ("A film", "Only here"))
    assert bundle.decide(probs)[:, always].all() and (held["probs"] >= bundle.threshold)[:, always].all()
    assert bundle.decide(probs)[:, once].mean() < .2 and probs[:, once].max() < probs[:, always].min()
    assert bundle.threshold[once] <= bundle.threshold[always]             # the rarer, the lower


def test_a_twin_does_not_give_the_answer_away(films, encoder):
    _, words = fit_words(list(films["plot"]))
    vectors, Y = encoder.encode(list(films["plot"])), binarize(films.genres, sorted({g for x in films.genres for g in x}))[0]
    together = fit_kernel(words, vectors, Y, near_duplicates(films))[1]
    apart = fit_kernel(words, vectors, Y, np.arange(len(films)))[1]
    own = Y[0] & (Y.mean(0) < .5)                                          # not the labels that nearly all have
    assert (apart[[0, -1]][:, own] > together[[0, -1]][:, own] + .1).all()
    assert np.abs(apart - together)[1:-1].max() < 1e-4


def test_without_test_rows_all_rows_train(films, part, encoder, small):
    bundle, held = fit_frozen(films, np.where(part == "test", "validation", part), encoder=encoder)
    assert bundle.info["n_train"] == len(held["Y"]) == len(films)


def test_corpora_that_cannot_be_learnt_from(films, part, encoder, small):
    same = films.assign(genres=[["Drama"]] * len(films))
    with pytest.raises(InputError, match="nothing to tell apart"):
        fit_frozen(same, part, encoder=encoder)
    with pytest.raises(InputError, match="near-duplicates of one another"):
        fit_frozen(films.assign(plot=films["plot"].iloc[0]), part, encoder=encoder)
    with pytest.raises(InputError, match="no words"):
        fit_frozen(films.assign(plot="?"), part, encoder=encoder)


def test_token_states_leave_nothing_and_notice_a_full_disk(encoder, monkeypatch, tmp_path):
    monkeypatch.setenv("BERT_GENRES_CACHE", str(tmp_path))
    with token_states(encoder, ["A ghost in a house.", "A wedding."]) as (states, lengths):
        assert states.shape == (2, 32, 384) and list(tmp_path.iterdir()) == []      # gone also if the process were killed now
    monkeypatch.setattr(recipes.shutil, "disk_usage", lambda path: namedtuple("usage", "free")(1000))
    with pytest.raises(OSError) as refused, token_states(encoder, ["A ghost in a house.", "A wedding."]):
        pass
    assert refused.value.errno == errno.ENOSPC and str(tmp_path) in str(refused.value)
