//! Commands that talk to a running master over its HTTP API.
//!
//! Each command asks, shows the answer to people as text or (`--json`) to
//! programs as one compact JSON value a line, and ends with an exit status: 0
//! fine, 1 the thing asked for failed, 2 it could not be asked or found out.

mod act;
mod eta;
mod events;
mod follow;
mod forms;
mod http;
mod list;
mod show;
mod standing;

use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Args, Subcommand};

use http::Client;
pub use http::ClientError;

/// All went well.
pub const FINE: u8 = 0;
/// What was asked for failed.
pub const FAILED: u8 = 1;
/// It could not be asked, or ended in another way.
pub const TROUBLE: u8 = 2;

/// Commands for a running master.
#[derive(Subcommand, Clone, PartialEq, Debug)]
pub enum ClientCommand {
    /// Read the configuration file again and apply what changed
    ///
    /// Running builds go on. Nothing is changed when the file has a mistake.
    #[command(after_help = "Example:\n  botmaster plan && botmaster reload")]
    Reload,
    /// Show what a reload would change, and change nothing
    #[command(after_help = "Examples:\n  botmaster plan\n  botmaster plan config/next.toml")]
    Plan {
        /// Plan for this file instead of the master's own
        // An id of its own: by the field's name it would be the global --config,
        // whose default would then be planned for.
        #[arg(id = "planned_file", value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Ask for a build
    #[command(after_help = "Examples:\n  \
        botmaster force unit\n  \
        botmaster force unit --branch main -p suite=fast --wait\n  \
        botmaster force unit --reason 'try the fix' --follow\n  \
        botmaster force unit --form deploy -p options_epochs=3\n\n\
        With --wait or --follow the exit status tells the result: 0 success or warnings, \
        1 failure, 2 anything else.")]
    Force(ForceArgs),
    /// Cancel a build request, or stop the build that has it
    #[command(after_help = "Example:\n  botmaster cancel 17   # numbers are in `botmaster queue`")]
    Cancel {
        /// Number of the build request
        request: u64,
        /// Why, for people
        #[arg(long, default_value = "cancelled from the command line")]
        reason: String,
    },
    /// Change the priority of a build request that waits
    #[command(
        after_help = "Example:\n  botmaster priority 17 10   # numbers are in `botmaster queue`"
    )]
    Priority {
        /// Number of the build request
        request: u64,
        /// Higher is built earlier
        #[arg(allow_negative_numbers = true)]
        priority: i64,
    },
    /// Tell why a build request waits, worker by worker, and when it will start
    #[command(after_help = "Example:\n  botmaster why 17   # numbers are in `botmaster queue`")]
    Why {
        /// Number of the build request
        request: u64,
    },
    /// List the schedulers, forms to force builds by among them
    #[command(after_help = "Example:\n  botmaster schedulers")]
    Schedulers,
    /// Switch a scheduler on
    #[command(after_help = "Example:\n  botmaster enable deploy")]
    Enable {
        /// Name of the scheduler
        scheduler: String,
    },
    /// Switch a scheduler off: it asks for no builds, nor can it be asked by
    #[command(after_help = "Example:\n  botmaster disable deploy")]
    Disable {
        /// Name of the scheduler
        scheduler: String,
    },
    /// Stop a running build
    #[command(
        after_help = "Examples:\n  botmaster stop unit/12\n  botmaster stop 345   # by build id"
    )]
    Stop {
        /// The build: BUILDER/NUMBER, or its id
        build: String,
        /// Why, for people
        #[arg(long, default_value = "stopped from the command line")]
        reason: String,
    },
    /// Build again what a finished build built
    #[command(after_help = "Example:\n  botmaster rebuild unit/12")]
    Rebuild {
        /// The build: BUILDER/NUMBER, or its id
        build: String,
    },
    /// Ask all workers of a builder whether they answer
    #[command(after_help = "Example:\n  botmaster ping unit && echo all there")]
    Ping {
        /// Name of the builder
        builder: String,
    },
    /// Start a builder again that gave up after faults
    ///
    /// `botmaster builders` shows which are broken, and why. Builds of it that still run go on.
    #[command(after_help = "Example:\n  botmaster restart unit")]
    Restart {
        /// Name of the builder
        builder: String,
    },
    /// Start no more builds on a worker
    #[command(after_help = "Example:\n  botmaster pause linux-1 --reason 'new disk'")]
    Pause(WorkerArgs),
    /// Start builds on a worker again
    #[command(after_help = "Example:\n  botmaster unpause linux-1")]
    Unpause(WorkerArgs),
    /// Let a worker finish its builds and then leave
    #[command(after_help = "Example:\n  botmaster drain linux-1 --reason 'kernel update'")]
    Drain(WorkerArgs),
    /// End a worker's program once its builds have ended
    #[command(after_help = "Example:\n  botmaster shutdown linux-1")]
    Shutdown(WorkerArgs),
    /// List the builders
    #[command(after_help = "Example:\n  botmaster builders")]
    Builders,
    /// List the workers
    #[command(after_help = "Example:\n  botmaster workers")]
    Workers,
    /// List the build requests that wait
    #[command(after_help = "Example:\n  botmaster queue")]
    Queue,
    /// List the latest builds
    #[command(after_help = "Examples:\n  botmaster builds\n  botmaster builds unit --limit 5")]
    Builds {
        /// Only those of this builder
        builder: Option<String>,
        /// How many
        #[arg(long, default_value_t = 20)]
        limit: u32,
    },
    /// Show one build with its steps
    #[command(after_help = "Example:\n  botmaster build unit/12")]
    Build {
        /// The build: BUILDER/NUMBER, or its id
        build: String,
    },
    /// Print the log of a build, or of one of its steps
    #[command(after_help = "Examples:\n  \
        botmaster log unit/12            # all steps\n  \
        botmaster log unit/12 test       # a step by name\n  \
        botmaster log unit/12 2          # a step by number, from 0\n  \
        botmaster log unit/12 --follow   # until the build ends")]
    Log {
        /// The build: BUILDER/NUMBER, or its id
        build: String,
        /// Number (from 0) or name of a step; without it all steps
        step: Option<String>,
        /// Go on until the build ends
        #[arg(long, short)]
        follow: bool,
    },
    /// Print events as they happen
    ///
    /// When the connection is lost, or the master restarts, it goes on where it was.
    #[command(after_help = "Examples:\n  \
        botmaster events                        # of all builds\n  \
        botmaster events 'workers/*/*' --json\n  \
        botmaster events 'builds/*/finished' --limit 1   # wait for the next end of a build")]
    Events(EventsArgs),
    /// Print any resource of the API, as JSON
    #[command(after_help = "Examples:\n  \
        botmaster get 'builds?limit=3&order=-buildid'\n  \
        botmaster get buildrequests/17")]
    Get {
        /// The resource, below /api/v2/
        path: String,
    },
}

/// Which events.
#[derive(Args, Clone, PartialEq, Debug)]
pub struct EventsArgs {
    /// Elements of their keys, `*` for any one
    #[arg(default_value = "builds/*/*")]
    pub path: String,
    /// Begin after the event with this number, if it is still kept
    #[arg(long, value_name = "NUMBER")]
    pub after: Option<u64>,
    /// End after so many events
    #[arg(long)]
    pub limit: Option<u64>,
}

/// What to build.
#[derive(Args, Clone, PartialEq, Debug)]
pub struct ForceArgs {
    /// Name of the builder
    pub builder: String,
    /// Property of the build, or with --form a field of the form; may be given again
    #[arg(short, long = "property", value_name = "NAME=VALUE", value_parser = property)]
    pub properties: Vec<(String, String)>,
    /// Ask by this form instead; `botmaster schedulers` lists them with their fields
    #[arg(long, value_name = "NAME")]
    pub form: Option<String>,
    /// Why, for people
    #[arg(long)]
    pub reason: Option<String>,
    /// Branch to build
    #[arg(long)]
    pub branch: Option<String>,
    /// Exact revision to build
    #[arg(long)]
    pub revision: Option<String>,
    /// Higher is built earlier
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    pub priority: i64,
    /// Refuse when the builder has no worker that could build it soon
    #[arg(long)]
    pub soon: bool,
    /// Wait for the end of the build; the exit status tells its result
    #[arg(long)]
    pub wait: bool,
    /// Print the log while the build runs, and wait for its end
    #[arg(long, short)]
    pub follow: bool,
    /// Give up waiting after so many seconds; the build goes on
    #[arg(long, value_name = "SECONDS")]
    pub timeout: Option<u64>,
}

/// Which worker.
#[derive(Args, Clone, PartialEq, Debug)]
pub struct WorkerArgs {
    /// Name of the worker
    pub worker: String,
    /// Why, for people
    #[arg(long)]
    pub reason: Option<String>,
}

fn property(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write it as NAME=VALUE".into()),
    }
}

/// Where a command's words go.
pub struct Output<'a> {
    /// Answers.
    pub out: &'a mut dyn Write,
    /// Answers are JSON.
    pub json: bool,
}

impl Output<'_> {
    /// Writes one line of text.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn line(&mut self, text: &str) -> Result<(), ClientError> {
        writeln!(self.out, "{text}").map_err(ClientError::Output)
    }

    /// Writes a value in one line.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn value(&mut self, value: &serde_json::Value) -> Result<(), ClientError> {
        self.line(&value.to_string())
    }
}

/// Runs a command against the master at `url`, with standard output and error.
/// Answers the exit status.
#[must_use]
pub fn run(command: ClientCommand, url: &str, json: bool) -> u8 {
    // A lock would be held while a log is followed, which hurts nobody: nothing
    // else writes there.
    run_to(command, url, json, &mut io::stdout().lock(), &mut io::stderr().lock())
}

/// The same, writing answers to `out` and errors to `err`.
#[must_use]
pub fn run_to(
    command: ClientCommand,
    url: &str,
    json: bool,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> u8 {
    let client = Client::new(url);
    let mut output = Output { out, json };
    let done = perform(command, &client, &mut output);
    let flushed = output.out.flush().map_err(ClientError::Output);
    match done.and_then(|status| flushed.map(|()| status)) {
        Ok(status) => status,
        // A reader that went away (`botmaster log … | head`) has what it wants.
        Err(ClientError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => FINE,
        Err(error) => {
            // When even this cannot be written, the exit status still tells.
            let _ = writeln!(err, "error: {error}");
            TROUBLE
        }
    }
}

fn perform(
    command: ClientCommand,
    client: &Client,
    output: &mut Output<'_>,
) -> Result<u8, ClientError> {
    match command {
        ClientCommand::Reload => act::reload(client, output),
        ClientCommand::Plan { config } => act::plan(client, output, config),
        ClientCommand::Force(args) => act::force(client, output, &args),
        ClientCommand::Cancel { request, reason } => act::cancel(client, output, request, &reason),
        ClientCommand::Priority { request, priority } => {
            act::priority(client, output, request, priority)
        }
        ClientCommand::Why { request } => list::why(client, output, request),
        ClientCommand::Schedulers => forms::schedulers(client, output),
        ClientCommand::Enable { scheduler } => forms::switch(client, output, &scheduler, true),
        ClientCommand::Disable { scheduler } => forms::switch(client, output, &scheduler, false),
        ClientCommand::Events(args) => events::follow(client, output, &args),
        ClientCommand::Get { path } => list::any(client, output, &path),
        ClientCommand::Stop { build, reason } => act::stop(client, output, &build, &reason),
        ClientCommand::Rebuild { build } => act::rebuild(client, output, &build),
        ClientCommand::Ping { builder } => act::ping(client, output, &builder),
        ClientCommand::Restart { builder } => act::restart(client, output, &builder),
        ClientCommand::Pause(args) => act::order(client, output, &args, "pause", "is paused"),
        ClientCommand::Unpause(args) => {
            act::order(client, output, &args, "unpause", "takes builds again")
        }
        ClientCommand::Drain(args) => {
            act::order(client, output, &args, "stop", "leaves once its builds have ended")
        }
        ClientCommand::Shutdown(args) => {
            act::order(client, output, &args, "kill", "ends once its builds have ended")
        }
        ClientCommand::Builders => list::builders(client, output),
        ClientCommand::Workers => list::workers(client, output),
        ClientCommand::Queue => list::queue(client, output),
        ClientCommand::Builds { builder, limit } => {
            list::builds(client, output, builder.as_deref(), limit)
        }
        ClientCommand::Build { build } => list::build(client, output, &build),
        ClientCommand::Log { build, step, follow } => {
            follow::log(client, output, &build, step.as_deref(), follow)
        }
    }
}
