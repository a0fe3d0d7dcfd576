//! Instances of latent workers: what the store, the provider and the instances
//! themselves did, in the order in which it happened.

use std::collections::{BTreeMap, BTreeSet};

use botmaster::core::ids::{BuildId, InstanceTag, WorkerId};

use super::super::records::{Deed, History, InstanceNote, Micros, Run};
use super::{Finding, Invariant, Leeway, found};

/// After so many failed tries to destroy one, another may be made beside it.
const PATIENCE: u32 = 3;

/// The store's row.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Row {
    None,
    Wanted,
    Leaving { since: Micros },
}

/// What is known of one instance.
struct One {
    worker: Option<WorkerId>,
    row: Row,
    /// The provider was asked for it.
    asked: bool,
    /// The provider has it.
    there: bool,
    /// It runs.
    alive: bool,
    /// It has a connection in order, since when.
    attached: Option<Micros>,
    /// How often the provider said that it could not destroy it.
    resisted: u32,
}

impl One {
    fn new(tag: &InstanceTag) -> Self {
        Self {
            worker: tag.worker(),
            row: Row::None,
            asked: false,
            there: false,
            alive: false,
            attached: None,
            resisted: 0,
        }
    }
}

struct Walk<'a> {
    all: BTreeMap<&'a InstanceTag, One>,
    runs: BTreeMap<&'a str, Vec<&'a Run>>,
    leeway: &'a Leeway,
}

pub fn check(history: &History, leeway: &Leeway, findings: &mut Vec<Finding>) {
    let mut runs: BTreeMap<&str, Vec<&Run>> = BTreeMap::new();
    for run in &history.ran {
        let host = run.instance.split('/').next().unwrap_or_default();
        runs.entry(host).or_default().push(run);
    }
    let mut walk = Walk { all: BTreeMap::new(), runs, leeway };
    for note in &history.instances {
        walk.step(note, findings);
    }
    if history.calm {
        walk.nothing_is_left(findings);
    }
}

impl<'a> Walk<'a> {
    fn step(&mut self, note: &'a InstanceNote, findings: &mut Vec<Finding>) {
        let tag = &note.tag;
        match &note.deed {
            Deed::Wished => self.one_at_a_time(tag, findings),
            Deed::Asked => self.wished_before_asked(tag, findings),
            Deed::Made => self.not_beside_another(tag, findings),
            Deed::Released => self.no_build_is_cut_off(tag, note.at, findings),
            Deed::Forgotten => self.gone_before_forgotten(tag, findings),
            Deed::Started { build, dialled } => {
                self.not_on_one_given_up(tag, *build, *dialled, findings);
            }
            Deed::Dead | Deed::Resisted | Deed::Gone | Deed::Attached | Deed::Detached => {}
        }
        let one = self.all.entry(tag).or_insert_with(|| One::new(tag));
        match &note.deed {
            Deed::Wished => one.row = Row::Wanted,
            Deed::Asked => one.asked = true,
            Deed::Made => (one.there, one.alive) = (true, true),
            Deed::Dead => one.alive = false,
            Deed::Released => {
                if !matches!(one.row, Row::Leaving { .. }) {
                    one.row = Row::Leaving { since: note.at };
                }
            }
            Deed::Resisted => one.resisted += 1,
            Deed::Gone => (one.asked, one.there, one.alive) = (false, false, false),
            Deed::Forgotten => one.row = Row::None,
            Deed::Attached => one.attached = Some(note.at),
            Deed::Detached => one.attached = None,
            Deed::Started { .. } => {}
        }
    }

    /// A worker has one instance that is wanted.
    fn one_at_a_time(&self, tag: &InstanceTag, findings: &mut Vec<Finding>) {
        let worker = tag.worker();
        for (other, one) in &self.all {
            if one.worker == worker && one.row == Row::Wanted {
                let text = format!("{tag} was wished for while {other} was wanted");
                found(findings, Invariant::I4, text);
            }
        }
    }

    /// Fault row FX09: the wish is durable first.
    fn wished_before_asked(&self, tag: &InstanceTag, findings: &mut Vec<Finding>) {
        if !self.all.get(tag).is_some_and(|one| one.row != Row::None) {
            let text = format!("FX09: the provider was asked for {tag}, which is not stored");
            found(findings, Invariant::I12, text);
        }
    }

    /// Two instances of one worker would be in each other's way.
    fn not_beside_another(&self, tag: &InstanceTag, findings: &mut Vec<Finding>) {
        let worker = tag.worker();
        for (other, one) in &self.all {
            if one.worker == worker && *other != tag && one.there && one.resisted < PATIENCE {
                let text = format!("{tag} was made while {other} was there");
                found(findings, Invariant::I4, text);
            }
        }
    }

    /// Fault row FX06: an instance that is all right is not let go while
    /// something runs on it.
    fn no_build_is_cut_off(&self, tag: &InstanceTag, at: Micros, findings: &mut Vec<Finding>) {
        let Some(one) = self.all.get(tag) else { return };
        let since = at - self.leeway.order;
        let well = one.alive && one.attached.is_some_and(|attached| attached < since);
        let runs = self.runs.get(tag.as_str()).into_iter().flatten();
        for run in runs.filter(|run| run.begin < since && run.end.is_none_or(|end| end > at)) {
            if well && one.row == Row::Wanted {
                let text = format!("FX06: {tag} was let go while {} ran on it", run.command);
                found(findings, Invariant::I4, text);
            }
        }
    }

    /// Fault row FX10: none is forgotten.
    fn gone_before_forgotten(&self, tag: &InstanceTag, findings: &mut Vec<Finding>) {
        if self.all.get(tag).is_some_and(|one| one.there) {
            let text = format!("FX10: {tag} was forgotten while the provider had it");
            found(findings, Invariant::I15, text);
        }
    }

    /// Fault row FX04: nothing starts on one that was given up before it came.
    fn not_on_one_given_up(
        &self,
        tag: &InstanceTag,
        build: BuildId,
        dialled: Micros,
        findings: &mut Vec<Finding>,
    ) {
        let given_up = match self.all.get(tag).map(|one| one.row) {
            Some(Row::Wanted) => false,
            Some(Row::Leaving { since }) => since < dialled,
            Some(Row::None) | None => true,
        };
        if given_up {
            let text = format!("FX04: build {build} was started on {tag}, which was given up");
            found(findings, Invariant::I3, text);
        }
    }

    /// Fault rows FX09, FX10: in the end nothing is left of any.
    fn nothing_is_left(&self, findings: &mut Vec<Finding>) {
        let mut left = BTreeSet::new();
        for (tag, one) in &self.all {
            if one.there {
                left.insert(format!("FX10: the provider has {tag} in the end"));
            }
            if one.row != Row::None {
                left.insert(format!("FX10: the store has {tag} in the end"));
            }
        }
        for text in left {
            found(findings, Invariant::I15, text);
        }
    }
}
