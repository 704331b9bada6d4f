//! The bridge between a broker and a store: subscribes, writes batches, acknowledges what the store answered.
//! A process of its own, so that its cost is seen apart; stdout tells how many frames are written.
//!
//! One thread reads messages, another formats, posts and acknowledges; between them two batches may wait, then the socket is
//! not read. It speaks MQTT by hand: with rumqttc, which sends each acknowledgement by itself after ten messages read,
//! the acknowledgements fell 26,000 behind. That is in the peers' favour.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::store::{Kindred, Store, write_frame};
use crate::shape::Kind;
use crate::wire::{self, Heard};

/// Frames of a batch.
pub const BATCH_FRAMES: usize = 500;
/// A batch that is not full waits this long for more.
const BATCH_WAIT: Duration = Duration::from_millis(20);
/// Batches that wait for the store.
const BATCHES: usize = 2;
/// Messages that the broker may send without an acknowledgement: the batches that wait, one in the store, one being read.
const RECEIVE_MAX: u16 = ((BATCHES + 2) * BATCH_FRAMES) as u16;
/// Room for what is read and not yet a whole message.
const IN_BYTES: usize = 1 << 20;

/// What to bridge.
#[derive(Debug, Clone)]
pub struct Options {
    /// The broker.
    pub broker: SocketAddr,
    /// Which store.
    pub kindred: Kindred,
    /// Where it is.
    pub store: SocketAddr,
    /// What comes.
    pub kind: Kind,
}

/// Messages in the store's words, and what to acknowledge.
#[derive(Debug, Default)]
struct Batch {
    packets: Vec<u16>,
    frames: Vec<Vec<u8>>,
}

/// Runs until it is killed.
///
/// # Errors
/// When the broker or the store fails.
pub fn run(options: &Options) -> Result<()> {
    let store = Store::new(options.kindred, options.store);
    store.prepare()?;
    let mut stream = TcpStream::connect(options.broker).context("cannot reach the broker")?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(BATCH_WAIT))?;
    let mut hello = Vec::new();
    wire::connect_durable(&mut hello, "bridge", RECEIVE_MAX);
    wire::subscribe(&mut hello, b"v1/d/+/frames");
    stream.write_all(&hello)?;
    let (send, batches) = sync_channel(BATCHES);
    let acknowledge = stream.try_clone()?;
    std::thread::scope(|scope| {
        let poster = scope.spawn(move || post(options, &store, &batches, acknowledge));
        let read = read(&mut stream, &send);
        drop(send);
        match poster.join() {
            Ok(posted) => posted.and(read),
            Err(_) => bail!("the posting thread panicked"),
        }
    })
}

fn post(options: &Options, store: &Store, batches: &Receiver<Batch>, mut stream: TcpStream) -> Result<()> {
    let (mut text, mut answers, mut total) = (String::new(), Vec::new(), 0);
    let mut stdout = std::io::stdout();
    for batch in batches {
        text.clear();
        for frame in &batch.frames {
            write_frame(options.kindred, options.kind, frame, &mut text)?;
        }
        store.write(&text)?;
        answers.clear();
        for packet in &batch.packets {
            wire::acknowledge(&mut answers, *packet);
        }
        stream.write_all(&answers).context("cannot acknowledge")?;
        total += batch.packets.len();
        writeln!(stdout, "{total}")?;
    }
    Ok(())
}

fn read(stream: &mut TcpStream, send: &SyncSender<Batch>) -> Result<()> {
    let (mut buffer, mut end) = (vec![0u8; IN_BYTES], 0);
    let mut batch = Batch::default();
    loop {
        match stream.read(&mut buffer[end..]) {
            Ok(0) => bail!("the broker closed the connection"),
            Ok(read) => end += read,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                hand_on(send, &mut batch)?;
                continue;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error).context("cannot receive"),
        }
        let mut at = 0;
        while let Some((heard, length)) = wire::hear(&buffer[at..end])? {
            match heard {
                Heard::Delivered { packet, payload } => {
                    batch.packets.push(packet);
                    batch.frames.push(payload.to_vec());
                }
                Heard::Subscribed => writeln!(std::io::stdout(), "0")?,
                _ => {}
            }
            at += length;
            if batch.packets.len() >= BATCH_FRAMES {
                hand_on(send, &mut batch)?;
            }
        }
        buffer.copy_within(at..end, 0);
        end -= at;
    }
}

fn hand_on(send: &SyncSender<Batch>, batch: &mut Batch) -> Result<()> {
    if batch.packets.is_empty() {
        return Ok(());
    }
    send.send(std::mem::take(batch)).ok().context("the store failed")
}
