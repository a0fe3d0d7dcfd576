//! Which rows the rules let go.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, params};

use super::Removal;
use crate::core::ids::*;
use crate::core::retention::{Retention, RetentionRules};
use crate::core::time::WallTime;
use crate::store::StoreError;
use crate::store::sqlite::errors::classify;
use crate::store::sqlite::look::read_only;
use crate::store::sqlite::rows::{self, int};

/// Reads what may go, on a connection that cannot write.
pub struct Chooser {
    conn: Connection,
}

/// Some of what may go of one builder, and where to look for more.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Candidates {
    /// What may go.
    pub removal: Removal,
    /// Builds up to this number were looked at.
    pub through: u64,
}

/// What would go of one builder.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WouldGo {
    /// The builder.
    pub builder: BuilderName,
    /// The rules for it.
    pub rules: Retention,
    /// Finished builds that it has.
    pub has: u64,
    /// Builds that would go.
    pub builds: u64,
    /// Builds that would only lose their logs' text.
    pub texts: u64,
    /// Bytes of log text that would go.
    pub bytes: u64,
}

/// A builder with what its rules come to now.
struct Horizon {
    builder: i64,
    /// Number of the newest finished build, which stays.
    newest: i64,
    /// Builds with a lower number are too many.
    enough: i64,
    /// Builds that ended before are too old.
    before: Option<i64>,
    /// The text of builds that ended before is too old.
    text_before: Option<i64>,
    /// The text of builds with a lower number is too much.
    text_enough: i64,
}

impl Horizon {
    fn build_goes(&self, number: i64, ended: i64) -> bool {
        number < self.enough || self.before.is_some_and(|before| ended < before)
    }

    fn text_goes(&self, number: i64, ended: i64) -> bool {
        number < self.text_enough || self.text_before.is_some_and(|before| ended < before)
    }
}

fn ago(now: WallTime, age: Option<Duration>) -> Option<i64> {
    let age = i64::try_from(age?.as_micros()).unwrap_or(i64::MAX);
    Some(now.0.saturating_sub(age))
}

impl Chooser {
    /// On the state of a data folder.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let conn = read_only(&dir.join("state.sqlite"));
        let conn = conn.map_err(|error| StoreError::Failed(error.to_string()))?;
        conn.set_prepared_statement_cache_capacity(32);
        Ok(Self { conn })
    }

    fn told<T>(result: rusqlite::Result<T>) -> Result<T, StoreError> {
        result.map_err(|error| classify(&error).told())
    }

    /// All builders that ever were.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn builders(&self) -> Result<Vec<(BuilderId, BuilderName)>, StoreError> {
        Self::told((|| {
            self.conn
                .prepare_cached("SELECT id, name FROM builders ORDER BY id")?
                .query_map([], |row| {
                    let name: String = row.get(1)?;
                    Ok((BuilderId(rows::uint(row, 0)?), name.into()))
                })?
                .collect()
        })())
    }

    /// Logs whose rows are gone and whose text may still be there; some of them.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn removed_logs(&self, limit: u32) -> Result<Vec<LogId>, StoreError> {
        Self::told((|| {
            self.conn
                .prepare_cached("SELECT log_id FROM removed_logs ORDER BY log_id LIMIT ?1")?
                .query_map([limit], |row| Ok(LogId(rows::uint(row, 0)?)))?
                .collect()
        })())
    }

    /// Some of what may go of a builder, of builds beyond the number `after`.
    /// Nothing when there is no more.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn of_builder(
        &self,
        builder: BuilderId,
        rules: &Retention,
        now: WallTime,
        after: u64,
        limit: usize,
    ) -> Result<Option<Candidates>, StoreError> {
        Self::told(self.choose(builder, rules, now, after, limit))
    }

    fn choose(
        &self,
        builder: BuilderId,
        rules: &Retention,
        now: WallTime,
        after: u64,
        limit: usize,
    ) -> rusqlite::Result<Option<Candidates>> {
        let horizon = self.horizon(builder, rules, now)?;
        let mut found = Candidates { through: after, ..Candidates::default() };
        self.builds(&horizon, int(after), limit, &mut found)?;
        let nothing = found.removal.is_empty() && found.through == after;
        Ok((!nothing).then_some(found))
    }

    /// Some of what may go of a builder and belongs to no build: cancelled
    /// requests and notes that are older than all builds that are kept.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn beside_builds(
        &self,
        builder: BuilderId,
        rules: &Retention,
        now: WallTime,
        limit: usize,
    ) -> Result<Removal, StoreError> {
        Self::told((|| {
            let mut removal = Removal::default();
            let horizon = self.horizon(builder, rules, now)?;
            self.rest(&horizon, limit, &mut removal)?;
            Ok(removal)
        })())
    }

    fn horizon(
        &self,
        builder: BuilderId,
        rules: &Retention,
        now: WallTime,
    ) -> rusqlite::Result<Horizon> {
        let id = int(builder.0);
        let newest: i64 = self
            .conn
            .prepare_cached(
                "SELECT coalesce(max(number), 0) FROM (SELECT number FROM builds WHERE builder_id = ?1 \
                 AND number IS NOT NULL AND state = 2 ORDER BY number DESC LIMIT 1)",
            )?
            .query_row([id], |row| row.get(0))?;
        let nth = |place: u64| -> rusqlite::Result<i64> {
            let mut statement = self.conn.prepare_cached(
                "SELECT number FROM builds WHERE builder_id = ?1 AND number IS NOT NULL \
                 ORDER BY number DESC LIMIT 1 OFFSET ?2",
            )?;
            let mut rows = statement.query(params![id, int(place)])?;
            rows.next()?.map_or(Ok(0), |row| row.get(0))
        };
        let enough = match rules.builds {
            Some(builds) => nth(builds.saturating_sub(1))?,
            None => 0,
        };
        let text_enough = match rules.size {
            Some(size) => self.text_enough(id, size)?,
            None => 0,
        };
        Ok(Horizon {
            builder: id,
            newest,
            enough,
            before: ago(now, rules.age),
            text_before: ago(now, rules.log_age),
            text_enough,
        })
    }

    /// The lowest number of the newest builds whose text is no more than this.
    fn text_enough(&self, builder: i64, size: u64) -> rusqlite::Result<i64> {
        let mut statement = self.conn.prepare_cached(
            "SELECT number, text_bytes FROM builds INDEXED BY builds_text \
             WHERE builder_id = ?1 AND text_bytes > 0 ORDER BY number DESC",
        )?;
        let mut rows = statement.query([builder])?;
        let (mut all, size) = (0_i64, int(size));
        while let Some(row) = rows.next()? {
            all = all.saturating_add(row.get::<_, i64>(1)?);
            if all > size {
                return row.get::<_, i64>(0).map(|number| number + 1);
            }
        }
        Ok(0)
    }

    /// Builds that may go, and builds of which only the text may.
    fn builds(
        &self,
        horizon: &Horizon,
        after: i64,
        limit: usize,
        found: &mut Candidates,
    ) -> rusqlite::Result<()> {
        let mut statement = self.conn.prepare_cached(
            "SELECT id, number, started_at, complete_at, text_bytes, EXISTS (SELECT 1 \
             FROM build_requests b JOIN requests r ON r.id = b.request_id \
             WHERE b.build_id = builds.id AND r.state < 2) FROM builds INDEXED BY builds_number \
             WHERE builder_id = ?1 AND number > ?2 AND number IS NOT NULL ORDER BY number",
        )?;
        let mut rows = statement.query([horizon.builder, after])?;
        while let Some(row) = rows.next()? {
            let (number, started): (i64, i64) = (row.get(1)?, row.get(2)?);
            let ended: Option<i64> = row.get(3)?;
            let later = |before: Option<i64>| before.is_none_or(|before| started >= before);
            let past = number >= horizon.enough
                && number >= horizon.text_enough
                && later(horizon.before)
                && later(horizon.text_before);
            if past || number >= horizon.newest {
                break;
            }
            found.through = rows::id(number);
            // It runs, or somebody still wants it built.
            let wanted: bool = row.get(5)?;
            let Some(ended) = ended.filter(|_| !wanted) else { continue };
            let id = BuildId(rows::uint(row, 0)?);
            if horizon.build_goes(number, ended) {
                found.removal.builds.push(id);
            } else {
                let has_text = row.get::<_, i64>(4)? > 0;
                if has_text && horizon.text_goes(number, ended) {
                    found.removal.texts.push(id);
                }
            }
            if found.removal.builds.len() + found.removal.texts.len() >= limit {
                break;
            }
        }
        Ok(())
    }

    /// What belongs to no build and is older than all that are kept.
    fn rest(&self, horizon: &Horizon, limit: usize, removal: &mut Removal) -> rusqlite::Result<()> {
        // The oldest build that is kept for its number.
        let kept_from: Option<i64> = self
            .conn
            .prepare_cached(
                "SELECT min(started_at) FROM (SELECT started_at FROM builds WHERE builder_id = ?1 \
                 AND number >= max(?2, 1) AND number IS NOT NULL ORDER BY number LIMIT 1)",
            )?
            .query_row([horizon.builder, horizon.enough], |row| row.get(0))?;
        let before = match (horizon.before, kept_from.filter(|_| horizon.enough > 0)) {
            (Some(age), Some(count)) => age.max(count),
            (Some(before), None) | (None, Some(before)) => before,
            (None, None) => return Ok(()),
        };
        let mut statement = self.conn.prepare_cached(
            "SELECT id, submitted_at, complete_at, EXISTS (SELECT 1 FROM build_requests \
             WHERE request_id = requests.id) FROM requests INDEXED BY requests_builder \
             WHERE builder_id = ?1 ORDER BY id",
        )?;
        let mut rows = statement.query([horizon.builder])?;
        while let Some(row) = rows.next()? {
            if row.get::<_, i64>(1)? >= before || removal.requests.len() >= limit {
                break;
            }
            let ended = row.get::<_, Option<i64>>(2)?.is_some_and(|ended| ended < before);
            if ended && !row.get::<_, bool>(3)? {
                removal.requests.push(RequestId(rows::uint(row, 0)?));
            }
        }
        let mut statement = self.conn.prepare_cached(
            "SELECT id, at FROM notes INDEXED BY notes_builder \
             WHERE builder_id = ?1 ORDER BY id",
        )?;
        let mut rows = statement.query([horizon.builder])?;
        while let Some(row) = rows.next()? {
            if row.get::<_, i64>(1)? >= before || removal.notes.len() >= limit {
                break;
            }
            removal.notes.push(rows::uint(row, 0)?);
        }
        Ok(())
    }

    /// Builds whose text may go because all builders' text together is too
    /// much: the oldest, some of them.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn beyond_size(&self, size: u64, limit: usize) -> Result<Vec<BuildId>, StoreError> {
        Self::told(self.oldest_beyond(size, limit))
    }

    fn oldest_beyond(&self, size: u64, limit: usize) -> rusqlite::Result<Vec<BuildId>> {
        let all: i64 = self
            .conn
            .prepare_cached(
                "SELECT coalesce(sum(text_bytes), 0) FROM builds INDEXED BY builds_text \
                 WHERE text_bytes > 0",
            )?
            .query_row([], |row| row.get(0))?;
        let mut excess = all.saturating_sub(int(size));
        if excess <= 0 {
            return Ok(Vec::new());
        }
        // The oldest of each builder: the oldest of all are among them.
        let mut oldest: BTreeMap<u64, i64> = BTreeMap::new();
        let builders: Vec<i64> = self
            .conn
            .prepare_cached("SELECT id FROM builders")?
            .query_map([], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        for builder in builders {
            let mut statement = self.conn.prepare_cached(
                "SELECT id, text_bytes FROM builds INDEXED BY builds_text \
                 WHERE builder_id = ?1 AND text_bytes > 0 AND state = 2 AND number < \
                 (SELECT max(number) FROM builds INDEXED BY builds_number WHERE builder_id = ?1 \
                 AND number IS NOT NULL) ORDER BY number LIMIT ?2",
            )?;
            let mut rows = statement.query(params![builder, int(limit as u64)])?;
            while let Some(row) = rows.next()? {
                oldest.insert(rows::uint(row, 0)?, row.get(1)?);
            }
        }
        let mut goes = Vec::new();
        for (id, bytes) in oldest {
            if excess <= 0 || goes.len() >= limit {
                break;
            }
            excess -= bytes;
            goes.push(BuildId(id));
        }
        Ok(goes)
    }

    /// Tells what would go of each builder, without removing anything.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn would_go(
        &self,
        rules: &RetentionRules,
        now: WallTime,
    ) -> Result<Vec<WouldGo>, StoreError> {
        let mut all = Vec::new();
        for (builder, name) in self.builders()? {
            let own = rules.of(&name);
            let chosen = self.of_builder(builder, &own, now, 0, usize::MAX)?.unwrap_or_default();
            let removal = chosen.removal;
            let has = Self::told(self.conn.query_row(
                "SELECT count(*) FROM builds WHERE builder_id = ?1 AND state = 2",
                [int(builder.0)],
                |row| rows::uint(row, 0),
            ))?;
            let mut bytes = 0;
            for build in removal.builds.iter().chain(&removal.texts) {
                bytes += Self::told(self.conn.query_row(
                    "SELECT text_bytes FROM builds WHERE id = ?1",
                    [int(build.0)],
                    |row| rows::uint(row, 0),
                ))?;
            }
            all.push(WouldGo {
                builder: name,
                rules: own,
                has,
                builds: removal.builds.len() as u64,
                texts: removal.texts.len() as u64,
                bytes,
            });
        }
        Ok(all)
    }
}
