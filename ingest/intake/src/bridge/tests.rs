//! The bridge against a real Mosquitto, stopped and started again in the middle. Skipped aloud where it is missing.

use std::collections::HashSet;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Packet;
use rumqttc::v5::{AsyncClient, Event, EventLoop, MqttOptions};
use schemas_frame::Code;
use tokio::task::JoinHandle;

use super::*;
use crate::admission::{AdmissionOptions, Drain, Inbox};
use crate::testing::{Judge, device_id, frame, reply_to};

const PATIENCE: Duration = Duration::from_secs(30);

/// A Mosquitto on a loopback port, with persistence in a folder of its own.
struct Broker {
    folder: tempfile::TempDir,
    port: u16,
    child: Child,
}

impl Broker {
    fn program() -> Option<PathBuf> {
        let found = ["/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto", "/opt/homebrew/sbin/mosquitto"];
        let program = found.iter().map(PathBuf::from).find(|path| path.exists());
        if program.is_none() {
            eprintln!("skipped: mosquitto is not installed (Debian package mosquitto)");
        }
        program
    }

    async fn start(more: &str) -> Option<Self> {
        let program = Self::program()?;
        let folder = tempfile::tempdir().unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let at = folder.path().display();
        // Mosquitto as root changes to an account that could not write here.
        let user =
            if std::env::var("USER").as_deref() == Ok("root") || at_root() { "user root\n" } else { "" };
        let config = format!(
            "listener {port} 127.0.0.1\nallow_anonymous true\npersistence true\npersistence_location {at}/\n\
             max_queued_messages 0\n{user}{more}\n"
        );
        std::fs::write(folder.path().join("broker.conf"), config).unwrap();
        let child = spawn(&program, &folder);
        let broker = Self { folder, port, child };
        broker.wait().await;
        Some(broker)
    }

    async fn wait(&self) {
        for _ in 0..500 {
            if tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.is_ok() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("mosquitto does not listen");
    }

    /// SIGTERM, upon which it writes what it keeps; then a new one on the same port and folder.
    async fn restart(&mut self) {
        assert!(Command::new("kill").arg(self.child.id().to_string()).status().unwrap().success());
        self.child.wait().unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
        self.child = spawn(&Self::program().unwrap(), &self.folder);
        self.wait().await;
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}

fn at_root() -> bool {
    std::fs::read_to_string("/proc/self/status")
        .is_ok_and(|status| status.lines().any(|line| line.starts_with("Uid:\t0\t")))
}

fn spawn(program: &PathBuf, folder: &tempfile::TempDir) -> Child {
    let config = folder.path().join("broker.conf");
    let quiet = || Stdio::null();
    Command::new(program).arg("-c").arg(config).stdout(quiet()).stderr(quiet()).spawn().unwrap()
}

/// A pipeline that decides when told to: the first of each frame is OK, every other DUP.
#[derive(Default)]
struct Decisions {
    may_decide: AtomicBool,
    seen: Mutex<HashSet<u64>>,
    ok: AtomicU64,
    dup: AtomicU64,
    offered: AtomicU64,
}

fn pipeline(mut inbox: Inbox, decisions: Arc<Decisions>) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut got = Vec::new();
        while inbox.recv_many(&mut got, Drain::default()).await > 0 {
            decisions.offered.fetch_add(got.len() as u64, Ordering::SeqCst);
            while !decisions.may_decide.load(Ordering::SeqCst) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            for submission in got.drain(..) {
                let judged = Arc::clone(&decisions);
                let judge: Judge = Arc::new(move |frame| match judged.seen.lock().insert(frame.seq()) {
                    true => Code::Ok,
                    false => Code::Dup,
                });
                let reply = reply_to(&submission, &judge);
                for verdict in &reply.verdicts {
                    let counter = if verdict.code == Code::Ok { &decisions.ok } else { &decisions.dup };
                    counter.fetch_add(1, Ordering::SeqCst);
                }
                submission.reply.send(reply);
            }
        }
    })
}

/// A bridge to `broker`, its pipeline, and how to stop it.
struct Running {
    decisions: Arc<Decisions>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
    ended: JoinHandle<()>,
}

fn bridge(port: u16, decisions: &Arc<Decisions>, change: impl FnOnce(&mut BridgeOptions)) -> Running {
    let metrics = Arc::new(Metrics::new().unwrap());
    let (admission, inbox) = Admission::new(AdmissionOptions::default());
    pipeline(inbox, Arc::clone(decisions));
    let mut options = BridgeOptions::new("127.0.0.1", port, Arc::clone(&metrics));
    // Below Mosquitto's own 20, so that what holds is ours.
    options.receive_max = 10;
    options.reconnect_max = Duration::from_millis(300);
    change(&mut options);
    let stop = CancellationToken::new();
    let ended = tokio::spawn(run(admission, options, stop.clone()));
    Running { decisions: Arc::clone(decisions), metrics, stop, ended }
}

impl Running {
    async fn until(&self, what: &str, reached: impl Fn(&Self) -> bool) {
        let started = std::time::Instant::now();
        while !reached(self) {
            let so_far = (&self.decisions.offered, &self.decisions.ok, &self.decisions.dup);
            assert!(started.elapsed() < PATIENCE, "{what}: {so_far:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Until the broker has sent nothing for a while.
    async fn quiet(&self) {
        let mut before = u64::MAX;
        while before != self.decisions.offered.load(Ordering::SeqCst) {
            before = self.decisions.offered.load(Ordering::SeqCst);
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(PATIENCE, self.ended).await.expect("the bridge ends").unwrap();
    }
}

/// A client of the broker, as a device would be.
fn device(port: u16, id: &str) -> (AsyncClient, EventLoop) {
    let mut options = MqttOptions::new(id, "127.0.0.1", port);
    options.set_connection_timeout(5);
    AsyncClient::new(options, 2_000)
}

/// Publishes frames `seqs` and waits until the broker has acknowledged all.
async fn publish(port: u16, seqs: std::ops::Range<u64>) {
    let (client, mut events) = device(port, "device");
    let topic = format!("v1/d/{}/frames", device_id(1));
    let mut waiting = seqs.end - seqs.start;
    for seq in seqs {
        client.try_publish(&topic, QoS::AtLeastOnce, false, frame(1, seq)).unwrap();
    }
    let sending = async {
        while waiting > 0 {
            if let Event::Incoming(Packet::PubAck(_)) = events.poll().await.unwrap() {
                waiting -= 1;
            }
        }
    };
    tokio::time::timeout(PATIENCE, sending).await.expect("the broker takes them");
}

/// Every frame that the broker kept is decided exactly once, over a restart of the broker with acknowledgements
/// outstanding and one in the middle of the flow; what comes twice is DUP; afterwards the broker has nothing left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_frame_is_decided_once_over_restarts_of_the_broker() {
    const FRAMES: u64 = 600;
    let Some(mut broker) = Broker::start("").await else { return };
    let decisions = Arc::new(Decisions::default());
    let running = bridge(broker.port, &decisions, |_| {});
    running.until("connected", |running| running.metrics.bridge_connected.get() == 1).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    publish(broker.port, 0..200).await;
    running.until("receive maximum", |running| running.decisions.offered.load(Ordering::SeqCst) > 0).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(decisions.ok.load(Ordering::SeqCst), 0, "nothing is decided yet");

    broker.restart().await;
    running.until("back", |running| running.metrics.bridge_connections.get() >= 2).await;
    decisions.may_decide.store(true, Ordering::SeqCst);
    running.until("the first", |running| running.decisions.ok.load(Ordering::SeqCst) >= 200).await;
    assert!(decisions.dup.load(Ordering::SeqCst) > 0, "what was outstanding came again");
    assert!(
        running.metrics.bridge_acks_dropped.get() > 0,
        "acknowledgements of the older connection are dropped"
    );

    running.until("connected again", |running| running.metrics.bridge_connected.get() == 1).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    publish(broker.port, 200..FRAMES).await;
    broker.restart().await;
    running.until("all", |running| running.decisions.ok.load(Ordering::SeqCst) == FRAMES).await;
    // What was decided but not acknowledged when the broker stopped comes once more.
    running.until("the third connection", |running| running.metrics.bridge_connections.get() >= 3).await;
    running.quiet().await;
    running.stop().await;

    // A successor with the same session finds nothing: all was acknowledged.
    let (offered, ok) = (decisions.offered.load(Ordering::SeqCst), decisions.ok.load(Ordering::SeqCst));
    let successor = bridge(broker.port, &decisions, |_| {});
    successor.until("connected", |running| running.metrics.bridge_connected.get() == 1).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(decisions.offered.load(Ordering::SeqCst), offered, "nothing was left at the broker");
    assert_eq!(ok, FRAMES);
    successor.stop().await;
}

/// No more than receive maximum is taken before it is decided, and what is not decided at the end stays with the broker.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_broker_keeps_what_is_not_decided() {
    let Some(broker) = Broker::start("").await else { return };
    let undecided = Arc::new(Decisions::default());
    let first = bridge(broker.port, &undecided, |options| options.drain_timeout = Duration::from_millis(100));
    first.until("connected", |running| running.metrics.bridge_connected.get() == 1).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    publish(broker.port, 0..100).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(first.metrics.count("vitalog_intake_bytes_total", &["bridge"]) <= 10 * frame(1, 99).len() as u64);
    first.stop().await;

    let decided = Arc::new(Decisions::default());
    decided.may_decide.store(true, Ordering::SeqCst);
    let second = bridge(broker.port, &decided, |_| {});
    second.until("all", |running| running.decisions.ok.load(Ordering::SeqCst) == 100).await;
    assert_eq!(decided.dup.load(Ordering::SeqCst), 0);
    assert!(second.metrics.bridge_redelivered.get() > 0);
    second.stop().await;
}

/// Verdicts come back through the broker; other topics, other people's frames and noise are refused and acknowledged;
/// a message over the maximum is dropped by the broker and holds up nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verdicts_come_back_and_noise_holds_up_nothing() {
    let Some(broker) = Broker::start("").await else { return };
    let decisions = Arc::new(Decisions::default());
    decisions.may_decide.store(true, Ordering::SeqCst);
    let running = bridge(broker.port, &decisions, |options| options.packet_bytes_max = 10_000);
    running.until("connected", |running| running.metrics.bridge_connected.get() == 1).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let (client, mut events) = device(broker.port, "watch");
    let topic = format!("v1/d/{}/frames", device_id(1));
    client.try_subscribe(format!("v1/d/{}/verdict", device_id(1)), QoS::AtLeastOnce).unwrap();
    let messages: [(&str, Vec<u8>); 5] = [
        ("v1/d/nobody/frames", frame(1, 0).to_vec()),
        (&topic, vec![0; 20_000]),
        (&topic, frame(2, 0).to_vec()),
        (&topic, b"\xff".to_vec()),
        (&topic, frame(1, 7).to_vec()),
    ];
    for (topic, payload) in messages {
        client.try_publish(topic, QoS::AtLeastOnce, false, payload).unwrap();
    }
    let mut codes = Vec::new();
    let listening = async {
        loop {
            let Event::Incoming(Packet::Publish(message)) = events.poll().await.unwrap() else { continue };
            let json: serde_json::Value = serde_json::from_slice(&message.payload).unwrap();
            for exception in json["exceptions"].as_array().unwrap() {
                codes.push(exception["code"].as_str().unwrap().to_owned());
            }
            if json["acked_to"]["seq"] == 7 {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, listening).await.expect("a verdict");
    assert_eq!(codes, ["TOPIC_MISMATCH", "DECODE"]);
    let refused = running.metrics.count("vitalog_intake_frames_total", &["bridge", "TOPIC_MISMATCH"]);
    assert_eq!(refused, 2);
    assert_eq!(running.metrics.bridge_connections.get(), 1, "the connection stood");
    running.stop().await;
}

/// With a user name and password the broker lets us in; without it does not, and we keep asking.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_are_shown() {
    let folder = tempfile::tempdir().unwrap();
    let passwords = folder.path().join("passwords");
    std::fs::write(&passwords, "bridge:secret\n").unwrap();
    if Broker::program().is_none() {
        return;
    }
    let hashed = Command::new("mosquitto_passwd").arg("-U").arg(&passwords).status();
    if !hashed.is_ok_and(|status| status.success()) {
        eprintln!("skipped: mosquitto_passwd is not installed (Debian package mosquitto)");
        return;
    }
    let more = format!("password_file {}", passwords.display());
    let Some(broker) = Broker::start(&more.replace("allow_anonymous true", "")).await else { return };
    let decisions = Arc::new(Decisions::default());
    let wrong = bridge(broker.port, &decisions, |options| {
        options.credentials = Some(("bridge".to_owned(), "wrong".to_owned()));
    });
    let right = bridge(broker.port, &decisions, |options| {
        options.client_id = "other".to_owned();
        options.credentials = Some(("bridge".to_owned(), "secret".to_owned()));
    });
    right.until("let in", |running| running.metrics.bridge_connected.get() == 1).await;
    assert_eq!(wrong.metrics.bridge_connections.get(), 0);
    wrong.stop().await;
    right.stop().await;
}
