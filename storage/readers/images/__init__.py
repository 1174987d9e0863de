"""Bytes to images, one file a format family; where labels come from."""

from storage.readers.images.decoding import decode
from storage.readers.images.discovery import EXTENSIONS, discover_images
from storage.readers.images.framing import Fit, Framing
from storage.readers.images.picture import Picture
from storage.readers.images.reading import count_images, read_images, read_sizes

__all__ = [
    "EXTENSIONS",
    "Fit",
    "Framing",
    "Picture",
    "count_images",
    "decode",
    "discover_images",
    "read_images",
    "read_sizes",
]
