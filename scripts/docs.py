"""The documentation site into _docs/: with Quarto where it is on PATH, else with smalldocs."""
import shutil
import subprocess
import sys
from pathlib import Path

from nbdev.serve import proc_nbs

from bert_genres.cooccurrence import chord, chord_page, implications
from bert_genres.data import binarize, label_names, load_corpus, split_corpus

ROOT = Path(__file__).resolve().parent.parent


def chord_of_sample():
    "Chapter 06's diagram as a page to explore: too large to be stored in the notebook."
    films = load_corpus("sample")
    genres = films.genres[split_corpus(films, corpus="sample") == "train"]
    classes = label_names(genres)
    return chord_page(chord(implications(binarize(genres, classes)[0], classes)))


def main():
    proc_nbs(force=True)  # nbdev's processed notebooks: hidden cells gone, signatures rendered
    (ROOT / "_proc" / "chord.html").write_text(chord_of_sample(), encoding="utf-8")
    quarto = shutil.which("quarto")
    tool = [quarto] if quarto else [str(Path(sys.executable).with_name("smalldocs"))]
    subprocess.run([*tool, "render"], cwd=ROOT / "_proc", check=True)
    shutil.rmtree(ROOT / "_docs", ignore_errors=True)
    shutil.move(ROOT / "_proc" / "_docs", ROOT / "_docs")
    shutil.copy(ROOT / "_proc" / "chord.html", ROOT / "_docs")
    print(f"_docs/ built by {'Quarto' if quarto else 'smalldocs: no quarto on PATH'}")


if __name__ == "__main__":
    main()
