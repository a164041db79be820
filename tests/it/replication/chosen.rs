//! What of a prefix is mirrored: patterns, and what readers ask for.

use headwater::content::demand::Wish;
use headwater::content::library::Entry;
use headwater::peer::Mode;
use headwater::peer::filter::Filter;

use super::*;

fn on_demand(origin: &Origin) -> MirrorConfig {
    MirrorConfig {
        mode: Mode::OnDemand,
        interval: Duration::from_millis(50),
        ..MirrorConfig::new("/", vec![origin.url()])
    }
}

/// Waits until the mirror has heard what there is.
async fn heard(mirror: &Mirror) {
    until("the catalogue", || {
        mirror.handle.status().remove(0).version.is_some()
    })
    .await;
}

async fn find(mirror: &Mirror, path: &str) -> Arc<Object> {
    match mirror.library.find(path).await {
        Entry::Object(object) => object,
        other => panic!("{path}: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn patterns_choose_what_is_mirrored() {
    let bytes = noise(60, CHUNK + 1);
    let names = [
        "a.iso",
        "b.img",
        "deep/c.iso",
        "beta/d.iso",
        "deep/tmp/e.iso",
    ];
    let files: Vec<(&str, &[u8])> = names.iter().map(|n| (*n, bytes.as_slice())).collect();
    let origin = Origin::new(&files).await;
    let state = tempfile::tempdir().unwrap();
    let filter = |include: &[&str], exclude: &[&str]| {
        let texts = |list: &[&str]| -> Vec<String> { list.iter().map(|t| (*t).into()).collect() };
        MirrorConfig {
            filter: Filter::new(&texts(include), &texts(exclude)).unwrap(),
            interval: Duration::from_millis(50),
            ..MirrorConfig::new("/", vec![origin.url()])
        }
    };
    let config = filter(&["*.iso"], &["/beta/", "tmp/"]);
    let mirror = Mirror::with(state.path(), config);
    mirror.has("/a.iso", &bytes).await;
    mirror.has("/deep/c.iso", &bytes).await;
    let status = mirror.handle.status().remove(0);
    assert_eq!((status.objects, status.problem), (2, None));
    assert_eq!(mirror.library.list().len(), 2);
    mirror.stop().await;

    // What is excluded from now on goes, and what is included comes.
    let mirror = Mirror::with(state.path(), filter(&["*.i*"], &["deep/"]));
    mirror.has("/b.img", &bytes).await;
    mirror.has("/beta/d.iso", &bytes).await;
    until("the excluded object to go", || {
        mirror.library.get("/deep/c.iso").is_none()
    })
    .await;
    mirror.has("/a.iso", &bytes).await;
    mirror.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_demand_fetches_what_is_asked_for_and_keeps_it() {
    let (bytes, other) = (noise(61, 5 * CHUNK + 3), noise(62, 2 * CHUNK));
    let origin = Origin::new(&[("a", &bytes), ("b", &other)]).await;
    let state = tempfile::tempdir().unwrap();
    let mirror = Mirror::with(state.path(), on_demand(&origin));
    heard(&mirror).await;
    let object = find(&mirror, "/a").await;
    object.wanted(0).await;
    mirror.has("/a", &bytes).await;
    assert!(mirror.library.get("/b").is_none(), "nobody asked for it");
    assert!(matches!(mirror.library.find("/x").await, Entry::None));
    let asked = origin.ways.asked.lock().unwrap().len();
    assert_eq!(asked, 6, "chunks of the one object, each once");
    mirror.stop().await;

    // It is kept over a restart, and brought up to date unasked; the other is still not fetched.
    let newer = noise(63, 3 * CHUNK);
    put(origin.content.path(), "a", &newer);
    let mirror = Mirror::with(state.path(), on_demand(&origin));
    mirror.has("/a", &newer).await;
    assert!(mirror.library.get("/b").is_none());
    std::fs::remove_file(origin.content.path().join("a")).unwrap();
    until("the removed object to go", || {
        mirror.library.get("/a").is_none()
    })
    .await;
    assert!(matches!(mirror.library.find("/a").await, Entry::None));
    mirror.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_of_one_object_share_one_fetch() {
    let bytes = noise(64, 8 * CHUNK);
    let origin = Origin::new(&[("a", &bytes)]).await;
    origin.ways.pause.store(3, Ordering::Relaxed);
    let state = tempfile::tempdir().unwrap();
    let mirror = Mirror::with(state.path(), on_demand(&origin));
    heard(&mirror).await;
    let finds = (0..20).map(|_| find(&mirror, "/a"));
    let found = futures_util::future::join_all(finds).await;
    assert!(found.iter().all(|object| object.id() == found[0].id()));
    mirror.has("/a", &bytes).await;
    assert_eq!(origin.ways.asked.lock().unwrap().len(), 8);
    mirror.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wish_that_cannot_be_met_now_is_answered_at_once() {
    let origin = Origin::new(&[("a", &noise(65, CHUNK))]).await;
    let state = tempfile::tempdir().unwrap();
    let mirror = Mirror::with(state.path(), on_demand(&origin));
    heard(&mirror).await;
    origin.ways.away.store(true, Ordering::Relaxed);
    until("the mirror to notice", || mirror.problem().is_some()).await;
    let begun = Instant::now();
    assert!(matches!(mirror.library.find("/a").await, Entry::Later));
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
    origin.ways.away.store(false, Ordering::Relaxed);
    let bytes = noise(65, CHUNK);
    until("the node to be asked again", || mirror.problem().is_none()).await;
    drop(find(&mirror, "/a").await);
    mirror.has("/a", &bytes).await;
    mirror.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn object_a_reader_waits_for_is_begun_before_those_that_wait_longer() {
    let bytes = noise(66, 20 * CHUNK);
    let names = ["a", "b", "c", "d", "e", "f", "z"];
    let files: Vec<(&str, &[u8])> = names.iter().map(|n| (*n, bytes.as_slice())).collect();
    let origin = Origin::new(&files).await;
    origin.ways.pause.store(10, Ordering::Relaxed);
    let state = tempfile::tempdir().unwrap();
    let config = MirrorConfig {
        filling: 1,
        in_flight: 1,
        interval: Duration::from_millis(50),
        ..MirrorConfig::new("/", vec![origin.url()])
    };
    let mirror = Mirror::with(state.path(), config);
    until("the first fill to begin", || {
        mirror.library.get("/a").is_some()
    })
    .await;
    let object = find(&mirror, "/z").await;
    object.wanted(0).await;
    assert!(mirror.library.get("/b").is_none(), "it was not begun yet");
    mirror.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn demand_of_a_mirror_knows_its_paths() {
    let origin = Origin::new(&[("d/a", b"1"), ("b", b"22")]).await;
    let state = tempfile::tempdir().unwrap();
    let mirror = Mirror::with(state.path(), on_demand(&origin));
    heard(&mirror).await;
    let demand = mirror.library.demand("/d/a").expect("a mirrored prefix");
    let listed = demand.listed("/d/");
    assert_eq!(listed.len(), 1);
    assert_eq!((listed[0].path.as_str(), listed[0].size), ("/d/a", 1));
    let wished = demand.wish("/d/a", Duration::from_secs(10)).await;
    assert_eq!(wished, Wish::Done);
    mirror.has("/d/a", b"1").await;
    mirror.stop().await;
}
