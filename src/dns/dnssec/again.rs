//! The task that has zones signed again when it is time.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::dns::keeper::Keeper;
use crate::time::Now;

/// Signs zones again, on the blocking pool, until `stop`.
///
/// # Errors
/// A panic while signing.
pub async fn run(keeper: Arc<Keeper>, stop: CancellationToken) -> Result<(), anyhow::Error> {
    loop {
        let now = Now::read().unix_ms / 1_000;
        let due = keeper.next_signing();
        if due.is_some_and(|due| due <= now) {
            let keeper = keeper.clone();
            tokio::task::spawn_blocking(move || keeper.sign_due()).await?;
            continue;
        }
        // The wall clock decides, and it may jump.
        let wait = due.map_or(LOOK, |due| Duration::from_secs(due - now).min(LOOK));
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = keeper.signing_changed() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// The longest time between two looks at the clock.
const LOOK: Duration = Duration::from_secs(60);
