//! Worker tokens: their form, their files, and the book that verifies them.
//!
//! A token is `bmw_ID_SECRET_CHECK`: `ID` names what it was made for, `SECRET`
//! is 256 random bits in hexadecimal, `CHECK` is the CRC-32 of everything before
//! its underscore, so that a token cut short while copying is told apart from a
//! wrong one. With that much chance in it a token needs no slow password hash.
//!
//! What is deliberately absent: tokens in clear in the master's long-lived
//! memory. The [`TokenBook`] keeps a keyed digest of each.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use hmac::{Hmac, KeyInit as _, Mac as _};
use rand::RngExt as _;
use sha2::Sha256;
use subtle::{Choice, ConstantTimeEq as _};

use super::secret::Secret;
use super::types::{Problem, Settings, WorkerSettings};

/// Most tokens that one worker may have at a time: two while one is rotated.
pub const MOST_TOKENS: usize = 2;

/// Longest token file that is read, in bytes.
const LONGEST_FILE: u64 = 16 * 1024;

/// Why a text is no token. None of these shows the text.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TokenError {
    /// Not `bmw_ID_SECRET_CHECK`.
    #[error("it has not the form bmw_ID_SECRET_CHECK")]
    Form,
    /// The secret is not 64 hexadecimal digits.
    #[error("its secret is not 64 lower-case hexadecimal digits")]
    Secret,
    /// Something was changed or cut off.
    #[error("its check digits do not fit: a part of it is missing or was changed")]
    Check,
}

/// One worker token. It prints as `bmw_ID_***`.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    id: String,
    text: Secret,
}

impl Token {
    /// Reads a token's text.
    ///
    /// # Errors
    /// When the form, the secret or the check digits are wrong.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let (before, check) = text.rsplit_once('_').ok_or(TokenError::Form)?;
        let (head, secret) = before.rsplit_once('_').ok_or(TokenError::Form)?;
        let id = head.strip_prefix("bmw_").ok_or(TokenError::Form)?;
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if id.is_empty() || id.len() > 200 || !id.chars().all(plain) {
            return Err(TokenError::Form);
        }
        let hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
        if secret.len() != 64 || !secret.chars().all(hex) {
            return Err(TokenError::Secret);
        }
        if check != format!("{:08x}", crc32fast::hash(before.as_bytes())) {
            return Err(TokenError::Check);
        }
        Ok(Self { id: id.to_owned(), text: Secret::new(text.to_owned()) })
    }

    /// What it was made for: the worker's name when this program made it.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its text: for the wire and for files, never for people.
    #[must_use]
    pub fn reveal(&self) -> &str {
        self.text.reveal()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bmw_{}_***", self.id)
    }
}

/// Makes a token for a worker.
///
/// # Errors
/// When `name` cannot be a worker's name.
pub fn generate(name: &str) -> Result<Token, TokenError> {
    let secret: [u8; 32] = rand::rng().random();
    let mut text = format!("bmw_{name}_");
    for byte in secret {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    let check = crc32fast::hash(text.as_bytes());
    let _ = write!(text, "_{check:08x}");
    Token::parse(&text)
}

/// Makes a token for `name` and writes it to a new file that only its owner can
/// read, with its folder when that is missing.
///
/// # Errors
/// When the file exists, cannot be written, or `name` cannot be a worker's name.
pub fn write_new_token_file(path: &Path, name: &str) -> io::Result<Token> {
    let token = generate(name).map_err(io::Error::other)?;
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(format!("{}\n", token.reveal()).as_bytes())?;
    file.sync_all()?;
    Ok(token)
}

/// Why a token file cannot be used. Each names the file; none shows a token.
#[derive(Debug, thiserror::Error)]
pub enum TokenFileError {
    /// There is none.
    #[error("there is no token file {}", .0.display())]
    Missing(PathBuf),
    /// It cannot be read.
    #[error("cannot read the token file {}: {error}", .path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// It is far too long to be one.
    #[error("the token file {} is longer than 16 KiB: it is no token file", .0.display())]
    TooLong(PathBuf),
    /// It holds no token.
    #[error("the token file {} is empty", .0.display())]
    Empty(PathBuf),
    /// It holds more than [`MOST_TOKENS`].
    #[error("the token file {} has {count} tokens; two are the most", .path.display())]
    TooMany {
        /// Which.
        path: PathBuf,
        /// How many.
        count: usize,
    },
    /// A line is no token.
    #[error("{}:{line}: this is no token: {error}", .path.display())]
    Bad {
        /// Which.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// Why.
        error: TokenError,
    },
}

impl TokenFileError {
    /// What to do about it, for the file of `worker` in the configuration `file`.
    #[must_use]
    pub fn fix(&self, worker: &str, file: &Path) -> String {
        let file = file.display();
        match self {
            Self::Missing(_) => {
                return format!(
                    "`botmaster token {worker} --config {file}` makes it; `botmaster up` makes the one of its own worker"
                );
            }
            Self::TooLong(_) | Self::Empty(_) => {
                return format!("delete the file, then `botmaster token {worker} --config {file}` makes a new one");
            }
            Self::Unreadable { .. } => "make it readable for the user that runs this program",
            Self::TooMany { .. } => "delete the tokens that are no longer in use",
            Self::Bad { .. } => "copy the whole token again, one on a line, nothing else on it",
        }
        .to_owned()
    }
}

/// Reads a token file: one token a line; empty lines and lines that begin with
/// `#` do not count.
///
/// # Errors
/// When the file is missing, unreadable, empty, or has a bad or a third token.
pub fn read_token_file(path: &Path) -> Result<Vec<Token>, TokenFileError> {
    let unreadable = |error| TokenFileError::Unreadable { path: path.to_owned(), error };
    let file = fs::File::open(path).map_err(|error| {
        if error.kind() == io::ErrorKind::NotFound {
            TokenFileError::Missing(path.to_owned())
        } else {
            unreadable(error)
        }
    })?;
    let mut text = String::new();
    file.take(LONGEST_FILE + 1).read_to_string(&mut text).map_err(unreadable)?;
    if text.len() as u64 > LONGEST_FILE {
        return Err(TokenFileError::TooLong(path.to_owned()));
    }
    let mut tokens = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let token = Token::parse(line).map_err(|error| TokenFileError::Bad {
            path: path.to_owned(),
            line: index + 1,
            error,
        })?;
        tokens.push(token);
    }
    match tokens.len() {
        0 => Err(TokenFileError::Empty(path.to_owned())),
        count if count > MOST_TOKENS => {
            Err(TokenFileError::TooMany { path: path.to_owned(), count })
        }
        _ => Ok(tokens),
    }
}

/// True when somebody besides the owner may read the file: worth a warning.
#[must_use]
pub fn others_may_read(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.permissions().mode() & 0o077 != 0)
}

type Digest = [u8; 32];

/// The tokens that are valid now, by worker, as keyed digests. The key is made
/// at random for each book, so a copy of its memory is of no use elsewhere.
pub struct TokenBook {
    key: Digest,
    /// Two places for every worker, so that each look-up does the same work. A
    /// place without a token holds chance, which no token has as its digest.
    pages: BTreeMap<String, [Digest; MOST_TOKENS]>,
    nobody: [Digest; MOST_TOKENS],
}

impl fmt::Debug for TokenBook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenBook").field("workers", &self.pages.len()).finish_non_exhaustive()
    }
}

impl Default for TokenBook {
    fn default() -> Self {
        Self::new()
    }
}

impl TokenBook {
    /// A book that knows nobody.
    #[must_use]
    pub fn new() -> Self {
        let mut chance = rand::rng();
        Self { key: chance.random(), pages: BTreeMap::new(), nobody: chance.random() }
    }

    /// Reads the token files of all workers. A worker whose file cannot be used
    /// is left out, and the problem says so: it cannot attach, the others can.
    #[must_use]
    pub fn read(settings: &Settings) -> (Self, Vec<Problem>) {
        let mut book = Self::new();
        let mut problems = Vec::new();
        for worker in &settings.workers {
            let path = settings.token_path(worker);
            let name = worker.config.name.as_str();
            match read_token_file(&path) {
                Ok(tokens) => {
                    if others_may_read(&path) {
                        problems.push(readable_note(&path, name));
                    }
                    book.set(name, &tokens);
                }
                Err(error) => problems.push(file_problem(&settings.file, &path, name, &error)),
            }
        }
        (book, problems)
    }

    /// Sets a worker's tokens; those beyond [`MOST_TOKENS`] do not count.
    pub fn set(&mut self, name: &str, tokens: &[Token]) {
        let mut page: [Digest; MOST_TOKENS] = rand::rng().random();
        for (place, token) in page.iter_mut().zip(tokens) {
            *place = self.digest(token.reveal());
        }
        self.pages.insert(name.to_owned(), page);
    }

    /// Forgets a worker.
    pub fn remove(&mut self, name: &str) {
        self.pages.remove(name);
    }

    /// True when `token` is one of the worker's. It takes as long for an unknown
    /// worker as for a wrong token.
    #[must_use]
    pub fn verify(&self, name: &str, token: &str) -> bool {
        let given = self.digest(token);
        let (page, known) = match self.pages.get(name) {
            Some(page) => (page, Choice::from(1)),
            None => (&self.nobody, Choice::from(0)),
        };
        let same = page.iter().fold(Choice::from(0), |same, kept| same | kept.ct_eq(&given));
        (same & known).into()
    }

    fn digest(&self, text: &str) -> Digest {
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.key) else {
            // HMAC takes keys of every length. Chance is what no token matches.
            return rand::rng().random();
        };
        mac.update(text.as_bytes());
        mac.finalize().into_bytes().into()
    }
}

impl Settings {
    /// Where a worker's token file is, as this process finds it.
    #[must_use]
    pub fn token_path(&self, worker: &WorkerSettings) -> PathBuf {
        self.master.data_dir.join(&worker.token_file)
    }
}

/// Makes the missing token files of latent workers: nobody but the master
/// itself starts their instances. What could not be made is told; those workers
/// cannot attach, the others can.
#[must_use]
pub fn make_tokens_of_latent_workers(settings: &Settings) -> Vec<Problem> {
    let mut problems = Vec::new();
    for worker in settings.workers.iter().filter(|worker| worker.config.latent.is_some()) {
        let path = settings.token_path(worker);
        let name = worker.config.name.as_str();
        if !matches!(read_token_file(&path), Err(TokenFileError::Missing(_))) {
            continue;
        }
        if let Err(error) = write_new_token_file(&path, name) {
            problems.push(Problem {
                file: path.display().to_string(),
                line: None,
                key: format!("worker `{name}`"),
                message: format!("the token file cannot be made: {error}"),
                fix: "make its folder writable for the user that runs the master".into(),
            });
        }
    }
    problems
}

/// What is wrong with the token files, as they are now: errors that a master
/// would stumble over, and notes (a file not made yet, readable for others).
#[must_use]
pub fn check_token_files(settings: &Settings) -> (Vec<Problem>, Vec<Problem>) {
    let mut errors = Vec::new();
    let mut notes = Vec::new();
    for worker in &settings.workers {
        let path = settings.token_path(worker);
        let name = worker.config.name.as_str();
        match read_token_file(&path) {
            Ok(_) if others_may_read(&path) => notes.push(readable_note(&path, name)),
            Ok(_) => {}
            // The master makes it, see `make_tokens_of_latent_workers`.
            Err(TokenFileError::Missing(_)) if worker.config.latent.is_some() => {}
            Err(error @ (TokenFileError::Missing(_) | TokenFileError::Unreadable { .. })) => {
                notes.push(file_problem(&settings.file, &path, name, &error));
            }
            Err(error) => errors.push(file_problem(&settings.file, &path, name, &error)),
        }
    }
    (errors, notes)
}

fn file_problem(config: &Path, path: &Path, worker: &str, error: &TokenFileError) -> Problem {
    let line = match error {
        TokenFileError::Bad { line, .. } => Some(*line),
        _ => None,
    };
    let message = match error {
        TokenFileError::Missing(_) => "there is no such token file yet".to_owned(),
        TokenFileError::Unreadable { error, .. } => format!("cannot read the token file: {error}"),
        TokenFileError::TooLong(_) => "longer than 16 KiB: this is no token file".to_owned(),
        TokenFileError::Empty(_) => "the token file is empty".to_owned(),
        TokenFileError::TooMany { count, .. } => format!("{count} tokens; two are the most"),
        TokenFileError::Bad { error, .. } => format!("this is no token: {error}"),
    };
    Problem {
        file: path.display().to_string(),
        line,
        key: format!("worker `{worker}`"),
        message,
        fix: error.fix(worker, config),
    }
}

fn readable_note(path: &Path, worker: &str) -> Problem {
    Problem {
        file: path.display().to_string(),
        line: None,
        key: format!("worker `{worker}`"),
        message: "others than its owner may read the token file".to_owned(),
        fix: format!("chmod 600 {}", path.display()),
    }
}
