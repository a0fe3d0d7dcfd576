//! What a LatentSlaveBuilder is told. Of its instance it hears as
//! [`InstanceNews`](super::InstanceNews), of a person's ping as
//! [`Ping`](super::Ping).

use std::time::Duration;

use actix::Message;

use crate::core::ids::ClaimId;

/// The build needs the instance no more; none means whichever build it is.
#[derive(Message)]
#[rtype(result = "()")]
pub struct CallBackSubstantiation(pub Option<ClaimId>);

/// How long a substantiation may take from now on.
#[derive(Message)]
#[rtype(result = "()")]
pub struct SetPatience(pub Duration);
