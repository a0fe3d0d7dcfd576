//! Answers: the envelope, its two ways of being written, and errors.

use std::fmt::Write;

use actix_web::http::StatusCode;
use actix_web::http::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderValue, IF_NONE_MATCH,
};
use actix_web::{HttpRequest, HttpResponse};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::store::StoreError;

/// Why a question has no answer.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum ApiError {
    /// Something about the question is wrong.
    #[error("{0}")]
    Bad(String),
    /// There is no such path.
    #[error("Invalid path: {0}")]
    NoPath(String),
    /// The path is known, the row is not.
    #[error("not found while getting from the store: there is no {0}")]
    NoRow(String),
    /// The store did not answer.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// Something that must not happen did.
    #[error("{0}")]
    Inside(String),
}

impl ApiError {
    /// The HTTP status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Bad(_) => StatusCode::BAD_REQUEST,
            Self::NoPath(_) | Self::NoRow(_) => StatusCode::NOT_FOUND,
            // Too much at once, or too long: worth another try.
            Self::Store(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Inside(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// As an answer to a reading request.
    #[must_use]
    pub fn response(&self) -> HttpResponse {
        plain_error(self.status(), &json!(self.to_string()))
    }
}

/// An error in the shape of the reading half of the API.
#[must_use]
pub fn plain_error(status: StatusCode, error: &Value) -> HttpResponse {
    HttpResponse::build(status)
        .insert_header((CONTENT_TYPE, "text/plain; charset=utf-8"))
        .body(json!({ "error": error }).to_string())
}

/// The resources of an answer.
#[derive(Clone, PartialEq, Debug)]
pub enum Items {
    /// As values.
    Values(Vec<Value>),
    /// Written already, one after the other with commas between: lists are
    /// asked for most, and are long.
    Written(String),
}

/// Resources in their envelope.
#[derive(Clone, PartialEq, Debug)]
pub struct Answer {
    /// Plural name of their kind.
    pub plural: &'static str,
    /// The resources.
    pub items: Items,
    /// How many there are in all, for a list.
    pub total: Option<u64>,
    /// `total` is only a lower bound.
    pub more: bool,
}

impl Answer {
    /// One resource.
    #[must_use]
    pub fn single(plural: &'static str, item: Value) -> Self {
        Self { plural, items: Items::Values(vec![item]), total: None, more: false }
    }

    fn meta(&self) -> Value {
        let mut meta = Map::new();
        if let Some(total) = self.total {
            meta.insert("total".into(), total.into());
            if self.more {
                meta.insert("total_is_lower_bound".into(), true.into());
            }
        }
        Value::Object(meta)
    }

    /// The envelope.
    ///
    /// # Errors
    /// When what was written is no JSON, which does not happen.
    pub fn into_json(self) -> Result<Value, ApiError> {
        let mut envelope = Map::new();
        envelope.insert("meta".into(), self.meta());
        let items = match self.items {
            Items::Values(values) => values,
            Items::Written(text) => serde_json::from_str(&format!("[{text}]"))
                .map_err(|error| ApiError::Inside(error.to_string()))?,
        };
        envelope.insert(self.plural.into(), Value::Array(items));
        Ok(Value::Object(envelope))
    }

    /// The envelope, written for programs.
    #[must_use]
    pub fn into_text(self) -> String {
        let (meta, plural) = (self.meta(), self.plural);
        match self.items {
            Items::Values(values) => {
                format!("{{\"{plural}\":{},\"meta\":{meta}}}", Value::Array(values))
            }
            Items::Written(text) => format!("{{\"{plural}\":[{text}],\"meta\":{meta}}}"),
        }
    }
}

/// What is told: an envelope, or an object of our own.
#[derive(Clone, PartialEq, Debug)]
pub enum Told {
    /// Resources.
    Answer(Answer),
    /// Any value.
    Value(Value),
}

/// Writes what can change.
///
/// # Errors
/// As [`Answer::into_json`].
pub fn told_response(request: &HttpRequest, told: Told) -> Result<HttpResponse, ApiError> {
    match told {
        Told::Answer(answer) if accepts_json(request) => Ok(json_text(answer.into_text())),
        Told::Answer(answer) => Ok(json_response(request, &answer.into_json()?)),
        Told::Value(value) => Ok(json_response(request, &value)),
    }
}

fn accepts_json(request: &HttpRequest) -> bool {
    let mut values = request.headers().get_all(ACCEPT);
    values.any(|value| value.to_str().is_ok_and(|text| text.contains("application/json")))
}

fn json_text(text: String) -> HttpResponse {
    HttpResponse::Ok().insert_header((CONTENT_TYPE, "application/json; charset=utf-8")).body(text)
}

/// Writes JSON that stays as it is, with a mark to ask by: who has it already
/// is told only that.
#[must_use]
pub fn finished_response(request: &HttpRequest, value: &Value) -> HttpResponse {
    let digest = Sha256::digest(value.to_string().as_bytes());
    let mut hex = String::with_capacity(32);
    for byte in digest.iter().take(16) {
        // Writing to a string cannot fail.
        let _ = write!(hex, "{byte:02x}");
    }
    // Weak: what is sent may be compressed, or indented.
    let mark = format!("W/\"{hex}\"");
    let mut response = match is_known(&known_marks(request), &mark) {
        true => HttpResponse::NotModified().finish(),
        false => json_response(request, value),
    };
    put_mark(&mut response, &mark);
    response
}

/// The marks of what the asker has already.
#[must_use]
pub fn known_marks(request: &HttpRequest) -> Vec<String> {
    let values = request.headers().get_all(IF_NONE_MATCH);
    let texts = values.filter_map(|value| value.to_str().ok());
    texts.flat_map(|text| text.split(',')).map(|one| one.trim().to_owned()).collect()
}

/// Whether what has this mark is among them.
#[must_use]
pub fn is_known(known: &[String], mark: &str) -> bool {
    known.iter().any(|one| one == mark || one == "*")
}

/// Tells the mark of what stays as it is. It may be kept, but is asked for anew.
pub fn put_mark(response: &mut HttpResponse, mark: &str) {
    let headers = response.headers_mut();
    if let Ok(mark) = HeaderValue::from_str(mark) {
        headers.insert(ETAG, mark);
    }
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
}

/// Writes JSON: compact for programs that ask for JSON, indented as text for
/// everybody else.
#[must_use]
pub fn json_response(request: &HttpRequest, value: &Value) -> HttpResponse {
    if accepts_json(request) {
        json_text(value.to_string())
    } else {
        HttpResponse::Ok()
            .insert_header((CONTENT_TYPE, "text/plain; charset=utf-8"))
            .body(format!("{value:#}"))
    }
}
