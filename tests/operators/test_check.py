import sys

import pytest
import torch

from cclight.commands.check_operator import main
from cclight.errors import UsageError
from cclight.operators.base import LinearOperator
from cclight.operators.check import check_adjoint, check_operator
from cclight.operators.compose import LinearCompose
from cclight.operators.masks import Inpainting
from cclight.operators.nonlinear import HDR
from cclight.operators.separable import BicubicDownsampling
from tests.processes import run

MODULE = """
from cclight.operators.base import LinearOperator


class Mirror(LinearOperator):
    def __init__(self, weight: float = 0.5) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, x):
        return x + self.weight * x.flip(-1).roll(1, -1)


class Wrong(Mirror):
    def adjoint(self, y):
        return y + self.weight * y.roll(2, -1)
"""


class Scaled(LinearOperator):
    """A pseudoinverse that is off by a tenth."""

    def forward(self, x):
        return x

    def pinv(self, y):
        return 1.1 * y


class Mixing(LinearOperator):
    """Takes the mean over the batch into each image."""

    def forward(self, x):
        return x + x.mean(0)


class Affine(LinearOperator):
    def forward(self, x):
        return x + 1


def failed(operator):
    return {check.name for check in check_operator(operator, (3, 8, 8)) if not check.passed}


@pytest.mark.parametrize("operator", [BicubicDownsampling(4), Inpainting(), HDR()], ids=str)
def test_good_operators_pass(operator):
    checks = check_operator(operator, (3, 16, 24))
    assert not [check for check in checks if not check.passed]
    assert len(checks) == (3 if isinstance(operator, HDR) else 15)


def test_each_broken_promise_is_found():
    assert failed(Scaled()) >= {"P² = P", "H H⁺ H = H", "H⁺ H H⁺ = H⁺"}
    assert "H takes each image by itself" in failed(Mixing())
    assert "H (2x - 3z) = 2 H x - 3 H z" in failed(Affine())


def test_a_nan_is_no_pass():
    class Broken(BicubicDownsampling):
        def project(self, x):
            return x * torch.nan

    assert "P² = P" in failed(Broken(4))


def test_the_command_reads_the_users_own_module(tmp_path, monkeypatch, capsys):
    (tmp_path / "operators_to_check.py").write_text(MODULE)
    (tmp_path / "mirror.yaml").write_text("class_path: operators_to_check.Mirror\ninit_args: {weight: 0.2}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", ["", *__import__("sys").path])
    assert main(["operators_to_check.Mirror", "--operator.weight", "0.3"]) == 0
    assert "passed" in capsys.readouterr().out
    assert main(["mirror.yaml", "--image_shape", "[1,8,8]"]) == 0
    assert main(["operators_to_check.Wrong"]) == 1
    assert "FAILED" in capsys.readouterr().out


def test_the_command_knows_short_names_and_names_mistakes(capsys):
    assert main(["BicubicDownsampling", "--operator.factor=2"]) == 0
    with pytest.raises(UsageError, match="divisible by its factor 4, got 30×30: set --image_shape to a multiple of 4"):
        main(["BicubicDownsampling", "--image_shape", "[3,30,30]"])
    with pytest.raises(UsageError, match="Nope"):
        main(["operators_to_check.Nope"])
    with pytest.raises(UsageError, match="--image_shape is channels and sides"):
        main(["JPEG", "--image_shape", "[3,0,0]"])


@pytest.mark.parametrize("shape", ["[2,32]", "[1,4,5,6]"])
def test_signals_and_volumes_are_tried(shape, capsys):
    assert main(["RandomProjection", "--operator.measurements", "9", "--operator.shape", shape, "--image_shape", shape]) == 0
    assert "FAILED" not in capsys.readouterr().out
    with pytest.raises(UsageError, match=r"--image_shape|RandomProjection was made for images of"):
        main(["RandomProjection", "--operator.shape", shape, "--image_shape", "[7]"])


class WrongPhase(LinearOperator):
    """Complex measurements whose adjoint forgets the imaginary part."""

    def forward(self, x):
        return torch.complex(x, x.flip(-1))

    def adjoint(self, y):
        return y.real


def test_a_wrong_adjoint_of_complex_measurements_is_seen():
    failed = [check.name for check in check_operator(WrongPhase(), (1, 16, 16)) if not check.passed]
    assert "<H x, y> = <x, Hᵀ y>" in failed


def test_one_look_before_work_refuses_a_wrong_adjoint_and_lets_right_ones_pass(tmp_path, monkeypatch):
    (tmp_path / "looked_at.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    from looked_at import Mirror, Wrong

    x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    for right in (Mirror(), Inpainting(), HDR(), Scaled(), LinearCompose([Mirror(), BicubicDownsampling(2)])):
        check_adjoint(right, x)
    for wrong in (Wrong(), LinearCompose([Wrong(), BicubicDownsampling(2)])):
        with pytest.raises(ValueError, match=r"Wrong.adjoint is not the adjoint .* is off by .* Leave the method out"):
            check_adjoint(wrong, x)


def test_predict_refuses_a_wrong_adjoint_before_it_restores(tmp_path):
    (tmp_path / "asked_of.py").write_text(MODULE)
    command = [sys.executable, "-m", "cclight", "predict", "--config", "sr.yaml", "--operator", "asked_of.Wrong"]
    command += ["--data.image_size", "32", "--data.limit", "1", "--trainer.accelerator", "cpu", "--metrics.per_image", "[]"]
    done = run(command, tmp_path)
    assert done.returncode == 1
    assert "Wrong.adjoint is not the adjoint of its forward" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "runs").rglob("restored/*.png"))
