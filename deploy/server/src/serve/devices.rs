//! `GET /v1/devices`: keys, wearer or none, and where each device stands, live from the pipeline.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use ingest_devices::DeviceView;
use schemas_identity::DeviceNumber;
use schemas_identity::register::{Device, Register};
use schemas_identity::time::format_rfc3339_us;
use schemas_identity::token::Token;
use serde_json::{Map, Value, json};

use super::routes::{App, problem, unauthorized};
use crate::client::now_us;

/// Devices listed at most.
const DEVICES_LISTED_MAX: usize = 10_000;

/// Devices that the asker is, made or wears; operators (and everybody with `--dev`) see all.
pub(super) async fn answer(State(shared): App, headers: HeaderMap) -> Response {
    let token = shared.token(&headers);
    if token.is_none() && !shared.is_dev {
        return unauthorized();
    }
    let register = shared.statements.register();
    let sees =
        |device: &Device| shared.is_dev || token.as_ref().is_some_and(|token| sees(&register, token, device));
    let devices: Vec<&Device> =
        register.devices().filter(|device| sees(device)).take(DEVICES_LISTED_MAX).collect();
    let numbers: Vec<DeviceNumber> = devices.iter().map(|device| device.number).collect();
    let standings = shared.standings.clone();
    // The deciding thread answers between two groups: that is a wait, and not one for the async threads.
    let views = tokio::task::spawn_blocking(move || standings.of(&numbers)).await.ok().flatten();
    let Some(views) = views else {
        return problem(
            StatusCode::SERVICE_UNAVAILABLE,
            "busy",
            "the pipeline does not answer: try again later",
        );
    };
    let listed: Vec<Value> =
        devices.iter().zip(views).map(|(device, view)| device_json(&register, device, view)).collect();
    Json(json!({"devices": listed})).into_response()
}

fn sees(register: &Register, token: &Token, device: &Device) -> bool {
    let person = register.subject_of(&token.iss);
    register.is_operator(&token.iss)
        || device.maker == token.iss
        || device.keys.iter().any(|key| key.key == *token.iss.key())
        || register.bindings(device.number).iter().any(|binding| binding.subject == person)
}

fn device_json(register: &Register, device: &Device, view: Option<DeviceView>) -> Value {
    let keys: Vec<Value> = device
        .keys
        .iter()
        .map(|key| {
            let revoked = key.revoked.is_some();
            json!({"short_id": key.key.short_id(), "enrolled_at": key.enrolled_at, "revoked": revoked})
        })
        .collect();
    let mut fields = Map::new();
    fields.insert("device".into(), json!(device.first_id));
    fields.insert("model".into(), json!(device.model));
    fields.insert("maker".into(), json!(device.maker));
    fields.insert("keys".into(), keys.into());
    fields.insert("bound_now".into(), register.binding_at(device.number, now_us()).is_some().into());
    standing(&mut fields, view.as_ref());
    fields.into()
}

/// Position, gaps and clock; the same fields with empty values for a device that never sent.
fn standing(fields: &mut Map<String, Value>, view: Option<&DeviceView>) {
    let (mut boots, mut gaps) = (Vec::new(), Vec::new());
    for (boot, highest) in view.into_iter().flat_map(|view| &view.boots) {
        boots.push(json!({"boot": boot, "highest": highest}));
    }
    for gap in view.into_iter().flat_map(|view| &view.gaps) {
        let since = gap.since_us.map(format_rfc3339_us);
        let state = if gap.since_us.is_some() { "open" } else { "closed" };
        gaps.push(
            json!({"boot": gap.boot, "from": gap.first, "to": gap.last, "state": state, "since": since}),
        );
    }
    let position = view.and_then(|view| view.boots.first());
    let position = position.map(|(boot, seq)| json!({"boot": boot, "seq": seq}));
    let times = view.and_then(|view| view.times);
    let moment = |us: Option<i64>| us.map(format_rfc3339_us);
    let clock =
        times.map(|times| json!({"offset_us": times.clock_offset_us, "corrected": times.is_clock_corrected}));
    fields.insert("position".into(), json!(position));
    fields.insert("boots".into(), boots.into());
    fields.insert("boots_known".into(), view.map_or(0, |view| view.boots_known).into());
    fields.insert("gaps".into(), gaps.into());
    fields.insert("gaps_filled".into(), view.map_or(0, |view| view.gaps_filled).into());
    fields.insert("gaps_closed".into(), view.map_or(0, |view| view.gaps_closed).into());
    fields.insert("chain_broken".into(), view.map_or(0, |view| view.chain_broken).into());
    fields.insert("last_arrival".into(), json!(moment(times.map(|times| times.last_arrival_us))));
    fields.insert("last_measured".into(), json!(moment(times.and_then(|times| times.last_measured_us))));
    fields.insert("clock".into(), json!(clock));
}
