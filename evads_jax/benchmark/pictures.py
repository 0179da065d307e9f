"""Pictures inside a page, so that it needs no file beside it."""

import base64
import io

from PIL import Image

THUMBNAIL = 256


def data_url(jpeg: bytes) -> str:
    """A frame as a data URL, made smaller where it is large; frames that cannot be read are shown as none."""
    try:
        with Image.open(io.BytesIO(jpeg)) as image:
            if max(image.size) > THUMBNAIL:
                image.thumbnail((THUMBNAIL, THUMBNAIL))
                out = io.BytesIO()
                image.convert("RGB").save(out, "jpeg", quality=85)
                jpeg = out.getvalue()
    except OSError:
        return "data:,"
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()
