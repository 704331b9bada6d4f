//! Code systems, identifiers, instants and periods. FHIR's periods include their end, ours do not: the last microsecond
//! inside is what is written.

use schemas_identity::Did;
use schemas_identity::time::format_rfc3339_us;
use schemas_signals::Signal;
use serde_json::{Value, json};

/// The media type of a resource in JSON.
pub const MEDIA_TYPE: &str = "application/fhir+json";

/// HL7 v3 ActReason: purposes of use.
pub const ACT_REASON: &str = "http://terminology.hl7.org/CodeSystem/v3-ActReason";
/// HL7 v3 ActCode: kinds and rules of consent.
pub const ACT_CODE: &str = "http://terminology.hl7.org/CodeSystem/v3-ActCode";
/// HL7 v3 ParticipationType; `IRCP` is whoever receives information.
pub const PARTICIPATION: &str = "http://terminology.hl7.org/CodeSystem/v3-ParticipationType";
/// DICOM's codes, which FHIR uses for kinds of audit events.
pub const DICOM: &str = "http://dicom.nema.org/resources/ontology/DCM";
/// LOINC.
pub const LOINC: &str = "http://loinc.org";
/// The system of identifiers that are URIs themselves, as a did:key is.
pub const URI: &str = "urn:ietf:rfc:3986";

/// Ids of signed statements.
pub const STATEMENT: &str = "urn:x-vitalog:statement";
/// Names of a deployment's log.
pub const LOG: &str = "urn:x-vitalog:log";
/// Short ids of devices.
pub const DEVICE: &str = "urn:x-vitalog:device";
/// Ids of studies.
pub const STUDY: &str = "urn:x-vitalog:study";
/// Names of roles.
pub const ROLE: &str = "urn:x-vitalog:role";
/// Signals that have no public code, by their name in the registry.
pub const SIGNAL: &str = "urn:x-vitalog:signal";
/// What all our extensions begin with.
pub const EXTENSION: &str = "urn:x-vitalog:fhir:";

/// Times outside these years have no spelling in FHIR: 0001-01-01 and 9999-12-30, microseconds since 1970.
const INSTANTS_US: std::ops::Range<i64> = -62_135_596_800_000_000..253_402_128_000_000_000;

/// The earliest instant that FHIR can spell.
pub(crate) const FIRST_INSTANT: &str = "0001-01-01T00:00:00Z";

/// A coding: a code of a system.
pub(crate) fn coding(system: &str, code: &str, display: &str) -> Value {
    json!({"system": system, "code": code, "display": display})
}

/// A concept of one coding.
pub(crate) fn concept(system: &str, code: &str, display: &str) -> Value {
    json!({"coding": [coding(system, code, display)]})
}

/// Text that somebody else chose, as FHIR admits it: no control characters, no whitespace but spaces, never empty.
pub(crate) fn text(foreign: &str) -> String {
    let plain = |c: char| if c.is_control() || c.is_whitespace() { ' ' } else { c };
    let text: String = foreign.chars().map(plain).collect();
    match text.trim() {
        "" => "-".to_owned(),
        text => text.to_owned(),
    }
}

/// A purpose of use. One that is no ActReason code is carried as text: it was said, but it is no code.
pub(crate) fn purpose(name: &str) -> Value {
    if schemas_consent::terms::is_purpose(name) {
        json!({"coding": [{"system": ACT_REASON, "code": name}]})
    } else {
        json!({"text": text(name)})
    }
}

/// Somebody, by key alone.
pub(crate) fn party(did: &str) -> Value {
    json!({"identifier": {"system": URI, "value": did}})
}

/// The person the data is about, by key alone.
pub(crate) fn patient(did: &Did) -> Value {
    json!({"type": "Patient", "identifier": {"system": URI, "value": did.to_string()}})
}

/// An instant, or nothing where FHIR has no spelling for it.
pub(crate) fn instant(us: i64) -> Option<String> {
    INSTANTS_US.contains(&us).then(|| format_rfc3339_us(us))
}

/// A period from half-open ends in microseconds; nothing if both are open.
pub(crate) fn period(from_us: Option<i64>, to_us: Option<i64>) -> Option<Value> {
    let mut period = serde_json::Map::new();
    if let Some(start) = from_us.and_then(instant) {
        period.insert("start".to_owned(), start.into());
    }
    if let Some(end) = to_us.and_then(|us| us.checked_sub(1)).and_then(instant) {
        period.insert("end".to_owned(), end.into());
    }
    (!period.is_empty()).then_some(Value::Object(period))
}

/// A signal by its public code, where the registry has one, and always by our own name.
pub(crate) fn signal(signal: &Signal) -> Value {
    let own = coding(SIGNAL, &signal.name, &signal.title);
    let codings = if signal.system.contains(':') {
        vec![json!({"system": signal.system, "code": signal.code}), own]
    } else {
        vec![own]
    };
    json!({"coding": codings})
}

/// An extension of ours; `value` is the element's name with its type, such as `valueCode`.
pub(crate) fn extension(name: &str, value: &str, content: impl Into<Value>) -> Value {
    json!({"url": format!("{EXTENSION}{name}"), value: content.into()})
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guarantee: a half-open end becomes the last microsecond inside, and what FHIR cannot spell is left open.
    #[test]
    fn ends_are_inside() {
        let day = period(Some(0), Some(86_400_000_000)).unwrap();
        assert_eq!(day, json!({"start": "1970-01-01T00:00:00Z", "end": "1970-01-01T23:59:59.999999Z"}));
        assert_eq!(period(Some(i64::MIN), Some(i64::MAX)), None);
        assert_eq!(period(None, None), None);
        assert_eq!(instant(INSTANTS_US.start).unwrap(), "0001-01-01T00:00:00Z");
        assert!(instant(INSTANTS_US.end - 1).unwrap().starts_with("9999-12-29T"));
        assert_eq!(instant(INSTANTS_US.start - 1), None);
    }

    /// Guarantee: a made-up purpose never looks like a code.
    #[test]
    fn purposes_are_codes_or_text() {
        assert_eq!(purpose("TREAT")["coding"][0]["code"], "TREAT");
        assert_eq!(purpose("because"), json!({"text": "because"}));
    }
}
