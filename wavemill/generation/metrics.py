"""How near pictures are to others, one number for each picture.

    PSNR = 10 log10(peak^2 / mean |x - y|^2)
    SSIM = mean of (2 m_x m_y + c1)(2 s_xy + c2) / ((m_x^2 + m_y^2 + c1)(s_x^2 + s_y^2 + c2)) ,

with means m and covariances s under an 11 x 11 Gaussian of deviation 1.5, c1 = (0.01 peak)^2 and
c2 = (0.03 peak)^2, over the points whose window lies within the picture.

Source: Wang, Bovik, Sheikh and Simoncelli, *Image quality assessment: from error visibility to
structural similarity*, IEEE TIP 13, 600 (2004).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import conv2d

from wavemill.devices import beside_default
from wavemill.errors import InvalidParameter, ShapeMismatch

WINDOW, DEVIATION = 11, 1.5


@beside_default
def psnr(x: Tensor, y: Tensor, peak: float = 1.0) -> Tensor:
    """Return the signal-to-noise ratio ``(n,)`` in dB of pictures ``(n, component, y, x)``.

    It is infinite for equal pictures.
    """
    x, y = _pictures(x, y, peak)
    error = (x - y).square().flatten(1).mean(1)
    return 10 * torch.log10(peak**2 / error)


@beside_default
def ssim(x: Tensor, y: Tensor, peak: float = 1.0) -> Tensor:
    """Return the structural similarity ``(n,)`` of pictures ``(n, component, y, x)``, at most 1."""
    x, y = _pictures(x, y, peak)
    if min(x.shape[-2:]) < WINDOW:
        raise ShapeMismatch(f"SSIM needs {WINDOW} x {WINDOW} points, got {tuple(x.shape)}")
    mean_x, mean_y = _windowed(x), _windowed(y)
    variance_x = _windowed(x * x) - mean_x**2
    variance_y = _windowed(y * y) - mean_y**2
    covariance = _windowed(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    alike = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    most = (mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2)
    return (alike / most).flatten(1).mean(1)


def relative_distance(x: Tensor, y: Tensor) -> Tensor:
    """Return ``|x - y| / |x|`` of vectors ``(n, ...)``, one number a row."""
    _same(x, y)
    x, y = x.double().flatten(1), y.double().flatten(1)
    distance: Tensor = torch.linalg.vector_norm(x - y, dim=1) / torch.linalg.vector_norm(x, dim=1)
    return distance


def _windowed(x: Tensor) -> Tensor:
    """Return means under the window, which is separable, where it fits."""
    place = torch.arange(WINDOW, dtype=x.dtype, device=x.device) - WINDOW // 2
    kernel = torch.exp(-(place**2) / (2 * DEVIATION**2))
    kernel = (kernel / kernel.sum()).expand(x.shape[1], 1, 1, WINDOW)
    rows = conv2d(x, kernel, groups=x.shape[1])
    return conv2d(rows, kernel.mT, groups=x.shape[1])


def mean_of_finite(values: Tensor) -> float:
    """Return the mean of the finite values, NaN if none is: equal pictures have no finite PSNR."""
    return float(values[values.isfinite()].mean())


def _pictures(x: Tensor, y: Tensor, peak: float) -> tuple[Tensor, Tensor]:
    """Return pictures in float64, in which differences of bytes do not wrap around."""
    _same(x, y)
    if x.ndim != 4:
        raise ShapeMismatch(f"pictures are (n, component, y, x), got {tuple(x.shape)}")
    if not peak > 0:
        raise InvalidParameter(f"peak must be above 0, got {peak}: 255 for bytes, 1 for 0 to 1")
    return x.double(), y.double()


def _same(x: Tensor, y: Tensor) -> None:
    if x.shape != y.shape:
        raise ShapeMismatch(f"cannot compare {tuple(x.shape)} with {tuple(y.shape)}")
