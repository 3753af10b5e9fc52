//! The `tidegate` binary: see the library.
fn main() {}
