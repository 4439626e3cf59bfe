"""A client of a served tfmm model: gRPC and REST, sync and async, no TensorFlow.

    with Client("grpc://127.0.0.1:8500", "products") as client:
        (answer,) = client.classify([{"title": "red shoe"}])

gRPC, protocol buffers and httpx are imported by the first call that needs them.
"""

from tfmm_client.answers import Answer, Explanation, Suggestion
from tfmm_client.async_client import AsyncClient
from tfmm_client.client import Client
from tfmm_client.errors import InputError, ServerError
from tfmm_client.model import Signature, TensorInfo, VersionStatus
from tfmm_client.retries import Retries
from tfmm_client.server import Tls

__version__ = "0.1.0"

__all__ = [
    "Answer",
    "AsyncClient",
    "Client",
    "Explanation",
    "InputError",
    "Retries",
    "ServerError",
    "Signature",
    "Suggestion",
    "TensorInfo",
    "Tls",
    "VersionStatus",
]
