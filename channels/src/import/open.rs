//! Opens an import file, unpacking `.xz` and `.gz` as it is read; counts the packed bytes for a progress bar, and
//! refuses a row that never ends.

use std::{
    fs::File,
    io::{self, BufReader, Read},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// The most bytes one row (or one line of JSON) may have; an order's own limit is lower.
pub const MAX_ROW_BYTES: u64 = 1 << 20;
/// The most memory unpacking may take, whatever the file asks for.
const XZ_MEMORY: u64 = 256 << 20;
/// What an endless row is reported with; the caller adds the row's number.
pub const ENDLESS: &str = "a row is longer than 1 MiB; is a quotation mark left open?";

/// How far reading has come, shared with a progress bar.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    /// Bytes of the file as it lies on disk.
    read: Arc<AtomicU64>,
    /// Unpacked bytes since the last whole row.
    since_row: Arc<AtomicU64>,
}

impl Progress {
    /// A row has been read whole.
    pub fn row(&self) {
        self.since_row.store(0, Ordering::Relaxed);
    }

    /// Bytes of the file read so far.
    pub fn bytes(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }
}

/// The file's text, unpacked.
pub fn open(path: &Path, progress: &Progress) -> io::Result<Box<dyn Read + Send>> {
    let file = File::open(path)?;
    if file.metadata()?.is_dir() {
        return Err(io::Error::new(io::ErrorKind::IsADirectory, "it is a directory"));
    }
    let packed = BufReader::with_capacity(1 << 16, Counted { inner: file, read: Arc::clone(&progress.read) });
    let plain: Box<dyn Read + Send> = match path.extension().and_then(|it| it.to_str()) {
        Some("xz") => {
            let stream = liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY, liblzma::stream::CONCATENATED)
                .map_err(io::Error::other)?;
            Box::new(liblzma::bufread::XzDecoder::new_stream(packed, stream))
        }
        Some("gz") => Box::new(flate2::bufread::MultiGzDecoder::new(packed)),
        _ => Box::new(packed),
    };
    Ok(Box::new(Guarded { inner: plain, since_row: Arc::clone(&progress.since_row) }))
}

/// Counts what goes through.
struct Counted<R> {
    inner: R,
    read: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.read.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}

/// Refuses to go on when a row does not end: an open quotation mark would take the rest of the file into memory.
struct Guarded<R> {
    inner: R,
    since_row: Arc<AtomicU64>,
}

impl<R: Read> Read for Guarded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.since_row.load(Ordering::Relaxed) > MAX_ROW_BYTES {
            return Err(io::Error::new(io::ErrorKind::InvalidData, ENDLESS));
        }
        let n = self.inner.read(buffer)?;
        self.since_row.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}
