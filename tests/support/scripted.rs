//! The servers of the made-up Internet on sockets of a namespace, UDP and TCP, with every packet that reaches them written down.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::oneshot;

use super::internet::{Asked, Server};
use super::namespace::Namespace;

type Rewrite = Box<dyn Fn(&Asked, Vec<u8>) -> Vec<Vec<u8>> + Send + Sync>;

/// A server at an address.
pub(crate) struct Host {
    at: Ipv4Addr,
    server: Server,
    late: Duration,
    rewrite: Option<Rewrite>,
}

impl Host {
    pub(crate) fn new(at: Ipv4Addr, server: Server) -> Self {
        Self {
            at,
            server,
            late: Duration::ZERO,
            rewrite: None,
        }
    }

    /// Every reply comes so late.
    pub(crate) fn late(self, late: Duration) -> Self {
        Self { late, ..self }
    }

    /// Instead of each reply over UDP, what `rewrite` makes of it is sent.
    pub(crate) fn rewrite(
        self,
        rewrite: impl Fn(&Asked, Vec<u8>) -> Vec<Vec<u8>> + Send + Sync + 'static,
    ) -> Self {
        Self {
            rewrite: Some(Box::new(rewrite)),
            ..self
        }
    }
}

/// A query that reached a server.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) at: Ipv4Addr,
    pub(crate) from: SocketAddr,
    pub(crate) asked: Asked,
}

/// The servers, until dropped.
pub(crate) struct Internet {
    seen: Arc<Mutex<Vec<Seen>>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Internet {
    /// Starts `hosts` on port 53 of their addresses.
    pub(crate) fn start(space: &Namespace, hosts: Vec<Host>) -> Self {
        let seen = Arc::<Mutex<Vec<Seen>>>::default();
        let (stop, stopped) = oneshot::channel();
        let (ready, is_ready) = mpsc::channel();
        let (space, log) = (space.another(), Arc::clone(&seen));
        let thread = thread::spawn(move || {
            space.enter();
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime can be made");
            runtime.block_on(async move {
                for host in hosts {
                    let at = SocketAddr::new(IpAddr::V4(host.at), 53);
                    let udp = UdpSocket::bind(at).await.expect("the address is free");
                    let tcp = TcpListener::bind(at).await.expect("the address is free");
                    let host = Arc::new(host);
                    tokio::spawn(datagrams(udp, Arc::clone(&host), Arc::clone(&log)));
                    tokio::spawn(connections(tcp, host, Arc::clone(&log)));
                }
                ready.send(()).expect("somebody waits");
                let _ = stopped.await;
            });
        });
        is_ready.recv().expect("the servers start");
        Self {
            seen,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// All that was asked so far.
    pub(crate) fn seen(&self) -> MutexGuard<'_, Vec<Seen>> {
        self.seen.lock().expect("nobody panics with it")
    }

    /// Takes what was asked so far.
    pub(crate) fn take(&self) -> Vec<Seen> {
        std::mem::take(&mut *self.seen())
    }
}

impl Drop for Internet {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

type Log = Arc<Mutex<Vec<Seen>>>;

fn note(log: &Log, host: &Host, from: SocketAddr, packet: &[u8]) -> Asked {
    let asked = Asked::read(packet).expect("a resolver sends queries");
    log.lock().expect("nobody panics with it").push(Seen {
        at: host.at,
        from,
        asked: asked.clone(),
    });
    asked
}

async fn datagrams(socket: UdpSocket, host: Arc<Host>, log: Log) {
    let socket = Arc::new(socket);
    let mut buffer = vec![0; 65_535];
    loop {
        let Ok((length, client)) = socket.recv_from(&mut buffer).await else {
            continue;
        };
        let asked = note(&log, &host, client, &buffer[..length]);
        let Some(mut reply) = host.server.reply(&asked) else {
            continue;
        };
        if reply.len() > PAYLOAD {
            cut(&mut reply, &asked);
        }
        let replies = match &host.rewrite {
            Some(rewrite) => rewrite(&asked, reply),
            None => vec![reply],
        };
        let (late, socket) = (host.late, Arc::clone(&socket));
        let send = async move {
            for reply in replies {
                let _ = socket.send_to(&reply, client).await;
            }
        };
        if late.is_zero() {
            send.await;
        } else {
            tokio::spawn(async move {
                tokio::time::sleep(late).await;
                send.await;
            });
        }
    }
}

async fn connections(listener: TcpListener, host: Arc<Host>, log: Log) {
    loop {
        let Ok((stream, client)) = listener.accept().await else {
            continue;
        };
        tokio::spawn(connection(
            stream,
            client,
            Arc::clone(&host),
            Arc::clone(&log),
        ));
    }
}

async fn connection(mut stream: TcpStream, client: SocketAddr, host: Arc<Host>, log: Log) {
    while let Ok(length) = stream.read_u16().await {
        let mut packet = vec![0; length.into()];
        if stream.read_exact(&mut packet).await.is_err() {
            return;
        }
        let asked = note(&log, &host, client, &packet);
        let Some(reply) = host.server.reply(&asked) else {
            continue;
        };
        tokio::time::sleep(host.late).await;
        let length = u16::try_from(reply.len()).expect("a message fits");
        let framed = [&length.to_be_bytes()[..], &reply].concat();
        if stream.write_all(&framed).await.is_err() {
            return;
        }
    }
}

/// Leaves header and question, and says that there is more (TC).
fn cut(reply: &mut Vec<u8>, asked: &Asked) {
    reply.truncate(12 + asked.spelled.len() + 4);
    reply[2] |= 2;
    reply[6..12].fill(0);
}

/// Octets of a reply over UDP.
const PAYLOAD: usize = 1_232;
