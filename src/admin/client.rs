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
    let mut found = None;
    for path in sockets {
        match UnixStream::connect(path) {
            Ok(stream) => {
                found = Some((path, stream));
                break;
            }
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
    let (path, stream) = found.ok_or_else(|| ClientError::Absent(sockets.to_vec()))?;
    let body = serde_json::to_string(verb).map_err(|e| broken(path, &e.to_string()))?;
    let (status, answer) = exchange(&stream, V::PATH, &body).map_err(|source| {
        let path = path.clone();
        ClientError::Io { path, source }
    })?;
    if status != 200 {
        let failure = serde_json::from_slice::<Failure>(&answer);
        let message = failure.map_or_else(|_| format!("status {status}"), |f| f.error);
        return Err(ClientError::Refused(message));
    }
    serde_json::from_slice(&answer).map_err(|e| broken(path, &e.to_string()))
}

/// One `POST`; the server ends the connection after its answer, so the body is all that follows the head.
fn exchange(
    mut stream: &UnixStream,
    path: &str,
    body: &str,
) -> Result<(u16, Vec<u8>), std::io::Error> {
    let length = body.len();
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nhost: headwater\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    split(&answer).ok_or_else(|| {
        let message = "the answer is no HTTP, or was cut";
        std::io::Error::new(std::io::ErrorKind::InvalidData, message)
    })
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
