use serde_json::{Map, Value as Json, json};

use super::*;

fn form() -> Form {
    let [who, what] = Field::own();
    let mut url = Field::new("pull_url", "Pull url", FieldKind::Text(WIDTH));
    url.pattern = Some(Pattern::new("^(https?://.*)?$").unwrap());
    let jobs = Field { default: 4.into(), ..Field::new("jobs", "Jobs", FieldKind::Int(WIDTH)) };
    let choices = |all: &[&str]| FieldKind::List {
        choices: all.iter().map(|one| (*one).to_owned()).collect(),
        strict: true,
    };
    let targets = Field {
        multiple: true,
        default: json!(["a"]),
        ..Field::new("targets", "Targets", choices(&["a", "b"]))
    };
    let clean = Field::new("clean", "Clean", FieldKind::Bool);
    let options = vec![url, clean, jobs, targets];
    Form {
        builders: Some(vec!["unit".into()]),
        open: false,
        fields: vec![
            Field::group("", who),
            Field::group("", what),
            Field::new("options", "Options", FieldKind::Group(Layout::Vertical, options)),
            Field { required: true, ..Field::new("why", "Why", FieldKind::Text(WIDTH)) },
            Field { default: "x".into(), ..Field::new("kind", "Kind", FieldKind::Fixed) },
            Field::new("extra", "", FieldKind::AnyProperty),
        ],
        ..Form::for_everything()
    }
}

fn given(value: Json) -> Map<String, Json> {
    value.as_object().unwrap().clone()
}

#[test]
fn a_filled_form_has_typed_properties() {
    let filled = form().fill(&given(json!({
        "builderid": "8", "username": " ", "why": "now", "branch": "main", "revision": "",
        "options_pull_url": "https://example.org", "options_clean": true, "options_jobs": "8",
        "options_targets": ["a", "b"], "kind": "y", "extra_name": "colour", "extra_value": "red",
        "priority": 3,
    })));
    let filled = filled.unwrap();
    let property = |name: &str| filled.properties[name].value.json().clone();
    assert_eq!(
        property("options"),
        json!({"pull_url": "https://example.org", "clean": true, "jobs": 8, "targets": ["a", "b"]})
    );
    assert_eq!((property("why"), property("kind")), (json!("now"), json!("x")));
    assert_eq!(property("colour"), json!("red"));
    assert_eq!((filled.owner.as_str(), filled.reason.as_str()), ("", "force build"));
    assert_eq!((filled.priority, filled.stamp.branch.as_deref()), (3, Some("main")));
    assert_eq!(filled.stamp.revision, None);
    assert_eq!(filled.properties.len(), 4);
}

#[test]
fn what_is_not_filled_in_has_its_default() {
    let filled = form().fill(&given(json!({ "why": "now" }))).unwrap();
    assert_eq!(
        *filled.properties["options"].value.json(),
        json!({"pull_url": "", "clean": false, "jobs": 4, "targets": ["a"]})
    );
}

#[test]
fn each_bad_field_has_its_own_text() {
    let errors = form().fill(&given(json!({
        "options_pull_url": "zzz", "options_jobs": "NaN", "options_targets": ["c"],
        "priority": [1, 2], "branch": 5, "options_clean": "yes", "nope": 1,
    })));
    let errors = errors.unwrap_err();
    let names: Vec<&str> = errors.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "branch",
            "nope",
            "options_jobs",
            "options_pull_url",
            "options_targets",
            "priority",
            "why"
        ]
    );
    assert_eq!(errors["why"], "'Why' needs to be specified");
    assert_eq!(
        errors["options_pull_url"],
        "Pull url:'zzz' does not match pattern '^(https?://.*)?$'"
    );
}

#[test]
fn an_address_is_asked_for_where_it_must_be_one() {
    let mut form = Form::for_everything();
    let FieldKind::Group(_, who) = &mut form.fields[0].kind else { panic!() };
    who[0].kind = FieldKind::Username { size: 30, need_email: true };
    for (name, good) in [
        ("a@b", true),
        ("Ann <ann@example.org>", true),
        ("", true),
        ("ann", false),
        ("a b@c", false),
        ("Ann <ann@example.org", false),
        ("@b", false),
    ] {
        let filled = form.fill(&given(json!({ "username": name })));
        assert_eq!(filled.is_ok(), good, "{name}: {filled:?}");
    }
}
