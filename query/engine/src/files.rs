//! Opening the lake's Parquet files and choosing what of them to read: row groups and pages whose statistics
//! leave no room for a visible row are skipped. Never decides that a row is visible; that is the mask's, per row.

use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, TimestampMicrosecondType, UInt16Type, UInt32Type};
use parking_lot::Mutex;
use parquet::arrow::arrow_reader::statistics::StatisticsConverter;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, RowSelection, RowSelector};
use parquet::errors::ParquetError;
use parquet::file::metadata::PageIndexPolicy;

use crate::mask::{Bounds, Part};
use crate::positions::Positions;
use crate::tables::{FileKind, FramesFile, LakeFile};

/// Most footers kept in memory; a lake file never changes, so an entry is never stale.
const FOOTERS_MAX: usize = 1024;

/// A file with its footer read.
#[derive(Clone)]
pub(crate) struct OpenFile {
    /// Where it lies.
    pub path: PathBuf,
    /// Which columns it has.
    pub kind: FileKind,
    /// Its footer and page index.
    pub metadata: ArrowReaderMetadata,
    /// What its row groups' statistics say.
    groups: Arc<[Bounds]>,
    /// Where its rows find their origin.
    pub frames: Option<Arc<FramesFile>>,
    /// Rows from this leaf on are not read.
    pub leaf_limit: Option<u32>,
}

/// One row group to read, with the pages that may hold visible rows.
#[derive(Clone)]
pub(crate) struct Piece {
    /// The file.
    pub file: Arc<OpenFile>,
    /// Row group in it.
    pub group: usize,
    /// Rows to decode; `None` = all.
    pub selection: Option<RowSelection>,
}

/// What is read of a file once.
#[derive(Clone)]
struct Footer {
    metadata: ArrowReaderMetadata,
    groups: Arc<[Bounds]>,
}

/// Footers read before, first in first out.
#[derive(Default)]
pub(crate) struct Footers {
    known: Mutex<(HashMap<PathBuf, Footer>, VecDeque<PathBuf>)>,
}

impl Footers {
    /// The footer of a file, from memory or from disk.
    pub(crate) fn open(&self, file: &LakeFile) -> Result<Arc<OpenFile>, ParquetError> {
        let known = self.known.lock().0.get(&file.path).cloned();
        let Footer { metadata, groups } = match known {
            Some(footer) => footer,
            None => self.load(&file.path, file.kind)?,
        };
        Ok(Arc::new(OpenFile {
            path: file.path.clone(),
            kind: file.kind,
            metadata,
            groups,
            frames: file.frames.clone(),
            leaf_limit: file.leaf_limit,
        }))
    }

    fn load(&self, path: &Path, kind: FileKind) -> Result<Footer, ParquetError> {
        let source = Positions::open(path).map_err(|error| ParquetError::External(Box::new(error)))?;
        let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Optional);
        let metadata = ArrowReaderMetadata::load(&source, options)?;
        let groups = 0..metadata.metadata().num_row_groups();
        let groups = groups.map(|group| group_bounds(&metadata, kind, group)).collect();
        let footer = Footer { metadata, groups };
        let mut known = self.known.lock();
        let (map, order) = &mut *known;
        if map.insert(path.to_path_buf(), footer.clone()).is_none() {
            order.push_back(path.to_path_buf());
            if order.len() > FOOTERS_MAX
                && let Some(oldest) = order.pop_front()
            {
                map.remove(&oldest);
            }
        }
        Ok(footer)
    }
}

/// False only if no row of the file can be visible, by its manifest's ranges.
pub(crate) fn may_show(file: &LakeFile, part: &Part) -> bool {
    part.any(&Bounds {
        devices: (file.device_min, file.device_max),
        times: (file.ts_min_us, file.ts_max_us),
        ..Bounds::ALL
    })
}

/// The parts of a file that may hold visible rows.
pub(crate) fn pieces(file: &Arc<OpenFile>, part: &Part) -> Vec<Piece> {
    let mut pieces = Vec::new();
    for (group, bounds) in file.groups.iter().enumerate() {
        if file.metadata.metadata().row_group(group).num_rows() == 0 || !part.any(bounds) {
            continue;
        }
        let selection = select_pages(file, group, bounds, part);
        if selection.as_ref().is_some_and(|selection| !selection.selects_any()) {
            continue;
        }
        pieces.push(Piece { file: Arc::clone(file), group, selection });
    }
    pieces
}

/// The columns whose statistics the mask can use.
#[derive(Clone, Copy)]
enum Ranged {
    Device,
    Signal,
    Time,
}

impl Ranged {
    const ALL: [Self; 3] = [Self::Device, Self::Signal, Self::Time];

    /// The columns that hold the lowest and the highest value.
    fn columns(self, kind: FileKind) -> (&'static str, &'static str) {
        match (self, kind) {
            (Self::Device, _) => ("device", "device"),
            (Self::Signal, _) => ("signal", "signal"),
            (Self::Time, FileKind::Scalar) => ("ts", "ts"),
            (Self::Time, FileKind::Wave) => ("ts", "ts_last"),
        }
    }

    /// Puts a lowest and highest value in; a missing one widens.
    fn set(self, bounds: &mut Bounds, low: Option<i64>, high: Option<i64>) {
        match self {
            Self::Device => {
                bounds.devices = (
                    low.and_then(|low| u32::try_from(low).ok()).unwrap_or(0),
                    high.and_then(|high| u32::try_from(high).ok()).unwrap_or(u32::MAX),
                );
            }
            Self::Signal => {
                bounds.signals = (
                    low.and_then(|low| u16::try_from(low).ok()).unwrap_or(0),
                    high.and_then(|high| u16::try_from(high).ok()).unwrap_or(u16::MAX),
                );
            }
            Self::Time => bounds.times = (low.unwrap_or(i64::MIN), high.unwrap_or(i64::MAX)),
        }
    }
}

fn converter<'a>(metadata: &'a ArrowReaderMetadata, column: &str) -> Option<StatisticsConverter<'a>> {
    StatisticsConverter::try_new(column, metadata.schema(), metadata.parquet_schema()).ok()
}

fn number(array: &dyn Array, row: usize) -> Option<i64> {
    if row >= array.len() || array.is_null(row) {
        return None;
    }
    match array.data_type() {
        DataType::UInt32 => Some(i64::from(array.as_primitive::<UInt32Type>().value(row))),
        DataType::UInt16 => Some(i64::from(array.as_primitive::<UInt16Type>().value(row))),
        DataType::Timestamp(..) => {
            array.as_primitive_opt::<TimestampMicrosecondType>().map(|times| times.value(row))
        }
        _ => None,
    }
}

fn group_bounds(metadata: &ArrowReaderMetadata, kind: FileKind, group: usize) -> Bounds {
    let groups = [metadata.metadata().row_group(group)];
    let mut bounds = Bounds::ALL;
    for column in Ranged::ALL {
        let (low_name, high_name) = column.columns(kind);
        let low = converter(metadata, low_name).and_then(|c| c.row_group_mins(groups).ok());
        let high = converter(metadata, high_name).and_then(|c| c.row_group_maxes(groups).ok());
        column.set(
            &mut bounds,
            low.and_then(|array| number(&array, 0)),
            high.and_then(|array| number(&array, 0)),
        );
    }
    bounds
}

/// Rows of the pages that may show something; `None` if the file has no usable page index.
fn select_pages(file: &OpenFile, group: usize, bounds: &Bounds, part: &Part) -> Option<RowSelection> {
    let mut selection: Option<RowSelection> = None;
    for column in Ranged::ALL {
        if let Some(chosen) = pages_of(file, group, column, bounds, part) {
            selection = Some(match selection {
                Some(so_far) => so_far.intersection(&chosen),
                None => chosen,
            });
        }
    }
    selection
}

fn pages_of(
    file: &OpenFile,
    group: usize,
    column: Ranged,
    bounds: &Bounds,
    part: &Part,
) -> Option<RowSelection> {
    let metadata = file.metadata.metadata();
    let (index, offsets) = (metadata.column_index()?, metadata.offset_index()?);
    if index.len() <= group || offsets.len() <= group {
        return None;
    }
    let (low_name, high_name) = column.columns(file.kind);
    let (low, high) = (converter(&file.metadata, low_name)?, converter(&file.metadata, high_name)?);
    let groups = [group];
    let counts = low.data_page_row_counts(offsets, metadata.row_groups(), &groups).ok()??;
    let lows = low.data_page_mins(index, offsets, &groups).ok()?;
    // Two columns' pages need not line up; then only the first column's lows are known per page.
    let highs = if low_name == high_name { high.data_page_maxes(index, offsets, &groups).ok() } else { None };
    let group_high = match column {
        Ranged::Time => Some(bounds.times.1),
        _ => None,
    };
    let mut selectors = Vec::with_capacity(counts.len());
    for page in 0..counts.len() {
        let mut within = *bounds;
        let high = highs.as_ref().map_or(group_high, |array| number(array, page));
        column.set(&mut within, number(&lows, page), high);
        let rows = usize::try_from(counts.value(page)).unwrap_or(0);
        selectors.push(if part.any(&within) { RowSelector::select(rows) } else { RowSelector::skip(rows) });
    }
    // A selection shorter than the group would drop its last rows without a word.
    let covered: usize = selectors.iter().map(|selector| selector.row_count).sum();
    let all = usize::try_from(metadata.row_group(group).num_rows()).ok()?;
    (covered == all).then(|| RowSelection::from(selectors))
}

#[cfg(test)]
mod tests {
    use schemas_identity::DeviceNumber;
    use tempfile::TempDir;

    use super::*;
    use crate::mask::{Mask, Narrow};
    use crate::tests::fixture::{ROWS, SECOND, T0, readings, scalar_batch, wave_batch, waves, write};
    use crate::tests::people::World;

    /// For one device and a few seconds, one row group and one page of it are read, not the file.
    #[test]
    fn reads_little() {
        let dir = TempDir::new().unwrap();
        let world = World::new();
        let all = Mask::new(world.warrant().spans());
        let scalar = write(dir.path(), "s", FileKind::Scalar, &scalar_batch(&readings(&[1], 0, ROWS)), 600);
        let wave = write(dir.path(), "w", FileKind::Wave, &wave_batch(&waves(0, 100)), 600);
        let footers = Footers::default();
        let whole = |mask: Mask| Part::of(&Arc::new(mask), 1).remove(0);
        let rows = |file: &LakeFile, mask: Mask| -> usize {
            let pieces = pieces(&footers.open(file).unwrap(), &whole(mask));
            pieces.iter().filter_map(|piece| Some(piece.selection.as_ref()?.row_count())).sum()
        };
        let number = DeviceNumber(3).0;
        let narrow = |from: i64, to: i64| Narrow {
            devices: Some([number].into()),
            from: Some(T0 + from * SECOND),
            to: Some(T0 + to * SECOND),
            ..Narrow::default()
        };
        // Twelve hundred rows of twelve devices, fifty to a page; ten of the people may be seen.
        assert!(rows(&scalar, all.narrowed(&Narrow::default())) < 1_200);
        assert_eq!(rows(&scalar, all.narrowed(&narrow(60, 70))), 50);
        assert!(rows(&wave, all.narrowed(&narrow(100, 110))) <= 100);
        assert_eq!(rows(&scalar, all.narrowed(&narrow(5_000, 6_000))), 0);
        assert!(pieces(&footers.open(&scalar).unwrap(), &whole(Mask::new(&[]))).is_empty());
    }
}
