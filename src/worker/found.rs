//! What an earlier program of this worker left: its builds are taken up again.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::mpsc;

use crate::core::ids::BuildId;

use super::agent::{Agent, Event, MAX_EPOCHS, Restored, RestoredCommand};
use super::disk::{Begun, Epochs, OWN_FOLDER, Shelf, boot_id};
use super::kept::{Keepers, News};
use super::process;

/// Between TERM and KILL for processes of builds that cannot go on.
const LAST_KILL_TIME: Duration = Duration::from_millis(500);

/// Reads the journals below `dir` and gives the agent what can go on. What else
/// runs of this worker is ended before anybody is told that it does not: the
/// master may give it to others then (invariant I3, row FR05).
///
/// # Errors
/// When the disk refuses.
pub(super) async fn take_up(
    dir: &Path,
    mark: &str,
    program: Option<PathBuf>,
    agent: &mut Agent,
    events: mpsc::Sender<Event>,
    news: mpsc::Sender<(BuildId, u64, News)>,
) -> io::Result<(Keepers, Epochs)> {
    let shelf = Shelf::new(dir, boot_id())?;
    let (builds, bad) = shelf.read_all()?;
    for journal in bad {
        tracing::error!(
            build = journal.name,
            moved_to = %journal.moved_to.display(),
            error = journal.error,
            "a build's journal cannot be read: the build is given up"
        );
    }
    let keep: BTreeSet<BuildId> =
        builds.iter().filter(|begun| begun.kept).map(|begun| begun.record.build).collect();
    let found = process::end_others(mark.to_owned(), keep, LAST_KILL_TIME).await;
    if found > 0 {
        tracing::warn!(found, "ended processes that an earlier worker program had left behind");
    }
    let (epochs, seen) = Epochs::open(&dir.join(OWN_FOLDER), MAX_EPOCHS)?;
    let mut keepers = Keepers::new(dir.to_owned(), mark.to_owned(), shelf, program, events, news);
    let mut restored = Vec::new();
    for begun in builds {
        let Begun { record, command, past, extent, ended, kept } = begun;
        let build = record.build;
        let unfinished = command.is_some() && ended.is_none();
        let state = (extent.1, ended.is_some());
        if let Err(error) = keepers.restore(build, kept, command.clone(), state) {
            // It has just gone; its line would have told the same.
            tracing::warn!(%build, %error, "the build's keeper cannot be reached");
            process::end_marked(
                process::Mark::Build { build, instance: mark.to_owned() },
                std::collections::BTreeMap::new(),
                LAST_KILL_TIME,
            )
            .await;
            keepers.restore(build, false, command.clone(), state)?;
        }
        let lost = unfinished && !keepers.is_kept(build);
        tracing::info!(%build, kept, lost, finished = ended.is_some(), "found a build");
        let command = command.map(|(id, _)| RestoredCommand { id, extent, ended });
        restored.push(Restored { record, command, past, lost });
    }
    agent.restore(restored, seen);
    Ok((keepers, epochs))
}
