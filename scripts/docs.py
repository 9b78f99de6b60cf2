"""The documentation site into _docs/: with Quarto where it is on PATH, else with smalldocs."""
import shutil
import subprocess
import sys
from pathlib import Path

from nbdev.serve import proc_nbs

ROOT = Path(__file__).resolve().parent.parent


def main():
    proc_nbs(force=True)  # nbdev's processed notebooks: hidden cells gone, signatures rendered
    quarto = shutil.which("quarto")
    tool = [quarto] if quarto else [str(Path(sys.executable).with_name("smalldocs"))]
    subprocess.run([*tool, "render"], cwd=ROOT / "_proc", check=True)
    shutil.rmtree(ROOT / "_docs", ignore_errors=True)
    shutil.move(ROOT / "_proc" / "_docs", ROOT / "_docs")
    print(f"_docs/ built by {'Quarto' if quarto else 'smalldocs: no quarto on PATH'}")


if __name__ == "__main__":
    main()
