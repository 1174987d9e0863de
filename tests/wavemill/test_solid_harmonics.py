"""Solid harmonic scattering: it equals the reference, invariances are exact, norms are right."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from wavemill import (
    InvalidParameter,
    Molecules,
    SolidHarmonicScattering,
    real_solid_harmonics,
)
from wavemill.molecules import solid_gaussians, solid_harmonics
from wavemill.molecules.solid_filters import FullGrids, filters
from wavemill.molecules.solid_gaussians import (
    bells,
    polynomials,
    square_about_atoms,
    square_convolved,
    wavelet_of_atom,
)
from wavemill.molecules.solid_grids import OwnGrids, Placed
from wavemill.molecules.solid_harmonics import valence

SIDE = (64, 64, 64)
SMALL: dict[str, Any] = {"J": 1, "L": 2, "resolution": 2.0, "sigma": 1.0, "width": 1.2, "margin": 5}


def operator(**options: Any) -> SolidHarmonicScattering:
    return SolidHarmonicScattering(**{**SMALL, "dtype": torch.float64, **options})


def water() -> tuple[torch.Tensor, torch.Tensor]:
    places = [[0.0, 0.1, 0.1], [0.8, 0.6, -0.5], [-0.6, 0.9, -0.4]]
    return torch.tensor(places, dtype=torch.float64), torch.tensor([8, 1, 1])


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    return float(((one - other).abs() / one.abs().clamp(min=1e-9)).max())


@pytest.fixture
def reference(golden: Any) -> Iterator[Any]:
    with np.load(golden / "kymatio3d_64x64x64_J2_L3.npz", allow_pickle=False) as arrays:
        yield arrays


def measured(op: SolidHarmonicScattering, reference: Any, weights: str, row: int) -> torch.Tensor:
    """Order 0, then paths by degrees by powers, of one molecule of the reference."""
    atoms = reference["charges"][row] > 0
    positions = torch.from_numpy(reference["positions_px"][row][atoms]).to(op.dtype)
    values = torch.from_numpy(reference[weights][row][atoms]).to(op.dtype)
    return op.integrals(Placed(positions[None], values[None, None]), [SIDE])[0, 0].double()


@pytest.mark.parametrize(("weights", "name", "row"), [("valence_charges", "valence", 1)])
def test_the_full_resolution_is_the_references(
    weights: str, name: str, row: int, reference: Any
) -> None:
    """1e-12 is rounding. At q = 1/2 what is below rounding counts as 0, hence 1e-5."""
    op = operator(J=2, L=3, sigma=1.2, band=None)
    found = measured(op, reference, weights, row)
    error = {
        "order 0": apart(torch.from_numpy(reference[f"S0_{name}_f64"][row]), found[:4]),
        "root": apart(
            torch.from_numpy(reference[f"S12_{name}_f64"][row]).flatten()[::4], found[4::4]
        ),
    }
    for power in (1, 2, 3):
        expected = torch.from_numpy(reference[f"S12_{name}_f64"][row]).flatten()[power::4]
        assert apart(expected, found[4 + power :: 4]) < 1e-12
    assert error["order 0"] < 1e-5
    assert error["root"] < 1e-5


def test_single_precision_is_nearer_to_the_truth_than_the_references_own(reference: Any) -> None:
    truth = torch.from_numpy(reference["S12_full_f64"][1]).flatten()
    shipped = torch.from_numpy(reference["S12_full_shipped"][1]).double().flatten()
    op = operator(J=2, L=3, sigma=1.2, band=None, dtype=torch.float32)
    found = measured(op, reference, "charges", 1)[4:]
    assert apart(truth[::4], found[::4]) < 0.5 * apart(truth[::4], shipped[::4])
    assert apart(truth, found) < 5e-3


def test_filters_are_the_references(reference: Any) -> None:
    bank = filters(SIDE, 2.4, 3, torch.float64, "cpu")
    for degree in range(4):
        theirs = torch.from_numpy(reference[f"filter_l{degree}_j1_stride4"]).abs().square().sum(0)
        ours = bank[degree**2 : (degree + 1) ** 2, ::4, ::4, ::4].square().sum(0)
        assert torch.allclose(ours, theirs, atol=1e-14)


@pytest.mark.parametrize(("band", "margin"), [(None, 7), (6.0, 12)])
def test_an_atom_gives_its_charge_at_every_scale_and_degree(
    band: float | None, margin: float
) -> None:
    """A Gaussian atom blurs the norm's cusp: for l > 0 the modulus integrates to less.

    A periodic box loses nothing; half a margin of 6 widths leaves 2e-9 beyond it.
    """
    wide = {"width": 1.0, "sigma": 3.0, "margin": margin}
    op = operator(band=band, channels=("full",), powers=(1.0,), **wide)
    found = op(Molecules.of([(torch.zeros(1, 3, dtype=torch.float64), torch.tensor([7]))]))[0]
    table = op.coefficients
    plain = (table["l"] <= 0) & (table["order"] < 2)
    assert found[torch.from_numpy(plain)].tolist() == pytest.approx([7.0] * 3, rel=1e-6)
    first = (table["l"] > 0) & (table["order"] == 1)
    assert (found[torch.from_numpy(first)] < 7.0).all()
    assert (found[torch.from_numpy(first)] > 6.0).all()


def test_coarser_grids_agree_with_full_ones() -> None:
    """Roots of moduli have cusps, which no band limits: a percent at q = 1/2, else 1e-3."""
    molecules = Molecules.of([water()])
    op = operator(powers=(1.0, 2.0), J=2, margin=8)
    full = operator(powers=(1.0, 2.0), J=2, margin=8, band=None)
    assert apart(full(molecules), op(molecules)) < 3e-3


@pytest.mark.parametrize("band", [5.0, None])
def test_no_molecules_have_no_coefficients(band: float | None) -> None:
    op = operator(band=band, dtype=torch.float64)
    found = op(Molecules.of([water()])[0:0])
    assert (found.shape, found.dtype) == ((0, len(op.coefficients["order"])), torch.float64)


def test_quarter_turns_reflections_shifts_and_order_change_nothing() -> None:
    positions, charges = water()
    op = operator(margin=6)
    base = op(Molecules.of([(positions, charges)]))
    turn = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]], dtype=torch.float64)
    shift = torch.tensor([1.0, -3.0, 2.0], dtype=torch.float64) * 7 / 2.0  # whole samples
    for changed in (positions @ turn.T, -positions, positions + shift, positions.flip(0)):
        order = charges.flip(0) if changed.equal(positions.flip(0)) else charges
        assert apart(base, op(Molecules.of([(changed, order)]))) < 1e-6


@pytest.mark.parametrize(("band", "least"), [(None, 5e-4), (6.0, 2e-3)])
def test_molecules_far_apart_add_up_for_every_power(band: float | None, least: float) -> None:
    """Moduli of the first order have cusps, whose spectra no grid holds: seen at q = 1/2."""
    positions, charges = water()
    smooth = {"width": 2.5, "margin": 12}
    op = operator(powers=(0.5, 1.0, 2.0, 3.0), channels=("full",), band=band, L=1, **smooth)
    away = torch.tensor([0.0, 0.0, 36.0], dtype=torch.float64)  # whole samples
    both = Molecules.of([(torch.cat([positions, positions + away]), charges.repeat(2))])
    assert apart(2 * op(Molecules.of([(positions, charges)])), op(both)) < least


def fields_in_a_box() -> FullGrids:
    positions, charges = water()
    places = 2 * positions + torch.tensor([20.0, 18.0, 18.0])
    placed = Placed(places[None], charges[None, None].double())
    return FullGrids(placed, (40, 36, 36), 2.0, [1.0, 2.0], 3)


def test_closed_form_fields_are_those_of_transforms() -> None:
    """The closed form is the field itself; on full grids the density is sampled first, 2e-8."""
    full = fields_in_a_box()
    axes = [torch.arange(side, dtype=torch.float64) for side in full.shape]
    for sigma, degree in ((None, 0), (1.0, 0), (1.0, 3), (2.0, 2)):
        width = (4 + (sigma or 0.0) ** 2) ** 0.5
        factor = wavelet_of_atom(sigma, width, degree)
        places = full.placed.positions.unbind(-1)
        pairs = zip(axes, places, strict=True)
        lines = [bells(axis - place[..., None], width, degree) for axis, place in pairs]
        closed = square_about_atoms(full.placed.weights, lines, degree) * factor**2
        assert apart(full.first(sigma, degree)[0] + 1e-6, closed + 1e-6) < 1e-6


@pytest.mark.parametrize("degree", range(4))
def test_convolutions_by_matrices_are_those_of_transforms(degree: int) -> None:
    """Sampled with step 1 a wavelet of width 2 has aliases of exp(-pi^2 4 / 2) = 3e-9."""
    full = fields_in_a_box()
    modulus = full.first(1.0, degree)[0].sqrt()
    ((wider, expected, _),) = full.second(modulus, 1.0, degree)
    sides = [torch.arange(side, dtype=torch.float64) for side in full.shape]
    axes = [bells(side[:, None] - side, wider, degree)[:, None] for side in sides]
    found = square_convolved(modulus, axes, degree, wavelet_of_atom(wider, wider, degree))
    inner = (..., *(slice(4, -4),) * 3)  # a periodic box has images of what is near its sides
    assert apart(expected[inner] + 1e-6, found[inner] + 1e-6) < 1e-5


def test_grids_are_as_wide_and_as_fine_as_each_field_needs() -> None:
    nowhere = Placed(torch.zeros(2, 0, 3), torch.zeros(2, 1, 0))
    extents = [(40, 20, 8), (12, 20, 36)]
    fields = OwnGrids(nowhere, extents, 2.0, [1.0, 2.0], 3, 10.0, 5.0)
    grid = fields.grid(4.0, 3.0)
    assert grid.step == pytest.approx(3.0 * torch.pi / 5.0)
    for number, along in enumerate(zip(*extents, strict=True)):
        points = grid.axis(number, torch.device("cpu"))
        assert (points.there is None) == (along[0] == along[1])
        for molecule, extent in enumerate(along):
            axis = points.places[molecule]
            if points.there is not None:
                axis = axis[points.there[molecule] == 1]
            assert torch.equal(axis, -axis.flip(0))
            assert extent + 40 <= len(axis) * grid.step < extent + 40 + grid.step


@pytest.mark.parametrize("degree", range(6))
def test_polynomials_are_the_solid_harmonics(degree: int) -> None:
    generator = torch.Generator().manual_seed(3)
    x, y, z = points = torch.randn(3, 20, generator=generator, dtype=torch.float64)
    expected = real_solid_harmonics(points.T, degree)[:, degree**2 :]
    powers, table = polynomials(degree)
    monomials = torch.stack([x**a * y**b * z ** (degree - a - b) for a, b in powers], 1)
    assert torch.allclose(monomials @ table.T, expected, rtol=1e-10, atol=1e-10)


def of_many_sizes() -> list[tuple[torch.Tensor, torch.Tensor]]:
    """One atom, three, and chains that point along each axis, one of them longer than the other."""
    places, charges = water()
    step = torch.tensor([1.4, 0.3, 0.2], dtype=torch.float64)
    chains = [torch.cat([places + k * step.roll(n) for k in range(4 + n)]) for n in (0, 1)]
    more = [(chain, charges.repeat(len(chain) // 3)) for chain in chains]
    return [(places[:1], charges[:1]), *more, water()]


@pytest.fixture
def side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have all molecules of a batch on grids side by side, as on a GPU."""
    monkeypatch.setitem(solid_harmonics.BATCH, "cpu", 2**24)


@pytest.mark.usefixtures("side_by_side")
@pytest.mark.parametrize("band", [None, 5.0])
def test_a_batch_is_its_molecules(band: float | None) -> None:
    """However wide the others are; and so are the gradients."""
    op = operator(powers=(0.5, 2.0), band=band)
    molecules = of_many_sizes()
    batch = Molecules.of(molecules)
    together = batch.positions.clone().requires_grad_()
    found = op(replace(batch, positions=together))
    found.log().sum().backward()
    assert together.grad is not None
    for row, (places, charges) in enumerate(molecules):
        alone = places.clone().requires_grad_()
        expected = op(Molecules.of([(alone, charges)]))
        expected.log().sum().backward()
        atoms = slice(*batch.offsets[row : row + 2].tolist())
        assert apart(expected[0].detach(), found[row].detach()) < 1e-10
        assert alone.grad is not None
        assert float((alone.grad - together.grad[atoms]).abs().max()) < 1e-8


def test_what_is_kept_from_inference_serves_gradients() -> None:
    for kept in (solid_gaussians.matrix, solid_gaussians.terms, polynomials):
        kept.cache_clear()
    op, (places, charges) = operator(band=5.0), water()
    with torch.inference_mode():
        op(Molecules.of([(places, charges)]))
    places.requires_grad_()
    op(Molecules.of([(places, charges)])).sum().backward()
    assert places.grad is not None
    assert bool(places.grad.isfinite().all())


@pytest.mark.usefixtures("side_by_side")
def test_points_that_only_others_have_count_for_no_power() -> None:
    """The root of the least number that single precision has, to 0.1, is 0.01."""
    op = operator(powers=(0.1,), band=5.0, dtype=torch.float32)
    molecules = of_many_sizes()[1:3]  # without zeros of their own, which rounding fills
    found = op(Molecules.of(molecules))
    for row, molecule in enumerate(molecules):
        assert apart(op(Molecules.of([molecule]))[0], found[row]) < 1e-3


@pytest.mark.usefixtures("side_by_side")
def test_a_device_is_asked_as_often_for_many_molecules_as_for_few() -> None:
    """On a GPU a request takes longer than its computation."""
    op = operator(band=5.0)
    molecules = of_many_sizes()
    asked = [Counted() for _ in range(2)]
    for count, mode in zip((1, 8), asked, strict=True):
        with torch.inference_mode(), mode:
            op(Molecules.of(count * molecules))
    assert asked[0].count == asked[1].count


class Counted(TorchDispatchMode):
    """Counts what a device is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        self.count += 1
        return function(*args, **(kwargs or {}))


def test_the_table_names_every_coefficient_once() -> None:
    op = operator(J=2, L=3, powers=(0.5, 1.0, 2.0, 3.0))
    table = op.coefficients
    rows = set(zip(*table.values(), strict=True))
    assert len(rows) == len(table["order"]) == 300


def test_valence_electrons_are_those_outside_closed_shells() -> None:
    charges = torch.tensor([1, 2, 3, 6, 8, 10, 11, 16, 18])
    assert valence(charges).tolist() == [1, 2, 1, 4, 6, 8, 1, 6, 8]


@pytest.mark.parametrize("powers", [(1.0, 2.0), (0.5,)])
def test_gradients_are_those_of_finite_differences(powers: tuple[float, ...]) -> None:
    positions, charges = water()
    op = operator(powers=powers, channels=("full",), margin=4)

    def summed(places: torch.Tensor) -> torch.Tensor:
        return op(Molecules(places, charges, torch.tensor([0, 3]))).log().sum()

    places = positions.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(summed(places), places)
    step = torch.zeros(3, 3, dtype=torch.float64)
    step[0, 0] = 1e-5  # between the other two along x: the box stays where it is
    with torch.no_grad():
        slope = (summed(positions + step) - summed(positions - step)) / 2e-5
    assert bool(gradient.isfinite().all())
    assert float(gradient[0, 0]) == pytest.approx(float(slope), rel=1e-5)


@pytest.mark.parametrize("band", [None, 6.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_exist_where_moduli_vanish(dtype: torch.dtype, band: float | None) -> None:
    """Symmetric molecules on grid points: moduli of odd degree are 0 there, roots have cusps."""
    line = torch.tensor([[-1.0, 0, 0], [0, 0, 0], [1, 0, 0]], dtype=dtype).requires_grad_()
    op = operator(powers=(0.5, 1.0), dtype=dtype, band=band)
    op(Molecules(line, torch.tensor([8, 6, 8]), torch.tensor([0, 3]))).sum().backward()
    assert line.grad is not None
    assert bool(line.grad.isfinite().all())


HYDROGENS = [[1.0, 1, 1], [-1, -1, 1], [-1, 1, -1], [1, -1, -1]]
SYMMETRIC = {
    "atom": ([[0.0, 0, 0]], [1]),
    "CO2": ([[0.0, 0, -1.16], [0, 0, 0], [0, 0, 1.16]], [8, 6, 8]),
    "CH4": ([[0.0, 0, 0], *(0.63 * torch.tensor(HYDROGENS)).tolist()], [6, 1, 1, 1, 1]),
}


@pytest.mark.parametrize("name", SYMMETRIC)
def test_gradients_of_symmetric_molecules_are_not_of_rounding(name: str) -> None:
    """The box stays where it is, as it does for gradients: atoms at its sides would move it."""
    op = operator(powers=(0.5,), channels=("full",), band=5.0)
    places, charges = (torch.tensor(values, dtype=torch.float64) for values in SYMMETRIC[name])
    centred = 2.0 * places
    shape = op.box((2 * centred.abs().amax(0)).tolist())

    def summed(positions: torch.Tensor) -> torch.Tensor:
        return op.integrals(Placed(positions[None], charges[None, None]), [shape]).log().sum()

    start = centred.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(summed(start), start)
    step = torch.zeros_like(centred)
    step[-1, 2] = 1e-6
    with torch.no_grad():
        slope = (summed(centred + step) - summed(centred - step)) / 2e-6
    assert float(gradient[-1, 2]) == pytest.approx(float(slope), rel=0.01, abs=1e-5)
    assert float(gradient.sum(0).abs().max()) < 1e-9


def test_a_molecule_too_wide_for_grids_is_refused() -> None:
    places = torch.tensor([[0.0, 0, 0], [900.0, 900.0, 900.0]], dtype=torch.float64)
    with pytest.raises(InvalidParameter, match="molecule 1 needs a box of 9"):
        operator()(Molecules.of([water(), (places, torch.tensor([1, 1]))]))


def test_coincident_atoms_and_unknown_channels_are_refused() -> None:
    places = torch.zeros(2, 3, dtype=torch.float64)
    with pytest.raises(InvalidParameter, match="coincide"):
        operator()(Molecules.of([(places, torch.tensor([1, 1]))]))
    with pytest.raises(InvalidParameter, match="no channels"):
        operator(channels=("spin",))
