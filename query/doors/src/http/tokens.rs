//! `GET /v1/tokens` and `DELETE /v1/tokens/{jti}`: the owner of a key sees which tokens were used, and ends them. Any
//! live token of the same party will do, whatever its scope. No text of a token is ever shown: it is not kept.

use axum::extract::{Path, State};
use axum::response::Response;
use http::HeaderMap;
use query_tokens::{Listed, RevokeError, Target};
use schemas_identity::time::format_rfc3339_us;
use serde_json::{Value, json};

use super::DoorState;
use super::reads::private;
use crate::answer::Answer;

/// Instead of an id: all tokens.
const ALL: &str = "*";

fn moment(seconds: i64) -> String {
    format_rfc3339_us(seconds.saturating_mul(1_000_000))
}

fn shown(listed: &Listed) -> Value {
    let Some(seen) = &listed.seen else {
        return json!({"jti": listed.jti, "key": listed.iss, "revoked": listed.is_revoked});
    };
    let token = &seen.token;
    json!({
        "jti": listed.jti, "key": listed.iss, "revoked": listed.is_revoked, "purpose": token.purpose,
        "study": token.study, "scope": token.scope.as_str(), "issued": moment(token.iat_s),
        "vouched_by": token.vouched.as_ref().map(|vouched| &vouched.issuer),
        "roles": token.vouched.as_ref().map(|vouched| &vouched.roles), "expires": moment(token.exp_s), "first_used": moment(seen.first_s), "last_used": moment(seen.last_s),
    })
}

/// The asking party's own tokens.
pub(super) async fn list(State(state): State<DoorState>, headers: HeaderMap) -> Result<Response, Answer> {
    let token = state.authenticate(&headers)?;
    let listing = state.tokens.list(&token.iss);
    let tokens: Vec<Value> = listing.tokens.iter().map(shown).collect();
    let until = listing.revoked_until_s.map(moment);
    Ok(private(json!({"tokens": tokens, "all_revoked_until": until})))
}

/// Ends one of the asking party's tokens, or all issued until now. Answered when it is on the disk and in force.
pub(super) async fn revoke(
    State(state): State<DoorState>,
    Path(jti): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Answer> {
    let token = state.authenticate(&headers)?;
    let now_s = (state.clock)().div_euclid(1_000_000);
    let (tokens, id) = (state.tokens.clone(), jti.clone());
    let revoked = tokio::task::spawn_blocking(move || {
        let target = if id == ALL { Target::All } else { Target::One(&id) };
        tokens.revoke(&token, target, now_s)
    })
    .await
    .map_err(Answer::internal)?;
    match revoked {
        Ok(()) => {
            state.metrics.revoked.inc();
            Ok(private(json!({"revoked": jti})))
        }
        Err(RevokeError::NoSuchId { .. }) => Err(Answer::not_found()),
        Err(error @ (RevokeError::TooMany | RevokeError::Full { .. })) => {
            Err(Answer::too_many_revocations(error))
        }
        Err(error @ RevokeError::NotDurable(_)) => Err(Answer::unavailable(error)),
    }
}
