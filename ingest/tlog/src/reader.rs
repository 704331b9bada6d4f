//! Reading what no longer changes: full tiles and bundles from disk, the rest from the edge of a published view.
//!
//! What it is not: trusting. A bundle is handed out only if its entries have the hashes in the tile.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use schemas_evidence::merkle::{self, range_root};
use schemas_evidence::tiles::{TILE_HEIGHT, TILE_WIDTH, level_size};
use schemas_evidence::{Hash32, LedgerError, Sha256Rfc6962, entry_leaf};

use crate::disk::{Disk, corrupt};
use crate::edge::{Edge, part_root, read_bundle, read_tile};

/// Full tiles kept in memory, 8 KiB each.
const CACHED_TILES_MAX: usize = 128;

/// Level and number of a tile.
type TileName = (u8, u64);

type Tile = Arc<Vec<Hash32>>;

/// A published state of the log.
pub(crate) struct View {
    /// The edge at that size.
    pub(crate) edge: Edge,
    /// Its signed head.
    pub(crate) checkpoint: String,
}

/// Reads the unchanging part of the log.
pub(crate) struct Reader {
    disk: Disk,
    cache: Mutex<HashMap<TileName, Tile>>,
}

impl Reader {
    pub(crate) fn new(disk: &Disk) -> Reader {
        Reader { disk: disk.clone(), cache: Mutex::default() }
    }

    /// A full tile.
    pub(crate) fn tile(&self, level: u8, n: u64) -> Result<Tile, LedgerError> {
        if let Some(tile) = self.cache.lock().get(&(level, n)) {
            return Ok(tile.clone());
        }
        let tile = Arc::new(read_tile(&self.disk, level, n, TILE_WIDTH)?);
        let mut cache = self.cache.lock();
        if cache.len() >= CACHED_TILES_MAX {
            cache.clear();
        }
        cache.insert((level, n), tile.clone());
        Ok(tile)
    }

    /// Root of leaves `index << level .. (index + 1) << level`, which must lie within the view.
    fn perfect(&self, edge: &Edge, level: u8, index: u64) -> Result<Hash32, LedgerError> {
        let (tile_level, height) = (level / TILE_HEIGHT, level % TILE_HEIGHT);
        let n = (index << height) / TILE_WIDTH;
        let full = level_size(edge.size(), tile_level) / TILE_WIDTH;
        let root = if n < full {
            part_root(&self.tile(tile_level, n)?, height, index)
        } else {
            part_root(edge.tile(tile_level), height, index)
        };
        root.ok_or_else(|| corrupt(format!("tile level {tile_level}"), "is too short"))
    }

    /// The roots of ranges of leaves, as a proof lists them.
    pub(crate) fn roots(
        &self,
        edge: &Edge,
        ranges: Vec<merkle::LeafRange>,
    ) -> Result<Vec<Hash32>, LedgerError> {
        let mut perfect = |level, index| self.perfect(edge, level, index);
        ranges.into_iter().map(|range| range_root::<Sha256Rfc6962, _>(range, &mut perfect)).collect()
    }

    /// The leaf hash of an entry.
    pub(crate) fn leaf(&self, edge: &Edge, index: u64) -> Result<Hash32, LedgerError> {
        self.perfect(edge, 0, index)
    }

    /// The texts `from..to`, which must lie within the view.
    pub(crate) fn entries(&self, edge: &Edge, from: u64, to: u64) -> Result<Vec<String>, LedgerError> {
        let mut texts = Vec::new();
        let mut at = from;
        while at < to {
            let n = at / TILE_WIDTH;
            let end = to.min((n + 1) * TILE_WIDTH);
            let within = (at % TILE_WIDTH) as usize..(end - n * TILE_WIDTH) as usize;
            if n < edge.size() / TILE_WIDTH {
                let bundle = self.bundle(n)?;
                texts.extend(bundle.get(within).unwrap_or_default().iter().map(|text| text.to_string()));
            } else {
                texts.extend(
                    edge.bundle().get(within).unwrap_or_default().iter().map(|text| text.to_string()),
                );
            }
            at = end;
        }
        Ok(texts)
    }

    /// A full bundle whose entries have the hashes in the tile.
    pub(crate) fn bundle(&self, n: u64) -> Result<Vec<Arc<str>>, LedgerError> {
        let tile = self.tile(0, n)?;
        let bundle = read_bundle(&self.disk, n, TILE_WIDTH)?;
        for (within, (entry, leaf)) in bundle.iter().zip(tile.iter()).enumerate() {
            if entry_leaf(entry) != *leaf {
                let place = format!("entry {}", n * TILE_WIDTH + within as u64);
                return Err(corrupt(place, "its text does not have the hash in the tile"));
            }
        }
        Ok(bundle)
    }
}
