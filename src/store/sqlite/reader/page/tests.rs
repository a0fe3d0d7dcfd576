use super::*;

const SCHEMA: &str = concat!(
    include_str!("../../../../../migrations/sqlite/0001_first.sql"),
    include_str!("../../../../../migrations/sqlite/0004_notes.sql"),
    include_str!("../../../../../migrations/sqlite/0005_stop.sql"),
    include_str!("../../../../../migrations/sqlite/0006_leases.sql"),
    include_str!("../../../../../migrations/sqlite/0008_data_api.sql"),
);

fn plan(table: &Table, page: &Page) -> String {
    let db = Connection::open_in_memory().unwrap();
    db.execute_batch(SCHEMA).unwrap();
    let mut bound = Vec::new();
    let conditions = table.conditions(&page.filters, &mut bound).unwrap();
    let order = table.ordered(&page.order, table.picks_few(&page.filters)).unwrap();
    let text =
        format!("EXPLAIN QUERY PLAN SELECT * FROM {}{conditions}{order} LIMIT 20", table.name);
    let mut statement = db.prepare(&text).unwrap();
    let lines = statement.query_map(params_from_iter(&bound), |row| row.get(3)).unwrap();
    lines.collect::<Result<Vec<String>, _>>().unwrap().join("; ")
}

fn flag_is(field: &str, value: bool) -> Filter {
    Filter { field: field.into(), op: FilterOp::In, values: vec![Scalar::Bool(value)] }
}

fn page(filters: Vec<Filter>, order: &[(&str, bool)]) -> Page {
    let order = order.iter().map(|(key, down)| ((*key).to_owned(), *down)).collect();
    Page { filters, order, ..Page::default() }
}

#[test]
fn questions_that_are_asked_often_use_an_index() {
    let open = page(vec![flag_is("complete", false)], &[]);
    assert!(plan(&BUILDS, &open).contains("builds_open"), "{}", plan(&BUILDS, &open));
    let open = page(vec![flag_is("complete", false), Filter::is("builderid", 6)], &[]);
    assert!(plan(&BUILDS, &open).contains("builds_open (builder_id=?)"));
    let queue = page(vec![flag_is("claimed", false)], &[("priority", true)]);
    assert!(plan(&REQUESTS, &queue).contains("requests_queued"));
    let queue = page(vec![Filter::is("builderid", 6), flag_is("claimed", false)], &[]);
    let queue = plan(&REQUESTS, &queue);
    assert!(queue.contains("requests_queued (builder_id=?)"), "{queue}");
    let of_builder = page(vec![Filter::is("builderid", 6)], &[("number", true)]);
    assert!(plan(&BUILDS, &of_builder).contains("builds_number"));
    assert!(!plan(&BUILDS, &of_builder).contains("TEMP B-TREE FOR ORDER BY"));
    let newest = page(vec![flag_is("complete", true)], &[("buildid", true)]);
    assert!(!plan(&BUILDS, &newest).contains("TEMP B-TREE"), "{}", plan(&BUILDS, &newest));
    let steps = page(vec![Filter::is("buildid", 6)], &[]);
    assert!(plan(&STEPS, &steps).contains("steps_number"));
    let logs = page(vec![Filter::is("stepid", 6)], &[]);
    assert!(plan(&LOGS, &logs).contains("logs_step"));
    let of_request = page(vec![Filter::is("buildrequestid", 6)], &[("buildid", true)]);
    let of_request = plan(&BUILDS, &of_request);
    assert!(of_request.contains("INTEGER PRIMARY KEY (rowid=?)"), "{of_request}");
    assert!(of_request.contains("build_requests_request (request_id=?)"), "{of_request}");
    let of_build = plan(&REQUESTS, &page(vec![Filter::is(OF_BUILD, 6)], &[]));
    assert!(of_build.contains("build_requests USING PRIMARY KEY (build_id=?)"), "{of_build}");
    let of_builder = page(vec![Filter::is("builderid", 6)], &[]);
    assert!(plan(&REQUESTS, &of_builder).contains("requests_builder (builder_id=?)"));
    let of_worker = page(vec![Filter::is("workerid", 6)], &[("buildid", true)]);
    assert!(plan(&BUILDS, &of_worker).contains("builds_worker"));
}

#[test]
fn the_newest_by_time_are_read_from_an_index_without_sorting() {
    for (table, field, index) in [
        (&BUILDS, "started_at", "builds_started"),
        (&REQUESTS, "submitted_at", "requests_submitted"),
        (&BUILDSETS, "submitted_at", "buildsets_submitted"),
    ] {
        let newest = plan(table, &page(vec![], &[(field, true)]));
        assert!(newest.contains(index) && !newest.contains("TEMP B-TREE"), "{newest}");
        let since = Filter {
            field: field.into(),
            op: FilterOp::Ge,
            values: vec![Scalar::Int(1_800_000_000)],
        };
        let since = plan(table, &page(vec![since], &[(field, false)]));
        assert!(since.contains(&format!("{index} ({field}>?)")), "{since}");
        assert!(!since.contains("TEMP B-TREE"), "{since}");
    }
}

#[test]
fn a_time_is_compared_in_whole_seconds() {
    let db = Connection::open_in_memory().unwrap();
    db.execute_batch(SCHEMA).unwrap();
    let insert = "INSERT INTO requests (buildset_id, builder_id, priority, submitted_at, \
                  state) VALUES (1, 1, 0, ?1, 0)";
    for at in [1_000_000_i64, 1_999_999, 2_000_000, 3_000_001] {
        db.execute(insert, [at]).unwrap();
    }
    let found = |op: FilterOp, seconds: &[i64]| {
        let values = seconds.iter().map(|second| Scalar::Int(*second)).collect();
        let page = page(vec![Filter { field: "submitted_at".into(), op, values }], &[]);
        let rows =
            page.read(&db, &REQUESTS, "SELECT id FROM requests", &Counts::default(), |row| {
                row.get::<_, i64>(0)
            });
        rows.unwrap().rows
    };
    assert_eq!(found(FilterOp::In, &[1]), [1, 2]);
    assert_eq!(found(FilterOp::In, &[1, 3]), [1, 2, 4]);
    assert_eq!(found(FilterOp::NotIn, &[1]), [3, 4]);
    assert_eq!(found(FilterOp::Lt, &[2]), [1, 2]);
    assert_eq!(found(FilterOp::Le, &[2]), [1, 2, 3]);
    assert_eq!(found(FilterOp::Gt, &[1]), [3, 4]);
    assert_eq!(found(FilterOp::Ge, &[3]), [4]);
    assert_eq!(found(FilterOp::Ge, &[i64::MAX]), [0_i64; 0]);
}

#[test]
fn a_merged_build_is_found_by_each_of_its_requests() {
    let db = Connection::open_in_memory().unwrap();
    db.execute_batch(SCHEMA).unwrap();
    db.execute_batch(
        "INSERT INTO builds (id, claim, builder_id, number, request_id, worker_id, \
         incarnation, state, started_at, state_string, factory_digest, properties) \
         VALUES (7, 'c', 1, 1, 3, 1, 1, 1, 0, 'building', 'd', '{}'); \
         INSERT INTO build_requests VALUES (7, 3, 1), (7, 4, 1), (8, 5, 1);",
    )
    .unwrap();
    let found = |request: u64| {
        let page = Page::of(Filter::is("buildrequestid", request));
        let rows = page.read(&db, &BUILDS, "SELECT id FROM builds", &Counts::default(), |row| {
            row.get::<_, i64>(0)
        });
        rows.unwrap().rows
    };
    assert_eq!(found(3), [7]);
    assert_eq!(found(4), [7]);
    assert_eq!(found(5), [0_i64; 0], "a build that has not started is not shown");
}

#[test]
fn every_field_can_be_compared_and_ordered_by() {
    let db = Connection::open_in_memory().unwrap();
    db.execute_batch(SCHEMA).unwrap();
    for table in [&BUILDS, &REQUESTS, &BUILDSETS, &STAMPS, &STEPS, &LOGS] {
        for (field, _) in table.fields {
            for op in [
                FilterOp::In,
                FilterOp::NotIn,
                FilterOp::Lt,
                FilterOp::Le,
                FilterOp::Gt,
                FilterOp::Ge,
                FilterOp::Contains,
            ] {
                let filter = Filter { field: (*field).into(), op, values: vec![Scalar::Int(1)] };
                let page = page(vec![filter], &[(field, true)]);
                let select = format!("SELECT id FROM {}", table.name);
                let found =
                    page.read(&db, table, &select, &Counts::default(), |row| row.get::<_, i64>(0));
                assert!(found.unwrap().rows.is_empty());
            }
        }
    }
    let unknown = page(vec![Filter::is("nope", 1)], &[]);
    assert!(
        unknown
            .read(&db, &BUILDS, "SELECT id FROM builds", &Counts::default(), |_| Ok(()))
            .is_err()
    );
}
