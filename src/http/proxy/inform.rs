//! Informational responses (1xx) of an upstream, passed on as they come (RFC 9110 section 15.2).
//!
//! Only the client whose request was sent on gets them, and only over HTTP/1.1.

use std::future::poll_fn;
use std::pin::pin;

use http::Version;
use tokio::sync::mpsc;

use super::fields;
use super::upstream::Interim;
use crate::http::receipt::Receipt;

/// Where the informational responses to one request come out.
pub(super) struct Informed(Option<mpsc::UnboundedReceiver<Interim>>);

/// Where they go in.
pub(super) type Informer = Option<mpsc::UnboundedSender<Interim>>;

/// A way for the informational responses to a request of this version.
pub(super) fn way(version: Version) -> (Informer, Informed) {
    if version != Version::HTTP_11 {
        return (None, Informed(None));
    }
    let (sender, receiver) = mpsc::unbounded_channel();
    (Some(sender), Informed(Some(receiver)))
}

impl Informed {
    /// Waits for `work`, passing on what comes before it ends.
    pub(super) async fn during<T>(mut self, receipt: &Receipt, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        let mut passed = 0;
        while let Some(receiver) = &mut self.0 {
            tokio::select! {
                biased;
                interim = receiver.recv() => match interim {
                    Some(interim) if passed < MOST => {
                        passed += 1;
                        pass(receipt, interim).await;
                    }
                    Some(_) => {}
                    None => self.0 = None,
                },
                done = work.as_mut() => {
                    // Those that came with the final response go before it.
                    while let Ok(interim) = receiver.try_recv() {
                        if passed < MOST {
                            passed += 1;
                            pass(receipt, interim).await;
                        }
                    }
                    return done;
                }
            }
        }
        work.await
    }
}

async fn pass(receipt: &Receipt, (status, mut headers): Interim) {
    // 100 and 101 are between neighbours.
    if !status.is_informational() || matches!(status.as_u16(), 100 | 101) {
        return;
    }
    fields::strip_hops(&mut headers);
    let reason = status.canonical_reason().unwrap_or("");
    let mut head = format!("HTTP/1.1 {} {reason}\r\n", status.as_u16()).into_bytes();
    for (name, value) in &headers {
        head.extend_from_slice(name.as_str().as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    let pulse = &receipt.client().pulse;
    pulse.inform(&head);
    poll_fn(|cx| pulse.poll_informed(cx)).await;
}

/// Informational responses passed on for one request.
const MOST: usize = 16;
