"""An operator, a sampler and a prior of one's own: see the README's section on extending cclight."""

from itertools import pairwise

import torch
from torch.nn.functional import avg_pool2d

from cclight import LinearOperator, OTPath, Prior, Sample, Sampler
from cclight.samplers.timesteps import timesteps


class Interlacing(LinearOperator):
    """Every second row of the image is lost. The adjoint and the pseudoinverse follow from `forward`."""

    def forward(self, x):
        return x[:, :, ::2]

    def image_shape(self, measurement_shape):
        channels, height, width = measurement_shape
        return channels, 2 * height, width


class DataProjection(Sampler):
    """Denoise, put back what the measurement says, step on.

    Args:
        steps: network evaluations.
    """

    def __init__(self, steps: int = 5):
        self.steps = steps

    def iterate(self, problem):
        path, operator = problem.prior.path, problem.operator
        times = timesteps(path, self.steps, 0.4, 1.0).tolist()
        pinv_y = operator.pinv(problem.y)
        x = problem.start(times[0], pinv_y)
        for t, t_next in pairwise(times):
            alpha, sigma = problem.alpha_sigma(t)
            x_0 = problem.denoise(x, t)
            epsilon = (x - alpha * x_0) / sigma
            x_0 = x_0 - operator.project(x_0) + pinv_y
            alpha, sigma = problem.alpha_sigma(t_next)
            x = alpha * x_0 + sigma * epsilon
            yield x


class Smooth(Prior):
    """Images are smooth: the noisier, the wider the mean that denoises them."""

    def __init__(self):
        super().__init__(OTPath(), Sample())

    def forward(self, x_t, t):
        z = x_t / self.path.alpha(t).view(-1, 1, 1, 1)
        weight = self.path.ratio(t).clamp(max=1).view(-1, 1, 1, 1)
        return torch.lerp(z, avg_pool2d(z, 5, 1, 2, count_include_pad=False), weight)
