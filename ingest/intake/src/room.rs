//! A bound on bytes held over all senders of a door: bodies and large packets that are still arriving.
//!
//! It never waits; whoever gets no share says so to its sender.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes that may be held at a time.
#[derive(Debug)]
pub(crate) struct Room {
    taken: AtomicU64,
    bytes_max: u64,
}

/// A part of [`Room`] held by one sender; given back on drop.
#[derive(Debug)]
pub(crate) struct Share {
    room: Arc<Room>,
    bytes: u64,
}

impl Room {
    pub(crate) fn new(bytes_max: u64) -> Arc<Self> {
        Arc::new(Self { taken: AtomicU64::new(0), bytes_max })
    }

    pub(crate) fn share(self: &Arc<Self>) -> Share {
        Share { room: Arc::clone(self), bytes: 0 }
    }
}

impl Share {
    /// Takes `bytes` more, or says that there is no room.
    pub(crate) fn grow(&mut self, bytes: u64) -> bool {
        let before = self.room.taken.fetch_add(bytes, Ordering::AcqRel);
        self.bytes += bytes;
        before.saturating_add(bytes) <= self.room.bytes_max
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.room.taken.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Room is bounded over all holders and comes back.
    #[test]
    fn body_room_is_shared_and_returns() {
        let room = Room::new(100);
        let mut one = room.share();
        assert!(one.grow(60));
        let mut two = room.share();
        assert!(!two.grow(60));
        drop(two);
        assert!(one.grow(40));
        drop(one);
        assert!(room.share().grow(100));
    }
}
