//! The API described for programs: the Data API's own `application.spec`, and
//! an `OpenAPI` document. Both are written from the table of endpoints and the
//! types of resources, so they cannot say what is not so.

use std::sync::LazyLock;

use serde_json::{Value, json};

use super::answer::{Answer, ApiError};
use super::endpoints::{self, Endpoint, Gives};
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

static DOCUMENT: LazyLock<Value> = LazyLock::new(|| json!({}));

/// The `OpenAPI` document.
#[must_use]
pub fn document() -> &'static Value {
    &DOCUMENT
}
