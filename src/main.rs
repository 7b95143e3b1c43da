//! The `pronto` program: hands its words to the front and returns the front's exit code. Nothing else belongs here;
//! a newcomer looking for a verb wants `src/cli/` (how it is spelled) and `src/ops/` (what it does).

use std::process::ExitCode;

fn main() -> ExitCode {
    pronto::cli::main(std::env::args_os().collect())
}
