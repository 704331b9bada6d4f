//! A small structural validator, for tests only: resources against the published R4 definitions.
//!
//! `AuditEvent` and `Consent` go by the snapshots of their StructureDefinitions: known elements, cardinalities, choices of
//! type, nesting. Data types, `Bundle` and `OperationOutcome`, for which there is no snapshot here, go by `fhir.schema.json`,
//! and so do the patterns of primitives and the codes of required bindings. What it does not check: extensible bindings,
//! FHIRPath invariants other than those named here, profiles, and whether references lead anywhere.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use regex::Regex;
use serde_json::{Map, Value};

/// Resources judged by snapshot.
const SNAPSHOTS: [&str; 2] = ["AuditEvent", "Consent"];
/// Required primitives: the JSON schema leaves them out, because an extension could stand in their place.
const REQUIRED: [(&str, &str); 6] = [
    ("Extension", "url"),
    ("Bundle", "type"),
    ("Bundle_Link", "relation"),
    ("Bundle_Link", "url"),
    ("OperationOutcome_Issue", "severity"),
    ("OperationOutcome_Issue", "code"),
];

/// One element of a snapshot.
struct Element {
    path: String,
    min: u64,
    /// Nothing is `*`.
    max: Option<u64>,
    types: Vec<String>,
    /// The path whose children it has, if those of another element.
    as_at: Option<String>,
    is_bound: bool,
}

/// The definitions, read from the folder `standards/fhir_r4`.
pub(crate) struct Definitions {
    schema: Map<String, Value>,
    snapshots: BTreeMap<String, Vec<Element>>,
    patterns: BTreeMap<String, Regex>,
}

/// Reads the definitions, or says aloud that they are not there.
pub(crate) fn definitions(test: &str) -> Option<Definitions> {
    let shared = match std::env::var_os("VITALOG_SHARED") {
        Some(shared) => PathBuf::from(shared),
        None => {
            // Two folders down from the workspace root, wherever this file is compiled into.
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared")
        }
    };
    let folder = shared.join("standards/fhir_r4");
    if !folder.is_dir() {
        eprintln!("skipped: {test} needs standards/fhir_r4 (set VITALOG_SHARED)");
        return None;
    }
    Some(Definitions::read(&folder))
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

impl Definitions {
    fn read(folder: &Path) -> Definitions {
        let schema = json(&folder.join("fhir.schema.json"))["definitions"].as_object().unwrap().clone();
        let mut patterns = BTreeMap::new();
        for definition in schema.values() {
            let properties = definition["properties"].as_object().into_iter().flat_map(|map| map.values());
            for pattern in properties.chain([definition]).filter_map(|part| part["pattern"].as_str()) {
                patterns.entry(pattern.to_owned()).or_insert_with(|| Regex::new(pattern).unwrap());
            }
        }
        let snapshots = SNAPSHOTS.map(|name| {
            let definition = json(&folder.join(format!("StructureDefinition-{name}.json")));
            let elements = definition["snapshot"]["element"].as_array().unwrap();
            (name.to_owned(), elements.iter().map(Element::read).collect())
        });
        Definitions { schema, snapshots: snapshots.into(), patterns }
    }

    /// Everything that does not fit, each with the place; empty means structurally valid.
    pub(crate) fn problems(&self, resource: &Value) -> Vec<String> {
        let mut problems = Vec::new();
        self.resource(resource, "", &mut problems);
        problems
    }

    fn resource(&self, resource: &Value, at: &str, problems: &mut Vec<String>) {
        let Some(fields) = resource.as_object() else {
            problems.push(format!("{at}: not an object"));
            return;
        };
        let name = fields.get("resourceType").and_then(Value::as_str).unwrap_or_default();
        let place = format!("{at}{name}");
        match self.snapshots.get(name) {
            Some(elements) => self.snapshot(elements, fields, name, &place, problems),
            None => self.data_type(resource, name, &place, problems),
        }
    }

    /// The children of one element, by snapshot.
    fn snapshot(
        &self,
        elements: &[Element],
        fields: &Map<String, Value>,
        path: &str,
        place: &str,
        problems: &mut Vec<String>,
    ) {
        if fields.is_empty() {
            problems.push(format!("{place}: empty"));
        }
        let children: Vec<&Element> = elements.iter().filter(|element| element.is_child_of(path)).collect();
        for name in fields.keys().filter(|name| name.as_str() != "resourceType" || path.contains('.')) {
            if !children.iter().any(|child| child.type_named(name).is_some()) {
                problems.push(format!("{place}.{name}: unknown element"));
            }
        }
        for child in children {
            let present: Vec<(&String, &Value)> =
                fields.iter().filter(|(name, _)| child.type_named(name).is_some()).collect();
            if present.len() > 1 {
                problems.push(format!("{place}.{}: more than one choice", child.name()));
            }
            let Some((name, value)) = present.first().copied() else {
                if child.min > 0 {
                    problems.push(format!("{place}.{}: missing", child.name()));
                }
                continue;
            };
            let place = format!("{place}.{name}");
            for value in child.values(value, &place, problems) {
                self.element(elements, child, name, value, &place, problems);
            }
        }
    }

    fn element(
        &self,
        elements: &[Element],
        element: &Element,
        name: &str,
        value: &Value,
        place: &str,
        problems: &mut Vec<String>,
    ) {
        let type_ = element.type_named(name).unwrap_or_default();
        let nested =
            element.as_at.as_deref().or((type_ == "BackboneElement").then_some(element.path.as_str()));
        match (nested, value.as_object()) {
            (Some(path), Some(fields)) => self.snapshot(elements, fields, path, place, problems),
            (Some(_), None) => problems.push(format!("{place}: not an object")),
            (None, _) if type_ == "Resource" => self.resource(value, place, problems),
            (None, _) => self.data_type(value, type_, place, problems),
        }
        if element.is_bound {
            let (parent, last) = element.path.rsplit_once('.').unwrap();
            // The JSON schema names a nested element after its resource and itself, whatever lies between.
            let definition = match (parent.split_once('.'), parent.rsplit_once('.')) {
                (Some((resource, _)), Some((_, own))) => format!("{resource}_{}", capital(own)),
                _ => parent.to_owned(),
            };
            let allowed = &self.schema[&definition]["properties"][last]["enum"];
            assert!(allowed.is_array(), "no codes for {}", element.path);
            if allowed.as_array().is_some_and(|allowed| !allowed.contains(value)) {
                problems.push(format!("{place}: code {value} is not in the required value set"));
            }
        }
    }

    /// A value by the JSON schema's definition of its type.
    fn data_type(&self, value: &Value, type_: &str, place: &str, problems: &mut Vec<String>) {
        let Some(definition) = self.schema.get(type_) else {
            problems.push(format!("{place}: unknown type `{type_}`"));
            return;
        };
        let Some(properties) = definition["properties"].as_object() else {
            self.primitive(value, definition, type_, place, problems);
            return;
        };
        let Some(fields) = value.as_object() else {
            problems.push(format!("{place}: not an object"));
            return;
        };
        if fields.is_empty() {
            problems.push(format!("{place}: empty"));
        }
        let listed = definition["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let known = REQUIRED.iter().filter(|(of, _)| *of == type_).map(|(_, field)| *field);
        for field in listed.chain(known).filter(|field| !fields.contains_key(*field)) {
            problems.push(format!("{place}.{field}: missing"));
        }
        if type_ == "Extension" && fields.keys().filter(|name| *name != "url" && *name != "id").count() != 1 {
            problems.push(format!("{place}: an extension has one value, or extensions"));
        }
        for (name, value) in fields {
            let place = format!("{place}.{name}");
            match properties.get(name) {
                Some(property) => self.property(value, property, &place, problems),
                None => problems.push(format!("{place}: unknown element")),
            }
        }
    }

    fn property(&self, value: &Value, property: &Value, place: &str, problems: &mut Vec<String>) {
        if property["type"] == "array" {
            match value.as_array() {
                Some(list) if !list.is_empty() => {
                    for value in list {
                        self.property(value, &property["items"], place, problems);
                    }
                }
                _ => problems.push(format!("{place}: not a list with something in it")),
            }
        } else if let Some(type_) = property["$ref"].as_str().and_then(|path| path.rsplit('/').next()) {
            match type_ {
                "ResourceList" => self.resource(value, place, problems),
                _ => self.data_type(value, type_, place, problems),
            }
        } else {
            self.primitive(value, property, "", place, problems);
        }
    }

    fn primitive(
        &self,
        value: &Value,
        definition: &Value,
        type_: &str,
        place: &str,
        problems: &mut Vec<String>,
    ) {
        let text = match (definition["type"].as_str(), value) {
            (Some("boolean"), Value::Bool(_)) => return,
            (Some("number"), Value::Number(number)) => number.to_string(),
            (Some("boolean" | "number"), _) => {
                problems.push(format!("{place}: {value} is of the wrong type"));
                return;
            }
            (_, Value::String(text)) if !text.trim().is_empty() => text.clone(),
            _ => {
                problems.push(format!("{place}: {value} is no text with something in it"));
                return;
            }
        };
        let fits = |pattern: &str| self.patterns.get(pattern).is_none_or(|pattern| pattern.is_match(&text));
        let is_coded = definition["enum"].as_array().is_none_or(|allowed| allowed.contains(value));
        let is_const = definition.get("const").is_none_or(|only| only == value);
        let is_base64 = type_ != "base64Binary"
            || text.len() % 4 == 0
                && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte));
        if !definition["pattern"].as_str().is_none_or(fits) || !is_coded || !is_const || !is_base64 {
            problems.push(format!("{place}: `{text}` is not in the form of {type_}"));
        }
    }
}

impl Element {
    fn read(element: &Value) -> Element {
        let types = element["type"].as_array().into_iter().flatten().map(|type_| {
            let code = type_["code"].as_str().unwrap();
            // Ids of elements are spelled as FHIRPath's own string.
            if code.starts_with("http") { "string".to_owned() } else { code.to_owned() }
        });
        Element {
            path: element["path"].as_str().unwrap().to_owned(),
            min: element["min"].as_u64().unwrap(),
            max: element["max"].as_str().unwrap().parse().ok(),
            types: types.collect(),
            as_at: element["contentReference"].as_str().map(|path| path.trim_start_matches('#').to_owned()),
            is_bound: element["binding"]["strength"] == "required",
        }
    }

    fn name(&self) -> &str {
        self.path.rsplit('.').next().unwrap()
    }

    fn is_child_of(&self, path: &str) -> bool {
        self.path.rsplit_once('.').is_some_and(|(parent, _)| parent == path)
    }

    /// The type that a field of this name has, if it is this element: of a choice, the name says which.
    fn type_named(&self, name: &str) -> Option<&str> {
        let first = || Some(self.types.first().map_or("", String::as_str));
        match self.name().strip_suffix("[x]") {
            None => (self.name() == name).then(first)?,
            Some(stem) => {
                let chosen = name.strip_prefix(stem)?;
                self.types.iter().find(|type_| capital(type_) == chosen).map(String::as_str)
            }
        }
    }

    /// The one or many values, with the cardinality checked.
    fn values<'v>(&self, value: &'v Value, place: &str, problems: &mut Vec<String>) -> Vec<&'v Value> {
        match (self.max, value) {
            (Some(1), Value::Array(_)) => {
                problems.push(format!("{place}: a list where one value belongs"));
                Vec::new()
            }
            (Some(1), one) => vec![one],
            (max, Value::Array(list)) => {
                let count = list.len() as u64;
                if count < self.min.max(1) || max.is_some_and(|max| count > max) {
                    problems.push(format!("{place}: {count} values"));
                }
                list.iter().collect()
            }
            _ => {
                problems.push(format!("{place}: one value where a list belongs"));
                Vec::new()
            }
        }
    }
}

fn capital(word: impl AsRef<str>) -> String {
    let word = word.as_ref();
    let mut letters = word.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}
