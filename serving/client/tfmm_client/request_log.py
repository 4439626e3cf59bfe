"""`requests.jsonl`: what was asked and answered, for `serving.monitor`."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tfmm_client.answers import CLASSIFY_OUTPUTS
from tfmm_client.batch import Batch
from tfmm_client.errors import InputError
from tfmm_client.model import Reply


class RequestLog:
    """Appends one line per answered request; README.md gives the format.

    A line is one write to a file opened for appending, so that clients in several
    threads and processes may share a file on a local disk.

    Args:
        path: Path. Created if it is not there.
        model_name: str.
        texts: bool. Whether the texts themselves are written too.

    Raises:
        InputError: If the file cannot be opened.
    """

    def __init__(self, path: Path | str, model_name: str, texts: bool) -> None:
        self._model_name = model_name
        self._texts = texts
        self._path = Path(path)
        try:
            self._append(b"")
        except OSError as error:
            raise InputError(f"log: {path}: {error.strerror}") from error

    def append(self, batch: Batch, reply: Reply, duration_s: float) -> None:
        """Writes one line, if the outputs are those of a classification.

        Args:
            batch: `Batch` that was sent.
            reply: `Reply` to it.
            duration_s: float. From the first try to the answer.

        Raises:
            OSError: If the line could not be written whole.
        """
        if not all(name in reply.outputs for name in CLASSIFY_OUTPUTS):
            return
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = {
            "time": now.replace("+00:00", "Z"),
            "model": self._model_name,
            "version": reply.version,
            "signature": batch.signature_name,
            "duration_s": round(duration_s, 6),
            "products": [
                self._product(batch, reply.outputs, row)
                for row in range(batch.num_products)
            ],
        }
        text = json.dumps(line, ensure_ascii=False)
        # A label may hold half a surrogate pair, which JSON can say and UTF-8 not.
        self._append(text.encode("utf-8", "replace") + b"\n")

    def _append(self, data: bytes) -> None:
        # Opened anew, so that whoever rotates logs may move the file away.
        with self._path.open("ab", buffering=0) as file:
            if file.write(data) != len(data):
                raise OSError(f"{self._path}: a line of the log was cut short")

    def _product(self, batch: Batch, outputs: Mapping[str, Any], row: int) -> dict:
        inputs = {
            name: self._modality(tensor.values[row])
            for name, tensor in sorted(batch.inputs.items())
            if tensor.dtype == "string" and len(tensor.shape) == 1
        }
        product = {
            "inputs": inputs,
            "label": outputs["labels"][row][0],
            "score": outputs["scores"][row][0],
            "assigned": outputs["assigned"][row][0],
        }
        for name in ("image_used", "image_status"):
            if name in outputs:
                product[name] = outputs[name][row]
        return product

    def _modality(self, value: str | bytes) -> dict:
        if not value:
            return {"present": False}
        if isinstance(value, bytes):
            return {"present": True, "bytes": len(value)}
        described: dict[str, Any] = {"present": True, "characters": len(value)}
        if self._texts:
            described["text"] = value
        return described
