//! The doors of the query side: they speak a protocol, obtain a warrant, call the engine, and nothing else.
//! No SQL is looked at here, no row is chosen, no consent is judged.
//!
//! | file | holds |
//! |---|---|
//! | [`http`] | the routes, `POST /v1/sql` among them |
//! | [`encode`] | result formats: NDJSON, CSV, Arrow stream, Parquet |
//! | [`answer`] | errors as clients see them: constant texts and a correlation id |
//! | [`limits`] | requests per address and party, refused tokens per address |
//! | [`metrics`] | counters |

pub mod answer;
pub mod encode;
pub mod http;
pub mod limits;
pub mod metrics;

pub use http::{DoorState, router};
pub use limits::{Limiter, Rates};
pub use metrics::Metrics;
