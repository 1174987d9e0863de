"""What all models of fields share: the layout of samples, their description, seeded noise."""

from __future__ import annotations

import operator

import torch
from torch import Tensor

from wavemill.errors import InvalidParameter, ShapeMismatch
from wavemill.operators import Numbers, as_tensor, check_whole
from wavemill.spectra import flatness, skewness

RANGE = 1e70  # of deviations, either way: fourth powers of values stay within float64


def numbers_of(n: int, seed: int, first: int) -> tuple[range, int]:
    """Return the numbers of ``n`` samples and the seed of their family, or refuse them."""
    check_whole(n=n, seed=seed, first=first)
    n, seed, first = map(operator.index, (n, seed, first))
    if n < 1:
        raise InvalidParameter(f"n={n} samples: ask for 1 or more")
    return range(first, first + n), seed


def as_samples(x: Numbers) -> Tensor:
    """Return ``(sample, component, y, x)`` float64 of (y, x), (sample, y, x) or the full layout.

    Raises
    ------
    ShapeMismatch
        If ``x`` is complex, empty or has another number of axes.
    InvalidParameter
        If there is nothing to model: values are not finite, too large or too small to be squared,
        or all those of a component are equal.
    """
    x = as_tensor(x)
    if x.is_complex() or not 2 <= x.ndim <= 4 or not x.numel():
        raise ShapeMismatch(
            f"a model is fitted to real fields ([sample, [component,]] y, x), got {x.dtype} "
            f"of shape {tuple(x.shape)}"
        )
    fields = x.to(torch.float64)
    if x.ndim < 4:
        fields = fields.reshape(-1, 1, *x.shape[-2:])
    if not (finite := fields.isfinite()).all():
        count = x.numel() - int(finite.sum())
        raise InvalidParameter(
            f"{count} of {x.numel()} values are not finite: leave such fields out, or fill them"
        )
    if (fields.amax((0, 2, 3)) == fields.amin((0, 2, 3))).any():
        raise InvalidParameter("all values are equal: there is nothing to model")
    for std in fields.std((0, 2, 3), correction=0).tolist():
        if not 1 / RANGE < std < RANGE:
            raise InvalidParameter(
                f"values of standard deviation {std:.3g}: choose units in which it is between "
                f"{1 / RANGE:.0e} and {RANGE:.0e}"
            )
    return fields


def describe(fields: Tensor) -> dict[str, float]:
    """Return mean, std, skewness and flatness of ``(sample, component, y, x)``.

    The last two are averages over samples. With several components the names end in their index.
    """
    metrics = {"samples": float(len(fields))}
    for component in range(fields.shape[1]):
        field, suffix = fields[:, component], f"_{component}" if fields.shape[1] > 1 else ""
        metrics[f"mean{suffix}"] = float(field.mean())
        metrics[f"std{suffix}"] = float(field.std(correction=0))
        metrics[f"skewness{suffix}"] = float(skewness(field).mean())
        metrics[f"flatness{suffix}"] = float(flatness(field).mean())
    return metrics


def white_noise(index: int, shape: tuple[int, ...], seed: int) -> Tensor:
    """Return sample ``index`` of family ``seed``, float64, the same however many are drawn."""
    generator = torch.Generator().manual_seed((seed * 1_000_003 + index) % 2**63)
    return torch.randn(shape, generator=generator, dtype=torch.float64)
