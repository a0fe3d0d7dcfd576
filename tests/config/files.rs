//! The files of `config/`, and files that cannot be read at all.

use std::fs;
use std::path::{Path, PathBuf};

use botmaster::core::values::StepKind;
use botmaster::settings::load;

use crate::joined;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn every_file_in_config_is_good() {
    let mut found = 0;
    for entry in fs::read_dir(root().join("config")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|end| end == "toml") {
            found += 1;
            if let Err(problems) = load(&path) {
                panic!("{}", joined(&problems));
            }
        }
    }
    assert!(found >= 2, "config/ has {found} files");
}

#[test]
fn the_default_configuration_keeps_to_the_checkout() {
    let loaded = load(&root().join("config/botmaster.toml")).unwrap();
    let settings = loaded.settings;
    assert_eq!(loaded.notes, []);
    assert_eq!(settings.master.data_dir, root().join("data"));
    assert_eq!(settings.builders.len(), 1);
    let builder = &settings.builders[0];
    assert_eq!(settings.up.builder.as_ref(), Some(&builder.name));
    assert_eq!(settings.up.worker.as_ref(), builder.workers.first());
    assert_eq!(builder.env["CARGO_TARGET_DIR"], "target");
    let StepKind::Git { repository, .. } = &builder.factory.steps[0].kind else {
        panic!("the first step brings the source");
    };
    assert_eq!(Path::new(repository), fs::canonicalize(root()).unwrap());
    assert!(builder.factory.steps[0].halt_on_failure);
    assert_eq!(settings.token_path(&settings.workers[0]), root().join("data/tokens/local.token"));
}

#[test]
fn a_path_seen_from_the_working_folder_stays_short() {
    // Tests run in the root of the package.
    let loaded = load(Path::new("config/botmaster.toml")).unwrap();
    assert_eq!(loaded.settings.master.data_dir, Path::new("data"));
}

fn fault_of(path: &Path) -> String {
    joined(&load(path).unwrap_err()).replace(&path.display().to_string(), "FILE")
}

#[test]
fn files_that_are_none_say_so() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(
        fault_of(&dir.path().join("none.toml")),
        "FILE: there is no such file\n    fix: give the right file with --config, or make one with `botmaster init DIR`"
    );
    assert_eq!(
        fault_of(dir.path()),
        "FILE: this is a folder, not a file\n    fix: give the file itself, for example with --config DIR/botmaster.toml"
    );
    let path = dir.path().join("x.toml");
    for empty in ["", "\n\n", "# nothing but words\n"] {
        fs::write(&path, empty).unwrap();
        assert_eq!(
            fault_of(&path),
            "FILE: there is nothing in the file\n    fix: `botmaster init DIR` writes a configuration to start from"
        );
    }
    fs::write(&path, b"[master]\ntitle = \"\xff\"\n").unwrap();
    assert_eq!(fault_of(&path), "FILE:2: the file is not UTF-8 text\n    fix: save it as UTF-8");
}

#[test]
fn an_unreadable_file_says_so() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.toml");
    fs::write(&path, "[master]\n").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o0)).unwrap();
    if nix::unistd::geteuid().is_root() {
        // Root reads everything, so for root the file is good.
        assert!(load(&path).is_ok());
        return;
    }
    assert_eq!(
        fault_of(&path),
        "FILE: the file cannot be read: permission denied\n    fix: make it readable for the user that runs this program"
    );
}
