"""benchmarks/photographs.py: its budgets, its choices, what it keeps, and what it says of who wins."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest
import torch
from PIL import Image
from skimage import data

from cclight import SmallPrior
from tests.benchmarks.test_benchmarks import FOLDER, load

TINY = Path(__file__).resolve().parents[1] / "assets" / "tiny.safetensors"
UNIT = 1.1  # what a vector-Jacobian product costs


@pytest.fixture
def photographs(monkeypatch, some_torch_home):
    monkeypatch.setenv("TORCH_HOME", str(some_torch_home))
    monkeypatch.syspath_prepend(str(FOLDER))  # it imports what lies beside it
    pytest.importorskip("azula")
    pytest.importorskip("deepinv")
    module = load("photographs")
    yield module
    torch.set_grad_enabled(True)


@pytest.fixture
def folders(tmp_path) -> dict[str, Path]:
    """Two photographs of 32 px for tuning, two to report on and two others."""
    image = data.astronaut()
    for folder, top in (("tune", 0), ("report", 200), ("other", 350)):
        (tmp_path / folder).mkdir()
        for n in range(2):
            Image.fromarray(image[top : top + 32, 200 * n : 200 * n + 32]).save(tmp_path / folder / f"{folder}{n}.png")
    return {name: tmp_path / name for name in ("tune", "report", "other")}


def command(folders, report: str = "report", *more: str) -> list[str]:
    sizes = ["--size", "32", "--tune-limit", "2", "--limit", "2", "--weights", str(TINY)]
    return ["--tune", str(folders["tune"]), "--report", str(folders[report]), *sizes, *more]


FEW = ["--tasks", "sr", "--noise", "0", "--samplers", "packaged", "baseline", "azula PGDM", "ours ConjugateMoments"]


def one_case(task: str, noise_std: float):
    cases = import_module("cases")
    clean = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return cases.cases(clean, task, noise_std, cases.Counted(SmallPrior(str(TINY))), 0)[0]


@pytest.mark.slow
@pytest.mark.parametrize("task", ["sr", "jpeg"])
def test_everybody_spends_the_budget(photographs, task):
    """Steps are whole: the cost is within half a step of 2.1 units an evaluation."""
    case, refused = one_case(task, 0.05), set()
    for side, name, runs in photographs.contestants_at(task, 4):
        assert len(runs) == 4, name
        for setting, run in runs.items():
            case.prior.calls = case.prior.products = 0
            try:
                image = run(case)
            except TypeError:
                refused.add(f"{side} {name}")
                continue
            calls, products = case.prior.calls, case.prior.products
            cost = calls + UNIT * products
            if name == "ConjugateHeun":  # two evaluations a step, one in the last
                assert calls == products == 3
            else:
                assert abs(cost - 2.1 * 4) <= cost / calls / 2 + 1e-6, (name, setting, calls, products)
            if products == calls and name != "ConjugateHeun":
                assert calls == 4, (name, setting)
            assert image.shape == case.clean.shape
    # Who needs a linear operator gets JPEG's linear problem; DDNM takes the decoder, which is not for noise.
    assert refused == ({"ours DDNM"} if task == "jpeg" else set())


def test_products_are_counted_inside_functional_transforms_too(photographs):
    prior = import_module("cases").Counted(SmallPrior(str(TINY)))
    x, t = torch.zeros(1, 3, 32, 32), torch.tensor([0.5])
    _, pull = torch.func.vjp(lambda z: prior(z, t), x)
    pull(x)
    pull(x)
    assert (prior.calls, prior.products) == (1, 2)
    with torch.no_grad():
        assert torch.equal(prior(x, t), prior.prior(x, t))
    assert (prior.calls, prior.products) == (2, 2)


def test_settings_are_chosen_on_the_photographs_for_tuning_alone(photographs):
    """The setting that is best on those reported on is another one, and is not looked at."""
    cases, contests = import_module("cases"), import_module("contests")
    asked = []

    def measure(run, of):
        asked.append((run, of))
        worth = {("good here", "tune"): 0.1, ("good there", "tune"): 0.2, ("good there", "report"): 0.01}
        return cases.Measured([worth.get((run, of), 0.5)], [20.0], [0.5], 5, 5, 1.0)

    runs = {"good here": "good here", "good there": "good there"}
    cell = photographs.settle(contests.Cell("sr", 0.0, "DDRM", "ours", 5), runs, measure, "tune", "report")
    assert (cell.setting, cell.lpips, cell.score) == ("good here", 0.5, 0.1)
    assert asked == [("good here", "tune"), ("good there", "tune"), ("good here", "report")]


@pytest.mark.slow
def test_the_photographs_reported_on_do_not_move_the_choice(photographs, folders, tmp_path):
    kept = []
    for report in ("report", "other"):
        path = tmp_path / f"{report}.json"
        photographs.main(command(folders, report, "--nfe", "2", *FEW, "--results", str(path)))
        kept.append(json.loads(path.read_text())["cells"])
    assert [(cell["setting"], cell["tuning"]) for cell in kept[0]] == [(cell["setting"], cell["tuning"]) for cell in kept[1]]
    assert all(a["measured"]["lpips"] != b["measured"]["lpips"] for a, b in zip(*kept, strict=True))


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on_and_measures_nothing_twice(photographs, folders, tmp_path, monkeypatch, capsys):
    def cells(path: Path) -> list[dict]:
        found = json.loads(path.read_text())["cells"]
        for cell in found:
            cell["measured"]["seconds"] = 0
        return found

    arguments = command(folders, "report", "--nfe", "5", *FEW)
    whole, stopped = tmp_path / "whole.json", tmp_path / "stopped.json"
    photographs.main([*arguments, "--results", str(whole)])
    assert "super-resolution ×4 | 0 |" in capsys.readouterr().out
    settle, count = photographs.settle, 0

    def stops(*given):
        nonlocal count
        count += 1
        if count == 4:
            raise KeyboardInterrupt
        return settle(*given)

    monkeypatch.setattr(photographs, "settle", stops)
    with pytest.raises(KeyboardInterrupt):
        photographs.main([*arguments, "--results", str(stopped)])
    assert len(cells(stopped)) == 3
    first = stopped.read_text()
    photographs.main([*arguments, "--results", str(stopped)])
    assert cells(stopped) == cells(whole)
    assert count == 4 + len(cells(whole)) - 3
    assert stopped.read_text().startswith(first.rstrip("\n]}"))  # what was measured stayed as it was
    capsys.readouterr()
    photographs.main([*arguments, "--results", str(stopped)])
    assert count == 4 + len(cells(whole)) - 3
    with pytest.raises(SystemExit):
        photographs.main([*command(folders, "other", "--nfe", "5", *FEW), "--results", str(stopped)])
    assert "another reported on" in capsys.readouterr().err


def test_the_strongest_go_on_with_the_better_half_of_their_settings(photographs):
    contests = import_module("contests")

    def cell(name: str, *scores: float | None):
        tuning = dict(zip("abcd", scores, strict=True))
        chosen = min((s for s in tuning if tuning[s] is not None), key=lambda s: tuning[s], default="a")
        return contests.Cell("sr", 0.0, name, "peer", 5, chosen, tuning)

    known = [cell("azula DPS", 0.4, 0.3, 0.2, 0.5), cell("azula PGDM", 0.1, None, None, None), cell("azula MMPS", *[None] * 4)]
    runs = dict.fromkeys("abcd")

    def kept(name: str, strongest: int) -> str:
        return "".join(photographs.gone_on(known, contests.Cell("sr", 0.0, name, "peer", 20), runs, 5, strongest))

    assert [kept("azula DPS", n) for n in (1, 2)] == ["", "bc"]
    assert [kept("azula PGDM", n) for n in (1, 2)] == ["a", "a"]
    assert kept("azula MMPS", 3) == ""


def test_what_left_the_range_has_no_numbers_and_is_named(photographs):
    cases, contests = import_module("cases"), import_module("contests")
    case, judge = one_case("box", 0.0), cases.Judge()
    for image in (case.clean * torch.nan, 20 + case.clean):
        found = judge(lambda _, image=image: image, [case])
        assert found.score is None
        assert found.psnr == [None]
    assert judge(lambda case: case.clean, [case]).psnr == [100.0]
    cell = contests.Cell("box", 0.0, "azula DPS", "peer", 5)
    cell = photographs.settle(cell, {"a": lambda case: case.clean * torch.nan}, judge, [case], [case])
    assert not cell.finite
    assert cell.score == math.inf
    assert contests.told([cell]) == "- azula DPS at 5 diverged: not finite, or beyond [-10, 10] (box 0)"
    assert contests.Cell.read(json.loads(json.dumps(cell.written(), allow_nan=False))) == cell


def test_the_table_names_the_best_by_the_tuning_draw_and_who_wins(photographs, tmp_path):
    cases, contests = import_module("cases"), import_module("contests")

    def cell(name: str, side: str, nfe: int, score: float, lpips: float, psnr: float):
        measured = cases.Measured([lpips], [psnr], [0.5], nfe, nfe, 1.0)
        return contests.Cell("sr", 0.0, name, side, nfe, "a", {"a": score}, measured)

    own = cell("packaged", "packaged", 5, 0.2, 0.150, 24.0)
    tuned, lucky = cell("azula PGDM", "peer", 5, 0.2, 0.160, 23.0), cell("deepinv DPS", "peer", 5, 0.3, 0.155, 26.0)
    late = cell("deepinv DPS", "peer", 100, 0.1, 0.152, 25.0)
    ours = cell("DDNM", "ours", 5, 0.1, 0.140, 23.5)
    said = contests.table([own, tuned, lucky, ours])
    assert said.splitlines()[-1] == (
        "| super-resolution ×4 | 0 | 0.150 / 24.00 | **0.140** / 23.50 (DDNM) | 0.160 / 23.00 (azula PGDM) |  |"
    )
    assert (
        contests.table([own, tuned, lucky, late, ours])
        .splitlines()[-1]
        .endswith("| **0.140** / 23.50 (DDNM) | 0.152 / 25.00 (deepinv DPS 100) |  |")
    )
    assert "on 1 of 1 rows;\nthere its PSNR is no lower than the best peer's on 1, than every peer's on 0." in contests.goals(
        [own, tuned, lucky]
    )
    assert "than the best peer's on 0," in contests.goals([own, tuned, late])  # 25 dB
    said = contests.goals([own, replace(late, measured=replace(late.measured, lpips=[0.1]))])
    assert "on 0 of 1 rows" in said
    assert "at equal cost on 1." in said
    assert "- super-resolution ×4, 0: deepinv DPS at 100, 0.100 / 25.00 against 0.150 / 24.00" in said
    assert "on 0 of 0 rows" in contests.goals([own, ours])  # nobody beside it
    several = [
        replace(one, measured=replace(one.measured, lpips=values)) for one, values in ((own, [0.1, 0.2]), (late, [0.3, 0.6]))
    ]
    assert "deepinv DPS at 100: 0.450 / 25.00 | 0.300 ± 0.100 | -1.00 |" in contests.leads([*several, ours])
    pytest.importorskip("matplotlib")
    contests.figure([own, tuned, late, ours], tmp_path / "figures" / "plane.png")
    assert (tmp_path / "figures" / "plane.png").stat().st_size > 1000


def test_photographs_for_tuning_are_not_reported_on(photographs, folders, capsys):
    with pytest.raises(SystemExit):
        photographs.main(["--tune", str(folders["report"]), "--report", str(folders["report"]), "--size", "32", "--limit", "2"])
    assert "give another number" in capsys.readouterr().err  # four are wanted for tuning
    with pytest.raises(SystemExit):
        photographs.main(command({**folders, "tune": folders["report"]}))
    assert "settings are chosen on others than those reported on" in capsys.readouterr().err


def test_the_settings_of_mixtures_are_still_those_of_the_kept_results(photographs):
    peers = import_module("peers")
    now = {name: set(runs) for name, runs in (peers.azula(5) | peers.deepinv(5)).items()}
    for row in json.loads((FOLDER / "posterior_8.json").read_text())["rows"]:
        if row["sampler"].startswith(("azula", "deepinv")):
            assert row["setting"] in now[row["sampler"]]
