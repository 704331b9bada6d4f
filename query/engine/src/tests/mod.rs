//! Tests of the engine as a whole, on files whose hidden rows lie in the same row group and the same batch as
//! the visible ones.

mod attacks;
mod fixture;
mod oracle;
mod people;
mod stream;
