//! The first walk over a line: finds the type and refuses what no frame may
//! hold. serde's derived readers would let a doubled key of a map pass, and a
//! doubled key of a field they do not know.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::codec::{DecodeError, MAX_DEPTH, MAX_ELEMENTS, malformed};

/// The type of the frame on `line`, once the whole line is within the limits.
pub(super) fn frame_type(line: &[u8]) -> Result<String, DecodeError> {
    let mut walk = Walk { elements: 0, too_deep: false, kind: None, has_kind: false };
    let mut reader = serde_json::Deserializer::from_slice(line);
    let done = Value { walk: &mut walk, depth: 0, is_kind: false }
        .deserialize(&mut reader)
        .and_then(|()| reader.end());
    match done {
        Err(_) if walk.too_deep => Err(DecodeError::TooDeep),
        Err(error) => Err(malformed(&error)),
        Ok(()) => match walk.kind {
            Some(kind) => Ok(kind),
            None if walk.has_kind => Err(DecodeError::Malformed("`t` is not a text".into())),
            None => Err(DecodeError::Malformed("not an object with a field `t`".into())),
        },
    }
}

struct Walk {
    elements: usize,
    too_deep: bool,
    kind: Option<String>,
    has_kind: bool,
}

/// One value somewhere in the line.
struct Value<'w> {
    walk: &'w mut Walk,
    /// How many objects and lists are around it.
    depth: usize,
    /// It is the outermost object's `t`.
    is_kind: bool,
}

impl Value<'_> {
    fn enter<E: Error>(&mut self) -> Result<usize, E> {
        if self.depth >= MAX_DEPTH {
            self.walk.too_deep = true;
            return Err(E::custom("nested too deeply"));
        }
        Ok(self.depth + 1)
    }
}

impl<'de> DeserializeSeed<'de> for Value<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        self.walk.elements += 1;
        if self.walk.elements > MAX_ELEMENTS {
            return Err(D::Error::custom(format_args!("more than {MAX_ELEMENTS} values")));
        }
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Value<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        if self.is_kind {
            self.walk.kind = Some(text.to_owned());
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<(), A::Error> {
        let depth = self.enter()?;
        while list
            .next_element_seed(Value { walk: &mut *self.walk, depth, is_kind: false })?
            .is_some()
        {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        let depth = self.enter()?;
        let mut seen: BTreeSet<Cow<'de, str>> = BTreeSet::new();
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            let is_kind = depth == 1 && key == "t";
            self.walk.has_kind |= is_kind;
            if seen.contains(&key) {
                let shown: String = key.chars().take(40).collect();
                return Err(A::Error::custom(format_args!("key `{shown}` is there twice")));
            }
            seen.insert(key);
            map.next_value_seed(Value { walk: &mut *self.walk, depth, is_kind })?;
        }
        Ok(())
    }
}
