//! Checks the sandbox end to end on an instance of its own: what the unit tests cannot, because it needs root, processes and
//! packets. IO. One line per check; a failed check does not stop the ones that do not depend on it.

use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;

use crate::fault::{self, Hold};
use crate::instance::{Instance, Region};
use crate::supervisor::{self, ProcessState};
use crate::wan::{self, Change, Request};
use crate::{cgroup, inject, net, preflight, process, status, teardown, up};

const FIRST: &str = "selftest";
const SECOND: &str = "selftest2";
const NODE_PORT: u16 = 30379;
const UDP_PORT: u16 = 7007;

struct Run {
    failures: usize,
}

impl Run {
    fn check(&mut self, name: &str, outcome: Result<String>) {
        match outcome {
            Ok(detail) => println!("ok {name}: {detail}"),
            Err(error) => {
                self.failures += 1;
                println!("FAILED {name}: {error:#}");
            }
        }
    }
}

pub(crate) fn run(state: &Path, tools: &Path) -> Result<ExitCode> {
    preflight::check_root()?;
    let mut run = Run { failures: 0 };
    let options = |regions: &[&str]| up::Options {
        regions: Some(regions.iter().map(|name| (*name).to_owned()).collect()),
        tools: Some(tools.to_owned()),
        fresh: true,
    };
    let started = Instant::now();
    match up::up(state, FIRST, &options(&["us-east", "eu-west", "ap-south"])) {
        Ok(instance) => {
            run.check("three regions come up", Ok(format!("{:.1} s", started.elapsed().as_secs_f64())));
            check_instance(&mut run, &instance);
            run.check("a second instance stands beside it", second_instance(state, &options(&["us-east"]), &instance));
            run.check("`up` on a running instance is quick", repeated_up(state));
            run.check("`down` after the supervisors and the router were killed leaves nothing", crash_and_down(state, &instance));
        }
        Err(error) => run.check("three regions come up", Err(error)),
    }
    for name in [FIRST, SECOND] {
        if let Err(error) = teardown::down(state, name, true) {
            run.check("final tear-down", Err(error));
        }
    }
    println!("{} checks failed, {:.0} s", run.failures, started.elapsed().as_secs_f64());
    Ok(if run.failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn check_instance(run: &mut Run, instance: &Instance) {
    let regions = instance.region_list();
    let [us_east, eu_west, ap_south] = regions.as_slice() else {
        return run.check("regions", Err(anyhow::anyhow!("{} instead of three", regions.len())));
    };
    run.check("every node is Ready", all_running(instance));
    run.check("a round trip between regions takes 80 ms", round_trip(us_east, eu_west));
    run.check("the host is next to every region", host_round_trip(&regions));
    run.check("a cut loses every packet both ways", cut(instance, us_east, eu_west, false));
    run.check("a one-way cut leaves the way back open", cut(instance, us_east, eu_west, true));
    run.check("bandwidth is limited", bandwidth(instance, us_east, eu_west));
    run.check("a link fault ends by itself", link_fault(instance, us_east, ap_south));
    run.check("a StatefulSet with a local volume runs in two regions", deploy(&[us_east, eu_west]));
    run.check("pods of two regions reach each other", pod_to_pod(us_east, eu_west));
    run.check("names resolve inside a pod", names_in_pod(us_east));
    run.check("`kubectl top` answers", top(us_east));
    run.check("a process that dies by itself is started again", restarted(eu_west));
    run.check("a process that is held stays dead, then returns", held(ap_south));
    run.check("a pod that is killed is started again", pod_killed(instance, us_east));
    run.check("a pod that is paused goes on afterwards", pod_paused(instance, us_east));
    run.check("an idle cluster writes nothing but leases", idle_writes(ap_south));
    run.check("kill of a region leaves the others alone", kill(instance, us_east, eu_west));
    run.check("heal brings it back with its data", heal(instance, us_east));
    run.check("a released volume is emptied and used again", volume_reuse(us_east));
}

fn until(what: &str, timeout: Duration, mut done: impl FnMut() -> Result<bool>) -> Result<f64> {
    let started = Instant::now();
    while !done()? {
        ensure!(started.elapsed() < timeout, "{what}: not within {} s", timeout.as_secs());
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(started.elapsed().as_secs_f64())
}

fn kubectl(region: &Region, args: &[&str]) -> Result<String> {
    let output = Command::new(region.path("../bin/kubectl"))
        .arg("--kubeconfig")
        .arg(region.path("admin.kubeconfig"))
        .args(args)
        .output()
        .context("cannot run kubectl")?;
    ensure!(output.status.success(), "kubectl {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn all_running(instance: &Instance) -> Result<String> {
    let status = status::of(instance);
    for region in &status.regions {
        ensure!(region.state == status::RegionState::Running, "{} is {:?}:\n{}", region.name, region.state, status::text(&status));
    }
    Ok(format!("{} regions", status.regions.len()))
}

/// Milliseconds that a TCP connection takes, which is one round trip.
fn connect_ms(from: &Region, to: SocketAddr) -> Result<f64> {
    net::inside(&from.netns(), || {
        let started = Instant::now();
        TcpStream::connect_timeout(&to, Duration::from_secs(2)).with_context(|| format!("no connection to {to}"))?;
        Ok(started.elapsed().as_secs_f64() * 1000.0)
    })
}

fn kafka_of(region: &Region) -> SocketAddr {
    (region.addresses.node, 9092).into()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn round_trip(from: &Region, to: &Region) -> Result<String> {
    let times = (0..9).map(|_| connect_ms(from, kafka_of(to))).collect::<Result<Vec<_>>>()?;
    let middle = median(times);
    ensure!((75.0..=85.0).contains(&middle), "median {middle:.1} ms");
    Ok(format!("median {middle:.1} ms"))
}

fn host_round_trip(regions: &[Region]) -> Result<String> {
    let mut slowest = 0.0f64;
    for region in regions {
        let started = Instant::now();
        TcpStream::connect_timeout(&kafka_of(region), Duration::from_secs(2)).with_context(|| format!("{} from the host", region.name))?;
        slowest = slowest.max(started.elapsed().as_secs_f64() * 1000.0);
    }
    ensure!(slowest < 20.0, "{slowest:.1} ms");
    Ok(format!("{slowest:.1} ms at most"))
}

/// A UDP socket that stays in the region's namespace wherever it is used.
fn udp_in(region: &Region) -> Result<UdpSocket> {
    net::inside(&region.netns(), || {
        let socket = UdpSocket::bind((region.addresses.node, UDP_PORT)).context("cannot bind")?;
        socket.set_read_timeout(Some(Duration::from_millis(500)))?;
        Ok(socket)
    })
}

/// How many of 50 datagrams arrive.
fn arrivals(from: &UdpSocket, to: &UdpSocket) -> Result<usize> {
    let address = to.local_addr()?;
    for _ in 0..50 {
        from.send_to(b"are you there", address)?;
    }
    let mut buffer = [0; 64];
    Ok(std::iter::from_fn(|| to.recv(&mut buffer).ok()).count())
}

fn set_cut(instance: &Instance, from: &Region, to: &Region, one_way: bool, cut: bool) -> Result<()> {
    for (from, to) in wan::directions(&from.name, &to.name, one_way) {
        wan::ask(instance, &Request::Set { from, to, change: Change { cut: Some(cut), ..Change::default() } })?;
    }
    Ok(())
}

fn cut(instance: &Instance, near: &Region, far: &Region, one_way: bool) -> Result<String> {
    let (near_socket, far_socket) = (udp_in(near)?, udp_in(far)?);
    set_cut(instance, near, far, one_way, true)?;
    let during = arrivals(&near_socket, &far_socket).and_then(|forth| Ok((forth, arrivals(&far_socket, &near_socket)?)));
    set_cut(instance, near, far, one_way, false)?;
    let expected = (0, if one_way { 50 } else { 0 });
    let during = during?;
    ensure!(during == expected, "during the cut (there, back) arrived {during:?} of 50, expected {expected:?}");
    let after = arrivals(&near_socket, &far_socket)?;
    ensure!(after == 50, "after the cut {after} of 50 arrived");
    Ok(format!("{during:?} of 50 during it, 50 after"))
}

fn bandwidth(instance: &Instance, near: &Region, far: &Region) -> Result<String> {
    const LIMIT_MBIT: f64 = 20.0;
    let set = |mbit: f64| {
        let change = Change { bandwidth_mbit: Some(mbit), ..Change::default() };
        wan::ask(instance, &Request::Set { from: near.name.clone(), to: far.name.clone(), change })
    };
    let (sender, receiver) = (udp_in(near)?, udp_in(far)?);
    let address = receiver.local_addr()?;
    set(LIMIT_MBIT)?;
    // Twice the limit for two seconds, in small steps so that neither socket nor device overflows.
    let sending = std::thread::spawn(move || {
        let started = Instant::now();
        let mut sent = 0u32;
        while started.elapsed() < Duration::from_secs(2) {
            while f64::from(sent) * 1428.0 * 8.0 / 1e6 < 2.0 * LIMIT_MBIT * started.elapsed().as_secs_f64() {
                let _ = sender.send_to(&[0; 1400], address);
                sent += 1;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    let mut buffer = [0; 2048];
    receiver.recv(&mut buffer).context("nothing arrived")?;
    let (first, mut last, mut packets) = (Instant::now(), Instant::now(), 0u32);
    while receiver.recv(&mut buffer).is_ok() {
        packets += 1;
        last = Instant::now();
    }
    let _ = sending.join();
    set(0.0)?;
    // The lower bound is wide: on a busy machine the sender itself falls behind. More than the limit is never right.
    let mbit = f64::from(packets) * 1428.0 * 8.0 / 1e6 / (last - first).as_secs_f64();
    ensure!((0.5 * LIMIT_MBIT..=1.05 * LIMIT_MBIT).contains(&mbit), "{mbit:.1} Mbit/s at a limit of {LIMIT_MBIT}");
    Ok(format!("{mbit:.1} Mbit/s at a limit of {LIMIT_MBIT}"))
}

fn link_fault(instance: &Instance, near: &Region, far: &Region) -> Result<String> {
    let change = Change { delay_ms: Some(140.0), ..Change::default() };
    wan::ask(instance, &Request::Fault { from: near.name.clone(), to: far.name.clone(), change, for_ms: Some(1500) })?;
    let median_of = |samples: usize| (0..samples).map(|_| connect_ms(near, kafka_of(far))).collect::<Result<Vec<_>>>().map(median);
    let during = median_of(3)?;
    std::thread::sleep(Duration::from_millis(1600));
    let after = median_of(5)?;
    ensure!(during > 170.0 && after < 100.0, "{during:.0} ms during the fault, {after:.0} ms after");
    Ok(format!("{during:.0} ms during the fault, {after:.0} ms after"))
}

fn deploy(regions: &[&Region]) -> Result<String> {
    let image = {
        let first = regions.first().context("no region")?;
        let text = fs::read_to_string(first.path("../sandbox.json"))?;
        let description: serde_json::Value = serde_json::from_str(&text)?;
        description.get("redis_image").and_then(|image| image.as_str()).context("sandbox.json names no redis_image")?.to_owned()
    };
    let manifest =
        include_str!("../manifests/selftest.yaml").replace("@REDIS_IMAGE@", &image).replace("@NODE_PORT@", &NODE_PORT.to_string());
    for region in regions {
        let path = region.path("selftest.yaml");
        fs::write(&path, &manifest)?;
        kubectl(region, &["apply", "-f", &path.display().to_string()])?;
    }
    for region in regions {
        kubectl(region, &["-n", "selftest", "rollout", "status", "statefulset/store", "--timeout=60s"])?;
        redis(region, &["SET", "region", &region.name])?;
        redis(region, &["SAVE"])?;
    }
    Ok("ready, and data written as a user that only fsGroup lets write".to_owned())
}

fn redis(region: &Region, args: &[&str]) -> Result<String> {
    kubectl(region, &[&["-n", "selftest", "exec", "store-0", "--", "redis-cli"], args].concat())
}

fn pod_to_pod(from: &Region, to: &Region) -> Result<String> {
    let address = kubectl(to, &["-n", "selftest", "get", "pod", "store-0", "-o", "jsonpath={.status.podIP}"])?;
    let answer = redis(from, &["-h", &address, "GET", "region"])?;
    ensure!(answer == to.name, "the pod at {address} answered {answer:?}");
    // The far pod must see the near pod's own address: nothing may be masqueraded between regions.
    let own = kubectl(from, &["-n", "selftest", "get", "pod", "store-0", "-o", "jsonpath={.status.podIP}"])?;
    let seen = redis(from, &["-h", &address, "CLIENT", "INFO"])?;
    ensure!(seen.contains(&format!(" addr={own}:")), "the far pod does not see {own} but {seen}");
    Ok(format!("{own} to {address}, addresses kept"))
}

fn names_in_pod(region: &Region) -> Result<String> {
    let service = redis(region, &["-h", "store.selftest.svc.cluster.local", "GET", "region"])?;
    ensure!(service == region.name, "the Service's name led to {service:?}");
    let far = redis(region, &["-h", "node.eu-west", "-p", &NODE_PORT.to_string(), "GET", "region"])?;
    ensure!(far == "eu-west", "node.eu-west led to {far:?}");
    Ok("a Service by its cluster name, and a NodePort of another region by node.eu-west".to_owned())
}

fn top(region: &Region) -> Result<String> {
    let took = until("kubectl top nodes", Duration::from_secs(90), || Ok(kubectl(region, &["top", "nodes"]).is_ok()))?;
    let pods = kubectl(region, &["top", "pods", "-A", "--no-headers"])?;
    Ok(format!("after {took:.0} s; {} pods measured", pods.lines().count()))
}

fn process_state(region: &Region, name: &str) -> Option<supervisor::ProcessReport> {
    supervisor::read_report(region).remove(name)
}

fn restarted(region: &Region) -> Result<String> {
    let before = process_state(region, "kube-scheduler").and_then(|report| report.identity).context("no scheduler runs")?;
    before.signal(Signal::SIGKILL)?;
    let took = until("another scheduler", Duration::from_secs(10), || {
        Ok(process_state(region, "kube-scheduler").and_then(|report| report.identity).is_some_and(|now| now != before))
    })?;
    Ok(format!("after {took:.1} s"))
}

fn held(region: &Region) -> Result<String> {
    fault::hold(region, "kafka", Hold::Kill, None, Some(Duration::from_secs(4)))?;
    until("the hold", Duration::from_secs(2), || {
        Ok(process_state(region, "kafka").is_some_and(|kafka| kafka.state == ProcessState::Killed))
    })?;
    std::thread::sleep(Duration::from_secs(2));
    ensure!(!up::kafka_answers(region), "Kafka answers although it is held");
    let took = until("Kafka", Duration::from_secs(40), || Ok(up::kafka_answers(region)))?;
    Ok(format!("answers again {took:.1} s later"))
}

const POD: &str = "us-east/pod/selftest/store-0";

fn pod_killed(instance: &Instance, region: &Region) -> Result<String> {
    let restarts = || {
        let path = "jsonpath={.status.containerStatuses[0].restartCount} {.status.containerStatuses[0].ready}";
        kubectl(region, &["-n", "selftest", "get", "pod", "store-0", "-o", path])
    };
    let before = restarts()?;
    ensure!(before == "0 true", "before the kill: {before}");
    inject::hold(instance, POD, Hold::Kill, None)?;
    let took = until("another start", Duration::from_secs(30), || Ok(restarts()? == "1 true"))?;
    let data = redis(region, &["GET", "region"])?;
    ensure!(data == region.name, "its data is {data:?}");
    Ok(format!("ready {took:.1} s later, with its data"))
}

fn pod_paused(instance: &Instance, region: &Region) -> Result<String> {
    let answers = || -> Result<bool> {
        let address = kubectl(region, &["-n", "selftest", "get", "pod", "store-0", "-o", "jsonpath={.status.podIP}"])?;
        let mut stream = TcpStream::connect_timeout(&format!("{address}:6379").parse()?, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(b"PING\r\n")?;
        Ok(stream.read(&mut [0; 16]).is_ok_and(|bytes| bytes > 0))
    };
    ensure!(answers()?, "it does not answer before");
    inject::hold(instance, POD, Hold::Pause, Some(Duration::from_secs(3)))?;
    std::thread::sleep(Duration::from_millis(500));
    ensure!(!answers()?, "it answers although it is paused");
    let took = until("an answer", Duration::from_secs(10), answers)?;
    Ok(format!("answers again {took:.1} s later"))
}

/// By the audit log, as tests of the operator count: writes other than of leases and events.
fn idle_writes(region: &Region) -> Result<String> {
    const WATCHED: Duration = Duration::from_secs(20);
    let log = region.path("log/audit.log");
    let before = fs::metadata(&log)?.len();
    std::thread::sleep(WATCHED);
    let mut file = fs::File::open(&log)?;
    file.seek(SeekFrom::Start(before))?;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    let resources: Vec<String> = text
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter_map(|event| Some(event.get("objectRef")?.get("resource")?.as_str()?.to_owned()))
        .collect();
    let leases = resources.iter().filter(|resource| *resource == "leases").count();
    let others: Vec<&String> = resources.iter().filter(|resource| !["leases", "events"].contains(&resource.as_str())).collect();
    ensure!(leases > 0, "the audit log shows no leases, so it shows nothing");
    ensure!(others.is_empty(), "writes of {others:?}");
    Ok(format!("{leases} writes of leases in {} s", WATCHED.as_secs()))
}

fn pod_starts(region: &Region) -> Result<String> {
    let path = "jsonpath={range .items[*]}{.metadata.namespace}/{.metadata.name} {.status.containerStatuses[*].state.running.startedAt}{'\\n'}{end}";
    kubectl(region, &["get", "pods", "-A", "-o", path])
}

fn kill(instance: &Instance, victim: &Region, other: &Region) -> Result<String> {
    let before = pod_starts(other)?;
    let started = Instant::now();
    let killed = teardown::kill_region(instance, victim)?;
    let took_ms = started.elapsed().as_millis();
    let left = cgroup::members(&victim.cgroup(), &[]).len();
    ensure!(left == 0, "{left} processes of {} still run", victim.name);
    ensure!(TcpStream::connect_timeout(&kafka_of(victim), Duration::from_millis(500)).is_err(), "the dead region's Kafka still answers");
    std::thread::sleep(Duration::from_secs(5));
    ensure!(up::node_is_ready(other) && up::kafka_answers(other), "{} suffers from it", other.name);
    let after = pod_starts(other)?;
    ensure!(before == after, "pods of {} changed:\n{before}\n{after}", other.name);
    Ok(format!("{killed} processes killed in {took_ms} ms"))
}

fn heal(instance: &Instance, region: &Region) -> Result<String> {
    let started = Instant::now();
    up::heal(instance, region)?;
    until("the pod's data", Duration::from_secs(60), || Ok(redis(region, &["GET", "region"]).is_ok_and(|answer| answer == region.name)))?;
    Ok(format!("{:.1} s to a pod with its data", started.elapsed().as_secs_f64()))
}

fn volume_reuse(region: &Region) -> Result<String> {
    let volume = kubectl(region, &["-n", "selftest", "get", "pvc", "data-store-0", "-o", "jsonpath={.spec.volumeName}"])?;
    kubectl(region, &["delete", "namespace", "selftest", "--timeout=60s"])?;
    let took = until("the volume", Duration::from_secs(30), || {
        Ok(kubectl(region, &["get", "pv", &volume, "-o", "jsonpath={.status.phase}"])? == "Available")
    })?;
    let folder = region.path("volumes").join(&volume);
    let left = fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))?.count();
    ensure!(left == 0, "{left} files are left in {}", folder.display());
    Ok(format!("{volume} after {took:.1} s"))
}

fn second_instance(state: &Path, options: &up::Options, first: &Instance) -> Result<String> {
    let second = up::up(state, SECOND, options)?;
    ensure!(second.index != first.index, "both have block {}", first.index);
    all_running(&second)?;
    teardown::down(state, SECOND, true)?;
    let left = teardown::leftovers(state, SECOND);
    ensure!(left.is_empty(), "its `down` left {left:?}");
    all_running(first).context("after the second one's `down`")?;
    Ok(format!("blocks {} and {}; its `down` left the first alone", first.block(), second.block()))
}

fn repeated_up(state: &Path) -> Result<String> {
    let started = Instant::now();
    up::up(state, FIRST, &up::Options { regions: None, tools: None, fresh: false })?;
    let took = started.elapsed().as_secs_f64();
    ensure!(took < 20.0, "{took:.1} s");
    Ok(format!("{took:.1} s"))
}

fn crash_and_down(state: &Path, instance: &Instance) -> Result<String> {
    let records = instance.region_list().into_iter().map(|region| region.path("supervisor.json"));
    for record in records.chain([instance.folder.join("router.json")]) {
        let Some(identity) = process::recorded(&record) else { bail!("{} names no living process", record.display()) };
        identity.signal(Signal::SIGKILL)?;
    }
    let started = Instant::now();
    teardown::down(state, FIRST, false)?;
    let took_ms = started.elapsed().as_millis();
    let left = teardown::leftovers(state, FIRST);
    ensure!(left.is_empty(), "{left:?}");
    ensure!(!fs::exists(format!("/sys/class/net/{}", instance.host_device()))?, "the host's device is left");
    Ok(format!("{took_ms} ms"))
}
