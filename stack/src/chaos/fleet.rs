//! Kept's own processes under chaos: started, hit, and started again when they end, as a supervisor would.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use super::schedule::Part;
use crate::processes::{Process, Processes, tail_from};

/// How long a process is down before it is started again.
const RESTART_AFTER: Duration = Duration::from_secs(1);
/// The most lines of a log that are told.
const LAST_WORDS: usize = 3;

/// How to start one of Kept's processes.
#[derive(Debug, Clone)]
pub struct Plan {
    pub name: String,
    pub part: Part,
    pub args: Vec<String>,
    /// Beside the fleet's own.
    pub env: Vec<(String, String)>,
    /// Where its metrics are.
    pub ops: Option<u16>,
}

struct Member {
    plan: Plan,
    process: Option<Process>,
    /// It should run.
    wanted: bool,
    down_since: Option<Instant>,
    /// We ended it ourselves.
    hit: bool,
}

/// A process that ended though nobody had hit it.
#[derive(Debug, Clone)]
pub struct Death {
    pub name: String,
    pub last_words: String,
    /// Seconds from the fleet's start.
    pub second: u64,
}

/// How processes and commands are started, and with what.
#[derive(Debug, Clone)]
pub struct Launcher {
    pub processes: Processes,
    pub program: PathBuf,
    /// Where they run, so that no configuration of the user's is read.
    pub folder: PathBuf,
    pub logs: PathBuf,
    pub env: Vec<(String, String)>,
}

/// The processes that run, and should.
pub struct Fleet {
    launcher: Launcher,
    members: Vec<Member>,
    deaths: Vec<Death>,
    restarts: u64,
    began: Instant,
}

impl Fleet {
    pub fn new(launcher: Launcher) -> Self {
        Self { launcher, members: Vec::new(), deaths: Vec::new(), restarts: 0, began: Instant::now() }
    }

    /// Another value for one of the variables that all have; it counts from a process's next start.
    pub fn set_env(&mut self, name: &str, value: &str) {
        self.launcher.env.retain(|it| it.0 != name);
        self.launcher.env.push((name.to_owned(), value.to_owned()));
    }

    /// Starts a process and looks after it from now on.
    pub fn start(&mut self, plan: Plan) -> Result<()> {
        let mut member = Member { plan, process: None, wanted: true, down_since: None, hit: false };
        member.process = Some(self.launcher.start(&member.plan)?);
        self.members.push(member);
        Ok(())
    }

    /// Starts again what has ended and should run. Gives the names of those that began anew.
    pub fn look_after(&mut self) -> Result<Vec<String>> {
        let mut began = Vec::new();
        for at in 0..self.members.len() {
            let member = &mut self.members[at];
            if !member.wanted || member.process.as_ref().is_some_and(Process::is_alive) {
                continue;
            }
            if let Some(process) = member.process.take() {
                member.down_since = Some(Instant::now());
                if !std::mem::take(&mut member.hit) {
                    self.deaths.push(Death {
                        name: member.plan.name.clone(),
                        last_words: tail_from(&process.log, process.log_from, LAST_WORDS),
                        second: self.began.elapsed().as_secs(),
                    });
                }
            }
            if self.members[at].down_since.is_some_and(|it| it.elapsed() >= RESTART_AFTER) {
                let process = self.launcher.start(&self.members[at].plan)?;
                let member = &mut self.members[at];
                member.process = Some(process);
                member.down_since = None;
                self.restarts += 1;
                began.push(member.plan.name.clone());
            }
        }
        Ok(began)
    }

    /// kill -9.
    pub fn kill(&mut self, name: &str) -> Result<()> {
        let member = self.member(name)?;
        if let Some(process) = &member.process {
            // Said before it is done: it may be found dead at once.
            member.hit = true;
            process.kill()?;
        }
        Ok(())
    }

    /// Asks a process to end (SIGTERM); it is started again.
    pub fn restart(&mut self, name: &str) -> Result<()> {
        let member = self.member(name)?;
        member.hit = true;
        match &member.process {
            Some(process) => process.signal(libc::SIGTERM),
            None => Ok(()),
        }
    }

    /// SIGSTOP or SIGCONT. One that is down now is no error.
    pub fn signal(&mut self, name: &str, signal: i32) -> Result<()> {
        match &self.member(name)?.process {
            Some(process) => process.signal(signal),
            None => Ok(()),
        }
    }

    /// Asks a process to end (SIGTERM) and looks after it no more.
    pub fn let_go(&mut self, name: &str) -> Result<()> {
        let member = self.member(name)?;
        member.wanted = false;
        if let Some(process) = &member.process {
            process.signal(libc::SIGTERM)?;
            process.signal(libc::SIGCONT)?;
        }
        Ok(())
    }

    /// Forgets a process that was let go; one that has not ended by now is killed.
    pub fn forget(&mut self, name: &str) -> Result<()> {
        if let Some(process) = self.member(name)?.process.take() {
            process.kill()?;
        }
        self.members.retain(|it| it.plan.name != name);
        Ok(())
    }

    /// The name of the `which`-th process of a part.
    pub fn name(part: Part, which: u8) -> String {
        if part.processes() == 1 { part.name().to_owned() } else { format!("{}-{}", part.name(), which + 1) }
    }

    pub fn plan(&mut self, name: &str) -> Result<Plan> {
        Ok(self.member(name)?.plan.clone())
    }

    /// The names of a part's processes.
    pub fn of(&self, part: Part) -> Vec<String> {
        self.members.iter().filter(|it| it.plan.part == part).map(|it| it.plan.name.clone()).collect()
    }

    /// Who has metrics, and where.
    pub fn pages(&self) -> Vec<(String, u16)> {
        let all = self.members.iter().filter(|it| it.process.is_some());
        all.filter_map(|it| Some((it.plan.name.clone(), it.plan.ops?))).collect()
    }

    pub fn deaths(&self) -> &[Death] {
        &self.deaths
    }

    pub fn restarts(&self) -> u64 {
        self.restarts
    }

    /// Deaths of a part so far, by itself.
    pub fn deaths_of(&self, part: Part) -> usize {
        let names = self.of(part);
        self.deaths.iter().filter(|it| names.contains(&it.name)).count()
    }

    fn member(&mut self, name: &str) -> Result<&mut Member> {
        self.members.iter_mut().find(|it| it.plan.name == name).with_context(|| format!("there is no process {name}"))
    }
}

impl Launcher {
    /// Starts a process that nobody looks after.
    pub fn start(&self, plan: &Plan) -> Result<Process> {
        let mut command = self.prepared(&plan.args, &plan.env);
        self.processes.spawn_detached(&plan.name, &mut command, &self.logs.join(format!("{}.log", plan.name)))
    }

    /// Runs one command to its end and gives what it printed.
    pub fn command(&self, args: &[&str], env: &[(String, String)]) -> Result<String> {
        let output = self.prepared(args, env).output().with_context(|| format!("run kept {}", args.join(" ")))?;
        let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if output.status.success() {
            return Ok(said(&output.stdout));
        }
        let words = format!("{}\n{}", said(&output.stdout), said(&output.stderr));
        anyhow::bail!("kept {} ended with {}: {}", args.join(" "), output.status, words.trim())
    }

    fn prepared(&self, args: &[impl AsRef<str>], env: &[(String, String)]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(args.iter().map(AsRef::as_ref)).current_dir(&self.folder);
        // What the user configured is about another deployment.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("KEPT_")) {
            command.env_remove(name);
        }
        command.envs(self.env.iter().chain(env).map(|(name, value)| (name, value)));
        command
    }
}

/// A port that is free now.
pub fn free_port() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").context("look for a free port")?;
    Ok(listener.local_addr()?.port())
}

/// True when the log of a process has this in it.
pub fn log_says(log: &Path, from: u64, words: &str) -> bool {
    let text = fs::read(log).unwrap_or_default();
    let from = usize::try_from(from).unwrap_or(0).min(text.len());
    String::from_utf8_lossy(&text[from..]).contains(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fleet(name: &str) -> (Fleet, PathBuf) {
        let folder = std::env::temp_dir().join(format!("kept-fleet-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("made");
        let env = vec![("GREETING".to_owned(), "hello".to_owned())];
        let launcher = Launcher {
            processes: Processes::at(folder.join("pids")),
            program: "/bin/sh".into(),
            folder: folder.clone(),
            logs: folder.clone(),
            env,
        };
        (Fleet::new(launcher), folder)
    }

    fn plan(name: &str, script: &str) -> Plan {
        Plan {
            name: name.into(),
            part: Part::Timers,
            args: vec!["-c".into(), script.into()],
            env: Vec::new(),
            ops: Some(1),
        }
    }

    fn until(fleet: &mut Fleet, done: impl Fn(&Fleet, &[String]) -> bool) -> bool {
        let until = Instant::now() + Duration::from_secs(10);
        while Instant::now() < until {
            let began = fleet.look_after().expect("looked after");
            if done(fleet, &began) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        false
    }

    #[test]
    fn one_that_is_killed_is_started_again_and_its_death_is_ours() {
        let (mut fleet, folder) = fleet("killed");
        fleet.start(plan("a", "sleep 60")).expect("started");
        fleet.kill("a").expect("killed");
        assert!(until(&mut fleet, |_, began| began == ["a"]));
        assert!(fleet.deaths().is_empty());
        assert_eq!(fleet.restarts(), 1);
        fleet.let_go("a").expect("asked");
        fleet.forget("a").expect("forgotten");
        assert!(fleet.pages().is_empty());
        fs::remove_dir_all(folder).expect("removed");
    }

    #[test]
    fn one_that_ends_by_itself_is_named_with_its_last_words() {
        let (mut fleet, folder) = fleet("alone");
        fleet.start(plan("b", "sleep 0.3; echo \"$GREETING, I cannot go on\"; exit 1")).expect("started");
        assert!(until(&mut fleet, |it, _| !it.deaths().is_empty()));
        assert_eq!(fleet.deaths()[0].name, "b");
        assert!(fleet.deaths()[0].last_words.contains("hello, I cannot go on"), "{:?}", fleet.deaths());
        assert_eq!(fleet.deaths_of(Part::Timers), 1);
        fleet.let_go("b").expect("asked");
        fleet.forget("b").expect("forgotten");
        fs::remove_dir_all(folder).expect("removed");
    }

    #[test]
    fn a_command_that_fails_says_what_it_said() {
        let (fleet, folder) = fleet("command");
        assert_eq!(fleet.launcher.command(&["-c", "echo $GREETING"], &[]).expect("it ran"), "hello");
        let error = fleet.launcher.command(&["-c", "echo why; exit 3"], &[]).expect_err("it failed").to_string();
        assert!(error.contains("why") && error.contains('3'), "{error}");
        fs::remove_dir_all(folder).expect("removed");
    }
}
