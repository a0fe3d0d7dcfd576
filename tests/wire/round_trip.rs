//! Any frame comes back from the wire as it was.

use std::collections::BTreeMap;

use botmaster::core::ids::*;
use botmaster::protocol::json_v1::*;
use proptest::collection::{btree_map, vec};
use proptest::option::of;
use proptest::prelude::*;

fn text() -> BoxedStrategy<String> {
    prop_oneof![any::<String>(), "[a-z0-9/._-]{0,12}"].boxed()
}

fn texts() -> BoxedStrategy<BTreeMap<String, String>> {
    btree_map(text(), text(), 0..4).boxed()
}

fn lengths() -> BoxedStrategy<BTreeMap<String, u64>> {
    btree_map(text(), any::<u64>(), 0..3).boxed()
}

fn build() -> BoxedStrategy<BuildId> {
    any::<u64>().prop_map(BuildId).boxed()
}

fn command() -> BoxedStrategy<CommandId> {
    text().prop_map(CommandId::from).boxed()
}

fn outcome() -> BoxedStrategy<Outcome> {
    prop_oneof![
        any::<i32>().prop_map(Outcome::Exit),
        any::<i32>().prop_map(Outcome::Signal),
        (text(), any::<u64>()).prop_map(|(what, after_s)| Outcome::Timeout { what, after_s }),
        text().prop_map(Outcome::Killed),
        text().prop_map(Outcome::Error),
    ]
    .boxed()
}

fn item() -> BoxedStrategy<InventoryItem> {
    let state = prop_oneof![
        Just(InventoryState::Waiting),
        Just(InventoryState::Running),
        Just(InventoryState::Finished),
        Just(InventoryState::Lost),
    ];
    (build(), any::<u64>(), text(), of(command()), state, lengths())
        .prop_map(|(build, epoch, builder, command, state, log_end)| InventoryItem {
            build,
            epoch: Epoch(epoch),
            builder: builder.into(),
            command,
            state,
            log_end,
        })
        .boxed()
}

fn attach() -> BoxedStrategy<WorkerFrame> {
    let names = (vec(any::<u32>(), 0..3), text(), text(), text());
    let more = (any::<u32>(), of(vec(text(), 0..4)), texts(), texts());
    let last = (vec(text(), 0..2), of(any::<i64>()));
    (names, more, last)
        .prop_map(|((proto, name, instance, token), (slots, caps, labels, info), last)| {
            let (requires, clock) = last;
            WorkerFrame::Attach(Attach {
                proto,
                name: name.into(),
                instance,
                token,
                version: "1".into(),
                os: "linux".into(),
                arch: "x86_64".into(),
                slots,
                caps,
                labels,
                info,
                requires,
                clock,
            })
        })
        .boxed()
}

fn log() -> BoxedStrategy<WorkerFrame> {
    let ch = prop_oneof![Just('o'), Just('e')];
    (build(), command(), text(), ch, any::<u64>(), text(), 0..3, any::<u64>())
        .prop_map(|(build, command, log, ch, offset, bytes, form, at)| {
            // The bytes behind the line are not the line's.
            let raw = (form == 2).then_some(bytes.len());
            let body = Default::default();
            let (text, b64) = match form {
                0 => (Some(bytes), None),
                1 => (None, Some(bytes)),
                _ => (None, None),
            };
            WorkerFrame::Log(LogData { build, command, log, ch, offset, text, b64, raw, body, at })
        })
        .boxed()
}

fn finished() -> BoxedStrategy<WorkerFrame> {
    (build(), command(), outcome(), any::<u64>(), lengths(), texts(), texts(), text())
        .prop_map(|(build, command, outcome, wall_ms, log_end, log_digest, properties, note)| {
            let usage = Usage { wall_ms };
            WorkerFrame::CommandFinished {
                build,
                command,
                outcome,
                usage,
                log_end,
                log_digest,
                properties,
                note,
            }
        })
        .boxed()
}

fn worker_frame() -> BoxedStrategy<WorkerFrame> {
    use WorkerFrame as W;
    prop_oneof![
        attach(),
        log(),
        finished(),
        (vec(item(), 0..3), any::<bool>())
            .prop_map(|(builds, more)| W::Inventory(Inventory { builds, more })),
        text().prop_map(|builder| W::BuilderReady { builder: builder.into() }),
        (text(), text(), text()).prop_map(|(builder, code, message)| W::BuilderFailed {
            builder: builder.into(),
            code,
            message
        }),
        any::<u64>().prop_map(|id| W::Pong { id: PingToken(id) }),
        (any::<u64>(), text())
            .prop_map(|(id, message)| W::PingFailed { id: PingToken(id), message }),
        (any::<u64>(), vec(build(), 0..5)).prop_map(|(seq, running)| W::Heartbeat { seq, running }),
        (build(), any::<u64>())
            .prop_map(|(build, epoch)| W::BuildAccepted { build, epoch: Epoch(epoch) }),
        (build(), any::<u64>(), text(), text()).prop_map(|(build, epoch, code, message)| {
            W::Refused { build, epoch: Epoch(epoch), code, message }
        }),
        (build(), command()).prop_map(|(build, command)| W::CommandStarted { build, command }),
        (build(), command(), text(), text()).prop_map(|(build, command, code, message)| {
            W::CommandRefused { build, command, code, message }
        }),
        build().prop_map(|build| W::Abandoned { build }),
        text().prop_map(|message| W::Draining { message }),
        (text(), text()).prop_map(|(code, message)| W::Error(WireError { code, message })),
    ]
    .boxed()
}

fn work() -> BoxedStrategy<Work> {
    let shell = (any::<bool>(), vec(text(), 0..4), text(), of(text()), texts(), of(any::<u64>()))
        .prop_map(|(is_argv, argv, line, workdir, env, timeout_ms)| {
            Work::Shell(ShellArgs {
                argv: is_argv.then_some(argv),
                shell: (!is_argv).then_some(line),
                workdir,
                env,
                timeout_ms,
                max_time_ms: timeout_ms,
            })
        });
    let git = (text(), of(text()), of(text()), text(), any::<bool>(), of(any::<u32>()), texts())
        .prop_map(|(repository, branch, revision, mode, submodules, depth, env)| {
            Work::Git(GitArgs {
                repository,
                branch,
                revision,
                mode,
                submodules,
                depth,
                env,
                ..GitArgs::default()
            })
        });
    prop_oneof![shell, git].boxed()
}

fn master_frame() -> BoxedStrategy<MasterFrame> {
    use MasterFrame as M;
    prop_oneof![
        (any::<u32>(), any::<u64>(), vec(text(), 0..3), of(any::<u64>()), any::<u64>()).prop_map(
            |(proto, incarnation, caps, idle_heartbeat_s, window)| M::Attached {
                proto,
                incarnation: Incarnation(incarnation),
                caps,
                heartbeat_s: 10,
                idle_heartbeat_s,
                lease_s: window / 2,
                window
            }
        ),
        (text(), text(), of(any::<u64>())).prop_map(|(code, message, retry_after_s)| {
            M::Rejected { code, message, retry_after_s }
        }),
        (build(), of(command()), any::<bool>(), lengths()).prop_map(
            |(build, command, go_on, log_from)| {
                let r#do = if go_on { ResumeAction::Continue } else { ResumeAction::Abandon };
                M::Resume(Resume { build, command, r#do, log_from })
            }
        ),
        vec((text(), text()), 0..4).prop_map(|list| {
            let entry = |(builder, builddir): (String, _)| BuilderEntry {
                builder: builder.into(),
                builddir,
            };
            M::Builders { list: list.into_iter().map(entry).collect() }
        }),
        any::<u64>().prop_map(|id| M::Ping { id: PingToken(id) }),
        any::<u64>().prop_map(|seq| M::Heartbeat { seq }),
        (build(), vec((any::<u64>(), any::<u64>()), 0..3), text(), text(), of(any::<u64>()))
            .prop_map(|(build, requests, builder, builddir, lease_s)| M::StartBuild {
                build,
                epoch: Epoch(build.0 / 2),
                requests: requests.into_iter().map(|(r, e)| (RequestId(r), Epoch(e))).collect(),
                builder: builder.into(),
                builddir,
                lease_s
            }),
        (build(), any::<u64>(), command(), work()).prop_map(|(build, epoch, command, work)| {
            M::StartCommand { build, epoch: Epoch(epoch), command, work }
        }),
        (build(), command(), text(), any::<u64>())
            .prop_map(|(build, command, log, have)| M::LogConfirm { build, command, log, have }),
        (build(), command(), text()).prop_map(|(build, command, log)| M::LogAgain {
            build,
            command,
            log
        }),
        any::<u64>().prop_map(|lease_s| M::Lease { lease_s }),
        (build(), command(), any::<u64>(), text()).prop_map(|(build, command, grace_s, reason)| {
            M::Interrupt { build, command, grace_s, reason }
        }),
        (build(), text()).prop_map(|(build, result)| M::BuildFinished { build, result }),
        text().prop_map(|reason| M::Drain { reason }),
        text().prop_map(|reason| M::Shutdown { reason }),
        (text(), text()).prop_map(|(code, message)| M::Error(WireError { code, message })),
    ]
    .boxed()
}

fn without_newline(line: &[u8]) -> &[u8] {
    assert_eq!(line.iter().filter(|&&byte| byte == b'\n').count(), 1, "one frame is one line");
    line.strip_suffix(b"\n").expect("a newline at the end")
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    #[test]
    fn worker_frames_come_back_as_they_were(frame in worker_frame()) {
        let line = encode(&frame);
        prop_assert_eq!(decode_worker(without_newline(&line)), Ok(frame));
    }

    #[test]
    fn master_frames_come_back_as_they_were(frame in master_frame()) {
        let line = encode(&frame);
        prop_assert_eq!(decode_master(without_newline(&line)), Ok(frame));
    }

    #[test]
    fn fn16_any_bytes_are_answered(bytes in vec(any::<u8>(), 0..200)) {
        // Random bytes are as good as never a frame.
        prop_assert!(decode_worker(&bytes).is_err());
        prop_assert!(decode_master(&bytes).is_err());
    }
}
