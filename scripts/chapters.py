"""What the site's chapters are, beyond what nbdev makes of a notebook: `scripts/docs.py` hands `Filter` to it."""
import ast
import functools
import inspect
import os
import re
from pathlib import Path

import nbdev.processors
import nbdev.showdoc
from fastcore.docments import docments
from nbdev.config import get_config
from nbdev.doclinks import NbdevLookup

ROOT = Path(__file__).resolve().parent.parent
CONFIG = get_config()
SITE = f"{CONFIG.doc_host}{CONFIG.doc_baseurl}/"
SOURCE = f"{CONFIG.git_url}/blob/{CONFIG.branch}/"
COPIED = ["CHANGELOG.md", "CONTRIBUTING.md"]                        # pages that stand at the top of the repository
FLOORS = ("engine", ".", "uses")
NOTEBOOKS = {str(Path(floor) / re.sub(r"^\d+_", "", p.stem)): p for floor in FLOORS     # by the name of the page, as engine/files
             for p in sorted((ROOT / "nbs" / floor).glob("*.ipynb"))}
CODE_LINK_OR_NAME = r"^ *```.*?^ *```|``.*?``|\[[^]]*\]\([^)]*\)|`([A-Za-z]\w*(?:\.[A-Za-z]\w*)*)(?:\(\))?`"
EMPTY = inspect.Parameter.empty
WIDTH = 80                                                          # letters of a signature on one line
LONG = 15                                                           # lines of exported code that are shown unfolded


def local_links(text, folder):
    "Links to names of the package and to files above nbs/, inside the site or into the repository, from a page in a folder."
    page = lambda m: os.path.relpath(NOTEBOOKS[m[1]], ROOT / "nbs" / folder) if m[1] in NOTEBOOKS else m[0]
    text = re.sub(re.escape(SITE) + r"([\w/]+)\.html", page, text)
    up = "../" * (1 + len(Path(folder).parts))
    out = lambda m: "](" + (up[3:] + m[1] if m[1] in (*COPIED, "api.md") else SOURCE + m[1])
    return re.sub(rf"\]\({re.escape(up)}([^)#]*)", out, text)


@functools.cache
def lookup():
    return NbdevLookup()


def linked(text, folder="."):
    "Public names in backticks as links to their entries; not in code, and not inside another link, where nbdev puts them too."
    def link(found):
        url = found[1] and lookup().doc(found[1])
        return f"[{found[0]}]({url})" if url and url.startswith(SITE) else found[0]
    return local_links(re.sub(CODE_LINK_OR_NAME, link, text, flags=re.M | re.S), folder)


class Links(nbdev.processors.Processor):
    def cell(self, cell):
        folder = Path(self.nb.path_).resolve().parent.relative_to(ROOT / "nbs")
        if cell.cell_type == "markdown":
            cell.source = linked(cell.source, folder)
        for output in cell.get("outputs", []):
            if "text/markdown" in (data := output.get("data", {})):
                data["text/markdown"] = linked("".join(data["text/markdown"]), folder)


class KeptFrontmatter(nbdev.processors.FrontmatterProc):
    "nbdev takes title and description out of a notebook's first cell; what follows them there stays."

    def _update(self, f, cell):
        text = cell.get("source") or ""
        super()._update(f, cell)
        if cell.cell_type == "markdown" and cell.source is None:
            cell.source = re.sub(r"\A\s*# .*\n+(> .*\n*)*", "", text) or None


class ShownExports(nbdev.processors.Processor):
    "nbdev leaves exported code out; here it stands below the entries that document it, folded where it is long."

    def begin(self):
        cells, at = [], 0                                           # `at`: where the entries of the last exported cell go
        for cell in self.nb.cells:
            directives = cell.get("directives_", {}).keys()
            if {"hide", "default_exp"} & directives:
                continue
            if getattr(cell, "has_sd", False):                      # nbdev has those of one cell in reverse order
                cells.insert(at, cell)
            elif "show_doc(" in cell.source and cells and "code-summary" in cells[-1].source:
                cells.insert(-1, cell)                              # asked for in the notebook, right below the code
            else:
                at = len(cells)
                cells.append(folded(cell) if {"export", "exporti"} & directives else cell)
        self.nb.cells = cells


def folded(cell):
    tree = ast.parse(cell.source).body
    names = [node.name for node in tree if hasattr(node, "name")]
    imports = all(isinstance(node, ast.Import | ast.ImportFrom) for node in tree)
    fold = "true" if imports or cell.source.count("\n") >= LONG else "show"
    summary = "Imports" if imports else f"Source of {', '.join(names)}" if names else "Source"
    cell.source = f'#| code-fold: {fold}\n#| code-summary: "{summary}"\n{cell.source}'
    cell.outputs = []
    return cell


def signature(function):
    try:
        found = inspect.signature(function)
    except (TypeError, ValueError):
        return ""
    bare = [p.replace(annotation=p.empty) for p in found.parameters.values() if p.name != "self"]
    return str(found.replace(parameters=bare, return_annotation=found.empty))


def as_written(text):
    "Docstrings are plain text with code in backticks: a `<` or `*` outside is itself, and no tag or emphasis."
    return re.sub(r"(`[^`]*`)|([<*])", lambda found: found[1] or "\\" + found[2], text)


class Entry(nbdev.showdoc.BasicMarkdownRenderer):
    "The entry of a public name: parameters as a table where each has a line of its own, else as they stand in the code."

    def _repr_markdown_(self):
        module = (getattr(self.sym, "__module__", None) or "").removeprefix(f"{CONFIG.lib_path.name}.")
        pages = {Path(page).name: page for page in NOTEBOOKS}
        module = module if module in pages else Path(lookup()[self.fn][1]).stem         # two modules may have a name in common
        links = f"[source]({lookup().code(self.fn)}) [all names]({'../' * pages[module].count('/')}api.md#{module})"
        head = f"::: {{.entry-links}}\n{links}\n:::\n\n{'#' * self.title_level} {self.nm}\n\n{as_written(self.docs)}\n\n"
        comments = docments(self.sym, full=True) if own_lines(self.sym) else {}
        if not any(said.docment for said in comments.values()):
            text = re.sub("^def", "class", str(self.dm)) if inspect.isclass(self.sym) else str(self.dm)
            if len(line := re.sub(r"\(\n *(.*)\n\)", r"(\1)", text)) <= WIDTH:
                text = line
            return f"{head}```python\n{text}\n```\n"
        return f"{head}```python\n{self.nm}{signature(self.sym)}\n```\n\n{table_of(comments)}"


def table_of(comments):
    rows = [("returns" if name == "return" else f"`{name}`", shown(said.anno), shown(said.get("default", EMPTY), repr),
             as_written(said.docment or "")) for name, said in comments.items() if name != "self"]
    lines = [" | ".join(cell.replace("|", "\\|") for cell in row) for row in rows if row[0] != "returns" or any(row[1:])]
    return "\n".join(["| | type | default | what it is |", "|---|---|---|---|", *(f"| {line} |" for line in lines)])


def shown(value, as_text=str):
    if value is EMPTY:
        return ""
    text = value.__name__ if isinstance(value, type) else as_text(value)
    return f"`{re.sub(r'[a-z_.]+[.](?=[A-Z]|ndarray)', '', text)}`"


def own_lines(function):
    "Whether no two parameters share a line, so that a comment beside one is about that one."
    function = function.__init__ if inspect.isclass(function) else function
    try:
        node = ast.parse(inspect.cleandoc("\n" + inspect.getsource(function))).body[0]
    except (OSError, SyntaxError, TypeError):
        return False
    args = getattr(node, "args", None)
    lines = [a.lineno for a in args.posonlyargs + args.args + args.kwonlyargs if a.arg != "self"] if args else []
    return bool(lines) and len(lines) == len(set(lines))


class Filter(nbdev.processors.FilterDefaults):
    def __init__(self):
        nbdev.showdoc.BasicMarkdownRenderer = Entry                 # show_doc looks it up when it is called

    def base_procs(self):
        ours = {"FrontmatterProc": [KeptFrontmatter], "insert_warning": [], "rm_export": [ShownExports], "mv_exports": [],
                "add_fold": [], "add_links": [Links]}
        return [new for old in super().base_procs() for new in ours.get(old.__name__, [old])]
