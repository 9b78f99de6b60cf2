"""Tables as people bring them: each is read as what it means, or refused with a line that helps, and never misread in silence."""
import csv
import io
import json
import os
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_genres.data import load_corpus
from bert_genres.files import InputError
from bert_genres.labels import MISSING, clean_label, parse_labels

CASES = Path(__file__).resolve().parent.parent.parent / "shared" / "cases"
FUZZ = int(os.environ.get("FUZZ", 200))
LABELS = ["Garden", "Cycling", "Cooking", "Travel", "Music"]

SAME = """00_good.csv 01_comma_labels.csv 02_semicolon_labels.csv 03_newline_labels.csv 06_cmu_json_object.csv 07_pydict.csv
10_pylist.csv 11_jsonlist.csv 12_hash_prefix.csv 12b_doccano_hash.csv 12c_doccano.jsonl 12d_dunder_label.csv
20_excel_semicolon.csv 21_excel_semicolon_bom.csv 23_utf16.csv 25_bom.csv 26_cr_only.csv 27_tab.csv 28_tab.tsv
30_trailing_comma_rows.csv 31_trailing_comma_all.csv 33_text_labels_names.csv 34_caps_header.csv 35_space_header.csv
36_onehot.csv 37_label_columns.csv 38_long_format.csv 40_pandas_index.csv 46_space_after_comma.csv
47_comment_lines.csv 49_excel_text_quote.csv 52_onehot_dict.jsonl 53_nested_list.jsonl 55_array.jsonl 56_lines.json
58_null_in_list.jsonl 59_string_labels.jsonl 63_dup_keys.jsonl 81_10_rows.csv 81_20_rows.csv 90_train_ids.csv
B1_kaggle.csv.zip B3_upper.CSV C5_nested D0_list.parquet D1_large.parquet D2_dict.parquet D3_view.parquet
D4_binary.parquet D7_map.parquet D8_far_date.parquet D9_date_ns.parquet E2_time_ns.parquet E3_pandas_numpy.parquet
E4_pandas_cat.parquet E5_float_id.parquet E7_struct.parquet""".split()
SAME_LABELS = ["43_stray_quote.csv", "44_backslash_quotes.csv", "45_single_quotes.csv"]         # other texts, the same labels
OTHER = {     # rows, labels, and what is said
    "13_nan_labels.csv": (90, 5, "30 cells say 'nan', which is read as no label"),
    "14_na_none.csv": (80, 5, "10 cells say 'N/A', which is read as no label"),
    "15_case_ws.csv": (120, 15, "'music' and 'Music' and 'MUSIC'"),
    "17_nfc_nfd_labels.csv": (120, 6, "label 'Café' is on every row"),
    "32_two_headers.csv": (240, 5, "the header occurs 2 times"),
    "51_int_labels.jsonl": (120, 5, "labels as lists"),
    "51b_int_labels.csv": (120, 5, "separated by vertical bars"),
    "60_pipe_in_label.jsonl": (120, 5, "labels as lists"),
    "70_one_label.csv": (120, 1, "one label per text"),
    "71_label_every_row.csv": (120, 6, "label 'All' is on every row"),
    "73_2000_labels.csv": (300, 1587, "693 of 1,587 labels are on one row each"),
    "74_exact_dups.csv": (120, 5, ""), "80_bracket_label.csv": (120, 6, ""),
    "B0_folder": (240, 5, "part-1.csv: labels separated by"),
    "D5_int_labels.parquet": (60, 5, ""), "E1_nested_null.parquet": (51, 5, "9 films without a genre left out"),
    "E9_null_plot.parquet": (59, 5, "1 films with an empty plot left out"), "F0_dataset": (120, 5, ""),
    "C2_cmu_dup_meta": (120, 5, ""),
    "C6_cmu_crlf_bom": (120, 5, "")}
REFUSED = {
    "22_cp1252.csv": "--encoding cp1252", "36b_onehot_plot_genres.csv": "give each label a column of its own",
    "41_unquoted_commas.csv": "a text with commas needs quotation marks",
    "41b_unquoted_commas_genres_first.csv": "a text with commas needs quotation marks", "50_bigint.jsonl": "row 20: broken JSON",
    "62_surrogate.jsonl": "row 8: plot: has half a character", "95_header.tsv": "no column 'labels' or 'genres'",
    "A0_blank_lines.txt": "no column 'labels' or 'genres'", "C0_cmu_pandas_quoted": "row 1, genres: broken JSON"}


@pytest.fixture(scope="module")
def cases():
    if not CASES.exists():
        pytest.skip("needs ../shared/cases beside the repository")
    return CASES


def rows(films):
    return [(text, sorted(labels)) for text, labels in zip(films["plot"], films.genres, strict=True)]


@pytest.mark.parametrize("name", SAME)
def test_many_shapes_of_one_table(cases, name):
    want, got = rows(load_corpus(cases / "00_good.csv")), rows(load_corpus(cases / name))
    assert got == want[:len(got)] and len(got) in (10, 20, 60, 120)


@pytest.mark.parametrize("name", SAME_LABELS)
def test_other_quotation_marks(cases, name):
    want, got = rows(load_corpus(cases / "00_good.csv")), rows(load_corpus(cases / name))
    assert [labels for _, labels in got] == [labels for _, labels in want]
    assert not any(text[0] in "'\\" or text[-1] in "'\\" for text, _ in got)


@pytest.mark.parametrize("name", OTHER)
def test_other_tables(cases, name, capsys):
    films, (n, n_labels, said) = load_corpus(cases / name), OTHER[name]
    assert (len(films), films.genres.explode().nunique()) == (n, n_labels) and said in capsys.readouterr().err


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(cases, name):
    with pytest.raises(InputError, match=".") as refused:
        load_corpus(cases / name)
    assert name in str(refused.value) and REFUSED[name] in str(refused.value) and "\n" not in str(refused.value)


def test_options_settle_what_a_table_does_not_say(cases, tmp_path):
    want = rows(load_corpus(cases / "00_good.csv"))
    assert len(load_corpus(cases / "22_cp1252.csv", encoding="cp1252")) == len(want)
    assert load_corpus(cases / "15_case_ws.csv", merge_case=True).genres.explode().nunique() == 5
    table = pd.DataFrame({"words": ["a", "b", "c"], "other": ["x", "y", "z"], "about": ["Health, Safety", "IT", "HR"]})
    table.to_csv(tmp_path / "t.csv", index=False)
    columns = {"text_column": "words", "label_column": "about"}
    with pytest.raises(InputError, match="is 'Health, Safety' one label or several"):
        load_corpus(tmp_path / "t.csv", **columns)
    assert load_corpus(tmp_path / "t.csv", label_separator="none", **columns).genres[0] == ["Health, Safety"]
    assert load_corpus(tmp_path / "t.csv", label_separator=",", **columns).genres[0] == ["Health", "Safety"]
    with pytest.raises(InputError, match="no column 'wrods' for the texts \\(is 'words' meant"):
        load_corpus(tmp_path / "t.csv", text_column="wrods")


def test_what_is_odd_is_said_or_refused(tmp_path, capsys):
    few = pd.DataFrame({"text": [f"text {i}" for i in range(20)], "labels": ["A|B", *"ABCDE" * 3, *"ABCD"]})
    few.to_csv(tmp_path / "few.csv", index=False)
    load_corpus(tmp_path / "few.csv")
    assert "vertical bars, in 1 of 20 cells alone ('A|B')" in capsys.readouterr().err
    few.replace("A|B", "A\nB").to_csv(tmp_path / "few.csv", index=False)
    load_corpus(tmp_path / "few.csv")
    assert "line breaks, in 1 of 20 cells alone" in capsys.readouterr().err
    labels = ["A><B", "B><C", "A><C", "A", "B", "C"]
    pd.DataFrame({"text": labels, "labels": labels}).to_csv(tmp_path / "html.csv", index=False)
    with pytest.raises(InputError, match="is 'A><B' one label or several\\? --label-separator '><'"):
        load_corpus(tmp_path / "html.csv")
    lines = ["| text | labels |", "|:---|---:|", "| A dog. | Animals; Pets |", "| A lion. | Animals |", "| A cat. | Pets |"]
    (tmp_path / "md.csv").write_text("\n".join(lines))
    want = [("A dog.", ["Animals", "Pets"]), ("A lion.", ["Animals"]), ("A cat.", ["Pets"])]
    assert rows(load_corpus(tmp_path / "md.csv")) == want


def test_a_folder_says_what_it_leaves_out(cases, tmp_path, capsys):
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_bytes((cases / "81_10_rows.csv").read_bytes())
    (tmp_path / "notes.docx").touch()
    (tmp_path / "older").mkdir()
    assert len(load_corpus(tmp_path)) == 20
    assert "left out of the folder, for only tables in it are read: notes.docx, older" in capsys.readouterr().err


def test_pipes_and_packed_files(tmp_path):
    table = "text,labels\nA dog.,Animals\nA cat.,Animals\n"
    fifo = tmp_path / "pipe.csv"
    os.mkfifo(fifo)
    threading.Thread(target=lambda: fifo.write_text(table)).start()
    assert load_corpus(fifo)["plot"].tolist() == ["A dog.", "A cat."]
    call = [sys.executable, "-c", "from bert_genres.data import load_corpus; print(len(load_corpus('-', format='csv')))"]
    assert subprocess.run(call, input=table, capture_output=True, text=True, check=True).stdout == "2\n"
    with zipfile.ZipFile(tmp_path / "t.csv.zip", "w") as archive:
        archive.writestr("data/t.csv", table), archive.writestr("__MACOSX/._t.csv", "x")
    assert len(load_corpus(tmp_path / "t.csv.zip")) == 2


names = st.text(st.characters(categories=["L", "N"], include_characters=" -&.'"), min_size=1, max_size=12).map(
    lambda name: clean_label(" ".join(name.split()))).filter(lambda name: name and not name.startswith(("#", "__label__")))
ways = {
    **{mark: mark.join for mark in ("|", "; ", ", ", "\n")}, "json": json.dumps, "python": repr,
    "object": lambda row: json.dumps({f"/m/{i}": name for i, name in enumerate(row)}),
    "set": lambda row: repr(set(row)) if row else "", "list": list, "numpy": lambda row: "[" + " ".join(map(repr, row)) + "]",
    "hash": lambda row: " ".join(f"#{name}" for name in row),
    "label": lambda row: " ".join(f"__label__{name}" for name in row), "angles": lambda row: "".join(f"<{name}>" for name in row)}


@pytest.mark.parametrize("cell", ["<Drama><War>", "__label__Drama __label__War", "#Drama #War"])
def test_one_file_has_one_notation(cell):
    with pytest.raises(InputError, match="which other cells are not"):
        parse_labels([cell, "Drama|War", "War"])
    assert parse_labels([cell, "War"], "none")[0] == [[cell], ["War"]]


@pytest.mark.parametrize("name", ["0", "No", "False"])
def test_a_name_beside_an_id_is_a_name_whatever_it_says(name):
    assert parse_labels([json.dumps({"/m/0": name, "/m/1": "Drama"})])[0] == [[name, "Drama"]]


@settings(max_examples=FUZZ, deadline=None, derandomize="FUZZ" not in os.environ)
@given(st.lists(names, min_size=2, max_size=6, unique_by=str.casefold), st.data(), st.sampled_from([*ways]))
def test_labels_go_through_each_notation_and_back(labels, data, way):
    "What is read is what was written, or nothing is: a notation that might mean something else is refused."
    labels = [name for name in labels if name not in MISSING and name[0] not in "-'" and name[-1] != "'"]
    if len(labels) < 2:
        return
    table = data.draw(st.lists(st.lists(st.sampled_from(labels), unique=True, max_size=4), min_size=1, max_size=30))
    try:
        got, _ = parse_labels([ways[way](row) for row in table])
    except InputError as e:
        assert "--label-separator" in str(e) or "0 and 1" in str(e)
        assert way in ("; ", ", ", "hash") or "0 and 1" in str(e)
        return
    one_each = all(len(row) < 2 for row in table)
    if way == "hash" and one_each:                                            # #1 may be a name
        table = [[f"#{name}" for name in row] for row in table]
    if way in (", ", "; ") and not one_each and got != table:       # taken for one label a text, which is said: no part returns
        assert all(len(row) <= 1 for row in got)
        return
    assert [sorted(row) for row in got] == [sorted(map(clean_label, row)) for row in table]


def test_a_table_by_any_separator(tmp_path):
    rng = __import__("random").Random(0)
    texts = [" ".join(rng.choices(["dog", "cat, too", "a; b", 'the "end"', "line\nbreak", "x"], k=6)) for _ in range(40)]
    want = [(text.strip(), sorted({rng.choice(LABELS), rng.choice(LABELS)})) for text in texts]
    for separator in ",;\t|":
        for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL):
            out = io.StringIO()
            writer = csv.writer(out, delimiter=separator, quoting=quoting)
            writer.writerows([("text", "labels"), *((text, " ; ".join(labels)) for text, labels in want)])
            (tmp_path / "t.csv").write_text(out.getvalue())
            assert rows(load_corpus(tmp_path / "t.csv")) == want, separator
