//! Token buckets of the query side: requests per address, requests per party, refused tokens per address.
//!
//! An address is charged before its token is looked at, a party after: only a good token can empty a party's bucket, so
//! nobody slows another by using their name. IPv6 senders are counted by their /64, the smallest block one subscriber
//! gets. What it is not: a defence of the lake's cost (the engine bounds that), or exact: maps are bounded, and what was
//! not touched for longest is forgotten.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::{ConnectInfo, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use schemas_identity::Did;

use crate::answer::Answer;
use crate::metrics::Metrics;

/// Seconds of its rate that a quiet sender may use up at once.
const BURST_SECONDS: f64 = 10.0;
/// Most addresses, and most parties, remembered at a time (about 5 MB in all).
const BUCKETS_MAX: usize = 32_768;
/// Longest wait that is named, seconds.
const RETRY_AFTER_S_MAX: f64 = 3_600.0;

/// Events per second, ten times as many at once; 0 = no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rates {
    /// Requests of one address, whatever their token.
    pub address: u32,
    /// Requests of one party, from wherever.
    pub party: u32,
    /// Requests of one address whose token was refused; beyond it no token from there is looked at.
    pub refused: u32,
}

impl Default for Rates {
    /// A thousand for an address (a hospital may be one), a hundred for a party, five refused ones.
    fn default() -> Self {
        Self { address: 1_000, party: 100, refused: 5 }
    }
}

/// Too fast; nothing was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooFast {
    /// Seconds after which it may be tried again.
    pub retry_after_s: u32,
    /// What was too fast: `address`, `party` or `refused`.
    pub by: &'static str,
}

/// All buckets.
#[derive(Debug)]
pub struct Limiter {
    address: Buckets<IpAddr>,
    party: Buckets<Did>,
    refused: Buckets<IpAddr>,
}

impl Limiter {
    /// Full buckets of these rates.
    #[must_use]
    pub fn new(rates: Rates) -> Self {
        Self {
            address: Buckets::new(rates.address, "address"),
            party: Buckets::new(rates.party, "party"),
            refused: Buckets::new(rates.refused, "refused"),
        }
    }

    /// Charges a request to its address, and asks whether too many tokens from there were refused.
    ///
    /// # Errors
    /// If either is too fast.
    pub fn request(&self, address: IpAddr, now: Instant) -> Result<(), TooFast> {
        let block = block(address);
        self.address.take(&block, now)?;
        self.refused.look(&block, now)
    }

    /// Charges a refused token to its address.
    pub fn refused(&self, address: IpAddr, now: Instant) {
        // The last one it had room for; the next request is stopped before its token is looked at.
        let _ = self.refused.take(&block(address), now);
    }

    /// Charges a request to its party.
    ///
    /// # Errors
    /// If it is too fast.
    pub fn party(&self, party: &Did, now: Instant) -> Result<(), TooFast> {
        self.party.take(party, now)
    }
}

/// Buckets of one rate. Two generations: a touched bucket moves to the young one; when that is full the old one goes.
#[derive(Debug)]
struct Buckets<K> {
    per_second: f64,
    by: &'static str,
    generations: parking_lot::Mutex<Generations<K>>,
}

#[derive(Debug)]
struct Generations<K> {
    young: HashMap<K, Bucket>,
    old: HashMap<K, Bucket>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    filled_at: Instant,
}

impl<K: Hash + Eq + Clone> Buckets<K> {
    fn new(per_second: u32, by: &'static str) -> Self {
        let generations = Generations { young: HashMap::new(), old: HashMap::new() };
        Self { per_second: f64::from(per_second), by, generations: parking_lot::Mutex::new(generations) }
    }

    fn take(&self, key: &K, now: Instant) -> Result<(), TooFast> {
        self.charge(key, now, 1.0)
    }

    /// As [`Buckets::take`], and takes nothing.
    fn look(&self, key: &K, now: Instant) -> Result<(), TooFast> {
        self.charge(key, now, 0.0)
    }

    fn charge(&self, key: &K, now: Instant, cost: f64) -> Result<(), TooFast> {
        if self.per_second <= 0.0 {
            return Ok(());
        }
        let burst = self.per_second * BURST_SECONDS;
        let mut generations = self.generations.lock();
        let bucket = generations.touch(key, || Bucket { tokens: burst, filled_at: now });
        let elapsed_s = now.saturating_duration_since(bucket.filled_at).as_secs_f64();
        bucket.tokens = (bucket.tokens + elapsed_s * self.per_second).min(burst);
        bucket.filled_at = now;
        if bucket.tokens < 1.0 {
            let wait_s = (1.0 - bucket.tokens) / self.per_second;
            let retry_after_s = wait_s.ceil().clamp(1.0, RETRY_AFTER_S_MAX) as u32;
            return Err(TooFast { retry_after_s, by: self.by });
        }
        bucket.tokens -= cost;
        Ok(())
    }
}

impl<K: Hash + Eq + Clone> Generations<K> {
    fn touch(&mut self, key: &K, fresh: impl FnOnce() -> Bucket) -> &mut Bucket {
        if !self.young.contains_key(key) && self.young.len() >= BUCKETS_MAX / 2 {
            self.old = std::mem::take(&mut self.young);
        }
        let old = &mut self.old;
        self.young.entry(key.clone()).or_insert_with(|| old.remove(key).unwrap_or_else(fresh))
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

/// Routes whose requests are charged to their addresses; an answer 401 is a refused token.
///
/// The address is that of `ConnectInfo<SocketAddr>` among the request's extensions; without it all senders are one.
pub fn limited(routes: Router, limiter: Arc<Limiter>, metrics: Metrics) -> Router {
    routes.route_layer(from_fn_with_state((limiter, metrics), guard))
}

async fn guard(
    State((limiter, metrics)): State<(Arc<Limiter>, Metrics)>,
    request: Request,
    next: Next,
) -> Response {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
    let address = peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |ConnectInfo(peer)| peer.ip());
    if let Err(fast) = limiter.request(address, Instant::now()) {
        metrics.limited.with_label_values(&[fast.by]).inc();
        return Answer::too_fast(fast.retry_after_s, fast.by).into_response();
    }
    let response = next.run(request).await;
    if response.status() == StatusCode::UNAUTHORIZED {
        metrics.refused.inc();
        limiter.refused(address, Instant::now());
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use schemas_identity::SecretKey;
    use std::time::Duration;

    const RATES: Rates = Rates { address: 10, party: 2, refused: 1 };
    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const THERE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

    /// Guarantee: a burst passes, then the rate holds, and the wait named is enough; another address is not slowed.
    #[test]
    fn an_address_is_slowed_to_its_rate() {
        let limiter = Limiter::new(RATES);
        let start = Instant::now();
        for _ in 0..100 {
            limiter.request(HERE, start).unwrap();
        }
        let fast = limiter.request(HERE, start).unwrap_err();
        assert_eq!(fast, TooFast { retry_after_s: 1, by: "address" });
        limiter.request(THERE, start).unwrap();
        limiter.request(HERE, start + Duration::from_secs(u64::from(fast.retry_after_s))).unwrap();
    }

    /// Guarantee: after as many refused tokens as are allowed an address is stopped before its next token is looked at,
    /// for as long as is said; good requests cost nothing of that.
    #[test]
    fn refused_tokens_stop_an_address() {
        let limiter = Limiter::new(RATES);
        let start = Instant::now();
        for _ in 0..10 {
            limiter.request(HERE, start).unwrap();
            limiter.request(HERE, start).unwrap();
            limiter.refused(HERE, start);
        }
        let fast = limiter.request(HERE, start).unwrap_err();
        assert_eq!(fast, TooFast { retry_after_s: 1, by: "refused" });
        limiter.request(THERE, start).unwrap();
        limiter.request(HERE, start + Duration::from_secs(1)).unwrap();
    }

    /// Guarantee: a party has one bucket wherever it asks from, and 0 is no limit.
    #[test]
    fn a_party_is_slowed_everywhere() {
        let limiter = Limiter::new(RATES);
        let free = Limiter::new(Rates { address: 0, party: 0, refused: 0 });
        let did = |seed: u8| SecretKey::from_seed(&[seed; 32]).public().did();
        let now = Instant::now();
        for _ in 0..20 {
            limiter.party(&did(1), now).unwrap();
        }
        assert_eq!(limiter.party(&did(1), now), Err(TooFast { retry_after_s: 1, by: "party" }));
        limiter.party(&did(2), now).unwrap();
        for _ in 0..10_000 {
            free.request(HERE, now).unwrap();
            free.refused(HERE, now);
            free.party(&did(1), now).unwrap();
        }
    }

    /// Guarantee: a million addresses are not a million buckets, and one in use is not forgotten for them.
    #[test]
    fn buckets_are_bounded() {
        let limiter = Limiter::new(Rates { address: 1, ..RATES });
        let now = Instant::now();
        let mut passed = 0;
        for number in 0..100_000_u32 {
            limiter.request(IpAddr::V4(Ipv4Addr::from_bits(number)), now).unwrap();
            passed += usize::from(limiter.request(THERE, now).is_ok());
        }
        let generations = limiter.address.generations.lock();
        assert!(generations.young.len() + generations.old.len() <= BUCKETS_MAX);
        assert_eq!(passed, 10);
    }

    /// Guarantee: addresses of one /64 share a bucket, an IPv4-mapped address is its IPv4 address.
    #[test]
    fn blocks_of_addresses() {
        let parsed = |text: &str| block(text.parse().unwrap());
        assert_eq!(parsed("2001:db8::1"), parsed("2001:db8::ffff"));
        assert_ne!(parsed("2001:db8::1"), parsed("2001:db8:0:1::1"));
        assert_eq!(parsed("::ffff:127.0.0.1"), HERE);
    }
}
