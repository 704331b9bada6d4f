//! How true: this package holds tests only. Nothing here is shipped and nobody depends on it.
//! All of it is one integration binary, `it/main.rs`.
