//! The program.

use std::process::ExitCode;

fn main() -> ExitCode {
    processor::program::main()
}
