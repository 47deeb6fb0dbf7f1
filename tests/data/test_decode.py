"""Unusual but valid pictures are read correctly."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from headwise.data.decode import decode, decode_small, pillow_warnings
from headwise.data.read import read
from headwise.errors import HeadwiseError

from .conftest import bomb, encoded, picture


def save(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def test_cmyk_keeps_its_colours() -> None:
    red = Image.new("RGB", (16, 16), (250, 10, 10)).convert("CMYK")
    pixel = np.asarray(decode(save(red, "JPEG", quality=95)))[8, 8].astype(int)
    assert abs(pixel - [250, 10, 10]).max() < 12


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled(kind: str) -> None:
    deep = Image.fromarray(np.linspace(0, 65535, 256, dtype=np.uint16).reshape(16, 16))
    pixels = np.asarray(decode(save(deep, kind)))
    assert pixels[0, 0, 0] == 0
    assert pixels[-1, -1, 0] == 255
    assert abs(pixels[8, 0, 1].astype(int) - 128) <= 1


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.linspace(0, 1, 256, dtype=np.float32), np.arange(256)),
        (np.linspace(0, 0.2, 52, dtype=np.float32), np.arange(52)),  # dark, and still not black
        (np.arange(256, dtype=np.float32), np.arange(256)),
        (np.arange(0, 65536, 257, dtype=np.float32), np.arange(256)),
        (np.arange(256, dtype=np.uint16), np.arange(256)),
        (np.arange(0, 65536, 257, dtype=np.uint16), np.arange(256)),
        (np.arange(256, dtype=np.int32), np.arange(256)),
        (np.arange(0, 65536, 257, dtype=np.int32), np.arange(256)),
        (np.zeros(4, np.float32), np.zeros(4)),
    ],
)
def test_deep_pictures_keep_their_brightness(values: np.ndarray, expected: np.ndarray) -> None:
    data = save(Image.fromarray(values[None]), "TIFF")
    with pillow_warnings():
        pixels = np.asarray(decode(data)).astype(int)
        small = np.asarray(decode_small(data, 8)).astype(int)
    assert np.array_equal(pixels[0], np.stack([expected] * 3, 1))
    assert np.array_equal(small, pixels)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (np.array([-1.0, 1.0], np.float32), "values from -1 to 1"),
        (np.array([0.0, np.nan], np.float32), "values from nan to nan"),
        (np.array([0.0, 1e9], np.float32), "to 1e.09"),
        (np.array([0, 1 << 30], np.int32), "values from 0 to"),
        (np.array([-5, 10], np.int32), "values from -5 to 10"),
        (np.array([0, 4095], np.uint16), "values up to 4095 of 65535"),  # 12 bits
    ],
)
def test_deep_pictures_of_another_range_are_refused(values: np.ndarray, says: str) -> None:
    with pillow_warnings(), pytest.raises(HeadwiseError, match=says):
        decode(save(Image.fromarray(values[None]), "TIFF"))


def test_the_first_frame_of_an_animation() -> None:
    first, second = Image.new("RGB", (8, 8), (255, 0, 0)), Image.new("RGB", (8, 8), (0, 0, 255))
    data = save(first, "GIF", save_all=True, append_images=[second])
    assert decode(data).getpixel((4, 4)) == (255, 0, 0)


def test_exif_orientation_is_applied() -> None:
    image = picture(1, (20, 10))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it a quarter turn clockwise
    upright = decode(save(image, "PNG", exif=exif))
    assert upright.size == (10, 20)
    assert np.array_equal(np.asarray(upright), np.rot90(np.asarray(image), -1))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA"])
def test_other_modes_become_rgb_as_pillow_converts_them(mode: str) -> None:
    image = picture(2).convert(mode)
    assert np.array_equal(np.asarray(decode(save(image, "PNG"))), np.asarray(image.convert("RGB")))


def test_a_huge_picture_is_refused_by_its_header() -> None:
    with pillow_warnings(), pytest.raises(HeadwiseError, match="decompression bomb"):
        decode(bomb())


def sixteen(values: np.ndarray) -> bytes:
    """A PNG of 16 bits a colour, (h, w, 2 or 3) uint16; Pillow writes none."""

    def part(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    h, w, colours = values.shape
    header = struct.pack(">IIBBBBB", w, h, 16, {3: 2, 2: 4}[colours], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", header) + part(b"IDAT", zlib.compress(rows)) + part(b"IEND", b"")


@pytest.mark.parametrize("colours", [2, 3])
def test_16_bit_colour_of_fewer_bits_is_refused(colours: int) -> None:
    values = np.random.default_rng(0).integers(0, 256, (8, 8, colours))
    bright = np.asarray(decode(sixteen(values * 257)))
    assert (bright[..., 0] == values[..., 0]).all()
    for factor in (1, 15):  # 8 and 12 bits: all black, or almost
        with pytest.raises(HeadwiseError, match="would be almost black"):
            decode(sixteen(values * factor))


def test_memory_that_is_short_is_no_fault_of_the_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    def short(*_args: object) -> None:
        raise MemoryError

    data = encoded(1)
    monkeypatch.setattr(Image.Image, "convert", short)
    for made in (decode, lambda data: decode_small(data, 8)):
        with pytest.raises(MemoryError):
            made(data)


def test_what_was_refused_is_looked_at_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A later Pillow, or another limit of pixels, may read it."""
    for i in range(3):
        (tmp_path / f"{i}.png").write_bytes(encoded(i))
    rows = [(f"{tmp_path}/{i}.png", f"text {i}") for i in range(3)]
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(HeadwiseError, match="more than 100 pixels"):
        read(rows)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert len(read(rows)) == 3
    assert len({image.look for image in read(rows).images}) == 3  # as they look, not as what was not read
