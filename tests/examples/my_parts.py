"""An operator, a sampler and a prior of one's own: see CONTRIBUTING.md."""

from dataclasses import dataclass

import torch
from torch.nn.functional import avg_pool2d

from cclight import LinearOperator, OTPath, Prior, Sample, Sampler


class Interlacing(LinearOperator):
    """Every second row of the image is lost. The adjoint and the pseudoinverse follow from `forward`."""

    def forward(self, x):
        return x[:, :, ::2]

    def image_shape(self, measurement_shape):
        channels, height, width = measurement_shape
        return channels, 2 * height, width


@dataclass(frozen=True)
class DataProjection(Sampler):
    """Denoise, put back what the measurement says, step on.

    Args:
        steps: network evaluations.
        t_start: progress from noise (0) to data (1) at which sampling begins.
    """

    steps: int = 5
    t_start: float = 0.4

    def step(self, problem, n, x):
        now, after = problem.at(n), problem.at(n + 1)
        x_0 = problem.denoise(x, now.t)
        epsilon = (x - now.alpha * x_0) / now.sigma
        x_0 = x_0 - problem.operator.project(x_0) + problem.pinv_y
        return after.alpha * x_0 + after.sigma * epsilon


class Smooth(Prior):
    """Images are smooth: the noisier, the wider the mean that denoises them."""

    def __init__(self):
        super().__init__(OTPath(), Sample())

    def forward(self, x_t, t):
        z = x_t / self.path.alpha(t).view(-1, 1, 1, 1)
        weight = self.path.ratio(t).clamp(max=1).view(-1, 1, 1, 1)
        return torch.lerp(z, avg_pool2d(z, 5, 1, 2, count_include_pad=False), weight)
