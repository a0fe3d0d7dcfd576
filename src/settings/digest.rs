//! The digest that names a factory in the store.

use sha2::{Digest as _, Sha256};

use crate::core::values::Factory;

/// SHA-256, in hexadecimal, over the factory's canonical JSON: objects with
/// sorted keys, no blanks. Equal factories have equal digests, in every version
/// of this program that knows the same fields.
///
/// # Errors
/// When the factory cannot be written as JSON.
pub fn factory_digest(factory: &Factory) -> Result<String, serde_json::Error> {
    // A `Value`'s objects are sorted maps, so a trip through it sorts the keys.
    let canonical = serde_json::to_value(factory)?.to_string();
    let digest = Sha256::digest(canonical.as_bytes());
    Ok(digest.iter().map(|byte| format!("{byte:02x}")).collect())
}
