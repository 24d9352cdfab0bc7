//! Cases that need more than the port and than the models have. Never about what the product relies
//! on, but about what it survives or keeps away from.

pub(super) mod alarm;
pub(super) mod consuming;
pub(super) mod dying;
pub(super) mod routing;

use std::time::Duration;

use super::{Kind, QueueBackend};
use crate::{NotApplicable, Observed};

/// After so long a server sends a dead letter again that found no target (3 minutes by default); a
/// backend sets it so.
pub const RESEND: Duration = Duration::from_secs(1);

fn quorum_only(backend: &dyn QueueBackend) -> Observed {
    match backend.kind() {
        Kind::Quorum => Ok(()),
        Kind::Classic => Err(NotApplicable("a statement on quorum queues").into()),
    }
}
