"""The command as its users call it, with real files, right and wrong; in a process of its own where that matters."""
import gzip
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
import pytest
from conftest import one_line, small_disk

from bert_genres import splits
from bert_genres.data import SAMPLE, load_corpus, split_corpus
from bert_genres.embeddings import BertEncoder
from bert_genres.files import register_names
from bert_genres.model import load_bundle
from bert_genres.recipes import BEST


@pytest.fixture(scope="module")
def sample():
    films = load_corpus("sample")
    return films.assign(part=split_corpus(films, corpus="sample"))


@pytest.fixture(scope="module")
def texts(sample, tmp_path_factory):
    "The same thirty plots as a table of every kind: {suffix: path}."
    folder, films = tmp_path_factory.mktemp("texts"), sample.head(30)
    rows = films[["movie_id", "plot"]]
    rows.to_csv(folder / "t.csv", index=False)
    rows.to_parquet(folder / "t.parquet")
    rows.to_json(folder / "t.jsonl", orient="records", lines=True, force_ascii=False)
    (folder / "t.tsv").write_text("".join(f"{i}\t{p}\n" for i, p in zip(rows.movie_id, rows["plot"], strict=True)))
    return {p.suffix: p for p in folder.iterdir()}


def lines(data):
    return [json.loads(line) for line in data.decode().splitlines()]


def test_version_and_help(run_process):
    import bert_genres

    assert run_process("--version").stdout.decode().split() == ["bert-genres", bert_genres.__version__]
    assert b"--no-correction" in run_process("predict", "--help").stdout
    said = " ".join(run_process("train", "--help").stdout.decode().split())
    assert f"(now {BEST})" in said and all(f"{name}: {line}" in said for name, line in register_names("recipe").items())


def test_predict_gives_the_bundle_s_decisions_in_order(run_process, bundle_dir, sample, texts):
    done = run_process("predict", bundle_dir, texts[".tsv"])
    assert done.returncode == 0 and done.stderr == b""
    rows = lines(done.stdout)
    bundle, films = load_bundle(bundle_dir), sample.head(30)
    probs = bundle.predict_proba(list(films["plot"]))
    assert [r["id"] for r in rows] == films.movie_id.tolist()
    assert [r["genres"] for r in rows] == bundle.names(probs, bundle.decide(probs))
    for row, p in zip(rows, probs, strict=True):
        shown = list(row["probabilities"].values())
        assert shown == sorted(shown, reverse=True) and set(row["genres"]) <= row["probabilities"].keys()
        assert len(shown) >= 20 and abs(shown[0] - p.max()) < 1e-6


def test_every_format_gives_the_same_rows(run, bundle_dir, texts, sample, tmp_path):
    want = lines(run("predict", bundle_dir, texts[".tsv"]).stdout)
    for suffix, path in texts.items():
        out = tmp_path / f"{suffix[1:]}.jsonl"
        assert run("predict", bundle_dir, path, "--out", out).stdout == b""
        assert lines(out.read_bytes()) == want
    stdin = "\n".join(sample["plot"].head(30)).encode()
    rows = lines(run("predict", bundle_dir, "-", stdin=stdin).stdout)
    assert [r["id"] for r in rows] == [str(n) for n in range(1, 31)] and [r["genres"] for r in rows] == [
        r["genres"] for r in want]


def test_threshold_and_correction(run, bundle_dir, texts):
    at = {t: lines(run("predict", bundle_dir, texts[".tsv"], "--threshold", t, "--no-correction").stdout)
          for t in (0.05, 0.2, 0.9)}
    corrected = lines(run("predict", bundle_dir, texts[".tsv"], "--threshold", 0.05).stdout)
    for low, middle, high, more in zip(*at.values(), corrected, strict=True):
        assert set(high["genres"]) <= set(middle["genres"]) <= set(low["genres"]) <= set(more["genres"])
        assert all(low["probabilities"][g] >= 0.05 for g in low["genres"])


def test_evaluate_leaves_out_what_the_bundle_has_seen(run, bundle_dir, sample, tmp_path):
    scores = json.loads(run("evaluate", bundle_dir, "sample").stdout)
    test = sample[sample.part == "test"]
    assert scores["n"] == len(test) and scores["n_excluded"] == len(sample) - len(test)
    for k in ("micro_f1", "samples_f1"):
        low, high = scores[f"{k}_ci95"]
        assert 0 <= low <= scores[k] <= high <= 1
    table = test.assign(movie_id="x" + test.movie_id)[["movie_id", "plot", "genres"]]
    table["genres"] = table.genres.map(lambda g: [*g, "Opera buffa"])                   # a label that nobody knows
    table.to_json(tmp_path / "t.jsonl", orient="records", lines=True)
    unknown = json.loads(run("evaluate", bundle_dir, tmp_path / "t.jsonl").stdout)
    assert unknown["unknown_labels"] == ["Opera buffa"] and unknown["n_excluded"] == 0
    assert unknown["micro_f1"] < scores["micro_f1"] and unknown["macro_f1"] == scores["macro_f1"]


def test_evaluate_knows_a_seen_text_under_another_id(run, bundle_dir, sample, tmp_path):
    seen = sample[sample.part == "train"].head(5)
    seen = seen.assign(movie_id="new" + seen.movie_id, plot="  " + seen["plot"].str.upper())[["movie_id", "plot", "genres"]]
    seen.to_json(tmp_path / "t.jsonl", orient="records", lines=True)
    assert "trained or chosen on each of its 5 texts" in one_line(run("evaluate", bundle_dir, tmp_path / "t.jsonl"), 2)


def test_encode_writes_the_encoder_s_vectors(run, texts, sample, tmp_path):
    plots = list(sample["plot"].head(30))
    for flags, settings in [((), {}), (("--layer", -1, "--pooling", "mean_max"), {"layer": -1, "pooling": "mean_max"}),
                            (("--pooling", "none", "--max-seq-len", 32), {"pooling": "none", "max_seq_len": 32})]:
        out = tmp_path / "v.npy"
        assert run("encode", texts[".csv"], "--out", out, "--precision", "fp32", *flags).returncode == 0
        got, want = np.load(out), BertEncoder(precision="fp32", **settings).encode(plots)
        assert got.dtype == np.float32 and got.shape == want.shape and np.abs(got - want).max() < 1e-5


NOT_UTF8 = "text is not UTF-8 (files from Windows are often in cp1252: --encoding cp1252)"
BAD_TEXTS = [
    ("t.tsv", "1\ta plot\n2 no tab\n", "row 2: no tab between id and text"),
    ("t.tsv", "1\ta plot\n2\t  \n", "row 2: empty text"),
    ("t.tsv", b"1\ta plot\n2\t\xff\xfe\n", "row 2: text is not UTF-8"),
    ("t.csv", "words\na\n", "no column 'text' or 'plot' for the texts (it has: 'words'"),
    ("t.csv", "plot,movie_id\na,1\n,2\n", "row 2: empty plot"),
    ("t.csv", "", "no column 'text' or 'plot' for the texts (it has: none"),
    ("t.csv", '"plot,genres\n"', "no column 'text' or 'plot' for the texts (it has: 'plot,genres'"),
    ("t.csv", "Plots,movie_id\na,1\n", "no column 'text' or 'plot' for the texts (is 'Plots' meant?"),
    ("t.csv", "plot,plot\na,b\n", "2 columns are named 'plot'"),
    ("t.csv", 'plot\n"never closed\n', "not readable as CSV"),
    ("t.csv", b"plot,movie_id\na,1\ncaf\xe9,2\n", "row 2: plot is not UTF-8"),
    ("t.csv", b"plot,movie_id\na,\xe9\n", "row 1: id: not UTF-8"),
    ("t.csv.gz", gzip.compress(b"plot\na\n\n \n", mtime=0), "row 2: empty plot"),
    ("t.csv.gz", gzip.compress(b"plot\n" + random.Random(0).randbytes(9999))[:5000], "not a readable .gz file"),
    ("t.csv.gz", b"no gzip", "not a readable .gz file"),
    ("t.csv.zst", b"no zstd", "not a readable .zst file"),
    ("t.jsonl.gz", gzip.compress(bytes(30_000_000)), "expands to more than 200 times"),
    ("t.jsonl", '{"Plots": "a"}\n', "no column 'text' or 'plot' for the texts (is 'Plots' meant?"),
    ("t.jsonl", "[" * 100_000 + "\n", "broken JSON (too deep)"),
    ("t.jsonl", '{"plot": "a"}\n["a"]\n', "row 2: not a JSON object"),
    ("t.jsonl", '{"plot": NaN}\n', "row 1: empty plot"),
    ("t.jsonl", '{"plot": "a"}\n{"plot": "b", "n": %s}\n' % ("7" * 5000), "row 2: broken JSON (a number of too many digits)"),
    ("t.jsonl", '{"plot": "a"}\n{"plot"\n', "row 2: broken JSON"),
    ("t.jsonl", '{"plot": ["a"]}\n', "row 1: plot is not a text"),
    ("t.jsonl", '{"plot": "a"}\n{"text": "b"}\n', "the texts may be in 'text' or 'plot'"),
    ("t.zip", "no zip", "not a format that can be read: .csv"),
    ("t.csv.zip", "no zip", "not a readable .zip file"),
    ("t.jsonl", b'{"plot": "a"}\n\xff\n', "row 2: not UTF-8"),
    ("t.jsonl", '{"plot": "half \\ud83d"}\n', "row 1: plot has half a character"),
    ("t.csv", "movie_id,plot\n1,a dog, a cat\n", "more fields than the header"),
    ("t.parquet", "no parquet", "not readable as Parquet"),
    ("t.docx", "a", "not a format that can be read: .csv, .tsv, .jsonl, .ndjson, .json, .txt, .parquet"),
    ("t.gz", "a", "not a format that can be read: .csv"),
]


@pytest.mark.parametrize("name, content, message", BAD_TEXTS, ids=[f"{name}: {message}" for name, _, message in BAD_TEXTS])
def test_bad_texts(run, bundle_dir, tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    for call in (("predict", bundle_dir, path, "--out", tmp_path / "out"), ("encode", path, "--out", tmp_path / "out.npy")):
        said = one_line(run(*call), 2)
        assert message in said and name in said
    assert [p.name for p in tmp_path.iterdir()] == [name]                                # nothing left behind


def test_bad_rows_become_error_rows_where_asked(run, bundle_dir, tmp_path):
    path = tmp_path / "t.tsv"
    path.write_bytes(b"1\tA ghost haunts an inn.\n2\t\n3 no tab\n4\t\xff\n5\tA heist fails.\n")
    rows = lines(run("predict", bundle_dir, path, "--skip-bad").stdout)
    assert [r.get("error") for r in rows] == [None, "empty text", "no tab between id and text", NOT_UTF8, None]
    assert rows[0]["id"] == "1" and rows[4]["probabilities"]


def test_an_empty_input_is_an_empty_output(run, bundle_dir, tmp_path):
    done = run("predict", bundle_dir, "-", stdin=b"")
    assert (done.returncode, done.stdout) == (0, b"") and b"standard input: no rows\n" in done.stderr
    (tmp_path / "t.csv").write_text("movie_id,plot\n")
    done = run("predict", bundle_dir, tmp_path / "t.csv", "--out", tmp_path / "out.jsonl")
    assert done.returncode == 0 and f"{tmp_path / 't.csv'}: no rows\n" in done.stderr.decode()
    assert (tmp_path / "out.jsonl").read_bytes() == b""
    (tmp_path / "t.tsv").write_bytes(b"")
    assert run("encode", tmp_path / "t.tsv", "--out", tmp_path / "v.npy").returncode == 0
    assert np.load(tmp_path / "v.npy").shape == (0, 384)


def test_a_mistake_in_a_new_process(run_process, tmp_path):
    assert "no such file" in one_line(run_process("train", "nowhere.tar.gz", "--out", tmp_path / "b"), 2)


def test_mistakes_are_one_line_and_status_2(run, bundle_dir, texts, tmp_path):
    here = tmp_path / "here"
    here.mkdir()
    new, few = tmp_path / "new", tmp_path / "few.csv"
    few.write_text("plot,genres\na heist,Crime\n")
    digits = tmp_path / "digits.jsonl"
    digits.write_text('{"plot": "a", "genres": ["b"]}\n{"plot": "c", "genres": ["d"], "n": %s}\n' % ("7" * 5000))
    cases = [
        (("train", "sample", "--out", here), "exists already"),
        (("train", "nowhere.tar.gz", "--out", new), "no such file"),
        (("train", few, "--out", new), f"{few}: 1 films are too few"),
        (("train", "sample", "--recipe", "nope", "--out", new), "unknown recipe 'nope'"),
        (("train", "sample", "--all-rows", "--record", "--out", new), "--all-rows keeps no test rows"),
        (("train", "sample"), "required: --out"),
        (("train", "sample", "--seed", "-1", "--out", new), "--seed -1: not from 0 to 4294967295"),
        (("train", "sample", "--seed", "4294967296", "--out", new), "--seed 4294967296: not from 0 to 4294967295"),
        (("train", "sample", "--seed", "9" * 5000, "--out", new), "invalid int value"),
        (("train", digits, "--out", new), f"{digits}, row 2: broken JSON (a number of too many digits)"),
        (("predict", tmp_path, texts[".csv"]), "not a bundle"),
        (("predict", "nowhere", texts[".csv"]), "no such bundle"),
        (("predict", bundle_dir, "nowhere.csv"), "no such file"),
        *((("predict", bundle_dir, texts[".csv"], f"--threshold={t}"), "not between 0 and 1") for t in (2, 0, "nan", "inf")),
        *((("app", bundle_dir, f"--port={port}"), f"--port {port}: not from 1 to 65535") for port in (0, -1, 65536, 10**30)),
        *((("experiment", "sample", f"--jobs={n}"), f"--jobs {n}: not a number from 1 on") for n in (0, -1)),
        (("encode", texts[".csv"], "--out", tmp_path / "v.npy", "--model", "nope"), "unknown model 'nope'"),
        *((("encode", texts[".csv"], "--out", tmp_path / "v.npy", f"--layer={n}"), "layers -6 to -1") for n in (-9, 0, 10**30)),
        *((("encode", texts[".csv"], "--out", tmp_path / "v.npy", f"--max-seq-len={n}"), "3 to 512") for n in (9999, 2, -1)),
        (("encode", texts[".csv"], "--out", tmp_path / "v.npz"), "is a .npy file"),
        (("encode", texts[".csv"], "--out", tmp_path / "v.npy", "--precision", "fp16"), "fp16 needs a GPU"),
        (("nonsense",), "invalid choice"),
        ((), "required"),
    ]
    for call, message in cases:
        if "fp16" in call and Path("/dev/nvidia0").exists():
            continue
        assert message in one_line(run(*call), 2), call
    assert sorted(p.name for p in tmp_path.iterdir()) == ["digits.jsonl", "few.csv", "here"]


def test_nothing_but_a_bundle_or_a_file_is_ever_replaced(run, bundle_dir, texts, tmp_path):
    kept = tmp_path / "kept.npy"
    kept.mkdir()
    (kept / "precious").write_text("x")
    for call in (("predict", bundle_dir, texts[".csv"], "--out", kept), ("encode", texts[".csv"], "--out", kept),
                 ("train", "sample", "--out", kept, "--force"), ("train", "sample", "--out", ".", "--force")):
        assert "folder" in (said := one_line(run(*call, cwd=tmp_path), 2)) or "not a bundle" in said
    assert (kept / "precious").read_text() == "x"


def test_rows_without_ids_are_not_mistaken_for_one_another(run, tmp_path, sample):
    "Two tables without ids: a row number of one says nothing about the other."
    table = sample[["plot", "genres"]].assign(genres=sample.genres.str.join("|"))
    table.head(120).to_csv(tmp_path / "a.csv", index=False)
    table.iloc[70:170].to_csv(tmp_path / "b.csv", index=False)
    assert run("train", tmp_path / "a.csv", "--recipe", "article", "--all-rows", "--out", tmp_path / "b").returncode == 0
    scores = json.loads(run("evaluate", tmp_path / "b", tmp_path / "b.csv").stdout)
    assert (scores["n"], scores["n_excluded"]) == (50, 50)                               # fifty by their text


def test_a_bundle_that_was_changed_is_refused(run, bundle_dir, texts, tmp_path):
    def changed(how):
        copy = tmp_path / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(bundle_dir, copy)
        how(copy)
        return one_line(run("predict", copy, texts[".tsv"]), 2)

    def edit(name, old, new):
        return lambda d: (d / name).write_text((d / name).read_text().replace(old, new, 1))

    assert "checksum differs" in changed(edit("bundle.json", '"threshold": 0.2', '"threshold": 0.1'))
    assert "checksum differs" in changed(lambda d: (d / "head.safetensors").write_bytes(b"x"))
    assert "checksum differs" in changed(lambda d: os.truncate(d / "encoder" / "model.safetensors", 10_000_000))
    assert "rows.json is missing" in changed(lambda d: (d / "rows.json").unlink())
    assert "format 99" in changed(edit("manifest.json", '"format": 3', '"format": 99'))
    assert "broken JSON" in changed(lambda d: (d / "manifest.json").write_text("{"))
    assert "outside the bundle" in changed(edit("manifest.json", '"rows.json"', '"../rows.json"'))
    assert "not in its manifest" in changed(lambda d: (d / "more.json").write_text("{}"))
    assert "outside the bundle" in changed(lambda d: (d / "link").symlink_to("/etc/hostname"))


def test_a_bundle_of_the_first_format_is_still_read(run, bundle_dir, texts, tmp_path):
    old = shutil.copytree(bundle_dir, tmp_path / "old")
    config, manifest = (json.loads((old / name).read_text()) for name in ("bundle.json", "manifest.json"))
    del config["head"], config["info"]["support"], config["info"]["n_train"]      # what format 1 did not know
    (old / "bundle.json").write_text(json.dumps(config))
    manifest["files"]["bundle.json"] = hashlib.sha256((old / "bundle.json").read_bytes()).hexdigest()
    (old / "manifest.json").write_text(json.dumps(manifest | {"format": 1}))
    assert run("predict", old, texts[".tsv"]).stdout == run("predict", bundle_dir, texts[".tsv"]).stdout
    assert "brier_skill" not in json.loads(run("evaluate", old, "sample").stdout)
    assert "brier_skill" in json.loads(run("evaluate", bundle_dir, "sample").stdout)


def test_a_bundle_holds_only_plain_data(bundle_dir):
    assert {p.suffix for p in bundle_dir.rglob("*") if p.is_file()} == {".json", ".md", ".safetensors", ".txt"}


def test_prediction_loads_no_tensorflow(bundle_dir):
    code = ("import sys; from bert_genres.model import load_bundle; "
            f"load_bundle({str(bundle_dir)!r}).predict(['A ghost.']); assert 'tensorflow' not in sys.modules")
    subprocess.run([sys.executable, "-c", code], check=True)


def test_importing_loads_no_tensorflow():
    code = ("import sys, bert_genres, bert_genres.data, bert_genres.cooccurrence, bert_genres.model, bert_genres.command; "
            "assert 'tensorflow' not in sys.modules and 'tf_keras' not in sys.modules")
    subprocess.run([sys.executable, "-c", code], check=True)


def test_interrupted_training_leaves_nothing_and_says_130(bundle_dir, tmp_path):
    command = [str(Path(sys.executable).with_name("bert-genres")), "train", "sample", "--out", str(tmp_path / "b")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, env=os.environ | {"BERT_GENRES_CACHE": str(tmp_path / "c")})
    deadline = time.monotonic() + 60
    while not (tmp_path / "c").exists() and time.monotonic() < deadline:                 # the vectors are written: it trains now
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[1].decode()
    assert process.returncode == 130 and said.strip().splitlines()[-1] == "bert-genres: interrupted", said
    assert not (tmp_path / "b").exists() and [p.name for p in tmp_path.iterdir()] == ["c"]


def test_a_reader_that_stops_early_is_no_error(bundle_dir, texts):
    exe = Path(sys.executable).with_name("bert-genres")
    done = subprocess.run(f"for i in $(seq 5); do cat {texts['.tsv']}; done | cut -f2 | {exe} predict {bundle_dir} - | head -1; "
                          "echo ${PIPESTATUS[2]}", shell=True, executable="/bin/bash", capture_output=True, text=True)
    assert done.stdout.strip().endswith("0") and done.stderr == ""


def test_the_same_call_twice_gives_the_same_bytes(run, run_process, sample, tmp_path):
    table = tmp_path / "films.csv"
    sample.head(80)[["plot"]].assign(genres=sample.genres.map("|".join)).to_csv(table, index=False)
    for k, call in enumerate((run, run_process)):                             # each encodes anew, one in a process of its own
        env = {"BERT_GENRES_CACHE": str(tmp_path / f"cache{k}")}
        assert call("train", table, "--recipe", "article", "--out", tmp_path / str(k), env=env).returncode == 0
    for name in ("head.safetensors", "bundle.json", "rows.json"):
        assert (tmp_path / "0" / name).read_bytes() == (tmp_path / "1" / name).read_bytes(), name


def test_precisions_agree_within_the_contract(bundle_dir, sample):
    from bert_genres.data import binarize
    from bert_genres.evaluation import f1_scores

    bundles = [load_bundle(bundle_dir, precision=p) for p in ("fp32", "auto")]
    if bundles[1].encoder.precision == "fp32":
        pytest.skip("this machine computes in fp32 alone")
    Y = binarize(sample.genres, bundles[0].classes_)[0]
    a, b = (f1_scores(Y, bundle.predict(list(sample["plot"])))["micro_f1"] for bundle in bundles)
    assert abs(a - b) <= 0.003


def test_all_rows_and_the_article_s_split(run, tmp_path, sample):
    for flags, parts in [(("--all-rows",), {"train": 0.9, "validation": 0.1, "test": 0}),
                         (("--split", "article"), {"train": 0.8, "validation": 0, "test": 0.2})]:
        folder = tmp_path / flags[-1].strip("-")
        assert run("train", "sample", "--recipe", "article", "--out", folder, *flags).returncode == 0
        rows = json.loads((folder / "rows.json").read_text())
        for part, share in parts.items():
            assert abs(len(rows[part]) / len(sample) - share) < 0.05
    last = sample.movie_id[int(0.8 * len(sample)):]
    assert set(rows["test"]) == set(last)


def test_record_writes_what_evaluate_says(run, tmp_path):
    done = run("train", "sample", "--recipe", "article", "--record", "--out", tmp_path / "b", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    record, = (tmp_path / "results").glob("sample-????????-article.json")
    stored = json.loads(record.read_text())
    scores = json.loads(run("evaluate", tmp_path / "b", "sample").stdout)
    assert {k: v for k, v in scores.items() if k != "n_excluded"} == stored["metrics"]
    assert stored["recipe"] == "article" and stored["seed"] == 0 and stored["hardware"] and stored["versions"]


def test_record_says_what_all_calls_of_a_training_took(run, bundle_dir, tmp_path):
    bundle = load_bundle(bundle_dir)
    for info, took in (({}, 0), ({"seconds": 4321}, 4321)):
        bundle.info |= info
        with mock.patch("bert_genres.recipes.fit_recipe", return_value=bundle):
            assert run("train", "sample", "--record", "--force", "--out", tmp_path / "b", cwd=tmp_path).returncode == 0
        record, = (tmp_path / "results").glob("sample-????????-article.json")
        assert json.loads(record.read_text())["seconds"] == took


def test_the_largest_seed_trains_and_near_duplicates_are_looked_for_once(run, tmp_path):
    with mock.patch.object(splits, "normalize_text", wraps=splits.normalize_text) as looked:
        done = run("train", "sample", "--recipe", "article", "--seed", 2**32 - 1, "--out", tmp_path / "b")
    assert done.returncode == 0, done.stderr.decode()
    assert looked.call_count == len(load_corpus("sample"))
    assert load_bundle(tmp_path / "b").info["seed"] == 2**32 - 1


def test_own_table_from_training_to_prediction(run, tmp_path):
    "A data scientist's CSV: a hundred short tickets with two labels, learnable from a word."
    rng = np.random.default_rng(0)
    rows = []
    for i in range(120):
        labels = [name for name in ("billing", "outage") if rng.random() < 0.6] or ["billing"]
        said = {"billing": "The invoice charged my card twice and I want the money back.",
                "outage": "The server is down and nobody can reach the website."}
        rows.append({"plot": f"Ticket {i}. " + " ".join(said[x] for x in labels), "genres": "|".join(labels)})
    pd.DataFrame(rows).to_csv(tmp_path / "tickets.csv", index=False)
    assert run("train", tmp_path / "tickets.csv", "--recipe", "article", "--out", tmp_path / "b").returncode == 0
    done = run("predict", tmp_path / "b", "-", stdin=b"The website is down again, the server cannot be reached.\n")
    row = lines(done.stdout)[0]
    assert row["probabilities"]["outage"] > row["probabilities"]["billing"]


def test_no_room_left_is_one_line_and_leaves_nothing(run, bundle_dir, texts, tmp_path):
    (tmp_path / "many.tsv").write_text(texts[".tsv"].read_text() * 5)
    disk = tmp_path / "disk"
    with small_disk(disk, 50_000):
        for call in (("predict", bundle_dir, tmp_path / "many.tsv", "--out", disk / "p.jsonl"),
                     ("train", "sample", "--recipe", "article", "--out", disk / "bundle")):
            assert "No space left" in one_line(run(*call), 3, before=3 * (call[0] == "train"))
            assert list(disk.iterdir()) == []
        call = ("train", "sample", "--recipe", "frozen", "--out", tmp_path / "bundle")
        assert "training needs" in one_line(run(*call, env={"BERT_GENRES_CACHE": str(disk)}), 3, before=3)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["disk", "many.tsv"]


def test_a_full_standard_output_is_one_line(bundle_dir, texts):
    with open("/dev/full", "wb") as full:
        call = [str(Path(sys.executable).with_name("bert-genres")), "predict", str(bundle_dir), str(texts[".tsv"])]
        done = subprocess.run(call, stdout=full, stderr=subprocess.PIPE)
    assert "No space left" in one_line(done, 3)


def test_labels_that_tell_nothing_apart(run, tmp_path):
    rows = "".join(f"story number {i} of a dog and a cat {i * 7},pets\n" for i in range(40))
    (tmp_path / "t.csv").write_text("plot,genres\n" + rows)
    assert "nothing to tell apart" in one_line(run("train", tmp_path / "t.csv", "--out", tmp_path / "b"), 2, before=4)
    assert [p.name for p in tmp_path.iterdir()] == ["t.csv"]


def test_unknown_files_of_the_package_are_absent():
    assert sorted(p.name for p in SAMPLE.iterdir()) == ["README.md", "movie.metadata.tsv", "plot_summaries.txt", "split.tsv"]


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    "A table of 120 texts and labels as a spreadsheet writes it, and a bundle of it."
    rng, words = random.Random(0), {"Garden": "mulch lawn soil", "Music": "violin tempo chord", "Travel": "ferry map hostel"}
    rows = [sorted(rng.sample(sorted(words), rng.choice([1, 1, 2]))) for _ in range(120)]
    known = lambda row: [*" ".join(words[label] for label in row).split(), "old", "near", "quiet"]
    text = lambda row, i: " ".join(rng.choices(known(row), k=14)) + f" {i}"
    path = tmp_path_factory.mktemp("mine") / "mine.csv"
    path.write_text("ID;Text;Labels\n" + "".join(f"t{i};{text(row, i)};{', '.join(row)}\n" for i, row in enumerate(rows)))
    return path


def test_check_says_what_would_be_read(run_process, mine, tmp_path):
    done = run_process("check", mine)
    said = done.stderr.decode()
    assert (done.returncode, done.stdout) == (0, b"") and "Traceback" not in said and len(said.splitlines()) == 5
    for what in ("columns separated by semicolons", "labels separated by commas: 3 labels, 1.", "120 texts, 3 labels",
                 "near-duplicates"):
        assert what in said
    code = "import sys; from bert_genres.command import main; main(['check', sys.argv[1]]); sys.exit('tensorflow' in sys.modules)"
    subprocess.run([sys.executable, "-c", code, mine], check=True, capture_output=True)
    doubtful = tmp_path / "doubtful.csv"
    doubtful.write_text('text,labels\na,"Health, Safety"\nb,IT\n')
    assert "--label-separator ','" in one_line(run_process("check", doubtful), 2)
    assert run_process("check", doubtful, "--label-separator", "none").returncode == 0


def test_a_table_of_texts_and_labels_is_spoken_of_as_one(run, mine, tmp_path):
    folder = tmp_path / "b"
    done = run("train", mine, "--recipe", "article", "--out", folder)
    said = done.stderr.decode()
    assert done.returncode == 0 and "film" not in said and "genre" not in said.replace("bert-genres", ""), said
    for what in ("this model", "a linear model of words", "the most frequent labels", "best labels",
                 "to use it"):
        assert what in said
    rows = lines(run("predict", folder, mine).stdout)
    assert rows[0].keys() == {"id", "labels", "probabilities"} and rows[0]["id"] == "t0"
    texts = pd.read_csv(mine, sep=";")["Text"].tolist()
    assert load_bundle(folder).labels(texts[:5]) == [row["labels"] for row in rows[:5]]
    assert json.loads(run("evaluate", folder, mine).stdout)["n_excluded"] > 0


def test_only_ordinary_files_are_replaced(run, bundle_dir, texts, tmp_path):
    copy, link, fifo = tmp_path / "copy.csv", tmp_path / "link", tmp_path / "fifo"
    shutil.copy(texts[".csv"], copy)
    link.symlink_to(texts[".tsv"])
    os.mkfifo(fifo)
    for out in ("/dev/null", link, fifo):
        assert "not an ordinary file" in one_line(run("predict", bundle_dir, copy, "--out", out), 2)
    assert "is the input" in one_line(run("predict", bundle_dir, copy, "--out", copy), 2)
    assert copy.read_bytes() == texts[".csv"].read_bytes() and Path("/dev/null").is_char_device()


def test_formats_by_name_where_a_pipe_has_none(run, bundle_dir):
    want = [row["probabilities"] for row in lines(run("predict", bundle_dir, "-", stdin=b"A ghost haunts an inn.\n").stdout)]
    for kind, content in (("csv", b"text\nA ghost haunts an inn.\n"), ("jsonl", b'{"text": "A ghost haunts an inn."}\n'),
                          ("tsv", b"7\tA ghost haunts an inn.\n"), ("json", b'[{"plot": "A ghost haunts an inn."}]')):
        done = run("predict", bundle_dir, "-", "--format", kind, stdin=content)
        assert [row["probabilities"] for row in lines(done.stdout)] == want
    assert "unknown format 'xls'" in one_line(run("predict", bundle_dir, "-", "--format", "xls", stdin=b"x"), 2)


def test_closed_streams_and_terminals_of_few_letters(bundle_dir, texts, tmp_path):
    command = str(Path(sys.executable).with_name("bert-genres"))
    (tmp_path / "t.csv").write_text("text,labels\nA dog.,\u72d7\nA cat.,\u732b\n")
    done = subprocess.run([command, "check", tmp_path / "t.csv"], capture_output=True,
                          env=os.environ | {"PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0"})
    assert done.returncode == 0 and "\u72d7".encode() in done.stderr
    for closed in ("2>&-", "<&- 2>&-", "<&-"):
        call = ["bash", "-c", f'"$0" predict "$1" "$2" {closed}', command, str(bundle_dir), str(texts[".tsv"])]
        done = subprocess.run(call, capture_output=True)
        assert done.returncode == 0 and len(lines(done.stdout)) == 30
    done = subprocess.run(["bash", "-c", '"$0" predict "$1" - <&-', command, str(bundle_dir)], capture_output=True)
    assert "standard input is closed" in one_line(done, 2)
