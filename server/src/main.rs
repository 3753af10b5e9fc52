//! The `tidegate` binary: takes arguments and environment, hands them to the library, exits with its code.

use std::process::ExitCode;

use tidegate::config::Environment;

// The system's allocator keeps what many small queues gave back for longer and is slower under many threads: see
// docs/decisions/0007-allocator.md.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    tidegate::cli::run(std::env::args_os(), &Environment::of_process())
}
