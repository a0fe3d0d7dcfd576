//! Counts what a master has stored, from its file, whether it runs or not: how
//! many requests there are, how many are complete, how many of those without
//! success, how many builds are open, and how many requests were built more
//! than once. Prints one JSON line.
#![forbid(unsafe_code)]

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

const COUNTS: [(&str, &str); 5] = [
    ("requests", "SELECT count(*) FROM requests"),
    ("complete", "SELECT count(*) FROM requests WHERE state >= 2"),
    ("not_success", "SELECT count(*) FROM requests WHERE state >= 2 AND results IS NOT 0"),
    ("open_builds", "SELECT count(*) FROM builds WHERE state < 2"),
    (
        "built_again",
        "SELECT count(*) FROM (SELECT request_id FROM build_requests GROUP BY request_id \
         HAVING count(*) > 1)",
    ),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder] = arguments.as_slice() else {
        eprintln!("usage: store_counts DATA-FOLDER");
        return ExitCode::from(2);
    };
    match count(Path::new(folder)) {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {folder}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn count(folder: &Path) -> rusqlite::Result<String> {
    let path = folder.join("state.sqlite");
    let conn = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    conn.busy_timeout(Duration::from_secs(10))?;
    // One snapshot for all of it.
    conn.execute_batch("BEGIN")?;
    let mut fields = Vec::new();
    for (name, sql) in COUNTS {
        let number: i64 = conn.query_row(sql, [], |row| row.get(0))?;
        fields.push(format!("\"{name}\":{number}"));
    }
    Ok(format!("{{{}}}", fields.join(",")))
}
