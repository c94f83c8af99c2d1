//! The command line: what each command takes, and which module does it. IO only through those modules.

use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Parser, Subcommand};

use crate::fault::{Hold, Target};
use crate::instance::{self, Instance, read_json};
use crate::wan::{self, Change, Request};
use crate::{fault, images, inject, models, net, preflight, router, selftest, status, supervisor, teardown, up};

#[derive(Parser)]
#[command(
    name = "sandbox",
    version,
    about = "Three real regions on one machine, and the wide-area network between them",
    after_help = "Examples:\n  sandbox up --tools tools.json       three Kubernetes clusters with Kafka, joined by a router\n  \
                  sandbox kubectl us-east get pods -A\n  sandbox kill us-east                a power cut\n  sandbox heal us-east\n  \
                  sandbox wan set us-east eu-west --delay-ms 80 --loss 0.01\n  sandbox down --delete"
)]
struct Cli {
    #[command(flatten)]
    which: Which,
    #[command(subcommand)]
    command: Verb,
}

#[derive(Args)]
struct Which {
    /// Which sandbox: several stand side by side under different names
    #[arg(long, global = true, default_value = "default")]
    instance: String,
    /// Folder for the data of all instances
    #[arg(long, global = true, default_value = instance::STATE_DEFAULT, value_name = "DIR")]
    state: PathBuf,
}

impl Which {
    fn load(&self) -> Result<Instance> {
        preflight::check_root()?;
        Instance::load(&self.state, &self.instance)
    }
}

#[derive(Subcommand)]
enum Verb {
    /// Bring the regions up, or repair what is missing of them
    #[command(after_help = "Example:\n  sandbox up --tools tools.json --regions us-east,eu-west\n\n\
        The list of tools is a JSON object: kubebox, coredns, metrics_server, java (files), kafka_libs (a folder of jars),\n\
        images [{name, archive}] (imported into every region); helm and onnxruntime are allowed and not used here.\n\
        It is needed the first time only. Writes <state>/<instance>/kubeconfig and sandbox.json.")]
    Up {
        /// The list of tools
        #[arg(long, value_name = "FILE")]
        tools: Option<PathBuf>,
        /// Names of the regions, in order; unset: us-east,eu-west,ap-south or what the instance has
        #[arg(long, value_delimiter = ',', value_name = "NAMES")]
        regions: Option<Vec<String>>,
        /// Remove the data of the last time first
        #[arg(long)]
        fresh: bool,
    },
    /// End every process, mount, link, namespace and cgroup of the instance; its data stays
    #[command(after_help = "Example:\n  sandbox down --instance test --delete\n\nWorks after any crash, as often as you like.")]
    Down {
        /// Remove the data too
        #[arg(long)]
        delete: bool,
    },
    /// Show regions, processes and links
    #[command(after_help = "Example:\n  sandbox status --json | jq '.regions[] | {name, state}'")]
    Status {
        #[arg(long)]
        json: bool,
    },
    /// Run kubectl against a region's cluster
    #[command(after_help = "Example:\n  sandbox kubectl eu-west get pods -A")]
    Kubectl {
        region: String,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Cut a region's power: off the network, then SIGKILL to everything in it
    #[command(after_help = "Example:\n  sandbox kill us-east && sleep 30 && sandbox heal us-east")]
    Kill { region: String },
    /// Bring a killed region back on the same data
    #[command(after_help = "Example:\n  sandbox heal us-east")]
    Heal { region: String },
    /// Fault one process or link
    #[command(subcommand)]
    Fault(FaultVerb),
    /// Show and change the network between regions
    #[command(subcommand)]
    Wan(WanVerb),
    /// Bring container images into the regions
    #[command(subcommand)]
    Images(ImagesVerb),
    /// Run a command in a region's network namespace
    #[command(after_help = "Example:\n  sandbox exec us-east -- ping -c 3 198.18.16.1")]
    Exec {
        region: String,
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Show the end of a process's log
    #[command(after_help = "Examples:\n  sandbox logs us-east kafka\n  sandbox logs us-east kubelet --follow")]
    Logs {
        region: String,
        /// As `sandbox status` names it; also supervisor and audit
        process: String,
        #[arg(long, short = 'n', default_value_t = 50)]
        lines: u32,
        #[arg(long, short)]
        follow: bool,
    },
    /// Check the sandbox itself end to end, on an instance of its own; prints one line per check
    #[command(after_help = "Example:\n  sandbox selftest --tools tools.json\n\nUses and removes the instances selftest and selftest2.")]
    Selftest {
        #[arg(long, value_name = "FILE")]
        tools: PathBuf,
    },
    #[command(hide = true)]
    Router {
        #[arg(long)]
        folder: PathBuf,
    },
    #[command(hide = true)]
    Supervise {
        #[arg(long)]
        folder: PathBuf,
        #[arg(long)]
        region: String,
    },
    #[command(hide = true)]
    Models {
        #[arg(long)]
        folder: PathBuf,
        #[arg(long)]
        listen: SocketAddr,
    },
}

#[derive(Args)]
struct For {
    /// End the fault after this time, for example 500ms, 10s or 2m; unset: `fault resume` ends it
    #[arg(long = "for", value_name = "DURATION", value_parser = fault::parse_duration)]
    duration: Option<Duration>,
}

#[derive(Subcommand)]
enum FaultVerb {
    /// SIGKILL a process and keep it dead; a pod without --for is killed once, and the kubelet starts it again
    #[command(
        after_help = "Examples:\n  sandbox fault kill us-east/kafka --for 30s\n  sandbox fault kill us-east/pod/fraud/payments-decision-0"
    )]
    Kill {
        #[arg(value_name = "REGION/PROCESS|REGION/pod/NAMESPACE/NAME")]
        target: String,
        #[command(flatten)]
        lasting: For,
    },
    /// SIGSTOP a process or every process of a pod
    #[command(after_help = "Example:\n  sandbox fault pause us-east/kube-apiserver --for 10s")]
    Pause {
        #[arg(value_name = "REGION/PROCESS|REGION/pod/NAMESPACE/NAME")]
        target: String,
        #[command(flatten)]
        lasting: For,
    },
    /// Take running time from a process, or add delay to a link
    #[command(
        after_help = "Examples:\n  sandbox fault slow us-east/kafka --percent 80 --for 1m\n  sandbox fault slow 'us-east->eu-west' --delay-ms 400"
    )]
    Slow {
        #[arg(value_name = "REGION/PROCESS|REGION/pod/NAMESPACE/NAME|LINK")]
        target: String,
        /// Share of its time that a process loses, in tens
        #[arg(long, default_value_t = 80, value_parser = clap::value_parser!(u8).range(10..=90))]
        percent: u8,
        /// Delay of a link, one way
        #[arg(long, default_value_t = 400.0)]
        delay_ms: f64,
        #[command(flatten)]
        lasting: For,
    },
    /// Cut a link, one way (->) or both (<->)
    #[command(after_help = "Example:\n  sandbox fault cut 'us-east<->eu-west' --for 20s")]
    Cut {
        #[arg(value_name = "LINK")]
        target: String,
        #[command(flatten)]
        lasting: For,
    },
    /// End a fault
    #[command(after_help = "Examples:\n  sandbox fault resume us-east/kafka\n  sandbox fault resume 'us-east<->eu-west'")]
    Resume {
        #[arg(value_name = "REGION/PROCESS|REGION/pod/NAMESPACE/NAME|LINK")]
        target: String,
    },
}

#[derive(Args)]
struct Between {
    from: String,
    /// Another region, or `host`
    to: String,
    /// Only packets from the first to the second
    #[arg(long)]
    one_way: bool,
}

#[derive(Subcommand)]
enum WanVerb {
    /// Conditions and counters of every directed link
    #[command(after_help = "Example:\n  sandbox wan show --json")]
    Show {
        #[arg(long)]
        json: bool,
    },
    /// Change what is given and keep the rest
    #[command(after_help = "Example:\n  sandbox wan set us-east ap-south --delay-ms 110 --jitter-ms 5 --loss 0.001 --bandwidth-mbit 50")]
    Set {
        #[command(flatten)]
        between: Between,
        /// One way
        #[arg(long)]
        delay_ms: Option<f64>,
        /// Up to this is added to the delay
        #[arg(long)]
        jitter_ms: Option<f64>,
        /// 0 to 1
        #[arg(long)]
        loss: Option<f64>,
        /// 0 takes the limit away
        #[arg(long)]
        bandwidth_mbit: Option<f64>,
    },
    /// Lose every packet
    #[command(after_help = "Example:\n  sandbox wan cut us-east eu-west --one-way")]
    Cut {
        #[command(flatten)]
        between: Between,
    },
    /// End a cut, and any fault of the link
    #[command(after_help = "Example:\n  sandbox wan heal us-east eu-west")]
    Heal {
        #[command(flatten)]
        between: Between,
    },
}

#[derive(Subcommand)]
enum ImagesVerb {
    /// Import docker-archives into every region that runs
    #[command(after_help = "Example:\n  sandbox images import target/images/*.tar")]
    Import {
        #[arg(required = true)]
        archives: Vec<PathBuf>,
    },
    /// The images of a region, one name a line
    #[command(after_help = "Example:\n  sandbox images list us-east")]
    List { region: String },
}

pub(crate) fn run() -> Result<ExitCode> {
    let Cli { which, command } = Cli::parse();
    match command {
        Verb::Up { tools, regions, fresh } => {
            let instance = up::up(&which.state, &which.instance, &up::Options { regions, tools, fresh })?;
            print_next_steps(&instance);
        }
        Verb::Down { delete } => {
            preflight::check_root()?;
            let _lock = Instance::lock(&which.state, &which.instance)?;
            teardown::down(&which.state, &which.instance, delete)?;
        }
        Verb::Status { json } => print_status(&which.load()?, json)?,
        Verb::Kubectl { region, args } => return kubectl(&which.load()?, &region, &args),
        Verb::Kill { region } => {
            let (instance, _lock) = (which.load()?, Instance::lock(&which.state, &which.instance)?);
            let killed = teardown::kill_region(&instance, &instance.region(&region)?)?;
            println!("{region} is down: {killed} processes killed. `sandbox heal {region}` brings it back");
        }
        Verb::Heal { region } => {
            let (instance, _lock) = (which.load()?, Instance::lock(&which.state, &which.instance)?);
            up::heal(&instance, &instance.region(&region)?)?;
        }
        Verb::Fault(verb) => run_fault(&which.load()?, verb)?,
        Verb::Wan(verb) => run_wan(&which.load()?, verb)?,
        Verb::Images(verb) => run_images(&which.load()?, verb)?,
        Verb::Exec { region, command } => return exec(&which.load()?, &region, &command),
        Verb::Logs { region, process, lines, follow } => return logs(&which.load()?, &region, &process, lines, follow),
        Verb::Selftest { tools } => return selftest::run(&which.state, &tools),
        Verb::Router { folder } => router::run(&load_folder(&folder)?)?,
        Verb::Supervise { folder, region } => {
            let instance = load_folder(&folder)?;
            supervisor::run(&instance, &instance.region(&region)?)?;
        }
        Verb::Models { folder, listen } => models::serve(&folder, listen)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn load_folder(folder: &std::path::Path) -> Result<Instance> {
    read_json(&folder.join("instance.json"))?.with_context(|| format!("{} holds no instance", folder.display()))
}

fn print_next_steps(instance: &Instance) {
    println!("The regions {} of instance {:?} are up.", instance.regions.join(", "), instance.name);
    println!("  export KUBECONFIG={}    contexts: {}", instance.kubeconfig().display(), instance.regions.join(", "));
    println!("  addresses and image names: {}", instance.folder.join("sandbox.json").display());
    println!("  next: sandbox status | sandbox kubectl REGION get pods -A | sandbox kill REGION | sandbox down");
}

fn print_status(instance: &Instance, json: bool) -> Result<()> {
    let status = status::of(instance);
    println!("{}", if json { serde_json::to_string_pretty(&status)? } else { status::text(&status) });
    Ok(())
}

/// Becomes the command. Returns only when that fails.
fn become_command(mut command: Command) -> Result<ExitCode> {
    let name = command.get_program().to_string_lossy().into_owned();
    Err(command.exec()).with_context(|| format!("cannot run {name}"))
}

fn kubectl(instance: &Instance, region: &str, args: &[String]) -> Result<ExitCode> {
    instance.region(region)?;
    let mut command = Command::new(instance.tool("kubectl"));
    command.arg("--kubeconfig").arg(instance.kubeconfig()).args(["--context", region]).args(args);
    become_command(command)
}

fn exec(instance: &Instance, region: &str, words: &[String]) -> Result<ExitCode> {
    net::enter(&instance.region(region)?.netns())?;
    let (program, args) = words.split_first().context("give a command after --")?;
    let mut command = Command::new(program);
    command.args(args);
    become_command(command)
}

fn logs(instance: &Instance, region: &str, process: &str, lines: u32, follow: bool) -> Result<ExitCode> {
    let region = instance.region(region)?;
    let plain = process.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    let path = region.path(&format!("log/{process}.log"));
    if !plain || !path.exists() {
        let names: Vec<String> = supervisor::read_report(&region).into_keys().collect();
        bail!("{} has no log of {process:?}; there are supervisor, audit, {}", region.name, names.join(", "));
    }
    let mut command = Command::new("tail");
    command.args(["-n", &lines.to_string()]).args(follow.then_some("-F")).arg(path);
    become_command(command)
}

fn run_images(instance: &Instance, verb: ImagesVerb) -> Result<()> {
    match verb {
        ImagesVerb::Import { archives } => {
            let running: Vec<_> = instance.region_list().into_iter().filter(|region| images::present(region).is_ok()).collect();
            ensure!(!running.is_empty(), "no region runs; `sandbox up` first");
            for region in running {
                for archive in &archives {
                    images::import(&region, archive)?;
                }
                println!("{}: {} archives imported", region.name, archives.len());
            }
        }
        ImagesVerb::List { region } => {
            for name in images::present(&instance.region(&region)?)? {
                println!("{name}");
            }
        }
    }
    Ok(())
}

fn run_wan(instance: &Instance, verb: WanVerb) -> Result<()> {
    let (between, change, end_fault) = match verb {
        WanVerb::Show { json } => {
            let links = wan::ask(instance, &Request::Show)?;
            println!("{}", if json { serde_json::to_string_pretty(&links)? } else { wan::show(&links) });
            return Ok(());
        }
        WanVerb::Set { between, delay_ms, jitter_ms, loss, bandwidth_mbit } => {
            (between, Change { delay_ms, jitter_ms, loss, bandwidth_mbit, cut: None }, false)
        }
        WanVerb::Cut { between } => (between, Change { cut: Some(true), ..Change::default() }, false),
        WanVerb::Heal { between } => (between, Change { cut: Some(false), ..Change::default() }, true),
    };
    ensure!(change != Change::default(), "nothing to change; give --delay-ms, --jitter-ms, --loss or --bandwidth-mbit");
    for (from, to) in wan::directions(&between.from, &between.to, between.one_way) {
        if end_fault {
            wan::ask(instance, &Request::EndFault { from: from.clone(), to: to.clone() })?;
        }
        wan::ask(instance, &Request::Set { from, to, change: change.clone() })?;
    }
    Ok(())
}

fn run_fault(instance: &Instance, verb: FaultVerb) -> Result<()> {
    match verb {
        FaultVerb::Kill { target, lasting } => inject::hold(instance, &target, Hold::Kill, lasting.duration),
        FaultVerb::Pause { target, lasting } => inject::hold(instance, &target, Hold::Pause, lasting.duration),
        FaultVerb::Slow { target, percent, delay_ms, lasting } => match fault::parse_target(&target)? {
            Target::Process { .. } | Target::Pod { .. } => inject::hold(instance, &target, Hold::Slow { percent }, lasting.duration),
            Target::Links(links) => {
                inject::on_links(instance, links, &Change { delay_ms: Some(delay_ms), ..Change::default() }, lasting.duration)
            }
        },
        FaultVerb::Cut { target, lasting } => match fault::parse_target(&target)? {
            Target::Process { .. } | Target::Pod { .. } => bail!("{target:?} is a process; cut a link, or kill or pause the process"),
            Target::Links(links) => inject::on_links(instance, links, &Change { cut: Some(true), ..Change::default() }, lasting.duration),
        },
        FaultVerb::Resume { target } => inject::end(instance, &target),
    }
}
