import torch

from benchmarks.overhead import Dispatches
from cclight.operators import conjugate_gradients
from cclight.operators.conjugate_gradients import ASK_EVERY, least_squares


def problem(rows=12, columns=18, rank=9, seed=0):
    generator = torch.Generator().manual_seed(seed)
    left = torch.randn(rows, rank, generator=generator, dtype=torch.float64)
    matrix = left @ torch.randn(rank, columns, generator=generator, dtype=torch.float64)
    y = torch.randn(3, rows, generator=generator, dtype=torch.float64)
    return matrix, y


def solve(matrix, y, tolerance=1e-12, max_iterations=100):
    def adjoint(r):
        return (r @ matrix.conj()).view(-1, 1, 2, matrix.shape[1] // 2)

    return least_squares(lambda x: x.flatten(1) @ matrix.T, adjoint, y, tolerance, max_iterations)


def test_gives_the_pseudoinverse_of_any_measurement():
    matrix, y = problem()  # y lies outside the range: 9 of 12 dimensions
    solution = solve(matrix, y)
    torch.testing.assert_close(solution.x.flatten(1), y @ torch.linalg.pinv(matrix).T, atol=1e-8, rtol=1e-8)
    assert solution.iterations <= 12
    assert (solution.residual <= 1e-12).all()


def test_an_image_does_not_depend_on_its_batch():
    matrix, y = problem()
    y[1] *= 1e-6
    y[2] = matrix[:, 0]
    together = solve(matrix, y, tolerance=1e-4)
    for image in range(3):
        alone = solve(matrix, y[image : image + 1], tolerance=1e-4)
        torch.testing.assert_close(together.x[image], alone.x[0], rtol=1e-6, atol=1e-18)
        assert alone.iterations <= together.iterations


def test_nothing_measured_gives_nothing():
    matrix, y = problem()
    solution = solve(matrix, torch.zeros_like(y))
    assert solution.iterations == 0
    assert not solution.x.any()
    assert not solution.residual.any()


def test_says_how_far_it_got():
    matrix, y = problem()
    solution = solve(matrix, y, max_iterations=2)
    assert solution.iterations == 2
    gradient = (y - solution.x.flatten(1) @ matrix.T) @ matrix
    torch.testing.assert_close(solution.residual, gradient.norm(dim=1) / (y @ matrix).norm(dim=1))


def test_a_nan_stays_with_its_image():
    matrix, y = problem()
    clean = solve(matrix, y, max_iterations=20)
    y[1, 0] = torch.nan
    solution = solve(matrix, y, max_iterations=20)
    assert solution.x[1].isnan().all()
    torch.testing.assert_close(solution.x[::2], clean.x[::2])


def test_asking_seldom_changes_nothing_but_the_number_of_questions(monkeypatch):
    matrix, y = problem()
    exact = solve(matrix, y)
    monkeypatch.setattr(conjugate_gradients, "_patience", lambda device: ASK_EVERY)
    with Dispatches() as counts:
        seldom = solve(matrix, y)
    assert torch.equal(seldom.x, exact.x)
    assert torch.equal(seldom.residual, exact.residual)
    assert seldom.iterations == -(-exact.iterations // ASK_EVERY) * ASK_EVERY
    assert counts.reads == seldom.iterations // ASK_EVERY + 1
