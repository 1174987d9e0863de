"""Parquet tables, named by their own content, and the SQL expressions that users ask of them."""

from __future__ import annotations

import datetime
import io
from collections import Counter
from collections.abc import Collection
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from storage.backends import Backend
from storage.documents import read_checked
from storage.errors import InvalidRequest
from storage.keys import digest
from storage.records import AXES, PLACES
from storage.text import writable


def table_path(key: str) -> str:
    """Return where a table lies."""
    return f"tables/{key}.parquet"


def write_table(backend: Backend, frame: pd.DataFrame) -> str:
    """Write a table and return its key, the sha256 of its bytes."""
    buffer = io.BytesIO()
    # pandas' own metadata differs between equal tables (object or string columns)
    table = pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None)
    pq.write_table(table, buffer, compression="zstd")
    key = digest(buffer.getvalue())
    backend.create(table_path(key), buffer.getvalue())
    return key


def read_table(backend: Backend, key: str) -> pd.DataFrame:
    """Read a table and check that it is the one that was written.

    Raises
    ------
    Damaged
        If it is missing or its bytes changed.
    """
    data = read_checked(backend, table_path(key), key)
    table = pq.ParquetFile(pa.BufferReader(data)).read()
    # of small tables, of which a dataset may have thousands, threads take longer than the work
    frame: pd.DataFrame = table.to_pandas(use_threads=len(data) > _LARGE)
    for name, column in zip(table.column_names, table.columns, strict=True):
        if pa.types.is_integer(column.type) and column.null_count:  # else they would be floats
            frame[name] = column.cast(pa.int64()).to_pandas(types_mapper=_NULLABLE.get)
    return frame


def append_rows(backend: Backend, keys: tuple[str, ...], rows: pd.DataFrame) -> tuple[str, ...]:
    """Write one more table: of ``rows``, and of those of the last tables that hold no more.

    So n runs that add a file each leave log(n) tables to read instead of n, and each row is
    written log(n) times. Left as they are: a few tables, which are read together; tables of other
    columns; and columns of objects, whose types may differ.
    """
    pieces, count = [rows], len(rows)
    while len(keys) >= _FEW and not any(map(pd.api.types.is_object_dtype, rows.dtypes)):
        last = read_table(backend, keys[-1])
        if len(last) > count or not last.dtypes.equals(rows.dtypes):
            break
        pieces, count, keys = [last, *pieces], count + len(last), keys[:-1]
    return (*keys, write_table(backend, pd.concat(pieces, ignore_index=True)))


def in_one_piece(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a table with each column of texts in one piece: of many, Arrow copies the column.

    It does so whenever some rows are taken, which is what every batch does.
    """
    texts = {str(name): frame[name] for name in frame if frame[name].dtype == "str"}
    table = pa.table({name: pa.array(column) for name, column in texts.items()})
    joined = table.combine_chunks().to_pandas()
    return frame.assign(**{name: joined[name].set_axis(frame.index) for name in texts})


def no_samples() -> pd.DataFrame:
    """Return a table of no samples, with the columns that those of every dataset have."""
    columns = [*("sample_id", "part", "row"), *("source", "index", "sha256", "unit", "stamp")]
    return pd.DataFrame(columns=[*columns, "withdrawn"], dtype=str).astype({"row": int})


def kind_of(column: pd.Series) -> str:
    """Say what the known values of a column are: whole, boolean, number, date, text or empty."""
    found = pd.api.types.infer_dtype(column, skipna=True)
    return _KINDS.get(found, "text")


def broad_kind(column: pd.Series) -> str:
    """Say what the known values of a column are, whole numbers being numbers."""
    kind = kind_of(column)
    return "number" if kind == "whole" else kind


def nullable(column: pd.Series) -> pd.Series:
    """Return a column that stays of its type where some values are not known."""
    if pd.api.types.is_bool_dtype(column):
        return column.astype("boolean")
    return column.astype("Int64") if pd.api.types.is_integer_dtype(column) else column


def sample_coordinates(
    frame: pd.DataFrame, taken: Collection[str] = ()
) -> dict[str, tuple[str, object]]:
    """Return the columns of a sample table as coordinates along ``sample``.

    Text becomes objects rather than pandas' own string arrays, which NetCDF cannot store. Unknown
    text is empty; whole numbers and truth values become floats if some are unknown. A name that
    is an axis's or in ``taken`` is prefixed with ``sample_``; ``/`` in a name becomes ``_``;
    a name that is taken gets another ``_`` at its end.
    """
    hidden, others = PLACES - {"reading"} | {"withdrawn"}, AXES.union(taken)
    names = [str(name) for name in frame if name not in hidden]
    named: dict[str, pd.Series] = {}
    for name in sorted(names, key=lambda name: "/" in name):  # those without keep theirs
        flat = name.replace("/", "_")  # to files of arrays, / begins another folder
        while flat in named:
            flat += "_"
        named[flat] = frame[name]
    return {
        f"sample_{name}" if name in others else name: ("sample", _coordinate(column))
        for name, column in named.items()
    }


def _coordinate(column: pd.Series) -> object:
    match kind_of(column):
        case "date":
            moments = pd.to_datetime(column)  # UTC where they had a zone, as arrays have none
            return (moments.dt.tz_convert(None) if moments.dt.tz else moments).to_numpy()
        case "text" | "empty":
            return column.astype(object).fillna("").to_numpy()
        case _:
            if column.hasnans:
                return column.to_numpy(dtype=float, na_value=np.nan)
            return column.infer_objects().to_numpy()


def of_one_kind(samples: pd.DataFrame) -> pd.DataFrame:
    """Return samples in which every column holds only numbers, moments or texts.

    A column of several kinds, which files of tables cannot hold, becomes texts.
    """
    mixed = {}
    for name in samples:
        if not pd.api.types.is_object_dtype(samples[name]):
            continue
        if samples[name].dropna().map(_kind).nunique() > 1:
            mixed[str(name)] = samples[name].map(_text, na_action="ignore")
    return samples.assign(**mixed)


def _kind(value: Any) -> str:
    if isinstance(value, str):
        return "text"
    return "moment" if isinstance(value, datetime.datetime) else "number"


def _text(value: Any) -> str:
    if isinstance(value, datetime.datetime):
        return value.isoformat()
    whole = isinstance(value, float) and value.is_integer()
    return str(int(value) if whole else value)


_KINDS = {
    "integer": "whole",
    "boolean": "boolean",
    "floating": "number",
    "decimal": "number",
    "mixed-integer-float": "number",
    "datetime64": "date",
    "datetime": "date",
    "date": "date",
    "empty": "empty",
}
_LARGE = 2**20  # bytes
_FEW = 8  # tables
_NULLABLE = {pa.int64(): pd.Int64Dtype()}
_ONE = "one expression is taken, not several statements or clauses"


def select(frame: pd.DataFrame, expression: str | None, option: str) -> pd.DataFrame:
    """Return the rows of ``frame`` for which a DuckDB expression holds, in their order.

    Parameters
    ----------
    expression
        Such as ``order == 2 and j1 == 0``; column names that are SQL keywords need no quotes.
    option
        What the user wrote it behind, for the message.

    Raises
    ------
    InvalidRequest
        If it is not one boolean expression over the columns of ``frame``.
    """
    if expression is not None and not isinstance(expression, str):
        raise InvalidRequest(
            f"{option} is a {type(expression).__name__}: an expression is expected, as in "
            "\"sample_id < 'run3'\""
        )
    if expression is None or not expression.strip():
        return frame
    if writable(expression) != expression:
        raise InvalidRequest(f"{option} {writable(expression)} is not in UTF-8")
    rows, problem = _selected(frame, expression)
    if problem:
        columns = ", ".join(map(str, frame))
        raise InvalidRequest(f"{option} {expression!r}: {problem}; columns: {columns}")
    return frame.iloc[rows].reset_index(drop=True)


def _selected(frame: pd.DataFrame, expression: str) -> tuple[list[int], str]:
    """Return the rows, or what is wrong with the expression.

    It is not raised here: a kept error would keep this frame, and DuckDB tells the terminal
    about connections that are open when a process ends.
    """
    with duckdb.connect(":memory:", config={"enable_external_access": "false"}) as connection:
        connection.execute("SET lock_configuration = true")
        columns = [str(column) for column in frame]
        names = _told_apart(columns)
        named = frame.set_axis([names.get(column, column) for column in columns], axis=1)
        connection.register("frame", named.assign(__row=range(len(frame))))
        condition = _quoted(expression, columns, names)
        try:
            # DuckDB reads it as an expression: it cannot end a clause and begin another.
            rows = connection.view("frame").filter(condition).project("__row").fetchall()
            return sorted(int(row) for (row,) in rows), ""
        except duckdb.Error as error:
            problem = str(error).splitlines()[0]
            return [], _ONE if "expression list" in problem else problem


def _told_apart(columns: list[str]) -> dict[str, str]:
    """Return other names for columns that differ in capitals alone: to DuckDB they are one."""
    alike = Counter(column.lower() for column in columns)
    return {
        column: f"{column}\N{MIDDLE DOT}{place}"
        for place, column in enumerate(columns)
        if alike[column.lower()] > 1
    }


def _quoted(expression: str, columns: list[str], names: dict[str, str]) -> str:
    """Quote the keywords that are columns here, such as ``order``, and put in other names."""
    text = expression.encode()  # DuckDB counts bytes
    pieces, end = [], len(text)
    for start, kind in reversed(duckdb.tokenize(expression)):
        token = text[start:end].decode()
        word, name = token.strip().lower(), token.strip().strip('"')
        if kind == duckdb.token_type.keyword and word in columns and name not in names:
            pieces.append(f'"{word}" '.encode())
        elif kind in (duckdb.token_type.keyword, duckdb.token_type.identifier) and name in names:
            pieces.append(f'"{names[name]}" '.encode())
        else:
            pieces.append(text[start:end])
        end = start
    return (text[:end] + b"".join(reversed(pieces))).decode()
