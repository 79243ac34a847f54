r"""A mixture of Gaussians: the prior whose denoiser, density and posterior are closed formulas, the ground truth of our tests.

    p(x_0) = Σ_k π_k N(x_0; μ_k, C_k),        p(x_t) = Σ_k π_k N(x_t; α μ_k, S_k),     S_k = α² C_k + σ² I

    x̂_0 = E[x_0 | x_t] = Σ_k w_k(x_t) [ μ_k + α C_k S_k⁻¹ (x_t - α μ_k) ],            w_k ∝ π_k N(x_t; α μ_k, S_k)

With C_k = ρ_k I + Q_k diag(λ_k - ρ_k) Q_kᵀ, decomposed once, where ρ_k is the least variance and Q_k (d × r) holds the
directions of more than that, a call costs two products with all Q_k side by side; a diagonal C_k needs none.

The posterior under y = H x_0 + σ_y n is a mixture again. With the reduced decomposition H = U S Vᵀ (s_i > 0) all that y says of
x_0 is z = S⁻¹Uᵀy = Vᵀx_0 + σ_y S⁻¹n', so that noiseless measurements (σ_y = 0) and rank-deficient H need no special case:

    G_k = C_k V (Vᵀ C_k V + σ_y² S⁻²)⁻¹,     m_k = μ_k + G_k (z - Vᵀμ_k),     C_k|y = C_k - G_k Vᵀ C_k
    π_k|y ∝ π_k N(z; Vᵀμ_k, Vᵀ C_k V + σ_y² S⁻²)

References:
    Bishop, Pattern Recognition and Machine Learning, 2006, section 2.3.3 (linear-Gaussian conditioning).
    Doucet, A Note on Efficient Conditional Simulation of Gaussian Distributions, 2010 (sampling by Matheron's rule).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from cclight.operators.base import LinearOperator, Operator
from cclight.paths.gaussian import GaussianPath, VPPath
from cclight.paths.parameterization import Epsilon, Parameterization
from cclight.priors.base import Prior
from cclight.priors.mixture_file import MeansLike, NumbersLike, parts_of

# Singular values of H below this fraction of the largest are its null space: operators often carry float32 matrices.
RANK_TOLERANCE = 1e-6
# Variances of a component as close as this, relative to the largest, are one: the rounding of their decomposition.
EQUAL_VARIANCES = 1e-12


class GaussianMixture(Prior):
    """A mixture of K Gaussians on images, signals or volumes of d numbers, with its exact denoiser on any path.

    The arithmetic is done in float64 (the buffers' dtype) whatever the images' dtype; results come back in the latter.

    Args:
        means: μ_k, (K, C, ...), or (K, d) together with `image_shape`; or the path of a file that holds them as means, and
            what else of these arguments is not given, by its name (`cclight.priors.mixture_file`).
        covariances: C_k as full matrices (K, d, d), diagonals (K, d) or (K, C, ...), or isotropic variances (K,). Positive
            semidefinite.
        weights: π_k > 0, (K,), normalized to sum 1; None for equal weights.
        path: the path of the noisy images x_t; None for `VPPath()`.
        parameterization: what `forward` returns; None for `Epsilon()`.
        image_shape: (C, ...), where the means do not tell.
        classes: the label of each component, (K,) integers 0, 1, ...: then images may bring labels, which leave the components
            of that label (a label of -1 leaves them all).

    Raises:
        FileNotFoundError: where there is no such file.
        ValueError: for shapes that do not fit, asymmetric or indefinite covariances, weights that are not positive.
    """

    means: Tensor
    variances: Tensor
    floor: Tensor
    basis: Tensor | None
    log_weights: Tensor
    classes: Tensor | None
    image_shape: tuple[int, ...]

    def __init__(
        self,
        means: MeansLike,
        covariances: NumbersLike | None = None,
        weights: NumbersLike | None = None,
        path: GaussianPath | None = None,
        parameterization: Parameterization | None = None,
        image_shape: tuple[int, ...] | None = None,
        classes: NumbersLike | None = None,
    ) -> None:
        super().__init__(path or VPPath(), parameterization or Epsilon())
        means, covariances, weights, classes = parts_of(means, covariances, weights, classes)
        if means.ndim > 2:
            image_shape = tuple(means.shape[1:])
        if image_shape is None or means.shape[1:].numel() != math.prod(image_shape):
            raise ValueError(f"means are (K, C, ...), or (K, d) with image_shape; got {tuple(means.shape)} and {image_shape}.")
        self.image_shape = image_shape
        self.channels = image_shape[0]
        if covariances.ndim > 2 and covariances.shape == means.shape:
            covariances = covariances.flatten(1)
        means = means.flatten(1).double()
        components, size = means.shape
        if tuple(covariances.shape) not in ((components, size, size), (components, size), (components,)):
            raise ValueError(
                f"covariances of {components} components on {size} numbers are ({components}, {size}, {size}), "
                f"({components}, {size}) or ({components},); got {tuple(covariances.shape)}."
            )
        if weights is None:
            weights = torch.ones(components)
        if weights.shape != (components,) or not bool((weights > 0).all()):
            raise ValueError(f"weights are {components} positive numbers, got {weights.tolist()}.")
        if classes is not None:
            self.labels = int(classes.max()) + 1
            if classes.shape != (components,) or set(classes.tolist()) != set(range(self.labels)):
                raise ValueError(f"classes are {components} labels, each of 0, 1, ... present, got {classes.tolist()}.")
        variances, floor, basis = _decompose(covariances.double())
        self.register_buffer("means", means)
        self.register_buffer("variances", variances)
        self.register_buffer("floor", floor)
        self.register_buffer("basis", basis)
        self.register_buffer("classes", classes)
        self.register_buffer("log_weights", torch.log(weights.double() / weights.double().sum()))

    def forward(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        dtype = self.means.dtype
        time = t.to(dtype).view(-1, 1)
        x = x_t.flatten(1).to(dtype)
        alpha, sigma = self.path.alpha(time)[..., None], self.path.sigma(time)[..., None]
        log_joint, u, marginal, rest = self._components(x, alpha, sigma)
        if label is not None and self.classes is not None:
            label = label.to(x.device)[:, None]
            log_joint = log_joint.masked_fill((label >= 0) & (label != self.classes), -math.inf)
        w = torch.softmax(log_joint, dim=1)
        if self.basis is None:
            x_0 = torch.einsum("bk,bkd->bd", w, self.means + alpha * self.variances / marginal * u)
        else:
            outside = w[..., None] * self.floor / rest  # of v_k = x - α μ_k, all of it and then what is inside again
            inside = w[..., None] * (self.variances / marginal - self.floor / rest) * u
            off = outside.sum(1) * x - alpha[:, 0] * (outside[..., 0] @ self.means)
            x_0 = w @ self.means + alpha[:, 0] * (off + inside.flatten(1) @ self._side_by_side().T)
        return self.parameterization.output(self.path, time, x, x_0).view(x_t.shape).to(x_t.dtype)

    def log_density(self, x: Tensor, t: Tensor | None = None) -> Tensor:
        """The log density log p(x_t) in nats, (B,), in the buffers' dtype.

        Args:
            x: images, (B, C, H, W).
            t: the path's time of each, (B,); None for clean images, log p(x_0). At data, singular covariances have no density.
        """
        dtype = self.means.dtype
        one = torch.ones(1, 1, 1, dtype=dtype, device=x.device)
        alpha, sigma = one, 0 * one
        if t is not None:
            time = t.to(dtype).view(-1, 1, 1)
            alpha, sigma = self.path.alpha(time), self.path.sigma(time)
        log_joint, *_ = self._components(x.flatten(1).to(dtype), alpha, sigma)
        return torch.logsumexp(log_joint, dim=1)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw n clean images, (n, C, H, W), in the buffers' dtype; the generator may live on another device than they."""
        chosen = torch.multinomial(self.log_weights.exp().to(generator.device), n, replacement=True, generator=generator)
        return self._draw(chosen, generator).view(n, *self.image_shape)

    def posterior(self, operator: Operator, y: Tensor, noise_std: float = 0.0) -> MixturePosterior:
        """The exact posterior p(x_0 | y) under y = H x_0 + σ_y n, one for each measurement of the batch.

        H is made dense by applying the operator to a basis, so this is for small images. What of y lies outside the range
        of H says nothing of x_0 and is passed over, also where σ_y = 0 should have ruled it out.

        Args:
            operator: a linear operator.
            y: measurements, (B, ...).
            noise_std: σ_y >= 0; σ_y² is shared evenly by the two parts of complex numbers.

        Raises:
            TypeError: for a nonlinear operator.
            ValueError: for a negative σ_y, a y of the wrong size, or σ_y = 0 with a covariance that is singular on the range.
        """
        if not isinstance(operator, LinearOperator):
            raise TypeError(
                f"The posterior is closed-form under a LinearOperator alone, and {type(operator).__name__} is none."
            )
        if noise_std < 0:
            raise ValueError(f"noise_std is a standard deviation, got {noise_std}: give a number >= 0.")
        v, z, noise = self._measure(operator, y, noise_std)
        covariances = self.covariances()
        cv = covariances @ v  # (K, d, r)
        evidence = v.mT @ cv + torch.diag(noise**2)
        factor, failed = torch.linalg.cholesky_ex(evidence)
        if bool(failed.any()):
            raise ValueError(
                "A component's covariance is singular on what is measured: give it some variance, or noise_std > 0."
            )
        gain = torch.cholesky_solve(cv.mT, factor).mT
        residual = z[:, None] - self.means @ v  # (B, K, r)
        white = torch.linalg.solve_triangular(factor, residual.permute(1, 2, 0), upper=False)  # (K, r, B)
        log_det = torch.log(torch.diagonal(factor, dim1=-2, dim2=-1)).sum(-1)
        log_weights = self.log_weights - 0.5 * (white**2).sum(1).T - log_det
        conditioned = covariances - gain @ cv.mT
        return MixturePosterior(
            prior=self,
            weights=torch.softmax(log_weights, dim=1),
            means=self.means + torch.einsum("kdr,bkr->bkd", gain, residual),
            covariances=0.5 * (conditioned + conditioned.mT),
            _gain=gain,
            _v=v,
            _z=z,
            _noise=noise,
        )

    def covariances(self) -> Tensor:
        """The components' covariances C_k as full matrices, (K, d, d)."""
        if self.basis is None:
            return torch.diag_embed(self.variances.expand(self.means.shape))
        eye = torch.eye(self.means.shape[1], dtype=self.means.dtype, device=self.means.device)
        return self.floor[..., None] * eye + (self.basis * (self.variances - self.floor)[:, None]) @ self.basis.mT

    def _components(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The joint log π_k N(x; α μ_k, S_k), (B, K), and what it comes from.

        Returns:
            The joint; u = Q_kᵀ(x - α μ_k), (B, K, r); S_k's variances in the directions Q_k, (B, K, r), and outside, (B, K, 1).
        """
        marginal, rest = alpha**2 * self.variances + sigma**2, alpha**2 * self.floor + sigma**2
        if self.basis is None:
            u = x[:, None] - alpha * self.means
        else:
            own = torch.einsum("kd,kdr->kr", self.means, self.basis)
            u = (x @ self._side_by_side()).view(len(x), *own.shape) - alpha * own
        exponent = (u**2 / marginal + torch.log(2 * math.pi * marginal)).sum(-1)
        if self.basis is not None and (outside := x.shape[1] - u.shape[2]):
            products = x.square().sum(1, keepdim=True) - 2 * alpha[..., 0] * (x @ self.means.T)
            length = products + (alpha[..., 0] * self.means.norm(dim=1)) ** 2 - u.square().sum(-1)
            exponent = exponent + length.clamp_min(0) / rest[..., 0] + outside * torch.log(2 * math.pi * rest[..., 0])
        return self.log_weights - 0.5 * exponent, u, marginal, rest

    def _side_by_side(self) -> Tensor:
        """The components' Q_k next to each other, (d, K r)."""
        assert self.basis is not None
        return self.basis.permute(1, 0, 2).flatten(1)

    def _draw(self, chosen: Tensor, generator: torch.Generator) -> Tensor:
        """One x_0, (n, d), from each of the chosen components, (n,)."""
        device = self.means.device
        noise = torch.randn(
            len(chosen), self.means.shape[1], generator=generator, dtype=self.means.dtype, device=generator.device
        )
        chosen, noise = chosen.to(device), noise.to(device)
        drawn = (self.variances if self.basis is None else self.floor).sqrt()[chosen] * noise
        if self.basis is not None:
            # Component by component: gathering a basis for each draw would take n d r numbers.
            more = self.variances.sqrt() - self.floor.sqrt()
            for k in range(len(self.means)):
                drawn[chosen == k] += (noise[chosen == k] @ self.basis[k] * more[k]) @ self.basis[k].T
        return self.means[chosen] + drawn

    def _measure(self, operator: LinearOperator, y: Tensor, noise_std: float) -> tuple[Tensor, Tensor, Tensor]:
        """V, (d, r); z = S⁻¹Uᵀy, (B, r); its noise's standard deviations σ_y/s_i, (r,)."""
        size = self.means.shape[1]
        eye = torch.eye(size, dtype=self.means.dtype, device=self.means.device)
        with torch.no_grad():
            rows = operator(eye.view(size, *self.image_shape))  # Hᵀ
        if y.is_complex():
            y, rows, noise_std = torch.view_as_real(y), torch.view_as_real(rows), noise_std / math.sqrt(2)
        rows = rows.flatten(1)
        if y.shape[1:].numel() != rows.shape[1]:
            raise ValueError(
                f"y holds {y.shape[1:].numel()} numbers per image where {type(operator).__name__} gives {rows.shape[1]}."
            )
        v, s, uh = torch.linalg.svd(rows, full_matrices=False)
        kept = s > RANK_TOLERANCE * s.max()
        z = y.flatten(1).to(rows) @ uh[kept].T / s[kept]
        return v[:, kept], z, noise_std / s[kept]


@dataclass(frozen=True, eq=False)
class MixturePosterior:
    """The posteriors p(x_0 | y) of a batch of B measurements: mixtures that share their covariances.

    Attributes:
        prior: the mixture they come from.
        weights: π_k|y, (B, K).
        means: m_k, (B, K, d).
        covariances: C_k|y, (K, d, d), the same for every measurement; singular on the measured part where σ_y = 0.
    """

    prior: GaussianMixture
    weights: Tensor
    means: Tensor
    covariances: Tensor
    _gain: Tensor
    _v: Tensor
    _z: Tensor
    _noise: Tensor

    @property
    def mean(self) -> Tensor:
        """The posterior means E[x_0 | y], (B, C, H, W): the estimate of least mean square error."""
        return torch.einsum("bk,bkd->bd", self.weights, self.means).unflatten(1, self.prior.image_shape)

    @property
    def covariance(self) -> Tensor:
        """The posteriors' whole covariances, (B, d, d): within the components and between them."""
        off = self.means - self.mean.flatten(1)[:, None]
        return torch.einsum("bk,kij->bij", self.weights, self.covariances) + torch.einsum(
            "bk,bki,bkj->bij", self.weights, off, off
        )

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw n exact samples for each measurement, (B, n, C, H, W), by Matheron's rule x = x' + G_k (z - Vᵀx' - noise)."""
        batch = len(self.weights)
        chosen = torch.multinomial(self.weights.to(generator.device), n, replacement=True, generator=generator).flatten()
        x = self.prior._draw(chosen, generator)
        noise = torch.randn(batch * n, len(self._noise), generator=generator, dtype=x.dtype, device=generator.device)
        residual = self._z.repeat_interleave(n, dim=0) - x @ self._v - self._noise * noise.to(x)
        chosen = chosen.to(x.device)
        for k in range(len(self._gain)):
            x[chosen == k] += residual[chosen == k] @ self._gain[k].T
        return x.view(batch, n, *self.prior.image_shape)


def _decompose(covariances: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    """C = ρ I + Q diag(λ - ρ) Qᵀ: the variances λ, (K, d, 1 or r), the least, (K, 1), and the bases, (K, d, r) or None."""
    basis: Tensor | None = None
    if covariances.ndim == 3:
        asymmetry = (covariances - covariances.mT).abs().max() / covariances.abs().max()
        if asymmetry > 1e-6:
            raise ValueError(
                f"covariances are symmetric matrices; these differ from their transposes by {float(asymmetry):.1e}."
            )
        variances, basis = torch.linalg.eigh(0.5 * (covariances + covariances.mT))
    else:
        variances = covariances.view(len(covariances), -1)
    if bool((variances < -1e-7 * variances.abs().max()).any()):
        raise ValueError(f"covariances are positive semidefinite; the smallest variance here is {float(variances.min()):.2e}.")
    variances = variances.clamp_min(0)
    floor = variances.amin(dim=1, keepdim=True)
    if basis is not None:
        rank = int((variances > floor + EQUAL_VARIANCES * variances.max()).sum(1).max())
        if 2 * rank < basis.shape[1]:
            variances, basis = (kept[..., basis.shape[1] - rank :] for kept in (variances, basis))
    return variances, floor, basis
