//! Worker tokens: form, files, and the book that verifies them.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use botmaster::settings::{
    Overrides, Secret, Token, TokenBook, TokenError, TokenFileError, check_token_files, generate,
    load_text, others_may_read, read_token_file, write_new_token_file,
};

use crate::joined;

#[test]
fn a_token_has_its_form_and_hides_its_secret() {
    let token = generate("linux_1.a-b").unwrap();
    assert_eq!(token.id(), "linux_1.a-b");
    let parts: Vec<&str> = token.reveal().rsplitn(3, '_').collect();
    assert_eq!((parts[0].len(), parts[1].len(), parts[2]), (8, 64, "bmw_linux_1.a-b"));
    assert_eq!(Token::parse(token.reveal()).unwrap(), token);
    assert_eq!(format!("{token:?}"), "bmw_linux_1.a-b_***");
    assert_ne!(generate("a").unwrap(), generate("a").unwrap());
    let secret = Secret::new("hush".into());
    assert_eq!(format!("{secret} {secret:?}"), "*** ***");
}

#[test]
fn a_changed_token_is_told_from_a_foreign_text() {
    let good = generate("w").unwrap().reveal().to_owned();
    assert_eq!(Token::parse("secret"), Err(TokenError::Form));
    assert_eq!(Token::parse(""), Err(TokenError::Form));
    assert_eq!(Token::parse(&good.replace("bmw_w_", "bmw_")), Err(TokenError::Form));
    assert_eq!(Token::parse(&good.replace("bmw_", "xyz_")), Err(TokenError::Form));
    assert_eq!(Token::parse("bmw_w_0123_89abcdef"), Err(TokenError::Secret));
    assert_eq!(Token::parse(good.trim_end_matches(|c| c != '_')), Err(TokenError::Check));
    assert_eq!(Token::parse(&good.replace("bmw_w_", "bmw_v_")), Err(TokenError::Check));
    assert!(generate("a b").is_err());
    assert!(generate("").is_err());
}

#[test]
fn a_token_file_has_one_or_two() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tokens/w.token");
    assert!(matches!(read_token_file(&path), Err(TokenFileError::Missing(_))));
    let first = write_new_token_file(&path, "w").unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!others_may_read(&path));
    assert_eq!(
        write_new_token_file(&path, "w").unwrap_err().kind(),
        std::io::ErrorKind::AlreadyExists
    );
    assert_eq!(read_token_file(&path).unwrap(), std::slice::from_ref(&first));

    let second = generate("w").unwrap();
    let text = format!("# old\n{}\n\n{}\r\n", first.reveal(), second.reveal());
    fs::write(&path, &text).unwrap();
    assert_eq!(read_token_file(&path).unwrap(), [first.clone(), second]);

    let place = path.display();
    let fault = |text: &str| {
        fs::write(&path, text).unwrap();
        read_token_file(&path).unwrap_err().to_string()
    };
    let third = generate("w").unwrap();
    assert_eq!(
        fault(&format!("{text}{}\n", third.reveal())),
        format!("the token file {place} has 3 tokens; two are the most")
    );
    assert_eq!(fault("# nothing\n"), format!("the token file {place} is empty"));
    assert_eq!(
        fault(&format!("\n{}", &first.reveal()[..74])),
        format!(
            "{place}:2: this is no token: its check digits do not fit: a part of it is missing or was changed"
        )
    );
    assert_eq!(
        fault(&"x".repeat(20_000)),
        format!("the token file {place} is longer than 16 KiB: it is no token file")
    );
}

#[test]
fn the_book_knows_whose_token_it_is() {
    let (one, two, other) =
        (generate("a").unwrap(), generate("a").unwrap(), generate("b").unwrap());
    let mut book = TokenBook::new();
    assert!(!book.verify("a", one.reveal()));
    book.set("a", &[one.clone(), two.clone()]);
    book.set("b", std::slice::from_ref(&other));
    assert!(book.verify("a", one.reveal()));
    assert!(book.verify("a", two.reveal()));
    assert!(book.verify("b", other.reveal()));
    assert!(!book.verify("a", other.reveal()));
    assert!(!book.verify("b", one.reveal()));
    assert!(!book.verify("c", one.reveal()));
    assert!(!book.verify("a", ""));
    assert!(!book.verify("a", &one.reveal()[..one.reveal().len() - 1]));
    book.set("a", std::slice::from_ref(&two));
    assert!(!book.verify("a", one.reveal()) && book.verify("a", two.reveal()));
    book.remove("b");
    assert!(!book.verify("b", other.reveal()));
    assert_eq!(format!("{book:?}"), "TokenBook { workers: 1, .. }");
}

#[test]
fn token_files_are_checked_with_the_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path().display().to_string();
    let text = "[[worker]]\nname = \"good\"\n[[worker]]\nname = \"open\"\n\
                [[worker]]\nname = \"none\"\n[[worker]]\nname = \"bad\"\n";
    let settings =
        load_text(&dir.path().join("x.toml"), text, &Overrides::default()).unwrap().settings;
    let tokens = dir.path().join("data/tokens");
    let good = write_new_token_file(&tokens.join("good.token"), "good").unwrap();
    let open = write_new_token_file(&tokens.join("open.token"), "open").unwrap();
    fs::set_permissions(tokens.join("open.token"), fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(tokens.join("bad.token"), "password1\n").unwrap();

    let (errors, notes) = check_token_files(&settings);
    assert_eq!(
        joined(&errors).replace(&base, "BASE"),
        "BASE/data/tokens/bad.token:1: worker `bad`: this is no token: it has not the form bmw_ID_SECRET_CHECK\n    \
         fix: copy the whole token again, one on a line, nothing else on it"
    );
    assert_eq!(
        joined(&notes).replace(&base, "BASE"),
        "BASE/data/tokens/open.token: worker `open`: others than its owner may read the token file\n    \
         fix: chmod 600 BASE/data/tokens/open.token\n\
         BASE/data/tokens/none.token: worker `none`: there is no such token file yet\n    \
         fix: `botmaster token none --config BASE/x.toml` makes it; `botmaster up` makes the one of its own worker"
    );
    let (book, problems) = TokenBook::read(&settings);
    assert_eq!(problems.len(), 3);
    assert!(book.verify("good", good.reveal()) && book.verify("open", open.reveal()));
    assert!(!book.verify("bad", "password1") && !book.verify("none", good.reveal()));
}
