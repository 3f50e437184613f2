from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps

import canary
import pictures
from meshkiln.engines.base import Work
from meshkiln.engines.picture import READ
from meshkiln.engines.picture.read import decode, raw_picture
from meshkiln.errors import BadPicture


def opaque(pixels: pictures.Pixels) -> pictures.Pixels:
    return np.dstack([pixels, np.full(pixels.shape[:2], 255, np.uint8)])


def exif(orientation: int) -> bytes:
    block = Image.Exif()
    block[0x0112] = orientation
    return block.tobytes()


def srgb_profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def wide_profile() -> bytes:
    """A profile with the primaries of Adobe RGB (1998), made by swapping the colorants of an sRGB one."""
    data = bytearray(srgb_profile())
    colorants = {b"rXYZ": (0.60974, 0.31111, 0.01947), b"gXYZ": (0.20528, 0.62567, 0.06087)}
    colorants[b"bXYZ"] = (0.14919, 0.06322, 0.74457)
    for k in range(struct.unpack(">I", data[128:132])[0]):
        tag, offset, _ = struct.unpack(">4sII", data[132 + 12 * k : 144 + 12 * k])
        if tag in colorants:
            data[offset + 8 : offset + 20] = struct.pack(">3i", *(round(v * 65536) for v in colorants[tag]))
    return bytes(data)


def test_read_is_a_stage() -> None:
    pixels = pictures.gradient()
    works = [Work((pictures.file(pixels, format),), {}) for format in ("PNG", "BMP")]
    for value in READ.load()(works):
        assert isinstance(value, dict)
        np.testing.assert_array_equal(value["pixels"], opaque(pixels))


@pytest.mark.parametrize("alpha", [False, True])
def test_equal_pixels_meet_whatever_file_carried_them(alpha: bool) -> None:
    image = Image.fromarray(pictures.gradient(alpha=alpha))
    note = Image.Exif()
    note[0x010E] = "a description"
    files = [
        pictures.file(image),
        pictures.file(image, compress_level=0, dpi=(300, 300), icc_profile=srgb_profile(), exif=note),
        pictures.file(image, "WEBP", lossless=True, exif=note),
        pictures.file(image, "WEBP", lossless=True, exact=True),
        pictures.file(image, "TIFF"),
        pictures.file(image, "TIFF", compression="tiff_lzw", icc_profile=srgb_profile()),
    ]
    if not alpha:  # what Pillow reads of a BMP has no alpha
        files.append(pictures.file(image, "BMP"))
    outputs = {decode(data).tobytes() for data in files} | {decode(raw_picture(image)).tobytes()}
    assert len(outputs) == 1


def test_colour_under_zero_alpha_is_nobody_s_business() -> None:
    pixels = pictures.gradient(alpha=True)
    other = pixels.copy()
    other[other[..., 3] == 0] = (9, 8, 7, 0)
    read = decode(pictures.file(other))
    np.testing.assert_array_equal(read, decode(pictures.file(pixels)))
    assert not read[read[..., 3] == 0].any()


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied(format: str, orientation: int) -> None:
    options = {"lossless": True} if format == "WEBP" else {}
    data = pictures.file(pictures.gradient(19, 31), format, exif=exif(orientation), **options)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGBA")
    np.testing.assert_array_equal(decode(data), np.asarray(expected))


def test_a_colour_profile_is_applied_and_a_broken_one_is_srgb() -> None:
    pixels = pictures.gradient()
    plain = opaque(pixels)
    wide = decode(pictures.file(pixels, icc_profile=wide_profile()))
    np.testing.assert_array_equal(wide[..., 3], plain[..., 3])
    assert np.abs(wide.astype(int) - plain).max() > 20
    # Neutral colours are neutral in both; Adobe RGB's green is greener than sRGB can show.
    grey = decode(pictures.file(np.full((2, 2, 3), 128, np.uint8), icc_profile=wide_profile()))
    assert np.abs(grey[..., :3].astype(int) - 128).max() <= 3
    for broken in (b"not a profile", wide_profile()[:200]):
        np.testing.assert_array_equal(decode(pictures.file(pixels, icc_profile=broken)), plain)


def test_sixteen_bits_are_scaled() -> None:
    eight = pictures.gradient(alpha=True)
    wide = eight.astype(np.uint16) * 257
    for extension in (".png", ".tif"):
        grey = decode(pictures.file_of_16_bits(wide[..., 0], extension))
        np.testing.assert_array_equal(grey, opaque(np.dstack([eight[..., 0]] * 3)))
        np.testing.assert_array_equal(
            decode(pictures.file_of_16_bits(wide[..., :3], extension)), opaque(eight[..., :3])
        )
    read = decode(pictures.file_of_16_bits(wide))
    np.testing.assert_array_equal(read, decode(pictures.file(eight)))


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, depth: int, kind: int, rows: bytes, *chunks: bytes) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0))
    image = chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + image + chunk(b"IEND", b"")


def test_a_transparent_colour_of_sixteen_bits() -> None:
    grey = png(2, 1, 16, 0, b"\0" + struct.pack(">2H", 0x1234, 0x8000), chunk(b"tRNS", struct.pack(">H", 0x1234)))
    assert decode(grey).tolist() == [[[0, 0, 0, 0], [0x80, 0x80, 0x80, 255]]]
    key = struct.pack(">3H", 0x1200, 0x3400, 0x5600)
    colour = png(2, 1, 16, 2, b"\0" + key + struct.pack(">3H", 0x8000, 0, 0), chunk(b"tRNS", key))
    assert decode(colour).tolist() == [[[0, 0, 0, 0], [0x80, 0, 0, 255]]]


@pytest.mark.parametrize(
    ("depth", "kind", "row", "clear", "alphas"),
    [
        (1, 0, [0b0100_0000], [1], [255, 0]),
        (2, 0, [0b0111_0000], [1], [0, 255]),
        (4, 0, [0x7F], [15], [255, 0]),
        (8, 0, [7, 8], [7], [0, 255]),
        (16, 0, [0x00, 0x34, 0x00, 0x35], [0x34], [0, 255]),
        (8, 2, [1, 2, 3, 1, 2, 4], [1, 2, 3], [0, 255]),
        (16, 2, [0, 0, 0, 0, 0, 200, 128, 0, 0, 0, 0, 0], [0, 0, 200], [0, 255]),
        (16, 2, [1, 0, 2, 0, 3, 0, 128, 0, 0, 0, 0, 0], [0x100, 0x200, 0x300], [0, 255]),
    ],
)
def test_a_transparent_colour_is_in_the_files_bits(
    depth: int, kind: int, row: list[int], clear: list[int], alphas: list[int]
) -> None:
    told = chunk(b"tRNS", struct.pack(f">{len(clear)}H", *clear))
    data = png(2, 1, depth, kind, bytes([0, *row]), told)
    assert decode(data)[0, :, 3].tolist() == alphas
    in_memory = READ.load()([Work((raw_picture(Image.open(io.BytesIO(data))),), {})])[0]["pixels"]
    assert in_memory[0, :, 3].tolist() == alphas


@pytest.mark.parametrize("depth", [2, 4, 8])
def test_a_palettes_colours_have_their_alphas(depth: int) -> None:
    row = {2: [0b0001_1000], 4: [0x01, 0x20], 8: [0, 1, 2]}[depth]
    colours = chunk(b"PLTE", bytes([9, 8, 7, 1, 2, 3, 200, 100, 50]))
    read = decode(png(3, 1, depth, 3, bytes([0, *row]), colours, chunk(b"tRNS", bytes([0, 128]))))
    assert read.tolist() == [[[0, 0, 0, 0], [1, 2, 3, 128], [200, 100, 50, 255]]]


def test_palettes_grey_and_cmyk() -> None:
    cut = np.zeros((8, 8, 4), np.uint8)
    cut[2:6, 2:6] = (200, 30, 40, 255)
    palette = Image.fromarray(cut[..., 3] // 255, "P")
    palette.putpalette([7, 7, 7, 200, 30, 40])
    for format in ("PNG", "GIF"):
        np.testing.assert_array_equal(decode(pictures.file(palette, format, transparency=0)), cut)
    two = Image.fromarray(pictures.gradient(alpha=True)).convert("LA")
    read = decode(pictures.file(two))
    np.testing.assert_array_equal(read[..., 3], np.asarray(two)[..., 1])
    shown = read[..., 3] > 0
    np.testing.assert_array_equal(read[shown][:, 1], np.asarray(two)[shown][:, 0])
    np.testing.assert_array_equal(decode(pictures.file(Image.new("1", (3, 2), 1)))[0, 0], [255, 255, 255, 255])
    ink = np.zeros((16, 16, 4), np.uint8)
    ink[..., 1] = 255  # all magenta
    for format in ("TIFF", "JPEG"):
        red, green, blue, alpha = decode(pictures.file(Image.fromarray(ink, "CMYK"), format))[8, 8]
        assert red > 200
        assert green < 30
        assert blue > 100
        assert alpha == 255


@pytest.mark.parametrize(("format", "options"), [("GIF", {}), ("WEBP", {"lossless": True}), ("PNG", {}), ("TIFF", {})])
def test_of_an_animation_the_first_frame(format: str, options: dict[str, bool]) -> None:
    frames = [Image.new("RGB", (6, 4), colour) for colour in ("red", "lime", "blue")]
    data = pictures.file(frames[0], format, save_all=True, append_images=frames[1:], **options)
    np.testing.assert_array_equal(decode(data), opaque(np.asarray(frames[0])))


def test_pictures_in_memory() -> None:
    pixels = pictures.gradient(alpha=True)
    same = [
        decode(raw_picture(pixels)),
        decode(raw_picture(Image.fromarray(pixels))),
        decode(raw_picture(pixels.astype(np.uint16) * 257)),
        decode(raw_picture(pixels / 255)),
        decode(raw_picture(np.asfortranarray(pixels))),
        decode(pictures.file(pixels)),
    ]
    for other in same[1:]:
        np.testing.assert_array_equal(same[0], other)
    np.testing.assert_array_equal(decode(raw_picture(pixels[..., 0])), opaque(np.dstack([pixels[..., 0]] * 3)))
    np.testing.assert_array_equal(decode(raw_picture(pixels[..., :2]))[..., 3], pixels[..., 1])
    turned = Image.fromarray(pixels[..., :3])
    turned.getexif()[0x0112] = 6
    assert decode(raw_picture(turned)).shape == (40, 24, 4)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 4, 5), np.uint8),
        np.zeros(4, np.uint8),
        np.zeros((4, 4), np.int32),
        np.full((4, 4), 1.5),
        np.full((4, 4), np.nan),
    ],
)
def test_arrays_that_are_no_picture(array: np.ndarray) -> None:
    with pytest.raises(BadPicture, match=r"picture"):
        raw_picture(array)


def bomb() -> bytes:
    return png(30_000, 30_000, 8, 2, b"")


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "empty"),
        (b"hello, I am a text file", "not a picture but text;"),
        (b"\0\0\0\x1cftypavif\0\0\0\0avifmif1", "AVIF is an unsupported format"),
        (b"%PDF-1.7 ...", "PDF is an unsupported format"),
        (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', "SVG is an unsupported format"),
        (b"\x89PNG\r\n\x1a\n", "truncated or damaged"),
        (bomb(), "limit"),
        (png(9_000, 9_000, 8, 2, b""), r"81\.0 million pixels, more than the limit of 64 million"),
        (raw_picture(np.zeros((4, 4), np.uint8))[:-3], "not a picture"),
    ],
    ids=["empty", "text", "avif", "pdf", "svg", "header only", "bomb", "over the limit", "cut raw"],
)
def test_bad_files_get_one_clear_sentence(data: bytes, sentence: str) -> None:
    with pytest.raises(BadPicture, match=sentence) as caught:
        decode(data)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ("\ufeffgrüße".encode() * 200, "not a picture but text;"),
        (b"\n <!DOCTYPE html><html><body>404", "not a picture but a page of HTML;"),
        (b'<?xml version="1.0"?><note/>', "not a picture but XML;"),
        (b'{"image": "iVBORw0KGgo="}', "not a picture but JSON;"),
        (b"data:image/png;base64,iVBORw0KGgo=", "not a picture but a data: URL"),
        (b"PK\x03\x04\x14\0\0\0", "not a picture but a zip file"),
        (b"glTF\x02\0\0\0", "not a picture but a GLB file"),
        (b"\0\0\0\x20ftypisom\0\0\x02\0", "not a picture but a film"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC is an unsupported format"),
        (b"\x01\x02\x03\x04\xfe\xff", "not a picture but a file of an unknown kind;"),
        (b"text\0with a hole", "not a picture but a file of an unknown kind;"),
    ],
)
def test_what_is_no_picture_is_named_in_words(data: bytes, sentence: str) -> None:
    with pytest.raises(BadPicture, match=sentence) as caught:
        decode(data)
    assert "b'" not in str(caught.value)


@pytest.mark.parametrize(
    ("format", "options"),
    [
        ("PNG", {}),
        ("JPEG", {"quality": 90}),
        ("JPEG", {"progressive": True}),
        ("WEBP", {"lossless": True}),
        ("WEBP", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("BMP", {}),
        ("GIF", {}),
    ],
)
def test_a_truncated_file_is_never_half_a_picture(format: str, options: dict[str, object]) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    data = pictures.file(noise, format, **options)
    whole = decode(data)
    for share in (0.02, 0.1, 0.5, 0.9):
        with pytest.raises(BadPicture, match=r"truncated|not a picture"):
            decode(data[: int(share * len(data))])
    # What is missing at the very end may be no more than a trailer: then the picture is whole.
    try:
        last = decode(data[:-1])
    except BadPicture:
        return
    np.testing.assert_array_equal(last, whole)


def test_thirty_two_bits_are_refused() -> None:
    with pytest.raises(BadPicture, match="32 bits"):
        decode(pictures.file(Image.new("F", (4, 4), 0.5), "TIFF"))


def test_a_picture_of_one_pixel() -> None:
    assert decode(pictures.file(Image.new("RGB", (1, 1), (1, 2, 3)))).tolist() == [[[1, 2, 3, 255]]]


def test_fifty_megapixels_take_ten_bytes_a_pixel() -> None:
    # In a process of its own, whose peak is its own; what the modules take is subtracted.
    program = """
import io, resource, sys
from PIL import Image
from meshkiln.engines.picture.read import decode
data = sys.stdin.buffer.read()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert decode(data).shape == (8660, 5774, 4)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    data = pictures.file(Image.new("RGB", (5774, 8660), (40, 80, 120)), "PNG", compress_level=1)
    done = subprocess.run([sys.executable, "-c", program], input=data, capture_output=True, check=True)
    kibibytes = int(done.stdout)
    assert kibibytes * 1024 < 10 * 5774 * 8660


def test_canary() -> None:
    cut = Image.fromarray(pictures.gradient(alpha=True))
    cases = {
        "png": pictures.file(cut),
        "webp": pictures.file(cut, "WEBP", lossless=True),
        "palette": pictures.file(Image.fromarray(pictures.ring(32).astype(np.uint8) * 200).convert("P"), "GIF"),
        "16 bits": pictures.file_of_16_bits(pictures.gradient().astype(np.uint16) * 257),
        "turned": pictures.file(pictures.gradient(), exif=exif(6)),
        "raw": raw_picture(pictures.gradient()),
    }
    values = READ.load()([Work((data,), {}) for data in cases.values()])
    canary.check(READ, dict(zip(cases, values, strict=True)))
