//! Who goes first when cores are short: a sender waits for a verdict, nobody waits for a batch. Work in the background is
//! niced, thread by thread; it is not held up by this, as the tail's bound slows intake before sealing falls behind.

/// Niceness of sealing: a third of the weight of a thread that answers.
pub(crate) const SEAL: i32 = 5;
/// Niceness of compaction: a tenth.
pub(crate) const COMPACT: i32 = 10;

/// Makes the calling thread as nice as this, or leaves it if the process was started nicer.
#[cfg(target_os = "linux")]
pub(crate) fn be_nice(niceness: i32) {
    use rustix::process::{getpriority_process, setpriority_process};

    // No process number means the caller, which for Linux is the calling thread (setpriority(2), C library differences).
    let set = getpriority_process(None).and_then(|now| setpriority_process(None, niceness.max(now)));
    if let Err(error) = set {
        tracing::warn!(%error, niceness, "the priority of a background thread could not be lowered");
    }
}

/// Elsewhere niceness belongs to the process, and answers would be slowed with it.
#[cfg(not(target_os = "linux"))]
pub(crate) fn be_nice(_: i32) {}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use rustix::process::getpriority_process;

    use super::*;

    /// Guarantee: only the thread that asks becomes nicer, and never less nice than it was.
    #[test]
    fn one_thread_is_nicer() {
        let before = getpriority_process(None).unwrap();
        let inside = std::thread::spawn(|| {
            [COMPACT, SEAL].map(|niceness| {
                be_nice(niceness);
                getpriority_process(None).unwrap()
            })
        });
        assert_eq!(inside.join().unwrap(), [COMPACT.max(before); 2]);
        assert_eq!(getpriority_process(None).unwrap(), before);
    }
}
