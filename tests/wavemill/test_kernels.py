"""The compiled loops compared with the same sums by torch."""

from __future__ import annotations

import ctypes
import pickle
import shutil
import subprocess
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.autograd import forward_ad

from wavemill import (
    Molecules,
    PhaseHarmonicCovariance,
    Scattering2D,
    ScatteringSpectra,
    SolidHarmonicScattering,
    kernels,
)
from wavemill.kernels.build import compile_kernels
from wavemill.moments.boxes import (
    crop,
    crop_half,
    filtered,
    from_half_spectrum,
    to_conjugate_field,
    to_field,
    to_half_spectrum,
    to_spectrum,
)
from wavemill.moments.channels import Response
from wavemill.moments.covariances import ShiftBlock
from wavemill.moments.loops import Loops
from wavemill.moments.slopes import Slopes
from wavemill.moments.stacks import Pairs, Stack

ROOT = Path(__file__).parents[2]
PRECISIONS = [torch.float32, torch.float64]
compiled = pytest.mark.skipif(not kernels.available(), reason="the compiled loops are not built")


def both(monkeypatch, compute):
    """Return what compiled loops and torch give."""
    first = compute()
    with monkeypatch.context() as patched:
        patched.setattr(kernels.loading, "library", None)
        return first, compute()


CASES = {  # every factor of a side, an odd number of angles, one field in several lanes and vectors
    "square": ((32, 32), {"J": 2, "L": 8}),
    "factors 3 and 5": ((37, 50), {"J": 3, "L": 5}),
    "factors 7 and 13": ((112, 104), {"J": 3, "L": 2, "padding": "periodic"}),
    "factors 17 and 31": ((68, 124), {"J": 2, "L": 3, "padding": "periodic"}),
    "factors 37 and 67": ((74, 134), {"J": 1, "L": 2, "padding": "periodic"}),
    "factors 19 and 23": ((38, 46), {"J": 1, "L": 4, "padding": "periodic"}),
    "factor 11, many angles": ((44, 20), {"J": 2, "L": 10, "padding": "periodic"}),
    "order 1": ((40, 40), {"J": 2, "L": 6, "max_order": 1}),
    "rectifier": ((40, 24), {"J": 3, "L": 3, "nonlinearity": "rectifier", "A": 4}),
}


@compiled
@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("case", CASES)
def test_the_fused_transform_and_its_gradient_equal_those_of_torch(monkeypatch, case, dtype):
    shape, arguments = CASES[case]
    op = Scattering2D(shape, dtype=dtype, **arguments)
    assert op.fused
    x = torch.randn(3, *shape, dtype=dtype, generator=torch.manual_seed(1)).requires_grad_()

    def compute():
        y = op(x)
        weights = torch.randn(y.shape, dtype=dtype, generator=torch.manual_seed(2))
        return y.detach(), torch.autograd.grad((y * weights).sum(), x)[0]

    # Sums of a hundred terms, reordered; torch's own transform of 2 x 67 points is off by 3e-14 on
    # some processors.
    tolerance = 1e-5 if dtype == torch.float32 else 5e-13
    results = list(zip(*both(monkeypatch, compute), strict=True))
    if op.phases[0] and dtype == torch.float32:
        results.pop()  # a wave near 0 may have either sign there, and the rectifier a slope or none
    for ours, torchs in results:
        assert (ours - torchs).abs().max() < tolerance * torchs.abs().max()


@compiled
def test_a_field_does_not_feel_its_neighbours_in_the_lanes():
    op, x = Scattering2D((40, 48), J=2, L=3), torch.randn(9, 40, 48, generator=torch.manual_seed(3))
    alone = torch.cat([op(field[None]) for field in x])
    x[4, 7, 9] = torch.nan
    together = op(x)
    keep = [n for n in range(9) if n != 4]
    # averages of order 0 are products of matrices, whose sums depend on the batch
    torch.testing.assert_close(together[keep, 1:], alone[keep, 1:], rtol=0, atol=0)
    assert together[4].isnan().all()


@compiled
def test_sides_with_large_prime_factors_are_left_to_torch():
    op = Scattering2D((74, 142), J=1, L=2, padding="periodic")
    assert not op.fused
    assert op(torch.randn(74, 142)).isfinite().all()


@compiled
def test_a_transform_that_was_sent_to_where_nothing_is_compiled_works_there(monkeypatch):
    op, x = Scattering2D((32, 32), J=2, L=4), torch.randn(2, 32, 32)
    expected = op(x)
    monkeypatch.setattr(kernels.loading, "library", None)
    assert not op.fused
    assert op.memory(2) > 0
    torch.testing.assert_close(op(x), expected, rtol=1e-5, atol=1e-6)  # sums reordered


@compiled
def test_threads_do_not_change_what_compiled_loops_compute(set_threads):
    op, x = Scattering2D((48, 40), J=2), torch.randn(3, 48, 40)
    set_threads(1)
    alone = op(x)
    set_threads(2)
    # the matrix products of order 0 may sum in another order
    torch.testing.assert_close(op(x)[:, 1:], alone[:, 1:], rtol=0, atol=0)


@compiled
@pytest.mark.parametrize("nonlinearity", ["modulus", "rectifier"])
def test_threads_that_share_a_large_field_compute_what_one_does(set_threads, nonlinearity):
    """In the memory of one: the fields are not laid out for each thread."""
    op, x = Scattering2D((240, 248), J=3, L=3, nonlinearity=nonlinearity), torch.randn(240, 248)
    assert op.fused
    memory, results = [], []
    for count in (1, 2, 3):
        set_threads(count)
        memory.append(op.memory(1))
        results.append(op(x))
    assert memory[2] < 1.2 * memory[0]
    for shared in results[1:]:  # sums over columns, in as many parts
        torch.testing.assert_close(shared, results[0], rtol=1e-5, atol=1e-6)


def back_from_half(half, grid, box):
    return from_half_spectrum(half, box, grid)


GRIDS = [
    (80, 72),
    (30, 22),
    (7, 9),
    (13, 40),
    (31, 4),
    (1, 5),
]  # one worth two threads; few rows, columns


@compiled
@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("grid", GRIDS)
def test_transforms_between_fields_and_boxes_equal_those_of_torch(
    monkeypatch, set_threads, grid, dtype
):
    """With as many fields as threads, and with fewer, when they share each."""
    generator = torch.manual_seed(5)
    boxes = {grid, tuple(2 * (n // 5) + 1 for n in grid), (grid[0], 2 * (grid[1] // 5) + 1)}
    tolerance = 2e-6 if dtype == torch.float32 else 1e-14
    for (count, threads), box in product([(4, 1), (4, 2), (3, 2)], boxes):
        set_threads(threads)
        x, y = torch.randn(2, count, *grid, dtype=dtype, generator=generator)
        spectra = crop(torch.complex(x, y), box)
        for transform, given, wanted in [
            (to_spectrum, x, box),
            (to_spectrum, torch.complex(x, y), box),
            (to_field, spectra, grid),
            (to_conjugate_field, spectra, grid),
            (partial(to_field, real=True), spectra, grid),
            (partial(to_conjugate_field, real=True), spectra, grid),
            (to_half_spectrum, x, box),
            (partial(back_from_half, box=box), crop_half(torch.complex(x, y), box), grid),
        ]:
            ours, torchs = both(monkeypatch, partial(transform, given, wanted))
            assert (ours - torchs).abs().max() <= tolerance * torchs.abs().max()


@compiled
@pytest.mark.parametrize("dtype", PRECISIONS)
def test_harmonics_and_their_gradients_equal_those_of_torch(monkeypatch, dtype):
    """At points that do not fill a vector, one of them 0."""
    generator = torch.manual_seed(6)
    z, spectrum, a, b = torch.randn(4, 1, 3, 5, 7, dtype=dtype.to_complex(), generator=generator)
    z[0, 0, 0, 0] = 0

    def compute():
        response = Response(spectrum, (5, 7), low_pass=False)
        response.field = z
        found = [response.harmonic(k, slice(0, 3)) for k in range(6)]
        response.pull(0, slice(0, 3), a.real)
        response.pull(1, slice(0, 3), b)
        response.pull(2, slice(0, 2), a[:, :2].clone())
        response.pull(3, slice(0, 3), b.conj())
        return [*found, response.pulled()]

    tolerance = 2e-6 if dtype == torch.float32 else 1e-14
    for ours, torchs in zip(*both(monkeypatch, compute), strict=True):
        assert (ours - torchs).abs().max() < tolerance * torchs.abs().max()


@compiled
@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("grid", GRIDS)
def test_spectra_of_harmonics_and_gradients_from_spectra_equal_those_of_torch(
    monkeypatch, set_threads, grid, dtype
):
    """With and without means, for all angles and some, in whole boxes and small ones."""
    generator = torch.manual_seed(17)
    z, a, b = torch.randn(3, 2, 3, *grid, dtype=dtype.to_complex(), generator=generator)
    means = torch.randn(3, dtype=z.dtype, generator=generator)
    everything, some = slice(0, 3), slice(1, 3)

    def compute(box):
        response = Response(crop(b, box), grid, low_pass=False)
        response.field = z
        found = []
        for k, mean in product((0, 2, 3), (None, means)):
            spectrum = response.harmonic_spectrum(k, everything, mean, box)
            if spectrum is None:
                centred = response.harmonic(k, everything)
                if mean is not None:
                    centred = centred - (mean if k else mean.real)[:, None, None]
                spectrum = to_spectrum(centred, box)
            found.append(spectrum)
        response.pull(0, everything, a.real)
        response.pull(1, everything, b)
        for k, angles in ((2, everything), (5, everything), (3, some)):
            spectrum = crop(a, box)[:, angles].contiguous()
            if not response.pull_spectrum(k, angles, spectrum):
                response.pull(k, angles, to_conjugate_field(spectrum, grid))
        return [*found, response.pulled()]

    tolerance = 4e-6 if dtype == torch.float32 else 1e-14
    boxes = {grid, tuple(2 * (n // 5) + 1 for n in grid)}
    for threads, box in product((1, 2), boxes):
        set_threads(threads)
        for ours, torchs in zip(*both(monkeypatch, partial(compute, box)), strict=True):
            assert (ours - torchs).abs().max() < tolerance * torchs.abs().max()


SETS = {  # one field and several, shifts and none, channels alone, linear, and mirrored
    "C": {"moments": "C", "lags": 2},
    "C+L": {"moments": "C+L", "lags": 1},
    "C+moduli": {"moments": "C+moduli", "lags": 1},
    "D": {"moments": "D", "lags": 1},
    "pywph": {"moments": "pywph", "lags": 2},
    "C, 5 angles": {"moments": "C", "lags": 1, "L": 5},  # no whole number of blocks
    "few pairs at a time": {"shape": (150, 144), "moments": "pywph", "lags": 1},
}


@compiled
@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("fields", [1, 3])
@pytest.mark.parametrize("name", SETS)
def test_covariances_and_their_gradients_equal_those_of_torch(monkeypatch, name, fields, dtype):
    op = PhaseHarmonicCovariance(**{"shape": (40, 30), "J": 3, "dtype": dtype} | SETS[name])
    # A seed at which no wave is so near 0 that its phase is a matter of rounding.
    x, y = torch.randn(2, fields, *op.shape, dtype=dtype, generator=torch.manual_seed(9))
    moments = op.measure(y)
    tolerance = 5e-6 if dtype == torch.float32 else 1e-13
    compute = partial(op.loss_and_gradient, x, moments)
    for ours, torchs in zip(*both(monkeypatch, compute), strict=True):
        assert (ours - torchs).abs().max() < tolerance * torchs.abs().max()


@compiled
@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize(("shape", "J", "L"), [((40, 35), 3, 3), ((30, 64), 4, 4), ((9, 8), 2, 5)])
def test_scattering_spectra_and_their_gradients_equal_those_of_torch(
    monkeypatch, set_threads, shape, J, L, dtype
):
    """Blocks of channels that are not full, boxes that shrink, more threads than tiles."""
    op = ScatteringSpectra(shape, J, L, dtype=dtype)
    x, y = torch.randn(2, 3, *shape, dtype=dtype, generator=torch.manual_seed(14)).exp()
    moments, statistics = op.measure(y), op.statistics(y)
    tolerance = 2e-5 if dtype == torch.float32 else 1e-13
    alone = None
    for threads in (1, 2, 3):
        set_threads(threads)
        with torch.no_grad():
            ours, torchs = both(monkeypatch, partial(op.values, x, statistics))
        alone = ours if alone is None else alone
        assert torch.equal(ours, alone)
        assert (ours - torchs).abs().max() < tolerance * torchs.abs().max()
        gradients = both(monkeypatch, partial(op.loss_and_gradient, x, moments))
        for ours, torchs in zip(*gradients, strict=True):
            assert (ours - torchs).abs().max() < tolerance * torchs.abs().max()


def molecules():
    """One atom, two far apart, and clouds that fill their boxes: other grids along every axis."""
    generator = torch.manual_seed(11)
    crowd = torch.rand(23, 3, dtype=torch.float64, generator=generator)
    places = [torch.zeros(1, 3), torch.tensor([[0.0, 0, 0], [0, 0, 6]])]
    places += [crowd * torch.tensor([5.0, 4, 3]), crowd[:4] * 2 - 9]
    charges = torch.randint(1, 10, (23,), generator=generator)
    return Molecules.of([(place.double(), charges[: len(place)]) for place in places])


@compiled
@pytest.mark.parametrize("band", [5.0, None])
@pytest.mark.parametrize("dtype", PRECISIONS)
def test_solid_harmonics_equal_those_of_torch(monkeypatch, dtype, band):
    """Also for molecules side by side, and for a power that has no loop of its own.

    Where a field is 0 everywhere, torch adds up roots of the least number.
    """
    size = {"J": 2, "L": 4, "resolution": 3.0} if band else {"J": 1, "L": 1, "resolution": 2.0}
    op = SolidHarmonicScattering(powers=(0.5, 1.0, 1.7, 2, 3), band=band, dtype=dtype, **size)
    if band:
        monkeypatch.setattr(op, "_batches", lambda boxes: [[0, 1, 3], [2]])
    ours, torchs = both(monkeypatch, partial(op, molecules()))
    tolerance = 3e-5 if dtype == torch.float32 else 1e-10  # of roots of values near noise
    nothing = (ours == 0) & (torchs < 1e-3)
    assert ((ours - torchs).abs() <= tolerance * torchs.abs())[~nothing].all()
    assert 0 < int(nothing.sum()) < nothing.numel() / 4


@compiled
def test_gradients_of_solid_harmonics_are_left_to_torch_and_threads_change_nothing(set_threads):
    op = SolidHarmonicScattering(J=1, L=2, resolution=3.0, channels=("full",))
    set_threads(1)
    expected = op(molecules())
    set_threads(3)
    assert torch.equal(op(molecules()), expected)
    moved = replace(molecules(), positions=molecules().positions.requires_grad_())
    torch.testing.assert_close(op(moved), expected, rtol=5e-6, atol=0)
    assert op(moved).requires_grad


def with_tangents(compute, x, tangent):
    with forward_ad.dual_level():
        return forward_ad.unpack_dual(compute(forward_ad.make_dual(x, tangent))).tangent


@compiled
@pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")  # torch's own
@pytest.mark.parametrize(
    "derive",
    [
        lambda compute, x, along: torch.func.grad(lambda at: compute(at).sum())(x),
        lambda compute, x, along: torch.func.jvp(compute, (x,), (along,))[1],
        with_tangents,
    ],
    ids=["grad", "jvp", "tangents"],
)
def test_what_follows_solid_harmonics_follows_those_of_torch(monkeypatch, derive):
    op = SolidHarmonicScattering(J=1, L=2, resolution=2.0, channels=("full",), dtype=torch.float64)
    few = molecules()

    def derived():
        along = torch.randn(few.positions.shape, generator=torch.manual_seed(12)).double()
        compute = partial(replace, few)
        return derive(lambda at: op(compute(positions=at)), few.positions, along)

    ours, torchs = both(monkeypatch, derived)
    torch.testing.assert_close(ours, torchs, rtol=1e-9, atol=1e-9)


@compiled
@pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")  # torch's own
@pytest.mark.parametrize(
    "op",
    [
        *(PhaseHarmonicCovariance((24, 20), J=2, L=2, moments=name) for name in ("A", "C", "D")),
        ScatteringSpectra((24, 20), J=2, L=2),
        Scattering2D((24, 20), J=2, L=2),
    ],
    ids=["A", "C", "D", "spectra", "scattering"],
)
def test_tangents_go_through(op):
    """The loops carry none: through them alone derivatives would be 0, or worse."""
    x, along = torch.randn(2, 24, 20, generator=torch.manual_seed(13))
    expected = torch.func.jvp(op, (x,), (along,))[1]
    assert expected.abs().max() > 0.01
    torch.testing.assert_close(with_tangents(op, x, along), expected, rtol=1e-4, atol=1e-5)


@compiled
def test_threads_do_not_change_products_of_channels(set_threads):
    """Sums are of 16 parts of a large field, whatever the number of threads."""
    x, y = torch.randn(2, 128, 96, generator=torch.manual_seed(18))
    found = []
    for threads in (1, 2):
        set_threads(threads)
        op = PhaseHarmonicCovariance((128, 96), J=2, L=4)
        loss, gradient = op.loss_and_gradient(x, op.measure(y))
        found.append((float(loss), gradient))
    assert found[0][0] == found[1][0]
    assert torch.equal(found[0][1], found[1][1])


@compiled
def test_threads_do_not_change_covariances_at_shifts(set_threads):
    """Sums are of 4 parts of all rows, however many threads there are, and pairs at a time."""
    generator = torch.manual_seed(8)
    spectra = torch.randn(2, 1, 3, 150, 144, dtype=torch.complex64, generator=generator)
    shifts = np.array([[0, 1], [2, -1], [-2, 0], [0, 0], [5, 5]])
    pairs = Pairs(np.array([0, 1, 2, 1, 0]), np.array([2, 1, 0, 0, 2]), shifts, (3, 3))
    box, linear = (150, 144), (False, True)
    block = ShiftBlock(pairs, 0.5, box, box, linear, False, torch.float32)
    loops = Loops(block, pairs, 0.5, box, linear, torch.float32, box)
    slopes = Slopes(*torch.randn(2, 1, 5, 2, generator=generator))
    found = []
    for threads in (1, 2, 5):
        set_threads(threads)
        stacks = [Stack(own, None, x) for own, x in zip(linear, spectra, strict=True)]
        c = loops.differentiate(slopes, *stacks)
        found.append([c, loops.evaluate(*stacks), *(stack.spectrum_gradient for stack in stacks)])
    assert torch.equal(found[0][0], found[0][1])
    for one in found[1:]:
        assert all(map(torch.equal, one, found[0]))


@compiled
def test_filters_of_another_precision_are_left_to_torch():
    generator = torch.manual_seed(9)
    spectrum = torch.randn(2, 5, 7, dtype=torch.complex64, generator=generator)
    filters = torch.randn(3, 5, 7, dtype=torch.float64, generator=generator).to(torch.complex128)
    assert torch.equal(filtered(spectrum, filters), spectrum[:, None] * filters)


@compiled
def test_covariances_survive_being_sent_elsewhere_and_follow_their_tables():
    op = PhaseHarmonicCovariance((32, 32), J=3, L=2, moments="C")
    x = torch.randn(32, 32, generator=torch.manual_seed(8))
    expected = op(x)
    assert torch.equal(pickle.loads(pickle.dumps(op))(x), expected)  # noqa: S301
    assert torch.equal(op.to("cpu")(x), expected)


@compiled
def test_a_transform_with_large_prime_factors_or_a_graph_is_left_to_torch():
    assert kernels.fourier(torch.randn(71, 8), (71, 8), (71, 8), inverse=False) is None
    x = torch.randn(8, 8, requires_grad=True)
    assert kernels.fourier(x, (8, 8), (8, 8), inverse=False) is None
    z = torch.randn(8, 8, dtype=torch.complex64)
    torch.testing.assert_close(to_field(z.conj(), (8, 8)), to_field(z.conj().clone(), (8, 8)))


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler is here")
def test_the_installation_compiles_a_library_that_loads(tmp_path):
    library = tmp_path / "kernels.so"
    assert compile_kernels(ROOT, library)
    assert kernels.load(library) is not None
    assert ctypes.CDLL(str(library)).scattering_float
    assert [path.name for path in tmp_path.iterdir()] == ["kernels.so"]


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler is here")
@pytest.mark.parametrize(
    "source", ["", 'const char *kernels_sources(void) { return "0123456789abcdef"; }']
)
def test_a_library_of_other_sources_is_not_used(tmp_path, source):
    """As in a checkout that was updated but not installed again."""
    library, file = tmp_path / "kernels.so", tmp_path / "kernels.c"
    file.write_text(source)
    subprocess.run(["cc", "-shared", "-fPIC", str(file), "-o", str(library)], check=True)
    with pytest.warns(UserWarning, match="compiled from other sources"):
        assert kernels.load(library) is None


def test_an_installation_without_a_working_compiler_says_what_is_missed(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("CC", "false")
    assert not compile_kernels(ROOT, tmp_path / "kernels.so")
    assert "computed by torch alone, slower" in capsys.readouterr().err
    monkeypatch.delenv("CC")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert not compile_kernels(ROOT, tmp_path / "kernels.so")
    assert "no C compiler" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
