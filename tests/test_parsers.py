"""Readers of other people's files under whatever hypothesis comes up with: rows are texts or errors, nothing else is raised."""
import csv
import gzip
import json
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_genres.data import load_corpus, read_metadata, read_plots
from bert_genres.files import InputError
from bert_genres.tables import open_table, read_texts, text_error

# FUZZ=20000 pytest tests/test_parsers.py looks longer, and elsewhere each time
EXAMPLES = os.environ.get("FUZZ")
settings.register_profile("here", max_examples=int(EXAMPLES or 150), deadline=None, derandomize=EXAMPLES is None)
settings.load_profile("here")

cells = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
# bytes that look a little like a table, so that the readers get further than the first line
scraps = st.sampled_from([b"plot,genres\n", b"plot\tgenres", b'{"plot": "a", "genres": ["b"]}\n', b'"', b",", b"\n", b"\r\n",
                          b"\x00", b"\xff", b"\xef\xbb\xbf", b"[", b"{", b"\\ud83d", b"NaN", b"1\ta plot\n", b"|",
                          "é".encode(), b" "])
noise = st.lists(st.one_of(scraps, st.binary(max_size=8)), max_size=30).map(b"".join)


@pytest.fixture(scope="module")
def folder():
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@given(st.lists(st.tuples(cells, cells), max_size=8))
def test_a_table_that_was_written_is_read_as_it_was(folder, rows):
    path = folder / "t.csv"
    with open(path, "w", encoding="utf-8-sig", newline="") as f:
        csv.writer(f).writerows([("plot", "movie_id"), *rows])
    with open_table(path) as table:
        got = [(row["plot"], row["movie_id"]) for _, row, error in table.rows if error is None]
    words = lambda rows: [tuple(" ".join(cell.split()) for cell in row) for row in rows]
    assert words(got) == words(rows)            # but for a space after a comma, and carriage returns within a line
    path = folder / "t.jsonl.gz"
    path.write_bytes(gzip.compress("".join(json.dumps({"plot": p, "movie_id": i}) + "\n" for p, i in rows).encode()))
    with open_table(path) as table:
        assert [(row["plot"], row["movie_id"]) for _, row, _ in table.rows] == rows


@given(noise, st.sampled_from([".csv", ".jsonl", ".tsv", "", ".csv.gz", ".jsonl.gz"]), st.booleans())
def test_any_bytes_are_texts_or_errors(folder, content, suffix, packed):
    path = folder / f"noise{suffix}"
    path.write_bytes(gzip.compress(content) if suffix.endswith(".gz") and packed else content)
    try:
        rows = list(read_texts(path))
    except InputError as e:
        assert path.name in str(e) and "\n" not in str(e).strip()
        return
    for n, key, plot, error in rows:
        assert n >= 1 and text_error(key) is None and (plot is None) != (error is None)
        assert plot is None or (plot.strip() == plot != "" and text_error(plot) is None)


@given(noise, st.sampled_from([".csv", ".jsonl"]))
def test_any_bytes_are_a_corpus_or_an_error(folder, content, suffix):
    path = folder / f"corpus{suffix}"
    path.write_bytes(content)
    try:
        films = load_corpus(path)
    except InputError as e:
        assert path.name in str(e)
        return
    assert films.movie_id.is_unique and (films["plot"] != "").all() and (films.genres.str.len() > 0).all()
    json.dumps(films.to_dict("records"), ensure_ascii=False).encode()


@given(st.text(max_size=200))
def test_any_text_is_metadata_or_an_error(text):
    for read in (read_metadata, read_plots):
        try:
            read(text)
        except InputError as e:
            assert "row" in str(e)


def test_gzip_that_is_cut_anywhere(folder):
    whole, path = gzip.compress(b"plot\n" + b"a plot\n" * 3, mtime=0), folder / "cut.csv.gz"
    for size in range(len(whole)):                       # also cut to nothing, which is a table without columns
        path.write_bytes(whole[:size])
        with pytest.raises(InputError):
            list(read_texts(path))
