"""Photograph the top of a report, as the README shows it, with Debian's Chromium.

    cclight predict --config sr.yaml
    cclight predict --config sr.yaml --run.name pigdm --model.sampler PiGDM
    python benchmarks/screenshot.py runs/sr runs/pigdm benchmarks/figures/report.png

Needs `pip install selenium pillow` and `apt install chromium chromium-driver`.
"""

from __future__ import annotations

import argparse
import io
import shutil
import tempfile
from pathlib import Path

from PIL import Image
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

from cclight.commands.report.page import main as report
from cclight.runs.files import write_whole

FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars", "--disable-sync")
QUIET = ("--disable-background-networking", "--disable-component-update")


def photograph(page: Path, size: tuple[int, int], dark: bool = False, script: str = "") -> bytes:
    """The top of a page as PNG.

    Args:
        page: an HTML file.
        size: of the window in pixels.
        dark: ask the page for its dark colours.
        script: JavaScript to run first.
    """
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        raise SystemExit("chromium or chromedriver is missing: apt install chromium chromium-driver")
    with tempfile.TemporaryDirectory() as profile:
        options = Options()
        options.binary_location = chromium
        for flag in (*FLAGS, *QUIET, f"--user-data-dir={profile}", f"--window-size={size[0]},{size[1]}"):
            options.add_argument(flag)
        browser = webdriver.Chrome(options=options, service=Service(driver))
        try:
            features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
            browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
            metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": False}
            browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
            browser.get(page.resolve().as_uri())
            browser.execute_script(script)
            browser.execute_async_script("Promise.all([...document.images].map((i) => i.decode())).finally(arguments[0])")
            return browser.get_screenshot_as_png()
        finally:
            browser.quit()


def main() -> None:
    """Write the report of the runs into a folder that is thrown away, and its picture into FILE."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", metavar="RUN")
    parser.add_argument("file", type=Path, metavar="FILE", help="the picture to write, PNG")
    parser.add_argument("--size", type=int, nargs=2, default=(1200, 800), metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--dark", action="store_true", help="in the page's dark colours")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "report.html"
        report([*options.runs, "--output", str(page)])
        shot = photograph(page, tuple(options.size), options.dark)
    with Image.open(io.BytesIO(shot)) as picture:
        buffer = io.BytesIO()
        picture.convert("RGB").save(buffer, format="PNG", optimize=True)
    write_whole(options.file, buffer.getvalue())
    print(f"{options.file}: {len(buffer.getvalue()) / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
