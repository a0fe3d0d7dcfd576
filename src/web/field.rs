//! What fields of resources hold: for reading the values of filters, for
//! `application.spec` and for the API description. A resource's type says it
//! once, in Rust.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::borrow::Cow;

/// What a field holds, for reading the values of filters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A number or a time.
    Int,
    /// Text.
    Text,
    /// Yes or no.
    Bool,
    /// A list of numbers.
    Ints,
    /// A list of texts.
    Texts,
    /// Something that cannot be compared.
    Other,
    /// A field of ours, which is told and cannot be asked for.
    Ours,
}

/// A type as `application.spec` writes it.
#[derive(Clone, PartialEq, Debug)]
pub enum Spec {
    /// A word of the reference: `integer`, `string`, …
    Word(&'static str),
    /// It may be null.
    Nullable(Box<Spec>),
    /// A list.
    List(Box<Spec>),
    /// An object with fields of its own.
    Entity(&'static Resource),
    /// Not in the reference.
    Ours,
}

impl Spec {
    /// The one word for it: `integer`, `string or None`, `list`.
    #[must_use]
    pub fn word(&self) -> Cow<'static, str> {
        match self {
            Self::Word(word) => Cow::Borrowed(word),
            Self::Nullable(of) => Cow::Owned(format!("{} or None", of.word())),
            Self::List(_) => Cow::Borrowed("list"),
            Self::Entity(entity) => Cow::Borrowed(entity.entity),
            Self::Ours => Cow::Borrowed("ours"),
        }
    }

    /// The whole of it.
    #[must_use]
    pub fn value(&self) -> Value {
        match self {
            Self::Word(word) => json!({ "name": word }),
            Self::List(of) => json!({ "type": "list", "of": of.value() }),
            Self::Entity(entity) => entity.spec(),
            Self::Ours => Value::Null,
            Self::Nullable(of) => {
                let mut value = of.value();
                if let Some(object) = value.as_object_mut() {
                    object.insert("can_be_null".into(), true.into());
                }
                value
            }
        }
    }
}

/// A Rust type that a field may have.
pub trait FieldType {
    /// For filters.
    const KIND: Kind;
    /// For filters on a list of it.
    const LIST: Kind = Kind::Other;

    /// For `application.spec`.
    fn spec() -> Spec;
}

macro_rules! plain {
    ($($type:ty: $kind:ident, $list:ident, $word:literal;)*) => {
        $(impl FieldType for $type {
            const KIND: Kind = Kind::$kind;
            const LIST: Kind = Kind::$list;

            fn spec() -> Spec {
                Spec::Word($word)
            }
        })*
    };
}

plain! {
    u64: Int, Ints, "integer";
    i64: Int, Ints, "integer";
    String: Text, Texts, "string";
    bool: Bool, Other, "boolean";
    Time: Int, Other, "datetime";
    Identifier: Text, Texts, "identifier";
    Sourced: Other, Other, "sourcedproperties";
    Json: Other, Other, "jsonobject";
    Binary: Other, Other, "binary";
}

impl<T: FieldType> FieldType for Option<T> {
    const KIND: Kind = T::KIND;

    fn spec() -> Spec {
        Spec::Nullable(Box::new(T::spec()))
    }
}

impl<T: FieldType> FieldType for Vec<T> {
    const KIND: Kind = T::LIST;

    fn spec() -> Spec {
        Spec::List(Box::new(T::spec()))
    }
}

/// A time, in whole seconds since 1970 UTC.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, JsonSchema)]
#[serde(transparent)]
pub struct Time(pub i64);

/// A name that a path may have without quotes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
#[serde(transparent)]
pub struct Identifier(pub String);

/// Any JSON.
#[derive(Clone, PartialEq, Debug, Serialize, JsonSchema)]
#[serde(transparent)]
pub struct Json(pub Value);

/// A field that is not in the reference; it is only there when there is
/// something to say.
#[derive(Clone, PartialEq, Debug, Serialize, JsonSchema)]
#[serde(transparent)]
pub struct Ours<T>(pub Option<T>);

impl<T> Ours<T> {
    /// Whether there is nothing to say.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.0.is_none()
    }
}

impl<T> FieldType for Ours<T> {
    const KIND: Kind = Kind::Ours;

    fn spec() -> Spec {
        Spec::Ours
    }
}

/// Bytes; they are not shown in JSON.
#[derive(Clone, PartialEq, Debug, Serialize, JsonSchema)]
#[serde(transparent)]
pub struct Binary(pub String);

/// Properties: each name with its value, which is any JSON, and who set it.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(transparent)]
pub struct Sourced(pub Map<String, Value>);

impl JsonSchema for Sourced {
    fn schema_name() -> Cow<'static, str> {
        "Properties".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "description": "Properties by name: each a value, which is any JSON, and who set it.",
            "additionalProperties": {
                "type": "array",
                "prefixItems": [true, { "type": "string" }],
                "minItems": 2,
                "maxItems": 2,
            },
        })
    }
}

/// One field of a resource.
#[derive(Debug)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// For filters.
    pub kind: Kind,
    /// For `application.spec`.
    pub spec: fn() -> Spec,
}

/// One kind of resource.
#[derive(Debug)]
pub struct Resource {
    /// Key of the list in the envelope.
    pub plural: &'static str,
    /// What one is called.
    pub entity: &'static str,
    /// Its fields.
    pub fields: &'static [Field],
    /// Its JSON schema.
    pub schema: fn(&mut SchemaGenerator) -> Schema,
}

impl PartialEq for Resource {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Resource {
    /// What the field holds, or none when there is no such field.
    #[must_use]
    pub fn kind(&self, field: &str) -> Option<Kind> {
        let found = self.fields.iter().find(|own| own.name == field).map(|own| own.kind);
        found.filter(|kind| *kind != Kind::Ours)
    }

    /// As `application.spec` has it.
    #[must_use]
    pub fn spec(&self) -> Value {
        let told = self.fields.iter().filter(|field| field.kind != Kind::Ours);
        let fields = told.map(|field| {
            let spec = (field.spec)();
            json!({ "name": field.name, "type": spec.word(), "type_spec": spec.value() })
        });
        json!({ "type": self.entity, "fields": fields.collect::<Vec<_>>() })
    }
}

/// The name of a field without the mark that a word of Rust's needs.
#[must_use]
pub const fn plain_name(name: &'static str) -> &'static str {
    match name.as_bytes() {
        [b'r', b'#', ..] => name.split_at(2).1,
        _ => name,
    }
}

/// Declares the type of a resource and, from it, the table of its fields.
macro_rules! resource {
    ($(#[$doc:meta])* $name:ident in $table:ident: $entity:literal, $plural:literal {
        $($(#[$field_doc:meta])* $field:ident: $type:ty,)*
    }) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Debug, serde::Serialize, schemars::JsonSchema)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $type,)*
        }

        impl $crate::web::field::FieldType for $name {
            const KIND: $crate::web::field::Kind = $crate::web::field::Kind::Other;

            fn spec() -> $crate::web::field::Spec {
                $crate::web::field::Spec::Entity(&$table)
            }
        }

        $(#[$doc])*
        pub static $table: $crate::web::field::Resource = $crate::web::field::Resource {
            plural: $plural,
            entity: $entity,
            fields: &[$($crate::web::field::Field {
                name: $crate::web::field::plain_name(stringify!($field)),
                kind: <$type as $crate::web::field::FieldType>::KIND,
                spec: <$type as $crate::web::field::FieldType>::spec,
            },)*],
            schema: |generator| generator.subschema_for::<$name>(),
        };
    };
}
pub(super) use resource;
