//! Names that come from the master and become paths: held inside the worker's
//! folder, first by their letters and then, link by link, on the disk.

use std::io;
use std::path::{Component, Path, PathBuf};

use crate::protocol::json_v1::{GitArgs, Work};

use super::disk::OWN_FOLDER;

/// Folder that steps work in, below the build's own, unless they name another.
pub const DEFAULT_WORKDIR: &str = "build";

/// Longest path that the master may name, in bytes.
const MAX_PATH: usize = 1024;

/// Whether `path` names something inside the folder it will be joined to.
///
/// # Errors
/// A text for people that names what is wrong with it.
pub fn check_relative(path: &str) -> Result<(), String> {
    if path.is_empty() || path.len() > MAX_PATH {
        return Err(format!("a path has 1 to {MAX_PATH} bytes, this one has {}", path.len()));
    }
    if path.chars().any(char::is_control) {
        return Err(format!("path {path:?} holds a control character"));
    }
    let inside = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
    if !Path::new(path).components().all(inside) {
        return Err(format!(
            "path `{path}` leaves the build's folder: use a relative path without `..`"
        ));
    }
    Ok(())
}

/// The same for a builder's folder, which may not be one of the worker's own.
///
/// # Errors
/// A text for people that names what is wrong with it.
pub fn check_builddir(path: &str) -> Result<(), String> {
    check_relative(path)?;
    let mut parts = Path::new(path).components().filter(|part| *part != Component::CurDir);
    match parts.next() {
        None => Err(format!("path `{path}` is the worker's own folder: name one below it")),
        Some(part) if part.as_os_str().to_string_lossy().starts_with(OWN_FOLDER) => {
            Err(format!("folder `{path}`: names with `{OWN_FOLDER}` are the worker's own"))
        }
        Some(_) => Ok(()),
    }
}

/// Whether a command's arguments can be carried out at all.
///
/// # Errors
/// A text for people that names the argument.
pub fn check_work(work: &Work) -> Result<(), String> {
    let (workdir, env) = match work {
        Work::Shell(args) => {
            match (&args.argv, &args.shell) {
                (Some(argv), None) if argv.first().is_some_and(|program| !program.is_empty()) => {
                    argv.iter().try_for_each(|text| no_nul("argv", text))?;
                }
                (None, Some(line)) => no_nul("shell", line)?,
                _ => return Err("exactly one of `argv` (not empty) and `shell` is needed".into()),
            }
            (&args.workdir, &args.env)
        }
        Work::Git(args) => {
            check_git(args)?;
            (&args.workdir, &args.env)
        }
    };
    if let Some(workdir) = workdir {
        check_relative(workdir).map_err(|message| format!("`workdir`: {message}"))?;
    }
    for (name, value) in env {
        if name.is_empty() || name.contains('=') {
            return Err(format!("`env`: {name:?} is no name of a variable"));
        }
        no_nul("env", name)?;
        no_nul("env", value)?;
    }
    Ok(())
}

/// What begins with `-` would be taken for an option by git.
fn check_git(args: &GitArgs) -> Result<(), String> {
    let named = [
        ("repository", Some(&args.repository)),
        ("branch", args.branch.as_ref()),
        ("revision", args.revision.as_ref()),
    ];
    for (name, value) in named {
        let Some(value) = value else { continue };
        no_nul(name, value)?;
        if value.is_empty() || value.starts_with('-') {
            return Err(format!("`{name}` is empty or begins with `-`: {value:?}"));
        }
    }
    if args.depth == Some(0) {
        return Err("`depth` is at least 1; leave it out for all of the history".into());
    }
    match args.mode.as_str() {
        "clean" | "incremental" => Ok(()),
        other => Err(format!("`mode` is `clean` or `incremental`, not {other:?}")),
    }
}

fn no_nul(name: &str, text: &str) -> Result<(), String> {
    if text.contains('\0') { Err(format!("`{name}` holds a NUL byte")) } else { Ok(()) }
}

/// Makes `path` below `root` part by part and answers with its place. A
/// symbolic link that an earlier build left may not lead out of `root`, which
/// is to be given without links.
///
/// # Errors
/// When the disk refuses, or a link leads outside.
pub fn make_inside(root: &Path, path: &str) -> io::Result<PathBuf> {
    check_relative(path).map_err(|message| io::Error::new(io::ErrorKind::InvalidInput, message))?;
    let mut place = root.to_owned();
    for part in Path::new(path).components() {
        place.push(part);
        let there = match std::fs::symlink_metadata(&place) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                std::fs::create_dir_all(&place)?;
                continue;
            }
            there => there?,
        };
        if there.is_symlink() {
            place = place.canonicalize()?;
            if !place.starts_with(root.canonicalize()?) {
                let message = format!("`{path}` leads out of `{}` by a link", root.display());
                return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
            }
        }
        if !there.is_dir() && !place.is_dir() {
            let message = format!("`{}` is in the way and no folder", place.display());
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, message));
        }
    }
    Ok(place)
}
