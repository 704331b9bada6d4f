//! The connection to the broker: a task that polls rumqttc and never stops in the middle of it, reconnects with back-off
//! and jitter, and numbers its connections.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Packet, Publish, SubscribeReasonCode};
use rumqttc::v5::{AsyncClient, Event as Polled, EventLoop, MqttOptions};
use rumqttc::{Outgoing, TlsConfiguration, Transport};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::BridgeOptions;

/// Seconds between two signs of life to the broker.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// A connection that lived so long was a good one: the next pause is the first again.
const GOOD_AFTER: Duration = Duration::from_secs(10);
/// Room in both queues beside publishes and verdicts: subscriptions, pings, the end.
const OTHERS: usize = 64;
/// Longest time for the last acknowledgements and DISCONNECT to leave.
const FAREWELL: Duration = Duration::from_secs(2);

/// Number of a connection, from 1; 0 stands for none.
pub(super) type Epoch = u64;

/// What the connection has to tell.
#[derive(Debug)]
pub(super) enum Event {
    /// Connected. `resumed`: the broker still had our session.
    Connected { resumed: bool },
    /// A message of the connection of this number.
    Publish { epoch: Epoch, publish: Publish },
    /// The broker has acknowledged one of our messages.
    Acked,
    /// The broker refuses the subscription.
    Refused(String),
    /// The connection is lost; another is on its way.
    Lost(String),
}

/// Our side of the connection.
pub(super) struct Link {
    client: AsyncClient,
    /// The connection that is open, 0 if none. Whoever queues an acknowledgement holds the lock.
    gate: Arc<Mutex<Epoch>>,
    pub(super) events: mpsc::Receiver<Event>,
    polling: JoinHandle<()>,
}

impl Link {
    pub(super) fn open(options: &BridgeOptions) -> Self {
        // An acknowledgement must never find the queue full: its message would stay unacknowledged for as long as the
        // connection lives. Packet ids bound them, receive maximum does not: Mosquitto 2.0.11 exceeds it after a restart.
        let requests_max = usize::from(u16::MAX) + usize::from(options.verdicts_max) + OTHERS;
        let (client, event_loop) = AsyncClient::new(client_options(options), requests_max);
        let gate = Arc::new(Mutex::new(0));
        let (told, events) = mpsc::channel(usize::from(options.receive_max) + OTHERS);
        let pauses = (options.reconnect_min, options.reconnect_max);
        let polling = tokio::spawn(poll(event_loop, Arc::clone(&gate), told, pauses));
        Self { client, gate, events, polling }
    }

    /// Acknowledges a message of connection `epoch`. False if that connection is gone: the broker sends it again.
    pub(super) fn ack(&self, epoch: Epoch, pkid: u16) -> bool {
        let mut publish = Publish::new("", QoS::AtLeastOnce, Bytes::new(), None);
        publish.pkid = pkid;
        let current = self.gate.lock();
        *current == epoch && self.client.try_ack(&publish).is_ok()
    }

    /// Publishes at QoS 1; false if the queue is full.
    pub(super) fn publish(&self, topic: String, payload: Bytes) -> bool {
        self.client.try_publish(topic, QoS::AtLeastOnce, false, payload).is_ok()
    }

    /// Asks for the subscription; false if the queue is full.
    pub(super) fn subscribe(&self, filter: String) -> bool {
        self.client.try_subscribe(filter, QoS::AtLeastOnce).is_ok()
    }

    /// Ends the connection after what is queued, within bounds. The broker keeps the session.
    pub(super) async fn close(mut self) {
        if *self.gate.lock() != 0 && self.client.try_disconnect().is_ok() {
            let ended = async { while self.events.recv().await.is_some() {} };
            if timeout(FAREWELL, ended).await.is_err() {
                tracing::debug!("the broker did not take our farewell in time");
            }
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.polling.abort();
    }
}

fn client_options(options: &BridgeOptions) -> MqttOptions {
    let mut client = MqttOptions::new(&options.client_id, &options.host, options.port);
    client
        .set_keep_alive(KEEP_ALIVE)
        .set_clean_start(false)
        .set_manual_acks(true)
        .set_session_expiry_interval(Some(options.session_expiry_s))
        .set_receive_maximum(Some(options.receive_max.max(1)))
        .set_max_packet_size(Some(options.packet_bytes_max))
        .set_outgoing_inflight_upper_limit(options.verdicts_max.max(1));
    if let Some((username, password)) = &options.credentials {
        client.set_credentials(username, password);
    }
    if let Some(tls) = &options.tls {
        client.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(Arc::clone(tls))));
    }
    client
}

/// Polls until our DISCONNECT has been sent or nobody listens any more.
async fn poll(
    mut event_loop: EventLoop,
    gate: Arc<Mutex<Epoch>>,
    told: mpsc::Sender<Event>,
    (pause_min, pause_max): (Duration, Duration),
) {
    let mut epoch: Epoch = 0;
    let mut pause = pause_min;
    let mut connected_at = None;
    loop {
        let event = match event_loop.poll().await {
            Ok(Polled::Incoming(Packet::ConnAck(connack))) => {
                epoch += 1;
                *gate.lock() = epoch;
                connected_at = Some(Instant::now());
                Event::Connected { resumed: connack.session_present }
            }
            Ok(Polled::Incoming(Packet::Publish(publish))) => Event::Publish { epoch, publish },
            Ok(Polled::Incoming(Packet::PubAck(_))) => Event::Acked,
            Ok(Polled::Incoming(Packet::SubAck(suback))) => {
                match suback.return_codes.iter().find(|code| !matches!(code, SubscribeReasonCode::Success(_)))
                {
                    Some(refused) => Event::Refused(format!("{refused:?}")),
                    None => continue,
                }
            }
            Ok(Polled::Outgoing(Outgoing::Disconnect)) => return,
            Ok(_) => continue,
            Err(error) => {
                // First the gate, then the queue: nothing of the old connection is left for the next one.
                *gate.lock() = 0;
                event_loop.clean();
                if connected_at.take().is_some_and(|at: Instant| at.elapsed() >= GOOD_AFTER) {
                    pause = pause_min;
                }
                if told.send(Event::Lost(error.to_string())).await.is_err() {
                    return;
                }
                sleep(jittered(pause)).await;
                pause = (pause * 2).min(pause_max);
                continue;
            }
        };
        if told.send(event).await.is_err() {
            return;
        }
    }
}

/// Between a half and the whole of `pause`, so that bridges which lost their broker together do not return together.
fn jittered(pause: Duration) -> Duration {
    let dice = getrandom::u32().unwrap_or(u32::MAX);
    pause.mul_f64(0.5 + f64::from(dice) / f64::from(u32::MAX) / 2.0)
}
