"""The shipped corpus: what it is, and that its texts are its own."""
import re
from collections import Counter
from pathlib import Path
from statistics import median

import pytest

from bert_genres.data import SAMPLE, load_corpus, split_corpus

LIST = Path(__file__).resolve().parents[2] / "shared" / "sample_films.tsv"
LEFT_OUT = {"42221", "47661", "497737"}  # not known well enough to be told truthfully
# an ordinary word of the story, and no label: a dance floor, a gay man, Mystery Inc.
ORDINARY = {("54175", "Dance"), ("113452", "Gay"), ("680361", "Dance"), ("1072075", "Mystery")}


@pytest.fixture(scope="module")
def sample():
    return load_corpus("sample").set_index("movie_id")


def words(text):
    return re.findall(r"[a-z0-9]+", text.lower())


def runs(text, n=9):
    w = words(text)
    return {" ".join(w[i:i + n]) for i in range(len(w) - n + 1)}


def test_ids_titles_years_and_genres_are_those_of_the_list(sample):
    if not LIST.exists():
        pytest.skip(f"needs {LIST.parent.name}/{LIST.name} beside the repository")
    rows = [line.split("\t") for line in LIST.read_text().split("\n")[1:] if line]
    assert {r[0] for r in rows} - set(sample.index) == LEFT_OUT and len(sample) == len(rows) - len(LEFT_OUT)
    for movie_id, title, year, genres in rows:
        if movie_id not in LEFT_OUT:
            film = sample.loc[movie_id]
            assert (film.title, film.year, sorted(film.genres)) == (title, year, sorted(genres.split("|")))


def test_lengths(sample):
    lengths = sample["plot"].str.split().str.len()
    assert lengths.between(60, 130).all() and 80 <= median(lengths) <= 100


def test_no_run_of_nine_words_stands_twice(sample):
    counts = Counter(run for plot in sample["plot"] for run in runs(plot))
    assert [run for run, n in counts.items() if n > 1] == []


def test_no_run_of_nine_words_is_from_the_large_corpus(sample, archive_texts):
    ours = {run for plot in sample["plot"] for run in runs(plot)}
    for line in archive_texts["plot_summaries.txt"].split("\n"):
        assert not ours & runs(line.partition("\t")[2])


def test_no_summary_names_its_own_genre(sample):
    found = {(movie_id, genre) for movie_id, film in sample.iterrows() for genre in film.genres
             if re.search(rf"\b{re.escape(genre)}\b", film["plot"], re.I)}
    assert found == ORDINARY
    label = r"\b(comedy|drama|thriller|western|musical|film|movie|biopic|documentary)\b"
    assert {i for i, film in sample.iterrows() if re.search(label, film["plot"], re.I)} <= {"113549"}  # a "scary movie"


def test_openings_differ(sample):
    first = Counter(" ".join(words(plot)[:3]) for plot in sample["plot"])
    assert sum(n for n in first.values() if n > 1) / len(sample) < 0.03


def test_the_stored_split_is_the_seeded_one(sample):
    films = sample.reset_index()
    assert (split_corpus(films, corpus="sample") == split_corpus(films)).all()


def test_files_are_in_cmu_format():
    for line in (SAMPLE / "movie.metadata.tsv").read_text().rstrip("\n").split("\n"):
        assert line.count("\t") == 8
