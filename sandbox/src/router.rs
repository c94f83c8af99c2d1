//! The wide-area network: one process that forwards packets between the sites of an instance. IO; the rules are in `link`.
//!
//! It holds a TUN descriptor of every site, opened inside the site's namespace. The packet thread reads, decides and writes; a
//! control thread changes links on request (see `wan`). Both share one lock, which the packet thread takes once per batch.
//! Conditions are kept in `wan.json`, so a router that is started again forwards (and cuts) as before.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;
use serde::{Deserialize, Serialize};

use crate::address::Cidr;
use crate::instance::{HOST_NAME, Instance, read_json, write_json};
use crate::link::{Conditions, Draws, Fault, Link, Verdict};
use crate::wan::{Change, LinkReport, Reply, Request};
use crate::{cgroup, net, process, tun};

const DEFAULT_DELAY_MS: f64 = 40.0;
/// Packets taken from one site before the others have their turn.
const BATCH: usize = 64;
/// Larger than the devices' MTU.
const PACKET_BYTES_MAX: usize = 2048;
const REQUEST_BYTES_MAX: u64 = 64 << 10;

/// Kept on disk.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Saved {
    links: BTreeMap<String, Conditions>,
    down: Vec<String>,
}

pub(crate) struct Network {
    names: Vec<String>,
    prefixes: Vec<Cidr>,
    down: Vec<bool>,
    /// Link from site a to site b at a * sites + b.
    links: Vec<Link>,
    started: Instant,
}

struct Waiting {
    leave_us: u64,
    /// Ties leave in order of arrival.
    sequence: u64,
    from: usize,
    to: usize,
    packet: Vec<u8>,
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}
impl Eq for Waiting {}
impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}
impl Waiting {
    fn key(&self) -> (u64, u64) {
        (self.leave_us, self.sequence)
    }
}

impl Network {
    pub(crate) fn new(sites: &[(String, Cidr)]) -> Self {
        let names: Vec<String> = sites.iter().map(|(name, _)| name.clone()).collect();
        let links = names.iter().flat_map(|from| names.iter().map(move |to| Link::new(default_conditions(from, to)))).collect();
        Self {
            down: vec![false; names.len()],
            prefixes: sites.iter().map(|(_, prefix)| *prefix).collect(),
            names,
            links,
            started: Instant::now(),
        }
    }

    fn now_us(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn site(&self, name: &str) -> Result<usize, String> {
        self.names
            .iter()
            .position(|known| known == name)
            .ok_or_else(|| format!("there is no site {name:?}; the sites are {}", self.names.join(", ")))
    }

    fn link_mut(&mut self, from: usize, to: usize) -> Option<&mut Link> {
        let sites = self.names.len();
        self.links.get_mut(from * sites + to)
    }

    /// Where a packet goes, and when. Nothing when it is lost or belongs to no site.
    fn route(&mut self, from: usize, packet: &[u8], now_us: u64, draws: Draws) -> Option<(usize, u64)> {
        let destination = destination(packet)?;
        let to = self.prefixes.iter().position(|prefix| prefix.contains(destination))?;
        let unreachable = to == from || [from, to].into_iter().any(|site| self.down.get(site).copied().unwrap_or(true));
        let link = self.link_mut(from, to)?;
        if unreachable {
            link.counters.cut_packets += 1;
            return None;
        }
        match link.enter(now_us, packet.len(), draws) {
            Verdict::LeaveAt(leave_us) => Some((to, leave_us)),
            Verdict::Dropped => None,
        }
    }

    /// Carries a request out. The sentence on failure is for the one who asked.
    pub(crate) fn handle(&mut self, request: Request) -> Result<(), String> {
        let now_us = self.now_us();
        match request {
            Request::Show => Ok(()),
            Request::Site { site, down } => {
                let index = self.site(&site)?;
                if let Some(flag) = self.down.get_mut(index) {
                    *flag = down;
                }
                Ok(())
            }
            Request::Set { from, to, change } => self.change(&from, &to, |link| {
                let set = change.apply(link.set);
                set.check().map(|()| link.change(set, link.fault))
            }),
            Request::Fault { from, to, change, for_ms } => self.change(&from, &to, |link| {
                let conditions = change.apply(link.set);
                let until_us = for_ms.map(|ms| now_us.saturating_add(ms.saturating_mul(1000)));
                conditions.check().map(|()| link.change(link.set, Some(Fault { conditions, until_us })))
            }),
            Request::EndFault { from, to } => self.change(&from, &to, |link| {
                link.change(link.set, None);
                Ok(())
            }),
        }
    }

    fn change(&mut self, from: &str, to: &str, change: impl FnOnce(&mut Link) -> Result<(), String>) -> Result<(), String> {
        let (from, to) = (self.site(from)?, self.site(to)?);
        if from == to {
            return Err("a link joins two different sites".to_owned());
        }
        self.link_mut(from, to).map_or(Ok(()), change)
    }

    pub(crate) fn report(&self) -> Vec<LinkReport> {
        let now_us = self.now_us();
        let pairs = self.names.iter().flat_map(|from| self.names.iter().map(move |to| (from, to)));
        pairs
            .zip(&self.links)
            .filter(|((from, to), _)| from != to)
            .map(|((from, to), link)| LinkReport {
                from: from.clone(),
                to: to.clone(),
                conditions: link.conditions(now_us),
                fault: link.conditions(now_us) != link.set,
                site_down: [from, to].into_iter().any(|name| self.is_down(name)),
                counters: link.counters,
            })
            .collect()
    }

    fn is_down(&self, name: &str) -> bool {
        self.names.iter().zip(&self.down).any(|(known, down)| known == name && *down)
    }

    fn save(&self) -> Saved {
        let pairs = self.names.iter().flat_map(|from| self.names.iter().map(move |to| format!("{from}->{to}")));
        Saved {
            links: pairs.zip(self.links.iter().map(|link| link.set)).collect(),
            down: self.names.iter().zip(&self.down).filter(|(_, down)| **down).map(|(name, _)| name.clone()).collect(),
        }
    }

    fn restore(&mut self, saved: &Saved) {
        let pairs: Vec<String> = self.names.iter().flat_map(|from| self.names.iter().map(move |to| format!("{from}->{to}"))).collect();
        for (pair, link) in pairs.iter().zip(&mut self.links) {
            if let Some(set) = saved.links.get(pair).filter(|set| set.check().is_ok()) {
                link.set = *set;
            }
        }
        for (name, down) in self.names.iter().zip(&mut self.down) {
            *down = saved.down.contains(name);
        }
    }
}

fn default_conditions(from: &str, to: &str) -> Conditions {
    let between_regions = from != to && from != HOST_NAME && to != HOST_NAME;
    Conditions { delay_ms: if between_regions { DEFAULT_DELAY_MS } else { 0.0 }, ..Conditions::default() }
}

/// Of an IPv4 packet; the sandbox uses no other.
fn destination(packet: &[u8]) -> Option<Ipv4Addr> {
    if packet.first()? >> 4 != 4 {
        return None;
    }
    let octets: [u8; 4] = packet.get(16..20)?.try_into().ok()?;
    Some(Ipv4Addr::from(octets))
}

/// Uniform numbers for loss and jitter (SplitMix64). Good enough to lose packets by; nothing depends on more.
struct Dice(u64);

impl Dice {
    fn draw(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    fn draws(&mut self) -> Draws {
        Draws { loss: self.draw(), jitter: self.draw() }
    }
}

/// The body of `sandbox router`. Returns only on an error; a signal ends it.
pub(crate) fn run(instance: &Instance) -> Result<()> {
    process::detach(&instance.folder.join("router.lock"))?;
    cgroup::join(&format!("{}/wan", instance.cgroup()))?;
    let sites = instance.sites();
    let mut devices = Vec::new();
    for site in &sites {
        let device = match &site.netns {
            Some(netns) => net::inside(netns, || tun::attach(&site.device))?,
            None => tun::attach(&site.device)?,
        };
        devices.push(device);
    }
    let mut network = Network::new(&sites.iter().map(|site| (site.name.clone(), site.addresses.all)).collect::<Vec<_>>());
    let saved_path = instance.folder.join("wan.json");
    if let Some(saved) = read_json(&saved_path)? {
        network.restore(&saved);
    }
    let network = Arc::new(Mutex::new(network));
    let listener = listen(&crate::wan::socket(instance))?;
    process::record(&instance.folder.join("router.json"))?;
    let controlled = Arc::clone(&network);
    std::thread::spawn(move || serve_control(&listener, &controlled, &saved_path));
    forward(&devices, &network)
}

fn listen(path: &Path) -> Result<UnixListener> {
    let _ = std::fs::remove_file(path);
    UnixListener::bind(path).with_context(|| format!("cannot listen on {}", path.display()))
}

fn locked(network: &Mutex<Network>) -> MutexGuard<'_, Network> {
    network.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One request at a time: requests are rare and answered from memory, and a slow client is cut off after two seconds.
fn serve_control(listener: &UnixListener, network: &Mutex<Network>, saved: &Path) {
    for stream in listener.incoming().flatten() {
        if let Err(error) = answer(stream, network, saved) {
            eprintln!("router: a request failed: {error:#}");
        }
    }
}

fn answer(stream: UnixStream, network: &Mutex<Network>, saved: &Path) -> Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.set_write_timeout(Some(Duration::from_secs(2)))?;
    let mut line = String::new();
    BufReader::new((&stream).take(REQUEST_BYTES_MAX)).read_line(&mut line)?;
    let outcome = serde_json::from_str::<Request>(&line).map_err(|error| format!("not a request: {error}")).and_then(|request| {
        let changes = request != Request::Show;
        let mut network = locked(network);
        network.handle(request)?;
        Ok((changes.then(|| network.save()), network.report()))
    });
    let reply = match outcome {
        Ok((to_save, links)) => {
            if let Some(to_save) = to_save {
                write_json(saved, &to_save)?;
            }
            Reply { links, error: None }
        }
        Err(error) => Reply { links: Vec::new(), error: Some(error) },
    };
    let mut text = serde_json::to_vec(&reply)?;
    text.push(b'\n');
    Ok((&stream).write_all(&text)?)
}

struct Forwarder<'a> {
    devices: &'a [File],
    waiting: BinaryHeap<Reverse<Waiting>>,
    spare: Vec<Vec<u8>>,
    sequence: u64,
    dice: Dice,
}

fn forward(devices: &[File], network: &Mutex<Network>) -> Result<()> {
    let mut forwarder =
        Forwarder { devices, waiting: BinaryHeap::new(), spare: Vec::new(), sequence: 0, dice: Dice(u64::from(std::process::id())) };
    let started = locked(network).started;
    loop {
        let now_us = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        forwarder.release(now_us, network);
        let timeout =
            forwarder.waiting.peek().map(|Reverse(next)| TimeSpec::from(Duration::from_micros(next.leave_us.saturating_sub(now_us))));
        let mut polled: Vec<PollFd<'_>> = devices.iter().map(|device| PollFd::new(device.as_fd(), PollFlags::POLLIN)).collect();
        match ppoll(&mut polled, timeout, None) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error).context("cannot wait for packets"),
        }
        let readable: Vec<usize> = polled.iter().enumerate().filter(|(_, fd)| fd.any() == Some(true)).map(|(site, _)| site).collect();
        for site in readable {
            forwarder.take_batch(site, network)?;
        }
    }
}

impl Forwarder<'_> {
    fn take_batch(&mut self, from: usize, network: &Mutex<Network>) -> Result<()> {
        let Some(mut device) = self.devices.get(from) else { return Ok(()) };
        let mut network = locked(network);
        for _ in 0..BATCH {
            let mut packet = self.spare.pop().unwrap_or_default();
            packet.resize(PACKET_BYTES_MAX, 0);
            match device.read(&mut packet) {
                Ok(bytes) => packet.truncate(bytes),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.spare.push(packet);
                    break;
                }
                Err(error) => return Err(error).with_context(|| format!("cannot read from the device of site {from}")),
            }
            let now_us = network.now_us();
            match network.route(from, &packet, now_us, self.dice.draws()) {
                Some((to, leave_us)) if leave_us <= now_us => self.hand_over(from, to, packet, &mut network),
                Some((to, leave_us)) => {
                    self.sequence += 1;
                    self.waiting.push(Reverse(Waiting { leave_us, sequence: self.sequence, from, to, packet }));
                }
                None => self.spare.push(packet),
            }
        }
        Ok(())
    }

    fn release(&mut self, now_us: u64, network: &Mutex<Network>) {
        if self.waiting.peek().is_none_or(|Reverse(next)| next.leave_us > now_us) {
            return;
        }
        let mut network = locked(network);
        while self.waiting.peek().is_some_and(|Reverse(next)| next.leave_us <= now_us) {
            if let Some(Reverse(due)) = self.waiting.pop() {
                self.hand_over(due.from, due.to, due.packet, &mut network);
            }
        }
    }

    /// Gives a packet to its site. A site that does not take it (its device is gone or full) loses it, as a full router port would.
    fn hand_over(&mut self, from: usize, to: usize, packet: Vec<u8>, network: &mut Network) {
        let written = self.devices.get(to).map(|mut device| device.write(&packet));
        if let Some(link) = network.link_mut(from, to) {
            match written {
                Some(Ok(_)) => link.left(packet.len()),
                _ => link.refused(packet.len()),
            }
        }
        self.spare.push(packet);
    }
}

impl Change {
    fn apply(&self, base: Conditions) -> Conditions {
        Conditions {
            delay_ms: self.delay_ms.unwrap_or(base.delay_ms),
            jitter_ms: self.jitter_ms.unwrap_or(base.jitter_ms),
            loss: self.loss.unwrap_or(base.loss),
            // No bandwidth limit is asked for by 0.
            bandwidth_mbit: self.bandwidth_mbit.map_or(base.bandwidth_mbit, |mbit| (mbit != 0.0).then_some(mbit)),
            cut: self.cut.unwrap_or(base.cut),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::site_addresses;

    fn network() -> Network {
        Network::new(&[
            ("us-east".to_owned(), site_addresses(0, 0).all),
            ("eu-west".to_owned(), site_addresses(0, 1).all),
            ("host".to_owned(), site_addresses(0, 3).all),
        ])
    }

    fn packet_to(address: Ipv4Addr) -> Vec<u8> {
        let mut packet = vec![0; 40];
        packet[0] = 0x45;
        packet[16..20].copy_from_slice(&address.octets());
        packet
    }

    fn to(site: u32) -> Vec<u8> {
        packet_to(site_addresses(0, site).pods.nth(7))
    }

    #[test]
    fn packets_go_to_the_site_that_owns_the_address_after_its_delay() {
        let mut network = network();
        assert_eq!(network.route(0, &to(1), 5, Draws { loss: 0.5, jitter: 0.0 }), Some((1, 40_005)));
        assert_eq!(network.route(2, &to(0), 5, Draws { loss: 0.5, jitter: 0.0 }), Some((0, 5)));
    }

    #[test]
    fn packets_that_belong_nowhere_are_dropped_without_a_panic() {
        let mut network = network();
        let draws = Draws { loss: 0.5, jitter: 0.0 };
        assert_eq!(network.route(0, &packet_to(Ipv4Addr::new(8, 8, 8, 8)), 0, draws), None);
        assert_eq!(network.route(0, &[], 0, draws), None);
        assert_eq!(network.route(0, &[0x45; 19], 0, draws), None);
        assert_eq!(network.route(0, &[0x60; 64], 0, draws), None, "IPv6 is not forwarded");
        assert_eq!(network.route(0, &to(0), 0, draws), None, "what a site sends to itself is not the router's");
    }

    #[test]
    fn a_one_way_cut_leaves_the_way_back_open() {
        let mut network = network();
        let change = Change { cut: Some(true), ..Change::default() };
        network.handle(Request::Set { from: "us-east".to_owned(), to: "eu-west".to_owned(), change }).unwrap();
        let draws = Draws { loss: 0.5, jitter: 0.0 };
        assert_eq!(network.route(0, &to(1), 0, draws), None);
        assert_eq!(network.route(1, &to(0), 0, draws), Some((0, 40_000)));
    }

    #[test]
    fn a_site_that_is_down_loses_all_links_and_keeps_the_cuts_that_were_set_before() {
        let mut network = network();
        let cut = Change { cut: Some(true), ..Change::default() };
        network.handle(Request::Set { from: "us-east".to_owned(), to: "eu-west".to_owned(), change: cut }).unwrap();
        network.handle(Request::Site { site: "us-east".to_owned(), down: true }).unwrap();
        let draws = Draws { loss: 0.5, jitter: 0.0 };
        assert_eq!(network.route(2, &to(0), 0, draws), None);
        network.handle(Request::Site { site: "us-east".to_owned(), down: false }).unwrap();
        assert_eq!(network.route(2, &to(0), 0, draws), Some((0, 0)));
        assert_eq!(network.route(0, &to(1), 0, draws), None);
    }

    #[test]
    fn a_router_that_starts_again_still_cuts_what_was_cut() {
        let mut before = network();
        let cut = Change { cut: Some(true), ..Change::default() };
        before.handle(Request::Set { from: "eu-west".to_owned(), to: "us-east".to_owned(), change: cut }).unwrap();
        before.handle(Request::Site { site: "host".to_owned(), down: true }).unwrap();
        let mut after = network();
        after.restore(&serde_json::from_str(&serde_json::to_string(&before.save()).unwrap()).unwrap());
        assert_eq!(after.route(1, &to(0), 0, Draws { loss: 0.5, jitter: 0.0 }), None);
        assert!(after.report().iter().any(|link| link.from == "host" && link.site_down));
    }

    #[test]
    fn wrong_requests_are_answered_with_what_to_give_instead() {
        let mut network = network();
        let unknown = network.handle(Request::Site { site: "mars".to_owned(), down: true }).unwrap_err();
        assert_eq!(unknown, "there is no site \"mars\"; the sites are us-east, eu-west, host");
        let change = Change { loss: Some(2.0), ..Change::default() };
        let refused = network.handle(Request::Set { from: "us-east".to_owned(), to: "eu-west".to_owned(), change }).unwrap_err();
        assert!(refused.starts_with("loss is 2"), "{refused}");
        assert_eq!(network.links[1].set.loss, 0.0, "a refused change changes nothing");
    }

    #[test]
    fn the_dice_are_uniform_enough_for_a_loss_of_one_in_ten() {
        let mut dice = Dice(1);
        let below = (0..100_000).filter(|_| dice.draw() < 0.1).count();
        assert!((9_500..10_500).contains(&below), "{below} of 100000");
    }
}
