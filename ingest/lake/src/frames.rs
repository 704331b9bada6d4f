//! The frames file: one row per leaf with what the readings' own rows do not say, so that the signed bytes can be made
//! again; the bytes themselves only where they cannot. Columns: `schemas_signals::columns::frames_schema`.

use std::sync::Arc;

use arrow::array::{Array, BinaryArray, FixedSizeBinaryArray, PrimitiveArray, StringArray};
use arrow::array::{
    ArrayRef, AsArray, BinaryBuilder, FixedSizeBinaryBuilder, Int32Builder, Int64Builder, RecordBatch,
    StringBuilder, TimestampMicrosecondBuilder, UInt8Builder, UInt32Builder,
};
use arrow::datatypes::{
    ArrowPrimitiveType, Int32Type, Int64Type, TimestampMicrosecondType, UInt8Type, UInt32Type,
};
use arrow::error::ArrowError;
use schemas_evidence::Hash32;
use schemas_identity::{BootId, ShortId};
use schemas_signals::columns;

use crate::layout::Leaf;
use crate::rebuild::shape_of;

/// Leaves of a block: its first frame names its `prev` and carries the block's root, so that one frame is proved by
/// reading one block. A power of two, so that blocks are subtrees of the batch tree.
pub(crate) const BLOCK_LEAVES: usize = 64;

/// How a frame's wall clock stands to its t0.
const CLOCK_IS_T0: u8 = 0;
const CLOCK_UNSET: u8 = 1;
const CLOCK_APART: u8 = 2;

/// Rows of the frames file.
pub(crate) struct FramesBuilder {
    leaf: UInt32Builder,
    device: UInt32Builder,
    boot: FixedSizeBinaryBuilder,
    seq: Int64Builder,
    t0: TimestampMicrosecondBuilder,
    received_at: TimestampMicrosecondBuilder,
    flags: Int32Builder,
    code: StringBuilder,
    frame: BinaryBuilder,
    signature: FixedSizeBinaryBuilder,
    kid: FixedSizeBinaryBuilder,
    shape: BinaryBuilder,
    prev: FixedSizeBinaryBuilder,
    clock: UInt8Builder,
    wall: Int64Builder,
    mono: Int64Builder,
    block: FixedSizeBinaryBuilder,
}

impl FramesBuilder {
    pub(crate) fn new() -> FramesBuilder {
        FramesBuilder {
            leaf: UInt32Builder::new(),
            device: UInt32Builder::new(),
            boot: FixedSizeBinaryBuilder::new(columns::BOOT_BYTES),
            seq: Int64Builder::new(),
            t0: TimestampMicrosecondBuilder::new().with_timezone(columns::UTC),
            received_at: TimestampMicrosecondBuilder::new().with_timezone(columns::UTC),
            flags: Int32Builder::new(),
            code: StringBuilder::new(),
            frame: BinaryBuilder::new(),
            signature: FixedSizeBinaryBuilder::new(64),
            kid: FixedSizeBinaryBuilder::new(8),
            shape: BinaryBuilder::new(),
            prev: FixedSizeBinaryBuilder::new(16),
            clock: UInt8Builder::new(),
            wall: Int64Builder::new(),
            mono: Int64Builder::new(),
            block: FixedSizeBinaryBuilder::new(32),
        }
    }

    /// Adds a frame. `before` is the digest of the frame one leaf before, if a reader of this one will have that one too;
    /// `block` the root of the block that begins here.
    pub(crate) fn push(
        &mut self,
        number: u32,
        leaf: &Leaf<'_>,
        before: Option<[u8; 16]>,
        block: Option<&Hash32>,
    ) -> Result<(), ArrowError> {
        let (admitted, frame) = (leaf.admitted, &leaf.frame);
        self.leaf.append_value(number);
        self.device.append_value(admitted.device);
        self.boot.append_value(frame.boot().as_bytes())?;
        self.seq.append_value(frame.seq() as i64);
        self.t0.append_value(admitted.t0_us);
        self.received_at.append_value(admitted.received_us);
        self.flags.append_value(admitted.flags as i32);
        self.code.append_value(admitted.code.as_str());
        append(&mut self.block, block.map(<[u8; 32]>::as_slice))?;
        match shape_of(frame, admitted.t0_us) {
            Some(shape) => self.push_head(leaf, &shape, before),
            None => self.push_bytes(leaf),
        }
    }

    fn push_head(
        &mut self,
        leaf: &Leaf<'_>,
        shape: &[u8],
        before: Option<[u8; 16]>,
    ) -> Result<(), ArrowError> {
        let (t0_us, frame) = (leaf.admitted.t0_us, &leaf.frame);
        let (clock, wall_us) = match frame.wall_us() {
            Some(wall_us) if wall_us == t0_us => (CLOCK_IS_T0, None),
            Some(wall_us) => (CLOCK_APART, Some(wall_us)),
            None => (CLOCK_UNSET, None),
        };
        self.frame.append_null();
        self.signature.append_value(frame.signature())?;
        self.kid.append_value(frame.kid().as_bytes())?;
        self.shape.append_value(shape);
        let prev = frame.prev();
        append(&mut self.prev, (before != Some(prev)).then_some(prev.as_slice()))?;
        self.clock.append_value(clock);
        self.wall.append_option(wall_us);
        self.mono.append_value(frame.mono_us().cast_signed());
        Ok(())
    }

    fn push_bytes(&mut self, leaf: &Leaf<'_>) -> Result<(), ArrowError> {
        self.frame.append_value(&leaf.admitted.frame);
        for column in [&mut self.signature, &mut self.kid, &mut self.prev] {
            append(column, None)?;
        }
        self.shape.append_null();
        self.clock.append_null();
        self.wall.append_null();
        self.mono.append_null();
        Ok(())
    }

    pub(crate) fn finish(mut self) -> Result<RecordBatch, ArrowError> {
        let arrays: Vec<ArrayRef> = vec![
            Arc::new(self.leaf.finish()),
            Arc::new(self.device.finish()),
            Arc::new(self.boot.finish()),
            Arc::new(self.seq.finish()),
            Arc::new(self.t0.finish()),
            Arc::new(self.received_at.finish()),
            Arc::new(self.flags.finish()),
            Arc::new(self.code.finish()),
            Arc::new(self.frame.finish()),
            Arc::new(self.signature.finish()),
            Arc::new(self.kid.finish()),
            Arc::new(self.shape.finish()),
            Arc::new(self.prev.finish()),
            Arc::new(self.clock.finish()),
            Arc::new(self.wall.finish()),
            Arc::new(self.mono.finish()),
            Arc::new(self.block.finish()),
        ];
        RecordBatch::try_new(columns::frames_schema(), arrays)
    }
}

fn append(column: &mut FixedSizeBinaryBuilder, value: Option<&[u8]>) -> Result<(), ArrowError> {
    match value {
        Some(value) => column.append_value(value),
        None => {
            column.append_null();
            Ok(())
        }
    }
}

/// Rows of a frames file, read back.
pub(crate) struct FramesRows<'a> {
    rows: usize,
    pub(crate) leaf: &'a PrimitiveArray<UInt32Type>,
    pub(crate) device: &'a PrimitiveArray<UInt32Type>,
    pub(crate) boot: &'a FixedSizeBinaryArray,
    pub(crate) seq: &'a PrimitiveArray<Int64Type>,
    pub(crate) t0: &'a PrimitiveArray<TimestampMicrosecondType>,
    pub(crate) received_at: &'a PrimitiveArray<TimestampMicrosecondType>,
    pub(crate) flags: &'a PrimitiveArray<Int32Type>,
    pub(crate) code: &'a StringArray,
    pub(crate) frame: &'a BinaryArray,
    signature: &'a FixedSizeBinaryArray,
    kid: &'a FixedSizeBinaryArray,
    shape: &'a BinaryArray,
    prev: &'a FixedSizeBinaryArray,
    clock: &'a PrimitiveArray<UInt8Type>,
    wall: &'a PrimitiveArray<Int64Type>,
    mono: &'a PrimitiveArray<Int64Type>,
    block: &'a FixedSizeBinaryArray,
}

fn primitive<'a, T: ArrowPrimitiveType>(rows: &'a RecordBatch, name: &str) -> Option<&'a PrimitiveArray<T>> {
    rows.column_by_name(name)?.as_primitive_opt::<T>()
}

fn fixed<'a>(rows: &'a RecordBatch, name: &str, width: i32) -> Option<&'a FixedSizeBinaryArray> {
    let array = rows.column_by_name(name)?.as_fixed_size_binary_opt()?;
    (array.value_length() == width).then_some(array)
}

impl<'a> FramesRows<'a> {
    /// `None` if a column is missing or of another type.
    pub(crate) fn of(rows: &'a RecordBatch) -> Option<FramesRows<'a>> {
        Some(FramesRows {
            rows: rows.num_rows(),
            leaf: primitive(rows, "leaf")?,
            device: primitive(rows, "device")?,
            boot: fixed(rows, "boot", columns::BOOT_BYTES)?,
            seq: primitive(rows, "seq")?,
            t0: primitive(rows, "t0")?,
            received_at: primitive(rows, "received_at")?,
            flags: primitive(rows, "flags")?,
            code: rows.column_by_name("code")?.as_string_opt()?,
            frame: rows.column_by_name("frame")?.as_binary_opt()?,
            signature: fixed(rows, "signature", 64)?,
            kid: fixed(rows, "kid", 8)?,
            shape: rows.column_by_name("shape")?.as_binary_opt()?,
            prev: fixed(rows, "prev", 16)?,
            clock: primitive(rows, "clock")?,
            wall: primitive(rows, "wall")?,
            mono: primitive(rows, "mono")?,
            block: fixed(rows, "block", 32)?,
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.rows
    }

    /// Whether a block begins here: its first row needs no row before it.
    pub(crate) fn starts_block(&self, row: usize) -> bool {
        self.block.is_valid(row)
    }

    /// Lowest and highest device; any range is right where there is no row.
    pub(crate) fn devices(&self) -> (u32, u32) {
        let devices = self.device.values();
        (devices.iter().copied().min().unwrap_or(0), devices.iter().copied().max().unwrap_or(0))
    }

    /// The frame's own bytes, where they are kept.
    pub(crate) fn bytes(&self, row: usize) -> Option<&'a [u8]> {
        self.frame.is_valid(row).then(|| self.frame.value(row))
    }

    /// What a rebuild needs; `before` is the digest of the frame one leaf before.
    pub(crate) fn head(&self, row: usize, before: Option<[u8; 16]>) -> Option<crate::rebuild::Head<'a>> {
        let is_whole = [self.signature.is_valid(row), self.kid.is_valid(row), self.shape.is_valid(row)];
        if is_whole.contains(&false) {
            return None;
        }
        let t0_us = self.t0.value(row);
        let wall_us = match self.clock.value(row) {
            CLOCK_IS_T0 => Some(t0_us),
            CLOCK_APART => Some(self.wall.value(row)),
            _ => None,
        };
        Some(crate::rebuild::Head {
            kid: ShortId(self.kid.value(row).try_into().ok()?),
            boot: BootId(self.boot.value(row).try_into().ok()?),
            seq: self.seq.value(row).cast_unsigned(),
            prev: if self.prev.is_valid(row) { self.prev.value(row).try_into().ok()? } else { before? },
            wall_us,
            mono_us: self.mono.value(row).cast_unsigned(),
            t0_us,
            shape: self.shape.value(row),
            signature: self.signature.value(row).try_into().ok()?,
        })
    }
}
