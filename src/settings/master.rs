//! The `[master]` part of a configuration, and paths in general.

use std::fs;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use super::load::Overrides;
use super::reader::Section;
use super::types::MasterSettings;

pub(super) const MASTER_KEYS: &[&str] = &[
    "title",
    "data_dir",
    "http",
    "listen",
    "insecure",
    "drain",
    "merge",
    "allowed_origins",
    "ui_dir",
];

/// Takes `.` and `..` out of a path without asking the file system.
fn tidy(path: &Path) -> PathBuf {
    let mut tidied = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir
                if matches!(tidied.components().next_back(), Some(Component::Normal(_))) =>
            {
                tidied.pop();
            }
            other => tidied.push(other),
        }
    }
    if tidied.as_os_str().is_empty() { PathBuf::from(".") } else { tidied }
}

/// The absolute form of a path that is relative to `base`: what a worker in
/// another folder can use.
pub(super) fn absolute(base: &Path, path: &str) -> PathBuf {
    let joined = base.join(path);
    fs::canonicalize(&joined)
        .or_else(|_| std::path::absolute(&joined).map(|path| tidy(&path)))
        .unwrap_or(joined)
}

pub(super) fn read_master(
    section: &Section<'_, '_>,
    base: &Path,
    overrides: &Overrides,
) -> MasterSettings {
    let title = section.text("title").map_or_else(|| "botmaster".to_owned(), |said| said.value);
    let data_dir = match section.text("data_dir") {
        Some(said) if said.value.trim().is_empty() => {
            let fix = "name a folder, for example data_dir = \"data\"";
            section.error(&said.span, "data_dir", "the folder's name is empty", fix);
            PathBuf::new()
        }
        Some(said) => tidy(&base.join(said.value)),
        None => tidy(&base.join("data")),
    };
    let insecure = section.flag("insecure").unwrap_or(false);
    let http = read_address(section, "http", overrides.http, [127, 0, 0, 1], 8010, insecure);
    let listen = read_address(section, "listen", overrides.listen, [127, 0, 0, 1], 9989, insecure);
    if http == listen && http.port() != 0 {
        let span = section.key_span("listen").or_else(|| section.key_span("http"));
        let message = format!("`http` and `listen` are both {http}");
        let fix = "give each a port of its own";
        section.report.error(span.as_ref(), &section.key("listen"), message, fix);
    }
    let ui_dir = section.text("ui_dir").and_then(|said| {
        if said.value.trim().is_empty() {
            let fix = "name the folder that holds Buildbot's pages, or leave the key out";
            section.error(&said.span, "ui_dir", "the folder's name is empty", fix);
            return None;
        }
        Some(tidy(&base.join(said.value)))
    });
    MasterSettings {
        title,
        data_dir: overrides.data_dir.clone().unwrap_or(data_dir),
        http,
        allowed_origins: read_origins(section),
        listen,
        insecure,
        ui_dir: overrides.ui_dir.clone().or(ui_dir),
        drain: section.duration("drain").map_or(Duration::ZERO, |said| said.value),
    }
}

/// Pages of other servers that may use the API.
fn read_origins(section: &Section<'_, '_>) -> Vec<String> {
    let mut origins = Vec::new();
    for said in section.texts("allowed_origins").unwrap_or_default() {
        let origin = said.value.to_lowercase();
        let rest = origin.split_once("://").map_or("", |(_, rest)| rest);
        if origin != "*" && (rest.is_empty() || rest.contains('/')) {
            let message = format!("`{}` is no origin of a page", said.value);
            let fix = "write its scheme, host and port without a path, for example \
                       \"https://ci.example.org\"; `*` stands for any text";
            section.error(&said.span, "allowed_origins", message, fix);
        }
        origins.push(origin);
    }
    origins
}

fn read_address(
    section: &Section<'_, '_>,
    name: &str,
    given: Option<SocketAddr>,
    host: [u8; 4],
    port: u16,
    insecure: bool,
) -> SocketAddr {
    let default = SocketAddr::from((host, port));
    let said = section.text(name);
    let (address, span): (SocketAddr, Option<Range<usize>>) = match (given, said) {
        (Some(address), _) => (address, None),
        (None, Some(said)) => match said.value.parse() {
            Ok(address) => (address, Some(said.span)),
            Err(_) => {
                let message = format!("`{}` is no address with a port", said.value);
                let fix = format!("write numbers, for example \"{default}\" or \"[::1]:{port}\"");
                section.error(&said.span, name, message, fix);
                return default;
            }
        },
        (None, None) => (default, None),
    };
    if address.ip().is_loopback() {
        return address;
    }
    let by = if span.is_some() { String::new() } else { format!(" (from --{name})") };
    if insecure {
        section.report.note(
            span.as_ref(),
            &section.key(name),
            format!("{address}{by} can be reached from other machines, without TLS and sign-in"),
            "put a proxy with TLS and sign-in before it, or listen on 127.0.0.1",
        );
    } else {
        section.report.error(
            span.as_ref(),
            &section.key(name),
            format!(
                "{address}{by} can be reached from other machines, and there is no TLS and no sign-in yet: \
                 whoever reaches it can run programs on your workers"
            ),
            format!("listen on 127.0.0.1:{}, or allow it with insecure = true in [master]", address.port()),
        );
    }
    address
}
