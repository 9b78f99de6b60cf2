"""README.md from nbs/index.ipynb, with its stored outputs; `--check` only compares."""
import re
import sys
from pathlib import Path

import nbformat
from nbconvert import MarkdownExporter

ROOT = Path(__file__).resolve().parent.parent


def readme() -> str:
    nb = nbformat.read(ROOT / "nbs" / "index.ipynb", as_version=4)
    nb.metadata["language_info"] = {"name": "python"}
    nb.cells = [c for c in nb.cells if not c.source.startswith("#| hide")]
    for cell in nb.cells:
        if cell.source.startswith("#| echo: false"):  # what it shows, without how
            cell.source = ""
    text, _ = MarkdownExporter().from_notebook_node(nb)
    text = re.sub(r"\]\((\d\d_\w+\.ipynb)", r"](nbs/\1", text)  # links stand one folder higher
    text = text.replace("](page.png)", "](nbs/page.png)")
    text = text.replace("```python\n\n```\n", "")
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


if __name__ == "__main__":
    path = ROOT / "README.md"
    if "--check" in sys.argv:
        sys.exit(0 if path.read_text(encoding="utf-8") == readme() else "README.md is not nbs/index.ipynb: make readme")
    path.write_text(readme(), encoding="utf-8")
