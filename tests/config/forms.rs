//! `[[force_scheduler]]`: forms to force builds by.

use botmaster::core::form::{FORCE, FieldKind};
use serde_json::json;

use crate::{BUILDER, faults, load};

fn with(part: &str) -> String {
    format!("{BUILDER}\n{part}")
}

/// A form with a field of these lines.
fn field(lines: &str) -> String {
    let form = "[[force_scheduler]]\nname = \"f\"\n[[force_scheduler.field]]\n";
    // The good builder's lines come first and have no faults.
    faults(&with(&format!("{form}{lines}\n")))
}

#[test]
fn a_form_is_read_with_its_own_fields_first() {
    let loaded = load(&with(
        "[[force_scheduler]]\nname = \"deploy\"\nlabel = \"Deploy it\"\n\
         [[force_scheduler.field]]\nname = \"reason\"\ntype = \"text\"\ndefault = \"why\"\n\
         [[force_scheduler.field]]\nname = \"o\"\ntype = \"group\"\n\
         [[force_scheduler.field.field]]\nname = \"jobs\"\ntype = \"int\"\ndefault = 4\n",
    ))
    .unwrap();
    let forms = &loaded.settings.forms;
    assert_eq!((forms.len(), forms[0].name.as_str(), forms[0].open), (1, "deploy", false));
    assert_eq!((forms[0].label.as_str(), forms[0].button.as_str()), ("Deploy it", "deploy"));
    assert_eq!(forms[0].builders, None);
    let FieldKind::Group(_, who) = &forms[0].fields[0].kind else { panic!() };
    let names: Vec<&str> = who.iter().map(|field| field.name.as_str()).collect();
    assert_eq!(names, ["username", "reason", "priority"]);
    assert_eq!(who[1].default, "why");
    let given = json!({ "o_jobs": "7" });
    let filled = forms[0].fill(given.as_object().unwrap()).unwrap();
    assert_eq!(*filled.properties["o"].value.json(), json!({ "jobs": 7 }));
    assert_eq!(filled.reason, "why");
    assert_ne!(forms[0].name, FORCE);
}

#[test]
fn fc01_faults_of_forms_name_their_key_and_their_fix() {
    for (lines, key, message) in [
        ("type = \"text\"", "name", "it has no name"),
        ("name = \"x\"", "type", "the field has no type"),
        ("name = \"x\"\ntype = \"txt\"", "type", "`txt` is not known here"),
        ("name = \"a b\"\ntype = \"text\"", "name", "`a b` is no name here"),
        (
            "name = \"x\"\ntype = \"int\"\ndefault = \"4\"",
            "default",
            "this is no value for the field",
        ),
        ("name = \"x\"\ntype = \"text\"\npattern = \"(\"", "pattern", "regex parse error"),
        ("name = \"x\"\ntype = \"group\"", "field", "the group has no fields"),
        ("name = \"x\"\ntype = \"text\"\nlengest = 3", "lengest", "unknown key"),
    ] {
        let text = field(lines);
        let place = format!("force_scheduler[1].field[1].{key}: ");
        assert!(text.contains(&format!("{place}{message}")), "{lines}: {text}");
        assert!(text.contains("\n    fix: "), "{text}");
    }
    let twice =
        "name = \"x\"\ntype = \"text\"\n[[force_scheduler.field]]\nname = \"x\"\ntype = \"int\"";
    assert!(field(twice).contains("there is a field `x` already"), "{}", field(twice));
    let unknown = with("[[force_scheduler]]\nname = \"f\"\nbuilders = [\"nobody\"]\n");
    assert!(faults(&unknown).contains("force_scheduler[1].builders: there is no builder `nobody`"));
    let nobody = with("[[force_scheduler]]\nname = \"f\"\nbuilders = []\n");
    assert!(faults(&nobody).contains("the form is for no builder"));
}

#[test]
fn fc01_an_origin_has_no_path() {
    let origins = |list: &str| format!("[master]\nallowed_origins = {list}\n{BUILDER}");
    let loaded = load(&origins("[\"https://CI.example.org\", \"http://localhost:*\"]")).unwrap();
    let own = &loaded.settings.master.allowed_origins;
    assert_eq!(*own, ["https://ci.example.org", "http://localhost:*"]);
    for bad in ["[\"ci.example.org\"]", "[\"https://ci.example.org/\"]", "[\"\"]"] {
        let text = faults(&origins(bad));
        assert!(text.contains("master.allowed_origins: ") && text.contains("fix: write"), "{text}");
    }
}
