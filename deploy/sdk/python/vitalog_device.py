"""A device in a hundred lines: makes, signs and posts vitalog frames, and reads the verdicts.

    python vitalog_device.py http://127.0.0.1:8080 device.pem

The device must be enrolled and bound first (`vitalog enrol`, `vitalog bind`). Keep a frame until its verdict says
OK, DUP, RANGE, CLOCK, CHAIN, NOT_BOUND or SIGNAL_UNKNOWN: then it is durable and your flash may be erased.
"""

import json
import os
import struct
import sys
import time
import urllib.request

import cbor2
from blake3 import blake3
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

EXTERNAL_AAD = b"vitalog-frame-v1"
LEAF_KEY = blake3(b"", derive_key_context="vitalog 2026 frame leaf v1").digest()
# RFC 8746 tags of little-endian typed arrays, narrowest first.
ARRAYS = [(64, "B"), (72, "b"), (69, "<H"), (77, "<h"), (70, "<I"), (78, "<i")]


def typed_array(values):
    """The narrowest integer array that holds the values."""
    for tag, code in ARRAYS:
        try:
            return cbor2.CBORTag(tag, b"".join(struct.pack(code, value) for value in values))
        except struct.error:
            continue
    raise ValueError("values do not fit 32 bits")


def series(signal, values, period_us, offset_us=0, scale=(1, 1)):
    """A regular series: value = (raw * scale[0]) / scale[1]."""
    return [signal, offset_us, period_us, list(scale), typed_array(values), None, None]


class Device:
    """One boot of one device; `frame` signs, counts and chains."""

    def __init__(self, key, boot=None):
        self.key = key
        self.public = key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        self.kid = blake3(self.public).digest()[:8]
        self.boot = boot or os.urandom(8)
        self.seq, self.prev, self.started = 0, bytes(16), time.monotonic()

    def frame(self, all_series, wall_us=None, mono_us=None):
        """The bytes of the next frame: COSE_Sign1 (RFC 9052) over deterministic CBOR (RFC 8949 4.2)."""
        mono_us = int((time.monotonic() - self.started) * 1e6) if mono_us is None else mono_us
        payload = cbor2.dumps(
            {1: self.boot, 2: self.seq, 3: self.prev, 4: wall_us, 5: mono_us, 6: all_series}, canonical=True
        )
        protected = cbor2.dumps({1: -8, 4: self.kid}, canonical=True)
        message = cbor2.dumps(["Signature1", protected, EXTERNAL_AAD, payload], canonical=True)
        frame = cbor2.dumps(cbor2.CBORTag(18, [protected, {}, payload, self.key.sign(message)]), canonical=True)
        self.seq, self.prev = self.seq + 1, blake3(frame).digest()[:16]
        return frame


def leaf(frame):
    """The frame's leaf in its batch's Merkle tree."""
    return blake3(frame, key=LEAF_KEY).digest()


def post(url, frames, timeout=60):
    """Posts frames and gives their verdicts; try again on 429 and 503 after Retry-After seconds."""
    request = urllib.request.Request(
        url.rstrip("/") + "/v1/frames", b"".join(frames), {"Content-Type": "application/cbor-seq"}
    )
    with urllib.request.urlopen(request, timeout=timeout) as answer:
        return json.load(answer)["verdicts"]


def main():
    url, path = sys.argv[1:]
    with open(path, "rb") as file:
        key = serialization.load_pem_private_key(file.read(), None)
    if not isinstance(key, Ed25519PrivateKey):
        sys.exit("not an Ed25519 key")
    device = Device(key)
    pulse = series(1, [72, 73, 71, 74, 75], 1_000_000)
    for verdict in post(url, [device.frame([pulse], wall_us=int(time.time() * 1e6))]):
        print(json.dumps(verdict))


if __name__ == "__main__":
    main()
