//! The end of a connection: off the lists, a last word, and the fate of what was taken.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout, timeout_at};

use super::{Connection, tell};
use crate::admission::Door;
use crate::mqtt::deliveries::Gone;
use crate::mqtt::end::End;
use crate::mqtt::inbound::Version;
use crate::mqtt::outbound::{Outbound, Refusal, encode};

/// Longest time to tell a client why it is cut.
const FAREWELL: Duration = Duration::from_secs(2);
/// Longest time to read what a cut client still sends, so that its reason is not lost in a reset.
const LINGER: Duration = Duration::from_millis(300);
const LINGER_BYTES_MAX: usize = 1 << 20;

impl<S: AsyncRead + AsyncWrite + Send> Connection<S> {
    /// Takes the connection off all lists. A session that is kept says again what was not acknowledged.
    pub(super) fn leave(&mut self) {
        let Some(client) = self.client.take() else { return };
        let expiry_s = self.session.session_expiry_s();
        if expiry_s > 0 {
            for (device, standing) in self.session.take_unacked() {
                self.kept.outbox.push_back_unsent(device, standing);
            }
        }
        let shared = &self.shared;
        let at = (&shared.hub, Instant::now());
        shared.sessions.leave(&client, &self.kept, (self.id, expiry_s), at);
    }

    /// Tells the client why, as far as its version has words for it, and closes.
    pub(super) async fn farewell(&mut self, end: End) {
        match end {
            End::Version { level } => {
                let version = if level > 5 { Version::V5 } else { Version::V4 };
                encode(&Outbound::ConnRefused(Refusal::Version), version, None, &mut self.out);
            }
            End::Io | End::NotMqtt => {}
            _ if self.session.version() == Some(Version::V5) => match end.disconnect() {
                Some((code, hint)) if self.session.is_open() => {
                    self.push(&Outbound::Disconnect { code, hint });
                }
                Some(_) => {
                    self.push(&Outbound::ConnRefused(Refusal::Protocol));
                }
                None => {}
            },
            _ => {}
        }
        let Self { reader, writer, out, .. } = self;
        let goodbye = async {
            writer.write_all(out).await?;
            writer.shutdown().await
        };
        let told = timeout(FAREWELL, goodbye).await;
        if matches!(told, Ok(Ok(()))) && !matches!(end, End::Io | End::Client) {
            let _elapsed = timeout(LINGER, linger(reader)).await;
        }
    }

    /// Closes the socket and waits for what was taken and not yet answered: it is still decided, and its verdict
    /// still belongs to whoever listens. What was never offered counts as `RETRY_AFTER`.
    pub(super) async fn finish(self) {
        let Self { shared, reader, writer, mut deliveries, .. } = self;
        drop((reader, writer));
        let deadline = Instant::now() + shared.options.pressure_patience;
        while !deliveries.is_stuck() {
            let Ok(Ok(reply)) = timeout_at(deadline, deliveries.answer()).await else { break };
            match deliveries.settle(reply) {
                Ok(Some(settled)) => tell(&shared, &settled),
                Ok(None) | Err(Gone) => break,
            }
        }
        deliveries.abandon(Door::Mqtt, &shared.options.metrics);
    }
}

/// Reads and forgets until the client closes, within bounds.
async fn linger<R: AsyncRead + Unpin>(reader: &mut R) {
    // On the heap: an array would be a part of every connection's future.
    let mut waste = vec![0; 4096];
    let mut total = 0;
    while total < LINGER_BYTES_MAX {
        match reader.read(&mut waste).await {
            Ok(count) if count > 0 => total += count,
            _ => return,
        }
    }
}
