//! Connections that say nothing: what they cost the server in memory.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use socket2::{Domain, Socket, Type};

use crate::load::mqtt;
use crate::process::Usage;

/// Connections from one loopback address: servers limit that, and an address has about 28,000 ports.
const PER_ADDRESS: usize = 2_000;
/// They must outlive the look at the server.
const KEEP_ALIVE_S: u16 = 3_600;
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// Time that the server gets to notice that all have left.
const AFTER: Duration = Duration::from_secs(2);

/// What was seen.
#[derive(Debug, Clone, Serialize)]
pub struct Figures {
    /// Connections held.
    pub connections: usize,
    /// The server's memory before the first one, bytes.
    pub before_bytes: u64,
    /// With all of them open.
    pub open_bytes: u64,
    /// After they left.
    pub after_bytes: u64,
    /// Growth for each connection.
    pub bytes_per_connection: f64,
    /// CPU seconds that the server used to admit them.
    pub admit_cpu_s: f64,
    /// CPU seconds a second while they said nothing.
    pub idle_cpu_share: f64,
}

impl Figures {
    /// A table to read.
    #[must_use]
    pub fn table(&self) -> String {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        format!(
            "connections      {}\nresident         {:.0} MiB before, {:.0} MiB open, {:.0} MiB after\nper connection   {:.0} B\nCPU              {:.2} s to admit all, {:.2} % of a core while idle\n",
            self.connections,
            mib(self.before_bytes),
            mib(self.open_bytes),
            mib(self.after_bytes),
            self.bytes_per_connection,
            self.admit_cpu_s,
            self.idle_cpu_share * 100.0,
        )
    }
}

/// The address that a connection comes from.
fn source(number: usize) -> SocketAddr {
    let host = 1 + number / PER_ADDRESS;
    let [high, low] = (host as u16).to_be_bytes();
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, high, low)), 0)
}

fn open(address: SocketAddr, number: usize) -> Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    if address.ip().is_loopback() && address.is_ipv4() {
        socket.bind(&source(number).into())?;
    }
    socket.connect_timeout(&address.into(), CONNECT_MAX)?;
    let stream = TcpStream::from(socket);
    mqtt::greet(&stream, &format!("idle-{number}"), KEEP_ALIVE_S)?;
    Ok(stream)
}

/// Opens connections, holds them, closes them.
///
/// # Errors
/// When one is not admitted (the number is told), or the process is not there.
pub fn run(address: SocketAddr, connections: usize, pid: u32, hold: Duration) -> Result<Figures> {
    let look = || Usage::of(pid).with_context(|| format!("no process {pid}"));
    let before = look()?;
    let mut streams = Vec::with_capacity(connections);
    for number in 0..connections {
        let what =
            || format!("connection {number} of {connections} (limits on open files and of the server)");
        streams.push(open(address, number).with_context(what)?);
    }
    let admitted = look()?;
    sleep(hold);
    let held = look()?;
    for (number, stream) in streams.iter().enumerate() {
        stream.set_nonblocking(true)?;
        let is_open =
            stream.peek(&mut [0]).is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
        ensure!(is_open, "the server closed connection {number}");
    }
    drop(streams);
    sleep(AFTER);
    let after = look()?;
    let growth = held.resident_bytes.saturating_sub(before.resident_bytes);
    Ok(Figures {
        connections,
        before_bytes: before.resident_bytes,
        open_bytes: held.resident_bytes,
        after_bytes: after.resident_bytes,
        bytes_per_connection: growth as f64 / connections.max(1) as f64,
        admit_cpu_s: admitted.cpu_since(&before),
        idle_cpu_share: held.cpu_since(&admitted) / hold.as_secs_f64().max(1e-9),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    // Guarantee: no address is used for more than its share, and all are loopback.
    #[test]
    fn sources_are_spread() {
        for (number, text) in
            [(0, "127.0.0.1:0"), (1_999, "127.0.0.1:0"), (2_000, "127.0.0.2:0"), (520_000, "127.0.1.5:0")]
        {
            assert_eq!(source(number).to_string(), text);
            assert!(source(number).ip().is_loopback());
        }
    }
}
