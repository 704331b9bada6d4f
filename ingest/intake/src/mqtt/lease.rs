//! How long a client may stay: a login that ended (a token that ran out or was revoked, a key no longer in force) ends the
//! connection that it opened, not only the next one. Not who may connect: that is the gatekeeper's.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::end::End;

/// Says whether what a client was admitted with still holds. Asked on the connection's task: it must not block.
#[derive(Clone, Default)]
pub struct Lease(Option<Arc<dyn Fn() -> bool + Send + Sync>>);

impl Lease {
    /// One that nothing ends.
    pub const FOREVER: Lease = Lease(None);

    /// One that lasts as long as `holds` says so.
    pub fn while_true(holds: impl Fn() -> bool + Send + Sync + 'static) -> Lease {
        Lease(Some(Arc::new(holds)))
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Lease(while true)" } else { "Lease(forever)" })
    }
}

/// A connection's lease and when it is looked at next.
#[derive(Debug, Default)]
pub(crate) struct Tenancy {
    lease: Lease,
    next_look: Option<Instant>,
}

impl Tenancy {
    /// Begins now: whoever was just admitted is not asked about again at once.
    pub(crate) fn new(lease: Lease, every: Duration) -> Tenancy {
        let next_look = lease.0.is_some().then(|| Instant::now() + every);
        Tenancy { lease, next_look }
    }

    /// When the next look is due, if ever.
    pub(crate) fn next_look(&self) -> Option<Instant> {
        self.next_look
    }

    /// Looks, if it is time to.
    pub(crate) fn look(&mut self, now: Instant, every: Duration) -> Result<(), End> {
        if self.next_look.is_none_or(|at| now < at) {
            return Ok(());
        }
        self.next_look = Some(now + every);
        match self.lease.0.as_ref().is_none_or(|holds| holds()) {
            true => Ok(()),
            false => Err(End::LoginEnded),
        }
    }
}
