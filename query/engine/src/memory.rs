//! Working memory: each query has its own bound and all of them one together. What no account sees (expressions over
//! one batch) is bounded by the gate, not here.

use std::fmt;
use std::sync::Arc;

use datafusion::common::Result;
use datafusion::execution::memory_pool::{GreedyMemoryPool, MemoryLimit, MemoryPool, MemoryReservation};

/// One query's account, which draws on everybody's.
#[derive(Debug)]
pub(crate) struct Share {
    own: GreedyMemoryPool,
    all: Arc<GreedyMemoryPool>,
}

impl Share {
    /// An account of so many bytes at most.
    pub(crate) fn new(bytes: usize, all: &Arc<GreedyMemoryPool>) -> Self {
        Self { own: GreedyMemoryPool::new(bytes), all: Arc::clone(all) }
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl MemoryPool for Share {
    fn name(&self) -> &str {
        "query"
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        self.own.grow(reservation, additional);
        self.all.grow(reservation, additional);
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        self.own.shrink(reservation, shrink);
        self.all.shrink(reservation, shrink);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<()> {
        self.own.try_grow(reservation, additional)?;
        self.all.try_grow(reservation, additional).inspect_err(|_| self.own.shrink(reservation, additional))
    }

    fn reserved(&self) -> usize {
        self.own.reserved()
    }

    fn memory_limit(&self) -> MemoryLimit {
        self.own.memory_limit()
    }
}

#[cfg(test)]
mod tests {
    use datafusion::execution::memory_pool::MemoryConsumer;

    use super::*;

    /// Guarantee: a query gets no more than its own bound, all together no more than theirs, and what one gives back
    /// another gets; a refusal leaves no trace.
    #[test]
    fn two_bounds() {
        let all = Arc::new(GreedyMemoryPool::new(150));
        let share = || -> Arc<dyn MemoryPool> { Arc::new(Share::new(100, &all)) };
        let (one, two) = (share(), share());
        let first = MemoryConsumer::new("first").register(&one);
        let second = MemoryConsumer::new("second").register(&two);
        assert!(first.try_grow(101).is_err());
        first.try_grow(100).unwrap();
        assert!(second.try_grow(51).is_err());
        assert_eq!((two.reserved(), all.reserved()), (0, 100));
        second.try_grow(50).unwrap();
        first.free();
        second.try_grow(50).unwrap();
        drop((first, second));
        assert_eq!(all.reserved(), 0);
    }
}
