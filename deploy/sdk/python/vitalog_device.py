"""A vitalog device in about a hundred lines: make frames, sign them, post them, believe only durable verdicts.

The format is schemas/frame/frame.cddl. This file is a starter for device makers and a second implementation that
check_vectors.py holds against schemas/vectors. What it leaves to the maker: keeping the outbox and the last
frame's digest on flash, and enrolment (`vitalog enrol`, once per device).
"""
import argparse, array, json, os, sys, time, urllib.error, urllib.request
import blake3, cbor2
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

EXTERNAL_AAD = b"vitalog-frame-v1"
TAGS = {"u8": 64, "u16": 69, "u32": 70, "i8": 72, "i16": 77, "i32": 78, "f32": 85, "f64": 86}
CODES = {"u8": "B", "u16": "H", "u32": "I", "i8": "b", "i16": "h", "i32": "i", "f32": "f", "f64": "d"}
STORED = {"OK", "DUP", "RANGE", "CLOCK", "CHAIN", "NOT_BOUND", "SIGNAL_UNKNOWN"}
RETRY = {"RETRY_AFTER", "CLOSED"}


def typed(kind, values):
    """An RFC 8746 typed array: little-endian bytes under the tag of their type."""
    packed = array.array(CODES[kind], values)
    if sys.byteorder == "big":
        packed.byteswap()
    return cbor2.CBORTag(TAGS[kind], packed.tobytes())


def series(signal, kind, values, period_us, offset_us=0, scale=(1, 1), deltas=None, quality=None):
    """One signal's samples; value = raw * scale[0] / scale[1]. `deltas` = (kind, list) goes with period_us 0."""
    return [signal, offset_us, period_us, list(scale), typed(kind, values),
            typed(*deltas) if deltas else None, typed("u8", quality) if quality else None]


def raw_public(key):
    return key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def digest16(frame):
    return blake3.blake3(frame).digest()[:16]


def payload(boot, seq, prev, wall_us, mono_us, series_list):
    return cbor2.dumps({1: boot, 2: seq, 3: prev, 4: wall_us, 5: mono_us, 6: series_list}, canonical=True)


def signed_message(protected, body):
    """COSE's Sig_structure (RFC 9052 section 4.4): what the key signs."""
    return cbor2.dumps(["Signature1", protected, EXTERNAL_AAD, body], canonical=True)


def seal(key, body, alg=-8):
    """COSE_Sign1, tag 18, nothing unprotected."""
    kid = blake3.blake3(raw_public(key)).digest()[:8]
    protected = cbor2.dumps({1: alg, 4: kid}, canonical=True)
    signature = key.sign(signed_message(protected, body))
    return cbor2.dumps(cbor2.CBORTag(18, [protected, {}, body, signature]), canonical=True)


class Device:
    """One boot of one device: counts, chains and signs."""

    def __init__(self, key, boot=None, prev=bytes(16)):
        self.key, self.boot, self.seq, self.prev = key, boot or os.urandom(8), 0, prev
        self.short_id = blake3.blake3(raw_public(key)).digest()[:8].hex()

    def frame(self, series_list, wall_us, mono_us):
        frame = seal(self.key, payload(self.boot, self.seq, self.prev, wall_us, mono_us, series_list))
        self.seq, self.prev = self.seq + 1, digest16(frame)
        return frame


def identity(frame):
    """(device, boot, seq) of a frame, as verdicts name it."""
    protected, _, body, _ = cbor2.loads(frame).value
    known = cbor2.loads(body)
    return cbor2.loads(protected)[4].hex(), known[1].hex(), known[2]


def post(url, frames, patience_s=120, timeout_s=60):
    """Posts frames and posts again what is undecided. Returns one verdict per frame; a frame may be forgotten when its
    verdict is in STORED, and should be looked at when it is anything else. Raises when patience ends."""
    verdicts, waiting, wait_s, until = {}, dict(enumerate(frames)), 0.1, time.monotonic() + patience_s
    while waiting:
        order, pause_s, problem = list(waiting), wait_s, "undecided"
        request = urllib.request.Request(url.rstrip("/") + "/v1/frames", b"".join(waiting.values()), method="POST",
                                         headers={"Content-Type": "application/cbor-seq"})
        try:
            with urllib.request.urlopen(request, timeout=timeout_s) as answer:
                for verdict in json.load(answer)["verdicts"]:
                    index = order[verdict["i"]]
                    named = (verdict["device"], verdict["boot"], verdict["seq"])
                    if verdict["code"] in STORED and named != identity(frames[index]):
                        raise ValueError(f"the verdict for {identity(frames[index])} names {named}")
                    if verdict["code"] not in RETRY:
                        verdicts[index] = verdict
                        waiting.pop(index, None)
        except urllib.error.HTTPError as error:
            if error.code not in (429, 503):
                raise
            pause_s, problem = max(wait_s, float(error.headers.get("Retry-After") or 0)), str(error)
        except (urllib.error.URLError, ConnectionError, TimeoutError) as error:
            problem = str(error)
        if waiting:
            if time.monotonic() + pause_s > until:
                raise TimeoutError(f"{len(waiting)} frames without a verdict: {problem}")
            time.sleep(pause_s)
            wait_s = min(wait_s * 2, 5)
    return [verdicts[index] for index in range(len(frames))]


def main():
    parser = argparse.ArgumentParser(description="Sends ten seconds of made-up heart rate as one signed frame.")
    parser.add_argument("--url", default=os.environ.get("VITALOG_URL", "http://127.0.0.1:8080"))
    parser.add_argument("--key", required=True, help="the device's private key, PKCS#8 PEM (vitalog key new --out F)")
    parser.add_argument("--frames", type=int, default=1)
    arguments = parser.parse_args()
    with open(arguments.key, "rb") as pem:
        key = load_pem_private_key(pem.read(), None)
    if not isinstance(key, Ed25519PrivateKey):
        sys.exit(f"{arguments.key} is not an Ed25519 key")
    device, start_us, frames = Device(key), time.time_ns() // 1000 - arguments.frames * 10_000_000, []
    for index in range(arguments.frames):
        beats = series(1, "u16", [7200 + 10 * i for i in range(10)], 1_000_000, scale=(1, 100))
        frames.append(device.frame([beats], start_us + index * 10_000_000, index * 10_000_000))
    verdicts = post(arguments.url, frames)
    print(json.dumps({"device": device.short_id, "boot": device.boot.hex(), "verdicts": verdicts}))
    sys.exit(0 if all(verdict["code"] in STORED for verdict in verdicts) else 3)


if __name__ == "__main__":
    main()
