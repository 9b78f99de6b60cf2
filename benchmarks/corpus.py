"""What a corpus holds, counted: films, genres, lengths, and the languages, countries and genres of its metadata.
`python benchmarks/corpus.py CORPUS`; written to results/<corpus>-<checksum8>-corpus.json, from which nbs/data_card.md is made."""
import sys
import tarfile
from pathlib import Path

import numpy as np
import pandas as pd

from bert_genres.data import SAMPLE, binarize, corpus_checksum, corpus_name, label_names, load_corpus, read_metadata, split_corpus
from bert_genres.results import write_metrics
from bert_genres.splits import near_duplicates

ROOT = Path(__file__).resolve().parent.parent


def metadata(corpus) -> str:
    "The metadata of the sample or of an archive, films without a plot too, as text."
    if corpus == "sample":
        return (SAMPLE / "movie.metadata.tsv").read_text(encoding="utf-8")
    with tarfile.open(corpus) as tar:
        [name] = [n for n in tar.getnames() if n.endswith("movie.metadata.tsv")]
        return tar.extractfile(name).read().decode("utf-8-sig")


def counts(films, part, about):
    Y = binarize(films.genres, label_names(films.genres))[0]
    words = films["plot"].str.split().str.len()
    years = pd.to_numeric(films.year, errors="coerce").dropna()
    quantiles = lambda x: " / ".join(f"{q:.0f}" for q in np.quantile(x, [.05, .5, .95]))
    return {"films with a plot and a genre": f"{len(films):,}",
            "of them training, validation, test": " / ".join(f"{(part == p).sum():,}" for p in ("train", "validation", "test")),
            "genres": Y.shape[1],
            "genres with ten films or more": int((Y.sum(0) >= 10).sum()),
            "genres with one film": int((Y.sum(0) == 1).sum()),
            "genres a film, mean": f"{Y.sum(1).mean():.1f}",
            "words a plot, 5 % / median / 95 %": quantiles(words),
            "year, 5 % / median / 95 %": quantiles(years),
            "films with a near-duplicate": len(films) - len(set(near_duplicates(films))),
            "films in the metadata": f"{len(about):,}"}


def shares(about, field, k=6):
    "The k most frequent values of a field of lists, as shares of the films."
    top = about.explode(field)[field].value_counts().head(k) / len(about)
    return {name: f"{share:.0%}" for name, share in top.items()} | {"none given": f"{(about[field].str.len() == 0).mean():.0%}"}


def main(corpus):
    films, about = load_corpus(corpus), read_metadata(metadata(corpus))
    checksum = corpus_checksum(films)
    run = {"corpus": corpus_name(corpus), "checksum": checksum,
           "counts": counts(films, split_corpus(films, corpus=corpus), about),
           "shares": {field: shares(about, field) for field in ("languages", "countries", "genres")}}
    path = ROOT / "results" / f"{run['corpus']}-{checksum[:8]}-corpus.json"
    write_metrics(path, run)
    print(path.name)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "sample")
