"""Plots a second of our encoder and of its peers, alternating, on the same plots with the same weights:
`python benchmarks/encoder.py [CORPUS [MODEL]]`.

The peers get an environment of their own under benchmarks/. Takes about ten minutes on two cores with MiniLM, eight times as
long with a model of BERT-base's size. Writes results/bench-encoder.json, or bench-encoder-MODEL.json of another model.
"""
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

import numpy as np

from bert_genres.checkpoints import MINILM, Checkpoint
from bert_genres.data import corpus_name, load_corpus
from bert_genres.embeddings import wordpiece
from bert_genres.results import hardware, write_metrics

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
ROUNDS, PLOTS = 5, 512
OURS = ["bert-genres", "bert-genres, layer -2", "bert-genres, fp32"]
PEERS = ["sentence-transformers", "sentence-transformers, bf16", "sentence-transformers, OpenVINO"]


def peers_python():
    "The peers' interpreter, its environment made where it is missing."
    python = HERE / ".venv" / "bin" / "python"
    ready = HERE / ".venv" / "ready"
    wanted = (HERE / "requirements.txt").read_text()
    if not ready.exists() or ready.read_text() != wanted:
        print("installing the peers under benchmarks/.venv ...", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", HERE / ".venv"], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", "-r", HERE / "requirements.txt"], check=True)
        # a dependency of a dependency, of no use for texts; beside torch's build for processors it does not import
        subprocess.run([python, "-m", "pip", "uninstall", "-q", "-y", "torchvision"], check=True)
        ready.write_text(wanted)
    return python


class Worker:
    def __init__(self, system, python, folder, out):
        self.out = out
        env = os.environ | {"TOKENIZERS_PARALLELISM": "true", "HF_HUB_OFFLINE": "1"}
        self.process = subprocess.Popen([python, HERE / "worker.py", system, folder, out], text=True, env=env,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        if self._line() != "ready":
            raise RuntimeError(f"{system} did not start")

    def _line(self):
        for line in self.process.stdout:  # libraries print on stdout too
            if line.startswith(("ready", "{\"seconds\"")):
                return line.strip()
        return ""

    def encode(self, texts):
        self.process.stdin.write(json.dumps(texts) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self._line())
        return answer["seconds"], answer["peak_mb"], np.load(self.out)


def cosine(a, b):
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def alternate(workers, texts, rounds):
    "seconds[system]: one a round, the systems taking turns."
    seconds = {name: [] for name in workers}
    vectors, memory = {}, {}
    for _ in range(rounds):
        for name, worker in workers.items():
            taken, memory[name], vectors[name] = worker.encode(texts)
            seconds[name].append(taken)
    return seconds, vectors, memory


def main():
    corpus, name = [*sys.argv[1:], *["sample", MINILM][len(sys.argv) - 1:]]
    films = load_corpus(corpus)
    texts = list(films["plot"].sample(min(PLOTS, len(films)), random_state=0))
    model = Checkpoint(name)
    tokenizer = wordpiece(model, 256)
    tokens = np.array([len(e.ids) for e in tokenizer.encode_batch(texts)])
    c, width = model.config, model.config["hidden_size"]
    # multiply-adds of the matrix products: 4 d^2 + 2 d * intermediate a token and layer, and attention's 2 n d
    flop = 2 * c["num_hidden_layers"] * (tokens * (4 * width ** 2 + 2 * width * c["intermediate_size"])
                                         + 2 * tokens ** 2 * width).sum()
    python = peers_python()
    with tempfile.TemporaryDirectory() as tmp:
        peak = float(subprocess.run([python, HERE / "worker.py", "matrix peak", "", ""], capture_output=True, text=True,
                                    check=True).stdout)
        workers = {name: Worker(name, sys.executable if name in OURS else python, str(model.folder), f"{tmp}/{k}.npy")
                   for k, name in enumerate(OURS + PEERS)}
        seconds, vectors, memory = alternate(workers, texts, ROUNDS)
        by_length = {}
        for length in (16, 32, 64, 128, 256):
            same = ["the " * (length - 2)] * max(64, 4096 // length)
            taken, _, _ = alternate(workers, same, 3)
            by_length[length] = {name: round(len(same) / median(t), 1) for name, t in taken.items()}
    reference = vectors["bert-genres, fp32"]
    rate = {name: len(texts) / median(t) for name, t in seconds.items()}
    in_bf16 = ("bert-genres", *PEERS[1:])       # all six layers, in the precision that the peak is of
    systems = {name: {
        "plots_per_second": round(rate[name], 1), "rounds": [round(len(texts) / t, 1) for t in seconds[name]],
        "tokens_per_second": round(rate[name] * tokens.mean()), "peak_mb": round(memory[name]),
        "share_of_peak": round(flop / median(seconds[name]) / 1e9 / peak, 3) if name in in_bf16 else None,
        "least_cosine_to_fp32": None if "-2" in name else round(float(cosine(vectors[name], reference).min()), 6)}
        for name in rate}
    ours = "bert-genres"
    ratios = {f"{ours} / {p}": round(rate[ours] / rate[p], 2) for p in PEERS}
    ratios["layer -2 / layer -1"] = round(rate["bert-genres, layer -2"] / rate[ours], 2)
    other = "" if model.model == MINILM else f"-{Path(model.model).name}"
    write_metrics(ROOT / "results" / f"bench-encoder{other}.json", {
        "model": model.model, "corpus": corpus_name(corpus), "plots": len(texts), "max_seq_len": 256,
        "tokens_a_plot": {"mean": round(float(tokens.mean()), 1)} | {
            f"q{q}": int(np.percentile(tokens, q)) for q in (10, 50, 90)},
        "hardware": hardware(), "matrix_peak_gflops": round(peak), "systems": systems, "ratios": ratios, "by_length": by_length,
        "measured elsewhere": {"bert-as-service (TensorFlow 1.15, Python 3.7)": 15.5}})
    for name, s in systems.items():
        print(f"{name:34} {s['plots_per_second']:6.1f} plots/s {s['tokens_per_second']:7,} tokens/s {s['peak_mb']:6.0f} MB  "
              f"share of peak {s['share_of_peak']}  least cosine {s['least_cosine_to_fp32']}")
    print("\n".join(f"{k}: {v:.2f}" for k, v in ratios.items()))


if __name__ == "__main__":
    main()
