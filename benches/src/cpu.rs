//! What a process has used, from `/proc`.

use std::fs;

use anyhow::{Context, Result};

/// CPU time and memory of one process.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Usage {
    /// User and system time, all threads, in seconds.
    pub cpu_seconds: f64,
    /// Largest resident set so far, in bytes.
    pub peak_bytes: u64,
}

/// Usage of process `pid`; `None` when it is gone.
pub fn of(pid: u32) -> Option<Usage> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything, so count fields from its end: utime and stime are the 12th and 13th.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks: f64 = fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let peak_kib: u64 = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|text| text.parse().ok())
        .unwrap_or(0);
    Some(Usage { cpu_seconds: ticks / ticks_per_second(), peak_bytes: peak_kib * 1024 })
}

/// Processor time of this process so far, in seconds.
///
/// # Errors
/// Where there is no `/proc`.
pub fn own_seconds() -> Result<f64> {
    let usage = of(std::process::id()).context("processor time is read from /proc, which needs Linux")?;
    Ok(usage.cpu_seconds)
}

fn ticks_per_second() -> f64 {
    // SAFETY: sysconf only reads a constant of the system.
    let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    if ticks > 0 { ticks as f64 } else { 100.0 }
}

#[cfg(test)]
mod tests {
    #[test]
    fn this_process_has_used_memory() {
        let usage = super::of(std::process::id()).expect("we are running");
        assert!(usage.peak_bytes > 0);
    }
}
