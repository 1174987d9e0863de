"""Images: how files of them become rows of a part, and tables beside them columns."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, Self, cast

import pandas as pd
import zarr
from pydantic import Field
from pydantic.json_schema import SkipJsonSchema

from storage import BadInput, InvalidRequest, Schema
from storage.images import write_images
from storage.keys import digest
from storage.readers.images import (
    Fit,
    Framing,
    count_images,
    discover_images,
    read_images,
    read_sizes,
)
from storage.readers.images.annotations import read_annotations, read_classes
from storage.sources import Discovery, SourceFile, Unit
from storage.sources.embedded import EMBEDDED, embedded
from storage.sources.filesystem import absolute, read_bytes
from storage.tables import of_one_kind
from tasks.inputs import Decoded, Good, Input, Refusal, Simulated
from tasks.labels import LabelOrder, joined, numbered, rows_of, with_index
from tasks.options import Mirror, Options, PartSize, Rehash, Strict
from tasks.progress import caution

HEADERS = 64
USUAL = (224, 224)
COLOURS = ("red", "green", "blue")
SCHEMA = Schema("image", COLOURS, USUAL, (None,) * 3, "uint8", periodic=False, layout="images")
SPLITS = ("train", "validation", "test")
log = logging.getLogger("wavemill.tasks")


@dataclass(frozen=True)
class ImageOptions(Options):
    """How files of images become samples."""

    size: Annotated[
        tuple[int, int] | None,
        Field(
            description="Of the samples (y, x); else the existing dataset's, or the images' own "
            "where they agree, or 224 x 224."
        ),
    ] = None
    fit: Annotated[
        Fit | None,
        Field(
            description="How images are brought to the size: crop, stretch or exact; else as the "
            "existing dataset, or cropped."
        ),
    ] = None
    cover: Annotated[
        tuple[int, int] | None,
        Field(
            description="Frame that is covered before the centre is cut, such as 256 x 256; else "
            "the existing dataset's, or the size."
        ),
    ] = None
    keep_encoded: Annotated[
        bool, Field(description="Keep the bytes that images were decoded from beside them.")
    ] = False
    split: Annotated[
        Literal["train", "validation", "test"] | None,
        Field(description="Of all, instead of what paths say."),
    ] = None
    annotations: Annotated[
        tuple[str, ...],
        Field(description="Tables of labels and attributes, beside those found by their names."),
    ] = ()
    classes: Annotated[
        str | None, Field(description="A list of classes whose order gives the indices of labels.")
    ] = None
    label_order: Annotated[
        LabelOrder | None,
        Field(
            description="Of numbers of ILSVRC2012's validation images: sorted (from 0, wnids "
            "ascending) or devkit (from 1, that of its meta.mat)."
        ),
    ] = None
    mix: Annotated[
        bool,
        Field(
            description="Order samples by a hash of their names, so that every shard is a random "
            "choice of all: to train on more than fits into memory."
        ),
    ] = False
    part_size: PartSize = 64 * 2**20
    strict: Strict = False
    mirror: Mirror = False
    rehash: Rehash = False
    tables: SkipJsonSchema[tuple[SourceFile, ...]] = ()  # what discovery found

    def __post_init__(self) -> None:
        if self.fit not in (None, "crop", "stretch", "exact"):
            raise InvalidRequest(f"fit {self.fit!r}: crop, stretch or exact")
        if self.split not in (None, *SPLITS):
            raise InvalidRequest(f"split {self.split!r}: {', '.join(SPLITS)}")
        if self.label_order not in (None, "sorted", "devkit"):
            raise InvalidRequest(f"label order {self.label_order!r}: sorted or devkit")
        sides = [*(self.size or ()), *(self.cover or ())]
        if sides and not 1 <= min(sides) <= max(sides) <= 2**14:
            raise InvalidRequest(f"sides of 1 to {2**14} pixels, not {sides}")

    def find(self, places: Sequence[str]) -> Discovery:
        """Find images and the tables beside them.

        Raises
        ------
        InvalidRequest
            If a source, a table or the list of classes does not exist, or cannot be understood.
        """
        self._classes()  # before hours of decoding
        for place in self.annotations:
            _table(place)
        files = [place for place in places if not place.startswith(EMBEDDED)]
        found = discover_images(files) if files else Discovery()
        units = [unit for p in places if p.startswith(EMBEDDED) for unit in _embedded_units(p)]
        units = [*found, *units]
        if self.mix:
            units.sort(key=lambda unit: digest(unit.name.encode()))
        return Discovery(units, found.refused, found.ignored, found.tables)

    def informed(self, found: Discovery) -> Self:
        """Return the options with the tables that were found."""
        return replace(self, tables=tuple(found.tables))

    def schema(self, existing: Schema | None, inputs: Sequence[Input]) -> Schema:
        """Return the schema that the flags ask for; the rest is the existing one's or the images'.

        Raises
        ------
        InvalidRequest
        If there are no images, or the frame is smaller than the size.
        """
        units = [item for item in inputs if not isinstance(item, Simulated)]
        if existing is None and not units:
            raise InvalidRequest("the sources hold no images: nothing was published")
        held = existing if existing is not None and existing.layout == "images" else None
        shape = self.size or (held.shape if held else _own_size(units))
        fit = self.fit or (held.fit if held else "crop")
        cover: tuple[int, ...] = self.cover or ()
        if self.cover is None and held and fit == "crop":
            cover = held.cover
        if cover and (fit != "crop" or any(c < s for c, s in zip(cover, shape, strict=True))):
            raise InvalidRequest(
                f"--resize {cover} is for crops of at most that; not {fit} {shape}"
            )
        cover = () if cover == shape else cover
        return replace(SCHEMA, shape=shape, fit=fit, cover=cover)

    def spec(self, schema: Schema) -> dict[str, Any]:
        """Return the spec of the parts: what decides their arrays, and nothing else."""
        parameters: dict[str, Any] = {"size": list(schema.shape)}
        if schema.fit != "crop":
            parameters["fit"] = schema.fit
        if schema.cover:
            parameters["cover"] = list(schema.cover)
        if self.keep_encoded:
            parameters["encoded"] = True
        return {"kind": "images", "parameters": parameters, "algorithm": 1}

    def weight(self, item: Input, schema: Schema) -> int:
        """Return the bytes that an input's images take in a part."""
        images = 1 if isinstance(item, Simulated) else count_images(item)
        y, x = schema.shape
        return images * y * x * len(COLOURS) + (item.nbytes if self.keep_encoded else 0)

    def decode(self, unit: Unit, payload: list[bytes], schema: Schema) -> Decoded:
        """Return the images of one input.

        Raises
        ------
        BadInput
            If nothing in it is good.
        """
        found = read_images(unit, payload, framing(schema))
        for item in found if not self.keep_encoded else ():
            item.encoded = b""  # else a whole part of these would be held until it is written
        good = [Good(item.index, item, self._columns(item.columns)) for item in found]
        return Decoded(good, [Refusal.of(*bad) for bad in found.refused])

    def _columns(self, columns: Any) -> dict[str, Any]:
        return {**columns, "split": self.split} if self.split else dict(columns)

    def write(self, group: zarr.Group, rows: int, fields: Iterator[Any], schema: Schema) -> None:
        """Write the images of a part."""
        write_images(group, rows, fields, schema, self.keep_encoded)

    def complete(
        self, samples: pd.DataFrame, schema: Schema
    ) -> tuple[pd.DataFrame, pd.DataFrame, Schema]:
        """Join the tables, and give every label its index.

        Raises
        ------
        InvalidRequest
            If the numbers of a table cannot be understood as they are.
        """
        made = self._labelled(of_one_kind(samples)) if len(samples) else samples
        _caution_of_pages(made)
        return made, samples[:0].assign(reason="", message=""), schema

    def labels(self, samples: pd.DataFrame, schema: Schema) -> pd.DataFrame | None:
        """Return labels of all samples, None if they carry them already.

        Raises
        ------
        InvalidRequest
            As `complete`, or if a table that was named describes none of them.
        """
        for place in self.annotations:
            self._check_reach(place, samples)
        made = self._labelled(samples)
        if self.classes is not None and "label" in made:
            lost = int((made["label"].notna() & made["label_index"].isna()).sum())
            if lost:
                caution(f"--classes {self.classes}: labels of {lost} images are not in it")
        fresh = made[["sample_id", *(name for name in made if _changed(name, made, samples))]]
        return None if list(fresh) == ["sample_id"] else fresh

    def _check_reach(self, place: str, samples: pd.DataFrame) -> None:
        table = _table(place)
        reached = int((rows_of(samples, table) >= 0).sum())
        if not reached:
            raise InvalidRequest(
                f"--annotations {place}: none of its {len(table)} rows, such as "
                f"{str(table.index[0])!r}, is of one of {len(samples)} images, such as "
                f"{str(samples['source'].iloc[0])!r}: they stay as they are"
            )
        log.info("%s: rows for %d of %d images", place, reached, len(samples))

    def _labelled(self, samples: pd.DataFrame) -> pd.DataFrame:
        classes = self._classes()
        found = (read_annotations(file.name, file.read()) for file in self.tables)
        for table in (*found, *map(_table, self.annotations)):
            samples = joined(samples, numbered(table, classes, self.label_order, samples))
        return with_index(samples, classes, self.label_order)

    def _classes(self) -> dict[str, str] | None:
        return None if self.classes is None else read_classes(self.classes, _content(self.classes))


def _table(place: str) -> pd.DataFrame:
    return read_annotations(place, _content(place))


def _content(place: str) -> bytes:
    """Return the bytes of a table or a list that was named."""
    try:
        return read_bytes(absolute(place))
    except FileNotFoundError:
        raise InvalidRequest(f"{place} does not exist (looked at {absolute(place)})") from None


def framing(schema: Schema) -> Framing:
    """Return how images become samples of a dataset."""
    (y, x), cover = schema.shape, schema.cover
    frame = (cover[0], cover[1]) if cover else None
    return Framing((y, x), cast(Fit, schema.fit), frame)


def _embedded_units(source: str) -> list[Unit]:
    names, tag = embedded(source)
    files = [SourceFile(source, name, name, 64, etag=tag) for name in names]
    return [Unit(file.name.rpartition(".")[0], (file,)) for file in files]


def _own_size(units: Sequence[Unit]) -> tuple[int, int]:
    """Return the size of some images spread over the list if they agree, else the usual one."""
    step = max(1, len(units) // HEADERS)
    found = read_sizes(units[::step])
    sizes = Counter(size for size in found if not isinstance(size, BadInput))
    if not sizes:
        raise InvalidRequest(f"none of {len(units)} images can be read: {found[0]}")
    return next(iter(sizes)) if len(sizes) == 1 else USUAL


def _caution_of_pages(samples: pd.DataFrame) -> None:
    """Warn of files that hold more pages than the one that was read."""
    if "pages" not in samples or not (many := samples["pages"].notna()).any():
        return
    files = samples[many]
    lost = int(files["pages"].sum()) - len(files)
    first = files.iloc[0]
    caution(
        f"the first page of {len(files)} TIFF files was read, {lost} pages were not, as "
        f"{int(first['pages']) - 1} of {first['source']}: make a file of each page to read all"
    )


def _changed(name: Any, made: pd.DataFrame, samples: pd.DataFrame) -> bool:
    if name not in samples:
        return True
    one, other = made[name], samples[name]
    return not bool(((one == other).fillna(False) | (one.isna() & other.isna())).all())
