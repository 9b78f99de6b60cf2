"""The documentation site into _docs/: with Quarto where it is on PATH, else with smalldocs.

nbdev turns the notebooks into pages first, with the changes of `chapters.py`. Quarto needs nothing more. smalldocs
leaves formulas to a script from another host and keeps the numbers in the names of pages: `finish` mends both in its output.
"""
import html
import importlib
import inspect
import os
import re
import shutil
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import holoviews
import latex2mathml.converter
import nbdev.serve
from bokeh.embed import components
from chapters import CONFIG, COPIED, NOTEBOOKS, ROOT, Filter, as_written, linked, signature

from bert_genres.cooccurrence import chord, implications
from bert_genres.data import binarize, label_names, load_corpus, split_corpus

PROC = ROOT / "_proc"


# ---------------------------------------------------------------- pages that no file holds

def chord_of_sample():
    "Chapter 06's diagram to explore, too large to be stored in the notebook."
    films = load_corpus("sample")
    genres = films.genres[split_corpus(films, corpus="sample") == "train"]
    classes = label_names(genres)
    diagram = chord(implications(binarize(genres, classes)[0], classes))
    script, place = components(holoviews.render(diagram, backend="bokeh"))
    library = (files("bokeh") / "server" / "static" / "js" / "bokeh.min.js").read_text(encoding="utf-8")
    return f"""# Genres that share films

The diagram of [its chapter]({address("cooccurrence")}), to explore. A band joins two genres that occur together in the
sample's training films. Point at one: it says how often the second genre is there where the first is, and in how many films.
Drag to move it, scroll to come closer.

````{{=html}}
<div class="explore"><script>{library}</script>{script}{place}</div>
````
"""


def address(page):
    return NOTEBOOKS[page].relative_to(ROOT / "nbs").as_posix()


def summary(thing):
    return as_written(inspect.getdoc(thing) or "").split("\n\n")[0].replace("\n", " ").replace("|", "\\|")


def rows_of(name, thing, page):
    "Lines of the table: a name of the package, and below a class its public methods."
    rows = [f"| [`{name}`]({page}#{name.lower()}) | {summary(thing)} |"]
    if inspect.isclass(thing):
        rows += [f"| `.{m}{signature(f)}`{{.method}} | {summary(f)} |" for m, f in vars(thing).items()
                 if inspect.isfunction(f) and not m.startswith("_")]
    return rows


def api_page():
    "Every public name, by chapter, with a link to its entry there."
    text = ["# API reference\n\nEvery public name of the package, module by module. A name leads to its entry in the chapter "
            "that builds it, with its parameters, its source and a demonstration.\n"]
    for page, path in NOTEBOOKS.items():
        if module := re.search(r"#\| default_exp (\w+)", path.read_text(encoding="utf-8")):
            found = importlib.import_module(f"{CONFIG.lib_name.replace('-', '_')}.{module[1]}")
            text.append(f"## {module[1]}\n\n{found.__doc__}. `{found.__name__}`, from [its chapter]({address(page)}).\n")
            text.append("| name | what it is |\n|---|---|")
            things = {name: getattr(found, name) for name in found.__all__}
            defined = {name: thing for name, thing in things.items() if getattr(thing, "__module__", "") == found.__name__}
            text += [row for name, thing in defined.items() for row in rows_of(name, thing, address(page))]
            if constants := [f"`{name}`" for name in things if name not in defined]:
                text.append(f"\nConstants: {', '.join(constants)}.")
            text.append("")
    return "\n".join(text)


def process():
    "What either builder reads, into _proc/."
    os.environ["PYTHONWARNINGS"] = "ignore"                         # nbdev's, about cells that import and do more
    nbdev.serve.FilterDefaults = Filter
    nbdev.serve.proc_nbs(force=True)
    for name in COPIED:
        (PROC / name).write_text((ROOT / name).read_text(encoding="utf-8").replace("](nbs/", "]("), encoding="utf-8")
    for path in PROC.glob("*.md"):
        path.write_text(linked(path.read_text(encoding="utf-8")), encoding="utf-8")
    (PROC / "api.md").write_text(api_page(), encoding="utf-8")
    (PROC / "chord.md").write_text(chord_of_sample(), encoding="utf-8")


# ---------------------------------------------------------------- what smalldocs leaves to do

def formula(match):
    display = "block" if match[1] == "display" else "inline"
    mathml = latex2mathml.converter.convert(html.unescape(match[2]), display=display)
    return re.sub(r"(<mi>[a-z]{3,}</mi>)(?=<m[is])", r'\1<mspace width="0.17em"/>', mathml)         # log p, not logp


def without_web_fonts(docs):
    "The themes' style sheets ask another host for fonts; without them the reader's own serve."
    for path in docs.rglob("*.css"):
        text = path.read_text(encoding="utf-8")
        path.write_text(re.sub(r"@import url\(https?:[^)]*\);?", "", text), encoding="utf-8")


def finish(docs):
    "Formulas as MathML, code in captions, and pages under the names that nbdev and Quarto give them: without a number."
    for path in [p for suffix in ("html", "json", "xml") for p in docs.rglob(f"*.{suffix}")]:
        text = path.read_text(encoding="utf-8")
        text = re.sub(r'<span class="math (inline|display)">\\[(\[](.*?)\\[)\]]</span>', formula, text, flags=re.S)
        text = re.sub(r"<figcaption>.*?</figcaption>", lambda m: re.sub("`(.+?)`", r"<code>\1</code>", m[0]), text, flags=re.S)
        text = re.sub(r'<(link|script)[^>]*cdn\.jsdelivr\.net/npm/katex[^>]*>(</script>)?', "", text)
        text = re.sub(r"\b\d\d_(\w+\.html)", r"\1", text)
        path.write_text(text, encoding="utf-8")
        path.rename(path.with_name(re.sub(r"^\d\d_", "", path.name)))


def render(quarto):
    "Run the builder in _proc/; of what smalldocs says, leave out what is Quarto's alone."
    if quarto:
        subprocess.run([quarto, "render"], cwd=PROC, check=True)
        return
    done = subprocess.run([Path(sys.executable).with_name("smalldocs"), "render"], cwd=PROC, stderr=subprocess.PIPE, text=True)
    expected = ("output-file is not read", "execute.enabled is ignored", "html-math-method is ignored",
                "respect-user-color-scheme is ignored")
    print(*[line for line in done.stderr.splitlines() if not any(e in line for e in expected)], sep="\n", file=sys.stderr)
    done.check_returncode()
    finish(PROC / "_docs")


def main():
    process()
    quarto = shutil.which("quarto")
    render(quarto)
    without_web_fonts(PROC / "_docs")
    shutil.rmtree(ROOT / "_docs", ignore_errors=True)
    shutil.move(PROC / "_docs", ROOT / "_docs")
    print(f"_docs/ built by {'Quarto' if quarto else 'smalldocs: no quarto on PATH'}")


if __name__ == "__main__":
    main()
