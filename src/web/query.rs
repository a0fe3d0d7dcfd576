//! Query parameters: projection, order, cut, properties and filters, read
//! against the fields of one kind of resource.

use std::cmp::Ordering;

use serde_json::{Map, Value};

use super::answer::ApiError;
use super::resource::{Kind, Resource};
use crate::store::sqlite::{Filter, FilterOp, Page, Scalar};

/// The most parameters of one request.
const MAX_PARAMETERS: usize = 1000;

/// What a request asks of a resource or a list of them.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Query {
    /// Only these fields; empty for all.
    pub fields: Vec<String>,
    /// Conditions.
    pub filters: Vec<Filter>,
    /// Order; true means descending.
    pub order: Vec<(String, bool)>,
    /// At most so many.
    pub limit: Option<u64>,
    /// Leave out so many first; none when it is not said.
    pub offset: Option<i64>,
    /// Properties to show; `*` for all.
    pub properties: Vec<String>,
}

/// Decodes `%41` once. None when the bytes are no UTF-8.
#[must_use]
pub fn percent_decoded(text: &str, plus_is_space: bool) -> Option<String> {
    let digit = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let pair = (digit(bytes.get(at + 1)), digit(bytes.get(at + 2)));
        match (byte, pair) {
            (b'%', (Some(high), Some(low))) => {
                decoded.push(u8::try_from(high * 16 + low).ok()?);
                at += 2;
            }
            (b'+', _) if plus_is_space => decoded.push(b' '),
            _ => decoded.push(*byte),
        }
        at += 1;
    }
    String::from_utf8(decoded).ok()
}

/// Names and values of a query string, in order.
///
/// # Errors
/// When there are too many, or one is no UTF-8.
pub fn pairs(query: &str) -> Result<Vec<(String, String)>, ApiError> {
    let mut found = Vec::new();
    for part in query.split('&').filter(|part| !part.is_empty()) {
        if found.len() == MAX_PARAMETERS {
            let text = format!("more than {MAX_PARAMETERS} query parameters; ask in parts");
            return Err(ApiError::Bad(text));
        }
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        match (percent_decoded(name, true), percent_decoded(value, true)) {
            (Some(name), Some(value)) => found.push((name, value)),
            _ => return Err(ApiError::Bad("query parameter that is not UTF-8".into())),
        }
    }
    Ok(found)
}

fn scalar(kind: Kind, text: &str) -> Option<Scalar> {
    match kind {
        Kind::Int | Kind::Ints => text.trim().parse().ok().map(Scalar::Int),
        Kind::Text | Kind::Texts => Some(Scalar::Text(text.to_owned())),
        Kind::Bool => match text.to_ascii_lowercase().as_str() {
            "on" | "true" | "yes" | "1" => Some(Scalar::Bool(true)),
            "off" | "false" | "no" | "0" => Some(Scalar::Bool(false)),
            _ => None,
        },
        Kind::Other | Kind::Ours => None,
    }
}

fn operator(word: &str) -> Option<FilterOp> {
    Some(match word {
        "eq" | "in" => FilterOp::In,
        "ne" | "notin" => FilterOp::NotIn,
        "lt" => FilterOp::Lt,
        "le" => FilterOp::Le,
        "gt" => FilterOp::Gt,
        "ge" => FilterOp::Ge,
        "contains" => FilterOp::Contains,
        _ => return None,
    })
}

impl Query {
    /// Reads the parameters of a request for a list (`collection`) or for one
    /// resource.
    ///
    /// # Errors
    /// When one is unknown, does not parse, or does not go with another.
    pub fn read(
        resource: &Resource,
        pairs: &[(String, String)],
        collection: bool,
    ) -> Result<Self, ApiError> {
        let mut query = Self::default();
        let known = |name: &str| match resource.kind(name) {
            Some(_) => Ok(()),
            None => Err(ApiError::Bad(format!("no such field '{name}'"))),
        };
        for (name, value) in pairs {
            match name.as_str() {
                "field" => {
                    known(value)?;
                    query.fields.push(value.clone());
                }
                "order" => {
                    let (key, descending) = match value.strip_prefix('-') {
                        Some(key) => (key, true),
                        None => (value.as_str(), false),
                    };
                    known(key)?;
                    query.order.push((key.to_owned(), descending));
                }
                "limit" => {
                    let limit: i64 =
                        value.parse().map_err(|_| ApiError::Bad("invalid limit".into()))?;
                    // A negative limit is no limit.
                    query.limit = query.limit.or(u64::try_from(limit).ok());
                }
                "offset" => {
                    let offset: i64 =
                        value.parse().map_err(|_| ApiError::Bad("invalid offset".into()))?;
                    query.offset = query.offset.or(Some(offset));
                }
                "property" => query.properties.push(value.clone()),
                _ => query.add_filter(resource, name, value)?,
            }
        }
        // A comparison with several values is left out.
        query.filters.retain(|filter| {
            filter.values.len() == 1
                || matches!(filter.op, FilterOp::In | FilterOp::NotIn | FilterOp::Contains)
        });
        if !collection && !query.filters.is_empty() {
            return Err(ApiError::Bad("this is not a collection".into()));
        }
        query.check_selected()?;
        Ok(query)
    }

    fn add_filter(&mut self, resource: &Resource, name: &str, value: &str) -> Result<(), ApiError> {
        let (field, op) = match (resource.kind(name), name.rsplit_once("__")) {
            (Some(_), _) => (name, FilterOp::In),
            (None, Some((field, word))) => match operator(word) {
                Some(op) => (field, op),
                None => return Ok(()),
            },
            (None, None) => {
                return Err(ApiError::Bad(format!("unrecognized query parameter '{name}'")));
            }
        };
        let Some(kind) = resource.kind(field) else {
            return Ok(());
        };
        // A number is compared with numbers, even by `contains`.
        let value = scalar(kind, value)
            .ok_or_else(|| ApiError::Bad(format!("invalid filter value for {name}")))?;
        let same = |filter: &&mut Filter| filter.field == field && filter.op == op;
        match self.filters.iter_mut().find(same) {
            Some(filter) => filter.values.push(value),
            None => self.filters.push(Filter { field: field.into(), op, values: vec![value] }),
        }
        Ok(())
    }

    fn check_selected(&self) -> Result<(), ApiError> {
        if self.fields.is_empty() {
            return Ok(());
        }
        if self.order.iter().any(|(key, _)| !self.fields.contains(key)) {
            return Err(ApiError::Bad("cannot order on un-selected fields".into()));
        }
        if self.filters.iter().any(|filter| !self.fields.contains(&filter.field)) {
            return Err(ApiError::Bad("cannot filter on un-selected fields".into()));
        }
        Ok(())
    }

    /// The rows left out first.
    #[must_use]
    pub fn skipped(&self) -> u64 {
        self.offset.and_then(|offset| u64::try_from(offset).ok()).unwrap_or(0)
    }

    /// The same for the store, with filters that the path implies.
    ///
    /// # Errors
    /// When the order is by something that has no order.
    pub fn page(&self, resource: &Resource, implied: Vec<Filter>) -> Result<Page, ApiError> {
        if let Some((key, _)) =
            self.order.iter().find(|(key, _)| resource.kind(key) == Some(Kind::Other))
        {
            return Err(ApiError::Bad(format!("cannot order on '{key}'")));
        }
        let mut filters = implied;
        filters.extend(self.filters.iter().cloned());
        Ok(Page { filters, order: self.order.clone(), limit: self.limit, offset: self.skipped() })
    }

    /// Filters, orders and cuts resources that are all at hand. Answers them
    /// with their number before the cut.
    #[must_use]
    pub fn apply(&self, items: Vec<Value>) -> (Vec<Value>, u64) {
        let mut items: Vec<Value> = items
            .into_iter()
            .filter(|item| self.filters.iter().all(|filter| holds(filter, item)))
            .collect();
        items.sort_by(|left, right| {
            let mut order = Ordering::Equal;
            for (key, descending) in &self.order {
                let by_key = compared(left.get(key), right.get(key));
                order = order.then(if *descending { by_key.reverse() } else { by_key });
            }
            order
        });
        let total = u64::try_from(items.len()).unwrap_or(u64::MAX);
        let skip = usize::try_from(self.skipped()).unwrap_or(usize::MAX);
        let take = self.limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
        (items.into_iter().skip(skip).take(take).collect(), total)
    }

    /// Only the fields asked for.
    #[must_use]
    pub fn projected(&self, item: Value) -> Value {
        match item {
            Value::Object(all) if !self.fields.is_empty() => Value::Object(
                all.into_iter().filter(|(key, _)| self.fields.contains(key)).collect::<Map<_, _>>(),
            ),
            other => other,
        }
    }

    /// Whether the property is asked for.
    #[must_use]
    pub fn wants_property(&self, name: &str) -> bool {
        self.properties.iter().any(|wanted| wanted == name || wanted == "*")
    }
}

fn compared(left: Option<&Value>, right: Option<&Value>) -> Ordering {
    match (left, right) {
        (Some(Value::Number(left)), Some(Value::Number(right))) => {
            left.as_i64().cmp(&right.as_i64())
        }
        (Some(Value::String(left)), Some(Value::String(right))) => left.cmp(right),
        (Some(Value::Bool(left)), Some(Value::Bool(right))) => left.cmp(right),
        (Some(Value::Array(left)), Some(Value::Array(right))) => left
            .iter()
            .zip(right)
            .map(|(left, right)| compared(Some(left), Some(right)))
            .find(|order| order.is_ne())
            .unwrap_or(left.len().cmp(&right.len())),
        (left, right) => rank(left).cmp(&rank(right)),
    }
}

/// Nothing sorts before everything.
fn rank(value: Option<&Value>) -> u8 {
    u8::from(!matches!(value, None | Some(Value::Null)))
}

fn with_scalar(value: &Value, scalar: &Scalar) -> Option<Ordering> {
    match (value, scalar) {
        (Value::Number(own), Scalar::Int(given)) => own.as_i64().map(|own| own.cmp(given)),
        (Value::String(own), Scalar::Text(given)) => Some(own.cmp(given)),
        (Value::Bool(own), Scalar::Bool(given)) => Some(own.cmp(given)),
        _ => None,
    }
}

fn holds(filter: &Filter, item: &Value) -> bool {
    let own = item.get(&filter.field).unwrap_or(&Value::Null);
    let all = |test: fn(Ordering) -> bool| {
        filter.values.iter().all(|value| with_scalar(own, value).is_some_and(test))
    };
    let is_one =
        || filter.values.iter().any(|value| with_scalar(own, value).is_some_and(Ordering::is_eq));
    match filter.op {
        FilterOp::In => is_one(),
        FilterOp::NotIn => !is_one(),
        FilterOp::Lt => all(Ordering::is_lt),
        FilterOp::Le => all(Ordering::is_le),
        FilterOp::Gt => all(Ordering::is_gt),
        FilterOp::Ge => all(Ordering::is_ge),
        FilterOp::Contains => filter.values.iter().any(|value| contains(own, value)),
    }
}

fn contains(own: &Value, wanted: &Scalar) -> bool {
    match (own, wanted) {
        (Value::Array(items), wanted) => {
            items.iter().any(|item| with_scalar(item, wanted).is_some_and(Ordering::is_eq))
        }
        (Value::String(own), Scalar::Text(wanted)) => own.contains(wanted.as_str()),
        (own, wanted) => with_scalar(own, wanted).is_some_and(Ordering::is_eq),
    }
}
