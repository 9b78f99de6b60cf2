"""What to run before a commit, in about a minute: ruff, and the quick tests of what has changed since the last commit, or in it
where nothing has. Tests that train, start processes or open a browser are left to `make test`."""
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent


def changed_files() -> list[str]:
    git = lambda *args: subprocess.run(["git", *args], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    now = [*git("diff", "--name-only", "HEAD"), *git("ls-files", "--others", "--exclude-standard")]
    return now or git("diff", "--name-only", "HEAD~1", "HEAD")


def tests_of(files: list[str]) -> list[str]:
    "The files of tests that have changed or that import a module which has; always those of the repository itself."
    modules = {Path(file).stem for file in files if file.startswith("bert_genres/")}
    chosen = []
    for path in sorted((ROOT / "tests").glob("test_*.py")):
        found = re.findall(r"bert_genres\.(\w+)|from bert_genres import ([\w, ]+)", path.read_text())
        imported = {name for one, several in found for name in (one, *re.split(r"\W+", several))}
        if modules & imported or f"tests/{path.name}" in files or path.stem == "test_repository":
            chosen.append(f"tests/{path.name}")
    return chosen


def main():
    tests = tests_of(changed_files())
    print("quick tests of", ", ".join(Path(test).stem.removeprefix("test_") for test in tests), file=sys.stderr)
    for command in (["ruff", "check", "-q", "nbs", "tests", "scripts", "benchmarks", "setup.py"],
                    ["ruff", "check", "-q", "--select", "F", "bert_genres"],
                    ["pytest", "-m", "not slow", "-n", "2", *tests]):
        if status := subprocess.run([BIN / command[0], *command[1:]], cwd=ROOT).returncode:
            sys.exit(status)


if __name__ == "__main__":
    main()
