"""Stage `read`: the bytes of a picture file as canonical pixels, so that equal pictures meet whatever carried them.

Canonical is: first frame, upright (EXIF orientation applied), 8 bits, sRGB, straight alpha, colour zeroed where alpha
is zero. Files are decoded by Pillow; the number of pixels is checked before anything is decoded.
"""

from __future__ import annotations

import codecs
import io
import os
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, UnidentifiedImageError

from meshkiln.engines.codec import ARRAYS, pack, unpack
from meshkiln.errors import BadPicture
from meshkiln.settings import from_variable

if TYPE_CHECKING:
    from meshkiln.engines.base import Value, Work

FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF")
"""What is decoded, by Pillow's names. Everything else is refused before a decoder sees it."""

MAX_PIXELS = 64_000_000
"""Larger pictures are refused before decoding: at 8 bytes a pixel this is 512 MB while one is read."""

# First bytes of what people also call a picture, so that the refusal can name it.
_OTHERS = (
    (4, b"ftypavif", "AVIF"),
    (4, b"ftypavis", "AVIF"),
    (4, b"ftyphei", "HEIC"),
    (4, b"ftyphev", "HEIC"),
    (4, b"ftypmif1", "HEIC"),
    (0, b"\xff\x0a", "JPEG XL"),
    (4, b"JXL ", "JPEG XL"),
    (4, b"jP  ", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (0, b"%PDF", "PDF"),
    (0, b"%!PS", "PostScript"),
    (0, b"8BPS", "Photoshop"),
    (0, b"\x00\x00\x01\x00", "ICO"),
    (0, b"\x76\x2f\x31\x01", "OpenEXR"),
    (0, b"#?RADIANCE", "Radiance HDR"),
    (0, b"qoif", "QOI"),
    (0, b"DDS ", "DDS"),
    (0, b"P3", "PPM"),
    (0, b"P5", "PGM"),
    (0, b"P6", "PPM"),
)

# First bytes of what people send by mistake, in the words in which they would know it.
_NO_PICTURES = (
    (0, b"PK\x03\x04", "a zip file, or a document that is one"),
    (0, b"PK\x05\x06", "an empty zip file"),
    (0, b"\x1f\x8b", "a gzip file"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z file"),
    (0, b"Rar!", "a RAR file"),
    (0, b"glTF", "a GLB file, which holds a mesh"),
    (0, b"ply\n", "a PLY file, which holds a mesh"),
    (0, b"ply\r", "a PLY file, which holds a mesh"),
    (4, b"ftyp", "a film"),
    (0, b"\x1aE\xdf\xa3", "a film"),
    (0, b"RIFF", "a film or a sound"),
    (0, b"OggS", "a film or a sound"),
    (0, b"ID3", "a sound"),
    (0, b"\x7fELF", "a program"),
)

_OURS = (
    (0, b"\x89PNG\r\n\x1a\n"),
    (0, b"\xff\xd8\xff"),
    (8, b"WEBP"),
    (0, b"II*\x00"),
    (0, b"MM\x00*"),
    (0, b"II+\x00"),
    (0, b"MM\x00+"),
    (0, b"BM"),
    (0, b"GIF8"),
)

_STRIP = 1 << 20
"""Pixels converted at a time: large enough to be fast, small enough that a 50 MP picture costs no second copy."""


def read(batch: Sequence[Work]) -> list[Value]:
    """One {"pixels": (H, W, 4) uint8} for each item, whose input is the bytes of a picture file or of `raw_picture`.

    Raises BadPicture, as `decode` does.
    """
    return [{"pixels": decode(work.inputs[0], _most_pixels())} for work in batch]


def _most_pixels() -> int:
    """What the variable of the setting `picture_pixels` says; a server sets it for its workers. Raises BadParameter."""
    said = from_variable("picture_pixels", os.environ, MAX_PIXELS)
    return MAX_PIXELS if said is None else cast("int", said)


def decode(data: bytes, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """The canonical pixels of a picture file: (H, W, 4) uint8, sRGB, straight alpha, C-contiguous.

    data : a PNG, JPEG, WebP, TIFF, BMP or GIF file, or what `raw_picture` returned
    Raises BadPicture when it is empty, not a picture, of another format, truncated or damaged, has more than
    `max_pixels` pixels, or holds samples of more than 16 bits.
    """
    if not data:
        raise BadPicture("the picture is empty (0 bytes); give a PNG, JPEG, WebP, TIFF, BMP or GIF file")
    if not any(data.startswith(magic, offset) for offset, magic in _OURS):
        if (pixels := _raw(data)) is not None:
            _check_size(pixels.shape[1], pixels.shape[0], max_pixels)
            return pixels
        raise BadPicture(_refusal(data))
    try:
        # Named formats only: Pillow would otherwise try some forty, one of which calls an external program.
        with warnings.catch_warnings():
            # Our own limit is checked below, with a sentence of its own.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image: Image.Image = Image.open(io.BytesIO(data), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise BadPicture(
            f"the picture has more than {max_pixels / 1e6:g} million pixels, the limit; give a smaller one"
        ) from None
    except Exception as error:  # decoders raise whatever the damage leads them to
        raise BadPicture(_damaged(data, error)) from None
    with image:
        _check_size(*image.size, max_pixels)
        try:
            _scale_clear_colour(image)
            image.load()
            return _canonical(image)
        except BadPicture:
            raise
        except Exception as error:
            raise BadPicture(_damaged(data, error)) from None


def raw_picture(picture: Any) -> bytes:
    """Bytes that `read` takes for a picture that is in memory and not in a file; equal pictures give equal bytes.

    picture : a PIL image (its orientation and colour profile are applied), or an array (H, W), (H, W, 1) grey,
        (H, W, 2) grey and alpha, (H, W, 3) RGB or (H, W, 4) RGBA with straight alpha; bool, uint8, uint16, or
        floating point in [0, 1]; sRGB
    Raises BadPicture for another shape or type, an empty array or numbers outside [0, 1].
    """
    if isinstance(picture, Image.Image):
        _check_size(*picture.size, MAX_PIXELS)
        try:
            _scale_clear_colour(picture)
            picture.load()
        except OSError as error:
            raise BadPicture(f"the image cannot be decoded: {error}") from None
        return pack({"pixels": _canonical(picture)})
    array = np.asarray(picture)
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or not 1 <= array.shape[2] <= 4 or 0 in array.shape:
        raise BadPicture(f"an array of shape {np.shape(picture)} is not a picture; give (H, W), or (H, W, 1 to 4)")
    _check_size(array.shape[1], array.shape[0], MAX_PIXELS)
    eight = _eight_bits(array)
    pixels = np.full((*eight.shape[:2], 4), 255, np.uint8)
    colours = 1 if eight.shape[2] < 3 else 3
    pixels[..., :3] = eight[..., :colours]
    if eight.shape[2] in (2, 4):
        pixels[..., 3] = eight[..., -1]
    _zero_under_alpha(pixels)
    return pack({"pixels": pixels})


def _eight_bits(array: NDArray[Any]) -> NDArray[np.uint8]:
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype == np.uint16:
        return (array >> 8).astype(np.uint8)
    if np.issubdtype(array.dtype, np.floating):
        low, high = float(array.min()), float(array.max())
        if not (low >= 0 and high <= 1):  # written so that NaN fails too
            raise BadPicture(
                f"a floating-point picture has values in [0, 1]; this one reaches from {low:g} to {high:g}"
            )
        return cast("NDArray[np.uint8]", np.rint(array * 255).astype(np.uint8))
    raise BadPicture(
        f"an array of {array.dtype} is not a picture; give bool, uint8, uint16 or floating point in [0, 1]"
    )


def _raw(data: bytes) -> NDArray[np.uint8] | None:
    if data[8:9] != b"{":
        return None
    try:
        value = unpack(data, ARRAYS)
    except ValueError:
        return None
    pixels = value.get("pixels") if isinstance(value, dict) else None
    if pixels is None or pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 4 or 0 in pixels.shape:
        return None
    pixels = np.array(pixels, order="C")
    _zero_under_alpha(pixels)
    return pixels


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise BadPicture(
            f"the picture has {width} × {height} = {width * height / 1e6:.1f} million pixels, "
            f"more than the limit of {max_pixels / 1e6:g} million; give a smaller one"
        )


def _refusal(data: bytes) -> str:
    wanted = "give a PNG, JPEG, WebP, TIFF, BMP or GIF file"
    for offset, magic, name in _OTHERS:
        if data.startswith(magic, offset):
            return f"{name} is an unsupported format; {wanted}"
    if b"<svg" in data[:1024]:
        return f"SVG is an unsupported format; {wanted}"
    return f"this is not a picture but {_kind(data)}; {wanted}"


def _kind(data: bytes) -> str:
    """What a file that is no picture is, in words."""
    for offset, magic, name in _NO_PICTURES:
        if data.startswith(magic, offset):
            return name
    # A character may be cut by the end of the piece that is looked at, which final=False lets pass.
    try:
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(data[:1024])
    except UnicodeDecodeError:
        return "a file of an unknown kind"
    if any(character < " " and character not in "\t\n\f\r" for character in text):
        return "a file of an unknown kind"
    start = text.lstrip().lower()
    if start.startswith(("<!doctype html", "<html", "<head", "<body")):
        return "a page of HTML"
    if start.startswith("<"):
        return "XML"
    if start.startswith(("{", "[")):
        return "JSON"
    if start.startswith("data:"):
        return "a data: URL, whose content has to be decoded first"
    return "text"


def _damaged(data: bytes, error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return f"the picture's header cannot be read: the file is truncated or damaged ({len(data)} bytes)"
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return f"the picture is truncated or damaged and cannot be decoded ({len(data)} bytes: {reason})"


def _canonical(image: Image.Image) -> NDArray[np.uint8]:
    """Canonical pixels of a loaded image, converted strip by strip into the upright array."""
    width, height = image.size
    orientation = _orientation(image)
    upright = (width, height) if orientation >= 5 else (height, width)
    pixels = np.empty((*upright, 4), np.uint8)
    stored = _as_stored(pixels, orientation)
    convert = _converter(image)
    rows = max(1, _STRIP // width)
    for top in range(0, height, rows):
        bottom = min(height, top + rows)
        strip = convert(image.crop((0, top, width, bottom)))
        _zero_under_alpha(strip)
        stored[top:bottom] = strip
    return pixels


def _scale_clear_colour(image: Image.Image) -> None:
    """Have a PNG's transparent colour be told in 8 bits, as Pillow decodes its pixels, and not in the file's own.

    To be called before the image is loaded: while it still knows what the file has.
    """
    clear = image.info.get("transparency")
    tiles = getattr(image, "tile", None) if image.format == "PNG" else None
    samples = tiles[0].args if tiles else None
    if isinstance(clear, tuple) and (samples == "RGB;16B" or max(clear) > 255):
        image.info["transparency"] = tuple(value >> 8 for value in clear)
    elif isinstance(clear, int) and samples in ("L;2", "L;4"):
        image.info["transparency"] = clear * (85 if samples == "L;2" else 17)


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(0x0112, 1)
    except Exception:  # a broken EXIF block says nothing
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _as_stored(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """A view of the upright `pixels` in the order in which a file of that EXIF orientation stores them."""
    turned = pixels.swapaxes(0, 1)
    return {
        1: pixels,
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: turned,
        6: turned[::-1],
        7: turned[::-1, ::-1],
        8: turned[:, ::-1],
    }[orientation]


def _converter(image: Image.Image) -> Callable[[Image.Image], NDArray[np.uint8]]:
    """What turns a strip of `image` into (h, w, 4) uint8 sRGB."""
    mode = image.mode
    if mode.startswith("I;16"):
        return _from_sixteen_bits
    if mode in ("I", "F"):
        raise BadPicture(
            "the picture's samples have 32 bits, which is unsupported; save it with 8 or 16 bits a channel"
        )
    space, source = {"CMYK": ("CMYK", "CMYK"), "LAB": ("Lab", "LAB"), "L": ("GRAY", "L"), "LA": ("GRAY", "L")}.get(
        mode, ("RGB", "RGB")
    )
    transform = _to_srgb(image.info.get("icc_profile"), space, source)

    def convert(strip: Image.Image) -> NDArray[np.uint8]:
        if transform is None:
            return np.array(strip.convert("RGBA"))
        if source in ("CMYK", "LAB"):
            return np.array(_applied(transform, strip).convert("RGBA"))
        rgba = strip.convert("RGBA")
        pixels = np.array(rgba)
        pixels[..., :3] = np.asarray(_applied(transform, rgba.convert(source)))
        return pixels

    return convert


def _from_sixteen_bits(strip: Image.Image) -> NDArray[np.uint8]:
    # The high byte, as Pillow and libpng do for 16-bit colour; Pillow's own conversion of grey would clip at 255.
    grey = np.asarray(strip)
    pixels = np.full((*grey.shape, 4), 255, np.uint8)
    pixels[..., :3] = (grey >> 8).astype(np.uint8)[..., None]
    clear = strip.info.get("transparency")
    if isinstance(clear, int):
        pixels[..., 3] = np.where(grey == clear, 0, 255)
    return pixels


def _to_srgb(icc: object, space: str, source: str) -> ImageCms.ImageCmsTransform | None:
    """The transform of an embedded profile to sRGB; None when there is none, it is sRGB itself, or it is unusable."""
    try:
        if isinstance(icc, bytes) and icc:
            profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        elif source == "LAB":
            profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
        else:
            return None
        if profile.profile.xcolor_space.strip() != space:
            return None
        transform = ImageCms.buildTransform(
            profile,
            ImageCms.createProfile("sRGB"),
            source,
            "RGB",
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
        return None if source == "RGB" and _is_identity(transform) else transform
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None


def _applied(transform: ImageCms.ImageCmsTransform, image: Image.Image) -> Image.Image:
    return cast(Image.Image, ImageCms.applyTransform(image, transform))  # None only when working in place


def _is_identity(transform: ImageCms.ImageCmsTransform) -> bool:
    """Whether a profile is sRGB under one of its many names: then applying it would only add rounding errors."""
    levels = np.linspace(0, 255, 9).round().astype(np.uint8)
    cube = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(1, -1, 3)
    seen = np.asarray(_applied(transform, Image.fromarray(cube)))
    return int(np.abs(seen.astype(np.int16) - cube).max()) <= 2


def _zero_under_alpha(pixels: NDArray[np.uint8]) -> None:
    pixels[pixels[..., 3] == 0] = 0
