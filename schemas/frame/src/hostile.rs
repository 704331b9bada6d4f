//! A corpus of hostile frames for any crate's tests: every rule of the format broken once, signed by a real key where
//! a signature is not what is broken, and seeded mutations on top. The same seed gives the same bytes for ever.
//!
//! It states what each frame deserves. It does not say who should find out.

use schemas_identity::{BootId, SecretKey, ShortId};

use crate::cbor::{NULL, major};
use crate::encode::{FrameBuilder, OutDeltas, OutSeries, OutValues, head, seal};
use crate::parse::{Alg, signed_message};
use crate::series::Scale;
use crate::verdict::Code;
use crate::{DEPTH_MAX, FRAME_BYTES_MAX, SERIES_MAX};

/// One hostile frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hostile {
    /// What is wrong with it.
    pub name: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// The code it deserves where the corpus' key is enrolled and nothing else is; `None` = any refusal.
    pub expected: Option<Code>,
}

/// A small deterministic generator (SplitMix64), so that a seed means the same bytes on every machine.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// Starts from a seed.
    pub const fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    /// The next 64 bits.
    pub const fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`; 0 when `limit` is 0. The bias is below 2^-32 for limits a test would use.
    pub const fn below(&mut self, limit: u64) -> u64 {
        match limit {
            0 => 0,
            _ => self.roll() % limit,
        }
    }
}

/// Order of the base point, little-endian: adding it to s makes the malleable twin of a signature.
const GROUP_ORDER: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];

/// Every structural case, then every signature case, then `mutations` seeded ones.
pub fn corpus(key: &SecretKey, seed: u64, mutations: usize) -> Vec<Hostile> {
    let mut cases = Vec::new();
    payload_cases(key, &mut cases);
    series_cases(key, &mut cases);
    outer_cases(key, &mut cases);
    signature_cases(key, &mut cases);
    cases.extend(mutants(key, seed, mutations));
    cases
}

/// A good frame for the corpus and for tests: three series of three kinds.
pub fn sample(key: &SecretKey, seq: u64) -> Vec<u8> {
    let kid = key.public().short_id();
    seal(Alg::EdDsa, kid, &sample_builder(seq).payload(), |message| key.sign(message))
}

/// The fields of [`sample`].
pub fn sample_builder(seq: u64) -> FrameBuilder {
    let boot = BootId([0xb0, 1, 2, 3, 4, 5, 6, 7]);
    let wall = 1_644_226_061_000_000;
    FrameBuilder::new(boot, seq, [0; 16], Some(wall), 5_000_000 + seq * 1_000_000)
        .series(OutSeries {
            signal: 1,
            offset_us: 0,
            period_us: 1_000_000,
            scale: Scale { num: 1, den: 100 },
            values: OutValues::U16(vec![8272, 8300, 8323]),
            deltas: None,
            quality: Some(vec![255, 255, 128]),
        })
        .series(OutSeries {
            signal: 10,
            offset_us: 250_000,
            period_us: 0,
            scale: Scale { num: 1, den: 1000 },
            values: OutValues::U32(vec![890_625, 859_375]),
            deltas: Some(OutDeltas::U32(vec![0, 859_375])),
            quality: None,
        })
        .series(OutSeries {
            signal: 19,
            offset_us: 0,
            period_us: 7_812,
            scale: Scale::ONE,
            values: OutValues::F32(vec![-0.5, 0.25, 1.5, 0.0]),
            deltas: None,
            quality: None,
        })
}

/// The encoded value of each known payload key, so that a case can replace one.
#[derive(Clone)]
struct Payload {
    pairs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Payload {
    fn good() -> Payload {
        let boot = [&[0x48][..], &[0xb0; 8]].concat();
        let prev = [&[0x50][..], &[0; 16]].concat();
        let values =
            [boot, vec![0], prev, uint(1_644_226_061_000_000), uint(5_000_000), series(&[Series::good()])];
        Payload { pairs: (1..=6).map(|key| vec![key]).zip(values).collect() }
    }

    fn with(mut self, key: u8, value: &[u8]) -> Payload {
        for pair in &mut self.pairs {
            if pair.0 == [key] {
                pair.1 = value.to_vec();
            }
        }
        self
    }

    fn plus(mut self, key: &[u8], value: &[u8]) -> Payload {
        self.pairs.push((key.to_vec(), value.to_vec()));
        self
    }

    fn without(mut self, key: u8) -> Payload {
        self.pairs.retain(|pair| pair.0 != [key]);
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        head(&mut out, major::MAP, self.pairs.len() as u64);
        out.extend(self.pairs.iter().flat_map(|(key, value)| [key.as_slice(), value].concat()));
        out
    }
}

/// Replaces one element of a series: its index and encoding.
type Change<'a> = (usize, &'a [u8]);

/// The seven encoded elements of a series, so that a case can replace one.
#[derive(Clone)]
struct Series([Vec<u8>; 7]);

impl Series {
    fn good() -> Series {
        let values = vec![0xd8, 64, 0x43, 80, 81, 82];
        Series([vec![1], vec![0], uint(1_000_000), vec![0x82, 1, 1], values, vec![NULL], vec![NULL]])
    }

    fn with(mut self, changes: &[Change<'_>]) -> Series {
        for (index, value) in changes {
            if let Some(element) = self.0.get_mut(*index) {
                *element = value.to_vec();
            }
        }
        self
    }

    fn bytes(&self) -> Vec<u8> {
        [&[0x87][..], &self.0.concat()].concat()
    }
}

fn uint(value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    head(&mut out, major::UINT, value);
    out
}

fn series(list: &[Series]) -> Vec<u8> {
    let mut out = Vec::new();
    head(&mut out, major::ARRAY, list.len() as u64);
    out.extend(list.iter().flat_map(Series::bytes));
    out
}

fn refuse(key: &SecretKey, cases: &mut Vec<Hostile>, name: &str, payload: &[u8]) {
    let kid = key.public().short_id();
    let bytes = seal(Alg::EdDsa, kid, payload, |message| key.sign(message));
    cases.push(Hostile { name: name.to_owned(), bytes, expected: Some(Code::Decode) });
}

/// The payload map's own rules.
fn payload_cases(key: &SecretKey, cases: &mut Vec<Hostile>) {
    let good = Payload::good;
    for missing in 1..=6 {
        refuse(key, cases, &format!("payload key {missing} missing"), &good().without(missing).bytes());
    }
    let mut swapped = good();
    swapped.pairs.swap(1, 2);
    let two_to_63 = uint(1 << 63);
    let nested = [vec![0x81; DEPTH_MAX + 1], vec![0]].concat();
    let whole = good().bytes();
    let tail = whole.get(1..).unwrap_or_default();
    let edits: [(&str, Vec<u8>); 30] = [
        ("payload keys out of order", swapped.bytes()),
        ("payload key twice", good().plus(&[6], &series(&[])).bytes()),
        ("unknown keys out of order", good().plus(&[8], &[0]).plus(&[7], &[0]).bytes()),
        ("unknown key twice", good().plus(&[7], &[0]).plus(&[7], &[1]).bytes()),
        ("unknown value not shortest", good().plus(&[7], &[0x18, 7]).bytes()),
        ("unknown value of indefinite length", good().plus(&[7], &[0x9f, 0xff]).bytes()),
        ("unknown float not shortest", good().plus(&[7], &[0xfa, 0x3f, 0x80, 0, 0]).bytes()),
        ("unknown text not UTF-8", good().plus(&[7], &[0x61, 0xff]).bytes()),
        ("unknown map unsorted", good().plus(&[7], &[0xa2, 2, 0, 1, 0]).bytes()),
        ("unknown value too deep", good().plus(&[7], &nested).bytes()),
        ("known key not shortest", good().without(6).plus(&[0x18, 6], &series(&[])).bytes()),
        ("boot id of 7 bytes", good().with(1, &[0x47, 1, 2, 3, 4, 5, 6, 7]).bytes()),
        ("boot id as text", good().with(1, b"\x68abcdefgh").bytes()),
        ("seq of 2^63", good().with(2, &two_to_63).bytes()),
        ("seq negative", good().with(2, &[0x20]).bytes()),
        ("seq not shortest", good().with(2, &[0x18, 5]).bytes()),
        ("prev of 15 bytes", good().with(3, &[&[0x4f][..], &[0; 15]].concat()).bytes()),
        ("wall clock as float", good().with(4, &[0xf9, 0x3c, 0]).bytes()),
        ("wall clock of 2^63", good().with(4, &two_to_63).bytes()),
        (
            "wall clock of -2^63 - 1",
            good().with(4, &[&[0x3b][..], &(1_u64 << 63).to_be_bytes()].concat()).bytes(),
        ),
        ("wall clock undefined", good().with(4, &[0xf7]).bytes()),
        ("monotonic clock of 2^63", good().with(5, &two_to_63).bytes()),
        ("monotonic clock null", good().with(5, &[NULL]).bytes()),
        ("series null", good().with(6, &[NULL]).bytes()),
        ("series of indefinite length", good().with(6, &[0x9f, 0xff]).bytes()),
        ("payload with a trailing byte", [&whole[..], &[0]].concat()),
        ("payload map of indefinite length", [&[0xbf], tail, &[0xff]].concat()),
        ("payload map head not shortest", [&[0xb8, 6], tail].concat()),
        ("payload an array", vec![0x80]),
        ("payload empty", Vec::new()),
    ];
    for (name, payload) in edits {
        refuse(key, cases, name, &payload);
    }
    let many = vec![Series::good(); SERIES_MAX + 1];
    refuse(key, cases, "one series too many", &good().with(6, &series(&many)).bytes());
    let claimed = good().with(6, &[0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
    refuse(key, cases, "2^64 - 1 series claimed", &claimed.bytes());
}

/// The rules of a series.
fn series_cases(key: &SecretKey, cases: &mut Vec<Hostile>) {
    let two_to_32 = uint(1 << 32);
    let two_to_53 = uint(1 << 53);
    let u8s = |bytes: &[u8]| [&[0xd8, 64, 0x40 | bytes.len() as u8][..], bytes].concat();
    let tagged = |tag: u8| vec![0xd8, tag, 0x48, 0, 0, 0, 0, 0, 0, 0, 0];
    let wide_scale = [vec![0x82], uint((1 << 31) - 1), vec![1]].concat();
    let huge_scale = [vec![0x82], uint(1 << 31), vec![1]].concat();
    let huge_den = [vec![0x82, 1], uint(1 << 31)].concat();
    let big_raw = vec![0xd8, 70, 0x44, 0xff, 0xff, 0xff, 0xff];
    let low_raw = vec![0xd8, 78, 0x44, 0, 0, 0, 0x80];
    let changes: [(&str, Vec<Change<'_>>); 33] = [
        ("signal of 2^32", vec![(0, &two_to_32)]),
        ("signal as text", vec![(0, b"\x61a")]),
        ("offset negative", vec![(1, &[0x20])]),
        ("offset of 2^53", vec![(1, &two_to_53)]),
        ("period of 2^53", vec![(2, &two_to_53)]),
        ("period null", vec![(2, &[NULL])]),
        (
            "series ends 2^53 us after t0",
            vec![(2, &[0x1b, 0, 0x0f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), (1, &[2])],
        ),
        ("scale of one number", vec![(3, &[0x81, 1])]),
        ("scale of three numbers", vec![(3, &[0x83, 1, 1, 1])]),
        ("scale numerator 0", vec![(3, &[0x82, 0, 1])]),
        ("scale denominator 0", vec![(3, &[0x82, 1, 0])]),
        ("scale negative", vec![(3, &[0x82, 0x20, 1])]),
        ("scale numerator 2^31", vec![(3, &huge_scale)]),
        ("scale denominator 2^31", vec![(3, &huge_den)]),
        ("raw times num above 2^53", vec![(3, &wide_scale), (4, &big_raw)]),
        ("raw times num below -2^53", vec![(3, &wide_scale), (4, &low_raw)]),
        ("values an integer array", vec![(4, &[0x83, 1, 2, 3])]),
        ("values a bare byte string", vec![(4, &[0x43, 1, 2, 3])]),
        ("values big-endian", vec![(4, &[0xd8, 65, 0x42, 0, 1])]),
        ("values clamped bytes", vec![(4, &[0xd8, 68, 0x41, 0])]),
        ("values half floats", vec![(4, &[0xd8, 84, 0x42, 0, 1])]),
        ("values of 64-bit integers", vec![(4, &[0xd8, 79, 0x48, 0, 0, 0, 0, 0, 0, 0, 0])]),
        ("values ragged", vec![(4, &[0xd8, 69, 0x43, 0, 1, 2])]),
        ("values empty", vec![(4, &[0xd8, 64, 0x40])]),
        (
            "values longer than the frame",
            vec![(4, &[0xd8, 64, 0x5b, 0x7f, 255, 255, 255, 255, 255, 255, 255])],
        ),
        ("period 0 without deltas", vec![(2, &[0])]),
        ("deltas with a period", vec![(5, &[0xd8, 64, 0x43, 0, 1, 1])]),
        ("deltas too short", vec![(2, &[0]), (5, &[0xd8, 64, 0x42, 0, 1])]),
        ("deltas signed", vec![(2, &[0]), (5, &[0xd8, 72, 0x43, 0, 1, 1])]),
        ("quality too long", vec![(6, &[0xd8, 64, 0x44, 0, 0, 0, 0])]),
        ("quality of 16 bits", vec![(6, &[0xd8, 69, 0x46, 0, 0, 0, 0, 0, 0])]),
        ("quality a bare byte string", vec![(6, &[0x43, 0, 0, 0])]),
        ("quality undefined", vec![(6, &[0xf7])]),
    ];
    for (name, change) in &changes {
        let list = series(&[Series::good(), Series::good().with(change)]);
        refuse(key, cases, name, &Payload::good().with(6, &list).bytes());
    }
    for (name, tag) in [("f32 with a scale", 85), ("f64 with a scale", 86)] {
        let floats = Series::good().with(&[(3, &[0x82, 1, 2]), (4, &tagged(tag))]);
        refuse(key, cases, name, &Payload::good().with(6, &series(&[floats])).bytes());
    }
    let mut six = Series::good().bytes();
    six.pop();
    let eight = [&[0x88][..], &Series::good().0.concat(), &u8s(&[1])].concat();
    for (name, first, rest) in
        [("series of six elements", 0x86, six), ("series of eight elements", 0x88, eight)]
    {
        let list = [&[0x81, first][..], rest.get(1..).unwrap_or_default()].concat();
        refuse(key, cases, name, &Payload::good().with(6, &list).bytes());
    }
}

/// The COSE layer's rules. The frame is assembled by hand around a correct signature.
fn outer_cases(key: &SecretKey, cases: &mut Vec<Hostile>) {
    let payload = sample_builder(0).payload();
    let kid = key.public().short_id().0;
    let good = sample(key, 0);
    let body = good.get(1..).unwrap_or_default();
    let after_protected = good.get(16..).unwrap_or_default();
    let signature = good.get(good.len().saturating_sub(64)..).unwrap_or_default();
    let protected =
        |bytes: &[u8]| [&[0xd2, 0x84, 0x40 | bytes.len() as u8][..], bytes, after_protected].concat();
    let kid_pair = [&[0x04, 0x48][..], &kid].concat();
    let start = good.get(..16).unwrap_or_default();
    let payload_bstr = [&[0x59][..], &(payload.len() as u16).to_be_bytes(), &payload].concat();
    let payload_short = [&[0x58, payload.len() as u8][..], &payload].concat();
    let signed = [&[0x58, 0x40][..], signature].concat();
    let edits: [(&str, Vec<u8>); 28] = [
        ("no bytes", Vec::new()),
        ("tag 18 missing", body.to_vec()),
        ("tag 17", [&[0xd1], body].concat()),
        ("tag 98", [&[0xd8, 98], body].concat()),
        ("tag 18 not shortest", [&[0xd8, 18], body].concat()),
        ("tag 18 twice", [&[0xd2, 0xd2], body].concat()),
        ("array of 3", [&[0xd2, 0x83], good.get(2..).unwrap_or_default()].concat()),
        ("array of 5", [&[0xd2, 0x85], good.get(2..).unwrap_or_default(), &[0]].concat()),
        ("array of indefinite length", [&[0xd2, 0x9f], good.get(2..).unwrap_or_default(), &[0xff]].concat()),
        ("array head not shortest", [&[0xd2, 0x98, 4], good.get(2..).unwrap_or_default()].concat()),
        ("alg -7 (ES256)", protected(&[&[0xa2, 1, 0x26], &kid_pair[..]].concat())),
        ("alg 5 (HMAC)", protected(&[&[0xa2, 1, 0x05], &kid_pair[..]].concat())),
        ("alg -8 not shortest", protected(&[&[0xa2, 1, 0x38, 7], &kid_pair[..]].concat())),
        ("alg as text", protected(&[&[0xa2, 1, 0x65], &b"EdDSA"[..], &kid_pair].concat())),
        ("kid missing", protected(&[0xa1, 1, 0x27])),
        ("alg missing", protected(&[&[0xa1], &kid_pair[..]].concat())),
        ("kid of 7 bytes", protected(&[&[0xa2, 1, 0x27, 4, 0x47], &kid[..7]].concat())),
        ("kid before alg", protected(&[&[0xa2], &kid_pair[..], &[1, 0x27]].concat())),
        ("a third protected header", protected(&[&[0xa3, 1, 0x27], &kid_pair[..], &[5, 0]].concat())),
        ("protected header empty", protected(&[])),
        ("unprotected header with a kid", [start, &[0xa1], &kid_pair, &payload_short, &signed].concat()),
        ("unprotected header null", [start, &[NULL], &payload_short, &signed].concat()),
        ("payload detached", [start, &[0xa0, NULL], &signed].concat()),
        ("payload length not shortest", [start, &[0xa0], &payload_bstr, &signed].concat()),
        ("signature of 63 bytes", [start, &[0xa0], &payload_short, &[0x58, 63], &signature[1..]].concat()),
        ("signature of 65 bytes", [start, &[0xa0], &payload_short, &[0x58, 65], signature, &[0]].concat()),
        ("a trailing byte", [&good[..], &[0]].concat()),
        ("two frames as one", [&good[..], &good].concat()),
    ];
    for (name, bytes) in edits {
        cases.push(Hostile { name: name.to_owned(), bytes, expected: Some(Code::Decode) });
    }
    let endless = [start, &[0xa0, 0x5b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]].concat();
    cases.push(Hostile {
        name: "payload of 2^64 - 1 bytes".into(),
        bytes: endless,
        expected: Some(Code::Decode),
    });
    for cut in [1, 2, 3, 10, 16, 17, 40, good.len() - 65, good.len() - 1] {
        let bytes = good.get(..cut).unwrap_or_default().to_vec();
        cases.push(Hostile { name: format!("cut after {cut} bytes"), bytes, expected: Some(Code::Decode) });
    }
    cases.push(Hostile {
        name: "one byte too big".into(),
        bytes: too_big(key),
        expected: Some(Code::TooBig),
    });
}

/// A frame that is right in every way but one byte longer than allowed.
fn too_big(key: &SecretKey) -> Vec<u8> {
    let kid = key.public().short_id();
    let sealed = |fill: usize| {
        let mut text = Vec::new();
        head(&mut text, major::BYTES, fill as u64);
        text.resize(text.len() + fill, 0);
        seal(Alg::EdDsa, kid, &Payload::good().plus(&[7], &text).bytes(), |message| key.sign(message))
    };
    let around = sealed(60_000).len() - 60_000;
    sealed(FRAME_BYTES_MAX + 1 - around)
}

/// Well-formed frames whose signature is not the enrolled key's over these bytes.
fn signature_cases(key: &SecretKey, cases: &mut Vec<Hostile>) {
    let kid = key.public().short_id();
    let payload = sample_builder(0).payload();
    let other = SecretKey::from_seed(&[0x0b; 32]);
    let mut bad = |name: &str, bytes: Vec<u8>, code: Code| {
        cases.push(Hostile { name: name.to_owned(), bytes, expected: Some(code) });
    };
    let good = sample(key, 0);
    let flipped = |at: usize| {
        let mut bytes = good.clone();
        if let Some(byte) = bytes.get_mut(at) {
            *byte ^= 1;
        }
        bytes
    };
    bad("one bit of the boot id flipped", flipped(24), Code::SigBad);
    bad("one bit of R flipped", flipped(good.len() - 64), Code::SigBad);
    bad("one bit of s flipped", flipped(good.len() - 32), Code::SigBad);
    bad("signature of zeros", seal(Alg::EdDsa, kid, &payload, |_| [0; 64]), Code::SigBad);
    bad("s plus the group order", seal(Alg::EdDsa, kid, &payload, |m| malleable(key.sign(m))), Code::SigBad);
    bad("signed by another key", seal(Alg::EdDsa, kid, &payload, |m| other.sign(m)), Code::SigBad);
    bad(
        "alg swapped after signing",
        {
            let signed_as_ed25519 = seal(Alg::Ed25519, kid, &payload, |message| key.sign(message));
            let signature = signed_as_ed25519.last_chunk::<64>().copied().unwrap_or([0; 64]);
            seal(Alg::EdDsa, kid, &payload, |_| signature)
        },
        Code::SigBad,
    );
    bad(
        "payload signed bare, without Sig_structure",
        seal(Alg::EdDsa, kid, &payload, |_| key.sign(&payload)),
        Code::SigBad,
    );
    bad(
        "signed for another external_aad",
        seal(Alg::EdDsa, kid, &payload, |message| {
            let text = crate::EXTERNAL_AAD;
            let at = message.windows(text.len()).position(|window| window == text).unwrap_or_default();
            let mut foreign = message.to_vec();
            if let Some(byte) = foreign.get_mut(at + text.len() - 1) {
                *byte = b'2';
            }
            key.sign(&foreign)
        }),
        Code::SigBad,
    );
    bad(
        "signed with an empty external_aad",
        seal(Alg::EdDsa, kid, &payload, |message| {
            let protected = crate::parse::protected_bytes(Alg::EdDsa, kid);
            let mut whole = Vec::new();
            signed_message(&protected, &payload, &mut whole);
            debug_assert_eq!(whole, message);
            let mut bare = whole.get(..25).unwrap_or_default().to_vec();
            bare.push(0x40);
            bare.extend_from_slice(whole.get(42..).unwrap_or_default());
            key.sign(&bare)
        }),
        Code::SigBad,
    );
    bad(
        "kid that nobody enrolled",
        seal(Alg::EdDsa, ShortId([0xee; 8]), &payload, |m| key.sign(m)),
        Code::KeyUnknown,
    );
}

/// The same R with s + L: verifies by rules that do not bound s.
fn malleable(mut signature: [u8; 64]) -> [u8; 64] {
    let mut carry = 0;
    for (byte, order) in signature.iter_mut().skip(32).zip(GROUP_ORDER) {
        let sum = u16::from(*byte) + u16::from(order) + carry;
        *byte = sum as u8;
        carry = sum >> 8;
    }
    signature
}

/// Good frames with random damage: bits flipped, bytes set, pieces cut, doubled or inserted. None is a good frame.
fn mutants(key: &SecretKey, seed: u64, count: usize) -> Vec<Hostile> {
    let mut dice = Dice::new(seed);
    let mut cases = Vec::with_capacity(count);
    for index in 0..count {
        let good = sample(key, dice.below(1000));
        let mut bytes = good.clone();
        for _ in 0..=dice.below(3) {
            damage(&mut bytes, &mut dice);
        }
        if bytes == good {
            bytes.pop();
        }
        cases.push(Hostile { name: format!("mutant {index} of seed {seed}"), bytes, expected: None });
    }
    cases
}

fn damage(bytes: &mut Vec<u8>, dice: &mut Dice) {
    let at = dice.below(bytes.len() as u64) as usize;
    let end = (at + 1 + dice.below(16) as usize).min(bytes.len());
    let value = dice.roll();
    match dice.below(6) {
        0 | 1 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << (value % 8);
            }
        }
        2 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value as u8;
            }
        }
        3 => {
            bytes.drain(at..end);
        }
        4 => {
            let piece = bytes.get(at..end).unwrap_or_default().to_vec();
            bytes.splice(at..at, piece);
        }
        _ => {
            bytes.splice(at..at, value.to_le_bytes());
        }
    }
}
