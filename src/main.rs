//! Parses the arguments, runs one command, and turns an error into a message and an exit code.

use std::process::ExitCode;

use clap::Parser as _;
use vestibule::cli::Cli;

/// The allocator. A sign-up makes many small allocations.
#[global_allocator]
static ALLOCATOR: vestibule_allocator::Allocator = vestibule_allocator::Allocator;

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let kind = error
        .downcast_ref::<std::io::Error>()
        .map(std::io::Error::kind);
    // An error during serialization is inside the JSON error.
    let within = || error.downcast_ref::<serde_json::Error>()?.io_error_kind();
    kind.or_else(within) == Some(std::io::ErrorKind::BrokenPipe)
}

fn main() -> ExitCode {
    vestibule_allocator::give_back_when_called();
    // Otherwise the system fills up huge pages again of which a part was given back. If it refuses, Vestibule uses more memory.
    #[cfg(target_os = "linux")]
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: the program cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let leaves_lookups = cli.leaves_lookups();
    let result = runtime.block_on(cli.run());
    if leaves_lookups {
        runtime.shutdown_background();
    }
    match result {
        Ok(code) => code,
        // The reader closed the output, as in `vestibule kratos hooks | head`.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
