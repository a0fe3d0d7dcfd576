//! What a Buildbot 4.3.0 master answered, and a store that is filled from it:
//! the same ids, the same times.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Connection, params};
use serde_json::{Map, Value, json};

use crate::support::FakeLogs;

/// One recorded exchange.
pub struct Case {
    pub name: String,
    pub request: Value,
    pub response: Value,
}

impl Case {
    pub fn method(&self) -> &str {
        self.request["method"].as_str().unwrap()
    }

    pub fn path(&self) -> &str {
        self.request["path"].as_str().unwrap()
    }

    pub fn status(&self) -> u64 {
        self.response["status"].as_u64().unwrap()
    }

    pub fn body(&self) -> &str {
        self.response["body"].as_str().unwrap()
    }

    /// The body as JSON, when it is.
    pub fn json(&self) -> Option<Value> {
        serde_json::from_str(self.body()).ok()
    }
}

pub fn cases() -> Vec<Case> {
    include_str!("../fixtures/buildbot/rest-cases.jsonl")
        .lines()
        .map(|line| {
            let mut case: Value = serde_json::from_str(line).unwrap();
            Case {
                name: case["name"].as_str().unwrap().to_owned(),
                request: case["request"].take(),
                response: case["response"].take(),
            }
        })
        .collect()
}

/// Rows by id, of one kind.
type Rows = BTreeMap<i64, Map<String, Value>>;

/// Everything that was told, put together.
#[derive(Default)]
pub struct Told {
    rows: BTreeMap<&'static str, Rows>,
    properties: BTreeMap<i64, Map<String, Value>>,
    set_properties: BTreeMap<i64, Map<String, Value>>,
}

/// Kinds with the field that is their id and one that only a whole one has.
const KINDS: [(&str, &str, &str); 15] = [
    ("builders", "builderid", "tags"),
    ("workers", "workerid", "workerinfo"),
    ("projects", "projectid", "slug"),
    ("schedulers", "schedulerid", "master"),
    ("sourcestamps", "ssid", "patch"),
    ("changes", "changeid", "sourcestamp"),
    ("buildsets", "bsid", "sourcestamps"),
    ("buildrequests", "buildrequestid", "waited_for"),
    ("builds", "buildid", "locks_duration_s"),
    ("steps", "stepid", "urls"),
    ("logs", "logid", "num_lines"),
    ("test_result_sets", "test_result_setid", "value_unit"),
    ("test_results", "test_resultid", "test_code_path"),
    ("build_data", "buildid", "length"),
    ("forceschedulers", "", ""),
];

impl Told {
    /// Reads one answer. The last word about a thing counts.
    pub fn hear(&mut self, case: &Case) {
        let Some(body) = case.json() else { return };
        for (kind, id, whole) in KINDS {
            for row in body[kind].as_array().into_iter().flatten() {
                if let (Some(id), Some(row)) = (row[id].as_i64(), row.as_object())
                    && row.contains_key(whole)
                {
                    self.row(kind, id, row);
                }
            }
        }
        let number = |prefix: &str, suffix: &str| {
            let rest = case.path().strip_prefix(prefix)?.strip_suffix(suffix)?;
            rest.parse::<i64>().ok()
        };
        if let Some(all) = body["properties"][0].as_object() {
            if let Some(build) = number("/api/v2/builds/", "/properties") {
                self.properties.entry(build).or_default().extend(all.clone());
            }
            if let Some(set) = number("/api/v2/buildsets/", "/properties") {
                self.set_properties.insert(set, all.clone());
            }
        }
    }

    fn row(&mut self, kind: &'static str, id: i64, row: &Map<String, Value>) {
        if kind == "builds"
            && let Some(some) = row["properties"].as_object()
        {
            self.properties.entry(id).or_default().extend(some.clone());
        }
        for stamp in row.get("sourcestamps").and_then(Value::as_array).into_iter().flatten() {
            self.row("sourcestamps", stamp["ssid"].as_i64().unwrap(), stamp.as_object().unwrap());
        }
        if let Some(stamp) = row.get("sourcestamp") {
            self.row("sourcestamps", stamp["ssid"].as_i64().unwrap(), stamp.as_object().unwrap());
        }
        let known = self.rows.entry(kind).or_default();
        // Below one builder, a worker is shown as if it had no other.
        let fewer = |known: &Map<String, Value>| {
            let count = |row: &Map<String, Value>| row["configured_on"].as_array().unwrap().len();
            kind == "workers" && count(row) < count(known)
        };
        let mut row = row.clone();
        if let Some(known) = known.get(&id)
            && fewer(known)
        {
            row.insert("configured_on".into(), known["configured_on"].clone());
        }
        known.insert(id, row);
    }

    /// Properties that were told in a list of builds without their ids.
    pub fn in_order(&mut self, case: &Case) {
        let ids: Vec<i64> = self.rows["builds"].keys().copied().collect();
        let body = case.json().unwrap();
        for (id, row) in ids.into_iter().zip(body["builds"].as_array().unwrap()) {
            let own = row["properties"].as_object().unwrap().clone();
            self.properties.entry(id).or_default().extend(own);
        }
    }

    fn of(&self, kind: &str) -> impl Iterator<Item = (i64, &Map<String, Value>)> {
        self.rows.get(kind).into_iter().flatten().map(|(id, row)| (*id, row))
    }

    /// Makes the store say so.
    pub fn fill(&self, db: &Connection) {
        db.execute_batch("BEGIN").unwrap();
        self.configured(db);
        self.sources(db);
        self.submitted(db);
        self.built(db);
        self.results(db);
        db.execute_batch("COMMIT").unwrap();
    }

    fn configured(&self, db: &Connection) {
        for (id, row) in self.of("projects") {
            put(
                db,
                "INSERT OR REPLACE INTO projects VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                &[
                    id.into(),
                    row["name"].clone(),
                    row["slug"].clone(),
                    row["description"].clone(),
                    row["description_format"].clone(),
                    row["description_html"].clone(),
                ],
            );
        }
        for (id, row) in self.of("builders") {
            put(
                db,
                "INSERT OR REPLACE INTO builders (id, name, description, tags, configured, \
                 project_id, description_format, description_html) \
                 VALUES (?1, ?2, ?3, ?4, 1, ?5, ?6, ?7)",
                &[
                    id.into(),
                    row["name"].clone(),
                    row["description"].clone(),
                    row["tags"].to_string().into(),
                    row["projectid"].clone(),
                    row["description_format"].clone(),
                    row["description_html"].clone(),
                ],
            );
        }
        for (id, row) in self.of("workers") {
            let mut info = row["workerinfo"].as_object().unwrap().clone();
            info.retain(|_, value| !value.is_null());
            put(
                db,
                "INSERT OR REPLACE INTO workers (id, name, configured, connected, info, paused, \
                 pause_reason, graceful) VALUES (?1, ?2, 1, ?3, ?4, ?5, ?6, ?7)",
                &[
                    id.into(),
                    row["name"].clone(),
                    (!row["connected_to"].as_array().unwrap().is_empty()).into(),
                    Value::Object(info).to_string().into(),
                    row["paused"].clone(),
                    row["pause_reason"].clone(),
                    row["graceful"].clone(),
                ],
            );
            for on in row["configured_on"].as_array().unwrap() {
                put(
                    db,
                    "INSERT OR REPLACE INTO builder_workers VALUES (?1, ?2, ?2)",
                    &[on["builderid"].clone(), id.into()],
                );
            }
        }
        for (id, row) in self.of("schedulers") {
            db.execute("DELETE FROM schedulers WHERE name = ?1", [row["name"].as_str()]).unwrap();
            put(
                db,
                "INSERT OR REPLACE INTO schedulers (id, name, enabled) VALUES (?1, ?2, ?3)",
                &[id.into(), row["name"].clone(), row["enabled"].clone()],
            );
        }
    }

    fn sources(&self, db: &Connection) {
        for (id, row) in self.of("sourcestamps") {
            put(
                db,
                "INSERT OR REPLACE INTO sourcestamps (id, digest, codebase, repository, branch, \
                 revision, project, created_at) VALUES (?1, ?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                &[
                    id.into(),
                    row["codebase"].clone(),
                    row["repository"].clone(),
                    row["branch"].clone(),
                    row["revision"].clone(),
                    row["project"].clone(),
                    micros(&row["created_at"]),
                ],
            );
        }
        for (id, row) in self.of("changes") {
            put(
                db,
                "INSERT OR REPLACE INTO changes (id, parents, author, committer, files, comments, \
                 at, category, revlink, properties, stamp_id) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
                &[
                    id.into(),
                    row["parent_changeids"].to_string().into(),
                    row["author"].clone(),
                    row["committer"].clone(),
                    row["files"].to_string().into(),
                    row["comments"].clone(),
                    micros(&row["when_timestamp"]),
                    row["category"].clone(),
                    row["revlink"].clone(),
                    row["properties"].to_string().into(),
                    row["sourcestamp"]["ssid"].clone(),
                ],
            );
        }
    }

    /// The buildset of a request. Where none was told, it is one that has what
    /// was told of the request's builds.
    fn set_of(&self, request: i64) -> i64 {
        match request {
            // Build 2 has the change that buildset 2 is for.
            4 => 2,
            _ => self
                .rows
                .get("buildrequests")
                .and_then(|rows| rows.get(&request))
                .map_or(1000 + request, |row| row["buildsetid"].as_i64().unwrap()),
        }
    }

    fn submitted(&self, db: &Connection) {
        let requests: BTreeSet<i64> = self
            .of("builds")
            .map(|(_, row)| row["buildrequestid"].as_i64().unwrap())
            .chain(self.of("buildrequests").map(|(id, _)| id))
            .collect();
        let mut sets: BTreeSet<i64> = requests.iter().map(|id| self.set_of(*id)).collect();
        sets.extend(self.of("buildsets").map(|(id, _)| id));
        let empty = json!({
            "reason": "not told", "submitted_at": 0, "complete_at": 0, "results": 0,
            "sourcestamps": [],
        });
        for id in sets {
            let told = self.rows.get("buildsets").and_then(|rows| rows.get(&id));
            let row = told.unwrap_or(empty.as_object().unwrap());
            let field = |name: &str| row.get(name).cloned().unwrap_or_default();
            let stamps = row["sourcestamps"].as_array().unwrap().iter();
            let stamps: Vec<&Value> = stamps.map(|stamp| &stamp["ssid"]).collect();
            // Build 11 asked for builds 13, 14 and 18.
            let parent = [1014, 1015, 1019].contains(&id).then_some(11);
            let properties = self.set_properties.get(&id).cloned().unwrap_or_default();
            put(
                db,
                "INSERT OR REPLACE INTO buildsets (id, external_id, reason, scheduler, \
                 submitted_at, complete_at, results, rebuilt_build, sourcestamps, properties, \
                 open_requests, parent_build, parent_relationship) \
                 VALUES (?1, ?2, ?3, 'force', ?4, ?5, ?6, ?7, ?8, ?9, 0, ?10, ?11)",
                &[
                    id.into(),
                    field("external_idstring"),
                    field("reason"),
                    micros(&field("submitted_at")),
                    micros(&field("complete_at")),
                    result(&field("results")),
                    field("rebuilt_buildid"),
                    json!(stamps).to_string().into(),
                    stored(&properties),
                    parent.map_or_else(|| field("parent_buildid"), Into::into),
                    field("parent_relationship"),
                ],
            );
        }
        for id in requests {
            let told = self.rows.get("buildrequests").and_then(|rows| rows.get(&id));
            let build = self.of("builds").find(|(_, row)| row["buildrequestid"] == id);
            let field = |name: &str| told.map_or(Value::Null, |row| row[name].clone());
            let builder =
                build.map_or_else(|| field("builderid"), |(_, row)| row["builderid"].clone());
            let state = match told {
                None => 2,
                Some(row) if row["complete"] == true => 2,
                Some(row) if row["claimed"] == true => 1,
                Some(_) => 0,
            };
            let number = |name: &str| told.map_or(json!(0), |row| row[name].clone());
            put(
                db,
                "INSERT OR REPLACE INTO requests (id, buildset_id, builder_id, priority, \
                 submitted_at, state, claimed_at, complete_at, results, waited_for) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
                &[
                    id.into(),
                    self.set_of(id).into(),
                    builder,
                    number("priority"),
                    micros(&number("submitted_at")),
                    state.into(),
                    micros(&field("claimed_at")),
                    micros(&field("complete_at")),
                    result(&field("results")),
                    told.map_or(json!(false), |row| row["waited_for"].clone()),
                ],
            );
        }
    }

    fn built(&self, db: &Connection) {
        for (id, row) in self.of("builds") {
            let properties = self.properties.get(&id).cloned().unwrap_or_default();
            put(
                db,
                "INSERT OR REPLACE INTO builds (id, claim, builder_id, number, request_id, \
                 worker_id, incarnation, state, started_at, complete_at, results, state_string, \
                 factory_digest, properties) \
                 VALUES (?1, ?1, ?2, ?3, ?4, ?5, 1, ?6, ?7, ?8, ?9, ?10, 'f', ?11)",
                &[
                    id.into(),
                    row["builderid"].clone(),
                    row["number"].clone(),
                    row["buildrequestid"].clone(),
                    row["workerid"].clone(),
                    if row["complete"] == true { 2.into() } else { 1.into() },
                    micros(&row["started_at"]),
                    micros(&row["complete_at"]),
                    row["results"].clone(),
                    row["state_string"].clone(),
                    stored(&properties),
                ],
            );
            put(
                db,
                "INSERT OR REPLACE INTO build_requests VALUES (?1, ?2, 1)",
                &[id.into(), row["buildrequestid"].clone()],
            );
        }
        for (id, row) in self.of("steps") {
            put(
                db,
                "INSERT OR REPLACE INTO steps (id, build_id, number, name, started_at, \
                 complete_at, results, state_string, locks_acquired_at, urls, hidden) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
                &[
                    id.into(),
                    row["buildid"].clone(),
                    row["number"].clone(),
                    row["name"].clone(),
                    micros(&row["started_at"]),
                    micros(&row["complete_at"]),
                    row["results"].clone(),
                    row["state_string"].clone(),
                    micros(&row["locks_acquired_at"]),
                    row["urls"].to_string().into(),
                    row["hidden"].clone(),
                ],
            );
        }
        for (id, row) in self.of("logs") {
            put(
                db,
                "INSERT OR REPLACE INTO logs (id, step_id, name, slug, kind, complete, num_lines, \
                 length) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 0)",
                &[
                    id.into(),
                    row["stepid"].clone(),
                    row["name"].clone(),
                    row["slug"].clone(),
                    row["type"].clone(),
                    row["complete"].clone(),
                    row["num_lines"].clone(),
                ],
            );
        }
    }

    fn results(&self, db: &Connection) {
        for (id, row) in self.of("test_result_sets") {
            put(
                db,
                "INSERT OR REPLACE INTO test_result_sets VALUES \
                 (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
                &[
                    id.into(),
                    row["builderid"].clone(),
                    row["buildid"].clone(),
                    row["stepid"].clone(),
                    row["description"].clone(),
                    row["category"].clone(),
                    row["value_unit"].clone(),
                    row["tests_passed"].clone(),
                    row["tests_failed"].clone(),
                    row["complete"].clone(),
                ],
            );
        }
        for (id, row) in self.of("test_results") {
            put(
                db,
                "INSERT OR REPLACE INTO test_results VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
                &[
                    id.into(),
                    row["builderid"].clone(),
                    row["test_result_setid"].clone(),
                    row["test_name"].clone(),
                    row["test_code_path"].clone(),
                    row["line"].clone(),
                    row["duration_ns"].clone(),
                    row["value"].clone(),
                ],
            );
        }
        for (id, row) in self.of("build_data") {
            let bytes = br#"{"lines": 87.5}"#;
            assert_eq!(row["length"], bytes.len());
            db.execute(
                "INSERT OR REPLACE INTO build_data (build_id, name, source, value) \
                 VALUES (?1, ?2, ?3, ?4)",
                params![id, row["name"].as_str(), row["source"].as_str(), bytes],
            )
            .unwrap();
        }
    }
}

/// Runs a statement with these values.
fn put(db: &Connection, sql: &str, values: &[Value]) {
    use rusqlite::types::Value as Sql;
    let bound = values.iter().map(|value| match value {
        Value::Null => Sql::Null,
        Value::Bool(yes) => Sql::Integer((*yes).into()),
        Value::Number(number) => Sql::Integer(number.as_i64().unwrap()),
        Value::String(text) => Sql::Text(text.clone()),
        other => panic!("{other} has no column"),
    });
    let result = db.prepare_cached(sql).unwrap().execute(rusqlite::params_from_iter(bound));
    result.unwrap_or_else(|error| panic!("{sql} with {values:?}: {error}"));
}

fn micros(seconds: &Value) -> Value {
    seconds.as_i64().map_or(Value::Null, |seconds| (seconds * 1_000_000).into())
}

/// -1 means that there is none yet.
fn result(code: &Value) -> Value {
    if *code == -1 { Value::Null } else { code.clone() }
}

/// Properties as the store writes them.
fn stored(told: &Map<String, Value>) -> Value {
    let pair = |(name, own): (&String, &Value)| {
        (name.clone(), json!({ "value": own[0], "source": own[1] }))
    };
    Value::Object(told.iter().map(pair).collect()).to_string().into()
}

/// The logs' texts, as far as they were told; the rest is filled up.
pub fn tell_logs(cases: &[Case], logs: &FakeLogs, db: &Connection) {
    let case = |name: &str| cases.iter().find(|case| case.name == name).unwrap();
    let mut lines = vec!["ofilled up".to_owned(); 417];
    for name in ["contents-slice", "contents-nested"] {
        let chunk = case(name).json().unwrap()["logchunks"][0].clone();
        let first = usize::try_from(chunk["firstline"].as_u64().unwrap()).unwrap();
        for (at, line) in chunk["content"].as_str().unwrap().lines().enumerate() {
            lines[first + at] = line.to_owned();
        }
    }
    logs.set(95, &(lines.join("\n") + "\n"));
    let with_channel = |text: &str| -> String {
        text.split_inclusive('\n').map(|line| format!("o{line}")).collect()
    };
    logs.set(96, &with_channel(case("raw-html").body()));
    logs.set(97, &with_channel(case("raw-text").body()));
    let checkout = case("raw-stdio-nested").body();
    let text: Vec<&str> = checkout.splitn(4, '\n').collect();
    db.execute(
        "INSERT INTO logs (id, step_id, name, slug, kind, complete, num_lines) \
         VALUES (90, 101, 'stdio', 'stdio', 's', 1, 16)",
        [],
    )
    .unwrap();
    logs.set(90, &with_channel(text[3]));
}
