"""Load pages as a browser with an empty cache does, from a server in a separate process."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import unescape
from http.client import HTTPConnection
from time import perf_counter
from urllib.parse import urljoin, urlsplit

HOST = "127.0.0.1"
PORT = "{port}"
"""What stands for the port in the command that starts a server."""

_STARTS_WITHIN = 120

_ELEMENT = re.compile(rb"<(?:link|script|img|\w+ [^>]*hx-trigger=\"load)\b[^>]*>")
_ADDRESS = re.compile(rb"""\s(?:href|src|hx-get)=["']?([^"'\s>]+)""")
_NOT_LOADED = re.compile(rb"""rel=["']?(?:next|prev|canonical|alternate|search)""")


@dataclass(frozen=True)
class Load:
    """How a page loaded.

    Attributes:
        first_byte: the milliseconds from the request to the first byte of the page.
        complete: those to the last byte of the page and of all that it loads.
        size: the bytes of the page, without what it loads.
    """

    first_byte: float
    complete: float
    size: int


class Browser:
    """Loads pages over one connection, and keeps nothing."""

    def __init__(self, port: int, timeout: float = 60) -> None:
        self._connection = HTTPConnection(HOST, port, timeout=timeout)

    def load(self, path: str, data: Sequence[str] = ()) -> Load:
        """Load a page, and what it links on the same server: styles, scripts, images and parts.

        Args:
            data: the paths of what its scripts load.
        """
        first_byte, complete, page = self._get(path)
        for other in (*_linked(path, page), *data):
            complete += self._get(other)[1]
        return Load(first_byte * 1000, complete * 1000, len(page))

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _get(self, path: str) -> tuple[float, float, bytes]:
        begun = perf_counter()
        self._connection.request("GET", path)
        response = self._connection.getresponse()
        first = response.read(1)
        first_byte = perf_counter() - begun
        body = first + response.read()
        complete = perf_counter() - begun
        if response.status != 200:
            raise RuntimeError(f"{path} answers {response.status}: {body[:300]!r}")
        return first_byte, complete, body


def _linked(path: str, page: bytes) -> list[str]:
    """Return the paths of what a page loads, without what other servers have."""
    found = {}
    for element in _ELEMENT.findall(page):
        address = _ADDRESS.search(element)
        if address and not _NOT_LOADED.search(element):
            url = urlsplit(urljoin(path, unescape(address[1].decode())))
            if not url.netloc and url.scheme != "data":
                found[url.path + (f"?{url.query}" if url.query else "")] = None
    return list(found)


@contextmanager
def serving(command: Sequence[str], environment: Mapping[str, str]) -> Iterator[int]:
    """Run a server that listens on a port, yield the port, and stop the server.

    Args:
        command: what starts it, in which `PORT` stands for the port.
        environment: additional environment variables.
    """
    with socket.create_server((HOST, 0)) as free:
        port: int = free.getsockname()[1]
    process = subprocess.Popen(
        [part.replace(PORT, str(port)) for part in command],
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
    )
    try:
        _wait(process, port)
        yield port
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(process: subprocess.Popen[bytes], port: int) -> None:
    for _ in range(_STARTS_WITHIN * 20):
        try:
            socket.create_connection((HOST, port), timeout=1).close()
        except OSError:
            if process.poll() is not None:
                raise RuntimeError(f"the server ended with code {process.returncode}") from None
            time.sleep(0.05)
        else:
            return
    raise TimeoutError(f"the server did not start within {_STARTS_WITHIN} s")
