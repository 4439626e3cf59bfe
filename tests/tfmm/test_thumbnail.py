import base64
import io

import pytest
from PIL import Image

from tfmm.thumbnail import SIDE_PX, thumbnail

ORIENTATION = 0x0112  # the EXIF tag


def opened(uri):
    encoded = uri.removeprefix("data:image/jpeg;base64,")
    return Image.open(io.BytesIO(base64.b64decode(encoded, validate=True)))


def test_a_thumbnail_is_small_and_on_white(tmp_path):
    path = tmp_path / "clear.png"
    Image.new("RGBA", (300, 200), (0, 0, 0, 0)).save(path)
    with opened(thumbnail(str(path))) as image:
        assert image.format == "JPEG"
        assert image.size == (SIDE_PX, SIDE_PX * 2 // 3)
        assert image.getpixel((40, 40)) == (255, 255, 255)


def test_a_thumbnail_is_not_turned_by_the_exif_tag(tmp_path):
    path = tmp_path / "turned.jpg"
    tags = Image.Exif()
    tags[ORIENTATION] = 6
    Image.new("RGB", (300, 150), (9, 99, 199)).save(path, exif=tags)
    with opened(thumbnail(str(path))) as image:
        assert image.size == (SIDE_PX, SIDE_PX // 2)
        assert ORIENTATION not in image.getexif()


@pytest.mark.parametrize("content", [None, b"", b"\x89PNG\r\n\x1a\n broken"])
def test_what_is_no_image_has_no_thumbnail(tmp_path, content):
    path = tmp_path / "broken.png"
    if content is not None:
        path.write_bytes(content)
    assert thumbnail(str(path)) == thumbnail("") == ""
