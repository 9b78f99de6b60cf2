"""The page in a real browser, and explanations in the command."""
import json
import re
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from conftest import few_networks, one_line
from playwright.sync_api import expect

from bert_genres.data import load_corpus
from bert_genres.embeddings import BertEncoder
from bert_genres.explanation import explain
from bert_genres.model import load_bundle, save_bundle
from bert_genres.recipes import fit_frozen

PLOT = "A widow hears voices in the walls. She falls in love with the sheriff. A murderer hides in the barn."


@pytest.fixture(scope="module")
def frozen(tmp_path_factory):
    films = load_corpus("sample").iloc[:150].reset_index(drop=True)
    with few_networks():
        bundle, _ = fit_frozen(films, np.full(len(films), "train"), encoder=BertEncoder(max_seq_len=64))
    return save_bundle(bundle, tmp_path_factory.mktemp("page") / "frozen")


@pytest.fixture(scope="module")
def server(frozen):
    "The command in a process; its address. At the end it has said nothing but that."
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [Path(sys.executable).with_name("bert-genres"), "app", frozen, "--port", str(port)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, preexec_fn=lambda: signal.signal(
        signal.SIGINT, signal.default_int_handler))
    said = process.stderr.readline().decode()
    assert said.startswith(f"http://127.0.0.1:{port} "), said + process.stderr.read().decode()
    yield f"http://127.0.0.1:{port}"
    process.send_signal(signal.SIGINT)
    rest = process.stderr.read().decode()
    assert (process.wait(), rest) == (130, "bert-genres: interrupted\n")      # and no text was logged


@pytest.fixture(params=[{}, {"color_scheme": "dark", "viewport": {"width": 360, "height": 740}}], ids=["light", "dark phone"])
def page(request, browser, server):
    "The page, which must ask nobody else and report no error."
    page, errors, asked = browser.new_page(**request.param), [], []
    page.on("console", lambda message: errors.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda sent: asked.append(sent.url))
    page.goto(server)
    expect(page.locator("#model")).to_contain_text("trained on 150 texts")
    yield page
    assert not errors
    assert all(url.startswith((server, "data:")) for url in asked)
    page.close()


def serious(page):
    return [v["id"] for v in Axe().run(page).response["violations"] if v["impact"] in ("serious", "critical")]


def named(page):
    return page.locator("#labels tr.named button").all_text_contents()


def test_type_read_and_slide(page, frozen):
    assert not serious(page)
    page.locator("#text").press_sequentially(PLOT)
    expect(page.locator("#sentences li")).to_have_count(3)
    bundle = load_bundle(frozen)
    probs = bundle.predict_proba([PLOT])
    before = named(page)
    assert set(before) == set(bundle.names(probs, bundle.decide(probs))[0])
    expect(page.locator("#summary")).to_contain_text(f"{len(before)} of {len(bundle.classes_)}" if before else "None")
    page.locator("#labels button").nth(1).click()
    chosen = page.locator("#labels button").nth(1).text_content()
    expect(page.locator("#why-title")).to_have_text(f"Why {chosen}")
    without = explain(bundle, PLOT, [chosen])["labels"][0]["without"]
    shown = [float(re.match(r"(?:< )?([\d.]+) %", text)[1]) for text in page.locator("#sentences b").all_text_contents()]
    np.testing.assert_allclose(shown, 100 * np.array(without), atol=.51)
    expect(page.locator("#similar li")).to_have_count(5)
    trade = page.locator("#trade").text_content()
    page.locator("#step").fill("-2")
    expect(page.locator("#labels tr.named")).not_to_have_count(len(before))
    assert set(before) < set(named(page)) and page.locator("#trade").text_content() != trade
    assert not serious(page)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_keyboard_only(page):
    page.keyboard.press("Tab")
    page.keyboard.type(PLOT)
    expect(page.locator("#near")).to_be_visible()
    seen = []
    for _ in range(40):
        page.keyboard.press("Tab")
        seen.append(page.evaluate("document.activeElement.id || document.activeElement.textContent"))
        if seen[-1] == "step":
            break
        if len(seen) == 5:                                                # past three examples, on the second label
            page.keyboard.press("Enter")
            expect(page.locator("#why-title")).to_have_text(f"Why {seen[-1]}")
            assert page.evaluate("document.activeElement.textContent") == seen[-1]
    assert seen[:3] == ["a heist", "a ghost", "a wedding"] and seen[-1] == "step"
    few = len(named(page))
    page.keyboard.press("Home")
    expect(page.locator("#labels tr.named")).not_to_have_count(few)
    assert len(named(page)) > few and page.evaluate("document.activeElement.id") == "step"


def test_nothing_much_and_markup(page):
    expect(page.locator("#summary")).to_have_text("Nothing to read yet.")
    page.locator("#text").fill((PLOT + " ") * 1000)
    expect(page.locator("#sentences li")).to_have_count(40, timeout=60_000)
    expect(page.locator("#summary")).to_contain_text("have read the first 64 word pieces")
    page.locator("#text").fill("x" * 400_001)
    expect(page.locator("#summary")).to_contain_text("Too long")
    expect(page.locator("#labels")).to_be_hidden()
    image = "<img src=x onerror=\"document.title = 'gone'\">"
    page.locator("#text").fill(f"A ghost.<script>document.title = 'gone'</script> {image} Ends.")
    expect(page.locator("#sentences")).to_contain_text("<script>document.title = 'gone'</script>")
    assert page.title() == "bert-genres" and page.locator("#sentences img, #sentences script").count() == 0
    page.locator("#text").fill("   ")
    expect(page.locator("#summary")).to_have_text("Nothing to read yet.")
    expect(page.locator("#why")).to_be_hidden()


def post(url, body, **headers):
    with urlopen(Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"} | headers)) as answer:
        return json.load(answer)


def test_twenty_at_once_get_their_own_answers(server):
    texts = [f"A {who} is lost in the {where}." for who in ("nun", "cop", "dog", "spy") for where in
             ("desert", "city", "jungle", "war", "school")]
    alone = [post(f"{server}/answer", {"text": text}) for text in texts]
    assert len({json.dumps(a) for a in alone}) > 10
    with ThreadPoolExecutor(20) as users:
        for _ in range(3):
            assert list(users.map(lambda text: post(f"{server}/answer", {"text": text}), texts)) == alone


@pytest.mark.parametrize(("path", "body", "headers", "status"), [
    ("answer", {"text": ""}, {}, 400), ("answer", {"text": "a", "step": 4}, {}, 400),
    ("why", {"text": "a", "label": "no"}, {}, 400), ("answer", {"text": "a"}, {"Host": "evil.example"}, 403),
    ("answer", {"text": "a", "step": 10 ** 400}, {}, 400), ("answer", {"text": "a"}, {"Content-Type": "text/plain"}, 403),
    ("answer", {"text": "a"}, {"Origin": "http://evil.example"}, 403), ("nowhere", {"text": "a"}, {}, 404)])
def test_bad_requests_are_refused(server, path, body, headers, status):
    with pytest.raises(HTTPError) as refused:
        post(f"{server}/{path}", body, **headers)
    assert refused.value.code == status


def test_the_command_refuses_ports_that_are_not_to_be_had(run_process, server, frozen):
    assert "cannot listen" in one_line(run_process("app", frozen, "--port", server.rsplit(":", 1)[1]), 2)
    assert "not from 1 to 65535" in one_line(run_process("app", frozen, "--port", 0), 2)


def test_explain_prints_no_control_characters(run, frozen):
    done = run("explain", frozen, "-", stdin=b"A ghost \x1b[31mcalls. It is Red\x07.\n")
    assert done.returncode == 0 and done.stdout.startswith(b"# 1\n")
    assert not re.search(rb"[\x00-\x09\x0b-\x1f]", done.stdout)
    lines = run("explain", frozen, "-", "--label", "Horror", stdin=PLOT.encode()).stdout.decode().splitlines()
    assert lines[1].startswith("Horror: 0.") and any(" without: " in line for line in lines)
    assert "not a label of this bundle" in one_line(run("explain", frozen, "-", "--label", "Horor", stdin=b"A.\n"), 2)


def test_an_older_bundle_without_titles_and_curve_still_explains(frozen, tmp_path):
    bundle = load_bundle(frozen)
    bundle.head.films, bundle.info = [], {k: v for k, v in bundle.info.items() if k != "tradeoff"}
    old = load_bundle(save_bundle(bundle, tmp_path / "old"))
    said = explain(old, PLOT, ["Drama"])
    assert all(re.fullmatch(r"training text \d+", title) for title, _ in said["similar"])
    assert said["labels"] == [x | {"films": y["films"]} for x, y in
                              zip(explain(load_bundle(frozen), PLOT, ["Drama"])["labels"], said["labels"], strict=True)]
