//! What can be asked on the command line. Never how it is done.

use std::ops::Range;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::sweep::Sweep;
use super::{list, replay};
use crate::system::System;

const RUN_EXAMPLES: &str = "\
Examples:
  run                                 200 worlds, each twice
  run --seeds 0..20000 --jobs 8       many
  run --seeds 5000.. --for 10m        seeds from 5000 on, for ten minutes
  run --seeds 0..20000 --shard 2/4    the second of four machines
  run --plan fixtures/plans/x.json    one stored world
Exit codes: 0 clean, 1 a violation, a stale plan or what was not reached, 2 usage.
A failure is shrunk; plan, trace and page are left in target/sim-failures/.";

const REPLAY_EXAMPLES: &str = "\
Examples:
  replay 4711                         a seed
  replay 4711 --only 5f2c             only what names an order, say
  replay money.at_most_one_charge     a scenario or a stored plan, as `list` names them
  replay target/sim-failures/4711.plan.json
A stored plan is STALE if one of its faults no longer meets its step: exit code 1.";

const REPORT_EXAMPLES: &str = "\
Examples:
  report 4711 -o x.html               open it in a browser; it needs no network
  report plan.json -o x.html
Links may carry where to look: x.html#event=123&order=5f2c&at=4.2";

/// What the simulator does; flatten it into a command line of your own.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Run the worlds of a range of seeds; the first failure ends it with its story.
    ///
    /// Each seed is run twice, and both runs must be the same to the last event.
    #[command(after_help = RUN_EXAMPLES)]
    Run(RunArgs),
    /// Run one world again, and tell what happened, event by event.
    #[command(after_help = REPLAY_EXAMPLES)]
    Replay {
        /// A seed, a plan's file, or a name from `list`.
        world: String,
        /// Only what names this: an order's id, say.
        #[arg(long, value_name = "TEXT")]
        only: Option<String>,
        /// The sort of world that a seed stands for.
        #[arg(long, value_name = "NAME")]
        profile: Option<String>,
    },
    /// Tell what there is: scenarios, stored plans, faults and where they are legal, invariants, marks.
    List,
    /// Print the plan of a seed as JSON: workload and faults, to be changed by hand and replayed.
    Plan {
        /// The seed.
        seed: u64,
        /// The sort of world.
        #[arg(long, value_name = "NAME")]
        profile: Option<String>,
    },
    /// Write one world as a page: who did what when, each event's way, each node's state.
    #[command(after_help = REPORT_EXAMPLES)]
    Report {
        /// A seed, a plan's file, or a name from `list`.
        world: String,
        /// The page's file.
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
        /// The sort of world that a seed stands for.
        #[arg(long, value_name = "NAME")]
        profile: Option<String>,
    },
}

/// Which worlds to run, and how.
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    /// Seeds from A up to, but not including, B; `A..` goes on until the time of --for is over.
    /// Without it: 0..200, or 0.. with --for.
    #[arg(long, value_name = "A..B", value_parser = seeds)]
    pub seeds: Option<Range<u64>>,
    /// Worlds at the same time; by default one a core.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub jobs: Option<u16>,
    /// Only every N-th seed, beginning with the I-th; the N shards together are the whole range.
    #[arg(long, value_name = "I/N", default_value = "1/1")]
    pub shard: Shard,
    /// Stop after this time, such as 90s or 10m, even if seeds are left.
    #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration)]
    pub time: Option<Duration>,
    /// Run each seed once only: twice as fast, and no proof of determinism.
    #[arg(long)]
    pub once: bool,
    /// Go on after a failure, and count.
    #[arg(long)]
    pub keep_going: bool,
    /// The sort of worlds; `list` names them.
    #[arg(long, value_name = "NAME")]
    pub profile: Option<String>,
    /// Run this stored plan instead of seeds: a file, or a name from `list`.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["seeds", "shard", "time", "profile"])]
    pub plan: Option<String>,
    /// Write the summary to this file as JSON.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write each world's seed and hash to this file, a line each: equal files, equal worlds.
    #[arg(long, value_name = "FILE")]
    pub hashes: Option<PathBuf>,
}

/// One of several parts of a range of seeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    /// From 1.
    pub index: u64,
    /// How many there are.
    pub count: u64,
}

impl Shard {
    /// The `n`-th seed (from 0) of this part of a range that begins with `first`; none past the last
    /// number there is.
    pub fn seed(self, first: u64, n: u64) -> Option<u64> {
        first.checked_add(self.index - 1)?.checked_add(n.checked_mul(self.count)?)
    }
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('/').map(|(i, n)| (i.parse(), n.parse()));
        match parts {
            Some((Ok(index), Ok(count))) if 1 <= index && index <= count => {
                Ok(Shard { index, count })
            }
            _ => Err("write which part of how many, from 1, as in 2/4".to_owned()),
        }
    }
}

impl Command {
    /// Does it. 0: clean, 1: a violation, a stale plan or what was not reached, 2: usage.
    pub fn run<S: System>(self, system: &S) -> ExitCode {
        // Panics inside a world are its verdict, told in its story.
        std::panic::set_hook(Box::new(|_| ()));
        let done = match self {
            Command::Run(args) => Sweep::new(system, args).and_then(Sweep::run),
            Command::Replay { world, only, profile } => {
                replay::replay(system, &world, profile.as_deref(), only.as_deref())
            }
            Command::List => {
                print!("{}", list::list(system));
                Ok(true)
            }
            Command::Plan { seed, profile } => replay::plan(system, seed, profile.as_deref()),
            Command::Report { world, output, profile } => {
                replay::report(system, &world, profile.as_deref(), &output)
            }
        };
        match done {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(wrong) => {
                eprintln!("error: {wrong}");
                ExitCode::from(2)
            }
        }
    }
}

fn seeds(text: &str) -> Result<Range<u64>, String> {
    let wanted = || "write the first and the end, as in 0..200, or only the first, as in 200..";
    let (from, to) = text.split_once("..").ok_or_else(wanted)?;
    let from = from.parse().map_err(|_| wanted())?;
    let to = if to.is_empty() { u64::MAX } else { to.parse().map_err(|_| wanted())? };
    if from < to { Ok(from..to) } else { Err(format!("there is no seed in it; {}", wanted())) }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(subcommand)]
        command: Command,
    }

    fn parse(line: &str) -> Result<RunArgs, String> {
        let words = std::iter::once("sim").chain(line.split_whitespace());
        match Cli::try_parse_from(words) {
            Ok(Cli { command: Command::Run(args) }) => Ok(args),
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_run_is_understood() {
        let args = parse("run --seeds 5.. --for 10m --shard 2/4 --jobs 3 --keep-going").unwrap();
        assert_eq!(args.seeds, Some(5..u64::MAX));
        assert_eq!(args.time, Some(Duration::from_secs(600)));
        assert_eq!(args.shard, Shard { index: 2, count: 4 });
        assert_eq!((args.jobs, args.keep_going, args.once), (Some(3), true, false));
    }

    #[test]
    fn what_is_wrong_is_said_with_what_to_do() {
        for (line, words) in [
            ("run --seeds 7", "as in 0..200"),
            ("run --seeds 9..3", "there is no seed in it"),
            ("run --shard 0/4", "as in 2/4"),
            ("run --shard 5/4", "as in 2/4"),
            ("run --jobs 0", "--jobs"),
            ("run --plan a.json --seeds 0..3", "cannot be used with"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(words), "{line}: {error}");
        }
    }

    #[test]
    fn shards_are_the_whole_range_and_each_seed_once() {
        let shards = (1..=3).map(|index| Shard { index, count: 3 });
        let seeds = |s: Shard| (0..).map_while(move |n| s.seed(10, n).filter(|seed| *seed < 20));
        let mut all: Vec<u64> = shards.flat_map(seeds).collect();
        all.sort_unstable();
        assert_eq!(all, (10..20).collect::<Vec<_>>());
        assert_eq!(Shard { index: 2, count: 2 }.seed(u64::MAX, 0), None);
    }
}
