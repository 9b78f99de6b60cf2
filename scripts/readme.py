"""README.md and nbs/ladder.png from nbs/index.ipynb with its stored outputs, and the tables of nbs/model_card.md and
nbs/data_card.md from results/; `--check` only compares."""
import base64
import json
import re
import sys
from pathlib import Path

import nbformat
from nbconvert import MarkdownExporter

ROOT = Path(__file__).resolve().parent.parent


def records(pattern) -> list[dict]:
    "The recorded runs whose file's name matches, sorted by it."
    return [json.loads(p.read_text(encoding="utf-8")) for p in sorted((ROOT / "results").glob(pattern))]


def front_page() -> tuple[str, bytes]:
    "README's text, and the picture in it."
    nb = nbformat.read(ROOT / "nbs" / "index.ipynb", as_version=4)
    nb.metadata["language_info"] = {"name": "python"}
    nb.cells = [c for c in nb.cells if not c.source.startswith("#| hide")]
    [pictured] = [c for c in nb.cells if any("image/png" in o.get("data", {}) for o in c.get("outputs", []))]
    alt = re.search(r'#\| fig-alt: "(.*)"', pictured.source)[1]
    [picture] = [o.data["image/png"] for o in pictured.outputs if "image/png" in o.get("data", {})]
    for cell in nb.cells:
        if cell.source.startswith("#| echo: false"):  # what it shows, without how
            cell.source = ""
    text, _ = MarkdownExporter().from_notebook_node(nb)
    text = re.sub(r"!\[png\]\(output_\d+_\d+\.png\)", lambda _: f"![{alt}](ladder.png)", text)
    text = re.sub(r"[ \t]+$", "", text, flags=re.M).replace("```python\n\n```\n", "").replace("](api.md", "](bert_genres/")
    here = r"(?:\w+/)?\d\d_\w+\.ipynb|\w+_card\.md|glossary\.md|cite\.md|\w+\.png"
    text = re.sub(rf"\]\(((?:{here})\b)", r"](nbs/\1", text)  # one folder up
    return re.sub(r"\n{3,}", "\n\n", text.replace("](../", "](")).strip() + "\n", base64.b64decode(picture)


def pipe_table(header, rows) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def with_interval(scores, name) -> str:
    low, high = scores[f"{name}_ci95"]
    return f"{scores[name]:.3f} ({low:.3f} to {high:.3f})"


def scores_table() -> str:
    "What each recipe scored on test plots."
    rows = [[f"`{r['recipe']}`", r["corpus"], f"{m['n']:,}", with_interval(m, "micro_f1"), with_interval(m, "samples_f1"),
             f"{m['macro_f1']:.3f}", f"{m['micro_ap']:.3f}"]
            for r in records("*.json") if r.get("kind") == "recipe" for m in [r["metrics"]]]
    return pipe_table(["recipe", "corpus", "test plots", "micro-F1", "samples-F1", "macro-F1", "average precision"], rows)


def groups_table() -> str:
    "The same on the large corpus, by how many training films a genre has."
    means = {"head": "more than 500", "torso": "50 to 500", "tail": "fewer than 50"}
    rows = [[f"`{r['recipe']}`", means[g], s["n_labels"], with_interval(s, "micro_f1"), f"{s['macro_f1']:.3f}",
             f"{s['calibration_error']:.3f}"]
            for r in records("MovieSummaries-*.json") if r.get("kind") == "recipe" for g, s in r["metrics"]["by_support"].items()]
    return pipe_table(["recipe", "training films a genre", "genres", "micro-F1", "macro-F1", "calibration error"], rows)


def counts_table(corpus) -> str:
    "What benchmarks/corpus.py counted."
    [run] = records(f"{corpus}-*-corpus.json")
    return pipe_table(["what", "how many"], run["counts"].items())


def shares_table(field, corpora=("MovieSummaries",)) -> str:
    "The most frequent values of a field of the metadata, side by side."
    tables = [[*run["shares"][field].items()] for name in corpora for run in records(f"{name}-*-corpus.json")]
    header = [x for name in corpora for x in ("CMU's metadata" if name == "MovieSummaries" else name, "share")]
    return pipe_table(header, [[x for pair in line for x in pair] for line in zip(*tables, strict=True)]).replace("%", " %")


TABLES = {("model_card.md", "Scores"): scores_table,          # page, heading: the first table under it is this one
          ("model_card.md", "Frequent and rare genres"): groups_table,
          ("data_card.md", "The sample in figures"): lambda: counts_table("sample"),
          ("data_card.md", "The larger corpus in figures"): lambda: counts_table("MovieSummaries"),
          ("data_card.md", "Languages"): lambda: shares_table("languages"),
          ("data_card.md", "Countries"): lambda: shares_table("countries"),
          ("data_card.md", "Genres"): lambda: shares_table("genres", ("sample", "MovieSummaries"))}


def page(name) -> str:
    "A page with its tables renewed."
    text = (ROOT / "nbs" / name).read_text(encoding="utf-8")
    for (where, heading), table in TABLES.items():
        if where == name:
            until, new = rf"(^## {heading}\n(?:(?!## |\|).*\n)*)", table() + "\n"
            text, n = re.subn(until + r"(?:\|.*\n)+", lambda m, new=new: m[1] + new, text, flags=re.M)
            assert n == 1, f"{name}: no table under {heading!r}"
    return text


def main():
    text, picture = front_page()
    made = {"README.md": text.encode(), "nbs/ladder.png": picture}
    made |= {f"nbs/{name}": page(name).encode() for name in dict.fromkeys(name for name, _ in TABLES)}
    old = {name: (ROOT / name).read_bytes() if (ROOT / name).exists() else b"" for name in made}
    stale = [name for name in made if made[name] != old[name]]
    if "--check" in sys.argv:
        sys.exit(f"not what nbs/index.ipynb and results/ say: {', '.join(stale)}: make readme" if stale else 0)
    for name in stale:
        (ROOT / name).write_bytes(made[name])


if __name__ == "__main__":
    main()
