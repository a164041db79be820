//! What the answers to a batch will read, brought in before the first of them is composed.
//!
//! The names asked about have nothing to do with each other, so in a large zone or cache each answer waits for memory three
//! or four times, each time for what the look before has found. Here every look is made for the whole batch at
//! once: the processor has many of them under way at the same time, and the answers find in its caches what they need.

use super::resolver::near::Near;
use super::wire::HEADER_LEN;
use super::zone::Zones;
use super::zone::path::Path;
use super::zone::tree::{self, Zone};

/// The names of one batch. One for each thread, made once.
#[derive(Debug)]
pub(super) struct Ahead {
    paths: Box<[Path]>,
}

impl Ahead {
    /// For batches of up to `packets`.
    pub(super) fn new(packets: usize) -> Self {
        Self {
            paths: vec![Path::ROOT; packets].into(),
        }
    }

    /// Reads the names of `count` packets and, if zones or copies are large, looks for them there. A packet without a question
    /// has the path of the root, and no use for it.
    pub(super) fn look<'b>(
        &mut self,
        count: usize,
        packet: impl Fn(usize) -> &'b [u8],
        zones: &Zones,
        near: Option<&Near>,
    ) {
        let paths = self.paths.iter_mut().take(count).enumerate();
        for (index, path) in paths {
            path.read(packet(index).get(HEADER_LEN..).unwrap_or_default());
        }
        let near = near.filter(|near| near.is_large());
        if count >= WORTH && (near.is_some() || zones.is_large()) {
            std::hint::black_box(self.touch(count, zones, near));
        }
    }

    /// Reads what the answers will read, look by look. Each loop is short, so that the reads of many names are under way
    /// at once; a value made of all that was read keeps them from being left out.
    fn touch(&self, count: usize, zones: &Zones, near: Option<&Near>) -> usize {
        let paths = self.paths.iter().take(count);
        let mut homes = [Home::None; AT_ONCE];
        for (path, home) in paths.clone().zip(&mut homes) {
            *home = match (zones.find(path, 0), near) {
                (Some(place), _) if place.zone.is_large() => Home::Zone(place.zone),
                (None, Some(near)) => Home::Near(near),
                _ => Home::None,
            };
        }
        let mut read = 0;
        for (path, home) in paths.clone().zip(&homes) {
            read ^= match home {
                Home::Zone(zone) => zone.near_spot(path),
                Home::Near(near) => near.near_set(path),
                Home::None => 0,
            };
        }
        let mut spots = [Spot::None; AT_ONCE];
        for ((path, home), spot) in paths.zip(&homes).zip(&mut spots) {
            *spot = match home {
                Home::Zone(zone) => zone.likely_spot(path).map_or(Spot::None, Spot::Name),
                Home::Near(near) => near.likely_cell(path).map_or(Spot::None, Spot::Cell),
                Home::None => Spot::None,
            };
        }
        for (home, spot) in homes.iter().zip(&spots) {
            read ^= match (home, spot) {
                (Home::Zone(zone), &Spot::Name(spot)) => zone.near_name(spot),
                (Home::Near(near), &Spot::Cell(cell)) => near.near_cell(cell),
                _ => 0,
            };
        }
        read
    }

    /// The path of the name that packet `index` of the batch asks about.
    pub(super) fn path(&self, index: usize) -> Option<&Path> {
        self.paths.get(index)
    }
}

/// What a name is looked for in.
#[derive(Clone, Copy, Debug)]
enum Home<'a> {
    None,
    Zone(&'a Zone),
    Near(&'a Near),
}

/// Where it is, most likely.
#[derive(Clone, Copy, Debug)]
enum Spot {
    None,
    Name(tree::Spot),
    Cell(u16),
}

/// Names looked for at once.
pub(super) const AT_ONCE: usize = 64;

/// A batch of fewer packets gains nothing by a second look.
const WORTH: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::ZoneConfig;
    use crate::dns::zone::load_text;

    fn query(name: &[u8]) -> Vec<u8> {
        let head = [0, 7, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        [&head[..], name, &[0, 1, 0, 1]].concat()
    }

    #[test]
    fn batch_of_good_and_bad_packets_has_the_path_of_each_name() {
        let mut text =
            String::from("$TTL 60\n@ SOA ns h 1 2 3 4 5\n@ NS ns.test.\nns A 192.0.2.1\n");
        for host in 0..5_000 {
            text.push_str(&format!("h{host} A 192.0.2.1\n"));
        }
        let config = ZoneConfig {
            name: "test.".to_owned(),
            ..ZoneConfig::default()
        };
        let large = Zones::new(vec![load_text(&config, text.as_bytes()).unwrap().zone]);
        assert!(large.is_large());
        let deep = [&b"\x01x".repeat(120)[..], b"\x04test\0"].concat();
        let names: [&[u8]; 6] = [
            b"\x02H7\x04Test\0",
            b"\x05h4999\x04test\0",
            b"\x04miss\x04test\0",
            b"\x03www\x07example\0",
            &deep,
            b"\0",
        ];
        let mut packets: Vec<Vec<u8>> = names.iter().map(|name| query(name)).collect();
        packets.extend([vec![], vec![0; 12], query(b"\x3Fcut"), query(b"\xC0\x0C")]);
        let mut ahead = Ahead::new(AT_ONCE);
        for zones in [&large, &Zones::default()] {
            ahead.look(packets.len(), |index| &packets[index], zones, None);
            for (index, name) in names.iter().enumerate() {
                let path = ahead.path(index).expect("one of the batch");
                assert_eq!(path.suffix(0), name.to_ascii_lowercase(), "{index}");
                assert_eq!(path.hash(), Path::new(name).hash(), "{index}");
            }
            for index in names.len()..packets.len() {
                let path = ahead.path(index).expect("one of the batch");
                assert_eq!(path.suffix(0), b"\0", "{index}");
            }
        }
    }
}
