//! The API described for programs: the Data API's own `application.spec`, and
//! an `OpenAPI` document. Both are written from the table of endpoints and the
//! types of resources, so they cannot say what is not so.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::answer::{Answer, ApiError};
use super::endpoints::{self, Endpoint, Gives};
use super::field::{Kind, Resource};
use super::read::{Pairs, in_memory};
use super::resource;

/// Answers `application.spec`: the paths of the Data API.
///
/// # Errors
/// When a parameter is bad.
pub fn spec(pairs: &Pairs) -> Result<Answer, ApiError> {
    let root = json!({
        "path": "",
        "type": resource::ROOTLINKS.entity,
        "plural": resource::ROOTLINKS.plural,
        "type_spec": resource::ROOTLINKS.spec(),
    });
    let one = |endpoint: &Endpoint| {
        let spec = match endpoint.kind.fields {
            [] => json!({ "name": endpoint.kind.entity }),
            _ => endpoint.kind.spec(),
        };
        json!({
            "path": endpoint.path,
            "type": endpoint.kind.entity,
            "plural": endpoint.kind.plural,
            "type_spec": spec,
        })
    };
    let mut paths: Vec<&Endpoint> =
        endpoints::all().iter().filter(|endpoint| !endpoint.ours).collect();
    paths.sort_by(|left, right| left.path.cmp(&right.path));
    let items = std::iter::once(root).chain(paths.into_iter().map(one)).collect();
    in_memory(&resource::SPECS, pairs, items)
}

static DOCUMENT: LazyLock<Value> = LazyLock::new(Writer::write);

/// The `OpenAPI` document.
#[must_use]
pub fn document() -> &'static Value {
    &DOCUMENT
}

/// Names of path variables that stand for the same thing by its number and by
/// its name.
const EITHER: [(&[&str], &str); 4] = [
    (&["builderid", "buildername"], "builder"),
    (&["step_number", "step_name"], "step"),
    (&["projectid", "projectname"], "project"),
    (&["workerid", "name"], "worker"),
];

const ABOUT: &str = "Buildbot's Data API v2, and a few resources of our own beside it.

Parameters repeat to give several values. A list is filtered by its fields: `FIELD=v` (equal; with \
several values: one of them) and `FIELD__OP=v` with `eq`, `ne`, `lt`, `le`, `gt`, `ge`, `contains`, \
`in` and `notin`. A field without a value is not less or greater than anything.

Whoever asks for `application/json` gets it compact; everybody else the same, indented, as text.";

/// Writes the document.
struct Writer {
    generator: SchemaGenerator,
    parameters: Map<String, Value>,
    paths: BTreeMap<String, Map<String, Value>>,
}

impl Writer {
    fn write() -> Value {
        let settings = SchemaSettings::draft2020_12().for_serialize().with(|settings| {
            settings.definitions_path = "/components/schemas".into();
        });
        let mut writer = Self {
            generator: settings.into_generator(),
            parameters: Map::new(),
            paths: BTreeMap::new(),
        };
        for endpoint in endpoints::all() {
            writer.endpoint(endpoint);
        }
        let mut schemas = writer.generator.take_definitions(true);
        for schema in schemas.values_mut() {
            loosen(schema);
        }
        let paths: Map<String, Value> =
            writer.paths.into_iter().map(|(path, item)| (path, Value::Object(item))).collect();
        json!({
            "openapi": "3.1.0",
            "info": {
                "title": "botmaster",
                "version": env!("CARGO_PKG_VERSION"),
                "description": ABOUT,
                "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
            },
            "servers": [{ "url": "/api/v2" }],
            "paths": paths,
            "components": {
                "schemas": schemas,
                "parameters": writer.parameters,
                "responses": responses(),
            },
        })
    }

    fn endpoint(&mut self, endpoint: &Endpoint) {
        let (path, variables) = templated(&endpoint.path);
        let known = self.paths.get(&path).is_some_and(|item| item.contains_key("get"));
        if known {
            // The same by a name and not by a number.
            return;
        }
        let mut item = Map::new();
        if !variables.is_empty() {
            item.insert("parameters".into(), variables.into());
        }
        let name = path.trim_start_matches('/').replace(['{', '}'], "").replace(['/', '.'], "_");
        if endpoint.gives != Gives::Nothing {
            item.insert("get".into(), self.get(endpoint, &name));
        }
        if !endpoint.orders.is_empty() {
            item.insert("post".into(), orders(endpoint, &name));
        }
        if !item.is_empty() {
            self.paths.insert(path, item);
        }
    }

    fn get(&mut self, endpoint: &Endpoint, name: &str) -> Value {
        let kind = endpoint.kind;
        let (summary, parameters, content) = match endpoint.gives {
            Gives::Many => (
                format!("A list: {}", kind.plural),
                self.list_parameters(kind),
                json_or_text(&self.envelope(kind, true)),
            ),
            Gives::One => (
                format!("One {}", kind.entity),
                self.one_parameters(kind),
                json_or_text(&self.envelope(kind, false)),
            ),
            Gives::Lines => (
                "Lines of a log".into(),
                vec![reference("parameters", "limit"), reference("parameters", "offset")],
                json_or_text(&self.envelope(kind, false)),
            ),
            Gives::Bytes => (
                "Bytes".into(),
                Vec::new(),
                json!({
                    "text/plain": { "schema": { "type": "string" } },
                    "text/html": { "schema": { "type": "string" } },
                    "application/octet-stream": { "schema": {} },
                }),
            ),
            Gives::Object | Gives::Nothing => (
                "An object of our own".into(),
                Vec::new(),
                json_or_text(&json!({ "type": "object" })),
            ),
        };
        self.common_parameters();
        json!({
            "summary": summary,
            "operationId": format!("get_{name}"),
            "tags": [if endpoint.ours { "botmaster" } else { kind.plural }],
            "parameters": parameters,
            "responses": read_responses(&content),
        })
    }

    fn common_parameters(&mut self) {
        let number = |name: &str, about: &str| {
            json!({
                "name": name, "in": "query", "description": about,
                "schema": { "type": "integer", "format": "int64" },
            })
        };
        self.parameters
            .entry("limit")
            .or_insert_with(|| number("limit", "At most so many; a negative one is no limit."));
        self.parameters
            .entry("offset")
            .or_insert_with(|| number("offset", "Leave out so many first."));
        self.parameters.entry("property").or_insert_with(|| {
            json!({
                "name": "property", "in": "query", "description": "Properties to show; `*` for all.",
                "schema": { "type": "array", "items": { "type": "string" } },
            })
        });
    }

    fn one_parameters(&mut self, kind: &'static Resource) -> Vec<Value> {
        let mut found = Vec::new();
        if !kind.fields.is_empty() {
            found.push(self.choice(kind, "field", "Only these fields.", false));
        }
        if kind.kind("properties").is_some() {
            found.push(reference("parameters", "property"));
        }
        found
    }

    fn list_parameters(&mut self, kind: &'static Resource) -> Vec<Value> {
        let mut found = vec![reference("parameters", "limit"), reference("parameters", "offset")];
        found.append(&mut self.one_parameters(kind));
        found.push(self.choice(kind, "order", "Order; `-` before a name turns it round.", true));
        for field in kind.fields {
            let operators: &[&str] = match field.kind {
                Kind::Int => &["", "__ne", "__lt", "__le", "__gt", "__ge"],
                Kind::Text => &["", "__ne", "__contains"],
                Kind::Bool => &[""],
                Kind::Ints | Kind::Texts => &["__contains"],
                Kind::Other | Kind::Ours => &[],
            };
            let value = match field.kind {
                Kind::Int | Kind::Ints => json!({ "type": "integer", "format": "int64" }),
                Kind::Bool => json!({ "type": "boolean" }),
                _ => json!({ "type": "string" }),
            };
            for operator in operators {
                let name = format!("{}{operator}", field.name);
                let key = format!("{}.{name}", kind.plural);
                found.push(reference("parameters", &key));
                let single = matches!(*operator, "__lt" | "__le" | "__gt" | "__ge");
                let schema = match single {
                    true => value.clone(),
                    false => json!({ "type": "array", "items": value }),
                };
                self.parameters
                    .entry(key)
                    .or_insert_with(|| json!({ "name": name, "in": "query", "schema": schema }));
            }
        }
        found
    }

    /// A parameter whose values are names of fields.
    fn choice(
        &mut self,
        kind: &'static Resource,
        name: &str,
        about: &str,
        ordering: bool,
    ) -> Value {
        let key = format!("{}.{name}", kind.plural);
        self.parameters.entry(key.clone()).or_insert_with(|| {
            let names = kind
                .fields
                .iter()
                .filter(|field| {
                    field.kind != Kind::Ours && (!ordering || field.kind != Kind::Other)
                })
                .map(|field| field.name.to_owned());
            let turned = |name: String| match ordering {
                true => vec![name.clone(), format!("-{name}")],
                false => vec![name],
            };
            let names: Vec<String> = names.flat_map(turned).collect();
            json!({
                "name": name, "in": "query", "description": about,
                "schema": { "type": "array", "items": { "type": "string", "enum": names } },
            })
        });
        reference("parameters", &key)
    }

    /// The schema of an answer.
    fn envelope(&mut self, kind: &'static Resource, many: bool) -> Value {
        let item = (kind.schema)(&mut self.generator);
        let mut list = json!({ "type": "array", "items": item });
        let meta = if many {
            json!({
                "type": "object",
                "properties": {
                    "total": { "type": "integer", "minimum": 0,
                               "description": "How many there are before `limit` and `offset`." },
                    "total_is_lower_bound": { "const": true },
                },
                "required": ["total"],
                "additionalProperties": false,
            })
        } else {
            list["minItems"] = 1.into();
            list["maxItems"] = 1.into();
            json!({ "type": "object", "additionalProperties": false })
        };
        json!({
            "type": "object",
            "properties": { kind.plural: list, "meta": meta },
            "required": [kind.plural, "meta"],
            "additionalProperties": false,
        })
    }
}

/// What a resource has are its fields and nothing else; which of them an
/// answer has, whoever asks can choose.
fn loosen(schema: &mut Value) {
    if let Some(object) = schema.as_object_mut()
        && object.contains_key("properties")
    {
        object.remove("required");
        object.insert("additionalProperties".into(), false.into());
    }
}

/// The path as the document writes it, and its variables.
fn templated(path: &str) -> (String, Vec<Value>) {
    let mut written = String::new();
    let mut variables: Vec<Value> = Vec::new();
    for segment in path.split('/') {
        written.push('/');
        let Some((kind, name)) = segment.split_once(':') else {
            written.push_str(segment);
            continue;
        };
        let below_workers = written.ends_with("/workers/");
        let either = EITHER.iter().find(|(names, stands)| {
            names.contains(&name) && (*stands != "worker" || below_workers)
        });
        let name = either.map_or(name, |(_, stands)| stands);
        let number = json!({ "type": "integer", "format": "int64" });
        let schema = match (kind, either) {
            (_, Some(_)) => json!({ "anyOf": [number, { "type": "string", "minLength": 1 }] }),
            ("i" | "s", None) => json!({ "type": "string", "minLength": 1 }),
            _ => number,
        };
        written.push('{');
        written.push_str(name);
        written.push('}');
        variables.push(json!({ "name": name, "in": "path", "required": true, "schema": schema }));
    }
    (written, variables)
}

fn reference(kind: &str, name: &str) -> Value {
    json!({ "$ref": format!("#/components/{kind}/{name}") })
}

fn json_or_text(schema: &Value) -> Value {
    json!({
        "application/json": { "schema": schema },
        "text/plain": { "schema": { "type": "string", "description": "The same, indented." } },
    })
}

fn read_responses(content: &Value) -> Value {
    json!({
        "200": { "description": "What was asked for.", "content": content },
        "304": { "description": "It is as the `ETag` in `If-None-Match` says." },
        "400": reference("responses", "error"),
        "404": reference("responses", "error"),
        "503": reference("responses", "error"),
    })
}

fn responses() -> Value {
    let error = |message: Value| {
        json!({
            "type": "object",
            "properties": {
                "jsonrpc": { "const": "2.0" },
                "id": { "type": ["string", "integer", "null"] },
                "error": {
                    "type": "object",
                    "properties": { "code": { "type": "integer" }, "message": message },
                    "required": ["code", "message"],
                },
            },
            "required": ["jsonrpc", "error"],
        })
    };
    let texts = json!({
        "anyOf": [
            { "type": "string" },
            { "type": "object", "additionalProperties": { "type": "string" },
              "description": "Texts by the fields that are bad." },
        ],
    });
    json!({
        "error": {
            "description": "Why there is no answer: `{\"error\": \"text\"}`.",
            "content": { "text/plain": { "schema": { "type": "string" } } },
        },
        "refusal": {
            "description": "Why the order was not carried out.",
            "content": {
                "application/json": { "schema": error(texts) },
                "text/plain": { "schema": { "type": "string" } },
            },
        },
    })
}

/// What each order takes beside nothing.
fn order_parameters(method: &str) -> Value {
    let reason = json!({ "reason": { "type": "string", "description": "For people." } });
    let properties = match method {
        "set_priority" => json!({ "priority": { "type": "integer", "format": "int64" } }),
        "enable" => json!({ "enabled": { "type": "boolean" } }),
        "force" => json!({
            "builderid": { "type": ["integer", "string"] },
            "builderNames": { "type": "array", "items": { "type": "string" } },
        }),
        "ping" | "restart" => json!({}),
        _ => reason,
    };
    let required: Vec<&str> = match method {
        "set_priority" => vec!["priority"],
        "enable" => vec!["enabled"],
        _ => Vec::new(),
    };
    json!({ "type": "object", "properties": properties, "required": required })
}

fn orders(endpoint: &Endpoint, name: &str) -> Value {
    let call = |method: &&str| {
        json!({
            "type": "object",
            "properties": {
                "jsonrpc": { "const": "2.0" },
                "id": { "type": ["string", "integer", "null"] },
                "method": { "const": method },
                "params": order_parameters(method),
            },
            "required": ["jsonrpc", "id", "method", "params"],
        })
    };
    let calls: Vec<Value> = endpoint.orders.iter().map(call).collect();
    let done = json!({
        "type": "object",
        "properties": {
            "jsonrpc": { "const": "2.0" },
            "id": { "type": ["string", "integer", "null"] },
            "result": {},
        },
        "required": ["jsonrpc", "id", "result"],
    });
    let mut responses = Map::new();
    responses.insert(
        "200".into(),
        json!({
            "description": "It is done, or will be.",
            "content": { "application/json": { "schema": done } },
        }),
    );
    for status in ["400", "404", "409", "413", "429", "501", "503", "504"] {
        responses.insert(status.into(), reference("responses", "refusal"));
    }
    json!({
        "summary": format!("Orders, as JSON-RPC 2.0: {}", endpoint.orders.join(", ")),
        "operationId": format!("order_{name}"),
        "tags": [endpoint.kind.plural],
        "requestBody": {
            "required": true,
            "content": { "application/json": { "schema": { "anyOf": calls } } },
        },
        "responses": responses,
    })
}
