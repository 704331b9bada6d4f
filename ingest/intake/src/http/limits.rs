//! Token buckets per address and per device.
//!
//! A device's bucket belongs to the pair of address and device: the kid in a frame is not yet proven when the bucket
//! is charged, so a stranger who sends a victim's kid empties only their own bucket. IPv6 senders are counted by
//! their /64, the smallest block one subscriber gets. All maps are bounded.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Instant;

use parking_lot::Mutex;
use schemas_identity::ShortId;

use crate::recent::Recent;

/// A token bucket's rate. A rate of 0 switches the limit off.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    /// Tokens added per second.
    pub per_second: f64,
    /// Most tokens saved up.
    pub burst: f64,
}

/// Most addresses, and most pairs of address and device, remembered at a time (about 6 MB in all).
const BUCKETS_MAX: usize = 65_536;

#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    filled_at: Instant,
}

impl Bucket {
    fn full(rate: Rate, now: Instant) -> Self {
        Self { tokens: rate.burst, filled_at: now }
    }

    fn fill(&mut self, rate: Rate, now: Instant) {
        let elapsed = now.saturating_duration_since(self.filled_at).as_secs_f64();
        self.tokens = (self.tokens + elapsed * rate.per_second).min(rate.burst);
        self.filled_at = now;
    }

    /// Seconds until `wanted` tokens are there; 0 if they are now. More than the burst is asked for as the burst,
    /// so that one large body is slowed and not refused for ever.
    fn wait_s(&self, wanted: f64, rate: Rate) -> f64 {
        ((wanted.min(rate.burst) - self.tokens) / rate.per_second).max(0.0)
    }
}

/// Too fast; nothing was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooFast {
    pub(crate) retry_after_s: u32,
    /// The metric label: `address` or `device`.
    pub(crate) by: &'static str,
}

impl TooFast {
    fn after(wait_s: f64, by: &'static str) -> Self {
        Self { retry_after_s: (wait_s.ceil().clamp(1.0, 3_600.0)) as u32, by }
    }
}

/// All buckets of the HTTP door.
#[derive(Debug)]
pub(crate) struct Limiter {
    address_rate: Rate,
    device_rate: Rate,
    addresses: Mutex<Recent<IpAddr, Bucket>>,
    devices: Mutex<Recent<(IpAddr, ShortId), Bucket>>,
}

impl Limiter {
    pub(crate) fn new(address_rate: Rate, device_rate: Rate) -> Self {
        Self {
            address_rate,
            device_rate,
            addresses: Mutex::new(Recent::new(BUCKETS_MAX)),
            devices: Mutex::new(Recent::new(BUCKETS_MAX)),
        }
    }

    /// Charges one request to an address.
    pub(crate) fn request(&self, address: IpAddr, now: Instant) -> Result<(), TooFast> {
        let rate = self.address_rate;
        if rate.per_second <= 0.0 {
            return Ok(());
        }
        let mut addresses = self.addresses.lock();
        let bucket = addresses.touch(&block(address), || Bucket::full(rate, now));
        bucket.fill(rate, now);
        let wait_s = bucket.wait_s(1.0, rate);
        if wait_s > 0.0 {
            return Err(TooFast::after(wait_s, "address"));
        }
        bucket.tokens -= 1.0;
        Ok(())
    }

    /// Charges a body's frames to their devices: all of them or none.
    pub(crate) fn frames(
        &self,
        address: IpAddr,
        counts: &[(ShortId, usize)],
        now: Instant,
    ) -> Result<(), TooFast> {
        let rate = self.device_rate;
        if rate.per_second <= 0.0 {
            return Ok(());
        }
        let mut devices = self.devices.lock();
        let mut wait_s: f64 = 0.0;
        for (device, count) in counts {
            let bucket = devices.touch(&(block(address), *device), || Bucket::full(rate, now));
            bucket.fill(rate, now);
            wait_s = wait_s.max(bucket.wait_s(*count as f64, rate));
        }
        if wait_s > 0.0 {
            return Err(TooFast::after(wait_s, "device"));
        }
        for (device, count) in counts {
            // The balance may go below zero for a body larger than the burst: the debt slows the next one.
            devices.touch(&(block(address), *device), || Bucket::full(rate, now)).tokens -= *count as f64;
        }
        Ok(())
    }
}

/// The address a sender is counted under.
fn block(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const RATE: Rate = Rate { per_second: 10.0, burst: 20.0 };
    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    /// A burst passes, then the rate holds, and the wait named is enough.
    #[test]
    fn an_address_is_slowed_to_its_rate() {
        let limiter = Limiter::new(RATE, RATE);
        let start = Instant::now();
        for _ in 0..20 {
            limiter.request(HERE, start).unwrap();
        }
        let refused = limiter.request(HERE, start).unwrap_err();
        assert_eq!(refused, TooFast { retry_after_s: 1, by: "address" });
        let later = start + Duration::from_secs(u64::from(refused.retry_after_s));
        limiter.request(HERE, later).unwrap();
    }

    /// Frames are charged for all devices of a body or for none.
    #[test]
    fn a_body_is_charged_whole_or_not_at_all() {
        let limiter = Limiter::new(RATE, RATE);
        let now = Instant::now();
        let (a, b) = (ShortId([1; 8]), ShortId([2; 8]));
        limiter.frames(HERE, &[(a, 20)], now).unwrap();
        assert!(limiter.frames(HERE, &[(b, 20), (a, 1)], now).is_err());
        limiter.frames(HERE, &[(b, 20)], now).unwrap();
    }

    /// A body larger than the burst passes once and leaves a debt.
    #[test]
    fn a_large_body_leaves_a_debt() {
        let limiter = Limiter::new(RATE, RATE);
        let now = Instant::now();
        let device = ShortId([1; 8]);
        limiter.frames(HERE, &[(device, 120)], now).unwrap();
        let refused = limiter.frames(HERE, &[(device, 1)], now).unwrap_err();
        assert_eq!(refused, TooFast { retry_after_s: 11, by: "device" });
    }

    /// A stranger who sends a victim's kid does not empty the victim's bucket.
    #[test]
    fn another_address_has_its_own_bucket() {
        let limiter = Limiter::new(RATE, RATE);
        let now = Instant::now();
        let device = ShortId([1; 8]);
        let stranger = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
        limiter.frames(stranger, &[(device, 20)], now).unwrap();
        limiter.frames(HERE, &[(device, 20)], now).unwrap();
    }

    /// Addresses of one /64 share a bucket, an IPv4-mapped address is its IPv4 address.
    #[test]
    fn blocks_of_addresses() {
        assert_eq!(block("2001:db8::1".parse().unwrap()), block("2001:db8::ffff".parse().unwrap()));
        assert_ne!(block("2001:db8::1".parse().unwrap()), block("2001:db8:0:1::1".parse().unwrap()));
        assert_eq!(block("::ffff:127.0.0.1".parse().unwrap()), HERE);
    }
}
