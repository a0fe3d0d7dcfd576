//! Where things are: the root of the checkout and the folder that cargo builds
//! into.

use std::path::{Path, PathBuf};

/// The root of the checkout: the folder above this package.
#[must_use]
pub fn root() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package).to_path_buf()
}

/// The folder that cargo builds into: `CARGO_TARGET_DIR`, else `target` below
/// the root.
#[must_use]
pub fn target() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        // A relative one counts from the root, where every cargo that we start
        // runs.
        Some(folder) if !folder.is_empty() => root().join(folder),
        _ => root().join("target"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_holds_the_workspace() {
        let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
        assert!(manifest.contains("[workspace]"));
    }
}
