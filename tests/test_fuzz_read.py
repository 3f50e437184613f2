"""Mutated files: whatever a decoder makes of them, the outcome is a canonical picture or BadPicture."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from PIL import Image

import pictures
from meshkiln.engines.picture.read import decode, raw_picture
from meshkiln.errors import BadPicture

LIMIT = 1_000_000


def seeds() -> list[bytes]:
    rgb, rgba = Image.fromarray(pictures.gradient()), Image.fromarray(pictures.gradient(alpha=True))
    note = Image.Exif()
    note[0x0112] = 6
    frames = {"save_all": True, "append_images": [rgb.rotate(90), rgb.rotate(180)]}
    palette = rgb.quantize(16)
    return [
        pictures.file(rgb),
        pictures.file(rgba, exif=note),
        pictures.file(palette, transparency=3),
        pictures.file_of_16_bits(pictures.gradient().astype(np.uint16) * 257),
        pictures.file(rgb, **frames),
        pictures.file(rgb, "JPEG", exif=note),
        pictures.file(rgb, "JPEG", progressive=True, subsampling=0),
        pictures.file(rgb.convert("CMYK"), "JPEG"),
        pictures.file(rgba, "WEBP", exif=note),
        pictures.file(rgba, "WEBP", lossless=True),
        pictures.file(rgb, "WEBP", **frames),
        pictures.file(rgb, "TIFF"),
        pictures.file(rgba, "TIFF", compression="tiff_lzw", exif=note),
        pictures.file(rgb, "TIFF", compression="jpeg"),
        pictures.file(rgb.convert("1"), "TIFF", compression="group4"),
        pictures.file_of_16_bits(pictures.gradient().astype(np.uint16) * 257, ".tif"),
        pictures.file(rgb, "BMP"),
        pictures.file(palette, "BMP"),
        pictures.file(palette, "GIF", transparency=2),
        pictures.file(rgb, "GIF", **frames),
        raw_picture(pictures.gradient(alpha=True)),
    ]


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """One to four of: bytes changed (most often in the header), bits flipped, a cut, a piece moved, doubled or lost."""
    out = bytearray(data)
    for _ in range(rng.integers(1, 5)):
        if not out:
            break
        at = int(rng.integers(len(out))) if rng.random() < 0.5 else int(rng.integers(min(len(out), 128)))
        span = int(rng.integers(1, 17))
        kind = rng.integers(7)
        if kind == 0:
            out[at] = int(rng.integers(256))
        elif kind == 1:
            out[at] ^= 1 << int(rng.integers(8))
        elif kind == 2:
            edges = (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\x80\0", b"\1\0\0\0")
            out[at : at + 4] = edges[rng.integers(len(edges))]
        elif kind == 3:
            del out[at:]
        elif kind == 4:
            del out[at : at + span]
        elif kind == 5:
            out[at:at] = out[at : at + span]
        else:
            source = int(rng.integers(len(out)))
            out[at : at + span] = out[source : source + span]
    return bytes(out)


def fuzz(count: int, seed: int) -> None:
    originals = seeds()
    rng = np.random.default_rng(seed)
    decoded = 0
    sentences = []
    for number in range(count):
        data = mutated(originals[number % len(originals)], rng)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                pixels = decode(data, LIMIT)
        except BadPicture as error:
            sentences.append(str(error))
            continue
        except BaseException as error:
            raise AssertionError(f"picture {number} of seed {seed}: {data.hex()}") from error
        decoded += 1
        assert pixels.dtype == np.uint8
        assert pixels.ndim == 3
        assert pixels.shape[2] == 4
        assert 0 < pixels.shape[0] * pixels.shape[1] <= LIMIT
        assert pixels.flags.c_contiguous
        assert not pixels[pixels[..., 3] == 0].any()
    # Mutations that all pass or all fail would test nothing.
    assert decoded > count // 20
    assert len(sentences) > count // 20
    assert not any("\n" in sentence or len(sentence) > 400 for sentence in sentences)


def test_mutated_pictures() -> None:
    fuzz(1_000, seed=0)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(1, 6))
def test_very_many_mutated_pictures(seed: int) -> None:
    fuzz(5_000, seed)
