"""Zarr groups and arrays of format 2 and 3, read from the container of a folder or a zip."""

from __future__ import annotations

import io
import math
import re
import zipfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

import numpy as np
import zarr
from zarr.core.buffer import Buffer, cpu

from storage.errors import BadInput
from storage.readers.coordinates import Coordinate, coordinate
from storage.readers.frames import ReadOptions
from storage.readers.packing import helpers, text, unpack, unpacked_dtype
from storage.readers.variables import Selector, Variable, mark_components
from storage.typing import Array

Files = dict[str, bytes]
_NEVER = 2**64 - 1  # where a chunk of a shard begins that was not written
_INDEX = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]
# Codecs that only transform bytes; decoding with "pickle" would run code from the file.
PICKLE = re.compile(rb'"(id|name)"\s*:\s*"(numcodecs\.)?pickle"')
CODECS = frozenset({
    "adler32", "astype", "bitround", "blosc", "bytes", "bz2", "crc32", "crc32c", "delta",
    "fixedscaleoffset", "fletcher32", "gzip", "jenkins_lookup3", "lz4", "lzma", "packbits",
    "pcodec", "quantize", "sharding_indexed", "shuffle", "transpose", "zfpy", "zlib", "zstd",
})  # fmt: skip


@contextmanager
def open_zarr(data: bytes, size: int, options: ReadOptions) -> Iterator[list[Variable]]:
    """Give the arrays of a Zarr folder; ``data`` is a zip of its files."""
    files = _content(data)
    content: dict[str, Buffer] = {
        name: cpu.Buffer.from_bytes(value) for name, value in files.items()
    }
    arrays = dict(_arrays("", _root(zarr.storage.MemoryStore(content))))
    aside = helpers((name, array.attrs.asdict()) for name, array in arrays.items())
    yield [
        _variable(name, array, arrays, files, options)
        for name, array in arrays.items()
        if array.ndim > 1 and name not in aside
    ]


def _content(data: bytes) -> dict[str, bytes]:
    if not data.startswith(b"PK"):
        raise BadInput("magic", "is neither a Zarr folder nor a zip of one")
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = [info.filename for info in archive.infolist() if not info.is_dir()]
        marks = [n for n in names if n.rpartition("/")[2] in ("zarr.json", ".zgroup", ".zarray")]
        if not marks:
            raise BadInput("magic", "holds no zarr.json, .zgroup or .zarray")
        top = min(marks, key=lambda name: name.count("/")).rpartition("/")[0]
        prefix = f"{top}/" if top else ""
        content = {n.removeprefix(prefix): archive.read(n) for n in names if n.startswith(prefix)}
    for name, data in content.items():
        if name.rpartition("/")[2] in ("zarr.json", ".zarray") and PICKLE.search(data):
            raise BadInput("pickle", f"{name} names pickle as a codec, which is never decoded")
    return content


def _root(store: zarr.storage.MemoryStore) -> zarr.Array[Any] | zarr.Group:
    try:
        return zarr.open_group(store, mode="r", use_consolidated=False)
    except (zarr.errors.ContainsArrayError, zarr.errors.GroupNotFoundError):
        return zarr.open_array(store, mode="r")


def _read(name: str, array: zarr.Array[Any], selector: Selector) -> Array:
    for codec in _codecs(array.metadata.to_dict()):
        if codec.removeprefix("numcodecs.") not in CODECS:
            raise BadInput("format", f"{name} is encoded with {codec!r}, which is not decoded")
    return np.asarray(array[selector])


def _codecs(metadata: Any) -> Iterator[str]:
    """Yield the names of all codecs, those inside shards too."""
    if isinstance(metadata, list):
        for item in metadata:
            yield from _codecs(item)
    elif isinstance(metadata, dict):
        name = metadata.get("id", metadata.get("name"))
        if isinstance(name, str):
            yield name
        for key in ("filters", "compressor", "codecs", "index_codecs", "configuration"):
            yield from _codecs(metadata.get(key))


def _arrays(path: str, node: zarr.Array[Any] | zarr.Group) -> Iterator[tuple[str, zarr.Array[Any]]]:
    if isinstance(node, zarr.Array):
        yield path, node
    else:
        for name, member in sorted(node.members()):
            yield from _arrays(f"{path}/{name}".strip("/"), member)


def _variable(
    name: str,
    array: zarr.Array[Any],
    arrays: dict[str, zarr.Array[Any]],
    files: Files,
    options: ReadOptions,
) -> Variable:
    attributes = _attributes(array)
    check = cache(partial(_check_complete, name, array, files))  # once for all planes

    def load(selector: Selector) -> Array:
        check()
        return unpack(_read(name, array, selector), attributes)

    return Variable(
        name,
        array.shape,
        unpacked_dtype(array.dtype, attributes),
        load,
        mark_components(_dims(array), array.shape, options.components),
        text(attributes.get("units")),
        partial(_coordinate, name.rpartition("/")[0], arrays, files),
        name.rpartition("/")[2],
    )


def _attributes(array: zarr.Array[Any]) -> dict[str, Any]:
    """Return the attributes; in format 2 xarray keeps ``_FillValue`` as Zarr's own fill value."""
    attributes = array.attrs.asdict()
    fill = array.fill_value
    if array.metadata.zarr_format == 2 and "_ARRAY_DIMENSIONS" in attributes and fill is not None:
        attributes.setdefault("_FillValue", fill)
    return attributes


def _dims(array: zarr.Array[Any]) -> tuple[str, ...]:
    named = getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS")
    if not isinstance(named, list | tuple) or len(named) != array.ndim:
        return ("",) * array.ndim
    return tuple(str(name or "") for name in named)


def _check_complete(name: str, array: zarr.Array[Any], files: Files) -> None:
    """Refuse an array that lacks some of its chunks, in shards or not."""
    stored = array.shards or array.chunks
    counts = [-(-size // chunk) for size, chunk in zip(array.shape, stored, strict=True)]
    expected, absent = math.prod(counts), max(math.prod(counts) - len(files), 0)
    if not absent:  # else they are not counted: a description may declare any number
        for place in np.ndindex(*counts):
            data = files.get(f"{name}/{array.metadata.encode_chunk_key(place)}".lstrip("/"))
            absent += 1 if data is None else _absent(array, place, data)
    if absent:
        raise BadInput(
            "truncated",
            f"at least {absent} chunks of {name or 'the array'}, which has {expected} "
            f"{'shards' if array.shards else 'chunks'}, are absent and would read as "
            f"{array.fill_value}; write them all (write_empty_chunks=True)",
        )


def _absent(array: zarr.Array[Any], place: tuple[int, ...], data: bytes) -> int:
    """Return how many chunks a shard lacks, by the index of where each begins."""
    metadata: Any = array.metadata.to_dict()
    said = metadata["codecs"][0]["configuration"] if array.shards else {}
    if array.shards is None or list(said["index_codecs"]) != _INDEX:
        return 0
    inner = said["chunk_shape"]
    each = [shard // chunk for shard, chunk in zip(array.shards, inner, strict=True)]
    size = 16 * math.prod(each)  # behind it are the four bytes of its checksum
    index = data[:size] if said.get("index_location") == "start" else data[-size - 4 : -4]
    if len(index) < size:
        raise BadInput("truncated", f"a shard of {len(data)} bytes does not hold its index")
    begins = np.frombuffer(index, "<u8").reshape(*each, 2)[..., 0]
    sizes = zip(array.shape, place, array.shards, inner, strict=True)
    within = tuple(slice(-(-(n - at * shard) // chunk)) for n, at, shard, chunk in sizes)
    return int((begins[within] == _NEVER).sum())


def _coordinate(
    group: str,
    arrays: dict[str, zarr.Array[Any]],
    files: Files,
    axis: str,
    lengths: Collection[int],
) -> Coordinate | None:
    name = f"{group}/{axis}".strip("/")
    if (array := arrays.get(name)) is None:
        return None

    def read() -> Array:
        values = _read(axis, array, (slice(None),))
        if len(np.unique(values)) < len(values):  # the chunk of one 0 may rightly be left out
            _check_complete(name, array, files)
        return values

    return coordinate(array.shape, lengths, read, array.attrs.asdict())
