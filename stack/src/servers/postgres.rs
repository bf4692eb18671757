//! Postgres, with a cluster of its own: never the system's, never as root (it refuses that), with a password, because
//! every user of the machine can reach a loopback port.

use std::{
    ffi::CString,
    fs,
    os::unix::{ffi::OsStrExt, fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};

use super::{env_file, home::Home, install::run_logged, random, registry};

/// The role that Kept works as. It owns its databases and is no superuser.
pub const ROLE: &str = "kept";
pub const DATABASE: &str = "kept";
const SUPERUSER: &str = "postgres";

pub struct Files {
    pub programs: PathBuf,
    /// Owned by whom Postgres runs as.
    pub folder: PathBuf,
    pub log: PathBuf,
    pub port: u16,
    /// Whether a commit waits for the disk. Without, a test is quicker, and a power cut may lose what was committed;
    /// a killed Postgres loses nothing either way.
    pub durable: bool,
    user: Option<User>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct User {
    uid: u32,
    gid: u32,
}

impl Files {
    pub fn new(home: &Home, programs: PathBuf, port: u16, durable: bool) -> Result<Self> {
        // SAFETY: geteuid always succeeds.
        let user = if unsafe { libc::geteuid() } == 0 { Some(other_user()?) } else { None };
        let folder = folder(home, user)?;
        Ok(Self { programs, folder, log: home.log("postgres"), port, durable, user })
    }

    fn cluster(&self) -> PathBuf {
        self.folder.join("cluster")
    }

    fn program(&self, name: &str) -> Command {
        let mut command = Command::new(self.programs.join(name));
        // What a user has set for other databases is not for this one.
        for (key, _) in std::env::vars_os().filter(|(key, _)| key.as_bytes().starts_with(b"PG")) {
            command.env_remove(key);
        }
        command.env("LC_ALL", "C").current_dir("/");
        command
    }

    fn as_user(&self, name: &str) -> Command {
        let mut command = self.program(name);
        if let Some(User { uid, gid }) = self.user {
            command.uid(uid).gid(gid);
        }
        command
    }
}

/// Makes the cluster, the first time. Gives the password.
pub fn prepare(files: &Files) -> Result<String> {
    make_owned(&files.folder, files.user)?;
    let secret = files.folder.join("password");
    let password = match fs::read_to_string(&secret) {
        Ok(text) => text.trim().to_owned(),
        Err(_) => {
            let password = random::letters(24)?;
            env_file::replace(&secret, password.as_bytes())?;
            own(&secret, files.user)?;
            password
        }
    };
    if !files.cluster().exists() {
        let beside = files.folder.join("cluster.part");
        if beside.exists() {
            fs::remove_dir_all(&beside).with_context(|| format!("remove {}", beside.display()))?;
        }
        let mut make = files.as_user("initdb");
        make.arg("--pgdata").arg(&beside).arg("--pwfile").arg(&secret);
        make.args(["--username", SUPERUSER, "--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C"]);
        run_logged(&files.log, "initdb", &mut make, Duration::from_secs(300))?;
        fs::rename(&beside, files.cluster()).context("put the new cluster in place")?;
    }
    Ok(password)
}

pub fn command(files: &Files) -> Command {
    let mut command = files.as_user("postgres");
    command.arg("-D").arg(files.cluster());
    let port = format!("port={}", files.port);
    let mut settings = vec![
        port.as_str(),
        "listen_addresses=127.0.0.1",
        // Paths of sockets have a length limit that a deep folder passes.
        "unix_socket_directories=",
        "max_connections=200",
        "shared_buffers=256MB",
        "max_wal_size=4GB",
        "checkpoint_timeout=15min",
        "timezone=UTC",
        "log_timezone=UTC",
        "log_line_prefix=%m [%p] ",
    ];
    if !files.durable {
        settings.extend(["fsync=off", "full_page_writes=off"]);
    }
    for setting in settings {
        command.args(["-c", setting]);
    }
    command
}

/// Makes Kept's role and the databases, where they are not there yet. Postgres must be up.
pub fn make_databases(files: &Files, password: &str) -> Result<()> {
    use std::io::Write;
    let mut psql = files.program("psql");
    psql.args([
        "--no-psqlrc",
        "--quiet",
        "--tuples-only",
        "--no-align",
        "-v",
        "ON_ERROR_STOP=1",
        "--host",
        "127.0.0.1",
    ]);
    psql.args(["--port", &files.port.to_string(), "--username", SUPERUSER, "--dbname", "postgres", "--file", "-"]);
    // The script goes by standard input: others can read the arguments of a process.
    psql.env("PGPASSWORD", password).env("PGCONNECT_TIMEOUT", "10");
    psql.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = psql.spawn().context("start psql")?;
    child.stdin.take().context("psql reads no script")?.write_all(script(password).as_bytes())?;
    let out = child.wait_with_output().context("wait for psql")?;
    if !out.status.success() {
        bail!("the databases could not be made: {}", String::from_utf8_lossy(&out.stderr).trim());
    }
    Ok(())
}

pub fn url(port: u16, password: &str) -> String {
    format!("postgresql://{ROLE}:{password}@127.0.0.1:{port}/{DATABASE}")
}

pub fn probe(files: &Files) -> Result<(), String> {
    let mut ready = files.program("pg_isready");
    ready.args(["--host", "127.0.0.1", "--port", &files.port.to_string(), "--timeout", "3", "--dbname", "postgres"]);
    let out = ready.output().map_err(|error| error.to_string())?;
    if out.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&out.stdout).trim().to_owned()) }
}

/// Where the data is: in `.kept`, unless Postgres's user cannot get there (root's own folder is closed to it).
pub fn folder_of(home: &Home) -> Result<PathBuf> {
    // SAFETY: geteuid always succeeds.
    let user = if unsafe { libc::geteuid() } == 0 { Some(other_user()?) } else { None };
    folder(home, user)
}

fn folder(home: &Home, user: Option<User>) -> Result<PathBuf> {
    let usual = home.data().join("postgres");
    let Some(user) = user else { return Ok(usual) };
    let elsewhere = Path::new("/var/lib/kept").join(home.tag()).join("postgres");
    let there = |folder: &Path| folder.join("cluster").exists();
    if there(&usual) || (!there(&elsewhere) && can_enter(home.root(), user)?) { Ok(usual) } else { Ok(elsewhere) }
}

fn can_enter(folder: &Path, user: User) -> Result<bool> {
    let mut enter = Command::new("/bin/sh");
    enter.args(["-c", "cd \"$1\"", "sh"]).arg(folder).uid(user.uid).gid(user.gid).current_dir("/");
    let status = enter.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    Ok(status.context("try a folder as another user")?.success())
}

/// `postgres` where there is one (the system's package makes it), else `nobody`.
fn other_user() -> Result<User> {
    for name in ["postgres", "nobody"] {
        let name = CString::new(name).expect("no zero byte");
        // SAFETY: getpwnam reads the name and answers with a pointer into its own storage, which we copy from at once.
        let user = unsafe {
            let entry = libc::getpwnam(name.as_ptr());
            entry.as_ref().map(|it| User { uid: it.pw_uid, gid: it.pw_gid })
        };
        if let Some(user) = user {
            return Ok(user);
        }
    }
    bail!("Postgres refuses to run as root, and there is no user `postgres` or `nobody` to run it as")
}

fn make_owned(folder: &Path, user: Option<User>) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
    own(folder, user)
}

fn own(path: &Path, user: Option<User>) -> Result<()> {
    if let Some(User { uid, gid }) = user {
        std::os::unix::fs::chown(path, Some(uid), Some(gid))
            .with_context(|| format!("give away {}", path.display()))?;
    }
    Ok(())
}

fn script(password: &str) -> String {
    let mut script = format!(
        "SELECT 'CREATE ROLE {ROLE} LOGIN CREATEDB PASSWORD ''{password}''' \
         WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{ROLE}') \\gexec\n\
         GRANT pg_monitor, pg_checkpoint TO {ROLE};\n"
    );
    for database in [DATABASE, registry::DATABASE] {
        script.push_str(&format!(
            "SELECT 'CREATE DATABASE {database} OWNER {ROLE}' \
             WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = '{database}') \\gexec\n"
        ));
    }
    script
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_is_in_no_argument() {
        let files =
            Files { programs: "/p".into(), folder: "/f".into(), log: "/l".into(), port: 5, durable: true, user: None };
        let arguments: Vec<String> = command(&files).get_args().map(|it| it.to_string_lossy().into_owned()).collect();
        assert!(arguments.contains(&"listen_addresses=127.0.0.1".to_owned()), "{arguments:?}");
        assert!(!arguments.iter().any(|it| it.contains("fsync")), "a durable one waits for the disk: {arguments:?}");
        assert!(script("secretsecret").contains("secretsecret"), "it goes by standard input");
    }
}
