//! HTTP for the client library: the hyper and rustls this node has anyway, with bounded times.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector as Connector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody,
    HttpResponse, HttpResponseBody, HttpService,
};

/// Makes clients with these settings of TLS, which give up on a server that is silent for `silence`.
#[derive(Clone, Debug)]
pub(super) struct Connect {
    pub(super) tls: rustls::ClientConfig,
    pub(super) silence: Duration,
    /// Idle connections kept.
    pub(super) idle: usize,
}

/// One client: its connections are shared by all requests to a bucket.
#[derive(Debug)]
struct Service {
    client: Client<HttpsConnector<HttpConnector>, HttpRequestBody>,
    silence: Duration,
}

/// The body of an answer, frame by frame within its time.
#[derive(Debug)]
struct Answer {
    body: Incoming,
    silence: Duration,
    timer: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl Connector for Connect {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        let mut tcp = HttpConnector::new();
        tcp.set_connect_timeout(Some(self.silence));
        tcp.set_nodelay(true);
        tcp.enforce_http(false);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(self.tls.clone())
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .timer(TokioTimer::new())
            .pool_max_idle_per_host(self.idle)
            .build(connector);
        Ok(HttpClient::new(Service {
            client,
            silence: self.silence,
        }))
    }
}

#[async_trait]
impl HttpService for Service {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let asked = tokio::time::timeout(self.silence, self.client.request(request)).await;
        let response = match asked {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => {
                let kind = match error.is_connect() {
                    true => HttpErrorKind::Connect,
                    false => HttpErrorKind::Request,
                };
                return Err(HttpError::new(kind, told(&error)));
            }
            Err(_) => return Err(silent(self.silence)),
        };
        let silence = self.silence;
        Ok(response.map(|body| {
            HttpResponseBody::new(Answer {
                body,
                silence,
                timer: None,
            })
        }))
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        if let Poll::Ready(polled) = Pin::new(&mut self.body).poll_frame(cx) {
            self.timer = None;
            let polled = polled.map(|frame| {
                frame.map_err(|error| HttpError::new(HttpErrorKind::Interrupted, told(&error)))
            });
            return Poll::Ready(polled);
        }
        let silence = self.silence;
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(silence)));
        match timer.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Some(Err(silent(silence)))),
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn silent(silence: Duration) -> HttpError {
    let text = format!("the server said nothing for {silence:?}");
    let error = io::Error::new(io::ErrorKind::TimedOut, text);
    HttpError::new(HttpErrorKind::Timeout, error)
}

/// The error with its causes, which the operator needs: "connection refused" is the last of them.
fn told(error: &dyn std::error::Error) -> io::Error {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let text: Vec<String> = causes.map(ToString::to_string).collect();
    io::Error::other(text.join(": "))
}
