//! The paths below `/api/v2`, in one table: requests are read by it, and
//! `application.spec` and the API description are written from it.

use std::sync::LazyLock;

use super::field::Resource;
use super::query::percent_decoded;
use super::resource as is;
use super::route::{
    BuildRef, BuilderRef, LogRef, ProjectRef, Route, StepRef, TextForm, WorkerRef, kind_of,
};
use crate::store::sqlite::{Filter, FilterOp, Listed, OF_STAMP, Scalar};

/// What a path is answered with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Gives {
    /// A list of resources.
    Many,
    /// One resource.
    One,
    /// Lines of a log.
    Lines,
    /// Bytes.
    Bytes,
    /// An object of our own.
    Object,
    /// Nothing: orders are sent there.
    Nothing,
}

/// One path.
pub struct Endpoint {
    /// With its variables: `builders/n:builderid/builds`.
    pub path: String,
    /// What it gives.
    pub gives: Gives,
    /// Of which kind.
    pub kind: &'static Resource,
    /// Not part of the Data API.
    pub ours: bool,
    /// The orders that can be sent there, by their JSON-RPC methods.
    pub orders: &'static [&'static str],
    segments: Vec<Segment>,
    make: Box<dyn Fn(&mut Variables) -> Route + Send + Sync>,
}

/// One part of a path, in the order in which they are tried.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Segment {
    /// This word.
    Word(String),
    /// A number.
    Number,
    /// A name that is not empty.
    Name,
    /// Any text.
    Text,
}

impl Segment {
    fn of(text: &str) -> Self {
        match text.split_once(':') {
            Some(("n" | "", _)) => Self::Number,
            Some(("i", _)) => Self::Name,
            Some(("s", _)) => Self::Text,
            _ => Self::Word(text.to_owned()),
        }
    }

    fn matches(&self, part: &str) -> bool {
        match self {
            Self::Word(word) => word == part,
            Self::Number => number(part).is_some(),
            Self::Name => !part.is_empty(),
            Self::Text => true,
        }
    }
}

/// A number as a path has it. A negative one is a number too, which nothing
/// has.
fn number(text: &str) -> Option<u64> {
    let number: i64 = text.parse().ok()?;
    Some(u64::try_from(number).unwrap_or(u64::MAX))
}

/// What the variables of a path are, in order.
pub struct Variables(std::vec::IntoIter<String>);

impl Variables {
    fn text(&mut self) -> String {
        self.0.next().unwrap_or_default()
    }

    fn number(&mut self) -> u64 {
        // The segment took nothing else.
        number(&self.text()).unwrap_or(u64::MAX)
    }
}

static TABLE: LazyLock<Table> = LazyLock::new(Table::made);

/// All paths, the Data API's in the order of their texts.
#[must_use]
pub fn all() -> &'static [Endpoint] {
    &TABLE.0
}

impl Route {
    /// Reads the path after `/api/v2/`. None when there is no such path.
    #[must_use]
    pub fn parse(path: &str) -> Option<Self> {
        let decoded: Option<Vec<String>> =
            path.split('/').map(|part| percent_decoded(part, false)).collect();
        let parts = decoded?;
        let endpoint = all().iter().find(|endpoint| {
            endpoint.segments.len() == parts.len()
                && endpoint.segments.iter().zip(&parts).all(|(one, part)| one.matches(part))
        })?;
        let variable = |(segment, part): (&Segment, String)| {
            (!matches!(segment, Segment::Word(_))).then_some(part)
        };
        let variables: Vec<String> =
            endpoint.segments.iter().zip(parts).filter_map(variable).collect();
        Some((endpoint.make)(&mut Variables(variables.into_iter())))
    }
}

type Of<T> = fn(&mut Variables) -> T;

fn builder_id(from: &mut Variables) -> BuilderRef {
    BuilderRef::Id(from.number())
}

fn builder_name(from: &mut Variables) -> BuilderRef {
    BuilderRef::Name(from.text())
}

fn worker_id(from: &mut Variables) -> WorkerRef {
    WorkerRef::Id(from.number())
}

fn worker_name(from: &mut Variables) -> WorkerRef {
    WorkerRef::Name(from.text())
}

fn build_id(from: &mut Variables) -> BuildRef {
    BuildRef::Id(from.number())
}

fn build_of_id(from: &mut Variables) -> BuildRef {
    BuildRef::Number(builder_id(from), from.number())
}

fn build_of_name(from: &mut Variables) -> BuildRef {
    BuildRef::Number(builder_name(from), from.number())
}

const BUILDERS: [(&str, Of<BuilderRef>); 2] =
    [("builders/n:builderid", builder_id), ("builders/s:buildername", builder_name)];

const WORKERS: [(&str, Of<WorkerRef>); 2] =
    [("workers/n:workerid", worker_id), ("workers/i:name", worker_name)];

const BUILDS: [(&str, Of<BuildRef>); 3] = [
    ("builds/n:buildid", build_id),
    ("builders/n:builderid/builds/n:build_number", build_of_id),
    ("builders/s:buildername/builds/n:build_number", build_of_name),
];

const BUILD_ORDERS: &[&str] = &["stop", "rebuild"];
const WORKER_ORDERS: &[&str] = &["stop", "kill", "pause", "unpause"];

/// The table while it is made.
struct Table(Vec<Endpoint>);

use Gives::{Bytes, Lines, Many, Nothing, Object, One};

impl Table {
    fn made() -> Self {
        let mut table = Self(Vec::new());
        table.builders();
        table.workers();
        table.builds();
        table.submissions();
        table.sources();
        table.results();
        table.ours();
        // Words before numbers before names before texts.
        table.0.sort_by(|left, right| left.segments.cmp(&right.segments));
        table
    }

    fn add(
        &mut self,
        gives: Gives,
        kind: &'static Resource,
        path: impl Into<String>,
        make: impl Fn(&mut Variables) -> Route + Send + Sync + 'static,
    ) -> &mut Endpoint {
        let path = path.into();
        let segments = path.split('/').map(Segment::of).collect();
        let make = Box::new(make);
        let at = self.0.len();
        self.0.push(Endpoint { path, gives, kind, ours: false, orders: &[], segments, make });
        &mut self.0[at]
    }

    fn rows(&mut self, path: &str, of: Listed) {
        self.add(Many, kind_of(of), path, move |_| Route::Rows(of, Vec::new()));
    }

    /// Rows, or one row, that have the path's number in this field.
    fn with(&mut self, gives: Gives, path: &str, of: Listed, field: &'static str) {
        self.add(gives, kind_of(of), path, move |from| {
            let filters = vec![Filter::is(field, from.number())];
            if gives == One { Route::Row(of, filters) } else { Route::Rows(of, filters) }
        });
    }

    fn builders(&mut self) {
        self.add(Many, &is::BUILDERS, "builders", |_| Route::Builders);
        self.add(Many, &is::FORCE, "builders/:builderid/forceschedulers", |from| {
            Route::BuilderForms(builder_id(from))
        });
        for (path, of) in BUILDERS {
            self.add(One, &is::BUILDERS, path, move |from| Route::Builder(of(from))).orders =
                &["ping", "restart"];
            let add = |table: &mut Self, kind, rest: &str, make: fn(BuilderRef) -> Route| {
                table.add(Many, kind, format!("{path}/{rest}"), move |from| make(of(from)));
            };
            add(self, &is::BUILDS, "builds", Route::BuilderBuilds);
            add(self, &is::REQUESTS, "buildrequests", Route::BuilderRequests);
            add(self, &is::WORKERS, "workers", Route::BuilderWorkers);
            add(self, &is::MASTERS, "masters", Route::BuilderMasters);
            add(self, &is::TEST_RESULT_SETS, "test_result_sets", Route::BuilderTests);
            self.add(One, &is::MASTERS, format!("{path}/masters/n:masterid"), move |from| {
                Route::BuilderMaster(of(from), from.number())
            });
            for (worker_path, worker) in WORKERS {
                self.add(One, &is::WORKERS, format!("{path}/{worker_path}"), move |from| {
                    Route::BuilderWorker(of(from), worker(from))
                });
            }
        }
        self.add(Many, &is::FORCE, "builders/s:buildername/forceschedulers", |from| {
            Route::BuilderForms(builder_name(from))
        });
        self.add(Many, &is::MASTERS, "masters", |_| Route::Masters);
        self.add(One, &is::MASTERS, "masters/n:masterid", |from| Route::Master(from.number()));
        let of_master = |from: &mut Variables, then: &dyn Fn(&mut Variables) -> Route| {
            let master = from.number();
            Route::OfMaster(master, Box::new(then(from)))
        };
        self.add(Many, &is::BUILDERS, "masters/n:masterid/builders", move |from| {
            of_master(from, &|_| Route::Builders)
        });
        self.add(One, &is::BUILDERS, "masters/n:masterid/builders/n:builderid", move |from| {
            of_master(from, &|from| Route::Builder(builder_id(from)))
        });
        let workers = "masters/n:masterid/builders/n:builderid/workers";
        self.add(Many, &is::WORKERS, workers, move |from| {
            of_master(from, &|from| Route::BuilderWorkers(builder_id(from)))
        });
        self.add(Many, &is::WORKERS, "masters/n:masterid/workers", move |from| {
            of_master(from, &|_| Route::Workers)
        });
        for (path, of) in WORKERS {
            let own = format!("masters/n:masterid/builders/n:builderid/{path}");
            self.add(One, &is::WORKERS, own, move |from| {
                of_master(from, &|from| Route::BuilderWorker(builder_id(from), of(from)))
            });
            self.add(One, &is::WORKERS, format!("masters/n:masterid/{path}"), move |from| {
                of_master(from, &|from| Route::Worker(of(from)))
            });
        }
        for (word, id, of) in [
            ("changesources", "changesourceid", Listed::ChangeSources),
            ("schedulers", "schedulerid", Listed::Schedulers),
        ] {
            self.rows(word, of);
            self.with(One, &format!("{word}/n:{id}"), of, id);
            self.add(Many, kind_of(of), format!("masters/n:masterid/{word}"), move |from| {
                of_master(from, &|_| Route::Rows(of, Vec::new()))
            });
            self.add(One, kind_of(of), format!("masters/n:masterid/{word}/n:{id}"), move |from| {
                of_master(from, &|from| Route::Row(of, vec![Filter::is(id, from.number())]))
            });
        }
        if let Some(one) = self.0.iter_mut().find(|one| one.path == "schedulers/n:schedulerid") {
            one.orders = &["enable"];
        }
        self.add(Many, &is::FORCE, "forceschedulers", |_| Route::Forms);
        self.add(One, &is::FORCE, "forceschedulers/i:schedulername", |from| {
            Route::Form(from.text())
        })
        .orders = &["force"];
        self.add(Many, &is::PROJECTS, "projects", |_| Route::Projects);
        self.add(One, &is::PROJECTS, "projects/n:projectid", |from| {
            Route::Project(ProjectRef::Id(from.number()))
        });
        self.add(One, &is::PROJECTS, "projects/i:projectname", |from| {
            Route::Project(ProjectRef::Name(from.text()))
        });
        self.add(Many, &is::BUILDERS, "projects/n:projectid/builders", |from| {
            Route::ProjectBuilders(from.number())
        });
    }

    fn workers(&mut self) {
        self.add(Many, &is::WORKERS, "workers", |_| Route::Workers);
        for (path, of) in WORKERS {
            self.add(One, &is::WORKERS, path, move |from| Route::Worker(of(from))).orders =
                WORKER_ORDERS;
        }
        self.add(Many, &is::BUILDS, "workers/n:workerid/builds", |from| {
            Route::WorkerBuilds(from.number())
        });
        self.add(Many, &is::BUILDERS, "workers/n:workerid/builders", |from| {
            Route::WorkerBuilders(from.number())
        });
    }

    fn builds(&mut self) {
        self.add(Many, &is::BUILDS, "builds", |_| Route::Builds);
        self.add(Many, &is::BUILDS, "builds/n:buildid/triggered_builds", |from| {
            Route::BuildTriggered(from.number())
        });
        for (path, of) in BUILDS {
            self.add(One, &is::BUILDS, path, move |from| Route::Build(of(from))).orders =
                BUILD_ORDERS;
            let add = |table: &mut Self, gives, kind, rest: &str, make: fn(BuildRef) -> Route| {
                table.add(gives, kind, format!("{path}/{rest}"), move |from| make(of(from)));
            };
            add(self, Many, &is::CHANGES, "changes", Route::BuildChanges);
            add(self, Many, &is::BUILD_DATA, "data", Route::BuildData);
            add(self, One, &is::PROPERTIES, "properties", Route::BuildProperties);
            add(self, Many, &is::PROPERTY_LIST, "property_list", Route::BuildPropertyList);
            add(self, Many, &is::STEPS, "steps", Route::BuildSteps);
            self.add(One, &is::BUILD_DATA, format!("{path}/data/i:name"), move |from| {
                Route::BuildDatum(of(from), from.text())
            });
            self.add(Bytes, &is::BUILD_DATA, format!("{path}/data/i:name/value"), move |from| {
                Route::BuildDatumValue(of(from), from.text())
            });
            self.steps(&format!("{path}/steps/n:step_number"), move |from| {
                StepRef::Number(of(from), from.number())
            });
            self.steps(&format!("{path}/steps/i:step_name"), move |from| {
                StepRef::Name(of(from), from.text())
            });
        }
        self.steps("steps/n:stepid", |from| StepRef::Id(from.number()));
        self.logs("logs/n:logid", |from| LogRef::Id(from.number()));
        self.add(Many, &is::CHUNKS, "logchunks", |_| Route::Nothing);
    }

    fn steps(
        &mut self,
        path: &str,
        of: impl Fn(&mut Variables) -> StepRef + Copy + Send + Sync + 'static,
    ) {
        self.add(One, &is::STEPS, path, move |from| Route::Step(of(from)));
        self.add(Many, &is::LOGS, format!("{path}/logs"), move |from| Route::StepLogs(of(from)));
        self.logs(&format!("{path}/logs/i:log_slug"), move |from| {
            LogRef::Slug(of(from), from.text())
        });
    }

    fn logs(
        &mut self,
        path: &str,
        of: impl Fn(&mut Variables) -> LogRef + Copy + Send + Sync + 'static,
    ) {
        self.add(One, &is::LOGS, path, move |from| Route::Log(of(from)));
        for (word, gives, form) in [
            ("contents", Lines, TextForm::Contents),
            ("raw", Bytes, TextForm::Raw),
            ("raw_inline", Bytes, TextForm::RawInline),
        ] {
            self.add(gives, &is::CHUNKS, format!("{path}/{word}"), move |from| {
                Route::LogText(of(from), form)
            });
        }
    }

    fn submissions(&mut self) {
        self.add(Many, &is::REQUESTS, "buildrequests", |_| Route::Requests);
        self.add(One, &is::REQUESTS, "buildrequests/n:buildrequestid", |from| {
            Route::Request(from.number())
        })
        .orders = &["cancel", "set_priority"];
        self.add(Many, &is::BUILDS, "buildrequests/n:buildrequestid/builds", |from| {
            Route::RequestBuilds(from.number())
        });
        // Not in the reference, but its pages ask for it.
        self.add(One, &is::PROPERTIES, "buildrequests/n:buildrequestid/properties", |from| {
            Route::RequestProperties(from.number())
        });
        self.add(Many, &is::BUILDSETS, "buildsets", |_| Route::Buildsets);
        self.add(One, &is::BUILDSETS, "buildsets/n:bsid", |from| Route::Buildset(from.number()));
        self.add(One, &is::PROPERTIES, "buildsets/n:bsid/properties", |from| {
            Route::BuildsetProperties(from.number())
        });
        self.add(Many, &is::PROPERTY_LIST, "buildsets/n:bsid/properties_list", |from| {
            Route::BuildsetPropertyList(from.number())
        });
        self.add(Many, &is::STAMPS, "buildsets/:buildsetid/sourcestamps", |from| {
            Route::BuildsetStamps(from.number())
        });
    }

    fn sources(&mut self) {
        self.add(Many, &is::STAMPS, "sourcestamps", |_| Route::Stamps);
        self.add(One, &is::STAMPS, "sourcestamps/n:ssid", |from| Route::Stamp(from.number()));
        self.with(Many, "sourcestamps/n:ssid/changes", Listed::Changes, OF_STAMP);
        self.rows("changes", Listed::Changes);
        self.with(One, "changes/n:changeid", Listed::Changes, "changeid");
        self.add(Many, &is::BUILDS, "changes/n:changeid/builds", |from| {
            Route::ChangeBuilds(from.number())
        });
        self.add(Many, &is::PROPERTY_LIST, "changes/n:changeid/properties_list", |from| {
            Route::ChangePropertyList(from.number())
        });
        self.rows("codebases", Listed::Codebases);
        self.with(One, "codebases/n:codebaseid", Listed::Codebases, "codebaseid");
        self.with(Many, "codebases/n:codebaseid/branches", Listed::Branches, "codebaseid");
        self.with(Many, "codebases/n:codebaseid/commits", Listed::Commits, "codebaseid");
        self.with(One, "branches/n:branchid", Listed::Branches, "branchid");
        self.with(One, "commits/n:commitid", Listed::Commits, "commitid");
        let named = |field: &str, name: String| Filter {
            field: field.into(),
            op: FilterOp::In,
            values: vec![Scalar::Text(name)],
        };
        let path = "projects/n:projectid/codebases/i:codebasename";
        self.add(One, &is::CODEBASES, path, move |from| {
            let project = Filter::is("projectid", from.number());
            Route::Row(Listed::Codebases, vec![project, named("name", from.text())])
        });
        let path = "codebases/n:codebaseid/commits_by_revision/s:revision";
        self.add(One, &is::COMMITS, path, move |from| {
            let codebase = Filter::is("codebaseid", from.number());
            Route::Row(Listed::Commits, vec![codebase, named("revision", from.text())])
        });
        let range = "codebases/n:codebaseid/commit_range/n:commitid1/n:commitid2";
        let path = format!("{range}/commits_common_parent");
        self.add(One, &is::COMMIT_GRAPHS, path, |from| {
            Route::CommitGraph(from.number(), from.number(), from.number())
        });
        // Which results belong to which commits is not recorded.
        self.add(Many, &is::TEST_RESULT_SETS, format!("{range}/test_result_sets"), |_| {
            Route::Rows(Listed::TestResultSets, vec![Filter::is("test_result_setid", 0)])
        });
    }

    fn results(&mut self) {
        let sets = Listed::TestResultSets;
        self.rows("test_result_sets", sets);
        self.with(One, "test_result_sets/n:test_result_setid", sets, "test_result_setid");
        let path = "test_result_sets/n:test_result_setid/results";
        self.with(Many, path, Listed::TestResults, "test_result_setid");
        self.with(Many, "builds/n:buildid/test_result_sets", sets, "buildid");
        self.with(Many, "steps/n:stepid/test_result_sets", sets, "stepid");
        self.add(Many, &is::SPECS, "application.spec", |_| Route::Spec);
    }

    fn ours(&mut self) {
        let before = self.0.len();
        for (path, of) in BUILDERS {
            self.add(Many, &is::NOTES, format!("{path}/notes"), move |from| {
                Route::BuilderNotes(of(from))
            });
            self.add(Object, &is::NOTES, format!("{path}/expectations"), move |from| {
                Route::BuilderExpectations(of(from))
            });
        }
        for (path, of) in WORKERS {
            self.add(Many, &is::NOTES, format!("{path}/notes"), move |from| {
                Route::WorkerNotes(of(from))
            });
        }
        for (path, of) in BUILDS {
            self.add(Many, &is::REQUESTS, format!("{path}/buildrequests"), move |from| {
                Route::BuildRequests(of(from))
            });
            self.add(Object, &is::BUILDS, format!("{path}/progress"), move |from| {
                Route::BuildProgress(of(from))
            });
        }
        self.add(Object, &is::REQUESTS, "buildrequests/n:buildrequestid/reasons", |from| {
            Route::RequestReasons(from.number())
        });
        self.add(Object, &is::SPECS, "openapi.json", |_| Route::OpenApi);
        self.add(Object, &is::BUILDERS, "botmaster/board", |_| Route::Board);
        self.add(Object, &is::BUILDS, "botmaster/etas", |_| Route::Etas);
        self.add(Nothing, &is::MASTERS, "botmaster/reload", |_| Route::Reload);
        for endpoint in self.0.iter_mut().skip(before) {
            endpoint.ours = true;
        }
    }
}
