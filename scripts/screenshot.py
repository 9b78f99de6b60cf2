"""nbs/page.png, the picture of the page in README and site: `python scripts/screenshot.py BUNDLE`, with Chromium."""
import os
import shutil
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

PORT, OUT = 8755, Path(__file__).resolve().parent.parent / "nbs" / "page.png"


def main(bundle):
    command = [Path(sys.executable).with_name("bert-genres"), "app", bundle, "--port", str(PORT)]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        if not (said := server.stderr.readline()).startswith("http"):
            sys.exit(said.strip())
        with sync_playwright() as p:
            browser = p.chromium.launch(executable_path=shutil.which("chromium"), args=[] if os.getuid() else ["--no-sandbox"])
            page = browser.new_page(viewport={"width": 760, "height": 800})
            page.goto(f"http://127.0.0.1:{PORT}")
            page.get_by_role("button", name="a heist").click()
            page.locator("#near").wait_for()
            page.wait_for_timeout(500)                               # the bars move
            curve = page.locator("#curve").bounding_box()
            shown = {"x": 0, "y": 0, "width": 760, "height": curve["y"] + curve["height"] + 16}
            page.screenshot(path=OUT, full_page=True, clip=shown)
            browser.close()
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
