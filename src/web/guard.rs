//! Who may ask: the names that this server is called by, the pages that may
//! use it, and the name that each request gets.

use std::net::IpAddr;
use std::sync::Arc;

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::StatusCode;
use actix_web::http::header::{HOST, HeaderName, HeaderValue, ORIGIN};
use actix_web::middleware::Next;
use actix_web::web::Data;
use actix_web::{Error, HttpRequest};

use super::answer::ApiError;

/// Which names a request may call this server by when it orders something, and
/// which pages of other servers may use it.
pub struct HostGuard {
    /// Only this machine reaches the port.
    pub only_loopback: bool,
    /// Patterns of origins, in lower case; `*` is any text, `?` any character.
    pub origins: Arc<[String]>,
}

impl HostGuard {
    /// A page of another site can have its own name point to this machine and
    /// then counts as the same origin. Its name still shows in `Host`.
    #[must_use]
    pub fn lets(&self, request: &HttpRequest) -> bool {
        if !self.only_loopback {
            return true;
        }
        let Some(host) = host(request) else {
            return true;
        };
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
            _ => host.as_str(),
        };
        let bare = name.trim_start_matches('[').trim_end_matches(']');
        bare == "localhost"
            || bare.ends_with(".localhost")
            || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }

    fn allows(&self, origin: &str) -> bool {
        self.origins.iter().any(|pattern| fits(pattern.as_bytes(), origin.as_bytes()))
    }
}

/// Whether a text fits a pattern of `*` and `?`.
fn fits(pattern: &[u8], text: &[u8]) -> bool {
    // The place to go on from when what follows the last `*` does not fit.
    let (mut at, mut from, mut again) = (0, 0, None);
    while at < text.len() {
        match pattern.get(from) {
            Some(b'*') => {
                again = Some((from + 1, at));
                from += 1;
            }
            Some(byte) if *byte == b'?' || Some(byte) == text.get(at) => {
                from += 1;
                at += 1;
            }
            _ => match again {
                Some((after, matched)) => {
                    again = Some((after, matched + 1));
                    from = after;
                    at = matched + 1;
                }
                None => return false,
            },
        }
    }
    pattern.get(from..).is_some_and(|rest| rest.iter().all(|byte| *byte == b'*'))
}

/// The name that a request calls this server by.
#[must_use]
pub fn host(request: &HttpRequest) -> Option<String> {
    let value = request.headers().get(HOST)?;
    Some(value.to_str().ok()?.to_ascii_lowercase())
}

/// Lets requests through that come from no page, from a page of this server, or
/// from one that is allowed. Answers the origin, if there is one.
///
/// # Errors
/// When another page sent the request.
pub fn check_origin(request: &HttpRequest) -> Result<Option<HeaderValue>, ApiError> {
    let Some(origin) = request.headers().get(ORIGIN) else {
        return Ok(None);
    };
    let text = origin.to_str().unwrap_or_default().to_ascii_lowercase();
    let own = text.split_once("://").map(|(_, rest)| rest.to_owned());
    let same = own.is_some() && own == host(request);
    let allowed = || request.app_data::<Data<HostGuard>>().is_some_and(|guard| guard.allows(&text));
    match HeaderValue::from_str(&text) {
        Ok(value) if same || allowed() => Ok(Some(value)),
        _ => Err(ApiError::Bad("invalid origin".into())),
    }
}

/// The header with a request's name.
static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longest name that is taken from who asks.
const LONGEST_ID: usize = 64;

/// Gives each request a name, its own if it has a good one, and tells it with
/// the answer. What fails inside is logged with it.
///
/// # Errors
/// Those of the handler.
pub async fn name_request(
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let good = |text: &&str| {
        let byte = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        !text.is_empty() && text.len() <= LONGEST_ID && text.bytes().all(byte)
    };
    let given = request.headers().get(&REQUEST_ID).and_then(|value| value.to_str().ok());
    let id = match given.filter(good) {
        Some(id) => id.to_owned(),
        None => uuid::Uuid::now_v7().simple().to_string(),
    };
    let path = request.path().to_owned();
    let mut response = next.call(request).await?;
    let status = response.status();
    if status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED {
        tracing::warn!(
            request = %id, path = %path, status = status.as_u16(),
            "a request failed"
        );
    }
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID.clone(), value);
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::fits;

    #[test]
    fn a_pattern_fits_as_a_shells_does() {
        for (pattern, text, good) in [
            ("https://ci.example.org", "https://ci.example.org", true),
            ("https://ci.example.org", "https://ci.example.org.evil", false),
            ("https://*.example.org", "https://a.b.example.org", true),
            ("https://*.example.org", "https://example.org", false),
            ("http://localhost:*", "http://localhost:8080", true),
            ("http://h?st", "http://host", true),
            ("*", "anything", true),
            ("a*b*c", "a1b2b3c", true),
            ("a*b*c", "a1b2b3", false),
            ("", "a", false),
        ] {
            assert_eq!(fits(pattern.as_bytes(), text.as_bytes()), good, "{pattern} {text}");
        }
    }
}
