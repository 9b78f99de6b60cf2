"""What the article's faults do on a corpus: chapter 14 is run on it, after a training on the article's own split.
`python benchmarks/changes.py CORPUS`; written to results/<corpus>-<checksum8>-changes.json, which chapter 14 shows too."""
import json
import os
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from bert_genres.data import load_corpus, report_dir, split_article
from bert_genres.model import fit_article, save_bundle
from bert_genres.results import hardware, write_metrics

ROOT = Path(__file__).resolve().parent.parent


def main(corpus):
    corpus = str(Path(corpus).resolve()) if Path(corpus).exists() else corpus
    with tempfile.TemporaryDirectory() as place:
        os.environ |= {"BERT_GENRES_REPORTS": place, "CORPUS": corpus}
        films = load_corpus(corpus)
        bundle, _ = fit_article(films, split_article(films), corpus=corpus)
        save_bundle(bundle, report_dir(corpus) / "article-split")
        nb = nbformat.read(ROOT / "nbs" / "14_changes.ipynb", as_version=4)
        NotebookClient(nb, timeout=None, kernel_name="python3", extra_arguments=["--log-level=40"],
                       resources={"metadata": {"path": str(ROOT / "nbs")}}).execute()
        run = json.loads((report_dir(corpus) / "changes.json").read_text(encoding="utf-8"))
    path = ROOT / "results" / f"{run['corpus']}-{run['checksum'][:8]}-changes.json"
    write_metrics(path, run | {"hardware": hardware()})
    print(path.name)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "sample")
