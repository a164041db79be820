//! The first start without a configuration: a zone file in the state directory, and something to serve.

use std::fs;
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::config::Settings;

/// Writes what the embedded default configuration names and is not there yet. Blocking.
///
/// # Errors
/// The path and what the kernel said.
pub(super) fn prepare(settings: &mut Settings) -> Result<(), anyhow::Error> {
    for zone in &settings.zones {
        write_zone(&zone.file).with_context(|| zone.file.display().to_string())?;
    }
    for publish in &mut settings.publish {
        if let Err(error) = fill(&publish.dir) {
            let instead = settings.state.join("content");
            tracing::warn!(
                dir = %publish.dir.display(), %error, instead = %instead.display(),
                "the directory cannot be filled"
            );
            fill(&instead).with_context(|| instead.display().to_string())?;
            publish.dir = instead;
        }
    }
    Ok(())
}

fn write_zone(file: &Path) -> io::Result<()> {
    if file.exists() {
        return Ok(());
    }
    if let Some(dir) = file.parent() {
        fs::create_dir_all(dir)?;
    }
    whole(file, |out| out.write_all(ZONE.as_bytes()))?;
    tracing::info!(file = %file.display(), "zone file written");
    Ok(())
}

/// Makes the sample in `dir` unless there is something already.
fn fill(dir: &Path) -> io::Result<()> {
    if dir.is_dir() && fs::read_dir(dir)?.any(|entry| !is_partial(entry.ok())) {
        return Ok(());
    }
    fs::create_dir_all(dir)?;
    let file = dir.join("video.bin");
    whole(&file, |out| {
        let mut sample = sample();
        io::copy(&mut sample, out).map(|_| ())
    })?;
    tracing::info!(file = %file.display(), bytes = SAMPLE_SIZE, "sample made");
    Ok(())
}

/// Writes a file so that it is whole or not there.
fn whole(
    file: &Path,
    write: impl FnOnce(&mut BufWriter<fs::File>) -> io::Result<()>,
) -> io::Result<()> {
    let mut partial = PathBuf::from(file);
    partial.set_extension(PARTIAL);
    let mut out = BufWriter::with_capacity(1 << 20, fs::File::create(&partial)?);
    let written = write(&mut out).and_then(|()| {
        out.flush()?;
        out.get_ref().sync_all()?;
        fs::rename(&partial, file)
    });
    if written.is_err() {
        // What is left is swept by the next start at the latest.
        let _ = fs::remove_file(&partial);
    }
    written
}

fn is_partial(entry: Option<fs::DirEntry>) -> bool {
    entry.is_some_and(|e| e.path().extension().is_some_and(|x| x == PARTIAL))
}

/// Bytes that look random and are the same everywhere: BLAKE3 as an extendable output of a fixed key.
fn sample() -> impl Read {
    let mut hasher = blake3::Hasher::new_derive_key("headwater 2026 sample video.bin");
    hasher.update(b"video.bin");
    hasher.finalize_xof().take(SAMPLE_SIZE)
}

/// Bytes of the sample.
const SAMPLE_SIZE: u64 = 64 << 20;

/// Extension of files that are being written.
const PARTIAL: &str = "partial";

/// The zone of the embedded default configuration.
const ZONE: &str = include_str!("../../config/zones/cdn.test.zone");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sample_is_the_same_every_time() {
        let mut start = [0; 16];
        sample().read_exact(&mut start).unwrap();
        let mut again = [0; 16];
        sample().read_exact(&mut again).unwrap();
        assert_eq!(start, again);
        assert_ne!(start, [0; 16]);
    }

    #[test]
    fn directory_with_files_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("mine.txt"), "mine").unwrap();
        fill(dir.path()).unwrap();
        assert!(!dir.path().join("video.bin").exists());
    }
}
