"""Image files that a shop's upload form lets through and that must harm nobody."""

import struct
import zlib


def hostile_images(good: bytes) -> dict[str, bytes]:
    """What is wrong with it -> the bytes of a file that is no usable image.

    Args:
        good: A usable image file.
    """
    return {
        "text": b"this is no picture",
        "zeros": b"\0" * 1_000,
        "three bytes of a JPEG": b"\xff\xd8\xff",
        "a JPEG cut after its header": _jpeg(64, 64)[:30],
        "a JPEG without data": _jpeg(64, 64),
        "a JPEG of 60,000 x 60,000 pixels": _jpeg(60_000, 60_000),
        "a PNG cut after its header": _png(64, 64)[:40],
        "a PNG with a bad checksum": _png(64, 64, damaged=True),
        "a PNG of 20,000 x 20,000 pixels": _png(20_000, 20_000),
        "a PNG of negative size": _png(-1, -1 & 0xFFFFFFFF),
        "a GIF without frames": b"GIF89a" + struct.pack("<HHBBB", 8, 8, 0, 0, 0) + b";",
        "a GIF of 300 KB": b"GIF89a" + struct.pack("<HH", 8, 8) + b"\0" * 300_000,
        "a BMP that says it is larger than it is": b"BM"
        + struct.pack("<IHHIIiiHHIIiiII", 80, 0, 0, 54, 40, 500, 500, 1, 24, *6 * [0]),
        "a BMP of 30,000 x 30,000 pixels": b"BM"
        + struct.pack(
            "<IHHIIiiHHIIiiII", 80, 0, 0, 54, 40, 30_000, -30_000, 1, 24, *6 * [0]
        ),
        "a WebP cut after its header": b"RIFF\x40\0\0\0WEBPVP8 \x34\0\0\0" + b"\0" * 6,
        "a WebP of 16,000 x 16,000 pixels": b"RIFF\x40\0\0\0WEBPVP8X\x0a\0\0\0"
        + b"\0" * 4
        + (15_999).to_bytes(3, "little") * 2,
        "a good image cut to a tenth": good[: len(good) // 10],
    }


def _jpeg(width: int, height: int) -> bytes:
    """A JPEG's headers, and no picture."""
    frame = struct.pack(">HBHHB", 17, 8, height, width, 3)
    frame += b"\x01\x11\x00\x02\x11\x00\x03\x11\x00"
    header = struct.pack(">H", 16) + b"JFIF\0\x01\x01\0\0\x01\0\x01\0\0"
    return b"\xff\xd8\xff\xe0" + header + b"\xff\xc0" + frame + b"\xff\xd9"


def _png(width: int, height: int, damaged: bool = False) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        check = zlib.crc32(kind + content) ^ (0xFFFF if damaged else 0)
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)
        )

    size = struct.pack(">II", width & 0xFFFFFFFF, height & 0xFFFFFFFF)
    lines = zlib.compress(b"\0" * 1_000)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", size + b"\x08\x02\0\0\0")
        + chunk(b"IDAT", lines)
        + chunk(b"IEND", b"")
    )
