//! One mirrored prefix: its nodes' indexes read in rounds, what is wanted filled chunk by chunk.
//!
//! One task decides; requests and disk work run beside it as jobs whose results come back to it as [`Event`]s, so no
//! state is shared. Every missing chunk is in flight, or waits for a free place among `in_flight`, or for a node to
//! be asked again; so it is enough to look at what readers want whenever a place falls free.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::client::{Client, Patience};
use super::exchange::OBJECTS;
use super::job::{self, Event};
use super::node::{News, Node};
use super::plan::{Holds, Plan};
use super::replicate::MirrorStatus;
use super::schedule::{self, Fetch, Source, Standing};
use super::swarm::Swarm;
use super::transfer::Transfer;
use super::trust::{Kept, Trust};
use super::{MirrorConfig, Mode};
use crate::content::catalogue::{Listed, SignedCatalogue};
use crate::content::chunk::Digest;
use crate::content::demand::Demand;
use crate::content::library::Library;
use crate::content::manifest::Manifest;
use crate::content::object::{Object, Role};
use crate::content::sign::PublicKey;
use crate::content::store::{Purpose, Store};
use crate::metrics::Metrics;
use crate::metrics::replication::{ObjectState, SourceState};
use crate::time::Now;

mod taken;

/// The mirror of one prefix.
#[derive(Debug)]
pub(super) struct Mirror {
    config: MirrorConfig,
    /// Longer prefixes within this one: their objects are other mirrors'.
    inner: Vec<String>,
    /// Those the mirror names, then others that were found.
    nodes: Vec<Node>,
    swarm: Arc<Swarm>,
    plan: Plan,
    trust: Trust,
    demand: Arc<Demand>,
    /// Objects readers wait for, to be begun before others.
    wished: VecDeque<String>,
    /// Mirrored objects that were here at the end of the last round.
    kept: usize,
    /// Keys whose catalogues are being fetched.
    reading: HashSet<PublicKey>,
    store: Store,
    library: Library,
    metrics: Arc<Metrics>,
    status: Arc<ArcSwap<MirrorStatus>>,
    /// Objects being filled, by path; at most `config.filling` with those that begin.
    transfers: BTreeMap<String, Transfer>,
    beginning: HashSet<String>,
    waiting: VecDeque<String>,
    /// Objects that a catalogue named since `waiting` was made, and that are not here.
    unlisted: usize,
    /// Objects that could not be begun or filled, and why; tried again in the next round.
    refused: BTreeMap<String, String>,
    /// The last object could not be begun for want of room.
    full: bool,
    jobs: JoinSet<Event>,
    in_flight: usize,
    /// How long a chunk takes, smoothed; `None`: none came yet.
    chunk_time: Option<Duration>,
    round: Round,
    seed: u64,
}

/// Where the reading of the indexes stands.
#[derive(Debug)]
struct Round {
    /// Nodes asked and not answered yet.
    open: usize,
    /// When the next begins.
    due: Now,
    /// When the last began.
    began: Now,
    /// How many there were: whose turn it is among those that were found.
    count: usize,
}

impl Mirror {
    pub(super) fn new(
        config: MirrorConfig,
        inner: Vec<String>,
        name: &str,
        store: Store,
        library: Library,
        swarm: Arc<Swarm>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let config = MirrorConfig {
            in_flight: config.in_flight.max(1),
            filling: config.filling.max(1),
            ..config
        };
        let mut problem = None;
        let mut nodes = Vec::new();
        for base in &config.from {
            match Client::new(base, &swarm) {
                Ok(client) => nodes.push(Node::new(client, true)),
                Err(error) => problem = Some(error.to_string()),
            }
        }
        let status = MirrorStatus {
            prefix: config.prefix.clone(),
            problem,
            ..MirrorStatus::default()
        };
        let digest = blake3::hash(format!("{name} {}", config.prefix).as_bytes());
        let mut seed = [0; 8];
        seed.copy_from_slice(&digest.as_bytes()[..8]);
        let trust = Trust::new(&config, store.dir());
        let demand = Arc::new(Demand::new(&config.prefix, WISHES));
        library.set_demand(&demand);
        let never = Now {
            mono_ns: 0,
            unix_ms: 0,
        };
        Self {
            plan: Plan::new(nodes.len(), trust.count(), config.interval / 2),
            trust,
            demand,
            wished: VecDeque::new(),
            kept: 0,
            reading: HashSet::new(),
            config,
            inner,
            nodes,
            swarm,
            store,
            library,
            metrics,
            status: Arc::new(ArcSwap::from_pointee(status)),
            transfers: BTreeMap::new(),
            beginning: HashSet::new(),
            waiting: VecDeque::new(),
            unlisted: 0,
            refused: BTreeMap::new(),
            full: false,
            jobs: JoinSet::new(),
            in_flight: 0,
            chunk_time: None,
            round: Round {
                open: 0,
                due: never,
                began: never,
                count: 0,
            },
            seed: u64::from_le_bytes(seed),
        }
    }

    pub(super) fn status(&self) -> Arc<ArcSwap<MirrorStatus>> {
        self.status.clone()
    }

    /// Mirrors until `stop`.
    ///
    /// # Errors
    /// A job that panicked.
    pub(super) async fn run(mut self, stop: CancellationToken) -> Result<(), anyhow::Error> {
        let askable = !self.nodes.is_empty() || self.config.from.is_empty();
        if !askable || !self.resume().await {
            stop.cancelled().await;
            return Ok(());
        }
        loop {
            let now = Now::read();
            if self.round.open == 0 && now >= self.round.due {
                self.begin_round(now);
            }
            self.begin_objects(now);
            self.meet(now);
            self.ask_bitmaps(now);
            self.fetch_chunks(now);
            self.show(now);
            let wake = tokio::time::sleep(self.sleep(now));
            tokio::select! {
                () = stop.cancelled() => break,
                Some(event) = self.jobs.join_next() => self.take(event?, Now::read()),
                path = self.demand.next() => self.take_wish(path),
                () = wake => {}
            }
        }
        self.jobs.shutdown().await;
        Ok(())
    }

    /// Takes up whose word was taken before, and what was said last; false: that cannot be known, so nobody is asked.
    async fn resume(&mut self) -> bool {
        let (files, config) = (self.trust.files().clone(), self.config.clone());
        let threads = self.store.threads().clone();
        let kept = job::blocking(&threads, move || Kept::read(&files, &config)).await;
        match kept {
            Ok(kept) => {
                for signed in self.trust.resume(kept) {
                    self.accept(&signed);
                }
                true
            }
            Err(error) => {
                tracing::error!(%error, prefix = self.config.prefix, "not mirrored");
                self.status.rcu(|status| MirrorStatus {
                    problem: Some(error.to_string()),
                    ..MirrorStatus::clone(status)
                });
                false
            }
        }
    }

    /// Goes by a verified catalogue, if it is newer.
    fn accept(&mut self, signed: &SignedCatalogue) {
        let (prefix, inner) = (&self.config.prefix, &self.inner);
        let filter = &self.config.filter;
        let mine = |path: &str| {
            path.starts_with(prefix)
                && !inner.iter().any(|i| path.starts_with(i))
                && filter.takes(prefix, path)
        };
        let ranks = self.trust.accept(signed);
        for rank in &ranks {
            self.plan.catalogue(*rank, signed.catalogue(), mine);
        }
        if !ranks.is_empty() {
            self.library.offer(signed);
            self.unlisted = self.count_unlisted();
            let wanted = self.plan.wanted().iter();
            self.demand.list(wanted.map(|(path, wanted)| Listed {
                path: path.clone(),
                size: wanted.size,
                manifest: wanted.id,
            }));
        }
    }

    /// Objects that are wanted and not here, and that nobody knows to wait or to be filled.
    fn count_unlisted(&self) -> usize {
        let waiting: HashSet<&String> = self.waiting.iter().collect();
        let wanted = self.plan.wanted().iter();
        wanted
            .filter(|(path, wanted)| self.is_due(path) && !self.has(path, wanted.id))
            .filter(|(path, _)| {
                !waiting.contains(path)
                    && !self.transfers.contains_key(*path)
                    && !self.beginning.contains(*path)
                    && !self.refused.contains_key(*path)
            })
            .count()
    }

    /// A reader waits for an object that is not here.
    fn take_wish(&mut self, path: String) {
        let wanted = self.plan.wanted().get(&path);
        if wanted.is_some_and(|wanted| !self.has(&path, wanted.id)) {
            self.wished.push_back(path);
        } else {
            self.demand.settle(&path);
        }
    }

    /// The next object to begin: those that readers wait for first, which may be as many more as `filling` says.
    fn next_to_begin(&mut self) -> Option<String> {
        let filling = self.transfers.len() + self.beginning.len();
        if self.beginning.len() >= self.config.in_flight {
            return None;
        }
        let wished = (filling < 2 * self.config.filling)
            .then(|| self.wished.pop_front())
            .flatten();
        wished.or_else(|| {
            (filling < self.config.filling)
                .then(|| self.waiting.pop_front())
                .flatten()
        })
    }

    /// How long nothing but a job's result can be of interest.
    fn sleep(&self, now: Now) -> Duration {
        let round = (self.round.open == 0).then(|| self.round.due.since(now));
        let opening = self
            .nodes
            .iter()
            .map(|node| node.health.closed_for(now))
            .filter(|time| !time.is_zero());
        let asking = self.nodes.iter().filter(|n| n.is_open(now) && !n.asking);
        let bitmaps = asking.map(|node| node.due.since(now));
        let bitmaps = bitmaps.filter(|_| !self.transfers.is_empty() && self.nodes.len() > 1);
        let late = (self.in_flight > 0).then_some(LATE_LOOK);
        opening
            .chain(round)
            .chain(bitmaps)
            .chain(late)
            .min()
            .unwrap_or(self.config.interval)
            .max(Duration::from_millis(1))
    }

    fn begin_round(&mut self, now: Now) {
        self.round.began = now;
        self.round.count += 1;
        self.round.due = now.plus(self.config.interval);
        for place in self.choose_nodes(now) {
            let node = &self.nodes[place];
            let (client, etag) = (node.client.clone(), node.etag.clone());
            let prefix = self.config.prefix.clone();
            self.round.open += 1;
            self.jobs.spawn(job::ask_index(place, client, prefix, etag));
        }
        if self.round.open == 0 {
            self.end_round(now);
        }
    }

    /// Whose indexes are read in this round: those the mirror names, and while none of them answers (or it names none)
    /// some of the others, who may have what the origins signed.
    fn choose_nodes(&mut self, now: Now) -> Vec<usize> {
        let named = self.nodes.iter().filter(|node| node.named).count();
        let answers = |node: &Node| node.problem.is_none() && node.is_open(now);
        let open = |place: &usize| self.nodes[*place].is_open(now);
        let mut chosen: Vec<usize> = (0..named).filter(open).collect();
        if self.nodes[..named].iter().any(answers) {
            self.plan.keep(named);
            self.nodes[named..].iter_mut().for_each(|n| n.etag = None);
            return chosen;
        }
        let (origins, others): (Vec<usize>, Vec<usize>) = (named..self.nodes.len())
            .filter(open)
            .partition(|place| self.nodes[*place].origin);
        chosen.extend(in_turn(&origins, self.round.count));
        chosen.extend(in_turn(&others, self.round.count));
        chosen
    }

    fn end_round(&mut self, now: Now) {
        // A node that failed is asked again as soon as it may be, not only at the next interval.
        let named = self.nodes.iter().filter(|node| node.named);
        let again = named.map(|node| node.health.closed_for(now));
        if let Some(soonest) = again.filter(|time| !time.is_zero()).min() {
            self.round.due = self.round.due.min(now.plus(soonest));
        }
        let held: Vec<String> = self
            .library
            .list()
            .iter()
            .filter(|object| object.role() == Role::Mirror)
            .filter(|object| self.is_mine(&object.manifest().path))
            .inspect(|object| object.set_elsewhere(self.is_elsewhere(object, now)))
            .map(|object| object.manifest().path.clone())
            .collect();
        self.kept = held.len();
        for path in self.plan.end_round(held.into_iter(), now) {
            self.transfers.remove(&path);
            self.jobs.spawn(job::remove(self.store.clone(), path));
        }
        if self.store.is_over() {
            let store = self.store.clone();
            // Nobody waits for it.
            drop(self.store.threads().run(move || store.trim()));
        }
        self.refused.clear();
        let wanted = self.plan.wanted();
        let open: Vec<bool> = self.nodes.iter().map(|node| node.is_open(now)).collect();
        self.transfers.retain(|path, transfer| {
            let Some(wanted) = wanted.get(path).filter(|w| w.id == transfer.object.id()) else {
                return false;
            };
            if !self.library.is_current(&transfer.object) {
                return false; // Its copy was dropped by the operator.
            }
            transfer.refresh(wanted);
            // Those whose nodes are away make room for others.
            !transfer.pending.is_empty() || transfer.has_source(|place| open[place])
        });
        self.waiting = wanted
            .iter()
            .filter(|(path, wanted)| self.is_due(path) && !self.has(path, wanted.id))
            .map(|(path, _)| path)
            .filter(|path| !self.transfers.contains_key(*path) && !self.beginning.contains(*path))
            .cloned()
            .collect();
        self.unlisted = 0;
    }

    /// Whether the object is whole here, or published by this node itself.
    fn has(&self, path: &str, id: Digest) -> bool {
        self.library.get(path).is_some_and(|object| {
            object.role() == Role::Origin || (object.id() == id && object.complete())
        })
    }

    /// Whether an object is fetched unasked: all are, or those that somebody asked for before.
    fn is_due(&self, path: &str) -> bool {
        match self.config.mode {
            Mode::Replicate => true,
            Mode::OnDemand => self.library.get(path).is_some(),
        }
    }

    /// Whether the object stays at a node that can be asked when it is dropped here.
    fn is_elsewhere(&self, object: &Object, now: Now) -> bool {
        let open = |place: usize| self.nodes.get(place).is_some_and(|node| node.is_open(now));
        let own = self.library.editions().key();
        self.plan
            .stays_elsewhere(&object.manifest().path, object.id(), own, open)
    }

    fn is_mine(&self, path: &str) -> bool {
        path.starts_with(&self.config.prefix)
            && !self.inner.iter().any(|inner| path.starts_with(inner))
    }

    /// Begins waiting objects while there is room.
    fn begin_objects(&mut self, now: Now) {
        while let Some(path) = self.next_to_begin() {
            if self.beginning.contains(&path) {
                continue;
            }
            let wanted = self.plan.wanted().get(&path);
            let Some(wanted) = wanted.filter(|_| !self.transfers.contains_key(&path)) else {
                self.demand.settle(&path);
                continue;
            };
            let known = self.library.version(wanted.id);
            let may = |place: &usize| {
                wanted.nodes[*place] != Holds::Nothing && self.nodes[*place].is_open(now)
            };
            let Some(node) = (0..wanted.nodes.len()).find(may) else {
                self.demand.settle(&path);
                let reason = format!("{path}: no node that has it can be asked now");
                self.refused.insert(path, reason);
                continue;
            };
            let client = self.nodes[node].client.clone();
            let (id, size, store) = (wanted.id, wanted.size, self.store.clone());
            let purpose = match self.demand.is_waited_for(&path) {
                true => Purpose::Reader,
                false => Purpose::Replicate,
            };
            let keys = self.trust.keys();
            self.beginning.insert(path.clone());
            self.jobs.spawn(async move {
                // A version that was known before needs no request: its manifest is what its digest says.
                match known {
                    Some(object) => {
                        let manifest = Manifest::clone(object.manifest());
                        let known = (manifest, object.seal());
                        job::begin(store, purpose, path, id, None, Ok(known)).await
                    }
                    None => {
                        let manifest = job::fetch_manifest(&client, &keys, id, &path, size).await;
                        job::begin(store, purpose, path, id, Some(node), manifest).await
                    }
                }
            });
        }
    }

    /// Takes up nodes that were found, in the places of those that are known no more.
    fn meet(&mut self, now: Now) {
        let known = self.swarm.directory().known(now);
        for node in self.nodes.iter_mut().filter(|node| !node.named) {
            node.listed = known.iter().any(|base| base == node.client.base());
        }
        for base in known {
            if self.nodes.iter().any(|node| node.client.base() == base) {
                continue;
            }
            let Ok(client) = Client::new(&base, &self.swarm) else {
                continue;
            };
            let node = Node::new(client, false);
            let free = |node: &Node| !node.listed && node.in_flight == 0 && !node.asking;
            if let Some(place) = self.nodes.iter().position(free) {
                self.nodes[place] = node;
                self.plan.forget(place);
                let transfers = self.transfers.values_mut();
                transfers.for_each(|transfer| transfer.forget(place));
            } else if self.nodes.len() < self.config.from.len() + self.swarm.config().nodes {
                self.nodes.push(node);
                let nodes = self.nodes.len();
                let transfers = self.transfers.values_mut();
                transfers.for_each(|transfer| transfer.make_room(nodes));
            } else {
                continue;
            }
            if self.config.from.is_empty() {
                // It may be the first that knows anything.
                self.round.due = self.round.due.min(self.round.began.plus(SOON));
            }
        }
    }

    /// Asks the nodes which chunks they hold of what is being filled.
    fn ask_bitmaps(&mut self, now: Now) {
        if self.nodes.len() < 2 {
            return;
        }
        for (place, node) in self.nodes.iter_mut().enumerate() {
            if node.asking || now < node.due || !node.is_open(now) {
                continue;
            }
            let asks = self.transfers.iter().filter_map(|(path, transfer)| {
                let ask = transfer.ask(place)?;
                Some((path.clone(), ask))
            });
            let asks: Vec<_> = asks.take(OBJECTS).collect();
            if asks.is_empty() {
                node.told(News::Nothing, now);
                continue;
            }
            node.asking = true;
            self.jobs
                .spawn(job::ask_have(place, node.client.clone(), asks));
        }
    }

    /// Asks for chunks while there is room and something to ask for.
    fn fetch_chunks(&mut self, now: Now) {
        while self.in_flight < self.config.in_flight {
            self.seed = self.seed.wrapping_add(1);
            let Some((path, fetch)) = self.pick(now).or_else(|| self.pick_late(now)) else {
                break;
            };
            let transfer = self
                .transfers
                .get_mut(&path)
                .expect("the path was picked from the transfers");
            let cancel = transfer.asked(fetch, now);
            self.swarm.expect(transfer.object.id(), transfer.busy());
            self.in_flight += 1;
            let node = &mut self.nodes[fetch.source];
            node.in_flight += 1;
            let (client, object) = (node.client.clone(), transfer.object.clone());
            let received = if transfer.publishes(fetch.source) {
                self.metrics.replication.in_origin.clone()
            } else {
                self.metrics.replication.in_peer.clone()
            };
            self.metrics.replication.in_flight.inc();
            let silence = self.swarm.config().silence;
            let len = object.manifest().layout.len(fetch.index);
            let patience = Patience {
                silence,
                whole: silence * 6 + Duration::from_secs(u64::from(len) / SLOWEST),
            };
            let metrics = self.metrics.clone();
            self.jobs.spawn(job::fetch(
                client, object, path, fetch, patience, cancel, received, metrics,
            ));
        }
    }

    /// The chunk to ask for next: of all objects those that readers wait for first.
    fn pick(&self, now: Now) -> Option<(String, Fetch)> {
        let mut wanting = self
            .transfers
            .iter()
            .map(|(path, transfer)| (path, transfer, transfer.object.wants()))
            .filter(|(_, _, wants)| !wants.is_empty());
        let urgent = wanting.find_map(|(path, transfer, wants)| {
            let have = transfer.object.have();
            let busy = transfer.busy();
            let fetch = self.with_sources(transfer, now, |sources| {
                schedule::urgent(&have, &wants, &busy, sources, now, self.seed)
            })?;
            Some((path.clone(), fetch))
        });
        urgent.or_else(|| {
            self.transfers.iter().find_map(|(path, transfer)| {
                let have = transfer.object.have();
                let busy = transfer.busy();
                let fetch = self.with_sources(transfer, now, |sources| {
                    let dice = (self.swarm.run(), self.seed);
                    schedule::next(&have, &[], &busy, sources, now, dice)
                })?;
                Some((path.clone(), fetch))
            })
        })
    }

    /// When there is nothing else to ask for: a chunk that takes too long, of another node.
    fn pick_late(&self, now: Now) -> Option<(String, Fetch)> {
        let usual = self.chunk_time.unwrap_or(LATE);
        let patience = LATE + usual * 3;
        let wanted = LATE / 2 + usual;
        self.transfers.iter().find_map(|(path, transfer)| {
            let late = transfer.late(patience, wanted, now);
            let fetch = late.into_iter().find_map(|fetch| {
                self.with_sources(transfer, now, |sources| {
                    schedule::instead(fetch, sources, now, self.seed)
                })
            })?;
            Some((path.clone(), fetch))
        })
    }

    /// Gives the sources of an object to `pick`.
    fn with_sources<T>(
        &self,
        transfer: &Transfer,
        now: Now,
        pick: impl FnOnce(&[Source<'_>]) -> T,
    ) -> T {
        let open = |node: &&Node| node.is_open(now);
        let alone = self.nodes.iter().filter(open).count() < 2;
        let total = self.config.in_flight;
        let most = if alone {
            total
        } else {
            total.min(self.swarm.config().in_flight)
        };
        let places = 0..self.nodes.len();
        let coming: Vec<Vec<u32>> = places.map(|place| transfer.coming(place, now)).collect();
        let nodes = self.nodes.iter().zip(&coming).enumerate();
        let sources: Vec<Source<'_>> = nodes
            .map(|(place, (node, coming))| Source {
                have: transfer.have(place).filter(|_| node.listed),
                in_flight: node.in_flight,
                limit: node.limit(most),
                health: &node.health,
                origin: transfer.publishes(place),
                coming,
                pace: node.pace,
                rival: node.run.filter(|_| transfer.have(place).is_some()),
            })
            .collect();
        pick(&sources)
    }

    /// Makes metrics and status say how things stand.
    fn show(&mut self, now: Now) {
        let metrics = &self.metrics.replication;
        for node in &mut self.nodes {
            let standing = node.health.standing(now);
            if node.shown == Some(standing) {
                continue;
            }
            node.shown = Some(standing);
            if !node.named {
                continue; // Those that come and go would make series without end.
            }
            let state = match standing {
                Standing::Open => SourceState::Up,
                Standing::BackOff => SourceState::BackOff,
                Standing::CutOff => SourceState::CutOff,
            };
            metrics.source(node.client.base(), state);
        }
        let filling = self.transfers.len() + self.beginning.len();
        let waiting = self.waiting.len() + self.unlisted;
        let missing = filling + waiting + self.refused.len();
        let objects = match self.config.mode {
            Mode::Replicate => self.plan.wanted().len(),
            Mode::OnDemand => self.kept.max(missing),
        };
        let prefix = &self.config.prefix;
        let whole = objects.saturating_sub(missing);
        metrics.objects(prefix, ObjectState::Whole, whole);
        metrics.objects(prefix, ObjectState::Filling, filling);
        metrics.objects(prefix, ObjectState::Waiting, waiting);
        metrics.objects(prefix, ObjectState::Refused, self.refused.len());
        let nobody = (!self.nodes.iter().any(|node| node.listed)).then(|| {
            let ways = self.swarm.config().discover.iter();
            let ways: Vec<&str> = ways.map(|way| way.label()).collect();
            format!("no other node found yet ({})", ways.join(", "))
        });
        let problem = self
            .nodes
            .iter()
            .find_map(|node| node.problem.as_ref())
            .or_else(|| self.refused.values().next())
            .or(nobody.as_ref());
        let last = self.status.load();
        let now_as = (objects, missing, problem, self.trust.version());
        if (
            last.objects,
            last.filling,
            last.problem.as_ref(),
            last.version,
        ) != now_as
        {
            self.status.store(Arc::new(MirrorStatus {
                objects,
                filling: missing,
                problem: problem.cloned(),
                key: self.trust.first_key(),
                version: self.trust.version(),
                ..MirrorStatus::clone(&last)
            }));
        }
    }
}

/// Of nodes whose indexes may be read those whose turn it is, at most [`OTHERS`]: in some rounds all have theirs.
fn in_turn(places: &[usize], round: usize) -> impl Iterator<Item = usize> {
    let first = (round * OTHERS).checked_rem(places.len()).unwrap_or(0);
    let around = places[first..].iter().chain(&places[..first]);
    around.take(OTHERS).copied()
}

/// Nodes beside those that are named whose indexes are read at once: so many that say they are origins, and as many others.
const OTHERS: usize = 4;

/// Objects readers wait for at once; more are turned away.
const WISHES: usize = 1_024;

/// The next round begins at the latest this long after the last one began when there was no room.
const ROOM: Duration = Duration::from_secs(5);

/// The next round begins this long after the last one began when a version is gone.
const SOON: Duration = Duration::from_secs(1);

/// A chunk is late after this and three times what one usually takes; half and once of it if a reader waits.
const LATE: Duration = Duration::from_secs(1);

/// How often late chunks are looked for.
const LATE_LOOK: Duration = Duration::from_millis(250);

/// Slowest pace of a chunk that is borne, bytes per second.
const SLOWEST: u64 = 8_192;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_has_its_turn_and_few_have_it_at_once() {
        for count in 0..30 {
            let places: Vec<usize> = (100..100 + count).collect();
            let mut had = HashSet::new();
            for round in 0..count {
                let turn: Vec<usize> = in_turn(&places, round).collect();
                let distinct: HashSet<usize> = turn.iter().copied().collect();
                assert_eq!(
                    (turn.len(), distinct.len()),
                    (count.min(OTHERS), turn.len())
                );
                had.extend(turn);
            }
            assert_eq!(had.len(), count);
        }
    }
}
