"""What a compressed frame says of its own size, before anything is unpacked."""

from __future__ import annotations

import struct

JPEG = b"\xff\xd8"
JPEG_2000 = b"\xff\x4f\xff\x51"
"""Begins a codestream and the marker segment of its size (ISO/IEC 15444-1, A.5.1)."""
WITHOUT_SIZE = (0xC4, 0xC8, 0xCC)
"""Markers among those of frames that are none: tables, and what is reserved."""
JPEG_LS = 0xF7


def own_size(stream: bytes) -> tuple[int, int] | None:
    """Return (width, height) as a JPEG, JPEG-LS or JPEG 2000 stream has it; None: it has none.

    A decoder takes memory for these, whatever the file says around them.
    """
    if stream.startswith(JPEG):
        return _frame_header(stream)
    start = stream.find(JPEG_2000)
    if start < 0 or len(stream) < start + 24:
        return None
    right, bottom, left, top = struct.unpack(">4I", stream[start + 8 : start + 24])
    return right - left, bottom - top


def _frame_header(stream: bytes) -> tuple[int, int] | None:
    """Walk a JPEG's segments to the one that begins a frame (ISO/IEC 10918-1, B.2.2)."""
    place = 2
    while place + 9 <= len(stream) and stream[place] == 0xFF:
        marker = stream[place + 1]
        if marker == 0xFF:  # padding
            place += 1
            continue
        begins = 0xC0 <= marker <= 0xCF and marker not in WITHOUT_SIZE
        if begins or marker == JPEG_LS:
            height, width = struct.unpack(">2H", stream[place + 5 : place + 9])
            return width, height
        place += 2 + int.from_bytes(stream[place + 2 : place + 4], "big")
    return None
