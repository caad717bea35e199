"""HTTP/1.1 to the letter, where Hypercorn and h11 are lenient and a proxy in front may see other requests than we do.

- A request with both ``Content-Length`` and ``Transfer-Encoding``, or with the latter in HTTP/1.0: which of them a
  proxy goes by decides where the next request begins. Refused, as RFC 9112 (6.1, 6.3) allows.
- ``Upgrade: h2c``: a proxy that passes ``Upgrade`` on for WebSockets takes what follows for one, and no longer says
  whose requests they are, so that each could name an address of its own. Not understood any more, as RFC 9113 (3.1) has
  it: the request is answered in HTTP/1.1. Who knows that we speak HTTP/2 says so from the first byte on.
- A handshake with a body, or with text that is not ASCII in the headers that make it one: refused.
"""

from __future__ import annotations

from http import HTTPStatus

import h11
from hypercorn.events import Closed, Event
from hypercorn.protocol.h11 import H11Protocol

_HANDSHAKE = b"sec-websocket-"


class RequestFaultError(Exception):
    """A request that is refused before anybody looks at what it asks for."""

    def __init__(self, status: HTTPStatus) -> None:
        super().__init__(status)
        self.status = status


class StrictRequests(H11Protocol):
    """The requests of one connection."""

    async def handle(self, event: Event) -> None:
        """Take what the client sends; a request with a fault is refused, and ends the connection."""
        try:
            await super().handle(event)
        except RequestFaultError as fault:
            await self._send_error_response(fault.status)
            await self.send(Closed())

    async def _check_protocol(self, event: h11.Request) -> None:
        """Raise `RequestFaultError`, or what makes Hypercorn go on in HTTP/2."""
        if event.http_version == b"2.0" and not self.keep_alive_requests and not event.headers:
            await super()._check_protocol(event)  # ``PRI * HTTP/2.0``, as a connection's first words
        status = _fault(event)
        if status is not None:
            raise RequestFaultError(status)


def _fault(request: h11.Request) -> HTTPStatus | None:
    """What is wrong with a request, if anything. h11 gives the names of headers in small letters."""
    headers = dict(request.headers)
    length = headers.get(b"content-length")
    is_in_chunks = b"transfer-encoding" in headers
    if request.http_version not in {b"1.0", b"1.1"}:
        return HTTPStatus.HTTP_VERSION_NOT_SUPPORTED
    if is_in_chunks and (length is not None or request.http_version == b"1.0"):
        return HTTPStatus.BAD_REQUEST
    if headers.get(b"upgrade", b"").strip().lower() == b"websocket":
        if is_in_chunks or (length or b"0").strip(b"0"):
            return HTTPStatus.BAD_REQUEST
        of_handshake = (
            value for name, value in request.headers if name == b"connection" or name.startswith(_HANDSHAKE)
        )
        if not all(value.isascii() for value in of_handshake):
            return HTTPStatus.BAD_REQUEST
    return None
