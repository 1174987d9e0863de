"""From a unit and its bytes to frames, whatever the format."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace

import numpy as np

from storage.errors import BadInput
from storage.readers import selection
from storage.readers.fits import open_fits
from storage.readers.found import Found
from storage.readers.frames import Frame, Header, ReadOptions
from storage.readers.hdf5 import open_hdf5
from storage.readers.matlab import open_mat
from storage.readers.middlebury import open_flo
from storage.readers.netcdf import open_netcdf
from storage.readers.numpy_files import open_npy, open_npz
from storage.readers.variables import Variable
from storage.readers.zarr_folders import open_zarr
from storage.sources import SourceFile, Unit, read_units

Opener = Callable[[bytes, int, ReadOptions], AbstractContextManager[list[Variable]]]
FORMATS: dict[str, Opener] = {
    ".npy": open_npy,
    ".npz": open_npz,
    ".mat": open_mat,
    ".h5": open_hdf5,
    ".hdf5": open_hdf5,
    ".nc": open_netcdf,
    ".nc4": open_netcdf,
    ".zarr": open_zarr,
    ".zarr.zip": open_zarr,
    ".flo": open_flo,
    ".fits": open_fits,
    ".fits.gz": open_fits,
    ".fits.fz": open_fits,
    ".fit": open_fits,
    ".fts": open_fits,
}
EXTENSIONS = tuple(FORMATS)
BEGINNINGS = {".npy": 4096, ".flo": 12}  # bytes that hold the header
_CUT = (  # how the libraries say that bytes are lacking
    "truncated", "eof", "end of", "smaller than", "incomplete", "not enough", "cannot reshape",
    "with size 0",
)  # fmt: skip


def read_header(
    unit: Unit, payload: Sequence[bytes] | None = None, options: ReadOptions | None = None
) -> Header:
    """Describe the frames of a unit without reading its arrays.

    Parameters
    ----------
    unit
        What to read.
    payload
        The content of each file. Without it the files are read here, of ``.npy`` and
        ``.flo`` only the beginning.
    options
        Which arrays become samples.

    Raises
    ------
    BadInput
        If the unit cannot become samples, as far as the header tells.
    """
    options = options or ReadOptions()
    contents = payload if payload is not None else [_beginning(file) for file in unit.files]
    headers = []
    for file, data in zip(unit.files, contents, strict=True):
        size = file.size if payload is None else len(data)
        with _opened(file, data, size, _for_one(unit, options)) as (found, chosen):
            headers.append(selection.read_header(found, chosen, size))
    return headers[0] if len(headers) == 1 else _stacked_header(unit, headers, options)


def read_headers(
    units: Sequence[Unit], options: ReadOptions | None = None
) -> list[Header | BadInput]:
    """Describe units as `read_header`, or say why not; members of one archive in one pass.

    One by one, the list of a zip would be read for each of them, and a compressed tar up to each.
    """
    found: dict[Unit, Header | BadInput] = {}
    for unit, payload in _contents(units):
        try:
            if isinstance(payload, BadInput):
                raise payload
            found[unit] = read_header(unit, payload, options)
        except BadInput as error:
            found[unit] = error
    return [found[unit] for unit in units]


def _contents(units: Sequence[Unit]) -> Iterator[tuple[Unit, list[bytes] | BadInput | None]]:
    """Yield units, with their contents if they lie in archives."""
    packed = [unit for unit in units if any(file.member is not None for file in unit.files)]
    yield from ((unit, None) for unit in units if unit not in packed)
    yield from read_units(sorted(packed, key=lambda unit: unit.files[0].url))


def read_frames(
    unit: Unit, payload: Sequence[bytes], options: ReadOptions | None = None
) -> Found[Frame]:
    """Read the fields of a unit.

    Parameters
    ----------
    unit
        What to read.
    payload
        The content of each file of the unit.
    options
        Which arrays become samples.

    Returns
    -------
    Found
        A list of `Frame`; frames that are bad beside good ones are in its ``refused``.

    Raises
    ------
    BadInput
        If nothing good is in the unit; whatever the bytes, no other error is raised.
    """
    options = options or ReadOptions()
    every = []
    for file, data in zip(unit.files, payload, strict=True):
        with _opened(file, data, len(data), _for_one(unit, options)) as (found, chosen):
            every.append(selection.read_frames(found, chosen, len(data)))
    return every[0] if len(every) == 1 else _stacked(unit, every, options)


@contextmanager
def _opened(
    file: SourceFile, data: bytes, size: int, options: ReadOptions
) -> Iterator[tuple[list[Variable], ReadOptions]]:
    """Open a file; whatever a library raises on its bytes becomes `BadInput`."""
    suffix = _suffix(file.name)
    try:
        if size == 0:
            raise BadInput("truncated", "is empty")
        with FORMATS[suffix](data, size, options) as found:
            yield found, options
    except BadInput as error:
        raise BadInput(error.reason, f"{file.name}: {error.message}") from error
    except Exception as error:
        # Damaged bytes make the format libraries raise nearly anything, MemoryError included.
        reason = "truncated" if any(word in str(error).lower() for word in _CUT) else "corrupt"
        message = f"{file.name} cannot be read as {suffix} ({type(error).__name__}: {error})"
        raise BadInput(reason, message) from error


def _suffix(name: str) -> str:
    found = [suffix for suffix in EXTENSIONS if name.lower().endswith(suffix)]
    if not found:
        raise BadInput("format", f"{name} has none of the extensions {' '.join(EXTENSIONS)}")
    return max(found, key=len)


def _beginning(file: SourceFile) -> bytes:
    return file.read(BEGINNINGS.get(_suffix(file.name)))


def _for_one(unit: Unit, options: ReadOptions) -> ReadOptions:
    """Return the options for each file: in a stack the components name the files."""
    return options if len(unit.files) == 1 else replace(options, components=())


def _stacked(unit: Unit, every: list[Found[Frame]], options: ReadOptions) -> Found[Frame]:
    """Join the frames of equal index, one component from each file."""
    bad = dict(entry for frames in every for entry in frames.refused)
    columns = [{frame.index: frame for frame in frames} for frames in every]
    if len({frozenset(column) | frozenset(bad) for column in columns}) > 1:
        raise BadInput("shape", f"{unit.name}: {_names(unit)} do not hold the same frames")
    stacked: Found[Frame] = Found(refused=sorted(bad.items()))
    for index in columns[0]:
        if index not in bad:
            stacked.append(_joined(unit, [column[index] for column in columns], options))
    if not stacked:
        raise next(iter(bad.values()))
    return stacked


def _joined(unit: Unit, frames: list[Frame], options: ReadOptions) -> Frame:
    _check_alike(unit, frames)
    array = np.concatenate([frame.array for frame in frames])
    units = tuple(frame.units[0] for frame in frames)
    return replace(
        frames[0],
        array=array,
        units=units,
        components=_labels(frames, options),
        valid=sum(frame.valid for frame in frames) / len(frames),
    )


def _stacked_header(unit: Unit, headers: list[Header], options: ReadOptions) -> Header:
    _check_alike(unit, headers)
    return replace(
        headers[0],
        dtype=np.result_type(*(header.dtype for header in headers)).name,
        units=tuple(header.units[0] for header in headers),
        components=_labels(headers, options),
    )


def _labels(parts: Sequence[Frame | Header], options: ReadOptions) -> tuple[str, ...]:
    return options.components or tuple(part.components[0] for part in parts)


def _check_alike(unit: Unit, parts: Sequence[Frame | Header]) -> None:
    """Raise `BadInput` unless the files of a stack hold one component each, of one shape."""
    shapes = [part.array.shape[1:] if isinstance(part, Frame) else part.shape for part in parts]
    if any(len(part.components) != 1 for part in parts):
        raise BadInput("components", f"{unit.name}: {_names(unit)} must hold one component each")
    if len(set(shapes)) > 1:
        raise BadInput("shape", f"{unit.name}: {_names(unit)} have the shapes {shapes}")


def _names(unit: Unit) -> str:
    return ", ".join(file.name for file in unit.files)
