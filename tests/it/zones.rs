//! Many zones: what one of them costs the others.

use std::path::Path;
use std::sync::Arc;

use headwater::dns::ZoneConfig;
use headwater::dns::keeper::Keeper;
use headwater::metrics::Metrics;

const COUNT: usize = 10_000;

fn text(serial: u32) -> String {
    format!("@ 60 SOA ns h {serial} 3600 600 86400 60\n@ 60 NS ns\nns 60 A 192.0.2.1\n")
}

fn config(folder: &Path, number: usize) -> ZoneConfig {
    ZoneConfig {
        name: format!("z{number}.test."),
        file: folder.join(number.to_string()),
        ..ZoneConfig::default()
    }
}

#[test]
fn reload_of_one_zone_of_ten_thousand_reads_its_own_file_only() {
    let folder = tempfile::tempdir().unwrap();
    let configs: Vec<_> = (0..COUNT).map(|n| config(folder.path(), n)).collect();
    for config in &configs {
        std::fs::write(&config.file, text(1)).unwrap();
    }
    let keeper = Keeper::new(configs.clone(), Arc::new(Metrics::new()));
    assert_eq!(keeper.reload(None).unwrap().len(), COUNT);
    assert!(keeper.is_good());
    // Poison: whoever reads another file finds a fault in it.
    for config in &configs {
        std::fs::write(&config.file, "poison\n").unwrap();
    }
    let before = Arc::clone(&keeper.serving());
    for number in [0, 4_711, COUNT - 1] {
        let config = &configs[number];
        std::fs::write(&config.file, text(2)).unwrap();
        let states = keeper.reload(Some(&config.name)).unwrap();
        assert_eq!(states.len(), 1);
        assert_eq!((states[0].serial, states[0].problems.len()), (Some(2), 0));
    }
    assert!(keeper.is_good());
    // All others are the very zones they were, not equal ones.
    let after = keeper.serving();
    let pairs = before.iter().zip(after.iter());
    let changed = pairs.filter(|(old, new)| !Arc::ptr_eq(old, new)).count();
    assert_eq!(changed, 3);
    // And it is poison: all but those three are refused, and stay in service.
    let states = keeper.reload(None).unwrap();
    let bad = states.iter().filter(|state| !state.problems.is_empty());
    assert_eq!(bad.count(), COUNT - 3);
    assert_eq!(keeper.serving().iter().count(), COUNT);
}
