//! How long builds, and the text of their logs, are kept.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::ids::BuilderName;

/// What is kept of one builder. What is not said has no limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Retention {
    /// So many of the newest builds.
    pub builds: Option<u64>,
    /// Builds that ended no longer ago.
    pub age: Option<Duration>,
    /// The text of logs of builds that ended no longer ago.
    pub log_age: Option<Duration>,
    /// So many bytes of log text, of the newest builds.
    pub size: Option<u64>,
}

impl Retention {
    /// Whether everything is kept.
    #[must_use]
    pub fn keeps_all(&self) -> bool {
        *self == Self::default()
    }
}

/// What is kept, in all and of each builder.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct RetentionRules {
    /// Of builders that do not say. Its size is that of all builders' text
    /// together.
    pub all: Retention,
    /// Builders that say something of their own.
    pub builders: BTreeMap<BuilderName, Retention>,
}

impl RetentionRules {
    /// What is kept of a builder: each word of its own wins. The size for all
    /// together is no limit of one.
    #[must_use]
    pub fn of(&self, builder: &BuilderName) -> Retention {
        let own = self.builders.get(builder).copied().unwrap_or_default();
        Retention {
            builds: own.builds.or(self.all.builds),
            age: own.age.or(self.all.age),
            log_age: own.log_age.or(self.all.log_age),
            size: own.size,
        }
    }

    /// Whether everything of every builder is kept.
    #[must_use]
    pub fn keep_all(&self) -> bool {
        self.all.keeps_all() && self.builders.values().all(Retention::keeps_all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_builders_own_words_win_one_by_one() {
        let day = Duration::from_secs(86_400);
        let rules = RetentionRules {
            all: Retention { builds: Some(100), age: Some(day), size: Some(7), log_age: None },
            builders: BTreeMap::from([(
                "a".into(),
                Retention { builds: Some(3), size: Some(5), ..Retention::default() },
            )]),
        };
        let own = Retention { builds: Some(3), age: Some(day), size: Some(5), log_age: None };
        assert_eq!(rules.of(&"a".into()), own);
        let general = Retention { builds: Some(100), age: Some(day), size: None, log_age: None };
        assert_eq!(rules.of(&"b".into()), general);
        assert!(!rules.keep_all() && RetentionRules::default().keep_all());
    }
}
