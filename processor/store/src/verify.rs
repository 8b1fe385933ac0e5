//! Reads an LMDB file without mapping it and says whether it is sound.
//!
//! LMDB trusts its pages: a flipped bit in one can abort the process, write outside a buffer or hide a key,
//! and a mapped page beyond the end of a truncated file kills the process by a signal. So a file that may
//! be broken is read here first, with plain reads and checked arithmetic; whatever is wrong is an answer,
//! never a panic. It checks what LMDB relies on: both headers, every reachable page's number, kind and
//! bounds, the order of all keys, the counters of every tree, that no page is used twice or free and used,
//! and the checksum of every row of ours. It changes nothing.
//!
//! The layout is that of LMDB 0.9, data version 1 (`MDB_page`, `MDB_node`, `MDB_db`, `MDB_meta` in its
//! `mdb.c`); another version's file is reported as unsound, and a test writes and checks files with the
//! version that is built in.

use std::cmp::Ordering;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::environment::{PROGRESS, STATE};
use crate::row::{self, PROGRESS_KEY, ProgressRow};

const MAGIC: u32 = 0xBEEF_C0DE;
const VERSION: u32 = 1;
const PAGE_HEADER: usize = 16;
const NODE_HEADER: usize = 8;
const NO_PAGE: u64 = u64::MAX;

const PAGE_BRANCH: u16 = 0x01;
const PAGE_LEAF: u16 = 0x02;
const PAGE_OVERFLOW: u16 = 0x04;
const PAGE_META: u16 = 0x08;
const NODE_OVERFLOW: u16 = 0x01;
const NODE_TREE: u16 = 0x02;
const TREE_INTEGER_KEYS: u16 = 0x08;
/// Deeper than any tree LMDB can walk (`CURSOR_STACK`).
const DEEPEST: u16 = 32;

/// Says whether the file is sound; the inner error says what is not.
pub(crate) fn check(path: &Path) -> io::Result<Result<(), String>> {
    match check_file(path) {
        Ok(()) => Ok(Ok(())),
        Err(Problem::Unsound(what)) => Ok(Err(what)),
        Err(Problem::Io(error)) => Err(error),
    }
}

enum Problem {
    Unsound(String),
    Io(io::Error),
}

type Checked<T> = Result<T, Problem>;

impl From<io::Error> for Problem {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => unsound("the file is cut short"),
            _ => Self::Io(error),
        }
    }
}

fn unsound(what: impl Into<String>) -> Problem {
    Problem::Unsound(what.into())
}

fn require(holds: bool, what: &str) -> Checked<()> {
    if holds { Ok(()) } else { Err(unsound(what)) }
}

fn check_file(path: &Path) -> Checked<()> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    let meta = Meta::read(&file)?;
    let pages = length / meta.page_size;
    // The file may be shorter than the header says, by pages at the end that were never written because
    // they became free at once: not by most of it.
    require(meta.last_page <= pages.saturating_mul(2).saturating_add(4096), "the file is cut short")?;
    // Best effort: pages are read in key order, which is not the order on disk.
    let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::WillNeed);
    let page_size = usize::try_from(meta.page_size).map_err(|_| unsound("the page size is odd"))?;
    let mut walk = Walk { file: &file, page_size, last_page: meta.last_page, seen: Seen::new(meta.last_page)? };
    walk.main(&meta.main)?;
    walk.free_pages(&meta.free)
}

/// The newer of the two headers.
struct Meta {
    page_size: u64,
    free: Tree,
    main: Tree,
    last_page: u64,
    transaction: u64,
}

impl Meta {
    fn read(file: &File) -> Checked<Self> {
        let first = Self::read_at(file, 0)?;
        let second = Self::read_at(file, first.page_size)?;
        require(first.page_size == second.page_size, "the headers disagree")?;
        // As `mdb_env_pick_meta` does.
        Ok(if first.transaction < second.transaction { second } else { first })
    }

    fn read_at(file: &File, offset: u64) -> Checked<Self> {
        let mut page = [0; 152];
        file.read_exact_at(&mut page, offset)?;
        require(u16_at(&page, 10)? & PAGE_META != 0, "a header is not one")?;
        require(u32_at(&page, 16)? == MAGIC, "a header's magic number is wrong")?;
        require(u32_at(&page, 20)? == VERSION, "a header's version is unknown")?;
        let page_size = u64::from(u32_at(&page, 40)?);
        require(page_size.is_power_of_two() && (512..=65536).contains(&page_size), "the page size is odd")?;
        Ok(Self {
            page_size,
            free: Tree::parse(&page, 40)?,
            main: Tree::parse(&page, 88)?,
            last_page: u64_at(&page, 136)?,
            transaction: u64_at(&page, 144)?,
        })
    }
}

/// `MDB_db`.
struct Tree {
    flags: u16,
    depth: u16,
    branch_pages: u64,
    leaf_pages: u64,
    overflow_pages: u64,
    entries: u64,
    root: u64,
}

impl Tree {
    fn parse(bytes: &[u8], at: usize) -> Checked<Self> {
        Ok(Self {
            flags: u16_at(bytes, at + 4)?,
            depth: u16_at(bytes, at + 6)?,
            branch_pages: u64_at(bytes, at + 8)?,
            leaf_pages: u64_at(bytes, at + 16)?,
            overflow_pages: u64_at(bytes, at + 24)?,
            entries: u64_at(bytes, at + 32)?,
            root: u64_at(bytes, at + 40)?,
        })
    }
}

/// Which pages have been accounted for.
struct Seen(Vec<u64>);

impl Seen {
    fn new(last_page: u64) -> Checked<Self> {
        let words = usize::try_from(last_page / 64 + 1).map_err(|_| unsound("the last page is out of range"))?;
        Ok(Self(vec![0; words]))
    }

    /// Accounts for a page; an error when it is out of range or already was.
    fn mark(&mut self, page: u64, last_page: u64) -> Checked<()> {
        require((2..=last_page).contains(&page), "a page number is out of range")?;
        let word = usize::try_from(page / 64).ok().and_then(|word| self.0.get_mut(word));
        let word = word.ok_or_else(|| unsound("a page number is out of range"))?;
        let bit = 1 << (page % 64);
        require(*word & bit == 0, "a page is used twice")?;
        *word |= bit;
        Ok(())
    }
}

/// A leaf's row as the walk hands it out: key, value, node flags.
type Visit<'visit> = dyn FnMut(&[u8], &[u8], u16) -> Checked<()> + 'visit;

struct Walk<'file> {
    file: &'file File,
    page_size: usize,
    last_page: u64,
    seen: Seen,
}

impl Walk<'_> {
    fn main(&mut self, main: &Tree) -> Checked<()> {
        require(main.flags == 0, "the main tree's flags are odd")?;
        let mut named = Vec::new();
        self.tree(main, &mut |name, tree, flags| {
            require(flags == NODE_TREE && tree.len() == 48, "the main tree has a row of its own")?;
            named.push((name.to_vec(), Tree::parse(tree, 0)?));
            Ok(())
        })?;
        for (name, tree) in named {
            require(tree.flags == 0, "a tree's flags are odd")?;
            if name == STATE.as_bytes() {
                self.tree(&tree, &mut |key, row, flags| {
                    require(flags == 0 && row::open(key, row).is_some(), "a value does not match its checksum")
                })?;
            } else {
                require(name == PROGRESS.as_bytes(), "there is an unknown tree")?;
                self.tree(&tree, &mut |key, row, flags| {
                    let sound = flags == 0 && key == PROGRESS_KEY && ProgressRow::decode(row).is_some();
                    require(sound, "the progress row does not match its checksum")
                })?;
            }
        }
        Ok(())
    }

    /// The tree of free pages: rows of page numbers, largest first, behind their count.
    fn free_pages(&mut self, free: &Tree) -> Checked<()> {
        require(free.flags == TREE_INTEGER_KEYS, "the flags of the file are odd")?;
        let mut lists = Vec::new();
        self.tree(free, &mut |key, list, flags| {
            require(flags == 0 && key.len() == 8, "a list of free pages is odd")?;
            lists.push(list.to_vec());
            Ok(())
        })?;
        for list in lists {
            let count = usize::try_from(u64_at(&list, 0)?).map_err(|_| unsound("a list of free pages is odd"))?;
            require(count < list.len() / 8, "a list of free pages is longer than its row")?;
            let mut above = NO_PAGE;
            for index in 1..=count {
                let page = u64_at(&list, index * 8)?;
                require(page < above, "a list of free pages is out of order")?;
                self.seen.mark(page, self.last_page)?;
                above = page;
            }
        }
        Ok(())
    }

    fn tree(&mut self, tree: &Tree, visit: &mut Visit<'_>) -> Checked<()> {
        let mut found = Found { integer_keys: tree.flags & TREE_INTEGER_KEYS != 0, ..Found::default() };
        if tree.root == NO_PAGE {
            require(tree.depth == 0, "an empty tree has a depth")?;
        } else {
            require((1..=DEEPEST).contains(&tree.depth), "a tree's depth is odd")?;
            self.page(tree.root, tree.depth, &mut found, visit)?;
        }
        let counters = [tree.branch_pages, tree.leaf_pages, tree.overflow_pages, tree.entries];
        require(
            counters == [found.branches, found.leaves, found.overflows, found.entries],
            "a tree's counters are wrong",
        )
    }

    /// Checks a page and, in key order, everything below it; leaves are at level 1.
    fn page(&mut self, number: u64, level: u16, found: &mut Found, visit: &mut Visit<'_>) -> Checked<()> {
        let page = self.read_page(number)?;
        let leaf = level == 1;
        require(u16_at(&page, 10)? == if leaf { PAGE_LEAF } else { PAGE_BRANCH }, "a page is of the wrong kind")?;
        let (lower, upper) = (usize::from(u16_at(&page, 12)?), usize::from(u16_at(&page, 14)?));
        let bounds = lower >= PAGE_HEADER && lower.is_multiple_of(2) && lower <= upper && upper <= page.len();
        require(bounds, "a page's bounds are odd")?;
        let nodes = (lower - PAGE_HEADER) / 2;
        require(nodes >= if leaf { 1 } else { 2 }, "a page has too few rows")?;
        let mut occupied = 0;
        for index in 0..nodes {
            let node = Node::parse(&page, usize::from(u16_at(&page, PAGE_HEADER + index * 2)?), upper, leaf)?;
            occupied += node.size;
            if leaf {
                found.next_key(node.key)?;
                self.row(&node, found, visit)?;
            } else {
                if index > 0 {
                    found.next_separator(node.key)?;
                }
                self.page(node.child, level - 1, found, visit)?;
            }
        }
        *(if leaf { &mut found.leaves } else { &mut found.branches }) += 1;
        require(occupied == page.len() - upper, "a page's rows do not fill it")
    }

    fn row(&mut self, node: &Node<'_>, found: &mut Found, visit: &mut Visit<'_>) -> Checked<()> {
        if node.flags & NODE_OVERFLOW == 0 {
            return visit(node.key, node.value, node.flags);
        }
        let first = u64_at(node.value, 0)?;
        let pages = (PAGE_HEADER - 1 + node.value_size) / self.page_size + 1;
        let last = first.checked_add(to_u64(pages - 1)).filter(|last| *last <= self.last_page);
        let last = last.ok_or_else(|| unsound("a long value is out of range"))?;
        let header = self.read_page(first)?;
        require(u16_at(&header, 10)? == PAGE_OVERFLOW, "a long value's page is of the wrong kind")?;
        require(u64::from(u32_at(&header, 12)?) == to_u64(pages), "a long value's length is wrong")?;
        for page in first + 1..=last {
            self.seen.mark(page, self.last_page)?;
        }
        found.overflows += to_u64(pages);
        let mut value = vec![0; node.value_size];
        self.file.read_exact_at(&mut value, self.offset(first)? + to_u64(PAGE_HEADER))?;
        visit(node.key, &value, node.flags & !NODE_OVERFLOW)
    }

    fn read_page(&mut self, number: u64) -> Checked<Vec<u8>> {
        self.seen.mark(number, self.last_page)?;
        let mut page = vec![0; self.page_size];
        self.file.read_exact_at(&mut page, self.offset(number)?)?;
        require(u64_at(&page, 0)? == number, "a page has another page's number")?;
        Ok(page)
    }

    fn offset(&self, page: u64) -> Checked<u64> {
        page.checked_mul(to_u64(self.page_size)).ok_or_else(|| unsound("a page number is out of range"))
    }
}

/// What a walk over one tree has come across.
#[derive(Default)]
struct Found {
    branches: u64,
    leaves: u64,
    overflows: u64,
    entries: u64,
    integer_keys: bool,
    last_key: Option<Vec<u8>>,
    /// Separator above which the next key must be, or at it.
    floor: Option<Vec<u8>>,
}

impl Found {
    fn compare(&self, left: &[u8], right: &[u8]) -> Checked<Ordering> {
        if self.integer_keys {
            return Ok(u64_at(left, 0)?.cmp(&u64_at(right, 0)?));
        }
        Ok(left.cmp(right))
    }

    fn next_key(&mut self, key: &[u8]) -> Checked<()> {
        if let Some(last) = &self.last_key {
            require(self.compare(last, key)?.is_lt(), "keys are out of order")?;
        }
        if let Some(floor) = self.floor.take() {
            require(self.compare(&floor, key)?.is_le(), "a key is below its page's range")?;
        }
        let mut last = self.last_key.take().unwrap_or_default();
        last.clear();
        last.extend_from_slice(key);
        self.last_key = Some(last);
        self.entries += 1;
        Ok(())
    }

    fn next_separator(&mut self, separator: &[u8]) -> Checked<()> {
        if let Some(last) = &self.last_key {
            require(self.compare(last, separator)?.is_lt(), "a key is above its page's range")?;
        }
        self.floor = Some(separator.to_vec());
        Ok(())
    }
}

/// `MDB_node`.
struct Node<'page> {
    key: &'page [u8],
    /// The value, or the number of the page where it is.
    value: &'page [u8],
    value_size: usize,
    flags: u16,
    /// Page number, in a branch.
    child: u64,
    /// Bytes it occupies in its page.
    size: usize,
}

impl<'page> Node<'page> {
    fn parse(page: &'page [u8], at: usize, upper: usize, leaf: bool) -> Checked<Self> {
        require(at >= upper && at.is_multiple_of(2), "a row is outside of its page")?;
        let (low, high) = (u32::from(u16_at(page, at)?), u32::from(u16_at(page, at + 2)?));
        let (flags, key_size) = (u16_at(page, at + 4)?, usize::from(u16_at(page, at + 6)?));
        let number = low | high << 16;
        let outside = || unsound("a row is outside of its page");
        let body = page.get(at + NODE_HEADER..).ok_or_else(outside)?;
        let (key, rest) = body.split_at_checked(key_size).ok_or_else(outside)?;
        let (mut value, mut value_size) = (&[][..], 0);
        if leaf {
            require(flags & !(NODE_OVERFLOW | NODE_TREE) == 0, "a row's flags are odd")?;
            value_size = usize::try_from(number).map_err(|_| outside())?;
            value = rest.get(..if flags & NODE_OVERFLOW == 0 { value_size } else { 8 }).ok_or_else(outside)?;
        }
        let child = u64::from(number) | u64::from(flags) << 32;
        let size = (NODE_HEADER + key_size + value.len()).next_multiple_of(2);
        Ok(Self { key, value, value_size, flags, child, size })
    }
}

fn bytes_at<const N: usize>(bytes: &[u8], at: usize) -> Checked<[u8; N]> {
    let found = bytes.get(at..).and_then(|rest| rest.first_chunk::<N>());
    found.copied().ok_or_else(|| unsound("a field is outside of its page"))
}

// LMDB files have the byte order of the machine that wrote them.
fn u16_at(bytes: &[u8], at: usize) -> Checked<u16> {
    bytes_at(bytes, at).map(u16::from_ne_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Checked<u32> {
    bytes_at(bytes, at).map(u32::from_ne_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Checked<u64> {
    bytes_at(bytes, at).map(u64::from_ne_bytes)
}

fn to_u64(size: usize) -> u64 {
    u64::try_from(size).unwrap_or(u64::MAX)
}
