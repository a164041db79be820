//! The command line: argv to an exit code (0: done, 1: refused or failed, 2: usage).

use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, Parser, Subcommand};

use crate::admin::api;
use crate::admin::client;
use crate::config::{Settings, Source, load};
use crate::content::name;
use crate::daemon;
use crate::dns::dnssec::signer::Signer;
use crate::dns::keeper::still_signed;
use crate::dns::{ZoneConfig, zone};
use crate::time::Now;

mod announce;

mod content;

mod progress;

mod show;

/// One daemon that answers names and serves, verified, the bytes behind them.
#[derive(Debug, Parser)]
#[command(name = "headwater", version)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a node (the default)
    Run(Configured),
    /// Check a configuration and its zones
    Check(Configured),
    /// Make what the users file of FTP needs
    #[command(subcommand)]
    Ftp(FtpCommand),
    /// Show how the running node does
    Status(Control),
    /// Show or drop what the resolver cache holds
    #[command(subcommand)]
    Cache(CacheCommand),
    /// Show or reload the own zones
    #[command(subcommand)]
    Zone(ZoneCommand),
    /// Show, publish, fetch, drop or verify what is served
    #[command(subcommand)]
    Content(ContentCommand),
}

#[derive(Debug, Subcommand)]
enum CacheCommand {
    /// Show the cache's numbers
    Stats(Control),
    /// Show cached answers
    Lookup {
        /// Name asked for
        name: String,
        /// Record type, such as AAAA; all types without it
        #[arg(value_name = "TYPE")]
        rtype: Option<String>,
        #[command(flatten)]
        control: Control,
    },
    /// Drop cached answers: of one name, of a zone, or all
    Flush {
        /// Name asked for
        #[arg(required_unless_present_any = ["zone", "all"])]
        name: Option<String>,
        /// Record type, such as AAAA; all types without it
        #[arg(value_name = "TYPE")]
        rtype: Option<String>,
        /// A name and everything beneath it
        #[arg(long, value_name = "NAME", conflicts_with_all = ["name", "all"])]
        zone: Option<String>,
        /// Everything
        #[arg(long, conflicts_with = "name")]
        all: bool,
        #[command(flatten)]
        control: Control,
    },
    /// Drop what the proxy keeps of a URL
    Purge {
        /// http://HOST/PATH, or /PATH for every host; a final * stands for whatever follows
        url: String,
        #[command(flatten)]
        control: Control,
    },
    /// Write all cached answers to a file
    Dump {
        /// Written by the node; cache.dump in its state directory without it
        file: Option<PathBuf>,
        #[command(flatten)]
        control: Control,
    },
    /// Take over answers from such a file, with the time they have left
    Load {
        /// Read by the node; cache.dump in its state directory without it
        file: Option<PathBuf>,
        #[command(flatten)]
        control: Control,
    },
}

#[derive(Debug, Subcommand)]
enum ZoneCommand {
    /// List the zones
    List(Control),
    /// Show a zone as a master file
    Show {
        /// Apex of the zone
        name: String,
        #[command(flatten)]
        control: Control,
    },
    /// Set the record of a type at a name; the others of that type there go
    Set {
        /// Name, absolute
        name: String,
        /// TTL, such as 300 or 5m
        ttl: String,
        /// Record type, such as AAAA
        #[arg(value_name = "TYPE")]
        rtype: String,
        /// Its data as in a master file, names absolute
        #[arg(required = true)]
        data: Vec<String>,
        /// Leave the other records of that type there
        #[arg(long)]
        beside: bool,
        #[command(flatten)]
        control: Control,
    },
    /// Delete the records at a name: of one type, or all
    Delete {
        /// Name, absolute
        name: String,
        /// Record type, such as AAAA; all types without it
        #[arg(value_name = "TYPE")]
        rtype: Option<String>,
        #[command(flatten)]
        control: Control,
    },
    /// Read zone files again: one zone, or the configuration and all zones
    Reload {
        /// Apex of the zone
        name: Option<String>,
        #[command(flatten)]
        control: Control,
    },
    /// Show the keys of a zone that is signed here, and the DS record for its parent
    Ds {
        /// Apex of the zone
        name: String,
        /// The DS at all servers of the parent points to the key with this tag, and to no other
        #[arg(long, value_name = "TAG")]
        seen: Option<u16>,
        /// No server of the parent has a DS
        #[arg(long, conflicts_with = "seen")]
        gone: bool,
        #[command(flatten)]
        control: Control,
    },
    /// Have the parent remove its DS, so that the zone can be served unsigned
    Insecure {
        /// Apex of the zone
        name: String,
        /// Keep the DS after all
        #[arg(long)]
        cancel: bool,
        #[command(flatten)]
        control: Control,
    },
    /// Begin to replace the key of a zone that is signed here; by one of another algorithm if the configuration has changed
    Rollover {
        /// Apex of the zone
        name: String,
        #[command(flatten)]
        control: Control,
    },
}

#[derive(Debug, Subcommand)]
enum ContentCommand {
    /// List the objects and how much of each is held
    List(Control),
    /// Show one object
    Show {
        /// Its path, such as /video.bin
        #[arg(value_parser = path())]
        path: String,
        #[command(flatten)]
        control: Control,
    },
    /// Have a mirror fetch an object, or all beneath a path that ends in /, and wait until it is whole
    Prefetch {
        /// Its path, such as /video.bin or /videos/
        #[arg(value_parser = path())]
        path: String,
        /// Do not wait
        #[arg(long)]
        no_wait: bool,
        #[command(flatten)]
        control: Control,
    },
    /// Publish a file; what is published at its path is replaced at once when all of it is there
    Put {
        /// The file
        file: PathBuf,
        /// Its path, such as /video.bin; the file's name is added to one that ends in /
        #[arg(value_parser = path())]
        path: String,
        #[command(flatten)]
        control: Control,
    },
    /// Remove a published file
    Delete {
        /// Its path, such as /video.bin
        #[arg(value_parser = path())]
        path: String,
        #[command(flatten)]
        control: Control,
    },
    /// Drop the copy of a mirrored object, or of all beneath a path that ends in /
    Purge {
        /// Its path, such as /video.bin or /videos/
        #[arg(value_parser = path())]
        path: String,
        #[command(flatten)]
        control: Control,
    },
    /// Digest held bytes anew: of one object, or of all
    Verify {
        /// Its path, such as /video.bin
        #[arg(value_parser = path())]
        path: Option<String>,
        #[command(flatten)]
        control: Control,
    },
}

#[derive(Args, Clone, Debug, Default)]
struct Configured {
    /// Configuration file; without it, the embedded default
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Set one key, such as dns.workers=2
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    set: Vec<(String, String)>,
}

#[derive(Args, Debug)]
struct Control {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Control socket of the node
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Configuration file of the node, to take the control socket from
    #[arg(long, value_name = "FILE", conflicts_with = "socket")]
    config: Option<PathBuf>,
}

/// Why a command did not do what it was asked.
type Failure = anyhow::Error;

/// Reads argv, does what it says.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no failures and go to standard output.
            let code = u8::try_from(error.exit_code()).unwrap_or(2);
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    match dispatch(cli) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("headwater: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Does one command; false: done, and what it found is not good.
fn dispatch(cli: Cli) -> Result<bool, Failure> {
    match cli.command.unwrap_or(Command::Run(Configured::default())) {
        Command::Run(configured) => run(configured),
        Command::Check(configured) => check(configured),
        Command::Ftp(FtpCommand::Hash) => ftp_hash(),
        Command::Status(control) => {
            let status = control.call(&api::GetStatus {})?;
            control.print(&status, show::status);
            Ok(true)
        }
        Command::Cache(command) => cache(command),
        Command::Zone(command) => zones(command),
        Command::Content(command) => content::run(command),
    }
}

fn run(configured: Configured) -> Result<bool, Failure> {
    let embedded = configured.config.is_none();
    let source = Source::of_process(configured.config, configured.set);
    let settings = match source.load() {
        Ok(settings) => settings,
        Err(error) => {
            eprintln!("{error}");
            return Ok(false);
        }
    };
    daemon::run(source, settings, |listeners| {
        if embedded {
            announce::print(listeners);
        }
    })?;
    Ok(true)
}

/// Prints every problem and warning of the configuration, then of its zones.
fn check(configured: Configured) -> Result<bool, Failure> {
    let source = Source::of_process(configured.config, configured.set);
    let settings = match source.load() {
        Ok(settings) => settings,
        Err(error) => {
            println!("{error}");
            return Ok(false);
        }
    };
    for warning in &settings.warnings {
        println!("{warning}");
    }
    let good = check_files(&source, &settings);
    if good {
        println!("good: {} zones", settings.zones.len());
    }
    Ok(good)
}

/// Loads every zone and looks for every published directory, as a start would.
fn check_files(source: &Source, settings: &Settings) -> bool {
    let mut good = true;
    // The embedded default's zone file and directory are made by the first start.
    let first = |path: &std::path::Path| source.file.is_none() && !path.exists();
    // Secondaries and catalogs made here have no file that an operator writes.
    let primary =
        |z: &&ZoneConfig| z.primaries.is_empty() && z.catalog.is_none() && !first(&z.file);
    for config in settings.zones.iter().filter(primary) {
        match zone::load(config) {
            Ok(loaded) => {
                let signer = Signer::new(settings.state.join("keys"), settings.dnssec);
                let held = config.sign.is_none() && loaded.zone.signatures_expire().is_none();
                let now = Now::read().unix_ms / 1_000;
                match signer.held(loaded.zone.name(), now) {
                    Ok(Some(_)) if held => {
                        let why = still_signed(loaded.zone.name());
                        println!("{}: warning: {why}", config.file.display());
                    }
                    Ok(_) => {}
                    Err(error) => {
                        good = false;
                        println!("{error}");
                    }
                }
                for warning in loaded.warnings {
                    println!(
                        "{}:{}: warning: {}",
                        warning.file, warning.line, warning.message
                    );
                }
            }
            Err(problems) => {
                good = false;
                for problem in problems {
                    println!("{problem}");
                }
            }
        }
    }
    for publish in settings.publish.iter().filter(|p| !first(&p.dir)) {
        if !publish.dir.is_dir() {
            good = false;
            let (prefix, dir) = (&publish.prefix, publish.dir.display());
            println!("publish {prefix}: {dir}: no such directory, expected one");
        }
    }
    good
}

fn cache(command: CacheCommand) -> Result<bool, Failure> {
    match command {
        CacheCommand::Stats(control) => {
            let stats = control.call(&api::CacheStats {})?;
            control.print(&stats, show::cache);
        }
        CacheCommand::Lookup {
            name,
            rtype,
            control,
        } => {
            let entries = control.call(&api::CacheLookup { name, rtype })?;
            control.print(&entries, |entries| show::cache_entries(entries));
            return Ok(!entries.is_empty());
        }
        CacheCommand::Flush {
            name,
            rtype,
            zone,
            all: _,
            control,
        } => {
            let flush = match (name, zone) {
                (Some(name), _) => api::CacheFlush::Name(api::CacheLookup { name, rtype }),
                (None, Some(zone)) => api::CacheFlush::Zone(zone),
                (None, None) => api::CacheFlush::All,
            };
            let flushed = control.call(&flush)?;
            control.print(&flushed, |f| format!("{} entries dropped\n", f.entries));
        }
        CacheCommand::Purge { url, control } => {
            let flushed = control.call(&api::CachePurge { url })?;
            control.print(&flushed, |f| format!("{} responses dropped\n", f.entries));
        }
        CacheCommand::Dump { file, control } => {
            let dumped = control.call(&api::CacheDump {
                file: absolute(file),
            })?;
            control.print(&dumped, show::dumped);
        }
        CacheCommand::Load { file, control } => {
            let loaded = control.call(&api::CacheLoad {
                file: absolute(file),
            })?;
            control.print(&loaded, show::cache_loaded);
            return Ok(loaded.refused == 0);
        }
    }
    Ok(true)
}

/// The node has a working directory of its own.
fn absolute(file: Option<PathBuf>) -> Option<PathBuf> {
    file.map(|file| std::path::absolute(&file).unwrap_or(file))
}

fn zones(command: ZoneCommand) -> Result<bool, Failure> {
    match command {
        ZoneCommand::List(control) => {
            let zones = control.call(&api::ZoneList {})?;
            control.print(&zones, |zones| show::zones(zones));
            Ok(true)
        }
        ZoneCommand::Show { name, control } => {
            let text = control.call(&api::ZoneShow { name })?;
            control.print(&text, |t| t.text.clone());
            Ok(true)
        }
        ZoneCommand::Set {
            name,
            ttl,
            rtype,
            data,
            beside,
            control,
        } => {
            let record = format!("{name} {ttl} IN {rtype} {}", data.join(" "));
            let changed = control.call(&api::ZoneSet { record, beside })?;
            control.print(&changed, show::zone_changed);
            Ok(true)
        }
        ZoneCommand::Delete {
            name,
            rtype,
            control,
        } => {
            let changed = control.call(&api::ZoneDelete { name, rtype })?;
            control.print(&changed, show::zone_changed);
            Ok(true)
        }
        ZoneCommand::Reload { name, control } => {
            let reloaded = control.call(&api::ZoneReload { name })?;
            control.print(&reloaded, show::reloaded);
            let good = reloaded.zones.iter().all(|z| z.problems.is_empty());
            Ok(good && reloaded.problems.is_empty())
        }
        ZoneCommand::Ds {
            name,
            seen,
            gone,
            control,
        } => {
            let keys = control.call(&api::ZoneDs { name, seen, gone })?;
            control.print(&keys, |keys| show::keys(keys));
            Ok(true)
        }
        ZoneCommand::Insecure {
            name,
            cancel,
            control,
        } => {
            let keys = control.call(&api::ZoneInsecure { name, cancel })?;
            control.print(&keys, |keys| show::keys(keys));
            Ok(true)
        }
        ZoneCommand::Rollover { name, control } => {
            let keys = control.call(&api::ZoneRollover { name })?;
            control.print(&keys, |keys| show::keys(keys));
            Ok(true)
        }
    }
}

impl Control {
    fn call<V: api::Verb>(&self, verb: &V) -> Result<V::Answer, Failure> {
        Ok(client::call(&self.sockets()?, verb)?)
    }

    /// Where a node may listen: as told, else the packaged service's socket, else the user's own node's.
    fn sockets(&self) -> Result<Vec<PathBuf>, Failure> {
        if let Some(socket) = &self.socket {
            return Ok(vec![socket.clone()]);
        }
        if let Some(config) = &self.config {
            let source = Source::of_process(Some(config.clone()), Vec::new());
            return Ok(vec![source.load()?.admin_socket]);
        }
        let packaged = PathBuf::from("/run/headwater/admin.sock");
        // Variables that place a node also say where it is.
        let own = Source::of_process(None, Vec::new()).load();
        let own = own.map_or_else(
            |_| load::default_state().join("admin.sock"),
            |settings| settings.admin_socket,
        );
        Ok(vec![packaged, own])
    }

    fn print<T: serde::Serialize>(&self, answer: &T, text: impl Fn(&T) -> String) {
        let shown = if self.json {
            let mut json = serde_json::to_string_pretty(answer).unwrap_or_default();
            json.push('\n');
            json
        } else {
            text(answer)
        };
        // Names that are no UTF-8 come out as they are, as from `ls` or `find`, and can be named so again. JSON has no bytes: there
        // `url` says them.
        let shown = match self.json {
            true => shown.into_bytes(),
            false => name::to_bytes(&shown).into_owned(),
        };
        // A reader that went away (`| head`) is no failure of the command.
        let _ = std::io::Write::write_all(&mut std::io::stdout(), &shown);
    }
}

/// A path of an object, whatever its bytes.
fn path() -> impl TypedValueParser<Value = String> {
    OsStringValueParser::new().map(|path| name::from_bytes(path.as_bytes()).into_owned())
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text
        .split_once('=')
        .ok_or("expected KEY=VALUE, such as dns.workers=2")?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &str, good: bool) {
        let parsed = Cli::try_parse_from(line.split(' '));
        assert_eq!(parsed.is_ok(), good, "{line}: {parsed:?}");
    }

    #[test]
    fn command_line_takes_the_contract() {
        for line in [
            "headwater",
            "headwater run --config a.toml --set dns.workers=2",
            "headwater check --config a.toml",
            "headwater status --json",
            "headwater cache stats --socket /run/a.sock",
            "headwater cache lookup www.example. AAAA --json",
            "headwater cache flush www.example.",
            "headwater cache flush www.example. A",
            "headwater cache flush --zone example.",
            "headwater cache flush --all",
            "headwater cache purge http://files.example/a.bin",
            "headwater cache dump /tmp/answers --socket /run/a.sock",
            "headwater cache load",
            "headwater zone list",
            "headwater zone show cdn.test.",
            "headwater zone reload",
            "headwater zone reload cdn.test.",
            "headwater zone ds cdn.test.",
            "headwater zone ds cdn.test. --seen 12345",
            "headwater zone ds cdn.test. --gone",
            "headwater zone rollover cdn.test.",
            "headwater zone insecure cdn.test.",
            "headwater zone insecure cdn.test. --cancel",
            "headwater zone set www.cdn.test. 300 A 192.0.2.1",
            "headwater zone set cdn.test. 5m MX 10 mail.cdn.test. --beside --json",
            "headwater zone delete www.cdn.test.",
            "headwater zone delete www.cdn.test. AAAA --socket /run/a.sock",
            "headwater content list",
            "headwater content show /video.bin",
            "headwater content verify",
            "headwater content prefetch /videos/ --no-wait",
            "headwater content purge /video.bin --json",
            "headwater content put video.bin /videos/",
            "headwater content put video.bin /video.bin --json",
            "headwater content delete /video.bin --socket /run/a.sock",
            "headwater content verify /video.bin --config a.toml",
        ] {
            check(line, true);
        }
    }

    #[test]
    fn command_line_refuses_what_means_nothing() {
        for line in [
            "headwater walk",
            "headwater cache flush",
            "headwater zone set www.cdn.test. 300 A",
            "headwater zone delete",
            "headwater cache flush a. --all",
            "headwater cache purge",
            "headwater content put /video.bin",
            "headwater content delete",
            "headwater run --set dns.workers",
            "headwater status --socket a --config b",
        ] {
            check(line, false);
        }
    }
}

/// What the users file of FTP needs.
#[derive(Debug, Subcommand)]
enum FtpCommand {
    /// Print the password field of a line of the users file; the password is read from standard input
    Hash,
}

fn ftp_hash() -> Result<bool, anyhow::Error> {
    let mut password = String::new();
    std::io::stdin().read_line(&mut password)?;
    let password = password.trim_end_matches(['\r', '\n']);
    anyhow::ensure!(
        !password.is_empty(),
        "expected a password on standard input"
    );
    let mut salt = [0; 16];
    rustix::rand::getrandom(&mut salt, rustix::rand::GetRandomFlags::empty())?;
    let iterations = crate::ftp::users::ITERATIONS;
    println!("{}", crate::ftp::users::hash(password, salt, iterations));
    Ok(true)
}
