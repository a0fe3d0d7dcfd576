//! What the handlers hold: doors to the parts that know and decide.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::board::Board;
use crate::core::time::WallTime;
use crate::events::Events;
use crate::messages::BotMasterHandle;
use crate::settings::{Problem, Settings};
use crate::store::sqlite::StateReader;
use crate::store::{LogRow, StoreError};

use super::live::LiveLogs;
use super::metrics::Counted;
use super::sse::Streams;
use super::ui::StockUi;
use super::ws::Sockets;

/// Pieces of a log's text.
pub type RawPieces = Box<dyn Iterator<Item = Result<Vec<u8>, StoreError>> + Send>;

/// The log store's reading half, as the web needs it. `inline` is the text of
/// a log that is so short that it is in its row. The methods block.
pub trait LogText: Send + Sync {
    /// Complete lines from the line `first` on, at most `limit`; each is its
    /// channel's byte, its text and `\n`. Beyond the end there are none.
    ///
    /// # Errors
    /// When the text cannot be read.
    fn lines(
        &self,
        row: &LogRow,
        inline: Option<&Arc<[u8]>>,
        first: u64,
        limit: Option<u64>,
    ) -> Result<Vec<u8>, StoreError>;

    /// The text without channels, byte by byte as it was written, from a byte on.
    ///
    /// # Errors
    /// When the text cannot be read.
    fn raw(
        &self,
        row: &LogRow,
        inline: Option<Arc<[u8]>>,
        from: u64,
    ) -> Result<RawPieces, StoreError>;

    /// How many bytes there are now.
    ///
    /// # Errors
    /// When the text cannot be read.
    fn length(&self, row: &LogRow, inline: Option<&Arc<[u8]>>) -> Result<u64, StoreError>;

    /// The last `count` complete lines, in the form of [`Self::lines`].
    ///
    /// # Errors
    /// When the text cannot be read.
    fn tail(
        &self,
        row: &LogRow,
        inline: Option<&Arc<[u8]>>,
        count: u64,
    ) -> Result<Vec<u8>, StoreError>;
}

/// Reads and checks a configuration file; for plans.
pub type LoadSettings = dyn Fn(&Path) -> Result<Settings, Vec<Problem>> + Send + Sync;

/// What the web remembers for itself. Clones share it.
#[derive(Clone, Default)]
pub struct WebState {
    /// The event streams that are open now.
    pub(super) streams: Streams,
    /// The event sockets that are open now.
    pub(super) sockets: Sockets,
    /// Logs that grow.
    pub(super) live: LiveLogs,
    /// What the event stream told so far, for the metrics.
    pub(super) counted: Counted,
}

impl WebState {
    /// One frame of an event socket may wait for so long until its client
    /// reads; then the socket is cut off.
    #[must_use]
    pub fn cutting_sockets_off_after(limit: Duration) -> Self {
        Self { sockets: Sockets::cutting_off_after(limit), ..Self::default() }
    }
}

/// Everything that the web needs. Clones share it.
#[derive(Clone)]
pub struct WebContext {
    /// Door to the BotMaster.
    pub handle: BotMasterHandle,
    /// What is stored.
    pub reader: StateReader,
    /// What builds wrote.
    pub logs: Arc<dyn LogText>,
    /// What becomes true.
    pub events: Events,
    /// What the living parts show of themselves.
    pub board: Board,
    /// Reads another configuration file for a plan.
    pub load_settings: Arc<LoadSettings>,
    /// Head of pages.
    pub title: Arc<str>,
    /// Name of the master: `HOST:FOLDER`.
    pub name: Arc<str>,
    /// Buildbot's own pages, when their folder is given.
    pub ui: Option<Arc<StockUi>>,
    /// Pages of other servers that may use this one: patterns of their
    /// origins, in lower case, with `*` and `?`.
    pub allowed_origins: Arc<[String]>,
    /// The web's own memory. Starts as `WebState::default()`.
    pub state: WebState,
}

/// The present, for what people see.
#[must_use]
pub fn wall_now() -> WallTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    WallTime(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}
