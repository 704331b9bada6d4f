//! Many resources as one `Bundle`. A page of accesses is a `searchset`, because it answers a search and may go on; one
//! person's consent is a `collection`, because it is whole.
//!
//! A page that knows of lost records says so inside, as an `OperationOutcome` of search mode `outcome`: whoever reads only
//! the bundle must not take it for complete.

use schemas_identity::Did;
use serde_json::{Value, json};

use crate::audit_event::{Access, audit_event};

/// A page of accesses and what is known of the whole.
#[derive(Debug, Clone)]
pub struct Listing<'a> {
    /// Whose.
    pub subject: &'a Did,
    /// The name of the deployment's log.
    pub observer: &'a str,
    /// The page, oldest first.
    pub accesses: Vec<Access<'a>>,
    /// The newest running number there is.
    pub newest: u64,
    /// Running numbers without a record, as inclusive ranges.
    pub missing: &'a [(u64, u64)],
    /// Query records of anybody that the log names and that are gone here.
    pub lost: u64,
    /// Address of this page.
    pub this: String,
    /// Address of the next page, if there is one.
    pub next: Option<String>,
}

/// A page of accesses as a `searchset` bundle.
pub fn searchset(listing: &Listing<'_>) -> Value {
    let mut links = vec![json!({"relation": "self", "url": listing.this})];
    if let Some(next) = &listing.next {
        links.push(json!({"relation": "next", "url": next}));
    }
    let gone: u64 = listing.missing.iter().map(|(from, to)| to.saturating_sub(*from).saturating_add(1)).sum();
    let mut entries: Vec<Value> = listing
        .accesses
        .iter()
        .map(|access| {
            json!({
                "fullUrl": format!("urn:x-vitalog:access:{}:{}", listing.subject, access.number),
                "resource": audit_event(access, listing.observer),
                "search": {"mode": "match"},
            })
        })
        .collect();
    entries.extend(incomplete(listing, gone));
    let mut bundle = json!({
        "resourceType": "Bundle",
        "type": "searchset",
        "total": listing.newest.saturating_sub(gone),
        "link": links,
    });
    // FHIR has no empty arrays.
    if !entries.is_empty() {
        bundle["entry"] = entries.into();
    }
    bundle
}

/// What the reader must know before taking the page for complete.
fn incomplete(listing: &Listing<'_>, gone: u64) -> Option<Value> {
    let mut issues = Vec::new();
    let mut issue = |words: String| {
        issues.push(json!({"severity": "error", "code": "incomplete", "diagnostics": words}));
    };
    if gone > 0 {
        issue(format!(
            "{gone} of {} records of this person are missing: {:?}",
            listing.newest, listing.missing
        ));
    }
    if listing.lost > 0 {
        issue(format!(
            "{} records that the log names are gone; whom they concerned cannot be told",
            listing.lost
        ));
    }
    let outcome = || {
        json!({
            "fullUrl": format!("urn:x-vitalog:access:{}:incomplete", listing.subject),
            "resource": {"resourceType": "OperationOutcome", "issue": issues},
            "search": {"mode": "outcome"},
        })
    };
    (!issues.is_empty()).then(outcome)
}

/// One person's `Consent` resources, as [`crate::consents`] makes them, in a `collection` bundle.
pub fn collection(consents: Vec<Value>) -> Value {
    let entries: Vec<Value> = consents
        .into_iter()
        .map(|consent| {
            let id = consent["id"].as_str().unwrap_or_default();
            json!({"fullUrl": format!("urn:x-vitalog:statement:{id}"), "resource": consent})
        })
        .collect();
    let mut bundle = json!({"resourceType": "Bundle", "type": "collection"});
    if !entries.is_empty() {
        bundle["entry"] = entries.into();
    }
    bundle
}
