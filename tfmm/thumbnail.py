"""A product's image made small, for pages that show it without its file."""

import base64
import io
import warnings

from PIL import Image

from tfmm.image import read_file

SIDE_PX = 96
WHITE = (255, 255, 255, 255)
QUALITY = 80


def thumbnail(path: str) -> str:
    """An image file as a small JPEG in a data URI.

    As the models see it: on white where it is transparent, and not turned by its EXIF
    tag.

    Args:
        path: `""` for none.

    Returns:
        `data:image/jpeg;base64,...`, at most `SIDE_PX` wide and high; `""` if there is
        no image, its file is gone, or Pillow cannot read it.
    """
    encoded, problem = read_file(path)
    if not encoded or problem:
        return ""
    try:
        with (
            warnings.catch_warnings(action="ignore"),
            Image.open(io.BytesIO(encoded)) as opened,
        ):
            opened.draft("RGB", (SIDE_PX, SIDE_PX))
            opened.thumbnail((SIDE_PX, SIDE_PX))
            small = opened.convert("RGBA")
    # What Pillow raises of broken files is not one kind.
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return ""
    ground = Image.new("RGBA", small.size, WHITE)
    ground.alpha_composite(small)
    file = io.BytesIO()
    ground.convert("RGB").save(file, "JPEG", quality=QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
