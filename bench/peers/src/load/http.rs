//! Bodies of frames over HTTP/1.1, by hand: one thread and one keep-alive connection each, one request at a time.
//!
//! The times are a request's, counted for each of its frames. 429 and 503 are waited for and sent again, as a device would.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use schemas_frame::Code;

use super::{Lap, Pace, STALL_MAX, Schedule, Verdicts};
use crate::corpus::Corpus;
use crate::process::nanos;

/// Largest head of an answer.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// Largest answer: verdicts of a body's frames.
const BODY_BYTES_MAX: usize = 64 << 20;
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// Longest wait that a server may ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(10);
/// What stands before every code in an answer; quotes inside texts are escaped, so nothing else looks like it.
const CODE_MARK: &[u8] = b"\"code\":\"";

/// Where to post, and how.
#[derive(Debug, Clone)]
pub struct HttpLoad {
    /// The HTTP door.
    pub address: SocketAddr,
    /// Frames of a body.
    pub body_frames: usize,
    /// When.
    pub pace: Pace,
}

struct Answer {
    status: u16,
    retry_after: Duration,
    body: Vec<u8>,
}

struct Poster<'c> {
    corpus: &'c Corpus,
    verdicts: &'c Verdicts,
    stream: TcpStream,
    head: String,
    request: Vec<u8>,
    input: Vec<u8>,
}

impl Poster<'_> {
    /// One request and its answer.
    fn post(&mut self, frames: &[u32]) -> Result<Answer> {
        let bytes: usize = frames.iter().map(|index| self.corpus.frame(*index as usize).len()).sum();
        self.request.clear();
        write!(self.request, "{}{bytes}\r\n\r\n", self.head)?;
        for index in frames {
            self.request.extend_from_slice(self.corpus.frame(*index as usize));
        }
        self.stream.write_all(&self.request).context("cannot send")?;
        self.input.clear();
        let mut part = [0u8; 64 << 10];
        loop {
            if let Some(answer) = parse(&self.input)? {
                return Ok(answer);
            }
            match self.stream.read(&mut part) {
                Ok(0) => bail!("the server closed the connection"),
                Ok(read) => self.input.extend_from_slice(&part[..read]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("cannot receive"),
            }
        }
    }

    /// Sends a body until it is taken.
    fn deliver(&mut self, frames: &[u32], lap: &mut Lap) -> Result<()> {
        let since = Instant::now();
        loop {
            let answer = self.post(frames)?;
            match answer.status {
                200 => return self.settle(frames, &answer.body),
                429 | 503 => {
                    ensure!(since.elapsed() < STALL_MAX, "refused for {} s", STALL_MAX.as_secs());
                    lap.retries += 1;
                    sleep(answer.retry_after);
                }
                status => bail!("the server answered {status}: {}", String::from_utf8_lossy(&answer.body)),
            }
        }
    }

    fn settle(&self, frames: &[u32], body: &[u8]) -> Result<()> {
        let codes = codes(body)?;
        ensure!(codes.len() == frames.len(), "{} verdicts for {} frames", codes.len(), frames.len());
        for (index, code) in frames.iter().zip(codes) {
            self.verdicts.set(*index as usize, code);
        }
        Ok(())
    }

    fn send_lane(&mut self, load: &HttpLoad, lane: &[u32], schedule: Schedule, lap: &mut Lap) -> Result<()> {
        let started = Instant::now();
        let mut sent = 0u64;
        for frames in lane.chunks(load.body_frames.max(1)) {
            // A body is due when its last frame is.
            let due_ns = schedule.due_ns(sent + frames.len() as u64 - 1);
            let due_in =
                due_ns.map(Duration::from_nanos).unwrap_or_default().saturating_sub(started.elapsed());
            if load.pace.limit.is_some_and(|limit| started.elapsed() + due_in >= limit) {
                return Ok(());
            }
            sleep(due_in);
            let since_ns = due_ns.unwrap_or_else(|| nanos(started.elapsed()));
            lap.sent += frames.len() as u64;
            self.deliver(frames, lap)?;
            let now = Instant::now();
            lap.bytes += self.request.len() as u64;
            lap.times
                .record(nanos(now.duration_since(started)).saturating_sub(since_ns), frames.len() as u64);
            lap.last = Some(now);
            sent += frames.len() as u64;
        }
        Ok(())
    }
}

/// An answer, when it is whole.
fn parse(input: &[u8]) -> Result<Option<Answer>> {
    let Some(end) = input.windows(4).take(HEAD_BYTES_MAX).position(|window| window == b"\r\n\r\n") else {
        ensure!(input.len() < HEAD_BYTES_MAX, "a head of more than {HEAD_BYTES_MAX} bytes");
        return Ok(None);
    };
    let head = std::str::from_utf8(&input[..end]).context("the head of an answer")?;
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
    let status = status.context("an answer without a status")?;
    let (mut length, mut retry_after_s) = (None, 0);
    for line in lines {
        let Some((name, value)) = line.split_once(':') else { continue };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse::<usize>().ok();
        } else if name.eq_ignore_ascii_case("retry-after") {
            retry_after_s = value.trim().parse().unwrap_or(1);
        }
    }
    let length = length.context("an answer without a length")?;
    ensure!(length <= BODY_BYTES_MAX, "an answer of {length} bytes");
    let Some(body) = input.get(end + 4..end + 4 + length) else { return Ok(None) };
    let retry_after = Duration::from_secs(retry_after_s).min(RETRY_AFTER_MAX);
    Ok(Some(Answer { status, retry_after, body: body.to_vec() }))
}

/// The verdicts' codes, in order, without parsing all the rest.
fn codes(body: &[u8]) -> Result<Vec<Code>> {
    let mut codes = Vec::new();
    let mut rest = body;
    while let Some(quote) = rest.iter().position(|byte| *byte == b'"') {
        rest = &rest[quote..];
        let Some(after) = rest.strip_prefix(CODE_MARK) else {
            rest = &rest[1..];
            continue;
        };
        let end = after.iter().position(|byte| *byte == b'"').context("a code is cut off")?;
        let code = std::str::from_utf8(&after[..end]).ok().and_then(|code| code.parse().ok());
        codes.push(code.context("an unknown code")?);
        rest = &after[end + 1..];
    }
    Ok(codes)
}

/// Posts the lanes, one a connection, until all is answered, the time is over, or something fails.
///
/// # Errors
/// When a connection cannot be made; what happens later is the lap's problem.
pub fn run(corpus: &Corpus, load: &HttpLoad, lanes: &[Vec<u32>], verdicts: &Verdicts) -> Result<Lap> {
    let mut posters = Vec::with_capacity(lanes.len());
    for _ in lanes {
        let stream = TcpStream::connect_timeout(&load.address, CONNECT_MAX)
            .with_context(|| format!("cannot reach {}", load.address))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(STALL_MAX))?;
        let head = format!(
            "POST /v1/frames HTTP/1.1\r\nhost: {}\r\ncontent-type: application/cbor-seq\r\ncontent-length: ",
            load.address
        );
        posters.push(Poster { corpus, verdicts, stream, head, request: Vec::new(), input: Vec::new() });
    }
    let mut total = Lap::default();
    std::thread::scope(|scope| {
        let mut threads = Vec::new();
        for (number, (mut poster, lane)) in posters.into_iter().zip(lanes).enumerate() {
            let schedule = Schedule::new(load.pace, number, lanes.len());
            threads.push(scope.spawn(move || {
                let mut lap = Lap::default();
                if let Err(problem) = poster.send_lane(load, lane, schedule, &mut lap) {
                    lap.problem = Some(format!("{problem:#}"));
                }
                lap
            }));
        }
        for thread in threads {
            match thread.join() {
                Ok(lap) => total.add(&lap),
                Err(_) => bail!("a posting thread panicked"),
            }
        }
        Ok(())
    })?;
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Guarantee: an answer is taken when it is whole, never before; one without a length is refused.
    #[test]
    fn answers_are_read() {
        let text = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 5\r\nretry-after: 99\r\n\r\nhello";
        for cut in 0..text.len() {
            assert!(parse(&text[..cut]).unwrap().is_none(), "{cut}");
        }
        let answer = parse(text).unwrap().unwrap();
        assert_eq!((answer.status, answer.retry_after), (503, RETRY_AFTER_MAX));
        assert_eq!(answer.body, b"hello");
        assert!(parse(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }

    // Guarantee: codes are told in order; a hint that looks like one is none.
    #[test]
    fn codes_are_found() {
        let body = br#"{"accepted":1,"verdicts":[{"i":0,"code":"OK","flags":0},
            {"i":1,"code":"SIG_BAD","flags":0,"hint":"\"code\":\"DUP\""}]}"#;
        assert_eq!(codes(body).unwrap(), [Code::Ok, Code::SigBad]);
        assert!(codes(br#"{"code":"NEVER"}"#).is_err());
    }
}
