//! Files of `KEY=VALUE` lines that a shell can read too: where the servers are, which ports they have.

use std::{collections::BTreeMap, fs, io::Write, os::unix::fs::OpenOptionsExt, path::Path};

use anyhow::{Context, Result};

/// The file's values; a file that is not there has none.
pub fn read(path: &Path) -> Result<BTreeMap<String, String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(parse(&text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
    }
}

/// Writes the file anew, readable by its owner only: an address may hold a password.
pub fn write(path: &Path, about: &str, values: &[(&str, String)]) -> Result<()> {
    let mut text = format!("# {about}\n");
    for (key, value) in values {
        text.push_str(key);
        text.push('=');
        text.push_str(value);
        text.push('\n');
    }
    replace(path, text.as_bytes())
}

/// Puts a whole file in place of the old one, so that a reader sees one of the two and nothing between.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let beside = path.with_extension(format!("new{}", std::process::id()));
    let put = || -> std::io::Result<()> {
        let mut file = fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, path)
    };
    put().with_context(|| format!("write {}", path.display()))
}

fn parse(text: &str) -> BTreeMap<String, String> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once('='))
        .map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_was_written_is_read_again_and_only_its_owner_can() {
        let path = std::env::temp_dir().join(format!("kept-env-{}", std::process::id()));
        let url = "postgresql://kept:p%3D@127.0.0.1:5/kept?sslmode=disable";
        write(&path, "about it", &[("KEPT_KAFKA", "127.0.0.1:9".into()), ("KEPT_POSTGRES", url.into())]).unwrap();
        let values = read(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::remove_file(&path).unwrap();
        assert_eq!(values.len(), 2);
        assert_eq!(values["KEPT_POSTGRES"], url, "an equals sign in a value is the value's");
        assert!(read(&path).unwrap().is_empty(), "no file, no values");
    }

    #[test]
    fn comments_and_empty_lines_say_nothing() {
        assert_eq!(parse("# A=1\n\n  B = 2 \nnothing\n"), BTreeMap::from([("B".to_owned(), "2".to_owned())]));
    }
}
