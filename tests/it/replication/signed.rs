//! Whose word a mirror takes: signatures, pinned keys, versions that never go back.

use headwater::content::catalogue::SignedCatalogue;
use headwater::content::manifest::Manifest;
use headwater::content::sign::{Identity, PublicKey, Purpose, Seal};
use headwater::metrics::replication::SealFault;
use headwater::peer::message::Index;

use super::*;

impl Mirror {
    fn refusals(&self, fault: SealFault) -> u64 {
        self.metrics.replication.refusals(fault)
    }

    /// Waits until something was refused for this reason, and the status says so.
    async fn refuses(&self, fault: SealFault, text: &str) {
        until("the refusal", || self.refusals(fault) > 0).await;
        until("the status to say so", || {
            self.problem().is_some_and(|p| p.contains(text))
        })
        .await;
    }
}

fn key(origin: &Origin) -> PublicKey {
    origin.library.editions().key()
}

fn config(keys: Vec<PublicKey>, from: Vec<String>) -> MirrorConfig {
    MirrorConfig {
        keys,
        interval: Duration::from_millis(50),
        ..MirrorConfig::new("/", from)
    }
}

/// A mirror of an origin that changes what it sends; nothing may come of it.
async fn refuse(forge: Forge, fault: SealFault, text: &str) {
    let bytes = noise(40, 2 * CHUNK);
    let origin = Origin::new(&[("a", &bytes)]).await;
    *origin.ways.forge.lock().unwrap() = Some(forge);
    let mirror = Mirror::new(&[&origin], 4);
    mirror.refuses(fault, text).await;
    assert!(mirror.library.get("/a").is_none());
    assert_eq!(
        origin.ways.asked.lock().unwrap().len(),
        0,
        "chunks asked for"
    );
    mirror.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn manifest_without_signature_is_refused() {
    fn strip(ask: &Ask, mut body: Vec<u8>) -> Vec<u8> {
        if matches!(ask, Ask::Manifest(_)) {
            body.truncate(body.len() - Seal::SIZE);
        }
        body
    }
    refuse(strip, SealFault::Missing, "found no signature").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn manifest_with_wrong_signature_is_refused() {
    fn flip(ask: &Ask, mut body: Vec<u8>) -> Vec<u8> {
        if matches!(ask, Ask::Manifest(_)) {
            *body.last_mut().unwrap() ^= 1;
        }
        body
    }
    refuse(flip, SealFault::Wrong, "found a wrong signature").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn manifest_signed_by_another_key_is_refused() {
    fn resign(ask: &Ask, body: Vec<u8>) -> Vec<u8> {
        match ask {
            Ask::Manifest(id) => {
                let (manifest, _) = Manifest::verify(&body, |_| true).unwrap();
                let seal = Identity::from_seed(&[9; 32]).sign(Purpose::Manifest, *id);
                [manifest.encode().as_slice(), &seal.encode()].concat()
            }
            _ => body,
        }
    }
    refuse(resign, SealFault::OtherKey, "expected one of the origin").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn catalogue_without_or_with_wrong_signature_is_refused() {
    fn strip(ask: &Ask, mut body: Vec<u8>) -> Vec<u8> {
        if matches!(ask, Ask::Catalogue(..)) {
            body.truncate(body.len() - Seal::SIZE);
        }
        body
    }
    fn change(ask: &Ask, mut body: Vec<u8>) -> Vec<u8> {
        if matches!(ask, Ask::Catalogue(..)) {
            body[8] ^= 1; // Its version.
        }
        body
    }
    refuse(strip, SealFault::Missing, "found no signature").await;
    refuse(change, SealFault::Wrong, "found a wrong signature").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mirror_of_a_mirror_takes_what_the_origin_signed_and_nothing_else() {
    let bytes = noise(41, 5 * CHUNK);
    let origin = Origin::new(&[("a", &bytes)]).await;
    let first = Mirror::new(&[&origin], 4);
    first.has("/a", &bytes).await;
    let origin_key = key(&origin);
    origin.ways.away.store(true, Ordering::Relaxed);

    // It passes on what it has, and publishes nothing itself.
    let stop = CancellationToken::new();
    let (library, metrics) = (first.library.clone(), first.metrics.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let served = (library, swarm(&metrics), metrics);
    serve(listener, served, Ways::honest(), stop.clone());
    let url = format!("http://{address}");
    let state = tempfile::tempdir().unwrap();
    let second = Mirror::with(state.path(), config(vec![origin_key], vec![url.clone()]));
    second.has("/a", &bytes).await;
    let seal = second.library.get("/a").unwrap().seal();
    assert_eq!(seal.map(|seal| seal.key), Some(origin_key));
    assert_eq!(second.handle.status().remove(0).key, Some(origin_key));
    second.stop().await;

    // Without the origin's key a mirror trusts the node it was told of, which publishes nothing.
    let state = tempfile::tempdir().unwrap();
    let third = Mirror::with(state.path(), config(Vec::new(), vec![url]));
    until("its key to be known", || {
        third.handle.status().remove(0).version.is_some()
    })
    .await;
    assert_eq!(third.handle.status().remove(0).objects, 0);
    third.stop().await;
    first.stop().await;
    drop(stop.drop_guard());
}

#[tokio::test(flavor = "multi_thread")]
async fn catalogue_never_goes_back_also_after_a_restart() {
    let (old, new) = (noise(42, 2 * CHUNK), noise(43, 3 * CHUNK));
    let origin = Origin::new(&[("a", &old)]).await;
    let state = tempfile::tempdir().unwrap();
    let mirror = Mirror::in_dir(state.path(), &[&origin], 4);
    mirror.has("/a", &old).await;
    let before = ask(&origin, &Ask::Catalogue(key(&origin), "/".into())).await;
    let old_version = SignedCatalogue::verify(&before, key(&origin)).unwrap();
    put(origin.content.path(), "a", &new);
    mirror.has("/a", &new).await;
    mirror.stop().await;

    // After the restart the node says that there is something newer, and sends what it signed before.
    *origin.ways.replay.lock().unwrap() = Some(before);
    let mirror = Mirror::in_dir(state.path(), &[&origin], 4);
    mirror.refuses(SealFault::Older, "found version").await;
    mirror.has("/a", &new).await;
    let version = mirror.handle.status().remove(0).version.unwrap();
    assert!(version > old_version.catalogue().version);
    mirror.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn origin_with_another_key_is_refused_until_it_is_trusted_again() {
    let (bytes, other) = (noise(44, 2 * CHUNK), noise(45, 3 * CHUNK));
    let origin = Origin::new(&[("a", &bytes)]).await;
    let state = tempfile::tempdir().unwrap();
    let mirror = Mirror::in_dir(state.path(), &[&origin], 4);
    mirror.has("/a", &bytes).await;
    let thief = Origin::new(&[("a", &other), ("b", &other)]).await;
    *origin.ways.instead.lock().unwrap() = Some(thief.library.clone());
    let text = format!("found key {}, expected {}", key(&thief), key(&origin));
    mirror.refuses(SealFault::OtherKey, &text).await;
    mirror.has("/a", &bytes).await;
    mirror.stop().await;

    let mirror = Mirror::in_dir(state.path(), &[&origin], 4);
    mirror.refuses(SealFault::OtherKey, &text).await;
    mirror.has("/a", &bytes).await;
    assert!(mirror.library.get("/b").is_none());
    mirror.stop().await;

    // The operator says that this key it is.
    let config = config(vec![key(&thief)], vec![origin.url()]);
    let mirror = Mirror::with(state.path(), config);
    mirror.has("/a", &other).await;
    mirror.has("/b", &other).await;
    mirror.stop().await;
}

/// What an origin answers to a question.
async fn ask(origin: &Origin, ask: &Ask) -> Vec<u8> {
    let request = Request::get(ask.to_string()).body(()).unwrap();
    let from = Ipv4Addr::LOCALHOST.into();
    let (library, metrics) = (&origin.library, &origin.metrics);
    let response = peer::serve(&request, from, library, &swarm(metrics), metrics).await;
    assert!(response.status().is_success(), "{}", response.status());
    let body = response.into_body().collect().await;
    let body = body.unwrap_or_else(|never: Infallible| match never {});
    body.to_bytes().to_vec()
}

/// An index that says there is a newer catalogue than there is.
pub(super) fn boast(body: &[u8]) -> Vec<u8> {
    let mut index: Index = serde_json::from_slice(body).unwrap();
    for edition in &mut index.catalogues {
        edition.version += 1;
    }
    serde_json::to_vec(&index).unwrap()
}
