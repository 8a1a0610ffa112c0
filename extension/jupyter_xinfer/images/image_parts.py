"""The images of a request: those in its `data:` URLs, and those that its other URLs name, within bounds."""

import base64
import binascii
import re
from collections.abc import Sequence

from jupyter_xinfer.images.address_policy import RefusedUrlError
from jupyter_xinfer.images.fetch import Fetcher
from jupyter_xinfer.images.image_header import NotAnImageError, dimensions
from jupyter_xinfer.protocol.chat_messages import Images, Message, place_of
from xinfer_runtime.errors import InvalidRequest, ModelNotReady
from xinfer_runtime.models import ModelStatus

MAX_IMAGES = 16
MAX_BYTES = 8 * 2**20
MAX_TOTAL_BYTES = 24 * 2**20
MAX_PIXELS = 32_000_000
_DATA = re.compile(r"data:image/[a-z0-9.+-]{1,40};base64,", re.IGNORECASE)


def image_places(messages: Sequence[Message]) -> list[tuple[int, int]]:
    """(message, part) of each image."""
    return [
        (i, j)
        for i, message in enumerate(messages)
        if isinstance(message.content, list)
        for j, part in enumerate(message.content)
        if part.type == "image_url"
    ]


async def images_for(model: ModelStatus, messages: Sequence[Message], fetcher: Fetcher | None) -> Images:
    """`load_images` for a model that can see. Raises `InvalidRequest` that names the first image for any other one."""
    infos = [replica.info for replica in model.replicas if replica.info is not None]
    if not infos:
        raise ModelNotReady(f"The model {model.spec.uid!r} is still being loaded.", param="model")
    if not any("vision" in info.abilities for info in infos):
        where = _name(messages, *image_places(messages)[0])
        raise InvalidRequest(f"`{where}` is an image, and the model {model.spec.uid!r} takes text only.", param=where)
    return await load_images(messages, fetcher)


async def load_images(messages: Sequence[Message], fetcher: Fetcher | None) -> Images:
    """The images of `messages` by their places; without a `fetcher` only those in `data:` URLs.

    Raises `InvalidRequest` that names the part at fault.
    """
    places = image_places(messages)
    if len(places) > MAX_IMAGES:
        where = _name(messages, *places[MAX_IMAGES])
        raise InvalidRequest(f"`{where}`: one request takes at most {MAX_IMAGES} images.", param=where)
    images: dict[tuple[int, int], bytes] = {}
    for i, j in places:
        where = _name(messages, i, j)
        content = messages[i].content
        assert isinstance(content, list)
        url = content[j].url
        if not url:
            raise InvalidRequest(f"`{where}.image_url.url` is required.", param=f"{where}.image_url.url")
        try:
            images[i, j] = await _load(url, fetcher)
        except RefusedUrlError as refusal:
            raise InvalidRequest(f"`{where}`: the image is refused, since {refusal}.", param=where) from None
        if sum(map(len, images.values())) > MAX_TOTAL_BYTES:
            raise InvalidRequest(
                f"`{where}`: the images of a request may have {MAX_TOTAL_BYTES >> 20} MiB together.", param=where
            )
    return images


async def _load(url: str, fetcher: Fetcher | None) -> bytes:
    if url[:5].lower() == "data:":
        data = _from_data_url(url)
    elif fetcher is None:
        raise RefusedUrlError("this server fetches none by URL; send it as a `data:` URL")
    else:
        data = await fetcher.fetch(url, MAX_BYTES)
    try:
        width, height = dimensions(data)
    except NotAnImageError:
        raise RefusedUrlError("it is none of PNG, JPEG, GIF and WebP") from None
    if width * height > MAX_PIXELS:
        raise RefusedUrlError(f"it has {width} times {height} pixels; {MAX_PIXELS} are allowed")
    return data


def _from_data_url(url: str) -> bytes:
    head = _DATA.match(url)
    if head is None:
        raise RefusedUrlError("a `data:` URL must begin with `data:image/...;base64,`")
    if len(url) > MAX_BYTES * 4 // 3 + 100:
        raise RefusedUrlError(f"it has more than {MAX_BYTES >> 20} MiB")
    try:
        return base64.b64decode(url[head.end() :], validate=True)
    except (binascii.Error, ValueError):
        raise RefusedUrlError("what follows `base64,` is not Base64") from None


def _name(messages: Sequence[Message], message: int, part: int) -> str:
    content = messages[message].content
    assert isinstance(content, list)
    return place_of(content[part], message, part)
