//! The HTTP door against a pipeline that answers as told.

use axum::body::to_bytes;
use schemas_frame::Code;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::*;
use crate::admission::{AdmissionOptions, Inbox};
use crate::testing::{BOOT, Judge, all_ok, device_id, frame, pipeline};

const SEQ: &str = "application/cbor-seq";
const COSE: &str = "application/cose; cose-type=\"cose-sign1\"";

fn options() -> HttpOptions {
    HttpOptions::new(Arc::new(Metrics::new().unwrap()))
}

fn queue() -> (Admission, Inbox) {
    Admission::new(AdmissionOptions::default())
}

fn request(content_type: &str, body: impl Into<Body>) -> Request {
    Request::post("/v1/frames").header(header::CONTENT_TYPE, content_type).body(body.into()).unwrap()
}

async fn call(router: &Router, request: Request) -> (StatusCode, HeaderMap, Value) {
    let response = router.clone().oneshot(request).await.unwrap();
    let (status, headers) = (response.status(), response.headers().clone());
    let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    (status, headers, serde_json::from_slice(&body).unwrap())
}

/// A door whose pipeline judges as told; the pipeline ends with the door.
fn door(options: HttpOptions, judge: Judge) -> Router {
    let (admission, inbox) = queue();
    pipeline(inbox, judge);
    router(admission, options)
}

/// One frame under the COSE type is decided and answered in the contract's words.
#[tokio::test]
async fn one_frame_is_answered() {
    let options = options();
    let door = door(options.clone(), all_ok());
    let (status, headers, body) = call(&door, request(COSE, frame(1, 17))).await;
    assert_eq!(
        (status, headers[header::CONTENT_TYPE].to_str().unwrap()),
        (StatusCode::OK, "application/json")
    );
    let device = device_id(1).to_string();
    let verdict =
        json!({"i": 0, "device": device, "boot": BOOT.to_string(), "seq": 17, "code": "OK", "flags": 0});
    assert_eq!(body, json!({"accepted": 1, "verdicts": [verdict]}));
    assert_eq!(options.metrics.count("vitalog_intake_frames_total", &["http", "OK"]), 1);
    assert_eq!(options.metrics.count("vitalog_intake_http_requests_total", &["200"]), 1);
}

/// A sequence gets one verdict per frame in its order, wherever each was decided.
#[tokio::test]
async fn a_sequence_is_answered_in_order() {
    let judge: Judge = Arc::new(|frame| match frame.seq() {
        1 => Code::SigBad,
        2 => Code::Dup,
        _ => Code::Ok,
    });
    let mut long = vec![0x5a, 0x00, 0x01, 0x11, 0x70];
    long.resize(5 + 70_000, 0);
    let parts =
        [frame(1, 0).as_ref(), &long, &frame(1, 1), &[0x01], &frame(2, 2), &[0xff], &frame(1, 3)].concat();
    let (status, _, body) = call(&door(options(), judge), request(SEQ, parts)).await;
    assert_eq!(status, StatusCode::OK);
    let codes: Vec<&str> =
        body["verdicts"].as_array().unwrap().iter().map(|v| v["code"].as_str().unwrap()).collect();
    assert_eq!(codes, ["OK", "TOO_BIG", "SIG_BAD", "DECODE", "DUP", "DECODE"]);
    let places: Vec<u64> =
        body["verdicts"].as_array().unwrap().iter().map(|v| v["i"].as_u64().unwrap()).collect();
    assert_eq!(places, [0, 1, 2, 3, 4, 5]);
    assert_eq!(body["accepted"], 2);
    assert_eq!(body["verdicts"][2]["hint"], "signature does not verify");
    assert_eq!(body["verdicts"][1]["device"], Value::Null);
}

/// Content types: parameters and case are tolerated, anything else is 415, none too.
#[tokio::test]
async fn content_types() {
    let door = door(options(), all_ok());
    for good in [COSE, SEQ, "Application/COSE", "application/cbor-seq ; charset=x"] {
        assert_eq!(call(&door, request(good, frame(1, 0))).await.0, StatusCode::OK, "{good}");
    }
    for bad in ["application/json", "", "application/cosey", "text/plain"] {
        let (status, _, body) = call(&door, request(bad, frame(1, 0))).await;
        assert_eq!((status, &body["error"]), (StatusCode::UNSUPPORTED_MEDIA_TYPE, &json!("content-type")));
    }
}

/// Bodies over the limit are 413, announced or not, and so are too many frames; nothing is offered.
#[tokio::test]
async fn large_bodies_are_413() {
    let (admission, _inbox) = queue();
    let options = HttpOptions { body_bytes_max: 1_000, frames_max: 3, ..options() };
    let door = router(admission.clone(), options);
    let announced =
        Request::post("/v1/frames").header(header::CONTENT_TYPE, SEQ).header(header::CONTENT_LENGTH, "1001");
    let refused = call(&door, announced.body(Body::empty()).unwrap()).await;
    assert_eq!((refused.0, &refused.2["error"]), (StatusCode::PAYLOAD_TOO_LARGE, &json!("body-too-large")));
    let chunks = chunks(vec![vec![0x01; 600]; 2]);
    assert_eq!(call(&door, request(SEQ, chunks)).await.0, StatusCode::PAYLOAD_TOO_LARGE);
    let many = call(&door, request(SEQ, vec![0x01; 4])).await;
    assert_eq!((many.0, &many.2["error"]), (StatusCode::PAYLOAD_TOO_LARGE, &json!("too-many-frames")));
    assert_eq!(admission.depth().frames, 0);
}

/// A body of several chunks, without a length.
fn chunks(chunks: Vec<Vec<u8>>) -> Body {
    Body::from_stream(tokio_stream::iter(chunks.into_iter().map(Ok::<_, std::io::Error>)))
}

/// A body in many chunks is the same body.
#[tokio::test]
async fn chunked_bodies_are_whole() {
    let door = door(options(), all_ok());
    let bytes = [frame(1, 0), frame(1, 1)].concat();
    let parts = bytes.chunks(7).map(<[u8]>::to_vec).collect();
    let (status, _, body) = call(&door, request(SEQ, chunks(parts))).await;
    assert_eq!((status, &body["accepted"]), (StatusCode::OK, &json!(2)));
}

/// A body that does not come is 408; a queue that is full is 503 with Retry-After and nothing taken.
#[tokio::test]
async fn slow_bodies_and_pressure() {
    let (admission, _inbox) = Admission::new(AdmissionOptions { frames_max: 1, bytes_max: u64::MAX });
    let options = HttpOptions { body_timeout: Duration::from_millis(20), ..options() };
    let door = router(admission.clone(), options.clone());
    let never = Body::from_stream(tokio_stream::pending::<Result<Vec<u8>, std::io::Error>>());
    assert_eq!(call(&door, request(SEQ, never)).await.0, StatusCode::REQUEST_TIMEOUT);

    let _held = admission.offer(
        vec![frame(1, 0)],
        Via { door: Door::Mqtt, peer: None, allowed: Allowed::All, topic_device: None },
    );
    let (status, headers, body) = call(&door, request(COSE, frame(1, 1))).await;
    assert_eq!((status, &body["error"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("retry-after")));
    assert_eq!(headers[header::RETRY_AFTER], "1");
    assert_eq!(admission.depth().frames, 1);
    assert_eq!(options.metrics.count("vitalog_intake_pressure_total", &["http"]), 1);
}

/// Without a pipeline, or with one that drops what it took, the sender is told to send again.
#[tokio::test]
async fn a_gone_pipeline_is_503() {
    let (admission, mut inbox) = queue();
    let door = router(admission, options());
    let dropping = tokio::spawn(async move {
        let mut got = Vec::new();
        inbox.recv_many(&mut got, crate::Drain::default()).await;
    });
    let dropped = call(&door, request(COSE, frame(1, 0))).await;
    dropping.await.unwrap();
    let closed = call(&door, request(COSE, frame(1, 0))).await;
    for (status, headers, body) in [dropped, closed] {
        assert_eq!((status, &body["error"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("closed")));
        assert!(headers.contains_key(header::RETRY_AFTER));
    }
}

/// A pipeline that can take nothing (disk full) makes the whole answer 503, not 200 with refusals.
#[tokio::test]
async fn nothing_taken_is_503() {
    let door = door(options(), Arc::new(|_| Code::RetryAfter));
    let (status, headers, _) = call(&door, request(COSE, frame(1, 0))).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(headers.contains_key(header::RETRY_AFTER));
}

/// Rates hold per address and per device; a refused body was not offered.
#[tokio::test]
async fn rates_are_429() {
    let slow = Rate { per_second: 0.001, burst: 2.0 };
    let by_device = HttpOptions { device_rate: slow, ..options() };
    let (admission, inbox) = queue();
    pipeline(inbox, all_ok());
    let door = router(admission, by_device.clone());
    let two = [frame(1, 0), frame(1, 1)].concat();
    assert_eq!(call(&door, request(SEQ, two)).await.0, StatusCode::OK);
    let (status, headers, _) = call(&door, request(SEQ, frame(1, 2))).await;
    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
    assert!(headers.contains_key(header::RETRY_AFTER));
    assert_eq!(call(&door, request(SEQ, frame(2, 0))).await.0, StatusCode::OK);
    assert_eq!(by_device.metrics.count("vitalog_intake_rate_limited_total", &["device"]), 1);

    let door = self::door(HttpOptions { address_rate: slow, ..options() }, all_ok());
    for expected in [StatusCode::OK, StatusCode::OK, StatusCode::TOO_MANY_REQUESTS] {
        assert_eq!(call(&door, request(SEQ, frame(1, 0))).await.0, expected);
    }
}

/// Other methods and paths are answered in JSON.
#[tokio::test]
async fn other_requests_are_clean_errors() {
    let door = door(options(), all_ok()).fallback(not_found);
    let (status, headers, body) = call(&door, Request::get("/v1/frames").body(Body::empty()).unwrap()).await;
    assert_eq!((status, &body["error"]), (StatusCode::METHOD_NOT_ALLOWED, &json!("method-not-allowed")));
    assert_eq!(headers[header::ALLOW], "POST");
    let (status, _, body) = call(&door, Request::get("/nowhere").body(Body::empty()).unwrap()).await;
    assert_eq!((status, &body["error"]), (StatusCode::NOT_FOUND, &json!("not-found")));
}

/// No body, however malformed, is anything but an answer.
#[test]
fn hostile_bodies_are_answered() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let door = door(HttpOptions { device_rate: Rate { per_second: 0.0, burst: 0.0 }, ..options() }, all_ok());
    let good = [frame(1, 0), frame(1, 1)].concat();
    proptest::proptest!(|(noise: Vec<u8>, at: proptest::sample::Index, byte: u8)| {
        let mut mutated = good.clone();
        mutated[at.index(good.len())] = byte;
        for body in [noise, mutated] {
            let (status, _, answer) = runtime.block_on(call(&door, request(SEQ, body)));
            proptest::prop_assert_eq!(status, StatusCode::OK);
            proptest::prop_assert!(!answer["verdicts"].as_array().unwrap().is_empty());
        }
    });
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    std::io::Write::write_all(&mut encoder, bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).unwrap()
}

async fn packed(door: &Router, encoding: &str, body: Vec<u8>) -> (StatusCode, HeaderMap, Value) {
    let mut request = request(SEQ, body);
    request.headers_mut().insert(header::CONTENT_ENCODING, encoding.parse().unwrap());
    call(door, request).await
}

/// A packed body is the same body, whole or in several members; each frame has its verdict.
#[tokio::test]
async fn packed_bodies_are_the_same() {
    let door = door(options(), all_ok());
    let (one, two) = (frame(1, 0), frame(1, 1));
    let both = [one.as_ref(), two.as_ref()].concat();
    for (encoding, body) in [
        ("gzip", gzip(&both)),
        ("X-GZIP", [gzip(&one), gzip(&two)].concat()),
        ("zstd", zstd(&both)),
        ("zstd", [zstd(&one), zstd(&two)].concat()),
        ("identity", both.clone()),
    ] {
        let (status, _, answer) = packed(&door, encoding, body).await;
        assert_eq!((status, &answer["accepted"]), (StatusCode::OK, &json!(2)), "{encoding}: {answer}");
    }
}

/// The limit of a body holds for its unpacked bytes, and a bomb is refused long before it has gone off.
#[tokio::test]
async fn unpacked_bytes_are_bounded() {
    let door = door(HttpOptions { body_bytes_max: 1 << 22, ..options() }, all_ok());
    let within = vec![1_u8; 1 << 20];
    let over: Vec<u8> = (0..(1_u32 << 21)).flat_map(|n| n.to_le_bytes()).collect();
    let bomb = vec![0_u8; 1 << 22];
    for (encoding, pack) in [("gzip", gzip as fn(&[u8]) -> Vec<u8>), ("zstd", zstd)] {
        let (status, _, answer) = packed(&door, encoding, pack(&within)).await;
        let too_many = (StatusCode::PAYLOAD_TOO_LARGE, &json!("too-many-frames"));
        assert_eq!((status, &answer["error"]), too_many, "a MiB may unpack from anything");
        let (status, _, answer) = packed(&door, encoding, pack(&over)).await;
        assert_eq!((status, &answer["error"]), (StatusCode::PAYLOAD_TOO_LARGE, &json!("body-too-large")));
        assert!(answer["hint"].as_str().unwrap().contains("4194304 bytes once unpacked"), "{answer}");
        let (status, _, answer) = packed(&door, encoding, pack(&bomb)).await;
        assert_eq!((status, &answer["error"]), (StatusCode::PAYLOAD_TOO_LARGE, &json!("ratio")));
    }
}

/// Unpacked bytes take room like any others, and give it back.
#[tokio::test]
async fn unpacked_bytes_take_room() {
    let door = door(HttpOptions { bodies_bytes_max: 100_000, ..options() }, all_ok());
    for _ in 0..2 {
        let (status, headers, _) = packed(&door, "gzip", gzip(&vec![1; 200_000])).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(headers.contains_key(header::RETRY_AFTER));
        assert_eq!(packed(&door, "gzip", gzip(&frame(1, 0))).await.0, StatusCode::OK);
    }
}

/// Codings that are not known, or several, are 415 and told what is; broken bodies are 400.
#[tokio::test]
async fn other_codings_and_broken_bodies() {
    let door = door(options(), all_ok());
    for encoding in ["br", "deflate", "gzip, zstd", ""] {
        let (status, headers, answer) = packed(&door, encoding, frame(1, 0).to_vec()).await;
        assert_eq!(
            (status, &answer["error"]),
            (StatusCode::UNSUPPORTED_MEDIA_TYPE, &json!("content-encoding"))
        );
        assert_eq!(headers[header::ACCEPT_ENCODING], "gzip, zstd");
    }
    let wide = {
        let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(24).unwrap();
        std::io::Write::write_all(&mut encoder, &vec![7; 1 << 24]).unwrap();
        encoder.finish().unwrap()
    };
    let cut = |body: Vec<u8>| body[..body.len() - 3].to_vec();
    for (encoding, body) in [
        ("gzip", frame(1, 0).to_vec()),
        ("gzip", cut(gzip(&frame(1, 0)))),
        ("gzip", [gzip(&frame(1, 0)), b"tail".to_vec()].concat()),
        ("zstd", frame(1, 0).to_vec()),
        ("zstd", cut(zstd(&frame(1, 0)))),
        ("zstd", [zstd(&frame(1, 0)), b"tail".to_vec()].concat()),
        ("zstd", wide),
    ] {
        let (status, _, answer) = packed(&door, encoding, body).await;
        assert_eq!(
            (status, &answer["error"]),
            (StatusCode::BAD_REQUEST, &json!("content-encoding")),
            "{encoding}"
        );
    }
}
