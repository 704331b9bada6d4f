//! `Content-Encoding`: gzip and zstd bodies, unpacked within bounds.
//!
//! | limit | value | answer |
//! |---|---|---|
//! | unpacked bytes ([`super::HttpOptions::body_bytes_max`]) | 16 MiB | 413 |
//! | unpacked to packed bytes, beyond [`RATIO_FREE_BYTES`] ([`RATIO_MAX`]) | 256 | 413 |
//! | zstd window ([`WINDOW_LOG_MAX`], as RFC 9659 has it) | 8 MiB | 400 |
//! | unpacked bodies held at a time (the door's room) | 128 MiB | 503 |
//!
//! Time is bounded by the bytes: of the packed body, which has arrived whole, and of the unpacked one. Unpacking runs on
//! the blocking threads. What it is not: one coding at a time, no `deflate`, no `br`; nothing is packed on the way back.

use std::io::Read;

use ::http::{HeaderMap, StatusCode, header};
use bytes::Bytes;
use flate2::bufread::MultiGzDecoder;

use super::answer::Problem;
use super::{too_large, too_many_bodies};
use crate::room::Share;

/// The zstd window as a power of two; larger ones are refused before memory is taken for them.
const WINDOW_LOG_MAX: u32 = 23;
/// Signed frames hold 64 random bytes each, so honest bodies stay far below it.
const RATIO_MAX: usize = 256;
/// Up to here the ratio does not matter.
const RATIO_FREE_BYTES: usize = 1 << 20;
/// Unpacked at a time; the room is asked before each.
const STEP_BYTES: usize = 64 * 1024;
/// What [`header::ACCEPT_ENCODING`] of a refusal says.
pub(super) const ACCEPTED: &str = "gzip, zstd";

/// How a body is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Identity,
    Gzip,
    Zstd,
}

/// The body's encoding by its headers.
pub(super) fn of(headers: &HeaderMap) -> Result<Encoding, Problem> {
    let mut named = headers.get_all(header::CONTENT_ENCODING).iter();
    let Some(value) = named.next() else { return Ok(Encoding::Identity) };
    let coding = value.to_str().unwrap_or("?").trim();
    let known = [
        ("identity", Encoding::Identity),
        ("gzip", Encoding::Gzip),
        ("x-gzip", Encoding::Gzip),
        ("zstd", Encoding::Zstd),
    ];
    for (name, encoding) in known {
        if coding.eq_ignore_ascii_case(name) && named.next().is_none() {
            return Ok(encoding);
        }
    }
    let hint = format!("send the body as it is, or packed once by one of: {ACCEPTED}");
    Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "content-encoding", hint))
}

/// Unpacks a body. The share grows with what is unpacked and comes back with it.
pub(super) async fn unpack(
    encoding: Encoding,
    body: Bytes,
    body_bytes_max: usize,
    share: Share,
) -> Result<(Bytes, Share), Problem> {
    if encoding == Encoding::Identity {
        return Ok((body, share));
    }
    let unpacking =
        tokio::task::spawn_blocking(move || unpack_blocking(encoding, &body, body_bytes_max, share));
    match unpacking.await {
        Ok(unpacked) => unpacked,
        Err(_) => Err(broken("unpacking was given up")),
    }
}

fn unpack_blocking(
    encoding: Encoding,
    body: &[u8],
    body_bytes_max: usize,
    mut share: Share,
) -> Result<(Bytes, Share), Problem> {
    let unpacked = match encoding {
        Encoding::Identity => body.to_vec(),
        Encoding::Gzip => read_all(MultiGzDecoder::new(body), body.len(), body_bytes_max, &mut share)?,
        Encoding::Zstd => {
            let mut decoder =
                zstd::stream::read::Decoder::with_buffer(body).map_err(|error| broken(&error.to_string()))?;
            decoder.window_log_max(WINDOW_LOG_MAX).map_err(|error| broken(&error.to_string()))?;
            read_all(decoder, body.len(), body_bytes_max, &mut share)?
        }
    };
    Ok((Bytes::from(unpacked), share))
}

fn read_all(
    mut reader: impl Read,
    packed: usize,
    body_bytes_max: usize,
    share: &mut Share,
) -> Result<Vec<u8>, Problem> {
    let mut unpacked = Vec::new();
    loop {
        if !share.grow(STEP_BYTES as u64) {
            return Err(too_many_bodies());
        }
        let step = (&mut reader).take(STEP_BYTES as u64).read_to_end(&mut unpacked);
        let read = step.map_err(|error| broken(&error.to_string()))?;
        if unpacked.len() > body_bytes_max {
            return Err(too_large(body_bytes_max));
        }
        if unpacked.len() > RATIO_FREE_BYTES && unpacked.len() / RATIO_MAX > packed {
            let hint = format!("unpacks to more than {RATIO_MAX} times its bytes, send it in parts");
            return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "ratio", hint));
        }
        if read < STEP_BYTES {
            return Ok(unpacked);
        }
    }
}

fn broken(what: &str) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "content-encoding", format!("the packed body is broken: {what}"))
}
