//! Ways in: HTTP, file import and the sample generator, and what sends their orders.

pub mod http;
pub mod import;
pub mod sample;
pub mod sender;
pub mod sent_log;
pub mod stock;
pub mod synthetic;

/// Bytes as lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        for digit in [byte >> 4, byte & 15] {
            text.push(char::from_digit(u32::from(digit), 16).expect("four bits are a hex digit"));
        }
        text
    })
}
