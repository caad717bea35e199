"""The little of RFC 6455 that the bench needs on both sides: handshakes and unfragmented frames.

And of RFC 7692 (permessage-deflate), what a client needs that has offered it: reading what the server compressed.
"""

from __future__ import annotations

import base64
import hashlib
import struct
import zlib

TEXT, CLOSE, PING, PONG = 0x1, 0x8, 0x9, 0xA

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_COMPRESSED = 0xC0
"""The bits of a whole message's first byte, when it is compressed: FIN and RSV1."""
_MASK = b"\x5a\x5a\x5a\x5a"
"""A client must mask what it sends; with which bytes is nothing to a bench."""


def accept(key: bytes) -> bytes:
    """The ``Sec-WebSocket-Accept`` that answers a ``Sec-WebSocket-Key``."""
    return base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())


def frame(opcode: int, payload: bytes) -> bytes:
    """A whole frame as a server sends it."""
    return _head(opcode, len(payload), 0) + payload


def masked_frame(opcode: int, payload: bytes) -> bytes:
    """A whole frame as a client sends it."""
    return _head(opcode, len(payload), 0x80) + _MASK + _masked(payload, _MASK)


DEFLATE_OFFER = b"permessage-deflate; client_max_window_bits"
"""As browsers offer it."""
_PARAMETERS = {
    *("server_no_context_takeover", "client_no_context_takeover"),
    *("server_max_window_bits", "client_max_window_bits"),
}
_END_OF_MESSAGE = b"\x00\x00\xff\xff"
"""Which a sender leaves away (RFC 7692, section 7.2.2)."""


class Inflater:
    """What one connection's server has compressed, in the order in which it was sent."""

    def __init__(self, *, has_takeover: bool = True) -> None:
        """``has_takeover``: whether a message may refer to those before it."""
        self._has_takeover = has_takeover
        self._stream = zlib.decompressobj(-zlib.MAX_WBITS)

    def inflate(self, payload: bytes) -> bytes:
        """The message. Raises `zlib.error`."""
        message = self._stream.decompress(payload + _END_OF_MESSAGE)
        if not self._has_takeover:
            self._stream = zlib.decompressobj(-zlib.MAX_WBITS)
        return message


def agreed_deflate(head: bytes) -> Inflater | None:
    """What a server's answer to a handshake with `DEFLATE_OFFER` says of it; `None` when it has declined.

    Raises `RuntimeError` for an answer to something else.
    """
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.strip().lower() != b"sec-websocket-extensions":
            continue
        extension, *parameters = (part.strip() for part in value.decode("latin-1").split(";"))
        names = {parameter.partition("=")[0].strip() for parameter in parameters}
        if extension != "permessage-deflate" or names - _PARAMETERS:
            raise RuntimeError(f"an extension that was not offered: {value!r}")
        return Inflater(has_takeover="server_no_context_takeover" not in names)
    return None


class Frames:
    """Cuts what arrives of one connection, in whatever pieces, into frames."""

    def __init__(self, inflater: Inflater | None = None) -> None:
        """With an inflater, compressed messages are allowed, too."""
        self._rest = b""
        self._inflater = inflater

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """The frames that ``data`` completes, each as opcode and payload. Raises `ValueError` for what is unexpected.

        Unexpected are fragments, and extensions that nobody has agreed on. Raises `zlib.error` for what cannot be
        inflated.
        """
        data = self._rest + data
        found, at = [], 0
        while len(data) - at >= 2:
            first, second = data[at], data[at + 1]
            if first & 0xF0 != 0x80 and (first & 0xF0 != _COMPRESSED or self._inflater is None):
                raise ValueError(f"a frame that begins with {first:#04x}")
            length, begin = second & 0x7F, at + 2
            if length == 126:
                length, begin = int.from_bytes(data[begin : begin + 2]), begin + 2
            elif length == 127:
                length, begin = int.from_bytes(data[begin : begin + 8]), begin + 8
            mask = b""
            if second & 0x80:
                mask, begin = data[begin : begin + 4], begin + 4
            if begin + length > len(data):  # so it is, too, where the head itself is cut
                break
            payload = data[begin : begin + length]
            if mask:
                payload = _masked(payload, mask)
            if first & 0xF0 == _COMPRESSED and self._inflater is not None:
                payload = self._inflater.inflate(payload)
            found.append((first & 0x0F, payload))
            at = begin + length
        self._rest = data[at:]
        return found


def _head(opcode: int, length: int, mask_bit: int) -> bytes:
    if length < 126:
        return struct.pack("!BB", 0x80 | opcode, mask_bit | length)
    if length < 2**16:
        return struct.pack("!BBH", 0x80 | opcode, mask_bit | 126, length)
    return struct.pack("!BBQ", 0x80 | opcode, mask_bit | 127, length)


def _masked(payload: bytes, mask: bytes) -> bytes:
    return bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
