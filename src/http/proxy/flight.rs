//! Requests under way at upstreams, so that others who want the same wait for their heads instead of asking too.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

/// All requests that others may wait for.
#[derive(Clone, Debug, Default)]
pub(super) struct Flights(Arc<Mutex<HashMap<String, watch::Receiver<()>>>>);

/// The place of one who asks.
#[derive(Debug)]
pub(super) enum Place {
    /// It is the first: others wait until this is dropped.
    Lead(Lead),
    /// Somebody asks already; ended when the channel is closed.
    Follow(watch::Receiver<()>),
}

/// Held by the request that others wait for.
#[derive(Debug)]
pub(super) struct Lead {
    flights: Flights,
    key: String,
    /// Its drop wakes those who wait.
    _sender: watch::Sender<()>,
}

impl Flights {
    /// Takes a place among those who want `key`.
    pub(super) fn join(&self, key: &str) -> Place {
        let mut flights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = flights.get(key) {
            return Place::Follow(flight.clone());
        }
        let (sender, receiver) = watch::channel(());
        flights.insert(key.to_owned(), receiver);
        Place::Lead(Lead {
            flights: self.clone(),
            key: key.to_owned(),
            _sender: sender,
        })
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        let mut flights = self
            .flights
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        flights.remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn followers_are_woken_when_the_leader_is_done() {
        let flights = Flights::default();
        let Place::Lead(lead) = flights.join("a") else {
            panic!("the first leads")
        };
        let Place::Follow(mut follower) = flights.join("a") else {
            panic!("the second follows")
        };
        assert!(matches!(flights.join("b"), Place::Lead(_)));
        drop(lead);
        assert!(follower.changed().await.is_err());
        assert!(matches!(flights.join("a"), Place::Lead(_)));
    }
}
