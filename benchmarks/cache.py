"""What the cache of vectors costs where it is empty, against plain encoding, taking turns; how long it takes to read ten
thousand plots from it; and the memory that a million short texts take. Takes about ten minutes on two cores. Writes
results/bench-cache.json."""
import os
import resource
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from bert_genres.data import corpus_name, load_corpus
from bert_genres.embeddings import BertEncoder
from bert_genres.files import cache_dir
from bert_genres.results import hardware, write_metrics
from bert_genres.vectors import encode_cached

ROOT = Path(__file__).resolve().parent.parent
ROUNDS, PLOTS, READ, STREAM = 5, 1024, 10_000, 1_000_000


def timed(function, *args):
    start = time.perf_counter()
    result = function(*args)
    return time.perf_counter() - start, result


def peak_mb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def stream(folder):
    "A generator's texts into a memory-mapped file, with the first layer of MiniLM alone: a tiny model, vectors of full width."
    os.environ["BERT_GENRES_CACHE"] = f"{folder}/stream"
    encoder = BertEncoder(layer=-6, max_seq_len=8)
    encoder.encode(["a film"] * encoder.window)
    before = peak_mb()
    seconds, vectors = timed(encode_cached, encoder, (f"film number {i}" for i in range(STREAM)), f"{folder}/stream.npy")
    return {"texts streamed": len(vectors), "streaming them, s": seconds, "their vectors, MB": vectors.nbytes / 1e6,
            "peak memory with the model, MB": before, "more at the end, MB": peak_mb() - before}


def plots(folder):
    "Encoding with and without the cache in turns, then reading: figures, and each round's seconds."
    corpus = sys.argv[1] if len(sys.argv) > 1 else "sample"
    texts = list(load_corpus(corpus)["plot"].head(READ))
    encoder, some = BertEncoder(), texts[:PLOTS]
    encoder.encode(some[:256])
    ways = {"plain": encoder.encode, "empty cache": lambda texts: encode_cached(encoder, texts)}
    rounds, equal = [], True
    for k in range(ROUNDS):
        os.environ["BERT_GENRES_CACHE"] = f"{folder}/{k}"
        done = {name: timed(ways[name], some) for name in list(ways)[::1 if k % 2 else -1]}
        rounds.append({name: done[name][0] for name in ways})
        equal &= bool((done["plain"][1] == done["empty cache"][1]).all())
    encode_cached(encoder, texts)
    warm = median(timed(encode_cached, encoder, texts)[0] for _ in range(ROUNDS))
    return {"corpus": corpus_name(corpus), "precision": encoder.precision, "plots encoded": len(some),
            "plain encoding, s": median(r["plain"] for r in rounds),
            "through an empty cache, s": median(r["empty cache"] for r in rounds),
            "overhead": median(r["empty cache"] / r["plain"] for r in rounds) - 1, "equal vectors": equal,
            "plots read": len(texts), "reading them from the cache, s": warm,
            "file, MB": (cache_dir() / "vectors.sqlite").stat().st_size / 1e6}, rounds


def main():
    with tempfile.TemporaryDirectory() as folder:
        streamed = stream(folder)               # first, for a process's peak memory only grows
        figures, rounds = plots(folder)
    figures = {k: float(f"{v:.3g}") if isinstance(v, float) else v for k, v in (figures | streamed).items()}
    rounds = [{name: round(seconds, 2) for name, seconds in r.items()} for r in rounds]
    write_metrics(ROOT / "results" / "bench-cache.json", {"hardware": hardware(), "figures": figures, "rounds": rounds})
    print("\n".join(f"{k}: {v}" for k, v in figures.items()))


if __name__ == "__main__":
    main()
