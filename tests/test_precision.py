"""What a user may change for speed changes a restoration little or not at all: precision, memory format, loader workers."""

from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, Trainer
from PIL import Image

from cclight import BicubicDownsampling, Conjugate, Denoising, ImageFolder, RestorationDataModule, Restorer, SmallPrior
from cclight.problem import Problem

WEIGHTS = Path(__file__).with_name("assets") / "tiny.safetensors"


class Keep(Callback):
    def __init__(self):
        self.images = {}

    def on_predict_batch_end(self, trainer, module, outputs, batch, batch_idx, dataloader_idx=0):
        self.images.update(zip(outputs.index, outputs.image, strict=True))


@pytest.fixture
def restored(tmp_path):
    rng = np.random.default_rng(0)
    for index in range(4):
        small = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        small.resize((32, 32), Image.Resampling.BICUBIC).save(tmp_path / f"{index}.png")

    def run(precision="32-true", num_workers=0, **options):
        keep, operator = Keep(), BicubicDownsampling(4)
        quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "inference_mode": False}
        trainer = Trainer(accelerator="cpu", precision=precision, use_distributed_sampler=False, callbacks=[keep], **quiet)
        sampler = Conjugate(3, guidance=1.0, t_start=0.8, schedule="inverse_variance")
        model = Restorer(SmallPrior(str(WEIGHTS)), sampler, operator, **options)
        data = RestorationDataModule(ImageFolder(str(tmp_path)), operator, image_size=32, batch_size=2, num_workers=num_workers)
        trainer.predict(model, datamodule=data, return_predictions=False)
        return torch.stack([keep.images[index] for index in range(4)])

    return run


def test_mixed_precision_is_for_the_network_alone(restored):
    """The picture stays float32, differs from full precision, and by no more than the format's rounding of the network."""
    full, mixed = restored(), restored("bf16-mixed")
    assert mixed.dtype == torch.float32
    assert 0 < float((mixed - full).abs().max()) < 0.05
    # What the measurement determines comes from our own arithmetic, which is not mixed.
    operator = BicubicDownsampling(4)
    torch.testing.assert_close(operator(mixed), operator(full), rtol=0, atol=2e-3)


def test_half_precision_on_a_cpu_is_bfloat16_and_says_so(restored):
    """Lightning has no float16 there: it warns and takes bfloat16. On a GPU it has not been run."""
    with pytest.warns(UserWarning, match="Using `precision='bf16-mixed'` instead"):
        half = restored("16-mixed")
    torch.testing.assert_close(half, restored("bf16-mixed"), rtol=0, atol=1e-5)


def test_channels_last_gives_the_same_picture(restored):
    torch.testing.assert_close(restored(channels_last=True), restored(), rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_loader_workers_change_nothing(restored):
    # Not to the bit: memory that comes from another process is aligned otherwise, and convolutions sum in another order.
    torch.testing.assert_close(restored(num_workers=2), restored(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_small_residuals_keep_their_products_in_half_precision(dtype):
    """Jᵀv is linear in v, however small; an image of zeros beside it stays one."""
    prior = SmallPrior().eval().requires_grad_(False)
    x, v = torch.randn(2, 2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    v[1] = 0
    t = float(prior.path.time(torch.tensor(0.95, dtype=torch.float64)))

    def product(size: float) -> torch.Tensor:
        with torch.autocast("cpu", dtype):
            problem = Problem(prior, Denoising(), x, x)
        with torch.no_grad():
            return problem.network_and_vjp(x, t, lambda _: size * v)[1]

    whole = product(1.0)
    for size in (1e-3, 1e-7, 1e3):
        part = product(size) / size
        assert float((part - whole).norm() / whole.norm()) < 2e-2
        assert not part[1].any()
