"""Sampler: turns a measurement and a noise image into a restoration with a few calls of a prior.

The base class checks the input, owns the only loop and counts network calls; a subclass writes `step`. A sampler is a value, a
frozen dataclass of its settings: what a step hands to the next one is the state, and what can be computed once from settings
and path is a cached function of them.
"""

# No annotations from __future__ here: jsonargparse reads a subclass's fields in the subclass's module, which need not know the
# names in ours, and takes any value for every setting where one of them cannot be read.
import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from cclight.data.noise import Source, check_samples, generator, standard_normal
from cclight.operators.base import LinearOperator, Operator, SpectralOperator
from cclight.operators.whitened import whitened
from cclight.paths.guidance import SCHEDULES
from cclight.priors.base import Prior
from cclight.problem import Problem, Restoration
from cclight.samplers.grid import Grid, Spacing

State = Any  # the image x, (B, C, H, W), or a NamedTuple that holds it as `x` beside what else a step hands on


class Sampler(ABC):
    """A training-free posterior sampler. To add one, subclass as a frozen dataclass with `steps` and write `step`.

    Attributes:
        steps: steps of the time grid.
        t_start: progress from noise (0) to data (1) at which sampling begins.
        t_end: progress at which it ends; None for the path's own end: 0.999 on the VP path and 1 on the OT path.
        timesteps: how the steps are spaced, see `cclight.samplers.grid`.
        divides_by_alpha: whether its guidance does, and so cannot begin where a path has no signal at all.
        requires: the least capable operator that the sampler can work with; another one's linear problem will do, where it has
            one (`Operator.linear_problem`).
        reference: BibTeX of the paper to cite, or an empty string.
    """

    steps: int
    t_start: float = 0.0
    t_end: float | None = None
    timesteps: Spacing = "uniform"
    divides_by_alpha: ClassVar[bool] = True
    requires: ClassVar[type[Operator]] = Operator  # type: ignore[type-abstract]
    reference: ClassVar[str] = ""

    def __post_init__(self) -> None:
        """Refuse settings that make no sense; extend it by calling super().__post_init__() first.

        Raises:
            ValueError: naming the value and the expectation.
        """
        for name, value in vars(self).items():
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"{name} of {type(self).__name__} is a finite number, got {value}.")
        _ = self.grid

    @property
    def grid(self) -> Grid:
        """The time grid."""
        return Grid(self.steps, self.t_start, self.t_end, self.timesteps)

    def along(self, prior: Prior) -> Prior:
        """The prior as the sampler sees it; here as it is."""
        return prior

    def begin(self, problem: Problem) -> State:
        """The state at the grid's first time; here α · guess + σ · noise. Runs without gradients."""
        return problem.start(problem.times[0])

    @abstractmethod
    def step(self, problem: Problem, n: int, state: State) -> State:
        """The state at the grid's time n + 1 from that at time n. Runs without gradients.

        Args:
            problem: what a step may ask of the world; problem.at(n) has the time's t, α and σ.
            n: the step, from 0.
            state: what `begin` or the step before returned: x (B, C, H, W), or a NamedTuple with x among its fields.
        """

    def iterate(self, problem: Problem) -> Iterator[Tensor]:
        """The image x, (B, C, H, W), after each step; the last one is the restoration."""
        problem.times = self.grid.times(problem.prior.path, self._first(problem.prior)).tolist()
        state = self.begin(problem)
        for n in range(self.steps):
            state = self.step(problem, n, state)
            yield state if isinstance(state, Tensor) else state.x

    def _first(self, prior: Prior) -> float:
        """Where sampling can begin on the prior's path: later than noise where α = 0 there and something is divided by it."""
        path = prior.path
        s, o = prior.parameterization.coefficients(path, path.time(torch.zeros((), dtype=torch.float64)))
        return path.first_progress if self.divides_by_alpha or not (s.isfinite() and o.isfinite()) else 0.0

    def check(self, problem: Problem) -> None:
        """Refuse a problem that the sampler cannot solve; extend it by calling super().check(problem) first.

        Raises:
            TypeError: for an operator of too little capability.
            ValueError: for shapes or values that do not fit.
        """
        operator, name = problem.operator, type(self).__name__
        if not isinstance(operator, self.requires):
            raise TypeError(
                f"{name} needs a {self.requires.__name__}, and {type(operator).__name__} is none: choose a sampler that "
                f"takes any operator (Conjugate, PiGDM, DPS) or give the operator what {self.requires.__name__} asks for."
            )
        if not 0 <= problem.noise_std < math.inf:
            raise ValueError(f"noise_std is a standard deviation, got {problem.noise_std}: give a number >= 0.")
        if problem.y.shape[:1] != problem.noise.shape[:1]:
            measurements = problem.y.shape[0] if problem.y.ndim else 0
            raise ValueError(f"{measurements} measurements but noise for {problem.noise.shape[0]} images.")
        if problem.generators is not None and len(problem.generators) != problem.noise.shape[0]:
            raise ValueError(f"{len(problem.generators)} generators for {problem.noise.shape[0]} images: give one each.")
        shape = tuple(problem.noise.shape[1:])
        if len(shape) == problem.prior.sides_of_images:
            raise ValueError(
                f"{type(problem.prior).__name__} takes batches of images, {problem.prior.layout('B')}, and the images here "
                f"have the shape {tuple(problem.noise.shape)}: y[None] makes a batch of one."
            )
        problem.prior.check_images(shape)
        problem.prior.check_label(problem.label)
        if problem.label is not None and len(problem.label) != problem.noise.shape[0]:
            raise ValueError(f"{len(problem.label)} labels for {problem.noise.shape[0]} images: give one each.")
        operator.check_images(shape)
        check_measurement(problem)

    def sample(
        self,
        prior: Prior,
        operator: Operator,
        y: Tensor,
        noise: Tensor | None = None,
        *,
        noise_std: float | Tensor = 0.0,
        seed: int = 0,
        generators: Sequence[Source] | None = None,
        label: Tensor | None = None,
        keep_trajectory: bool = False,
        samples: int | None = None,
    ) -> Restoration:
        """Restore a batch of measurements, once or several times from other noise.

        Args:
            prior: the denoiser.
            operator: the degradation H that made the measurements.
            y: measurements, (B, ...), as `operator` returns them.
            noise: initial standard normal noise ε, (B, C, H, W): the same noise gives the same restoration. None draws it, each
                image's from the seed and its place in the batch.
            noise_std: σ_y, the standard deviation of the measurement's noise, in units of [-1, 1] images; σ_y² is shared evenly
                by the real and the imaginary part of a complex one. A tensor that broadcasts to y gives each number its own,
                for linear operators (`cclight.operators.whitened`).
            seed: of the noise that is not given.
            generators: one random generator per image, for samplers that draw more noise; None makes them of the seed.
            label: the class of each image, (B,) integers, -1 for none; for a prior that knows labels alone.
            keep_trajectory: return the state after each step as well.
            samples: K restorations of each measurement, one after the other, each from noise of its own; the first is that of
                `samples=None`, the kth the same whatever K. The images then are (K, B, C, H, W): mean(0) and std(0) say what
                they agree on. None is one restoration, (B, C, H, W).

        Returns:
            The restored images, the network evaluations per image and, where asked for, the trajectory.

        Raises:
            TypeError: for an operator of too little capability, or a y that is no floating tensor.
            ValueError: for shapes or values that do not fit.
        """
        if not isinstance(y, Tensor) or not (y.is_floating_point() or y.is_complex()):
            kind = y.dtype if isinstance(y, Tensor) else type(y).__name__
            raise TypeError(
                f"y is a floating tensor of [-1, 1] images' measurements, got {kind}: y.float() / 127.5 - 1 for bytes."
            )
        if samples is not None:
            check_samples(samples)
            if noise is not None or generators is not None:
                raise ValueError("The noise of samples comes from the seed: leave noise and generators out, or samples.")
            once = partial(self.sample, prior, operator, y, noise_std=noise_std, label=label, keep_trajectory=keep_trajectory)
            runs = [once(_initial(operator, y, seed, k), generators=_draws(y.shape[0], seed, k)) for k in range(samples)]
            states = [torch.stack(one) for one in zip(*(run.trajectory or () for run in runs), strict=True)]
            images = torch.stack([run.image for run in runs])
            if samples > 1 and bool((images == images[:1]).all()):
                warnings.warn(alike(self), stacklevel=2)
            return Restoration(images, runs[0].nfe, states if keep_trajectory else None)
        if noise is None:
            noise = _initial(operator, y, seed)
        if generators is None:
            generators = _draws(noise.shape[0], seed)
        rounded = False
        if not isinstance(operator, self.requires) and not isinstance(noise_std, Tensor):
            operator, y, noise_std = operator.linear_problem(y, noise_std)
            rounded = True
        if isinstance(noise_std, Tensor):
            operator, y, noise_std = whitened(operator, y, noise_std)
        if y.is_complex():
            noise_std /= math.sqrt(2)
        problem = Problem(self.along(prior), operator, y, noise, noise_std, generators, label, rounded)
        self.check(problem)
        trajectory: list[Tensor] = []
        image = noise
        with torch.no_grad(), torch.autocast(noise.device.type, enabled=False):
            for image in self.iterate(problem):
                if keep_trajectory:
                    trajectory.append(image)
        return Restoration(image, problem.nfe, trajectory if keep_trajectory else None)


@dataclass(frozen=True)
class FromNoise(Sampler):
    """A sampler whose own way begins with noise alone; with `t_start` above 0 it begins as the others do.

    Args:
        timesteps: how the steps are spaced, see `cclight.samplers.grid`.
        t_start: progress from noise (0) to data (1) at which sampling begins.
        t_end: progress at which it ends; None for the path's own end.
    """

    timesteps: Spacing = field(default="uniform", kw_only=True)
    t_start: float = field(default=0.0, kw_only=True)
    t_end: float | None = field(default=1.0, kw_only=True)

    divides_by_alpha = False

    def begin(self, problem: Problem) -> State:
        return super().begin(problem) if self.t_start > 0 else problem.noise


def renoise(problem: Problem, n: int, x_0: Tensor, epsilon: Tensor, kept: float, fresh: Tensor | None = None) -> Tensor:
    """X' = α' x̂_0 + σ' (c ε̂ + √(1 - c²) z) at the grid's time n + 1, (B, C, H, W): an estimate back on the path.

    Args:
        problem: the problem.
        n: the step.
        x_0: x̂_0, (B, C, H, W).
        epsilon: ε̂, the noise that the state carries, the same shape.
        kept: c in [0, 1], how much of it stays.
        fresh: z, the same shape; None draws it, where any is wanted.
    """
    after = problem.at(n + 1)
    x = torch.add(after.alpha * x_0, epsilon, alpha=after.sigma * kept)
    renewed = after.sigma * math.sqrt(max(0.0, 1 - kept**2))
    if renewed:
        x.add_(problem.randn() if fresh is None else fresh, alpha=renewed)
    return x


def check_measurement(problem: Problem) -> None:
    """Refuse measurements that the operator cannot have made of images of the noise's shape.

    Raises:
        ValueError: naming both shapes, the types, or the range, and the remedy.
    """
    y, noise, name = problem.y, problem.noise, type(problem.operator).__name__
    with torch.no_grad():
        expected = problem.operator(noise[:1]).shape[1:]
    if y.shape[1:] != expected:
        batchless = " (y[None] gives it a batch)" if y.shape == expected else ""
        raise ValueError(
            f"{name} makes measurements of shape {tuple(expected)} from images of {tuple(noise.shape[1:])}, and y has "
            f"{tuple(y.shape[1:])}{batchless}: give the operator's own measurements, (B, ...)."
        )
    if y.real.dtype != noise.dtype or y.device != noise.device:
        raise ValueError(
            f"y is {y.dtype} on {y.device} and the noise {noise.dtype} on {noise.device}: give both one type and device, as "
            f"y.to(noise)."
        )
    low, high = (float(number) for number in torch.aminmax(torch.view_as_real(y) if y.is_complex() else y))
    if not math.isfinite(low + high):
        raise ValueError("y holds NaN or infinity: leave such measurements out.")
    if isinstance(problem.operator, SpectralOperator) and not y.is_complex() and low >= 0:
        if high > 2:
            raise ValueError(
                f"y lies between {low:g} and {high:g}, and images lie in [-1, 1]: scale bytes by y / 127.5 - 1 and images of "
                f"[0, 1] by 2 y - 1."
            )
        if high > 0.5:
            warnings.warn(f"y lies between {low:g} and {high:g}: images lie in [-1, 1], as 2 y - 1 of [0, 1].", stacklevel=4)


def check_noise_is_spectral(name: str, problem: Problem) -> None:
    """Refuse noisy measurements of an operator without a decomposition.

    Args:
        name: the sampler that asks.
        problem: its problem.

    Raises:
        TypeError: naming the operator and the remedy.
    """
    operator = problem.operator
    if problem.noise_std and not isinstance(operator, SpectralOperator):
        other = "ConjugateMoments" if isinstance(operator, LinearOperator) else "Conjugate"
        raise TypeError(
            f"{name} with noise_std={problem.noise_std:g} needs a SpectralOperator, and {type(operator).__name__} is none: set "
            f"noise_std to 0, or choose {other}."
        )


def check_guidance(guidance: float, schedule: str | None = None) -> None:
    """Refuse a guidance weight or schedule that does not exist.

    Raises:
        ValueError: naming the value and the expectation.
    """
    if guidance < 0:
        raise ValueError(f"guidance is a weight >= 0, got {guidance}.")
    if schedule is not None and schedule not in SCHEDULES:
        raise ValueError(f"Unknown guidance schedule {schedule!r}: choose one of {', '.join(SCHEDULES)}.")


def alike(sampler: Sampler) -> str:
    """What to say of samples that are one."""
    return (
        f"{type(sampler).__name__} makes the same restoration of every noise, its samples are copies: begin closer to noise "
        f"(a smaller t_start), or choose a sampler that draws (as eta > 0 of DDRM does)."
    )


def _image_shape(operator: Operator, y: Tensor) -> tuple[int, ...]:
    """The shape (C, H, W) of the images that measurements are of.

    Raises:
        ValueError: where they can be of none.
    """
    try:
        if isinstance(operator, LinearOperator):
            return tuple(operator.image_shape(tuple(y.shape[1:])))
        return tuple(operator.pinv(y[:1]).shape[1:])
    except (ValueError, IndexError, RuntimeError) as error:
        raise ValueError(
            f"y of shape {tuple(y.shape)} is no batch of {type(operator).__name__}'s measurements ({error}): give (B, ...)."
        ) from error


def _initial(operator: Operator, y: Tensor, seed: int, sample: int = 0) -> Tensor:
    """The noise that a sample of each image begins with, (B, C, H, W)."""
    places = range(y.shape[0] if y.ndim else 0)
    sources = [generator(seed, place, "initial", sample) for place in places]
    return standard_normal(_image_shape(operator, y), sources, y.real.dtype, y.device)


def _draws(count: int, seed: int, sample: int = 0) -> list[torch.Generator]:
    """What a sample of each image draws from on its way."""
    return [generator(seed, place, "sampler", sample) for place in range(count)]
