// SPDX-License-Identifier: GPL-2.0-or-later

//! Chunk indexes, and blobs of which nothing is passed on that does not have the digest that its index says.
//!
//! The format is that of the EROFS image specification, section 3.4: a header of 32 bytes, then for each
//! chunk where it is, where its data belongs, and its checksum; all numbers little-endian. It is read by
//! hand, like the wire format, because it is a few integers that have to be compared with each other.
//!
//! Chunks may be compressed, each as one zstd frame. Its checksum is that of the frame, so what is inflated
//! are bytes that whoever made the index has vouched for; even so a frame cannot make more of itself than
//! the index says, because it is inflated in one piece of memory of that size and needs no other that
//! depends on it. That is why the C library does it: the decoder in Rust (ruzstd) allocates whatever a
//! frame asks for, and one block can ask for gigabytes.

use std::io::{self, Read, Write};
use std::ops::Range;
use std::sync::Arc;

use sha2::{Digest as _, Sha256, Sha512};

use super::{Blob, Sink, SourceError};

const MAGIC: [u8; 4] = [0xcd, 0xe4, 0xec, 0x67];
const HEADER: usize = 32;

/// The largest index, in bytes: one of that size is for 300 GiB in chunks of 256 KiB.
pub const MAX_INDEX: u64 = 64 << 20;

/// The largest chunk, in bytes. Each thread that fetches has one in memory.
pub const MAX_CHUNK: u64 = 4 << 20;

/// A chunk as it is stored may be so much larger than it is otherwise: what compression adds to what
/// cannot be compressed, and what fills the space behind the last one.
const MAX_OVERHEAD: u64 = 64 << 10;

/// In front of an index in a compressed blob, which is a skippable frame of zstd.
const FRAME_HEADER: u64 = 8;

/// The chunks that [`ChunkIndex::build`] makes if nobody says otherwise.
pub const CHUNK: u64 = 256 << 10;

/// What the index of a file is called beside it.
pub const SUFFIX: &str = ".chunk-index";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hash {
    Sha256,
    Sha512,
}

impl Hash {
    fn size(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }
}

/// The chunks of a blob and their checksums.
#[derive(Debug)]
pub struct ChunkIndex {
    size: u64,
    /// Where the chunks begin, in order; the first one at 0.
    starts: Vec<u64>,
    /// Where they begin in the blob if they are compressed, in order.
    stored: Option<Vec<u64>>,
    hash: Hash,
    sums: Vec<u8>,
    /// Tells this index from others.
    digest: String,
}

/// Integers of a byte string, from its start.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], String> {
        let (start, rest) = self.0.split_at_checked(len).ok_or("it is cut off")?;
        self.0 = rest;
        Ok(start)
    }

    fn number(&mut self, len: usize) -> Result<u64, String> {
        let bytes = self.take(len)?.iter().rev();
        Ok(bytes.fold(0, |value, byte| (value << 8) | u64::from(*byte)))
    }
}

impl ChunkIndex {
    /// Reads an index. All of its chunks are as large as a thread may have in memory at most, and are where
    /// their data belongs.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let mut fields = Fields(bytes);
        if fields.take(4)? != MAGIC {
            return Err("it does not begin as one".into());
        }
        let is_compressed = match (fields.number(1)?, fields.number(1)?, fields.number(2)?) {
            (1, 0, 0) => false,
            (1, 1, 0) => true,
            (version, kind, flags) => {
                return Err(format!(
                    "it has version {version}, compression {kind} and flags {flags:#x}"
                ))
            }
        };
        let (size, count) = (fields.number(8)?, fields.number(4)? as usize);
        let hash = match (fields.number(1)?, fields.number(1)?) {
            (1, 32) => Hash::Sha256,
            (1, 64) => Hash::Sha512,
            (0, 0) => return Err("it has no checksums".into()),
            (kind, len) => return Err(format!("it has checksums {kind} of {len} bytes")),
        };
        if fields.number(8)? != 0 || fields.number(2)? != 0 {
            return Err("what is reserved in it is not zero".into());
        }
        // Before anything is allocated for them.
        let entry = 16 + hash.size();
        if (fields.0.len() as u64) != count as u64 * entry as u64 {
            return Err(format!(
                "{count} chunks do not have {} bytes",
                fields.0.len()
            ));
        }
        let mut index = Self {
            size,
            starts: Vec::with_capacity(count),
            stored: is_compressed.then(|| Vec::with_capacity(count)),
            hash,
            sums: Vec::with_capacity(count * hash.size()),
            digest: format!("{:x}", Sha256::digest(bytes)),
        };
        for _ in 0..count {
            let (at, start) = (fields.number(8)?, fields.number(8)?);
            match &mut index.stored {
                Some(stored) => stored.push(at),
                None if at != start => return Err("a chunk is not where its data belongs".into()),
                None => {}
            }
            index.starts.push(start);
            index.sums.extend(fields.take(hash.size())?);
        }
        index.check()?;
        Ok(index)
    }

    fn check(&self) -> Result<(), String> {
        let first = self.starts.first().copied();
        if first.is_none() != (self.size == 0) || first.is_some_and(|start| start != 0) {
            return Err("its chunks do not begin where the blob does".into());
        }
        if self.size > i64::MAX as u64 {
            return Err("the blob is too large".into());
        }
        for at in 0..self.starts.len() {
            let Range { start, end } = self.range(at);
            if start >= end {
                return Err("its chunks are not in order".into());
            }
            if end - start > MAX_CHUNK {
                return Err(format!(
                    "it has a chunk of {} bytes; {MAX_CHUNK} are the most",
                    end - start
                ));
            }
        }
        let Some(stored) = &self.stored else {
            return Ok(());
        };
        for (at, pair) in stored.windows(2).enumerate() {
            self.check_stored(at, &(pair[0]..pair[1]))?;
        }
        Ok(())
    }

    /// Whether a compressed chunk may be as large as that.
    fn check_stored(&self, at: usize, stored: &Range<u64>) -> Result<(), String> {
        let Range { start, end } = self.range(at);
        let most = end - start + MAX_OVERHEAD;
        match stored.end.checked_sub(stored.start) {
            None | Some(0) => Err("its compressed chunks are not in order".into()),
            Some(len) if len > most => Err(format!(
                "it has a compressed chunk of {len} bytes for {}",
                end - start
            )),
            Some(_) => Ok(()),
        }
    }

    /// Makes the index of `size` bytes, in chunks of so many. With `compress`, they are compressed, and
    /// written there.
    pub fn build(
        mut data: impl Read,
        size: u64,
        chunk: u64,
        mut compress: Option<&mut dyn Write>,
    ) -> io::Result<Vec<u8>> {
        let too_many = || io::Error::other("so many chunks are too many; take larger ones");
        let count = u32::try_from(size.div_ceil(chunk)).map_err(|_| too_many())?;
        let len = HEADER as u64 + u64::from(count) * 48;
        if len > MAX_INDEX {
            return Err(too_many());
        }
        let mut out = Vec::with_capacity(len as usize);
        out.extend(MAGIC);
        out.extend([1, u8::from(compress.is_some()), 0, 0]);
        out.extend(size.to_le_bytes());
        out.extend(count.to_le_bytes());
        out.extend([1, 32]);
        out.extend([0; 10]);
        let mut buf = vec![0; chunk.min(size) as usize];
        let mut frame = Vec::new();
        let mut stored = 0u64;
        for at in 0..u64::from(count) {
            let start = at * chunk;
            let part = &mut buf[..chunk.min(size - start) as usize];
            data.read_exact(part)?;
            let bytes = match &mut compress {
                Some(to) => {
                    deflate(part, &mut frame)?;
                    to.write_all(&frame)?;
                    &frame[..]
                }
                None => part,
            };
            out.extend(stored.to_le_bytes());
            out.extend(start.to_le_bytes());
            out.extend(Sha256::digest(bytes));
            stored += bytes.len() as u64;
        }
        Ok(out)
    }

    /// Whether its chunks are compressed.
    pub fn is_compressed(&self) -> bool {
        self.stored.is_some()
    }

    /// Where the index is in its range of a blob.
    pub fn inside(range: &Range<u64>, is_compressed: bool) -> Range<u64> {
        let header = if is_compressed { FRAME_HEADER } else { 0 };
        (range.start + header).min(range.end)..range.end
    }

    /// How many bytes of the blob it vouches for.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// SHA-256 of the index itself, in hexadecimal digits.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    fn range(&self, at: usize) -> Range<u64> {
        self.starts[at]..self.starts.get(at + 1).copied().unwrap_or(self.size)
    }

    /// Where a chunk is in a blob whose chunks end at `end`.
    fn stored(&self, at: usize, end: u64) -> Range<u64> {
        match &self.stored {
            Some(stored) => stored[at]..stored.get(at + 1).copied().unwrap_or(end),
            None => self.range(at),
        }
    }

    /// The chunk with the byte at `off`, which is in the blob.
    fn at(&self, off: u64) -> usize {
        self.starts.partition_point(|start| *start <= off) - 1
    }

    /// The unit in which to fetch, for one that is `granule` bytes otherwise: a chunk, so that none is
    /// fetched twice, if all have the same size and that is a power of two.
    fn granule(&self, granule: u64) -> u64 {
        let chunk = self.starts.get(1).copied().unwrap_or(granule);
        let regular = || (1..self.starts.len()).all(|at| self.starts[at] == at as u64 * chunk);
        if chunk > granule && chunk.is_power_of_two() && regular() {
            chunk
        } else {
            granule
        }
    }

    /// The chunks, in order.
    pub fn chunks(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        (0..self.starts.len()).map(|at| self.range(at))
    }

    /// Whether these are the bytes of a chunk, as it is stored.
    pub fn is_right(&self, at: usize, data: &[u8]) -> bool {
        let len = self.hash.size();
        let sum = &self.sums[at * len..][..len];
        match self.hash {
            Hash::Sha256 => Sha256::digest(data)[..] == *sum,
            Hash::Sha512 => Sha512::digest(data)[..] == *sum,
        }
    }
}

/// Compresses a chunk.
fn deflate(data: &[u8], frame: &mut Vec<u8>) -> io::Result<()> {
    frame.clear();
    frame.reserve(zstd_safe::compress_bound(data.len()));
    zstd_safe::compress(frame, data, zstd_safe::CLEVEL_DEFAULT)
        .map(drop)
        .map_err(|code| io::Error::other(zstd_safe::get_error_name(code)))
}

/// Inflates a chunk of `len` bytes, whatever the frame says of itself; `data` has that length afterwards.
fn inflate(frame: &[u8], len: usize, data: &mut Vec<u8>) -> Result<(), String> {
    // What is behind the first frame, in the last chunk, has no data.
    let end = zstd_safe::find_frame_compressed_size(frame).map_err(zstd_safe::get_error_name)?;
    data.resize(len, 0);
    match zstd_safe::decompress(&mut data[..], &frame[..end]) {
        Ok(got) if got == len => Ok(()),
        Ok(got) => Err(format!("it has {got} bytes instead of {len}")),
        Err(code) => Err(zstd_safe::get_error_name(code).into()),
    }
}

/// A blob with its index.
pub struct Verified {
    blob: Arc<dyn Blob>,
    index: Arc<ChunkIndex>,
    /// Where the chunks end in the blob.
    end: u64,
    version: String,
    whole: Option<String>,
}

impl Verified {
    pub fn new(blob: Arc<dyn Blob>, index: Arc<ChunkIndex>) -> Result<Self, SourceError> {
        let end = blob.size();
        Self::with_end(blob, index, end)
    }

    /// A blob whose chunks end at `end`, which is before its own end if there is something behind.
    pub fn with_end(
        blob: Arc<dyn Blob>,
        index: Arc<ChunkIndex>,
        end: u64,
    ) -> Result<Self, SourceError> {
        let last = index.starts.len().checked_sub(1);
        let stored = last.map_or(0..0, |last| index.stored(last, end));
        if stored.end > end || end > blob.size() {
            return Err(SourceError::new(
                libc::EIO,
                format!(
                    "the blob has {} bytes for its chunks, its chunk index is for {}",
                    end.min(blob.size()),
                    stored.end
                ),
            ));
        }
        if let Some(last) = last.filter(|_| index.is_compressed()) {
            let wrong = |reason| SourceError::new(libc::EIO, format!("the chunk index: {reason}"));
            index.check_stored(last, &stored).map_err(wrong)?;
        }
        // The digest of a blob is that of its bytes as they are stored. It has none if something else is
        // behind the data.
        let plain = !index.is_compressed() && blob.size() == index.size();
        let whole = blob.whole().filter(|_| plain).map(str::to_string);
        Ok(Self {
            blob,
            end,
            // It says what each byte is. What was cached without it, or with another one, does not count.
            version: format!("chunks {}", index.digest()),
            index,
            whole,
        })
    }

    /// All of its bytes have this SHA-256, in hexadecimal digits.
    pub fn with_whole(self, whole: Option<String>) -> Self {
        Self {
            whole: whole.or(self.whole),
            ..self
        }
    }
}

impl Blob for Verified {
    fn size(&self) -> u64 {
        self.index.size()
    }

    fn version(&self) -> Option<&str> {
        Some(&self.version)
    }

    fn server(&self) -> Arc<str> {
        self.blob.server()
    }

    fn whole(&self) -> Option<&str> {
        self.whole.as_deref()
    }

    fn index(&self) -> Option<&ChunkIndex> {
        // What is in the cache cannot be compared with the checksums of compressed chunks.
        (!self.index.is_compressed()).then_some(&self.index)
    }

    fn granule(&self, granule: u64) -> u64 {
        self.index.granule(granule)
    }

    fn read_exact_at(&self, buf: &mut [u8], off: u64) -> Result<(), SourceError> {
        self.read_into(&mut super::Slice::new(buf, off))
    }

    fn read_into(&self, sink: &mut dyn Sink) -> Result<(), SourceError> {
        let want = sink.rest();
        if want.is_empty() {
            return Ok(());
        }
        if want.end > self.size() {
            return Err(SourceError::new(libc::EIO, "beyond the end of the blob"));
        }
        let last = self.index.at(want.end - 1);
        let mut check = Check {
            index: &self.index,
            sink,
            at: self.index.at(want.start),
            have: 0,
            buf: Vec::new(),
            inflated: Vec::new(),
            last,
            end: self.index.stored(last, self.end).end,
        };
        self.blob.read_into(&mut check)
    }
}

/// Takes whole chunks, and passes on what is wanted of those that are right. What comes in are the bytes as
/// they are stored.
struct Check<'a, 'b> {
    index: &'a ChunkIndex,
    sink: &'b mut dyn Sink,
    /// The chunk that is coming, ...
    at: usize,
    /// ... of which so many bytes are here.
    have: usize,
    buf: Vec<u8>,
    /// If it is compressed, what it is otherwise.
    inflated: Vec<u8>,
    /// The last chunk, and where it ends.
    last: usize,
    end: u64,
}

impl Check<'_, '_> {
    /// Where the chunk that is coming is stored, or nothing behind the last one.
    fn chunk(&self) -> Range<u64> {
        match self.at <= self.last {
            true => self.index.stored(self.at, self.end),
            false => self.end..self.end,
        }
    }

    fn pass_on(&mut self) -> Result<(), SourceError> {
        let chunk = self.index.range(self.at);
        let len = (chunk.end - chunk.start) as usize;
        if self.index.is_compressed() {
            inflate(&self.buf, len, &mut self.inflated).map_err(|reason| {
                let last = chunk.end - 1;
                SourceError::new(
                    libc::EIO,
                    format!("{} to {last} cannot be inflated: {reason}", chunk.start),
                )
            })?;
        } else {
            // No copy: both are of this length.
            std::mem::swap(&mut self.buf, &mut self.inflated);
        }
        loop {
            let rest = self.sink.rest();
            if rest.is_empty() || rest.start >= chunk.end {
                return Ok(());
            }
            let from = (rest.start - chunk.start) as usize;
            let space = self.sink.space();
            let data = &self.inflated[from..len];
            let len = data.len().min(space.len());
            space[..len].copy_from_slice(&data[..len]);
            self.sink.filled(len)?;
        }
    }
}

impl Sink for Check<'_, '_> {
    fn rest(&self) -> Range<u64> {
        self.chunk().start + self.have as u64..self.end
    }

    fn space(&mut self) -> &mut [u8] {
        let chunk = self.chunk();
        self.buf.resize((chunk.end - chunk.start) as usize, 0);
        &mut self.buf[self.have..]
    }

    fn filled(&mut self, len: usize) -> Result<(), SourceError> {
        let chunk = self.chunk();
        self.have += len;
        if (self.have as u64) < chunk.end - chunk.start {
            return Ok(());
        }
        // Whatever comes next: the whole chunk again, or the one behind it.
        self.have = 0;
        if !self.index.is_right(self.at, &self.buf) {
            let Range { start, end } = self.index.range(self.at);
            return Err(SourceError {
                wrong_bytes: true,
                ..SourceError::new(
                    libc::EIO,
                    format!(
                        "wrong bytes: {start} to {} do not have their digest",
                        end - 1
                    ),
                )
            });
        }
        self.pass_on()?;
        self.at += 1;
        Ok(())
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::object::tests::MemoryBlob;
    use proptest::prelude::*;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    fn build(data: &[u8], chunk: u64) -> Vec<u8> {
        ChunkIndex::build(data, data.len() as u64, chunk, None).unwrap()
    }

    /// A blob one byte of which is wrong now and then.
    struct Liar {
        data: Vec<u8>,
        wrong: usize,
        reads: AtomicUsize,
    }

    impl Blob for Liar {
        fn size(&self) -> u64 {
            self.data.len() as u64
        }

        fn version(&self) -> Option<&str> {
            Some("v")
        }

        fn read_exact_at(&self, buf: &mut [u8], off: u64) -> Result<(), SourceError> {
            self.reads.fetch_add(1, SeqCst);
            buf.copy_from_slice(&self.data[off as usize..][..buf.len()]);
            if let Some(at) = self.wrong.checked_sub(off as usize) {
                if let Some(byte) = buf.get_mut(at) {
                    *byte ^= 1;
                }
            }
            Ok(())
        }
    }

    #[test]
    fn what_was_built_is_read() {
        for (len, chunk, chunks) in [
            (0, 4096, 0),
            (1, 4096, 1),
            (4096, 4096, 1),
            (10_000, 4096, 3),
        ] {
            let data: Vec<u8> = (0..len).map(|i| i as u8).collect();
            let bytes = build(&data, chunk);
            assert_eq!(bytes.len(), HEADER + chunks * 48);
            let index = ChunkIndex::parse(&bytes).unwrap();
            assert_eq!((index.size(), index.starts.len()), (len as u64, chunks));
            for at in 0..chunks {
                let range = index.range(at);
                let part = &data[range.start as usize..range.end as usize];
                assert!(index.is_right(at, part));
                assert_eq!(index.at(range.start), at);
                assert_eq!(index.at(range.end - 1), at);
            }
        }
        assert!(ChunkIndex::build(&[0u8; 9][..], 10, 4096, None).is_err());
        assert!(ChunkIndex::build(&[][..], u64::MAX, 4096, None).is_err());
    }

    #[test]
    fn wrong_indexes() {
        let good = build(&[7; 10_000], 4096);
        let with = |at: usize, value: &[u8]| {
            let mut bytes = good.clone();
            bytes[at..at + value.len()].copy_from_slice(value);
            ChunkIndex::parse(&bytes).map(|_| ()).unwrap_err()
        };
        for (at, value, part) in [
            (0, &[0][..], "does not begin"),
            (4, &[2], "version 2"),
            (5, &[2], "compression 2"),
            (6, &[1], "flags 0x1"),
            (7, &[1], "flags 0x100"),
            (8, &[0; 8], "do not begin where"),
            (8, &[0, 0, 128, 0], "a chunk of"),
            (8, &[0, 32], "not in order"),
            (15, &[0x80], "too large"),
            (16, &[4], "do not have"),
            (16, &[0xff; 4], "do not have"),
            (20, &[0, 0], "no checksums"),
            (20, &[2], "checksums 2"),
            (21, &[16], "of 16 bytes"),
            (21, &[64], "do not have"),
            (22, &[1], "reserved"),
            (31, &[1], "reserved"),
            (32, &[1], "where its data belongs"),
            (32, &[1, 0, 0, 0, 0, 0, 0, 0, 1], "do not begin where"),
        ] {
            let err = with(at, value);
            assert!(err.contains(part), "{at}: {err}");
        }
        for len in 0..good.len() {
            assert!(ChunkIndex::parse(&good[..len]).is_err());
        }
    }

    #[test]
    fn the_granule_is_a_chunk_if_that_is_larger() {
        let granule = |chunk| {
            let index = ChunkIndex::parse(&build(&[7; 100_000], chunk)).unwrap();
            index.granule(16 << 10)
        };
        assert_eq!(granule(32 << 10), 32 << 10);
        assert_eq!(granule(4 << 10), 16 << 10);
        assert_eq!(granule(20_000), 16 << 10);
        assert_eq!(granule(100_000), 16 << 10);
    }

    fn verified(blob: Arc<dyn Blob>, index: &[u8]) -> Verified {
        Verified::new(blob, Arc::new(ChunkIndex::parse(index).unwrap())).unwrap()
    }

    #[test]
    fn only_what_is_right_is_passed_on() {
        let data: Vec<u8> = (0..40_000u32).map(|i| (i / 7) as u8).collect();
        let index = build(&data, 4096);
        let blob = verified(
            Arc::new(Liar {
                data: data.clone(),
                wrong: 9000,
                reads: AtomicUsize::new(0),
            }),
            &index,
        );
        let mut buf = vec![0; 4096];
        blob.read_exact_at(&mut buf, 0).unwrap();
        assert!(buf == data[..4096]);
        // A part of the wrong chunk is as wrong as all of it.
        let err = blob.read_exact_at(&mut buf[..10], 8200).unwrap_err();
        assert!(err.wrong_bytes && err.errno == libc::EIO, "{err}");
        assert!(err.reason.contains("8192 to 12287"), "{err}");
        // Across chunks: what comes before it is used.
        let mut buf = vec![0xee; 20_000];
        assert!(blob.read_exact_at(&mut buf, 5000).is_err());
        assert!(buf[..3192] == data[5000..8192] && buf[3192..].iter().all(|b| *b == 0xee));
        let mut end = vec![0; 1];
        blob.read_exact_at(&mut end, 39_999).unwrap();
        assert_eq!(end[0], data[39_999]);
        assert!(blob.read_exact_at(&mut end, 40_000).is_err());
        // Less than the index vouches for cannot be it.
        let short = MemoryBlob::new(100);
        let index = Arc::new(ChunkIndex::parse(&index).unwrap());
        assert!(Verified::new(short, index).is_err());
    }

    fn compressed(data: &[u8], chunk: u64) -> (Vec<u8>, Vec<u8>) {
        let mut blob = Vec::new();
        let index = ChunkIndex::build(data, data.len() as u64, chunk, Some(&mut blob)).unwrap();
        (blob, index)
    }

    fn memory(data: Vec<u8>) -> Arc<dyn Blob> {
        Arc::new(Liar {
            data,
            wrong: usize::MAX,
            reads: AtomicUsize::new(0),
        })
    }

    #[test]
    fn compressed_chunks_are_inflated() {
        let data: Vec<u8> = (0..40_000u32).map(|i| (i / 70) as u8).collect();
        let (stored, index) = compressed(&data, 4096);
        assert!(stored.len() < data.len() / 10, "{}", stored.len());
        let check = |blob: &Verified| {
            assert_eq!(blob.size(), 40_000);
            assert!(blob.whole().is_none() && blob.index().is_none());
            for range in [0..1, 4095..4097, 5000..30_000, 39_999..40_000, 0..40_000] {
                let mut buf = vec![0; range.len()];
                blob.read_exact_at(&mut buf, range.start as u64).unwrap();
                assert!(buf == data[range]);
            }
        };
        check(&verified(memory(stored.clone()), &index));
        // With the index behind them, in a frame of its own, and padding in another one.
        let mut inside = stored.clone();
        inside.extend([0x50, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 0, 0]);
        let end = inside.len() as u64;
        inside.extend([0x5a, 0x2a, 0x4d, 0x18]);
        inside.extend((index.len() as u32).to_le_bytes());
        inside.extend(&index);
        let range = ChunkIndex::inside(&(end..inside.len() as u64), true);
        let found = &inside[range.start as usize..range.end as usize];
        assert!(found == index);
        // The padding is a part of the last chunk, and of its checksum.
        let mut with_padding = index.clone();
        let entry = with_padding.len() - 48;
        let start: [u8; 8] = with_padding[entry..entry + 8].try_into().unwrap();
        let last = &inside[u64::from_le_bytes(start) as usize..end as usize];
        with_padding[entry + 16..].copy_from_slice(&Sha256::digest(last));
        let parsed = Arc::new(ChunkIndex::parse(&with_padding).unwrap());
        check(&Verified::with_end(memory(inside), parsed, end).unwrap());
    }

    /// An index for one chunk that inflates to `len` bytes, whatever it is.
    fn one(frame: &[u8], len: u64) -> Vec<u8> {
        let mut index = compressed(&vec![0; len as usize], len).1;
        index[HEADER + 16..].copy_from_slice(&Sha256::digest(frame));
        index
    }

    #[test]
    fn what_is_right_and_cannot_be_inflated_is_an_error() {
        let read = |frame: &[u8], len: u64| {
            let blob = verified(memory(frame.to_vec()), &one(frame, len));
            let mut buf = vec![0; len as usize];
            blob.read_exact_at(&mut buf, 0)
        };
        let (frame, _) = compressed(&[7; 10_000], 10_000);
        read(&frame, 10_000).unwrap();
        // A frame that says nothing of its size and would be 2 GiB: blocks of 128 KiB, in four bytes each.
        let mut bomb = vec![0x28, 0xb5, 0x2f, 0xfd, 0, 0x58];
        bomb.extend([0x02, 0, 0x10, 0].repeat(15_000));
        bomb.extend([1, 0, 0]);
        for (frame, len) in [
            (&frame[..], 9_999),
            (&frame[..], 10_001),
            (&frame[1..], 10_000),
            (&frame[..frame.len() - 1], 10_000),
            (&bomb[..], 10_000),
            (&b"no frame"[..], 10_000),
            (&[0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0][..], 10_000),
        ] {
            let err = read(frame, len).unwrap_err();
            // No other server would have something else.
            assert!(!err.wrong_bytes && err.errno == libc::EIO, "{err}");
            assert!(err.reason.contains("cannot be inflated"), "{err}");
        }
        // A frame with more in it than there may be is not even fetched.
        let index = one(&frame, 4096);
        let huge = memory(vec![0; 4096 + MAX_OVERHEAD as usize + 1]);
        let index = Arc::new(ChunkIndex::parse(&index).unwrap());
        let err = Verified::new(huge, index).err().unwrap();
        assert!(err.reason.contains("compressed chunk of"), "{err}");
    }

    #[test]
    fn wrong_compressed_indexes() {
        let (stored, good) = compressed(&[7; 10_000], 4096);
        let with = |at: usize, value: u64| {
            let mut bytes = good.clone();
            bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
            ChunkIndex::parse(&bytes).and_then(|index| {
                let blob = Verified::new(memory(stored.clone()), Arc::new(index));
                blob.map(|_| ()).map_err(|err| err.reason)
            })
        };
        // Where the second and the third chunk are.
        for (at, value, part) in [
            (HEADER + 48, 0, "not in order"),
            (HEADER + 48, 1 << 40, "compressed chunk of"),
            (HEADER + 48, u64::MAX, "compressed chunk of"),
            (HEADER + 96, 0, "not in order"),
            (HEADER + 96, stored.len() as u64, "not in order"),
            (HEADER + 96, 60_000, "not in order"),
        ] {
            let err = with(at, value).unwrap_err();
            assert!(err.contains(part), "{at} {value}: {err}");
        }
        with(HEADER + 96, stored.len() as u64 - 1).unwrap();
    }

    proptest! {
        /// Whatever a frame is: an error, or as many bytes as there are to be.
        #[test]
        fn nothing_breaks_inflating(
            mut frame in proptest::collection::vec(any::<u8>(), 0..200), len in 1usize..5000, real: bool,
            at: usize, bit in 0u8..8,
        ) {
            if real {
                let data: Vec<u8> = frame.iter().cycle().take(len).map(|b| b / 16).collect();
                deflate(&data, &mut frame).unwrap();
                let at = at % frame.len();
                frame[at] ^= 1 << bit;
            }
            let mut data = Vec::new();
            if inflate(&frame, len, &mut data).is_ok() {
                prop_assert_eq!(data.len(), len);
            }
        }

        #[test]
        fn nothing_breaks_it(mut bytes in proptest::collection::vec(any::<u8>(), 0..300), head: bool) {
            if head && bytes.len() >= HEADER {
                let good = build(&[7; 10_000], 4096);
                bytes[..7].copy_from_slice(&good[..7]);
                bytes[16..32].copy_from_slice(&good[16..32]);
            }
            if let Ok(index) = ChunkIndex::parse(&bytes) {
                prop_assert!(index.starts.len() * 48 < bytes.len());
            }
        }

        /// However it is read and wherever a byte is wrong: no other bytes than those that were indexed.
        #[test]
        fn no_wrong_byte_passes(
            len in 1usize..20_000, chunk in 1u64..5000, off: u16, size: u16, wrong in proptest::option::of(0usize..20_000),
        ) {
            let data: Vec<u8> = (0..len).map(|i| (i / 3) as u8).collect();
            let index = build(&data, chunk);
            let blob = verified(
                Arc::new(Liar { data: data.clone(), wrong: wrong.unwrap_or(usize::MAX), reads: AtomicUsize::new(0) }),
                &index,
            );
            let off = usize::from(off) % len;
            let size = (usize::from(size) + 1).min(len - off);
            let mut buf = vec![0; size];
            let result = blob.read_exact_at(&mut buf, off as u64);
            let chunk = chunk as usize;
            let touched = off / chunk * chunk..((off + size - 1) / chunk + 1) * chunk;
            let spoilt = wrong.is_some_and(|at| at < len && touched.contains(&at));
            prop_assert_eq!(result.is_err(), spoilt);
            if !spoilt {
                prop_assert!(buf == data[off..off + size]);
            }
        }
    }
}
