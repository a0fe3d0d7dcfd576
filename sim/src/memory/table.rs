//! A map whose changes can be undone.

use std::collections::BTreeMap;
use std::ops::RangeBounds;
use std::sync::Arc;

/// Rows by key. What has changed since the last [`Table::keep`] can be undone.
#[derive(Debug)]
pub struct Table<K, V> {
    rows: BTreeMap<K, Arc<V>>,
    /// What was there before each change of the transaction in progress.
    before: Vec<(K, Option<Arc<V>>)>,
}

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Self { rows: BTreeMap::new(), before: Vec::new() }
    }
}

// Derived, it would ask that rows can be cloned; they are only shared.
impl<K: Clone, V> Clone for Table<K, V> {
    fn clone(&self) -> Self {
        Self { rows: self.rows.clone(), before: self.before.clone() }
    }
}

impl<K: Ord + Clone, V> Table<K, V> {
    /// The row under the key.
    pub fn get(&self, key: &K) -> Option<&Arc<V>> {
        self.rows.get(key)
    }

    /// Puts a row under its key, also over another.
    pub fn put(&mut self, key: K, row: impl Into<Arc<V>>) {
        let before = self.rows.insert(key.clone(), row.into());
        self.before.push((key, before));
    }

    /// Takes a row away.
    pub fn remove(&mut self, key: &K) {
        if let Some(before) = self.rows.remove(key) {
            self.before.push((key.clone(), Some(before)));
        }
    }

    /// The last key.
    pub fn last(&self) -> Option<&K> {
        self.rows.last_key_value().map(|(key, _)| key)
    }

    /// All rows, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &Arc<V>)> {
        self.rows.iter()
    }

    /// Rows whose keys are in the range, by key.
    pub fn range(&self, range: impl RangeBounds<K>) -> impl Iterator<Item = (&K, &Arc<V>)> {
        self.rows.range(range)
    }

    /// What has changed stays.
    pub fn keep(&mut self) {
        self.before.clear();
    }

    /// Everything is as it was at the last [`Table::keep`].
    pub fn undo(&mut self) {
        for (key, before) in self.before.drain(..).rev() {
            match before {
                Some(row) => self.rows.insert(key, row),
                None => self.rows.remove(&key),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn undone_it_is_as_it_was() {
        let mut table = Table::default();
        table.put(1, "one");
        table.put(2, "two");
        table.keep();
        table.put(1, "other");
        table.remove(&2);
        table.put(2, "again");
        table.put(3, "three");
        table.remove(&3);
        table.undo();
        let rows: Vec<_> = table.iter().map(|(key, row)| (*key, **row)).collect();
        assert_eq!(rows, [(1, "one"), (2, "two")]);
    }
}
