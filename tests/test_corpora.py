"""Corpora in, exactly or refused: the real corpus, and every way in which a file can be wrong."""
import gzip
import io
import os
import shutil
import subprocess
import sys
import tarfile
import unicodedata
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from bert_genres import data
from bert_genres.cooccurrence import implications
from bert_genres.data import binarize, label_names, load_corpus, read_metadata, split_all_rows, split_corpus, stratify
from bert_genres.files import InputError, download
from bert_genres.splits import near_duplicates, normalize_text

META = '{i}\t/m/{i}\tTitle {i}\t2001\t\t\t{{}}\t{{}}\t{{"/m/d": "Drama"}}'


def archive_of(path, metadata, plots, mode="w:gz"):
    with tarfile.open(path, mode) as tar:
        for name, text in [("movie.metadata.tsv", metadata), ("plot_summaries.txt", plots)]:
            info = tarfile.TarInfo(f"MovieSummaries/{name}")
            info.size = len(text.encode())
            tar.addfile(info, io.BytesIO(text.encode()))
    return path


def test_the_article_s_dependencies_over_the_complete_metadata(archive_texts):
    films = read_metadata(archive_texts["movie.metadata.tsv"])
    assert len(films) == 81_741
    classes = label_names(films.genres)
    assert len(classes) == 363
    confidence = implications(binarize(films.genres, classes)[0], classes).set_index(["a", "b"]).confidence
    pairs = [("Action Comedy", "Action"), ("Action Comedy", "Comedy"), ("Action Thrillers", "Action"),
             ("Action Thrillers", "Thriller"), ("Adventure Comedy", "Comedy")]
    assert [round(confidence[p], 3) for p in pairs] == [0.953, 0.941, 0.940, 0.903, 0.889]


def test_the_archive_s_films_and_their_split(archive):
    films = load_corpus(archive)
    part, groups = split_corpus(films), near_duplicates(films)
    assert len(films) == 10_074
    shares = [(part == p).mean() for p in ("train", "validation", "test")]
    assert np.allclose(shares, [0.8, 0.1, 0.1], atol=0.01)
    for group in np.unique(groups[np.bincount(groups)[groups] > 1]):
        assert len(set(part[groups == group])) == 1
    Y = binarize(films.genres, label_names(films.genres))[0]
    enough = Y.sum(0) >= 20
    assert np.abs(Y[part == "test"].sum(0) / Y.sum(0) - 0.1)[enough].max() < 0.06


def table(texts, **columns):
    films = pd.DataFrame({"movie_id": [str(i) for i in range(len(texts))], "title": "", "year": "", "plot": texts})
    return films.assign(genres=[["A", "B"][:1 + i % 2] for i in range(len(films))], **columns)


CHINESE = ["国王离开了他的城堡独自走向大海", "小偷在雨中抢劫银行被妹妹抓住"]


@pytest.mark.parametrize("texts, groups", [
    (["My parcel never came", "Where is my refund?"] * 10, 2),
    ([f"{a} {b} {a} {b}" for a, b in zip("lamp mail shoe book case dish tree road fish bird".split(),
                                          "blue flat late grey rude cold warm soft dark bold".split(), strict=True)] * 3, 10),
    (CHINESE * 6, 2),
    ([*CHINESE, CHINESE[0][:-3] + "山谷里", CHINESE[1][2:] + "了"], 2),          # edited at one end
    (["My parcel never came.", "my  parcel NEVER came!", "My parcel nver came", "My parcel\u200b never came\n"], 1),
    (["Ｍｙ parcel never came to this house", "My parcel never came to this house "], 1),       # full width
    (["cafe\u0301 closed", "caf\u00e9 closed", "?!", "?! ", "!?", "\U0001f600", "\U0001f600\ufeff"], 4),
    (["My parcel never came", "My lamp never worked", "My parcel is lost", "Where is my parcel"], 4),
])
def test_same_and_alike_short_texts(texts, groups):
    found = near_duplicates(table(texts))
    assert len(set(found)) == groups and found.max() == groups - 1


def test_no_two_rows_of_equal_normalised_text_on_two_sides():
    rng = np.random.default_rng(0)
    words, ways = "lamp mail shoe book 国 王 ß \u00e9 i can't ! \U0001f600".split(), [
        str.upper, str.title, lambda t: f"{t}\n", lambda t: t.replace(" ", "\u00a0 "), lambda t: f"\ufeff{t}",
        lambda t: unicodedata.normalize("NFD", t), lambda t: t]
    for seed in range(20):
        kinds = [" ".join(rng.choice(words, rng.integers(1, 9))) for _ in range(25)]
        texts = [ways[rng.integers(len(ways))](kinds[k]) for k in rng.integers(25, size=80)]
        films = table(texts)
        text = films["plot"].map(normalize_text)
        for part in (split_corpus(films, seed), split_all_rows(films, seed), stratify(films, [.2] * 5, seed)):
            assert pd.Series(part).groupby(text).nunique().max() == 1


def test_what_many_texts_share_is_no_sign_of_a_copy():
    code = """
import random, resource
import pandas as pd
from bert_genres.splits import near_duplicates
rng = random.Random(0)
mails = [" ".join(f"w{rng.randrange(5000)}" for _ in range(12)) for _ in range(10_000)]
footer = " sent from my phone please consider the environment before you print this mail"
films = pd.DataFrame({"title": "", "year": "", "plot": [mail + footer for mail in mails] + [mails[7] + footer + " bye"]})
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
groups = near_duplicates(films)
print(len(set(groups)), groups[7] == groups[-1], (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert said[:2] == ["10000", "True"] and int(said[2]) < 500        # MB; every pair of them would be 4,000


def test_a_column_group_is_the_answer():
    films = table(["one text"] * 4, group=["x", "y", "x", "z"])
    assert near_duplicates(films).tolist() == [0, 1, 0, 2]
    assert near_duplicates(films[1:]).tolist() == [0, 1, 2]


def test_a_digest_of_code_is_of_all_that_is_imported(tmp_path):
    shutil.copytree(Path(data.__file__).parent, tmp_path / "bert_genres")
    call = "from bert_genres.files import code_digest; print(*map(code_digest, ('data', 'evaluation', 'model', 'finetuning')))"
    digests = lambda: subprocess.run([sys.executable, "-c", call], capture_output=True, text=True, check=True, cwd=tmp_path,
                                     env=os.environ | {"PYTHONPATH": str(tmp_path)}).stdout.split()
    before, changed = digests(), []
    for name, text in [("bundles.py", "BUNDLE_FORMAT"), ("baselines.py", "halfway"), ("__init__.py", "0.")]:
        path = tmp_path / "bert_genres" / name
        path.write_text(path.read_text().replace(text, f"{text}1", 1))
        changed.append([a != b for a, b in zip(before, digests(), strict=True)])
        before = digests()
    assert changed == [[False, False, True, True], [False, False, False, True], [True] * 4]


def test_near_duplicates_are_found_and_kept_together(archive):
    films = load_corpus(archive).head(600)
    twins = films.head(40).assign(movie_id=[f"twin-{i}" for i in range(40)], title="", year="")
    twins["plot"] = [" ".join(plot.split()[:60]) for plot in twins["plot"]]      # the first sixty words of a plot
    both = pd.concat([films, twins], ignore_index=True)
    groups = near_duplicates(both)
    assert (groups[:40] == groups[600:]).all()
    part = split_corpus(both)
    assert (part[:40] == part[600:]).all()


def write(path, text):
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


BAD_TABLES = [
    ("t.csv", "subject,genres\na,b\n", "no column 'text' or 'plot' for the texts \\(it has: 'subject'"),
    ("t.csv", "plot\na\n", "no column 'labels' or 'genres' for the labels"),
    ("t.csv", b"plot,genres\n\xff\xfe,b\n", "row 1: plot: not UTF-8"),
    ("t.csv", b"plot,genres\na,\xff\xfe\n", "row 1, genres: not UTF-8"),
    ("t.csv", "", "no column 'text' or 'plot' for the texts \\(it has: none"),
    ("t.csv", "plot,gnres\na,b\n", "no column 'labels' or 'genres' for the labels \\(is 'gnres' meant"),
    ("t.csv", "plot,genres\na,\"Health, Safety\"\nb,IT\n", "is 'Health, Safety' one label or several\\? --label-separator"),
    ("t.csv", "plot,genres\na,1 0 1\nb,0 1 0\n", "genres: the cells hold 0 and 1 and no names"),
    ("t.csv", "plot,text,genres\na,b,c\n", "the texts may be in 'text' or 'plot': choose one with --text-column"),
    ("t.csv", "plot,plot,genres\na,b,c\n", "2 columns are named 'plot'"),
    ("t.xlsx", "", "not a format that can be read: .csv, .tsv, .jsonl, .ndjson, .json, .txt, .parquet"),
    ("t.json", '{\n"a": 1}', "neither rows nor columns"),
    ("t.csv", 'plot,genres\n"never closed,b,c\n', "line 2: not readable as CSV"),
    ("t.csv.gz", b"no gzip", "not a readable .gz file"),
    ("t.jsonl", '{"plot": "a", "genres": ["b"]}\n{"plot": \n', "row 2: broken JSON"),
    ("t.jsonl", "[1]\n", "row 1: not a JSON object"),
    ("t.jsonl", '{"plot": "a", "genres": ["b"], "n": ' + "9" * 5000 + "}\n", "row 1: broken JSON \\(a number of too many digits"),
    ("t.jsonl", "[" * 100_000 + "\n", "broken JSON \\(too deep"),
    ("t.jsonl", '{"plot": 7, "genres": ["b"]}\n', "row 1: plot: not a text"),
    ("t.jsonl", '{"plot": "a", "genres": ["b"]}\n{"plot": "a", "genres": [true]}\n', "genres: row 2: neither a name nor"),
    ("t.jsonl", '{"plot": "a", "genres": {"b": 0.5}}\n', "genres: row 1: an object whose values are neither names nor 0 and 1"),
    ("t.jsonl", '{"plot": "a", "genres": []}\n', "none of its films has both"),
    ("t.jsonl", '{"movie_id": 1, "plot": "a", "genres": ["x"]}\n{"movie_id": 1, "plot": "b", "genres": ["x"]}\n',
     "id '1' stands on 2 rows"),
    ("t.jsonl", '{"plot": "half \\ud83d", "genres": ["b"]}\n', "row 1: plot: has half a character"),
    ("t.csv", "plot,genres\na dog, a cat,b\n", "more fields than the header"),
    ("t.parquet", b"not parquet", "not readable as Parquet"),
    ("t.txt", "a", "no column 'labels' or 'genres'"),
]


@pytest.mark.parametrize("name, content, message", BAD_TABLES)
def test_bad_tables(tmp_path, name, content, message):
    with pytest.raises(InputError, match=message):
        load_corpus(write(tmp_path / name, content))


def test_bad_archives(tmp_path, archive):
    good = META.format(i=1) + "\n"
    cases = [
        (META.format(i=1).rsplit("\t", 1)[0] + "\n", "1\ta plot\n", "movie.metadata.tsv, row 1: 8 columns"),
        (good.replace('"Drama"}', '"Drama"'), "1\ta plot\n", "row 1, genres: broken JSON"),
        (good, "1 a plot\n", "plot_summaries.txt, row 1: no tab"),
        (good.replace('{"/m/d": "Drama"}', "{}"), "1\ta plot\n", "none of its films has both"),
        (good, "2\tan id without metadata\n", "none of its films has both"),
    ]
    for k, (metadata, plots, message) in enumerate(cases):
        with pytest.raises(InputError, match=message):
            load_corpus(archive_of(tmp_path / f"{k}.tar.gz", metadata, plots))
    truncated = write(tmp_path / "truncated.tar.gz", archive.read_bytes()[:3_000_000])
    with pytest.raises(InputError, match="not a readable archive"):
        load_corpus(truncated)
    with pytest.raises(InputError, match="not a readable archive"):
        load_corpus(write(tmp_path / "noise.tar.gz", b"noise" * 1000))
    with pytest.raises(InputError, match="expands to more than 200 times"):
        load_corpus(archive_of(tmp_path / "bomb.tar.gz", good, "1\t" + "a" * 30_000_000))


def test_archives_that_reach_outside(tmp_path):
    "Links and absolute paths in an archive are no files to read, and nothing is ever unpacked."
    outside = write(tmp_path / "outside.txt", "1\ta plot from elsewhere\n")
    with tarfile.open(tmp_path / "links.tar.gz", "w:gz") as tar:
        for name in ("movie.metadata.tsv", "plot_summaries.txt"):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, str(outside)
            tar.addfile(link)
    with pytest.raises(InputError, match="has no movie.metadata.tsv"):
        load_corpus(tmp_path / "links.tar.gz")
    with tarfile.open(tmp_path / "paths.tar.gz", "w:gz") as tar:
        for name, content in (("/etc/movie.metadata.tsv", META.format(i=1) + "\n"), ("../plot_summaries.txt", "1\ta plot\n")):
            member = tarfile.TarInfo(name)
            member.size = len(content.encode())
            tar.addfile(member, io.BytesIO(content.encode()))
    before = sorted(tmp_path.rglob("*"))
    assert load_corpus(tmp_path / "paths.tar.gz")["plot"].tolist() == ["a plot"]
    assert sorted(tmp_path.rglob("*")) == before


def test_what_a_table_may_hold(tmp_path):
    "A byte-order mark, carriage returns, line breaks and NULs in cells, a plot of 10 MB, compression: the same films."
    long = "A very long story. " * 550_000
    content = f'plot,genres\r\n"A dog,\r\nlost.\x00",Family|Drama\r\n{long},Epic\r\n'
    plain = load_corpus(write(tmp_path / "t.csv", content.encode("utf-8-sig")))
    assert plain["plot"].tolist() == ["A dog,\r\nlost.\x00", long.strip()]
    assert plain.genres.tolist() == [["Family", "Drama"], ["Epic"]]
    write(tmp_path / "u.csv", b"plot,genres\r\n" + b"".join(f"story {i},A\r\n".encode() for i in range(5000)))
    for suffix, pack in ((".gz", gzip.compress), (".zst", pa.Codec("zstd").compress)):
        packed = pack((tmp_path / "u.csv").read_bytes())
        packed = load_corpus(write(tmp_path / f"u.csv{suffix}", packed if isinstance(packed, bytes) else packed.to_pybytes()))
        assert packed.equals(load_corpus(tmp_path / "u.csv"))


def test_ids_of_own_tables(tmp_path):
    rows = '{"movie_id": 7, "year": 1999, "plot": "a", "genres": ["x"]}\n{"movie_id": null, "plot": "b", "genres": ["x"]}\n'
    films = load_corpus(write(tmp_path / "t.jsonl", rows + '{"plot": "c", "genres": ["x"]}\n'))
    assert films.movie_id[0] == "7" and films.year[0] == "1999" and films.movie_id.is_unique
    other = load_corpus(write(tmp_path / "u.jsonl", '{"plot": "z", "genres": ["x"]}\n' * 1))
    assert not set(other.movie_id) & set(films.movie_id)


def test_what_is_left_out_is_counted_aloud(tmp_path, capsys):
    metadata = "\n".join([META.format(i=1), META.format(i=2), META.format(i=3).replace('{"/m/d": "Drama"}', "{}")]) + "\n"
    films = load_corpus(archive_of(tmp_path / "a.tar.gz", metadata, "1\tone\n2\t\n3\tthree\n4\tfour\n"))
    assert films.movie_id.tolist() == ["1"]
    said = capsys.readouterr().err
    for what in ["1 films whose id has no metadata", "1 films with an empty plot", "1 films without a genre"]:
        assert what in said


def test_a_folder_reads_like_its_archive(tmp_path):
    (tmp_path / "f").mkdir()
    plots = '1\t"A quote that never ends.\n2\tA second film, with a "quote".\n'
    metadata = META.format(i=1) + "\n" + META.format(i=2) + "\n"
    write(tmp_path / "f" / "movie.metadata.tsv", metadata)
    write(tmp_path / "f" / "plot_summaries.txt", plots)
    folder = load_corpus(tmp_path / "f")
    assert folder.equals(load_corpus(archive_of(tmp_path / "a.tar.gz", metadata, plots)))
    assert folder["plot"].tolist() == ['"A quote that never ends.', 'A second film, with a "quote".']


class Flaky(SimpleHTTPRequestHandler):
    "Serves bytes with Range; the first request breaks off half way."
    data, ranges = bytes(range(256)) * 120_000, []          # 31 MB: the client keeps what it has in steps of 10

    def do_HEAD(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.data)))
        self.end_headers()

    def do_GET(self):
        start = int(self.headers.get("Range", "bytes=0-").split("=")[1].split("-")[0])
        self.ranges.append(start)
        body = self.data[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(self.data) - 1}/{len(self.data)}")
        self.end_headers()
        self.wfile.write(body[:len(body) // 2] if len(self.ranges) == 1 else body)

    def log_message(self, *args):
        pass


def test_a_broken_download_goes_on_where_it_stopped(tmp_path):
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Flaky))
    Thread(target=server.serve_forever, daemon=True).start()
    url, target = f"http://127.0.0.1:{server.server_port}/x.bin", tmp_path / "x.bin"
    try:
        for _ in range(3):
            try:
                download(url, target)
            except ConnectionError:
                assert not target.exists()
        assert target.read_bytes() == Flaky.data
        assert len(Flaky.ranges) > 1 and max(Flaky.ranges) > 0          # went on, not from the start
    finally:
        server.shutdown()


def test_no_network_where_it_is_forbidden(tmp_path, run):
    done = run("train", "cmu", "--out", tmp_path / "b", env={"BERT_GENRES_OFFLINE": "1", "BERT_GENRES_CACHE": str(tmp_path)})
    assert done.returncode == 3 and b"BERT_GENRES_OFFLINE" in done.stderr
