//! Reads Parquet files of other programs as JSON values, row by row.

use std::fs::File;
use std::path::Path;

use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use parquet::schema::types::{Type, TypePtr};
use serde_json::Value;

use super::foreign::FIELDS;
use crate::error::Error;

/// Whether the first bytes of a file are those of Parquet.
pub(super) fn is_parquet(path: &Path) -> bool {
    let mut magic = [0; 4];
    let read = |mut file: File| std::io::Read::read_exact(&mut file, &mut magic);
    path.is_file() && File::open(path).and_then(read).is_ok() && magic == *b"PAR1"
}

/// Calls `take` for each row with the metadata value of `key`, the row's number from 1, and a JSON object of the
/// columns in [`FIELDS`].
pub(super) fn read(
    path: &Path,
    key: &str,
    mut take: impl FnMut(Option<&str>, usize, Value) -> Result<(), Error>,
) -> Result<(), Error> {
    let name = || path.display().to_string();
    let broken = |e: ParquetError| {
        let said = e.to_string();
        let problem = match said.split_once("Disabled feature at compile time: ") {
            Some((_, codec)) => {
                format!("compressed with {codec}, which is not supported: use snappy, gzip or zstd")
            }
            None => format!("not a whole Parquet file ({said})"),
        };
        Error::Dataset { file: name(), problem }
    };
    let file = File::open(path).map_err(|source| stackelberg_data::Error::read(path, source))?;
    let reader = SerializedFileReader::new(file).map_err(broken)?;
    let about = reader.metadata().file_metadata();
    let notes = about.key_value_metadata().into_iter().flatten();
    let note = notes.filter(|note| note.key == key).find_map(|note| note.value.as_deref());
    // Other columns can have unsupported types.
    let known = |column: &&TypePtr| FIELDS.contains(&column.name());
    let columns: Vec<TypePtr> = about.schema().get_fields().iter().filter(known).cloned().collect();
    let schema = Type::group_type_builder(about.schema().name()).with_fields(columns);
    let schema = schema.build().map_err(broken)?;
    if schema.get_fields().is_empty() {
        let problem = "no column has a known name: at least prompt and response are needed".to_owned();
        return Err(Error::Dataset { file: name(), problem });
    }
    for (row, record) in (1..).zip(reader.get_row_iter(Some(schema)).map_err(broken)?) {
        let columns = record.map_err(broken)?.into_columns();
        take(note, row, Value::Object(columns.into_iter().map(|(name, f)| (name, value(f))).collect()))?;
    }
    Ok(())
}

/// A column's value. Values that JSON cannot represent become strings.
fn value(field: Field) -> Value {
    match field {
        Field::Null => Value::Null,
        Field::Bool(truth) => truth.into(),
        Field::Byte(number) => number.into(),
        Field::Short(number) => number.into(),
        Field::Int(number) => number.into(),
        Field::Long(number) => number.into(),
        Field::UByte(number) => number.into(),
        Field::UShort(number) => number.into(),
        Field::UInt(number) => number.into(),
        Field::ULong(number) => number.into(),
        Field::Float16(number) => real(number.to_f64()),
        Field::Float(number) => real(number.into()),
        Field::Double(number) => real(number),
        Field::Str(text) => text.into(),
        // Some writers do not mark text columns as such.
        Field::Bytes(bytes) => match std::str::from_utf8(bytes.data()) {
            Ok(text) => text.into(),
            Err(_) => bytes.data().into(),
        },
        Field::ListInternal(list) => list.elements().iter().cloned().map(value).collect(),
        Field::Group(row) => {
            Value::Object(row.into_columns().into_iter().map(|(name, f)| (name, value(f))).collect())
        }
        other => other.to_string().into(),
    }
}

fn real(number: f64) -> Value {
    match serde_json::Number::from_f64(number) {
        Some(number) => Value::Number(number),
        None => number.to_string().into(),
    }
}
