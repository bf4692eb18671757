//! Processes that go on when we end: started apart from our terminal, written down, found again by the next command,
//! and ended only if they are still the ones that were written down (a number may belong to somebody else by then).

use std::{
    fs,
    io::{self, Read, Seek, SeekFrom},
    os::unix::{fs::OpenOptionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

/// A log larger than this is put aside when its process starts anew.
const LOG_BYTES: u64 = 16 * 1024 * 1024;

/// One process as it was started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    pub name: String,
    pub pid: i32,
    /// When it began, in the words of the system. A number used again belongs to a process that began at another time.
    pub began: String,
    pub log: PathBuf,
    /// Bytes that were in its log before it began.
    pub log_from: u64,
    /// The program, for people. Never its arguments: they may hold a secret.
    pub program: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    WasNotRunning,
    ByItself,
    /// It did not end in time and was killed.
    Killed,
}

/// The processes of one folder: `.kept/pids/`.
#[derive(Clone, Debug)]
pub struct Processes {
    folder: PathBuf,
}

impl Processes {
    pub fn at(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// Starts `command` in a session of its own, its output appended to `log`, and writes it down under `name`.
    /// One that runs under that name already is an error.
    pub fn spawn_detached(&self, name: &str, command: &mut Command, log: &Path) -> Result<Process> {
        if let Some(running) = self.running(name)? {
            bail!("{name} is running already (process {})", running.pid);
        }
        fs::create_dir_all(&self.folder).with_context(|| format!("make {}", self.folder.display()))?;
        if let Some(parent) = log.parent() {
            fs::create_dir_all(parent).with_context(|| format!("make {}", parent.display()))?;
        }
        if fs::metadata(log).is_ok_and(|it| it.len() > LOG_BYTES) {
            fs::rename(log, log.with_extension("log.old")).with_context(|| format!("put {} aside", log.display()))?;
        }
        let mut options = fs::OpenOptions::new();
        let out = options
            .create(true)
            .append(true)
            .mode(0o600)
            .open(log)
            .with_context(|| format!("open {}", log.display()))?;
        let log_from = out.metadata().map_or(0, |it| it.len());
        let program = command.get_program().to_string_lossy().into_owned();
        command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
        // SAFETY: setsid is async-signal-safe and touches no memory of ours.
        unsafe {
            command.pre_exec(|| match libc::setsid() {
                -1 => Err(io::Error::last_os_error()),
                _ => Ok(()),
            });
        }
        let mut child = command.spawn().with_context(|| format!("start {name} ({program})"))?;
        let pid = i32::try_from(child.id()).context("the system's process number")?;
        // Before anybody asks how it ended, so it is there to be looked at, even if it has ended already.
        let began = look(pid).with_context(|| format!("look at {name}, which was just started"))?.began;
        // Should we live longer than it, it must not stay behind as a zombie.
        thread::spawn(move || child.wait());
        let process = Process { name: name.to_owned(), pid, began, log: log.to_owned(), log_from, program };
        let text = serde_json::to_vec(&process)?;
        crate::servers::env_file::replace(&self.file(name), &text)?;
        Ok(process)
    }

    /// The process of this name, if it is there and still the one that was started.
    pub fn running(&self, name: &str) -> Result<Option<Process>> {
        Ok(self.read(&self.file(name))?.filter(Process::is_alive))
    }

    /// The last lines that the process of this name wrote in its last run, whether it still runs or not.
    pub fn last_words(&self, name: &str, lines: usize) -> Result<String> {
        Ok(self.read(&self.file(name))?.map_or(String::new(), |it| tail_from(&it.log, it.log_from, lines)))
    }

    /// All that run, by name. What is written down and runs no more is forgotten.
    pub fn all(&self) -> Result<Vec<Process>> {
        let mut found = Vec::new();
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
            Err(error) => return Err(error).with_context(|| format!("read {}", self.folder.display())),
        };
        for entry in entries {
            let path = entry?.path();
            if path.extension().is_none_or(|it| it != "json") {
                continue;
            }
            match self.read(&path)? {
                Some(process) if process.is_alive() => found.push(process),
                _ => forget(&path)?,
            }
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    /// Asks the process to end (SIGTERM) and kills it when it has not after `patience`.
    pub fn stop(&self, name: &str, patience: Duration) -> Result<Stopped> {
        self.stop_with(name, libc::SIGTERM, patience)
    }

    pub fn stop_with(&self, name: &str, signal: i32, patience: Duration) -> Result<Stopped> {
        let path = self.file(name);
        let Some(process) = self.read(&path)?.filter(Process::is_alive) else {
            forget(&path)?;
            return Ok(Stopped::WasNotRunning);
        };
        process.signal(signal)?;
        // One that was stopped (SIGSTOP) hears nothing else.
        process.signal(libc::SIGCONT)?;
        let stopped = if process.wait_gone(patience) {
            Stopped::ByItself
        } else {
            process.kill()?;
            Stopped::Killed
        };
        forget(&path)?;
        Ok(stopped)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.json"))
    }

    /// A file that cannot be understood counts as none: it can name no process that we may touch.
    fn read(&self, path: &Path) -> Result<Option<Process>> {
        match fs::read(path) {
            Ok(text) => Ok(serde_json::from_slice(&text).ok()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
        }
    }
}

impl Process {
    pub fn is_alive(&self) -> bool {
        began(self.pid).is_some_and(|it| it == self.began)
    }

    /// Sends a signal, if the process is still ours. One that is gone is no error.
    pub fn signal(&self, signal: i32) -> Result<()> {
        if self.is_alive() {
            signal_pid(self.pid, signal).with_context(|| format!("send signal {signal} to {}", self.name))?;
        }
        Ok(())
    }

    /// Sends a signal to the process and to all that it started: a database's sessions are processes of their own.
    pub fn signal_family(&self, signal: i32) -> Result<()> {
        if self.is_alive() {
            // The parent first: a postmaster that is stopped or dead starts no new child meanwhile.
            let family = descendants(self.pid);
            signal_pid(self.pid, signal).with_context(|| format!("send signal {signal} to {}", self.name))?;
            for pid in family {
                signal_pid(pid, signal).with_context(|| format!("send signal {signal} to a child of {}", self.name))?;
            }
        }
        Ok(())
    }

    /// kill -9, the whole family, and waits until it is gone.
    pub fn kill(&self) -> Result<()> {
        self.signal_family(libc::SIGKILL)?;
        if self.wait_gone(Duration::from_secs(10)) {
            return Ok(());
        }
        bail!("{} (process {}) was killed and is still there", self.name, self.pid)
    }

    pub fn wait_gone(&self, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        while self.is_alive() {
            if Instant::now() >= until {
                return false;
            }
            thread::sleep(Duration::from_millis(20));
        }
        true
    }
}

fn signal_pid(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: kill takes two numbers.
    if unsafe { libc::kill(pid, signal) } == 0 {
        return Ok(());
    }
    match io::Error::last_os_error() {
        error if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        error => Err(error),
    }
}

/// When the process began, in a form that is equal only for the same process; none when it is gone or a zombie.
fn began(pid: i32) -> Option<String> {
    look(pid).filter(|it| !it.zombie).map(|it| it.began)
}

struct Seen {
    began: String,
    /// It has ended, and nobody has asked how.
    zombie: bool,
}

fn look(pid: i32) -> Option<Seen> {
    if let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) {
        let fields = stat_fields(&stat)?;
        // Ticks since this boot, so the boot belongs to it.
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let began = format!("{} {}", fields.get(19)?, boot.trim());
        return Some(Seen { began, zombie: matches!(*fields.first()?, "Z" | "X") });
    }
    if Path::new("/proc/self/stat").exists() {
        return None;
    }
    let mut ps = Command::new("ps");
    let out = ps.args(["-o", "stat=,lstart=", "-p", &pid.to_string()]).env("LC_ALL", "C").output().ok()?;
    let text = String::from_utf8(out.stdout).ok()?;
    let (state, began) = text.trim().split_once(' ')?;
    Some(Seen { began: began.trim().to_owned(), zombie: state.starts_with('Z') })
}

/// The fields after the program's name, which may itself hold spaces and brackets; the first is the state.
fn stat_fields(stat: &str) -> Option<Vec<&str>> {
    Some(stat.rsplit_once(')')?.1.split_whitespace().collect())
}

fn descendants(root: i32) -> Vec<i32> {
    let mut parents: Vec<(i32, i32)> = Vec::new();
    if let Ok(entries) = fs::read_dir("/proc") {
        for entry in entries.flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|it| it.parse::<i32>().ok()) else { continue };
            let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
            if let Some(parent) = stat_fields(&stat).and_then(|it| it.get(1)?.parse().ok()) {
                parents.push((pid, parent));
            }
        }
    } else if let Ok(out) = Command::new("ps").args(["-A", "-o", "pid=,ppid="]).output() {
        for line in String::from_utf8_lossy(&out.stdout).lines() {
            let mut numbers = line.split_whitespace().filter_map(|it| it.parse().ok());
            if let (Some(pid), Some(parent)) = (numbers.next(), numbers.next()) {
                parents.push((pid, parent));
            }
        }
    }
    let mut family = vec![root];
    let mut at = 0;
    while at < family.len() {
        let parent = family[at];
        family.extend(parents.iter().filter(|it| it.1 == parent).map(|it| it.0));
        at += 1;
    }
    family.split_off(1)
}

/// The last `lines` lines of a log after byte `from`.
pub fn tail_from(log: &Path, from: u64, lines: usize) -> String {
    const ENOUGH: u64 = 64 * 1024;
    let read = || -> io::Result<String> {
        let mut file = fs::File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(from.max(length.saturating_sub(ENOUGH)).min(length)))?;
        let mut bytes = Vec::new();
        file.take(ENOUGH).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    match read() {
        Ok(text) => {
            let all: Vec<&str> = text.lines().collect();
            let kept = &all[all.len().saturating_sub(lines)..];
            kept.iter().map(|it| format!("    {it}")).collect::<Vec<_>>().join("\n")
        }
        Err(error) => format!("    ({} cannot be read: {error})", log.display()),
    }
}

fn forget(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("kept-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn processes(&self) -> Processes {
            Processes::at(self.0.join("pids"))
        }

        fn log(&self) -> PathBuf {
            self.0.join("it.log")
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn sleeper() -> Command {
        let mut command = Command::new("sleep");
        command.arg("60");
        command
    }

    #[test]
    fn a_process_is_found_again_and_ends_when_asked() {
        let folder = Folder::new("found");
        let processes = folder.processes();
        let started = processes.spawn_detached("it", &mut sleeper(), &folder.log()).unwrap();
        // A second look, as another command would have it.
        let found = folder.processes().all().unwrap();
        assert_eq!(found, vec![started.clone()]);
        assert!(processes.spawn_detached("it", &mut sleeper(), &folder.log()).is_err(), "twice under one name");
        assert_eq!(processes.stop("it", Duration::from_secs(5)).unwrap(), Stopped::ByItself);
        assert!(!started.is_alive());
        assert_eq!(processes.stop("it", Duration::from_secs(5)).unwrap(), Stopped::WasNotRunning);
        assert_eq!(processes.all().unwrap(), vec![]);
    }

    #[test]
    fn a_number_that_belongs_to_somebody_else_by_now_is_left_alone() {
        let folder = Folder::new("reused");
        let processes = folder.processes();
        let started = processes.spawn_detached("theirs", &mut sleeper(), &folder.log()).unwrap();
        let stale = Process { name: "ours".into(), began: "1 another boot".into(), ..started.clone() };
        fs::write(processes.file("ours"), serde_json::to_vec(&stale).unwrap()).unwrap();
        assert_eq!(processes.running("ours").unwrap(), None);
        assert_eq!(processes.stop("ours", Duration::from_secs(5)).unwrap(), Stopped::WasNotRunning);
        stale.kill().unwrap();
        assert!(started.is_alive(), "a process that only has the same number was ended");
        processes.stop("theirs", Duration::from_secs(5)).unwrap();
    }

    #[test]
    fn one_that_hears_nothing_is_killed_with_its_children() {
        let folder = Folder::new("deaf");
        let processes = folder.processes();
        let mut command = Command::new("sh");
        command.args(["-c", "trap '' TERM; sleep 61 & echo $!; while true; do sleep 1; done"]);
        let started = processes.spawn_detached("deaf", &mut command, &folder.log()).unwrap();
        let until = Instant::now() + Duration::from_secs(10);
        let child: i32 = loop {
            if let Ok(pid) = fs::read_to_string(folder.log()).unwrap_or_default().trim().parse() {
                break pid;
            }
            assert!(Instant::now() < until, "the child tells its number");
            thread::sleep(Duration::from_millis(10));
        };
        assert_eq!(processes.stop("deaf", Duration::from_millis(200)).unwrap(), Stopped::Killed);
        assert!(!started.is_alive());
        let until = Instant::now() + Duration::from_secs(10);
        while began(child).is_some() {
            assert!(Instant::now() < until, "the child outlived its parent");
            thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn a_process_that_was_stopped_still_ends_when_asked() {
        let folder = Folder::new("paused");
        let processes = folder.processes();
        let started = processes.spawn_detached("paused", &mut sleeper(), &folder.log()).unwrap();
        started.signal(libc::SIGSTOP).unwrap();
        assert_eq!(processes.stop("paused", Duration::from_secs(5)).unwrap(), Stopped::ByItself);
    }

    #[test]
    fn the_last_words_are_those_of_this_run() {
        let folder = Folder::new("words");
        let processes = folder.processes();
        fs::write(folder.log(), "of an older run\n").unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo one; echo two; echo three; exec sleep 60"]);
        processes.spawn_detached("it", &mut command, &folder.log()).unwrap();
        let until = Instant::now() + Duration::from_secs(10);
        while !processes.last_words("it", 9).unwrap().contains("three") {
            assert!(Instant::now() < until);
            thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(processes.last_words("it", 9).unwrap(), "    one\n    two\n    three");
        assert_eq!(processes.last_words("it", 1).unwrap(), "    three");
        processes.stop("it", Duration::from_secs(5)).unwrap();
        assert_eq!(processes.last_words("nobody", 9).unwrap(), "");
    }

    #[test]
    fn one_that_ends_at_once_is_not_running_and_its_words_are_there() {
        let folder = Folder::new("short");
        let processes = folder.processes();
        let mut command = Command::new("sh");
        let started = processes.spawn_detached("it", command.args(["-c", "echo no; exit 1"]), &folder.log()).unwrap();
        assert!(started.wait_gone(Duration::from_secs(10)));
        assert_eq!(processes.running("it").unwrap(), None);
        assert_eq!(processes.last_words("it", 5).unwrap(), "    no");
    }

    #[test]
    fn the_fields_of_a_process_are_read_after_its_name_whatever_it_holds() {
        let fields = stat_fields("12 (a) b (c)) S 1 2 3").unwrap();
        assert_eq!(fields, ["S", "1", "2", "3"]);
    }
}
