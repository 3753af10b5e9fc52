//! Where a value was written: in a file, in an environment variable or on the command line.
//!
//! The parser knows byte offsets. Every text gets a range of offsets of its own, the file first, so that one offset tells
//! all of them apart and errors can quote the right text.

use std::ops::Range;
use std::path::{Path, PathBuf};

/// One text that values come from.
#[derive(Debug, Clone)]
struct Segment {
    start: usize,
    text: String,
    origin: Origin,
}

/// Who wrote a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A configuration file.
    File(PathBuf),
    /// An environment variable.
    Variable(String),
    /// A flag of the command line, with the key that it sets.
    Flag(String),
    /// The program itself, where the file says nothing.
    Defaults,
}

/// The texts of one configuration, in one space of offsets.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sources {
    segments: Vec<Segment>,
}

/// A place that a message can quote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) origin: Origin,
    /// Which of the texts, in the order in which they count.
    pub(crate) text_number: usize,
    /// 1 for the first line.
    pub(crate) line: usize,
    /// 1 for the first character of the line.
    pub(crate) column: usize,
    /// The whole line, without its end; empty where it may not be quoted.
    pub(crate) text: String,
    /// Characters of that line that the message is about; at least 1.
    pub(crate) width: usize,
}

impl Sources {
    /// Adds a text; returns the offset of its first byte.
    pub(crate) fn add(&mut self, origin: Origin, text: &str) -> Range<usize> {
        // One byte between two texts, so that an empty range at the end of one is not the start of the next.
        let start = self.segments.last().map_or(0, |last| last.start + last.text.len() + 1);
        self.segments.push(Segment { start, text: text.to_owned(), origin });
        start..start + text.len()
    }

    /// The folder of the first file, to which relative paths relate.
    pub(crate) fn folder(&self) -> Option<&Path> {
        self.segments.iter().find_map(|segment| match &segment.origin {
            Origin::File(path) => path.parent(),
            Origin::Variable(_) | Origin::Flag(_) | Origin::Defaults => None,
        })
    }

    /// The place of a range of offsets.
    pub(crate) fn place(&self, span: &Range<usize>) -> Option<Box<Place>> {
        let (text_number, segment) =
            self.segments.iter().enumerate().rev().find(|(_, segment)| segment.start <= span.start)?;
        let at = span.start - segment.start;
        let before = segment.text.get(..at)?;
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let rest = segment.text.get(line_start..)?;
        let text = rest.split('\n').next().unwrap_or_default().trim_end_matches('\r');
        let column = before.get(line_start..)?.chars().count() + 1;
        let end = span.end.saturating_sub(segment.start).min(line_start + text.len());
        let width = segment.text.get(at..end).map_or(0, |part| part.chars().count()).max(1);
        Some(Box::new(Place {
            origin: segment.origin.clone(),
            text_number,
            line: before.matches('\n').count() + 1,
            column,
            text: text.to_owned(),
            width,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_become_lines_and_columns_in_the_right_text() {
        let mut sources = Sources::default();
        let file = "a = 1\r\nü = \"é\"\n";
        sources.add(Origin::File("/etc/t.toml".into()), file);
        let variable = sources.add(Origin::Variable("TIDEGATE_X__Y".into()), "7");

        let at = file.find('é').unwrap();
        let place = sources.place(&(at..at + 'é'.len_utf8())).unwrap();
        assert_eq!((place.line, place.column, place.width), (2, 6, 1));
        assert_eq!(place.text, "ü = \"é\"");

        let first = sources.place(&(0..7)).unwrap();
        assert_eq!((first.line, first.column, first.width, first.text.as_str()), (1, 1, 5, "a = 1"));

        let end = sources.place(&(file.len()..file.len())).unwrap();
        assert_eq!((end.line, end.column, end.width), (3, 1, 1));

        let place = sources.place(&variable).unwrap();
        assert_eq!(place.origin, Origin::Variable("TIDEGATE_X__Y".into()));
        assert_eq!((place.line, place.column, place.text.as_str()), (1, 1, "7"));
        assert_eq!(sources.folder(), Some(Path::new("/etc")));
    }
}
