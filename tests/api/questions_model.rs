//! Filters, order, cut and projection against a plain model in memory: any
//! question about any kind of list is answered as the model answers it.

use std::cmp::Ordering;

use botmaster::board::Board;
use proptest::prelude::*;
use proptest::test_runner::{FileFailurePersistence, TestRunner};
use serde_json::{Value, json};

use crate::support::World;

/// What a field of a list holds.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Kind {
    Int,
    Text,
    Bool,
    Ints,
    Texts,
}

use Kind::{Bool, Int, Ints, Text, Texts};

/// A list, its fields, and the one that no two rows share.
struct Listed {
    path: &'static str,
    plural: &'static str,
    unique: &'static str,
    fields: &'static [(&'static str, Kind)],
}

const LISTS: &[Listed] = &[
    Listed {
        path: "builds",
        plural: "builds",
        unique: "buildid",
        fields: &[
            ("buildid", Int),
            ("number", Int),
            ("builderid", Int),
            ("workerid", Int),
            ("started_at", Int),
            ("complete", Bool),
            ("complete_at", Int),
            ("results", Int),
            ("state_string", Text),
        ],
    },
    Listed {
        path: "buildrequests",
        plural: "buildrequests",
        unique: "buildrequestid",
        fields: &[
            ("buildrequestid", Int),
            ("buildsetid", Int),
            ("priority", Int),
            ("claimed", Bool),
            ("claimed_at", Int),
            ("claimed_by_masterid", Int),
            ("complete", Bool),
            ("results", Int),
            ("waited_for", Bool),
        ],
    },
    Listed {
        path: "buildsets",
        plural: "buildsets",
        unique: "bsid",
        fields: &[
            ("bsid", Int),
            ("external_idstring", Text),
            ("reason", Text),
            ("complete", Bool),
            ("submitted_at", Int),
            ("results", Int),
            ("parent_buildid", Int),
            ("rebuilt_buildid", Int),
        ],
    },
    Listed {
        path: "changes",
        plural: "changes",
        unique: "changeid",
        fields: &[
            ("changeid", Int),
            ("parent_changeids", Ints),
            ("author", Text),
            ("committer", Text),
            ("files", Texts),
            ("when_timestamp", Int),
            ("branch", Text),
            ("codebase", Text),
        ],
    },
    Listed {
        path: "builds/3/steps",
        plural: "steps",
        unique: "number",
        fields: &[
            ("number", Int),
            ("name", Text),
            ("started_at", Int),
            ("locks_acquired_at", Int),
            ("complete", Bool),
            ("results", Int),
            ("hidden", Bool),
        ],
    },
    Listed {
        path: "builders",
        plural: "builders",
        unique: "builderid",
        fields: &[
            ("builderid", Int),
            ("name", Text),
            ("masterids", Ints),
            ("description", Text),
            ("projectid", Int),
            ("tags", Texts),
        ],
    },
    Listed {
        path: "workers",
        plural: "workers",
        unique: "workerid",
        fields: &[
            ("workerid", Int),
            ("name", Text),
            ("paused", Bool),
            ("pause_reason", Text),
            ("graceful", Bool),
        ],
    },
];

/// Rows in which values repeat, are missing, and look like wildcards. Times are
/// whole seconds: finer ones would order rows that show the same time.
const ROWS: &str = r#"
WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 8)
INSERT INTO builders (id, name, description, tags, configured, project_id)
SELECT i, 'b' || (i * 7 % 10), CASE i % 3 WHEN 0 THEN NULL WHEN 1 THEN '' ELSE 'a_b%' END,
       CASE i % 3 WHEN 0 THEN '[]' WHEN 1 THEN '["x","y"]' ELSE '["y"]' END, i % 4 > 0,
       CASE i % 3 WHEN 0 THEN i % 2 END FROM n;
WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5)
INSERT INTO workers (id, name, configured, connected, paused, pause_reason, graceful)
SELECT i, 'w' || i, 1, 0, i % 2, CASE WHEN i % 2 THEN 'disk ' || (i % 4) END, i % 3 = 0 FROM n;
INSERT INTO sourcestamps (id, digest, codebase, repository, branch, project, created_at) VALUES
    (1, '1', '', 'r', NULL, '', 0), (2, '2', 'c', 'r', 'main', '', 0), (3, '3', '', 'r', 'Main', '', 0);
WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 12)
INSERT INTO buildsets (id, external_id, reason, scheduler, submitted_at, complete_at, results,
                       rebuilt_build, parent_build, sourcestamps, properties, open_requests)
SELECT i, CASE i % 4 WHEN 0 THEN 'e' || (i % 3) END, CASE i % 3 WHEN 0 THEN 'ä' ELSE 'r' || (i % 2) END,
       's', i / 2 * 1000000, CASE WHEN i % 3 THEN i * 1000000 END, CASE WHEN i % 3 THEN i % 4 END,
       CASE WHEN i % 5 = 0 THEN i % 3 END, CASE WHEN i % 4 = 1 THEN i % 2 END, '[]', '{}', 0 FROM n;
WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 14)
INSERT INTO requests (id, buildset_id, builder_id, priority, submitted_at, state, claimed_at,
                      complete_at, results, waited_for)
SELECT i, i % 5 + 1, i % 3 + 1, i % 3 - 1, i * 1000000, i % 4, CASE WHEN i % 4 IN (1, 2) THEN i * 1500000 END,
       CASE WHEN i % 4 > 1 THEN i * 2000000 END, CASE WHEN i % 4 > 1 THEN i % 7 END, i % 2 FROM n;
WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 14)
INSERT INTO builds (id, claim, builder_id, number, request_id, worker_id, incarnation, state,
                    started_at, complete_at, results, state_string, factory_digest, properties)
SELECT i, i, i % 3 + 1, CASE WHEN i % 7 THEN i END, i, i % 4, 1, CASE WHEN i % 7 = 0 THEN 0 WHEN i % 3 THEN 2 ELSE 1 END,
       i / 3 * 1000000, CASE WHEN i % 3 THEN i * 1000000 END, CASE WHEN i % 3 THEN i % 7 END,
       CASE i % 4 WHEN 0 THEN '' WHEN 1 THEN 'a_b%' WHEN 2 THEN 'ä' ELSE 'build ' || (i % 2) END, 'f', '{}' FROM n;
WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 9)
INSERT INTO steps (id, build_id, number, name, started_at, complete_at, results, state_string,
                   locks_acquired_at, hidden)
SELECT 100 + i, 3, i, 's' || (i % 4) || i, CASE WHEN i % 4 THEN i * 1000000 END,
       CASE WHEN i % 3 THEN i * 2000000 END, CASE WHEN i % 3 THEN i % 3 END, 't',
       CASE WHEN i % 2 THEN i * 1000000 END, i % 3 = 1 FROM n;
WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 9)
INSERT INTO changes (id, parents, author, committer, files, comments, at, stamp_id)
SELECT i, CASE WHEN i > 2 THEN '[' || (i - 1) || ',' || (i - 2) || ']' ELSE '[]' END, 'ann' || (i % 2),
       CASE WHEN i % 3 THEN 'bob' END, CASE i % 3 WHEN 0 THEN '[]' WHEN 1 THEN '["a.c"]' ELSE '["a.c","b%"]' END,
       'c', i / 2 * 1000000, i % 3 + 1 FROM n;
"#;

/// Every row of the list.
fn rows(world: &World, list: &Listed) -> Vec<Value> {
    let rows = world.list(&format!("{}?order={}", list.path, list.unique));
    assert!(rows.len() >= 5, "{}", list.path);
    rows
}

#[derive(Clone, Debug)]
struct Filter {
    field: usize,
    op: &'static str,
    values: Vec<String>,
}

#[derive(Clone, Debug)]
struct Question {
    list: usize,
    filters: Vec<Filter>,
    order: Vec<(usize, bool)>,
    last_descending: bool,
    limit: Option<i64>,
    offset: Option<i64>,
    project: bool,
}

const OPERATORS: [&str; 10] =
    ["", "__eq", "__ne", "__lt", "__le", "__gt", "__ge", "__contains", "__in", "__notin"];

/// Values that are there, nearly there, and not there.
fn value(kind: Kind) -> BoxedStrategy<String> {
    match kind {
        Int | Ints => (-2_i64..16).prop_map(|number| number.to_string()).boxed(),
        Text | Texts => prop::sample::select(vec![
            "", "a", "b", "a_b%", "%", "_", "ä", "build 1", "main", "Main", "x", "y", "a.c", "b%",
            "r1", "b3", "w2", "disk 1", "ann1", "bob", "s22",
        ])
        .prop_map(str::to_owned)
        .boxed(),
        Bool => prop::sample::select(vec!["true", "false", "On", "0", "YES", "no"])
            .prop_map(str::to_owned)
            .boxed(),
    }
}

fn filter(list: usize) -> impl Strategy<Value = Filter> {
    let fields = LISTS[list].fields;
    (0..fields.len(), prop::sample::select(OPERATORS.to_vec())).prop_flat_map(move |(field, op)| {
        prop::collection::vec(value(fields[field].1), 1..4).prop_map(move |values| Filter {
            field,
            op,
            values,
        })
    })
}

fn question() -> impl Strategy<Value = Question> {
    (0..LISTS.len()).prop_flat_map(|list| {
        let fields = LISTS[list].fields.len();
        (
            prop::collection::vec(filter(list), 0..3),
            prop::collection::vec((0..fields, any::<bool>()), 0..3),
            any::<bool>(),
            prop::option::of(-1_i64..12),
            prop::option::of(-1_i64..12),
            any::<bool>(),
        )
            .prop_map(move |(filters, order, last_descending, limit, offset, project)| {
                Question { list, filters, order, last_descending, limit, offset, project }
            })
    })
}

fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

impl Question {
    fn list(&self) -> &'static Listed {
        &LISTS[self.list]
    }

    /// Without rows that are equal there is one order only.
    fn keys(&self) -> Vec<(&'static str, bool)> {
        let list = self.list();
        let mut keys: Vec<_> = self
            .order
            .iter()
            // Lists have no order that anybody could want.
            .filter(|(field, _)| !matches!(list.fields[*field].1, Ints | Texts))
            .map(|(field, descending)| (list.fields[*field].0, *descending))
            .collect();
        keys.push((list.unique, self.last_descending));
        keys
    }

    fn path(&self) -> String {
        let list = self.list();
        let mut parts = Vec::new();
        for filter in &self.filters {
            let name = list.fields[filter.field].0;
            let op = filter.op;
            parts
                .extend(filter.values.iter().map(|value| format!("{name}{op}={}", encoded(value))));
        }
        for (key, descending) in self.keys() {
            parts.push(format!("order={}{key}", if descending { "-" } else { "" }));
        }
        parts.extend(self.limit.map(|limit| format!("limit={limit}")));
        parts.extend(self.offset.map(|offset| format!("offset={offset}")));
        if self.project {
            let names = list.fields.iter().map(|(name, _)| format!("field={name}"));
            parts.extend(names);
        }
        format!("{}?{}", list.path, parts.join("&"))
    }

    fn lets_through(&self, row: &Value) -> bool {
        // The same field and operator twice is one filter with more values.
        let mut merged: Vec<Filter> = Vec::new();
        for filter in &self.filters {
            let same = |op: &str| match op {
                "" | "__eq" | "__in" => "in",
                "__ne" | "__notin" => "notin",
                _ => "",
            };
            let known = merged.iter_mut().find(|one| {
                one.field == filter.field
                    && (one.op == filter.op
                        || !same(one.op).is_empty() && same(one.op) == same(filter.op))
            });
            match known {
                Some(known) => known.values.extend(filter.values.clone()),
                None => merged.push(filter.clone()),
            }
        }
        merged.iter().all(|filter| {
            let (name, kind) = self.list().fields[filter.field];
            holds(&row[name], kind, filter.op, &filter.values)
        })
    }

    fn expected(&self, world: &World) -> (Vec<Value>, usize) {
        let mut rows: Vec<Value> =
            rows(world, self.list()).into_iter().filter(|row| self.lets_through(row)).collect();
        let keys = self.keys();
        rows.sort_by(|left, right| {
            keys.iter().fold(Ordering::Equal, |so_far, (key, descending)| {
                let own = in_order(&left[key], &right[key]);
                so_far.then(if *descending { own.reverse() } else { own })
            })
        });
        let total = rows.len();
        let skip = self.offset.map_or(0, |offset| usize::try_from(offset).unwrap_or(0));
        let take =
            self.limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
        let mut rows: Vec<Value> = rows.into_iter().skip(skip).take(take).collect();
        if self.project {
            let known = |name: &String| self.list().fields.iter().any(|(field, _)| field == name);
            for row in &mut rows {
                row.as_object_mut().unwrap().retain(|name, _| known(name));
            }
        }
        (rows, total)
    }
}

/// Nothing comes before everything.
fn in_order(left: &Value, right: &Value) -> Ordering {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => left.as_i64().cmp(&right.as_i64()),
        (Value::String(left), Value::String(right)) => left.cmp(right),
        (Value::Bool(left), Value::Bool(right)) => left.cmp(right),
        (left, right) => right.is_null().cmp(&left.is_null()),
    }
}

/// The text as the field's kind has it.
fn read(kind: Kind, text: &str) -> Value {
    match kind {
        Int | Ints => json!(text.parse::<i64>().unwrap()),
        Text | Texts => json!(text),
        Bool => json!(["true", "on", "yes", "1"].contains(&text.to_lowercase().as_str())),
    }
}

fn holds(own: &Value, kind: Kind, op: &str, values: &[String]) -> bool {
    let values: Vec<Value> = values.iter().map(|text| read(kind, text)).collect();
    let is_one = values.contains(own);
    let compared = |wanted: &[Ordering]| match values.as_slice() {
        [one] if own.is_null() || own.is_array() => {
            let _ = one;
            false
        }
        [one] => wanted.contains(&in_order(own, one)),
        // With several values it is left out.
        _ => true,
    };
    match op {
        "" | "__eq" | "__in" => is_one,
        "__ne" | "__notin" => !is_one,
        "__lt" => compared(&[Ordering::Less]),
        "__le" => compared(&[Ordering::Less, Ordering::Equal]),
        "__gt" => compared(&[Ordering::Greater]),
        "__ge" => compared(&[Ordering::Greater, Ordering::Equal]),
        _ => match own {
            Value::Array(items) => values.iter().any(|value| items.contains(value)),
            Value::String(own) => values.iter().any(|value| own.contains(value.as_str().unwrap())),
            _ => is_one,
        },
    }
}

#[test]
fn any_question_is_answered_as_the_model_answers_it() {
    let world = World::over(|db| db.execute_batch(ROWS).unwrap(), Board::default(), "m");
    let kept = FileFailurePersistence::Direct("tests/proptest-regressions/questions_model.txt");
    let mut runner = TestRunner::new(ProptestConfig {
        cases: 1500,
        failure_persistence: Some(Box::new(kept)),
        ..ProptestConfig::default()
    });
    let result = runner.run(&question(), |question| {
        let path = question.path();
        let answer = world.get(&path);
        prop_assert_eq!(answer.status, 200, "{}: {}", path, answer.body);
        let answer = answer.json();
        let (rows, total) = question.expected(&world);
        let own = &answer[question.list().plural];
        prop_assert_eq!(own, &json!(rows), "{}", path);
        prop_assert_eq!(&answer["meta"], &json!({ "total": total }), "{}", path);
        Ok(())
    });
    result.unwrap();
}
