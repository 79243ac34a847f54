"""How far the paper's first-order treatment of measurement noise drifts from the exact one as σ_y grows.

python benchmarks/noise.py

One Gaussian on 1×6×6 images, 2×2 average pooling: relative difference of the restorations under the two noise models, 20 steps.
"""

from __future__ import annotations

import torch

from cclight import AveragePooling, Conjugate, GaussianMixture

LEVELS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
WEIGHTS = (2.0, 6.0, 15.0)


def drift(guidance: float, noise_std: float) -> float:
    """||perturbation - exact|| / ||exact||."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    factor = 0.3 * normal(36, 8)
    covariance = factor @ factor.T + 0.1 * torch.eye(36, dtype=torch.float64)
    prior = GaussianMixture(0.4 * normal(1, 36), covariance[None], image_shape=(1, 6, 6))
    operator = AveragePooling(2)
    y = operator(prior.sample(16, generator))
    y, noise = y + noise_std * normal(*y.shape), normal(16, 1, 6, 6)
    perturbed, exact = (
        Conjugate(20, guidance, noise_model=model).sample(prior, operator, y, noise, noise_std=noise_std).image
        for model in ("perturbation", "exact")
    )
    return float((perturbed - exact).norm() / exact.norm())


def main() -> None:
    """The command."""
    print("σ_y   " + "".join(f"{f'w = {weight:g}':>12}" for weight in WEIGHTS))
    for level in LEVELS:
        print(f"{level:<6g}" + "".join(f"{drift(weight, level):12.3g}" for weight in WEIGHTS), flush=True)


if __name__ == "__main__":
    main()
