"""The report of runs: what its data says, that names cannot harm it, and that the page works in a browser."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from cclight.commands.report.page import main, page_data, render
from cclight.errors import UsageError
from cclight.metrics.perceptual import BRIGHTEST
from cclight.runs.folder import RunFolder
from cclight.runs.results import Run
from tests.callbacks.predict_script import arguments, predict

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


def test_a_photograph_of_another_content_is_another(run, other_run, tmp_path):
    """The same name, and a picture that was replaced since: shown in no pair."""
    other = copied(other_run, tmp_path / "other")
    path = other / "records" / "00000.jsonl"
    path.write_text(re.sub(r'("index": 2, .*?"content": ")', r"\g<1>00", path.read_text()))
    data = page_data([Run.read(run), Run.read(other)])
    assert [data["rows"][image["row"]]["index"] for image in data["images"]] == [0, 1, 3]
    assert [row["shared"] for row in data["rows"]] == [True, True, False, True]


def test_lpips_of_two_networks_has_no_best(run, other_run, tmp_path):
    runs = []
    for place, folder in enumerate((run, other_run)):
        copy = copied(folder, tmp_path / folder.name)
        results = json.loads((copy / "metrics.json").read_text())
        lpips = {"title": f"LPIPS ({('alex', 'vgg')[place]})", "direction": "lower", "digits": 3, "mean": 0.1 * (1 + place)}
        results["metrics"]["lpips"] = lpips
        (copy / "metrics.json").write_text(json.dumps(results))
        runs.append(Run.read(copy))
    (lpips,) = (metric for metric in page_data(runs)["metrics"] if metric["name"] == "lpips")
    assert (lpips["best"], lpips["comparable"]) == ([False, False], False)
    assert lpips["titles"] == ["LPIPS (alex)", "LPIPS (vgg)"]


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


# Pictures


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (lambda png: b"", "it is empty"),
        (lambda png: png[: len(png) // 2], "its end is missing"),
        (lambda png: png[:20], "its end is missing"),
        (lambda png: png.replace(png[60:64], bytes(4)), "a part of it has changed"),
        (lambda png: b"a text of more than thirty bytes, no picture", "it is no PNG"),
    ],
    ids=["empty", "half", "head", "changed", "text"],
)
def test_a_damaged_picture_is_named_and_left_out(run, tmp_path, capsys, content, words):
    folder = copied(run, tmp_path / "mine")
    path = Run.read(folder).picture("restored", 1)
    path.write_bytes(content(path.read_bytes()))
    main([str(folder)])
    data = embedded((folder / "report.html").read_text(encoding="utf-8"))
    assert f"{path} is damaged ({words}) and left out: delete {path} and run" in capsys.readouterr().err
    assert set(data["images"][1]["pictures"]) == {"measurement-0", "clean-0"}
    assert set(data["images"][0]["pictures"]) == {"measurement-0", "clean-0", "restored-0"}
    assert (data["images"][1]["width"], data["images"][1]["height"]) == (48, 48)
    assert words in data["notes"][0]


@pytest.mark.parametrize(("dtype", "shape"), [("uint16", (48, 40)), ("uint8", (48, 40)), ("uint8", (48, 40, 3))])
def test_grey_and_deep_pictures(run, tmp_path, dtype, shape):
    """A ramp from black to white, as PNG untouched, and as JPEG of 8 bits still a ramp."""
    folder = copied(run, tmp_path / "mine")
    path = Run.read(folder).picture("restored", 0)
    most = 65535 if dtype == "uint16" else 255
    ramp = np.linspace(0, most, 40).reshape(1, 40, *[1] * (len(shape) - 2))
    ramp = np.broadcast_to(ramp, shape).astype(dtype)
    Image.fromarray(ramp).save(path)
    data = page_data([Run.read(folder)], images=1)
    (image,) = data["images"]
    assert (image["width"], image["height"]) == (40, 48)
    assert base64.b64decode(data["pictures"][image["pictures"]["restored-0"]].partition(",")[2]) == path.read_bytes()
    data = page_data([Run.read(folder)], images=1, jpeg=95)
    jpeg = base64.b64decode(data["pictures"][data["images"][0]["pictures"]["restored-0"]].partition(",")[2])
    shown = np.asarray(Image.open(io.BytesIO(jpeg)).convert("L"), dtype=float)
    assert np.abs(shown - np.linspace(0, 255, 40)[None]).max() < 8


def test_names_of_all_letters(run, tmp_path, capsys):
    folder = copied(run, tmp_path / "Größe 図 🦊", rename={0: "café ☕.png"})
    main([str(folder)])
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "<title>Größe 図 🦊 · cclight report</title>" in page
    assert embedded(page)["rows"][0]["name"] == "café ☕.png"
    assert str(folder) in capsys.readouterr().out


def test_maps_show_where_a_restoration_differs(run, other_run, tmp_path, monkeypatch, some_torch_home):
    """Black where the pictures are the same, bright where a corner of one was painted over; the legend says of what network."""
    monkeypatch.setenv("TORCH_HOME", str(some_torch_home))
    folder = copied(run, tmp_path / "mine")
    read = Run.read(folder)
    same, differs = ({kind: read.picture(kind, index) for kind in ("restored", "clean")} for index in (0, 1))
    same["restored"].write_bytes(same["clean"].read_bytes())
    painted = np.asarray(Image.open(differs["clean"])).copy()
    painted[:16, :16] = (255, 0, 255)
    Image.fromarray(painted).save(differs["restored"])
    Run.read(folder).picture("clean", 3).unlink()
    data = page_data([Run.read(folder), Run.read(other_run)], maps=True)
    assert data["legend"] == {"net": "squeeze", "brightest": BRIGHTEST}
    assert [choice["label"] for choice in data["choices"]][-2:] == ["difference of mine", "difference of pigdm"]

    def map_of(place, run=0):
        content = base64.b64decode(data["pictures"][data["images"][place]["pictures"][f"map-{run}"]].partition(",")[2])
        return np.asarray(Image.open(io.BytesIO(content)), dtype=float)

    assert map_of(0).shape == (48, 48, 3)
    assert map_of(0).max() == 0
    assert map_of(1)[:16, :16].mean() > 4 * map_of(1)[32:, 32:].mean()
    assert map_of(3, run=1).max() > 0
    assert "map-0" not in data["images"][3]["pictures"]
    assert data["notes"] == ["no map of image 3 (rocket) of mine: its clean picture is not saved"]
    assert page_data([Run.read(folder)])["legend"] is None


def test_maps_without_weights_are_refused_before_anything_is_written(run, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: (_ for _ in ()).throw(OSError("no network")))
    with pytest.raises(UsageError, match=r"--maps cannot be made, the squeeze weights could not be loaded .*TORCH_HOME"):
        main([str(run), "--maps", "--output", str(tmp_path / "page.html")])
    assert not (tmp_path / "page.html").exists()


def test_only_a_report_is_written_over(run, tmp_path):
    page = tmp_path / "deep" / "page.html"
    main([str(run), "--output", str(page)])
    main([str(run), "--output", str(page)])
    page.write_text("<!DOCTYPE html>\n<title>Mine</title>\n")
    with pytest.raises(UsageError, match=r"page\.html is there and is not a report of cclight: give another --output"):
        main([str(run), "--output", str(page)])
    assert "Mine" in page.read_text()


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


def test_samples_their_mean_and_spread(tmp_path):
    (tmp_path / "photographs").mkdir()
    rng = np.random.default_rng(0)
    for index in range(2):
        pixels = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photographs" / f"photo{index}.png")
    run, _, _ = predict(arguments([str(tmp_path / "photographs"), str(tmp_path / "runs"), "--samples", "4"]))
    data = page_data([Run.read(run.path)], samples=3)
    pictures = data["images"][0]["pictures"]
    assert {"restored-0", "restored-0-1", "restored-0-2", "mean-0", "std-0"} <= pictures.keys()
    assert "restored-0-3" not in pictures
    assert len({pictures[key] for key in ("restored-0", "restored-0-1", "restored-0-2", "mean-0", "std-0")}) == 5
    std = np.load(run.array("std", 0, "photo0"))
    assert data["images"][0]["largest"]["std-0"] == pytest.approx(np.sqrt((std**2).mean(0)).max())
    assert [choice["key"] for choice in data["choices"]] == ["measurement-0", "clean-0", "mean-0", "restored-0", "std-0"]
    assert data["runs"][0]["samples"] == 4
    assert len(data["runs"][0]["reliability"]["actual"]) == 9


def test_no_samples_to_show(run):
    with pytest.raises(UsageError, match="--samples is a number of samples, got 0"):
        main([str(run), "--samples", "0"])
