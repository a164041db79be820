//! Nodes that say they hold everything and do not keep their word: each does little harm, and all together cannot keep
//! the origin from serving.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use headwater::content::have::Have;
use headwater::metrics::peers::{Waste, Way};
use headwater::metrics::replication::Outcome;
use headwater::peer::exchange::{HaveAnswer, Holding};
use headwater::peer::message::Ask;
use http::StatusCode;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{Node, by, sockets};
use crate::replication::{CHUNK, Origin, noise};

/// What a liar does when it is asked for a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lie {
    WrongBytes,
    Stalls,
    FalseBitmap,
    Oversize,
}

/// A body whose second half never comes.
struct Half(Option<Bytes>);

impl Body for Half {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.0.take() {
            Some(bytes) => std::task::Poll::Ready(Some(Ok(Frame::data(bytes)))),
            None => std::task::Poll::Pending,
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(CHUNK as u64)
    }
}

/// A node that lies about an object of `count` chunks.
struct Liar {
    /// Chunks asked of it.
    asked: Arc<AtomicU64>,
    _stop: DropGuard,
}

impl Liar {
    fn start(listener: TcpListener, lie: Lie, count: u32) -> Self {
        let asked = Arc::new(AtomicU64::new(0));
        let stop = CancellationToken::new();
        let counter = asked.clone();
        tokio::spawn(stop.clone().run_until_cancelled_owned(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let asked = counter.clone();
                tokio::spawn(async move {
                    let service = service_fn(|request| {
                        let response = answer(&request, lie, count, &asked);
                        async { Ok::<_, Infallible>(response) }
                    });
                    let connection = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service);
                    drop(connection.await); // Who asked goes away.
                });
            }
        }));
        Self {
            asked,
            _stop: stop.drop_guard(),
        }
    }
}

fn answer(
    request: &Request<Incoming>,
    lie: Lie,
    count: u32,
    asked: &AtomicU64,
) -> Response<UnsyncBoxBody<Bytes, Infallible>> {
    let full = |bytes: Vec<u8>| Full::new(Bytes::from(bytes)).boxed_unsync();
    let uri = request.uri();
    match Ask::parse(uri.path(), uri.query()) {
        Ok(Ask::Have(asks)) => {
            let say = |id, tags: &[u32]| {
                let mut room = usize::MAX;
                let claims = (0..count).collect();
                Holding::since(id, false, &Have::full(count), tags, claims, &mut room)
            };
            let said = HaveAnswer {
                node: 666,
                objects: asks.iter().map(|ask| say(ask.id, &ask.tags)).collect(),
            };
            Response::new(full(serde_json::to_vec(&said).unwrap()))
        }
        Ok(Ask::Chunk(..)) => {
            asked.fetch_add(1, Ordering::Relaxed);
            match lie {
                Lie::WrongBytes => Response::new(full(vec![7; CHUNK])),
                Lie::Oversize => Response::new(full(vec![7; CHUNK + 1])),
                Lie::Stalls => {
                    let half = Bytes::from(vec![7; CHUNK / 2]);
                    Response::new(Half(Some(half)).boxed_unsync())
                }
                Lie::FalseBitmap => not_found(),
            }
        }
        _ => not_found(),
    }
}

fn not_found() -> Response<UnsyncBoxBody<Bytes, Infallible>> {
    let mut response = Response::new(Full::default().boxed_unsync());
    *response.status_mut() = StatusCode::NOT_FOUND;
    response
}

/// A liar among two honest mirrors: they finish, what it sent is lost once, and it is left alone.
async fn liar_is_left_alone(lie: Lie) {
    let bytes = noise(11, 100 * CHUNK);
    let origin = Origin::new(&[("a", &bytes)]).await;
    origin.ways.pause.store(20, Ordering::Relaxed);
    let (mut listeners, urls) = sockets(3).await;
    let liar = Liar::start(listeners.remove(0), lie, 100);
    let config = by(Way::Static, &urls);
    let from = [origin.url()];
    let nodes: Vec<Node> = listeners
        .into_iter()
        .map(|listener| Node::start(listener, config.clone(), &from))
        .collect();
    for node in &nodes {
        node.has("/a", &bytes).await;
        let wasted = node.metrics.replication.chunks(Outcome::Mismatch);
        assert!(wasted <= 2, "{lie:?}: {wasted} chunks wasted");
        let wasted = Waste::ALL.map(|why| node.metrics.peers.wasted(why));
        let [wrong, broken, _, unkept] = wasted;
        assert!(
            wrong + broken <= 2 * CHUNK as u64 && unkept == 0,
            "{lie:?}: {wasted:?}"
        );
        if lie == Lie::Stalls {
            assert!(
                broken + wasted[2] >= CHUNK as u64 / 2,
                "half a chunk came: {wasted:?}"
            );
        }
        let aside = node.metrics.peers.put_aside.get();
        assert_eq!(aside, 1, "{lie:?}: put aside once, and not asked again");
    }
    let asked = liar.asked.load(Ordering::Relaxed);
    let most = if lie == Lie::FalseBitmap { 3 } else { 2 };
    assert!(
        asked <= most * 2,
        "{lie:?}: asked for {asked} chunks by two mirrors"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn sender_of_wrong_bytes_is_left_alone_after_one_chunk() {
    liar_is_left_alone(Lie::WrongBytes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sender_that_stalls_is_left_alone_after_one_chunk() {
    liar_is_left_alone(Lie::Stalls).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sender_of_false_bitmaps_is_left_alone_after_three_chunks() {
    liar_is_left_alone(Lie::FalseBitmap).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sender_of_too_much_is_left_alone_after_one_chunk() {
    liar_is_left_alone(Lie::Oversize).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn origin_serves_when_all_others_lie() {
    let bytes = noise(12, 80 * CHUNK + 3);
    let origin = Origin::new(&[("a", &bytes)]).await;
    let (mut listeners, urls) = sockets(5).await;
    let honest = listeners.pop().unwrap();
    let lies = [
        Lie::WrongBytes,
        Lie::Stalls,
        Lie::FalseBitmap,
        Lie::Oversize,
    ];
    let liars = listeners.into_iter().zip(lies);
    let _liars: Vec<Liar> = liars.map(|(l, lie)| Liar::start(l, lie, 81)).collect();
    let began = std::time::Instant::now();
    let node = Node::start(honest, by(Way::Static, &urls), &[origin.url()]);
    node.has("/a", &bytes).await;
    assert!(began.elapsed() < Duration::from_secs(15));
    assert_eq!(node.metrics.replication.in_origin.get(), bytes.len() as u64);
    assert!(node.metrics.replication.chunks(Outcome::Mismatch) <= 2);
    assert_eq!(node.metrics.peers.put_aside.get(), 4);
}
