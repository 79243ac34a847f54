import sys

import pytest
import torch

from cclight import DPS, Conjugate, LinearCompose, OTPath
from cclight.operators.check import check_adjoint
from cclight.operators.external import DeepinvNonlinear, DeepinvPhysics
from tests.samplers.baselines import normal, small_mixture


@pytest.fixture(scope="module")
def physics():
    return pytest.importorskip("deepinv.physics", reason="needs deepinv: pip install 'cclight[deepinv]'")


def test_tomography_measures_sinograms_and_is_undone(physics):
    operator = DeepinvPhysics(physics.Tomography(angles=6, img_width=8, normalize=True), tolerance=1e-6, max_iterations=1000)
    plain = operator(torch.eye(64).view(64, 1, 8, 8)).flatten(1).T
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    y = operator(x)
    assert y.shape == (2, 1, 12, 6)  # twelve places of the detector, six angles
    torch.testing.assert_close(operator.adjoint(y).flatten(1), y.flatten(1) @ plain, atol=1e-5, rtol=1e-4)
    expected = y.flatten(1).double() @ torch.linalg.pinv(plain.double(), rtol=1e-4).T
    torch.testing.assert_close(operator.pinv(y).flatten(1).double(), expected, atol=1e-3, rtol=1e-3)


def test_magnetic_resonance_is_a_projection_in_frequency(physics):
    mask = torch.zeros(16, 16)
    mask[:, ::3] = 1
    mri = physics.MRI(mask=mask, img_size=(2, 16, 16))
    operator = DeepinvPhysics(mri)
    x = torch.randn(2, 2, 16, 16, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(operator.project(x), mri.A_dagger(mri.A(x)), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(operator.project(operator.project(x)), operator.project(x), atol=1e-5, rtol=1e-5)


def test_refuses_what_is_not_linear_or_measures_several_things(physics):
    with pytest.raises(TypeError, match="Haze is none"):
        DeepinvPhysics(physics.Haze())
    stacked = physics.StackedLinearPhysics([physics.Denoising(), physics.Denoising()])
    with pytest.raises(TypeError, match="measures a TensorList"):
        DeepinvPhysics(stacked)(torch.zeros(1, 1, 4, 4))


def test_a_wrong_adjoint_of_physics_is_told_before_long_work(physics):
    x = normal(2, 1, 8, 8).float()
    right = physics.Tomography(angles=6, img_width=8, normalize=True)
    wrong = physics.LinearPhysics(A=lambda x, **_: x.cumsum(-1), A_adjoint=lambda y, **_: y)
    check_adjoint(DeepinvPhysics(right), x)
    check_adjoint(LinearCompose([DeepinvPhysics(right)]), x)
    for operator in (DeepinvPhysics(wrong), LinearCompose([DeepinvPhysics(wrong)])):
        with pytest.raises(ValueError, match=r"LinearPhysics.A_adjoint is not the adjoint of its A: .*adjoint_function"):
            check_adjoint(operator, x)


def test_nonlinear_physics_measure_by_a_and_come_back_by_a_dagger(physics):
    class Cube(physics.Physics):
        def A(self, x, **_):
            return x**3

        def A_dagger(self, y, **_):
            return y.sign() * y.abs() ** (1 / 3)

    operator, x = DeepinvNonlinear(Cube()), normal(2, 1, 4, 4)
    torch.testing.assert_close(operator(x), x**3)
    torch.testing.assert_close(operator.pinv(operator(x)), x)
    for sampler in (DPS(steps=4), Conjugate(steps=4)):
        assert sampler.sample(small_mixture(OTPath()), operator, x**3, x).image.isfinite().all()
    with pytest.raises(TypeError, match="Denoising is linear: use DeepinvPhysics"):
        DeepinvNonlinear(physics.Denoising())
    with pytest.raises(TypeError, match="Identity is none"):
        DeepinvNonlinear(torch.nn.Identity())


def test_names_the_remedy_without_deepinv(monkeypatch):
    monkeypatch.setitem(sys.modules, "deepinv", None)
    with pytest.raises(ImportError, match=r"pip install 'cclight\[deepinv\]'"):
        DeepinvPhysics(torch.nn.Identity())
