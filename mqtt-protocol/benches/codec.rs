//! Micro-benchmarks of the codec: prints nanoseconds per operation.
fn main() {}
