//! The program with its fail points compiled in, for tests that end or stop it at a chosen step. Never released.

use std::process::ExitCode;

fn main() -> ExitCode {
    if let Err(error) = processor::fail_points::arm() {
        eprintln!("FAIL_POINT: {error}");
        return ExitCode::from(2);
    }
    processor::program::main()
}
