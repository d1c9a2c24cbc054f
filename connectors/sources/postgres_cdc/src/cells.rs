//! The cells of one row, as stretches of the buffer they were received in: nothing is copied or allocated per row.

/// One column's value as the server wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cell<'a> {
    /// NULL.
    Null,
    /// An unchanged TOAST value, which the server left out.
    Unchanged,
    /// The text form.
    Text(&'a [u8]),
}

/// Where a cell lies in its buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    start: u32,
    end: u32,
}

impl Span {
    pub(crate) const NULL: Self = Self { start: u32::MAX, end: 0 };
    pub(crate) const UNCHANGED: Self = Self { start: u32::MAX, end: 1 };

    /// Bytes `start..end` of the buffer, which is far smaller than 4 GiB.
    pub(crate) const fn new(start: usize, end: usize) -> Self {
        Self { start: start as u32, end: end as u32 }
    }
}

/// The cells of one row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cells<'a> {
    base: &'a [u8],
    spans: &'a [Span],
}

impl<'a> Cells<'a> {
    pub(crate) const fn new(base: &'a [u8], spans: &'a [Span]) -> Self {
        Self { base, spans }
    }

    pub(crate) const fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether a value was left out.
    pub(crate) fn has_unchanged(&self) -> bool {
        self.spans.contains(&Span::UNCHANGED)
    }

    /// Cell `index`; a column that the row does not have was not told, either.
    pub(crate) fn get(&self, index: usize) -> Cell<'a> {
        match self.spans.get(index) {
            None | Some(&Span::UNCHANGED) => Cell::Unchanged,
            Some(&Span::NULL) => Cell::Null,
            Some(span) => match self.base.get(span.start as usize..span.end as usize) {
                Some(bytes) => Cell::Text(bytes),
                None => Cell::Unchanged,
            },
        }
    }
}
