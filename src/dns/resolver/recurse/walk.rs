//! How much of a name each zone on the way down is shown.

use super::cut::Cut;
use super::dname::Dname;
use super::fact::{Fact, What};
use super::rtype;

/// How much of a name is shown to a zone's servers (RFC 9156).
pub(super) struct Walk {
    /// Labels of the zone asked.
    zone: usize,
    minimise: bool,
    /// Labels of the name known to be no cut.
    known: usize,
    probes: usize,
    /// The whole question from now on.
    whole: bool,
}

impl Walk {
    pub(super) fn new(cut: &Cut, minimise: bool) -> Self {
        Self {
            zone: cut.zone.labels(),
            minimise,
            known: cut.zone.labels(),
            probes: 0,
            whole: !minimise,
        }
    }

    /// Whether `name`, shown whole, may lie beneath a delegation that nobody has looked for.
    pub(super) fn may_skip_a_cut(&self, name: &Dname) -> bool {
        !self.minimise && name.labels() > self.zone + 1
    }

    /// What to ask next on the way to (`name`, `qtype`).
    pub(super) fn next(&mut self, name: &Dname, qtype: u16) -> (Dname, u16) {
        let labels = name.labels();
        let left = labels.saturating_sub(self.known);
        let step = match self.probes {
            n if n < ONE_LABEL => 1,
            n => left.div_ceil(MINIMISED.saturating_sub(n).max(1)),
        };
        self.probes += 1;
        let mut shown = self.known + step.max(1);
        // Zones are seldom cut at "_tcp" and its like (RFC 9156 section 2.3).
        while shown < labels && name.suffix(shown).get(1) == Some(&b'_') {
            shown += 1;
        }
        if self.whole || self.probes > MINIMISED || shown >= labels {
            self.whole = true;
            return (name.clone(), qtype);
        }
        (name.suffix(shown), rtype::A)
    }

    /// Takes in what was heard of the shortened name.
    pub(super) fn hears(&mut self, fact: &Fact, asked: &Dname) {
        self.known = asked.labels();
        match &fact.what {
            // Some servers deny names that have others beneath them: only the whole question tells.
            What::Nothing(nothing) if nothing.nxdomain => self.whole = true,
            What::Set { set, .. } if set.rtype == rtype::DNAME => self.whole = true,
            _ => {}
        }
    }

    /// Whether what is known already spares the question for the shortened name.
    pub(super) fn passes(&mut self, fact: &Fact, asked: &Dname) -> bool {
        self.hears(fact, asked);
        true
    }
}

/// RFC 9156 section 2.3: names shown in part at most, and of these by one label more.
const MINIMISED: usize = 10;
const ONE_LABEL: usize = 4;
