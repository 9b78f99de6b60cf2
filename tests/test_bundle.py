"""Bundles whose checksums are right and whose inside is wrong: one line that says what, whatever it is."""
import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import one_line
from safetensors.numpy import load_file, save_file

from bert_genres.files import InputError
from bert_genres.model import load_bundle, save_bundle


def forge(bundle, copy, name, change):
    "A copy of a bundle in which the file `name` holds what `change` makes of it, with a manifest that agrees."
    shutil.copytree(bundle, copy, copy_function=os.link)
    path = copy / name
    if path.suffix == ".safetensors":
        tensors = change(load_file(path))
        path.unlink()
        save_file({k: np.ascontiguousarray(v) for k, v in tensors.items()}, path)
    else:
        text = path.read_text()
        changed = change(json.loads(text) if path.suffix == ".json" else text)
        path.unlink()
        path.write_text(changed if isinstance(changed, str) else json.dumps(changed))
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["files"][name] = hashlib.sha256(path.read_bytes()).hexdigest()
    (copy / "manifest.json").unlink()
    (copy / "manifest.json").write_text(json.dumps(manifest))
    return copy


def put(**values):
    return lambda value: value | values


def info(**values):
    return lambda value: value | {"info": value["info"] | values}


def encoder(**values):
    return lambda value: value | {"encoder": value["encoder"] | values}


def spoil(name, at=(0, 0)):
    def change(tensors):
        tensors[name] = tensors[name].copy()
        tensors[name][at] = np.nan
        return tensors
    return change


HEAD = "head.safetensors"
WRONG = {
    "a list of labels that is too short": ("bundle.json", lambda b: b | {"classes": b["classes"][:5]}, "of the 5 labels"),
    "a label too many": ("bundle.json", lambda b: b | {"classes": [*b["classes"], "One more"]}, "support has"),
    "that without its support": ("bundle.json", lambda b: {**b, "classes": [*b["classes"], "One more"], "info": {
        k: v for k, v in b["info"].items() if k != "support"}}, "kernel_2 has the shape"),
    "no labels": ("bundle.json", put(classes=[]), "classes must contain at least 1"),
    "a label twice": ("bundle.json", lambda b: b | {"classes": [*b["classes"][1:], b["classes"][1]]}, "must contain unique"),
    "labels that are numbers": ("bundle.json", lambda b: b | {"classes": [*range(len(b["classes"]))]}, "[0] must be string"),
    "a text as threshold": ("bundle.json", put(threshold="0.2"), "threshold"),
    "NaN as threshold": ("bundle.json", put(threshold=float("nan")), "threshold is neither"),
    "an infinite threshold": ("bundle.json", put(threshold=float("inf")), "threshold is neither"),
    "a threshold below 0": ("bundle.json", put(threshold=-1), "threshold is neither"),
    "too few thresholds": ("bundle.json", put(threshold=[.2, .3]), "threshold is neither"),
    "true as threshold": ("bundle.json", put(threshold=True), "threshold"),
    "an unknown head": ("bundle.json", put(head="os.system"), "head must be one of"),
    "a list of heads": ("bundle.json", put(head=["article"]), "head must be one of"),
    "an info that is a list": ("bundle.json", put(info=[]), "info must be object"),
    "an empty info": ("bundle.json", put(info={}), "info must contain"),
    "a support of texts": ("bundle.json", info(support=["many"]), "support[0] must be integer"),
    "versions that are a number": ("bundle.json", info(versions=3), "versions must be object"),
    "scores that are a list": ("bundle.json", info(scores=[1]), "scores must be object"),
    "a curve of texts": ("bundle.json", info(tradeoff={"step": ["x"]}), "tradeoff.step[0] must be number"),
    "an estimator without the labels": ("bundle.json", info(estimator={"classes": [], "indicator": True}), "classes lack"),
    "no encoder": ("bundle.json", put(encoder=None), "encoder must be object"),
    "an unknown pooling": ("bundle.json", encoder(pooling="best"), "unknown pooling"),
    "a pooling that is a number": ("bundle.json", encoder(pooling=3), "pooling must be string"),
    "a layer that is none": ("bundle.json", encoder(layer=-99), "layer -99"),
    "no layer at all": ("bundle.json", encoder(layer=[]), "layer"),
    "half a token": ("bundle.json", encoder(max_seq_len=25.5), "max_seq_len must be integer"),
    "another setting": ("bundle.json", encoder(trust_remote_code=True), "encoder must not contain"),
    "no object at all": ("bundle.json", lambda b: [b], "must be object"),
    "a deep list": ("bundle.json", lambda b: "[" * 100_000 + "]" * 100_000, "too deep"),
    "broken JSON": ("bundle.json", lambda b: "{", "broken JSON"),
    "rows that are a list": ("rows.json", lambda rows: [rows], "must be object"),
    "rows without digests": ("rows.json", lambda rows: {"train": [*rows["train"]]}, "train must be object"),
    "digests that are numbers": ("rows.json", lambda rows: {"train": {"1": 1}}, "must be string"),
    "a head of another width": (HEAD, lambda t: t | {"kernel_1": t["kernel_1"][:-1]}, "kernel_1 has the shape"),
    "a head of other labels": (HEAD, lambda t: t | {"bias_2": t["bias_2"][:-1]}, "bias_2 has the shape"),
    "a bias that is a matrix": (HEAD, lambda t: t | {"bias_1": t["bias_1"][None]}, "bias_1 has the shape"),
    "a head without a bias": (HEAD, lambda t: {k: v for k, v in t.items() if k != "bias_1"}, "bias_1"),
    "a tensor too many": (HEAD, lambda t: t | {"more": t["bias_1"]}, "more"),
    "NaN in the head": (HEAD, spoil("kernel_2"), "kernel_2 holds NaN"),
    "a head of truths": (HEAD, lambda t: t | {"bias_1": t["bias_1"] > 0}, "no tensor of numbers bias_1"),
    "rules out of range": (HEAD, lambda t: t | {"rules": np.array([[0, 9999]])}, "rules are no pairs"),
    "rules below 0": (HEAD, lambda t: t | {"rules": np.array([[-1, 0]])}, "rules are no pairs"),
    "rules of three": (HEAD, lambda t: t | {"rules": np.array([[0, 1, 2]])}, "rules are no pairs"),
    "rules of halves": (HEAD, lambda t: t | {"rules": np.array([[0.5, 1]])}, "rules are no pairs"),
    "no rules": (HEAD, lambda t: {k: v for k, v in t.items() if k != "rules"}, "rules"),
    "five words": ("encoder/vocab.txt", lambda v: "[PAD]\n[UNK]\n[CLS]\n[SEP]\nghost\n", "has 5 tokens"),
    "a vocabulary without [CLS]": ("encoder/vocab.txt", lambda v: v.replace("[CLS]", "[XYZ]"), "no [CLS]"),
    "another depth": ("encoder/config.json", put(num_hidden_layers=7), "layer_6"),
    "another width": ("encoder/config.json", put(hidden_size=768), "shape"),
    "another number of heads": ("encoder/config.json", put(num_attention_heads=-1), "num_attention_heads is -1"),
    "NaN in the encoder": ("encoder/model.safetensors", spoil("encoder.layer.3.output.dense.weight"), "holds NaN"),
}


@pytest.mark.parametrize("file, change, says", WRONG.values(), ids=WRONG)
def test_a_wrong_inside_is_one_line(file, change, says, bundle_dir, run, tmp_path):
    copy = forge(bundle_dir, tmp_path / "b", file, change)
    (tmp_path / "in.jsonl").write_text('{"plot": "A ghost haunts a ship."}\n')
    assert says in one_line(run("predict", copy, tmp_path / "in.jsonl"), 2)


def test_what_is_right_passes(bundle_dir, run, tmp_path):
    (tmp_path / "in.jsonl").write_text('{"plot": "A ghost haunts a ship."}\n')
    same = forge(bundle_dir, tmp_path / "same", "bundle.json", lambda b: b)
    many = forge(bundle_dir, tmp_path / "many", "bundle.json", lambda b: b | {"threshold": [.2] * len(b["classes"])})
    said = [run("predict", bundle, tmp_path / "in.jsonl").stdout for bundle in (bundle_dir, same, many)]
    assert said[0] and said[0] == said[1] == said[2]


def test_the_file_is_named(bundle_dir, tmp_path):
    copy = forge(bundle_dir, tmp_path / "b", "bundle.json", put(info={}))
    with pytest.raises(InputError, match=r"b/bundle.json: info must contain"):
        load_bundle(copy)


OLD = Path(__file__).parent / "bundles"    # tiny ones of random words, as this and earlier versions wrote them
WANT = json.loads((OLD / "want.json").read_text())


@pytest.mark.parametrize("name", WANT["probabilities"])
def test_bundles_of_every_format_decide_as_when_they_were_written(name, tmp_path):
    bundle, want = load_bundle(OLD / name, precision="fp32"), np.array(WANT["probabilities"][name])
    np.testing.assert_allclose(bundle.predict_proba(WANT["texts"]), want, atol=1e-4)
    again = load_bundle(save_bundle(bundle, tmp_path / "again"), precision="fp32")
    np.testing.assert_allclose(again.predict_proba(WANT["texts"]), want, atol=1e-4)
    assert len(bundle.rows["train"]) == 48
