"""Asks the served model what the page wants to know, and puts it in plain words."""

from collections.abc import Mapping, Sequence
from typing import Any

from serving.page.form import Form, FormError, Told, make_form
from serving.page.pictures import PictureStore
from tfmm_client import AsyncClient, InputError, ServerError

# What became of a picture, by `image_status`. The last sentence goes with all that
# could not be read.
STATUS_WORDS = {
    "used": "The model looked at the picture.",
    "skipped": "The words were enough: the model did not look at the picture.",
    "missing": "",
    "not an image": "The picture could not be read: it is not a JPEG, PNG, GIF, BMP "
    "or WebP file.",
    "too large": "The picture could not be read: it is too large for the model.",
    "corrupt": "The picture could not be read: the file is damaged.",
}
WITHOUT_IT = " The suggestions do without it."


class PageError(Exception):
    """A question that has no answer, as the page is told.

    Attributes:
        status: int. HTTP's.
        code: str. For the page's script.
        words: str. For the seller: one or two sentences.
        detail: str. For whoever looks after the page: from 500 on for the log alone.
    """

    def __init__(self, status: int, code: str, words: str, detail: str = "") -> None:
        self.status, self.code, self.words, self.detail = status, code, words, detail
        super().__init__(words)


def explain_error(error: ServerError, model_name: str, timeout_s: float) -> PageError:
    """What a refusal of the model server means for a seller.

    Example:
    >>> explain_error(ServerError("NOT_FOUND", "no such"), "hats", 10.0).words
    'The server has no model “hats”.'
    """
    detail = str(error)
    if error.code in ("UNAVAILABLE", "CANCELLED"):  # gone, or going
        words = "The model server cannot be reached."
        return PageError(503, error.code, words, detail)
    if error.code == "NOT_FOUND":
        words = f"The server has no model “{model_name}”."
        return PageError(503, error.code, words, detail)
    if error.code == "DEADLINE_EXCEEDED":
        words = f"The model did not answer within {timeout_s:g} seconds."
        return PageError(504, error.code, words, detail)
    if error.code == "RESOURCE_EXHAUSTED":
        words = "The model server has too much to do."
        return PageError(503, error.code, words, detail)
    words = "The model could not answer this."
    return PageError(502, error.code, words, detail)


class PageModel:
    """A served model, as the page asks it.

    Args:
        client: `AsyncClient`.
        told: `Told` or None. What is known of its inputs beside the signature.
        model_name: str.
        timeout_s: float. The client's, for messages.
    """

    def __init__(
        self, client: AsyncClient, told: Told | None, model_name: str, timeout_s: float
    ) -> None:
        self._client = client
        self._told = told
        self.name = model_name
        self._timeout_s = timeout_s
        self._form: Form | None = None

    async def form(self) -> Form:
        """The form for the version that is served now.

        Raises:
            FormError: If the model's inputs are not what was told.
            ServerError: If the server does not tell them.
        """
        self._form = None
        signatures = await self._client.signatures()
        self._form = make_form(signatures, self._told, self.name)
        return self._form

    async def describe(self) -> dict[str, Any]:
        """The form as the page reads it.

        Raises:
            PageError: If the model is not up or is none for this page.
        """
        try:
            form = await self.form()
        except (FormError, ServerError) as error:
            raise self._page_error(error) from error
        return {
            "model": self.name,
            "task": form.task,
            "explains": form.explains,
            "fields": [
                {"name": x.name, "kind": x.kind, "columns": list(x.columns)}
                for x in form.fields
            ],
        }

    async def suggest(
        self, values: Mapping[str, Any], pictures: PictureStore
    ) -> dict[str, Any]:
        """The suggestions for a product.

        Args:
            values: dict from field name to a text, a list of cells where the field
                has columns, or the key of a picture.
            pictures: `PictureStore`.

        Returns:
            Dict of `suggestions`, best first, and by picture field what became of it.

        Raises:
            PageError: If there is no answer.
        """
        try:
            form = self._form or await self.form()
            product = _product(form, values, pictures)
            (answer,) = await self._client.classify([product])
        except (FormError, InputError, ServerError) as error:
            raise self._page_error(error) from error
        return {
            "suggestions": [
                {"label": x.label, "score": x.score, "assigned": x.assigned}
                for x in answer.suggestions
            ],
            "pictures": {
                name: _picture(status)
                for name, status in zip(form.pictures, answer.image_status, strict=True)
            },
        }

    async def explain(
        self, values: Mapping[str, Any], pictures: PictureStore
    ) -> dict[str, Any]:
        """What spoke for each of the suggestions, and where the model looked.

        Args:
            values: As in `suggest`.
            pictures: As in `suggest`.

        Returns:
            Dict of `contributions`, a list of dicts of a field's `name` and its
            `parts`, one for each suggestion, or None where their order is not known;
            and `maps`, a list of dicts of `name` and `cells` `(h, w)`, empty with
            several pictures, for then nothing tells of which a map is.

        Raises:
            PageError: If there is no answer.
        """
        try:
            form = self._form or await self.form()
            product = _product(form, values, pictures)
            columns = {name: [value] for name, value in product.items()}
            said = await self._client.predict("explain", columns)
        except (FormError, InputError, ServerError) as error:
            raise self._page_error(error) from error
        contributions = None
        if form.has_order:
            contributions = [
                {"name": field.name, "parts": parts}
                for field, parts in zip(
                    form.fields, said["contributions"][0], strict=True
                )
            ]
        maps = [
            {"name": name.removeprefix("attention").lstrip("_"), "cells": cells[0]}
            for name, cells in sorted(said.items())
            if name.startswith("attention") and len(form.pictures) == 1
        ]
        return {"contributions": contributions, "maps": maps}

    def _page_error(self, error: FormError | InputError | ServerError) -> PageError:
        if isinstance(error, ServerError):
            return explain_error(error, self.name, self._timeout_s)
        # Another version with other inputs may be up by now.
        self._form = None
        if isinstance(error, FormError):
            words = "The model that is served does not fit this page; its log says why."
            return PageError(503, "MISFIT", words, str(error))
        words = "The model has changed; the form is made anew."
        return PageError(409, "FORM_CHANGED", words, str(error))


def _picture(status: str) -> dict[str, Any]:
    words = STATUS_WORDS.get(status, f"The picture could not be read: {status}.")
    is_bad = status not in ("used", "skipped", "missing")
    return {
        "used": status == "used",
        "bad": is_bad,
        "words": words + WITHOUT_IT if is_bad else words,
    }


def _product(
    form: Form, values: Mapping[str, Any], pictures: PictureStore
) -> dict[str, str | bytes]:
    """The product as the client takes it.

    Raises:
        PageError: If a value is of the wrong kind or a picture is not known.
        InputError: If a field is none of the form's.
    """
    fields = {field.name: field for field in form.fields}
    product: dict[str, str | bytes] = dict.fromkeys(fields, "")
    for name, value in values.items():
        if name not in fields:
            raise InputError(f"no field {name!r}")
        kind = fields[name].kind
        if fields[name].columns:
            if not isinstance(value, list) or not all(
                isinstance(cell, str) for cell in value
            ):
                raise _bad_value(name, "a list of texts", value)
            product[name] = _joined(kind, value)
            continue
        if not isinstance(value, str):
            raise _bad_value(name, "a text", value)
        if kind == "text":
            product[name] = value.strip()
        elif value:
            picture = pictures.get(value)
            if picture is None:
                words = "The picture has to be sent again."
                raise PageError(410, "PICTURE_GONE", words, name)
            product[name] = picture
    return product


def _joined(kind: str, cells: Sequence[str]) -> str:
    """Cells as one string, as a catalog's are joined before training."""
    if kind == "text":
        return " ".join(cell for cell in map(str.strip, cells) if cell)
    row = [" ".join(cell.split()) for cell in cells]
    return "\t".join(row) if any(row) else ""


def _bad_value(name: str, expected: str, value: object) -> PageError:
    detail = f"{name}: expected {expected}. Received: {type(value).__name__}"
    return PageError(400, "BAD_QUESTION", "The page sent what is no product.", detail)
