//! What a process has cost so far, as Linux tells it in /proc.

use std::time::Duration;

/// Ticks of /proc/PID/stat in a second: Linux shows this many whatever it counts in.
const TICKS_PER_SECOND: f64 = 100.0;

/// CPU time and memory of a process.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Usage {
    /// In the program itself.
    pub user_s: f64,
    /// In the system, on its behalf.
    pub system_s: f64,
    /// Most memory held so far, bytes.
    pub peak_bytes: u64,
    /// Memory held now, bytes.
    pub resident_bytes: u64,
}

impl Usage {
    /// Of a process; `None` if there is none of that number.
    #[must_use]
    pub fn of(pid: u32) -> Option<Usage> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        Usage::read(&stat, &status)
    }

    /// Of this process.
    #[must_use]
    pub fn own() -> Usage {
        Usage::of(std::process::id()).unwrap_or_default()
    }

    fn read(stat: &str, status: &str) -> Option<Usage> {
        // The name in parentheses may hold spaces and parentheses itself.
        let (_, fields) = stat.rsplit_once(')')?;
        let mut fields = fields.split_whitespace().skip(11);
        let mut seconds = || Some(fields.next()?.parse::<u64>().ok()? as f64 / TICKS_PER_SECOND);
        let (user_s, system_s) = (seconds()?, seconds()?);
        let kib = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).unwrap_or(0)
        };
        let (peak_bytes, resident_bytes) = (kib("VmHWM:") << 10, kib("VmRSS:") << 10);
        Some(Usage { user_s, system_s, peak_bytes, resident_bytes })
    }

    /// CPU seconds, program and system.
    #[must_use]
    pub fn cpu_s(&self) -> f64 {
        self.user_s + self.system_s
    }

    /// CPU seconds since an earlier look.
    #[must_use]
    pub fn cpu_since(&self, earlier: &Usage) -> f64 {
        (self.cpu_s() - earlier.cpu_s()).max(0.0)
    }
}

/// Nanoseconds that fit, in a moment's distance.
#[must_use]
pub fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Guarantee: a process's name cannot shift the fields.
    #[test]
    fn proc_is_read() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194560 1 0 0 0 250 50 0 0 20 0 1 0 1 1 1";
        let usage = Usage::read(stat, "Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t 1024 kB\n").unwrap();
        assert_eq!((usage.user_s, usage.system_s, usage.cpu_s()), (2.5, 0.5, 3.0));
        assert_eq!((usage.peak_bytes, usage.resident_bytes), (2 << 20, 1 << 20));
        assert!(Usage::own().resident_bytes > 0);
    }
}
