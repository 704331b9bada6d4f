//! Tests of the tree maths: see the end of this file's list.
