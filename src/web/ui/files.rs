//! The files of Buildbot's web pages, read once at the start: what is served
//! later cannot lie outside of the folder, and a missing file is told at once.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use actix_web::web::Bytes;
use sha2::{Digest, Sha256};

/// The most bytes of all files together.
const MOST_BYTES: u64 = 64 * 1024 * 1024;
/// The deepest folder below the first one.
const DEEPEST: usize = 6;
/// Where `pip install --target DIR buildbot-www` puts the pages.
const IN_PACKAGE: &str = "buildbot_www/static";

/// Plugins of the pages: their names, and their packages' folders.
const PLUGINS: [(&str, &str); 3] = [
    ("waterfall_view", "buildbot_waterfall_view/static"),
    ("console_view", "buildbot_console_view/static"),
    ("grid_view", "buildbot_grid_view/static"),
];

/// Why a folder cannot be served.
#[derive(Debug, thiserror::Error)]
#[error("{}: {problem}\n    fix: {fix}", .path.display())]
pub struct UiError {
    /// The folder or file.
    pub path: PathBuf,
    /// What is wrong.
    pub problem: String,
    /// What to do.
    pub fix: &'static str,
}

const FIX_LAYOUT: &str = "give the folder that `pip install --no-deps --target DIR buildbot-www \
                          buildbot-waterfall-view buildbot-console-view buildbot-grid-view` \
                          filled, or the one with the index.html";
const FIX_RIGHTS: &str = "let the master's user read it";

/// One file.
#[derive(Clone, Debug)]
pub struct UiFile {
    /// What is in it.
    pub bytes: Bytes,
    /// Its kind, as `Content-Type`.
    pub kind: String,
    /// Changes with its bytes; in quotes.
    pub etag: String,
    /// Its name changes with its bytes.
    pub immutable: bool,
}

/// All files, by the path that a browser asks for.
#[derive(Debug, Default)]
pub struct UiFiles {
    files: BTreeMap<String, UiFile>,
    plugins: Vec<&'static str>,
}

impl UiFiles {
    /// Reads a folder with `index.html`, or one with the packages of the pages
    /// and their plugins in it.
    ///
    /// # Errors
    /// When there is no `index.html`, a file cannot be read, or the folder is
    /// too large to be the pages.
    pub fn read(dir: &Path) -> Result<Self, UiError> {
        let inside = dir.join(IN_PACKAGE);
        let pages = if inside.is_dir() { inside } else { dir.to_path_buf() };
        if !pages.join("index.html").is_file() {
            let problem = format!("there is no index.html, nor {IN_PACKAGE}/index.html");
            return Err(UiError { path: dir.into(), problem, fix: FIX_LAYOUT });
        }
        let mut ui = Self::default();
        let mut left = MOST_BYTES;
        ui.add(&pages, "", DEEPEST, &mut left)?;
        // The packages lie beside each other, wherever the pages were found.
        let beside = match pages.strip_prefix(dir) {
            Ok(below) if below.as_os_str().is_empty() => dir.parent().and_then(Path::parent),
            _ => Some(dir),
        };
        for (name, folder) in PLUGINS {
            let found = beside.map(|beside| beside.join(folder));
            if let Some(found) = found.filter(|found| found.join("scripts.js").is_file()) {
                ui.add(&found, &format!("plugins/{name}/"), DEEPEST, &mut left)?;
            }
            if ui.files.contains_key(&format!("plugins/{name}/scripts.js")) {
                ui.plugins.push(name);
                // The page asks for it, and complains when there is none.
                let styles = format!("plugins/{name}/styles.css");
                let empty = UiFile::new(&styles, Bytes::new());
                ui.files.entry(styles).or_insert(empty);
            }
        }
        Ok(ui)
    }

    fn add(
        &mut self,
        folder: &Path,
        prefix: &str,
        deeper: usize,
        left: &mut u64,
    ) -> Result<(), UiError> {
        let failed = |path: &Path, error: &std::io::Error| UiError {
            path: path.into(),
            problem: error.to_string(),
            fix: FIX_RIGHTS,
        };
        for entry in fs::read_dir(folder).map_err(|error| failed(folder, &error))? {
            let path = entry.map_err(|error| failed(folder, &error))?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            let at = format!("{prefix}{name}");
            let about = fs::metadata(&path).map_err(|error| failed(&path, &error))?;
            if about.is_dir() && deeper > 0 {
                self.add(&path, &format!("{at}/"), deeper - 1, left)?;
            } else if about.is_file() {
                let Some(rest) = left.checked_sub(about.len()) else {
                    let problem =
                        format!("the files come to more than {} MiB", MOST_BYTES / 1024 / 1024);
                    return Err(UiError { path: folder.into(), problem, fix: FIX_LAYOUT });
                };
                *left = rest;
                let bytes = fs::read(&path).map_err(|error| failed(&path, &error))?;
                self.files.insert(at.clone(), UiFile::new(&at, bytes.into()));
            }
        }
        Ok(())
    }

    /// The file for this path, which has no `/` at its begin.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<&UiFile> {
        self.files.get(path)
    }

    /// Names of the plugins that are there.
    #[must_use]
    pub fn plugins(&self) -> &[&'static str] {
        &self.plugins
    }
}

impl UiFile {
    fn new(path: &str, bytes: Bytes) -> Self {
        let mut kind = mime_guess::from_path(path).first_or_octet_stream().to_string();
        if kind.starts_with("text/") {
            kind.push_str("; charset=utf-8");
        }
        let etag = etag(&bytes);
        Self { bytes, kind, etag, immutable: path.starts_with("assets/") }
    }
}

/// A name for these bytes that other bytes do not have, in quotes.
#[must_use]
pub fn etag(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    let mut text = String::from("\"");
    for byte in digest.iter().take(12) {
        text.push_str(&format!("{byte:02x}"));
    }
    text.push('"');
    text
}
