//! Writes and reads the Parquet file of a shard's samples.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use parquet::basic::Compression;
use parquet::data_type::{ByteArray, ByteArrayType, DataType, DoubleType, Int32Type, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::record::{Field, Row as Record};
use parquet::schema::parser::parse_message_type;
use parquet::schema::types::Type;
use stackelberg_shaping::Rule;

use super::columns::ShapedColumns;
use super::row::Row;
use crate::error::Error;

/// The columns. The list layout of `tokens` is that of pandas, polars and Hugging Face datasets.
const SCHEMA: &str = "
    required binary prompt_id (string);
    required int32 sample;
    required binary prompt (string);
    required binary response (string);
    required group tokens (list) { repeated group list { required int32 element; } }
    optional double reward;
    required binary finish_reason (string);
    required int64 seed;
";

/// [`SCHEMA`] with the columns of shaped rewards under these rules.
fn schema(rules: impl Iterator<Item = Rule>) -> Result<Type, ParquetError> {
    let shaped = rules.flat_map(ShapedColumns::names).map(|name| format!("optional double {name};"));
    parse_message_type(&format!("message rollouts {{ {SCHEMA} {} }}", shaped.collect::<String>()))
}

/// The bytes of a Parquet file of these rows with shaped rewards; `notes` are added to its metadata. Equal input gives
/// equal bytes.
pub(super) fn to_bytes(
    rows: &[Row],
    shaped: &[ShapedColumns],
    notes: &[(&str, String)],
) -> Result<Vec<u8>, ParquetError> {
    let note = |(key, value): &(&str, String)| KeyValue::new((*key).to_owned(), value.clone());
    let settings =
        shaped.iter().map(|columns| KeyValue::new(columns.key(), columns.settings.to_string()));
    let properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_created_by("stackelberg".to_owned())
        .set_key_value_metadata(Some(notes.iter().map(note).chain(settings).collect()))
        .build();
    let schema = Arc::new(schema(shaped.iter().map(|columns| columns.rule))?);
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties))?;
    let mut group = writer.next_row_group()?;
    let text =
        |of: fn(&Row) -> &str| -> Vec<ByteArray> { rows.iter().map(|row| of(row).into()).collect() };
    column::<ByteArrayType>(&mut group, &text(|row| &row.prompt_id), None, None)?;
    let samples: Vec<i32> = rows.iter().map(|row| row.sample as i32).collect();
    column::<Int32Type>(&mut group, &samples, None, None)?;
    column::<ByteArrayType>(&mut group, &text(|row| &row.prompt), None, None)?;
    column::<ByteArrayType>(&mut group, &text(|row| &row.response), None, None)?;
    let (mut tokens, mut there, mut goes_on) = (Vec::new(), Vec::new(), Vec::new());
    for row in rows {
        tokens.extend(row.tokens.iter().map(|&token| token as i32));
        // An empty list has one level without a value.
        there.extend((0..row.tokens.len().max(1)).map(|_| i16::from(!row.tokens.is_empty())));
        goes_on.extend((0..row.tokens.len().max(1)).map(|i| i16::from(i > 0)));
    }
    column::<Int32Type>(&mut group, &tokens, Some(&there), Some(&goes_on))?;
    optional(&mut group, rows.iter().map(|row| row.reward))?;
    column::<ByteArrayType>(&mut group, &text(|row| &row.finish_reason), None, None)?;
    // Parquet has signed integers; the bits are kept.
    let seeds: Vec<i64> = rows.iter().map(|row| row.seed as i64).collect();
    column::<Int64Type>(&mut group, &seeds, None, None)?;
    for values in shaped.iter().flat_map(ShapedColumns::values) {
        optional(&mut group, values.into_iter())?;
    }
    group.close()?;
    writer.into_inner()
}

/// Writes an optional column of doubles.
fn optional(
    group: &mut SerializedRowGroupWriter<'_, Vec<u8>>,
    values: impl Iterator<Item = Option<f64>> + Clone,
) -> Result<(), ParquetError> {
    let there: Vec<i16> = values.clone().map(|value| i16::from(value.is_some())).collect();
    column::<DoubleType>(group, &values.flatten().collect::<Vec<_>>(), Some(&there), None)
}

/// Writes a column with its definition and repetition levels.
fn column<T: DataType>(
    group: &mut SerializedRowGroupWriter<'_, Vec<u8>>,
    values: &[T::T],
    there: Option<&[i16]>,
    goes_on: Option<&[i16]>,
) -> Result<(), ParquetError> {
    let Some(mut column) = group.next_column()? else { return Ok(()) };
    column.typed::<T>().write_batch(values, there, goes_on)?;
    column.close()
}

/// The content of a Parquet file of rows.
pub(super) struct Read {
    pub(super) rows: Vec<Row>,
    pub(super) shaped: Vec<ShapedColumns>,
    /// The metadata.
    pub(super) notes: Vec<KeyValue>,
}

/// Reads a Parquet file of rows.
pub(super) fn read(path: &Path) -> Result<Read, Error> {
    let name = || path.display().to_string();
    let wrong = |problem: String| Error::Shard { file: name(), problem };
    let broken = |e: ParquetError| wrong(format!("not a whole Parquet file ({e})"));
    let file = File::open(path).map_err(|source| stackelberg_data::Error::read(path, source))?;
    let reader = SerializedFileReader::new(file).map_err(broken)?;
    let about = reader.metadata().file_metadata();
    let notes = about.key_value_metadata().cloned().unwrap_or_default();
    let columns = about.schema().get_fields();
    let has = |rule: &Rule| columns.iter().any(|c| ShapedColumns::names(*rule).any(|n| n == c.name()));
    let rules: Vec<Rule> = Rule::ALL.into_iter().filter(has).collect();
    let expected = schema(rules.iter().copied()).map_err(broken)?;
    if let Some(column) = differing(about.schema(), &expected) {
        return Err(wrong(format!(
            "its column '{column}' does not have the type of a rollout's column"
        )));
    }
    let (mut rows, mut beside) = (Vec::new(), Vec::new());
    for record in reader.get_row_iter(None).map_err(broken)? {
        let (row, shaped) = row_of(record.map_err(broken)?);
        let (id, sample) = (&row.prompt_id, row.sample);
        if let Some(reward) = row.reward.filter(|reward| !reward.is_finite()) {
            return Err(wrong(format!("the reward of sample {sample} of prompt '{id}' is {reward}")));
        }
        rows.push(row);
        beside.push(shaped);
    }
    let shaped = ShapedColumns::read(&rules, &beside, &notes).map_err(wrong)?;
    Ok(Read { rows, shaped, notes })
}

/// The first column that differs between two schemas.
fn differing(found: &Type, expected: &Type) -> Option<String> {
    let (found, expected) = (found.get_fields(), expected.get_fields());
    let longest = found.len().max(expected.len());
    let at = (0..longest).find(|&i| found.get(i) != expected.get(i))?;
    expected.get(at).or(found.get(at)).map(|column| column.name().to_owned())
}

/// The row of a record with the columns of [`SCHEMA`], and the values of all further columns.
fn row_of(record: Record) -> (Row, Vec<Option<f64>>) {
    let mut fields = record.into_columns().into_iter().map(|(_, field)| field);
    let mut next = || fields.next().unwrap_or(Field::Null);
    let row = Row {
        prompt_id: text(next()),
        sample: whole(&next()) as u32,
        prompt: text(next()),
        response: text(next()),
        tokens: match next() {
            Field::ListInternal(list) => list.elements().iter().map(|t| whole(t) as u32).collect(),
            _ => Vec::new(),
        },
        reward: number(&next()),
        finish_reason: text(next()),
        seed: whole(&next()) as u64,
    };
    (row, fields.map(|field| number(&field)).collect())
}

fn number(field: &Field) -> Option<f64> {
    match field {
        Field::Double(number) => Some(*number),
        _ => None,
    }
}

fn text(field: Field) -> String {
    match field {
        Field::Str(text) => text,
        _ => String::new(),
    }
}

fn whole(field: &Field) -> i64 {
    match field {
        Field::Int(number) => i64::from(*number),
        Field::Long(number) => *number,
        _ => 0,
    }
}
