//! Payments from any CSV file: a mapping says which column is which field. Pure: readers and texts come in, payments go out.

mod mapping;
mod rows;

pub use mapping::{Mapping, MappingError};
pub use rows::{MappedRow, RowError, Rows};
