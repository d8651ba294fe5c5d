//! Tests of the registry, in one binary.

mod adapters;
