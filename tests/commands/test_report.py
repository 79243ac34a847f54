"""The report of runs: what its data says, that names cannot harm it, and that the page works in a browser."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import sys

import pytest

from cclight.commands.report.page import main, page_data, render
from cclight.errors import UsageError
from cclight.runs.folder import RunFolder
from cclight.runs.results import Run

EVIL = '<b>"</script><script>window.hacked=1</script>.png'


def copied(run, folder, rename=None, fail=None):
    """A copy of a run; `rename` maps an image's index to a name, `fail` is the index of an image that failed."""
    shutil.copytree(run, folder)
    path = folder / "records" / "00000.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()]
    for record in records:
        if record["index"] in (rename or {}):
            old = record["name"]
            record["name"] = rename[record["index"]]
            for kind in ("restored", "measurement", "clean"):
                home = RunFolder(folder.name, str(folder.parent))
                home.file(kind, record["index"], old).rename(home.file(kind, record["index"], record["name"]))
    records = [{"index": r["index"], "name": r["name"], "failed": "NaN"} if r["index"] == fail else r for r in records]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder


def embedded(page):
    """The data that a page holds."""
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1])


def test_one_run_goes_beside_its_results(run, tmp_path, capsys):
    folder = copied(run, tmp_path / "mine")
    main([str(folder)])
    page = (folder / "report.html").read_text(encoding="utf-8")
    data, original = embedded(page), Run.read(run)
    assert f"{folder / 'report.html'}: 1 run, 4 of 4 images in pictures, " in capsys.readouterr().out
    assert "<title>mine · cclight report</title>" in page
    assert not re.search(r"(src|href)\s*=\s*[\"']?https?:|@import|url\(", page.replace(json.dumps(data), ""))
    assert {row["index"]: row["values"]["psnr"][0] for row in data["rows"]} == original.values("psnr")
    assert next(m for m in data["metrics"] if m["name"] == "psnr")["means"] == [original.mean("psnr")]
    place = data["images"][2]["pictures"]["restored-0"]
    picture = base64.b64decode(data["pictures"][place].removeprefix("data:image/png;base64,"))
    assert picture == original.picture("restored", 2).read_bytes()
    assert (data["images"][2]["width"], data["images"][2]["height"]) == (48, 48)
    assert data["differences"] == []


def test_two_runs_share_what_is_the_same(run, other_run):
    data = page_data([Run.read(run), Run.read(other_run)])
    assert [choice["label"] for choice in data["choices"]] == ["measurement", "clean", "conjugate", "pigdm"]
    assert len(data["pictures"]) == 4 * 4
    psnr = next(metric for metric in data["metrics"] if metric["name"] == "psnr")
    assert psnr["best"] == [mean == max(psnr["means"]) for mean in psnr["means"]]
    assert {"key": "model.sampler.init_args.steps", "values": ["3", "5"]} in data["differences"]
    assert not any(difference["key"] in ("run.name", "run.root") for difference in data["differences"])
    marked = [line.strip() for line, differs in data["runs"][1]["config"] if differs]
    assert "steps: 5" in marked
    assert "factor: 4" not in marked


def test_only_images_of_all_runs_are_shown(run, other_run, tmp_path):
    renamed = copied(other_run, tmp_path / "renamed", rename={1: "another"})
    data = page_data([Run.read(run), Run.read(renamed)])
    assert [data["rows"][image["row"]]["index"] for image in data["images"]] == [0, 2, 3]
    assert len(data["rows"]) == 5


def test_worst_images_are_chosen(run):
    values = Run.read(run).values("psnr")
    data = page_data([Run.read(run)], images=2, sort="psnr")
    assert [data["rows"][image["row"]]["index"] for image in data["images"]] == sorted(values, key=values.get)[:2]
    with pytest.raises(UsageError, match="did you mean psnr"):
        page_data([Run.read(run)], sort="pnsr")


def test_missing_and_failed_pictures(run, other_run, tmp_path):
    bare = copied(run, tmp_path / "bare", fail=1)
    shutil.rmtree(bare / "clean")
    (bare / "measurement" / Run.read(run).picture("measurement", 0).name).unlink()
    (bare / "restored" / Run.read(run).picture("restored", 1).name).unlink()
    data = page_data([Run.read(bare)])
    assert [choice["key"] for choice in data["choices"]] == ["measurement-0", "restored-0"]
    assert [image["row"] for image in data["images"]] == [0, 2, 3]
    assert set(data["images"][0]["pictures"]) == {"restored-0"}
    assert data["rows"][1]["failed"] == ["NaN"]
    shutil.rmtree(bare / "restored")
    assert page_data([Run.read(bare)])["images"] == []


def test_jpeg_makes_a_page_of_other_pictures(run):
    data = page_data([Run.read(run)], jpeg=80)
    assert all(picture.startswith("data:image/jpeg;base64,/9j/") for picture in data["pictures"])


def test_names_cannot_leave_the_data(run, tmp_path):
    page = render(page_data([Run.read(copied(run, tmp_path / "<i>x", rename={0: EVIL}))]))
    assert page.count("</script>") == 2
    assert "<title>&lt;i&gt;x · cclight report</title>" in page
    assert embedded(page)["rows"][0]["name"] == EVIL


@pytest.mark.parametrize(
    ("options", "message"), [(["--images", "-1"], "got -1"), (["--jpeg", "0"], "got 0"), (["again"], "given twice")]
)
def test_wrong_calls_are_told(run, options, message):
    options = [str(run) if option == "again" else option for option in options]
    with pytest.raises(UsageError, match=message):
        main([str(run), *options])


def test_it_needs_no_torch():
    code = "import sys, cclight.commands.report.page; print({'torch', 'lightning', 'numpy', 'PIL'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "set()"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("needs chromium and chromedriver (apt install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    flags = ["headless=new", "no-sandbox", "disable-gpu", "no-first-run", "disable-background-networking"]
    flags += [
        "disable-component-update",
        "disable-sync",
        "window-size=1200,900",
        f"user-data-dir={tmp_path_factory.mktemp('p')}",
    ]
    for flag in flags:
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    environment = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
    chrome = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver, env=environment))
    yield chrome
    chrome.quit()


@pytest.mark.slow
def test_the_page_works_in_a_browser(browser, run, other_run, tmp_path):
    from selenium.webdriver import ActionChains, Keys
    from selenium.webdriver.common.by import By

    evil = [copied(folder, tmp_path / folder.name, rename={0: EVIL}) for folder in (run, other_run)]
    page = tmp_path / "report.html"
    main([*map(str, evil), "--output", str(page)])
    browser.get(page.as_uri())

    assert browser.execute_script("return window.hacked") is None
    assert browser.find_element(By.CSS_SELECTOR, "#image-0 .name b").text.startswith(EVIL)
    assert len(browser.find_elements(By.CSS_SELECTOR, ".card")) == 4
    assert browser.execute_script("return [...document.images].every((i) => i.alt && i.complete && i.naturalWidth > 0)")

    stage = browser.find_element(By.CSS_SELECTOR, "#image-0 .stage")
    before = stage.find_element(By.CSS_SELECTOR, ".side.before")
    clips = [before.value_of_css_property("clip-path")]
    handle = stage.find_element(By.CSS_SELECTOR, ".handle")
    ActionChains(browser).drag_and_drop_by_offset(handle, 80, 0).perform()
    clips.append(before.value_of_css_property("clip-path"))
    slider = stage.find_element(By.CSS_SELECTOR, "input")
    slider.send_keys(Keys.ARROW_LEFT)
    clips.append(before.value_of_css_property("clip-path"))
    assert len(set(clips)) == 3, clips
    assert 60 < float(slider.get_attribute("value")) < 90

    slider.send_keys("+")
    browser.find_element(By.CSS_SELECTOR, "#image-0 button[title='Zoom in']").click()
    sides = [image.value_of_css_property("transform") for image in stage.find_elements(By.TAG_NAME, "img")]
    assert sides[0] == sides[1]
    assert sides[0].startswith("matrix(2.25,")

    button = "[data-key=psnr][data-run='1'] button"
    for direction in ("ascending", "descending"):
        browser.find_element(By.CSS_SELECTOR, button).click()
        column = browser.find_element(By.CSS_SELECTOR, "[data-key=psnr][data-run='1']")
        assert column.get_attribute("aria-sort") == direction
        cells = [float(cell.text) for cell in browser.find_elements(By.CSS_SELECTOR, "#images tbody tr td:nth-child(4)")]
        assert cells == sorted(cells, reverse=direction == "descending")
        assert len(set(cells)) == 4

    browser.find_element(By.CSS_SELECTOR, "#images tbody tr:nth-child(2)").click()
    first = browser.find_element(By.CSS_SELECTOR, "#images tbody tr:nth-child(2) td").text
    assert browser.execute_script("return document.activeElement.closest('.card').id") == f"image-{first}"
    browser.find_element(By.ID, "filter").send_keys("chel")
    assert [card.get_attribute("id") for card in browser.find_elements(By.CSS_SELECTOR, ".card")] == ["image-1"]

    assert [entry for entry in browser.get_log("browser") if entry["level"] != "INFO"] == []
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    requests = [event["params"] for event in events if event["method"] == "Network.requestWillBeSent"]
    # Chromium's own first tab asks for its own parts.
    urls = [item["request"]["url"] for item in requests if item["documentURL"].split("#")[0] == page.as_uri()]
    assert urls
    assert all(url.startswith(("file:", "data:")) for url in urls), urls
