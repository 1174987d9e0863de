"""Atom-centred harmonics: invariant, additive, smooth; refused where they have no meaning."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from wavemill import AtomicHarmonics, InvalidParameter, Molecules, real_solid_harmonics

ELEMENTS = (1, 6, 7, 8)
ROUNDING = 1e-12  # a thousand units of float64, relative to the largest feature


def molecule(atoms: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Atoms of four elements on a jittered grid, none nearer than 0.8 Angstrom."""
    generator = torch.Generator().manual_seed(seed)
    side = math.ceil(atoms ** (1 / 3))
    axes = [torch.arange(side, dtype=torch.float64)] * 3
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)[:atoms]
    jitter = torch.rand(atoms, 3, generator=generator, dtype=torch.float64)
    choice = torch.randint(len(ELEMENTS), (atoms,), generator=generator)
    return 1.3 * grid + 0.3 * jitter, torch.tensor(ELEMENTS)[choice]


def batch() -> Molecules:
    return Molecules.of([molecule(n, n) for n in (9, 1, 5, 2)])


def operator(**options: object) -> AtomicHarmonics:
    return AtomicHarmonics(ELEMENTS, dtype=torch.float64, **options)  # type: ignore[arg-type]


def test_no_molecules_have_no_features() -> None:
    found = operator()(batch()[0:0])
    assert (found.shape, found.dtype) == ((0, len(operator().coefficients["order"])), torch.float64)


def rotation(seed: int, determinant: float) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    square = torch.randn(3, 3, generator=generator, dtype=torch.float64)
    turn = torch.linalg.qr(square)[0]
    return turn * (determinant if torch.det(turn) > 0 else -determinant)


def moved(molecules: Molecules, turn: torch.Tensor) -> Molecules:
    shift = torch.tensor([3.0, -7.0, 11.0], dtype=torch.float64)
    return Molecules(molecules.positions @ turn.T + shift, molecules.charges, molecules.offsets)


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).abs().max() / one.abs().max())


def test_solid_harmonics_are_orthonormal_on_the_sphere() -> None:
    """Gauss-Legendre times equal angles integrates products up to degree 12 exactly."""
    heights, weights = np.polynomial.legendre.leggauss(8)
    azimuths = 2 * np.pi * np.arange(16) / 16
    radii = np.sqrt(1 - heights**2)[:, None]
    points = [radii * np.cos(azimuths), radii * np.sin(azimuths), heights[:, None] + 0 * azimuths]
    directions = torch.from_numpy(np.stack(points, -1).reshape(-1, 3))
    weight = torch.from_numpy(np.repeat(weights, 16) * 2 * np.pi / 16)
    values = real_solid_harmonics(directions, 5)
    gram = values.T @ (weight[:, None] * values)
    assert torch.allclose(gram, torch.eye(36, dtype=torch.float64), atol=1e-13)


def test_a_degree_grows_as_its_power_of_the_distance() -> None:
    vectors = torch.tensor([[0.3, -0.5, 0.7]], dtype=torch.float64)
    degrees = torch.arange(5).repeat_interleave(2 * torch.arange(5) + 1)
    ratio = real_solid_harmonics(2 * vectors, 4) / real_solid_harmonics(vectors, 4)
    assert torch.allclose(ratio[0], 2.0 ** degrees.double(), rtol=1e-12)


@pytest.mark.parametrize("determinant", [1.0, -1.0], ids=["rotation", "reflection"])
@pytest.mark.parametrize("L", [0, 3, 5])
@pytest.mark.parametrize("radial", ["solid", "shell"])
def test_rigid_motions_change_nothing(radial: str, determinant: float, L: int) -> None:
    op, molecules = operator(L=L, radial=radial), batch()
    for seed in range(3):
        assert apart(op(molecules), op(moved(molecules, rotation(seed, determinant)))) < ROUNDING


def test_the_order_of_atoms_changes_nothing() -> None:
    op = operator()
    positions, charges = molecule(9, 4)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(1))
    one = op(Molecules.of([(positions, charges)]))
    assert apart(one, op(Molecules.of([(positions[order], charges[order])]))) < ROUNDING


def test_a_batch_is_its_molecules() -> None:
    op, molecules = operator(), batch()
    alone = torch.cat([op(molecules[i : i + 1]) for i in range(len(molecules))])
    assert apart(op(molecules), alone) < ROUNDING


def test_molecules_far_apart_add_up() -> None:
    """At 60 Angstrom the widest Gaussian is exp(-60^2 / 2 3.4^2), below 1e-60."""
    op, molecules = operator(), batch()
    far = torch.arange(len(molecules), dtype=torch.float64)[:, None] * torch.tensor([60.0, 0, 0])
    positions = molecules.positions + far[molecules.owner]
    together = Molecules.of([(positions, molecules.charges)])
    assert apart(op(molecules).sum(0, keepdim=True), op(together)) < ROUNDING


def test_an_atom_alone_is_only_counted() -> None:
    op = operator()
    features = op(Molecules.of([molecule(1, 3)]))[0]
    assert features[: len(ELEMENTS)].sum() == 1
    assert not features[len(ELEMENTS) :].any()


def test_the_table_names_every_coefficient_once() -> None:
    op = operator(across=2)
    table = op.coefficients
    rows = list(zip(*(table[name] for name in table), strict=True))
    assert len(rows) == len(set(rows)) == op(batch()).shape[1]
    products = table["order"] == 2
    assert int(np.abs(table["j1"] - table["j2"])[products].max()) == 2


def test_one_neighbour_is_seen_as_the_formula_says() -> None:
    """A of l = 0 is w(r) g_j0(r) Y_00 and B of equal channels A^2 (2 l + 1) / (4 pi) P_l(1)."""
    distance, sigma, reach = 1.1, 0.6, 2.0
    places = torch.tensor([[0.0, 0, 0], [0, 0, distance]], dtype=torch.float64)
    op = operator(J=1, L=1, sigma=sigma, reach=reach)
    features = op(Molecules.of([(places, torch.tensor([1, 6]))]))[0]
    weight = 1 / (1 + (distance / reach) ** 4) * math.exp(-(distance**2) / (2 * sigma**2))
    zero = math.sqrt(2 / math.gamma(1.5)) * sigma**-1.5 * weight * math.sqrt(1 / (4 * math.pi))
    one = math.sqrt(2 / math.gamma(2.5)) * sigma**-2.5 * distance * weight
    table = op.coefficients
    mine = (
        (table["centre"] == "H")
        & (table["element1"] == "C")
        & np.isin(table["element2"], ["C", ""])
    )
    expected = [zero, zero**2, one**2 * 3 / (4 * math.pi)]
    assert features[torch.from_numpy(mine)].tolist() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("steepness", [4.0, 8.0])
def test_a_shell_is_a_bump_of_the_logarithm_of_the_distance(steepness: float) -> None:
    distance, sigma, reach = 1.1, 0.9, 2.0
    places = torch.tensor([[0.0, 0, 0], [0, distance, 0]], dtype=torch.float64)
    op = operator(
        J=2, L=1, sigma=sigma, reach=reach, radial="shell", octave=1 / 3, steepness=steepness
    )
    sums = op.harmonics(Molecules.of([(places, torch.tensor([1, 6]))]))
    steps = 3 * np.log2(distance / (sigma * 2 ** (np.arange(2) / 3)))
    weight = np.exp(-(steps**2) / 2) / (1 + (distance / reach) ** steepness)
    carbon = slice(2, 4)  # of the elements 1, 6, 8
    for degree, found in enumerate(sums):
        power = found[0, carbon].square().sum(1).sqrt()
        assert power.tolist() == pytest.approx(
            weight * math.sqrt((2 * degree + 1) / (4 * math.pi)), rel=1e-12
        )


@pytest.mark.parametrize("radial", ["solid", "shell"])
def test_gradients_are_those_of_finite_differences_and_never_nan(radial: str) -> None:
    op = operator(J=3, L=2, radial=radial)
    molecules = Molecules.of([molecule(4, 2), molecule(1, 5)])

    def features(positions: torch.Tensor) -> torch.Tensor:
        return op(Molecules(positions, molecules.charges, molecules.offsets))

    positions = molecules.positions.clone().requires_grad_()
    assert torch.autograd.gradcheck(features, (positions,), atol=1e-7)
    line = torch.zeros(3, 3, dtype=torch.float64)
    line[:, 2] = torch.tensor([0.0, 1.1, 2.2])  # collinear, symmetric: many A vanish exactly
    line.requires_grad_()
    charges, offsets = torch.tensor([6, 6, 6]), torch.tensor([0, 3])
    op(Molecules(line, charges, offsets)).sum().backward()
    assert line.grad is not None
    assert bool(line.grad.isfinite().all())


def test_single_precision_agrees_with_double() -> None:
    single = AtomicHarmonics(ELEMENTS)
    assert apart(operator()(batch()), single(batch()).double()) < 1e-5


@pytest.mark.parametrize("distance", [0.0, 0.05, float("nan")])
def test_coincident_atoms_are_refused(distance: float) -> None:
    places = torch.tensor([[0.0, 0, 0], [0, 0, distance]], dtype=torch.float64)
    with pytest.raises(InvalidParameter, match="molecule 1: two atoms"):
        operator()(Molecules.of([molecule(3, 1), (places, torch.tensor([1, 1]))]))


def test_molecules_are_taken_by_slices_alone() -> None:
    assert len(batch()[1:3]) == 2
    for rows in (0, [0, 1]):
        with pytest.raises(InvalidParameter, match=r"a slice is expected, as in \[0:1\], not "):
            batch()[rows]  # type: ignore[index]


def test_an_element_it_was_not_built_for_is_refused() -> None:
    positions, _ = molecule(2, 1)
    with pytest.raises(InvalidParameter, match=r"cannot see \[16\]"):
        operator()(Molecules.of([(positions, torch.tensor([1, 16]))]))


@pytest.mark.parametrize(
    "options",
    [
        {"J": 0},
        {"L": -1},
        {"sigma": 0.0},
        {"reach": -1.0},
        {"octave": 0.0},
        {"steepness": 0.0},
    ],
)
def test_impossible_parameters_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(InvalidParameter, match="atomic harmonics"):
        operator(**options)
