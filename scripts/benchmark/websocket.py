"""The little of RFC 6455 that the bench needs on both sides: handshakes and unfragmented frames."""

from __future__ import annotations

import base64
import hashlib
import struct

TEXT, CLOSE, PING, PONG = 0x1, 0x8, 0x9, 0xA

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
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


class Frames:
    """Cuts what arrives of one connection, in whatever pieces, into frames."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """The frames that ``data`` completes, each as opcode and payload. Raises `ValueError` for what is unexpected.

        Unexpected are fragments and extensions: nobody has agreed on any.
        """
        data = self._rest + data
        found, at = [], 0
        while len(data) - at >= 2:
            first, second = data[at], data[at + 1]
            if first & 0xF0 != 0x80:
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
            found.append((first & 0x0F, _masked(payload, mask) if mask else payload))
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
