"""The documentation site into _docs/: with Quarto where it is on PATH, else with smalldocs.

nbdev turns the notebooks into pages first, with the changes of `chapters.py`. Quarto needs nothing more. smalldocs
leaves formulas to a script from another host and keeps the numbers in the names of pages: `finish` mends both in its output.
"""
import html
import importlib
import inspect
import re
import shutil
import subprocess
import sys
from pathlib import Path

import latex2mathml.converter
import nbdev.serve
from chapters import CONFIG, COPIED, NOTEBOOKS, ROOT, Filter, local_links, signature
from nbdev.doclinks import NbdevLookup

from bert_genres.cooccurrence import chord, chord_page, implications
from bert_genres.data import binarize, label_names, load_corpus, split_corpus

PROC = ROOT / "_proc"


# ---------------------------------------------------------------- pages that no file holds

def chord_of_sample():
    "Chapter 06's diagram as a page to explore: too large to be stored in the notebook."
    films = load_corpus("sample")
    genres = films.genres[split_corpus(films, corpus="sample") == "train"]
    classes = label_names(genres)
    return chord_page(chord(implications(binarize(genres, classes)[0], classes)))


def summary(thing):
    return (inspect.getdoc(thing) or "").split("\n\n")[0].replace("\n", " ").replace("|", "\\|")


def rows_of(name, thing, page):
    "Lines of the table: a name of the package, and below a class its public methods."
    if not callable(thing) or inspect.getmodule(thing) is None:
        return [f"| `{name}` | a constant |"]
    rows = [f"| [`{name}`]({page}#{name.lower()}){{.nolink}} | {summary(thing)} |"]
    if inspect.isclass(thing):
        rows += [f"| `.{m}{signature(f)}`{{.method}} | {summary(f)} |" for m, f in vars(thing).items()
                 if inspect.isfunction(f) and not m.startswith("_")]
    return rows


def api_page():
    "Every public name, by chapter, with a link to its entry there."
    text = ["# API reference\n\nEvery public name of the package, module by module. A name leads to its entry in the chapter "
            "that builds it, with its parameters, its source and a demonstration.\n"]
    for path in NOTEBOOKS.values():
        if module := re.search(r"#\| default_exp (\w+)", path.read_text(encoding="utf-8")):
            found = importlib.import_module(f"{CONFIG.lib_name.replace('-', '_')}.{module[1]}")
            text.append(f"## {module[1]}\n\n{found.__doc__}. `{found.__name__}`, from [its chapter]({path.name}).\n")
            text.append("| name | what it is |\n|---|---|")
            text += [row for name in found.__all__ for row in rows_of(name, getattr(found, name), path.name)] + [""]
    return "\n".join(text)


def process():
    "What either builder reads, into _proc/."
    nbdev.serve.FilterDefaults = Filter
    nbdev.serve.proc_nbs(force=True)
    for name in COPIED:
        shutil.copy(ROOT / name, PROC)
    lookup = NbdevLookup()
    for path in PROC.glob("*.md"):
        path.write_text(local_links(lookup.linkify(path.read_text(encoding="utf-8"))), encoding="utf-8")
    (PROC / "api.md").write_text(api_page(), encoding="utf-8")
    (PROC / "chord.html").write_text(chord_of_sample(), encoding="utf-8")


# ---------------------------------------------------------------- what smalldocs leaves to do

def formula(match):
    display = "block" if match[1] == "display" else "inline"
    return latex2mathml.converter.convert(html.unescape(match[2]), display=display)


def without_web_fonts(docs):
    "The themes' style sheets ask another host for fonts; without them the reader's own serve."
    for path in docs.rglob("*.css"):
        text = path.read_text(encoding="utf-8")
        path.write_text(re.sub(r"@import url\(https?:[^)]*\);?", "", text), encoding="utf-8")


def finish(docs):
    "Formulas as MathML, and pages under the names that nbdev and Quarto give them: without the chapter's number."
    for path in [p for suffix in ("html", "json", "xml") for p in docs.glob(f"*.{suffix}")]:
        text = path.read_text(encoding="utf-8")
        text = re.sub(r'<span class="math (inline|display)">\\[(\[](.*?)\\[)\]]</span>', formula, text, flags=re.S)
        text = re.sub(r'<(link|script)[^>]*cdn\.jsdelivr\.net/npm/katex[^>]*>(</script>)?', "", text)
        text = re.sub(r"\b\d\d_(\w+\.html)", r"\1", text)
        path.write_text(text, encoding="utf-8")
        path.rename(path.with_name(re.sub(r"^\d\d_", "", path.name)))


def main():
    process()
    quarto = shutil.which("quarto")
    tool = [quarto] if quarto else [str(Path(sys.executable).with_name("smalldocs"))]
    subprocess.run([*tool, "render"], cwd=PROC, check=True)
    if not quarto:
        finish(PROC / "_docs")
    without_web_fonts(PROC / "_docs")
    shutil.rmtree(ROOT / "_docs", ignore_errors=True)
    shutil.move(PROC / "_docs", ROOT / "_docs")
    shutil.copy(PROC / "chord.html", ROOT / "_docs")
    print(f"_docs/ built by {'Quarto' if quarto else 'smalldocs: no quarto on PATH'}")


if __name__ == "__main__":
    main()
