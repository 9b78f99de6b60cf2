"""The documentation site as a reader gets it: its files, and every page in a real browser."""
import configparser
import functools
import http.server
import importlib
import json
import re
import subprocess
import sys
import threading
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest
import yaml
from axe_playwright_python.sync_playwright import Axe
from bs4 import BeautifulSoup
from playwright.sync_api import expect

ROOT = Path(__file__).resolve().parent.parent
DOCS, NBS = ROOT / "_docs", ROOT / "nbs"
NOTEBOOKS = [p.relative_to(NBS).as_posix() for p in sorted(NBS.rglob("*.ipynb"))]
CONFIG = yaml.safe_load((ROOT / "_quarto.yml").read_text())
SETTINGS = configparser.ConfigParser()
SETTINGS.read(ROOT / "settings.ini")
SETTINGS = SETTINGS["DEFAULT"]


def in_sidebar(contents):
    return [name for c in contents for name in ([c] if isinstance(c, str) else in_sidebar(c["contents"]))]


def page_of(source):
    "The page of a file, as engine/files of engine/00_files.ipynb."
    return re.sub(r"(?<![^/])\d+_|\.\w+$", "", source)


LISTED = [page_of(source) for source in in_sidebar(CONFIG["website"]["sidebar"]["contents"])]
PAGES = [*LISTED, "chord"]


def sources():
    found = [p for folder in ("nbs", "bert_genres", "scripts") for p in (ROOT / folder).rglob("*") if p.is_file()]
    return [*found, *ROOT.glob("*.md"), ROOT / "_quarto.yml", ROOT / "settings.ini"]


@pytest.fixture(scope="module")
def site():
    "The built site: the one that is there, unless something that it is made of is newer."
    index = DOCS / "index.html"
    if not index.exists() or index.stat().st_mtime < max(p.stat().st_mtime for p in sources()):
        done = subprocess.run([sys.executable, ROOT / "scripts" / "docs.py"], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        assert "broken link" not in done.stderr and done.stdout.startswith("_docs/ built by "), done.stderr[-3000:]
    return DOCS


@pytest.fixture(scope="module")
def soups(site):
    pages = {p.relative_to(site).with_suffix("").as_posix(): p for p in sorted(site.rglob("*.html")) if "site_libs" not in str(p)}
    return {name: BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser") for name, path in pages.items()}


def source_of(cell):
    return "".join(cell["source"])


def squeezed(text):
    return re.sub(r"\s+", "", text)


# ---------------------------------------------------------------- what is in the files

def test_every_page_is_there_small_and_says_what_it_is(soups):
    assert set(PAGES) == set(soups)
    assert {page_of(name) for name in NOTEBOOKS} <= set(LISTED)
    for name, soup in soups.items():
        assert (DOCS / f"{name}.html").stat().st_size < 3_000_000, name
        assert len(soup.find_all("h1")) == 1 and soup.title.string, name


def test_what_stands_below_a_chapters_title_is_on_its_page(soups):
    for notebook in NOTEBOOKS:
        letters = lambda text: re.sub(r"\W+", "", re.sub(r"\]\([^)]*\)", "", text))          # without marks, quotes and links
        page = letters(soups[page_of(notebook)].main.get_text())
        first = source_of(json.loads((NBS / notebook).read_text())["cells"][0])
        for words in re.split(r"\$[^$]*\$", first):                                          # between formulas
            assert letters(words) and letters(words) in page, (notebook, words)


def test_no_link_or_anchor_is_broken(soups):
    ids = {name: {tag["id"] for tag in soup.find_all(id=True)} for name, soup in soups.items()}
    broken = []
    for name, soup in soups.items():
        for tag, key in [(t, k) for k in ("href", "src") for t in soup.find_all(attrs={k: True})]:
            target, anchor = urldefrag(unquote(tag[key]))
            inside = re.match(re.escape(CONFIG["website"]["repo-url"]) + r"/blob/main/(.+)", target)
            if inside and not (ROOT / inside[1]).exists() or target.startswith(CONFIG["website"]["site-url"]) and tag.name == "a":
                broken.append((name, tag[key]))
            if re.match(r"[a-z]+:", target):
                continue
            path = (DOCS / name).parent.joinpath(target).resolve() if target else DOCS / f"{name}.html"
            path = path / "index.html" if path.is_dir() else path
            page = path.with_suffix("").relative_to(DOCS).as_posix() if path.is_relative_to(DOCS) else ""
            if not path.is_file() or anchor and path.suffix == ".html" and anchor not in ids.get(page, ()):
                broken.append((name, tag[key]))
    assert not broken


def test_every_picture_has_an_alternative_text(soups):
    assert [(name, str(tag)[:200]) for name, soup in soups.items() for tag in soup.find_all("img")
            if len(tag.get("alt", "")) < 3] == []


def test_nothing_leaks_that_is_not_for_readers(soups):
    for name, soup in soups.items():
        for script in soup.main.find_all(["script", "style", "annotation"]):
            script.extract()
        text = soup.main.get_text()
        assert not soup.select(".cell-output-stderr, .cell-output-error"), name
        assert not re.search(r"^\s*#\|", text, flags=re.M), name
        assert not re.search(r":::|\{\{<|Traceback \(most recent|\b\w+Warning:|AUTOGENERATED", text), name
        prose = " ".join(t for t in soup.main.find_all(string=True) if not t.find_parent(["pre", "code"]))
        assert not re.findall(r".{0,60}(?:\\[(\[]|\\[a-z]{3}|\$\$|\]\(|\{\.|`).{0,60}", prose), name      # Markdown or TeX unread
        shown = "\n".join(tag.get_text() for tag in soup.select(".cell-output pre"))
        values = r"^(Text\(|\(?<(Axes|Figure)|\[?<(matplotlib|bert_genres))"           # a cell's last line, without a semicolon
        assert not re.search(values, shown, flags=re.M), name
    for notebook in NOTEBOOKS:
        text = squeezed(soups[page_of(notebook)].main.get_text())
        for cell in json.loads((NBS / notebook).read_text())["cells"]:
            if re.match(r"#\| *hide\b", source_of(cell)):
                assert squeezed(source_of(cell).split("\n", 1)[-1]) not in text, (notebook, source_of(cell)[:200])


def test_formulas_are_mathml_and_the_page_loads_nothing_from_elsewhere(soups):
    assert len(soups["focal_loss"].find_all("math")) > 20
    for name, soup in soups.items():
        loading = soup.find_all(["script", "link", "img", "iframe"])
        assert not [t for t in loading if re.match(r"(https?:)?//", t.get("src") or t.get("href") or "")], name
    for path in DOCS.rglob("*.css"):
        assert not re.search(r"@import[^;]*//|url\(.?(https?:)?//", path.read_text(encoding="utf-8")), path.name


def test_every_public_name_has_an_entry_and_links_lead_both_ways(soups):
    listed = {a["href"] for a in soups["api"].main.find_all("a", href=True)}
    back = {name: {a["href"] for a in soup.find_all("a", href=True)} for name, soup in soups.items()}
    for notebook in NOTEBOOKS:
        if not (module := re.search(r"#\| default_exp (\w+)", (NBS / notebook).read_text())):
            continue
        found, page = importlib.import_module(f"bert_genres.{module[1]}"), page_of(notebook)
        text = soups["api"].main.get_text()
        assert f"{page}.html" in listed and f"{'../' * page.count('/')}api.html#{module[1]}" in back[page]
        for name in found.__all__:
            assert name in text, name
            if getattr(getattr(found, name), "__module__", "") == found.__name__:
                assert f"{page}.html#{name.lower()}" in listed, name


def test_the_configuration_agrees_with_the_settings():
    web, form = CONFIG["website"], CONFIG["format"]["html"]
    assert web["title"] == SETTINGS["title"] and web["site-url"] == SETTINGS["doc_host"] + SETTINGS["doc_baseurl"]
    repository = {"repo-url": "git_url", "repo-branch": "branch", "repo-subdir": "nbs_path"}
    assert all(web[ours] == SETTINGS[nbdevs] for ours, nbdevs in repository.items())
    assert CONFIG["project"]["output-dir"] == SETTINGS["doc_path"]
    assert form["html-math-method"] == "mathml" and form["theme"].keys() == {"light", "dark"}


def test_a_shared_link_has_a_card_and_the_tab_an_icon(soups):
    head = soups["index"].head
    card = head.find("meta", property="og:image")["content"]
    assert card.startswith(CONFIG["website"]["site-url"]) and (DOCS / card.rsplit("/", 1)[1]).is_file()
    assert (DOCS / head.find("link", rel="icon")["href"]).is_file()
    assert head.find("meta", attrs={"name": "description"})["content"]


# ---------------------------------------------------------------- in a browser

@pytest.fixture(scope="module")
def address(site):
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


WIDE, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
STICKING_OUT = """() => [...document.querySelectorAll("body *")].filter(element => {
    if (element.getBoundingClientRect().right <= innerWidth + 1 || !element.checkVisibility()) return false
    for (let box = element; box; box = box.parentElement) {
        const {overflowX, position} = getComputedStyle(box)
        if (overflowX == "auto" || overflowX == "scroll" || position == "fixed") return false
    }
    return true
}).map(element => element.outerHTML.slice(0, 200))"""


def opened(context, address, name, said):
    page = context.new_page()
    page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("requestfailed", lambda request: said.append(request.url))
    page.on("response", lambda response: said.append(response.url) if response.status >= 400 else None)
    page.on("request", lambda request: None if request.url.startswith((address, "data:", "blob:")) else said.append(request.url))
    page.goto(f"{address}/{name}.html")
    return page


def serious(page):
    "What axe finds. Words of code have the same few colours everywhere, and to measure thousands takes long: ten blocks do."
    page.evaluate("document.querySelectorAll('pre code').forEach((code, i) => i > 9 && code.replaceChildren(code.textContent))")
    found = Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
    return [(v["id"], [n["html"][:200] for n in v["nodes"][:3]]) for v in found if v["impact"] in ("serious", "critical")]


@pytest.mark.parametrize("name", PAGES)
def test_a_page_in_both_themes_and_on_a_phone(name, browser, address):
    said = []
    for scheme in ("light", "dark"):
        context = browser.new_context(color_scheme=scheme, viewport=WIDE, reduced_motion="reduce")
        page = opened(context, address, name, said)
        dark = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3).every(v => v < 80)")
        assert dark == (scheme == "dark")
        for size in (PHONE, WIDE) if dark else (WIDE,):
            page.set_viewport_size(size)
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (scheme, size)
            assert not page.evaluate(STICKING_OUT), (scheme, size)
        assert not serious(page), scheme
        context.close()
    assert not said


def test_theme_switch_stays_and_search_finds(browser, address):
    context, said = browser.new_context(color_scheme="light", viewport=WIDE), []
    page = opened(context, address, "focal_loss", said)
    page.locator(".quarto-color-scheme-toggle:visible").first.click()
    expect(page.locator("html.quarto-dark, body.quarto-dark")).to_have_count(1)
    page.goto(f"{address}/index.html")
    expect(page.locator("html.quarto-dark, body.quarto-dark")).to_have_count(1)
    page.locator("#quarto-search input:visible").press_sequentially("focal loss")
    expect(page.locator("#quarto-search a[href*='focal_loss.html']").first).to_be_visible()
    context.close()
    assert not said


def test_what_scrolls_sideways_is_reached_by_keyboard(browser, address):
    context = browser.new_context(viewport=PHONE)
    page = opened(context, address, "focal_loss", [])
    assert page.locator("main pre[tabindex='0']").count() and page.locator("main pre:not([tabindex])").count()
    context.close()
