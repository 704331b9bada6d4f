//! Keys from a file that changes and from servers that are slow, wrong, too talkative or gone.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::json;

use super::{NOW_S, Signer, World, document, options, providers, with};
use crate::source::{DOCUMENT_BYTES_MAX, FETCH_TIME_MAX};
use crate::{Providers, Refused, Source};

/// What the server says next.
#[derive(Clone)]
enum Say {
    Answer(String),
    Raw(Vec<u8>),
    /// Headers, then a byte a second for ever.
    Drip,
    Nothing,
}

/// A server on this machine that counts who asks.
struct Place {
    url: String,
    said: Arc<Mutex<Say>>,
    asked: Arc<AtomicUsize>,
}

impl Place {
    fn new(first: Say) -> Place {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/keys", listener.local_addr().unwrap());
        let (said, asked) = (Arc::new(Mutex::new(first)), Arc::new(AtomicUsize::new(0)));
        let (says, counts) = (Arc::clone(&said), Arc::clone(&asked));
        std::thread::spawn(move || {
            for socket in listener.incoming() {
                let Ok(socket) = socket else { return };
                counts.fetch_add(1, Ordering::SeqCst);
                let say = says.lock().clone();
                std::thread::spawn(move || serve(socket, say));
            }
        });
        Place { url, said, asked }
    }

    fn say(&self, say: Say) {
        *self.said.lock() = say;
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    fn providers(&self) -> Providers {
        providers(options(Source::Url { url: self.url.clone(), authorities: None }))
    }
}

fn serve(mut socket: TcpStream, say: Say) {
    let mut request = [0; 4_096];
    let _ = socket.read(&mut request);
    let _ = match say {
        Say::Answer(body) => {
            let head =
                format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
            socket.write_all(head.as_bytes()).and_then(|()| socket.write_all(body.as_bytes()))
        }
        Say::Raw(bytes) => socket.write_all(&bytes),
        Say::Drip => {
            let mut sent = socket.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{");
            while sent.is_ok() {
                std::thread::sleep(Duration::from_millis(200));
                sent = socket.write_all(b" ");
            }
            sent
        }
        Say::Nothing => {
            std::thread::sleep(Duration::from_secs(60));
            Ok(())
        }
    };
}

fn keys(signers: &[(&str, &Signer)]) -> Say {
    let keys: Vec<_> = signers.iter().map(|(kid, signer)| signer.jwk(kid)).collect();
    Say::Answer(document(&keys))
}

/// Somebody whose token is as old as the present is.
fn ask(providers: &Providers, signer: &Signer, kid: &str, now_s: i64) -> Option<Refused> {
    let mut claims = with("iat", json!(now_s - 10));
    claims["exp"] = json!(now_s + 300);
    providers.verify(&signer.token(kid, &claims), now_s).err()
}

/// Guarantee: keys are fetched when it is time; an unknown key asks for one fetch, and a thousand unknown keys in a minute for
/// no more; a key that is gone from the document is gone here.
#[test]
fn rotation() {
    let (old, new) = (Signer::ed(1), Signer::ed(2));
    let place = Place::new(keys(&[("old", &old)]));
    let providers = place.providers();
    let keep = |now_s| providers.all()[0].keep(now_s);
    assert_eq!(ask(&providers, &old, "old", NOW_S), Some(Refused::NoKeys));
    keep(NOW_S).unwrap();
    assert_eq!(ask(&providers, &old, "old", NOW_S), None);
    place.say(keys(&[("old", &old), ("new", &new)]));
    keep(NOW_S + 1).unwrap();
    assert_eq!(place.asked(), 1);
    assert_eq!(ask(&providers, &new, "new", NOW_S + 1), Some(Refused::UnknownKey));
    keep(NOW_S + 2).unwrap();
    assert_eq!((place.asked(), ask(&providers, &new, "new", NOW_S + 2)), (2, None));
    for second in 3..62 {
        for kid in 0..20 {
            assert_eq!(ask(&providers, &new, &kid.to_string(), NOW_S + second), Some(Refused::UnknownKey));
        }
        keep(NOW_S + second).unwrap();
    }
    assert_eq!(place.asked(), 2);
    keep(NOW_S + 62).unwrap();
    assert_eq!(place.asked(), 3);
    place.say(keys(&[("new", &new)]));
    keep(NOW_S + 361).unwrap();
    assert_eq!(place.asked(), 3);
    keep(NOW_S + 362).unwrap();
    assert_eq!(place.asked(), 4);
    assert_eq!(ask(&providers, &old, "old", NOW_S + 362), Some(Refused::UnknownKey));
    assert_eq!(ask(&providers, &new, "new", NOW_S + 362), None);
    // All keys withdrawn is an answer, not a failure.
    place.say(keys(&[]));
    keep(NOW_S + 662).unwrap();
    assert_eq!(ask(&providers, &new, "new", NOW_S + 662), Some(Refused::UnknownKey));
}

/// Guarantee: garbage, other answers, redirections and too many bytes leave the keys that were good in use, the next tries come
/// later and later, and once nothing good came for `stale_max` no key is trusted; a good answer mends it.
#[test]
fn failures_keep_the_last_good_until_it_is_stale() {
    let signer = Signer::ed(1);
    let place = Place::new(keys(&[("ed", &signer)]));
    let elsewhere = Place::new(keys(&[("ed", &signer)]));
    let providers = place.providers();
    let keep = |now_s| providers.all()[0].keep(now_s);
    keep(NOW_S).unwrap();
    let head = |line: &str| {
        Say::Raw(format!("HTTP/1.1 {line}\r\nconnection: close\r\n\r\n{{\"keys\":[]}}").into_bytes())
    };
    let large = usize::try_from(DOCUMENT_BYTES_MAX).unwrap() + 1;
    let moved = format!("302 Found\r\nlocation: {}", elsewhere.url);
    let mut now_s = NOW_S + 300;
    for wrong in [
        Say::Answer("<html>login</html>".into()),
        Say::Answer(String::new()),
        Say::Answer(r#"{"keys":[{"kid":"a"}],"keys":[]}"#.into()),
        Say::Answer(format!(r#"{{"keys":[],"pad":"{}"}}"#, "x".repeat(large))),
        head("500 Oops"),
        head("204 Nothing"),
        head(&moved),
        Say::Raw(b"\x16\x03\x01garbage".to_vec()),
        Say::Raw(Vec::new()),
    ] {
        place.say(wrong);
        let before = place.asked();
        assert!(keep(now_s).is_err());
        assert_eq!((place.asked(), ask(&providers, &signer, "ed", now_s)), (before + 1, None));
        // Not again before it is time.
        keep(now_s + 4).unwrap();
        assert_eq!(place.asked(), before + 1);
        now_s += 300;
    }
    assert_eq!(elsewhere.asked(), 0);
    let stale_s = NOW_S + 86_400;
    assert_eq!(ask(&providers, &signer, "ed", stale_s - 1), None);
    assert_eq!(ask(&providers, &signer, "ed", stale_s), Some(Refused::NoKeys));
    place.say(keys(&[("ed", &signer)]));
    keep(stale_s).unwrap();
    assert_eq!(ask(&providers, &signer, "ed", stale_s), None);
}

/// Guarantee: the wait after failures doubles from five seconds up to the refresh interval.
#[test]
fn back_off() {
    let place = Place::new(Say::Raw(Vec::new()));
    let providers = place.providers();
    let mut tried = Vec::new();
    for second in 0..1_200 {
        let before = place.asked();
        let _ = providers.all()[0].keep(NOW_S + second);
        if place.asked() > before {
            tried.push(second);
        }
    }
    assert_eq!(tried, [0, 5, 15, 35, 75, 155, 315, 615, 915]);
}

/// Guarantee: a server that says nothing, or says it for ever, holds nobody up for longer than the bound, and those who ask
/// meanwhile do not wait at all.
#[test]
fn slow_servers() {
    let drip = std::thread::spawn(|| slow_server(Say::Drip));
    slow_server(Say::Nothing);
    drip.join().unwrap();
}

fn slow_server(slow: Say) {
    let signer = Signer::ed(1);
    let place = Place::new(keys(&[("ed", &signer)]));
    let providers = Arc::new(place.providers());
    providers.all()[0].keep(NOW_S).unwrap();
    place.say(slow);
    let fetching = Arc::clone(&providers);
    let began = Instant::now();
    let fetch = std::thread::spawn(move || fetching.all()[0].keep(NOW_S + 300));
    while place.asked() < 2 {
        std::thread::sleep(Duration::from_millis(10));
    }
    let asked = Instant::now();
    assert_eq!(ask(&providers, &signer, "ed", NOW_S + 300), None);
    assert!(asked.elapsed() < Duration::from_secs(2));
    assert!(fetch.join().unwrap().is_err());
    assert!(began.elapsed() < FETCH_TIME_MAX + Duration::from_secs(10));
}

/// Guarantee: a changed file is in force with the next look, in either direction; one that is gone, unreadable or too long
/// leaves the last good one until it is stale.
#[test]
fn a_file_that_changes() {
    let world = World::new();
    let at = |signer: &Signer, now_s| ask(&world.providers, signer, "ed", now_s);
    let next = Signer::ed(9);
    assert_eq!((at(&world.ed, NOW_S), at(&next, NOW_S)), (None, Some(Refused::Signature)));
    world.publish(&document(&[next.jwk("ed")]));
    world.keep(NOW_S + 1).unwrap();
    assert_eq!((at(&world.ed, NOW_S + 1), at(&next, NOW_S + 1)), (Some(Refused::Signature), None));
    world.publish("{");
    assert!(world.keep(NOW_S + 2).is_err());
    std::fs::remove_file(&world.path).unwrap();
    assert!(world.keep(NOW_S + 3).is_err());
    world.publish(&" ".repeat(usize::try_from(DOCUMENT_BYTES_MAX).unwrap() + 1));
    assert!(world.keep(NOW_S + 4).is_err());
    assert_eq!(at(&next, NOW_S + 86_400), None);
    assert_eq!(at(&next, NOW_S + 86_401), Some(Refused::NoKeys));
    world.publish(&document(&[next.jwk("ed")]));
    world.keep(NOW_S + 86_402).unwrap();
    assert_eq!(at(&next, NOW_S + 86_402), None);
    // Unchanged and there is fresh.
    world.keep(NOW_S + 172_801).unwrap();
    assert_eq!(at(&next, NOW_S + 172_802), None);
}

/// Guarantee: what does not come over TLS comes from this machine, and a server's certificate must be one of the authorities
/// named; a file without one is an error.
#[test]
fn authorities() {
    let place = Place::new(keys(&[]));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ca.pem");
    std::fs::write(&path, "no certificate").unwrap();
    let tls = place.url.replace("http://", "https://");
    let with = |url: &str, authorities| {
        let providers = providers(options(Source::Url { url: url.into(), authorities }));
        providers.all()[0].keep(NOW_S).map_err(|error| error.to_string())
    };
    assert!(with(&tls, Some(path)).unwrap_err().contains("no PEM certificate"));
    assert_eq!(place.asked(), 0);
    assert!(with(&tls, None).is_err());
    assert!(with(&place.url, None).is_ok());
}
