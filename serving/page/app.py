"""The page as an ASGI application: its files, and three questions to the model."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from serving.page.form import Told
from serving.page.model import PageError, PageModel
from serving.page.options import MIB
from serving.page.pictures import PictureStore
from tfmm_client import AsyncClient

STATIC = Path(__file__).with_name("static")
# Of a question: all texts together, not the picture.
MAX_QUESTION_BYTES = 256 * 1024
# How many of the largest pictures are kept for questions to come.
PICTURES_KEPT = 16

HEADERS = {
    # Only the page's own files, pictures that it made itself, calls to its own origin.
    "content-security-policy": "default-src 'none'; script-src 'self'; "
    "style-src 'self'; img-src 'self' blob:; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-cache",
}


class _Headers:
    """Adds the headers to every answer, and refuses what other sites ask."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message.get("headers", []),
                    *((k.encode(), v.encode()) for k, v in HEADERS.items()),
                ]
            await send(message)

        headers = dict(scope["headers"])
        # Browsers say so themselves; a link from elsewhere to the page is fine.
        is_foreign = headers.get(b"sec-fetch-site") in (b"cross-site", b"same-site")
        if is_foreign and scope["path"].startswith("/api/"):
            words = "Another site asked; only this page may."
            answer = _refusal(PageError(403, "OTHER_SITE", words))
            await answer(scope, receive, send_with_headers)
            return
        await self._app(scope, receive, send_with_headers)


def make_app(
    url: str,
    model_name: str,
    *,
    version: int | None = None,
    version_label: str | None = None,
    told: Told | None = None,
    timeout_s: float = 10.0,
    max_picture_bytes: int = 16 * MIB,
) -> Starlette:
    """The application.

    Args:
        url: str. `grpc://HOST:PORT`.
        model_name: str. The served model's name.
        version: int or None. A version by its number.
        version_label: str or None. A version by its label.
        told: `Told` or None. What is known of the inputs beside the signature.
        timeout_s: float. Limit of a question to the model.
        max_picture_bytes: int. Largest picture.

    Returns:
        A Starlette application; it opens its connection when it starts.

    Raises:
        InputError: If the URL or another option of the client is none.
    """
    pictures = PictureStore(PICTURES_KEPT * max_picture_bytes)
    client = AsyncClient(
        url,
        model_name,
        version=version,
        version_label=version_label,
        timeout_s=timeout_s,
        # A product is one question, whatever its pictures weigh.
        max_request_bytes=2**31 - 1,
    )
    model = PageModel(client, told, model_name, timeout_s)

    async def page(request: Request) -> Response:
        return FileResponse(STATIC / "page.html")

    async def describe(request: Request) -> Response:
        about = await model.describe()
        limits = {"picture_bytes": max_picture_bytes}
        return JSONResponse(about | {"limits": limits})

    async def keep_picture(request: Request) -> Response:
        _check_type(request, "application/octet-stream")
        picture = await _read_body(request, max_picture_bytes)
        if not picture:
            raise PageError(400, "BAD_QUESTION", "The picture is an empty file.")
        return JSONResponse({"key": pictures.add(picture)})

    async def suggest(request: Request) -> Response:
        values = await _read_values(request)
        return await _unless_gone(request, model.suggest(values, pictures))

    async def explain(request: Request) -> Response:
        values = await _read_values(request)
        return await _unless_gone(request, model.explain(values, pictures))

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        await client.close()

    return Starlette(
        routes=[
            Route("/", page),
            Route("/api/model", describe),
            Route("/api/picture", keep_picture, methods=["POST"]),
            Route("/api/suggest", suggest, methods=["POST"]),
            Route("/api/explain", explain, methods=["POST"]),
            Mount("/static", StaticFiles(directory=STATIC)),
        ],
        middleware=[Middleware(_Headers)],
        exception_handlers={
            PageError: _answer_errors(logging.getLogger("serving.page")),
            ClientDisconnect: _on_gone,
        },
        lifespan=lifespan,
    )


def _refusal(error: PageError) -> JSONResponse:
    content = {"code": error.code, "words": error.words}
    if error.status < 500:
        content["detail"] = error.detail
    return JSONResponse({"error": content}, error.status)


def _answer_errors(log: logging.Logger) -> Callable[[Request, Exception], Any]:
    """Words for the browser; for the log, once, what the server said."""
    last = ""

    async def on_error(request: Request, error: Exception) -> Response:
        nonlocal last
        assert isinstance(error, PageError)
        if error.status >= 500 and error.detail != last:
            last = error.detail
            log.warning("serving.page: %s", error.detail)
        return _refusal(error)

    return on_error


async def _on_gone(request: Request, error: Exception) -> Response:
    return Response(status_code=499)  # nobody reads it


def _check_type(request: Request, expected: str) -> None:
    """A page of another origin can send neither of the types without asking first."""
    found = request.headers.get("content-type", "").partition(";")[0].strip()
    if found != expected:
        detail = f"content-type: expected {expected}. Received: {found or 'none'}"
        raise PageError(
            415, "BAD_QUESTION", "The page sent what is no product.", detail
        )


async def _read_body(request: Request, limit: int) -> bytes:
    """The body, read no further than the limit.

    Raises:
        PageError: If it is longer.
    """
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            words = f"This is larger than {_size(limit)} and was not sent on."
            raise PageError(413, "TOO_LARGE", words)
        chunks.append(chunk)
    return b"".join(chunks)


def _size(num_bytes: int) -> str:
    if num_bytes < MIB:
        return f"{num_bytes / 1024:g} KiB"
    return f"{num_bytes / MIB:g} MiB"


async def _read_values(request: Request) -> dict[str, Any]:
    _check_type(request, "application/json")
    body = await _read_body(request, MAX_QUESTION_BYTES)
    try:
        values = json.loads(body)["values"]
        if not isinstance(values, dict):
            raise TypeError("values is no object")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        words = "The page sent what is no product."
        raise PageError(400, "BAD_QUESTION", words, repr(error)) from None
    return values


async def _unless_gone(
    request: Request, answer: Coroutine[Any, Any, dict[str, Any]]
) -> Response:
    """An answer; the question is dropped when the browser no longer waits for it.

    As one types, most questions are overtaken by the next.
    """
    asked = asyncio.ensure_future(answer)
    gone = asyncio.ensure_future(_wait_gone(request.receive))
    try:
        await asyncio.wait({asked, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not asked.done():
            raise ClientDisconnect
        return JSONResponse(asked.result())
    finally:
        asked.cancel()
        gone.cancel()
        await asyncio.gather(asked, gone, return_exceptions=True)


async def _wait_gone(receive: Callable[[], Awaitable[Any]]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
