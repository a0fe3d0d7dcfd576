//! A page of rows: filters, order and cut as the API names them, to one
//! statement of SQL. Names are looked up in the tables below and never put
//! into the statement themselves; values are always bound.

use rusqlite::types::Value;
use rusqlite::{Connection, Row, params_from_iter};

use super::counts::Counts;
use super::{MAX_COUNT, MAX_ROWS};

/// A value to compare with.
#[derive(Clone, PartialEq, Debug)]
pub enum Scalar {
    /// A number, or a time in whole seconds.
    Int(i64),
    /// Text.
    Text(String),
    /// Yes or no.
    Bool(bool),
}

/// How to compare.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FilterOp {
    /// Is one of the values.
    In,
    /// Is none of the values.
    NotIn,
    /// Less than the one value.
    Lt,
    /// At most the one value.
    Le,
    /// Greater than the one value.
    Gt,
    /// At least the one value.
    Ge,
    /// The text holds one of the values; a number is one of them.
    Contains,
}

/// A condition on one field.
#[derive(Clone, PartialEq, Debug)]
pub struct Filter {
    /// The field, by its name in the API.
    pub field: String,
    /// How.
    pub op: FilterOp,
    /// With what; at least one.
    pub values: Vec<Scalar>,
}

impl Filter {
    /// The field is this number.
    #[must_use]
    pub fn is(field: &str, value: u64) -> Self {
        let value = Scalar::Int(super::sql_id(value));
        Self { field: field.into(), op: FilterOp::In, values: vec![value] }
    }
}

/// What to read of a table.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Page {
    /// All must hold.
    pub filters: Vec<Filter>,
    /// Fields by their names in the API; true means descending.
    pub order: Vec<(String, bool)>,
    /// At most so many rows; never more than [`MAX_ROWS`].
    pub limit: Option<u64>,
    /// Rows to leave out first.
    pub offset: u64,
}

/// What was read.
#[derive(Clone, PartialEq, Debug)]
pub struct PageOf<T> {
    /// The rows.
    pub rows: Vec<T>,
    /// How many rows the filters let through.
    pub total: u64,
    /// There are more than `total`: counting stopped there.
    pub more: bool,
}

/// How one field is written in SQL.
pub(super) enum Sql {
    /// Column or expression.
    Plain(&'static str),
    /// A time in microseconds, shown in seconds.
    Time(&'static str),
    /// Two conditions, for yes and for no.
    Flag(&'static str, &'static str),
    /// The same, where few rows say no and a partial index names just them by
    /// the very words of the second condition.
    FewNo(&'static str, &'static str),
    /// A column, and the ids of the rows to which a value belongs even where
    /// the column has another one: a list, written up to its values.
    Linked(&'static str, &'static str),
    /// A JSON list or object.
    Json(&'static str),
}

pub(super) struct Table {
    pub(super) name: &'static str,
    /// Rows that are shown at all.
    pub(super) shown: Option<&'static str>,
    /// Order without another.
    pub(super) order: &'static str,
    pub(super) fields: &'static [(&'static str, Sql)],
}

use Sql::{FewNo, Flag, Json, Linked, Plain, Time};

pub(super) static BUILDS: Table = Table {
    name: "builds",
    shown: Some("number IS NOT NULL"),
    order: "id",
    fields: &[
        ("buildid", Plain("id")),
        ("number", Plain("number")),
        ("builderid", Plain("builder_id")),
        // A build shows the oldest of its requests, and is found by each.
        (
            "buildrequestid",
            Linked("request_id", "SELECT build_id FROM build_requests WHERE request_id IN"),
        ),
        ("workerid", Plain("worker_id")),
        ("masterid", Plain("abs(1)")),
        ("started_at", Time("started_at")),
        ("complete", FewNo("state = 2", "state < 2")),
        ("complete_at", Time("complete_at")),
        ("locks_duration_s", Plain("abs(0)")),
        ("results", Plain("results")),
        ("state_string", Plain("state_string")),
        // Not fields of a build: the changes that it is for, and the build that
        // asked for it.
        (OF_CHANGE, Linked("abs(0)", BUILDS_OF_CHANGES)),
        (OF_PARENT, Linked("abs(0)", BUILDS_OF_PARENTS)),
    ],
};

/// Filter for the builds of a change: those whose buildset has a source stamp
/// of it.
pub const OF_CHANGE: &str = ".change";

/// Filter for the builds that a build asked for.
pub const OF_PARENT: &str = ".parent";

const BUILDS_OF_CHANGES: &str = "SELECT build_requests.build_id FROM changes \
     JOIN buildset_stamps ON buildset_stamps.stamp_id = changes.stamp_id \
     JOIN requests ON requests.buildset_id = buildset_stamps.buildset_id \
     JOIN build_requests ON build_requests.request_id = requests.id WHERE changes.id IN";

const BUILDS_OF_PARENTS: &str = "SELECT build_requests.build_id FROM buildsets \
     JOIN requests ON requests.buildset_id = buildsets.id \
     JOIN build_requests ON build_requests.request_id = requests.id \
     WHERE buildsets.parent_build IN";

/// Filter for the requests that a build has or had.
pub const OF_BUILD: &str = "buildid";

pub(super) static REQUESTS: Table = Table {
    name: "requests",
    shown: None,
    order: "id",
    fields: &[
        ("buildrequestid", Plain("id")),
        // Not a field of a request: the builds that had it.
        (OF_BUILD, Linked("abs(0)", "SELECT request_id FROM build_requests WHERE build_id IN")),
        ("buildsetid", Plain("buildset_id")),
        ("builderid", Plain("builder_id")),
        ("priority", Plain("priority")),
        ("claimed", FewNo("state > 0", "state = 0")),
        ("claimed_at", Time("coalesce(claimed_at, CASE WHEN state = 3 THEN complete_at END)")),
        ("claimed_by_masterid", Plain("CASE WHEN state > 0 THEN 1 END")),
        ("complete", Flag("state > 1", "state < 2")),
        ("complete_at", Time("complete_at")),
        ("results", Plain("coalesce(results, -1)")),
        ("submitted_at", Time("submitted_at")),
        ("waited_for", Flag("waited_for = 1", "waited_for = 0")),
    ],
};

pub(super) static BUILDSETS: Table = Table {
    name: "buildsets",
    shown: None,
    order: "id",
    fields: &[
        ("bsid", Plain("id")),
        ("external_idstring", Plain("external_id")),
        ("reason", Plain("reason")),
        ("submitted_at", Time("submitted_at")),
        ("complete", Flag("complete_at IS NOT NULL", "complete_at IS NULL")),
        ("complete_at", Time("complete_at")),
        ("results", Plain("coalesce(results, -1)")),
        ("parent_buildid", Plain("parent_build")),
        ("parent_relationship", Plain("parent_relationship")),
        ("rebuilt_buildid", Plain("rebuilt_build")),
    ],
};

pub(super) static STAMPS: Table = Table {
    name: "sourcestamps",
    shown: None,
    order: "id",
    fields: &[
        ("ssid", Plain("id")),
        ("revision", Plain("revision")),
        ("branch", Plain("branch")),
        ("repository", Plain("repository")),
        ("project", Plain("project")),
        ("codebase", Plain("codebase")),
        ("created_at", Time("created_at")),
    ],
};

pub(super) static STEPS: Table = Table {
    name: "steps",
    shown: None,
    order: "number",
    fields: &[
        ("stepid", Plain("id")),
        ("number", Plain("number")),
        ("name", Plain("name")),
        ("buildid", Plain("build_id")),
        ("started_at", Time("started_at")),
        ("locks_acquired_at", Time("coalesce(locks_acquired_at, started_at)")),
        ("complete", Flag("complete_at IS NOT NULL", "complete_at IS NULL")),
        ("complete_at", Time("complete_at")),
        ("results", Plain("results")),
        ("state_string", Plain("state_string")),
        ("hidden", Flag("hidden = 1", "hidden = 0")),
    ],
};

pub(super) static LOGS: Table = Table {
    name: "logs",
    shown: None,
    order: "id",
    fields: &[
        ("logid", Plain("id")),
        ("name", Plain("name")),
        ("slug", Plain("slug")),
        ("stepid", Plain("step_id")),
        ("complete", Flag("complete = 1", "complete = 0")),
        ("num_lines", Plain("num_lines")),
        ("type", Plain("kind")),
    ],
};

pub(super) static NOTES: Table = Table {
    name: "notes",
    shown: None,
    order: "id",
    fields: &[
        ("noteid", Plain("id")),
        ("builderid", Plain("builder_id")),
        ("workerid", Plain("worker_id")),
        ("text", Plain("text")),
        ("error", Plain("error")),
        ("at", Time("at")),
        ("ended_at", Time("ended_at")),
    ],
};

impl Table {
    fn field(&self, name: &str) -> rusqlite::Result<&Sql> {
        let found = self.fields.iter().find(|(field, _)| *field == name);
        found
            .map(|(_, sql)| sql)
            .ok_or_else(|| rusqlite::Error::InvalidColumnName(format!("{name} (of {})", self.name)))
    }

    fn conditions(&self, filters: &[Filter], bound: &mut Vec<Value>) -> rusqlite::Result<String> {
        // The plus sign keeps SQLite from an index of all rows that are shown,
        // where there is one of the few that are asked for.
        let plus = if self.picks_few(filters) { "+" } else { "" };
        let shown = self.shown.iter().map(|text| format!("{plus}{text}"));
        let mut conditions: Vec<String> = shown.collect();
        for filter in filters {
            conditions.push(condition(self.field(&filter.field)?, filter, bound));
        }
        if conditions.is_empty() {
            return Ok(String::new());
        }
        Ok(format!(" WHERE {}", conditions.join(" AND ")))
    }

    /// Whether the conditions let through just the few rows of a partial index.
    fn picks_few(&self, filters: &[Filter]) -> bool {
        filters.iter().any(|filter| {
            let few = |(name, sql): &(&str, Sql)| match sql {
                FewNo(yes, no) => *name == filter.field && flag(yes, no, filter) == *no,
                _ => false,
            };
            self.fields.iter().any(few)
        })
    }

    /// Few rows are fetched by their index and then sorted: the plus sign keeps
    /// SQLite from walking through all rows in the order asked for.
    fn ordered(&self, order: &[(String, bool)], few: bool) -> rusqlite::Result<String> {
        let mut keys = Vec::new();
        let mut last_way = "";
        for (name, descending) in order {
            last_way = if *descending { " DESC" } else { "" };
            let key = match self.field(name)? {
                Plain(sql) | Time(sql) | Linked(sql, _) | Json(sql) => format!("{sql}{last_way}"),
                Flag(yes, _) | FewNo(yes, _) => format!("({yes}){last_way}"),
            };
            keys.push(key);
        }
        if keys.is_empty() {
            keys.push(self.order.into());
        }
        // Rows that are equal so far keep one order from page to page.
        if !keys.iter().any(|key| key == "id" || key == "id DESC") {
            keys.push(format!("id{last_way}"));
        }
        let plus = if few { "+" } else { "" };
        let keys: Vec<String> = keys.iter().map(|key| format!("{plus}{key}")).collect();
        Ok(format!(" ORDER BY {}", keys.join(", ")))
    }
}

fn condition(sql: &Sql, filter: &Filter, bound: &mut Vec<Value>) -> String {
    let text = match sql {
        Plain(text) | Linked(text, _) => (*text).to_owned(),
        Time(column) => match bounds(column, filter) {
            Some(condition) => return condition,
            None => format!("({column} / 1000000)"),
        },
        Flag(yes, no) | FewNo(yes, no) => return flag(yes, no, filter),
        Json(column) => return listed(column, filter, bound),
    };
    let mut bind = |value: &Scalar| {
        bound.push(sql_value(value));
        "?"
    };
    if matches!(filter.op, FilterOp::Contains) {
        let any: Vec<String> = filter
            .values
            .iter()
            .map(|value| match value {
                Scalar::Text(_) => format!("instr({text}, {}) > 0", bind(value)),
                // A number holds no other but itself.
                _ => format!("{text} = {}", bind(value)),
            })
            .collect();
        return format!("({})", any.join(" OR "));
    }
    let marks: Vec<&str> = filter.values.iter().map(&mut bind).collect();
    let marks = marks.join(", ");
    if let (Linked(_, rows), FilterOp::In) = (sql, filter.op) {
        return format!("id IN ({rows} ({marks}))");
    }
    match filter.op {
        FilterOp::In => format!("{text} IN ({marks})"),
        // What has no value is none of the values.
        FilterOp::NotIn => format!("({text} IS NULL OR {text} NOT IN ({marks}))"),
        FilterOp::Lt => format!("{text} < {marks}"),
        FilterOp::Le => format!("{text} <= {marks}"),
        FilterOp::Gt => format!("{text} > {marks}"),
        FilterOp::Ge | FilterOp::Contains => format!("{text} >= {marks}"),
    }
}

/// A condition on a list: only what it contains can be asked for. A value is
/// never the whole list.
fn listed(column: &str, filter: &Filter, bound: &mut Vec<Value>) -> String {
    match filter.op {
        FilterOp::Contains => {
            let marks: Vec<&str> = filter
                .values
                .iter()
                .map(|value| {
                    bound.push(sql_value(value));
                    "?"
                })
                .collect();
            let marks = marks.join(", ");
            format!(
                "EXISTS (SELECT 1 FROM json_each({column}) AS one WHERE one.value IN ({marks}))"
            )
        }
        FilterOp::NotIn => "1".into(),
        _ => "0".into(),
    }
}

fn sql_value(value: &Scalar) -> Value {
    match value {
        Scalar::Int(number) => Value::Integer(*number),
        Scalar::Text(text) => Value::Text(text.clone()),
        Scalar::Bool(yes) => Value::Integer(i64::from(*yes)),
    }
}

/// A condition on a time with the column alone on its side, so that an index
/// on it can be used. The number is written out: it is no text of the asker's.
fn bounds(column: &str, filter: &Filter) -> Option<String> {
    let [Scalar::Int(second)] = filter.values.as_slice() else { return None };
    let begins = |second: i64| second.saturating_mul(1_000_000);
    let (begin, end) = (begins(*second), begins(second.saturating_add(1)));
    Some(match filter.op {
        FilterOp::In => format!("({column} >= {begin} AND {column} < {end})"),
        FilterOp::Lt => format!("{column} < {begin}"),
        FilterOp::Le => format!("{column} < {end}"),
        FilterOp::Gt => format!("{column} >= {end}"),
        FilterOp::Ge => format!("{column} >= {begin}"),
        FilterOp::NotIn | FilterOp::Contains => return None,
    })
}

/// A condition on a yes-or-no field: which of the two it lets through.
fn flag(yes: &str, no: &str, filter: &Filter) -> String {
    let holds = |own: bool| {
        let mut compared = filter.values.iter().map(|value| match value {
            Scalar::Bool(value) => own.cmp(value),
            _ => std::cmp::Ordering::Less,
        });
        match filter.op {
            FilterOp::In | FilterOp::Contains => compared.any(|order| order.is_eq()),
            FilterOp::NotIn => compared.all(|order| order.is_ne()),
            FilterOp::Lt => compared.all(|order| order.is_lt()),
            FilterOp::Le => compared.all(|order| order.is_le()),
            FilterOp::Gt => compared.all(|order| order.is_gt()),
            FilterOp::Ge => compared.all(|order| order.is_ge()),
        }
    };
    match (holds(true), holds(false)) {
        (true, true) => "1".into(),
        (true, false) => yes.into(),
        (false, true) => no.into(),
        (false, false) => "0".into(),
    }
}

impl Page {
    /// Rows of one table that a single filter names.
    #[must_use]
    pub fn of(filter: Filter) -> Self {
        Self { filters: vec![filter], ..Self::default() }
    }

    pub(super) fn read<T>(
        &self,
        db: &Connection,
        table: &Table,
        select: &str,
        counts: &Counts,
        map: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<PageOf<T>> {
        let mut bound = Vec::new();
        let conditions = table.conditions(&self.filters, &mut bound)?;
        let order = table.ordered(&self.order, table.picks_few(&self.filters))?;
        let limit = self.limit.unwrap_or(MAX_ROWS).min(MAX_ROWS);
        let offset = super::sql_id(self.offset);
        let text = format!("{select}{conditions}{order} LIMIT {limit} OFFSET {offset}");
        let rows: Vec<T> = db
            .prepare_cached(&text)?
            .query_map(params_from_iter(&bound), map)?
            .collect::<Result<_, _>>()?;
        let here = u64::try_from(rows.len()).unwrap_or(u64::MAX);
        // A page that is not full ends at the last row, so nothing need be counted.
        if here < limit && (here > 0 || self.offset == 0) {
            return Ok(PageOf { total: self.offset.saturating_add(here), rows, more: false });
        }
        let bound_count = MAX_COUNT.max(self.offset.saturating_add(here));
        let text = format!(
            "SELECT count(*) FROM (SELECT 1 FROM {}{conditions} LIMIT {})",
            table.name,
            bound_count.saturating_add(1)
        );
        let counted = counts.of(&text, &bound, || {
            let row = |row: &Row<'_>| row.get(0);
            let counted: i64 =
                db.prepare_cached(&text)?.query_row(params_from_iter(&bound), row)?;
            Ok(u64::try_from(counted).unwrap_or(0))
        })?;
        // Rows that came since they were counted are there.
        let shown = if here > 0 { self.offset.saturating_add(here) } else { 0 };
        let counted = counted.max(shown);
        Ok(PageOf { rows, total: counted.min(bound_count), more: counted > bound_count })
    }
}

#[cfg(test)]
mod tests;
