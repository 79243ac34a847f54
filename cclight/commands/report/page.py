"""`cclight report RUN...`: runs on one page, with a before/after slider for each image.

    $ cclight report runs/sr runs/pigdm
    runs/report.html: 2 runs, 6 of 6 images in pictures, 4.1 MB

The page needs no network and no server: its pictures are data URIs, and a content security policy forbids the rest. The runs
are one JSON document in it (`page_data`); report.js, which the page holds beside report.css, makes everything one sees from it
by `textContent`, so that no name can become markup.
"""

from __future__ import annotations

import argparse
import html
import json
import re
import sys
from pathlib import Path
from typing import Any

from cclight.commands.arguments import PlainParser
from cclight.commands.outputs import check_output
from cclight.commands.report.data import page_data
from cclight.errors import UsageError
from cclight.runs.files import write_whole
from cclight.runs.results import Run

_HERE = Path(__file__).parent


def parser() -> argparse.ArgumentParser:
    """The options of `cclight report`."""
    parser = PlainParser(prog="cclight report", description="Show runs on one page with before and after.")
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a finished run's folder, as runs/sr")
    parser.add_argument("--output", type=Path, help="the page (RUN/report.html; beside the first run's folder for several)")
    parser.add_argument("--images", type=int, default=24, metavar="N", help="how many images to show in pictures (24)")
    parser.add_argument("--samples", type=int, default=8, metavar="K", help="how many samples of an image to show (8)")
    parser.add_argument("--sort", metavar="METRIC", help="show the first run's worst by it, as lpips, not the first")
    parser.add_argument("--maps", action="store_true", help="add maps of where each restoration differs to the eye (LPIPS)")
    parser.add_argument("--jpeg", type=int, metavar="QUALITY", help="a smaller page: pictures as JPEG of quality 1 to 95")
    parser.add_argument("--open", action="store_true", help="open the page in the browser")
    return parser


def main(arguments: list[str]) -> None:
    """`cclight report RUN...`: write the page.

    Raises:
        UsageError: when a folder is no finished run, an option has no meaning, maps cannot be made, or the page would replace a
            file that is no report.
        RunError: when the page cannot be written.
    """
    options = parser().parse_args(arguments)
    if options.images < 0:
        raise UsageError(f"--images is a number of images, got {options.images}: give 0 or more")
    if options.samples < 1:
        raise UsageError(f"--samples is a number of samples, got {options.samples}: give 1 or more")
    if options.jpeg is not None and not 1 <= options.jpeg <= 95:
        raise UsageError(f"--jpeg is a quality from 1 to 95, got {options.jpeg}")
    runs = [Run.read(path) for path in options.runs]
    output = options.output or (runs[0].path if len(runs) == 1 else runs[0].path.parent) / "report.html"
    check_output(output, (_template().partition("{{")[0],), "a report of cclight")
    data = page_data(runs, options.images, options.sort, options.jpeg, options.maps, options.samples)
    for line in data["notes"]:
        print(f"cclight report: {line}", file=sys.stderr)
    page = render(data).encode("utf-8", "replace")  # a name on disk may be no text
    output.parent.mkdir(parents=True, exist_ok=True)
    write_whole(output, page)
    count = f"{len(runs)} run{'s' if len(runs) > 1 else ''}"
    print(f"{output}: {count}, {len(data['images'])} of {len(data['rows'])} images in pictures, {len(page) / 1e6:.1f} MB")
    if options.open:
        import webbrowser

        webbrowser.open(output.resolve().as_uri())


def render(data: dict[str, Any]) -> str:
    """The page of what `page_data` returns."""
    # As JSON, `<` has a second spelling: no `</script>` or `<!--` of a name can end the element that holds the data.
    parts = {
        "title": html.escape(", ".join(run["label"] for run in data["runs"])),
        "style": (_HERE / "report.css").read_text(encoding="utf-8"),
        "script": (_HERE / "report.js").read_text(encoding="utf-8"),
        "data": json.dumps(data, allow_nan=False).replace("<", "\\u003c"),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], _template())  # one pass: what is put in is not looked at


def _template() -> str:
    return (_HERE / "report.html").read_text(encoding="utf-8")
