//! The layout of groups: what is written reads back, and a missing running number shows.

use super::*;
use crate::index::Index;
use crate::record::{Asked, Record, RefusedRecord};

/// Items read back as they were written, with their places.
#[test]
fn groups_read_back() {
    let dir = tempfile::TempDir::new().unwrap();
    let items = vec![
        Item::Record { number: 0, log_size: 3, salt: [7; 32], body: b"one".to_vec(), refers: false },
        Item::Link { number: 0, log_index: 3 },
        Item::Record { number: 1, log_size: 4, salt: [8; 32], body: Vec::new(), refers: true },
    ];
    let (mut files, _) = Files::open(dir.path(), 1 << 20, |_, _| Ok(())).unwrap();
    let places = files.append(&items).unwrap();
    let mut seen = Vec::new();
    let mut seen_places = Vec::new();
    Files::open(dir.path(), 1 << 20, |item, place| {
        seen.push(item);
        seen_places.extend(place);
        Ok(())
    })
    .unwrap();
    assert_eq!((seen, &seen_places), (items, &places));
    assert_eq!(read(dir.path(), places[0]).unwrap(), ([7; 32], b"one".to_vec()));
}

/// Random bytes in place of a group are never taken for one, and never panic.
#[test]
fn hostile_bytes() {
    let mut state = 1_u64;
    for _ in 0..2_000 {
        let bytes: Vec<u8> = (0..64)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 56) as u8
            })
            .collect();
        assert_eq!(group_at(&bytes, 0), None);
        let _ = item_at(&bytes);
        let mut huge = GROUP_MAGIC.to_vec();
        huge.extend_from_slice(&u32::MAX.to_le_bytes());
        huge.extend_from_slice(&bytes);
        assert_eq!(group_at(&huge, 0), None);
    }
}

/// A running number that is skipped is remembered as missing.
#[test]
fn skipped_numbers_show() {
    let mut index = Index::default();
    for running in [1, 2, 5] {
        let asked = Asked::blank();
        let subjects = vec![("s".to_owned(), running)];
        let record = Record::Refused(RefusedRecord { asked, subjects, reason: String::new(), at_us: 0 });
        index.add(&record, Place { file: 1, offset: 0, bytes: 0 }).unwrap();
    }
    let trail = index.trail("s").unwrap();
    assert_eq!((trail.newest, trail.missing.clone()), (5, vec![(3, 4)]));
}
