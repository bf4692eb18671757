//! The folder that a stack lives in (`.kept`, or what `KEPT_HOME` names), and where in it each thing is.

use std::{
    fs,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use crate::processes::Processes;

#[derive(Clone, Debug)]
pub struct Home {
    root: PathBuf,
}

impl Home {
    /// `KEPT_HOME`, else `.kept` in the current folder.
    pub fn from_env() -> Result<Self> {
        Self::at(std::env::var_os("KEPT_HOME").filter(|it| !it.is_empty()).unwrap_or_else(|| ".kept".into()))
    }

    pub fn at(path: impl Into<PathBuf>) -> Result<Self> {
        let root = std::path::absolute(path.into()).context("find the current folder")?;
        Ok(Self { root })
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where commands find the servers: KEPT_KAFKA, KEPT_REGISTRY, KEPT_POSTGRES.
    pub fn env_file(&self) -> PathBuf {
        self.root.join("stack.env")
    }

    pub fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }

    pub fn log(&self, name: &str) -> PathBuf {
        self.logs().join(format!("{name}.log"))
    }

    /// Kept's own processes and the servers, side by side.
    pub fn processes(&self) -> Processes {
        Processes::at(self.root.join("pids"))
    }

    pub(super) fn ports_file(&self) -> PathBuf {
        self.root.join("ports.env")
    }

    pub(super) fn data(&self) -> PathBuf {
        self.root.join("data")
    }

    /// Says that the servers run in containers, so that `down` knows whom to ask.
    pub(super) fn docker_mark(&self) -> PathBuf {
        self.root.join("docker.env")
    }

    pub(super) fn make(&self) -> Result<()> {
        for folder in [self.root.clone(), self.data(), self.logs()] {
            fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
        }
        Ok(())
    }

    /// Held by one `up` or `down` at a time; the next one waits.
    pub(super) fn lock(&self) -> Result<Lock> {
        fs::create_dir_all(&self.root).with_context(|| format!("make {}", self.root.display()))?;
        Lock::take(&self.root.join("lock"))
    }

    /// A few letters that tell this folder from others, for names outside of it.
    pub(super) fn tag(&self) -> String {
        let hash = self
            .root
            .to_string_lossy()
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        format!("{hash:016x}")
    }
}

/// A lock that the system gives back when we end, however we end.
pub struct Lock {
    _file: fs::File,
}

impl Lock {
    pub fn take(path: &Path) -> Result<Self> {
        let file = fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)
            .with_context(|| format!("open {}", path.display()))?;
        loop {
            // SAFETY: flock takes a descriptor that `file` keeps open.
            if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX) } == 0 {
                return Ok(Self { _file: file });
            }
            let error = std::io::Error::last_os_error();
            if error.kind() != std::io::ErrorKind::Interrupted {
                return Err(error).with_context(|| format!("lock {}", path.display()));
            }
        }
    }
}
