"""Encoded bytes to RGB, whatever they are called: the content says what they are.

Grey becomes three equal channels; CMYK and the other colour spaces are converted by Pillow, colour
profiles are not applied; grey of 16 bits is rounded to 8, colour of 16 bits keeps its upper 8 (as
Pillow reads it); transparent parts are laid on white; EXIF orientation is applied; an animation
gives its first frame, a TIFF its first page, and how many it has as ``pages``. An image that lacks
bytes is refused, never filled up.
"""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from storage.errors import BadInput

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")  # EPS would run a program
PIXELS = 2**26  # of one image; the largest of ImageNet has 2^25
_BOMBS = (Image.DecompressionBombError, Image.DecompressionBombWarning)
_CUT = ("truncated", "eof", "end of", "incomplete", "not enough", "not processed")


def decode(data: bytes) -> tuple[Image.Image, dict[str, Any]]:
    """Return an upright RGB image, and its size, format, mode and pages as they were found.

    Raises
    ------
    BadInput
        If it cannot be decoded whole or has too many pixels; no other error, whatever the bytes.
    """
    with _damage_as_bad_input(data), _opened(data) as opened:
        found: dict[str, Any] = {"format": str(opened.format).lower(), "mode": opened.mode}
        if opened.format == "TIFF" and (pages := _pages(data)) > 1:
            found["pages"] = pages
        opened.load()
        reverse = isinstance(opened, TiffImageFile) and _reversed(opened)
        image = _as_rgb(_upright(opened))
        image = ImageOps.invert(image) if reverse else image
        return image, {"width": image.width, "height": image.height, **found}


def _pages(data: bytes) -> int:
    """Return the pages of a TIFF, 1 where those after the first are damaged."""
    with contextlib.suppress(Exception), Image.open(io.BytesIO(data), formats=("TIFF",)) as opened:
        return int(getattr(opened, "n_frames", 1))
    return 1


def read_size(data: bytes) -> tuple[int, int]:
    """Return ``(y, x)`` of an image as it will be upright, from its header.

    Raises
    ------
    BadInput
        As `decode`, as far as the header tells.
    """
    with _damage_as_bad_input(data), _opened(data) as opened:
        width, height = opened.size
        if isinstance(opened, TiffImageFile):  # which Pillow may have turned already
            width, height = opened.tag_v2[256], opened.tag_v2[257]
        return (width, height) if _orientation(opened) >= 5 else (height, width)


@contextlib.contextmanager
def _damage_as_bad_input(data: bytes) -> Any:
    """Turn what Pillow raises on damaged bytes, which is nearly anything, into `BadInput`."""
    try:
        if not data:
            raise BadInput("truncated", "is empty")
        yield
    except BadInput:
        raise
    except _BOMBS as error:
        raise BadInput("bomb", str(error)) from error
    except UnidentifiedImageError as error:
        raise BadInput("format", f"is none of {', '.join(FORMATS)}") from error
    except Exception as error:
        cut = _lacks_bytes(data) or any(word in str(error).lower() for word in _CUT)
        message = f"cannot be decoded ({type(error).__name__}: {error})"
        raise BadInput("truncated" if cut else "corrupt", message) from error


def _lacks_bytes(data: bytes) -> bool:
    """Say whether a WebP is shorter than it declares; its decoder does not tell."""
    return data[:4] == b"RIFF" and len(data) < 8 + int.from_bytes(data[4:8], "little")


def _opened(data: bytes) -> Image.Image:
    """Read the header; refuse, before any pixel is decoded, what would fill the memory."""
    image = Image.open(io.BytesIO(data), formats=FORMATS)
    if image.width * image.height > PIXELS:
        raise BadInput(
            "bomb", f"declares {image.width} x {image.height} pixels, more than {PIXELS:,}"
        )
    return image


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 where there is none or it is damaged."""
    with contextlib.suppress(Exception):
        return int(image.getexif().get(0x0112, 1))
    return 1


def _upright(image: Image.Image) -> Image.Image:
    return ImageOps.exif_transpose(image) if 1 < _orientation(image) <= 8 else image


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and not image.has_transparency_data:
        return image
    if image.mode.startswith("I"):
        return _sixteen_bits(image).convert("RGB")
    if image.mode == "F":
        raise BadInput("mode", "holds floating-point values, whose range is unknown")
    if image.has_transparency_data:
        above = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, above).convert("RGB")
    return image.convert("RGB")


def _reversed(image: TiffImageFile) -> bool:
    """Say whether 0 is white in a TIFF of 16 bits, which Pillow does not see to as of 8.

    Raises
    ------
    BadInput
        If it holds integers of which no range is known: of other bits, or with a sign.
    """
    bits, signs = image.tag_v2.get(258, (1,))[0], image.tag_v2.get(339, (1,))
    if image.mode.startswith("I") and bits != 16:
        raise BadInput(
            "mode", f"holds integers of {bits} bits, whose range is unknown: use 8 or 16"
        )
    if bits == 8 and 2 in signs:
        raise BadInput(
            "mode", "holds signed integers of 8 bits, whose range is unknown: use unsigned"
        )
    return image.mode.startswith("I") and image.tag_v2.get(262) == 0


def _sixteen_bits(image: Image.Image) -> Image.Image:
    """Return the nearest 8-bit greys of 0 ... 65535."""
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise BadInput("mode", f"holds integers from {values.min()} to {values.max()}")
    values[values == image.info.get("transparency", -1)] = 65535  # lies on white
    return Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8))
