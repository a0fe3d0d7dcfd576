//! Identifiers. Each kind is its own type, so that a build can never be passed
//! where a request is meant. All integers are handed out by the store's writer.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Arc<str>);

        impl $name {
            /// The text itself.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.into())
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self(text.into())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number_id!(
    /// A build request, as the API shows it.
    RequestId
);
number_id!(
    /// The set of requests that one submission made.
    BuildsetId
);
number_id!(
    /// One build. It belongs to exactly one claim, so a request that is tried
    /// again gets another build id. On the wire it names the build.
    BuildId
);
number_id!(
    /// A builder, kept for its name for ever: a removed builder that comes back
    /// has the same id.
    BuilderId
);
number_id!(
    /// A worker, kept for its name for ever.
    WorkerId
);
number_id!(
    /// One step of one build.
    StepId
);
number_id!(
    /// One log of one step.
    LogId
);
number_id!(
    /// Number of a build within its builder: from 1, increasing, never reused.
    BuildNumber
);
number_id!(
    /// One higher at each claim of a request. A write with an older epoch
    /// changes nothing.
    Epoch
);
number_id!(
    /// One higher at each accepted attach of a worker. Everything a connection
    /// says after its attach belongs to exactly one incarnation.
    Incarnation
);
number_id!(
    /// Which actor, of the successive ones under a builder's name. A successor's
    /// is one higher than its predecessor's.
    Generation
);
number_id!(
    /// One accepted TCP connection, while this master process lives.
    SessionId
);
number_id!(
    /// One ping exchange. It is on the wire as `id`.
    PingToken
);

text_id!(
    /// Name of a builder.
    BuilderName
);
text_id!(
    /// Name of a worker.
    WorkerName
);
text_id!(
    /// One instance of a latent worker, from the wish for it on. It is given
    /// to the provider, which finds the instance by it.
    InstanceTag
);
text_id!(
    /// One command of one build, unique in the build: `c-BUILD-STEP`.
    CommandId
);

/// Names one attempt to claim requests: made by the claimer, stored with the
/// build, so that a claim whose answer was lost is recognised as ours.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ClaimId(pub u128);

impl fmt::Display for ClaimId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// How every tag of ours begins.
const TAG: &str = "botmaster-w";

impl InstanceTag {
    /// A tag for an instance of `worker`; `chance` makes it the only one.
    #[must_use]
    pub fn new(worker: WorkerId, chance: u64) -> Self {
        Self(format!("{TAG}{worker}-{chance:016x}").into())
    }

    /// Whose instance it is; none when it is no tag of ours.
    #[must_use]
    pub fn worker(&self) -> Option<WorkerId> {
        let (worker, _) = self.0.strip_prefix(TAG)?.split_once('-')?;
        worker.parse().ok().map(WorkerId)
    }
}

impl CommandId {
    /// The id of step `step` of `build`.
    #[must_use]
    pub fn for_step(build: BuildId, step: usize) -> Self {
        Self(format!("c-{build}-{step}").into())
    }
}
