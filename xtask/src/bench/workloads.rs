//! The workloads: a new one is a module with a `measure` and an entry here.

use super::registry::{Compared, Limit, Peer, Sizes, Target, Workload, less, more, shown, target};
use super::{
    api_under_load, backlog, crash, dispatch, idle_fleet, log_ingest, reconfig, throughput,
};

/// All workloads, in the order of `bench/peer/workloads.md`.
pub const WORKLOADS: &[Workload] =
    &[DISPATCH, THROUGHPUT, LOG_INGEST, BACKLOG, RECONFIG, IDLE_FLEET, API_UNDER_LOAD, CRASH];

const DISPATCH: Workload = Workload {
    name: "dispatch",
    measure: dispatch::measure,
    metrics: &[
        less("p50_ms"),
        less("p99_ms"),
        more("builds_per_s"),
        less("master_cpu_s_per_build"),
        less("master_peak_rss_mb"),
    ],
    headlines: &[
        ("p50_ms", "one build, submission to end"),
        ("master_cpu_s_per_build", "master's CPU time for it"),
    ],
    sizes: Sizes { quick: &[100], full: &[100], raised_to: None },
    compared: Compared::EachAtItsLargest,
    targets: &[
        target("p50_ms", Limit::AtMost(4.0)),
        target("p99_ms", Limit::AtMost(12.0)),
        target("master_cpu_s_per_build", Limit::AtMost(0.0015)),
        target("p50_ms", Limit::TimesBetter(80.0)),
    ],
    peer: Peer {
        name: "w1",
        size: "--n",
        quick: &[100],
        full: &[100],
        arguments: &[],
        tuned: false,
    },
};

const THROUGHPUT: Workload = Workload {
    name: "throughput",
    measure: throughput::measure,
    metrics: &[
        more("builds_per_s"),
        // Times for different numbers of requests cannot be compared.
        shown("wall_s"),
        shown("submit_s"),
        less("master_cpu_s_per_build"),
        less("master_peak_rss_mb"),
        less("db_bytes_per_build"),
    ],
    headlines: &[
        ("builds_per_s", "builds a second, 50 workers"),
        ("master_cpu_s_per_build", "master's CPU time a build of those"),
    ],
    sizes: Sizes { quick: &[2_000], full: &[2_000], raised_to: Some(400_000) },
    compared: Compared::EachAtItsLargest,
    targets: &[
        target("builds_per_s", Limit::AtLeast(2_000.0)),
        target("master_cpu_s_per_build", Limit::AtMost(0.0004)),
        target("builds_per_s", Limit::TimesBetterThanTuned(280.0)),
    ],
    peer: Peer {
        name: "w2",
        size: "--n",
        quick: &[500],
        full: &[2_000],
        arguments: &[],
        tuned: true,
    },
};

const LOG_INGEST: Workload = Workload {
    name: "log_ingest",
    measure: log_ingest::measure,
    metrics: &[
        more("mb_per_s"),
        more("share_of_generator"),
        shown("wall_s"),
        shown("generator_mb_per_s"),
        shown("master_cpu_s_settled"),
        less("rss_grown_mb"),
        shown("db_mb_settled"),
        more("prepared_mb_per_s"),
        shown("prepared_master_cpu_s_settled"),
        less("prepared_rss_grown_mb"),
    ],
    headlines: &[("mb_per_s", "log of one build")],
    sizes: Sizes { quick: &[50, 500], full: &[50, 500], raised_to: None },
    compared: Compared::EachAtItsLargest,
    targets: &[
        target("mb_per_s", Limit::AtLeast(100.0)),
        target("share_of_generator", Limit::AtLeast(0.6)),
        target("rss_grown_mb", Limit::AtMost(16.0)),
        target("mb_per_s", Limit::TimesBetter(23.0)),
        target("prepared_mb_per_s", Limit::AtLeast(200.0)),
    ],
    peer: Peer {
        name: "w3",
        size: "--mb",
        quick: &[50],
        full: &[50],
        arguments: &[],
        tuned: false,
    },
};

const BACKLOG: Workload = Workload {
    name: "backlog",
    measure: backlog::measure,
    metrics: &[
        more("accept_per_s"),
        less("api_ready_s"),
        less("startup_cpu_s"),
        less("rss_idle_mb"),
        less("first_build_done_s_after_worker_start"),
        less("first_build_ms_after_attach"),
        more("drain_builds_per_s"),
        less("drain_master_cpu_s_per_build"),
        less("master_peak_rss_mb"),
        shown("db_mb"),
    ],
    headlines: &[("drain_builds_per_s", "builds a second from a long queue")],
    // The few are there for the drain, which should not depend on how many wait.
    sizes: Sizes { quick: &[100, 25_000, 100_000], full: &[100, 25_000, 100_000], raised_to: None },
    compared: Compared::EachAtItsLargest,
    targets: &[
        target("api_ready_s", Limit::AtMost(0.5)),
        target("first_build_ms_after_attach", Limit::AtMost(50.0)),
        target("drain_builds_per_s", Limit::AtLeast(400.0)),
    ],
    peer: Peer {
        name: "w4",
        size: "--n",
        quick: &[5_000],
        full: &[5_000, 25_000],
        arguments: &[],
        tuned: false,
    },
};

const RECONFIG: Workload = Workload {
    name: "reconfig",
    measure: reconfig::measure,
    metrics: &[
        less("reconfig_s"),
        less("master_cpu_s"),
        less("api_stall_max_s"),
        shown("new_factory_used"),
        shown("running_build_undisturbed"),
        less("startup_api_ready_s"),
        less("attach_s"),
        less("settled_after_attach_s"),
        less("settled_cpu_s"),
        less("dispatch_s"),
        less("rss_before_mb"),
        less("master_peak_rss_mb"),
    ],
    headlines: &[
        ("reconfig_s", "reload of 1,000 builders"),
        ("startup_api_ready_s", "cold start with 1,000 builders"),
    ],
    sizes: Sizes { quick: &[1_000], full: &[1_000], raised_to: None },
    compared: Compared::AtTheSame,
    targets: &[
        target("reconfig_s", Limit::AtMost(0.02)),
        target("api_stall_max_s", Limit::AtMost(0.005)),
        target("new_factory_used", Limit::AtLeast(1.0)),
        target("running_build_undisturbed", Limit::AtLeast(1.0)),
        target("startup_api_ready_s", Limit::AtMost(0.5)),
        // A second to attach and begin to be quiet, and the second in which it
        // is.
        target("settled_after_attach_s", Limit::AtMost(2.0)),
    ],
    peer: Peer {
        name: "w5",
        size: "--builders",
        quick: &[1_000],
        full: &[1_000],
        arguments: &[],
        tuned: true,
    },
};

const IDLE_FLEET: Workload = Workload {
    name: "idle_fleet",
    measure: idle_fleet::measure,
    metrics: &[
        shown("attached"),
        less("attach_s"),
        less("attach_master_cpu_s"),
        less("settled_after_attach_s"),
        less("rss_before_mb"),
        less("rss_mb"),
        less("kib_per_worker"),
        less("idle_cpu_pct"),
        less("startup_api_ready_s"),
    ],
    headlines: &[
        ("settled_after_attach_s", "workers all attached and quiet"),
        ("kib_per_worker", "memory of an idle worker"),
    ],
    sizes: Sizes { quick: &[0, 500, 10_000], full: &[0, 500, 2_000, 10_000], raised_to: None },
    compared: Compared::AtTheSame,
    targets: &[
        Target { metric: "rss_mb", n: Some(0), limit: Limit::AtMost(15.0) },
        // 25 KiB each over 15 MB.
        Target { metric: "rss_mb", n: Some(10_000), limit: Limit::AtMost(259.0) },
        Target { metric: "attached", n: Some(10_000), limit: Limit::AtLeast(10_000.0) },
        Target { metric: "settled_after_attach_s", n: Some(10_000), limit: Limit::AtMost(10.0) },
        Target { metric: "idle_cpu_pct", n: Some(10_000), limit: Limit::AtMost(1.0) },
    ],
    peer: Peer {
        name: "w6",
        size: "--n",
        quick: &[500],
        full: &[0, 500, 2_000],
        // Each of its workers sends a keepalive in this time, too.
        arguments: &["--seconds", "60"],
        tuned: false,
    },
};

const API_UNDER_LOAD: Workload = Workload {
    name: "api_under_load",
    measure: api_under_load::measure,
    metrics: &[
        more("api_req_per_s"),
        less("api_p50_ms"),
        less("api_p99_ms"),
        less("api_max_ms"),
        shown("api_errors"),
        shown("api_hung"),
        shown("slowed_pct"),
        more("builds_per_s"),
        more("offered_api_req_per_s"),
        less("offered_api_p50_ms"),
        less("offered_api_p99_ms"),
        less("offered_api_max_ms"),
        shown("offered_api_unsent"),
        shown("offered_api_hung"),
        shown("offered_slowed_pct"),
        more("idle_api_req_per_s"),
        less("idle_api_p99_ms"),
        shown("idle_api_hung"),
    ],
    // Raised by the workload itself until builds run all the time.
    headlines: &[
        ("api_req_per_s", "API requests a second beside builds"),
        ("offered_api_p99_ms", "API at 500 requests a second, p99"),
    ],
    sizes: Sizes { quick: &[2_000], full: &[2_000], raised_to: None },
    compared: Compared::EachAtItsLargest,
    targets: &[
        target("api_req_per_s", Limit::AtLeast(3_000.0)),
        target("idle_api_req_per_s", Limit::AtLeast(3_000.0)),
        target("offered_api_p99_ms", Limit::AtMost(15.0)),
        target("offered_slowed_pct", Limit::AtMost(10.0)),
        target("api_hung", Limit::AtMost(0.0)),
        target("offered_api_hung", Limit::AtMost(0.0)),
    ],
    peer: Peer {
        name: "w7",
        size: "--n",
        quick: &[150],
        full: &[500],
        arguments: &[],
        tuned: false,
    },
};

const CRASH: Workload = Workload {
    name: "crash",
    measure: crash::measure,
    metrics: &[
        shown("running_at_kill"),
        shown("acked"),
        shown("lost"),
        shown("stuck"),
        shown("thrown_away"),
        shown("interrupted_and_rerun"),
        shown("started_twice"),
        shown("finished_twice"),
        shown("completed_without_success"),
        shown("never_finished_on_a_worker"),
        shown("dangling_build_rows"),
        less("api_ready_s"),
        less("first_dispatch_after_restart_s"),
        less("recovery_wall_s"),
    ],
    headlines: &[],
    sizes: Sizes { quick: &[100], full: &[100], raised_to: None },
    compared: Compared::AtTheSame,
    targets: &[
        target("lost", Limit::AtMost(0.0)),
        target("stuck", Limit::AtMost(0.0)),
        target("thrown_away", Limit::AtMost(0.0)),
        target("interrupted_and_rerun", Limit::AtMost(0.0)),
        target("started_twice", Limit::AtMost(0.0)),
        target("completed_without_success", Limit::AtMost(0.0)),
    ],
    peer: Peer {
        name: "w8",
        size: "--n",
        quick: &[100],
        full: &[100],
        arguments: &[],
        tuned: false,
    },
};
