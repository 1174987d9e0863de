"""Containers other than archives: rows of Parquet files, values of LMDB databases.

Each is listed as members, like those of an archive: ``<row>.image`` with ``<row>.json`` beside it,
or ``<key>.image``. Nothing in either is ever unpickled.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from storage.errors import BadInput
from storage.sources.filesystem import Entry, is_remote, open_binary, without_query

IMAGE, BESIDE = ".image", ".json"
TOGETHER = 32  # rows of Parquet decoded at a time
_NAMES = ("image", "img", "jpg", "jpeg", "png", "webp", "bytes", "data", "content")
_LABELS = ("label", "labels", "fine_label", "class", "cls", "target")
_TEXT = re.compile(rb"[\w.,=@+-]+")


def kind(path: str) -> str | None:
    """Return ``parquet``, ``lmdb`` or None for anything else."""
    path = without_query(path)
    if path.lower().endswith(".parquet"):
        return "parquet"
    return "lmdb" if path == "data.mdb" or path.endswith("/data.mdb") else None


def list_rows(url: str) -> Iterator[Entry]:
    """List the images of a container.

    Raises
    ------
    BadInput
        If it is damaged or holds no images.
    """
    return _list_parquet(url) if kind(url) == "parquet" else _list_lmdb(url)


def read_rows(url: str, wanted: Sequence[tuple[str, int | None]]) -> Iterator[bytes | BadInput]:
    """Yield members by name and row, or why one cannot be read; ``wanted`` is in order of rows.

    Raises
    ------
    BadInput
        If it is damaged or a member is gone.
    """
    if kind(url) == "parquet":
        return _read_parquet(url, [(name, row or 0) for name, row in wanted])
    return _read_lmdb(url, [name for name, _ in wanted])


def _list_parquet(url: str) -> Iterator[Entry]:
    import pyarrow.parquet as pq

    with open_binary(url) as raw, pq.ParquetFile(raw) as file:
        _image_column(file.schema_arrow)
        row = 0
        for group in range(file.num_row_groups):
            about = file.metadata.row_group(group)
            if about.num_rows > raw.seek(0, 2):
                raise BadInput("corrupt", f"{url} declares {about.num_rows} rows")
            size = about.total_byte_size // max(1, about.num_rows)
            for _ in range(about.num_rows):
                yield Entry(f"{row:08d}{IMAGE}", size, offset=row)
                yield Entry(f"{row:08d}{BESIDE}", 0, offset=row)
                row += 1


def _image_column(schema: Any) -> str:
    """Return the column with the encoded images: binary, or a struct with ``bytes``."""
    import pyarrow as pa

    def holds_bytes(field: Any) -> bool:
        inner = (
            {part.name: part.type for part in field.type} if pa.types.is_struct(field.type) else {}
        )
        found = inner.get("bytes", field.type)
        return bool(pa.types.is_binary(found) or pa.types.is_large_binary(found))

    names = [field.name for field in schema if holds_bytes(field)]
    if not names:
        raise BadInput("columns", f"no column of encoded images among {', '.join(schema.names)}")
    return str(min(names, key=lambda n: _NAMES.index(n) if n in _NAMES else len(_NAMES)))


def _read_parquet(url: str, wanted: Sequence[tuple[str, int]]) -> Iterator[bytes | BadInput]:
    import pyarrow.parquet as pq

    pending = list(reversed(wanted))
    with open_binary(url) as raw, pq.ParquetFile(raw) as file:
        column, start = _image_column(file.schema_arrow), 0
        classes = _class_names(file.schema_arrow)
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            if pending and pending[-1][1] < start + rows:
                first = start
                for batch in file.iter_batches(TOGETHER, [group]):
                    while pending and pending[-1][1] < first + len(batch):
                        name, row = pending.pop()
                        values = batch.slice(row - first, 1).to_pylist()[0]
                        image = values.pop(column)
                        yield _content(image) if name.endswith(IMAGE) else _said(values, classes)
                    first += len(batch)
            start += rows
    if pending:
        raise BadInput("missing", f"row {pending[-1][1]} is no longer in {url}")


def _content(image: Any) -> bytes | BadInput:
    if not isinstance(image, dict):
        return image or b""
    if image.get("bytes") is None and image.get("path"):
        return BadInput(
            "reference",
            f"holds the path {image['path']!r} and not the image: ingest the files themselves",
        )
    return image.get("bytes") or b""


def _said(values: dict[str, Any], classes: dict[str, list[str]]) -> bytes:
    """Return what the other columns say of a row as JSON, its label as a name where that is known.

    The label is null if a row has none, or a number that stands for none of the names.
    """
    columns = [name for name in _LABELS if name in values]
    said: dict[str, Any] = {}
    if columns:
        label = next((name for name in columns if values[name] is not None), columns[0])
        number, names = values.pop(label), classes.get(label)
        said = {"label": number}
        if names and isinstance(number, int):
            known = 0 <= number < len(names)
            said = {"label": names[number], "class_index": number} if known else {"label": None}
    kept = {
        name: value
        for name, value in (values | said).items()
        if isinstance(value, str | int | float | bool) or (name == "label" and value is None)
    }
    return json.dumps(kept).encode()


def _class_names(schema: Any) -> dict[str, list[str]]:
    """Return the names of classes that Hugging Face's data sets write beside their columns."""
    try:
        about = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        columns = about.get("info", {}).get("features", {})
        return {k: v["names"] for k, v in columns.items() if isinstance(v, dict) and "names" in v}
    except (ValueError, AttributeError):
        return {}


def _list_lmdb(url: str) -> Iterator[Entry]:
    with _environment(url).begin(buffers=True) as transaction:
        for key, value in transaction.cursor():
            if not _TEXT.fullmatch(bytes(key)):
                raise BadInput("keys", f"{url} has keys that are no plain text: not LSUN's layout")
            yield Entry(bytes(key).decode() + IMAGE, len(value))


def _read_lmdb(url: str, wanted: Sequence[str]) -> Iterator[bytes]:
    with _environment(url).begin() as transaction:
        for name in wanted:
            value = transaction.get(name.removesuffix(IMAGE).encode())
            if value is None:
                raise BadInput("missing", f"{name} is no longer in {url}")
            yield bytes(value)


def _environment(url: str) -> Any:
    if is_remote(url):
        raise BadInput("remote", f"{url}: an LMDB database is mapped into memory: copy it here")
    status = Path(url).stat()
    return _opened(url, status.st_size, status.st_mtime)


@lru_cache(maxsize=16)
def _opened(url: str, size: int, mtime: float) -> Any:
    """Open a database once in a process: the library refuses a second time."""
    import lmdb

    try:
        environment = lmdb.open(str(Path(url).parent), readonly=True, lock=False, readahead=False)
    except lmdb.Error as error:
        raise BadInput("archive", f"{url} is not an LMDB database: {error}") from error
    needed = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
    if size < needed:  # reading on would end the process
        environment.close()
        raise BadInput("truncated", f"{url} has {size} of {needed} bytes")
    return environment
