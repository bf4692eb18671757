//! Letters that nobody can guess, for a password and an id.

use std::{fs::File, io::Read};

use anyhow::{Context, Result};

/// Letters and digits only: nothing that a URL, a shell or SQL would have to quote. Thirty-two of them, so that each is
/// as likely as any other.
const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";

pub fn letters(count: usize) -> Result<String> {
    let mut bytes = vec![0; count];
    File::open("/dev/urandom").and_then(|mut it| it.read_exact(&mut bytes)).context("read /dev/urandom")?;
    Ok(bytes.into_iter().map(|it| char::from(LETTERS[usize::from(it) % LETTERS.len()])).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_need_no_quoting_and_differ_each_time() {
        let password = letters(24).unwrap();
        assert_eq!(password.len(), 24);
        assert!(password.bytes().all(|it| it.is_ascii_lowercase() || it.is_ascii_digit()), "{password}");
        assert_ne!(password, letters(24).unwrap());
    }
}
