//! A latent worker's instance: wished, created, attached, idle, gone (rows L01
//! to L05; fault rows FX01 to FX11).
//!
//! Owns when an instance is asked for, how long it is waited for, and when it
//! is let go. Deliberately absent: who makes it (the provider, an edge), its
//! connection and its slots (the worker's, who tells whether it is used). It
//! must always hold that a wish is durable before the provider hears of it,
//! and that what the provider may have made is destroyed or attached.

mod going;
mod parts;

use std::collections::BTreeMap;
use std::time::Duration;

use going::{Going, Step};
pub use parts::{Effect, Event, Failure, Found, InstanceView, Known, State};

use super::ids::InstanceTag;
use super::planted;
use super::time::{Now, Timestamp, WallTime};
use super::values::LatentConfig;

/// First pause after the provider said no, doubled with each further one.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// Longest pause between two tries to create.
const LONGEST_RETRY: Duration = Duration::from_secs(60);
/// First pause after an instance came to nothing, doubled with each further
/// one (row B14).
const FIRST_PAUSE: Duration = Duration::from_secs(10);
/// Longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// The pause number `count`, from 1.
fn growing(first: Duration, longest: Duration, count: u32) -> Duration {
    first.saturating_mul(1 << count.saturating_sub(1).min(20)).min(longest)
}

/// The state of one latent worker's instance.
#[derive(Clone, PartialEq, Debug)]
pub struct InstanceCore {
    config: LatentConfig,
    state: State,
    /// Former instances that are not known to be gone.
    going: BTreeMap<InstanceTag, Going>,
    used: bool,
    builds: bool,
    up: bool,
    /// It was made by an earlier master and has not attached since.
    adopted: bool,
    /// Its settings are others by now: it goes as soon as nobody uses it.
    outdated: bool,
    retired: bool,
    /// How often in a row an instance came to nothing.
    failures: u32,
    not_before: Option<Timestamp>,
    details: String,
    since: Timestamp,
    /// Builds were last told that they may ask.
    open: bool,
}

impl InstanceCore {
    /// What an earlier master left: the instance that is wanted still, when
    /// there is one, is waited for; the others are destroyed.
    #[must_use]
    pub fn new(
        now: Timestamp,
        config: LatentConfig,
        known: Vec<Known>,
        fx: &mut Vec<Effect>,
    ) -> Self {
        let mut core = Self {
            config,
            state: State::Absent,
            going: BTreeMap::new(),
            used: false,
            builds: false,
            up: false,
            adopted: false,
            outdated: false,
            retired: false,
            failures: 0,
            not_before: None,
            details: String::new(),
            since: now,
            open: true,
        };
        for Known { tag, id, wanted } in known {
            if wanted && core.state == State::Absent {
                let until = now + core.config.substantiate_timeout;
                core.state = State::Waiting { tag, id, until };
                core.adopted = true;
            } else {
                core.let_go_of(now, tag, id, Step::Noting, false, fx);
            }
        }
        core.open = core.may_be_asked(now);
        core
    }

    /// Takes in one event.
    pub fn handle(&mut self, now: Timestamp, event: Event, fx: &mut Vec<Effect>) {
        match event {
            Event::Want { tag } => self.on_want(now, tag, fx),
            Event::Use { used, builds, up } => {
                (self.used, self.builds, self.up) = (used, builds, up);
            }
            Event::WishStored { tag } => self.on_wish_stored(now, &tag, fx),
            Event::WishFailed { tag, error } => {
                if matches!(&self.state, State::Wishing { tag: mine, .. } if *mine == tag) {
                    self.state = State::Absent;
                    self.fail(now, format!("the wish could not be stored: {error}"), false, fx);
                }
            }
            Event::Created { tag, id, details } => self.on_created(now, &tag, id, details, fx),
            Event::CreateFailed { tag, failure } => self.on_create_failed(now, &tag, failure, fx),
            Event::Died { tag, how } => self.on_died(now, &tag, &how, fx),
            Event::Swept { found } => self.on_swept(now, found, fx),
            Event::ReleaseStored { tag } => self.on_going(now, &tag, Going::on_noted, fx),
            Event::Destroyed { tag } => self.on_going(now, &tag, Going::on_destroyed, fx),
            Event::DestroyFailed { tag, error } => {
                self.on_going(now, &tag, |going, now, fx| going.on_failed(now, error, fx), fx);
            }
            Event::StoreFailed { tag } => {
                self.on_going(now, &tag, |going, now, _| going.on_store_failed(now), fx)
            }
            Event::Forgotten { tag } => {
                self.going.remove(&tag);
            }
            Event::Configure { config, outdated } => {
                self.config = config;
                self.retired = false;
                self.outdated |= outdated && self.tag().is_some();
                if let State::Idle { since, until, .. } = &mut self.state {
                    *until = *since + self.config.idle_timeout;
                }
            }
            Event::Retire => self.retired = true,
            Event::LetGo { even_used } => {
                if even_used || !self.used {
                    self.release(now, fx);
                }
            }
            Event::DeadlineReached => self.on_deadline(now, fx),
        }
        self.look(now, fx);
        let open = self.may_be_asked(now);
        if open && !self.open {
            fx.push(Effect::Free);
        }
        self.open = open;
    }

    /// What follows from whether it is attached and used. This is the one
    /// place that lets an instance go that somebody might use.
    fn look(&mut self, now: Timestamp, fx: &mut Vec<Effect>) {
        let (used, up) = (self.used, self.up);
        match std::mem::replace(&mut self.state, State::Absent) {
            // It may attach before the provider says that it made it.
            State::Creating { tag, until, .. } if up => {
                self.state = State::Waiting { tag, id: None, until };
                self.look(now, fx);
            }
            State::Waiting { tag, id, .. } if up => {
                self.failures = 0;
                self.not_before = None;
                self.adopted = false;
                self.since = now;
                self.state = State::Up { tag, id };
                self.look(now, fx);
            }
            State::Up { tag, id } if !used && up && !self.goes_at_once() => {
                let until = now + self.config.idle_timeout;
                self.state = State::Idle { tag, id, since: now, until };
            }
            // Fault row FX06: the build wins, since its slot is known here
            // before the timer is looked at.
            State::Idle { tag, id, .. }
                if used && up && !planted::is("idle_timer_kills_a_given_build") =>
            {
                self.state = State::Up { tag, id };
            }
            State::Up { tag, id } | State::Idle { tag, id, .. } if self.builds && !up => {
                self.state = State::Away { tag, id };
            }
            State::Away { tag, id } if used && up => self.state = State::Up { tag, id },
            same @ State::Up { .. } if used && up => self.state = same,
            same @ State::Away { .. } if self.builds => self.state = same,
            // Its time is not over yet.
            same @ State::Idle { .. } if up && !self.goes_at_once() => self.state = same,
            // Nobody uses it, or it went before anything ran on it (FX05).
            same @ (State::Up { .. } | State::Idle { .. } | State::Away { .. }) => {
                self.state = same;
                if used {
                    let error = "the instance went away".to_owned();
                    fx.push(Effect::Failed { error, permanent: false });
                }
                self.release(now, fx);
            }
            State::Pausing { tag, .. } if !used => {
                // The provider said that it made nothing.
                self.let_go_of(now, tag, None, Step::Noting, false, fx);
            }
            other => self.state = other,
        }
    }

    fn goes_at_once(&self) -> bool {
        self.outdated || self.retired || self.config.idle_timeout.is_zero()
    }

    fn on_want(&mut self, now: Timestamp, tag: InstanceTag, fx: &mut Vec<Effect>) {
        if self.state != State::Absent {
            return;
        }
        if !self.may_be_asked(now) {
            let error = "it came to nothing just now".to_owned();
            fx.push(Effect::Failed { error, permanent: false });
            return;
        }
        let until = now + self.config.substantiate_timeout;
        self.since = now;
        self.details.clear();
        if planted::is("create_before_wish") {
            fx.push(Effect::Create(tag.clone()));
        }
        fx.push(Effect::StoreWish(tag.clone()));
        self.state = State::Wishing { tag, until };
    }

    fn on_wish_stored(&mut self, now: Timestamp, stored: &InstanceTag, fx: &mut Vec<Effect>) {
        match &self.state {
            State::Wishing { tag, until } if tag == stored => {
                let (tag, until) = (tag.clone(), *until);
                if !self.used {
                    // Whoever wanted it has gone.
                    self.state = State::Absent;
                    self.let_go_of(now, tag, None, Step::Noting, false, fx);
                    return;
                }
                if !planted::is("create_before_wish") {
                    fx.push(Effect::Create(tag.clone()));
                }
                self.state = State::Creating { tag, until, tries: 1 };
            }
            _ => fx.push(Effect::Ignored("wish for an instance that is over")),
        }
    }

    fn on_created(
        &mut self,
        now: Timestamp,
        made: &InstanceTag,
        id: String,
        details: String,
        fx: &mut Vec<Effect>,
    ) {
        if let Some(going) = self.going.get_mut(made) {
            going.on_made(now, Some(id), fx);
            return;
        }
        if self.tag() != Some(made) {
            fx.push(Effect::Ignored("an instance that nobody waits for"));
            return;
        }
        match &mut self.state {
            State::Creating { tag, until, .. } => {
                self.state =
                    State::Waiting { tag: tag.clone(), id: Some(id.clone()), until: *until };
            }
            State::Waiting { id: name, .. }
            | State::Up { id: name, .. }
            | State::Idle { id: name, .. }
            | State::Away { id: name, .. } => *name = Some(id.clone()),
            State::Absent | State::Wishing { .. } | State::Pausing { .. } => {
                fx.push(Effect::Ignored("an instance that was not asked for"));
                return;
            }
        }
        fx.push(Effect::NoteCreated { tag: made.clone(), id: id.clone() });
        fx.push(Effect::Watch { tag: made.clone(), id });
        fx.push(Effect::Details(details.clone()));
        self.details = details;
    }

    fn on_create_failed(
        &mut self,
        now: Timestamp,
        failed: &InstanceTag,
        failure: Failure,
        fx: &mut Vec<Effect>,
    ) {
        if let Some(going) = self.going.get_mut(failed) {
            going.on_made(now, None, fx);
            return;
        }
        let (tag, until, tries) = match &self.state {
            State::Creating { tag, until, tries } if tag == failed => (tag.clone(), *until, *tries),
            _ => {
                fx.push(Effect::Ignored("failure of an instance that nobody waits for"));
                return;
            }
        };
        // The provider has answered: it can be destroyed, should it be there.
        self.state = State::Waiting { tag: tag.clone(), id: None, until };
        match failure {
            Failure::Transient(error) => {
                let again = now + growing(FIRST_RETRY, LONGEST_RETRY, tries);
                if again < until {
                    self.state = State::Pausing { tag, until, again, tries, error };
                } else {
                    self.give_up(now, error, false, fx);
                }
            }
            Failure::Permanent(error) => self.give_up(now, error, true, fx),
            Failure::Unknown(error) => self.give_up(now, error, false, fx),
        }
    }

    /// Fault row FX03: nobody waits for an instance that is known to be dead.
    fn on_died(&mut self, now: Timestamp, dead: &InstanceTag, how: &str, fx: &mut Vec<Effect>) {
        if self.tag() != Some(dead) {
            return;
        }
        match self.state {
            State::Waiting { .. } if !self.adopted => {
                self.give_up(now, format!("the instance died while it started: {how}"), false, fx);
            }
            State::Waiting { .. } | State::Up { .. } | State::Idle { .. } | State::Away { .. } => {
                // An adopted one that somebody waits for already.
                let error = format!("the instance is gone: {how}");
                fx.push(Effect::Failed { error, permanent: false });
                self.release(now, fx);
            }
            State::Absent
            | State::Wishing { .. }
            | State::Creating { .. }
            | State::Pausing { .. } => {}
        }
    }

    /// The provider told which instances there are (fault row FX09).
    fn on_swept(&mut self, now: Timestamp, found: Vec<Found>, fx: &mut Vec<Effect>) {
        let mine = self.tag().cloned();
        if let (Some(tag), true) = (&mine, self.adopted) {
            match found.iter().find(|one| one.tag == *tag) {
                Some(one) if one.alive => {
                    fx.push(Effect::Watch { tag: tag.clone(), id: one.id.clone() });
                    if let State::Waiting { id, .. } = &mut self.state {
                        *id = Some(one.id.clone());
                    }
                }
                _ => self.on_died(now, tag, "it was not found after the start", fx),
            }
        }
        for one in found {
            let known = mine.as_ref() == Some(&one.tag) || self.going.contains_key(&one.tag);
            if !known {
                self.let_go_of(now, one.tag, Some(one.id), Step::Noting, false, fx);
            }
        }
    }

    fn on_deadline(&mut self, now: Timestamp, fx: &mut Vec<Effect>) {
        if self.not_before.is_some_and(|until| until <= now) {
            self.not_before = None;
        }
        for going in self.going.values_mut() {
            going.on_deadline(now, fx);
        }
        match &mut self.state {
            State::Wishing { until, .. }
            | State::Creating { until, .. }
            | State::Waiting { until, .. }
                if *until <= now =>
            {
                let span = self.config.substantiate_timeout;
                let error = format!("the instance was not attached within {span:?}");
                self.give_up(now, error, false, fx);
            }
            State::Pausing { tag, until, again, tries, .. } if *again <= now => {
                let (tag, until, tries) = (tag.clone(), *until, *tries + 1);
                fx.push(Effect::Create(tag.clone()));
                self.state = State::Creating { tag, until, tries };
            }
            State::Idle { until, .. } if *until <= now => self.release(now, fx),
            State::Absent
            | State::Wishing { .. }
            | State::Creating { .. }
            | State::Pausing { .. }
            | State::Waiting { .. }
            | State::Up { .. }
            | State::Idle { .. }
            | State::Away { .. } => {}
        }
    }

    /// The instance came to nothing: whoever waits is told, what may have been
    /// made is destroyed, and the worker is left alone for a while.
    fn give_up(&mut self, now: Timestamp, error: String, permanent: bool, fx: &mut Vec<Effect>) {
        self.fail(now, error, permanent, fx);
        self.release(now, fx);
    }

    fn fail(&mut self, now: Timestamp, error: String, permanent: bool, fx: &mut Vec<Effect>) {
        self.failures = self.failures.saturating_add(1);
        self.not_before = Some(now + growing(FIRST_PAUSE, LONGEST_PAUSE, self.failures));
        fx.push(Effect::Failed { error, permanent });
    }

    /// Lets go of what there is.
    fn release(&mut self, now: Timestamp, fx: &mut Vec<Effect>) {
        let state = std::mem::replace(&mut self.state, State::Absent);
        self.outdated = false;
        self.adopted = false;
        let (tag, id, step) = match state {
            State::Absent => return,
            State::Wishing { tag, .. } | State::Pausing { tag, .. } => (tag, None, Step::Noting),
            // Destroyed before it is made, it would be forgotten.
            State::Creating { tag, .. } => (tag, None, Step::Making),
            State::Waiting { tag, id, .. } => (tag, id, Step::Noting),
            State::Up { tag, id } | State::Idle { tag, id, .. } | State::Away { tag, id } => {
                (tag, id, Step::Noting)
            }
        };
        let lost = self.builds;
        fx.push(Effect::DropLink);
        self.let_go_of(now, tag, id, step, lost, fx);
    }

    fn let_go_of(
        &mut self,
        now: Timestamp,
        tag: InstanceTag,
        id: Option<String>,
        step: Step,
        lost: bool,
        fx: &mut Vec<Effect>,
    ) {
        let going = Going::new(now, tag.clone(), id, step, lost, fx);
        self.going.insert(tag, going);
    }

    fn on_going(
        &mut self,
        now: Timestamp,
        tag: &InstanceTag,
        news: impl FnOnce(&mut Going, Timestamp, &mut Vec<Effect>),
        fx: &mut Vec<Effect>,
    ) {
        match self.going.get_mut(tag) {
            Some(going) => news(going, now, fx),
            None => fx.push(Effect::Ignored("news of an instance that is gone")),
        }
    }

    /// Whether a build may ask for an instance now. Not while the worker is
    /// left alone after a failure, nor while the former instance goes: the two
    /// would be in each other's way.
    #[must_use]
    pub fn may_be_asked(&self, now: Timestamp) -> bool {
        let paused = self.not_before.is_some_and(|until| until > now);
        match self.state {
            State::Absent => {
                !self.retired && !paused && !self.going.values().any(|one| one.blocks(self.builds))
            }
            State::Wishing { .. }
            | State::Creating { .. }
            | State::Pausing { .. }
            | State::Waiting { .. }
            | State::Up { .. }
            | State::Idle { .. }
            | State::Away { .. } => true,
        }
    }

    /// Whether a connection of the instance with this tag is welcome (fault
    /// row FX04).
    #[must_use]
    pub fn expects(&self, tag: Option<&InstanceTag>) -> bool {
        match &self.state {
            State::Absent | State::Wishing { .. } | State::Pausing { .. } => false,
            State::Creating { tag: mine, .. }
            | State::Waiting { tag: mine, .. }
            | State::Up { tag: mine, .. }
            | State::Idle { tag: mine, .. }
            | State::Away { tag: mine, .. } => tag == Some(mine),
        }
    }

    /// Whether there is an instance that builds may be given to.
    #[must_use]
    pub fn is_there(&self) -> bool {
        matches!(self.state, State::Up { .. } | State::Idle { .. } | State::Away { .. })
    }

    /// Whether nothing is left of it.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.state == State::Absent && self.going.is_empty()
    }

    /// The present instance's tag.
    #[must_use]
    pub fn tag(&self) -> Option<&InstanceTag> {
        match &self.state {
            State::Absent => None,
            State::Wishing { tag, .. }
            | State::Creating { tag, .. }
            | State::Pausing { tag, .. }
            | State::Waiting { tag, .. }
            | State::Up { tag, .. }
            | State::Idle { tag, .. }
            | State::Away { tag, .. } => Some(tag),
        }
    }

    /// What the provider told of the present instance.
    #[must_use]
    pub fn details(&self) -> &str {
        &self.details
    }

    /// Its settings.
    #[must_use]
    pub fn config(&self) -> &LatentConfig {
        &self.config
    }

    /// The state, for tests.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// When `DeadlineReached` is due. `Up` and `Away` have none: there the
    /// builds' own ends, the connection and the provider's word are waited for.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        let own = match &self.state {
            State::Absent | State::Up { .. } | State::Away { .. } => None,
            State::Wishing { until, .. }
            | State::Creating { until, .. }
            | State::Waiting { until, .. }
            | State::Idle { until, .. } => Some(*until),
            State::Pausing { again, .. } => Some(*again),
        };
        let going = self.going.values().map(Going::next_deadline);
        going.chain(own).chain(self.not_before).min()
    }

    /// What people may see.
    #[must_use]
    pub fn view(&self, now: Now) -> InstanceView {
        let ago = now.mono.0.saturating_sub(self.since.0);
        let resisting = self.going.values().max_by_key(|going| going.tries());
        let state = match &self.state {
            State::Absent if resisting.is_some() => "destroying",
            State::Absent => "latent",
            State::Wishing { .. }
            | State::Creating { .. }
            | State::Pausing { .. }
            | State::Waiting { .. } => "substantiating",
            State::Up { .. } => "up",
            State::Idle { .. } => "idle",
            State::Away { .. } => "away",
        };
        let (mut tries, mut error) = match &self.state {
            State::Pausing { tries, error, .. } => (*tries, Some(error.clone())),
            State::Creating { tries, .. } => (*tries, None),
            _ => (0, None),
        };
        if let (State::Absent, Some(going)) = (&self.state, resisting) {
            (tries, error) = (going.tries(), going.error().map(str::to_owned));
        }
        InstanceView {
            state,
            provider: self.config.provider.word(),
            tag: self.tag().cloned(),
            details: self.details.clone(),
            since: WallTime(now.wall.0.saturating_sub_unsigned(ago)),
            tries,
            error,
            going: self.going.len(),
        }
    }
}
