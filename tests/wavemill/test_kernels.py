"""The compiled loops against the same sums by torch."""

from __future__ import annotations

import ctypes
import shutil
from pathlib import Path

import pytest
import torch

from wavemill import Scattering2D, kernels
from wavemill.folding import FoldedBank, modulus
from wavemill.kernels.build import SOURCE, compile_kernels

ROOT = Path(__file__).parents[2]
PRECISIONS = [torch.float32, torch.float64]
compiled = pytest.mark.skipif(not kernels.available(), reason="the compiled loops are not built")


def both(monkeypatch, compute):
    """Return what compiled loops and torch give."""
    first = compute()
    with monkeypatch.context() as patched:
        patched.setattr(kernels, "_library", None)
        return first, compute()


def bank(size: tuple[int, int], count: int, factor: int, dtype: torch.dtype) -> FoldedBank:
    """Return a bank whose blocks are reached by some filters only, one by a single one."""
    generator = torch.Generator().manual_seed(0)
    psi = torch.randn(count, *size, generator=generator, dtype=torch.float64)
    rows, columns = (n // factor for n in size)
    psi[1:, :rows, :columns] = 0
    psi[:2, rows : 2 * rows, :columns] = 0
    psi[:, -rows:, -columns:] = 0
    return FoldedBank(psi, factor, dtype)


@compiled
@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize(("size", "factor"), [((12, 20), 2), ((32, 16), 4), ((9, 27), 3)])
def test_compiled_folds_and_their_transposes_equal_those_of_torch(monkeypatch, size, factor, dtype):
    folded = bank(size, 5, factor, dtype)
    x = torch.randn(3, *size, dtype=dtype.to_complex(), generator=torch.manual_seed(1))
    x.requires_grad_()

    def compute():
        y = folded(x)
        (gradient,) = torch.autograd.grad(y.abs().square().sum(), x)
        return torch.cat([y.detach().flatten(), gradient.flatten()])

    ours, torchs = both(monkeypatch, compute)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-13  # few products in another order
    torch.testing.assert_close(ours, torchs, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("size", [(12, 20), (16, 8)])
def test_some_filters_of_a_bank_respond_as_they_do_among_all(monkeypatch, size):
    folded = bank(size, 5, 2, torch.float64)
    x = torch.randn(3, *size, dtype=torch.complex128, generator=torch.manual_seed(3))
    for ours in both(monkeypatch, lambda: folded(x, 1, 4)):
        torch.testing.assert_close(ours, folded(x)[:, 1:4], rtol=0, atol=1e-13)


@compiled
@pytest.mark.parametrize("dtype", PRECISIONS)
def test_compiled_moduli_and_slopes_equal_those_of_torch(monkeypatch, dtype):
    z = torch.randn(5, 1001, dtype=dtype.to_complex(), generator=torch.manual_seed(2))
    z[0, :7] = 0
    z[1, :7] *= 1e-30
    z.requires_grad_()

    def compute():
        size = modulus(z)
        (gradient,) = torch.autograd.grad(size.sum(), z)
        return size.detach(), gradient

    for ours, torchs in zip(*both(monkeypatch, compute), strict=True):
        torch.testing.assert_close(ours, torchs, rtol=4 * torch.finfo(dtype).eps, atol=0)


@compiled
def test_threads_do_not_change_what_compiled_loops_compute():
    op, x = Scattering2D((48, 40), J=2), torch.randn(3, 48, 40)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = op(x)
        torch.set_num_threads(2)
        # the matrix products of averages may sum in another order
        torch.testing.assert_close(op(x), alone, rtol=1e-5, atol=1e-6)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler is here")
def test_the_installation_compiles_a_library_that_loads(tmp_path):
    library = tmp_path / "kernels.so"
    assert compile_kernels(ROOT / SOURCE, library)
    assert ctypes.CDLL(str(library)).fold_float
    assert [path.name for path in tmp_path.iterdir()] == ["kernels.so"]


def test_an_installation_without_a_working_compiler_says_what_is_missed(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("CC", "false")
    assert not compile_kernels(ROOT / SOURCE, tmp_path / "kernels.so")
    assert "computed by torch alone, slower" in capsys.readouterr().err
    monkeypatch.delenv("CC")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert not compile_kernels(ROOT / SOURCE, tmp_path / "kernels.so")
    assert "no C compiler" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
