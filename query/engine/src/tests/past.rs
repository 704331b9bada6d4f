//! Files that hold more than the view: a set of batches of which some came later.

use std::sync::Arc;

use tempfile::TempDir;

use super::fixture::{ROWS, Store, ask, lake, options, readings, scalar_batch, wave_batch, waves, write};
use super::people::World;
use crate::{Engine, FileKind, View};

fn view(dir: &TempDir, scalar_rows: usize, wave_rows: usize, limits: Option<(u32, u32)>) -> View {
    let scalar = scalar_batch(&readings(&[1, 2], 0, ROWS)).slice(0, scalar_rows);
    let wave = wave_batch(&waves(0, 10)).slice(0, wave_rows);
    let mut files = vec![
        write(dir.path(), "a.scalar.parquet", FileKind::Scalar, &scalar, 600),
        write(dir.path(), "a.wave.parquet", FileKind::Wave, &wave, 600),
    ];
    if let Some((scalar, wave)) = limits {
        files[0].leaf_limit = Some(scalar);
        files[1].leaf_limit = Some(wave);
    }
    let all = TempDir::new().unwrap();
    View { files, tail_scalar: Vec::new(), tail_wave: Vec::new(), ..lake(all.path(), 64, |_, _| true) }
}

/// Guarantee: rows from the limit on are not seen, whichever columns are asked for; the rest is as if they were not there.
#[tokio::test]
async fn later_rows_are_not_read() {
    let (whole, cut) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let world = World::new();
    let (scalars, series) = (scalar_batch(&readings(&[1, 2], 0, ROWS)).num_rows(), 10 * 3);
    let series = series.min(wave_batch(&waves(0, 10)).num_rows());
    let engine = |view: View| {
        Engine::new(options(), Arc::new(Store(view)), Arc::clone(&world.consents), Arc::clone(&world.audit))
            .unwrap()
    };
    for (rows, waves) in [(0, 0), (1, 1), (scalars / 3, series / 2), (scalars - 1, series)] {
        let limits = Some((rows as u32, waves as u32));
        let limited = engine(view(&whole, scalars, series, limits));
        let expected = engine(view(&cut, rows, waves, None));
        for sql in [
            "SELECT count(*) FROM readings",
            "SELECT device, signal, ts, value FROM readings",
            "SELECT boot, seq, flags, received_at, ts FROM readings",
            "SELECT signal, sum(value) FROM readings WHERE ts IS NOT NULL GROUP BY signal",
        ] {
            let found = ask(&limited, &world, sql).await.unwrap();
            assert_eq!(found, ask(&expected, &world, sql).await.unwrap(), "{rows} {waves} {sql}");
        }
    }
}
