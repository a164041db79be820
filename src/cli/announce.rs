//! What a node started without a configuration says on the terminal: where it listens, what to try.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use crate::admin::api::Listener;

/// Prints where the node listens and five commands to paste.
pub(super) fn print(listeners: &[Listener]) {
    use std::io::Write;
    // Nobody may be reading.
    let _ = std::io::stdout().write_all(text(listeners, &last_command()).as_bytes());
}

/// A second node, where its configuration is at hand; else a look at this one. As the program was called.
fn last_command() -> String {
    let program = if std::env::var_os("CARGO").is_some() {
        "cargo run --release --".to_owned()
    } else {
        std::env::args().next().unwrap_or("headwater".to_owned())
    };
    if Path::new(MIRROR).exists() {
        format!("{program} run --config {MIRROR}")
    } else {
        format!("{program} status")
    }
}

fn text(listeners: &[Listener], last_command: &str) -> String {
    let mut text = String::from("\nheadwater is ready.\n\n");
    for listener in listeners {
        let service = match listener.service.as_str() {
            "dns" => "DNS (UDP, TCP)",
            "http" => "HTTP",
            "metrics" => "metrics, status",
            _ => "control socket",
        };
        text.push_str(&format!("  {service:<16} {}\n", listener.address));
    }
    text.push_str("\nTry, in another terminal:\n\n");
    if let Some(dns) = address(listeners, "dns") {
        let (ip, port) = (dns.ip(), dns.port());
        text.push_str(&format!("  dig @{ip} -p {port} video.cdn.test A\n"));
    }
    if let Some(http) = address(listeners, "http") {
        text.push_str(&format!("  curl -O http://{http}/video.bin\n"));
        text.push_str(&format!(
            "  curl -r 1000000-1999999 http://{http}/video.bin | sha256sum\n"
        ));
    }
    if let Some(metrics) = address(listeners, "metrics") {
        text.push_str(&format!("  curl http://{metrics}/metrics\n"));
    }
    text.push_str(&format!("  {last_command}\n"));
    text.push_str("\nCtrl-C stops it.\n\n");
    text
}

/// The first address of a service, IPv4 first.
fn address(listeners: &[Listener], service: &str) -> Option<SocketAddr> {
    let own = listeners.iter().filter(|l| l.service == service);
    let mut addresses: Vec<SocketAddr> = own.filter_map(|l| l.address.parse().ok()).collect();
    addresses.sort_by_key(|a| matches!(a.ip(), IpAddr::V6(_)));
    addresses.first().copied()
}

/// The configuration of a mirror of this node, in a source tree.
const MIRROR: &str = "config/mirror.toml";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn announcement_has_five_commands_with_the_real_addresses() {
        let listener = |service: &str, address: &str| Listener {
            service: service.to_owned(),
            address: address.to_owned(),
        };
        let listeners = [
            listener("dns", "[::1]:5300"),
            listener("dns", "127.0.0.1:5301"),
            listener("http", "127.0.0.1:8080"),
            listener("metrics", "127.0.0.1:9153"),
        ];
        let text = text(&listeners, "headwater status");
        let commands = text.split("terminal:\n\n").nth(1).unwrap();
        let commands: Vec<_> = commands.lines().take_while(|l| !l.is_empty()).collect();
        assert_eq!(commands.len(), 5, "{text}");
        assert_eq!(
            commands[0].trim(),
            "dig @127.0.0.1 -p 5301 video.cdn.test A"
        );
        assert_eq!(commands[4].trim(), "headwater status");
        assert!(commands[3].contains("http://127.0.0.1:9153/metrics"));
    }
}
