"""Reads what QEMU saw on a hub (pcap) and what our program captured (pcapng), frame by frame."""

import struct

from .scenario import expect


def frames(path, skip=0):
    """The frames of a pcap file of QEMU's filter-dump, without the first SKIP."""
    with open(path, "rb") as stream:
        data = stream.read()
    magic, = struct.unpack_from("<I", data)
    expect(magic in (0xA1B2C3D4, 0xA1B23C4D), f"{path} is no pcap file")
    found, at = [], 24
    while at + 16 <= len(data):
        captured, = struct.unpack_from("<I", data, at + 8)
        if at + 16 + captured > len(data):
            break  # QEMU is writing it
        found.append(data[at + 16:at + 16 + captured])
        at += 16 + captured
    return found[skip:]


def hub(t, number):
    return f"{t.guest.directory}/hub{number}.pcap"


def pcapng_packets(data):
    """(original length, captured bytes) of each enhanced packet block; the framing is checked on the way."""
    found, at, section = [], 0, False
    while at < len(data):
        kind, length = struct.unpack_from("<II", data, at)
        expect(length >= 12 and length % 4 == 0 and at + length <= len(data), f"block at byte {at} has length {length}")
        trailer, = struct.unpack_from("<I", data, at + length - 4)
        expect(trailer == length, f"block at byte {at} ends with length {trailer}, not {length}")
        if kind == 0x0A0D0D0A:
            section = True
        expect(section, "the file does not begin with a section header")
        if kind == 6:
            captured, original = struct.unpack_from("<II", data, at + 20)
            found.append((original, data[at + 28:at + 28 + captured]))
        at += length
    return found


def destination(frame):
    return frame[0:6]


def source(frame):
    return frame[6:12]


def mac(text):
    return bytes.fromhex(text.replace(":", ""))


def unpadded(frame):
    """Without the zeros that a card adds up to 60 bytes: whether they are seen is the card's affair."""
    return frame.rstrip(b"\0") if len(frame) <= 60 else frame
