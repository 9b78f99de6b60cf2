"""The repository as its maintainers keep it: notebooks and module in step, nothing stored that should not be."""
import ast
import configparser
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml

import bert_genres

ROOT = Path(__file__).resolve().parent.parent
FLOORS = ("engine", "nbs", "uses")                                   # from below
NOTEBOOKS = [p for floor in ("engine", ".", "uses") for p in sorted((ROOT / "nbs" / floor).resolve().glob("*.ipynb"))]
TRACKED = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.split("\n")[:-1]


def test_exporting_and_cleaning_change_nothing(tmp_path):
    "In a copy: tests beside this one import the module and read the notebooks."
    shutil.copy(ROOT / "settings.ini", tmp_path)
    for folder in ("nbs", "bert_genres"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    for name in ("nbdev_export", "nbdev_clean"):
        subprocess.run([Path(sys.executable).with_name(name)], cwd=tmp_path, check=True, capture_output=True)
    found = lambda top: {p.name: p.read_bytes() for p in [*top.glob("nbs/**/*.ipynb"), *top.glob("bert_genres/*.py")]}
    before, after = found(ROOT), found(tmp_path)
    assert sorted(name for name in before | after if before.get(name) != after.get(name)) == []


def test_readme_is_the_front_page():
    done = subprocess.run([sys.executable, ROOT / "scripts" / "readme.py", "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook_is_stored_executed_small_and_without_errors(path):
    nb = json.loads(path.read_text())
    code = [c for c in nb["cells"] if c["cell_type"] == "code" and "".join(c["source"]).strip()]
    outputs = [o for c in code for o in c["outputs"]]
    assert path.stat().st_size < 1_000_000 and outputs
    assert not [o for o in outputs if o["output_type"] == "error" or o.get("name") == "stderr"]
    assert len({c["id"] for c in nb["cells"]}) == len(nb["cells"])
    stated = "".join("".join(c["source"]) for c in nb["cells"][:2])
    assert path.stem == "index" or path.parent.name == "engine" or "**Runs:**" in stated


def test_figures_have_captions_and_alternative_texts():
    for path in NOTEBOOKS:
        for cell in json.loads(path.read_text())["cells"]:
            if any("image/png" in o.get("data", {}) for o in cell.get("outputs", [])):
                source = "".join(cell["source"])
                assert "#| fig-cap:" in source and "#| fig-alt:" in source, (path.name, source[:80])


def module_of(path):
    found = re.search(r"#\| default_exp (\w+)", path.read_text())
    return found and found[1]


def place(path):
    return FLOORS.index(path.parent.name), int(path.stem[:2])


CORE = """files tables splits labels runtimes checkpoints vectors bundles data evaluation baselines embeddings focal_loss model
cooccurrence recipes results""".split()
PLUGINS = ("experiments", "finetuning", "explanation", "scaling_out", "command")


def test_a_notebook_imports_lower_floors_and_lower_numbers_on_its_own():
    number = {module_of(p): place(p) for p in NOTEBOOKS if module_of(p)}
    assert {"data", "evaluation", "embeddings", "model", "cooccurrence", "results"} <= {
        module_of(p) for p in NOTEBOOKS if p.parent.name == "nbs"}                     # the names that the course keeps
    assert number.keys() == {*CORE, *PLUGINS}
    for path in NOTEBOOKS:
        if path.stem == "index":
            continue
        for cell in json.loads(path.read_text())["cells"]:
            if cell["cell_type"] != "code":
                continue
            for node in ast.walk(ast.parse("".join(cell["source"]))):
                names = [node.module] if isinstance(node, ast.ImportFrom) else \
                    [a.name for a in node.names] if isinstance(node, ast.Import) else []
                for name in names:
                    if name.startswith("bert_genres."):
                        assert number[name.split(".")[1]] < place(path), f"{path.name} imports {name}"


def test_the_core_names_no_plug_in():
    "Whatever can be left out of the package without breaking the rest is named nowhere in it, not even in a string."
    for name in CORE:
        code = (ROOT / "bert_genres" / f"{name}.py").read_text(encoding="utf-8")
        assert not re.search(rf"(bert_genres\.|\.|[\"'])({'|'.join(PLUGINS)})\b", code), name


def test_the_locks_have_hashes_and_no_address_and_agree():
    for name in ("requirements.lock", "requirements-test.lock", "requirements-uv.txt", "build-constraints.txt"):
        text = (ROOT / name).read_text()
        assert "://" not in text and "index-url" not in text
        pins = [line for line in text.splitlines() if "==" in line]
        assert pins and all(line.rstrip().endswith("\\") for line in pins)       # each is followed by its hashes
    course, test = ({*re.findall(r"^[a-z0-9.-]+==\S+", (ROOT / name).read_text(), re.MULTILINE)}
                    for name in ("requirements.lock", "requirements-test.lock"))
    assert course - {"colorama==0.4.6"} < test                                   # which only Windows has


def test_every_recorded_figure_names_its_origin():
    for path in (ROOT / "results").glob("*.json"):
        run = json.loads(path.read_text())
        if "metrics" in run:
            name = re.sub("[^a-z0-9.]+", "-", run["recipe"].lower())
            assert path.name.startswith(f"{run['corpus']}-{run['checksum'][:8]}-{name}") and run["kind"] in ("recipe", "baseline")
            assert {"seed", "hardware", "versions", "split"} <= run.keys() and run["metrics"]["micro_f1_ci95"]
        elif path.name.startswith("bench-"):
            assert run["hardware"]
        else:
            assert path.name.startswith(f"{run['corpus']}-{run['checksum'][:8]}-")
            assert run.get("rows", "validation") == "validation"                     # test rows choose nothing
            assert "points" not in run or {"hardware", "versions", "weights", "split", "code"} <= run.keys()


def test_nothing_tracked_names_a_path_of_a_machine():
    assert "settings.ini" in TRACKED
    for path in [ROOT / name for name in TRACKED]:
        if path.suffix != ".png" and path.is_file():
            assert not re.search(rb"/(root|work|home)/\w", path.read_bytes()), path.name


def test_the_version_is_the_same_everywhere():
    settings = configparser.ConfigParser()
    settings.read(ROOT / "settings.ini")
    version, url = settings["DEFAULT"]["version"], settings["DEFAULT"]["git_url"]
    said = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert bert_genres.__version__ == said["version"] == version and said["repository-code"] == url
    assert said["url"] == settings["DEFAULT"]["doc_host"] + settings["DEFAULT"]["doc_baseurl"]
    cited = (ROOT / "nbs" / "cite.md").read_text(encoding="utf-8")
    assert f"version = {{{version}}}" in cited and f"url     = {{{url}}}" in cited
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_front_page_lists_every_chapter():
    front = (ROOT / "nbs" / "index.ipynb").read_text(encoding="utf-8")
    names = [p.relative_to(ROOT / "nbs").as_posix() for p in NOTEBOOKS if p.stem != "index"]
    assert [name for name in names if f"]({name})" not in front] == []


@pytest.fixture
def reproduce():
    found = importlib.util.spec_from_file_location("reproduce", ROOT / "scripts" / "reproduce.py")
    found.loader.exec_module(module := importlib.util.module_from_spec(found))
    return module


def test_a_notebook_waits_for_those_before_it_whose_files_it_reads(reproduce):
    code = {p.stem: "".join("".join(c["source"]) for c in json.loads(p.read_text())["cells"]) for p in reproduce.all_notebooks()}
    order = [*code]
    assert all(order.index(other) < order.index(name) for name, others in reproduce.READS.items() for other in others)
    after = lambda name: {name}.union(*map(after, reproduce.READS.get(name, ())))
    for file, writer in [("article", "05_model"), ("frozen", "07_recipes"), ("baselines.npz", "02_baselines"),
                         ("folds.npz", "05_model"), ("held-out.npz", "07_recipes"), ("article-split", "05_model")]:
        named = re.compile(rf'(place|folder|report_dir\([^/]*\)) / "{file}"')
        readers = {name for name, text in code.items() if "report_dir(" in text and named.search(text)}
        assert writer in readers and all(writer in after(name) for name in readers), (file, readers)


@pytest.fixture
def stamps(tmp_path, monkeypatch, reproduce):
    "Of a copy of the repository: its root, and a function that gives the stamp of each notebook."
    for folder in ("nbs", "bert_genres", "results"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "requirements.lock", tmp_path)
    monkeypatch.setattr(reproduce, "ROOT", tmp_path)
    monkeypatch.delenv("MODEL", raising=False)
    names = [path.stem for path in NOTEBOOKS]
    return tmp_path, lambda: dict(zip(names, reproduce.stamps(reproduce.all_notebooks(), "films"), strict=True))


def imports(path):
    "The modules of this package that a notebook imports."
    code = "\n".join("".join(c["source"]) for c in json.loads(path.read_text())["cells"] if c["cell_type"] == "code")
    return set(re.findall(r"\bfrom bert_genres\.(\w+) import", code))


@pytest.mark.parametrize("name, first", [
    ("bert_genres/data.py", "00_data"), ("bert_genres/model.py", "05_model"), ("bert_genres/recipes.py", "07_recipes"),
    ("bert_genres/tables.py", "01_tables"), ("bert_genres/scaling_out.py", "04_scaling_out"),
    ("bert_genres/command.py", "05_command"), ("bert_genres/__init__.py", "00_files"),
    ("bert_genres/corpora/sample/split.tsv", "00_data"), ("bert_genres/page/page.css", "03_explanation"),
    ("nbs/tickets.csv", "13_own_labels"), ("requirements.lock", "00_files")])
def test_what_a_notebook_reads_is_in_its_stamp(stamps, name, first):
    "A changed module, exported after a run, makes every notebook stale that imports it, and none before its own."
    root, of = stamps
    before = of()
    assert before == of()
    (root / name).write_bytes((root / name).read_bytes() + b"\n# changed\n")
    changed = [stem for stem, stamp in of().items() if before[stem] != stamp]
    names = [path.stem for path in NOTEBOOKS]
    assert changed == names[names.index(first):]
    assert {path.stem for path in NOTEBOOKS if Path(name).stem in imports(path)} <= {*changed}


def test_a_record_is_in_the_stamps_of_the_notebooks_that_show_records(stamps):
    root, of = stamps
    before = of()
    (root / "results" / "sample-12345678-new.json").write_text("{}")
    changed = {stem for stem, stamp in of().items() if before[stem] != stamp}
    assert changed == {path.stem for path in NOTEBOOKS if "../results" in path.read_text()}


def test_a_check_takes_the_tests_of_what_has_changed():
    spec = importlib.util.spec_from_file_location("check", ROOT / "scripts" / "check.py")
    check = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(check)
    own = "tests/test_repository.py"
    assert check.tests_of(["README.md", "nbs/07_recipes.ipynb"]) == [own]
    assert check.tests_of(["bert_genres/labels.py"]) == [own, "tests/test_tables.py"]
    assert "tests/test_estimator.py" in check.tests_of(["bert_genres/recipes.py"])
    assert check.tests_of(["tests/test_page.py"]) == ["tests/test_page.py", own]


def test_the_main_job_ends_at_once_when_it_is_interrupted_with_all_that_it_started(tmp_path):
    job = subprocess.Popen([sys.executable, ROOT / "scripts" / "reproduce.py"], stderr=subprocess.PIPE, text=True,
                           env=os.environ | {"BERT_GENRES_REPORTS": str(tmp_path)})
    assert job.stderr.readline().startswith("[")         # of two that begin at once, either may say so first
    while len(kernels := psutil.Process(job.pid).children(recursive=True)) < 2:
        assert job.poll() is None and not time.sleep(0.1)
    job.send_signal(signal.SIGINT)
    *begun, said = filter(None, job.communicate(timeout=120)[1].splitlines())
    assert job.returncode == 130 and said == "reproduce: interrupted; the same call goes on here"
    assert all(line.startswith("[") for line in begun)
    assert not any(kernel.is_running() for kernel in kernels)
