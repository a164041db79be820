//! One message, one answer: for transports that bring each query by itself (HTTPS, QUIC).

use std::net::IpAddr;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::scratch::{Pool, Scratch};
use super::slow::Slow;
use crate::dns::engine::{Engine, Fast, error};
use crate::dns::wire::Rcode;
use crate::dns::{Outcome, Transport};
use crate::metrics::Metrics;
use crate::time::Now;

/// Answers messages.
#[derive(Clone, Debug)]
pub(super) struct Single {
    pub(super) engine: Arc<Engine>,
    pub(super) slow: Arc<Slow>,
    pub(super) scratch: Arc<Pool>,
    pub(super) metrics: Arc<Metrics>,
}

impl Single {
    /// The answer to `packet`; `None`: it gets none. At most 65,535 bytes.
    pub(super) async fn answer(
        &self,
        packet: &[u8],
        client: IpAddr,
        transport: Transport,
    ) -> Option<Vec<u8>> {
        let now = Now::read();
        let fast = self.scratch.with(|scratch| {
            let Scratch { output, near, .. } = scratch;
            let mut snapshot = self.engine.snapshot().with(near.as_mut(), None);
            // Addresses take turns by the clock, since there is no order among streams.
            match snapshot.fast(packet, client, transport, now, now.mono_ns, output) {
                Fast::Respond { len, outcome } => Answered::Now(output[..len].to_vec(), outcome),
                Fast::Drop(outcome) => Answered::Never(outcome),
                Fast::Slow { proven } => Answered::Later { proven },
            }
        });
        let (answer, outcome) = match fast {
            Answered::Now(answer, outcome) => (Some(answer), outcome),
            Answered::Never(outcome) => (None, outcome),
            Answered::Later { proven } => {
                match self.slow.admit(client, transport, proven, now) {
                    // It counts the query when it ends.
                    Ok(permit) => {
                        let (sender, answer) = oneshot::channel();
                        let deliver = |answer| async move {
                            // The client left.
                            let _ = sender.send(answer);
                        };
                        self.slow
                            .resolve_message(permit, packet.into(), client, deliver);
                        return answer.await.ok().filter(|answer| !answer.is_empty());
                    }
                    Err(_) => self.scratch.with(|scratch| {
                        match error(packet, Rcode::ServFail, &mut scratch.output) {
                            Fast::Respond { len, outcome } => {
                                (Some(scratch.output[..len].to_vec()), outcome)
                            }
                            _ => (None, Outcome::Dropped),
                        }
                    }),
                }
            }
        };
        let took = Now::read().since(now);
        self.metrics.dns.record(transport, outcome, took);
        answer
    }
}

/// What the fast path said.
enum Answered {
    Now(Vec<u8>, Outcome),
    Later { proven: bool },
    Never(Outcome),
}
