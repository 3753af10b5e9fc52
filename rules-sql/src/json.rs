//! The payload as JSON: scanned once into a flat list of nodes over the text; nothing is decoded until it is asked for.
//!
//! A node is a value's place in the text, its key's place and the index of the node after its subtree, so a path is
//! found by skipping over whole subtrees, numbers keep their text, and copying a value is copying its text. One
//! allocation at most per message: up to [`INLINE_NODES`] nodes live inside the document. Strings and digits are passed
//! over eight bytes at a time.
//!
//! Why not a library's tree: on a reading of 150 bytes a rule's whole evaluation takes a third of what building a
//! `serde_json::Value` alone does (`benches/evaluate.rs`), and a tree loses the numbers' text. The property tests
//! compare what is accepted, and what is copied, with serde_json.
//!
//! Strict [RFC 8259]: UTF-8, no lone surrogate escape, no control character in a string, nothing after the document,
//! and nesting up to a limit. The same key twice: the last wins, wherever a member is looked up or copied.

use std::borrow::Cow;
use std::collections::HashMap;

use smallvec::SmallVec;

/// Nodes kept without an allocation.
const INLINE_NODES: usize = 24;
/// Objects up to this many members are searched for repeated keys pair by pair.
const PAIRWISE_MEMBERS: usize = 16;

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Null,
    True,
    False,
    Number,
    String,
    Array,
    Object,
}

#[derive(Clone, Copy, Debug)]
struct Raw {
    /// The key between its quotes; empty for elements.
    key_start: u32,
    key_len: u32,
    /// The value's text, quotes included.
    start: u32,
    end: u32,
    /// Index of the node after this one and all below it.
    next: u32,
    kind: Kind,
    key_escaped: bool,
    escaped: bool,
}

const NOTHING: Raw = Raw {
    key_start: 0,
    key_len: 0,
    start: 0,
    end: 0,
    next: 0,
    kind: Kind::Null,
    key_escaped: false,
    escaped: false,
};

/// A scanned JSON document; without a node until one was scanned.
#[derive(Debug, Default)]
pub(crate) struct Document<'a> {
    text: &'a str,
    nodes: SmallVec<[Raw; INLINE_NODES]>,
}

/// A value in a document.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Node<'d> {
    document: &'d Document<'d>,
    index: u32,
}

impl<'a> Document<'a> {
    /// Scans JSON text. `None`: it is not one JSON document, or nested deeper than `depth`.
    pub(crate) fn scan_text(text: &'a str, depth: usize) -> Option<Document<'a>> {
        let mut document = Document::default();
        document.fill_text(text, depth)?;
        Some(document)
    }

    /// Scans a whole payload in place: a document is large, and moving it would cost as much as some of the scanning.
    ///
    /// `None`: it is not one JSON document, or nested deeper than `depth`.
    pub(crate) fn fill(&mut self, payload: &'a [u8], depth: usize) -> Option<()> {
        self.fill_text(std::str::from_utf8(payload).ok()?, depth)
    }

    fn fill_text(&mut self, text: &'a str, depth: usize) -> Option<()> {
        u32::try_from(text.len()).ok()?;
        self.text = text;
        self.nodes.clear();
        Scanner { bytes: text.as_bytes(), at: 0, nodes: &mut self.nodes }.document(depth)
    }

    pub(crate) fn root(&self) -> Option<Node<'_>> {
        self.nodes.first()?;
        Some(Node { document: self, index: 0 })
    }
}

impl<'d> Node<'d> {
    /// A node is only made for an index that is there.
    fn raw(self) -> Raw {
        self.document.nodes.get(self.index as usize).copied().unwrap_or(NOTHING)
    }

    /// Its place among the nodes, which is their order in the text.
    pub(crate) fn index(self) -> u32 {
        self.index
    }

    pub(crate) fn kind(self) -> Kind {
        self.raw().kind
    }

    fn slice(self, start: u32, end: u32) -> &'d str {
        self.document.text.get(start as usize..end as usize).unwrap_or("")
    }

    /// The value's text as it stands in the document.
    pub(crate) fn raw_text(self) -> &'d str {
        let raw = self.raw();
        self.slice(raw.start, raw.end)
    }

    /// The text of a String, decoded.
    pub(crate) fn string(self) -> Cow<'d, str> {
        let raw = self.raw();
        let inner = self.slice(raw.start + 1, raw.end.saturating_sub(1));
        if raw.escaped { Cow::Owned(unescape(inner)) } else { Cow::Borrowed(inner) }
    }

    /// The member's key, decoded.
    pub(crate) fn key(self) -> Cow<'d, str> {
        let key = self.raw_key();
        if self.raw().key_escaped { Cow::Owned(unescape(key)) } else { Cow::Borrowed(key) }
    }

    fn raw_key(self) -> &'d str {
        let raw = self.raw();
        self.slice(raw.key_start, raw.key_start + raw.key_len)
    }

    /// Elements of an Array or members of an Object as written, repeated keys included.
    pub(crate) fn children(self) -> Children<'d> {
        let raw = self.raw();
        let container = matches!(raw.kind, Kind::Array | Kind::Object);
        Children { parent: self, next: self.index + 1, end: if container { raw.next } else { 0 } }
    }

    /// The last member with this key; `None` for what is not an Object too. `visited` grows by the members passed.
    pub(crate) fn member(self, key: &str, visited: &mut usize) -> Option<Node<'d>> {
        let own = self.raw();
        if own.kind != Kind::Object {
            return None;
        }
        let mut found = None;
        let mut index = self.index + 1;
        let (bytes, wanted) = (self.document.text.as_bytes(), key.as_bytes());
        let nodes = self.document.nodes.as_slice();
        while index < own.next {
            *visited += 1;
            let raw = nodes.get(index as usize)?;
            let same = if raw.key_escaped {
                unescape(self.slice(raw.key_start, raw.key_start + raw.key_len)) == key
            } else {
                raw.key_len as usize == wanted.len()
                    && bytes.get(raw.key_start as usize..(raw.key_start + raw.key_len) as usize)
                        == Some(wanted)
            };
            if same {
                found = Some(index);
            }
            index = raw.next;
        }
        Some(Node { index: found?, ..self })
    }

    /// Members of an Object, each key once with its last value, in the order of first appearance.
    pub(crate) fn members(self) -> Vec<Node<'d>> {
        let mut members: Vec<Node<'d>> = self.children().collect();
        if members.len() <= PAIRWISE_MEMBERS {
            let repeated = |list: &[Node<'d>]| {
                let mut rest = list;
                while let Some((first, others)) = rest.split_first() {
                    if others.iter().any(|other| other.same_key(*first)) {
                        return true;
                    }
                    rest = others;
                }
                false
            };
            if !repeated(&members) {
                return members;
            }
        }
        let mut places: HashMap<Cow<'d, str>, usize> = HashMap::with_capacity(members.len());
        let mut kept: Vec<Node<'d>> = Vec::with_capacity(members.len());
        for member in members.drain(..) {
            let place = *places.entry(member.key()).or_insert(kept.len());
            match kept.get_mut(place) {
                Some(earlier) => *earlier = member,
                None => kept.push(member),
            }
        }
        kept
    }

    fn same_key(self, other: Node<'d>) -> bool {
        let (a, b) = (self.raw(), other.raw());
        if a.key_escaped || b.key_escaped {
            return self.key() == other.key();
        }
        let bytes = self.document.text.as_bytes();
        let key = |raw: Raw| bytes.get(raw.key_start as usize..(raw.key_start + raw.key_len) as usize);
        a.key_len == b.key_len && key(a) == key(b)
    }

    /// Number of elements of an Array.
    pub(crate) fn len(self) -> usize {
        self.children().count()
    }

    /// Appends the value as compact JSON, repeated keys settled.
    pub(crate) fn write(self, out: &mut Vec<u8>) {
        self.write_if(&|_| true, out);
    }

    /// As [`Self::write`], with only those values, members and elements that are `wanted`.
    pub(crate) fn write_if(self, wanted: &impl Fn(Node<'d>) -> bool, out: &mut Vec<u8>) {
        if !wanted(self) {
            return;
        }
        match self.kind() {
            Kind::Array => {
                out.push(b'[');
                for (position, child) in self.children().filter(|child| wanted(*child)).enumerate() {
                    if position > 0 {
                        out.push(b',');
                    }
                    child.write_if(wanted, out);
                }
                out.push(b']');
            }
            Kind::Object => {
                out.push(b'{');
                let members = self.members().into_iter().filter(|child| wanted(*child));
                for (position, child) in members.enumerate() {
                    if position > 0 {
                        out.push(b',');
                    }
                    child.write_key(out);
                    child.write_if(wanted, out);
                }
                out.push(b'}');
            }
            Kind::Null | Kind::True | Kind::False | Kind::Number | Kind::String => {
                out.extend_from_slice(self.raw_text().as_bytes());
            }
        }
    }

    /// Appends the key and its colon.
    pub(crate) fn write_key(self, out: &mut Vec<u8>) {
        out.push(b'"');
        out.extend_from_slice(self.raw_key().as_bytes());
        out.extend_from_slice(b"\":");
    }

    /// Where the value's text begins.
    pub(crate) fn start(self) -> usize {
        self.raw().start as usize
    }

    /// Bytes of the value's text.
    pub(crate) fn text_len(self) -> usize {
        let raw = self.raw();
        (raw.end - raw.start) as usize
    }
}

/// The elements or members of a node.
pub(crate) struct Children<'d> {
    parent: Node<'d>,
    next: u32,
    end: u32,
}

impl<'d> Iterator for Children<'d> {
    type Item = Node<'d>;

    fn next(&mut self) -> Option<Node<'d>> {
        if self.next >= self.end {
            return None;
        }
        let index = self.next;
        self.next = self.parent.document.nodes.get(index as usize)?.next;
        Some(Node { index, ..self.parent })
    }
}

struct Scanner<'a, 'n> {
    bytes: &'a [u8],
    at: usize,
    nodes: &'n mut SmallVec<[Raw; INLINE_NODES]>,
}

/// A container that is open while scanning.
struct Open {
    index: usize,
    object: bool,
}

impl Scanner<'_, '_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    /// The next byte that is not white space.
    fn peek_token(&mut self) -> Option<u8> {
        loop {
            let byte = self.peek()?;
            if !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
                return Some(byte);
            }
            self.at += 1;
        }
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "the text's length fits a u32, which was checked before scanning"
    )]
    fn place(&self) -> u32 {
        self.at as u32
    }

    /// Passes over bytes up to the first that `stops` marks, eight at a time while there are so many.
    ///
    /// `stops` sets at least the highest bit of the first byte to stop at, and none of a byte before it.
    fn skip(&mut self, stops: impl Fn(u64) -> u64, stop: impl Fn(u8) -> bool) {
        while let Some(word) = self.bytes.get(self.at..).and_then(|rest| rest.first_chunk()) {
            let marks = stops(u64::from_le_bytes(*word));
            if marks != 0 {
                self.at += (marks.trailing_zeros() / 8) as usize;
                return;
            }
            self.at += 8;
        }
        while self.peek().is_some_and(|byte| !stop(byte)) {
            self.at += 1;
        }
    }

    fn document(&mut self, depth: usize) -> Option<()> {
        let mut stack: SmallVec<[Open; 16]> = SmallVec::new();
        let mut key = (0, 0, false);
        'value: loop {
            let byte = self.peek_token()?;
            let index = self.nodes.len();
            let mut raw = Raw {
                key_start: key.0,
                key_len: key.1,
                start: self.place(),
                end: 0,
                next: u32::try_from(index + 1).ok()?,
                kind: Kind::Null,
                key_escaped: key.2,
                escaped: false,
            };
            match byte {
                b'{' | b'[' => {
                    if stack.len() >= depth {
                        return None;
                    }
                    let object = byte == b'{';
                    raw.kind = if object { Kind::Object } else { Kind::Array };
                    self.nodes.push(raw);
                    self.at += 1;
                    let close = if object { b'}' } else { b']' };
                    if self.peek_token()? == close {
                        self.at += 1;
                        self.close(index);
                    } else {
                        stack.push(Open { index, object });
                        key = if object { self.key()? } else { (0, 0, false) };
                        continue 'value;
                    }
                }
                b'"' => {
                    raw.kind = Kind::String;
                    raw.escaped = self.string()?;
                    raw.end = self.place();
                    self.nodes.push(raw);
                }
                b'-' | b'0'..=b'9' => {
                    raw.kind = Kind::Number;
                    self.number()?;
                    raw.end = self.place();
                    self.nodes.push(raw);
                }
                _ => {
                    raw.kind = self.word()?;
                    raw.end = self.place();
                    self.nodes.push(raw);
                }
            }
            // A value is complete: what follows belongs to the container it is in.
            loop {
                let Some(open) = stack.last() else {
                    return if self.peek_token().is_none() { Some(()) } else { None };
                };
                let byte = self.peek_token()?;
                self.at += 1;
                match (byte, open.object) {
                    (b',', true) => {
                        key = self.key()?;
                        continue 'value;
                    }
                    (b',', false) => {
                        key = (0, 0, false);
                        continue 'value;
                    }
                    (b'}', true) | (b']', false) => {
                        let index = open.index;
                        stack.pop();
                        self.close(index);
                    }
                    _ => return None,
                }
            }
        }
    }

    /// Ends the container at `index`, just behind its closing bracket.
    fn close(&mut self, index: usize) {
        let (end, next) = (self.place(), u32::try_from(self.nodes.len()).unwrap_or(u32::MAX));
        if let Some(raw) = self.nodes.get_mut(index) {
            raw.end = end;
            raw.next = next;
        }
    }

    /// A key and its colon: where the key's text is, how long, whether it holds escapes.
    fn key(&mut self) -> Option<(u32, u32, bool)> {
        if self.peek_token()? != b'"' {
            return None;
        }
        let start = self.place() + 1;
        let escaped = self.string()?;
        let len = self.place() - 1 - start;
        if self.peek_token()? != b':' {
            return None;
        }
        self.at += 1;
        Some((start, len, escaped))
    }

    /// Passes over a string, from quote to quote; true: it holds escapes.
    #[inline]
    fn string(&mut self) -> Option<bool> {
        self.at += 1;
        let mut escaped = false;
        loop {
            self.skip(string_stops, |byte| byte == b'"' || byte == b'\\' || byte < 0x20);
            match self.peek()? {
                b'"' => {
                    self.at += 1;
                    return Some(escaped);
                }
                b'\\' => {
                    escaped = true;
                    self.escape()?;
                }
                _ => return None,
            }
        }
    }

    fn escape(&mut self) -> Option<()> {
        self.at += 1;
        let kind = self.peek()?;
        self.at += 1;
        match kind {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(()),
            b'u' => match self.hex4()? {
                0xDC00..=0xDFFF => None,
                0xD800..=0xDBFF => {
                    if self.bytes.get(self.at..self.at + 2)? != b"\\u" {
                        return None;
                    }
                    self.at += 2;
                    matches!(self.hex4()?, 0xDC00..=0xDFFF).then_some(())
                }
                _ => Some(()),
            },
            _ => None,
        }
    }

    fn hex4(&mut self) -> Option<u32> {
        let digits = self.bytes.get(self.at..self.at + 4)?;
        self.at += 4;
        hex(digits)
    }

    fn number(&mut self) -> Option<()> {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        match self.peek()? {
            b'0' => self.at += 1,
            b'1'..=b'9' => self.digits(),
            _ => return None,
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            if !self.peek()?.is_ascii_digit() {
                return None;
            }
            self.digits();
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            if !self.peek()?.is_ascii_digit() {
                return None;
            }
            self.digits();
        }
        Some(())
    }

    fn digits(&mut self) {
        self.skip(digit_stops, |byte| !byte.is_ascii_digit());
    }

    fn word(&mut self) -> Option<Kind> {
        let rest = self.bytes.get(self.at..)?;
        let (word, kind) = match rest.first()? {
            b't' => (&b"true"[..], Kind::True),
            b'f' => (&b"false"[..], Kind::False),
            b'n' => (&b"null"[..], Kind::Null),
            _ => return None,
        };
        if !rest.starts_with(word) {
            return None;
        }
        self.at += word.len();
        Some(kind)
    }
}

/// Every byte set to the same.
const fn eight(byte: u8) -> u64 {
    u64::from_le_bytes([byte; 8])
}

const HIGH_BITS: u64 = eight(0x80);

/// Marks the quote, the backslash and control characters: what plain text in a string ends at. Marks behind the first may
/// be wrong, as a byte that is below what is subtracted from it borrows from the next.
fn string_stops(word: u64) -> u64 {
    let control = word.wrapping_sub(eight(0x20));
    let quote = (word ^ eight(b'"')).wrapping_sub(eight(1));
    let backslash = (word ^ eight(b'\\')).wrapping_sub(eight(1));
    // A byte with the highest bit set is part of a longer character and none of these.
    (control | quote | backslash) & !word & HIGH_BITS
}

/// Marks all that are not digits.
fn digit_stops(word: u64) -> u64 {
    // A digit is 0 to 9 after the exclusive or; adding 0x76 carries anything from 10 to 0x7f into the highest bit, and
    // carries nothing beyond its own byte, as what has the highest bit set is masked out first.
    let value = word ^ eight(b'0');
    (((value & !HIGH_BITS) + eight(0x76)) | value) & HIGH_BITS
}

fn hex(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0, |value, &digit| Some(value * 16 + char::from(digit).to_digit(16)?))
}

/// Decodes the inside of a string the scanner has accepted.
fn unescape(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((plain, escape)) = rest.split_once('\\') {
        result.push_str(plain);
        let Some(kind) = escape.chars().next() else { break };
        rest = escape.get(kind.len_utf8()..).unwrap_or("");
        let single = match kind {
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => {
                let unit = |text: &str, from: usize| text.as_bytes().get(from..from + 4).and_then(hex);
                let first = unit(rest, 0).unwrap_or(0xFFFD);
                rest = rest.get(4..).unwrap_or("");
                if (0xD800..0xDC00).contains(&first) {
                    let second = unit(rest, 2).unwrap_or(0);
                    rest = rest.get(6..).unwrap_or("");
                    let code = 0x10000 + ((first - 0xD800) << 10) + second.saturating_sub(0xDC00);
                    char::from_u32(code).unwrap_or('\u{FFFD}')
                } else {
                    char::from_u32(first).unwrap_or('\u{FFFD}')
                }
            }
            other => other,
        };
        result.push(single);
    }
    result.push_str(rest);
    result
}

/// Appends a JSON string.
pub(crate) fn write_string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    write_escaped(text, out);
    out.push(b'"');
}

/// Appends text escaped for the inside of a JSON string.
pub(crate) fn write_escaped(text: &str, out: &mut Vec<u8>) {
    let mut rest = text.as_bytes();
    while let Some(plain) = rest.iter().position(|&b| b == b'"' || b == b'\\' || b < 0x20) {
        let Some((before, from)) = rest.split_at_checked(plain) else { break };
        out.extend_from_slice(before);
        let Some((&byte, after)) = from.split_first() else { break };
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0x08 => out.extend_from_slice(b"\\b"),
            0x0c => out.extend_from_slice(b"\\f"),
            other => out.extend_from_slice(format!("\\u{other:04x}").as_bytes()),
        }
        rest = after;
    }
    out.extend_from_slice(rest);
}
