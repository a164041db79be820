//! The serving side of the peer protocol: index, manifests and chunks (see `peer::message`).

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;

use crate::content::library::Library;
use crate::metrics::Metrics;

/// Answers a request beneath `peer::message::ROOT`. Chunk bodies are verified before they leave.
pub async fn serve<B>(
    request: &Request<B>,
    library: &Library,
    metrics: &Metrics,
) -> Response<Full<Bytes>> {
    let _ = (request, library, metrics);
    unimplemented!()
}
