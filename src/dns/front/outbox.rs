//! Answers of the slow path on their way out by one UDP socket.
//!
//! Replies of upstreams come by the handful, so tasks of the slow path end by the handful, too. The first of them lets the others that
//! are ready end before it sends what all of them have: those to one client leave as one packet, as a worker's do.

use std::mem;
use std::net::UdpSocket;
use std::sync::{Arc, Mutex, PoisonError};

use super::mmsg::{self, Peer};

/// The way out by one socket. What waits is bounded by the queries that may be under way.
#[derive(Debug)]
pub(super) struct Outbox {
    socket: Arc<UdpSocket>,
    /// Answers to one client in one packet, at most.
    segments: usize,
    waiting: Mutex<Vec<(Peer, Vec<u8>)>>,
}

impl Outbox {
    /// Sends by `socket`, up to `segments` answers to one client as one packet.
    pub(super) fn new(socket: Arc<UdpSocket>, segments: usize) -> Self {
        Self {
            segments: mmsg::segments(&socket, segments),
            socket,
            waiting: Mutex::default(),
        }
    }

    /// Sends `answer` to `peer`, soon: by this task, or by one that is about to. Returns how many answers could not be sent by this one.
    pub(super) async fn send(&self, peer: Peer, answer: Vec<u8>) -> usize {
        let first = {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            waiting.push((peer, answer));
            waiting.len() == 1
        };
        if !first {
            return 0;
        }
        tokio::task::yield_now().await;
        let mut ready = {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            mem::take(&mut *waiting)
        };
        // Those to one client beside each other, in the order they came.
        ready.sort_by_key(|(peer, answer)| (peer.spread(), answer.len()));
        let mut failed = 0;
        let mut rest = &ready[..];
        while let [(peer, answer), ..] = rest {
            let alike = rest
                .iter()
                .take(mmsg::fitting(answer.len(), self.segments))
                .take_while(|(other, next)| next.len() == answer.len() && other.same(peer))
                .count();
            let run;
            (run, rest) = rest.split_at(alike);
            failed += mmsg::send_run(&self.socket, run);
        }
        failed
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::dns::UDP_SEGMENTS;
    use crate::dns::front::mmsg::Batch;

    #[tokio::test]
    async fn answers_that_are_ready_together_all_arrive() {
        let wait = Duration::from_secs(5);
        let socket = Arc::new(crate::net::bind_udp("127.0.0.1:0".parse().unwrap()).unwrap());
        let mut batch = Batch::new(Arc::clone(&socket), 2, 512, UDP_SEGMENTS, wait).unwrap();
        let clients: [_; 2] = std::array::from_fn(|_| {
            let client = UdpSocket::bind("127.0.0.1:0").unwrap();
            client.set_read_timeout(Some(wait)).unwrap();
            client.send_to(b"x", socket.local_addr().unwrap()).unwrap();
            client
        });
        assert_eq!(batch.receive(true).unwrap(), 2);
        let outbox = Outbox::new(socket, UDP_SEGMENTS);
        let sends = (0..200_u8).map(|i| {
            let peer = batch.peer(usize::from(i % 2));
            outbox.send(peer, vec![i; 1 + usize::from(i % 3)])
        });
        let failed: usize = futures_util::future::join_all(sends).await.iter().sum();
        assert_eq!(failed, 0);
        for (place, client) in clients.iter().enumerate() {
            let from = batch.peer(place);
            assert!(from.same(&batch.peer(place)) && !from.same(&batch.peer(1 - place)));
            let mut seen: Vec<_> = (0..100)
                .map(|_| {
                    let mut bytes = [0; 8];
                    let length = client.recv(&mut bytes).unwrap();
                    assert_eq!(
                        bytes[..length],
                        vec![bytes[0]; 1 + usize::from(bytes[0] % 3)]
                    );
                    bytes[0]
                })
                .collect();
            seen.sort_unstable();
            let expected: Vec<_> = (0..200).filter(|i| usize::from(i % 2) == place).collect();
            assert_eq!(
                seen.iter().map(|i| u16::from(*i)).collect::<Vec<_>>(),
                expected
            );
        }
    }
}
