import pytest

from cclight.callbacks.table import print_results
from cclight.runs.results import Run


def test_the_terminal_shows_metrics_and_folder(run_here, capsys):
    run, metrics, _ = run_here()
    out = capsys.readouterr().out
    assert "run: 7 images" in out
    row = next(line for line in out.splitlines() if "PSNR (dB)" in line)
    assert "↑" in row
    assert f"{metrics.summaries['psnr'].mean:.2f}" in row
    assert "{:.2f} ... {:.2f}".format(*metrics.summaries["psnr"].interval) in row
    assert "↓" in next(line for line in out.splitlines() if "H x̂ - y" in line)
    assert str(run.path) in out


def test_what_is_unavailable_or_failed_is_shown_with_its_reason(run_here, capsys):
    with pytest.warns(UserWarning, match="left out"):
        run_here("--measurements", "--nan", "[2]")
    out = capsys.readouterr().out
    assert "unavailable" in next(line for line in out.splitlines() if "PSNR (dB)" in line)
    assert "PSNR (dB): not applicable: the data holds no clean images" in out
    assert "Image 2 (photo2): the restoration holds NaN or infinity." in out


def test_it_can_be_printed_again(run_here, capsys):
    run, _, _ = run_here(count=1)
    capsys.readouterr()
    print_results(Run.read(run.path))
    assert "run: 1 images" in capsys.readouterr().out
