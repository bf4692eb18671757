//! `kept`: one binary, one verb a module in `cli/`.

mod cli;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match cli::Kept::parse().run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("kept: {error:#}");
            ExitCode::FAILURE
        }
    }
}
