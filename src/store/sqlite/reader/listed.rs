//! Tables that are only shown: their rows come as JSON objects with the fields
//! that the tables below name, and nothing in this program decides by them.

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde_json::{Map, Value};

use super::page::{Page, PageOf, Sql, Table};
use super::{StateReader, StoreError, rows, sql_id};
use crate::core::ids::{BuildId, BuildsetId};

/// A row as JSON.
pub type Shown = Map<String, Value>;

/// What can be listed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Listed {
    /// Projects.
    Projects,
    /// Changes with their source stamps' texts.
    Changes,
    /// Sources of changes.
    ChangeSources,
    /// Schedulers.
    Schedulers,
    /// Data of builds, without the bytes.
    BuildData,
    /// Sets of test results.
    TestResultSets,
    /// Test results.
    TestResults,
    /// Codebases.
    Codebases,
    /// Branches.
    Branches,
    /// Commits.
    Commits,
}

/// Where the lines of two commits part.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fork {
    /// The newest commit before both, which may be one of them.
    pub common: u64,
    /// The commits from there to the first, in order.
    pub first: Vec<u64>,
    /// The commits from there to the second, in order.
    pub second: Vec<u64>,
}

/// Filter for the changes that have a source stamp.
pub const OF_STAMP: &str = ".stamp";

/// Most generations that are looked through for a change's forebears.
const FOREBEARS: u32 = 1000;

use Sql::{Flag, Json, Plain, Time};

static PROJECTS: Table = Table {
    name: "projects",
    shown: None,
    order: "id",
    fields: &[
        ("projectid", Plain("id")),
        ("name", Plain("name")),
        ("slug", Plain("slug")),
        ("active", Flag(PROJECT_ACTIVE, PROJECT_IDLE)),
        ("description", Plain("description")),
        ("description_format", Plain("description_format")),
        ("description_html", Plain("description_html")),
    ],
};

const PROJECT_IDLE: &str = "NOT EXISTS (SELECT 1 FROM builders \
     WHERE builders.project_id = projects.id AND configured = 1)";

const PROJECT_ACTIVE: &str =
    "EXISTS (SELECT 1 FROM builders WHERE builders.project_id = projects.id AND configured = 1)";

static CHANGES: Table = Table {
    name: "changes_shown",
    shown: None,
    // The newest first, unlike everything else.
    order: "id DESC",
    fields: &[
        ("changeid", Plain("id")),
        ("parent_changeids", Json("parents")),
        ("author", Plain("author")),
        ("committer", Plain("committer")),
        ("files", Json("files")),
        ("comments", Plain("comments")),
        ("revision", Plain("revision")),
        ("when_timestamp", Time("at")),
        ("branch", Plain("branch")),
        ("category", Plain("category")),
        ("revlink", Plain("revlink")),
        ("properties", Json("properties")),
        ("repository", Plain("repository")),
        ("project", Plain("project")),
        ("codebase", Plain("codebase")),
        (OF_STAMP, Plain("stamp_id")),
    ],
};

static CHANGE_SOURCES: Table = Table {
    name: "change_sources",
    shown: Some("configured = 1"),
    order: "id",
    fields: &[("changesourceid", Plain("id")), ("name", Plain("name"))],
};

static SCHEDULERS: Table = Table {
    name: "schedulers",
    shown: Some("configured = 1"),
    order: "id",
    fields: &[
        ("schedulerid", Plain("id")),
        ("name", Plain("name")),
        ("enabled", Flag("enabled = 1", "enabled = 0")),
    ],
};

static BUILD_DATA: Table = Table {
    name: "build_data",
    shown: None,
    order: "id",
    fields: &[
        ("buildid", Plain("build_id")),
        ("name", Plain("name")),
        ("length", Plain("length(value)")),
        ("value", Plain("nullif(1, 1)")),
        ("source", Plain("source")),
    ],
};

static TEST_RESULT_SETS: Table = Table {
    name: "test_result_sets",
    shown: None,
    order: "id",
    fields: &[
        ("test_result_setid", Plain("id")),
        ("builderid", Plain("builder_id")),
        ("buildid", Plain("build_id")),
        ("stepid", Plain("step_id")),
        ("description", Plain("description")),
        ("category", Plain("category")),
        ("value_unit", Plain("value_unit")),
        ("tests_passed", Plain("tests_passed")),
        ("tests_failed", Plain("tests_failed")),
        ("complete", Flag("complete = 1", "complete = 0")),
    ],
};

static TEST_RESULTS: Table = Table {
    name: "test_results",
    shown: None,
    order: "id",
    fields: &[
        ("test_resultid", Plain("id")),
        ("builderid", Plain("builder_id")),
        ("test_result_setid", Plain("set_id")),
        ("test_name", Plain("name")),
        ("test_code_path", Plain("code_path")),
        ("line", Plain("line")),
        ("duration_ns", Plain("duration_ns")),
        ("value", Plain("value")),
    ],
};

static CODEBASES: Table = Table {
    name: "codebases",
    shown: None,
    order: "id",
    fields: &[
        ("codebaseid", Plain("id")),
        ("projectid", Plain("project_id")),
        ("name", Plain("name")),
        ("slug", Plain("slug")),
    ],
};

static BRANCHES: Table = Table {
    name: "branches",
    shown: None,
    order: "id",
    fields: &[
        ("branchid", Plain("id")),
        ("codebaseid", Plain("codebase_id")),
        ("name", Plain("name")),
        ("commitid", Plain("commit_id")),
        ("last_timestamp", Time("at")),
    ],
};

static COMMITS: Table = Table {
    name: "commits",
    shown: None,
    order: "id",
    fields: &[
        ("commitid", Plain("id")),
        ("codebaseid", Plain("codebase_id")),
        ("author", Plain("author")),
        ("committer", Plain("committer")),
        ("comments", Plain("comments")),
        ("when_timestamp", Time("at")),
        ("revision", Plain("revision")),
        ("parent_commitid", Plain("parent_id")),
    ],
};

impl Listed {
    fn table(self) -> &'static Table {
        match self {
            Self::Projects => &PROJECTS,
            Self::Changes => &CHANGES,
            Self::ChangeSources => &CHANGE_SOURCES,
            Self::Schedulers => &SCHEDULERS,
            Self::BuildData => &BUILD_DATA,
            Self::TestResultSets => &TEST_RESULT_SETS,
            Self::TestResults => &TEST_RESULTS,
            Self::Codebases => &CODEBASES,
            Self::Branches => &BRANCHES,
            Self::Commits => &COMMITS,
        }
    }
}

impl Table {
    fn select(&self) -> String {
        let columns: Vec<String> = self
            .fields
            .iter()
            .map(|(_, sql)| match sql {
                Plain(text) | Json(text) | Sql::Linked(text, _) => (*text).to_owned(),
                Time(text) => format!("({text} / 1000000)"),
                Flag(yes, _) | Sql::FewNo(yes, _) => format!("({yes})"),
            })
            .collect();
        format!("SELECT {} FROM {}", columns.join(", "), self.name)
    }

    fn shown(&self, row: &Row<'_>) -> rusqlite::Result<Shown> {
        let mut shown = Map::new();
        for (at, (name, sql)) in self.fields.iter().enumerate() {
            let value = match (sql, row.get_ref(at)?) {
                (Flag(..) | Sql::FewNo(..), ValueRef::Integer(number)) => (number != 0).into(),
                (Json(_), ValueRef::Text(_)) => super::super::rows::json(row, at)?,
                (_, ValueRef::Integer(number)) => number.into(),
                (_, ValueRef::Text(text)) => String::from_utf8_lossy(text).into(),
                _ => Value::Null,
            };
            shown.insert((*name).to_owned(), value);
        }
        Ok(shown)
    }
}

impl StateReader {
    /// Rows of a table that is only shown, as JSON. Fields that are no field
    /// of the API begin with a dot.
    ///
    /// # Errors
    /// When the store cannot be read, or the page names an unknown field.
    pub fn listed(&self, of: Listed, page: &Page) -> Result<PageOf<Shown>, StoreError> {
        let table = of.table();
        self.ask(|db| page.read(db, table, &table.select(), &self.0.counts, |row| table.shown(row)))
    }

    /// The bytes of a build's data.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn build_data(&self, build: BuildId, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.ask(|db| {
            db.prepare_cached("SELECT value FROM build_data WHERE build_id = ?1 AND name = ?2")?
                .query_row(params![sql_id(build.0), name], |row| row.get(0))
                .optional()
        })
    }

    /// The changes that a build is the first of its builder to have: those of
    /// its buildset's source stamps and the ones before them, up to those of
    /// the build before.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn changes_of_build(&self, build: BuildId) -> Result<Vec<u64>, StoreError> {
        self.ask(|db| {
            let db = db.unchecked_transaction()?;
            let before: Option<i64> = db
                .prepare_cached(
                    "SELECT max(before.id) FROM builds JOIN builds before \
                     ON before.builder_id = builds.builder_id AND before.number < builds.number \
                     WHERE builds.id = ?1",
                )?
                .query_row([sql_id(build.0)], |row| row.get(0))?;
            let had = match before {
                Some(before) => direct_changes(&db, before)?,
                None => Vec::new(),
            };
            let mut found: Vec<u64> = Vec::new();
            let mut next = direct_changes(&db, sql_id(build.0))?;
            for _ in 0..FOREBEARS {
                next.retain(|change| !had.contains(change) && !found.contains(change));
                if next.is_empty() {
                    break;
                }
                found.append(&mut next.clone());
                next = parents(&db, &next)?;
            }
            Ok(found)
        })
    }

    /// The buildset of a build's first request.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn buildset_of_build(&self, build: BuildId) -> Result<Option<BuildsetId>, StoreError> {
        let sql = "SELECT buildset_id FROM requests WHERE id = \
                   (SELECT request_id FROM builds WHERE id = ?1)";
        self.one(sql, build.0, |row| rows::uint(row, 0).map(BuildsetId))
    }

    /// Where the lines of two commits part. None when they have nothing in
    /// common.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn commit_graph(
        &self,
        codebase: u64,
        first: u64,
        second: u64,
    ) -> Result<Option<Fork>, StoreError> {
        self.ask(|db| {
            let line = |from: u64| forebears(db, codebase, from);
            let (first, second) = (line(first)?, line(second)?);
            let Some(common) = first.iter().find(|commit| second.contains(commit)).copied() else {
                return Ok(None);
            };
            let until = |line: Vec<u64>| {
                let mut new: Vec<u64> =
                    line.into_iter().take_while(|commit| *commit != common).collect();
                new.reverse();
                new
            };
            Ok(Some(Fork { common, first: until(first), second: until(second) }))
        })
    }
}

fn direct_changes(db: &Connection, build: i64) -> rusqlite::Result<Vec<u64>> {
    db.prepare_cached(
        "SELECT DISTINCT changes.id FROM build_requests \
         JOIN requests ON requests.id = build_requests.request_id \
         JOIN buildsets ON buildsets.id = requests.buildset_id \
         JOIN json_each(buildsets.sourcestamps) AS stamp \
         JOIN changes ON changes.stamp_id = stamp.value WHERE build_requests.build_id = ?1",
    )?
    .query_map([build], |row| rows::uint(row, 0))?
    .collect()
}

fn parents(db: &Connection, changes: &[u64]) -> rusqlite::Result<Vec<u64>> {
    let mut found = Vec::new();
    let mut statement = db.prepare_cached("SELECT parents FROM changes WHERE id = ?1")?;
    for change in changes {
        let parents: Option<Vec<u64>> = statement
            .query_row([sql_id(*change)], |row| super::super::rows::json(row, 0))
            .optional()?;
        found.extend(parents.unwrap_or_default());
    }
    Ok(found)
}

/// The commit and those before it, the newest first.
fn forebears(db: &Connection, codebase: u64, from: u64) -> rusqlite::Result<Vec<u64>> {
    db.prepare_cached(
        "WITH RECURSIVE line (id, parent_id, depth) AS (\
         SELECT id, parent_id, 0 FROM commits WHERE codebase_id = ?1 AND id = ?2 \
         UNION ALL SELECT commits.id, commits.parent_id, depth + 1 FROM commits \
         JOIN line ON commits.id = line.parent_id WHERE depth < ?3) SELECT id FROM line",
    )?
    .query_map(params![sql_id(codebase), sql_id(from), FOREBEARS], |row| rows::uint(row, 0))?
    .collect()
}
