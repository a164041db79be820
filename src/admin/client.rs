//! The command line's side of the control socket: one request, one answer, blocking.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use super::api::{Failure, Verb};

/// Why a verb had no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens at any of the paths tried.
    #[error("no running node: nothing answers at {}", paths(.0))]
    Absent(Vec<PathBuf>),
    /// The node said no.
    #[error("{0}")]
    Refused(String),
    /// The file that was to be sent cannot be read.
    #[error("{0}")]
    File(std::io::Error),
    /// The conversation broke.
    #[error("control socket {path}: {source}")]
    Io {
        /// The socket.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// The answer is not understood.
    #[error("control socket {path}: found {found}, expected an answer of this version")]
    Answer {
        /// The socket.
        path: PathBuf,
        /// What came.
        found: String,
    },
}

/// Asks the first node that answers at one of `sockets`.
///
/// # Errors
/// See [`ClientError`].
pub fn call<V: Verb>(sockets: &[PathBuf], verb: &V) -> Result<V::Answer, ClientError> {
    let (path, stream) = connect(sockets)?;
    let body = serde_json::to_string(verb).map_err(|e| broken(path, &e.to_string()))?;
    let asked = ask(&stream, V::PATH, body.len() as u64, &body);
    answer::<V>(path, asked.and_then(|()| read(&stream)))
}

/// As [`call`], with `size` bytes of `file` behind the verb; `sent` hears how many of them went.
///
/// # Errors
/// See [`ClientError`].
pub fn send<V: Verb>(
    sockets: &[PathBuf],
    verb: &V,
    mut file: impl Read,
    size: u64,
    mut sent: impl FnMut(u64),
) -> Result<V::Answer, ClientError> {
    let (path, mut stream) = connect(sockets)?;
    let mut line = serde_json::to_string(verb).map_err(|e| broken(path, &e.to_string()))?;
    line.push('\n');
    let mut asked = ask(&stream, V::PATH, line.len() as u64 + size, &line);
    let mut buffer = vec![0; 256 << 10];
    let mut done = 0;
    while asked.is_ok() && done < size {
        sent(done);
        let most = usize::try_from(size - done).unwrap_or(usize::MAX);
        let part = buffer.len().min(most);
        let length = file.read(&mut buffer[..part]).map_err(ClientError::File)?;
        if length == 0 {
            let reason = format!("found {done} bytes, expected {size}: it was cut meanwhile");
            return Err(ClientError::File(std::io::Error::other(reason)));
        }
        asked = stream.write_all(&buffer[..length]);
        done += length as u64;
    }
    sent(done);
    // A node that refuses it closes before it has read all; what it said is there to be read.
    let refused = [
        std::io::ErrorKind::BrokenPipe,
        std::io::ErrorKind::ConnectionReset,
    ];
    if matches!(&asked, Err(e) if refused.contains(&e.kind())) {
        asked = Ok(());
    }
    answer::<V>(path, asked.and_then(|()| read(&stream)))
}

/// The first of `sockets` that somebody listens at.
fn connect(sockets: &[PathBuf]) -> Result<(&PathBuf, UnixStream), ClientError> {
    for path in sockets {
        match UnixStream::connect(path) {
            Ok(stream) => return Ok((path, stream)),
            Err(e)
                if matches!(
                    e.kind(),
                    std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused
                ) => {}
            Err(source) => {
                let path = path.clone();
                return Err(ClientError::Io { path, source });
            }
        }
    }
    Err(ClientError::Absent(sockets.to_vec()))
}

/// Begins one `POST` of `length` bytes, with the first of them.
fn ask(mut stream: &UnixStream, path: &str, length: u64, body: &str) -> Result<(), std::io::Error> {
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nhost: headwater\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}

/// The answer; the server ends the connection after it, so the body is all that follows the head.
fn read(mut stream: &UnixStream) -> Result<(u16, Vec<u8>), std::io::Error> {
    let mut answer = Vec::new();
    let ended = stream.read_to_end(&mut answer);
    split(&answer).ok_or_else(|| {
        ended.err().unwrap_or_else(|| {
            let message = "the answer is no HTTP, or was cut";
            std::io::Error::new(std::io::ErrorKind::InvalidData, message)
        })
    })
}

/// What the node at `path` said.
fn answer<V: Verb>(
    path: &Path,
    answered: Result<(u16, Vec<u8>), std::io::Error>,
) -> Result<V::Answer, ClientError> {
    let (status, answer) = answered.map_err(|source| {
        let path = path.to_owned();
        ClientError::Io { path, source }
    })?;
    if status != 200 {
        let failure = serde_json::from_slice::<Failure>(&answer);
        let message = failure.map_or_else(|_| format!("status {status}"), |f| f.error);
        return Err(ClientError::Refused(message));
    }
    serde_json::from_slice(&answer).map_err(|e| broken(path, &e.to_string()))
}

/// Status and body of an HTTP/1.1 answer with a `content-length`.
fn split(answer: &[u8]) -> Option<(u16, Vec<u8>)> {
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..end]).ok()?;
    let body = &answer[end + 4..];
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.trim().parse::<usize>().ok())?
    })?;
    (body.len() == length).then(|| (status, body.to_vec()))
}

fn broken(path: &Path, found: &str) -> ClientError {
    ClientError::Answer {
        path: path.to_owned(),
        found: found.to_owned(),
    }
}

fn paths(paths: &[PathBuf]) -> String {
    let shown: Vec<_> = paths.iter().map(|p| p.display().to_string()).collect();
    shown.join(" or ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn split_takes_status_and_whole_body() {
        let answer = b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}";
        assert_eq!(split(answer), Some((404, b"{}".to_vec())));
    }

    #[test]
    fn split_of_a_cut_answer_is_none() {
        assert_eq!(
            split(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{}"),
            None
        );
        assert_eq!(split(b"HTTP/1.1 200 OK\r\n"), None);
    }
}
