//! The part of the log that still changes: the last bundle and the last tile of each level, in memory.
//!
//! What it is not: on disk. It hands out the files it has completed, and the partial ones, as paths and bytes.

use std::sync::Arc;

use schemas_evidence::tiles::{
    TILE_HEIGHT, TILE_WIDTH, decode_bundle, decode_tile, encode_bundle, encode_tile, entries_path,
    level_size, tile_path, tile_root,
};
use schemas_evidence::{CompactTree, Hash32, LedgerError, Sha256Rfc6962, entry_leaf};

use crate::disk::{Disk, corrupt};

/// Tile levels of a log with fewer than 2^64 entries.
pub(crate) const LEVELS: u8 = 8;

/// A file to write: its path relative to the directory, and its bytes.
pub(crate) type OutFile = (String, Vec<u8>);

/// The right edge of the log.
#[derive(Clone)]
pub(crate) struct Edge {
    tree: CompactTree<Sha256Rfc6962>,
    /// Hashes of the last, unfinished tile of each level.
    tiles: Vec<Vec<Hash32>>,
    /// Entries of the last, unfinished bundle.
    bundle: Vec<Arc<str>>,
}

impl Edge {
    pub(crate) fn empty() -> Edge {
        Edge {
            tree: CompactTree::default(),
            tiles: vec![Vec::new(); usize::from(LEVELS)],
            bundle: Vec::new(),
        }
    }

    /// Reads the edge of a log of `size` entries from its partial tiles.
    pub(crate) fn load(disk: &Disk, size: u64) -> Result<Edge, LedgerError> {
        let mut tiles = Vec::new();
        for level in 0..LEVELS {
            let hashes = level_size(size, level);
            let (n, width) = (hashes / TILE_WIDTH, hashes % TILE_WIDTH);
            tiles.push(if width == 0 { Vec::new() } else { read_tile(disk, level, n, width)? });
        }
        let tree = CompactTree::load(size, |level, index| {
            let tile = &tiles[usize::from(level / TILE_HEIGHT)];
            part_root(tile, level % TILE_HEIGHT, index)
                .ok_or_else(|| corrupt("tile", "its right edge is too short"))
        })?;
        let (n, width) = (size / TILE_WIDTH, size % TILE_WIDTH);
        let bundle = if width == 0 { Vec::new() } else { read_bundle(disk, n, width)? };
        for (within, (entry, leaf)) in bundle.iter().zip(&tiles[0]).enumerate() {
            if entry_leaf(entry) != *leaf {
                let place = format!("entry {}", n * TILE_WIDTH + within as u64);
                return Err(corrupt(place, "its text does not have the hash in the tile"));
            }
        }
        Ok(Edge { tree, tiles, bundle })
    }

    pub(crate) fn size(&self) -> u64 {
        self.tree.size()
    }

    pub(crate) fn root(&self) -> Hash32 {
        self.tree.root()
    }

    /// The unfinished tile of a level.
    pub(crate) fn tile(&self, level: u8) -> &[Hash32] {
        self.tiles.get(usize::from(level)).map_or(&[], Vec::as_slice)
    }

    /// The entries since the last full bundle.
    pub(crate) fn bundle(&self) -> &[Arc<str>] {
        &self.bundle
    }

    /// Appends an entry; files that are now complete go to `full`.
    pub(crate) fn push(&mut self, entry: Arc<str>, full: &mut Vec<OutFile>) -> Result<(), LedgerError> {
        let leaf = entry_leaf(&entry);
        self.bundle.push(entry);
        let mut hashes = Vec::new();
        self.tree.push(leaf, |level, _, root| {
            if level % TILE_HEIGHT == 0 {
                hashes.push((level / TILE_HEIGHT, *root));
            }
        });
        for (level, hash) in hashes {
            let n = level_size(self.size(), level).div_ceil(TILE_WIDTH) - 1;
            let tile = &mut self.tiles[usize::from(level)];
            tile.push(hash);
            if tile.len() as u64 == TILE_WIDTH {
                full.push((tile_path(level, n, TILE_WIDTH), encode_tile(tile)));
                tile.clear();
                if level == 0 {
                    full.push((entries_path(n, TILE_WIDTH), bundle_bytes(&self.bundle)?));
                    self.bundle.clear();
                }
            }
        }
        Ok(())
    }

    /// The partial tiles and the partial bundle. `since`: only those that are not the same at that older size.
    pub(crate) fn partial(&self, since: Option<u64>) -> Result<Vec<OutFile>, LedgerError> {
        let mut files = Vec::new();
        for level in 0..LEVELS {
            let hashes = level_size(self.size(), level);
            let (n, tile) = (hashes / TILE_WIDTH, self.tile(level));
            let unchanged = since.is_some_and(|size| level_size(size, level) == hashes);
            if tile.is_empty() || unchanged {
                continue;
            }
            files.push((tile_path(level, n, tile.len() as u64), encode_tile(tile)));
            if level == 0 {
                files.push((entries_path(n, self.bundle.len() as u64), bundle_bytes(&self.bundle)?));
            }
        }
        Ok(files)
    }
}

fn bundle_bytes(entries: &[Arc<str>]) -> Result<Vec<u8>, LedgerError> {
    let bytes = encode_bundle(entries.iter().map(|entry| entry.as_bytes()));
    bytes.ok_or_else(|| corrupt("entry", "too long for a bundle"))
}

/// Root of 2^`height` hashes of a tile; `index` counts such parts over the whole level.
pub(crate) fn part_root(tile: &[Hash32], height: u8, index: u64) -> Option<Hash32> {
    let start = ((index << height) % TILE_WIDTH) as usize;
    tile.get(start..start + (1usize << height)).map(tile_root)
}

/// A hash tile from disk, of exactly this width.
pub(crate) fn read_tile(disk: &Disk, level: u8, n: u64, width: u64) -> Result<Vec<Hash32>, LedgerError> {
    let path = tile_path(level, n, width);
    let bytes = disk.read(&path)?.ok_or_else(|| corrupt(&path, "is missing"))?;
    decode_tile(&bytes, width).ok_or_else(|| corrupt(&path, "is not a tile of this width"))
}

/// An entry bundle from disk, of exactly this width.
pub(crate) fn read_bundle(disk: &Disk, n: u64, width: u64) -> Result<Vec<Arc<str>>, LedgerError> {
    let path = entries_path(n, width);
    let bytes = disk.read(&path)?.ok_or_else(|| corrupt(&path, "is missing"))?;
    let entries =
        decode_bundle(&bytes, width).ok_or_else(|| corrupt(&path, "is not a bundle of this width"))?;
    let text = |entry: &&[u8]| std::str::from_utf8(entry).map(Arc::from).ok();
    let texts: Option<Vec<Arc<str>>> = entries.iter().map(text).collect();
    texts.ok_or_else(|| corrupt(path, "holds an entry that is not text"))
}
