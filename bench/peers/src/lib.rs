//! What the intake carries, and what others carry on the same frames in the same run.
//!
//! | file | holds |
//! |---|---|
//! | [`shape`] | the two kinds of frames |
//! | [`corpus`] | frames signed beforehand, in a file |
//! | [`load`] | sending them over MQTT or HTTP, verdicts and times |
//! | [`idle`] | connections that say nothing |
//! | [`crash`] | kill -9 under load, again and again, and nothing lost or doubled |
//! | [`wire`] | the MQTT packets of a publisher |
//! | [`station`] | a vitalog server seen from outside |
//! | [`peers`] | what others carry: brokers, bridges, stores |
//! | [`machine`] | where a run was |
//! | [`daemon`], [`server`] | processes that are started here, and end here |
//! | [`process`], [`histogram`] | what a process cost, and times |
//!
//! What it is not: a part of the server or a client library. It knows the formats in `schemas` and the contract of the
//! doors. It downloads nothing and talks to loopback addresses only.
#![forbid(unsafe_code)]

pub mod corpus;
pub mod crash;
pub mod daemon;
pub mod histogram;
pub mod idle;
pub mod load;
pub mod machine;
pub mod peers;
pub mod process;
pub mod server;
pub mod shape;
pub mod station;
pub mod wire;
