//! `headwater content …`.

use std::fs::File;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::progress::Progress;
use super::{ContentCommand, Control, Failure, show};
use crate::admin::{api, client};
use crate::content::name;

/// Does one command; false: done, and what it found is not good.
pub(super) fn run(command: ContentCommand) -> Result<bool, Failure> {
    match command {
        ContentCommand::List(control) => {
            let objects = list(&control)?;
            control.print(&objects, |objects| show::objects(objects));
            Ok(true)
        }
        ContentCommand::Show { path, control } => {
            let object = control.call(&api::ContentShow { path })?;
            control.print(&object, show::object);
            Ok(true)
        }
        ContentCommand::Prefetch {
            path,
            no_wait,
            control,
        } => prefetch(&path, no_wait, &control),
        ContentCommand::Put {
            file,
            path,
            control,
        } => {
            let stored = put(&file, path, &control)?;
            control.print(&stored, show::stored);
            Ok(true)
        }
        ContentCommand::Delete { path, control } => {
            let deleted = control.call(&api::ContentDelete { path })?;
            control.print(&deleted, |deleted| format!("{} deleted\n", deleted.path));
            Ok(true)
        }
        ContentCommand::Purge { path, control } => {
            let purged = control.call(&api::ContentPurge { path })?;
            control.print(&purged, show::purged);
            Ok(true)
        }
        ContentCommand::Verify { path, control } => {
            let verified = verify(path, &control)?;
            control.print(&verified, |verified| show::verified(verified));
            Ok(verified.iter().all(|v| v.bad == 0))
        }
    }
}

/// The objects; looked at twice while some of them fill, to tell people how fast. A program gets the numbers at once, and looks as
/// often as it likes.
fn list(control: &Control) -> Result<Vec<api::Object>, Failure> {
    let before = control.call(&api::ContentList {})?;
    if control.json || before.iter().all(|o| o.held == o.chunks) {
        return Ok(before);
    }
    let begun = Instant::now();
    std::thread::sleep(SAMPLE);
    let mut objects = control.call(&api::ContentList {})?;
    let elapsed = begun.elapsed();
    for object in objects.iter_mut().filter(|o| o.held < o.chunks) {
        let same = |b: &&api::Object| b.manifest == object.manifest;
        let held = before.iter().find(same).map_or(0, |b| b.held);
        (object.rate, object.seconds_left) = pace(object, held, elapsed);
    }
    Ok(objects)
}

/// Bytes per second an object fills with, and the seconds it will take.
fn pace(object: &api::Object, held: u32, elapsed: Duration) -> (Option<u64>, Option<u64>) {
    let chunk = u64::from(object.chunk);
    let came = u64::from(object.held.saturating_sub(held)) * chunk;
    let rate = (came as f64 / elapsed.as_secs_f64()) as u64;
    let missing = object.size.saturating_sub(u64::from(object.held) * chunk);
    (Some(rate), missing.checked_div(rate))
}

/// Has objects fetched, and waits until they are whole.
fn prefetch(path: &str, no_wait: bool, control: &Control) -> Result<bool, Failure> {
    let ask = || {
        control.call(&api::ContentPrefetch {
            path: path.to_owned(),
        })
    };
    let mut state = ask()?;
    let mut progress = Progress::new(path);
    let mut moved = Instant::now();
    while !no_wait && state.whole < state.objects && moved.elapsed() < PATIENCE {
        progress.show(state.held, state.bytes);
        std::thread::sleep(POLL);
        let next = ask()?;
        if (next.whole, next.held) != (state.whole, state.held) {
            moved = Instant::now();
        }
        state = next;
    }
    progress.end();
    control.print(&state, show::prefetched);
    Ok(no_wait || state.whole == state.objects)
}

/// Sends a file to the node.
fn put(file: &Path, mut path: String, control: &Control) -> Result<api::Stored, Failure> {
    let shown = file.display();
    let opened = File::open(file).with_context(|| shown.to_string())?;
    let meta = opened.metadata().with_context(|| shown.to_string())?;
    anyhow::ensure!(
        meta.is_file(),
        "{shown}: found no regular file, expected one"
    );
    if path.ends_with('/') {
        let name = file.file_name();
        let name = name.with_context(|| format!("{shown}: has no name to publish it by"))?;
        path += &name::from_bytes(name.as_bytes());
    }
    let size = meta.len();
    let mut progress = Progress::new(&path);
    let verb = api::ContentPut {
        path: path.clone(),
        size,
    };
    let sent = |sent| progress.show(sent, size);
    let stored = client::send(&control.sockets()?, &verb, opened, size, sent);
    stored.map_err(|error| match error {
        client::ClientError::File(error) => anyhow::anyhow!("{shown}: {error}"),
        error => error.into(),
    })
}

/// Digests one object, or all, one after the other.
fn verify(path: Option<String>, control: &Control) -> Result<Vec<api::Verified>, Failure> {
    if path.is_some() {
        return control.call(&api::ContentVerify { path });
    }
    let objects = control.call(&api::ContentList {})?;
    let serving = || objects.iter().filter(|o| o.serving);
    let all = serving().map(|o| o.size).sum();
    let mut progress = Progress::new("verify");
    let (mut done, mut verified) = (0, Vec::new());
    for object in serving() {
        progress.show(done, all);
        let path = Some(object.path.clone());
        match control.call(&api::ContentVerify { path }) {
            Ok(one) => verified.extend(one),
            // It was removed meanwhile.
            Err(error)
                if control
                    .call(&api::ContentShow {
                        path: object.path.clone(),
                    })
                    .is_ok() =>
            {
                return Err(error);
            }
            Err(_) => {}
        }
        done += object.size;
    }
    progress.end();
    Ok(verified)
}

/// Time between two looks at what fills.
const SAMPLE: Duration = Duration::from_secs(1);

/// Time between looks at how far a mirror is.
const POLL: Duration = Duration::from_millis(200);

/// A mirror that gets nothing for as long is not waited for.
const PATIENCE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pace_is_what_came_and_what_is_missing() {
        let mut object = api::Object {
            path: "/a".to_owned(),
            url: "/a".to_owned(),
            role: "mirror".to_owned(),
            serving: true,
            size: 1_000,
            chunk: 100,
            chunks: 10,
            held: 6,
            media_type: String::new(),
            modified: 0,
            etag: String::new(),
            manifest: String::new(),
            signed_by: None,
            rate: None,
            seconds_left: None,
            sha256: String::new(),
        };
        let second = Duration::from_secs(1);
        assert_eq!(pace(&object, 4, second), (Some(200), Some(2)));
        assert_eq!(pace(&object, 6, second), (Some(0), None));
        object.held = 9;
        assert_eq!(pace(&object, 4, 2 * second), (Some(250), Some(0)));
    }
}
