//! The bridge's one loop: messages of the broker into the queue, acknowledgements and verdicts back.
//!
//! What bounds it: [`BridgeOptions::receive_max`] twice over (what an older connection left, and the same again from the
//! next), then the connection is not read; one merged verdict per device, for a bounded number of devices.

use std::collections::VecDeque;
use std::time::Duration;

use rumqttc::v5::mqttbytes::v5::Publish;
use schemas_frame::Code;
use schemas_identity::ShortId;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::BridgeOptions;
use super::link::{Epoch, Event, Link};
use crate::admission::{Admission, Allowed, Door, Reply, Via};
use crate::cut::{Cut, cut};
use crate::mqtt::deliveries::{Deliveries, Gone, Settled};
use crate::mqtt::topic::{frames_device, verdict_topic};
use crate::mqtt::verdict::{Outbox, Standing};
use crate::recent::Recent;

/// Pause between two offers under pressure.
const RETRY: Duration = Duration::from_millis(20);

/// What a message needs once it is decided.
struct Tag {
    /// Connection and packet id; `None` for QoS 0.
    ack: Option<(Epoch, u16)>,
    /// Whose verdict topic; `None` where the topic names nobody.
    device: Option<ShortId>,
}

pub(super) struct Worker {
    admission: Admission,
    options: BridgeOptions,
    link: Link,
    deliveries: Deliveries,
    /// One for each delivery, in the same order.
    tags: VecDeque<Tag>,
    must_subscribe: bool,
    outbox: Outbox,
    standings: Recent<ShortId, Standing>,
    /// Verdicts handed to the client and not acknowledged by the broker.
    unacked_verdicts: u16,
}

impl Worker {
    pub(super) fn new(admission: Admission, options: BridgeOptions, link: Link) -> Self {
        Self {
            admission,
            link,
            deliveries: Deliveries::default(),
            tags: VecDeque::new(),
            must_subscribe: false,
            outbox: Outbox::default(),
            standings: Recent::new(options.devices_max),
            unacked_verdicts: 0,
            options,
        }
    }

    pub(super) async fn run(mut self, stop: CancellationToken) {
        let mut stopping_since = None;
        loop {
            self.subscribe();
            self.publish_verdicts();
            let stopping = stopping_since.is_some();
            if stopping && self.deliveries.is_stuck() {
                break;
            }
            // While stopping, events are still taken (and messages left to the broker), or no acknowledgement would go.
            let may_take =
                stopping || self.deliveries.len() < 2 * usize::from(self.options.receive_max.max(1));
            let drained_by = stopping_since.unwrap_or_else(Instant::now) + self.options.drain_timeout;
            let went_on = tokio::select! {
                biased;
                () = stop.cancelled(), if !stopping => {
                    stopping_since = Some(Instant::now());
                    Ok(())
                }
                () = sleep_until(drained_by), if stopping => break,
                answer = self.deliveries.answer() => self.answered(answer),
                event = self.link.events.recv(), if may_take => match event {
                    Some(event) => self.on(event, stopping),
                    None => {
                        tracing::error!("the bridge's connection ended by itself and is opened anew");
                        self.link = Link::open(&self.options);
                        Ok(())
                    }
                },
                () = sleep_until(Instant::now() + RETRY), if self.deliveries.is_blocked() => {
                    self.deliveries.retry(&self.admission)
                }
            };
            if went_on == Err(Gone) {
                tracing::warn!("the pipeline is gone; what is not acknowledged stays with the broker");
                break;
            }
        }
        self.deliveries.abandon(Door::Bridge, &self.options.metrics);
        self.options.metrics.bridge_connected.set(0);
        self.link.close().await;
    }

    fn on(&mut self, event: Event, stopping: bool) -> Result<(), Gone> {
        let metrics = &self.options.metrics;
        match event {
            Event::Connected { resumed } => {
                tracing::info!(host = self.options.host, resumed, "connected to the broker");
                metrics.bridge_connected.set(1);
                metrics.bridge_connections.inc();
                self.must_subscribe = true;
                if !resumed {
                    self.unacked_verdicts = 0;
                }
            }
            Event::Lost(error) => {
                tracing::warn!(host = self.options.host, error, "no connection to the broker");
                metrics.bridge_connected.set(0);
            }
            Event::Refused(reason) => {
                tracing::error!(reason, "the broker refuses the subscription: look at its access list");
            }
            Event::Acked => self.unacked_verdicts = self.unacked_verdicts.saturating_sub(1),
            Event::Publish { .. } if stopping => {}
            Event::Publish { epoch, publish } => return self.take(epoch, publish),
        }
        Ok(())
    }

    fn take(&mut self, epoch: Epoch, publish: Publish) -> Result<(), Gone> {
        let options = &self.options;
        options.metrics.body(Door::Bridge, publish.payload.len());
        if publish.dup {
            options.metrics.bridge_redelivered.inc();
        }
        let device = std::str::from_utf8(&publish.topic).ok().and_then(frames_device);
        let cut = match device {
            Some(_) => cut(&publish.payload, device, options.frames_max)
                .unwrap_or_else(|error| Cut::refused(Code::TooBig, error.to_string())),
            None => Cut::refused(Code::TopicMismatch, "the topic names no device".to_owned()),
        };
        self.tags.push_back(Tag { ack: (publish.pkid != 0).then_some((epoch, publish.pkid)), device });
        // The broker decides who may publish what; here the frame's own signature does.
        let via = Via { door: Door::Bridge, peer: None, allowed: Allowed::All, topic_device: device };
        let taken = self.deliveries.take(&self.admission, via, device.unwrap_or(ShortId([0; 8])), cut)?;
        if !taken {
            options.metrics.pressure(Door::Bridge);
        }
        Ok(())
    }

    fn answered(&mut self, answer: Result<Reply, Gone>) -> Result<(), Gone> {
        let mut next = Some(answer);
        while let Some(answer) = next {
            match self.deliveries.settle(answer?)? {
                Some(settled) => self.settled(&settled),
                None => self.options.metrics.pressure(Door::Bridge),
            }
            next = self.deliveries.answer_now();
        }
        Ok(())
    }

    /// A message is decided and durable: acknowledged on its own connection or not at all.
    fn settled(&mut self, settled: &Settled) {
        let metrics = &self.options.metrics;
        metrics.verdicts(Door::Bridge, &settled.verdicts);
        let Some(tag) = self.tags.pop_front() else { return };
        if let Some((epoch, pkid)) = tag.ack
            && !self.link.ack(epoch, pkid)
        {
            metrics.bridge_acks_dropped.inc();
        }
        let Some(device) = tag.device else { return };
        let report = settled.reply.reports.iter().find(|report| report.device == device);
        let mut standing = Standing::of(report, &settled.verdicts, (self.options.clock)());
        let latest = self.standings.touch(&device, Standing::default);
        standing.not_before(latest);
        latest.clone_from(&standing);
        if self.outbox.len() >= self.options.devices_max {
            metrics.exceptions_dropped.inc_by(standing.exceptions.len() as u64);
            return;
        }
        let pushed = self.outbox.push(device, standing);
        if pushed.merged {
            metrics.verdicts_merged.inc();
        }
        metrics.exceptions_dropped.inc_by(pushed.exceptions_dropped as u64);
    }

    fn publish_verdicts(&mut self) {
        while self.unacked_verdicts < self.options.verdicts_max.max(1) {
            let Some((device, standing)) = self.outbox.pop() else { return };
            if !self.link.publish(verdict_topic(&device), standing.message()) {
                self.outbox.push_back_unsent(device, standing);
                return;
            }
            self.unacked_verdicts += 1;
            self.options.metrics.verdicts_sent.inc();
        }
    }

    /// At every connection: a broker may have lost what it was told, and to be told twice changes nothing.
    fn subscribe(&mut self) {
        if self.must_subscribe {
            let filter = format!("$share/{}/v1/d/+/frames", self.options.group);
            self.must_subscribe = !self.link.subscribe(filter);
        }
    }
}
