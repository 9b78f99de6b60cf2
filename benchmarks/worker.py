"""One encoder in a process of its own. Reads a JSON list of texts a line on stdin; answers a line with the seconds taken
and the peak memory, and leaves the vectors in a file. Started by encoder.py, ours and the peers' alike."""
import json
import resource
import sys
import time

import numpy as np


def ours(folder, **settings):
    from bert_genres.embeddings import BertEncoder

    return BertEncoder(folder, **{"layer": -1} | settings).encode


def sentence_transformers(folder, **settings):
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(folder, device="cpu", **settings)
    return lambda texts: model.encode(texts, show_progress_bar=False, convert_to_numpy=True)


def torch_bf16(folder):
    import torch

    return sentence_transformers(folder, model_kwargs={"dtype": torch.bfloat16})


def matrix_peak():
    "The best of some bfloat16 matrix products, in GFLOP/s."
    import torch

    rates = []
    for n in (1024, 2048, 3072):
        a, b = (torch.randn(n, n, dtype=torch.bfloat16) for _ in range(2))
        for _ in range(8):
            start = time.perf_counter()
            a @ b
            rates.append(2 * n ** 3 / (time.perf_counter() - start) / 1e9)
    return max(rates)


SYSTEMS = {
    "bert-genres": ours,
    "bert-genres, layer -2": lambda folder: ours(folder, layer=-2),
    "bert-genres, fp32": lambda folder: ours(folder, precision="fp32"),
    "sentence-transformers": sentence_transformers,
    "sentence-transformers, bf16": torch_bf16,
    "sentence-transformers, OpenVINO": lambda folder: sentence_transformers(
        folder, backend="openvino", model_kwargs={"export": True}),
}

if __name__ == "__main__":
    system, folder, out = sys.argv[1:]
    if system == "matrix peak":
        print(matrix_peak())
        sys.exit()
    encode = SYSTEMS[system](folder)
    encode(["A first text warms it up."] * 8)
    print("ready", flush=True)
    for line in sys.stdin:
        texts = json.loads(line)
        start = time.perf_counter()
        vectors = encode(texts)
        seconds = time.perf_counter() - start
        np.save(out, np.asarray(vectors, dtype=np.float32))
        print(json.dumps({"seconds": seconds, "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}), flush=True)
