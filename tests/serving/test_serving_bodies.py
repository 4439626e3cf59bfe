"""Bodies that do not hold what their headers say, on a bare connection."""

import json
import socket

import pytest

HEAD = b"POST /v1/models/half:predict HTTP/1.1\r\nHost: test\r\n"
BODY = b'{"inputs": [2]}'
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"

REFUSED = {
    "a length that is no number": (
        HEAD + b"Content-Length: ten\r\n\r\n",
        "is no length",
    ),
    "a negative length": (HEAD + b"Content-Length: -1\r\n\r\n", "is no length"),
    "a length of 30 digits": (
        HEAD + b"Content-Length: " + b"9" * 30 + b"\r\n\r\n",
        "is no length",
    ),
    "a length over 2 GiB": (
        HEAD + b"Content-Length: 99999999999\r\n\r\n",
        "over 2147483647 bytes",
    ),
    "a chunk size that is no number": (CHUNKED + b"0x5\r\n", "Bad chunk size"),
    "a negative chunk size": (CHUNKED + b"-5\r\n", "Bad chunk size"),
    "a chunk size over 2 GiB": (CHUNKED + b"ffffffff\r\n", "over 2147483647 bytes"),
    "chunks over 2 GiB together": (
        CHUNKED + b"1\r\n{\r\n7fffffff\r\n",
        "over 2147483647 bytes",
    ),
}
CUT = {
    "a body": HEAD + b"Content-Length: 100\r\n\r\n" + BODY,
    "a body that says it has 2 GB": HEAD + b"Content-Length: 2000000000\r\n\r\n" + BODY,
    "a chunk": CHUNKED + b"64\r\n" + BODY,
    "the list of chunks": CHUNKED + b"f\r\n" + BODY + b"\r\n",
}


def exchange(server, message: bytes) -> bytes:
    """Sends bytes, says that no more will come, and reads until the other side ends."""
    host, port = server.rest.split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(message)
        connection.shutdown(socket.SHUT_WR)
        reply = b""
        while piece := connection.recv(65536):
            reply += piece
    return reply


@pytest.mark.development_server_only("the texts are the development server's")
@pytest.mark.parametrize("name", REFUSED)
def test_a_body_of_no_known_length_is_refused_and_ends_the_connection(server, name):
    message, text = REFUSED[name]
    head, _, body = exchange(server, message).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"\r\nConnection: close" in head
    assert text in json.loads(body)["error"]
    assert "Traceback" not in server.log.read_text()


@pytest.mark.development_server_only("looks at the development server's log")
@pytest.mark.parametrize("name", CUT)
def test_a_body_cut_short_is_not_answered_as_if_it_were_whole(server, name):
    assert exchange(server, CUT[name]) == b""
    assert "Traceback" not in server.log.read_text()


def test_a_whole_body_is_answered(server):
    message = HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
    assert b'"outputs"' in exchange(server, message)
    assert b'"outputs"' in exchange(
        server, CHUNKED + b"f\r\n" + BODY + b"\r\n0\r\n\r\n"
    )
