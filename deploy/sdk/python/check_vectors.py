"""Checks schemas/vectors with this second implementation: every file byte for byte, every refusal by its code.

Usage: python check_vectors.py [FOLDER]. Exit 0 = all agree, 1 = something differs. A file that is not there is
said loudly on stderr and counted as skipped; with VITALOG_VECTORS_ALL=1 it is a failure.
"""
import base64, hashlib, json, os, pathlib, struct, sys
import blake3, cbor2
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
import vitalog_device as vitalog

FRAME_BYTES_MAX, SERIES_MAX, DEPTH_MAX = 65_536, 256, 16
WIDTHS = {64: 1, 69: 2, 70: 4, 72: 1, 77: 2, 78: 4, 85: 4, 86: 8}
SIGNED, FLOATS = {72: "b", 77: "h", 78: "i"}, (85, 86)
BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
checks = 0


def same(name, found, expected):
    global checks
    checks += 1
    if found != expected:
        sys.exit(f"{name}: expected {expected!r}, found {found!r}")


def key_of(seed_hex):
    return Ed25519PrivateKey.from_private_bytes(bytes.fromhex(seed_hex))


# --- frames: the strict reader, written from frame.cddl ---------------------------------------------------------

class Refused(Exception):
    pass


def need(condition):
    if not condition:
        raise Refused


def deterministic(data):
    """Decodes exactly one item and demands that encoding it again gives the same bytes."""
    value = cbor2.loads(data)
    need(cbor2.dumps(value, canonical=True) == data)
    return value


def depth(value):
    if isinstance(value, cbor2.CBORTag):
        return 1 + depth(value.value)
    if isinstance(value, dict):
        return 1 + max([depth(x) for pair in value.items() for x in pair], default=-1)
    if isinstance(value, (list, tuple)):
        return 1 + max(map(depth, value), default=-1)
    return 0


def is_uint(value, limit):
    return type(value) is int and 0 <= value < limit


def elements(item, allowed):
    need(isinstance(item, cbor2.CBORTag) and item.tag in allowed and isinstance(item.value, bytes))
    need(len(item.value) % WIDTHS[item.tag] == 0)
    code = SIGNED.get(item.tag) or {64: "B", 69: "H", 70: "I", 85: "f", 86: "d"}[item.tag]
    return struct.unpack(f"<{len(item.value) // WIDTHS[item.tag]}{code}", item.value)


def read_series(item):
    need(isinstance(item, list) and len(item) == 7)
    signal, offset, period, scale, values, deltas, quality = item
    need(is_uint(signal, 1 << 32) and is_uint(offset, 1 << 53) and is_uint(period, 1 << 53))
    need(isinstance(scale, list) and len(scale) == 2 and all(is_uint(x, 1 << 31) and x > 0 for x in scale))
    samples = elements(values, WIDTHS)
    need(len(samples) > 0 and (period == 0) == (deltas is not None))
    span = period * (len(samples) - 1)
    if deltas is not None:
        steps = elements(deltas, (64, 69, 70))
        need(len(steps) == len(samples))
        span = sum(steps)
    need(quality is None or len(elements(quality, (64,))) == len(samples))
    if values.tag in FLOATS:
        need(scale == [1, 1])
    else:
        need(max(map(abs, samples)) * scale[0] < 1 << 53)
    need(offset + span < 1 << 53)


def read_frame(data):
    """The kid, the signed message and the signature of a frame, or Refused."""
    need(data[:1] == b"\xd2" and cbor2.loads(data).tag == 18)
    parts = deterministic(data).value
    need(isinstance(parts, (list, tuple)) and len(parts) == 4)
    protected, unprotected, body, signature = parts
    need(all(isinstance(x, bytes) for x in (protected, body, signature)) and len(signature) == 64)
    need(isinstance(unprotected, dict) or type(unprotected).__name__ == "frozendict")
    need(len(unprotected) == 0)
    header = deterministic(protected)
    need(isinstance(header, dict) and set(header) == {1, 4} and header[1] in (-8, -19))
    need(isinstance(header[4], bytes) and len(header[4]) == 8)
    fields = deterministic(body)
    need(isinstance(fields, dict) and all(key in fields for key in range(1, 7)))
    boot, seq, prev, wall, mono, series = (fields[key] for key in range(1, 7))
    need(isinstance(boot, bytes) and len(boot) == 8 and isinstance(prev, bytes) and len(prev) == 16)
    need(is_uint(seq, 1 << 63) and is_uint(mono, 1 << 63))
    need(wall is None or type(wall) is int and -(1 << 63) <= wall < 1 << 63)
    need(isinstance(series, list) and len(series) <= SERIES_MAX)
    for item in series:
        read_series(item)
    for key, value in fields.items():
        need(depth(key) <= DEPTH_MAX and depth(value) <= DEPTH_MAX)
    return header[4], vitalog.signed_message(protected, body), signature


def judge(data, key):
    """The code a server gives that has enrolled `key` and nobody else."""
    if len(data) > FRAME_BYTES_MAX:
        return "TOO_BIG"
    try:
        kid, message, signature = read_frame(data)
    except Exception:  # whatever the CBOR library throws at such bytes, they are no frame
        return "DECODE"
    if kid != blake3.blake3(vitalog.raw_public(key)).digest()[:8]:
        return "KEY_UNKNOWN"
    try:
        key.public_key().verify(signature, message)
    except InvalidSignature:
        return "SIG_BAD"
    return "OK"


def check_frame(vectors):
    kinds = {tag: kind for kind, tag in vitalog.TAGS.items()}
    same("external_aad", vitalog.EXTERNAL_AAD.hex(), vectors["external_aad"])
    leaf_key = blake3.blake3(b"", derive_key_context="vitalog 2026 frame leaf v1").digest()
    for vector in vectors["frames"]:
        name, key = vector["name"], key_of(vector["seed"])
        unpack = lambda item: (kinds[item["tag"]], item["values"])
        series = [vitalog.series(s["signal"], *unpack(s["values"]), s["period_us"], s["offset_us"], s["scale"],
                                 s["deltas"] and unpack(s["deltas"]), s["quality"]) for s in vector["series"]]
        body = vitalog.payload(bytes.fromhex(vector["boot"]), vector["seq"], bytes.fromhex(vector["prev"]),
                               vector["wall_us"], vector["mono_us"], series)
        frame = vitalog.seal(key, body, vector["alg"])
        kid, message, signature = read_frame(frame)
        same(f"{name}: public", vitalog.raw_public(key).hex(), vector["public"])
        same(f"{name}: kid", kid.hex(), vector["kid"])
        same(f"{name}: payload", body.hex(), vector["payload"])
        same(f"{name}: signed message", message.hex(), vector["signed_message"])
        same(f"{name}: signature", signature.hex(), vector["signature"])
        same(f"{name}: frame", frame.hex(), vector["frame"])
        same(f"{name}: digest16", vitalog.digest16(frame).hex(), vector["digest16"])
        same(f"{name}: leaf", blake3.blake3(frame, key=leaf_key).hexdigest(), vector["leaf"])
        same(f"{name}: verdict", judge(frame, key), "OK")
    enrolled = key_of(vectors["refused_enrolled_seed"])
    for vector in vectors["refused"]:
        same(f"refused, {vector['name']}", judge(bytes.fromhex(vector["frame"]), enrolled), vector["code"])


# --- leaves and trees ------------------------------------------------------------------------------------------

def check_leaf(vectors):
    leaf_key = blake3.blake3(b"", derive_key_context=vectors["leaf_context"]).digest()
    node_key = blake3.blake3(b"", derive_key_context=vectors["node_context"]).digest()
    same("leaf key", leaf_key.hex(), vectors["leaf_key"])
    same("node key", node_key.hex(), vectors["node_key"])
    for vector in vectors["leaves"]:
        data = bytes.fromhex(vector["data"])
        same(f"leaf of {len(data)} bytes", blake3.blake3(data, key=leaf_key).hexdigest(), vector["leaf"])
    for vector in vectors["nodes"]:
        both = bytes.fromhex(vector["left"] + vector["right"])
        same("node", blake3.blake3(both, key=node_key).hexdigest(), vector["node"])


def split(size):
    return 1 << (size - 1).bit_length() - 1


def root(leaves, node):
    if len(leaves) == 1:
        return leaves[0]
    k = split(len(leaves))
    return node(root(leaves[:k], node), root(leaves[k:], node))


def inclusion(leaves, index, node):
    if len(leaves) == 1:
        return []
    k = split(len(leaves))
    if index < k:
        return inclusion(leaves[:k], index, node) + [root(leaves[k:], node)]
    return inclusion(leaves[k:], index - k, node) + [root(leaves[:k], node)]


def consistency(old, leaves, node, whole=True):
    if old == len(leaves):
        return [] if whole else [root(leaves, node)]
    k = split(len(leaves))
    if old <= k:
        return consistency(old, leaves[:k], node, whole) + [root(leaves[k:], node)]
    return consistency(old - k, leaves[k:], node, False) + [root(leaves[:k], node)]


def check_trees(name, trees, leaf, node):
    for tree in trees:
        size = tree["size"]
        leaves = [leaf(f"leaf {i}".encode()) for i in range(size)]
        same(f"{name} {size}: leaves", [x.hex() for x in leaves], tree["leaves"])
        same(f"{name} {size}: root", root(leaves, node).hex(), tree["root"])
        for proof in tree["inclusion"]:
            found = [x.hex() for x in inclusion(leaves, proof["index"], node)]
            same(f"{name} {size}: inclusion of {proof['index']}", found, proof["path"])
        for proof in tree["consistency"]:
            found = [x.hex() for x in consistency(proof["old"], leaves, node)] if proof["old"] else []
            same(f"{name} {size}: consistency with {proof['old']}", found, proof["path"])


def check_tree(vectors):
    frames = vectors["blake3_frames"]
    leaf_key, node_key = bytes.fromhex(frames["leaf_key"]), bytes.fromhex(frames["node_key"])
    keyed = lambda key, data: blake3.blake3(data, key=key).digest()
    same("blake3 leaf of abc", keyed(leaf_key, b"abc").hex(), frames["leaf_of_abc"])
    check_trees("blake3 tree", frames["trees"], lambda d: keyed(leaf_key, d), lambda l, r: keyed(node_key, l + r))
    log = vectors["sha256_rfc6962"]
    sha = lambda data: hashlib.sha256(data).digest()
    same("sha256 leaf of abc", sha(b"\0abc").hex(), log["leaf_of_abc"])
    check_trees("sha256 tree", log["trees"], lambda d: sha(b"\0" + d), lambda l, r: sha(b"\1" + l + r))


# --- checkpoints -----------------------------------------------------------------------------------------------

def note_key(vkey, kind):
    """Name, key id and key of a C2SP verifier key; `kind` is its algorithm byte."""
    name, key_id, encoded = vkey.split("+", 2)
    raw = base64.b64decode(encoded, validate=True)
    same(f"{name}: algorithm", raw[0], kind)
    same(f"{name}: key id", hashlib.sha256(name.encode() + b"\n" + raw).digest()[:4].hex(), key_id)
    return name, bytes.fromhex(key_id), raw[1:]


def check_checkpoint(vectors):
    log, log_id, log_raw = note_key(vectors["log_vkey"], 1)
    key = key_of(vectors["log_seed"])
    same("log key", vitalog.raw_public(key), log_raw)
    encode = lambda data: base64.b64encode(data).decode()
    text = f"{log}\n{vectors['size']}\n{encode(bytes.fromhex(vectors['root']))}\n"
    note = f"{text}\n\u2014 {log} {encode(log_id + key.sign(text.encode()))}\n"
    same("checkpoint", note, vectors["checkpoint"])
    witness, witness_id, witness_raw = note_key(vectors["witness_vkey"], 4)
    key = key_of(vectors["witness_seed"])
    same("witness key", vitalog.raw_public(key), witness_raw)
    time_s = vectors["cosignature_time_s"]
    signature = key.sign(f"cosignature/v1\ntime {time_s}\n{text}".encode())
    line = f"\u2014 {witness} {encode(witness_id + struct.pack('>Q', time_s) + signature)}\n"
    same("cosigned checkpoint", note + line, vectors["cosigned"])


# --- statements ------------------------------------------------------------------------------------------------

def did_of(key):
    number, text = int.from_bytes(b"\xed\x01" + vitalog.raw_public(key), "big"), ""
    while number:
        number, digit = divmod(number, 58)
        text = BASE58[digit] + text
    return "did:key:z" + text


def url64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def un64(text):
    data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    need(url64(data) == text)
    return data


def public_of(did):
    need(did.startswith("did:key:z"))
    number = 0
    for letter in did[len("did:key:z"):]:
        number = number * 58 + BASE58.index(letter)
    raw = number.to_bytes(34, "big")
    need(raw[:2] == b"\xed\x01")
    return Ed25519PublicKey.from_public_bytes(raw[2:])


def compact_json(value):
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def no_twins(pairs):
    need(len(dict(pairs)) == len(pairs))
    return dict(pairs)


KINDS = {
    "maker": "party title from to", "role": "role title members purposes from to",
    "study": "study title members purposes duo terms from to", "enrol": "device_key model signals pop",
    "rotate": "old new pop", "revoke-key": "key compromised_from", "bind": "device from to co",
    "unbind": "device from to co", "revoke": "subject grant prev", "freeze": "subject reason",
    "break-glass": "subject reason", "erase": "scope",
    "grant": "subject grantee signals devices resolution purposes duo data_from data_to valid_from valid_to export "
             "min_cohort notice prev",
}
KINDS["deny"] = KINDS["grant"]


def read_statement(compact, origin):
    """The signer and the payload of a statement with every field of its kind, or an exception."""
    head, body, signature = compact.split(".")
    header = json.loads(un64(head), object_pairs_hook=no_twins)
    need(set(header) == {"alg", "typ", "kid"} and header["alg"] in ("EdDSA", "Ed25519"))
    need(header["typ"] == "vitalog+jws")
    public_of(header["kid"]).verify(un64(signature), f"{head}.{body}".encode())
    payload = json.loads(un64(body), object_pairs_hook=no_twins)
    need(isinstance(payload, dict) and payload["v"] == 1 and payload["aud"] == origin)
    need(type(payload["iat"]) is int and len(payload["nonce"]) == 22)
    need(set(payload) == {"v", "kind", "aud", "iat", "nonce", *KINDS[payload["kind"]].split()})
    return header["kid"], payload


def check_statement(vectors):
    origin = vectors["origin"]
    for vector in vectors["statements"]:
        name, key = vector["name"], key_of(vector["seed"])
        header = compact_json({"alg": "EdDSA", "typ": "vitalog+jws", "kid": did_of(key)})
        signed = url64(header.encode()) + "." + url64(vector["payload"].encode())
        compact = signed + "." + url64(key.sign(signed.encode()))
        same(f"{name}: compact", compact, vector["compact"])
        same(f"{name}: id", blake3.blake3(compact.encode()).hexdigest(), vector["id"])
        signer, payload = read_statement(compact, origin)
        same(f"{name}: signer", signer, vector["signer"])
        same(f"{name}: kind", payload["kind"], name)
        same(f"{name}: payload", compact_json(payload), vector["payload"])
        if "pop" in payload:
            device = public_of(payload.get("device_key") or payload["new"])
            device.verify(un64(payload["pop"]), f"vitalog 2026 device proof v1\n{origin}\n{signer}".encode())
        if vector["co_seed"]:
            without = {field: value for field, value in payload.items() if field != "co"}
            co = key_of(vector["co_seed"]).sign(compact_json(without).encode())
            same(f"{name}: co", payload["co"], url64(co))
    for vector in vectors["refused"]:
        try:
            read_statement(vector["compact"], origin)
            found = "taken"
        except Exception:  # whatever base64, JSON or the key say to such text, it is no statement
            found = "refused"
        same(f"statement, {vector['name']}", found, "refused")


def main():
    here = pathlib.Path(__file__).resolve().parent
    folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else here.parents[2] / "schemas" / "vectors"
    files = {"frame.json": check_frame, "leaf.json": check_leaf, "statement.json": check_statement,
             "tree.json": check_tree, "checkpoint.json": check_checkpoint}
    missing = [name for name in files if not (folder / name).exists()]
    for name, check in files.items():
        if name in missing:
            print(f"WARNING: {folder / name} IS MISSING, NOTHING OF IT WAS CHECKED", file=sys.stderr)
            continue
        before = checks
        check(json.loads((folder / name).read_text(encoding="utf-8")))
        print(f"{name}: {checks - before} checks agree")
    if missing and (os.environ.get("VITALOG_VECTORS_ALL") == "1" or len(missing) == len(files)):
        sys.exit(f"missing: {', '.join(missing)}")


if __name__ == "__main__":
    main()
