//! Logins that end while their connection is open.

use std::sync::atomic::{AtomicBool, Ordering};

use super::super::inbound::Version;
use super::raw::{CONNECT_V4, CONNECT_V5, Raw, message, publish, rename, subscribe};
use super::*;
use crate::testing::{all_ok, frame, pipeline};

/// Admits everybody, for as long as it is told.
struct Lets(Arc<AtomicBool>);

impl Gatekeeper for Lets {
    fn admit(&self, _: &Credentials<'_>) -> Result<Admittance, ()> {
        let held = Arc::clone(&self.0);
        let lease = Lease::while_true(move || held.load(Ordering::SeqCst));
        Ok(Admittance { allowed: Allowed::All, identity: None, lease })
    }
}

/// Guarantee: when what a client came with ends, so does its connection, whether it sends or only listens; a v5 client is told,
/// and what was acknowledged before stands.
#[tokio::test]
async fn a_login_that_ends_ends_its_connection() {
    let (admission, inbox) = queue();
    pipeline(inbox, all_ok());
    let held = Arc::new(AtomicBool::new(true));
    let mut options = options();
    options.lease_every = Duration::from_millis(20);
    let server = start_with(Arc::new(Lets(Arc::clone(&held))), options, admission, None).await;
    let mut sender = Raw::connect(&server, CONNECT_V5).await;
    let mut listener = Raw::connect(&server, &rename(CONNECT_V4)).await;
    listener.send(&subscribe(Version::V4, 1, 0)).await;
    assert_eq!(listener.packet().await.unwrap()[0], 0x90);
    tokio::time::sleep(Duration::from_millis(60)).await;
    sender.send(&publish(Version::V5, 1, Some(1), &frame(1, 0))).await;
    assert_eq!(sender.packet().await.unwrap(), [0x40, 2, 0, 1], "looked at several times, and still there");
    assert_eq!(message(&listener.packet().await.unwrap(), Version::V4, false)["acked_to"]["seq"], 0);
    held.store(false, Ordering::SeqCst);
    let farewell = sender.packet().await.unwrap();
    assert_eq!((farewell[0], farewell[2]), (0xe0, 0x87), "DISCONNECT, not authorised");
    assert_eq!((sender.packet().await, listener.packet().await), (None, None));
    server.wait_for("disconnects", &["login_ended"], 2).await;
    assert_eq!(server.count("frames", &["mqtt", "OK"]), 1);
}
