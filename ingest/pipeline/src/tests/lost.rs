//! What no crash does: the write-ahead log, or parts of it, taken away between two starts.

use ingest_wal::Disk;
use ingest_wal::sim::SimDisk;

use super::world::World;
use crate::StartError;

/// A quiet machine that accepted some frames in several segments.
fn world() -> World {
    let mut world = World::new(1);
    world.life = world.start_once().ok();
    accept(&mut world);
    world
}

fn accept(world: &mut World) {
    for _ in 0..40 {
        let made = world.senders.make(&mut world.dice, world.now_us, 4);
        let frames = made.into_iter().map(|made| world.desk.lock().add(made)).collect();
        world.offer(frames);
        while world.check() {}
        while world.life.as_ref().is_some_and(|life| !life.groups.is_empty() && life.lake.has_room()) {
            world.decide();
        }
    }
    assert!(world.desk.lock().promised.len() > 10);
}

fn segments(world: &World) -> Vec<String> {
    let mut names = world.wal.list().unwrap();
    names.retain(|name| name.ends_with(".wal"));
    names.sort_unstable();
    assert!(names.len() > 1, "{names:?}");
    names
}

fn is_refused(world: &World) -> bool {
    matches!(world.start_once(), Err(StartError::Missing { .. }))
}

/// Guarantee: a server whose log is gone goes on, and what it then accepts survives the next restart: positions in a new
/// log are never taken for those that batches hold already.
#[test]
fn a_log_that_is_gone_is_replaced() {
    let mut world = world();
    world.seal();
    world.end(false);
    world.wal = SimDisk::new(2);
    world.start();
    accept(&mut world);
    world.end(false);
    world.start();
    world.check_all();
    assert_eq!(world.desk.lock().problems, Vec::<String>::new());
}

/// Guarantee: records that are missing before or after those that are there stop the start, however often it is tried.
#[test]
fn a_log_with_a_missing_end_is_refused() {
    let mut world = world();
    let first = segments(&world).remove(0);
    world.end(false);
    world.wal.lose_file(&first);
    assert!(is_refused(&world), "the oldest segment is gone before its frames were in a batch");
    assert!(is_refused(&world));

    let mut world = self::world();
    world.seal();
    let last = segments(&world).pop().unwrap();
    world.end(false);
    world.wal.lose_file(&last);
    assert!(is_refused(&world), "the newest segment is gone, batches hold more");
}
