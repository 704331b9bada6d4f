//! A seedable corpus of hostile frames.
