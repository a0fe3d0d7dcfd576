//! The scratch folder of one measurement: configuration, tokens, data, outputs.
//! Removed at the end, unless it is to be kept for a look.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::proc::Guard;

/// A scratch folder.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    keep: bool,
    guard: Guard,
}

impl Scratch {
    /// Makes a new one below the folder for temporary files.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new(name: &str, keep: bool, guard: &Guard) -> Result<Self, String> {
        let path =
            std::env::temp_dir().join(format!("bench-{name}-{}-{}", std::process::id(), hex(4)?));
        fs::create_dir(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        if !keep {
            guard.folder(&path);
        }
        Ok(Self { path, keep, guard: guard.clone() })
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes the configuration and the tokens of a master with so many
    /// builders, each of which may use every worker and runs `true`; gives the
    /// path of the configuration.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn write_configuration(&self, builders: u32, workers: u32) -> Result<PathBuf, String> {
        self.write_layout(&Layout::new(builders, workers))
    }

    /// Writes the configuration and the tokens of a master; gives the path of
    /// the configuration.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn write_layout(&self, layout: &Layout) -> Result<PathBuf, String> {
        let workers = layout.workers;
        let tokens = self.tokens();
        let failed = |error: std::io::Error| format!("{}: {error}", self.path.display());
        fs::create_dir_all(&tokens).map_err(failed)?;
        for index in 0..workers {
            let name = worker_name(index);
            let file = tokens.join(format!("{name}.token"));
            fs::write(&file, format!("{}\n", token(&name)?)).map_err(failed)?;
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).map_err(failed)?;
        }
        let file = self.path.join("bench.toml");
        fs::write(&file, layout.text()).map_err(failed)?;
        Ok(file)
    }

    /// Writes another configuration for a master that knows its tokens.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_again(&self, layout: &Layout) -> Result<(), String> {
        let file = self.path.join("bench.toml");
        // Whole or not at all, whenever it is read.
        let new = self.path.join("bench.toml.new");
        fs::write(&new, layout.text())
            .and_then(|()| fs::rename(&new, &file))
            .map_err(|error| format!("{}: {error}", file.display()))
    }

    /// The master's data folder.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.path.join("data")
    }

    /// The folder with the token files, where the configuration expects them.
    #[must_use]
    pub fn tokens(&self) -> PathBuf {
        self.data().join("tokens")
    }

    /// Copies the data of a master that is not running, to come back to it; what
    /// was kept before is gone.
    ///
    /// # Errors
    /// When it cannot be copied.
    pub fn keep_data(&self) -> Result<(), String> {
        replace(&self.data(), &self.path.join("kept"))
    }

    /// Brings back what was kept.
    ///
    /// # Errors
    /// When it cannot be copied.
    pub fn restore_data(&self) -> Result<(), String> {
        replace(&self.path.join("kept"), &self.data())
    }

    /// Bytes of the databases in the data folder, with their logs: all but what
    /// is only kept free there.
    #[must_use]
    pub fn database_bytes(&self) -> u64 {
        let entries = fs::read_dir(self.data()).into_iter().flatten().filter_map(Result::ok);
        let of_a_database = entries
            .filter(|entry| entry.file_name().to_string_lossy().contains(".sqlite"))
            .filter_map(|entry| entry.metadata().ok());
        of_a_database.map(|data| data.len()).sum()
    }

    /// Bytes of all files in the data folder.
    #[must_use]
    pub fn data_bytes(&self) -> u64 {
        bytes_below(&self.data())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if self.keep {
            crate::report::say(&format!("kept {}", self.path.display()));
        } else {
            let _ = fs::remove_dir_all(&self.path);
            self.guard.no_folder();
        }
    }
}

/// Builders, workers, who may use whom, and what is run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Layout {
    /// How many builders.
    pub builders: u32,
    /// How many workers.
    pub workers: u32,
    /// How many workers a builder lists: builder i those from i times this on,
    /// beginning again after the last.
    pub each: u32,
    /// The one step's program and its arguments.
    pub command: Vec<String>,
    /// Builders that run something else.
    pub commands: BTreeMap<u32, Vec<String>>,
    /// More sections.
    pub more: String,
}

impl Layout {
    /// Each builder may use every worker, and runs `true`.
    #[must_use]
    pub fn new(builders: u32, workers: u32) -> Self {
        let command = words(&["true"]);
        let (commands, more) = (BTreeMap::new(), String::new());
        Self { builders, workers, each: workers, command, commands, more }
    }

    /// With another command for one builder.
    #[must_use]
    pub fn but(mut self, builder: u32, command: &[&str]) -> Self {
        self.commands.insert(builder, words(command));
        self
    }

    /// With more sections.
    #[must_use]
    pub fn with(mut self, more: &str) -> Self {
        self.more.push_str(more);
        self
    }

    /// With another command.
    #[must_use]
    pub fn running(mut self, command: &[&str]) -> Self {
        self.command = words(command);
        self
    }

    /// With so many workers listed by each builder, if there are as many.
    #[must_use]
    pub fn each(mut self, each: u32) -> Self {
        self.each = each.min(self.workers);
        self
    }

    fn text(&self) -> String {
        let mut text = format!("[master]\ntitle = \"bench\"\n{}", self.more);
        // Writing to a String cannot fail.
        for index in 0..self.workers {
            let _ =
                write!(text, "\n[[worker]]\nname = \"{}\"\nmax_builds = 1\n", worker_name(index));
        }
        // A JSON list of plain words is one of TOML's, too.
        let list = |command: &[String]| serde_json::Value::from(command.to_vec());
        let usual = list(&self.command);
        for index in 0..self.builders {
            let listed = (0..self.each).map(|place| {
                let worker = u64::from(index) * u64::from(self.each) + u64::from(place);
                // Smaller than the number of workers.
                worker_name((worker % u64::from(self.workers)) as u32)
            });
            let listed = list(&listed.collect::<Vec<_>>());
            let other = self.commands.get(&index).map(|command| list(command));
            let command = other.as_ref().unwrap_or(&usual);
            let _ = write!(
                text,
                "\n[[builder]]\nname = \"{}\"\nworkers = {listed}\n\n[[builder.step]]\n\
                 name = \"step\"\nrun = {command}\n",
                builder_name(index)
            );
        }
        text
    }
}

fn words(command: &[&str]) -> Vec<String> {
    command.iter().map(|word| (*word).to_owned()).collect()
}

/// Name of the worker with this number.
#[must_use]
pub fn worker_name(index: u32) -> String {
    format!("w{index:05}")
}

/// Name of the builder with this number.
#[must_use]
pub fn builder_name(index: u32) -> String {
    format!("b{index:05}")
}

/// A worker's token in the form that the program accepts.
fn token(name: &str) -> Result<String, String> {
    let text = format!("bmw_{name}_{}", hex(32)?);
    let check = crc32(text.as_bytes());
    Ok(format!("{text}_{check:08x}"))
}

/// So many random bytes as hexadecimal digits.
fn hex(bytes: usize) -> Result<String, String> {
    let mut random = vec![0; bytes];
    fs::File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut random))
        .map_err(|error| format!("/dev/urandom: {error}"))?;
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// CRC-32 as in Ethernet and gzip.
fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg());
        }
    }
    !crc
}

/// Puts a copy of a folder where another one is, all of it on the disk, so that
/// it is not written out while something is measured.
fn replace(from: &Path, to: &Path) -> Result<(), String> {
    let gone = if to.exists() { fs::remove_dir_all(to) } else { Ok(()) };
    gone.and_then(|()| copy(from, to))
        .map_err(|error| format!("{} to {}: {error}", from.display(), to.display()))
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.metadata()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target)?;
            fs::File::open(&target)?.sync_all()?;
        }
    }
    Ok(())
}

fn bytes_below(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    entries
        .filter_map(Result::ok)
        .map(|entry| match entry.metadata() {
            Ok(data) if data.is_dir() => bytes_below(&entry.path()),
            Ok(data) => data.len(),
            Err(_) => 0,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_usual_one() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
        assert_eq!(crc32(b""), 0);
    }

    #[test]
    fn tokens_have_the_form_and_differ() {
        let (one, two) = (token("w00001").unwrap(), token("w00001").unwrap());
        assert_ne!(one, two);
        let parts: Vec<&str> = one.split('_').collect();
        assert_eq!(parts.len(), 4);
        assert_eq!((parts[0], parts[1]), ("bmw", "w00001"));
        assert_eq!((parts[2].len(), parts[3].len()), (64, 8));
    }

    #[test]
    fn a_scratch_folder_holds_all_and_goes_with_its_value() {
        let guard = Guard::start().unwrap();
        let scratch = Scratch::new("test", false, &guard).unwrap();
        let path = scratch.path().to_owned();
        let file = scratch.write_configuration(2, 3).unwrap();
        let text = fs::read_to_string(file).unwrap();
        assert_eq!(text.matches("[[worker]]").count(), 3);
        assert_eq!(text.matches("[[builder]]").count(), 2);
        assert!(text.contains("workers = [\"w00000\",\"w00001\",\"w00002\"]"), "{text}");
        assert!(scratch.tokens().join("w00002.token").exists());
        assert!(scratch.data_bytes() > 200);
        fs::write(scratch.data().join("state.sqlite"), "abc").unwrap();
        fs::write(scratch.data().join("state.sqlite-wal"), "de").unwrap();
        assert_eq!(scratch.database_bytes(), 5);
        let token = scratch.tokens().join("w00002.token");
        scratch.keep_data().unwrap();
        fs::remove_file(&token).unwrap();
        fs::write(scratch.data().join("more"), "x").unwrap();
        scratch.restore_data().unwrap();
        assert!(token.exists() && !scratch.data().join("more").exists());
        drop(scratch);
        assert!(!path.exists());
    }

    #[test]
    fn builders_list_workers_in_turn_and_run_what_they_are_told() {
        let text = Layout::new(3, 4).each(3).running(&["say", "a \"word\""]).text();
        let lists: Vec<&str> =
            text.lines().filter_map(|line| line.strip_prefix("workers = ")).collect();
        assert_eq!(
            lists,
            [
                r#"["w00000","w00001","w00002"]"#,
                r#"["w00003","w00000","w00001"]"#,
                r#"["w00002","w00003","w00000"]"#,
            ]
        );
        assert!(text.contains(r#"run = ["say","a \"word\""]"#), "{text}");
        assert_eq!(Layout::new(1, 2).each(10).each, 2);
        let text = Layout::new(2, 1).but(1, &["false"]).with("[x]\ny = 1\n").text();
        let commands: Vec<&str> =
            text.lines().filter_map(|line| line.strip_prefix("run = ")).collect();
        assert_eq!(commands, [r#"["true"]"#, r#"["false"]"#]);
        assert!(text.contains("[x]\ny = 1\n\n[[worker]]"), "{text}");
    }
}
