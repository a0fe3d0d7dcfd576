//! `[[force_scheduler]]`: forms to force builds by.

use std::collections::BTreeMap;

use serde_json::Value as Json;
use toml::de::DeValue;

use super::names::fix_unknown;
use super::reader::{Said, Section, check_new, required_name};
use crate::core::form::{Field, FieldKind, Form, Layout, Pattern, WIDTH};
use crate::core::ids::BuilderName;

const FORM_KEYS: &[&str] = &["name", "label", "button", "builders", "source_label", "field"];

const FIELD_KEYS: &[&str] = &[
    "name",
    "type",
    "label",
    "default",
    "required",
    "multiple",
    "hide",
    "tooltip",
    "longest",
    "pattern",
    "size",
    "rows",
    "need_email",
    "choices",
    "strict",
    "layout",
    "field",
];

/// The types of fields, by their words.
const TYPES: [(&str, Type); 10] = [
    ("text", Type::Text),
    ("textarea", Type::Textarea),
    ("int", Type::Int),
    ("bool", Type::Bool),
    ("username", Type::Username),
    ("list", Type::List),
    ("file", Type::File),
    ("fixed", Type::Fixed),
    ("group", Type::Group),
    ("any_property", Type::AnyProperty),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Type {
    Text,
    Textarea,
    Int,
    Bool,
    Username,
    List,
    File,
    Fixed,
    Group,
    AnyProperty,
}

/// Groups within groups.
const DEEPEST: usize = 4;

/// Reads all forms. What is wrong is in the sections' report.
pub(super) fn read_forms(root: &Section<'_, '_>, builders: &[&str]) -> Vec<Form> {
    let mut names = BTreeMap::new();
    let mut forms = Vec::new();
    for section in root.tables("force_scheduler", FORM_KEYS) {
        let name = required_name(&section);
        if let Some(name) = &name {
            check_name(&section, name);
            check_new(&section, "force scheduler", name, &mut names);
        }
        forms.push(read_form(&section, name.map_or(String::new(), |said| said.value), builders));
    }
    forms
}

/// A name that a path and a property can have.
fn check_name(section: &Section<'_, '_>, said: &Said<String>) {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    let starts = said.value.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if !starts || !said.value.chars().all(good) || said.value.len() > 50 {
        let message = format!("`{}` is no name here", said.value);
        let fix = "use letters, digits, `_` and `-`, at most 50, and begin with a letter";
        section.error(&said.span, "name", message, fix);
    }
}

fn read_form(section: &Section<'_, '_>, name: String, builders: &[&str]) -> Form {
    let own = section.texts("builders").map(|texts| {
        for said in &texts {
            if !builders.contains(&said.value.as_str()) {
                let message = format!("there is no builder `{}`", said.value);
                let fix = fix_unknown("builder", &said.value, builders);
                section.error(&said.span, "builders", message, fix);
            }
        }
        texts.into_iter().map(|said| BuilderName::from(said.value)).collect::<Vec<_>>()
    });
    if own.as_ref().is_some_and(Vec::is_empty) {
        let span = section.key_span("builders").unwrap_or_default();
        section.error(&span, "builders", "the form is for no builder", "name at least one");
    }
    let [mut who, mut what] = Field::own();
    let mut others: Vec<Field> = Vec::new();
    for field in read_fields(section, 0) {
        let of_form = who.iter_mut().chain(&mut what).find(|own| own.name == field.name);
        match of_form {
            Some(own) => *own = field,
            None => others.push(field),
        }
    }
    let text = |key: &str| section.text(key).map(|said| said.value);
    let mut fields =
        vec![Field::group("", who), Field::group(&text("source_label").unwrap_or_default(), what)];
    fields.append(&mut others);
    Form {
        label: text("label").unwrap_or_else(|| name.clone()),
        button: text("button").unwrap_or_else(|| name.clone()),
        name,
        builders: own,
        open: false,
        fields,
    }
}

fn read_fields(section: &Section<'_, '_>, depth: usize) -> Vec<Field> {
    let mut names = BTreeMap::new();
    let mut fields = Vec::new();
    for section in section.tables("field", FIELD_KEYS) {
        let kind = section.word("type", &TYPES).unwrap_or(Type::Text);
        if section.raw("type").is_none() {
            let fix = "add a line such as type = \"text\"";
            section.error(&section.span, "type", "the field has no type", fix);
        }
        let nameless = kind == Type::Group && section.raw("name").is_none();
        let name = if nameless { None } else { required_name(&section) };
        if let Some(name) = &name {
            check_name(&section, name);
            check_new(&section, "field", name, &mut names);
        }
        let name = name.map_or(String::new(), |said| said.value);
        fields.push(read_field(&section, kind, &name, depth));
    }
    fields
}

fn read_field(section: &Section<'_, '_>, kind: Type, name: &str, depth: usize) -> Field {
    let number = |key: &str, standard: u32| {
        let said = section.number(key, 1..=1000).and_then(|number| u32::try_from(number).ok());
        said.unwrap_or(standard)
    };
    let own = match kind {
        Type::Text => FieldKind::Text(number("size", WIDTH)),
        Type::Textarea => FieldKind::Textarea(number("size", 60), number("rows", 4)),
        Type::Int => FieldKind::Int(number("size", WIDTH)),
        Type::Bool => FieldKind::Bool,
        Type::Username => FieldKind::Username {
            size: number("size", 30),
            need_email: section.flag("need_email").unwrap_or(false),
        },
        Type::List => FieldKind::List {
            choices: section
                .texts("choices")
                .unwrap_or_default()
                .into_iter()
                .map(|said| said.value)
                .collect(),
            strict: section.flag("strict").unwrap_or(true),
        },
        Type::File => FieldKind::File,
        Type::Fixed => FieldKind::Fixed,
        Type::Group => {
            let words = [
                ("simple", Layout::Simple),
                ("vertical", Layout::Vertical),
                ("tabs", Layout::Tabs),
            ];
            let layout = section.word("layout", &words).unwrap_or(Layout::Vertical);
            let inner = if depth < DEEPEST { read_fields(section, depth + 1) } else { Vec::new() };
            if inner.is_empty() {
                let fix = "add a [[force_scheduler.field.field]] below it; groups go four deep";
                section.error(&section.span, "field", "the group has no fields", fix);
            }
            FieldKind::Group(layout, inner)
        }
        Type::AnyProperty => FieldKind::AnyProperty,
    };
    let text = |key: &str| section.text(key).map(|said| said.value);
    let mut field = Field::new(name, &text("label").unwrap_or_else(|| name.to_owned()), own);
    if let Some(default) = read_default(section, kind) {
        field.default = default;
    }
    field.required = section.flag("required").unwrap_or(false);
    field.multiple = section.flag("multiple").unwrap_or(false);
    field.hide = section.flag("hide").unwrap_or(field.hide);
    field.tooltip = text("tooltip").unwrap_or_default();
    field.longest = section.number("longest", 1..=1 << 30).or(field.longest);
    field.pattern = section.text("pattern").and_then(|said| match Pattern::new(&said.value) {
        Ok(pattern) => Some(pattern),
        Err(error) => {
            let fix = "see https://docs.rs/regex for how one is written";
            section.error(&said.span, "pattern", error.replace('\n', " "), fix);
            None
        }
    });
    field
}

fn read_default(section: &Section<'_, '_>, kind: Type) -> Option<Json> {
    let said = section.raw("default")?;
    let text = |value: &DeValue<'_>| match value {
        DeValue::String(text) => Some(Json::from(text.as_ref())),
        _ => None,
    };
    let value = match (kind, said.get_ref()) {
        (Type::Bool, DeValue::Boolean(flag)) => Some(Json::from(*flag)),
        (Type::Int, DeValue::Integer(number)) => {
            i64::from_str_radix(number.as_str(), number.radix()).ok().map(Json::from)
        }
        (Type::Bool | Type::Int | Type::Group | Type::AnyProperty, _) => None,
        (_, DeValue::Array(items)) => items
            .iter()
            .map(|item| text(item.get_ref()))
            .collect::<Option<Vec<_>>>()
            .map(Json::from),
        (_, other) => text(other),
    };
    if value.is_none() {
        let fix = "write a whole number for `int`, true or false for `bool`, nothing for groups, \
                   a text or a list of texts for the others";
        section.error(&said.span(), "default", "this is no value for the field", fix);
    }
    value
}
