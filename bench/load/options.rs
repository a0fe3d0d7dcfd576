//! What the load process is told.

use std::path::{Path, PathBuf};

/// How to call the program.
pub const USAGE: &str = "\
Hosts many workers in one process, each with its own connection, for measuring
a master. Their commands start no process.

usage: load_workers --master HOST:PORT --count N --tokens DIR
                    [--first I] [--exec-log FILE] [--log-mb N] [--max-seconds S]

  --master HOST:PORT   where the master listens for workers
  --count N            how many workers, w00000 and up
  --first I            number of the first (0)
  --tokens DIR         folder with a file NAME.token for each worker
  --exec-log FILE      where `bench-job SECS TOKEN` appends when it starts and ends;
                       the TOKEN `@request` stands for the id of the request
  --log-mb N           prepares N MB of text before it connects: what the command
                       `bench-log` writes (0)
  --max-seconds S      ends after so many seconds (1800)";

/// What the load process is told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// Where the master listens for workers.
    pub master: String,
    /// How many workers.
    pub count: u32,
    /// Number of the first.
    pub first: u32,
    /// Folder with a file `NAME.token` for each worker.
    pub tokens: PathBuf,
    /// Where `bench-job` writes.
    pub exec_log: Option<PathBuf>,
    /// Megabytes that `bench-log` writes.
    pub log_mb: u64,
    /// When to end, in seconds.
    pub max_seconds: u64,
}

impl Options {
    /// Reads the arguments; none when help was asked for.
    ///
    /// # Errors
    /// Names what is missing or wrong.
    pub fn parse(arguments: impl Iterator<Item = String>) -> Result<Option<Self>, String> {
        let mut arguments = arguments;
        let (mut master, mut count, mut tokens, mut exec_log) = (None, None, None, None);
        let (mut first, mut max_seconds, mut log_mb) = (0, 1800, 0);
        while let Some(name) = arguments.next() {
            if name == "--help" || name == "-h" {
                return Ok(None);
            }
            let mut value = || arguments.next().ok_or(format!("{name} needs a value"));
            match name.as_str() {
                "--master" => master = Some(value()?),
                "--count" => count = Some(number(&name, &value()?)?),
                "--first" => first = number(&name, &value()?)?,
                "--tokens" => tokens = Some(PathBuf::from(value()?)),
                "--exec-log" => exec_log = Some(PathBuf::from(value()?)),
                "--log-mb" => log_mb = number(&name, &value()?)?,
                "--max-seconds" => max_seconds = number(&name, &value()?)?,
                _ => return Err(format!("`{name}` is not known")),
            }
        }
        Ok(Some(Self {
            master: master.ok_or("--master is missing")?,
            count: count.ok_or("--count is missing")?,
            first,
            tokens: tokens.ok_or("--tokens is missing")?,
            exec_log,
            log_mb,
            max_seconds,
        }))
    }

    /// The token of one worker: the first line of its file.
    ///
    /// # Errors
    /// Names the file that cannot be read or is empty.
    pub fn token(&self, name: &str) -> Result<String, String> {
        first_line(&self.tokens.join(format!("{name}.token")))
    }
}

fn number<T: std::str::FromStr>(name: &str, text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{name} needs a whole number, not `{text}`"))
}

fn first_line(path: &Path) -> Result<String, String> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("cannot read the token file {}: {error}", path.display()))?;
    let line = text.lines().map(str::trim).find(|line| !line.is_empty());
    line.map(str::to_owned).ok_or(format!("the token file {} is empty", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Option<Options>, String> {
        Options::parse(text.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn arguments_are_read() {
        let options =
            parse("--master 127.0.0.1:9 --count 3 --first 7 --tokens t --max-seconds 5").unwrap();
        assert_eq!(
            options,
            Some(Options {
                master: "127.0.0.1:9".into(),
                count: 3,
                first: 7,
                tokens: "t".into(),
                exec_log: None,
                log_mb: 0,
                max_seconds: 5
            })
        );
        assert_eq!(parse("--help"), Ok(None));
    }

    #[test]
    fn wrong_arguments_are_named() {
        let problem = |text: &str| parse(text).unwrap_err();
        assert_eq!(problem("--count 1 --tokens t"), "--master is missing");
        assert_eq!(problem("--count many"), "--count needs a whole number, not `many`");
        assert_eq!(problem("--count"), "--count needs a value");
        assert_eq!(problem("--workers 1"), "`--workers` is not known");
        let options = parse("--master a:1 --count 1 --tokens /nowhere").unwrap().unwrap();
        assert!(options.token("w00000").unwrap_err().contains("/nowhere/w00000.token"));
    }
}
