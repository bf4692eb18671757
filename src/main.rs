//! `kept`: one binary, one verb a module in `cli/`.

mod bench;
mod check;
mod cli;
mod demo;
mod logs;
mod topology;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    end_quietly_with_the_pipe();
    match cli::Kept::parse().run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("kept: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// `kept … | head` closes our output before we are done; that is no fault of ours and no reason for a stack trace.
fn end_quietly_with_the_pipe() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let said = info.payload().downcast_ref::<String>().map(String::as_str).unwrap_or_default();
        if said.starts_with("failed printing to stdout") && said.contains("Broken pipe") {
            std::process::exit(141);
        }
        usual(info);
    }));
}
